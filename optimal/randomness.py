"""Where random numbers come from: a generator that is given, or a stream of a seed; never torch's global one.

A seed is split by purpose: `stream(seed, "evaluation")`. What a network is trained on and what it is measured on never
share numbers, whatever their seeds are. No other module makes a generator of a number.

What is measured by drawing (borders, statistics along the forward process, agreement) may go without a generator: it
then takes `fixed_generator()`, and gives the same numbers in every run. What is drawn does not depend on torch's
default dtype or default device: both are named at every draw.

`RowNoise` gives each row a stream of its own, so that the first rows are the same however many are asked for.
torch.randn does not: it fills all rows from one stream, and its last sixteen numbers once more.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor

from .numbers import is_whole, require_whole

__all__ = [
    "PURPOSES",
    "Purpose",
    "RowNoise",
    "figures_generator",
    "fixed_generator",
    "generator_of",
    "hashed_words",
    "stream",
]

Purpose = Literal[
    "unnamed",
    "weights",
    "data-order",
    "training-noise",
    "dropout",
    "pairs",
    "evaluation",
    "evaluation-noises",
    "probes",
    "projections",
    "bootstrap",
    "samples",
    "queries",
    "forward",
    "figures",
    "networks",
    "basis",
    "fingerprint",
    "toy-data",
    "design",
]
PURPOSES: tuple[Purpose, ...] = get_args(Purpose)
"""At most 63; a new one comes last, since its place is part of the numbers."""

_BITS = 26
_GOLDEN = 41_475_559
"""2²⁶ over the golden ratio, odd: multiples of it up to the 4,096th are at least 4,096 apart modulo 2²⁶."""
_SEED = 220600364
"""Of draws nobody gave a generator for."""
_STEP, _FIRST, _SECOND = (np.uint64(c) for c in (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB))
_AT_ONCE = 2**20


def fixed_generator(purpose: Purpose = "unnamed") -> torch.Generator:
    """A fresh source of randomness, the same in every run."""
    return stream(_SEED, purpose)


def figures_generator() -> torch.Generator:
    """What the figures draw from with their default seed, 0."""
    return stream(0, "figures")


def stream(seed: int, purpose: Purpose, part: int = 0, *, device: str | torch.device = "cpu") -> torch.Generator:
    """A fresh generator for one purpose of a seed.

    torch seeds its generator with 32 bits and drops the rest. Here the purpose takes 6 of them, never 0, so that two
    purposes have different states for all seeds and parts; the other 26 are (seed + part·2²⁶/φ) mod 2²⁶, mixed one to
    one, so that within a purpose different (seed, part) do for seeds and parts below 4,096, and seeds below 2²⁶ with
    part 0.

    Args:
        seed: the user's, any integer.
        purpose: what the numbers are for.
        part: which of several streams of that purpose: a rank, a figure.
        device: where it draws. A GPU's numbers are not those of the CPU: what is to be the same everywhere is drawn on
            the CPU and moved.

    Raises:
        ValueError: an unknown purpose; a part below 0.

    Example:
        >>> a, b = (torch.rand(2, generator=stream(0, purpose)) for purpose in ("pairs", "evaluation"))
        >>> bool((a == b).any())
        False
    """
    if purpose not in PURPOSES:
        raise ValueError(f"purpose must be one of {', '.join(PURPOSES)}, got {purpose!r}")
    part = require_whole("part", part, 0)
    if not is_whole(seed):
        raise ValueError(f"a seed must be a whole number, got {seed!r}")
    word = (int(seed) + part * _GOLDEN) % 2**_BITS
    for factor in (0x2C1B3C6D, 0x297A2D39):  # Odd factors and shifts to the right are one to one.
        word = ((word ^ (word >> 13)) * factor) % 2**_BITS
    return torch.Generator(device=device).manual_seed((1 + PURPOSES.index(purpose)) << _BITS | word ^ (word >> 13))


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


def hashed_words(key: int, counter: int, count: int) -> np.ndarray:
    """(count,) uint64, random to whoever does not know the key: Philox, as far as it is one.

    A stream of a seed has 26 bits. What has to be random to data that were made in knowledge of this code is drawn from
    a hash of these data, and of all of it.

    Args:
        key: the hash, of 128 bits.
        counter: where the words begin among those of the key, of 256 bits.
        count: how many.

    References:
        Salmon et al. 2011, "Parallel Random Numbers: As Easy as 1, 2, 3".
    """
    return np.random.Philox(key=key, counter=counter).random_raw(count)


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
        from scipy.special import ndtri

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
