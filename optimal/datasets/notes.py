"""What is said of data that are joined, left out, cut or turned on the way: one warning each, with numbers.

A line in a command line's stderr, a `UserWarning` in Python. What is found while decoding is kept in the entry of the
store and said again whenever the entry is used.
"""

from __future__ import annotations

import re
import warnings
from collections import Counter
from collections.abc import Iterable, Mapping

__all__ = ["counted", "folders_of", "joined", "left_out", "reason", "tell"]

_MOST = 8  # names in one line
_SHARD = re.compile(r"\d{3,}")
"""EDM's 00000, 00001 …: folders that only keep folders short."""
_DATA = re.compile(
    r"\.(png|jpe?g|jfif|jpe|bmp|gif|webp|tiff?|pgm|ppm|pbm|pnm|avif|jp2|jxl|heic|heif|tga|exr|hdr|psd|ico|dds|svg|dng|"
    r"cr2|nef|arw|raw|npy|npz|pt|pth|pkl|parquet|arrow|feather|zip|tar|tgz|gz|7z|h5|hdf5|mat|mp4|mov|avi|webm|dcm|nii)",
    re.IGNORECASE,
)
"""Suffixes of what may be meant as data; a LICENSE.txt is not."""


def tell(notes: Iterable[str]) -> None:
    """One warning each."""
    for note in notes:
        warnings.warn(note, UserWarning, stacklevel=5)


def counted(counts: Mapping[str, int]) -> str:
    """'train (50), test (10)', cut after a few.

    Example:
        >>> counted({"train": 50, "test": 10})
        'train (50), test (10)'
    """
    names = [f"{name} ({count})" for name, count in list(counts.items())[:_MOST]]
    return ", ".join(names) + (f" and {len(counts) - _MOST} more" if len(counts) > _MOST else "")


def groups(names: Iterable[str]) -> list[str]:
    """For each path the folder that it is in, at the first level at which they differ; "" for none.

    Example:
        >>> groups(["ffhq/train/a.png", "ffhq/train/0/b.png", "ffhq/test/c.png"])
        ['train', 'train', 'test']
    """
    folders = [name.replace("\\", "/").split("/")[:-1] for name in names]
    common = 0
    while folders and all(len(parts) > common and parts[common] == folders[0][common] for parts in folders):
        common += 1
    return [parts[common] if len(parts) > common else "" for parts in folders]


def folders_of(names: Iterable[str]) -> dict[str, int]:
    """How many of the paths are in each folder, at the first level at which they differ; of numbered shards nothing.

    Example:
        >>> folders_of(["train/a.png", "train/b.png", "test/a.png", "a.png"])
        {'none': 1, 'test/': 1, 'train/': 2}
    """
    counts = Counter(groups(names))
    if len(counts) < 2 or all(_SHARD.fullmatch(name) for name in counts):
        return {}
    return {(f"{name}/" if name else "none"): counts[name] for name in sorted(counts)}


def joined(names: Iterable[str], where: str) -> list[str]:
    """What is said where pictures of several folders become one data set."""
    counts = folders_of(names)
    if not counts:
        return []
    return [
        f"{where} joins the pictures of {len(counts)} folders: {counted(counts)}; "
        'labels="folders" makes the folders labels, the path of one takes it alone'
    ]


def left_out(names: Iterable[str], where: str) -> list[str]:
    """What is said of files that may be meant as data and are not read."""
    suffixes = Counter(name[name.rfind(".") :].lower() for name in names if "." in name)
    counts = {suffix: count for suffix, count in sorted(suffixes.items()) if _DATA.fullmatch(suffix)}
    if not counts:
        return []
    many = sum(counts.values())
    return [f"{many} {'file' if many == 1 else 'files'} of {where} left out: {counted(counts)}"]


def reason(error: Exception) -> str:
    """What an exception of a library says, on one line and without addresses in memory.

    Example:
        >>> reason(ValueError("cannot identify image file <_io.BytesIO object at 0x7f01>"))
        'cannot identify image file'
    """
    text = re.sub(r"\s*<[^<>]*\bat 0x[0-9a-fA-F]+>", "", str(error))
    return " ".join(text.split()) or type(error).__name__
