"""A cell of a table as an encoded image: its bytes, or the file beside the table that it names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .pictures import LARGEST_FILE

__all__ = ["called", "image_of"]


def called(cell: Any) -> str:
    """What the image of one row was called where it came from, the `path` beside its bytes; "" if nothing says so."""
    cell = cell[0] if isinstance(cell, list) and cell else cell
    return str(cell.get("path") or "") if isinstance(cell, dict) else ""


def image_of(cell: Any, name: str, file: Path) -> bytes:
    """The image of one row, encoded.

    Args:
        cell: bytes, {"bytes": …, "path": …}, or a list of one of them.
        name: of the row, for messages.
        file: the table, under whose folder images that are named by a path are looked for.

    Raises:
        ValueError: if there is none, or more than one, or it is too large or elsewhere.
    """
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
    return data


def _beside(file: Path, relative: str, name: str) -> bytes:
    """An image that is named by its path: it is opened where it lies under the folder of the table."""
    path = file.parent / relative
    inside = path.resolve().is_relative_to(file.parent.resolve())
    if not inside or not path.is_file():
        why = "is not there" if inside else f"leads out of {file.parent}"
        raise ValueError(f"{name} holds no image bytes but the path {relative!r}, which {why}")
    if path.stat().st_size > LARGEST_FILE:
        raise ValueError(f"{path} has {path.stat().st_size} bytes, more than the {LARGEST_FILE} allowed")
    return path.read_bytes()
