"""The optimum cut down to a few points: the k nearest, and the "golden subset". Truncations, to measure what they cost.

With h the share of the posterior that the kept points have (1 − h is the tail), and D_head, D_tail the posterior means
over the two parts,

    D = h D_head + (1 − h) D_tail,    D_head − D = (1 − h)(D_head − D_tail)

so that the error is at most 1 − h times the largest distance of two points, and at large σ, where h → k/N, it is that
of the mean of k points which are no fair sample.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float, Int, Num
from torch import Tensor

from ..denoiser import OptimalDenoiser
from ..query import Levels, levels, require_finite, require_points
from ..randomness import generator_of
from .local.masks import Ratios
from .local.scale import Scale, asked_of, between, scales
from .local.units import Mask
from .moments import require_optimum
from .underived import underived

__all__ = ["GoldenSubset", "Nearest", "golden_subset", "nearest"]

_BYTES = 2**28
"""Of gathered points at once."""


class Nearest:
    """The posterior mean over the k nearest points, a `Denoiser`; made by `nearest`.

    Attributes:
        D: the optimum.
        k: how many points.
        event: shape of one point.
    """

    def __init__(self, D: OptimalDenoiser, k: int):
        self.D, self.k, self.event = D, k, D.event
        self._log_weights = _of_distinct(D)

    def __repr__(self) -> str:
        return f"Nearest({self.D!r}, k={self.k})"

    def __call__(self, x: Num[Tensor, "B *event"], sigma: Levels) -> Float[Tensor, "B *event"]:
        """D_head(x, σ), (B, *event), like x.

        Raises:
            ValueError: as for `OptimalDenoiser`.
        """
        require_points(x, self.event)
        square = levels(sigma, len(x), x.device).square()[:, None]
        index, logits = self._head(x, square)
        return underived(_mean_of(self.D, index, logits.softmax(1), x), x, "nearest")

    def tail(self, x: Num[Tensor, "B *event"], sigma: Levels) -> Float[Tensor, " B"]:
        """1 − h, the share of the posterior that the other points have, (B,) float64.

        From two log densities in float64: shares below about 1e-12 are their rounding.
        """
        require_points(x, self.event)
        sigmas = levels(sigma, len(x), x.device)
        logits = self._head(x, sigmas.square()[:, None])[1]
        dim = math.prod(self.event)
        head = logits.logsumexp(1) - 0.5 * dim * (2 * math.pi * sigmas.square()).log()
        return -torch.expm1((head - self.D.posterior(x.double(), sigmas).log_density).clamp_max(0))

    def _head(self, x: Tensor, square: Tensor) -> tuple[Int[Tensor, "B k"], Float[Tensor, "B k"]]:
        """Which points, −1 for none, and log π_j − ‖x − y_j‖²/2σ²."""
        index, distance = self.D.neighbours(x, self.k)
        own = self._log_weights.to(x.device)[index.clamp_min(0)]
        return index, torch.where(index < 0, -torch.inf, own - distance.square() / (2 * square))


def nearest(D: OptimalDenoiser, k: int) -> Nearest:
    """The optimum over the k points nearest to x only, as approximate evaluators have it.

    Copies of a point are one point, with the probability of all of them. Of points equally far the first in the data
    comes first. Under a prior the nearest need not be those of the largest weight.

    Args:
        D: the optimum.
        k: number of distinct points.

    Raises:
        ValueError: k below 1, or above the number of points; a D that is no `OptimalDenoiser`.

    Example:
        >>> D = OptimalDenoiser(torch.tensor([[-1.0], [1.0], [4.0]]))
        >>> nearest(D, k=1)(torch.tensor([[0.2]]), 10.0), nearest(D, k=3)(torch.tensor([[0.2]]), 10.0)
        (tensor([[1.]]), tensor([[1.2758]]))
    """
    require_optimum(D, "a mean over the nearest points")
    if not (hasattr(k, "__index__") and 1 <= k <= len(D)):
        raise ValueError(f"k must be a whole number from 1 to the {len(D):,} points that there are, got {k!r}")
    return Nearest(D, int(k))


class GoldenSubset:
    """The posterior mean over a subset that shrinks with the noise, a `Denoiser`; made by `golden_subset`."""

    def __init__(
        self,
        D: OptimalDenoiser,
        fewest: int,
        most: int,
        order: Int[Tensor, " N"],
        side: int,
        threshold: Scale | None = None,
    ):
        self.D, self.event, self.fewest, self.most, self.order = D, D.event, fewest, most, order
        self._side, self._threshold = side, threshold
        self._masks = None if threshold is None else Ratios(D, "input", progress=False)
        self._small = torch.cat([_pooled(D.take(some).float(), side) for some in order.split(4096)])
        self._log_weights = D.log_weights.cpu()[order]

    def __repr__(self) -> str:
        return f"GoldenSubset({self.D!r}, {self.fewest} to {self.most} points)"

    def counts(self, sigma: float) -> tuple[int, int]:
        """At a noise level: how many points are looked at, and over how many of them the mean is taken."""
        s = sigma / math.hypot(1.0, sigma)
        drawn = round(self.most + (len(self.order) - self.most) * (1 - s))
        return drawn, round(self.most - (self.most - self.fewest) * (1 - s))

    def __call__(self, x: Num[Tensor, "B *event"], sigma: Levels) -> Float[Tensor, "B *event"]:
        """The mean over the subset of each row, (B, *event), like x.

        Raises:
            ValueError: as for `OptimalDenoiser`.
        """
        require_points(x, self.event)
        sigmas = levels(sigma, len(x), x.device)
        require_finite(x.flatten(1))
        masks = {float(level): self._mask(float(level)) for level in sigmas.unique()}
        levelled = ((float(level), masks[float(level)]) for level in sigmas)
        rows = [self._of_row(row, *each) for row, each in zip(x.detach(), levelled, strict=True)]
        return underived(torch.stack(rows).to(x) if rows else torch.empty_like(x), x, "golden_subset")

    def _mask(self, sigma: float) -> Mask | None:
        if self._masks is None or self._threshold is None:
            return None
        (threshold,) = scales("threshold", self._threshold, between(0, 1), torch.tensor([sigma], dtype=torch.float64))
        return self._masks(threshold, sigma, torch.device("cpu"))

    def _of_row(self, x: Tensor, sigma: float, mask: Mask | None) -> Tensor:
        drawn, kept = self.counts(sigma)
        coarse = (self._small[:drawn] - _pooled(x[None].float().cpu(), self._side)).square().sum(1)
        near = coarse.topk(min(self.most, drawn), largest=False).indices
        points = self.D.take(self.order[near]).double().cpu().flatten(1)
        squares = (points - x.double().cpu().flatten()).square_()
        some = squares.sum(1).topk(min(kept, len(near)), largest=False).indices
        # (1, n), or a posterior for every value, (D, n).
        seen = squares[some].sum(1)[None] if mask is None else mask.seen(squares[some].T)
        weights = (self._log_weights[near[some]] - seen / (2 * sigma * sigma)).softmax(1)
        return (weights * points[some].T).sum(1).reshape(self.event)


def golden_subset(
    D: OptimalDenoiser,
    fewest: float = 1 / 20,
    most: float = 1 / 10,
    *,
    side: int = 16,
    threshold: Scale | None = None,
    generator: torch.Generator | None = None,
) -> GoldenSubset:
    """The subset of GoldDiff, with the weights of the optimum over it, or those of PCA-locality, as GoldDiff has them.

    With s = σ/√(1 + σ²): of round(k + (N − k)(1 − s)) points drawn at random, k = `most` N, the k nearest in images
    averaged down to `side` x `side` are kept, and of those the round(k − (k − k_min)(1 − s)) nearest, k_min = `fewest`
    N. As their code has it, which draws anew at each call; here the draw is one order of the points, of which the first
    are taken, so that it is a function of x and σ. At high noise it is the mean of N/10 points.

    Args:
        D: the optimum, of images in [−1, 1]: what s makes of σ goes by that.
        fewest, most: k_min and k as shares of N.
        side: of the averaged images; smaller images are compared as they are.
        threshold: None for the weights of the optimum; or τ, from 0 to 1 or a function of σ, for those of
            `pca_locality(D, τ)`, whose masks are of all data. Published: 0.02 (MNIST, Fashion-MNIST, ImageNet), 0.03
            (CIFAR-10, CelebA), 0.04 (AFHQ). With shares of 1 it is `pca_locality` itself.
        generator: of the order; a fixed seed unless given.

    Raises:
        ValueError: shares that are not 0 < fewest <= most <= 1; a side that is no whole number of at least 1; points
            that are no images (C, H, W); a D that is no `OptimalDenoiser`; a threshold that is none.

    References:
        Shang et al. 2026, "GoldDiff".
    """
    require_optimum(D, "a golden subset")
    if not hasattr(side, "__index__") or side < 1:
        raise ValueError(f"side must be a whole number of at least 1, got {side!r}")
    if not 0 < fewest <= most <= 1:
        raise ValueError(f"shares must be 0 < fewest <= most <= 1, got {fewest:g} and {most:g}")
    if len(D.event) != 3:
        raise ValueError(f"a golden subset is one of images (C, H, W), got points of shape {D.event}")
    if threshold is not None:
        asked_of("threshold", threshold, between(0, 1))
    there = (D.log_weights.cpu() > -torch.inf).nonzero().squeeze(1)
    order = there[torch.randperm(len(there), generator=generator_of(generator), device="cpu")]
    few, many = (max(1, round(share * len(there))) for share in (fewest, most))
    return GoldenSubset(D, few, many, order, side, threshold)


def _pooled(images: Tensor, side: int) -> Tensor:
    height, width = min(side, images.shape[2]), min(side, images.shape[3])
    return torch.nn.functional.adaptive_avg_pool2d(images, (height, width)).flatten(1)


def _of_distinct(D: OptimalDenoiser) -> Float[Tensor, " N"]:
    """log of the probability of every point with all of its copies, at the first of them, (N,) float64."""
    first, own = D.first_copies().cpu(), D.log_weights.cpu()
    shares = torch.zeros_like(own).index_add_(0, first, own.exp())
    return torch.where(shares > 0, shares.log(), own)


def _mean_of(D: OptimalDenoiser, index: Tensor, weights: Tensor, x: Tensor) -> Tensor:
    """Σ_i w_i y_i of every row, like x."""
    out = torch.empty_like(x)
    step = max(1, _BYTES // (8 * index.shape[1] * math.prod(D.event)))
    for start in range(0, len(x), step):
        rows = slice(start, start + step)
        points = D.take(index[rows].clamp_min(0).flatten()).to(device=x.device, dtype=torch.float64)
        own = weights[rows]
        out[rows] = (own[:, None] @ points.reshape(*own.shape, -1)).reshape(x[rows].shape).to(x.dtype)
    return out
