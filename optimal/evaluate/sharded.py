"""The sums over data that several processes share, merged.

Rank r of R reduces the points N r/R to N (r + 1)/R with any of the methods, and all of them end with the sums of the
whole. With m_r, T_r, a_r the largest logit of rank r, its total e^{l − m_r} and its average of y − c, the merge is that
of `Moments`, W_r the share of rank r in the posterior:

    m = max_r m_r,    W_r = e^{m_r − m} T_r / Σ_s e^{m_s − m} T_s,    D − c = Σ_r W_r a_r

It takes two collectives: all ranks gather a row of ten numbers a query from each, which gives every W_r, and one
all-reduce adds the rows W_r a_r, which is all of the traffic that grows with D.

The leader is the nearest of the ranks' leaders, by float64 differences, which are the same for equal points wherever
they are; among equals it is the first in the data. Under a prior a rank normalises the log-weights of its own points;
what that changes its logits by is added to m_r, and the leader is the one of largest weight, by ‖x − y_j‖² − 2σ² a_j.

Bound on the mean. Let ‖a_r − a_r*‖ <= e_r, and log T_r be known to λ_r <= λ (`Moments.doubt`). Then every W_r* is
within a factor e^{±2λ} of W_r, both sum to 1, and D − D* = Σ W_r (a_r − a_r*) + Σ (W_r − W_r*)(a_r* − D), so that

    ‖D − D*‖ <= e^{2λ} Σ_r W_r e_r + (e^{2λ} − 1) √(Σ_r W_r ‖a_r − D‖²).

Each e_r and λ_r fails with probability 10⁻¹² at most, the bound with R times that.
"""

from __future__ import annotations

import copy
import dataclasses
import hashlib
import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..points import Points, Summary
from ..points.rows import Rows
from ..points.summary import centre_of, unit_of
from .evaluator import Evaluator
from .left_out import LeftOutEvaluator
from .moments import Moments
from .protocol import Accuracy, Tilt
from .ranks import Ranks

__all__ = ["COLUMNS", "ShardedEvaluator", "Shared", "bound_of_merged"]

COLUMNS = 10
_LOOK = 256
"""Rows, spread evenly, by which ranks compare their data."""
_EQUAL = 1e-12
"""Squared distances that differ by less, relatively, are equal."""


