"""What a file is, by its first bytes: they, and not its suffix, decide who reads it, and what a refusal says."""

from __future__ import annotations

import gzip
import struct
import zlib
from pathlib import Path

__all__ = ["beginning", "is_gzipped", "named", "refuse_pointer"]

_LENGTH = 512
_POINTER = b"version https://git-lfs.github.com/spec/"
_BEGINNINGS: tuple[tuple[bytes, str], ...] = (
    (b"PK\x03\x04", "a zip file"),
    (b"PK\x05\x06", "an empty zip file"),
    (b"\x93NUMPY", "a npy array"),
    (b"PAR1", "a parquet file"),
    (b"ARROW1", "an Arrow file"),
    (b"\xff\xff\xff\xff", "an Arrow stream"),
    (struct.pack(">I", 0x803), "an idx file"),
    (struct.pack(">I", 0x801), "an idx file"),
    (b"\x1f\x8b", "a gzip file"),
    (b"BZh", "a bzip2 file"),
    (b"\xfd7zXZ", "an xz file"),
    (b"\x28\xb5\x2f\xfd", "a zstandard file"),
    (b"7z\xbc\xaf\x27\x1c", "a 7-zip file"),
    (b"Rar!", "a RAR file"),
    (b"\x89HDF", "an HDF5 file"),
    (b"MATLAB 5.0", "a MATLAB file"),
    (b"SQLite format 3", "an SQLite database"),
    (b"\x5c\x01\x00\x00", "a NIfTI volume"),
    (b"\x80\x02", "a pickle"),
    (b"\x80\x03", "a pickle"),
    (b"\x80\x04", "a pickle"),
    (b"\x80\x05", "a pickle"),
    (b"\x89PNG", "one PNG image"),
    (b"\xff\xd8\xff", "one JPEG image"),
    (b"GIF8", "one GIF image"),
    (b"II*\x00", "one TIFF image"),
    (b"MM\x00*", "one TIFF image"),
    (b"%PDF", "a PDF document"),
    (b"<!doctype html", "a web page"),
    (b"<html", "a web page"),
)


def beginning(path: Path) -> bytes:
    """The first bytes of a file; of a gzipped one those of what is in it, as far as they can be read."""
    with path.open("rb") as file:
        head = file.read(_LENGTH)
    if head[:2] != b"\x1f\x8b":
        return head
    try:
        with gzip.open(path, "rb") as inner:
            return inner.read(_LENGTH)
    except (OSError, EOFError, zlib.error):
        return b""


def is_gzipped(path: Path) -> bool:
    """Whether a file begins as gzip does."""
    with path.open("rb") as file:
        return file.read(2) == b"\x1f\x8b"


def named(head: bytes) -> str | None:
    """What begins so, in words, or None if that is not known.

    Example:
        >>> named(b"PAR1")
        'a parquet file'
    """
    if head[257:262] == b"ustar":
        return "a tar archive"
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "one WebP image"
    start = head.lstrip()[:20].lower()
    return next((name for mark, name in _BEGINNINGS if head.startswith(mark) or start.startswith(mark)), None)


def refuse_pointer(head: bytes, where: str) -> None:
    """Raise ValueError for what git-lfs leaves in the place of a file that was not fetched."""
    if head.startswith(_POINTER):
        raise ValueError(f"{where} is a git-lfs pointer, a note in place of the data: git lfs pull fetches them")
