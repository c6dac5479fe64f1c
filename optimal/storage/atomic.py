"""Files and folders that are whole or not there: written under a temporary name, flushed to disk, renamed.

A process that is killed leaves its temporary behind, `.building-<node>-<process>-…`. The next one that writes into the
same folder removes it; those of processes that still run are left alone. What is renamed has the permissions that the
umask, the folder's set-group-ID bit and its access list give to anything made there: a cache may be shared by a group.
"""

from __future__ import annotations

import os
import platform
import re
import secrets
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .processes import running

__all__ = ["remove_abandoned", "replacing", "temporary_folder"]

_BUILDING = ".building-"
_ABANDONED = 24 * 3600  # seconds without a write after which a build whose process cannot be asked counts as dead


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A path to write to, with the suffix of `path`; what was written takes its place when the block ends well. Its
    folder is made if it is not there.

    Raises:
        OSError: it cannot be written. What was at `path` is still there then.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    remove_abandoned(path.parent)
    temporary = path.parent / f"{_unique()}-{path.name[-100:]}"
    temporary.touch(exist_ok=False)
    try:
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def temporary_folder(folder: Path) -> Path:
    """A new folder in `folder`, in which an entry is built that is then renamed."""
    path = folder / _unique()
    path.mkdir()
    return path


def remove_abandoned(folder: Path) -> None:
    """Delete what builds that are no longer running have left behind; a build in progress is left alone."""
    for path in folder.glob(f"{_BUILDING}*"):
        if _is_abandoned(path):
            shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)


def _unique() -> str:
    return f"{_BUILDING}{platform.node()}-{os.getpid()}-{secrets.token_hex(6)}"


def _is_abandoned(path: Path) -> bool:
    parts = re.fullmatch(rf"{re.escape(_BUILDING + platform.node())}-(\d+)-.*", path.name)
    if parts and os.name == "posix":
        return not running(int(parts[1]))
    try:
        newest = max(part.stat().st_mtime for part in [path, *path.glob("*")])
    except (OSError, ValueError):
        return False
    return time.time() - newest > _ABANDONED
