"""Tables that grow while training: CSV files of which a resumed run keeps the rows up to its checkpoint."""

from __future__ import annotations

import csv
import dataclasses
from pathlib import Path
from typing import Any

from optimal.storage import replacing

__all__ = ["Growing"]


class Growing:
    """A CSV file of one kind of dataclass, whose first field is the step. Use it as a context manager.

    Args:
        path: the file; None: nothing is written.
        kind: class of the rows.
        step: rows after it are dropped.

    Raises:
        ValueError: it cannot be written.
    """

    def __init__(self, path: Path | None, kind: type, step: int):
        self._file = None
        if path is None:
            return
        kept = []
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            if step and path.exists():
                with open(path, newline="") as file:
                    kept = [row for row in csv.reader(file) if row and row[0].isdigit() and int(row[0]) <= step]
            with replacing(path) as temporary, open(temporary, "w", newline="") as file:
                csv.writer(file).writerows([[f.name for f in dataclasses.fields(kind)], *kept])
            self._file = open(path, "a", newline="")  # noqa: SIM115
        except OSError as error:
            raise ValueError(f"the run cannot be written to {path.parent}: {error.strerror or error}") from error
        self._writer = csv.writer(self._file)

    def add(self, *rows: Any) -> None:
        """Write rows, to the disk at once."""
        if self._file is not None:
            self._writer.writerows(dataclasses.astuple(row) for row in rows)
            self._file.flush()

    def __enter__(self) -> Growing:
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.close()
