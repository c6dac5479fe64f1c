"""Before measuring: is the network asked in its own convention?

A network that is asked in another one answers with plausible numbers. But two answers are to be had without any
network, x itself and the mean of the data, and one that was trained well is no worse than either:

    E‖F(x, σ) − x0‖² <= E‖x − x0‖² = σ² dim   at small σ,      E‖F(x, σ) − x0‖² <= E‖ȳ − x0‖²   at large σ

with x = x0 + σ ε on the data. Where that fails, the network is asked again in the other conventions of
`neural.spoken`, at other multiples of σ and for other ranges of values, and each is given its

    score = mean over seven levels of r/(1 + r),      r = E‖F − D‖²/min(σ² dim, E‖ȳ − x0‖²)

to the optimum D: 0 for D itself, at most 1 however far an answer is, so that no single level decides. One that fails
may be in its own convention all the same: of a network that predicts ε the error in x0 grows with σ, and after a short
training it is worse than the mean at the highest levels. So two things are said apart: that another convention fits,
where its score is clearly less than the own one, or that none does, where the network, better than both of the answers
above somewhere, is far from the optimum at these levels whatever it is called with. It was hardly trained then, or on
other data, as is the optimum of half of them.

A σ in another unit, F(x, 2σ), passes at both ends, where little depends on σ. So a network that passes is held to the
optimum between, too, and asked at 2σ, σ/2, 10σ and σ/10 where its gap is not small.

All this is a question, not a verdict: one that passes may still be asked a little beside its steps. Measured on digits:
no shipped network is questioned. Of the optimum spoken in each of 15 conventions and asked in each, every one passes in
its own and is named in every other. Of a small network trained in each of seven for 20, 100, 500 and 3,000 steps and
asked in all, none passes in a wrong one; its own is named in 6, 32, 29 and 36 of 42. In their own 2, 1, 0 and 0 of 7
are told that another one fits, and 3, 4, 5 and 3 that they are far from the optimum. (One seed; counted before what
fits had also to beat a linear answer, and another multiple of σ to be three times better.)
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from optimal import OptimalDenoiser
from optimal.denoiser import Denoiser
from optimal.draws import draw_indexed
from optimal.randomness import stream

from .model import Model, open_model
from .places import range_of
from .sides import require_optimum
from .spoken import UNITS, Multiple, conventions

__all__ = ["question", "sanity"]

_BELOW, _ABOVE = 0.1, 10.0
"""The two levels over the data's standard deviation, within the network's range."""
_WORSE = 1.05
"""Share of the trivial risk above which it is worse: a good network may lose a little to the mean at large σ."""
_BETWEEN = (0.2, 0.5, 1.0, 2.0, 5.0)
"""Further levels over the data's standard deviation, at which the gap is taken."""
_CLEARLY = 1 / 3
"""Gap at another multiple of sigma over that at its own, below which that is better."""
_LESS, _FITS = 0.8, 0.55
"""Score of another convention over that of its own, below which that is better, and above which none fits; of another
multiple of sigma `_CLEARLY`."""
_TOLD = 0.01
"""Less of the score than is told apart."""
_SMALL = 0.01
"""Mean share of the gap below which no unit of sigma is questioned: the optimum of digits at sigma/2 has 0.02."""
_SKILL = 0.95
"""Share of the trivial risk below which a network knows something of the data."""
_DRAWS, _FIRST, _LAST = 64, 16, 4
"""Draws; those that all conventions are asked first, and how many of these are asked the rest."""


