"""Points that are one `.npy` each, in a zip or a folder: the latents of EDM2, `00000/img-mean-std-00000000.npy`.

They are taken in the order of their names, with the labels of `dataset.json`, as images are.
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from . import store
from .archives import OWN, largest_labels, member_of, open_zip, read_file
from .arrays import BLOCK, Header, header_of, plan_of
from .dataset import Dataset
from .folders import hidden, list_folder
from .labels import files_of_labels, read_labels
from .notes import left_out, tell
from .pictures import LARGEST_FILE
from .store import Block, Decoding
from .values import ValueRange, limits_of

__all__ = ["is_member", "read_members", "read_members_of_zip"]


def is_member(name: str) -> bool:
    """Whether a file is a `.npy` that is not hidden."""
    return name.lower().endswith(".npy") and not hidden(name)


def read_members_of_zip(path: Path, *, value_range: ValueRange = None, progress: bool = True) -> Dataset:
    """Points of a zip, each a `.npy` of one shape.

    Args:
        path: the zip file.
        value_range: as in `read_npy`; "any" is for latents.
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
    return _read(path, sorted(infos), content, identity, value_range, progress)


def read_members(path: Path, *, value_range: ValueRange = None, progress: bool = True) -> Dataset:
    """Points of a folder, each a `.npy` of one shape; otherwise as `read_members_of_zip`."""
    there = list_folder(path)

    def content() -> Iterator[Callable[[str, int], bytes]]:
        yield lambda name, largest: read_file(path / name, largest)

    names = [name for name in there if is_member(name)]
    listing = [[name, *store.stamp(path / name)[1:]] for name in [*names, *files_of_labels(there, names)]]
    identity = {"kind": "members", "folder": os.path.abspath(path), "listing": listing}
    return _read(path, there, content, identity, value_range, progress)


def _read(
    path: Path,
    there: list[str],
    content: Callable[[], Iterator[Callable[[str, int], bytes]]],
    identity: dict[str, Any],
    value_range: ValueRange,
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
        return Decoding(_blocks(names, where, content, value_range, labels, notes), len(names), notes)

    identity |= {"value_range": limits_of(value_range) or value_range}
    options: dict[str, Any] = {"source": str(path.resolve()), "licence": OWN, "names": names, "progress": progress}
    data = store.build(path.resolve().name or "folder", identity, decode, **options)
    tell(left_out([name for name in there if not is_member(name) and not hidden(name)], where))
    return data


def _blocks(
    names: list[str],
    where: str,
    content: Callable[[], Iterator[Callable[[str, int], bytes]]],
    value_range: ValueRange,
    labels: np.ndarray | None,
    notes: list[str],
) -> Iterator[Block]:
    first: Header | None = None
    rows: list[np.ndarray] = []
    done = 0
    for read in content():
        for name in names:
            data = read(name, LARGEST_FILE)
            header = header_of(io.BytesIO(data), f"{name} in {where}", len(data))
            first = first or header
            if (header.shape, header.dtype) != (first.shape, first.dtype):
                raise ValueError(
                    f"the arrays of {where} must be alike, but {name} is {header.dtype} {header.shape} and the first, "
                    f"{names[0]}, is {first.dtype} {first.shape}"
                )
            flat = np.frombuffer(data, header.dtype, int(np.prod(header.shape)), header.offset)
            rows.append(flat.reshape(header.shape, order="F" if header.fortran else "C"))
            if len(rows) * rows[0].nbytes >= BLOCK or name == names[-1]:
                stacked = np.stack(rows)
                layout = "NCHW" if stacked.ndim == 4 else None
                whole = Header((len(names), *first.shape), fortran=False, dtype=first.dtype, offset=0)
                plan = plan_of(where, whole, layout, None, value_range)
                if done == 0:
                    notes += plan.doubt(stacked, value_range)
                yield Block(plan.converted(stacked, done), None if labels is None else labels[done : done + len(rows)])
                done, rows = done + len(rows), []
