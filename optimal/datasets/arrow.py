"""Arrow files and streams, and folders of them as Hugging Face's `save_to_disk` writes them.

    name/dataset_info.json  state.json  data-00000-of-00002.arrow  data-00001-of-00002.arrow
    name/dataset_dict.json  train/data-00000-of-00001.arrow  test/data-00000-of-00001.arrow

Files are mapped: what is held is a picture at a time. `cache-*.arrow`, which is what Hugging Face's `map` leaves there,
are no part of the data.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ..packages import required
from . import store
from .archives import OWN
from .beginnings import beginning
from .dataset import Dataset
from .folders import list_folder
from .notes import left_out, reason, tell
from .pictures import check_resolution
from .shards import alone, choose
from .store import Decoding
from .tables import Options, broken, decoded
from .values import ValueRange, limits_of

__all__ = ["arrow_shards", "read_arrow"]

_SUFFIX = ".arrow"
_FILE, _STREAM = b"ARROW1", b"\xff\xff\xff\xff"


def arrow_shards(names: list[str]) -> list[str]:
    """Which of a folder's files are parts of a data set in Arrow's format, by their names."""
    return [name for name in names if name.lower().endswith(_SUFFIX) and not Path(name).name.startswith("cache-")]


def read_arrow(
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
    """Images of one Arrow file or stream, or of all in a folder, in the order of their names.

    Args:
        path: the file or folder.
        split: which split of a folder, e.g. "train" for `train/data-00000-of-00001.arrow`, or one that
            `dataset_dict.json` names; may be None if there is only one.
        column: as in `read_parquet`.
        label_column: as in `read_parquet`.
        resolution: as in `read_parquet`.
        layout: as in `read_parquet`.
        shape: as in `read_parquet`.
        value_range: as in `read_parquet`.
        skip_unreadable: as in `read_parquet`.
        progress: whether a progress bar is drawn on stderr.

    Returns:
        As `read_parquet`.

    Raises:
        ValueError: as `read_parquet`.
    """
    check_resolution(resolution)
    if path.is_file() and split is not None:
        raise ValueError(f"split is for a folder of shards, but {path} is a file")
    there = [] if path.is_file() else list_folder(path)
    files, said = ([path], alone(path)) if path.is_file() else choose(path, split, arrow_shards(there), there)

    asked = Options(column, label_column, resolution, value_range, layout, shape, skip_unreadable)

    def decode() -> Decoding:
        required("an Arrow file", "pyarrow")
        return decoded(files, path.name, _opened, asked)

    identity: dict[str, Any] = {
        "kind": "arrow",
        "files": [store.stamp(file) for file in files],
        "options": [column, label_column, resolution],
        "value_range": limits_of(value_range) or value_range,
    }
    identity |= asked.identity
    name = path.resolve().name
    data = store.build(name, identity, decode, source=os.path.abspath(path), licence=OWN, progress=progress)
    shards = set(arrow_shards(there))
    tell([*said, *left_out([name for name in there if name not in shards], path.name)])
    return data


@contextlib.contextmanager
def _opened(file: Path) -> Iterator[_Arrow]:
    import pyarrow

    with contextlib.ExitStack() as open_files:
        try:
            source = open_files.enter_context(pyarrow.memory_map(str(file)))
            reader: Any = pyarrow.ipc.open_file if beginning(file).startswith(_FILE) else pyarrow.ipc.open_stream
            table = _Arrow(file, reader(source), source)
        except Exception as error:  # pyarrow's own exceptions, several of them no ValueError
            raise broken(file, "Arrow", (_FILE, _STREAM), error) from error
        yield table


class _Arrow:
    """Batches are read in the order in which they lie, twice: once to count their rows."""

    def __init__(self, file: Path, reader: Any, source: Any):
        self._file, self._reader, self._source = file, reader, source
        self.schema = reader.schema
        _ = self.schema.names  # those that are no text are found here, not where they are used
        self.rows = sum(batch.num_rows for batch in self._read())

    def said(self, column: str) -> list[str]:
        del column
        return []

    def batches(self, column: str) -> Iterator[Any]:
        try:
            for batch in self._read():
                cells = batch.column(column)
                cells.validate(full=True)  # offsets beyond the data are believed otherwise
                yield cells
        except Exception as error:
            raise ValueError(f"{self._file} cannot be read, perhaps truncated: {reason(error)}") from error

    def _read(self) -> Iterator[Any]:
        import pyarrow

        if isinstance(self._reader, pyarrow.ipc.RecordBatchFileReader):
            yield from map(self._reader.get_batch, range(self._reader.num_record_batches))
        else:
            self._source.seek(0)
            yield from pyarrow.ipc.open_stream(self._source)