@dataclass(frozen=True)
class _Draws:
    """x0 and ε at some levels, the risks of the two answers that need no network, and the optimum's answers."""

    x0: Tensor
    eps: Tensor
    levels: tuple[float, ...]
    trivial: tuple[float, ...]
    between: tuple[float, ...]
    best: tuple[Tensor, ...]
    near: float

    def first(self, rows: int) -> _Draws:
        """Fewer of them."""
        best = tuple(each[:rows] for each in self.best)
        return dataclasses.replace(self, x0=self.x0[:rows], eps=self.eps[:rows], best=best)

    def risks(self, F: Denoiser) -> list[float]:
        """E‖F − x0‖² at both ends over the trivial risk there; inf where it is no number."""
        pairs = zip(self.levels, self.trivial, strict=True)
        return [_finite(_mean_square(self._asked(F, level) - self.x0) / trivial) for level, trivial in pairs]

    def share(self, F: Denoiser) -> float:
        """E‖F − D‖² over the smaller of the trivial risks, its mean over the levels between."""
        found = self._shares(F)[len(self.levels) :]
        return sum(found) / len(found)

    def score(self, F: Denoiser) -> float:
        """Of the module, 0 to 1."""
        found = [1 - 1 / (1 + share) for share in self._shares(F)]
        return sum(found) / len(found)

    def within(self, low: float, high: float) -> _Draws:
        """At the levels alone that a convention has, of which the lowest is always one."""
        kept = [i for i, level in enumerate((*self.levels, *self.between)) if low <= level <= high] or [0]
        ends, inner = ([i for i in kept if (i < 2) == end] for end in (True, False))
        return dataclasses.replace(
            self,
            levels=tuple(self.levels[i] for i in ends),
            trivial=tuple(self.trivial[i] for i in ends),
            between=tuple(self.between[i - 2] for i in inner),
            best=tuple(self.best[i] for i in kept),
        )

    def _shares(self, F: Denoiser) -> list[float]:
        return [
            _finite(_mean_square(self._asked(F, level) - best.to(self.x0)) / min(self.near, self._noise(level)))
            for level, best in zip((*self.levels, *self.between), self.best, strict=True)
        ]

    def linear(self, D: OptimalDenoiser) -> float:
        """The score of ȳ + (x − ȳ) s²/(s² + σ²), which knows the data's mean and deviation s alone."""
        centre = D.mean.to(self.x0)

        def answer(x: Tensor, sigma: float) -> Tensor:
            return centre + (x - centre) * (self.near / (self.near + self._noise(sigma)))

        return self.score(answer)  # pyright: ignore[reportArgumentType]

    def skilled(self, F: Denoiser) -> bool:
        """Whether it is better than both of these answers somewhere."""
        found = [
            _mean_square(self._asked(F, level) - self.x0) / min(self.near, self._noise(level))
            for level in (*self.levels, *self.between)
        ]
        return min(found) < _SKILL

    def _asked(self, F: Denoiser, level: float) -> Tensor:
        return F(self.x0 + level * self.eps, level)

    def _noise(self, level: float) -> float:
        return level**2 * _mean_square(self.eps)


def _mean_square(x: Tensor) -> float:
    """E‖x‖²."""
    return float(x.double().flatten(1).square().sum(1).mean())


def _finite(value: float) -> float:
    return value if math.isfinite(value) else math.inf


def sanity(model: Denoiser, D: OptimalDenoiser, *, labels: Any = None, seed: int = 0) -> str | None:
    """One line where a network answers worse than it could without being asked, None where it does not.

    Args:
        model: what `neural.open_model` takes in memory, or a `Model`. The other conventions are those of its network.
        D: the optimum of the data.
        labels: class labels, where the network wants them: one for all rows, or one for each point of D.
        seed: of the 64 draws.

    Returns:
        None for students and consistency functions, too, which answer with points. Else "worse than returning x at
        sigma = …" or "worse than the mean of the data at sigma = …", with either "is this the right convention?" and
        the one that fits best, or that none fits clearly better and the network is far from the optimum there; or
        "nearer to the optimum where it is asked at 2 sigma …: is sigma in the right unit?".

    Raises:
        ValueError: the network fails; it is asked at points of another shape; labels of another number.

    Example:
        >>> from optimal import load
        >>> D = OptimalDenoiser(load("two-points"))
        >>> sanity(D, D) is None
        True
        >>> sanity(lambda x, sigma: x - D(x, sigma), D).partition(" at ")[0]    # the noise, not x0
        'worse than returning x'
    """
    require_optimum(D)
    asked = model if isinstance(model, Model) else open_model(model)
    if asked.meant is not None or getattr(asked.denoiser, "jumps", False):
        return None
    asked.require_event(D.event, "the data")
    index, x0, eps = draw_indexed(D, None, _DRAWS, stream(seed, "queries"))
    asked = asked if labels is None else asked.given(_of_rows(labels, len(D), index))
    draws = _at_levels(asked, D, x0, eps)
    found = draws.risks(asked)
    low, high = draws.levels
    complaints = (f"returning x at sigma = {low:.3g}", f"the mean of the data at sigma = {high:.3g}")
    worse = [what for what, risk in zip(complaints, found, strict=True) if risk > _WORSE]
    own = draws.share(asked)
    if not worse:
        return _unit(asked, draws, own)
    line, score = f"worse than {' and than '.join(worse)}", draws.score(asked)
    tried, count = _others(asked, D, draws)
    best, skilled = min(tried, key=tried.__getitem__, default=""), draws.skilled(asked)
    # What fits by chance is no better than the network in its own convention, or than a line.
    less = _CLEARLY if best.endswith(" sigma") else _LESS
    if tried.get(best, math.inf) < min(less * (min(score, draws.linear(D)) if skilled else score), _FITS):
        return f"{line}: is this the right convention? {best} fits best of {count} others that were tried"
    if score < _FITS and skilled:
        little = f" ({best} does by little)" if tried.get(best, math.inf) < score * (1 - _TOLD) else ""
        return (
            f"{line}, and none of {count} other conventions that were tried fits clearly better{little}: it is far "
            "from the optimum there, hardly trained or trained on other data"
        )
    return f"{line}: is this the right convention? none of {count} others that were tried fits"


