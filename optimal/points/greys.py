"""Queries that look like grey levels, 0 to 255, asked of data in [−1, 1].

A noisy point of data in [−1, 1] has a value above 2 no more often than one below 0, coordinate by coordinate and at
every noise level, since P(x_i > 2) = P(σ ε > 2 − y_i) ≤ P(σ ε > 1) ≤ P(σ ε > y_i) = P(x_i < 0). So of k values above 2
and none below 0 the chance is at most 2⁻ᵏ, and k = 40 is no noisy point: no real one is ever doubted. What solvers of
inverse problems ask on their way is none either, but has no value of 64 and more, as grey levels do.
"""

from __future__ import annotations

import warnings
import weakref
from typing import TYPE_CHECKING

from torch import Tensor

if TYPE_CHECKING:
    from .empirical import Points

__all__ = ["doubt_greys"]

_ABOVE, _MANY, _BRIGHT, _ROUNDING = 2.0, 40, 64.0, 1e-5
_WITHIN: weakref.WeakKeyDictionary[Points, bool] = weakref.WeakKeyDictionary()
"""Whether the values of points lie in [−1, 1]."""
_TOLD: weakref.WeakSet[Points] = weakref.WeakSet()


def doubt_greys(points: Points, z: Tensor) -> None:
    """Warn, once for the same points, where rows of z can be no noisy points.

    Args:
        points: the data.
        z: (B, D) in their units, finite.
    """
    if points.dim < _MANY or len(z) == 0 or points in _TOLD:
        return
    z = z.detach()
    if float(z.amax()) * points.unit + float(points.centre.amax()) < _BRIGHT:
        return  # Without a copy, as it is for most of a sampler's states.
    x = points.restored(z).flatten(1)
    greys = (x.amin(1) >= 0) & (x.amax(1) >= _BRIGHT) & ((x > _ABOVE).sum(1) >= _MANY)
    if not bool(greys.any()) or not _in_unit_range(points):
        return
    _TOLD.add(points)
    row = int(greys.nonzero()[0])
    many = int((x[row] > _ABOVE).sum())
    warnings.warn(
        f"row {row} of x has no value below 0 and {many} above 2, up to {float(x[row].max()):g}: it is no noisy point "
        "of data in [-1, 1], and taken as it is; of grey levels, x / 127.5 - 1 makes a point",
        UserWarning,
        stacklevel=6,
    )


def _in_unit_range(points: Points) -> bool:
    if points.bytes or points.shared:
        return points.bytes
    if points not in _WITHIN:
        blocks = points.blocks(points.few_rows, points.device)
        _WITHIN[points] = all(bool((points.restored(block).abs() <= 1 + _ROUNDING).all()) for _, block in blocks)
    return _WITHIN[points]
