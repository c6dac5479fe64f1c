"""Hugging Face's parquet shards: a column of encoded images, as struct{bytes, path} or plain binary."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..packages import required
from . import store
from .archives import OWN, list_folder
from .dataset import Dataset
from .pictures import LARGEST_FILE, Encoded, check_resolution, decode_images
from .store import Decoding

__all__ = ["read_parquet"]

_BYTES = 1 << 23  # read at a time, encoded, or one image where that is more
_ROWS = 256  # the most that are read at a time
_SHARD = re.compile(r"^(?P<split>.+?)-\d+-of-\d+")


def read_parquet(
    path: Path,
    *,
    split: str | None = None,
    column: str | None = None,
    label_column: str | None = None,
    resolution: int | None = None,
    progress: bool = True,
) -> Dataset:
    """Images of one parquet file, or of all parquet files in a folder in the order of their names.

    They are read 8 MB at a time, a row group after the other. Arrow takes whole pages, at about three times their size:
    a file whose pages hold hundreds of MB, as one that was written at once may, takes as much more memory.

    Args:
        path: the file or folder.
        split: which split of a folder, e.g. "train" for `train-00000-of-00002.parquet`, or "all"; may be None if there
            is only one.
        column: which column holds the images; may be None if only one can.
        label_column: which column holds whole-number labels; None takes `label` or `labels` if there is one.
        resolution: crop the centre square of every image and resize it (Lanczos) to so many pixels.
        progress: whether a progress bar is drawn on stderr.

    Returns:
        uint8 (N, C, H, W).

    Raises:
        ValueError: if pyarrow is missing, a file is broken, no column or several can be the images, or an image is
            broken or of another size; it is named.
    """
    check_resolution(resolution)
    files = _shards(path, split)

    def decode() -> Decoding:
        parquet = _pyarrow_parquet()
        total = 0
        for file in files:
            with _open(parquet, file) as opened:
                total += opened.metadata.num_rows
        with _open(parquet, files[0]) as opened:
            image, label = _columns(opened.schema_arrow, files[0], column, label_column)

        def items() -> Iterator[Encoded]:
            for file in files:
                yield from _rows(parquet, file, image, label)

        return Decoding(decode_images(items, path.name, None, resolution), total)

    identity = {
        "kind": "parquet",
        "files": [store.stamp(file) for file in files],
        "options": [column, label_column, resolution],
    }
    name = path.resolve().name
    return store.build(name, identity, decode, source=os.path.abspath(path), licence=OWN, progress=progress)


def _pyarrow_parquet() -> Any:
    required("a parquet file", "pyarrow")
    from pyarrow import parquet

    return parquet


def _shards(path: Path, split: str | None) -> list[Path]:
    if path.is_file():
        if split is not None:
            raise ValueError(f"split is for a folder of shards, but {path} is a file")
        return [path]
    splits: dict[str, list[Path]] = {}
    for name in list_folder(path):
        if name.endswith(".parquet"):
            shard = _SHARD.match(Path(name).name)
            splits.setdefault(shard["split"] if shard else "", []).append(path / name)
    if split == "all" or (split is None and len(splits) == 1):
        return sorted(file for files in splits.values() for file in files)
    if split is None or split not in splits:
        known = ", ".join([*filter(None, splits), "all"])
        asked = "" if split is None else f", got {split!r}"
        raise ValueError(f"split= must name one of the splits of {path}: {known}{asked}")
    return splits[split]


def _open(parquet: Any, file: Path) -> Any:
    try:
        opened = parquet.ParquetFile(file)
        _ = opened.schema_arrow  # translated only now, with exceptions of its own
        return opened
    except Exception as error:  # pyarrow's own exceptions, several of them no ValueError
        raise ValueError(f"{file} is not a readable parquet file, perhaps truncated: {error}") from error


def _columns(schema: Any, file: Path, column: str | None, label_column: str | None) -> tuple[str, str | None]:
    """Names of the columns of images and of labels."""
    from pyarrow import types

    def holds_images(kind: Any) -> bool:
        if types.is_struct(kind):
            return kind.get_field_index("bytes") >= 0
        return types.is_binary(kind) or types.is_large_binary(kind)

    images = [str(field.name) for field in schema if holds_images(field.type)]
    if column is None and len(images) == 1:
        column = images[0]
    if column is None or column not in images:
        asked = "" if column is None else f", got {column!r}"
        raise ValueError(f"column= must name the images of {file}: {', '.join(images) or 'no column is binary'}{asked}")
    whole = [str(field.name) for field in schema if types.is_integer(field.type)]
    if label_column is not None and label_column not in whole:
        known = ", ".join(whole) or "there are none"
        raise ValueError(f"label_column= must name whole numbers of {file}: {known}, got {label_column!r}")
    return column, label_column or next((name for name in ("label", "labels") if name in whole), None)


def _rows(parquet: Any, file: Path, image: str, label: str | None) -> Iterator[Encoded]:
    number = 0
    for batch in _batches(parquet, file, [image] if label is None else [image, label]):
        for row in range(len(batch)):
            try:
                cell = batch.column(image)[row].as_py()
                mark = None if label is None else batch.column(label)[row].as_py()
            except Exception as error:  # text that is no UTF-8, offsets beyond the data
                raise ValueError(f"{file} cannot be read, rows {number} and after: {error}") from error
            yield _encoded(cell, mark, f"row {number} of {file.name}", label)
            number += 1


def _batches(parquet: Any, file: Path, columns: list[str]) -> Iterator[Any]:
    with _open(parquet, file) as opened:
        if missing := [column for column in columns if column not in opened.schema_arrow.names]:
            raise ValueError(f"{file} has no column {missing[0]}, which the first shard has")
        for group in range(opened.num_row_groups):
            # A batch that spans row groups would hold all of them.
            batches = opened.iter_batches(_rows_at_once(opened.metadata.row_group(group)), [group], columns)
            while True:
                try:
                    batch = next(batches, None)
                except Exception as error:
                    raise ValueError(f"{file} cannot be read, perhaps truncated: {error}") from error
                if batch is None:
                    break
                yield batch


def _rows_at_once(group: Any) -> int:
    """How many rows of a row group take about `_BYTES`; a broken number in its header makes a batch small or large."""
    return max(1, min(_ROWS, _BYTES * group.num_rows // max(1, group.total_byte_size)))


def _encoded(cell: Any, mark: int | None, name: str, label: str | None) -> Encoded:
    data = cell.get("bytes") if isinstance(cell, dict) else cell
    if data is None:
        raise ValueError(f"{name} holds no image bytes")
    if len(data) > LARGEST_FILE:
        raise ValueError(f"{name} has {len(data)} bytes, more than the {LARGEST_FILE} allowed")
    if label is not None and mark is None:
        raise ValueError(f"{name} holds no {label}")
    return Encoded(name, data, mark)
