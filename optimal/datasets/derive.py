"""A data set from another: fewer points, and mirror images."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from . import store
from .dataset import Dataset
from .store import Block, Decoding

__all__ = ["derive", "spread"]

_IN_MEMORY = 1 << 26  # bytes up to which the result is simply held in memory
_BLOCK = 1 << 24  # bytes copied at a time


def spread(n: int, total: int) -> np.ndarray:
    """n distinct indices spread evenly over range(total): floor(i * total / n).

    Args:
        n: how many, 1..total.
        total: out of how many.

    Returns:
        int64 (n,), increasing, from 0.

    Example:
        >>> spread(4, 10)
        array([0, 2, 5, 7])
    """
    return np.arange(n, dtype=np.int64) * total // n


def derive(data: Dataset, *, n: int | None = None, xflip: bool = False, progress: bool = True) -> Dataset:
    """The data set thinned to n points and, if asked, with the mirror image of every image appended.

    A large result goes into an entry of the store of its own and is memory-mapped like its source.

    Args:
        data: the source; returned as it is if nothing is to be done.
        n: how many points to keep, spread evenly over the source in its order; None keeps all.
        xflip: whether the mirror images are appended after the n originals, in their order, so that N becomes 2 n.
        progress: whether a progress bar is drawn on stderr.

    Raises:
        ValueError: if n exceeds the number of points, or there is nothing to mirror because the points are no images.
    """
    if n is not None and n > len(data):
        raise ValueError(f"n must be at most the number of points of {data.name}, {len(data)}, got {n}")
    if xflip and len(data.event) != 3:
        raise ValueError(
            f"xflip needs images of shape (C, H, W), but the points of {data.name} have shape {data.event}"
        )
    kept = None if n is None or n == len(data) else spread(n, len(data))
    if kept is None and not xflip:
        return data
    count = len(data) if kept is None else len(kept)
    size = count * data.array[:1].nbytes * (1 + xflip)

    def decode() -> Decoding:
        return Decoding(_blocks(data, kept, count, xflip), count * (1 + xflip))

    if size > _IN_MEMORY:
        identity = {"of": data.fingerprint, "source": data.source, "n": count, "xflip": xflip}
        return store.build(data.name, identity, decode, source=data.source, licence=data.licence, progress=progress)
    blocks = list(decode().blocks)
    points = np.concatenate([block.points for block in blocks])
    labels = (
        None if data.labels is None else np.concatenate([block.labels for block in blocks if block.labels is not None])
    )
    return Dataset(data.name, points, labels, data.licence, data.source)


def _blocks(data: Dataset, kept: np.ndarray | None, count: int, xflip: bool) -> Iterator[Block]:
    rows = max(1, _BLOCK // data.array[:1].nbytes)
    for mirrored in (False, True) if xflip else (False,):
        for start in range(0, count, rows):
            index = slice(start, min(start + rows, count)) if kept is None else kept[start : start + rows]
            points = data.array[index]
            yield Block(points[..., ::-1] if mirrored else points, None if data.labels is None else data.labels[index])
