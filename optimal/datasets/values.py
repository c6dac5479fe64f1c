"""What numbers mean as coordinates of points: one rule for arrays, pictures and single points.

    uint8                     grey levels: x = v / 127.5 - 1
    floating point, images    x = v, in [-1, 1]
    floating point, points    x = v, any finite values
    value_range=(a, b)        x = 2 (v - a) / (b - a) - 1, a <= v <= b, of any of them and of other whole numbers
    value_range="any"         x = v

Nothing is guessed from the values themselves; where they look as if another range was meant, that is said.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

__all__ = ["ValueRange", "Values", "doubt", "limits_of"]

ValueRange = tuple[float, float] | str | None
"""(lowest, highest), "any" or None, of which each reader says what it stands for."""

_SLACK = 1e-6  # by how much rounding may carry an image value beyond its range
_FEW_LEVELS = 16  # grey levels: images of 8 bits that reach no higher hold classes or a few levels
_BYTE = (0.0, 255.0)
_SMALL, _PICTURE = 2.0, 64
"""Values above the first, none below 0, are no image in [0, 1]; so many of a point may be a picture."""
_DARK, _BRIGHT = 64.0, 128.0
"""What pictures reach, and measurements around some value seldom do."""


def limits_of(value_range: ValueRange) -> tuple[float, float] | None:
    """The two numbers, or None for None and "any".

    Raises:
        ValueError: if it is neither of these nor (lowest, highest), finite and in this order.
    """
    # "None" is how a command line said "any" once.
    if value_range is None or value_range in ("any", "None"):
        return None
    if isinstance(value_range, str):
        raise ValueError(f'value_range must be (lowest, highest) or "any", got {value_range!r}')
    try:
        low, high = (float(value) for value in value_range)
    except (TypeError, ValueError):
        low = high = math.nan
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise ValueError(f"value_range must be (lowest, highest) with lowest < highest, got {value_range!r}")
    return low, high


class Values(NamedTuple):
    """How the numbers of one source become coordinates.

    Attributes:
        where: what it is called in messages.
        limits: what becomes -1 and 1, or None: as they are, grey levels of uint8 as grey levels.
        levels: whether they stay uint8.
    """

    where: str
    limits: tuple[float, float] | None
    levels: bool

    @classmethod
    def of(cls, where: str, dtype: np.dtype, value_range: ValueRange, *, image: bool) -> Values:
        """The rule for numbers of one dtype.

        Args:
            where: what they are called in messages.
            dtype: uint8, another whole number, bool or floating point.
            value_range: what was asked for.
            image: whether floating point means an image, in [-1, 1] unless something else was asked for.

        Raises:
            ValueError: for whole numbers other than uint8 without a range, and for a range that is none.
        """
        limits = limits_of(value_range)
        if dtype == np.uint8 and image and (value_range is None or limits == _BYTE):
            return cls(where, None, levels=True)
        if dtype.kind != "f" and value_range is None:
            likely = {"uint16": "(0, 65535)", "bool": "(0, 1)"}.get(dtype.name, "(lowest, highest)")
            raise ValueError(
                f"{where} must be uint8 or floating point, got {dtype}; value_range={likely} says what "
                'becomes -1 and 1, value_range="any" takes the numbers as they are'
            )
        return cls(where, (-1.0, 1.0) if value_range is None and image else limits, levels=False)

    @property
    def as_they_are(self) -> bool:
        """Whether numbers that are uint8 or float32 already need no change."""
        return self.levels or self.limits in (None, (-1.0, 1.0))

    def check(self, block: np.ndarray, start: int = 0) -> None:
        """Raise ValueError unless all are finite and within the limits.

        Args:
            block: (n, …), points of the source.
            start: which of its points the first one is.
        """
        if self.levels:
            return
        with np.errstate(over="ignore"):
            finite = np.isfinite(block.astype(np.float32, copy=False))
        if not finite.all():
            row = int(np.argmin(finite.reshape(len(block), -1).all(axis=1)))
            raise ValueError(f"{self.where} must be finite in float32, but point {start + row} holds nan or infinity")
        if self.limits is None:
            return
        low, high = self.limits
        slack = _SLACK * (high - low)
        least, most = float(block.min()), float(block.max())
        if least < low - slack or most > high + slack:
            worst = least if least < low - slack else most
            kind = "float images" if block.dtype.kind == "f" else "values"
            levels = _BYTE[0] <= least and most <= _BYTE[1]
            raise ValueError(
                f"{kind} of {self.where} must lie in [{low:g}, {high:g}], got {worst:g}; "
                f"value_range={'(0, 255)' if levels else '(lowest, highest)'} maps another range to [-1, 1], "
                f'value_range="any" takes it as it is'
            )

    def converted(self, block: np.ndarray, start: int = 0) -> np.ndarray:
        """Checked numbers as uint8 grey levels or float32 coordinates, in their shape."""
        self.check(block, start)
        return self.mapped(block)

    def mapped(self, block: np.ndarray) -> np.ndarray:
        """The same of numbers that may lie beyond the limits, as those of a noisy point do."""
        if self.levels:
            return np.asarray(block, dtype=np.uint8)
        if self.limits is not None and self.limits != (-1.0, 1.0):
            low, high = self.limits
            block = (block.astype(np.float64) - low) * (2.0 / (high - low)) - 1.0
        return np.asarray(block, dtype=np.float32)


def doubt(
    values: Values, value_range: ValueRange, low: float, high: float, what: str = "image", *, dim: int = 0
) -> str | None:
    """What is said where the values look as if another range was meant, or None.

    Args:
        values: the rule that is followed.
        value_range: what was asked for; one that was asked for is never in doubt.
        low, high: the least and the greatest value.
        what: what they are of, "image" or "first 256 images".
        dim: of points that are no images, how many values each has: a few may be anything.
    """
    if value_range is not None:
        return None
    if values.levels and 0 < high <= _FEW_LEVELS:
        return (
            f"no value of {values.where} ({what}) is above {high:g}, though uint8 is taken for grey levels 0 to 255; "
            f"value_range=(0, {high:g}) maps 0 to -1 and {high:g} to 1, value_range=(0, 255) leaves them grey levels"
        )
    greys = not values.levels and low >= 0.0 and _SMALL < high <= _BYTE[1]
    if greys and values.limits is None and dim >= _PICTURE and low <= _DARK and high >= _BRIGHT:
        return (
            f"the values of {values.where} ({what}) lie between {low:g} and {high:g}, as grey levels do, and are taken "
            "as they are; value_range=(0, 255) maps 0 to -1 and 255 to 1"
        )
    if greys and values.limits is not None:
        return (
            f"the values of {values.where} ({what}) lie between {low:g} and {high:g}, as grey levels do, though float "
            "images are taken to lie in [-1, 1]; value_range=(0, 255) makes them so"
        )
    if not values.levels and values.limits is not None and low >= 0.0 and high > 0.0:
        return (
            f"no value of {values.where} ({what}) is below 0, though float images are taken to lie in "
            "[-1, 1]; if they lie in [0, 1] say value_range=(0, 1), otherwise value_range=(-1, 1)"
        )
    return None
