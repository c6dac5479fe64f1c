"""Tables of images and labels, in one file or several: what is the same for parquet and for Arrow."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np

from .arrays import Header, plan_of
from .beginnings import beginning, named, refuse_pointer
from .cells import called, image_of
from .columns import columns_of, is_whole
from .labels import class_names_in
from .notes import reason, tell
from .pictures import Encoded, decode_images, encoded_of
from .pixels import stacked
from .store import Block, Decoding
from .values import ValueRange

__all__ = ["Options", "Table", "broken", "decoded"]


class Table(Protocol):
    """A file that is opened."""

    schema: Any
    """pyarrow's."""
    rows: int

    def batches(self, column: str) -> Iterator[Any]:
        """Arrays of one column, in order, each of a few rows."""
        ...

    def said(self, column: str) -> list[str]:
        """What is said before a column of images is read."""
        ...


class Options(NamedTuple):
    """What was asked for, see `read_parquet`."""

    column: str | None
    label_column: str | bool | None
    resolution: int | None
    value_range: ValueRange
    layout: str | None
    shape: Sequence[int] | None
    skip_unreadable: bool = False

    @property
    def of_pixels(self) -> dict[str, Any]:
        """Those of pixels that were given."""
        shape = None if self.shape is None else list(self.shape)
        return {name: value for name, value in (("layout", self.layout), ("shape", shape)) if value is not None}

    @property
    def identity(self) -> dict[str, Any]:
        """What identities hold of them, and that names are kept since."""
        return self.of_pixels | {"names": True} | ({"skip_unreadable": True} if self.skip_unreadable else {})


def decoded(
    files: list[Path], where: str, opened: Callable[[Path], AbstractContextManager[Table]], asked: Options
) -> Decoding:
    """The images of all files, one after the other.

    Args:
        files: at least one.
        where: what they are called in messages.
        opened: opens one of them, and says in a ValueError why not.
        asked: the options.

    Raises:
        ValueError: at once or on the way; the file, its row or column is named.
    """
    notes: list[str] = []
    with opened(files[0]) as table:
        image, label, pixels = columns_of(table.schema, files[0], asked.column, asked.label_column, notes)
        classes = [] if label is None else class_names_in(table.schema.metadata, label)
    total = 0
    for file in files:
        with opened(file) as table:
            _require(table, file, image)
            total += table.rows
            tell(table.said(image))
    labels = None if label is None else _labels(opened, files, label, asked.label_column == label, notes)

    if pixels:
        if asked.resolution is not None:
            raise ValueError(f"resolution is for encoded images, but {image} of {files[0]} holds pixels")
        if asked.skip_unreadable:
            raise ValueError(f"skip_unreadable is for encoded images, but {image} of {files[0]} holds pixels")
        return Decoding(_pixels(files, where, opened, image, labels, total, asked, notes), total, notes, None, classes)
    if asked.of_pixels:
        raise ValueError(f"layout and shape are for pixels, but {image} of {files[0]} holds encoded images")

    paths: list[str] = []
    names: list[str] = []

    def items() -> Iterator[Encoded]:
        paths.clear()  # they are gone through twice
        for file in files:
            with opened(file) as table:
                for path, item in _rows(table, file, image):
                    paths.append(path)
                    yield item

    def blocks() -> Iterator[Block]:
        kept: list[int] = []
        options: dict[str, Any] = {"value_range": asked.value_range, "notes": notes, "kept": kept}
        yield from decode_images(items, where, labels, asked.resolution, skip=asked.skip_unreadable, **options)
        known = all(paths)
        names.extend(paths[place] for place in kept if known)

    return Decoding(blocks(), total, notes, names, classes)


