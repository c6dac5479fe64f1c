"""Doing the cells of a study, each once, and saying how new numbers compare with those that are shipped."""

from __future__ import annotations

import dataclasses
import json
import math
import time
from collections.abc import Callable, Iterable
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import torch

from ..config import key
from ..pretrained.again import Clock, machine
from . import shelf
from .plan import Cell, Place, Study
from .shelf import Done

__all__ = ["chosen", "done", "finished", "folder_of", "is_current", "ship", "verdict"]

_ROWS = "rows.json"


def chosen(study: Study, patterns: Iterable[str] = ()) -> list[Cell]:
    """The cells whose names match one of the patterns, `digits-*` say; all without patterns.

    Raises:
        ValueError: a pattern that no cell matches.
    """
    patterns = list(patterns)
    for pattern in patterns:
        if not any(fnmatch(cell.name, pattern) for cell in study.cells):
            raise ValueError(f"no cell of {study.name} is called {pattern!r}: {', '.join(c.name for c in study.cells)}")
    return [cell for cell in study.cells if not patterns or any(fnmatch(cell.name, each) for each in patterns)]


def folder_of(study: Study, cell: Cell, out: str | Path) -> Path:
    """Where a cell works: another one for every configuration."""
    return Path(out) / study.name / f"{cell.name}-{key(cell.config)[:8]}"


def is_current(cell: Cell, found: Done) -> bool:
    """Whether what was done is what the cell does."""
    return found.key == key(cell.config)


def finished(study: Study, cell: Cell, out: str | Path) -> Done | None:
    """What a finished cell has measured; None for one that is yet to be done, or whose file is damaged."""
    path = folder_of(study, cell, out) / _ROWS
    if not path.exists():
        return None
    try:
        found = shelf.read(path, "")[0]
    except (ValueError, IndexError):
        return None
    return found if is_current(cell, found) else None


def done(study: Study, cell: Cell, out: str | Path, *, progress: bool = False) -> Done:
    """Do a cell to its end, going on where an earlier call was stopped; one that was finished is not done again.

    Args:
        study, cell: what is done.
        out: folder of all studies.
        progress: whether bars are drawn on stderr.

    Raises:
        ValueError: as for `neural.fit` and what the cell measures; a folder that cannot be written.
    """
    there = finished(study, cell, out)
    if there is not None:
        return there
    folder = folder_of(study, cell, out)
    before, began = _trained(folder), time.perf_counter()
    tables = cell.work(Place(folder, progress))
    after, took = _trained(folder), time.perf_counter() - began
    found = Done(
        name=cell.name,
        key=key(cell.config),
        config=json.loads(json.dumps(dataclasses.asdict(cell.config))),
        data={
            name: {"dataset": data.name, "fingerprint": data.fingerprint, "points": len(data)}
            for name, data in cell.data().items()
        },
        seconds=round(after, 3),
        measuring=round(max(0.0, took - (after - before)), 1),
        machine=machine(),
        torch=torch.__version__,
        tables={name: [_finite(row) for row in rows] for name, rows in tables.items()},
    )
    shelf.write(folder / _ROWS, [found])
    return found


def ship(study: Study, found: Iterable[Done], folder: str | Path = shelf.MEASURED) -> Path:
    """Put cells in the place of those of the shipped table; others stay where they are what the study still does.

    Returns:
        the path of the table.
    """
    new = {each.name: each for each in found}
    try:
        old = shelf.table(study.name, folder)
    except ValueError:
        old = {}
    kept = {cell.name: old[cell.name] for cell in study.cells if cell.name in old and is_current(cell, old[cell.name])}
    cells = kept | new
    return shelf.put(study.name, [cells[cell.name] for cell in study.cells if cell.name in cells], folder)


def verdict(study: Study, then: Done, now: Done, say: Callable[[str], object]) -> None:
    """Say how numbers of a cell compare with those that were shipped, row by row of what the study tells."""
    for name, column in study.told:
        for before, after in zip(then.tables.get(name, []), now.tables.get(name, []), strict=False):
            if _identity(before) != _identity(after) or not all(_has(row, column) for row in (before, after)):
                continue
            words = "as"
            if after[f"{column}_low"] > before[f"{column}_high"]:
                words = "above"
            elif after[f"{column}_high"] < before[f"{column}_low"]:
                words = "below"
            where = "".join(f", {k} {v if isinstance(v, str) else f'{v:.3g}'}" for k, v in _identity(after).items())
            say(
                f"{now.name}{where}: {column} {after[column]:.3g} [{after[f'{column}_low']:.3g}, "
                f"{after[f'{column}_high']:.3g}], {words} the shipped {before[column]:.3g}"
            )


def _identity(row: dict[str, Any]) -> dict[str, Any]:
    """What says which row it is: words, whole numbers, and the noise level."""
    return {
        k: float(f"{v:.6g}") if k == "sigma" else v
        for k, v in row.items()
        if isinstance(v, str) or k == "sigma" or k == "n"
    }


def _has(row: dict[str, Any], column: str) -> bool:
    return all(name in row for name in (column, f"{column}_low", f"{column}_high"))


def _trained(folder: Path) -> float:
    """Seconds of all trainings in a folder, over all their starts."""
    return sum(Clock(path.parent).seconds() for path in folder.rglob("seconds.csv"))


def _finite(row: dict[str, Any]) -> dict[str, Any]:
    """Without what is not defined: JSON has no word for it."""
    return {name: value for name, value in row.items() if not isinstance(value, float) or math.isfinite(value)}
