"""The files of a folder, as all readers see them: hidden ones never, linked folders once."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["hidden", "list_folder"]

_HIDDEN = ("__MACOSX", "@eaDir")
"""What macOS puts into archives, and Synology's thumbnails."""


def hidden(name: str) -> bool:
    """Whether a path with slashes has a part that is not to be looked at: `.x`, `._x`, `__MACOSX`, `@eaDir`."""
    return any(part.startswith(".") or part in _HIDDEN for part in name.replace("\\", "/").split("/"))


def list_folder(path: Path) -> list[str]:
    """Relative paths, with slashes, of all files in a folder and the folders in it, sorted as strings.

    Links to folders are followed, but for those that lead to what is read anyway, or back up.
    """
    found: list[str] = []
    known = [os.path.realpath(path)]
    for folder, inside, names in os.walk(path, followlinks=True):
        here = os.path.realpath(folder)
        inside[:] = sorted(
            name for name in inside if not hidden(name) and _is_new(os.path.join(folder, name), here, known)
        )
        found += (Path(folder, name).relative_to(path).as_posix() for name in names if not hidden(name))
    return sorted(found)


def _is_new(folder: str, here: str, known: list[str]) -> bool:
    """Whether a folder is to be entered: it is no link, or one that leads to none of `known` and not back up."""
    if not os.path.islink(folder):
        return True
    real = os.path.realpath(folder)
    if _within(here, real) or any(_within(real, other) for other in known):
        return False
    known.append(real)
    return True


def _within(folder: str, other: str) -> bool:
    return os.path.commonpath([folder, other]) == other
