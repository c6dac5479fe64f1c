"""Hugging Face's parquet shards: a column of encoded images, as struct{bytes, path} or binary of any kind."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ..packages import required
from . import store
from .archives import OWN
from .dataset import Dataset
from .folders import list_folder
from .notes import left_out, reason, tell
from .pages import large_pages
from .pictures import check_resolution
from .shards import alone, choose, is_shard, listed
from .store import Decoding
from .tables import Options, broken, decoded
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
    layout: str | None = None,
    shape: Sequence[int] | None = None,
    value_range: ValueRange = None,
    skip_unreadable: bool = False,
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
        column: which column holds the images, encoded or as pixels; may be None if only one can.
        label_column: which column holds whole-number labels; None takes `label` or `labels` if there is one, and leaves
            it out with a warning where it holds something else or has gaps; False carries no labels.
        resolution: crop the centre square of every image and resize it (Lanczos) to so many pixels.
        layout: of a column of pixels, lists in lists or a tensor of fixed shape, as in `read_npy`.
        shape: as in `read_npy`, of a column of flat lists.
        value_range: the grey levels that become -1 and 1; None means (0, 255); "any" takes them as they are.
        skip_unreadable: whether rows whose image cannot be read are left out, with a word; else they are refused.
        progress: whether a progress bar is drawn on stderr.

    Returns:
        uint8 (N, C, H, W), or as `read_npy` where the column holds pixels; with the `path` of each image for its name,
        where all have one.

    Raises:
        ValueError: if pyarrow is missing, a file is broken, no column or several can be the images, or an image is
            broken or of another size; it is named.
    """
    check_resolution(resolution)
    if path.is_file() and split is not None:
        raise ValueError(f"split is for a folder of shards, but {path} is a file")
    files, said = ([path], alone(path)) if path.is_file() else choose(path, split, listed(path))

    asked = Options(column, label_column, resolution, value_range, layout, shape, skip_unreadable)

    def decode() -> Decoding:
        required("a parquet file", "pyarrow")
        return decoded(files, path.name, _opened, asked)

    identity: dict[str, Any] = {
        "kind": "parquet",
        "files": [store.stamp(file) for file in files],
        "options": [column, label_column, resolution],
    }
    identity |= asked.identity
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


@contextlib.contextmanager
def _opened(file: Path) -> Iterator[_Parquet]:
    from pyarrow import parquet

    try:
        opened = parquet.ParquetFile(file, buffer_size=_BUFFER, pre_buffer=False)
        table = _Parquet(file, opened)
    except Exception as error:  # pyarrow's own exceptions, several of them no ValueError
        raise broken(file, "parquet", b"PAR1", error) from error
    with opened:
        yield table


class _Parquet:
    def __init__(self, file: Path, opened: Any):
        self._file, self._opened = file, opened
        self.schema = opened.schema_arrow  # translated only now, with exceptions of its own
        _ = self.schema.names  # and its names only here
        self.rows = int(opened.metadata.num_rows)

    def said(self, column: str) -> list[str]:
        return large_pages(self._file, self._opened.metadata, column)

    def batches(self, column: str) -> Iterator[Any]:
        for group in range(self._opened.num_row_groups):
            # A batch that spans row groups would hold all of them.
            rows = _rows_at_once(self._opened.metadata.row_group(group))
            batches = self._opened.iter_batches(rows, [group], [column])
            while True:
                try:
                    batch = next(batches, None)
                except Exception as error:
                    raise ValueError(f"{self._file} cannot be read, perhaps truncated: {reason(error)}") from error
                if batch is None:
                    break
                yield batch.column(column)


def _rows_at_once(group: Any) -> int:
    """How many rows of a row group take about `_BYTES`; a broken number in its header makes a batch small or large."""
    return max(1, min(_ROWS, _BYTES * group.num_rows // max(1, group.total_byte_size)))