def _pixels(
    files: list[Path],
    where: str,
    opened: Callable[[Path], AbstractContextManager[Table]],
    image: str,
    labels: np.ndarray | None,
    total: int,
    asked: Options,
    notes: list[str],
) -> Iterator[Block]:
    """The rows of a column of pixels, as those of a `.npy` of all of them would be read."""
    done, plan = 0, None
    like: tuple[Any, ...] = ()
    for file in files:
        first = done
        with opened(file) as table:
            for cells in table.batches(image):
                rows = stacked(cells, f"{image} of {file.name}", done - first)
                if not len(rows):
                    continue
                if plan is None:
                    like = rows.shape[1:], rows.dtype
                    header = Header((total, *rows.shape[1:]), fortran=False, dtype=rows.dtype, offset=0)
                    plan = plan_of(f"{image} of {where}", header, asked.layout, asked.shape, asked.value_range)
                    notes += plan.doubt(rows, asked.value_range)
                if (rows.shape[1:], rows.dtype) != like:
                    raise ValueError(
                        f"the pixels of {where} must all have one shape, but row {done - first} of {file.name} "
                        f"is {rows.dtype} {rows.shape[1:]} and the first {like[1]} {like[0]}"
                    )
                marks = None if labels is None else labels[done : done + len(rows)]
                yield Block(plan.converted(rows, done), marks)
                done += len(rows)


def broken(file: Path, kind: str, mark: bytes | tuple[bytes, ...], error: Exception) -> ValueError:
    """Why a file cannot be opened.

    Args:
        file: it.
        kind: what was expected, "parquet".
        mark: how such a file begins, or how it may.
        error: the library's.

    Raises:
        ValueError: for a git-lfs pointer.
    """
    head = beginning(file)
    refuse_pointer(head, str(file))
    other = None if head.startswith(mark) else named(head)
    what = "it is empty" if not head else f"it is {other}" if other else "perhaps truncated"
    return ValueError(f"{file} is not a readable {kind} file, {what}: {reason(error)}")


def _require(table: Table, file: Path, column: str) -> None:
    if column not in table.schema.names:
        raise ValueError(f"{file} has no column {column}, which the first shard has")


def _labels(
    opened: Callable[[Path], AbstractContextManager[Table]],
    files: list[Path],
    label: str,
    asked: bool,
    notes: list[str],
) -> np.ndarray | None:
    """The labels of all shards, int64 (N,), or None where some are missing and they were not asked for by name."""
    found, rows, missing = list[np.ndarray](), 0, 0
    first: Any = None
    for file in files:
        with opened(file) as table:
            _require(table, file, label)
            kind = table.schema.field(label).type
            first = kind if first is None else first
            if not is_whole(kind):
                raise ValueError(
                    f"{label} of {file.name} is {kind}, another type than {first} of the first shard; "
                    "label_column=False carries no labels"
                )
            start = rows
            for batch in table.batches(label):
                column = _whole(batch, file, label)
                gaps = column.is_null().to_numpy(zero_copy_only=False)
                if asked and gaps.any():
                    row = rows - start + int(gaps.argmax())
                    raise ValueError(f"row {row} of {file.name} holds no {label}; label_column=False carries none")
                rows, missing = rows + len(column), missing + int(gaps.sum())
                found.append(column.to_numpy(zero_copy_only=False))
    if missing:
        notes.append(
            f"the labels of {files[0].parent.name or files[0]} are left out: {missing} of {rows} rows hold none"
        )
        return None
    return np.concatenate([np.empty(0, np.int64), *found])


def _whole(batch: Any, file: Path, label: str) -> Any:
    import pyarrow

    try:
        return batch.cast(pyarrow.int64())
    except Exception as error:
        raise ValueError(f"{label} of {file} cannot be read as whole numbers below 2⁶³: {reason(error)}") from error


def _rows(table: Table, file: Path, image: str) -> Iterator[tuple[str, Encoded]]:
    """What each row is called where it came from, and its image."""
    number = 0
    for batch in table.batches(image):
        for row in range(len(batch)):
            try:
                cell = batch[row].as_py()
            except Exception as error:  # text that is no UTF-8, offsets beyond the data
                raise ValueError(f"{file} cannot be read, rows {number} and after: {reason(error)}") from error
            name = f"row {number} of {file.name}"
            yield called(cell), encoded_of(name, partial(image_of, cell, name, file))
            number += 1
