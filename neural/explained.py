"""What a network does instead of the optimum: how much of its deviation each theory accounts for, by noise level.

At x = x0 + σ ε, or where the network itself goes, with F the network, D the optimum of its data and T a theory:

    accounted       1 − E‖F − T‖²/E‖F − D‖²: 1 for a theory that is the network, 0 for one that is as far from it as the
                    optimum is, negative for one that is farther
    direction       E⟨F − D, T − D⟩/√(E‖F − D‖² E‖T − D‖²): whether the theory leaves the optimum to the same side;
                    its square is the most that T accounts for if moved along its line with D by one factor; with
                    intervals for few draws that carry it (`neural.direction`)
    gap_share       E‖F − T‖²/E‖D − ȳ‖²; for T = D what there is to explain
    explained_variance, r_square, pearson
                    as published, of F held to T (`neural.published`), for every theory and for the optimum itself

All theories are asked at the same draws, so that differences between them are differences of pairs. A theory that was
fitted to the network, as a window to its answers, must have been so on other draws. Shares are of what is there: where
network and optimum agree to rounding there is nothing to account for, and the level says so.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from optimal import OptimalDenoiser
from optimal.border import Border
from optimal.denoiser import Denoiser
from optimal.intervals import (
    Interval,
    mean_interval,
    median_interval,
    positive_interval,
)
from optimal.query import Levels

from .direction import direction_interval
from .measures import evaluate, save_table
from .places import On, placed
from .published import coefficients
from .sides import network_of, require_optimum
from .theories import theories_of
from .verdict import LEAST, LITTLE, OPTIMUM, Verdict, nearest_of, whole_percent

__all__ = ["LEAST", "LITTLE", "OPTIMUM", "Explained", "Held", "explain", "nearest_of"]

_AGREES = 1e-6
"""Share of the gap, E‖F − D‖²/E‖D − ȳ‖², below which it is float32's rounding."""
_ROUNDED = 1e-13
"""The same of E‖T − D‖²: a theory that is the optimum but for rounding leaves it to no side."""


@dataclass(frozen=True)
class Held:
    """The network held to one theory at one noise level.

    Attributes:
        sigma: the level.
        theory: its name; "optimum" for the optimum.
        columns: name -> value and interval, the names of the module.
        misses: ‖F − T‖² of every draw, (n,) float64.
    """

    sigma: float
    theory: str
    columns: dict[str, Interval]
    misses: Tensor = field(repr=False)


@dataclass(frozen=True)
class Explained:
    """A network held to theories at each noise level.

    Attributes:
        held: a `Held` for every level and theory, level by level, the optimum first.
        on: "data", "held-out" or "trajectory".
        draws: points x at each level.
        level: of the intervals.
        border: of the data; None where it was not looked for, the levels being given.
        name: of the network.
    """

    held: tuple[Held, ...]
    on: str
    draws: int
    level: float
    border: Border | None
    name: str

    @property
    def sigmas(self) -> list[float]:
        return sorted({each.sigma for each in self.held})

    @property
    def theories(self) -> list[str]:
        """Their names, without the optimum."""
        return [name for name in dict.fromkeys(each.theory for each in self.held) if name != OPTIMUM]

    def at(self, sigma: float, theory: str) -> Held:
        """Of one theory at one level.

        Raises:
            ValueError: it was not held to the network there.
        """
        for each in self.held:
            if (each.sigma, each.theory) == (sigma, theory):
                return each
        levels = ", ".join(f"{level:g}" for level in dict.fromkeys(each.sigma for each in self.held))
        names = ", ".join(dict.fromkeys(each.theory for each in self.held))
        raise ValueError(f"there is no {theory!r} at sigma = {sigma:g}: theories are {names}; levels {levels}")

    def rows(self) -> list[dict[str, Any]]:
        """One flat row a level and theory: method, on, sigma, theory, accounted, accounted_low, accounted_high, …"""
        rows: list[dict[str, Any]] = []
        for each in self.held:
            row: dict[str, Any] = {"method": self.name, "on": self.on, "sigma": each.sigma, "theory": each.theory}
            for name, column in each.columns.items():
                row |= column.flat(name)
            rows.append(row)
        return rows

    def best(self, sigma: float) -> tuple[list[str], Held]:
        """The theories that no other is surely nearer to the network than, the nearest first; and the nearest.

        As for `nearest_of`, by ‖F − T‖². The optimum is among them where no theory is surely nearer.
        """
        tied = nearest_of({name: self.at(sigma, name).misses for name in (OPTIMUM, *self.theories)}, self.level)
        return tied, self.at(sigma, tied[0])

    def share_of_nearest(self, sigma: float) -> Interval:
        """What the nearest theory accounts for, with an interval that holds though it was chosen by the same draws.

        That of a theory named beforehand is `accounted`; here each of the K that were candidates has the K-th part of
        what may go wrong.
        """
        each = 1 - (1 - self.level) / (1 + len(self.theories))
        return _accounted(self.best(sigma)[1].misses, self.at(sigma, OPTIMUM).misses, each)

    def verdict(self, sigma: float) -> Verdict:
        """Which theory is nearest at a level, if any: what sentences and tables say.

        Two intervals bear on whether it is nearer than the optimum, of the difference and of the share, and may differ
        where few draws carry either. Both have to say so: else the optimum is among the names, and 0 in the share.
        """
        names, share = self.best(sigma)[0], self.share_of_nearest(sigma)
        if not float(share.low) > 0 and OPTIMUM not in names:
            names.append(OPTIMUM)
        if OPTIMUM in names:
            share = Interval(share.value, share.low.clamp(max=0), share.high.clamp(min=0))
        if float(self.at(sigma, OPTIMUM).columns["gap_share"].value) < LEAST:
            return Verdict("optimum", tuple(names), share)
        return Verdict("nearest" if float(share.low) >= LITTLE else "none", tuple(names), share)

    def sentences(self) -> list[str]:
        """Which theory is nearest where, levels that have the same answer together; from high noise to low."""
        groups: list[tuple[list[float], list[Verdict]]] = []
        for sigma in reversed(self.sigmas):
            found = self.verdict(sigma)
            if groups and groups[-1][1][0].words == found.words:
                groups[-1][0].append(sigma)
                groups[-1][1].append(found)
            else:
                groups.append(([sigma], [found]))
        return [f"{self.name} on {self.on}, {_where(sigmas, same)}: {same[0].words}" for sigmas, same in groups]

    def save(self, path: str | Path) -> None:
        """Write path.csv and path.json.

        Raises:
            ValueError: the folder cannot be written.
        """
        about: dict[str, Any] = {"on": self.on, "draws": self.draws, "level": self.level}
        save_table(self.rows(), path, about | {"sentences": self.sentences()})


