"""Images in a zip file or a folder, in the layout of EDM's dataset_tool (NVlabs/edm) or in any other.

EDM's layout is stored PNGs in numbered folders, `00000/img00000000.png`, beside a `dataset.json` with the labels. The
images are taken in the order of their names compared as strings, as EDM does, so index i means the same image here.
Folders are not classes (FFHQ's are shards): labels are read from `dataset.json`, also of a folder inside, unless
`labels="folders"` asks for the folders. Folders that are joined, shards apart, and files left out are said in a line.
"""

from __future__ import annotations

import os
import re
import stat
import zipfile
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import IO, Any

import numpy as np

from . import store
from .dataset import Dataset
from .folders import hidden, list_folder
from .labels import FILE, files_of_labels, folder_labels, read_labels
from .notes import joined, left_out, tell
from .pictures import LARGEST_FILE, LATER, Encoded, check_resolution, decode_images, encoded_of, is_picture
from .store import Block, Decoding
from .values import ValueRange, limits_of

__all__ = [
    "file_in",
    "largest_labels",
    "member_of",
    "open_member",
    "open_zip",
    "read_file",
    "read_folder",
    "read_zip",
    "stamp_in",
]

OWN = "the user's own data, terms unknown"
Labels = str | bool | None
"""None: those of dataset.json; "folders": the folders; False: none."""
_DEFLATE = 1032
"""The most that deflate can shrink anything."""
_LEAVES = re.compile(r"(^|/)\.\.(/|$)|^/|^[A-Za-z]:")


def read_zip(
    path: Path,
    *,
    resolution: int | None = None,
    labels: Labels = None,
    value_range: ValueRange = None,
    skip_unreadable: bool = False,
    progress: bool = True,
) -> Dataset:
    """Images of a zip file, ZIP64 included; `__MACOSX`, `._*`, other hidden files and non-images are skipped.

    Args:
        path: the zip file.
        resolution: crop the centre square of every image and resize it (Lanczos) to so many pixels.
        labels: None reads `dataset.json`; "folders" numbers the folders, at the first level at which they differ, in
            the order of their names; False carries none.
        value_range: the grey levels that become -1 and 1; None means (0, 255); "any" takes them as they are.
        skip_unreadable: whether images that cannot be read are left out, with a word; else they are refused.
        progress: whether a progress bar is drawn on stderr.

    Returns:
        uint8 (N, C, H, W), in the order of the member names as strings; float32 with a `value_range`.

    Raises:
        ValueError: if the zip is broken or holds no image, a name leads out of it or a size cannot be true, or an
            image is broken or of another size; it is named.
    """
    check_resolution(resolution)
    with open_zip(path) as archive:
        listed = archive.infolist()
    members = {info.filename: info for info in listed}
    again = _again(listed, path.name)
    names = sorted(name for name in members if is_picture(name))
    files = files_of_labels(members, names)
    own = _own_labels(labels)

    def decode() -> Decoding:
        if not names:
            raise ValueError(f"{path} holds no images")
        found = folder_labels(names)[0] if labels == "folders" else None
        if own and files:
            largest = largest_labels(len(names))
            with open_zip(path) as archive:
                texts = {name: member_of(archive, members[name], path, largest) for name in files}
            found = read_labels(texts, names, path.name)

        def items() -> Iterator[Encoded]:
            with open_zip(path) as archive:
                for name in names:
                    yield encoded_of(name, partial(member_of, archive, members[name], path, LARGEST_FILE))

        return _decoding(items, path.name, found, resolution, value_range, names, skip_unreadable)

    identity = {"kind": "zip", "file": store.stamp(path), "resolution": resolution}
    # Entries of earlier versions are found where these read the same, and only there.
    identity |= {"later": True} if _is_read_otherwise(members, files) else {}
    identity |= _asked(labels, value_range, skip_unreadable)
    options: dict[str, Any] = {"source": str(path.resolve()), "licence": OWN, "names": names, "progress": progress}
    data = store.build(path.name, identity, decode, **options, **_of_folders(names, path.name, labels))
    tell([*again, *_of_others(members, names, path.name)])
    return data


