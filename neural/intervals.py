"""Intervals for what is measured on draws: means, ratios of means, medians and shares."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from scipy.stats import beta, binom, t
from torch import Tensor

__all__ = ["Interval", "mean_interval", "median_interval", "ratio_interval", "require_level", "share_interval"]


@dataclass(frozen=True)
class Interval:
    """A value and the ends of its interval, float64 tensors of one shape: (S,), one a noise level, or ()."""

    value: Tensor
    low: Tensor
    high: Tensor

    def scaled(self, factor: Tensor | float) -> Interval:
        """All three times a factor, > 0."""
        return Interval(self.value * factor, self.low * factor, self.high * factor)

    def within(self, low: float = -math.inf, high: float = math.inf) -> Interval:
        """The ends clipped to where the value is known to lie."""
        return Interval(self.value, self.low.clamp(low, high), self.high.clamp(low, high))


def require_level(level: float) -> None:
    """Raise ValueError unless level lies within (0, 1)."""
    if not 0 < level < 1:
        raise ValueError(f"level must lie between 0 and 1, got {level:g}")


def mean_interval(draws: Tensor, level: float = 0.95) -> Interval:
    """Mean over the last axis, (…, n) -> (…)."""
    return _around(draws.mean(-1), draws - draws.mean(-1, keepdim=True), level)


def ratio_interval(above: Tensor, below: Tensor, level: float = 0.95) -> Interval:
    """Ratio of two means over the last axis, (…, n) each -> (…), by the delta method."""
    bottom = below.mean(-1, keepdim=True)
    ratio = above.mean(-1, keepdim=True) / bottom
    return _around(ratio.squeeze(-1), (above - ratio * below) / bottom, level)


def _around(value: Tensor, influence: Tensor, level: float) -> Interval:
    """The interval of an estimate whose draws move it by influence/n each, (…, n)."""
    n = influence.shape[-1]
    half = float(t.ppf((1 + level) / 2, n - 1)) * influence.std(-1) / math.sqrt(n)
    return Interval(value, value - half, value + half)


def median_interval(draws: Tensor, level: float = 0.95) -> Interval:
    """Median over the last axis, (…, n) -> (…), between two order statistics: no assumption on the distribution."""
    n = draws.shape[-1]
    ordered = draws.sort(-1).values
    below = int(binom.ppf((1 - level) / 2, n, 0.5))
    # Of k draws below the median, k is binomial: P(below <= k <= n − below) >= level.
    return Interval(draws.quantile(0.5, dim=-1), ordered[..., max(below - 1, 0)], ordered[..., min(n - below, n - 1)])


def share_interval(hits: Tensor, level: float = 0.95) -> Interval:
    """Share of True over the last axis, (…, n) bool -> (…): Clopper and Pearson's, which is no point at 0 and 1."""
    n, count = hits.shape[-1], hits.sum(-1).double().cpu().numpy()
    tail = (1 - level) / 2
    low = torch.as_tensor(beta.ppf(tail, count, n - count + 1), dtype=torch.float64)
    high = torch.as_tensor(beta.ppf(1 - tail, count + 1, n - count), dtype=torch.float64)
    return Interval(hits.double().mean(-1).cpu(), low.nan_to_num(0.0), high.nan_to_num(1.0))
