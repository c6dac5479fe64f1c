"""What a pixel sees where the data's covariance decides it: by the entries of the Wiener filter,

W(σ) = U diag(λ/(λ + σ²)) Uᵀ.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from ...denoiser import OptimalDenoiser
from ..gaussian import Wiener
from .units import Mask

__all__ = ["Heat", "Heats", "Ratios"]

Heat = Tensor | Callable[[float], Tensor]
"""(H·W, H·W), how much the answer at pixel p, a row, goes by pixel q; or a function of σ that gives it."""

_NONE = 1e-12
"""Share of the largest heat below which a row is rounding: a pixel that is the same in all data."""
_KEPT = 1e-6
"""Diagonal entries of W below which a ratio to them is not taken."""


class _Filter:
    """W of the data at any σ, (D, D) float64 on the CPU. The axes are found when they are first needed."""

    def __init__(self, D: OptimalDenoiser, progress: bool):
        self._D, self._progress, self._linear = D, progress, None

    def at(self, sigma: float) -> Tensor:
        """W(σ), σ in units of the data."""
        if self._linear is None:
            self._linear = Wiener(self._D, progress=self._progress)
        eye = torch.eye(self._D.points.dim, dtype=torch.float64, device="cpu")
        return self._linear.spectral(eye, lambda values: values / (values + sigma**2))


class Heats:
    """Of every pixel, the smallest set of pixels that holds a share of its heat; of equals the first, of share 1 all.

    Args:
        D: the optimum of images.
        pixels: H·W.
        heat: as for `flexible_patch_posterior`.
        progress: whether a bar is drawn while axes are looked for.
    """

    def __init__(self, D: OptimalDenoiser, pixels: int, heat: Heat | None, progress: bool):
        self._pixels = pixels
        # A tensor is looked at now, and kept as it is now.
        self._heat = heat if heat is None or callable(heat) else self._held(heat).clone()
        self._filter = None if heat is not None else _Filter(D, progress)

    def __call__(self, share: float, sigma: float, device: torch.device) -> Mask:
        if share == 1:
            return Mask(torch.ones(self._pixels, self._pixels, dtype=torch.float64, device=device))
        heat = self._at(sigma)
        largest = heat.amax()
        ordered, order = heat.sort(dim=1, descending=True, stable=True)
        # Before a pixel is taken the share is not reached yet.
        before = ordered.cumsum(1) - ordered
        taken = before < share * heat.sum(1, keepdim=True)
        mask = torch.zeros_like(heat).scatter_(1, order, taken.double())
        cold = heat.amax(1) <= _NONE * largest
        mask[cold] = 0.0
        mask[cold, cold.nonzero().squeeze(1)] = 1.0
        uncovered = (mask.sum(0) == 0).nonzero()
        if len(uncovered):
            raise ValueError(
                f"share must be large enough for every pixel to be in some mask, pixel {int(uncovered[0])} of "
                f"{self._pixels} is in none with {share:g}" + ("" if sigma == math.inf else f" at sigma = {sigma:g}")
            )
        return Mask(mask.to(device))

    def _at(self, sigma: float) -> Tensor:
        if self._filter is not None:
            found = self._filter.at(sigma).abs()
            found = found.view(-1, self._pixels, len(found) // self._pixels, self._pixels).sum((0, 2))
            # Every pixel is in a mask then: in its own, before any equal.
            found.diagonal().copy_(found.amax(1) * (1 + 1e-9))
            return found
        assert self._heat is not None
        return self._held(self._heat(sigma)) if callable(self._heat) else self._heat

    def _held(self, heat: object) -> Tensor:
        """Any heat as a float64 tensor on the CPU, or refused."""
        square = (self._pixels, self._pixels)
        if not isinstance(heat, Tensor) or heat.shape != square:
            found = tuple(heat.shape) if isinstance(heat, Tensor) else type(heat).__name__
            raise ValueError(f"heat must be a tensor of shape {square}, got {found}")
        if not (torch.isfinite(heat) & (heat >= 0)).all():
            raise ValueError("heat must be finite and not negative")
        return heat.detach().to("cpu", torch.float64)


class Ratios:
    """Of every value m, the values n with |R[n, m]| >= τ max |R|, R[n, m] = W[n, m]/W[n, n] or W[n, m]/W[m, m].

    Args:
        D: the optimum.
        normalise: "input" divides by the diagonal entry of what is seen, "output" by that of what is answered.
        progress: whether a bar is drawn while axes are looked for.
    """

    def __init__(self, D: OptimalDenoiser, normalise: str, progress: bool):
        self._filter, self._normalise = _Filter(D, progress), normalise

    def __call__(self, threshold: float, sigma: float, device: torch.device) -> Mask:
        filter = self._filter.at(sigma)
        diagonal = filter.diagonal()
        below = torch.where(diagonal.abs() < _KEPT, 1.0, diagonal)
        ratio = (filter / (below[:, None] if self._normalise == "input" else below)).abs()
        # Rows are what is answered, as in all units.
        return Mask((ratio >= threshold * ratio.amax()).T.double().to(device))
