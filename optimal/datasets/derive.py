"""A data set from another: every k-th point or the others, fewer points, mirror images."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from . import store
from .dataset import Dataset
from .store import Block, Decoding

__all__ = ["Part", "derive", "spread"]

Part = tuple[int, int]
"""(i, k): points i, i + k, i + 2 k, …"""

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


def derive(
    data: Dataset,
    *,
    only: Part | None = None,
    without: Part | None = None,
    n: int | None = None,
    xflip: bool = False,
    progress: bool = True,
) -> Dataset:
    """A part of the data set, thinned to n points and, if asked, with the mirror image of every image appended.

    `without=(9, 10)` leaves out every tenth point, `only=(9, 10)` is what was left out: two sets without a common row.
    Mirror images are made last, so that those of one part are in no other. A large result goes into an entry of the
    store of its own and is memory-mapped like its source.

    Args:
        data: the source; returned as it is if nothing is to be done.
        only: (i, k) keeps points i, i + k, i + 2 k, …
        without: (i, k) keeps all others.
        n: how many of them to keep, spread evenly in their order; None keeps all.
        xflip: whether the mirror images are appended after the n originals, in their order, so that N becomes 2 n.
        progress: whether a progress bar is drawn on stderr.

    Raises:
        ValueError: if n exceeds the number of points, a part is no (i, k) or empty, or there is nothing to mirror
            because the points are no images.
    """
    chosen = _chosen(data, only, without)
    there = len(data) if chosen is None else len(chosen)
    if n is not None and n > there:
        which = data.name if chosen is None else f"this part of {data.name}"
        raise ValueError(f"n must be at most the number of points of {which}, {there}, got {n}")
    if xflip and len(data.event) != 3:
        raise ValueError(
            f"xflip needs images of shape (C, H, W), but the points of {data.name} have shape {data.event}"
        )
    thin = None if n is None or n == there else spread(n, there)
    kept = chosen if thin is None else thin if chosen is None else chosen[thin]
    if kept is None and not xflip:
        return data
    count = len(data) if kept is None else len(kept)
    size = count * data.array[:1].nbytes * (1 + xflip)
    names = _names(data, kept, xflip)

    def decode() -> Decoding:
        return Decoding(_blocks(data, kept, count, xflip), count * (1 + xflip))

    if size > _IN_MEMORY:
        identity = {"of": data.fingerprint, "source": data.source, "n": count, "xflip": xflip}
        identity |= {} if chosen is None else {"only": only, "without": without}
        options: dict[str, Any] = {"source": data.source, "licence": data.licence, "names": names}
        options |= {"classes": data.class_names, "progress": progress}
        return store.build(data.name, identity, decode, **options)
    blocks = list(decode().blocks)
    points = np.concatenate([block.points for block in blocks])
    labels = (
        None if data.labels is None else np.concatenate([block.labels for block in blocks if block.labels is not None])
    )
    return Dataset(data.name, points, labels, data.licence, data.source, names=names, class_names=data.class_names)


def _names(data: Dataset, kept: np.ndarray | None, xflip: bool) -> tuple[str, ...] | None:
    """Those of what is kept, and of the mirror images after them."""
    if data.names is None:
        return None
    own = data.names if kept is None else tuple(data.names[i] for i in kept.tolist())
    return own + tuple(f"{name} mirrored" for name in own) if xflip else own


def _chosen(data: Dataset, only: Part | None, without: Part | None) -> np.ndarray | None:
    """Indices of the part; None: all."""
    if only is None and without is None:
        return None
    if only is not None and without is not None:
        raise ValueError(f"only and without say the same in two ways: give one, got {only} and {without}")
    name, part = ("only", only) if only is not None else ("without", without)
    numbers = part if isinstance(part, tuple) and len(part) == 2 else (None, None)
    i, k = (number if isinstance(number, int) and not isinstance(number, bool) else -1 for number in numbers)
    if not 0 <= i < k:
        raise ValueError(f"{name} must be (i, k) with 0 <= i < k, point i of every k, got {part!r}")
    index = np.arange(len(data), dtype=np.int64)
    index = index[(index % k == i) == (name == "only")]
    if not len(index):
        raise ValueError(f"{name}={part} leaves no point of the {len(data)} of {data.name}")
    return index


def _blocks(data: Dataset, kept: np.ndarray | None, count: int, xflip: bool) -> Iterator[Block]:
    rows = max(1, _BLOCK // data.array[:1].nbytes)
    for mirrored in (False, True) if xflip else (False,):
        for start in range(0, count, rows):
            index = slice(start, min(start + rows, count)) if kept is None else kept[start : start + rows]
            points = data.array[index]
            yield Block(points[..., ::-1] if mirrored else points, None if data.labels is None else data.labels[index])