def read_folder(
    path: Path,
    *,
    resolution: int | None = None,
    labels: Labels = None,
    value_range: ValueRange = None,
    skip_unreadable: bool = False,
    progress: bool = True,
) -> Dataset:
    """Images of a folder and of all folders in it, linked ones too, hidden files skipped.

    Args:
        path: the folder.
        resolution: crop the centre square of every image and resize it (Lanczos) to so many pixels.
        labels: as in `read_zip`.
        value_range: as in `read_zip`.
        skip_unreadable: as in `read_zip`.
        progress: whether a progress bar is drawn on stderr.

    Returns:
        uint8 (N, C, H, W), in the order of the relative paths as strings; float32 with a `value_range`.

    Raises:
        ValueError: if there is no image, or an image is broken or of another size; it is named.
    """
    check_resolution(resolution)
    there = list_folder(path)
    names = [name for name in there if is_picture(name)]
    where = path.name or str(path)
    if not names:
        raise ValueError(" ".join([f"{path} holds no images;", *left_out(there, where)]).removesuffix(";"))
    files = files_of_labels(there, names)
    own = _own_labels(labels)
    listing = [[name, *stamp_in(path, name)[1:]] for name in [*names, *files]]

    def items() -> Iterator[Encoded]:
        for name in names:
            yield encoded_of(name, partial(file_in, path, name))

    def decode() -> Decoding:
        found = folder_labels(names)[0] if labels == "folders" else None
        if own and files:
            largest = largest_labels(len(names))
            found = read_labels({name: file_in(path, name, largest) for name in files}, names, where)
        return _decoding(items, where, found, resolution, value_range, names, skip_unreadable)

    identity = {"kind": "folder", "folder": os.path.abspath(path), "listing": listing, "resolution": resolution}
    identity |= _asked(labels, value_range, skip_unreadable)
    options: dict[str, Any] = {"source": str(path.resolve()), "licence": OWN, "names": names, "progress": progress}
    options |= _of_folders(names, where, labels)
    data = store.build(path.resolve().name or "folder", identity, decode, **options)
    tell(_of_others(there, names, where))
    return data


def _decoding(
    items: Callable[[], Iterator[Encoded]],
    where: str,
    labels: np.ndarray | None,
    resolution: int | None,
    value_range: ValueRange,
    names: list[str],
    skip: bool,
) -> Decoding:
    notes: list[str] = []
    called: list[str] = []

    def blocks() -> Iterator[Block]:
        kept: list[int] = []
        options: dict[str, Any] = {"value_range": value_range, "notes": notes, "skip": skip, "kept": kept}
        yield from decode_images(items, where, labels, resolution, **options)
        # Those of all are known without the entry.
        called.extend(names[place] for place in kept if skip)

    return Decoding(blocks(), len(names), notes, called)


def _own_labels(labels: Labels) -> bool:
    """Whether those of dataset.json are carried."""
    if labels is not None and labels is not False and labels != "folders":
        raise ValueError(f'labels must be "folders", False or None, got {labels!r}')
    return labels is None


def _asked(labels: Labels, value_range: ValueRange, skip: bool) -> dict[str, Any]:
    """What identities hold of options that are given."""
    asked: dict[str, Any] = {} if labels is None else {"labels": labels}
    asked |= {"skip_unreadable": True} if skip else {}
    return asked if value_range is None else asked | {"value_range": limits_of(value_range) or value_range}


def _is_read_otherwise(members: Iterable[str], files: list[str]) -> bool:
    """Whether versions before suffixes, `@eaDir` and labels of inner folders were known read a zip in another way."""
    names = [name.lower() for name in members]
    late = any(name.endswith(LATER) or "@eadir" in name or ("\\" in name and hidden(name)) for name in names)
    return late or any(name != FILE for name in files)


def _of_folders(names: list[str], where: str, labels: Labels) -> dict[str, Any]:
    """What their folders are to the images: classes, or what is said once of their being joined."""
    return {"classes": folder_labels(names)[1]} if labels == "folders" else {"first": joined(names, where)}


