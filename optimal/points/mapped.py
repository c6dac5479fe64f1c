"""Arrays that lie in files: read ahead and given back in blocks, and saved by the name of their file."""

from __future__ import annotations

import mmap
from dataclasses import dataclass
from typing import Any

import numpy as np

__all__ = ["MappedFile", "Reference", "by_reference"]


class MappedFile:
    """A memory-mapped array whose pages are asked for before they are used, and given back after.

    Args:
        mapped: the map; first: offset of the array in it, in bytes; row: bytes of a row; size: rows.
    """

    def __init__(self, mapped: mmap.mmap, first: int, row: int, size: int):
        self._map, self._first, self._row, self._size = mapped, first, row, size

    @classmethod
    def of(cls, array: Any, memory: int) -> MappedFile | None:
        """None for an array that is no map of a file in C order, or is no larger than `memory`."""
        mapped = getattr(array, "_mmap", None)
        if not isinstance(mapped, mmap.mmap) or array.nbytes <= memory or not array.flags.c_contiguous:
            return None
        if array.mode == "c" or not hasattr(mmap, "MADV_DONTNEED"):
            # Pages of a private copy would lose what was written to them.
            return None
        return cls(mapped, _place(array, mapped), array.nbytes // len(array), len(array))

    def ahead(self, rows: slice) -> None:
        """Have the kernel read the block after this one."""
        self._advise(mmap.MADV_WILLNEED, rows.stop, 2 * rows.stop - rows.start)

    def release(self, rows: slice) -> None:
        """Take the block's pages from this process; in the page cache they stay."""
        self._advise(mmap.MADV_DONTNEED, rows.start, rows.stop)

    def _advise(self, advice: int, start: int, stop: int) -> None:
        stop = min(stop, self._size)
        begin = (self._first + start * self._row) // mmap.PAGESIZE * mmap.PAGESIZE
        end = self._first + stop * self._row
        if end > begin:
            self._map.madvise(advice, begin, end - begin)


@dataclass(frozen=True)
class Reference:
    """Where a memory-mapped array lies: what is pickled and copied in its place.

    Attributes:
        path: of the file; dtype, offset, shape, order: of the array in it.
    """

    path: str
    dtype: str
    offset: int
    shape: tuple[int, ...]
    order: str

    def open(self) -> np.memmap:
        """The array again, for reading."""
        order: Any = self.order
        return np.memmap(self.path, np.dtype(self.dtype), "r", self.offset, self.shape, order)


def by_reference(array: Any) -> Any:
    """What stands for `array` in a pickle: its place in a file if it is a map of one, else itself."""
    mapped = getattr(array, "_mmap", None)
    if not isinstance(mapped, mmap.mmap) or array.filename is None or array.mode == "c":
        return array
    if not (array.flags.c_contiguous or array.flags.f_contiguous):
        return array
    # A view keeps the offset of the array that it is of; numpy maps from the last page before that.
    begin = array.offset - array.offset % mmap.ALLOCATIONGRANULARITY
    order = "C" if array.flags.c_contiguous else "F"
    return Reference(str(array.filename), array.dtype.str, begin + _place(array, mapped), array.shape, order)


def _place(array: np.ndarray, mapped: mmap.mmap) -> int:
    """Where the array begins in its map, in bytes."""
    return array.__array_interface__["data"][0] - np.frombuffer(mapped, np.uint8).__array_interface__["data"][0]
