"""Images in a zip file or a folder, in the layout of EDM's dataset_tool (NVlabs/edm) or in any other.

EDM's layout is stored PNGs in numbered folders, `00000/img00000000.png`, beside a `dataset.json` with the labels. The
images are taken in the order of their names compared as strings, as EDM does, so index i means the same image here.
Folders are not classes (FFHQ's are shards): labels are read from `dataset.json` alone.
"""

from __future__ import annotations

import os
import zipfile
from collections.abc import Iterator
from pathlib import Path

from . import store
from .dataset import Dataset
from .pictures import LARGEST_FILE, Encoded, check_resolution, decode_images, is_picture, read_labels
from .store import Decoding

__all__ = ["list_folder", "open_zip", "read_folder", "read_zip"]

OWN = "the user's own data, terms unknown"
_LABELS = "dataset.json"
_LARGEST_LABELS = 1 << 30


def read_zip(path: Path, *, resolution: int | None = None, progress: bool = True) -> Dataset:
    """Images of a zip file, ZIP64 included; `__MACOSX`, `._*`, other hidden files and non-images are skipped.

    Args:
        path: the zip file.
        resolution: crop the centre square of every image and resize it (Lanczos) to so many pixels.
        progress: whether a progress bar is drawn on stderr.

    Returns:
        uint8 (N, C, H, W), in the order of the member names as strings.

    Raises:
        ValueError: if the zip is broken or holds no image, or an image is broken or of another size; it is named.
    """
    check_resolution(resolution)

    def decode() -> Decoding:
        with open_zip(path) as archive:
            members = {info.filename: info for info in archive.infolist()}
            names = sorted(name for name in members if is_picture(name))
            labels = None
            if _LABELS in members:
                labels = read_labels(_member(archive, members[_LABELS], path, _LARGEST_LABELS), names, path.name)
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
            labels = read_labels((path / _LABELS).read_bytes(), names, path.name)
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
    """A zip file opened for reading; ValueError, with what `kind` of file was expected, if it is none."""
    try:
        return zipfile.ZipFile(path)
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        raise ValueError(f"{path} is not a readable {kind} file, perhaps truncated: {error}") from error


def _member(archive: zipfile.ZipFile, info: zipfile.ZipInfo, path: Path, largest: int) -> bytes:
    if info.file_size > largest:
        raise ValueError(
            f"{info.filename} in {path.name} claims {info.file_size} bytes, more than the {largest} allowed"
        )
    try:
        return archive.read(info)
    except Exception as error:  # wrong checksum, encryption, unknown compression, truncation: each its own exception
        raise ValueError(f"{info.filename} in {path.name} cannot be read: {error}") from error


def _file(path: Path) -> bytes:
    size = path.stat().st_size
    if size > LARGEST_FILE:
        raise ValueError(f"{path} has {size} bytes, more than the {LARGEST_FILE} allowed")
    return path.read_bytes()
