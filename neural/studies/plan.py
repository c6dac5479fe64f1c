"""What a study is: cells, each some trainings and what is measured of them.

A cell says what its numbers follow from (its configuration and its data), and does its work in a folder of its own. It
trains with `resume` there, so that it goes on after a kill, and returns tables: name -> rows of plain values, with
name, name_low and name_high where a number has an interval.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from optimal import Dataset

from ..pretrained.again import Clock

__all__ = ["Cell", "Place", "Study", "Tables"]

Tables = dict[str, list[dict[str, Any]]]
"""Name of a table -> its rows."""


@dataclass(frozen=True)
class Place:
    """Where a cell does its work.

    Attributes:
        folder: its own.
        progress: whether bars are drawn on stderr.
    """

    folder: Path
    progress: bool = False

    def part(self, name: str) -> tuple[Path, Clock]:
        """A folder for one training, and the listener that keeps how long it took: give both to `fit` or `distil`."""
        return self.folder / name, Clock(self.folder / name)


@dataclass(frozen=True)
class Cell:
    """One point of a grid.

    Attributes:
        name: of its folder: lower-case letters, digits and hyphens.
        config: a dataclass of plain values, configurations among them, from which all numbers follow. A cell is done
            again where it has changed.
        data: name -> data set; those that the numbers are of, whose fingerprints are kept.
        work: what it does; trainings go into folders of `Place.part`.
        seconds: what it takes, about, on one thread.
    """

    name: str
    config: Any
    data: Callable[[], Mapping[str, Dataset]]
    work: Callable[[Place], Tables]
    seconds: float

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", self.name):
            raise ValueError(f"the name of a cell must be lower-case letters, digits and hyphens, got {self.name!r}")


@dataclass(frozen=True)
class Study:
    """A grid.

    Attributes:
        name: of its table.
        about: what is asked, in a sentence.
        cells: in the order in which they are done.
        told: (table, column): what is said of numbers measured again beside those that are shipped.
    """

    name: str
    about: str
    cells: tuple[Cell, ...]
    told: tuple[tuple[str, str], ...]

    def __post_init__(self) -> None:
        names = [cell.name for cell in self.cells]
        if len({*names}) < len(names):
            raise ValueError(f"the cells of a study must have different names, got {', '.join(names)}")
