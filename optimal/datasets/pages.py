"""How large the pages of a parquet file are: Arrow decodes whole pages, so this is the memory that reading takes.

    page = header, data        header = 15 type  15 size  15 size as stored  …

the three fields being whole numbers in thrift's compact form. A writer looks how large a page has become after some
1,024 values, so one of images of 3 MB may have 3 GB. The first pages of a chunk are looked at, that of a dictionary
and that of values; later ones have as many values, or fewer.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from ..devices import main_memory

__all__ = ["large_pages", "largest_page"]

_HEADER = 64
_WORTH_A_WORD = 1 << 30
_WHOLE = 0x15
"""Of a field's header: the next field, a whole number of 32 bits."""


def large_pages(file: Path, metadata: Any, column: str) -> list[str]:
    """What is said of pages that take more than 1 GB of memory.

    Args:
        file: the file.
        metadata: pyarrow's.
        column: of the images.

    Raises:
        ValueError: if one takes more than this machine has.
    """
    size = largest_page(file, metadata, column)
    if size < _WORTH_A_WORD:
        return []
    advice = "written again with row_group_size=100 it takes less"
    said = f"{file.name} has pages of images that take {size / 2**30:.1f} GB of memory, since each is decoded whole"
    there = main_memory()
    if there is not None and size > there:
        raise ValueError(f"{said}, and this machine has {there / 2**30:.1f} GB; {advice}")
    return [f"{said}; {advice}"]


def largest_page(file: Path, metadata: Any, column: str) -> int:
    """Bytes that decoding takes for the largest of the first pages: as stored, and as they are; 0 if not known.

    Args:
        file: the file.
        metadata: pyarrow's.
        column: of the images, with all that is in it.
    """
    starts: list[tuple[int, int]] = []
    for group in map(metadata.row_group, range(metadata.num_row_groups)):
        for chunk in map(group.column, range(group.num_columns)):
            if chunk.path_in_schema.split(".")[0] == column:
                most = chunk.total_compressed_size + chunk.total_uncompressed_size
                starts += [(start, most) for start in (chunk.dictionary_page_offset, chunk.data_page_offset) if start]
    length = os.stat(file).st_size
    largest = 0
    with file.open("rb") as opened:
        for start, most in starts:
            if not 0 < start < length:  # a broken number in the metadata: reading will say what is wrong
                continue
            opened.seek(start)
            largest = max(largest, min(most, _page(opened.read(_HEADER))))
    return largest


def _page(header: bytes) -> int:
    """The two sizes of a page together; 0 where its header is broken."""
    at, fields = 0, list[int]()
    try:
        for _ in range(3):
            if header[at] != _WHOLE:
                return 0
            value, shift, at = 0, 0, at + 1
            while True:
                value, shift, at = value | (header[at] & 0x7F) << shift, shift + 7, at + 1
                if header[at - 1] < 0x80:
                    break
            fields.append(value >> 1)  # zigzag: none of them is negative
    except IndexError:
        return 0
    return fields[1] + fields[2]
