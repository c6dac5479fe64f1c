"""What one pass over the points finds, and the centre and the unit that they are measured in."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from .part import Part
from .rows import Rows

__all__ = ["Summary", "centre_of", "unit_of"]

_SOME = 129
"""Points that the centre is a mean of."""
_GOLDEN = (5**0.5 - 1) / 2
_USUAL = -20, 20
"""Radii for which the unit is 1, as powers of two."""


@dataclass(frozen=True)
class Summary:
    """What one pass over the points finds.

    Attributes:
        centre: (D,) float64, c, in the data's own units; exact in float32 unless the data are float64.
        unit: s, a power of two.
        half_norms: (N,) float64, ½‖y_j − c‖² in units of s²; None where each process knows those of its part.
        offset: (D,) float64, ȳ − c in units of s; None where it is not known yet.
        radius: max_j ‖y_j − c‖, in units of s.
        mean_half_norm: E ½‖x0 − c‖² over the points.
    """

    centre: Tensor
    unit: float
    half_norms: Tensor | None
    offset: Tensor | None
    radius: float
    mean_half_norm: float


def centre_of(rows: Rows | Part) -> Tensor:
    """A mean of at most 129 points, value by value, after the far ones are clamped; (D,) float64.

    An eighth of the values is clamped on either side, so that a few points, however far, do not move it; of two points
    it is their middle, of copies that point. It is exact in float32 unless the rows are float64.
    """
    count = min(_SOME, rows.size)
    # No two of these places are alike modulo any small number, as data that come in turns may have it.
    places = torch.arange(count, dtype=torch.float64, device="cpu")
    if count < rows.size:
        places = (places + 1).mul_(_GOLDEN).frac_().mul_(rows.size).floor_()
    index = places.long().unique()
    # A point that is not finite shows in its own half norm only.
    values = rows.exact(index).nan_to_num_(0.0, 0.0, 0.0).T.contiguous().sort(1).values
    left = (len(index) - 1) // 2 if len(index) < 9 else len(index) // 8
    low, high = values[:, left, None], values[:, len(index) - 1 - left, None]
    centre = values.clamp(low, high).div_(len(index)).sum(1).clamp_(low[:, 0], high[:, 0])
    return centre if rows.dtype == torch.float64 else centre.float().double()


def unit_of(log2_radius: float) -> float:
    """The unit of points of that radius: 1, or a power of two near it where it is far from 1."""
    return 1.0 if _USUAL[0] <= log2_radius <= _USUAL[1] or math.isinf(log2_radius) else 2.0 ** round(log2_radius)
