"""Intervals for what is measured on n independent draws: means and ratios of them, medians, shares, counts.

A mean, or a smooth function of means, moves by uᵢ/n with draw i; with s² the variance of the u and γ their skewness,
the ends are the wider of Student's and of Hall's, which takes the skewness out by a cubic map:

    value − s q/√n,   value − s h(q/√n)      h(z) = 3/γ · [(1 + γ (z − γ/6n))^⅓ − 1],  q Student's quantile ±t_{n−1}

For a ratio of means u = (a − ratio·b)/mean(b), the delta method. Measured, 2,000 repetitions each, how often 95%
intervals hold the mean: normal draws 0.94 to 0.96; exponential ones 0.94 (n = 8) to 0.96; log-normal with standard
deviation 1 of the logarithm 0.89 (8), 0.93 (32), 0.96 (128 on), with 1.5 0.81, 0.91, 0.93, 0.94 (1,024); of draws that
are 0 but for one in 200, 0.95 at 1,024, where Student's own have 0.82. What no draw has shown no interval holds: draws
that are all alike have one of no width, and all that is known is that fewer than 3/n are otherwise (with 95%).

What is never negative, a gap or a share of it, has the wider of these ends and of Student's on the logarithm, with the
jackknife's u. Measured, 600 repetitions each, on gap shares of digits and five points: at n = 8 0.81 to 0.99 where the
delta method has 0.73 to 0.98, at 32 0.90 to 0.98 (0.89 to 0.97), from 64 on the same 0.93 to 0.97, as wide within 9% at
64, 5% at 128 and 3% above; 0.07 at 8, 0.21 at 64 and 0.77 at 1,024 where one draw in a thousand carries the gap, as no
interval can help.

Shares have the interval of Clopper and Pearson, which has a width at 0 and 1; medians that between order statistics.
Both hold at least 95%, whatever the distribution.

References:
    Hall 1992, "On the Removal of Skewness by Transformation". Clopper, Pearson 1934, "The Use of Confidence or Fiducial
    Limits". Efron, Stein 1981, "The Jackknife Estimate of Variance".
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from .shown import in_short

__all__ = [
    "Interval",
    "carriers_of",
    "distinct_interval",
    "influence_interval",
    "mean_interval",
    "median_interval",
    "paired_share_interval",
    "positive_interval",
    "ratio_interval",
    "require_level",
    "share_interval",
]


@dataclass(frozen=True)
class Interval:
    """A value and the ends of its interval, float64 tensors of one shape: (S,), one a noise level, or ()."""

    value: Tensor
    low: Tensor
    high: Tensor

    __repr__ = in_short

    def scaled(self, factor: float) -> Interval:
        """All three times a factor, > 0."""
        return self.map(lambda part: part * factor)

    def within(self, low: float = -math.inf, high: float = math.inf) -> Interval:
        """The ends clipped to where the value is known to lie."""
        return Interval(self.value, self.low.clamp(low, high), self.high.clamp(low, high))

    def map(self, function: Callable[[Tensor], Tensor]) -> Interval:
        """All three by an increasing function."""
        return Interval(function(self.value), function(self.low), function(self.high))

    def flat(self, name: str, suffix: str = "") -> dict[str, float]:
        """Of an interval of (): name, name_low and name_high, each with the suffix."""
        ends = {"": self.value, "_low": self.low, "_high": self.high}
        return {f"{name}{suffix}{end}": float(part) for end, part in ends.items()}


def carriers_of(draws: Tensor) -> int:
    """The fewest of the draws, (n,) and none negative, that make up half of their sum; 0 where it is 0."""
    largest = draws.sort(descending=True).values.cumsum(0)
    return int((largest < largest[-1] / 2).sum()) + 1 if largest[-1] > 0 else 0


def require_level(level: float) -> None:
    """Raise ValueError unless level lies within (0, 1)."""
    if not 0 < level < 1:
        raise ValueError(f"level must lie between 0 and 1, got {level:g}")


def mean_interval(draws: Tensor, level: float = 0.95) -> Interval:
    """Mean over the last axis, (…, n) -> (…)."""
    mean = draws.mean(-1)
    return influence_interval(mean, draws - mean.unsqueeze(-1), level)


def ratio_interval(above: Tensor, below: Tensor, level: float = 0.95) -> Interval:
    """Ratio of two means over the last axis, (…, n) each -> (…); 0 where both are 0."""
    bottom = below.mean(-1, keepdim=True).clamp_min(torch.finfo(torch.float64).tiny)
    ratio = above.mean(-1, keepdim=True) / bottom
    return influence_interval(ratio.squeeze(-1), (above - ratio * below) / bottom, level)


def positive_interval(above: Tensor, below: Tensor | None = None, level: float = 0.95) -> Interval:
    """Mean, or ratio of two means, of what is never negative, over the last axis, (…, n) -> (…).

    The ends are the wider of those of `influence_interval`, with the jackknife's influence (n − 1)(r − r₋ᵢ), and of
    Student's on the logarithm, r exp(±q s/r√n): where few draws carry most of it, what is unknown is its size.
    """
    from scipy.stats import t

    below = torch.ones_like(above) if below is None else below
    n, tiny = above.shape[-1], torch.finfo(torch.float64).tiny
    top, bottom = above.sum(-1, keepdim=True), below.sum(-1, keepdim=True)
    ratio = top / bottom.clamp_min(tiny)
    moves = (n - 1) * (ratio - (top - above) / (bottom - below).clamp_min(tiny))
    # Where one draw has all that is below, there is nothing without it.
    moves = torch.where((bottom - below) > 0, moves, (above - ratio * below) * n / bottom.clamp_min(tiny))
    moves = moves - moves.mean(-1, keepdim=True)
    plain = influence_interval(ratio.squeeze(-1), moves, level)
    if n == 1:
        return plain
    quantile = float(t.ppf((1 + level) / 2, n - 1)) / math.sqrt(n)
    wide = (quantile * (moves / ratio.clamp_min(tiny)).std(-1)).exp()
    low, high = plain.value / wide, torch.where(plain.value > 0, plain.value * wide, plain.high)
    return Interval(plain.value, torch.minimum(plain.low, low).clamp_min(0), torch.maximum(plain.high, high))


def influence_interval(value: Tensor, influence: Tensor, level: float = 0.95) -> Interval:
    """Of an estimate, (…), that its n draws move by influence/n each, (…, n), their sum 0; one draw says nothing."""
    from scipy.stats import t

    n = influence.shape[-1]
    if n == 1:
        return Interval(value, torch.full_like(value, -torch.inf), torch.full_like(value, torch.inf))
    tiny = torch.finfo(torch.float64).tiny
    # In units of the largest, whose square is a number.
    unit = influence.abs().amax(-1).clamp_min(tiny)
    moves = influence / unit.unsqueeze(-1)
    spread = moves.std(-1)
    skew = (moves / spread.clamp_min(tiny).unsqueeze(-1)).pow(3).mean(-1)
    quantile = float(t.ppf((1 + level) / 2, n - 1)) / math.sqrt(n)
    ends = [torch.full_like(spread, quantile), torch.full_like(spread, -quantile)]
    low, high = (unit * spread * torch.stack([end, _unskewed(end, skew, n)]) for end in ends)
    return Interval(value, value - low.amax(0), value - high.amin(0))


def _unskewed(z: Tensor, skew: Tensor, n: int) -> Tensor:
    """h of the module; z itself where there is no skewness."""
    inner = 1 + skew * (z - skew / (6 * n))
    root = inner.sign() * inner.abs().pow(1 / 3)
    return torch.where(skew.abs() < 1e-9, z, 3 * (root - 1) / torch.where(skew.abs() < 1e-9, 1.0, skew))


def median_interval(draws: Tensor, level: float = 0.95) -> Interval:
    """Median over the last axis, (…, n) -> (…), between two order statistics; all draws for n < 6 at 95%."""
    from scipy.stats import binom

    n = draws.shape[-1]
    ordered = draws.sort(-1).values
    # The number of draws below the median is binomial: it is at least `below` with probability 1 − (1 − level)/2.
    below = int(binom.ppf((1 - level) / 2, n, 0.5))
    first = max(below - 1, 0)
    return Interval(ordered.quantile(0.5, dim=-1), ordered[..., first], ordered[..., n - 1 - first])


def share_interval(hits: Tensor, level: float = 0.95) -> Interval:
    """Share of True over the last axis, (…, n) bool -> (…), by Clopper and Pearson."""
    from scipy.stats import beta

    n, count = hits.shape[-1], hits.sum(-1).double().cpu().numpy()
    tail = (1 - level) / 2
    # Of no hit the lower end is 0, of nothing but hits the upper one is 1: there the beta distribution has no density.
    low = torch.as_tensor(beta.ppf(tail, count, n - count + 1), dtype=torch.float64).nan_to_num(0.0)
    high = torch.as_tensor(beta.ppf(1 - tail, count + 1, n - count), dtype=torch.float64).nan_to_num(1.0)
    return Interval(hits.double().mean(-1).cpu(), low, high)


def paired_share_interval(hits: Tensor, others: Tensor, level: float = 0.95) -> Interval:
    """Difference of two shares of the same n draws, (n,) bool each -> (), within ±1: by Agresti and Min.

    With b draws that are hits only among the first and c only among the others it is (b − c)/n, and the ends are Wald's
    after ½ is added to each of the four counts, so that they are apart where no draw differs, too. Measured, 4,000
    repetitions at n = 64, 256 and 1,024 with 1% to 60% of draws that differ, evenly or nine to one: 95% intervals hold
    it in 94% to 100%, but for 90% where 1% of 256 differ nine to one.

    References:
        Agresti, Min 2005, "Simple Improved Confidence Intervals for Comparing Matched Proportions".
    """
    from scipy.stats import norm

    n = hits.shape[-1]
    more, less = ((one & ~other).sum().double().cpu() for one, other in ((hits, others), (others, hits)))
    centre = (more - less) / (n + 2)
    spread = ((more + less + 1) / (n + 2) - centre.square()).clamp_min(0).sqrt() / math.sqrt(n + 2)
    reach = float(norm.ppf((1 + level) / 2)) * spread
    return Interval((more - less) / n, centre - reach, centre + reach).within(-1, 1)


def distinct_interval(index: Tensor, level: float = 0.95, *, most: float = math.inf) -> Interval:
    """How many different values n draws have, (n,) int64 -> (); never more than `most`.

    The variance is the jackknife's, f (1 − f/n)(n − 1)/n with f the values drawn once, on average not too small. Where
    few draws repeat others, c <= √n, their number is held to be Poisson's instead. Where few values can be missed the
    interval has at least the width of what other n draws may miss, Σ e^(−λ) with λ the least that Poisson's counts
    allow, or 1.
    """
    from scipy.stats import chi2, t

    n = len(index)
    counts = index.unique(return_counts=True)[1].double()
    value, once = float(len(counts)), float((counts == 1).sum())
    repeats, tail = n - value, (1 - level) / 2
    if repeats**2 <= n:
        low = n - float(chi2.ppf(1 - tail, 2 * repeats + 2)) / 2
        high = n - (float(chi2.ppf(tail, 2 * repeats)) / 2 if repeats else 0.0)
    else:
        least = torch.as_tensor(chi2.ppf(tail, 2 * counts.cpu().numpy())) / 2
        half = float(t.ppf(1 - tail, n - 1)) * math.sqrt(once * (1 - once / n) * (n - 1) / n)
        half = max(half, min(1.0, float((-least).exp().sum())))
        low, high = value - half, value + half
    ends = (value, max(low, 1.0), max(value, min(high, n, most)))
    return Interval(*(torch.tensor(end, dtype=torch.float64) for end in ends))
