"""What leaving a point out tells, from the data alone: held-out risk, influence, stability, and a bandwidth.

With w_j the posterior of y_j at x and D_{−j} the optimum that does not know y_j (`OptimalDenoiser.without`),

    D − D_{−j} = w_j (y_j − D_{−j}),

so that the influence of a point takes no difference of two answers. Along x = y_j + σ ε, each point with noise of its
own,

    held-out risk    E‖D_{−j}(x, σ) − y_j‖²           of an optimum that has not seen the image: no split is needed
    influence        E‖D − D_{−j}‖²                   what one image changes there
    bandwidth        argmax_s E log p_{−j}(y_j; s)    the kernel density estimate that explains left-out points best,
                                                      that of `OptimalDenoiser.smoothed`

and, for two halves A and B of the data at random, E‖D_A − D_B‖² says how much of D is the data set's own.

All of them are means over draws of points and noise, none negative, with 95% intervals over these draws
(`optimal.intervals.positive_interval`); that of the bandwidth by 500 resamples of the points. How far the data stand
for a population is not in them. Measured on two sets of 40 points in the plane, 400 seeds each, how often they hold the
mean: of the held-out risk 93% to 98%, from 32 draws on. Of the influence 96% to 98% at σ = 0.1; at σ = 2, where few
draws carry most of it, 65% to 74% with 32 draws, 88% to 90% with 128, where Student's have 79%, and
92% to 95% with 512: give more draws there.

References:
    Duin 1976, "On the Choice of Smoothing Parameters for Parzen Estimators of Probability Density Functions".
    Kadkhodaie, Guth, Simoncelli, Mallat 2024, "Generalization in diffusion models arises from geometry-adaptive
    harmonic representations": two networks on two halves.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int, Num
from torch import Tensor

from ..denoiser import OptimalDenoiser
from ..draws import draw_indexed, draw_pairs
from ..intervals import positive_interval
from ..numbers import is_whole
from ..query import Levels, level_list, levels
from ..randomness import generator_of
from ..shown import in_short

__all__ = ["Measured", "bandwidth", "held_out_risk", "influence", "mean_influence", "split_stability"]

_QUANTILES = 0.025, 0.975
_RESAMPLES = 500
_COARSE, _FINE = 15, 17
"""Bandwidths that are tried between the extremes, and about the best of these."""


@dataclass(frozen=True)
class Measured:
    """A mean over draws at every noise level with its 95% interval, (S,) float64 each; or (), of one number."""

    value: Tensor
    low: Tensor
    high: Tensor

    __repr__ = in_short


def held_out_risk(
    D: OptimalDenoiser, sigmas: Levels, *, draws: int = 256, generator: torch.Generator | None = None
) -> Measured:
    """E‖D_{−j}(y_j + σ ε, σ) − y_j‖², the risk on images that the optimum does not know, at every σ.

    The same pairs (y_j, ε) serve every σ; y_j is drawn from the prior.

    Args:
        D: the optimum of the data.
        sigmas: (S,) noise levels, > 0.
        draws: pairs, at least 2.
        generator: source of randomness; without one, a fresh generator with a fixed seed.

    Raises:
        ValueError: fewer than two draws; data of one point.

    Example:
        >>> D = OptimalDenoiser(torch.tensor([[-1.0], [1.0]]))
        >>> held_out_risk(D, torch.tensor([0.1])).value    # the other point is all that is left
        tensor([4.], dtype=torch.float64)
    """
    index, x0, eps = _drawn(D, draws, generator)
    without = D.without(index)
    return _over(sigmas, lambda sigma: _square(without(x0 + sigma * eps, sigma), x0))


def influence(
    D: OptimalDenoiser, x: Num[Tensor, "B *event"], sigma: Levels, index: Int[Tensor, " B"]
) -> Float[Tensor, " B"]:
    """‖D − D_{−j}‖ of every row, (B,) float64: how far the point index[b] moves the answer at x_b.

    Raises:
        ValueError: as for `OptimalDenoiser.without`.
    """
    x, sigmas = x.detach(), levels(sigma, len(x), x.device)
    rest = D.without(index)(x, sigmas).double()
    own = D.take(index).to(x.device).double()
    square = (x.double() - own).flatten(1).square().sum(1) / (2 * sigmas.square())
    normaliser = D.points.dim * (0.5 * math.log(2 * math.pi) + sigmas.log())
    prior = D.log_weights.to(x.device)[index.to(x.device)]
    weight = (prior - square - normaliser - D.posterior(x, sigmas).log_density).exp().clamp_max(1.0)
    return weight * (own - rest).flatten(1).norm(dim=1)


def mean_influence(
    D: OptimalDenoiser, sigmas: Levels, *, draws: int = 256, generator: torch.Generator | None = None
) -> Measured:
    """E‖D − D_{−j}‖² at x = y_j + σ ε, at every σ: what an image changes where the noise is its own.

    Args, Raises: as for `held_out_risk`.
    """
    index, x0, eps = _drawn(D, draws, generator)
    return _over(sigmas, lambda sigma: influence(D, x0 + sigma * eps, sigma, index).square())


def split_stability(
    D: OptimalDenoiser, sigmas: Levels, *, draws: int = 256, generator: torch.Generator | None = None
) -> Measured:
    """E‖D_A − D_B‖² at x = x0 + σ ε for two halves A, B of the data, parted at random, at every σ.

    Args, Raises: as for `held_out_risk`. The interval is over the draws of x, for the halves that were drawn.
    """
    generator = generator_of(generator)
    x0, eps = draw_pairs(D, None, _some(draws), generator)
    there = (D.log_weights.cpu() > -torch.inf).nonzero().squeeze(1)
    if len(there) < 2:
        raise ValueError("two halves of the data need at least two points, there is one only")
    order = there[torch.randperm(len(there), generator=generator, device=generator.device).cpu()]
    halves = []
    for half in (order[: len(order) // 2], order[len(order) // 2 :]):
        log_weights = torch.full((len(D),), -torch.inf, dtype=torch.float64)
        log_weights[half] = 0.0
        halves.append(D.weighted(log_weights))
    return _over(sigmas, lambda sigma: _square(*(half(x0 + sigma * eps, sigma) for half in halves)))


def bandwidth(D: OptimalDenoiser, *, draws: int = 256, generator: torch.Generator | None = None) -> Measured:
    """The s that maximises E log p_{−j}(y_j; s), () each, in units of the data: of `OptimalDenoiser.smoothed`.

    It is looked for between an eighth of the median distance to the nearest other point, over √dim, and twice the
    standard deviation, and taken to be the only maximum there. Copies explain each other with any s: they pull it down,
    and to 0 where every point has one.

    Args:
        D, generator: as for `held_out_risk`.
        draws: left-out points, drawn from the prior without regard to repetitions.

    Raises:
        ValueError: fewer than two draws; fewer than two distinct points.
    """
    index, x0, _ = _drawn(D, draws, generator)
    without, dim = D.without(index), D.points.dim
    nearest = D.neighbours(x0, 2)[1][:, 1]
    if not nearest.isfinite().all():
        raise ValueError("a bandwidth needs at least two distinct points, there is one only")
    low, high = float(nearest.median()) / 8 / math.sqrt(dim), 2 * D.standard_deviation

    def tried(logs: Tensor) -> Tensor:
        return torch.stack([without.posterior(x0, math.exp(s)).log_density for s in logs.tolist()], 1).cpu()

    coarse = torch.linspace(math.log(low), math.log(high), _COARSE, dtype=torch.float64)
    found = tried(coarse)
    best = int(found.mean(0).argmax())
    if best == 0:
        zero = torch.zeros((), dtype=torch.float64)
        return Measured(zero, zero, torch.tensor(low, dtype=torch.float64))
    fine = torch.linspace(float(coarse[best - 1]), float(coarse[min(best + 1, _COARSE - 1)]), _FINE).double()
    curves = tried(fine)
    picks = torch.randint(draws, (_RESAMPLES, draws), generator=generator_of(generator), device="cpu")
    means = torch.cat([curves.mean(0, keepdim=True), curves[picks].mean(1)])
    tops = _top(fine, means).exp()
    ends = tops[1:].quantile(torch.tensor(_QUANTILES, dtype=torch.float64))
    return Measured(tops[0], ends[0], ends[1])


def _top(places: Tensor, curves: Tensor) -> Tensor:
    """Where each curve, (R, K) at K even places, is largest, by the parabola through the best and its neighbours."""
    best = curves.argmax(1).clamp(1, len(places) - 2)
    left, middle, right = (curves.gather(1, (best + shift)[:, None]).squeeze(1) for shift in (-1, 0, 1))
    bend = (left - 2 * middle + right).clamp_max(-torch.finfo(torch.float64).tiny)
    return places[best] + (places[1] - places[0]) * (0.5 * (left - right) / bend).clamp(-1, 1)


def _drawn(D: OptimalDenoiser, draws: int, generator: torch.Generator | None) -> tuple[Tensor, Tensor, Tensor]:
    """Points of the prior, (draws,), themselves and noise; float64, so that what is left of a difference is right."""
    index, x0, eps = draw_indexed(D, None, _some(draws), generator)
    return index, x0.double(), eps.double()


def _some(draws: int) -> int:
    if is_whole(draws) and draws < 2:
        raise ValueError(f"draws must be at least 2, for an interval, got {draws}")
    return draws


def _square(a: Tensor, b: Tensor) -> Tensor:
    return (a.double() - b.double()).flatten(1).square().sum(1)


def _over(sigmas: Levels, values: Callable[[float], Tensor]) -> Measured:
    """The mean over draws of values(sigma), (draws,), at every level."""
    found = positive_interval(torch.stack([values(float(sigma)) for sigma in level_list(sigmas)]).cpu())
    return Measured(found.value, found.low, found.high)
