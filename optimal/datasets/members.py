"""Points that are one `.npy` each, in a zip or a folder: the latents of EDM2, `00000/img-mean-std-00000000.npy`.

They are taken in the order of their names, with the labels of `dataset.json`, as images are.
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from . import store
from .archives import OWN, file_in, largest_labels, member_of, open_zip, stamp_in
from .arrays import BLOCK, Header, header_of, plan_of
from .dataset import Dataset
from .folders import hidden, list_folder
from .labels import files_of_labels, read_labels
from .notes import left_out, tell
from .pictures import LARGEST_FILE
from .store import Block, Decoding
from .unreadable import Unreadable, attempted
from .values import ValueRange, limits_of

__all__ = ["is_member", "read_members", "read_members_of_zip"]


def is_member(name: str) -> bool:
    """Whether a file is a `.npy` that is not hidden."""
    return name.lower().endswith(".npy") and not hidden(name)


def read_members_of_zip(
    path: Path, *, value_range: ValueRange = None, skip_unreadable: bool = False, progress: bool = True
) -> Dataset:
    """Points of a zip, each a `.npy` of one shape.

    Args:
        path: the zip file.
        value_range: as in `read_npy`; "any" is for latents.
        skip_unreadable: whether arrays that cannot be read are left out, with a word; else they are refused.
        progress: whether a progress bar is drawn on stderr.

    Returns:
        uint8 (N, C, H, W), or float32 (N, *event), in the order of the member names as strings.

    Raises:
        ValueError: if a member is broken, of another shape or out of range; it is named.
    """
    with open_zip(path) as archive:
        infos = {info.filename: info for info in archive.infolist()}

    def content() -> Iterator[Callable[[str, int], bytes]]:
        with open_zip(path) as archive:
            yield lambda name, largest: member_of(archive, infos[name], path, largest)

    identity = {"kind": "members", "file": store.stamp(path)}
    return _read(path, sorted(infos), content, identity, value_range, skip_unreadable, progress)


def read_members(
    path: Path, *, value_range: ValueRange = None, skip_unreadable: bool = False, progress: bool = True
) -> Dataset:
    """Points of a folder, each a `.npy` of one shape; otherwise as `read_members_of_zip`."""
    there = list_folder(path)

    def content() -> Iterator[Callable[[str, int], bytes]]:
        yield lambda name, largest: file_in(path, name, largest)

    names = [name for name in there if is_member(name)]
    listing = [[name, *stamp_in(path, name)[1:]] for name in [*names, *files_of_labels(there, names)]]
    identity = {"kind": "members", "folder": os.path.abspath(path), "listing": listing}
    return _read(path, there, content, identity, value_range, skip_unreadable, progress)


def _read(
    path: Path,
    there: list[str],
    content: Callable[[], Iterator[Callable[[str, int], bytes]]],
    identity: dict[str, Any],
    value_range: ValueRange,
    skip: bool,
    progress: bool,
) -> Dataset:
    names = [name for name in there if is_member(name)]
    where = path.name or str(path)

    def decode() -> Decoding:
        files = files_of_labels(there, names)
        labels = None
        for read in content():
            texts = {name: read(name, largest_labels(len(names))) for name in files}
            labels = read_labels(texts, names, where) if texts else None
        notes: list[str] = []
        called: list[str] = []

        def blocks() -> Iterator[Block]:
            failed, kept = Unreadable(where, "arrays", skip=skip), list[int]()
            arrays = _arrays(names, where, content, failed, kept)
            yield from _blocks(arrays, where, len(names), value_range, labels, notes)
            notes.extend(failed.ended(len(names)))
            called.extend(names[place] for place in kept if skip)

        return Decoding(blocks(), len(names), notes, called)

    identity |= {"value_range": limits_of(value_range) or value_range}
    identity |= {"skip_unreadable": True} if skip else {}
    options: dict[str, Any] = {"source": str(path.resolve()), "licence": OWN, "names": names, "progress": progress}
    data = store.build(path.resolve().name or "folder", identity, decode, **options)
    tell(left_out([name for name in there if not is_member(name) and not hidden(name)], where))
    return data


def _arrays(
    names: list[str],
    where: str,
    content: Callable[[], Iterator[Callable[[str, int], bytes]]],
    failed: Unreadable,
    kept: list[int],
) -> Iterator[tuple[int, np.ndarray]]:
    """Those that can be read, one after the other, all alike, with their places."""
    first: np.ndarray | None = None
    for read in content():
        for place, name in enumerate(names):
            data, error = attempted(f"{name} in {where}", partial(read, name, LARGEST_FILE))
            try:
                if error is not None:
                    raise error
                header = header_of(io.BytesIO(data), f"{name} in {where}", len(data))
            except ValueError as broken:
                failed.add(name, broken)
                continue
            flat = np.frombuffer(data, header.dtype, int(np.prod(header.shape)), header.offset)
            array = flat.reshape(header.shape, order="F" if header.fortran else "C")
            first = array if first is None else first
            if (array.shape, array.dtype) != (first.shape, first.dtype):
                raise ValueError(
                    f"the arrays of {where} must be alike, but {name} is {array.dtype} {array.shape} and the first, "
                    f"{names[kept[0]]}, is {first.dtype} {first.shape}"
                )
            kept.append(place)
            yield place, array


def _blocks(
    arrays: Iterator[tuple[int, np.ndarray]],
    where: str,
    count: int,
    value_range: ValueRange,
    labels: np.ndarray | None,
    notes: list[str],
) -> Iterator[Block]:
    done = 0
    for places, stacked in _batches(arrays):
        layout = "NCHW" if stacked.ndim == 4 else None
        whole = Header((count, *stacked.shape[1:]), fortran=False, dtype=stacked.dtype, offset=0)
        plan = plan_of(where, whole, layout, None, value_range)
        if done == 0:
            notes += plan.doubt(stacked, value_range)
        yield Block(plan.converted(stacked, done), None if labels is None else labels[places])
        done += len(places)


def _batches(arrays: Iterator[tuple[int, np.ndarray]]) -> Iterator[tuple[list[int], np.ndarray]]:
    places: list[int] = []
    rows: list[np.ndarray] = []
    for place, array in arrays:
        places.append(place)
        rows.append(array)
        if len(rows) * array.nbytes >= BLOCK:
            yield places, np.stack(rows)
            places, rows = [], []
    if rows:
        yield places, np.stack(rows)
