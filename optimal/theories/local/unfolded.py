"""The products of windows of x with windows of the data: of the windows themselves, or of pixels, summed over windows.

With k² C values in a window and H x W pixels, a product of windows takes k² C multiplications a pair; of pixels C + 2,
and then, for each shift of the places against the pixels, two band matrices, H + W: a cost that no window changes.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from .units import Box

__all__ = ["Source", "Summed", "Torus", "Unfolded"]

_WORTH = 10
"""Multiplications by windows that take as long as one by pixels: what lies in between goes through memory six times."""


class Source(Protocol):
    """Windows, M of them.

    Attributes:
        half: max ‖y‖²/2.
        terms: that a product of two windows has at most, with the two for their squares.
    """

    half: float
    terms: int

    def products(self, factors: Tensor) -> Tensor:
        """Sums over windows of the products with factors of x, (P, ·): (P, M), in their dtype."""
        ...

    def picked(self, window: Tensor) -> Tensor:
        """The values of some, (n, S)."""
        ...


class _Factors:
    """[y, −‖y‖²/2, 1], (· + 2, n), in both precisions."""

    def __init__(self, values: Tensor):
        self.halves = values.square().sum(0, keepdim=True).mul_(0.5)
        self._double = torch.cat([values, -self.halves, torch.ones_like(self.halves)])
        self._single: Tensor | None = None

    def __matmul__(self, factors: Tensor) -> Tensor:
        if factors.dtype == torch.float64:
            return factors @ self._double
        if self._single is None:
            self._single = self._double.float()
        return factors @ self._single


class Unfolded:
    """Windows as they are, (S, M) float64."""

    def __init__(self, values: Tensor):
        self._values, self._factors = values, _Factors(values)
        self._beside: Tensor | None = None
        self.half, self.terms = float(self._factors.halves.amax()), len(values) + 2

    def products(self, factors: Tensor) -> Tensor:
        return self._factors @ factors

    def picked(self, window: Tensor) -> Tensor:
        if self._beside is None:
            # Of one window's values that lie apart each is a line of the cache.
            self._beside = self._values.T.contiguous()
        return self._beside.index_select(0, window)


class Torus:
    """Windows that go on at the other side, around every pixel.

    Args:
        event: (H, W).
        side: of a window.
        places: (Q,) whose windows are wanted.
        windows: (Q, S), their pixels.
    """

    def __init__(self, event: tuple[int, int], side: int, places: Tensor, windows: Tensor):
        height, width = event
        self.event, self.windows, device = event, windows, places.device
        pixels = height * width
        bands = [_circular(length, side // 2, device) for length in event]
        self._boxes = {dtype: Box(*(band.to(dtype) for band in bands)) for dtype in (torch.float32, torch.float64)}
        row, column = (torch.arange(pixels, device=device) // width, torch.arange(pixels, device=device) % width)
        # Where the pair (p, q) is among the pairs (p, p + d), and the other way round.
        there = (row[:, None] + row) % height * width + (column[:, None] + column) % width
        back = (row[places] - row[:, None]) % height * width + (column[places] - column[:, None]) % width
        first = torch.arange(pixels, device=device)[:, None] * pixels
        self._there, self._back = (first + there).flatten(), (first + back).flatten()

    def summed(self, pairs: Tensor) -> Tensor:
        """Sums over windows of pairs of pixels, (P, P n), for pixels and places, (P, Q n)."""
        pixels = len(pairs)
        moved = pairs.view(pixels**2, -1).index_select(0, self._there)
        sums = self._boxes[pairs.dtype].seen(moved.view(pixels, -1)).view(pixels**2, -1)
        return sums.index_select(0, self._back).view(pixels, -1)

    def worth(self, channels: int) -> bool:
        """Whether this is faster than a product of windows."""
        return channels * self.windows.shape[1] > _WORTH * (channels + 2 + sum(self.event))

    def largest(self, maps: Tensor) -> float:
        """Of the sums over windows of (P, n)."""
        return float(self._boxes[maps.dtype].seen(maps).amax())


class Summed:
    """Windows on a torus, by their pixels.

    Args:
        pixels: (C, P, n) float64.
        torus: what sums over the windows.
    """

    def __init__(self, pixels: Tensor, torus: Torus):
        self._pixels, self._torus, self._factors = pixels, torus, _Factors(pixels.flatten(1))
        self.half = torus.largest(self._factors.halves.view(pixels.shape[1:]))
        self.terms = len(pixels) + 2 + sum(torus.event)

    def products(self, factors: Tensor) -> Tensor:
        return self._torus.summed(self._factors @ factors)

    def picked(self, window: Tensor) -> Tensor:
        images = self._pixels.shape[2]
        index = self._torus.windows[window // images] * images + (window % images)[:, None]
        return self._pixels.flatten(1)[:, index].transpose(0, 1).flatten(1)


def _circular(length: int, reach: int, device: torch.device) -> Tensor:
    """(length, length), how often each place is at most `reach` from another, on a circle."""
    place = torch.arange(length, device=device)
    away = (place[:, None] - place).abs()
    return (torch.minimum(away, length - away) <= reach).double()
