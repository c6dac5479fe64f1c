"""Which points are copies of earlier ones: by a hash of their bytes, and every match compared in full."""

from __future__ import annotations

import torch
from torch import Tensor

from ..randomness import fixed_generator
from .part import Part
from .rows import Rows

__all__ = ["first_copies"]

_BLOCK_BYTES = 8 * 2**20
_SOME = 16
"""Words of a row that are hashed first."""


def first_copies(rows: Rows | Part) -> Tensor:
    """For every row the first one that equals it, (N,) int64, on the CPU.

    Exact: rows of equal hash, 64 bits, are compared value by value. −0 equals 0. Some words of every row are hashed
    first, and all words only of rows that are alike in those.
    """
    first = torch.arange(rows.size, dtype=torch.int64, device="cpu")
    words = _words(rows)
    some = torch.randperm(words, generator=fixed_generator("fingerprint"), device="cpu")[:_SOME].sort().values
    groups = _alike(first, _hashes(rows, first, some))
    if words > _SOME and groups:
        alike = torch.cat(groups).sort().values
        groups = _alike(alike, _hashes(rows, alike, torch.arange(words, dtype=torch.int64, device="cpu")))
    for group in groups:
        _settle(rows, group, first)
    return first


def _alike(index: Tensor, hashes: Tensor) -> list[Tensor]:
    """The rows `index` in groups of two and more of one hash, each in the order of the data."""
    order = torch.argsort(hashes, stable=True)
    _, counts = hashes[order].unique_consecutive(return_counts=True)
    several = counts > 1
    return list(index[order[several.repeat_interleave(counts)]].split(counts[several].tolist()))


def _settle(rows: Rows | Part, group: Tensor, first: Tensor) -> None:
    """Rows of one hash, in the order of the data: nearly always copies of the first of them."""
    while len(group) > 1:
        own = rows.exact(group[:1])
        differ = torch.zeros(len(group), dtype=torch.bool, device="cpu")
        size = max(1, _BLOCK_BYTES // (8 * rows.dim))
        for start in range(0, len(group), size):
            part = slice(start, start + size)
            differ[part] = (rows.exact(group[part]) != own).any(1).cpu()
        first[group[~differ]] = group[0]
        group = group[differ]


def _words(rows: Rows | Part) -> int:
    """Words of 8 bytes in a row: floats are taken as float64."""
    return -(-rows.dim // 8) if rows.dtype == torch.uint8 else rows.dim


def _hashes(rows: Rows | Part, index: Tensor, words: Tensor) -> Tensor:
    """(n,) int64: Σ_i mixed(m_i b_i) of the rows `index` over some words b_i, modulo 2⁶⁴, m random and odd."""
    multipliers = torch.empty(len(words), dtype=torch.int64, device="cpu")
    multipliers.random_(-(2**63), None, generator=fixed_generator("fingerprint")).bitwise_or_(1)
    every, whole = len(index) == rows.size, len(words) == _words(rows)
    out = torch.empty(len(index), dtype=torch.int64, device="cpu")
    step = max(1, _BLOCK_BYTES // (8 * _words(rows)))
    for start in range(0, len(index), step):
        part = index[start : start + step]
        where = slice(start, start + len(part)) if every else part.to(rows.device)
        with rows.opened(where) as block:
            # The high bits of a product depend on all bits below: they are brought down before the sum.
            products = _as_words(block.cpu(), None if whole else words) * multipliers
            out[start : start + len(part)] = products.bitwise_xor_(products >> 29).sum(1)
    return out


def _as_words(block: Tensor, words: Tensor | None) -> Tensor:
    """(n, words) int64, some or all of the words."""
    if block.dtype != torch.uint8:
        chosen = block if words is None else block.index_select(1, words)
        # Adding 0 makes one zero of both.
        return (chosen.double() + 0.0).view(torch.int64)
    short = -block.shape[1] % 8
    padded = torch.nn.functional.pad(block, (0, short)) if short else block
    values = padded.contiguous().view(torch.int64)
    return values if words is None else values.index_select(1, words)
