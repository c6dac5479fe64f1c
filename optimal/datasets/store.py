"""The on-disk store: images are decoded once, then memory-mapped.

One entry is one folder `<cache>/<name>-<key>/` with `array.npy`, `labels.npy` where there are labels, and `meta.json`.
The key is a hash of everything that decides the content: source, size, modification time, options, `VERSION`.
An entry is built under a temporary name and renamed as a whole when it is complete, so whatever stands under its final
name was finished: a build that is interrupted, even by SIGKILL, leaves only a temporary folder, which the next build
removes. Of two processes that build the same entry at once, the second to finish discards its own. Nothing is pickled.
"""

from __future__ import annotations

import atexit
import functools
import hashlib
import json
import os
import platform
import re
import shutil
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from .dataset import Dataset, fingerprint, fingerprint_of_blocks

__all__ = ["Block", "Decoding", "build", "cache_folder", "remember_fingerprint", "stamp"]

VERSION = 1  # raise it whenever a decoder changes what it writes: older entries are then no longer found
_BUILDING = ".building-"
_READ_BLOCK = 1 << 24  # bytes
_ABANDONED = 24 * 3600  # seconds without a write after which a build whose process cannot be asked counts as dead


class Block(NamedTuple):
    """Consecutive points, (n, *event), uint8 or float32, with their labels or None."""

    points: np.ndarray
    labels: np.ndarray | None = None


class Decoding(NamedTuple):
    """A decode under way: its blocks in order, and how many points there will be (None if not known)."""

    blocks: Iterator[Block]
    total: int | None = None


def cache_folder() -> Path:
    """The folder that holds the entries: `OPTIMAL_CACHE` if set, otherwise the user's cache folder.

    If it cannot be written to, a warning is given and a temporary folder serves until the process ends.
    """
    import platformdirs

    chosen = os.environ.get("OPTIMAL_CACHE")
    folder = Path(chosen).expanduser() if chosen else Path(platformdirs.user_cache_dir("optimal-diffusion"))
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        return _fallback(str(folder), str(error))
    return folder


def stamp(path: Path) -> list[Any]:
    """What identifies a file without reading it: absolute path, size in bytes, modification time in ns."""
    status = path.stat()
    return [os.path.abspath(path), status.st_size, status.st_mtime_ns]


def build(
    name: str,
    identity: Mapping[str, Any],
    decode: Callable[[], Decoding],
    *,
    source: str,
    licence: str,
    progress: bool = True,
) -> Dataset:
    """The entry for `identity`, decoded now if it is not there yet or is damaged.

    Args:
        name: name of the data set.
        identity: whatever decides the content, as JSON values; equal identities share an entry.
        decode: called only if the entry has to be built.
        source: where the data comes from, for people.
        licence: its terms.
        progress: whether a progress bar is drawn on stderr while decoding.

    Returns:
        The data set, its array a memory map of the entry.

    Raises:
        ValueError: if there is no point at all; and whatever `decode` raises. Nothing is kept then.
    """
    folder = cache_folder()
    entry = folder / _entry_name(name, identity)
    found = _open(entry)
    if found is None:
        _remove_abandoned(folder)
        building = _temporary_folder(folder)
        try:
            array_print = _write(building, name, decode(), progress)
            meta = {"name": name, "source": source, "licence": licence, "fingerprint": array_print, **_sizes(building)}
            _write_json(building / "meta.json", meta)
            found = _commit(building, entry)
        finally:
            shutil.rmtree(building, ignore_errors=True)
    array, labels, array_print = found
    return Dataset(name, array, labels, licence, source, array_print)


def remember_fingerprint(name: str, identity: Mapping[str, Any], compute: Callable[[], str]) -> str:
    """The fingerprint of a file that is used in place: computed once, then read from the cache.

    Args:
        name: name of the data set.
        identity: whatever decides the content, as JSON values.
        compute: called if it is not known yet; may check the content, and what it raises passes through.

    Returns:
        16 hexadecimal digits.
    """
    path = cache_folder() / f"{_entry_name(name, identity)}.json"
    known = str((_read_json(path) or {}).get("fingerprint"))
    if not re.fullmatch("[0-9a-f]{16}", known):
        known = compute()
        _write_json(path, {"name": name, "fingerprint": known})
    return known


@functools.cache
def _fallback(folder: str, reason: str) -> Path:
    warnings.warn(
        f"the cache folder {folder} cannot be written to ({reason}), so decoded data is kept in a temporary folder and "
        "lost at exit; set OPTIMAL_CACHE to a folder that can be written to",
        RuntimeWarning,
        stacklevel=4,
    )
    temporary = tempfile.mkdtemp(prefix="optimal-")
    atexit.register(shutil.rmtree, temporary, ignore_errors=True)
    return Path(temporary)


def _entry_name(name: str, identity: Mapping[str, Any]) -> str:
    text = json.dumps([VERSION, name, dict(identity)], sort_keys=True)
    key = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=10).hexdigest()
    return f"{re.sub(r'[^A-Za-z0-9_.-]+', '_', name)[:60].lstrip('.') or 'data'}-{key}"


