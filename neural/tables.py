"""What is said of steps: one, the mean of some, and tables that grow, of which a resumed run keeps what it had then."""

from __future__ import annotations

import csv
import dataclasses
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from optimal.storage import replacing

__all__ = ["Growing", "Means", "Report"]


@dataclass(frozen=True)
class Report:
    """One step, or the mean of several.

    Attributes:
        step: how many have been taken, this one included.
        loss: mean over the global batch.
        lr: learning rate.
        gradient: norm of the gradient before it was clipped.
    """

    step: int
    loss: float
    lr: float
    gradient: float


class Means:
    """Of the reports since it was last asked, so that a curve has the noise of all steps' batches and not of one's."""

    def __init__(self) -> None:
        self._last = Report(0, math.nan, 0.0, math.nan)
        self._loss, self._gradient, self._count = 0.0, 0.0, 0

    def add(self, report: Report) -> None:
        self._last, self._count = report, self._count + 1
        self._loss, self._gradient = self._loss + report.loss, self._gradient + report.gradient

    def take(self) -> Report:
        """Step and learning rate of the last report, the means of loss and gradient; and begin anew."""
        count, last = max(self._count, 1), self._last
        out = Report(last.step, self._loss / count, last.lr, self._gradient / count)
        self._loss, self._gradient, self._count = 0.0, 0.0, 0
        return out

    def state(self) -> Tensor:
        """What a checkpoint keeps, (3,) float64."""
        return torch.tensor([self._loss, self._gradient, self._count], dtype=torch.float64)

    def restore(self, state: Tensor) -> None:
        """Go on from a `state`."""
        self._loss, self._gradient, count = state.tolist()
        self._count = int(count)


class Growing:
    """A CSV file of one kind of dataclass, whose first field is the step. Use it as a context manager.

    Args:
        path: the file; None: nothing is written.
        kind: class of the rows.
        step: rows after it are dropped.

    Raises:
        ValueError: it cannot be written, or what is there is no such table.
    """

    def __init__(self, path: Path | None, kind: type, step: int):
        self._file = None
        if path is None:
            return
        kept = []
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            if step and path.exists():
                kept = _rows(path, len(dataclasses.fields(kind)), step)
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


def _rows(path: Path, columns: int, step: int) -> list[list[str]]:
    """The rows of a table up to a step.

    Raises:
        ValueError: it is damaged; but a last row may be cut off, as that of a run that was killed.
    """
    text, kept = path.read_bytes().decode("utf-8", "replace"), []
    lines = text.splitlines() if text.endswith(("\n", "\r")) else text.splitlines()[:-1]
    for number, line in enumerate(lines[1:], 2):
        row = line.split(",")
        try:
            values = list(map(float, row))
        except ValueError:
            values = []
        if len(values) != columns or not values[0].is_integer():
            raise ValueError(
                f"{path} is damaged: its line {number} is no row of {columns} numbers; move it away to go on without it"
            )
        if values[0] <= step:
            kept.append(row)
    return kept
