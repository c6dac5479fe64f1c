"""Several processes at once in one folder: who is still at work, and one at a time."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

__all__ = ["locked", "running"]


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """One process at a time in a folder; the others wait. Ends with the process, however that ends.

    Where the system or the disk has no locks, nothing is waited for.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("a") as file:
        with suppress(ImportError, OSError):
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def running(pid: int) -> bool:
    """Whether a process of this machine is there and no zombie; where that cannot be told, it is taken to be."""
    if os.name != "posix":
        return True  # elsewhere signal 0 is no question
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:
        pass  # it is there, and another user's
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return True
