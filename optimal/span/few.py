"""Data sets of few points, in coordinates of the span of their points.

The denoiser of N points sees of x only its products with them: with V orthonormal axes that hold all of Y − c,
(x − c)·(y_k − c) = Vᵀ(x − c) · Vᵀ(y_k − c). What is left of x enters no product, so the flow of the coordinates is the
flow of x in coordinates, exactly, and N points of D > N values are as good as N points of N values.
"""

from __future__ import annotations

import weakref
from dataclasses import dataclass

import torch
from torch import Tensor

from ..denoiser import OptimalDenoiser

__all__ = ["FewPoints", "are_few", "few_points"]

_FEW = 5000
"""Most points whose span is taken as a whole."""
_KNOWN: weakref.WeakKeyDictionary[OptimalDenoiser, FewPoints] = weakref.WeakKeyDictionary()


@dataclass(frozen=True)
class FewPoints:
    """A data set of N < D points in coordinates of their span.

    Attributes:
        denoiser: the optimal denoiser of the N points of N values each, in the order of the data.
        axes: (D, N) float64, orthonormal.
        centre: (D,) float64.
    """

    denoiser: OptimalDenoiser
    axes: Tensor
    centre: Tensor

    def reduced(self, x: Tensor) -> Tensor:
        """The coordinates of x, (B, *event), in its dtype: (B, N)."""
        return ((x.flatten(1).double() - self.centre) @ self.axes).to(x.dtype)

    def expanded(self, coordinates: Tensor) -> Tensor:
        """The points of the span, (B, D) float64, that have these coordinates."""
        return coordinates.double() @ self.axes.T + self.centre


def are_few(D: OptimalDenoiser) -> bool:
    """Whether `few_points` takes the span of D's data: at most 5,000 points, of at least twice as many values."""
    return type(D) is OptimalDenoiser and D.points.size <= _FEW and D.points.dim >= 2 * D.points.size


def few_points(D: OptimalDenoiser) -> FewPoints | None:
    """D's data in the span of its points, where this at least halves the size of a point; else None.

    It takes a QR decomposition, seconds for 2,429 × 12,288, and is kept in memory with D.
    """
    points = D.points
    if not are_few(D):
        return None
    if D not in _KNOWN:
        rows = points.read(slice(0, points.size), torch.empty(points.size, points.dim, dtype=torch.float64))
        axes, triangle = torch.linalg.qr(rows.T)
        # Copies of a point stay copies, whatever rounding has done to each.
        coordinates = triangle.T.float()[points.first_copies.to(axes.device)]
        reduced = OptimalDenoiser(coordinates, memory=D.evaluator.accuracy.memory)
        _KNOWN[D] = FewPoints(reduced, axes, points.centre.to(axes))
    return _KNOWN[D]
