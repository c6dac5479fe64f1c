"""MNIST's format: `train-images-idx3-ubyte.gz`, big-endian counts and then the grey levels, image after image."""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import numpy as np

from . import store
from .archives import OWN
from .dataset import Dataset
from .pictures import LARGEST_FILE
from .store import Block, Decoding

__all__ = ["is_idx", "read_idx"]

_IMAGES, _LABELS = 0x00000803, 0x00000801  # unsigned bytes with 3 axes, with 1 axis
_BLOCK = 1 << 22
_DEFLATE = 1032  # the most that gzip can shrink anything


def is_idx(path: Path) -> bool:
    """Whether a file without a telling suffix is idx: by its first bytes, which name unsigned bytes and 1 or 3 axes."""
    with path.open("rb") as file:
        return file.read(4) in (struct.pack(">I", _IMAGES), struct.pack(">I", _LABELS))


def read_idx(path: Path, *, progress: bool = True) -> Dataset:
    """Grey images of an idx file, gzipped or not, with their labels if the file of labels lies beside it.

    The labels of `train-images-idx3-ubyte.gz` are looked for in `train-labels-idx1-ubyte.gz`.

    Args:
        path: the file of images.
        progress: whether a progress bar is drawn on stderr.

    Returns:
        uint8 (N, 1, H, W) and int64 labels (N,) or None.

    Raises:
        ValueError: if the file is truncated, empty or holds no images, or there are more or fewer labels than images.
    """
    beside = path.with_name(path.name.replace("images", "labels").replace("idx3", "idx1"))
    labelled = beside != path and beside.is_file()

    def decode() -> Decoding:
        with _open(path) as file:
            count, height, width = _counts(file, path, _IMAGES)
        labels = _labels(beside, count, path) if labelled else None
        return Decoding(_blocks(path, count, height, width, labels), count)

    identity = {"kind": "idx", "file": store.stamp(path), "labels": store.stamp(beside) if labelled else None}
    return store.build(path.name, identity, decode, source=str(path.resolve()), licence=OWN, progress=progress)


def _open(path: Path) -> IO[bytes]:
    with path.open("rb") as file:
        zipped = file.read(2) == b"\x1f\x8b"
    return gzip.open(path, "rb") if zipped else path.open("rb")  # pyright: ignore[reportReturnType]


def _read(file: IO[bytes], size: int, path: Path) -> bytes:
    try:
        data = file.read(size)
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(f"{path} is not a readable idx file, perhaps truncated: {error}") from error
    if len(data) < size:
        raise ValueError(f"{path} is truncated: {size} more bytes expected, {len(data)} found")
    return data


def _counts(file: IO[bytes], path: Path, expected: int) -> tuple[int, ...]:
    magic = int.from_bytes(_read(file, 4, path), "big")
    if magic != expected:
        hint = "; it holds labels, give the file of images beside it" if magic == _LABELS else ""
        raise ValueError(f"{path} must begin with the idx number {expected:#010x}, got {magic:#010x}{hint}")
    axes = expected & 0xFF
    counts = struct.unpack(f">{axes}I", _read(file, 4 * axes, path))
    if 0 in counts:
        raise ValueError(f"{path} is empty: a data set needs at least one point, got shape {counts}")
    if math.prod(counts[1:]) > LARGEST_FILE:
        raise ValueError(f"{path} claims images of {counts[1:]} pixels, more than the {LARGEST_FILE} allowed")
    size = path.stat().st_size
    most = size * _DEFLATE if isinstance(file, gzip.GzipFile) else size
    if math.prod(counts) > most:
        raise ValueError(f"{path} is truncated: shape {counts} needs more than the {most} bytes that {size} can hold")
    return counts


def _labels(path: Path, count: int, images: Path) -> np.ndarray:
    with _open(path) as file:
        (found,) = _counts(file, path, _LABELS)
        if found != count:
            raise ValueError(f"{images} has {count} images but {path.name} has {found} labels")
        return np.frombuffer(_read(file, count, path), np.uint8).astype(np.int64)


def _blocks(path: Path, count: int, height: int, width: int, labels: np.ndarray | None) -> Iterator[Block]:
    rows = max(1, _BLOCK // (height * width))
    with _open(path) as file:
        _counts(file, path, _IMAGES)
        for start in range(0, count, rows):
            n = min(rows, count - start)
            levels = np.frombuffer(_read(file, n * height * width, path), np.uint8).reshape(n, 1, height, width)
            yield Block(levels, None if labels is None else labels[start : start + n])
