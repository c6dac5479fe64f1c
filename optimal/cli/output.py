"""What command lines print and write: paths without suffix, JSON, tables of text."""

from __future__ import annotations

import contextlib
import json
import math
import os
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from .run import say

__all__ = ["as_json", "as_table", "no_empty_folder", "plain", "suffixed", "writable"]

_SUFFIXES = (".png", ".npy", ".npz", ".csv", ".json", ".html", ".jpg", ".jpeg", ".pdf")


def suffixed(out: Path, suffix: str) -> Path:
    """The path `out`, written without suffix, with this one; names with dots keep them, but a.png is no a.png.png.

    Example:
        >>> suffixed(Path("runs/a.png"), ".npz").as_posix(), suffixed(Path("v1.5"), "-tables.csv").as_posix()
        ('runs/a.npz', 'v1.5-tables.csv')
    """
    name = out.stem if out.suffix.lower() in _SUFFIXES else out.name
    return out.with_name(f"{name}{suffix}")


def writable(out: str | Path, name: str, *writes: str, folder: bool = False) -> Path:
    """Where results go, tried before any work: the folder can be made, and something can be written there.

    What is tried is taken away again: who fails afterwards leaves no folder behind, and who writes makes it. Files that
    are there already and that this run writes are named on stderr.

    Args:
        out: a path without suffix, `~` for the home; an existing folder, or what ends in a slash, is one to write into.
        name: of the results in such a folder.
        writes: what follows the name in the files that will be written, such as ".npz" or "-theories.csv".
        folder: whether `out` is to be a folder itself.

    Returns:
        the path without suffix, or the folder.

    Raises:
        ValueError: a folder in which nothing can be written.
    """
    path = Path(out)
    with contextlib.suppress(RuntimeError):
        path = path.expanduser()
    inside = os.fspath(out).endswith(tuple({"/", os.sep})) or path.is_dir() or not path.name
    if not folder:
        path = path / name if inside else suffixed(path, "")
    home = path if folder else path.parent
    try:
        if home.exists() and not home.is_dir():
            raise ValueError(f"{home} could not be written to: it is a file")
        with no_empty_folder(home):
            home.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=home):
                pass
    except OSError as error:
        raise ValueError(f"{home} could not be written to: {error.strerror or error}") from error
    there = [file for ending in writes if (file := suffixed(path, ending)).exists()]
    if there:
        say(f"{', '.join(map(str, there))} of an earlier run will be replaced (--out names others)")
    return path


@contextlib.contextmanager
def no_empty_folder(folder: Path) -> Iterator[None]:
    """Afterwards, no folder on the way to `folder` that was not there before is empty: it is gone."""
    new = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        yield
    finally:
        for path in new:
            with contextlib.suppress(OSError):
                path.rmdir()


def plain(value: Any) -> Any:
    """The same with None for what is infinite or undefined: JSON has neither."""
    if isinstance(value, dict):
        return {key: plain(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [plain(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def as_json(found: dict[str, Any]) -> str:
    """One JSON object in one line; null stands for what is infinite or undefined."""
    return json.dumps(plain(found), allow_nan=False)


def as_table(head: Sequence[str], rows: Sequence[Sequence[str]], *, left: int = 1) -> str:
    """Lines with aligned columns: the first `left` to the left, the others to the right.

    Example:
        >>> print(as_table(["at", "gap"], [["top", "0.1"], ["end", "12"]]))
        at   gap
        top  0.1
        end   12
    """
    lines = [head, *rows]
    widths = [max(len(line[i]) for line in lines) for i in range(len(head))]
    aligned = (
        "  ".join(
            cell.ljust(width) if i < left else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        )
        for line in lines
    )
    return "\n".join(line.rstrip() for line in aligned)
