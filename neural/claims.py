"""A run that fails before its first checkpoint has no folder: the next, good command finds it as it was."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

__all__ = ["given_back"]

_OWN = ("distillation.json", "metrics.csv", "gap.csv")
"""What a run writes before its first checkpoint, and what says whose its folder is."""


@contextlib.contextmanager
def given_back(folder: str | Path | None) -> Iterator[None]:
    """On an error before the first checkpoint, what a run has written into its folder is taken away again.

    Only what was not there before, and only files of these names and folders that are then empty; pairs that a student
    is to be taught with are kept. An interrupt leaves all as it is, to be gone on with.
    """
    if folder is None:
        yield
        return
    folder = Path(folder)
    before = set(folder.rglob("*")) if folder.is_dir() else set()
    new = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        yield
    except Exception:
        there = set(folder.rglob("*")) if folder.is_dir() else set()
        if not any(path.suffix == ".safetensors" for path in there):
            _remove(there - before, new)
        raise


def _remove(written: set[Path], folders: list[Path]) -> None:
    for path in written:
        if path.name in _OWN or path.parent.name == ".locks":
            path.unlink(missing_ok=True)
    for path in [*sorted((path for path in written if path.is_dir()), reverse=True), *folders]:
        with contextlib.suppress(OSError):
            path.rmdir()
