"""The grid with the fewest wrong landings, by search.

It is looked for in two parts. First grids to begin with: dynamic programming along exact trajectories
(`optimal.schedules.programming`), and levels even in log σ where ends are decided. Then each level of the best of them
in turn is moved to where the expected share of wrong ends is least, by smaller and smaller factors. For a row that
share is 1 − w_k(x, σ), k where the flow ends and x, σ the last state above 0, which changes smoothly where the share
itself jumps.

Where the exact flow is to lead on from a level above 0, it is followed there by a few steps of DPM-Solver-2, even in
log σ: the search asks for hundreds of grids, each of which the flow map would be needed for.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from tqdm import tqdm

from ..denoiser import OptimalDenoiser
from ..randomness import generator_of
from ..samplers import DPMSolver, FromGaussian, Solver, sample, solver_of, trajectory
from ..schedule import grid, log_linear
from .coordinates import solver_on
from .curve import known_below, require_steps
from .gaussian import require_flowing
from .landings import Starts, begun
from .programming import cheapest_levels, step_costs

__all__ = ["Followed", "expected_wrong", "landings_grid", "log_weight_of"]

_NODES = 40
"""Levels that dynamic programming chooses from."""
_FOLLOWED = 64
"""Starts whose trajectories it follows."""
_FACTORS = (1.35, 1.15, 1.06, 1.025)
"""By which levels are moved, one round after the other."""
_ROUNDS = 6
"""Times that each level is tried at one factor, at most."""
_BELOW = 10
"""Steps of DPM-Solver-2 in place of the exact flow."""
_UNSURE = 1e-4
"""Mean nats of entropy that starts have at least, for a grid to have something to get wrong."""
_UNDECIDED, _DECIDED = (0.95, 0.7), (0.2, 0.02)
"""Levels even in log σ go from where so much of the first entropy is left to where so many nats are."""


def landings_grid(
    starts: Starts,
    n: int,
    *,
    solver: str | Solver = "heun",
    until: float = 0.0,
    initial: Tensor | Sequence[float] | None = None,
    progress: bool = False,
    **options: Any,
) -> Float[Tensor, " levels"]:
    """The grid of n steps with the fewest wrong landings on these starts, as far as it was found.

    Args:
        starts: from `starts_of`, with another purpose or seed than those it is judged on.
        n: number of steps, at least 1; the last one leads to `until`.
        solver: one that draws no noise, with its options by keyword. The first level is the starts', but for a
            solver with a `gaussian`, whose flow takes them to the first level in no call: then that is looked for, too.
        until: 0, or the level from which the exact flow leads on, as for `wrong_landings`.
        initial: (n + 1,) a grid to begin with; from dynamic programming and from levels even in log σ unless given,
            whichever is the better.
        progress: whether a progress bar is drawn on stderr.

    Returns:
        (n + 1,) float64, decreasing, the last entry `until`.

    Raises:
        ValueError: n < 1; a bad solver or option; one that draws noise; starts from which all ends are decided; an
            `until` that is negative or not below them.
    """
    require_steps(n)
    if not 0 <= until < starts.sigma:
        raise ValueError(f"until must be 0 or a level below the starts' {starts.sigma:g}, got {until:g}")
    chosen = solver_on(starts.D, starts.span, require_flowing(solver_of(solver, options)))
    free = isinstance(chosen, FromGaussian)
    # Above `until` the grid of a search has n steps to it, and one more, to 0, that is not made.
    steps = n + (until > 0)
    if initial is not None:
        given = [float(level) for level in initial]
        candidates = [grid([*given[:-1], until, 0.0] if until else given)]
        if len(candidates[0]) != steps + 1:
            raise ValueError(f"a grid of {n} steps has {n + 1} levels, initial has {len(given)}")
    elif n == 1 and not free:
        candidates = [grid([starts.sigma, until, 0.0] if until else [starts.sigma, 0.0])]
    else:
        candidates = Followed(starts, chosen, until, progress=progress).candidates(steps)
    below = _way_down(starts, until) if until else None
    levels = _Search(starts, chosen, until, below).best(candidates, progress)
    return levels[:-1] if until else levels


class _Search:
    """Moves of levels on the same starts under the same solver.

    Args:
        starts: that the share is of.
        solver: in their coordinates.
        until: as for `landings_grid`.
        below: how the flow is followed from there, as for `expected_wrong`.
    """

    def __init__(self, starts: Starts, solver: Solver, until: float, below: Tensor | None):
        self.starts, self.solver, self.until, self.below = starts, solver, until, below
        self.free = isinstance(solver, FromGaussian)

    def best(self, candidates: list[Tensor], progress: bool) -> Tensor:
        """What the best of the candidates leads to."""
        share, levels = min(((self.share(one), one) for one in candidates), key=lambda pair: pair[0])
        with tqdm(total=len(_FACTORS), desc="landings", unit="round", leave=False, disable=not progress) as bar:
            for factor in _FACTORS:
                share, levels = self.moved(levels, factor, share)
                bar.update()
                bar.set_postfix(wrong=f"{share:.3f}")
        return levels

    def share(self, levels: Tensor) -> float:
        """The expected share of wrong ends."""
        return expected_wrong(self.starts, levels, self.solver, self.below)

    def moved(self, levels: Tensor, factor: float, share: float) -> tuple[float, Tensor]:
        """Each level up or down by the factor while that lowers the expected share."""
        ways = dict.fromkeys(range(0 if self.free else 1, len(levels) - 1 - (self.until > 0)), factor)
        for _ in range(_ROUNDS):
            before = share
            for place, way in ways.items():
                for step in (way, 1 / way):
                    tried = levels.clone()
                    tried[place] *= step
                    if tried[0] > self.starts.sigma or not (tried.diff() < 0).all():
                        continue
                    found = self.share(tried)
                    if found < share:
                        share, levels = found, tried
                        ways[place] = step
                        break
            if before - share < 1e-4:
                break
        return share, levels


def expected_wrong(starts: Starts, sigmas: Tensor, solver: Solver, below: Tensor | None = None) -> float:
    """Mean of 1 − w_k(x, σ) at the last state above 0: the expected share of wrong ends, smooth in the levels.

    Args:
        starts, sigmas, solver: as for `wrong_landings`, the solver in the coordinates of the starts.
        below: a grid that begins at the last level above 0, along which the flow is followed first.
    """
    recorded = _Recorded(starts.D, float((sigmas if below is None else below)[-2]))
    # Single precision is for looking only: what is found is judged in double.
    x = begun(starts, solver, float(sigmas[0])).float()
    if below is None:
        sample(recorded, x, sigmas, solver=solver)
    else:
        *_, reached, _ = trajectory(starts.D, x, sigmas, solver=solver)
        sample(recorded, reached.x, below, solver=DPMSolver(2))
    x, sigma, log_density = recorded.last
    return float(1 - log_weight_of(starts, x, sigma, log_density).exp().mean())


def log_weight_of(starts: Starts, x: Tensor, sigma: float | Tensor, log_density: Tensor) -> Tensor:
    """log w_k(x, σ), (B,), of the points where the flow ends; log p(x; σ) given. Copies count together."""
    right = starts.D.take(starts.index).double().to(x)
    level = torch.as_tensor(sigma, dtype=torch.float64, device=x.device)
    log_prior = starts.log_prior.to(x.device)
    square = (x - right).flatten(1).square().sum(1)
    dim = math.prod(starts.D.event)
    own = log_prior - square / (2 * level.square()) - dim / 2 * (2 * math.pi * level.square()).log()
    return (own - log_density).clamp_max(0)


class _Recorded:
    """A denoiser that keeps what it is asked at one level, and log p there."""

    def __init__(self, D: OptimalDenoiser, level: float):
        self.D, self.level = D, level
        self.last: tuple[Tensor, float, Tensor]

    def __call__(self, x: Tensor, sigma: float | Tensor, /) -> Tensor:
        if float(sigma) != self.level:
            return self.D(x, sigma)
        post = self.D.posterior(x, sigma)
        self.last = x.double(), self.level, post.log_density
        return post.mean


def _way_down(starts: Starts, until: float) -> Tensor:
    """A grid along which DPM-Solver-2 is about as good as the flow, from `until` to where all is known."""
    low = min(known_below(starts.D, until, 32, generator_of(None)), until / 2)
    return log_linear(_BELOW, sigma_max=until, sigma_min=low)


class Followed:
    """Exact trajectories of some of the starts at many levels, what steps between these cost, and grids from them.

    Args:
        starts: from `starts_of`; the first 64 are followed.
        solver: one that draws no noise, in the coordinates of the starts.
        until: as for `landings_grid`.
        progress: whether a progress bar is drawn on stderr.

    Raises:
        ValueError: all ends are decided.
    """

    def __init__(self, starts: Starts, solver: Solver, until: float = 0.0, *, progress: bool = False):
        self.few, self.solver, self.until = starts.first(_FOLLOWED), solver, until
        high, few = starts.sigma, self.few
        low = until or known_below(few.D, high, 32, generator_of(None))
        self.nodes = torch.logspace(math.log10(high), math.log10(low), _NODES, dtype=torch.float64, device="cpu")
        self.nodes[0], self.nodes[-1] = high, low
        self.costs, self.states = step_costs(few.D, few.x, self.nodes, solver, progress=progress)
        at_each = list(zip(self.states, self.nodes.tolist(), strict=True))
        posts = [few.D.posterior(x, level) for x, level in at_each]
        entropy = torch.stack([post.entropy.mean() for post in posts])
        # What is left where all is known tells copies apart.
        self.entropy = entropy if until else (entropy - entropy[-1]).clamp_min(0)
        if not self.entropy[0] > _UNSURE:
            raise ValueError(
                f"from sigma = {high:g} on the ends of the starts sigma eps are decided: take a higher sigma_max, or "
                "centre data that lie far from 0"
            )
        unsure = [
            1 - log_weight_of(few, x, level, post.log_density).exp().mean()
            for (x, level), post in zip(at_each, posts, strict=True)
        ]
        # To end on another point costs what noise of one standard deviation does.
        self._last = math.prod(few.D.event) * torch.stack(unsure).cpu().numpy()
        if until:
            self._last[:-1] = math.inf

    def cheapest(self, steps: int) -> list[float]:
        """So many levels above 0 at which the steps along the trajectories cost least, by dynamic programming."""
        first = None
        if isinstance(self.solver, FromGaussian):
            moved = torch.stack([begun(self.few, self.solver, level) for level in self.nodes.tolist()])
            first = ((moved - self.states).flatten(2).square().sum(2).mean(1).cpu() / self.nodes**2).numpy()
        return self.nodes[cheapest_levels(self.costs, self._last, steps, first)].tolist()

    def even(self, steps: int) -> list[list[float]]:
        """Levels even in log σ where ends are decided."""
        found, high = [], float(self.nodes[0])
        free = isinstance(self.solver, FromGaussian)
        for much, little in itertools.product(_UNDECIDED, _DECIDED):
            top = float(self.nodes[(self.entropy > much * self.entropy[0]).nonzero().max()])
            lowest = min(little, float(self.entropy[0]) / 2)
            bottom = self.until or float(self.nodes[(self.entropy > lowest).nonzero().max()])
            whole = free or top == high
            levels = _even(steps if whole else steps - 1, top, bottom)
            levels = levels if whole else [high, *levels]
            if self.until:
                levels[-1] = self.until
            if all(one > other for one, other in itertools.pairwise(levels)):
                found.append(levels)
        # Down to one level some are the same.
        return list(map(list, dict.fromkeys(map(tuple, found))))

    def candidates(self, steps: int) -> list[Tensor]:
        """Grids of all of these, 0 included."""
        found = [self.cheapest(steps)] if steps <= _NODES else []
        return [grid([*levels, 0.0]) for levels in found + self.even(steps)]


def _even(count: int, top: float, bottom: float) -> list[float]:
    """So many levels even in log σ, from `top` on."""
    return [top] if count == 1 else log_linear(count, sigma_max=top, sigma_min=min(bottom, top / 2))[:-1].tolist()
