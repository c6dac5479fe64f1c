"""Networks on images of other values than ours: value_range= of every adapter.

Our images have values in [−1, 1]. A network trained on [low, high] sees x' = c + h x with c = (high + low)/2 and
h = (high − low)/2, whose noise has h times the size, so that

    D(x, σ) = (D'(c + h x, h σ) − c)/h

whatever D' is made of: its process, its table of steps and its levels stay in its own units. (0, 1): σ' = σ/2.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from torch import Tensor

__all__ = ["OURS", "Scaled", "Values", "values_of"]

Values: TypeAlias = tuple[float, float]
"""(low, high), the values of the images that a network was trained on."""

OURS: Values = (-1.0, 1.0)


def values_of(value_range: Values) -> tuple[float, float]:
    """c and h.

    Raises:
        ValueError: no rising range.

    Example:
        >>> values_of((0, 255))
        (127.5, 127.5)
    """
    try:
        low, high = map(float, value_range)
    except (TypeError, ValueError):
        low = high = math.nan
    if not (low < high and math.isfinite(high - low)):
        raise ValueError(f"value_range must be (low, high), two rising numbers, got {value_range!r}")
    return (high + low) / 2, (high - low) / 2


@dataclass(frozen=True)
class Scaled:
    """A grid in our units: steps -> (steps + 1,) levels."""

    grid: Callable[[int], Tensor]
    half: float

    def __call__(self, steps: int) -> Tensor:
        return self.grid(steps) / self.half
