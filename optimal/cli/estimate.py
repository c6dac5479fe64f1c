"""How long a work will take, said before it begins.

The sums over the data are estimated from their size, by the speed of a processor of two cores: the same everywhere, so
that what is chosen by it depends on sizes only. What no size tells, a network, is timed on a few rows.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable

from torch import Tensor

from ..denoiser import OptimalDenoiser
from ..span import are_few
from ..span.basis import OVERSAMPLING, RANK

__all__ = [
    "LONG",
    "Say",
    "announce",
    "in_words",
    "seconds_of_a_call",
    "seconds_of_a_row",
    "seconds_of_reading",
    "seconds_of_the_axes",
]

Say = Callable[[str], object]
"""Told what a user is to know while waiting."""

LONG = 10.0
"""Seconds of work that are announced."""
_FLOPS = 6e10
_TIMED = 0.1
_BYTES = 4e9
"""Read from the data in a second, about."""


def seconds_of_a_call(size: int, dim: int, rows: int) -> float:
    """What the optimum of so many points of so many values takes for so many rows, about."""
    return rows * (4 * size * dim + 400 * size) / _FLOPS + size * dim / _BYTES


def seconds_of_reading(values: int) -> float:
    """What it takes to go through so many float32 values in memory, about."""
    return values * 4 / _BYTES


def seconds_of_the_axes(D: OptimalDenoiser) -> float:
    """What the axes of the data take, about; those of many points are kept in the cache."""
    size, dim = len(D), D.points.dim
    axes = min(RANK + OVERSAMPLING, dim)
    return (5 * size**2 * dim if are_few(D) else 10 * size * dim * axes) / _FLOPS


def seconds_of_a_row(call: Callable[[Tensor, float], object], x: Tensor, sigma: float) -> float:
    """What a row takes, timed: on two rows, and on more while that takes less than a tenth of a second.

    Args:
        call: (x, sigma), of a network, say.
        x: (B, *event), as many rows as are asked at once, or more.
        sigma: a noise level.
    """
    rows = min(2, len(x))
    # The first call also prepares what is kept.
    call(x[:rows], sigma)
    while True:
        seconds = _seconds(call, x[:rows], sigma)
        if seconds > _TIMED or rows == len(x):
            return seconds / rows
        rows = min(4 * rows, len(x))


def _seconds(call: Callable[[Tensor, float], object], x: Tensor, sigma: float) -> float:
    """Of a call; the lesser of two where that is short, since other processes can only make it longer."""
    times = []
    for _ in range(2):
        start = time.perf_counter()
        call(x, sigma)
        times.append(time.perf_counter() - start)
        if times[0] > 1:
            break
    return min(times)


def announce(seconds: float, say: Say) -> None:
    """Say how long a work will take, if that is long."""
    if seconds >= LONG:
        say(f"this will take about {in_words(seconds)}")


def in_words(seconds: float) -> str:
    """A time as it is said.

    Example:
        >>> in_words(12.3), in_words(600), in_words(20_000)
        ('12 s', '10 min', '5.6 h')
    """
    if seconds < 90:
        return f"{math.ceil(seconds)} s" if seconds < 10 else f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
