"""Tables of studies: where they lie, how they are written and read."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .. import checkpoint
from .plan import Tables

__all__ = ["MEASURED", "Done", "names", "put", "read", "table", "write"]

MEASURED = Path(__file__).parent / "measured"
"""Where shipped tables lie."""
_FORMAT = 1


@dataclass(frozen=True)
class Done:
    """One cell that is finished.

    Attributes:
        name: of the cell.
        key: of its configuration.
        config: that, as plain values.
        data: name -> what it was of: dataset, fingerprint and points.
        seconds: of its trainings, over all starts.
        measuring: seconds that measuring took.
        machine, torch: on which, and the version.
        tables: what was measured.
    """

    name: str
    key: str
    config: dict[str, Any]
    data: dict[str, dict[str, Any]]
    seconds: float
    measuring: float
    machine: str
    torch: str
    tables: Tables


def names(folder: str | Path = MEASURED) -> list[str]:
    """The studies that have a table."""
    return sorted(path.stem for path in Path(folder).glob("*.json"))


def table(name: str, folder: str | Path = MEASURED) -> dict[str, Done]:
    """The shipped table of a study: its finished cells, by name.

    Raises:
        ValueError: it is missing, damaged or of another version.
    """
    path, offer = Path(folder) / f"{name}.json", f"`python -m neural study {name} --ship` makes it again"
    if not path.exists():
        raise ValueError(f"the table of the study {name} is not there: {path} is missing; {offer}")
    return {done.name: done for done in read(path, offer)}


def put(name: str, found: Iterable[Done], folder: str | Path = MEASURED) -> Path:
    """Write the table of a study; its path.

    Raises:
        ValueError: the folder cannot be written.
    """
    path = Path(folder) / f"{name}.json"
    write(path, found)
    return path


def read(path: str | Path, offer: str) -> list[Done]:
    """What `write` wrote.

    Args:
        path: of the file.
        offer: what to do about a damaged one: the end of the sentence.

    Raises:
        ValueError: it is damaged or of another version.
    """
    try:
        values = json.loads(Path(path).read_text())
        if values["format"] != _FORMAT:
            raise ValueError(f"{path} was made by another version of this program; {offer}")
        return [Done(**each) for each in values["cells"]]
    except (OSError, TypeError, KeyError, json.JSONDecodeError, UnicodeDecodeError) as error:
        reason = f"no {error}" if isinstance(error, KeyError) else error
        raise ValueError(f"{path} is damaged: {reason}; {offer}") from error


def write(path: str | Path, cells: Iterable[Done]) -> None:
    """Cells as JSON, which has no nan: values that are not finite are to be left out before.

    Raises:
        ValueError: a value that JSON has no word for; the folder cannot be written.
    """
    # A line a row: a table that is made again then differs where its numbers do.
    text = json.dumps({"format": _FORMAT, "cells": [dataclasses.asdict(cell) for cell in cells]}, allow_nan=False)
    text = text.replace('{"', '\n{"') + "\n"
    try:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        checkpoint.replace_text(path, text.lstrip())
    except OSError as error:
        raise ValueError(f"{path} cannot be written: {error.strerror or error}") from error
