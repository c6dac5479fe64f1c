"""Hugging Face's parquet shards: a column of encoded images, as struct{bytes, path} or binary of any kind."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ..packages import required
from . import store
from .archives import OWN
from .beginnings import beginning, named, refuse_pointer
from .columns import columns_of, is_whole
from .dataset import Dataset
from .folders import list_folder
from .notes import left_out, reason, tell
from .pages import large_pages
from .pictures import LARGEST_FILE, Encoded, check_resolution, decode_images
from .shards import choose, is_shard
from .store import Decoding
from .values import ValueRange, limits_of

__all__ = ["read_parquet"]

_BYTES = 1 << 23  # read at a time, encoded, or one image where that is more
_ROWS = 256  # the most that are read at a time
_BUFFER = 1 << 16
"""Bytes of a file that Arrow reads ahead; without this number it is a whole row group."""


def read_parquet(
    path: Path,
    *,
    split: str | None = None,
    column: str | None = None,
    label_column: str | bool | None = None,
    resolution: int | None = None,
    value_range: ValueRange = None,
    progress: bool = True,
) -> Dataset:
    """Images of one parquet file, or of all parquet files in a folder in the order of their names.

    They are read 8 MB at a time, a row group after the other. But Arrow decodes no less than a page, and a file whose
    pages hold hundreds of MB, as one of large images that was written at once, takes twice as much memory: where that
    is more than 1 GB it is said before, where more than there is, refused.

    Args:
        path: the file or folder.
        split: which split of a folder, e.g. "train" for `train-00000-of-00002.parquet` or `train/0000.parquet`, or
            "all"; may be None if there is only one.
        column: which column holds the images; may be None if only one can.
        label_column: which column holds whole-number labels; None takes `label` or `labels` if there is one, and leaves
            it out with a warning where it holds something else or has gaps; False carries no labels.
        resolution: crop the centre square of every image and resize it (Lanczos) to so many pixels.
        value_range: the grey levels that become -1 and 1; None means (0, 255); "any" takes them as they are.
        progress: whether a progress bar is drawn on stderr.

    Returns:
        uint8 (N, C, H, W).

    Raises:
        ValueError: if pyarrow is missing, a file is broken, no column or several can be the images, or an image is
            broken or of another size; it is named.
    """
    check_resolution(resolution)
    if path.is_file() and split is not None:
        raise ValueError(f"split is for a folder of shards, but {path} is a file")
    files, said = ([path], []) if path.is_file() else choose(path, split)

    def decode() -> Decoding:
        parquet = _pyarrow_parquet()
        total, notes = 0, list[str]()
        with _open(parquet, files[0]) as opened:
            image, label = columns_of(opened.schema_arrow, files[0], column, label_column, notes)
        for file in files:
            with _open(parquet, file) as opened:
                total += opened.metadata.num_rows
                tell(large_pages(file, opened.metadata, image))
        labels = None if label is None else _labels(parquet, files, label, label_column == label, notes)

        def items() -> Iterator[Encoded]:
            for file in files:
                yield from _rows(parquet, file, image)

        blocks = decode_images(items, path.name, labels, resolution, value_range=value_range, notes=notes)
        return Decoding(blocks, total, notes)

    identity: dict[str, Any] = {
        "kind": "parquet",
        "files": [store.stamp(file) for file in files],
        "options": [column, label_column, resolution],
    }
    identity |= {} if value_range is None else {"value_range": limits_of(value_range) or value_range}
    name = path.resolve().name
    data = store.build(name, identity, decode, source=os.path.abspath(path), licence=OWN, progress=progress)
    tell([*said, *_others(path)])
    return data


def _others(path: Path) -> list[str]:
    """What is said of a folder's files that are no parquet, but may be meant as data."""
    if path.is_file():
        return []
    return left_out([name for name in list_folder(path) if not is_shard(name)], path.name)


def _pyarrow_parquet() -> Any:
    required("a parquet file", "pyarrow")
    from pyarrow import parquet

    return parquet


def _open(parquet: Any, file: Path) -> Any:
    try:
        opened = parquet.ParquetFile(file, buffer_size=_BUFFER, pre_buffer=False)
        _ = opened.schema_arrow  # translated only now, with exceptions of its own
        return opened
    except Exception as error:  # pyarrow's own exceptions, several of them no ValueError
        head = beginning(file)
        refuse_pointer(head, str(file))
        other = None if head.startswith(b"PAR1") else named(head)
        what = "it is empty" if not head else f"it is {other}" if other else "perhaps truncated"
        raise ValueError(f"{file} is not a readable parquet file, {what}: {reason(error)}") from error


