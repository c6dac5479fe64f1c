"""Entries of the cache: one folder with `*.npy` files, and `meta.json` with what is needed to trust them.

An entry is built under a temporary name and renamed as a whole, by one process while others that want it wait
(`made_once`). It is opened if the sizes and modification times of
its files are those that `meta.json` tells; where a time differs, by a copy or by damage, the fingerprints decide.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np

from .atomic import remove_abandoned, replacing, temporary_folder
from .fingerprints import fingerprint, fingerprint_of_blocks
from .processes import locked

__all__ = [
    "ArrayWriter",
    "Entry",
    "commit",
    "describe",
    "is_full",
    "lock_of",
    "made_once",
    "open_entry",
    "read_json",
    "write_json",
]

_READ_BLOCK = 1 << 24  # bytes
T = TypeVar("T")


class Entry(NamedTuple):
    """The arrays of an entry by name, memory-mapped, and its `meta.json`."""

    arrays: dict[str, np.ndarray]
    meta: dict[str, Any]


class ArrayWriter:
    """An `.npy` file that grows by blocks of rows.

    The blocks are written rather than mapped: on a full disk a map ends the process with SIGBUS, a write raises.
    """

    def __init__(self, path: Path) -> None:
        self._file = path.open("w+b")
        self._dtype, self._event, self._body = np.dtype(np.uint8), None, 0
        self.count = 0

    def append(self, rows: np.ndarray) -> None:
        """Add rows, (n, *event), all of one event and dtype."""
        if self._event is None:
            self._dtype, self._event = rows.dtype, rows.shape[1:]
            self._body = self._header(0)
        assert (rows.shape[1:], rows.dtype) == (self._event, self._dtype)
        self._file.write(np.ascontiguousarray(rows).data)
        self.count += len(rows)

    def finish(self) -> str:
        """Write the number of rows, at least one, and flush to disk; the fingerprint of the array."""
        assert self._event is not None
        # N is known only now; numpy pads the header so that the first axis can grow in place
        self._file.seek(0)
        end = self._header(self.count)
        assert end == self._body
        self._file.flush()
        os.fsync(self._file.fileno())
        # read back rather than mapped: the pages of a map would count as this process's memory
        blocks = iter(lambda: self._file.read(_READ_BLOCK), b"")
        return fingerprint_of_blocks(self._dtype, (self.count, *self._event), blocks)

    def __enter__(self) -> ArrayWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            self._file.close()
        except OSError:
            # On a full disk closing flushes again, and would hide the first error.
            if kind is None:
                raise

    def _header(self, count: int) -> int:
        assert self._event is not None
        descr = np.lib.format.dtype_to_descr(self._dtype)
        header = {"descr": descr, "fortran_order": False, "shape": (count, *self._event)}
        np.lib.format.write_array_header_1_0(self._file, header)
        return self._file.tell()


def describe(folder: Path, fingerprints: Mapping[str, str], about: Mapping[str, Any]) -> None:
    """Write `meta.json`: the last file of an entry."""
    write_json(folder / "meta.json", {**about, "fingerprints": dict(fingerprints), "files": _files(folder)})


def open_entry(folder: Path, mode: str = "r", loaded: Iterable[str] = ()) -> Entry | None:
    """An entry, or None if it is missing or damaged in any way.

    Args:
        folder: of the entry.
        mode: of the memory maps, "r" or "c".
        loaded: names of the arrays that are read into memory instead.
    """
    meta = read_json(folder / "meta.json")
    try:
        if meta is None:
            return None
        now = _files(folder)
        if {name: size for name, (size, _) in now.items()} != {name: size for name, (size, _) in meta["files"].items()}:
            return None
        arrays = {
            name.removesuffix(".npy"): np.load(
                folder / name,
                mmap_mode=None if name.removesuffix(".npy") in loaded else mode,  # pyright: ignore[reportArgumentType]
                allow_pickle=False,
            )
            for name in now
        }
        if now != meta["files"]:  # touched since it was written: the content decides
            # entries of the first version know the fingerprint of `array` alone
            known = meta.get("fingerprints") or {"array": meta["fingerprint"]}
            if any(fingerprint(array) != known.get(name) for name, array in arrays.items()):
                return None
            with suppress(OSError):  # another user's entry, or a full disk, is as good
                write_json(folder / "meta.json", {**meta, "files": now})
        return Entry(arrays, meta)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, EOFError):
        return None


def made_once(entry: Path, opened: Callable[[Path], T | None], make: Callable[[Path], None], doing: str) -> T:
    """An entry, made now if it is not there or damaged: by one process, while others that want it wait for it.

    Args:
        entry: its folder.
        opened: reads it; None if it is missing or damaged.
        make: writes arrays and `meta.json` (`describe`) into the folder that it is given.
        doing: what `make` does, e.g. "decoding faces", for those who wait.

    Returns:
        What `opened` gives.

    Raises:
        OSError: it cannot be written, or it is there and may not be read; and whatever `make` raises. Nothing is kept.
    """
    found = opened(entry)
    if found is not None:
        return found
    with locked(lock_of(entry), doing):
        found = opened(entry)
        if found is not None:
            return found
        if entry.exists() and not os.access(entry, os.R_OK | os.X_OK):
            advice = (
                "it may not be read: have its owner run chmod -R g+rX on it, or set OPTIMAL_CACHE to another folder"
            )
            raise PermissionError(errno.EACCES, advice, str(entry))
        remove_abandoned(entry.parent)
        building = temporary_folder(entry.parent)
        try:
            make(building)
            return commit(building, entry, opened)
        finally:
            shutil.rmtree(building, ignore_errors=True)


def lock_of(entry: Path) -> Path:
    """The lock file of an entry, or of a file: beside it, since what is renamed cannot hold its own lock."""
    return entry.parent / ".locks" / entry.name


def commit(building: Path, entry: Path, opened: Callable[[Path], T | None]) -> T:
    """Put the finished entry in its place; if one that `opened` finds sound is there already, take that."""
    while (found := opened(entry)) is None:
        if entry.exists():
            # a damaged entry is moved aside as a whole rather than emptied in place, so no one ever sees half of it
            aside = temporary_folder(entry.parent)
            try:
                os.replace(entry, aside / "damaged")
            except FileNotFoundError:
                pass  # another process did
            finally:
                shutil.rmtree(aside, ignore_errors=True)
        try:
            os.replace(building, entry)
        except OSError:
            if not entry.exists():  # otherwise another process was faster, and its entry is looked at next
                raise
    return found


def is_full(error: OSError) -> bool:
    """Whether a write failed for want of room; reading never does."""
    return error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def read_json(path: Path) -> dict[str, Any] | None:
    """The object of a JSON file, or None if there is none."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(dict(value), indent=1), encoding="utf-8")


def _files(folder: Path) -> dict[str, list[int]]:
    return {path.name: [path.stat().st_size, path.stat().st_mtime_ns] for path in folder.glob("*.npy")}
