"""Where products in float32 keep their digits: nothing that matters leaves its range, at either end.

The unit of the points is about their radius. One point very far from all others makes the others tiny in it, and their
products are lost below ω = 2⁻¹²⁶, the smallest normal number of float32; with a query very far from all points they
overflow.
"""

from __future__ import annotations

import math
import weakref
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from .rounding import lost

if TYPE_CHECKING:
    from .empirical import Points

__all__ = ["in_range"]

_LARGEST = 1e15
"""Values of a query from which on products of float32 may overflow."""
_LEAST = 2.0**-50
"""Distance from the centre, but for 0, below which a point's own digits may be lost: its square is 2⁻¹⁰⁰."""
_NATS = 1e-6
"""What logits may lose below ω."""
_SMALLEST: weakref.WeakKeyDictionary[Points, float] = weakref.WeakKeyDictionary()


def in_range(points: Points, z: Tensor, sigma: Tensor | None = None) -> bool:
    """Whether products of the points with z may be made in float32.

    Args:
        points: the points.
        z: (B, D) float64, in units of the points.
        sigma: (B,) float64, in the same units, where logits are made of the products.
    """
    if len(z) == 0:
        return True
    if float(z.abs().max()) >= _LARGEST or _smallest(points) < _LEAST:
        return False
    if sigma is None:
        return True
    sizes = 1 + (z.norm(dim=1) + points.radius) / math.sqrt(points.dim)
    return bool((lost(points.dim, torch.float32) * sizes <= _NATS * sigma.square()).all())


def _smallest(points: Points) -> float:
    """The least distance of a point from the centre that is not 0; inf if there is none, 0 if its square is too small.

    Of points whose square is 0, the values tell whether they are at the centre.
    """
    if points not in _SMALLEST:
        half_norms = points.half_norms
        some = half_norms[half_norms > 0]
        least = float((2 * some.min()).sqrt()) if len(some) else math.inf
        zero = (half_norms == 0).nonzero().squeeze(1)
        if any(bool(block.any()) for _, block in points.blocks(points.few_rows, points.device, zero)):
            least = 0.0
        _SMALLEST[points] = least
    return _SMALLEST[points]
