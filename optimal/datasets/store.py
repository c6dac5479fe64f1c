"""The on-disk store: images are decoded once, then memory-mapped.

One entry is one folder `<cache>/<name>-<key>/` with `array.npy` and `meta.json`, and where decoding found some
`labels.npy` and `names.npy`, UTF-8 with a 0 after each name.
The key is a hash of everything that decides the content: source, size, modification time, options, `VERSION`.
An entry is built under a temporary name and renamed as a whole when it is complete, so whatever stands under its final
name was finished: a build that is interrupted, even by SIGKILL, leaves only a temporary folder, which the next build
removes. Of several processes that want the same entry at once, one builds it and the others wait. Nothing is pickled.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..storage import (
    ArrayWriter,
    cache_folder,
    describe,
    is_full,
    lock_of,
    locked,
    made_once,
    open_entry,
    read_json,
    write_json,
)
from .dataset import Dataset
from .notes import tell

__all__ = ["Block", "Decoding", "build", "remember_fingerprint", "stamp"]

VERSION = 1  # raise it whenever a decoder changes what it writes: older entries are then no longer found


class Block(NamedTuple):
    """Consecutive points, (n, *event), uint8 or float32, with their labels or None."""

    points: np.ndarray
    labels: np.ndarray | None = None


class Decoding(NamedTuple):
    """A decode under way: its blocks in order, and how many points there will be (None if not known)."""

    blocks: Iterator[Block]
    total: int | None = None
    notes: list[str] | None = None
    """What is to be said of the data, filled by the time the last block is out."""
    names: list[str] | None = None
    """What the points are called, filled as well; left empty where they have no names."""
    classes: list[str] | None = None
    """What the classes 0, 1, … are called, filled as well."""


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
    names: Sequence[str] | None = None,
    classes: Sequence[str] | None = None,
    first: Sequence[str] = (),
    progress: bool = True,
) -> Dataset:
    """The entry for `identity`, decoded now if it is not there yet or is damaged.

    Args:
        name: name of the data set.
        identity: whatever decides the content, as JSON values; equal identities share an entry.
        decode: called only if the entry has to be built.
        source: where the data comes from, for people.
        licence: its terms.
        names: of the points, in their order, where they are known before; not kept in the entry.
        classes: the names of the classes 0, 1, …, as those of points.
        first: what is said of the data once, when they are decoded, and not whenever they are used.
        progress: whether a progress bar is drawn on stderr while decoding.

    Returns:
        The data set, its array a memory map of the entry.

    Raises:
        ValueError: if there is no point at all, or the disk is full; and whatever `decode` raises. Nothing is kept.
    """
    folder = cache_folder()
    made = list[str]()

    def make(building: Path) -> None:
        made.extend(first)
        decoding = decode()
        prints = _write(building, name, decoding, progress)
        about = {"name": name, "source": source, "licence": licence, "fingerprint": prints["array"]}
        about |= {"notes": decoding.notes} if decoding.notes else {}
        about |= {"classes": decoding.classes} if decoding.classes else {}
        describe(building, prints, about)

    try:
        entry = folder / _entry_name(name, identity)
        array, labels, array_print, notes, called, found = made_once(entry, _open, make, f"decoding {name}")
    except OSError as error:
        if is_full(error):
            raise ValueError(_no_room(name, folder, error)) from error
        raise
    tell([*made, *notes])
    known = called if called is not None else None if names is None else tuple(names)
    classes = found or classes
    return Dataset(name, array, labels, licence, source, array_print, known, tuple(classes) if classes else None)


def _no_room(name: str, folder: Path, error: OSError) -> str:
    return (
        f"{name} could not be kept in the cache folder {folder}: {error.strerror}; "
        "make room, or set OPTIMAL_CACHE to a folder that has it"
    )


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
    known = _known(path)
    if known is None:
        with locked(lock_of(path), f"reading {name}"):
            known = _known(path)
            if known is None:
                known = compute()
                try:
                    write_json(path, {"name": name, "fingerprint": known})
                except OSError as error:
                    if not is_full(error):
                        raise
                    text = _no_room(f"the fingerprint of {name}", path.parent, error)
                    warnings.warn(text, RuntimeWarning, stacklevel=4)
    return known


def _known(path: Path) -> str | None:
    found = str((read_json(path) or {}).get("fingerprint"))
    return found if re.fullmatch("[0-9a-f]{16}", found) else None


def _entry_name(name: str, identity: Mapping[str, Any]) -> str:
    text = json.dumps([VERSION, name, dict(identity)], sort_keys=True)
    key = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=10).hexdigest()
    return f"{re.sub(r'[^A-Za-z0-9_.-]+', '_', name)[:60].lstrip('.') or 'data'}-{key}"


def _write(building: Path, name: str, decoding: Decoding, progress: bool) -> dict[str, str]:
    """Stream the blocks into `array.npy` (and `labels.npy`); the fingerprints."""
    from tqdm import tqdm

    labels: list[np.ndarray] = []
    prints: dict[str, str] = {}
    with (
        ArrayWriter(building / "array.npy") as array,
        tqdm(total=decoding.total, desc=f"decoding {name}", unit="", file=sys.stderr, disable=not progress) as bar,
    ):
        for points, block_labels in decoding.blocks:
            array.append(points)
            if block_labels is not None:
                labels.append(block_labels)
            bar.update(len(points))
        bar.total = array.count  # a decoder may drop points, as duplicates
        bar.refresh()
        if array.count == 0:
            raise ValueError(f"{name} is empty: a data set needs at least one point")
        prints["array"] = array.finish()
    if labels:
        with ArrayWriter(building / "labels.npy") as file:
            file.append(np.concatenate(labels))
            prints["labels"] = file.finish()
    if decoding.names:
        assert len(decoding.names) == array.count
        text = "".join(name.replace("\0", " ") + "\0" for name in decoding.names)
        with ArrayWriter(building / "names.npy") as file:
            file.append(np.frombuffer(text.encode("utf-8", "surrogatepass"), np.uint8))
            prints["names"] = file.finish()
    return prints


_Opened = tuple[np.ndarray, np.ndarray | None, str, list[str], tuple[str, ...] | None, list[str]]


def _open(entry: Path) -> _Opened | None:
    """What an entry holds, names of points and of classes last, or None if it is missing or damaged in any way."""
    found = open_entry(entry, loaded=("labels", "names"))
    if found is None or "array" not in found.arrays:
        return None
    array, labels = found.arrays["array"], found.arrays.get("labels")
    print_ = found.meta.get("fingerprint")
    if not isinstance(print_, str) or (labels is not None and (labels.ndim == 0 or len(labels) != len(array))):
        return None
    notes, classes = (_texts(found.meta.get(key)) for key in ("notes", "classes"))
    names = None
    if "names" in found.arrays:
        names = tuple(found.arrays["names"].tobytes().decode("utf-8", "surrogatepass").split("\0")[:-1])
        if len(names) != len(array):
            return None
    return array, labels, print_, notes, names, classes


def _texts(value: Any) -> list[str]:
    return [str(text) for text in value] if isinstance(value, list) else []
