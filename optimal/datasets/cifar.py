"""CIFAR-10 and CIFAR-100 as their authors hand them out: batches in a tar archive, or in the folder that it holds.

    cifar-10-batches-py/data_batch_1 … data_batch_5  test_batch       {data: (10000, 3072), labels: [10000], …}
    cifar-100-python/train  test                                      {data, fine_labels, coarse_labels, …}
    cifar-10-batches-bin/data_batch_1.bin …                           see `cifar_binary`
    cifar-100-binary/train.bin  test.bin

A row is one picture, channels first. The pickles of Python's version are read by `pickles`, which calls nothing.

References:
    Krizhevsky 2009, Learning Multiple Layers of Features from Tiny Images.
"""

from __future__ import annotations

import contextlib
import lzma
import os
import re
import tarfile
import zlib
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from . import store
from .archives import OWN, read_file
from .cifar_binary import rows_of
from .cifar_classes import class_names_of
from .dataset import Dataset
from .folders import list_folder
from .labels import as_labels
from .notes import reason
from .pickles import plain_values
from .pictures import LARGEST_FILE
from .store import Block, Decoding
from .values import ValueRange, Values, doubt, limits_of

__all__ = ["batches_in", "has_batches", "is_batch", "is_binary_batch", "read_cifar"]

_TEN = re.compile(r"data_batch_(\d)|(test)_batch")
_HUNDRED = ("train", "test")
_BINARY = ".bin"
_BESIDE = {"": ("meta",), _BINARY: ("fine_label_names.txt", "coarse_label_names.txt")}
"""What lies beside CIFAR-100's batches, whose names alone say little, in Python's version and the binary one."""
_EVENT = (3, 32, 32)
_LABELS = ("labels", "fine_labels", "coarse_labels")
_BROKEN = (tarfile.TarError, OSError, EOFError, zlib.error, lzma.LZMAError)
_FIRST = 8
"""Members of an archive after which no batch is expected: folders, notes and names of classes."""
_NUMBERED, _OF_TRAIN = "data_batch_", 5


def is_batch(path: str) -> bool:
    """Whether a file is a batch, by its name."""
    return _split(path) is not None


def is_binary_batch(path: Path) -> bool:
    """Whether a file is a batch of the binary version, by its name, and of CIFAR-100 by what lies beside it."""
    there = [name for name in _BESIDE[_BINARY] if (path.parent / name).is_file()]
    return path.name.endswith(_BINARY) and bool(batches_in([path.name, *there]))


def batches_in(names: list[str]) -> list[str]:
    """Which files of a folder are batches, by their names; CIFAR-100's only beside `meta` or the names of labels."""
    known = set(names)
    return [name for name in names if is_batch(name) and _is_sure(name, known)]


def has_batches(archive: Path) -> bool:
    """Whether a tar archive begins with batches, by the names of its first members; False where it is broken."""
    found: list[str] = []
    with contextlib.suppress(*_BROKEN), tarfile.open(archive, "r:*") as opened:
        for member in opened:
            found.append(member.name)
            if batches_in(found):
                return True
            if len(found) == _FIRST:
                break
    return False


def read_cifar(
    path: Path,
    *,
    split: str | None = None,
    label_key: str | bool | None = None,
    value_range: ValueRange = None,
    progress: bool = True,
) -> Dataset:
    """The pictures of one split with their labels.

    Args:
        path: `cifar-10-python.tar.gz`, `cifar-100-binary.tar.gz` …, the folder that one unpacks to, or one batch of it.
        split: "train", "test", or "all", the batches of training first; may be None if there is only one.
        label_key: which labels; None takes `labels`, or `fine_labels` of CIFAR-100, False carries none.
        value_range: the grey levels that become -1 and 1; None means (0, 255); "any" takes them as they are.
        progress: whether a progress bar is drawn on stderr.

    Returns:
        uint8 (N, 3, 32, 32), in the order of the batches; labels int64 (N,).

    Raises:
        ValueError: if there are two splits and none is named, or a batch is broken or holds something else.
    """
    if path.is_file() and is_batch(path.name) and split is not None:
        raise ValueError(f"split is for all batches together, but {path} is one of them")
    listed = _chosen(path, batches_in(list_folder(path)), split) if path.is_dir() else None

    def decode() -> Decoding:
        chosen, notes = listed or (_one(path) if is_batch(path.name) else _chosen(path, _members(path), split))
        classes: list[str] = []
        blocks = _blocks(path, chosen, label_key, value_range, notes, classes)
        return Decoding(blocks, None, notes, classes=classes)

    files = [path / name for name in listed[0]] if listed else [path]
    identity: dict[str, Any] = {"kind": "cifar", "files": [store.stamp(file) for file in files]}
    identity |= {"options": [split, label_key], "classes": True, "value_range": limits_of(value_range) or value_range}
    name = path.resolve().name
    return store.build(name, identity, decode, source=os.path.abspath(path), licence=OWN, progress=progress)


def _split(path: str) -> str | None:
    name = path.rpartition("/")[2].removesuffix(_BINARY)
    found = _TEN.fullmatch(name)
    return ("test" if found[2] else "train") if found else name if name in _HUNDRED else None