def _write(building: Path, name: str, decoding: Decoding, progress: bool) -> str:
    """Stream the blocks into `array.npy` (and `labels.npy`); the array's fingerprint."""
    from tqdm import tqdm

    labels: list[np.ndarray] = []
    count, event, dtype, body = 0, None, np.dtype(np.uint8), 0
    path = building / "array.npy"
    with (
        path.open("w+b") as file,
        tqdm(total=decoding.total, desc=f"decoding {name}", unit="", file=sys.stderr, disable=not progress) as bar,
    ):
        for points, block_labels in decoding.blocks:
            if event is None:
                event, dtype = points.shape[1:], points.dtype
                body = _write_header(file, (0, *event), dtype)
            assert (points.shape[1:], points.dtype) == (event, dtype)
            file.write(np.ascontiguousarray(points).data)
            count += len(points)
            if block_labels is not None:
                labels.append(block_labels)
            bar.update(len(points))
        bar.total = count  # a decoder may drop points, as duplicates
        bar.refresh()
        if event is None or count == 0:
            raise ValueError(f"{name} is empty: a data set needs at least one point")
        # N is known only now; numpy pads the header so that the first axis can grow in place
        file.seek(0)
        end = _write_header(file, (count, *event), dtype)
        assert end == body
        file.flush()
        os.fsync(file.fileno())
        # read back rather than mapped: the pages of a map would count as this process's memory
        array_print = fingerprint_of_blocks(dtype, (count, *event), iter(lambda: file.read(_READ_BLOCK), b""))
    if labels:
        np.save(building / "labels.npy", np.concatenate(labels), allow_pickle=False)
    return array_print


def _write_header(file: Any, shape: tuple[int, ...], dtype: np.dtype) -> int:
    header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, header)
    return file.tell()


def _commit(building: Path, entry: Path) -> tuple[np.ndarray, np.ndarray | None, str]:
    """Put the finished entry in its place; if a sound one is there already, take that."""
    while (found := _open(entry)) is None:
        if entry.exists():
            # a damaged entry is moved aside as a whole rather than emptied in place, so no one ever sees half of it
            aside = _temporary_folder(entry.parent)
            try:
                os.replace(entry, aside / "damaged")
            finally:
                shutil.rmtree(aside, ignore_errors=True)
        try:
            os.replace(building, entry)
        except OSError:
            if not entry.exists():  # otherwise another process was faster, and its entry is looked at next
                raise
    return found


def _temporary_folder(folder: Path) -> Path:
    return Path(tempfile.mkdtemp(prefix=f"{_BUILDING}{platform.node()}-{os.getpid()}-", dir=folder))


def _sizes(folder: Path) -> dict[str, Any]:
    return {"files": {path.name: [path.stat().st_size, path.stat().st_mtime_ns] for path in folder.glob("*.npy")}}


def _open(entry: Path) -> tuple[np.ndarray, np.ndarray | None, str] | None:
    """Array, labels and fingerprint of an entry, or None if it is missing or damaged in any way."""
    meta = _read_json(entry / "meta.json")
    try:
        if meta is None:
            return None
        now = _sizes(entry)["files"]
        if {name: size for name, (size, _) in now.items()} != {name: size for name, (size, _) in meta["files"].items()}:
            return None
        array = np.load(entry / "array.npy", mmap_mode="r", allow_pickle=False)
        labels = np.load(entry / "labels.npy", allow_pickle=False) if "labels.npy" in now else None
        if now != meta["files"]:  # touched since it was written, by a copy or by damage: the content decides
            if fingerprint(array) != meta["fingerprint"]:
                return None
            _write_json(entry / "meta.json", {**meta, "files": now})
        if labels is not None and len(labels) != len(array):
            return None
        return array, labels, str(meta["fingerprint"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError, EOFError):
        return None


def _read_json(path: Path) -> dict[str, Any] | None:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return value if isinstance(value, dict) else None


def _write_json(path: Path, value: Mapping[str, Any]) -> None:
    handle, temporary = tempfile.mkstemp(prefix=f"{_BUILDING}{platform.node()}-{os.getpid()}-", dir=path.parent)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            json.dump(dict(value), file, indent=1)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        Path(temporary).unlink(missing_ok=True)


def _remove_abandoned(folder: Path) -> None:
    """Delete what builds that are no longer running have left behind; a build in progress is left alone."""
    for path in folder.glob(f"{_BUILDING}*"):
        if _is_abandoned(path):
            shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)


def _is_abandoned(path: Path) -> bool:
    parts = re.fullmatch(rf"{re.escape(_BUILDING + platform.node())}-(\d+)-.*", path.name)
    if parts and os.name == "posix":
        try:
            os.kill(int(parts[1]), 0)
        except ProcessLookupError:
            return True
        except OSError:
            return False
        return False
    try:
        newest = max(part.stat().st_mtime for part in [path, *path.glob("*")])
    except (OSError, ValueError):
        return False
    return time.time() - newest > _ABANDONED
