"""One array of a `.npz` file, streamed out of the zip, with labels from another of its arrays. Nothing is unpickled."""

from __future__ import annotations

import math
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np

from . import store
from .archives import OWN, open_member, open_zip
from .arrays import BLOCK, Header, Plan, asked, header_of, plan_of
from .dataset import Dataset
from .notes import reason
from .store import Block, Decoding
from .values import ValueRange

__all__ = ["read_npz"]

_LABELS = "labels"
_BROKEN = (zipfile.BadZipFile, EOFError, OSError, NotImplementedError, RuntimeError, zlib.error)


class _Members(NamedTuple):
    """The array and its labels by their names, and what is to be said of labels that are left out."""

    name: str
    array: zipfile.ZipInfo
    labels: tuple[str, zipfile.ZipInfo] | None
    notes: list[str]


def read_npz(
    path: Path,
    *,
    key: str | None = None,
    label_key: str | bool | None = None,
    layout: str | None = None,
    shape: Sequence[int] | None = None,
    value_range: ValueRange = None,
    progress: bool = True,
) -> Dataset:
    """An array of a `.npz` file, compressed or not, with the labels of its points.

    Args:
        path: the file.
        key: which of its arrays; may be None if there is only one beside the labels.
        label_key: which array holds the labels; None takes `labels` if there is no third array, False carries none.
        layout: as in `read_npy`.
        shape: as in `read_npy`.
        value_range: as in `read_npy`.
        progress: whether a progress bar is drawn on stderr.

    Returns:
        uint8 (N, C, H, W), or float32 (N, C, H, W) or (N, D), from the store; labels int64 (N,) or float32 (N, K).

    Raises:
        ValueError: as `read_npy`, and if `key` is missing or unknown, or labels are not one for each point.
    """

    def decode() -> Decoding:
        found = _members(path, key, label_key)
        where = f"{found.name} in {path}"
        with open_zip(path, "npz") as archive, _opened(archive, found.array, where) as file:
            header = header_of(file, where, found.array.file_size)
        plan = plan_of(f"{found.name} in {path.name}", header, layout, shape, value_range)
        labels = None if found.labels is None else _labels(path, *found.labels, header.shape[0])
        blocks = _blocks(path, found.array, header, plan, value_range, found.notes)
        return Decoding(blocks if labels is None else _labelled(blocks, labels), header.shape[0], found.notes)

    identity = {"kind": "npz", "file": store.stamp(path), **asked(layout, shape, value_range)}
    identity |= {"key": key, "labels": _LABELS} | ({} if label_key is None else {"label_key": label_key})
    return store.build(path.name, identity, decode, source=str(path.resolve()), licence=OWN, progress=progress)


def _members(path: Path, key: str | None, label_key: str | bool | None) -> _Members:
    with open_zip(path, "npz") as archive:
        members = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
    if not members:
        raise ValueError(f"{path} holds no arrays")
    others = [name for name in members if name not in (_LABELS, label_key)]
    if key is None and len(members) == 1:
        key = next(iter(members))
    elif key is None and len(others) == 1:
        key = others[0]
    if key is None or key not in members:
        got = "" if key is None else f", got {key!r}"
        raise ValueError(f"key= must name one of the arrays of {path}: {', '.join(members)}{got}")
    if label_key is None and _LABELS in members and others != [key] and key != _LABELS:
        # Of several arrays it is not known whose labels they are.
        said = f"the array labels of {path.name} is not carried, it holds {', '.join(others)} too: label_key= names it"
        return _Members(key, members[key], None, [said])
    if label_key is None:
        label_key = _LABELS if _LABELS in members and others == [key] else False
    if label_key is False:
        return _Members(key, members[key], None, [])
    if label_key not in members:
        raise ValueError(f"label_key= must name one of the arrays of {path}: {', '.join(members)}, got {label_key!r}")
    return _Members(key, members[key], (str(label_key), members[str(label_key)]), [])


def _opened(archive: zipfile.ZipFile, member: zipfile.ZipInfo, where: str) -> IO[bytes]:
    try:
        return open_member(archive, member)
    except Exception as error:  # encryption, a broken header, an offset beyond the file: each its own exception
        raise ValueError(f"{where} cannot be read, perhaps truncated: {reason(error)}") from error


def _labels(path: Path, name: str, member: zipfile.ZipInfo, count: int) -> np.ndarray:
    """int64 (N,) or float32 (N, K); (N, 1) of whole numbers are (N,)."""
    where = f"{name} in {path}"
    try:
        with open_zip(path, "npz") as archive, _opened(archive, member, where) as file:
            header = header_of(file, where, member.file_size)
            whole = header.dtype.kind in "iu" and header.shape in ((count,), (count, 1))
            vectors = header.dtype.kind == "f" and len(header.shape) == 2 and header.shape[0] == count
            if not whole and not vectors:
                raise ValueError(
                    f"{where} must be whole numbers (N,) or vectors (N, K) with N = {count}, got {header.dtype} "
                    f"{header.shape}"
                )
        with open_zip(path, "npz") as archive, _opened(archive, member, where) as file:
            file.read(header.offset)
            size = math.prod(header.shape) * header.dtype.itemsize
            flat = np.frombuffer(_exactly(file, size), header.dtype)
    except _BROKEN as error:
        raise ValueError(f"{where} cannot be read, perhaps truncated: {reason(error)}") from error
    if whole and int(flat.max()) > np.iinfo(np.int64).max:
        raise ValueError(f"{where} must be below 2⁶³, got {flat.max()}")
    shape = header.shape if vectors else (count,)
    return flat.reshape(shape, order="F" if header.fortran else "C").astype(np.float32 if vectors else np.int64)


def _labelled(blocks: Iterator[Block], labels: np.ndarray) -> Iterator[Block]:
    start = 0
    for block in blocks:
        yield Block(block.points, labels[start : start + len(block.points)])
        start += len(block.points)


def _blocks(
    path: Path, member: zipfile.ZipInfo, header: Header, plan: Plan, value_range: ValueRange, notes: list[str]
) -> Iterator[Block]:
    """Stream the array out of the zip: it need not fit into memory, unless it is stored in Fortran order."""
    count, row = header.shape[0], math.prod(header.shape[1:])
    rows = count if header.fortran else max(1, BLOCK // (row * header.dtype.itemsize))
    where = plan.values.where
    with open_zip(path, "npz") as archive:
        try:
            with _opened(archive, member, where) as file:
                file.read(header.offset)
                for start in range(0, count, rows):
                    n = min(rows, count - start)
                    flat = np.frombuffer(_exactly(file, n * row * header.dtype.itemsize), header.dtype)
                    block = flat.reshape((n, *header.shape[1:]), order="F" if header.fortran else "C")
                    if start == 0:
                        notes += plan.doubt(block, value_range)
                    yield Block(plan.converted(block, start))
        except _BROKEN as error:
            raise ValueError(f"{where} cannot be read, perhaps truncated: {reason(error)}") from error


def _exactly(file: IO[bytes], size: int) -> bytes:
    data = file.read(size)
    if len(data) < size:
        raise EOFError(f"{size} bytes expected, {len(data)} found")
    return data
