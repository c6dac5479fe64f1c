"""The optimum cut down to the k nearest points: a truncation, to measure what it costs.

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
from ..numbers import is_whole
from ..query import Levels, levels, require_points
from .moments import require_optimum
from .underived import underived

__all__ = ["Nearest", "nearest"]

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

    A row costs at most N C H W products, which screening leaves out where it can, and k C H W for the mean; memory is
    that of the data, in blocks within D's, and 8 k C H W bytes a row for the points that are gathered, 256 MiB at once.

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
    if not (is_whole(k) and 1 <= k <= len(D)):
        raise ValueError(f"k must be a whole number from 1 to the {len(D):,} points that there are, got {k!r}")
    return Nearest(D, int(k))


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
