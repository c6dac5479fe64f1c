"""Data sets of few points, in coordinates of the span of their points.

The denoiser of N points sees of x only its products with them: with V orthonormal axes that hold all of Y − c,
(x − c)·(y_k − c) = Vᵀ(x − c) · Vᵀ(y_k − c). What is left of x enters no product, so in exact arithmetic the flow of the
coordinates is the flow of x in coordinates, and N points of D > N values are as good as N points of N values.

The axes are those of a QR decomposition in float64. Its rounding moves each point by about 2⁻⁵³ √N of its length, and
so the lead of one over another by about 2⁻⁵³ √N (‖x‖ + ‖y‖)(‖y_j‖ + ‖y_k‖)/σ² nats. This is an estimate, calibrated by
tests/test_span.py; `FewPoints.rounding` gives it. Copies stay copies.
"""

from __future__ import annotations

import math
import weakref
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..arithmetic import ours
from ..denoiser import OptimalDenoiser
from ..points import Points

__all__ = ["FewPoints", "are_few", "few_points"]

_FEW = 5000
"""Most points whose span is taken as a whole."""
_SINGLE = 1e-4
"""Nats that float32 logits may be off by, about, where they are taken."""
_KNOWN: weakref.WeakKeyDictionary[OptimalDenoiser, FewPoints] = weakref.WeakKeyDictionary()


@dataclass(frozen=True)
class FewPoints:
    """A data set of N < D points in coordinates of their span, all float64.

    Attributes:
        denoiser: the optimal denoiser of the N points of N values each, in the order of `points`, under their prior and
            in the units of the data.
        points: the points of D that have a probability, themselves.
        axes: (D, N), orthonormal.
    """

    denoiser: OptimalDenoiser
    points: Points
    axes: Tensor

    def reduced(self, x: Tensor) -> Tensor:
        """The coordinates of x, (B, *event): (B, N) float64, whatever the dtype of x."""
        return self.points.reduced(x) @ self.axes.to(x.device) * self.points.unit

    def expanded(self, coordinates: Tensor) -> Tensor:
        """The points of the span, (B, D) float64, that have these coordinates."""
        return self.points.restored(
            coordinates.double() @ self.axes.T.to(coordinates.device) / self.points.unit
        ).flatten(1)

    def denoise(self, coordinates: Tensor, sigma: float | Tensor) -> Tensor:
        """D in coordinates, (B, N) float64: from float32 products where their rounding is far below a nat."""
        largest = self.denoiser.points.largest_norm
        size = largest + float(coordinates.norm(dim=1).max()) if len(coordinates) else largest
        single = 2.0**-23 * size * largest <= _SINGLE * float(torch.as_tensor(sigma, device="cpu").min()) ** 2
        return self.denoiser(coordinates.float() if single else coordinates, sigma).double()

    def rounding(self, coordinates: Tensor, sigma: float) -> Tensor:
        """What log-weights are off by at the level sigma, (B,) nats, through the rounding of the axes: estimated.

        The coordinates are of the noise; towards σ = 0 states are about as long as the points.
        """
        largest = 2 * self.denoiser.points.largest_norm
        share = 2.0**-53 * math.sqrt(len(self.denoiser)) * largest**2 / sigma**2
        return torch.full_like(coordinates[:, 0], share)


def are_few(D: OptimalDenoiser) -> bool:
    """Whether `few_points` takes the span of D's data.

    At most 5,000 points, of at least twice as many values, and room for their axes within D's budget.
    """
    points = D.points
    if type(D) is not OptimalDenoiser or points.size > _FEW or points.dim < 2 * points.size:
        return False
    return 8 * points.size * (points.dim + 3 * points.size) <= D.evaluator.accuracy.memory


@ours()
def few_points(D: OptimalDenoiser) -> FewPoints | None:
    """D's data in the span of its points, where this at least halves the size of a point; else None.

    It takes a QR decomposition, seconds for 2,429 × 12,288, and is kept in memory with D.
    """
    if not are_few(D):
        return None
    if D not in _KNOWN:
        # What is kept is used in any mode afterwards.
        with torch.inference_mode(False), torch.no_grad():
            _KNOWN[D] = _few(D)
    return _KNOWN[D]


def _few(D: OptimalDenoiser) -> FewPoints:
    import scipy.linalg

    points = D.points
    rows = torch.empty(points.size, points.dim, dtype=torch.float64, device="cpu")
    for start, block in points.blocks(points.few_rows, points.device):
        rows[start : start + len(block)] = block.cpu()
    # In place: the rows become the axes.
    factors: Any = scipy.linalg.qr(rows.numpy().T, mode="economic", overwrite_a=True, check_finite=False)
    axes, triangle = factors
    del rows
    # Copies of a point stay copies, whatever rounding has done to each.
    coordinates = torch.from_numpy(np.ascontiguousarray(triangle.T))[points.first_copies] * points.unit
    reduced = OptimalDenoiser(coordinates.to(points.device), memory=D.evaluator.accuracy.memory)
    if points.log_weights is not None:
        reduced = reduced.weighted(points.log_weights)
    return FewPoints(reduced, points, torch.from_numpy(axes).to(points.device))