def explain(
    model: Denoiser,
    D: OptimalDenoiser,
    theories: Mapping[str, Denoiser] | None = None,
    *,
    on: On = None,
    sigmas: Levels | None = None,
    draws: int = 512,
    seed: int = 0,
    labels: Any = None,
    level: float = 0.95,
    progress: bool = False,
) -> Explained:
    """F held to every theory, and to the optimum, at the same draws.

    Args:
        model: F, any denoiser; a `Model` says its range, its name and its labels.
        D: the optimum of the data that the network was trained on.
        theories: name -> denoiser: those of `optimal.theories`, `neural.theories_of`, or any other; those that the data
            allow, fitted to the network where it is asked, unless given.
        on, sigmas, draws, seed, labels, level, progress: as for `neural.measure`.

    Raises:
        ValueError: no theory, or one named "optimum"; an answer of another shape or not finite; as for
            `neural.measure`.
    """
    require_optimum(D)
    model = network_of(model)
    if theories is not None and (not theories or OPTIMUM in theories):
        raise ValueError(f"theories must be at least one, none of them named {OPTIMUM}, got {', '.join(theories) or 0}")
    asked = placed(model, D, on, sigmas, draws=draws, seed=seed, labels=labels, level=level, progress=progress)
    if theories is None:
        if labels is not None:
            raise ValueError("theories must be given where labels are: they are fitted without")
        options: dict[str, Any] = {"trajectory": asked.on == "trajectory", "seed": seed, "progress": progress}
        theories = theories_of(model, D, sigmas=asked.levels, **options)
    held: list[Held] = []
    bar = tqdm(asked.places, total=len(asked.levels), desc="explain", unit="level", leave=False, disable=not progress)
    for sigma, x, answer, _ in bar:
        best = evaluate(D, x, sigma).double().flatten(1)
        f = _finite(answer, getattr(model, "name", "the network"), sigma)
        for name, theory in {OPTIMUM: D, **theories}.items():
            t = best if name == OPTIMUM else _finite(evaluate(theory, x, sigma), name, sigma)
            held.append(_held(sigma, name, f, best, t, D.mean.flatten().to(f), level))
    held.sort(key=lambda each: each.sigma)
    return Explained(tuple(held), asked.on, draws, level, asked.border, str(getattr(model, "name", "network")))


def _finite(answer: Tensor, name: str, sigma: float) -> Tensor:
    if not torch.isfinite(answer).all():
        raise ValueError(f"the answer of {name} is not finite at σ = {sigma:.3g}")
    return answer.double().flatten(1)


def _held(sigma: float, name: str, f: Tensor, d: Tensor, t: Tensor, mean: Tensor, level: float) -> Held:
    misses, gap, spread = ((a - b).square().sum(1) for a, b in ((f, t), (f, d), (d, mean)))
    left, aside = (f - d), (t - d)
    agreed = coefficients(f, t)
    columns = {
        "accounted": _accounted(misses, gap, level),
        "direction": direction_interval((left * aside).sum(1), gap, aside.square().sum(1), level),
        "gap_share": positive_interval(misses, spread, level),
        "explained_variance": mean_interval(agreed["explained"], level).within(high=1),
        "r_square": mean_interval(agreed["r_square"], level).within(high=1),
        "pearson": median_interval(agreed["pearson"], level),
    }
    nothing = Interval(*(misses.new_tensor(math.nan) for _ in range(3)))
    if float(gap.sum()) <= _AGREES * float(spread.sum()):
        columns |= {"accounted": nothing, "direction": nothing}
    elif float(aside.square().sum()) <= _ROUNDED * float(spread.sum()):
        columns["direction"] = nothing
    return Held(sigma, name, columns, misses)


def _accounted(misses: Tensor, gap: Tensor, level: float) -> Interval:
    """1 − E‖F − T‖²/E‖F − D‖², of the squares of the same draws."""
    left = positive_interval(misses, gap, level)
    return Interval(1 - left.value, 1 - left.high, 1 - left.low)


def _where(sigmas: list[float], found: list[Verdict]) -> str:
    """Levels, from high to low, and what the nearest accounts for there."""
    where = f"σ = {max(sigmas):.3g}" + (f" to {min(sigmas):.3g}" if len(sigmas) > 1 else "")
    if found[0].kind != "nearest":
        return where
    low, high = min(float(each.share.low) for each in found), max(float(each.share.high) for each in found)
    return f"{where} ({whole_percent(low, high)} of the deviation accounted for)"
