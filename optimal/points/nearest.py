"""The data points nearest to a query: found by products, settled by differences.

With s_j = ½‖y_j − c‖² − z·(y_j − c) = ½‖z − (y_j − c)‖² − ½‖z‖², the nearest point has the smallest s_j. One pass of
float32 products bounds every s_j from both sides, by

    |s_j computed − s_j| <= γ'_{D+4} ‖z‖ ‖y_j − c‖ + γ_{D+3} ½‖y_j − c‖² + 4 ω' (D + √D (‖z‖ + ‖y_j − c‖)),

γ' and γ those of float32 and float64, ω' the smallest normal number of float32 (`optimal.points.rounding`). Only points
whose lower bound is below the smallest upper bound can be nearest. They are bounded again by float64 products if they
are many, or at once where float32 has not their range, and what is left is compared by differences with the best of
them (`optimal.points.differences`): so the answer is right up to what those cannot tell apart, points whose squared
distances differ by less than 2 γ_{log2 D + 10} ‖y_r − y_j‖ (‖z‖ + ‖y_r‖ + ‖y_j‖), or by less than D 2⁻¹⁰²⁰ in units of
the points. Among equals it is the first.

Events of one to three values are found in a tree (Maneewongvatana and Mount 1999, as scipy has it), and compared by
differences likewise.
"""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from ..devices import block_bytes
from .differences import leads
from .ranges import in_range
from .rounding import gamma, lost
from .rows import evenly

if TYPE_CHECKING:
    from .empirical import Points

__all__ = ["Screen", "nearest", "neighbours"]

Screen = Callable[["Points", Tensor, int], tuple[Tensor, Tensor] | None]
"""(points, z, count) -> pairs (query, point), row by row, the `count` nearest distinct points among them; or None."""

_TREE_DIM = 3
_TREE_ROWS = 2_000
"""Points from which on a tree is faster than the products."""
_TREE_SLACK = 1e-12
"""Relative: distances of the tree are right to a few units of 2⁻⁵³."""
_PAIRS = 4
"""Candidates of a query, on average, from which on float64 products look at them first."""
_BLOCK_BYTES = 12 * 2**20
"""Rows of a block, in float64: in float32 they are read and multiplied while they are in cache."""
_QUERIES = 1024
"""Queries that pass over the data together."""


def nearest(points: Points, z: Tensor, screen: Screen | None = None) -> Tensor:
    """The data point nearest to each query, (B,) int64; the first in the data among equals.

    Args:
        points: the points.
        z: (B, D) float64, as the points reduce them.
        screen: a faster way than products of float32 to find the points in question, where it has one.
    """
    points.whole()
    parts = [_nearest(points, part, screen) for part in z.split(_QUERIES)]
    return torch.cat(parts) if parts else torch.zeros(0, dtype=torch.int64, device=z.device)


def _nearest(points: Points, z: Tensor, screen: Screen | None) -> Tensor:
    rows, columns = _candidates(points, z, 1, screen)
    first = torch.full((len(z),), points.size, dtype=torch.int64, device=z.device)
    reference = first.scatter_reduce(0, rows, columns, "amin")
    while True:
        # A better one is nearer for certain, so that no reference comes twice.
        found = leads(points, z, reference, rows, columns)
        furthest = found.lead.new_zeros(len(z)).scatter_reduce_(0, rows, found.lead, "amin")
        better = (found.lead == furthest[rows]) & (found.lead < -found.error)
        if not better.any():
            break
        nearer = first.scatter_reduce(0, rows[better], columns[better], "amin")
        reference = torch.where(nearer < points.size, nearer, reference)
    equal = found.lead <= found.error
    return first.scatter_reduce(0, rows[equal], columns[equal], "amin")


def neighbours(points: Points, z: Tensor, count: int, screen: Screen | None = None) -> tuple[Tensor, Tensor]:
    """The `count` nearest distinct points, nearest first: (B, count) int64, and ‖z − (y − c)‖, (B, count) float64.

    Of copies it is the first. Where there are fewer distinct points, the index is −1 and the distance inf.
    """
    points.whole()
    index = torch.full((len(z), count), -1, dtype=torch.int64, device=z.device)
    distance = torch.full((len(z), count), torch.inf, dtype=torch.float64, device=z.device)
    for start in range(0, len(z), _QUERIES):
        part = z[start : start + _QUERIES]
        rows, columns = _candidates(points, part, count, screen)
        if count == 1:
            first = _distinct(points).to(z.device)[columns]
            rows, columns = rows[first], columns[first]
        squares = _squares(points, part, rows, columns)
        order = torch.argsort(squares, stable=True)
        order = order[torch.argsort(rows[order], stable=True)]
        columns, squares = columns[order], squares[order]
        found = rows.bincount(minlength=len(part))
        begin = found.cumsum(0) - found
        for place in range(count):
            has = (found > place).nonzero().squeeze(1)
            at = begin[has] + place
            index[start + has, place] = columns[at]
            distance[start + has, place] = squares[at].sqrt() * points.unit
    return index, distance


