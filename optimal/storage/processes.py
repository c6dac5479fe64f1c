"""Several processes at once in one folder: who is still at work, and one at a time."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

__all__ = ["locked", "running"]

_PATIENCE = 5.0  # seconds that are waited without a word


@contextmanager
def locked(path: Path, doing: str) -> Iterator[bool]:
    """One process at a time behind the lock file `path`, which stays; the others wait, and say for what on stderr.

    The system takes the lock from a process that ends, however it ends. Where the system or the disk has no locks, or
    the file is another user's who shares it with nobody, nothing is waited for.

    Args:
        path: of the lock file; its folder is made.
        doing: what is done behind it, e.g. "decoding faces", for those who wait.

    Yields:
        Whether the lock is held.
    """
    lock = _acquired(path, doing)
    try:
        yield lock is not None
    finally:
        if lock is not None:
            lock.release()


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


def _acquired(path: Path, doing: str) -> FileLock | None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # The substitute for a disk without locks is a file that outlives its owner.
        lock = FileLock(path, fallback_to_soft=False)
        try:
            lock.acquire(timeout=_PATIENCE)
        except Timeout:
            sys.stderr.write(f"another process is {doing}: waiting for it (lock {path})\n")
            lock.acquire()
    except (OSError, NotImplementedError):
        return None
    return lock
