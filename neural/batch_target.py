"""Unbiased targets from a batch: the posterior over M points of which one is the source of x.

Of M points y_i, drawn without replacement, let x = y_s + σ ε with s drawn uniformly. Given the M points, every one is
the source with a probability that is exactly its softmax among them, so that

    û_M(x) = Σ_i softmax_i(−‖x − y_i‖²/2σ²) y_i = E[x0 | x, the M points],    E[û_M | x] = E[x0 | x]

and the gradient of a regression on û_M is in the mean that of Eq. 26, with a variance between that of x0, which is û_1,
and none, that of the optimum D = û_N. Without the source among the points it would be biased.

References:
    Bertrand, Gagneux, Massias, Emonet 2025, "On the Closed-Form of Flow Matching: Generalization Does Not Arise from
    Target Stochasticity"; Xu, Tong, Jaakkola 2023, "Stable Target Field for Reduced Variance Score Estimation".
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

from optimal import Dataset, OptimalDenoiser
from optimal.denoiser import Denoiser
from optimal.intervals import positive_interval
from optimal.query import Levels, beside, level_list
from optimal.theories import batch_mean, equally_likely

from .config import Optimisation
from .loss import Batch, Source, draw_sigma, weighted
from .streams import Streams

__all__ = ["BatchTarget", "target_variance"]


class BatchTarget:
    """λ(σ) ‖û_M(x) − x_θ(x, σ)‖²/dim at x = x0 + σ ε, the posterior of M points among which x0 is.

    A batch of B rows comes from ⌈B/M⌉ sets of M points, each set drawn without replacement and the source of at most M
    rows, one row a point.

    Args:
        data: what points are drawn from.
        options: noise levels, weighting, `target_points`, M.
        sigma_data: σ_d of the edm weighting.

    Raises:
        ValueError: more points in a set than in the data.
    """

    def __init__(self, data: Dataset, options: Optimisation, sigma_data: float):
        if options.target_points > len(data):
            raise ValueError(
                f"target_points must be at most {len(data)}, the points of {data.name}, got {options.target_points}"
            )
        self.source, self.options, self.sigma_data = Source(data), options, sigma_data

    def draw(self, count: int, streams: Streams) -> Batch:
        """x, σ and û_M of `count` rows."""
        most = self.options.target_points
        sigma = draw_sigma(count, self.options, streams)
        found: list[tuple[Tensor, Tensor]] = []
        for start in range(0, count, most):
            level = sigma[start : start + most]
            points = self.source.at(streams.distinct(len(self.source.data), most)).to(level.device)
            eps = streams.normal(len(level), *points.shape[1:])
            x = points[: len(level)] + beside(level.to(eps.dtype), eps) * eps
            found.append((x, batch_mean(points, x, level)))
        x, target = (torch.cat(parts) for parts in zip(*found, strict=True))
        return x, sigma, target

    def loss(self, student: Callable[..., Tensor], average: Denoiser, batch: Batch) -> tuple[Tensor, Tensor]:
        x, sigma, target = batch
        return weighted(student(x, sigma) - target, sigma, self.options.weighting, self.sigma_data), sigma


def target_variance(
    D: OptimalDenoiser, sizes: Iterable[int], sigmas: Levels, *, draws: int = 1024, seed: int = 0, level: float = 0.95
) -> list[dict[str, Any]]:
    """E‖û_M(x) − D(x)‖²/dim at x = x0 + σ ε, by noise level and M, with intervals over draws of x and of the M points.

    Args:
        D: the optimum of the data, or of some of them, as of a class; all N of its points equally likely.
        sizes: numbers of points M, 1 … N; M = 1 is the variance of x0 itself, the mmse, M = N is 0.
        sigmas: noise levels.
        draws: of x at each.
        seed: of the draws.
        level: of the intervals.

    Returns:
        rows: sigma, points, variance, variance_low, variance_high, the last three in squared units of the data.

    Raises:
        ValueError: an M out of range; draws < 1; points of different probabilities, of which no batch is drawn.
    """
    there = equally_likely(D)
    found: list[dict[str, Any]] = []
    for sigma in level_list(sigmas).tolist():
        for size in sizes:
            if not 1 <= size <= len(there):
                raise ValueError(f"points of a set must be 1 … {len(there)}, got {size}")
            streams = Streams(seed)
            squares = torch.empty(draws, dtype=torch.float64, device="cpu")
            # A set of its own for every x: those of one set would not be independent.
            for i in range(draws):
                points = D.take(there[streams.distinct(len(there), size)]).float().cpu()
                x = points[:1] + sigma * streams.normal(1, *D.event)
                squares[i] = (batch_mean(points, x, sigma) - D(x, sigma)).double().square().mean()
            row = {"sigma": sigma, "points": size}
            found.append(row | positive_interval(squares, level=level).flat("variance"))
    return found