def _is_sure(name: str, names: set[str]) -> bool:
    folder, slash, file = name.rpartition("/")
    kind = _BINARY if file.endswith(_BINARY) else ""
    return file.removesuffix(kind) not in _HUNDRED or any(f"{folder}{slash}{also}" in names for also in _BESIDE[kind])


def _members(path: Path) -> list[str]:
    with _archive(path) as opened:
        return batches_in(sorted(member.name for member in opened if member.isfile()))


def _one(path: Path) -> tuple[list[str], list[str]]:
    alone = path.name.startswith(_NUMBERED)
    return [path.name], [f"{path.name} is one of {_OF_TRAIN} batches of train; only its points are read"] * alone


def _chosen(path: Path, names: list[str], split: str | None) -> tuple[list[str], list[str]]:
    """The batches of a split, those of training first, and what is said of those that are missing."""
    by_split = {known: [name for name in names if _split(name) == known] for known in ("train", "test")}
    there = {known: found for known, found in by_split.items() if found}
    if split != "all" and split not in there and (split is not None or len(there) > 1):
        asked = "" if split is None else f", got {split!r}"
        raise ValueError(f"split= must name one of the splits of {path}: {', '.join([*there, 'all'])}{asked}")
    chosen = [name for known, found in there.items() if split in (None, "all", known) for name in found]
    files = [name.rpartition("/")[2].removesuffix(_BINARY) for name in chosen]
    if len(set(files)) < len(files):
        raise ValueError(f"{path} holds more than one set of batches: {', '.join(chosen[:4])}; keep one of them")
    count = sum(name.startswith(_NUMBERED) for name in files)
    if count in (0, _OF_TRAIN):
        return chosen, []
    return chosen, [f"{count} of {_OF_TRAIN} batches of train are there in {path}; only their points are read"]


@contextlib.contextmanager
def _archive(path: Path) -> Iterator[tarfile.TarFile]:
    try:
        with tarfile.open(path, "r:*") as opened:
            yield opened
    except _BROKEN as error:
        raise ValueError(f"{path} is not a readable tar archive, perhaps truncated: {reason(error)}") from error


@contextlib.contextmanager
def _content(path: Path) -> Iterator[Callable[[str], bytes]]:
    """Reads one batch by its name."""
    if not path.is_file() or is_batch(path.name):
        yield lambda name: read_file(path / name if path.is_dir() else path)
        return
    with _archive(path) as opened:

        def member(name: str) -> bytes:
            found = opened.getmember(name)
            file = opened.extractfile(found) if found.size <= LARGEST_FILE else None
            if file is None:
                raise ValueError(f"{name} in {path.name} has {found.size} bytes, more than the {LARGEST_FILE} allowed")
            return file.read()

        yield member


def _blocks(
    path: Path,
    names: list[str],
    label_key: str | bool | None,
    value_range: ValueRange,
    notes: list[str],
    classes: list[str],
) -> Iterator[Block]:
    values = Values.of(path.name, np.dtype(np.uint8), value_range, image=True)
    done, low, high = 0, 255.0, 0.0
    with _content(path) as read:
        for name in names:
            where = f"{name} in {path.name}" if name != path.name else path.name
            try:
                batch = rows_of(name, read(name)) if name.endswith(_BINARY) else plain_values(read(name))
            except ValueError as error:
                raise ValueError(f"{where} is no batch of CIFAR: {error}") from error
            levels = _levels(batch, where)
            key = _key(batch, label_key, where)
            labels = None if key is None else _labels(batch, key, where, len(levels))
            if done == 0 and key is not None:
                classes += class_names_of(partial(_beside, path, name, read), key, binary=name.endswith(_BINARY))
            low, high = min(low, float(levels.min())), max(high, float(levels.max()))
            yield Block(values.converted(levels, done), labels)
            done += len(levels)
    said = doubt(values, value_range, low, high, f"{done} images")
    notes += [said] if said else []


def _levels(batch: dict[str, Any], where: str) -> np.ndarray:
    levels = batch.get("data")
    size = int(np.prod(_EVENT))
    if not isinstance(levels, np.ndarray) or levels.ndim != 2 or levels.shape[1] != size or not len(levels):
        got = f"shape {levels.shape}" if isinstance(levels, np.ndarray) else "no array"
        raise ValueError(f"{where} is no batch of CIFAR: data must be (N, {size}) bytes, got {got}")
    return levels.reshape(-1, *_EVENT)


def _beside(path: Path, name: str, read: Callable[[str], bytes], other: str) -> bytes:
    """A file in the folder of a batch, which may be given alone."""
    folder, slash, _ = name.rpartition("/")
    alone = path.is_file() and is_batch(path.name)
    return read_file(path.with_name(other)) if alone else read(f"{folder}{slash}{other}")


def _key(batch: dict[str, Any], label_key: str | bool | None, where: str) -> str | None:
    """Which labels are carried."""
    if label_key is False:
        return None
    known = [key for key in _LABELS if key in batch]
    key = known[0] if label_key is None and known else label_key
    if key not in known:
        raise ValueError(f"label_key= must name the labels of {where}: {', '.join(known) or 'none'}, got {key!r}")
    return str(key)


def _labels(batch: dict[str, Any], key: str, where: str, count: int) -> np.ndarray:
    labels = as_labels(batch[key], where)
    if labels.shape != (count,) or labels.dtype != np.int64:
        raise ValueError(f"{key} of {where} must be one whole number for each of the {count} images")
    return labels
