"""What a local theory is asked, and what it answers, in units of the points."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from tqdm import tqdm

from ...devices import block_bytes
from ...points import Points, evenly
from .running import BITS

__all__ = ["Answers", "Asked", "Collection", "columns", "with_prior"]

_BLOCK_BYTES = 2**20
"""Of points in float64: with their differences to a query they stay in the cache of one core."""
_TEMPORARIES = 8
"""Arrays of the size of a block that are held at once."""


@dataclass(frozen=True)
class Asked:
    """Some queries.

    Attributes:
        points: the points.
        z: (B, D) float64, the queries as the points reduce them.
        sigma: (B,) float64, in units of the points.
        levels: (B,) float64, the same in units of the data.
        without: (B,), a point that each query does not know, −1 for none; None where all know all.
        entropy: whether it is wanted.
        progress: whether a bar is drawn.
    """

    points: Points
    z: Tensor
    sigma: Tensor
    levels: Tensor
    without: list[int] | None
    entropy: bool
    progress: bool

    @property
    def device(self) -> torch.device:
        return self.z.device


@dataclass(frozen=True)
class Answers:
    """The means, (B, D), in units of the points, and the entropies, (B, ·) or None; float64."""

    mean: Tensor
    entropy: Tensor | None


class Collection(Protocol):
    """Units, their precisions, responses and candidates: how a local theory sums.

    Attributes:
        by_value: whether every value has a posterior of its own, or every pixel.
        held: bytes that the units of one level take.
    """

    by_value: bool
    held: int

    def answers(self, asked: Asked) -> Answers:
        """The sums of all queries."""
        ...


def columns(asked: Asked, *, passes: int = 1, chunk: int | None = None) -> Iterator[tuple[slice, Tensor]]:
    """Yield (places, (y − c)/unit as columns, (D, n) float64) over all points, `passes` times.

    With `chunk` no block lies across a multiple of it.
    """
    points, device = asked.points, asked.device
    in_cache = block_bytes(_BLOCK_BYTES, device) // (8 * points.dim)
    count = max(1, min(in_cache, points.memory // (8 * points.dim * _TEMPORARIES)))
    if chunk is None:
        count = evenly(points.size, count)
    else:
        count = next(rows for rows in range(min(count, chunk), 0, -1) if chunk % rows == 0)
    total = passes * -(-points.size // count)
    with tqdm(total=total, desc="points", unit="block", leave=False, disable=not asked.progress) as bar:
        for _ in range(passes):
            for start, block in points.blocks(count, device):
                yield slice(start, start + len(block)), block.T.contiguous()
                bar.update()


def with_prior(asked: Asked, row: int, places: slice, logits: Tensor) -> None:
    """Write the prior of a block of points into the logits of a query, (U, n), in bits; −inf for what it leaves out."""
    prior = asked.points.log_weights
    if prior is not None:
        logits.add_(prior[places].to(logits.device), alpha=BITS)
    if asked.without is not None:
        own = asked.without[row]
        if places.start <= own < places.stop:
            logits[:, own - places.start] = -torch.inf
