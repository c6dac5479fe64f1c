"""What tells two arrays apart: a hash over dtype, shape and bytes."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from typing_extensions import Buffer

__all__ = ["fingerprint", "fingerprint_of_blocks"]

_HASH_BLOCK = 1 << 24  # bytes hashed at a time, so that a memory-mapped array passes through memory in pieces


def fingerprint(array: np.ndarray) -> str:
    """16 hex digits that tell two data sets apart: blake2b over dtype, shape and bytes.

    The bytes are read in blocks, in C order, so a memory map larger than memory will do.

    Args:
        array: any numeric array (N, ...).

    Returns:
        16 hexadecimal digits.

    Example:
        >>> fingerprint(np.zeros((2, 3), np.float32)) == fingerprint(np.zeros((3, 2), np.float32))
        False
    """
    rows = max(1, _HASH_BLOCK // max(1, array[:1].nbytes))
    blocks = (np.ascontiguousarray(array[start : start + rows]).data for start in range(0, len(array), rows))
    return fingerprint_of_blocks(array.dtype, array.shape, blocks)


def fingerprint_of_blocks(dtype: np.dtype, shape: tuple[int, ...], blocks: Iterable[Buffer]) -> str:
    """The same for an array whose bytes, in C order, come in pieces of any size, e.g. read from a file.

    Args:
        dtype: of the array, native.
        shape: of the array.
        blocks: its bytes.

    Returns:
        16 hexadecimal digits.
    """
    digest = hashlib.blake2b(f"{dtype.newbyteorder('<').str} {shape}".encode(), digest_size=8)
    for block in blocks:
        digest.update(block)
    return digest.hexdigest()
