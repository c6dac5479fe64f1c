"""The coordinates of a state, u = (a, p, e, h, q), by name, and the candidates that q belongs to."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from ..points import Points
from .basis import SKETCH, Basis
from .products import gram

__all__ = ["CANDIDATES", "Candidates", "Layout", "Parts"]

CANDIDATES = 128
"""Of a row, first; and as many again where they turn out not to hold all of its weight."""


class Parts(NamedTuple):
    """Views of u, (b, …): a, p, e, h and q."""

    noise: Tensor
    axes: Tensor
    sketch: Tensor
    calls: Tensor
    candidates: Tensor


@dataclass(frozen=True)
class Layout:
    """How many numbers of u each part takes."""

    rank: int
    calls: int
    slots: int

    @property
    def size(self) -> int:
        return 1 + self.rank + SKETCH + self.calls + self.slots

    def parts(self, u: Tensor) -> Parts:
        return Parts(*u.split((1, self.rank, SKETCH, self.calls, self.slots), 1))


class Candidates:
    """The most probable points of every row, and the exact products of what the axes leave of them.

    Attributes:
        index: (B, slots) int64 the points, the first `filled` of a row.
        filled: (B,) int64.
        gram: (B, slots, slots) float64, R_j·R_k.
        sketches: (B, slots, 384) float64, their random projections.
    """

    def __init__(self, points: Points, basis: Basis, batch: int, device: torch.device):
        self._points, self._basis = points, basis
        self.slots = 2 * min(CANDIDATES, points.size)
        self.filled = torch.zeros(batch, dtype=torch.int64, device=device)
        self.index = torch.zeros(batch, self.slots, dtype=torch.int64, device=device)
        self.gram = torch.zeros(batch, self.slots, self.slots, dtype=torch.float64, device=device)
        self.sketches = torch.zeros(batch, self.slots, SKETCH, dtype=torch.float64, device=device)

    def valid(self, rows: Tensor) -> Tensor:
        """(b, slots) bool: the places that hold a candidate."""
        return torch.arange(self.slots, device=rows.device) < self.filled[rows, None]

    def sketched(self, rows: Tensor, coefficients: Tensor) -> Tensor:
        """Σ_m q_m Sᵀ R_m over the candidates, (b, 384) float64, for coefficients q, (b, slots)."""
        out = torch.zeros(len(rows), SKETCH, dtype=torch.float64, device=rows.device)
        # Row by row: the sketches of all rows at once would have to be copied, which takes longer than the sums.
        for i, row, size in self._filled(rows):
            out[i] = coefficients[i, :size] @ self.sketches[row, :size]
        return out

    def add_products(self, rows: Tensor, coefficients: Tensor, out: Tensor) -> None:
        """Add Σ_m q_m R_m·R_k to the candidates' entries of `out`, (b, N), for coefficients q, (b, slots)."""
        for i, row, size in self._filled(rows):
            change = coefficients[i, :size] @ self.gram[row, :size, :size]
            out[i].index_add_(0, self.index[row, :size], change.to(out))

    def _filled(self, rows: Tensor) -> Iterator[tuple[int, int, int]]:
        """(place, row, candidates) of the rows that have some."""
        for i, (row, size) in enumerate(zip(rows.tolist(), self.filled[rows].tolist(), strict=True)):
            if size:
                yield i, row, size

    def inside(self, rows: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
        """Those of the weights of all points, (b, N), that are the candidates', (b, slots) float64; the sum of others.

        The others are summed for themselves: 1 less the candidates' would be float32's rounding.
        """
        on = weights.gather(1, self.index[rows]).masked_fill_(~self.valid(rows), 0.0)
        places, none = self._places(rows), on[:, :1].expand_as(on)
        values = torch.where(self.valid(rows), on, none)
        held = weights.gather(1, places[:, :1])
        self.clear(rows, weights)
        outside = weights.sum(1)
        weights.scatter_(1, places, torch.where(self.filled[rows, None] > 0, values, held))
        return on.double(), outside.double()

    def clear(self, rows: Tensor, weights: Tensor) -> None:
        """Set the candidates' weights to 0, in place; rows without candidates stay as they are."""
        places, some = self._places(rows), self.filled[rows, None] > 0
        weights.scatter_(1, places, torch.where(some, 0.0, weights.gather(1, places)))

    def _places(self, rows: Tensor) -> Tensor:
        """`index`, with the first of a row in places that hold none."""
        index = self.index[rows]
        return torch.where(self.valid(rows), index, index[:, :1])

    def add(self, rows: Tensor, weights: Tensor) -> None:
        """Choose those of rows whose weight lies on few points; and others, once, where those did not do."""
        half = self.slots // 2
        count = weights.norm(dim=1) ** -2
        filled = self.filled[rows]
        wanted = ((filled == 0) & (count < half / 2)) | ((filled == half) & (count < half / 16))
        for i in wanted.nonzero().squeeze(1).tolist():
            row = int(rows[i])
            known = self.index[row, : int(filled[i])]
            others = weights[i].index_fill(0, known, -1.0) if len(known) else weights[i]
            new = others.topk(min(half, len(others) - len(known))).indices.sort().values
            self._set(row, torch.cat([known, new]))

    def _set(self, row: int, index: Tensor) -> None:
        rank, known, size = self._basis.rank, int(self.filled[row]), len(index)
        own = self._basis.coordinates[index].double()
        axes = own[:, :rank]
        added = gram(self._points, index)[known:] - axes[known:] @ axes.T
        self.index[row, :size] = index
        self.gram[row, known:size, :size], self.gram[row, :size, known:size] = added, added.T
        self.sketches[row, :size] = own[:, rank:]
        self.filled[row] = size
