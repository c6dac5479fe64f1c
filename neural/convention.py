"""Before measuring: is the network asked in its own convention?

A network that is asked in another one answers with plausible numbers. But two answers are to be had without any
network, x itself and the mean of the data, and one that was trained at all is no worse than either:

    E‖F(x, σ) − x0‖² <= E‖x − x0‖² = σ² dim   at small σ,      E‖F(x, σ) − x0‖² <= E‖ȳ − x0‖²   at large σ

with x = x0 + σ ε on the data. Where that fails, the network is asked again in the other conventions of
`neural.adapters`, and at other multiples of σ, and the one with the least gap to the optimum at levels between is named
of those that do not fail. A network that beats both answers somewhere as asked is in no wrong convention unless that
gap is less by a quarter in the other one, and than that of a line; it may have been trained on other data. So is the
optimum of half of the data, which fails at small σ.

A σ in another unit, F(x, 2σ), passes at both ends, where little depends on σ. So a network that passes is held to the
optimum between, too, and asked at 2σ, σ/2, 10σ and σ/10 where its gap is not small.

All this is a question, not a verdict: a network that was hardly trained may fail, and one that passes may still be
asked a little beside its steps.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from optimal import OptimalDenoiser
from optimal.denoiser import Denoiser
from optimal.draws import draw_indexed
from optimal.process import EDM, VP
from optimal.randomness import stream

from .adapters import Adapted, from_ddpm, from_edm, from_edm_raw, from_flow, from_prediction
from .model import Model, open_model

__all__ = ["conventions", "question", "sanity"]

_BELOW, _ABOVE = 0.1, 10.0
"""The two levels over the data's standard deviation, within the network's range."""
_WORSE = 1.05
"""Share of the trivial risk above which it is worse: a good network may lose a little to the mean at large σ."""
_BETWEEN = (0.2, 0.5, 1.0, 2.0, 5.0)
"""Further levels over the data's standard deviation, at which the gap is taken."""
_CLEARLY, _LESS = 1 / 3, 3 / 4
"""Gap in another convention over that in its own, below which that is better: where its own passes, and where not."""
_SMALL = 0.01
"""Mean share of the gap below which no unit of sigma is questioned: the optimum of digits at sigma/2 has 0.02."""
_SKILL = 0.95
"""Share of the trivial risk below which a network knows something of the data."""
_UNITS = (2.0, 0.5, 10.0, 0.1)
_DRAWS = 64


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

    def risks(self, F: Denoiser) -> list[float]:
        """E‖F − x0‖² at both ends over the trivial risk there; inf where it is no number."""
        pairs = zip(self.levels, self.trivial, strict=True)
        return [_finite(_mean_square(self._asked(F, level) - self.x0) / trivial) for level, trivial in pairs]

    def share(self, F: Denoiser) -> float:
        """E‖F − D‖² over the smaller of the trivial risks, its mean over the levels between."""
        found = [
            _mean_square(self._asked(F, level) - best.to(self.x0)) / min(self.near, self._noise(level))
            for level, best in zip(self.between, self.best, strict=True)
        ]
        return _finite(sum(found) / len(found))

    def linear(self, D: OptimalDenoiser) -> float:
        """The share of ȳ + (x − ȳ) s²/(s² + σ²), which knows the data's mean and deviation s alone."""
        centre = D.mean.to(self.x0)

        def answer(x: Tensor, sigma: float) -> Tensor:
            return centre + (x - centre) * (self.near / (self.near + self._noise(sigma)))

        return self.share(answer)  # pyright: ignore[reportArgumentType]

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


@dataclass(frozen=True)
class _Scaled:
    """A denoiser asked at a multiple of sigma."""

    denoiser: Denoiser
    factor: float

    def __call__(self, x: Tensor, sigma: Any) -> Tensor:
        return self.denoiser(x, self.factor * sigma)


