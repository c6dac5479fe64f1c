"""What a flow map says of each row, and what both of its ways do: with a grid, and without one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from ..query import Levels
from ..shown import in_short

__all__ = ["Called", "Landing", "Way"]

Called = Callable[[], object]
"""Told of every denoiser call."""


@dataclass(frozen=True)
class Landing:
    """Where x lands.

    Attributes:
        x: (B, *event), f(x, σ), in the dtype of x.
        index: (B,) int64, the data point nearest to it, the first in the data among equals; for a flow without a grid
            the point that it is. −1 where D is not an `OptimalDenoiser`, and no data are known.
        nfe: (B,) int64, denoiser calls of each sample.
        captured: (B,) float64, without a grid: the noise level at which it became certain, at most the σ of the start;
            0 where it never did, x being on the border of a basin to within rounding, or the points too close together
            for float64. nan with a grid, and at σ = 0.
    """

    x: Tensor
    index: Tensor
    nfe: Tensor
    captured: Tensor

    __repr__ = in_short


class Way(Protocol):
    """How a flow map follows x, (B, *event), from `levels`, (B,) float64, all of them checked by `levels`."""

    def levels(self, x: Tensor, sigma: Levels) -> Tensor:
        """sigma of every row, (B,) float64.

        Raises:
            ValueError: sigma of another shape, or not one that the flow starts from.
        """
        ...

    def ends(self, sigma_end: Levels, x: Tensor, levels: Tensor) -> Tensor:
        """sigma_end of every row, (B,) float64.

        Raises:
            ValueError: sigma_end of another shape, or not one that the flow reaches from `levels`.
        """
        ...

    def jump(self, x: Tensor, levels: Tensor) -> Tensor:
        """f(x, σ), (B, *event)."""
        ...

    def land(self, x: Tensor, levels: Tensor, called: Called) -> Landing:
        """Where the rows land."""
        ...

    def flow(self, x: Tensor, levels: Tensor, ends: Tensor) -> Tensor:
        """The rows at their `ends`, (B, *event)."""
        ...
