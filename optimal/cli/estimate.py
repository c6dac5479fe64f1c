"""How long a work will take, said before it begins.

What decides how a work is done goes by sizes only, at the speed of a processor of two cores: the same everywhere. What
is said is timed: calls of a network or of the optimum on a few rows (`pace_of`), at levels that the work asks for. For
what cannot be tried on a few rows, a decomposition or a figure, a fixed product says how much slower than that
processor this machine is now (`slowness`).
"""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from ..border import default_draws
from ..denoiser import OptimalDenoiser
from ..draws import draw_pairs
from ..paths import Paths
from ..posterior import Optimum
from ..randomness import fixed_generator
from ..samplers import Solver, sample
from ..schedule import karras
from ..span import are_few
from ..span.basis import OVERSAMPLING, RANK

__all__ = [
    "BORDER_LEVELS",
    "LANDING_CALLS",
    "LANDING_ROWS",
    "LONG",
    "Pace",
    "Say",
    "announce",
    "around",
    "calls_of",
    "in_words",
    "pace_of",
    "pace_of_the_optimum",
    "seconds_of_a_call",
    "seconds_of_a_row",
    "seconds_of_reading",
    "seconds_of_the_axes",
    "seconds_of_the_border",
    "slowness",
]

Call = Callable[[Tensor, float], object]
Say = Callable[[str], object]
"""Told what a user is to know while waiting."""

LANDING_ROWS, LANDING_CALLS = 100, 300
"""Of the optimum, as long as each start whose flow is followed to its end takes, and calls of all of them together."""
BORDER_LEVELS = 22
"""At which a border is looked for."""
LONG = 10.0
"""Seconds of work that are announced."""
_FLOPS = 6e10
_BYTES = 4e9
"""Read from the data in a second, about."""
_PILOT = 1.0
"""Seconds of all that is timed, about."""
_AGAIN, _LARGER, _TIMES = 0.1, 0.25, 5
"""Shares of them: in which a call is timed again, up to so many times, and below which one of more rows is."""
_ROWS = 512
"""Rows of a call that is timed, at most."""
_LEVELS = (1.0, 8.0, 0.125)
"""At which the optimum is timed, in standard deviations of the data, the most usual first."""
_FIXED = (2000, 512)
"""Points and values of the fixed product, and as many rows as values."""
_STEPS = 24
"""Steps of a solver that are counted."""


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


@dataclass(frozen=True)
class Pace:
    """What calls take: so many seconds each, and more for every row in them.

    Attributes:
        call: seconds of a call without rows.
        row: seconds of a row.
    """

    call: float
    row: float

    def seconds(self, rows: float, calls: float = 1.0) -> float:
        """Of so many rows in so many calls.

        Example:
            >>> Pace(call=0.5, row=0.01).seconds(rows=200, calls=4)
            4.0
        """
        return calls * self.call + rows * self.row


def pace_of(call: Call, asked: Iterable[tuple[Tensor, float]], *, within: float = _PILOT) -> Pace:
    """What calls take, timed at noise levels one after the other while there is time, and their mean.

    A call of two rows is timed, and of four times as many while one takes less than a quarter of the time. Two sizes as
    a rule, since two rows may take as long as twenty where going through the data is what takes long.

    Args:
        call: (x, sigma), of a network or of the optimum, say.
        asked: x, (B, *event), as many rows as are asked at once or more, and the level; the most usual level first.
        within: seconds, about; a call that takes longer is made twice.
    """
    found: list[Pace] = []
    began = time.perf_counter()
    for x, sigma in asked:
        found.append(_timed(call, x, sigma, within))
        if time.perf_counter() - began > within:
            break
    return Pace(*(sum(getattr(pace, name) for pace in found) / len(found) for name in ("call", "row")))


def seconds_of_a_row(call: Call, x: Tensor, sigma: float) -> float:
    """What a row takes in a call of as many as x, (B, *event), has, timed as by `pace_of`."""
    return pace_of(call, [(x, sigma)]).seconds(len(x)) / len(x)


def around(D: Optimum, rows: int, sigmas: Iterable[float]) -> Iterator[tuple[Tensor, float]]:
    """x0 + σ ε, as many rows as are asked but no more than a pilot takes, and σ: what the optimum is timed on."""
    x0, eps = draw_pairs(D, None, max(1, min(rows, _ROWS)), fixed_generator("queries"))
    return ((x0 + sigma * eps, sigma) for sigma in sigmas)


