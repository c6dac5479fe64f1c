"""Σ_j w_j c_j ‖y_j − D‖², the scalar beside `tilt`'s vector, by blocked products as in `dense`."""

from __future__ import annotations

import torch
from torch import Tensor

from ..points import Points
from . import dense
from .protocol import Tilt

__all__ = ["tilted_square"]


def tilted_square(points: Points, z: Tensor, sigma: Tensor, tilt: Tilt, *, single: bool, memory: int) -> Tensor:
    """Σ_j w_j c_j ‖y_j − D‖², (B,) float64, with the c_j of `Tilt`; z (B, D) and sigma (B,), float64."""
    out = torch.zeros_like(sigma)
    squares = 2 * points.half_norms.to(z.device)
    offset, mean_square = (tilt.direction * tilt.mean).sum(1), tilt.mean.square().sum(1)
    for rows, index, logits, _, block in dense.logits(points, z, sigma, single=single, memory=memory):
        at = slice(None) if rows is None else rows
        log_weights = logits - tilt.log_total[at, None]
        inner = (tilt.mean[at].to(block.dtype) @ block.T).double()
        distance = (squares[index] - 2 * inner + mean_square[at, None]).clamp_min(0)
        coefficient = (tilt.direction[at].to(block.dtype) @ block.T).double() - offset[at, None]
        coefficient += tilt.by_log_weight[at, None] * log_weights + tilt.by_distance[at, None] * distance
        out[at] += (coefficient * distance * log_weights.exp()).sum(1)
    return out