def _again(members: list[zipfile.ZipInfo], where: str) -> list[str]:
    """What is said of images that a zip holds more than once under one name."""
    names = [info.filename for info in members if is_picture(info.filename)]
    more = len(names) - len(set(names))
    return [f"{more} of the {len(names)} images of {where} have the name of a later one, which is read"] if more else []


def _of_others(there: Iterable[str], names: list[str], where: str) -> list[str]:
    """What is said of the files that are not read."""
    kept = set(names)
    return left_out([name for name in there if name not in kept and not hidden(name)], where)


def stamp_in(path: Path, name: str) -> list[Any]:
    """As `store.stamp`; of what is gone nothing, which reading will tell."""
    try:
        return store.stamp(path / name)
    except OSError:
        return []


def file_in(path: Path, name: str, largest: int = LARGEST_FILE) -> bytes:
    """As `read_file`, and a file that is gone is called so.

    Args:
        path: the folder.
        name: of the file in it.
        largest: number of bytes.
    """
    try:
        return read_file(path / name, largest)
    except FileNotFoundError as error:
        gone = "a link to a file that is gone" if (path / name).is_symlink() else f"not there: {error.strerror}"
        raise ValueError(f"{name} in {path} is {gone}") from error


def open_zip(path: Path, kind: str = "zip") -> zipfile.ZipFile:
    """A zip file opened for reading.

    Nothing is ever extracted; an archive with a name that leads out of it is refused all the same.

    Raises:
        ValueError: it is none, with what `kind` of file was expected, or has such a name.
    """
    try:
        archive = zipfile.ZipFile(path)
    except Exception as error:  # the directory's broken numbers lead to more than BadZipFile
        raise ValueError(f"{path} is not a readable {kind} file, perhaps truncated: {error}") from error
    for name in archive.namelist():
        if _LEAVES.search(name.replace("\\", "/")):
            archive.close()
            raise ValueError(f"{path} is refused: its member {name!r} leads out of the archive")
    return archive


def open_member(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> IO[bytes]:
    """A member opened for reading, its size checked against what is there: no memory is taken for a false claim.

    Raises:
        ValueError: the size cannot be true, or it is not stored or deflated: other methods have no such bound.
        Exception: whatever `zipfile` raises for a broken member.
    """
    where = f"{info.filename} in {Path(str(archive.filename)).name}"
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise ValueError(f"{where} must be stored or deflated, its method is {info.compress_type}")
    there = min(info.compress_size, os.stat(str(archive.filename)).st_size)
    most = there if info.compress_type == zipfile.ZIP_STORED else there * _DEFLATE
    if info.file_size > most:
        raise ValueError(f"{where} claims {info.file_size} bytes, but the {there} it is stored in hold at most {most}")
    return archive.open(info)


def member_of(archive: zipfile.ZipFile, info: zipfile.ZipInfo, path: Path, largest: int) -> bytes:
    """The bytes of a member, at most `largest`.

    Raises:
        ValueError: it claims more, or cannot be read; it is named.
    """
    if info.file_size > largest:
        raise ValueError(
            f"{info.filename} in {path.name} claims {info.file_size} bytes, more than the {largest} allowed"
        )
    try:
        with open_member(archive, info) as file:
            return file.read(info.file_size)  # without a size, up to 2 GB are inflated before they are cut
    except Exception as error:  # wrong checksum, encryption, unknown compression, truncation: each its own exception
        raise ValueError(f"{info.filename} in {path.name} cannot be read: {error}") from error


def read_file(path: Path, largest: int = LARGEST_FILE) -> bytes:
    """The bytes of a file, at most `largest`.

    Raises:
        ValueError: it has more, or is none that can be read.
    """
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise ValueError(f"{path} is no file that can be read: a pipe or device")
    if status.st_size > largest:
        raise ValueError(f"{path} has {status.st_size} bytes, more than the {largest} allowed")
    return path.read_bytes()


def largest_labels(count: int) -> int:
    """Bytes allowed for the labels of so many images: JSON takes up to 60 times its size in memory."""
    return (1 << 20) + count * (1 << 16)