def pace_of_the_optimum(D: Optimum, rows: int, *, span: bool = True) -> Pace:
    """What calls of D take that ask so many rows, between far above the border and below it.

    Args:
        D: the optimum.
        rows: of a call, about.
        span: whether points that are few beside their values are asked in coordinates of their span: as many random
            points of as many values as these have coordinates stand for them, since to find the axes is work.
    """
    if span and isinstance(D, OptimalDenoiser) and are_few(D):
        shape = (D.points.size, D.points.size)
        D = OptimalDenoiser(torch.randn(shape, generator=fixed_generator("queries"), dtype=torch.float64, device="cpu"))
    unit = D.standard_deviation or 1.0
    return pace_of(D.posterior, around(D, rows, (unit * level for level in _LEVELS)))


def seconds_of_the_border(D: Optimum, draws: int | None = None, *, levels: int = BORDER_LEVELS) -> float:
    """What a border takes, about, by timing some of the draws: their posterior, or what `optimal.paths` asks for them.

    By the size of the data alone it was fourteen times too little for 2,000 faces: what a row takes depends on how its
    sums are done, and with how many others it is asked.

    Args:
        D: the optimum of the data, also with their images.
        draws: as for `optimal.borders`; as many as it takes by itself unless given.
        levels: that are looked at.
    """
    count, sigma = default_draws(len(D) * math.prod(D.event)) if draws is None else draws, D.standard_deviation or 1.0
    if not Paths.fit(D, count):
        return levels * pace_of(D.posterior, around(D, count, [sigma])).seconds(count)
    x0, eps = draw_pairs(D, None, max(1, min(count, _ROWS)), fixed_generator("queries"))
    paths = Paths(D, x0, eps)
    products = pace_of(lambda x, _: Paths(D, x, x), [(x0, sigma)], within=_PILOT / 2)
    level = pace_of(lambda x, sigma: paths.at(sigma, len(x)), [(x0, sigma)], within=_PILOT / 2)
    return products.seconds(count) + levels * level.seconds(count)


def calls_of(solver: Solver, steps: int) -> int:
    """Calls of a denoiser that a solver makes in so many steps, counted on a value that is 0; many are extrapolated."""
    some, nfe = min(steps, _STEPS), list[int]()
    zero = torch.zeros(1, 1, dtype=torch.float32, device="cpu")
    sample(
        lambda x, sigma: 0 * x,
        zero,
        karras(some),
        solver=solver,
        noise=lambda step: zero,
        callback=lambda state: nfe.append(state.nfe),
    )
    return round(nfe[-1] * steps / some)


@functools.cache
def slowness() -> float:
    """How many times longer than by `seconds_of_a_call` a product takes on this machine, timed once for a process."""
    size, dim = _FIXED
    points = torch.randn(size, dim, generator=fixed_generator("queries"), dtype=torch.float32, device="cpu")
    return pace_of(lambda x, _: x @ points.T, [(points[:dim], 1.0)]).seconds(dim) / (2 * size * dim * dim / _FLOPS)


def _timed(call: Call, x: Tensor, sigma: float, within: float) -> Pace:
    size, times = min(2, len(x)), dict[int, list[float]]()
    # The first call also prepares what is kept.
    call(x[:size], sigma)
    while True:
        times[size] = _seconds(call, x[:size], sigma, _AGAIN * within)
        last = min(times[size])
        if size == len(x) or last > (within if len(times) == 1 else _LARGER * within):
            return _fitted(times)
        size = min(4 * size, len(x))


def _fitted(times: dict[int, list[float]]) -> Pace:
    """Through the least time of the least and of the largest size, since others can only make a call longer; and as
    much longer as they made all of the calls together."""
    least, most = (size := sorted(times))[0], size[-1]
    low, high = min(times[least]), min(times[most])
    row = high / most if least == most else min(max((high - low) / (most - least), 0.0), high / most)
    pace = Pace(max(high - row * most, 0.0), row)
    alone = sum(max(pace.seconds(size), min(some)) * len(some) for size, some in times.items())
    spent = sum(map(sum, times.values()))
    return Pace(pace.call * spent / alone, pace.row * spent / alone) if alone else pace


def _seconds(call: Call, x: Tensor, sigma: float, within: float) -> list[float]:
    """Of a call, up to five times while they are short."""
    times: list[float] = []
    while len(times) < _TIMES and sum(times) < within:
        start = time.perf_counter()
        call(x, sigma)
        times.append(time.perf_counter() - start)
    return times


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