@dataclass(frozen=True)
class Shared:
    """Data that processes share: any rank may read any point, and each reads its shard alone when all are read.

    Attributes:
        points: all N points, `shared`.
        shard: those of this rank, None where there are fewer points than ranks and it has none.
        first: index of the first of them, among `points`.
        rows: which of the data are this rank's, whether they have a probability or not.
        ranks: the processes.
    """

    points: Points
    shard: Points | None
    first: int
    rows: slice
    ranks: Ranks

    @classmethod
    def of(cls, array: Tensor | np.ndarray, memory: int, ranks: Ranks) -> Shared:
        """The array, the same on all ranks.

        Raises:
            ValueError: as `Points`, on all ranks; ranks were given data that differ in shape, type, or in one of 256
                rows.
        """
        rows = Rows(array, memory)
        # Unlike processors may round it otherwise; it has to be one.
        centre = _agreed(rows, centre_of(rows), ranks)
        first, last = (rows.size * (ranks.rank + i) // ranks.count for i in (0, 1))
        shard, trouble, size, total = None, "", -math.inf, 0.0
        if last > first:
            try:
                shard = Points(array[first:last], memory, centre=centre)
                size = _log2(shard.radius) + math.log2(shard.unit)
            except ValueError as error:
                trouble = f"{error} (in the shard of rank {ranks.rank}, whose first point is {first})"
        found = ranks.objects((trouble, size), "measuring of the data")
        for message, _ in found:
            if message:
                raise ValueError(message)
        unit = unit_of(max(size for _, size in found))
        if shard is not None and shard.unit != unit:
            shard = Points(array[first:last], memory, centre=centre, unit=unit)
        offset, largest = torch.zeros_like(centre), 0.0
        if shard is not None:
            offset, largest = shard.offset * shard.size, shard.radius
            total = shard.mean_half_norm * shard.size
        everyone = ranks.objects((largest, total), "size of the data")
        summary = Summary(
            centre,
            unit,
            None,
            ranks.sum(offset, "mean of the data") / rows.size,
            max(radius for radius, _ in everyone),
            sum(part for _, part in everyone) / rows.size,
        )
        return cls(Points(array, memory, summary=summary), shard, first, slice(first, last), ranks)

    def weighted(self, log_weights: Tensor) -> Shared:
        """The same points under the prior π_j e^{b_j}, the same on all ranks.

        Raises:
            ValueError: as for `Points.weighted`, and that ranks were given other log-weights; on all ranks.
        """
        ranks, points, start = self.ranks, self.points, self.rows.start
        told = ranks.objects(hashlib.sha1(log_weights.cpu().numpy().data).digest(), "comparison of the log-weights")
        for rank, other in enumerate(told):
            if other != told[0]:
                raise ValueError(f"all ranks must be given the same log_weights, those of rank {rank} differ")
        rows, kept, prior = points.reweighted(log_weights)
        shard, own = None, log_weights[self.rows]
        if self.shard is not None and bool((own[self.shard.outer(_every(self.shard))] > -torch.inf).any()):
            shard = self.shard.weighted(own)
        first = int((points.outer(kept) < start).sum())
        offset, mean, largest = torch.zeros_like(points.centre), 0.0, 0.0
        if shard is not None:
            mine = slice(first, first + shard.size)
            share = shard.size / len(kept) if prior is None else float(prior.log_weights[mine].exp().sum())
            offset, mean, largest = share * shard.offset, share * shard.mean_half_norm, shard.radius
        everyone = ranks.objects((largest, mean), "size of the weighted data")
        summary = Summary(
            points.centre,
            points.unit,
            None,
            ranks.sum(offset, "mean of the weighted data"),
            max(radius for radius, _ in everyone),
            sum(part for _, part in everyone),
        )
        return Shared(Points(rows, points.memory, summary=summary, prior=prior), shard, first, self.rows, ranks)

    @property
    def ahead(self) -> float:
        """log π_j less what the logits of this rank's points have for it, the same for all of them."""
        shard = self.shard
        if self.points.log_weights is None or shard is None:
            return 0.0
        own = 0.0 if shard.log_weights is None else float(shard.log_weights[0])
        return float(self.points.log_weights[self.first]) - own


def _agreed(rows: Rows, centre: Tensor, ranks: Ranks) -> Tensor:
    """The centre of rank 0, once all ranks have been found to hold the same data."""
    look = (
        torch.arange(_LOOK, dtype=torch.int64, device="cpu").mul(rows.size).div(_LOOK, rounding_mode="floor").unique()
    )
    facts = {
        "shape": (rows.size, *rows.event),
        "dtype": str(rows.dtype),
        "values": hashlib.sha1(rows.exact(look).cpu().numpy().tobytes()).digest(),
    }
    everyone = ranks.objects((facts, centre.cpu()), "comparison of the data")
    for name in facts:
        for rank, (other, _) in enumerate(everyone):
            if other[name] != everyone[0][0][name]:
                shown = "" if name == "values" else f": {everyone[0][0][name]} on rank 0, {other[name]} on it"
                raise ValueError(f"all ranks must be given the same data, {name} differs on rank {rank}{shown}")
    return everyone[0][1].to(rows.device)


def _every(points: Points) -> Tensor:
    return torch.arange(points.size, device=points.device)


def _log2(value: float) -> float:
    return math.log2(value) if value > 0 else -math.inf


class ShardedEvaluator(Evaluator):
    """`Evaluator` of `Shared` data. All ranks must make the same calls with the same arguments.

    Attributes:
        data: the points, and this rank's part of them.
        own: `Evaluator` of the shard, None where there is none.
    """

    def __init__(self, data: Shared, accuracy: Accuracy):
        super().__init__(data.points, accuracy)
        self.data, self._ranks, self._first = data, data.ranks, data.first
        self.own = None if data.shard is None else Evaluator(data.shard, accuracy)

    def weighted(self, log_weights: Tensor) -> ShardedEvaluator:
        return ShardedEvaluator(self.data.weighted(log_weights), self.accuracy)

    def without(self, index: Tensor) -> ShardedEvaluator:
        """Of B queries that each do not know the point `index`, (B,) int64; −1 for none. See `LeftOutEvaluator`."""
        out = copy.copy(self)
        shard = self.data.shard
        if shard is not None:
            own = index - self._first
            own = own.masked_fill((own < 0) | (own >= shard.size), -1)
            out.own = LeftOutEvaluator(shard, self.accuracy, own)
        return out

    def moments(self, z: Tensor, sigma: Tensor, *, single: bool) -> Moments:
        self._ranks.agree("posterior", z.device, x=z, sigma=sigma)
        if self.own is None:
            sums = Moments(len(z), z.shape[1], z.device)
        else:
            sums = self.own.moments(z, sigma, single=single)
            sums.index += self._first
            sums.top = sums.top + self.data.ahead
        merged = sums if self._ranks.count == 1 or len(z) == 0 else self._merged(z, sigma, sums)
        merged.method = f"sharded {sums.method or 'dense'}"
        return merged

    def tilt(self, z: Tensor, sigma: Tensor, tilt: Tilt, *, single: bool) -> Tensor:
        arguments = {"v": tilt.direction, "a": tilt.by_log_weight, "b": tilt.by_distance}
        self._ranks.agree("gradient or covariance_product", z.device, x=z, sigma=sigma, **arguments)
        if self.own is None:
            out = torch.zeros_like(z)
        else:
            out = self.own.tilt(z, sigma, self._local(tilt), single=single)
        return self._ranks.sum(out, "merge of the gradient") if len(z) else out

    def tilted_square(self, z: Tensor, sigma: Tensor, tilt: Tilt, *, single: bool) -> Tensor:
        arguments = {"v": tilt.direction, "a": tilt.by_log_weight, "b": tilt.by_distance}
        self._ranks.agree("gradient to sigma", z.device, x=z, sigma=sigma, **arguments)
        if self.own is None:
            out = torch.zeros_like(sigma)
        else:
            out = self.own.tilted_square(z, sigma, self._local(tilt), single=single)
        return self._ranks.sum(out, "merge of the gradient to sigma") if len(z) else out

    def log_weights(self, z: Tensor, sigma: Tensor, *, single: bool) -> Tensor:
        self._ranks.agree("weights", z.device, x=z, sigma=sigma)
        scores = torch.full((len(z), self.points.size), -torch.inf, dtype=torch.float64, device=z.device)
        if self.own is not None:
            mine = slice(self._first, self._first + self.own.points.size)
            scores[:, mine] = self.own.log_weights(z, sigma, single=single) + self.data.ahead
        return self._ranks.maximum(scores, "merge of the weights") if len(z) else scores

    def _logits(self, z: Tensor, sigma: Tensor, *, single: bool) -> tuple[Tensor, Tensor]:
        return self.log_weights(z, sigma, single=single), torch.zeros_like(sigma)

    def nearest(self, z: Tensor) -> Tensor:
        self._ranks.agree("nearest", z.device, x=z)
        row = torch.full((len(z), 2), torch.inf, dtype=torch.float64, device=z.device)
        if self.own is not None:
            index = self.own.nearest(z) + self._first
            row = torch.stack([index.double(), self._squares(z, index)], 1)
        index, distance = self._ranks.gather(row, "merge of the nearest points").unbind(2)
        return index.gather(0, _first_of_equal(distance)[None])[0].long()

    def _local(self, tilt: Tilt) -> Tilt:
        """The same with the leader's logit as this rank's logits have it."""
        return dataclasses.replace(tilt, top=tilt.top - self.data.ahead)

    def _squares(self, z: Tensor, index: Tensor) -> Tensor:
        """Squared distances, (B,), which are the same for equal points wherever they are."""
        block = torch.empty(len(z), self.points.dim, dtype=torch.float64, device=z.device)
        return self.points.read(index.to(self.points.device), block).sub_(z).square_().sum(1)

    def _leading(self, distance: Tensor, index: Tensor, sigma: Tensor) -> Tensor:
        """The rank, (B,), whose leader, `index`, (R, B), has the largest weight; the first among equals."""
        points = self.points
        if points.prior is None:
            return _first_of_equal(distance)
        # −2σ² times the logit. A rank without points has distance inf, and any index.
        behind = distance - 2 * sigma.square() * points.log_weight(index.clamp(0, points.size - 1))
        size = distance.amin(0) + 2 * sigma.square() * points.prior.reach
        return (behind <= behind.amin(0) + _EQUAL * size).int().argmax(0)

    def _merged(self, z: Tensor, sigma: Tensor, sums: Moments) -> Moments:
        """The sums of all ranks, by one gathering of `COLUMNS` numbers a query and one all-reduce of the means."""
        ranks, points = self._ranks, self.points
        row = torch.zeros(len(z), COLUMNS, dtype=torch.float64, device=z.device)
        row[:, 0], row[:, 6] = -torch.inf, torch.inf
        if self.own is not None:
            size = points.restored(sums.average).flatten(1).norm(dim=1) / points.unit
            columns = (
                sums.top,
                sums.total,
                sums.energy,
                sums.square,
                sums.average.square().sum(1),
                sums.index.double(),
                self._squares(z, sums.index),
                sums.bound * size,
                sums.estimate * size,
                sums.doubt,
            )
            row = torch.stack(columns, 1)
        table = ranks.gather(row, "merge of the posterior, its sums")
        top, total, energy, square, mean_square, index, distance, bound, estimate, doubt = table.unbind(2)
        out = Moments(len(z), points.dim, z.device)
        out.top = top.amax(0)
        scale = torch.exp(top - out.top)
        shift = torch.where(total > 0, top - out.top, 0.0)
        out.total = (scale * total).sum(0)
        out.energy = (scale * (energy + shift * total)).sum(0)
        out.square = (scale * square).sum(0)
        out.mean = ranks.sum(sums.mean.mul_(scale[ranks.rank, :, None]), "merge of the posterior, its mean")
        out.index = index.gather(0, self._leading(distance, index.long(), sigma)[None])[0].long()
        weight = scale * total / out.total
        size = (points.restored(out.average).flatten(1).norm(dim=1) / points.unit).clamp_min(
            torch.finfo(torch.float64).tiny
        )
        slack = 1e-12 * points.radius**2
        between = ((weight * mean_square).sum(0) - out.average.square().sum(1)).clamp_min(0) + slack
        out.doubt = doubt.amax(0)
        out.bound = bound_of_merged(weight, bound, out.doubt, between) / size
        out.estimate = torch.fmin(out.bound, bound_of_merged(weight, estimate, out.doubt, between) / size)
        return out


def bound_of_merged(weight: Tensor, error: Tensor, doubt: Tensor, between: Tensor) -> Tensor:
    """Bound on ‖D − D*‖, (B,), as above.

    Args:
        weight: (R, B), W_r; error: (R, B), e_r, of no account where W_r is 0; doubt: (B,), λ.
        between: (B,), Σ W_r ‖a_r − D‖².
    """
    within = torch.where(weight > 0, weight * error, 0.0).sum(0)
    return torch.exp(2 * doubt) * within + torch.expm1(2 * doubt) * between.sqrt()


def _first_of_equal(distance: Tensor) -> Tensor:
    """The first rank, (B,), among those whose squared distance, (R, B), is the smallest."""
    return (distance <= distance.amin(0) * (1 + _EQUAL)).int().argmax(0)
