"""Where float32 is too coarse for scores, and leads by differences instead.

A score (x − c)·(y_k − c) − ½‖y_k − c‖² in float32 is off by about 2u (‖x‖ + ‖y_k‖)‖y_k‖, lengths from c (estimated), so
for a far point it may be off by more than all others differ by: a point is in question where its own error, and the
leader's, may put it in front. Leads by differences, in float64, of a state that is known to float32 are off by about
u ‖x‖‖y_j − y_k‖.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..points import Points

__all__ = ["WINDOW", "in_question", "leads_by_differences", "roughness"]

WINDOW = 18.0
"""Nats below the leader from which on a point's weight is no more than rounding."""
_UNIT = 2.0**-24


def roughness(norms: Tensor, size: Tensor | float) -> Tensor:
    """What scores are off by, for points of length `norms` and states of length `size`."""
    return 2 * _UNIT * norms * (size + norms)


def in_question(scores: Tensor, norms: Tensor, size: float, sigma: float) -> tuple[Tensor, float]:
    """The points that may have weight, (n,) int64, for scores (N,) and lengths (N,); how far these are off, in nats.

    One point in question has all the weight, whatever its score: then that is 0.
    """
    errors = roughness(norms, size)
    floor = float((scores - errors).max()) - WINDOW * sigma**2
    index = (scores + errors >= floor).nonzero().squeeze(1)
    return index, float(errors[index].max()) / sigma**2 if len(index) > 1 else 0.0


def leads_by_differences(points: Points, x: Tensor, index: Tensor, sigma: float) -> tuple[Tensor, float]:
    """½‖x − y_n‖² − ½‖x − y_k‖² of the points `index`, n the nearest, (n,) float64; how far these are off, in nats.

    x: (dim,) float64, minus the centre.
    """
    half = torch.empty(len(index), dtype=torch.float64, device=x.device)
    for start, block in points.blocks(points.few_rows, x.device, index):
        half[start : start + len(block)] = (block - x).square_().sum(1) / 2
    leads = half.min() - half
    close = index[leads >= -WINDOW * sigma**2]
    one = torch.empty(1, points.dim, dtype=torch.float64, device=x.device)
    nearest = points.read(index[half.argmin()][None], one)
    blocks = points.blocks(points.few_rows, x.device, close)
    apart = max(float((block - nearest).norm(dim=1).max()) for _, block in blocks)
    return leads, _UNIT * float(x.norm()) * apart / sigma**2
