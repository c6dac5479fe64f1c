"""Which points are copies of earlier ones: by a hash of their bytes, and every match compared in full."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from .rows import Rows

__all__ = ["first_copies"]

_BLOCK_BYTES = 8 * 2**20
_SEED = 20252
"""Of the multipliers. They only decide how many rows are compared in vain."""


def first_copies(rows: Rows) -> Tensor:
    """For every row the first one that equals it, (N,) int64, on the CPU.

    Exact: rows of equal hash, 64 bits, are compared value by value. −0 equals 0.
    """
    hashes = _hashes(rows)
    order = np.argsort(hashes, kind="stable")
    same = hashes[order][1:] == hashes[order][:-1]
    first = torch.arange(rows.size, dtype=torch.int64)
    starts = np.flatnonzero(np.diff(np.concatenate([[False], same, [False]]).astype(np.int8)) == 1)
    ends = np.flatnonzero(np.diff(np.concatenate([[False], same, [False]]).astype(np.int8)) == -1)
    for start, end in zip(starts, ends, strict=True):
        _settle(rows, torch.from_numpy(np.sort(order[start : end + 1])), first)
    return first


def _settle(rows: Rows, group: Tensor, first: Tensor) -> None:
    """Rows of one hash, in the order of the data: nearly always copies of the first of them."""
    while len(group) > 1:
        own = rows.exact(group[:1])
        differ = torch.zeros(len(group), dtype=torch.bool)
        size = max(1, _BLOCK_BYTES // (8 * rows.dim))
        for start in range(0, len(group), size):
            part = slice(start, start + size)
            differ[part] = (rows.exact(group[part]) != own).any(1).cpu()
        first[group[~differ]] = group[0]
        group = group[differ]


def _hashes(rows: Rows) -> np.ndarray:
    """(N,) int64: Σ_i m_i b_i of every row modulo 2⁶⁴, b its words of 8 bytes, m random and odd; then mixed."""
    itemsize = 1 if rows.dtype == torch.uint8 else 8
    words = -(-rows.dim * itemsize // 8)
    generator = np.random.default_rng(_SEED)
    multipliers = torch.from_numpy(generator.integers(-(2**63), 2**63 - 1, words, dtype=np.int64) | 1)
    out = torch.empty(rows.size, dtype=torch.int64)
    step = max(1, _BLOCK_BYTES // (8 * words))
    for start in range(0, rows.size, step):
        with rows.opened(slice(start, min(start + step, rows.size))) as block:
            # Adding 0 makes one zero of both.
            block = block.cpu().double() + 0.0 if itemsize == 8 else block.cpu()
            padded = block
            if words * 8 != rows.dim * itemsize:
                padded = torch.zeros(len(block), words * 8 // itemsize, dtype=block.dtype)
                padded[:, : rows.dim] = block
            values = padded.contiguous().view(torch.int64)
            # The high bits of a product depend on all bits below: they are brought down before the sum.
            products = values * multipliers
            out[start : start + len(block)] = products.bitwise_xor_(products >> 29).sum(1)
    return out.numpy()
