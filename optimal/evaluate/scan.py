"""One pass over the data: the logits of every query, block by block, each as exact as it matters.

With z = x − c and h_j = ½‖y_j − c‖² the logits of Eq. 43 are l_j = (z·(y_j − c) − h_j)/σ² + a_j, up to the same number
for all j; a_j the prior's log-weights, 0 where there is none. There are three ways to them, and each query goes on to
the next where its error matters:

1. float32 products (float64 where x is, where float32 has not the range, and for events of at most 16 values). Where
   their error may exceed 8e-4 nats, the points within 10 nats of the leader are set aside, and further down as far as a
   weight does not make up for the error; unless more than 192 share, whose errors average out, up to 1e-2 nats. From
   0.2 nats on, and from 1e-3 where every logit counts, products only select: points within 30 nats of the leader are
   set aside, all others left out.
2. float64 products of what is set aside, a few points a query as a rule.
3. leads over the leader, by the differences of the points themselves (`optimal.points.differences`), where the error of
   float64 products may exceed 1e-6 nats. Copies of a point are told from near-copies, and have equal logits.

The error of products is estimated, by `logit_error`. Events of one to three values are compared by differences at
once, l_j = −‖z − (y_j − c)‖²/2σ², whose error is a few units of 2⁻⁵³ of l_j itself.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from ..devices import block_bytes
from ..points import Points, evenly
from ..points.differences import leads
from ..points.ranges import in_range
from ..points.rounding import UNIT
from .products import TIE, WINDOW, logit_error, products

__all__ = ["Part", "Scan"]

_WINDOW_EXACT = 700.0
"""The same for x in float64, which gets what is far below σ² to its own precision: the range of exponentials."""
_TOLERANCE = 1e-3
"""Largest error of a float32 logit, in nats, that is let through; the error itself is typically 100 times smaller."""
_LEAD, _LEADERS = 10.0, 192
"""Points within so many nats of the leader make up the result, and a query that has no more than so many is sharp."""
_SHARP, _SPREAD = 8e-4, 1e-2
"""Errors of float32 logits, nats, from which on the leading points are scored in float64; up to the second only where
they are few, since the errors of many are independent and average out."""
_HOPELESS = 0.2
"""Error of float32 logits, nats, from which on no weight makes up for it."""
_TIES = 256
"""Candidates for the lead that are compared one by one; of more, `Points.nearest` finds the first."""
_BLOCK_BYTES = 12 * 2**20
"""Points are multiplied twice while they and their logits are in cache, in pieces of this size."""
_AGAIN_BYTES = 8 * 2**20
"""Points are scored again in pieces of this size in float64."""
_GROUP = 32
"""Queries that are scored again together."""
_PAIR_BYTES = 64
"""Of memory for a pair of query and point that is set aside."""
_SMALL = 16
"""Up to this many values in an event, float64 costs little: exponentials dominate."""
_UNKNOWN = -1e300
"""Logit of a point that a query does not know: a number, so that a block of nothing else has a leader."""
_CLOSE = 3
"""Up to this many, differences cost no more than products."""


class Part(NamedTuple):
    """Logits of some queries over some points.

    Attributes:
        rows: (b,) the queries, None for all of them.
        places: the points, a slice or (n,).
        logits: (n, b) float64, relative to `top`; −inf for points that come elsewhere. The reader may write to it.
        top: (b,) float64.
        block: (n, D) y − c, in the precision that these logits need; overwritten when the iteration goes on.
    """

    rows: Tensor | None
    places: slice | Tensor
    logits: Tensor
    top: Tensor
    block: Tensor


class _Pairs(NamedTuple):
    """Queries and points that are looked at again: rows, points (P,), their logits so far, and whether set aside."""

    rows: Tensor
    points: Tensor
    logits: Tensor
    aside: Tensor

    def where(self, chosen: Tensor) -> _Pairs:
        return _Pairs(*(each[chosen] for each in self))


def _where(mask: Tensor) -> tuple[Tensor, Tensor]:
    """Columns and rows of what is true in a mask of which hardly anything is: eight values are looked at in one."""
    flat = mask.view(-1)
    even = flat[: len(flat) // 8 * 8].view(torch.int64).nonzero()
    eight = torch.arange(8, dtype=torch.int64, device=mask.device)
    found = torch.cat([(8 * even + eight).view(-1), torch.arange(len(flat) // 8 * 8, len(flat), device=mask.device)])
    found = found[flat[found]]
    return found % mask.shape[1], found // mask.shape[1]


class Scan:
    """The logits of queries over all points; see the module.

    Args:
        points: the points.
        z: (B, D) float64, the queries as the points reduce them.
        sigma: (B,) float64, in units of the points.
        single: whether float32 products may be used at all.
        memory: bytes for temporaries.
        every: whether the logit of every point within 30 nats of the leader counts, and not only its weight.
        without: (B,) int64, a point that each query does not know; −1 for none.

    Attributes:
        origin: (B,) float64, to be added to `top` and to `Part.top`: l_j = logits + top + origin.
        leader: (B,) int64, the most probable point, the first in the data among equals; known at the end.
        top: (B,) float64, its logit.
        counted: (B,) float64, its logit as parts had it, where that is a float32 product; `top` where it is exact.
        coarse: whether float32 may be used at all: it is allowed, and has the range of these points and queries.
        single: whether it is for products.
        copies: rows and points, (P,) each, that are known to be equal to the leader of their row.
    """

    def __init__(
        self,
        points: Points,
        z: Tensor,
        sigma: Tensor,
        *,
        single: bool,
        memory: int,
        every: bool = False,
        without: Tensor | None = None,
    ):
        self.points, self.z, self.sigma, self._norm = points, z, sigma, z.norm(dim=1)
        self.coarse = single and in_range(points, z, sigma)
        self.single = self.coarse and points.dim > _SMALL
        self.precision = sigma.square().reciprocal()
        self.half_norms = points.half_norms.to(z.device)
        self.log_weights = None if points.log_weights is None else points.log_weights.to(z.device)
        self.close = points.dim <= _CLOSE
        self.origin = torch.zeros_like(sigma)
        if self.close:
            self.origin = 0.5 * z.square().sum(1) * self.precision
        self.leader = torch.zeros(len(z), dtype=torch.int64, device=z.device)
        self.top = self.counted = torch.full_like(sigma, -torch.inf)
        self.copies = self.leader[:0], self.leader[:0]
        self._best = self.top.clone()
        self._window = WINDOW if self.coarse else _WINDOW_EXACT
        self._every, self._without = every, without
        self._dtype = torch.float32 if self.single else torch.float64
        self._memory, self._most = memory, max(2**16, memory // (4 * _PAIR_BYTES))
        self._near = torch.zeros_like(sigma)
        self._scored = torch.zeros_like(self.leader, dtype=torch.bool)
        self._kept: list[_Pairs] = []
        self._aside = 0

    def parts(self) -> Iterator[Part]:
        """All points, block by block; then, once more and exactly, those that were set aside."""
        points, batch = self.points, len(self.z)
        itemsize = 4 if self.single else 8
        size = block_bytes(_BLOCK_BYTES, self.z.device)
        in_cache = evenly(points.size, max(1, size // (itemsize * points.dim + 8 * batch)))
        count = min(points.block_rows(batch, self._memory, itemsize, self.z.device), in_cache)
        buffer = torch.empty(count, points.dim, dtype=self._dtype, device=self.z.device)
        scratch = None if self.single else torch.empty(count, points.dim, dtype=torch.float32, device=self.z.device)
        logits = torch.empty(count, batch, dtype=torch.float64, device=self.z.device)
        queries = self.z.to(self._dtype)
        for start in range(0, points.size, count):
            index = slice(start, min(start + count, points.size))
            block = points.read(index, buffer[: index.stop - start], scratch)
            out = logits[: len(block)]
            if self.close:
                self._differences(block, self.z, self.precision, out)
            else:
                out.copy_(products(block, queries))
                out.sub_(self.half_norms[index, None]).mul_(self.precision)
            if self.log_weights is not None:
                out.add_(self.log_weights[index, None])
            if self._without is not None:
                rows = ((self._without >= index.start) & (self._without < index.stop)).nonzero().squeeze(1)
                out[self._without[rows] - index.start, rows] = _UNKNOWN
            yield from self._taken(index, out, block)
        self._settle()
        yield from self._again()

    def error(self, dtype: torch.dtype | None = None) -> Tensor:
        """Estimate of the error of the logits near the leader, as far as it is known, nats, (B,)."""
        if self.close:
            largest = 0.0 if self.points.prior is None else self.points.prior.reach
            return 8 * UNIT * (self._best.abs() + WINDOW + largest)
        return logit_error(self.points, self._norm, self.sigma, self._best, dtype or self._dtype)

    def unrepaired(self) -> Tensor:
        """Estimate of the error of the logits that were not taken exactly, nats, (B,): 0 where all that matter were."""
        error = self.error()
        exact = (error > _SHARP) & (self._near <= _LEADERS)
        return error.clamp_max(_SHARP).masked_fill_(exact, 0)

    def _taken(self, index: slice, logits: Tensor, block: Tensor) -> Iterator[Part]:
        """The part of a block that can be trusted; what cannot is set aside."""
        top = logits.amax(0)
        best = self._best = torch.maximum(self._best, top)
        error = self.error()
        doubt, sharp, window = self._chosen(error)
        floor = best - 2 * error
        near = logits >= torch.where(sharp, floor - window, floor)
        if self.single and sharp.any():
            self._near += near.float().sum(0)  # Of truth values themselves, the sum takes four times as long.
            spread = sharp & (error <= (_TOLERANCE if self._every else _SPREAD)) & (self._near > _LEADERS)
            if spread.any():
                sharp &= ~spread
                near &= (logits >= floor) | ~spread
        rows, places = _where(near)
        values, aside = logits[places, rows], sharp[rows]
        self._kept.append(_Pairs(rows, places + index.start, values, aside))
        if sharp.any():
            logits[places[aside], rows[aside]] = -torch.inf
            self._scored[rows[aside]] = True
            self._aside += int(aside.sum())
        chosen = (~doubt & (top >= floor - self._window)).nonzero().squeeze(1)
        if 2 * len(chosen) >= len(best) and not doubt.any():
            # Of the others the weights are nothing; to leave them out would be a copy.
            yield Part(None, index, logits.sub_(best), best, block)
        elif len(chosen):
            yield Part(chosen, index, logits[:, chosen].sub_(best[chosen]), best[chosen], block)
        if self._aside > self._most:
            self._settle()
            yield from self._again()

    def _chosen(self, error: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """By their error, queries that products only select for, and those that set points aside; how many nats down.

        Further down, the weight makes up for the error.
        """
        if not self.single:
            # Where products of float64 only select, what they leave in place would be off against what is exact.
            doubt = error > _TOLERANCE
            return doubt, error > TIE, torch.where(doubt, self._window, WINDOW)
        doubt = error > (_TOLERANCE if self._every else _HOPELESS)
        sharp = error > _SHARP
        window = _LEAD + (error / _TOLERANCE).clamp_min(1).log()
        return doubt, sharp, torch.where(doubt, WINDOW, window)

    def _settle(self) -> None:
        """Find the leader among the points seen so far, and its logit."""
        kept = _Pairs(*(torch.cat(each) for each in zip(*self._kept, strict=True)))
        error = self.error()
        kept = kept.where(kept.logits >= (self._best - 2 * error - self._window)[kept.rows])
        self._kept = [kept]
        ties = kept.where(kept.logits >= (self._best - 2 * error)[kept.rows])
        count = ties.rows.bincount(minlength=len(self.z))
        # The nearest leads where no point has more of the prior than another.
        many = (count > _TIES) & (self.log_weights is None and self._without is None)
        if many.any():
            self.leader[many] = self.points.nearest(self.z[many])
            ties = ties.where(~many[ties.rows])
        rows, index = ties.rows, ties.points
        first = torch.full_like(self.leader, self.points.size)
        leading = ties.logits == self._best[rows]
        self.leader = torch.where(many, self.leader, first.scatter_reduce(0, rows[leading], index[leading], "amin"))
        tied = (count > 1)[rows]
        if tied.any():
            self._compare(rows[tied], index[tied])
        block = torch.empty(len(self.z), self.points.dim, dtype=torch.float64, device=self.z.device)
        self.points.read(self.leader.to(self.points.device), block)
        if self.close:
            self.top = -0.5 * (self.z - block).square_().sum(1) * self.precision
        else:
            self.top = ((self.z * block).sum(1) - self.half_norms[self.leader]) * self.precision
        if self.log_weights is not None:
            self.top = self.top + self.log_weights[self.leader]
        if not self.single:
            # The very number that parts came relative to, if it is one: then a lone point weighs 1, not nearly 1.
            self.top = torch.where((self.top - self._best).abs() <= 2 * error, self._best, self.top)
        self.counted = self.top
        if self.single:
            own = (kept.points == self.leader[kept.rows]) & ~self._scored[kept.rows]
            self.counted = self.top.index_put((kept.rows[own],), kept.logits[own])

    def _compare(self, rows: Tensor, index: Tensor) -> None:
        """The leader by differences, of pairs that products do not tell apart."""
        while True:
            lead, error = self._leads(rows, index)
            least = lead.new_zeros(len(self.z)).scatter_reduce_(0, rows, lead, "amin")
            better = (lead == least[rows]) & (lead < -error)
            if not better.any():
                break
            # A better one leads for certain, so that none comes twice.
            self.leader[rows[better]] = index[better]
        equal = lead <= error
        first = torch.full_like(self.leader, self.points.size).scatter_reduce(0, rows[equal], index[equal], "amin")
        self.leader = torch.where(first < self.points.size, first, self.leader)
        same = leads(self.points, self.z, self.leader, rows, index).half_square == 0
        self.copies = rows[same], index[same]

    def ahead(self, rows: Tensor, index: Tensor) -> Tensor | float:
        """a_j of the points `index` less that of the leader of their row, nats, (P,)."""
        return 0.0 if self.log_weights is None else self.log_weights[index] - self.log_weights[self.leader[rows]]

    def _leads(self, rows: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:
        """σ² times the lead of each row's leader over points, by differences, and a bound on its error, (P,) each."""
        found = leads(self.points, self.z, self.leader, rows, index)
        if self.log_weights is None:
            return found.lead, found.error
        ahead = self.sigma.square()[rows] * self.ahead(rows, index)
        return found.lead - ahead, found.error + 4 * UNIT * (ahead.abs() + found.lead.abs())

    def _again(self) -> Iterator[Part]:
        """What was set aside, in float64: by products, or by differences where these are not exact enough."""
        (kept,) = self._kept
        aside = kept.where(kept.aside)
        if len(aside.rows) == 0:
            return
        self._kept, self._aside = [kept._replace(aside=torch.zeros_like(kept.aside))], 0
        by_leads = self.error(torch.float64) > TIE
        order = torch.argsort(aside.rows, stable=True)
        aside = aside.where(order)
        for group in aside.rows.unique_consecutive().split(_GROUP):
            first, last = torch.searchsorted(aside.rows, group[[0, -1]] + torch.tensor([0, 1], device=group.device))
            pairs = aside.where(slice(int(first), int(last)))  # pyright: ignore[reportArgumentType]
            yield from self._exact(group, pairs.rows, pairs.points, by_leads)

    def _exact(self, group: Tensor, rows: Tensor, points_of: Tensor, by_leads: Tensor) -> Iterator[Part]:
        points, top = self.points, self.top[group]
        index, places = points_of.unique(return_inverse=True)
        columns = torch.searchsorted(group, rows)
        exact = torch.zeros(len(rows), dtype=torch.float64, device=rows.device)
        sharp = by_leads[rows].nonzero().squeeze(1)
        if len(sharp):
            lead, _ = self._leads(rows[sharp], points_of[sharp])
            exact[sharp] = -lead * self.precision[rows[sharp]]
        z, precision = self.z[group], self.precision[group]
        for start, block in points.blocks(max(1, _AGAIN_BYTES // (8 * points.dim)), self.z.device, index):
            part = slice(start, start + len(block))
            if self.close:
                scores = torch.empty(len(block), len(group), dtype=torch.float64, device=z.device)
                self._differences(block, z, precision, scores)
            else:
                scores = products(block, z).sub_(self.half_norms[index[part], None]).mul_(precision)
            if self.log_weights is not None:
                scores.add_(self.log_weights[index[part], None])
            here = ((places >= part.start) & (places < part.stop)).nonzero().squeeze(1)
            row, column = places[here] - start, columns[here]
            logits = torch.full_like(scores, -torch.inf)
            found = torch.where(by_leads[rows[here]], exact[here], scores[row, column] - top[column])
            logits[row, column] = found.masked_fill_(points_of[here] == self.leader[rows[here]], 0.0)
            yield Part(group, index[part], logits, top, block)

    @staticmethod
    def _differences(block: Tensor, z: Tensor, precision: Tensor, out: Tensor) -> None:
        torch.sub(block[:, :1], z[:, 0], out=out)
        out.mul_(out)
        for axis in range(1, block.shape[1]):
            difference = block[:, axis, None] - z[:, axis]
            out.addcmul_(difference, difference)
        out.mul_(-0.5 * precision)
