"""Σ_j w_j c_j ‖y_j − D‖², the scalar beside `tilt`'s vector, by blocked products as in `dense`."""

from __future__ import annotations

import torch
from torch import Tensor

from ..points import Points
from . import dense
from .protocol import Tilt

__all__ = ["tilted_square"]


def tilted_square(
    points: Points,
    z: Tensor,
    sigma: Tensor,
    tilt: Tilt,
    *,
    single: bool,
    memory: int,
    without: Tensor | None = None,
) -> Tensor:
    """Σ_j w_j c_j ‖y_j − D‖², (B,) float64, with the c_j of `Tilt`; z (B, D) and sigma (B,), float64."""
    out = torch.zeros_like(sigma)
    for part in dense.tilted(points, z, sigma, tilt, single=single, memory=memory, without=without):
        at = slice(None) if part.rows is None else part.rows
        out[at] += (part.coefficient * part.distance * part.weights).sum(0)
    return out
