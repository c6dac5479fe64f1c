"""Products of blocks of points and queries, and how far the logits made of them are off.

Error, estimated. The error of products is that of their size, and grows with the points that matter, not with the
farthest: a point within W nats of the leader lies no further from x than r, r² = d² + 2Wσ², d the leader's distance, so
‖y_j − c‖ <= ρ = min(max_k ‖y_k − c‖, ‖z‖ + r). With that,

    error <= ROUNDING · (min(‖z‖ρ, |σ² l| + Wσ² + ½ρ²) + 4‖z‖ρ/√D)/σ² + (log2 D + 6) u ½ρ²/σ²        nats,

`ROUNDING` calibrated by bench/rounding.py; the last term is the rounding of h_j, u = 2⁻⁵³. Further points have larger
errors, but trail by more. Under a prior (`optimal.points.prior`) the leader is that of a_j + l_j = t, a point within W
nats of it has t − W − max a <= l_j <= t − min a, and d²/2σ² is t − max a; adding a_j rounds by 4 u max |a|.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..points import Points
from ..points.rounding import UNIT, halvings

__all__ = ["ROUNDING", "TIE", "WINDOW", "combinations", "logit_error", "products"]

WINDOW = 30.0
"""Points further below the leader than this many nats are left out."""
TIE = 1e-6
"""Largest error of a float64 product, in nats, that is let through."""
ROUNDING = {torch.float32: 128 * 2.0**-24, torch.float64: 128 * 2.0**-53}
"""Rounding of a product in units of |z·y| + 4‖z‖‖y‖/√D, in sums of `_INNER` values; see bench/rounding.py."""
_INNER = 512
"""Terms after which a product starts a new sum. A sum of equal values, of images of one colour, is off by a quarter of
its length."""
_SHORT = 128
"""The same for a combination with few rows, whose kernel adds one term after another: off by 4,000 units of 2⁻²⁴."""
_FEW = 16
"""Queries below which a product is several times faster with them as its rows; from there on, it is slower."""


def products(block: Tensor, queries: Tensor) -> Tensor:
    """(n, b): a block (n, D) times queries (b, D), in sums of `_INNER` terms."""
    few = len(queries) < _FEW
    a, b = (queries, block) if few else (block, queries)
    out = torch.mm(a[:, :_INNER], b[:, :_INNER].T)
    for first in range(_INNER, block.shape[1], _INNER):
        # Not by `addmm`, which may go on with the sum that it is given.
        out += torch.mm(a[:, first : first + _INNER], b[:, first : first + _INNER].T)
    return out.T if few else out


def combinations(weights: Tensor, block: Tensor) -> Tensor:
    """(b, D) float64: Σ_j w_j y_j for weights (n, b), in the precision of the block (n, D)."""
    weights = weights.to(block.dtype)
    if weights.shape[1] >= _FEW:
        return (block.T @ weights).T.double()
    whole = len(block) // _SHORT * _SHORT
    rows, batch = (whole // _SHORT, _SHORT), weights.shape[1]
    w, y = weights[:whole].reshape(*rows, batch), block[:whole].view(*rows, block.shape[1])
    out = torch.bmm(w.transpose(1, 2), y).double().sum(0)
    return out.add_(weights[whole:].T @ block[whole:])


def logit_error(points: Points, norm: Tensor, sigma: Tensor, top: Tensor, dtype: torch.dtype) -> Tensor:
    """Estimate of the error of products of type `dtype` for the points within 30 nats of the leader, nats, (B,).

    Args:
        norm: (B,) float64, ‖z‖; sigma: (B,).
        top: (B,) float64, the leader's logit, (z·(y − c) − h)/σ² + a.
    """
    square, prior = sigma.square(), points.prior
    nats, least = WINDOW * square, square * (top if prior is None else top - prior.highest)
    reach = (norm.square() - 2 * least).clamp_min_(0).add_(nats, alpha=2).sqrt_()
    farthest = reach.add_(norm).clamp_max_(points.radius)
    half, product = 0.5 * farthest.square(), norm * farthest
    largest = least.abs_()
    if prior is not None:
        largest = torch.maximum(largest, (square * (top - prior.lowest)).abs_())
    size = torch.minimum(product, largest + nats + half).add_(product, alpha=4 / points.dim**0.5)
    error = (ROUNDING[dtype] * size).add_(half, alpha=(halvings(points.dim) + 6) * UNIT).div_(square)
    return error if prior is None else error.add_(4 * UNIT * prior.reach)
