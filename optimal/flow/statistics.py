"""Where the flow map lands: how large the basins are, and how far the landing is from the source.

The exact flow conserves mass: it carries p(·; σ), the density of x0 + σ ε, to the data, so that each of N points, its
copies counted, receives 1/N of it, or its probability π_j under a prior, at every σ. The sampler's prior q = N(0,
σ_max² I) is not p(·; σ_max), and what a basin receives from it differs from 1/N. By how much is known without the flow:
summed over the basins at most

    TV(q, p) = ½ E_q|p/q − 1|

in total variation, and reweighting every draw by p/q takes it out altogether. p/q is known exactly at every draw.

Along x = x0 + σ ε, four points may be taken for "the" point of x: its source x0; the nearest data point, which is the
leader of the posterior (where each entry has the same prior weight, these two are one, at every σ); the one nearest
to E[x0 | x]; and where the flow map lands. `landing_statistics` measures how often they agree. The leader is the best
guess of the source, so P(landing = source) <= P(leader = source).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from tqdm import tqdm

from ..denoiser import OptimalDenoiser
from ..draws import Data, draw_pairs, fixed_generator
from ..numbers import is_whole
from ..query import Levels, level_list
from ..reference.transport import log_normal
from ..shown import in_short
from .flow_map import FlowMap
from .landing import Landing

__all__ = ["Basins", "LandingStatistics", "basins", "landing_statistics"]

_BATCH = 512
"""Draws that are followed together."""


@dataclass(frozen=True)
class Basins:
    """How often each data point is reached.

    Attributes:
        counts: (N,) int64, draws that ended on each point; those of copies are counted at the first of them.
        copies: (N,) int64, how often the point is in the data; 0 at its later copies, and where it has no probability.
        probability: (N,) float64, that of the point with its copies: copies/N, unless under a prior.
        weighted: (N,) float64, the same draws, each weighing p/q: without the prior's mismatch.
        draws: n, how many draws there were.
        undecided: draws that no certificate decided: on the border between basins to within rounding, or between points
            too close together for float64.
        mismatch: TV(q, p) of the prior and the noisy data at sigma_max, from the same draws; 0 for start="data".
        mismatch_error: its standard error.
    """

    counts: Tensor
    copies: Tensor
    probability: Tensor
    weighted: Tensor
    draws: int
    undecided: int
    mismatch: float
    mismatch_error: float

    __repr__ = in_short

    @property
    def expected(self) -> Tensor:
        """(N,) float64, the counts that the exact flow from p(·; σ_max) has on average: n · probability."""
        return self.draws * self.probability

    def chi_square(self) -> tuple[float, float]:
        """Pearson's Σ (count − expected)²/expected, and the probability of a larger one if that is what is expected.

        It holds for five and more expected draws a point; below it errs little as long as there are many points.
        """
        from scipy.special import chdtrc

        distinct = self.copies > 0
        count, expected = self.counts[distinct].double(), self.expected[distinct]
        statistic = float(((count - expected).square() / expected).sum())
        freedom = int(distinct.sum()) - 1
        return statistic, float(chdtrc(freedom, statistic)) if freedom else 1.0


@dataclass(frozen=True)
class LandingStatistics:
    """Where the flow map takes x = x0 + σ ε, the same draws of (x0, ε) at every σ.

    Attributes:
        sigmas: (S,) noise levels.
        source: (S, draws) bool, whether it lands on the source x0 (or a copy).
        leader: (S, draws) bool, whether it lands on the leader of the posterior, without a prior the point nearest to
        x.
        nearest_to_mean: (S, draws) bool, whether it lands on the data point nearest to E[x0 | x].
        leader_is_source: (S, draws) bool, whether the leader is the source.
        distance: (S, draws), ‖f(x, σ) − E[x0 | x]‖.
        top_weight: (S, draws), posterior probability of the leader: 1 where Eq. 56's step (2) holds.
        nfe: (S, draws), denoiser calls.
    """

    sigmas: Tensor
    source: Tensor
    leader: Tensor
    nearest_to_mean: Tensor
    leader_is_source: Tensor
    distance: Tensor
    top_weight: Tensor
    nfe: Tensor

    __repr__ = in_short


def basins(
    D: OptimalDenoiser,
    n: int,
    generator: torch.Generator | None = None,
    *,
    sigma_max: float = 80.0,
    start: str = "prior",
    flow: FlowMap | None = None,
    progress: bool = False,
) -> Basins:
    """How often the flow from sigma_max ends on each data point.

    Draws are followed 512 at a time and only counted: memory does not grow with n.

    Args:
        D: the optimal denoiser of the data.
        n: number of draws, at least 1.
        generator: source of randomness; without one, a fresh generator with a fixed seed.
        sigma_max: where the flow starts.
        start: "prior", N(0, σ_max² I), as samplers do; or "data", x0 + σ_max ε, from which each point is reached as
            often as it is likely at any sigma_max.
        flow: the flow map; the exact one of D unless given. Another one, on a grid or of a network, may favour points;
            its landings count for the data point of D that is nearest.
        progress: whether a progress bar is drawn on stderr.

    Raises:
        ValueError: n < 1, sigma_max not positive, another start.

    Example:
        >>> D = OptimalDenoiser(torch.tensor([[-1.0], [0.0], [0.0], [1.0]]))
        >>> found = basins(D, 4000, torch.Generator().manual_seed(0))
        >>> found.copies, (found.counts / 1000).round(decimals=1)
        (tensor([1, 2, 0, 1]), tensor([1., 2., 0., 1.]))
    """
    if not is_whole(n) or n < 1:
        raise ValueError(f"n must be a whole number from 1 on, got {n!r}")
    if generator is None:
        generator = fixed_generator()
    if not isinstance(generator, torch.Generator):
        raise ValueError(f"generator must be a torch.Generator, got {type(generator).__name__}")
    if not 0 < sigma_max < math.inf:
        raise ValueError(f"sigma_max must be positive and finite, got {sigma_max:g}")
    if start not in ("prior", "data"):
        raise ValueError(f'start must be "prior" or "data", got {start!r}')
    flow = flow or FlowMap(D)
    first = D.first_copies()
    counts = torch.zeros(len(D), dtype=torch.int64, device="cpu")
    weighted = torch.zeros(len(D), dtype=torch.float64, device="cpu")
    undecided, deviation, square, source = 0, 0.0, 0.0, generator.device
    with tqdm(total=n, desc="basins", unit="draw", leave=False, disable=not progress) as bar:
        for begin in range(0, n, _BATCH):
            size = min(_BATCH, n - begin)
            x = sigma_max * torch.randn(size, *D.event, dtype=torch.float32, device=source, generator=generator)
            if start == "data":
                x += D.take(D.drawn(size, generator)).to(x)
            x = x.to(D.points.device)
            landing = flow.land(x, sigma_max)
            index = first[_index(D, flow, landing).cpu()]
            counts += index.bincount(minlength=len(D))
            undecided += int((landing.captured == 0).sum())
            ratio = torch.ones(size, dtype=torch.float64, device="cpu")
            if start == "prior":
                ratio = _ratio(D, x.double(), sigma_max).cpu()
            weighted.index_add_(0, index, ratio)
            deviation += float((ratio - 1).abs().sum())
            square += float((ratio - 1).square().sum())
            bar.update(size)
    spread = math.sqrt(max(square / n - (deviation / n) ** 2, 0.0) / n)
    log_weights = D.log_weights.cpu()
    there = (log_weights > -torch.inf).nonzero().squeeze(1)
    copies = first[there].bincount(minlength=len(D))
    probability = copies.double() / len(D)
    if D.points.size < len(D) or D.points.prior is not None:
        probability = torch.zeros_like(weighted).index_add_(0, first[there], log_weights[there].exp())
    return Basins(counts, copies, probability, weighted, n, undecided, deviation / n / 2, spread / 2)


def landing_statistics(
    D: OptimalDenoiser,
    sigmas: Levels,
    data: Data | None = None,
    *,
    draws: int = 256,
    flow: FlowMap | None = None,
    generator: torch.Generator | None = None,
    progress: bool = False,
) -> LandingStatistics:
    """How often the flow map lands on the source, on the leader, and how far from E[x0 | x], at x = x0 + σ ε.

    Args:
        D: the optimal denoiser.
        sigmas: (S,) noise levels, > 0.
        data: the points x0 is drawn from, those of D unless given.
        draws: number of pairs (x0, ε).
        flow: the flow map; the exact one of D unless given. A landing of another counts for the nearest point of D.
        generator: source of randomness; without one, a fresh generator with a fixed seed.
        progress: whether a progress bar is drawn on stderr.

    Raises:
        ValueError: draws < 1, data of another event shape than D's.

    References:
        Prop. 4 of the paper and its proof, Eq. 50 and 56.

    Example:
        >>> D = OptimalDenoiser(torch.tensor([[-1.0], [1.0]]))
        >>> found = landing_statistics(D, torch.tensor([0.1, 80.0]), draws=1000)
        >>> found.source.double().mean(1).round(decimals=1)
        tensor([1.0000, 0.5000], dtype=torch.float64)
    """
    flow = flow or FlowMap(D)
    levels = level_list(sigmas)
    x0, eps = draw_pairs(D, data, draws, generator)
    rows: list[tuple[Tensor, ...]] = []
    for sigma in tqdm(levels.tolist(), desc="landings", unit="level", leave=False, disable=not progress):
        x = x0 + sigma * eps
        post, landing = D.posterior(x, sigma), flow.land(x, sigma)
        ends = D.take(_index(D, flow, landing))

        def hits(other: Tensor, ends: Tensor = ends) -> Tensor:
            return (ends == other).flatten(1).all(1)

        leader = D.take(post.top_index)
        rows.append(
            (
                hits(x0),
                hits(leader),
                hits(D.take(D.nearest(post.mean))),
                (leader == x0).flatten(1).all(1),
                (landing.x.double() - post.mean.double()).flatten(1).norm(dim=1),
                post.top_weight.double(),
                landing.nfe,
            )
        )
    return LandingStatistics(levels, *(torch.stack(column) for column in zip(*rows, strict=True)))


def _index(D: OptimalDenoiser, flow: FlowMap, landing: Landing) -> Tensor:
    """The data point of D that a landing is nearest to; of a flow of D's own it is known."""
    return landing.index if flow.D is D else D.nearest(landing.x)


def _ratio(D: OptimalDenoiser, x: Tensor, sigma: float) -> Tensor:
    """p(x; σ)/N(x; 0, σ² I), (B,), for x in float64."""
    prior = log_normal(x.flatten(1), x.new_tensor([sigma]))
    return (D.posterior(x, sigma).log_density - prior).exp()