def _squares(points: Points, z: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """‖z − (y_j − c)‖² of pairs, (P,) float64, in units of the points."""
    out = torch.empty(len(rows), dtype=torch.float64, device=z.device)
    size = points.few_rows
    for start in range(0, len(rows), size):
        at = slice(start, start + size)
        block = torch.empty(len(rows[at]), points.dim, dtype=torch.float64, device=z.device)
        points.read(columns[at], block)
        out[at] = block.sub_(z[rows[at]]).square_().sum(1)
    return out


def _candidates(points: Points, z: Tensor, count: int, screen: Screen | None) -> tuple[Tensor, Tensor]:
    """Pairs (query, point), row by row, among which the `count` nearest distinct points of every query are.

    For one nearest, its first copy is among them.
    """
    if count == 1 and points.dim <= _TREE_DIM and points.size >= _TREE_ROWS and z.device.type == "cpu":
        return _by_tree(points, z)
    distinct = _distinct(points).to(z.device) if count > 1 else None
    dtype = torch.float32 if in_range(points, z) else torch.float64
    found = screen(points, z, count) if screen is not None and len(z) else None
    if found is None:
        found, finer = _by_products(points, z, count, distinct, dtype, None), (torch.float64,)
    else:
        finer = dtype, torch.float64
    rows, columns = found
    if len(rows) <= _PAIRS * len(z):
        return rows, columns
    if distinct is None:
        first = _distinct(points).to(z.device)[columns]
        rows, columns = rows[first], columns[first]
    for dtype in finer:
        index, places = columns.unique(return_inverse=True)
        known = torch.zeros(len(z), len(index), dtype=torch.bool, device=z.device)
        known[rows, places] = True
        rows, places = _by_products(points, z, count, known, dtype, index)
        columns = index[places]
        if len(rows) <= _PAIRS * len(z):
            break
    return rows, columns


def _distinct(points: Points) -> Tensor:
    """(N,) bool, whether a point is the first of its copies."""
    return points.first_copies == torch.arange(points.size, dtype=torch.int64, device="cpu")


def _by_products(
    points: Points, z: Tensor, count: int, allowed: Tensor | None, dtype: torch.dtype, index: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Of the points `index` (None: all), where `allowed`, those that cannot be excluded; places in `index`."""
    half_norms = points.half_norms.to(z.device)
    half_norms = half_norms if index is None else half_norms[index]
    # Squares below 2⁻¹⁰²² are lost to a norm.
    slack = math.sqrt(points.dim) * 2.0**-510
    norms, sizes = (2 * half_norms).sqrt().add_(slack), z.norm(dim=1, keepdim=True).add_(slack)
    # (γ' a + λ)(b + λ/γ') >= γ' a b + λ (a + b). The half norms are of float64 either way; what these lose below its
    # own ω, `lost` has to spare.
    share, least = gamma(points.dim + 4, dtype), lost(points.dim, dtype)
    slope, norms = share * sizes + least / math.sqrt(points.dim), norms + least / math.sqrt(points.dim) / share
    own = gamma(points.dim + 3) * half_norms + least
    queries = z.to(dtype)
    best = torch.full((len(z), count), torch.inf, dtype=torch.float64, device=z.device)
    found: list[tuple[Tensor, Tensor, Tensor]] = []
    most = max(1, block_bytes(_BLOCK_BYTES, z.device) // (z.element_size() * points.dim))
    size = min(points.block_rows(len(z), device=z.device), evenly(len(half_norms), most))
    for start, block in points.blocks(size, z.device, index, dtype):
        part = slice(start, start + len(block))
        scores = half_norms[part] - (queries @ block.T).double()
        error = slope * norms[part] + own[part]
        if allowed is not None:
            at = allowed[part] if allowed.ndim == 1 else allowed[:, part]
            scores.masked_fill_(~at, torch.inf)
        best = torch.cat([best, scores + error], 1).topk(min(count, best.shape[1] + len(block)), 1, largest=False)[0]
        scores -= error
        row, column = (scores <= best[:, -1:]).logical_and_(scores < torch.inf).nonzero(as_tuple=True)
        found.append((row, column + start, scores[row, column]))
    rows, columns, low = (torch.cat(parts) for parts in zip(*found, strict=True))
    kept = low <= best[rows, -1]
    rows, columns = rows[kept], columns[kept]
    order = torch.argsort(rows, stable=True)
    return rows[order], columns[order]


_TREES: weakref.WeakKeyDictionary[Points, tuple[Any, Tensor]] = weakref.WeakKeyDictionary()
"""Of the distinct points, and which they are."""


def _by_tree(points: Points, z: Tensor) -> tuple[Tensor, Tensor]:
    if points not in _TREES:
        from scipy.spatial import KDTree

        index = _distinct(points).nonzero().squeeze(1)
        block = torch.empty(len(index), points.dim, dtype=torch.float64, device="cpu")
        _TREES[points] = KDTree(points.read(index, block).numpy()), index
    tree, index = _TREES[points]
    queries = z.numpy()
    distance, _ = tree.query(queries)
    # The rows of the tree are off by a rounding of their own norms, the distances by a few more.
    reach = distance + _TREE_SLACK * (np.abs(queries).max(1) + distance)
    near = tree.query_ball_point(queries, reach)
    counts = torch.tensor([len(each) for each in near], dtype=torch.int64, device="cpu")
    columns = torch.tensor([place for each in near for place in each], dtype=torch.int64, device="cpu")
    return torch.arange(len(near), dtype=torch.int64, device="cpu").repeat_interleave(counts), index[columns]
