"""Images in a zip file or a folder, in the layout of EDM's dataset_tool (NVlabs/edm) or in any other.

EDM's layout is stored PNGs in numbered folders, `00000/img00000000.png`, beside a `dataset.json` with the labels. The
images are taken in the order of their names compared as strings, as EDM does, so index i means the same image here.
Folders are not classes (FFHQ's are shards): labels are read from `dataset.json` alone.
"""

from __future__ import annotations

import os
import re
import stat
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from . import store
from .dataset import Dataset
from .pictures import LARGEST_FILE, Encoded, check_resolution, decode_images, is_picture, read_labels
from .store import Decoding

__all__ = ["list_folder", "open_member", "open_zip", "read_folder", "read_zip"]

OWN = "the user's own data, terms unknown"
_LABELS = "dataset.json"
_DEFLATE = 1032
"""The most that deflate can shrink anything."""
_LEAVES = re.compile(r"(^|/)\.\.(/|$)|^/|^[A-Za-z]:")


def read_zip(path: Path, *, resolution: int | None = None, progress: bool = True) -> Dataset:
    """Images of a zip file, ZIP64 included; `__MACOSX`, `._*`, other hidden files and non-images are skipped.

    Args:
        path: the zip file.
        resolution: crop the centre square of every image and resize it (Lanczos) to so many pixels.
        progress: whether a progress bar is drawn on stderr.

    Returns:
        uint8 (N, C, H, W), in the order of the member names as strings.

    Raises:
        ValueError: if the zip is broken or holds no image, a name leads out of it or a size cannot be true, or an
            image is broken or of another size; it is named.
    """
    check_resolution(resolution)

    def decode() -> Decoding:
        with open_zip(path) as archive:
            members = {info.filename: info for info in archive.infolist()}
            names = sorted(name for name in members if is_picture(name))
            labels = None
            if _LABELS in members:
                largest = _largest_labels(len(names))
                labels = read_labels(_member(archive, members[_LABELS], path, largest), names, path.name)
        if not names:
            raise ValueError(f"{path} holds no images")

        def items() -> Iterator[Encoded]:
            with open_zip(path) as archive:
                for name in names:
                    yield Encoded(name, _member(archive, members[name], path, LARGEST_FILE))

        return Decoding(decode_images(items, path.name, labels, resolution), len(names))

    identity = {"kind": "zip", "file": store.stamp(path), "resolution": resolution}
    return store.build(path.name, identity, decode, source=str(path.resolve()), licence=OWN, progress=progress)


def read_folder(path: Path, *, resolution: int | None = None, progress: bool = True) -> Dataset:
    """Images of a folder and of all folders in it, links to folders not followed, hidden files skipped.

    Args:
        path: the folder.
        resolution: crop the centre square of every image and resize it (Lanczos) to so many pixels.
        progress: whether a progress bar is drawn on stderr.

    Returns:
        uint8 (N, C, H, W), in the order of the relative paths as strings.

    Raises:
        ValueError: if there is no image, or an image is broken or of another size; it is named.
    """
    check_resolution(resolution)
    names = [name for name in list_folder(path) if is_picture(name)]
    if not names:
        raise ValueError(f"{path} holds no images")
    listing = [[name, *store.stamp(path / name)[1:]] for name in names]
    if (path / _LABELS).is_file():
        listing.append([_LABELS, *store.stamp(path / _LABELS)[1:]])

    def items() -> Iterator[Encoded]:
        for name in names:
            yield Encoded(name, _file(path / name))

    def decode() -> Decoding:
        labels = None
        if (path / _LABELS).is_file():
            labels = read_labels(_file(path / _LABELS, _largest_labels(len(names))), names, path.name)
        return Decoding(decode_images(items, path.name or str(path), labels, resolution), len(names))

    identity = {"kind": "folder", "folder": os.path.abspath(path), "listing": listing, "resolution": resolution}
    name = path.resolve().name or "folder"
    return store.build(name, identity, decode, source=str(path.resolve()), licence=OWN, progress=progress)


def list_folder(path: Path) -> list[str]:
    """Relative paths, with slashes, of all files in a folder and the folders in it, sorted as strings."""
    return sorted(
        Path(folder, name).relative_to(path).as_posix() for folder, _, names in os.walk(path) for name in names
    )


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


def _member(archive: zipfile.ZipFile, info: zipfile.ZipInfo, path: Path, largest: int) -> bytes:
    if info.file_size > largest:
        raise ValueError(
            f"{info.filename} in {path.name} claims {info.file_size} bytes, more than the {largest} allowed"
        )
    try:
        with open_member(archive, info) as file:
            return file.read(info.file_size)  # without a size, up to 2 GB are inflated before they are cut
    except Exception as error:  # wrong checksum, encryption, unknown compression, truncation: each its own exception
        raise ValueError(f"{info.filename} in {path.name} cannot be read: {error}") from error


def _file(path: Path, largest: int = LARGEST_FILE) -> bytes:
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise ValueError(f"{path} is no file that can be read: a pipe or device")
    if status.st_size > largest:
        raise ValueError(f"{path} has {status.st_size} bytes, more than the {largest} allowed")
    return path.read_bytes()


def _largest_labels(count: int) -> int:
    """Bytes allowed for the labels of so many images: JSON takes up to 60 times its size in memory."""
    return (1 << 20) + count * (1 << 16)