def _unit(asked: Model, draws: _Draws, own: float) -> str | None:
    """The line of a network that is asked at sigma in another unit than it was trained in."""
    if not _SMALL < own < math.inf:
        return None
    shares = dict(_scaled(asked, draws))
    best = min(shares, key=shares.__getitem__, default=1.0)
    if shares.get(best, math.inf) >= _CLEARLY * own:
        return None
    times = f"{own / shares[best]:.2g} times" if shares[best] > own / 1000 else "1000 times or more"
    return f"nearer to the optimum where it is asked at {best:g} sigma, {times}: is sigma in the right unit?"


def _scaled(asked: Model, draws: _Draws) -> Iterator[tuple[float, float]]:
    """Factors of sigma, and the share of the gap between."""
    for factor in UNITS:
        other = dataclasses.replace(asked, denoiser=Multiple(asked.denoiser, factor), sigma_min=0.0, sigma_max=math.inf)
        with contextlib.suppress(ValueError):
            yield factor, draws.share(other)


def question(models: Sequence[Model], D: OptimalDenoiser, say: Callable[[str], object], *, seed: int = 0) -> None:
    """Say the `sanity` line of each model that has one, as a warning."""
    for model in models:
        line = sanity(model, D, seed=seed)
        if line is not None:
            say(f"warning: {model.name} is {line}")


def _of_rows(labels: Any, size: int, index: Tensor) -> Tensor:
    values = torch.as_tensor(labels)
    if values.ndim == (1 if values.is_floating_point() else 0):
        return values
    if len(values) != size:
        raise ValueError(f"labels must be one for all, or one a point, {size} of them, got {len(values)}")
    return values[index.to(values.device)]


def _at_levels(model: Model, D: OptimalDenoiser, x0: Tensor, eps: Tensor) -> _Draws:
    size = float(D.standard_deviation) or 1.0
    levels, between = (
        tuple(min(max(share * size, model.sigma_min), model.sigma_max) for share in shares)
        for shares in ((_BELOW, _ABOVE), _BETWEEN)
    )
    near = max(_mean_square(x0 - D.mean.to(x0)), torch.finfo(torch.float64).tiny)
    # Where its range ends early, the better of the two answers is not the one that the line names.
    trivial = tuple(min(level**2 * _mean_square(eps), near) for level in levels)
    best = tuple(D(x0 + level * eps, level) for level in (*levels, *between))
    return _Draws(x0, eps, levels, trivial, between, best, near)


def _others(model: Model, D: OptimalDenoiser, draws: _Draws) -> tuple[dict[str, float], int]:
    """The scores of the best of the other conventions in which the network can be asked, and how many these are."""
    first = draws.first(_FIRST)
    found: dict[str, tuple[float, Model, tuple[float, float]]] = {}
    for name, make in conventions(model.denoiser, D):
        # It cannot be asked so; or what it is asked looks odd.
        with contextlib.suppress(ValueError), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            made = make()
            own = range_of(made)
            # Of bytes, a table's highest level is that of data in [-1, 1] over 127.5.
            other = dataclasses.replace(model, denoiser=made, sigma_min=0.0, sigma_max=math.inf, clip=None)
            found[name] = first.within(*own).score(other), other, own
    best = sorted(found, key=lambda name: found[name][0])[:_LAST]
    return {name: draws.within(*found[name][2]).score(found[name][1]) for name in best}, len(found)
