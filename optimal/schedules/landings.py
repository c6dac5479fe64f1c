"""Grids for the end: as few trajectories as can be end on another data point than the exact flow takes them to.

A sampler of the optimum ends on a data point, and the exact flow from the same start on one, too; which share of starts
has another is what a grid gets wrong, and it can be counted, without any model of the error. Where a sampler is to go
down to a level above 0 only, the exact flow leads on from where it is there, and what counts is again the end.

What is designed on some starts (`landings_grid`) is judged on others: `wrong_landings`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ..denoiser import OptimalDenoiser
from ..flow import FlowMap
from ..numbers import require_whole
from ..randomness import stream
from ..samplers import FromGaussian, Solver, State, solver_of, trajectory
from ..schedule import grid
from ..span import FewPoints, few_points
from .coordinates import solver_on
from .curve import probabilities_of, start_level
from .gaussian import require_flowing

__all__ = ["Landed", "Starts", "begun", "landed_right", "starts_of", "wrong_landings"]


@dataclass(frozen=True)
class Starts:
    """Starts at one level, and where the exact flow takes them.

    Attributes:
        D: the denoiser that is sampled: in coordinates of the points' span where these are few.
        x: (B, *event) float64, at `sigma`.
        sigma: their level.
        index: (B,) int64, the point of D of each; the first of its copies.
        log_prior: (B,) float64, log of its probability, its copies counted.
        undecided: how many more there were whose end no certificate decided.
        span: whose coordinates x are; None where the points are not few.
    """

    D: OptimalDenoiser
    x: Tensor
    sigma: float
    index: Tensor
    log_prior: Tensor
    undecided: int
    span: FewPoints | None = None

    def __len__(self) -> int:
        return len(self.x)

    def __repr__(self) -> str:
        return f"Starts({len(self)} of shape {tuple(self.D.event)} at sigma {self.sigma:g}, {self.undecided} undecided)"

    def first(self, count: int) -> Starts:
        """The first of them."""
        return self.part(slice(count))

    def part(self, where: slice | Tensor) -> Starts:
        """Some of them."""
        return replace(self, x=self.x[where], index=self.index[where], log_prior=self.log_prior[where])

    def split(self, size: int) -> Iterator[Starts]:
        """All of them, so many at a time."""
        return (self.part(slice(start, start + size)) for start in range(0, len(self), size))


@dataclass(frozen=True)
class Landed:
    """How many starts end on another data point than the exact flow.

    Attributes:
        wrong: their number.
        of: how many starts there were.
        nfe: denoiser calls a start.
    """

    wrong: int
    of: int
    nfe: int

    @property
    def share(self) -> float:
        """wrong/of."""
        return self.wrong / self.of

    def interval(self, level: float = 0.95) -> tuple[float, float]:
        """Clopper and Pearson's interval of the share, over starts."""
        from scipy.stats import binomtest

        found = binomtest(self.wrong, self.of).proportion_ci(level, method="exact")
        return float(found.low), float(found.high)


def starts_of(
    D: OptimalDenoiser,
    count: int,
    seed: int = 0,
    *,
    sigma_max: float | None = None,
    purpose: Literal["design", "evaluation"] = "evaluation",
    progress: bool = False,
) -> Starts:
    """Starts σ_max ε, and where the exact flow ends.

    Args:
        D: the optimal denoiser.
        count: how many.
        seed, purpose: of the noise; the two purposes never share numbers, whatever the seeds.
        sigma_max: their level; `start_level(D)` unless given.
        progress: whether a progress bar is drawn on stderr.

    Raises:
        ValueError: count < 1; another purpose; no end could be certified; D is no `OptimalDenoiser`.
    """
    count = require_whole("count", count)
    if purpose not in ("design", "evaluation"):
        raise ValueError(f'purpose must be "design" or "evaluation", got {purpose!r}')
    if not isinstance(D, OptimalDenoiser):
        raise ValueError(f"ends are counted for the optimum of data, an OptimalDenoiser, got {type(D).__name__}")
    high = start_level(D) if sigma_max is None else sigma_max
    source = stream(seed, "design") if purpose == "design" else stream(seed, "evaluation")
    x = high * torch.randn(count, *D.event, generator=source, dtype=torch.float64)
    few = few_points(D)
    if few is not None:
        D, x = few.denoiser, few.reduced(x)
    landing = FlowMap(D).land(x, high, progress=progress)
    known = landing.captured > 0
    if not known.any():
        raise ValueError(f"the end of none of {count} trajectories from sigma = {high:g} could be certified")
    copies = D.first_copies()
    index = copies[landing.index[known].cpu()]
    return Starts(D, x[known], high, index, probabilities_of(D)[index].log(), int((~known).sum()), few)