def _labels(parquet: Any, files: list[Path], label: str, asked: bool, notes: list[str]) -> np.ndarray | None:
    """The labels of all shards, int64 (N,), or None where some are missing and they were not asked for by name."""
    found, rows, missing = [], 0, 0
    first: Any = None
    for file in files:
        with _open(parquet, file) as opened:
            _require(opened, file, [label])
            kind = opened.schema_arrow.field(label).type
            first = kind if first is None else first
            if not is_whole(kind):
                raise ValueError(
                    f"{label} of {file.name} is {kind}, another type than {first} of the first shard; "
                    "label_column=False carries no labels"
                )
            column = _read_labels(opened, file, label)
        gaps = column.is_null().to_numpy()
        if asked and gaps.any():
            raise ValueError(
                f"row {int(gaps.argmax())} of {file.name} holds no {label}; label_column=False carries none"
            )
        rows, missing = rows + len(column), missing + int(gaps.sum())
        found.append(column)
    if missing:
        notes.append(
            f"the labels of {files[0].parent.name or files[0]} are left out: {missing} of {rows} rows hold none"
        )
        return None
    return np.concatenate([column.to_numpy() for column in found])


def _read_labels(opened: Any, file: Path, label: str) -> Any:
    import pyarrow

    try:
        return opened.read(columns=[label]).column(label).cast(pyarrow.int64())
    except Exception as error:
        raise ValueError(f"{label} of {file} cannot be read as whole numbers below 2⁶³: {reason(error)}") from error


def _rows(parquet: Any, file: Path, image: str) -> Iterator[Encoded]:
    number = 0
    for batch in _batches(parquet, file, [image]):
        for row in range(len(batch)):
            try:
                cell = batch.column(image)[row].as_py()
            except Exception as error:  # text that is no UTF-8, offsets beyond the data
                raise ValueError(f"{file} cannot be read, rows {number} and after: {reason(error)}") from error
            yield _encoded(cell, f"row {number} of {file.name}", file)
            number += 1


def _require(opened: Any, file: Path, columns: list[str]) -> None:
    if missing := [column for column in columns if column not in opened.schema_arrow.names]:
        raise ValueError(f"{file} has no column {missing[0]}, which the first shard has")


def _batches(parquet: Any, file: Path, columns: list[str]) -> Iterator[Any]:
    with _open(parquet, file) as opened:
        _require(opened, file, columns)
        for group in range(opened.num_row_groups):
            # A batch that spans row groups would hold all of them.
            batches = opened.iter_batches(_rows_at_once(opened.metadata.row_group(group)), [group], columns)
            while True:
                try:
                    batch = next(batches, None)
                except Exception as error:
                    raise ValueError(f"{file} cannot be read, perhaps truncated: {reason(error)}") from error
                if batch is None:
                    break
                yield batch


def _rows_at_once(group: Any) -> int:
    """How many rows of a row group take about `_BYTES`; a broken number in its header makes a batch small or large."""
    return max(1, min(_ROWS, _BYTES * group.num_rows // max(1, group.total_byte_size)))


def _encoded(cell: Any, name: str, file: Path) -> Encoded:
    if isinstance(cell, list):
        if len(cell) != 1:
            raise ValueError(f"{name} holds {len(cell)} images, but one a row is read")
        cell = cell[0]
    data, beside = (cell.get("bytes"), cell.get("path")) if isinstance(cell, dict) else (cell, None)
    if data is None and beside:
        data = _beside(file, str(beside), name)
    if data is None:
        raise ValueError(f"{name} holds no image bytes")
    if len(data) > LARGEST_FILE:
        raise ValueError(f"{name} has {len(data)} bytes, more than the {LARGEST_FILE} allowed")
    return Encoded(name, data)


def _beside(file: Path, relative: str, name: str) -> bytes:
    """An image that is named by its path: it is opened where it lies under the folder of the parquet file."""
    path = file.parent / relative
    inside = path.resolve().is_relative_to(file.parent.resolve())
    if not inside or not path.is_file():
        why = "is not there" if inside else f"leads out of {file.parent}"
        raise ValueError(f"{name} holds no image bytes but the path {relative!r}, which {why}")
    if path.stat().st_size > LARGEST_FILE:
        raise ValueError(f"{path} has {path.stat().st_size} bytes, more than the {LARGEST_FILE} allowed")
    return path.read_bytes()