def sanity(model: Denoiser, D: OptimalDenoiser, *, labels: Any = None, seed: int = 0) -> str | None:
    """One line where a network answers worse than it could without being asked, None where it does not.

    Args:
        model: what `neural.open_model` takes in memory, or a `Model`. The other conventions are those of its network.
        D: the optimum of the data.
        labels: class labels, where the network wants them: one for all rows, or one for each point of D.
        seed: of the 64 draws.

    Returns:
        None for students and consistency functions, too, which answer with points; else
        "worse than returning x at sigma = …" or "worse than the mean of the data at sigma = …: is this the right
        convention?", with the convention that fits best among those tried, or "or was it trained on other data?"; or
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
    line = f"worse than {' and than '.join(worse)}: is this the right convention"
    tried, skilled = dict(_others(asked, D, draws)), draws.skilled(asked)
    best = min(tried, key=tried.__getitem__, default="")
    # What fits at the ends by chance is no better between than a network in its own convention, or than a line.
    if tried.get(best, math.inf) < (_LESS * min(own, draws.linear(D)) if skilled else math.inf):
        return f"{line}? {best} fits best of {len(tried)} others that were tried"
    other = ", or was it trained on other data" if skilled else ""
    return f"{line}{other}? none of {len(tried)} others that were tried fits"


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
    for factor in _UNITS:
        other = dataclasses.replace(asked, denoiser=_Scaled(asked.denoiser, factor), sigma_min=0.0, sigma_max=math.inf)
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
    best = tuple(D(x0 + level * eps, level) for level in between)
    return _Draws(x0, eps, levels, trivial, between, best, near)


def _others(model: Model, D: OptimalDenoiser, draws: _Draws) -> Iterator[tuple[str, float]]:
    """The share of the gap in every other convention in which the network can be asked; inf where it fails, too."""
    for name, make in conventions(model.denoiser, D):
        try:
            other = dataclasses.replace(model, denoiser=make(), sigma_min=0.0, sigma_max=math.inf, clip=None)
            yield name, draws.share(other) if max(draws.risks(other)) <= _WORSE else math.inf
        except ValueError:
            continue  # It cannot be asked so.


def conventions(denoiser: Any, D: OptimalDenoiser) -> Iterator[tuple[str, Callable[[], Denoiser]]]:
    """The conventions in which the network of a denoiser can be asked, by the line that says so.

    Args:
        denoiser: what an adapter made, a module, or a function, which is then taken for a network.
        D: the optimum of the data; its standard deviation is one of the σ_d that are tried.
    """
    adapted = isinstance(denoiser, Adapted)
    network: Any = denoiser.asked.network if adapted else denoiser
    options: dict[str, Any] = denoiser.asked.arguments | {"order": denoiser.asked.order} if adapted else {}
    kept = torch.cumprod(1 - torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64), 0)
    for kind in ("eps", "v", "x0"):
        name = f'from_ddpm(net, alphas_cumprod, "{kind}")'
        yield name, functools.partial(from_ddpm, network, kept, kind, **options)
    for scale in (1, 1000):
        for at in (0, 1):
            said = "".join([", data_at=1" if at else "", f", time_scale={scale}" if scale > 1 else ""])
            yield (
                f"from_flow(net{said})",
                functools.partial(from_flow, network, data_at=at, time_scale=scale, **options),
            )
    for factor in _UNITS:
        yield f"{factor:g} sigma", functools.partial(_Scaled, denoiser, factor)
    yield "from_edm(net)", functools.partial(from_edm, network, **options)
    for size in sorted({0.5, 1.0, round(float(D.standard_deviation), 3) or 1.0}):
        name = f"from_edm_raw(net, sigma_data={size:g})"
        yield name, functools.partial(from_edm_raw, network, sigma_data=size, **options)
    for process, said in ((VP(), "VP()"), (EDM(math.inf), "EDM(math.inf)")):
        for kind in ("eps", "score"):
            name = f'from_prediction(net, "{kind}", process={said})'
            yield name, functools.partial(from_prediction, network, kind, process=process, **options)
