"""Grids for the end: as few trajectories as can be end on another data point than the exact flow takes them to.

A sampler of the optimum ends on a data point, and the exact flow from the same start on one, too; which share of starts
has another is what a grid gets wrong, and it can be counted, without any model of the error. The grid is looked for in
two parts. First dynamic programming along exact trajectories (`optimal.schedules.programming`). Then each
level in turn is moved to where the expected share of wrong ends is least, by smaller and smaller factors. For a row
that share is 1 − w_k(x, σ), k where the flow ends and x, σ the last state above 0, which changes smoothly where the
share itself jumps.

What is designed on some starts is judged on others: `wrong_landings`.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from jaxtyping import Bool, Float
from scipy.stats import binomtest
from torch import Tensor
from tqdm import tqdm

from ..denoiser import OptimalDenoiser
from ..flow import FlowMap
from ..randomness import generator_of, stream
from ..samplers import FromGaussian, Solver, State, sample, solver_of
from ..schedule import grid, log_linear
from ..span import FewPoints, few_points
from .coordinates import solver_on
from .curve import known_below, probabilities_of, require_steps, start_level
from .gaussian import require_flowing
from .programming import cheapest_levels, step_costs

__all__ = ["Landed", "Starts", "landed_right", "landings_grid", "log_weight_of", "starts_of", "wrong_landings"]

_NODES = 40
"""Levels that dynamic programming chooses from."""
_FOLLOWED = 64
"""Starts whose trajectories it follows."""
_FACTORS = (1.35, 1.15, 1.06, 1.025)
"""By which levels are moved, one round after the other."""
_ROUNDS = 6
"""Times that each level is tried at one factor, at most."""
_UNSURE = 1e-4
"""Mean nats of entropy that starts have at least, for a grid to have something to get wrong."""
_UNDECIDED, _DECIDED = (0.95, 0.7), (0.2, 0.02)
"""Levels even in log σ go from where so much of the first entropy is left to where so many nats are."""


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
    if count < 1:
        raise ValueError(f"at least 1 start is needed, got {count}")
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
    starts: Starts, sigmas: Tensor | Sequence[float], *, solver: str | Solver = "heun", **options: Any
) -> Landed:
    """Which share of starts a sampler of the optimum takes to another data point than the exact flow does.

    Args:
        starts: from `starts_of`, at the grid's first level.
        sigmas: (n + 1,) a grid.
        solver: one that draws no noise, with its options by keyword. A grid that begins below the starts' level needs
            a solver with a `gaussian`, whose flow takes them there.

    Raises:
        ValueError: a bad grid, solver or option; a grid that begins at another level.

    Example:
        >>> from optimal import OptimalDenoiser, karras
        >>> D = OptimalDenoiser(torch.tensor([[-1.0], [0.0], [1.0]]))
        >>> starts = starts_of(D, 64)
        >>> landed = wrong_landings(starts, karras(18, sigma_max=starts.sigma))
        >>> landed.wrong, landed.nfe
        (1, 35)
    """
    calls: list[int] = []
    right = landed_right(starts, sigmas, solver=solver, callback=lambda state: calls.append(state.nfe), **options)
    return Landed(int((~right).sum()), len(starts), calls[-1])


def landed_right(
    starts: Starts,
    sigmas: Tensor | Sequence[float],
    *,
    solver: str | Solver = "heun",
    callback: Callable[[State], object] | None = None,
    **options: Any,
) -> Bool[Tensor, " B"]:
    """Which starts a sampler of the optimum takes to the data point that the exact flow takes them to, (B,) bool.

    Args:
        starts, sigmas, solver: as for `wrong_landings`.
        callback: called with every `State`.
    """
    levels = grid(sigmas)
    chosen = solver_on(starts.D, starts.span, require_flowing(solver_of(solver, options)))
    x = _at(starts, chosen, float(levels[0]))
    end = sample(starts.D, x, levels, solver=chosen, callback=callback)
    return starts.D.first_copies()[starts.D.nearest(end).cpu()] == starts.index


def landings_grid(
    starts: Starts,
    n: int,
    *,
    solver: str | Solver = "heun",
    initial: Tensor | Sequence[float] | None = None,
    progress: bool = False,
    **options: Any,
) -> Float[Tensor, " levels"]:
    """The grid of n steps with the fewest wrong landings on these starts, as far as it was found.

    Args:
        starts: from `starts_of`, with another purpose or seed than those it is judged on.
        n: number of steps, at least 1; the last one leads to 0.
        solver: one that draws no noise, with its options by keyword. The first level is the starts', but for a
            solver with a `gaussian`, whose flow takes them to the first level in no call: then that is looked for, too.
        initial: (n + 1,) a grid to begin with; from dynamic programming and from levels even in log σ unless given,
            whichever is the better.
        progress: whether a progress bar is drawn on stderr.

    Returns:
        (n + 1,) float64, decreasing, the last entry 0.

    Raises:
        ValueError: n < 1; a bad solver or option; one that draws noise; starts from which all ends are decided.
    """
    require_steps(n)
    chosen = solver_on(starts.D, starts.span, require_flowing(solver_of(solver, options)))
    free = isinstance(chosen, FromGaussian)
    if initial is not None:
        candidates = [grid(initial)]
        if len(candidates[0]) != n + 1:
            raise ValueError(f"a grid of {n} steps has {n + 1} levels, initial has {len(candidates[0])}")
    elif n == 1 and not free:
        return grid([starts.sigma, 0.0])
    else:
        candidates = _candidates(starts, n, chosen, free, progress)
    judged = [(expected_wrong(starts, levels, chosen), levels) for levels in candidates]
    share, levels = min(judged, key=lambda pair: pair[0])
    with tqdm(total=len(_FACTORS), desc="landings", unit="round", leave=False, disable=not progress) as bar:
        for factor in _FACTORS:
            share, levels = _moved(starts, levels, chosen, factor, share, free)
            bar.update()
            bar.set_postfix(wrong=f"{share:.3f}")
    return levels


def expected_wrong(starts: Starts, sigmas: Tensor, solver: Solver) -> float:
    """Mean of 1 − w_k(x, σ) at the last state above 0: the expected share of wrong ends, smooth in the levels."""
    recorded = _Recorded(starts.D, float(sigmas[-2]))
    # Single precision is for looking only: what is found is judged in double.
    sample(recorded, _at(starts, solver, float(sigmas[0])).float(), sigmas, solver=solver)
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


def _at(starts: Starts, solver: Solver, sigma: float) -> Tensor:
    """The starts at the first level of a grid."""
    if isinstance(solver, FromGaussian) and sigma <= starts.sigma * (1 + 1e-6):
        return solver.start(starts.x, starts.sigma, sigma)
    if abs(sigma / starts.sigma - 1) > 1e-6:
        raise ValueError(f"the grid begins at sigma = {sigma:g} and the starts lie at {starts.sigma:g}")
    return starts.x


def _moved(
    starts: Starts, levels: Tensor, solver: Solver, factor: float, share: float, free: bool
) -> tuple[float, Tensor]:
    """Each level up or down by the factor while that lowers the expected share."""
    for _ in range(_ROUNDS):
        before = share
        for place in range(0 if free else 1, len(levels) - 1):
            for step in (factor, 1 / factor):
                tried = levels.clone()
                tried[place] *= step
                if tried[0] > starts.sigma or not (tried.diff() < 0).all():
                    continue
                found = expected_wrong(starts, tried, solver)
                if found < share:
                    share, levels = found, tried
                    break
        if before - share < 1e-4:
            break
    return share, levels


def _candidates(starts: Starts, n: int, solver: Solver, free: bool, progress: bool) -> list[Tensor]:
    """Grids to begin with: the cheapest along exact trajectories, and some even in log σ where ends are decided."""
    high, few = starts.sigma, starts.first(_FOLLOWED)
    low = known_below(few.D, high, 32, generator_of(None))
    nodes = torch.logspace(math.log10(high), math.log10(low), _NODES, dtype=torch.float64, device="cpu")
    nodes[0] = high
    costs, states = step_costs(few.D, few.x, nodes, solver, progress=progress)
    posts = [few.D.posterior(x, level) for x, level in zip(states, nodes.tolist(), strict=True)]
    entropy = torch.stack([post.entropy.mean() for post in posts])
    entropy = (entropy - entropy[-1]).clamp_min(0)  # What is left tells copies apart.
    if not entropy[0] > _UNSURE:
        raise ValueError(
            f"from sigma = {high:g} on the ends of the starts sigma eps are decided: take a higher sigma_max, or "
            "centre data that lie far from 0"
        )
    found = []
    if n <= _NODES:
        first = None
        if free:
            moved = torch.stack([_at(few, solver, level) for level in nodes.tolist()])
            first = ((moved - states).flatten(2).square().sum(2).mean(1) / nodes**2).numpy()
        at_each = zip(states, nodes, posts, strict=True)
        unsure = [1 - log_weight_of(few, x, at, post.log_density).exp().mean() for x, at, post in at_each]
        # To end on another point costs what noise of one standard deviation does.
        last = math.prod(few.D.event) * torch.stack(unsure).numpy()
        found.append(nodes[cheapest_levels(costs, last, n, first)].tolist())
    for much, little in itertools.product(_UNDECIDED, _DECIDED):
        top = float(nodes[(entropy > much * entropy[0]).nonzero().max()])
        bottom = float(nodes[(entropy > min(little, float(entropy[0]) / 2)).nonzero().max()])
        whole = free or top == high
        even = _even(n if whole else n - 1, top, bottom)
        found.append(even if whole else [high, *even])
    return [grid([*levels, 0.0]) for levels in found]


def _even(count: int, top: float, bottom: float) -> list[float]:
    """So many levels even in log σ, from `top` on."""
    return [top] if count == 1 else log_linear(count, sigma_max=top, sigma_min=min(bottom, top / 2))[:-1].tolist()