def wrong_landings(
    starts: Starts,
    sigmas: Tensor | Sequence[float],
    *,
    solver: str | Solver = "heun",
    until: float = 0.0,
    **options: Any,
) -> Landed:
    """Which share of starts a sampler of the optimum takes to another data point than the exact flow does.

    Args:
        starts: from `starts_of`, at the grid's first level.
        sigmas: (n + 1,) a grid, whose last level is `until`.
        solver: one that draws no noise, with its options by keyword. A grid that begins below the starts' level needs
            a solver with a `gaussian`, whose flow takes them there.
        until: 0, or the level from which the exact flow leads on, in no call: the border, say, for the part above it.
            A start whose end from there no certificate decides counts as wrong.

    Raises:
        ValueError: a bad grid, solver or option; a grid that begins or ends at another level.

    Example:
        >>> from optimal import OptimalDenoiser, karras
        >>> D = OptimalDenoiser(torch.tensor([[-1.0], [0.0], [1.0]]))
        >>> starts = starts_of(D, 64)
        >>> landed = wrong_landings(starts, karras(18, sigma_max=starts.sigma))
        >>> landed.wrong, landed.nfe
        (1, 35)
        >>> wrong_landings(starts, [starts.sigma, 8.0, 2.0, 1.0], until=1.0).nfe
        6
    """
    calls: list[int] = []
    right = landed_right(
        starts, sigmas, solver=solver, until=until, callback=lambda state: calls.append(state.nfe), **options
    )
    # What D says at `until` is no part of a sampler that stops there.
    return Landed(int((~right).sum()), len(starts), calls[-1] - (until > 0))


def landed_right(
    starts: Starts,
    sigmas: Tensor | Sequence[float],
    *,
    solver: str | Solver = "heun",
    until: float = 0.0,
    callback: Callable[[State], object] | None = None,
    **options: Any,
) -> Bool[Tensor, " B"]:
    """Which starts a sampler of the optimum takes to the data point that the exact flow takes them to, (B,) bool.

    Args:
        starts, sigmas, solver, until: as for `wrong_landings`.
        callback: called with every `State` of the sampler.
    """
    levels = grid(sigmas if until == 0 else _continued(sigmas, until))
    chosen = solver_on(starts.D, starts.span, require_flowing(solver_of(solver, options)))
    x, first_copies = begun(starts, chosen, float(levels[0])), starts.D.first_copies()
    for state in trajectory(starts.D, x, levels, solver=chosen):
        if callback is not None:
            callback(state)
        x = state.x
        if until > 0 and state.sigma == until:
            landing = FlowMap(starts.D).land(x, until)
            ends = first_copies[landing.index.cpu()]
            return (ends == starts.index) & (landing.captured > 0).cpu()
    return first_copies[starts.D.nearest(x).cpu()] == starts.index


def begun(starts: Starts, solver: Solver, sigma: float) -> Float[Tensor, "B *event"]:
    """The starts at the first level of a grid."""
    if isinstance(solver, FromGaussian) and sigma <= starts.sigma * (1 + 1e-6):
        return solver.start(starts.x, starts.sigma, sigma)
    if abs(sigma / starts.sigma - 1) > 1e-6:
        raise ValueError(f"the grid begins at sigma = {sigma:g} and the starts lie at {starts.sigma:g}")
    return starts.x


def _continued(sigmas: Tensor | Sequence[float], until: float) -> list[float]:
    """The levels down to `until`, and 0."""
    levels = [float(level) for level in sigmas]
    if not levels or abs(levels[-1] / until - 1) > 1e-6:
        raise ValueError(f"the last level of the grid must be until = {until:g}, got {levels[-1:]}")
    return [*levels[:-1], until, 0.0]
