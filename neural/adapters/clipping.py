"""What samplers do to x0_hat before they use it: clip it, or rescale it where it is too large."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor

from optimal.query import beside

__all__ = ["Clip", "Given", "clip_of"]


@dataclass(frozen=True)
class Clip:
    """x0_hat, cut at low and high; or dynamically, by its own size.

    Dynamic thresholding: with s the quantile `ratio` of the |values| of a row, within [1, most], x0_hat is cut at ±s
    and divided by s.

    References:
        Saharia et al. 2022, "Photorealistic Text-to-Image Diffusion Models with Deep Language Understanding", section
        2.3.

    Attributes:
        centre, half: of the values that are cut, centre + half x0_hat, where they are not ours; see
            `neural.adapters.ranges`.
    """

    low: float = -math.inf
    high: float = math.inf
    ratio: float | None = None
    most: float = 1.0
    centre: float = 0.0
    half: float = 1.0

    def __call__(self, x0: Tensor) -> Tensor:
        """Like x0, (B, *event)."""
        if (self.centre, self.half) == (0.0, 1.0):
            return self._cut(x0)
        return ((self._cut(self.centre + self.half * x0.double()) - self.centre) / self.half).to(x0)

    def _cut(self, x0: Tensor) -> Tensor:
        if self.ratio is None:
            return x0.clamp(self.low, self.high)
        size = torch.quantile(x0.double().abs().flatten(1), self.ratio, dim=1).clamp(1, self.most)
        bound = beside(size, x0)
        return (x0.double().clamp(-bound, bound) / bound).to(x0)


Given: TypeAlias = "float | tuple[float, float] | bool | Clip | None"
"""How clip= may be given: ±c, (low, high), False or None for not at all."""


def clip_of(given: Given) -> Clip | None:
    """Raises ValueError for what is no range."""
    if given is None or given is False or isinstance(given, Clip):
        return given or None
    try:
        low, high = map(float, given) if isinstance(given, tuple | list) else (-float(given), float(given))
    except (TypeError, ValueError):
        low = high = math.nan
    if not low < high:
        raise ValueError(f"clip must be a number above 0 or (low, high), got {given!r}")
    return Clip(low, high)
