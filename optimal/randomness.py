"""Where random numbers come from: a generator that is given, or one with a fixed seed; never torch's global one.

What is measured by drawing (borders, statistics along the forward process, agreement) may go without a generator: it
then takes `fixed_generator()`, and gives the same numbers in every run. What is drawn does not depend on torch's
default dtype or default device: both are named at every draw.

`RowNoise` gives each row a stream of its own, so that the first rows are the same however many are asked for.
torch.randn does not: it fills all rows from one stream, and its last sixteen numbers once more.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from scipy.special import ndtri
from torch import Tensor

__all__ = ["RowNoise", "fixed_generator", "generator_of"]

_SEED = 220600364
"""Of draws nobody gave a generator for. Not 0: data made with manual_seed(0) would share its numbers with the noise."""
_STEP, _FIRST, _SECOND = (np.uint64(c) for c in (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB))
_AT_ONCE = 2**20


def fixed_generator() -> torch.Generator:
    """A fresh source of randomness, the same in every run."""
    return torch.Generator(device="cpu").manual_seed(_SEED)


def generator_of(generator: torch.Generator | None) -> torch.Generator:
    """The generator, `fixed_generator` where there is none.

    Raises:
        ValueError: something else, such as a seed.
    """
    if generator is None:
        return fixed_generator()
    if not isinstance(generator, torch.Generator):
        kind = type(generator).__name__
        raise ValueError(
            f"generator must be a torch.Generator, got {kind}: torch.Generator().manual_seed(0) makes one of a seed"
        )
    return generator


class RowNoise:
    """Standard Gaussian noise, float64 on the CPU, of which row i depends on the generator, the call and i alone.

    Every row of every call is a stream of SplitMix64, turned into normal numbers by the inverse of their distribution.
    One number is taken from the generator, here.

    References:
        Steele, Lea, Flood 2014, "Fast Splittable Pseudorandom Number Generators".

    Example:
        >>> two, three = (RowNoise(torch.Generator().manual_seed(0)).draw((n, 5)) for n in (2, 3))
        >>> torch.equal(two, three[:2])
        True
    """

    def __init__(self, generator: torch.Generator):
        source = generator_of(generator)
        seed = torch.randint(2**62, (1,), generator=source, dtype=torch.int64, device=source.device)
        self._seed, self._calls = np.uint64(int(seed)), 0

    def draw(self, shape: Sequence[int]) -> Tensor:
        """Of this shape, (B, *event); the next call draws others."""
        self._calls += 1
        rows, event = shape[0], int(np.prod(shape[1:], dtype=np.int64))
        out = np.empty((rows, event))
        at_once = max(1, _AT_ONCE // max(event, 1))
        with np.errstate(over="ignore"):
            call = _mixed(self._seed + np.uint64(self._calls) * _STEP)
            places = np.arange(1, event + 1, dtype=np.uint64) * _STEP
            for start in range(0, rows, at_once):
                index = np.arange(start, min(start + at_once, rows), dtype=np.uint64) + np.uint64(1)
                keys = _mixed(call ^ _mixed(index * _STEP))
                bits = _mixed(keys[:, None] + places) >> np.uint64(11)
                # The middle of one of 2⁵³ equal parts of (0, 1), of which the last would round to 1.
                share = np.minimum((bits.astype(np.float64) + 0.5) * 2.0**-53, 1 - 2.0**-53)
                out[start : start + len(index)] = ndtri(share)
        return torch.from_numpy(out).reshape(tuple(shape))


def _mixed(values: np.ndarray | np.uint64) -> np.ndarray:
    """SplitMix64's finaliser: a bijection of 64-bit words in which every bit depends on every other."""
    words = np.asarray(values, dtype=np.uint64)
    words = (words ^ (words >> np.uint64(30))) * _FIRST
    words = (words ^ (words >> np.uint64(27))) * _SECOND
    return words ^ (words >> np.uint64(31))
