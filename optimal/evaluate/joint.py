"""Logits of queries over several parts of the points at once, each part with thresholds of its own: for `screened`.

Digits are multiplied once for all parts; which points are left out is asked part by part, since a point without weight
among all may lead its own part. One part, that of all points, is the plain sum.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..points import Points
from .byte_logits import ByteLogits

__all__ = ["Joint"]


@dataclass
class _Share:
    """What one part has of the logits.

    Attributes:
        number: which part it is.
        points: its points.
        rows: (b,) the queries that are asked of it, places among those of the logits.
        of: (b,) the same, places among all that were asked of it at first.
        columns: (n,) its points, places among those of the logits; own: (n,) among its points. None for all.
        left_out: (b,), see `ByteLogits`.
    """

    number: int
    points: Points
    rows: Tensor
    of: Tensor
    columns: Tensor | None
    own: Tensor | None
    left_out: Tensor


class Joint:
    """Logits over all points at hand, in the order of the data, and what of them belongs to which part.

    Attributes:
        logits: of all; their `left_out` is that of no part.
    """

    def __init__(self, logits: ByteLogits, shares: Sequence[_Share]):
        self.logits, self._shares = logits, shares

    @classmethod
    def of(cls, logits: ByteLogits, parts: Sequence[tuple[Points, Tensor]]) -> Joint:
        """Of parts without a point in common, and the queries, (b,) int64, increasing, that are asked of each."""
        shares = []
        for number, (part, rows) in enumerate(parts):
            columns = None
            if part is not logits.points:
                every = torch.arange(part.size, device=part.device)
                columns = logits.points.inner(part.outer(every)).to(rows.device)
            of, none = torch.arange(len(rows), device=rows.device), torch.zeros_like(logits.sigma[rows])
            shares.append(_Share(number, part, rows, of, columns, None, none))
        return cls(logits, [share for share in shares if len(share.rows)])

    def __len__(self) -> int:
        return len(self._shares)

    def near(self) -> Tensor:
        """(b, n) bool: see `ByteLogits.near`, for the parts that each query is asked of."""
        if len(self._shares) == 1 and self._shares[0].columns is None:
            return self._near(self._shares[0])
        out = torch.zeros(self.logits.products.shape, dtype=torch.bool, device=self.logits.z.device)
        for share in self._shares:
            near = self._near(share)
            columns = torch.arange(out.shape[1], device=out.device) if share.columns is None else share.columns
            if len(near) == len(out):
                out.index_copy_(1, columns, near)
            else:
                out[share.rows[:, None], columns] = near
        return out

    def narrowed(self, rows: Tensor, keep: Tensor | None) -> Joint:
        """The same of the queries `rows`, increasing, and, of the points, of those in the mask `keep` (None: all)."""
        logits = self.logits.narrowed(rows, keep)
        place = torch.full_like(self.logits.sigma, -1, dtype=torch.int64)
        place[rows] = torch.arange(len(rows), device=rows.device)
        after = None if keep is None else keep.cumsum(0) - 1
        shares = [self._narrowed(share, place, keep, after) for share in self._shares]
        return Joint(logits, [share for share in shares if len(share.rows)])

    def parts(self) -> Iterator[tuple[int, Tensor, ByteLogits]]:
        """Yield the number of a part, which of the queries asked of it at first are here, and their logits over it."""
        for share in self._shares:
            yield share.number, share.of, self._over(share)

    def _near(self, share: _Share) -> Tensor:
        logits = self._over(share)
        near = logits.near()
        share.left_out = logits.left_out
        return near

    def _over(self, share: _Share) -> ByteLogits:
        """The logits over one part, as its own points."""
        of = self.logits.narrowed(share.rows, None)
        if share.columns is None:
            return dataclasses.replace(of, left_out=share.left_out)
        own, columns, log_weights = share.own, share.columns, share.points.log_weights
        if log_weights is not None:
            log_weights = log_weights.to(of.z.device)
            log_weights = log_weights if own is None else log_weights[own]
        return dataclasses.replace(
            of,
            points=share.points,
            index=own,
            products=of.products.index_select(1, columns),
            half_norms=of.half_norms[columns],
            norms=of.norms[columns],
            log_weights=log_weights,
            left_out=share.left_out,
        )

    @staticmethod
    def _narrowed(share: _Share, place: Tensor, keep: Tensor | None, after: Tensor | None) -> _Share:
        rows = place[share.rows]
        asked = rows >= 0
        columns, own = share.columns, share.own
        if keep is not None and columns is not None:
            assert after is not None
            kept = keep[columns].nonzero().squeeze(1)
            own, columns = kept if own is None else own[kept], after[columns[kept]]
        of, left_out = share.of[asked], share.left_out[asked]
        return _Share(share.number, share.points, rows[asked], of, columns, own, left_out)
