"""MNIST's format: `train-images-idx3-ubyte.gz`, big-endian counts and then the grey levels, image after image."""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np

from . import store
from .archives import OWN
from .beginnings import beginning
from .dataset import Dataset
from .folders import list_folder
from .pictures import LARGEST_FILE
from .store import Block, Decoding
from .values import ValueRange, Values, doubt, limits_of

__all__ = ["images_in", "is_idx", "read_idx", "read_idx_folder"]

_IMAGES, _LABELS = 0x00000803, 0x00000801  # unsigned bytes with 3 axes, with 1 axis
_BLOCK = 1 << 22
_DEFLATE = 1032  # the most that gzip can shrink anything


def is_idx(path: Path) -> bool:
    """Whether a file without a telling suffix is idx: by its first bytes, which name unsigned bytes and 1 or 3 axes."""
    with path.open("rb") as file:
        return file.read(4) in (struct.pack(">I", _IMAGES), struct.pack(">I", _LABELS))


def read_idx(path: Path, *, value_range: ValueRange = None, progress: bool = True) -> Dataset:
    """Grey images of an idx file, gzipped or not, with their labels if the file of labels lies beside it.

    The labels of `train-images-idx3-ubyte.gz` are looked for in `train-labels-idx1-ubyte.gz`.

    Args:
        path: the file of images.
        value_range: the grey levels that become -1 and 1; None means (0, 255); "any" takes them as they are.
        progress: whether a progress bar is drawn on stderr.

    Returns:
        uint8 (N, 1, H, W) and int64 labels (N,) or None.

    Raises:
        ValueError: if the file is truncated, empty or holds no images, or there are more or fewer labels than images.
    """
    beside = _beside(path)

    def decode() -> Decoding:
        with _open(path) as file:
            count, height, width = _counts(file, path, _IMAGES)
        labels = None if beside is None else _labels(beside, count, path)
        notes: list[str] = []
        values = Values.of(path.name, np.dtype(np.uint8), value_range, image=True)
        blocks = _blocks(path, count, height, width, labels)
        return Decoding(_converted(blocks, values, value_range, count, notes), count, notes)

    identity: dict[str, Any] = {
        "kind": "idx",
        "file": store.stamp(path),
        "labels": store.stamp(beside) if beside else None,
    }
    identity |= {} if value_range is None else {"value_range": limits_of(value_range) or value_range}
    return store.build(path.name, identity, decode, source=str(path.resolve()), licence=OWN, progress=progress)


def read_idx_folder(path: Path, *, value_range: ValueRange = None, progress: bool = True) -> Dataset:
    """The idx file of images in a folder, perhaps in a folder of its own name, as some archives unpack; see `read_idx`.

    Raises:
        ValueError: as `read_idx`, and if there are several.
    """
    found = images_in(path, list_folder(path))
    if len(found) > 1:
        raise ValueError(f"{path} holds {len(found)} idx files of images, give one: {', '.join(found[:4])}")
    return read_idx(path / found[0], value_range=value_range, progress=progress)


def images_in(path: Path, names: list[str]) -> list[str]:
    """Which of a folder's files are idx files of images, by their first bytes."""
    likely = (name for name in names if "idx" in name.lower() or "ubyte" in name.lower())
    return [name for name in likely if beginning(path / name).startswith(struct.pack(">I", _IMAGES))]


def _beside(path: Path) -> Path | None:
    """The file of labels: beside the images, or in a folder of its own name beside theirs."""
    name = path.name.replace("images", "labels").replace("idx3", "idx1")
    folder = path.parent.name.replace("images", "labels").replace("idx3", "idx1")
    likely = [path.with_name(name), path.parent.parent / folder / name]
    return next((file for file in likely if name != path.name and file.is_file()), None)


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


def _converted(
    blocks: Iterator[Block], values: Values, value_range: ValueRange, count: int, notes: list[str]
) -> Iterator[Block]:
    done, high = 0, 0.0
    for block in blocks:
        high = max(high, float(block.points.max()))
        yield Block(values.converted(block.points, done), block.labels)
        done += len(block.points)
    said = doubt(values, value_range, 0.0, high, f"{count} images")
    notes += [said] if said else []
