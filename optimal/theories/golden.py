"""The "golden subset": the mean over a subset of the points that shrinks with the noise, to measure what it costs.

    s = σ/√(1 + σ²),    m = round(k + (N − k)(1 − s)),    n = round(k − (k − k_min)(1 − s))

m points drawn at random, of them the k nearest in images that are averaged down, of them the n nearest.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float, Int, Num
from torch import Tensor

from ..denoiser import OptimalDenoiser
from ..numbers import is_number, is_whole
from ..query import Levels, levels, require_finite, require_points
from ..randomness import generator_of
from .local.masks import Ratios
from .local.scale import Scale, asked_of, between, scales, word
from .local.units import Mask
from .moments import require_optimum
from .underived import underived

__all__ = ["GoldenSubset", "golden_subset"]


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
        self._small = torch.cat([_pooled(D.take(some).float().cpu(), side) for some in order.split(4096)])
        self._log_weights = D.log_weights.cpu()[order]

    def __repr__(self) -> str:
        threshold = "" if self._threshold is None else f", threshold={word(self._threshold)}"
        return f"GoldenSubset({self.D!r}, {self.fewest} to {self.most} points, side={self._side}{threshold})"

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

    With h and w the sides of the averaged images, a row costs at most N C h w for the first choice and k C H W in
    float64 for the second, and with a threshold k (C H W)² more; rows are taken one by one. Held are 4 N C h w bytes of
    averaged images, a row's k points, 8 k C H W, and with a threshold 8 (C H W)² a mask, found once a level, whose axes
    cost (C H W)³ once.

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
    if not is_whole(side) or side < 1:
        raise ValueError(f"side must be a whole number of at least 1, got {side!r}")
    if not (is_number(fewest) and is_number(most) and 0 < fewest <= most <= 1):
        raise ValueError(f"shares must be numbers, 0 < fewest <= most <= 1, got {fewest!r} and {most!r}")
    if len(D.event) != 3:
        raise ValueError(f"a golden subset is one of images (C, H, W), got points of shape {D.event}")
    if threshold is not None:
        asked_of("threshold", threshold, between(0, 1))
    there = (D.log_weights.cpu() > -torch.inf).nonzero().squeeze(1)
    order = there[torch.randperm(len(there), generator=generator_of(generator), device="cpu")]
    few, many = (max(1, round(share * len(there))) for share in (fewest, most))
    return GoldenSubset(D, few, many, order, int(side), threshold)


def _pooled(images: Tensor, side: int) -> Tensor:
    height, width = min(side, images.shape[2]), min(side, images.shape[3])
    return torch.nn.functional.adaptive_avg_pool2d(images, (height, width)).flatten(1)
