"""The sums over data that several processes share, merged.

Rank r of R reduces the points N r/R to N (r + 1)/R with any of the methods, and all of them end with the sums of the
whole. With m_r, T_r, a_r the largest logit of rank r, its total e^{l − m_r} and its average of y − c, the merge is that
of `Moments`, W_r the share of rank r in the posterior:

    m = max_r m_r,    W_r = e^{m_r − m} T_r / Σ_s e^{m_s − m} T_s,    D − c = Σ_r W_r a_r

It takes two collectives: all ranks gather a row of ten numbers a query from each, which gives every W_r, and one
all-reduce adds the rows W_r a_r, which is all of the traffic that grows with D.

The leader is the nearest of the ranks' leaders, by float64 differences, which are the same for equal points wherever
they are; among equals it is the first in the data.

Bound on the mean. Let ‖a_r − a_r*‖ <= e_r, and log T_r be known to λ_r <= λ (`Moments.doubt`). Then every W_r* is
within a factor e^{±2λ} of W_r, both sum to 1, and D − D* = Σ W_r (a_r − a_r*) + Σ (W_r − W_r*)(a_r* − D), so that

    ‖D − D*‖ <= e^{2λ} Σ_r W_r e_r + (e^{2λ} − 1) √(Σ_r W_r ‖a_r − D‖²).

Each e_r and λ_r fails with probability 10⁻¹² at most, the bound with R times that.
"""

from __future__ import annotations

import functools
import hashlib
import math

import numpy as np
import torch
from torch import Tensor

from ..points import Points
from .evaluator import Evaluator
from .moments import Moments
from .protocol import Accuracy, Tilt
from .ranks import Ranks

__all__ = ["COLUMNS", "ShardedEvaluator", "SharedPoints", "bound_of_merged"]

COLUMNS = 10
_LOOK = 256
"""Rows, spread evenly, by which ranks compare their data."""
_EQUAL = 1e-12
"""Squared distances that differ by less, relatively, are equal."""


class SharedPoints(Points):
    """All N points: any rank may read any of them, and each reads its shard alone when all have to be read.

    Attributes:
        shard: `Points` of this rank, None where there are fewer points than ranks and it has none.
        first: index of the first of them.

    Raises:
        ValueError: as `Points`, on all ranks; ranks were given data that differ in shape, type, or in one of 256 rows.
        NotImplementedError: from everything that would read all data on every rank.
    """

    def __init__(self, array: Tensor | np.ndarray, memory: int, ranks: Ranks):
        self._array, self._memory, self.ranks = array, memory, ranks
        super().__init__(array, memory)

    def _measure(self) -> None:
        ranks = self.ranks
        look = torch.arange(_LOOK).mul(self.size).div(_LOOK, rounding_mode="floor").unique()
        rows = self.take(look).cpu().double().numpy().tobytes()
        facts = {
            "shape": (self.size, *self.event),
            "dtype": str(self._rows.dtype),
            "values": hashlib.sha1(rows).digest(),
        }
        everyone = ranks.objects((facts, self.centre.cpu()), "comparison of the data")
        for name in facts:
            for rank, (other, _) in enumerate(everyone):
                if other[name] != everyone[0][0][name]:
                    shown = "" if name == "values" else f": {everyone[0][0][name]} on rank 0, {other[name]} on it"
                    raise ValueError(f"all ranks must be given the same data, {name} differs on rank {rank}{shown}")
        # Unlike processors may round it otherwise; it has to be one.
        self.centre = everyone[0][1].to(self.device)
        self.first, last = (self.size * (ranks.rank + i) // ranks.count for i in (0, 1))
        self.shard, trouble, squares = None, "", (0.0, 0.0)
        if last > self.first:
            try:
                self.shard = Points(self._array[self.first : last], self._memory, self.centre)
                squares = float(self.shard.half_norms.max()), float(self.shard.half_norms.sum())
            except ValueError as error:
                trouble = f"{error} (in the shard of rank {ranks.rank}, whose first point is {self.first})"
        found = ranks.objects((trouble, *squares), "measuring of the data")
        for message, _, _ in found:
            if message:
                raise ValueError(message)
        self.radius = math.sqrt(2 * max(most for _, most, _ in found))
        self._mean_half_norm = sum(total for _, _, total in found) / self.size

    def blocks(self, rows: int, device: torch.device, index: Tensor | None = None, dtype: torch.dtype = torch.float64):
        if index is None:
            raise _unshared()
        return super().blocks(rows, device, index, dtype)

    def two_nearest(self, z: Tensor) -> tuple[Tensor, Tensor]:
        raise _unshared()

    @property
    def first_copies(self) -> Tensor:  # pyright: ignore[reportIncompatibleVariableOverride]
        raise _unshared()

    @functools.cached_property
    def offset(self) -> Tensor:
        self.ranks.agree("mean", self.device)
        if self.shard is None:
            total = torch.zeros_like(self.centre)
        else:
            total = self.shard.offset * self.shard.size
        return self.ranks.sum(total, "mean of the data") / self.size

    @property
    def standard_deviation(self) -> float:
        return math.sqrt(2 * self._mean_half_norm / self.dim)


class ShardedEvaluator(Evaluator):
    """`Evaluator` of `SharedPoints`. All ranks must make the same calls with the same arguments.

    Attributes:
        own: `Evaluator` of the shard, None where there is none.
    """

    points: SharedPoints

    def __init__(self, points: SharedPoints, accuracy: Accuracy):
        super().__init__(points, accuracy)
        self._ranks = points.ranks
        self.own = None if points.shard is None else Evaluator(points.shard, accuracy)

    def moments(self, z: Tensor, sigma: Tensor, *, single: bool) -> Moments:
        self._ranks.agree("posterior", z.device, x=z, sigma=sigma)
        if self.own is None:
            sums = Moments(len(z), z.shape[1], z.device)
        else:
            sums = self.own.moments(z, sigma, single=single)
            sums.index += self.points.first
        merged = sums if self._ranks.count == 1 or len(z) == 0 else self._merged(z, sums)
        merged.method = f"sharded {sums.method or 'dense'}"
        return merged

    def tilt(self, z: Tensor, sigma: Tensor, tilt: Tilt, *, single: bool) -> Tensor:
        arguments = {"v": tilt.direction, "a": tilt.by_log_weight, "b": tilt.by_distance}
        self._ranks.agree("gradient or covariance_product", z.device, x=z, sigma=sigma, **arguments)
        if self.own is None:
            out = torch.zeros_like(z)
        else:
            out = self.own.tilt(z, sigma, tilt, single=single)
        return self._ranks.sum(out, "merge of the gradient") if len(z) else out

    def tilted_square(self, z: Tensor, sigma: Tensor, tilt: Tilt, *, single: bool) -> Tensor:
        arguments = {"v": tilt.direction, "a": tilt.by_log_weight, "b": tilt.by_distance}
        self._ranks.agree("gradient to sigma", z.device, x=z, sigma=sigma, **arguments)
        if self.own is None:
            out = torch.zeros_like(sigma)
        else:
            out = self.own.tilted_square(z, sigma, tilt, single=single)
        return self._ranks.sum(out, "merge of the gradient to sigma") if len(z) else out

    def log_weights(self, z: Tensor, sigma: Tensor, *, single: bool) -> Tensor:
        self._ranks.agree("weights", z.device, x=z, sigma=sigma)
        scores = torch.full((len(z), self.points.size), -torch.inf, dtype=torch.float64, device=z.device)
        if self.own is not None:
            mine = slice(self.points.first, self.points.first + self.own.points.size)
            scores[:, mine] = self.own.log_weights(z, sigma, single=single)
        return self._ranks.maximum(scores, "merge of the weights") if len(z) else scores

    def drift_bounds(self, z: Tensor, sigma: Tensor, index: Tensor, trials: tuple[float, ...]) -> Tensor:
        raise _unshared()

    def _merged(self, z: Tensor, sums: Moments) -> Moments:
        """The sums of all ranks, by one gathering of `COLUMNS` numbers a query and one all-reduce of the means."""
        ranks, points = self._ranks, self.points
        centre = points.centre.to(z)
        row = torch.zeros(len(z), COLUMNS, dtype=torch.float64, device=z.device)
        row[:, 0], row[:, 6] = -torch.inf, torch.inf
        if self.own is not None:
            leader = points.take(sums.index).to(z.device).flatten(1).double() - centre
            size = (sums.average + centre).norm(dim=1)
            columns = (
                sums.top,
                sums.total,
                sums.energy,
                sums.square,
                sums.average.square().sum(1),
                sums.index.double(),
                (leader - z).square().sum(1),
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
        first = (distance <= distance.amin(0) * (1 + _EQUAL)).int().argmax(0)
        out.index = index.gather(0, first[None])[0].long()
        weight = scale * total / out.total
        size = (out.average + centre).norm(dim=1).clamp_min(torch.finfo(torch.float64).tiny)
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


def _unshared() -> NotImplementedError:
    return NotImplementedError(
        "this reads all data on every rank and is not shared by ShardedDenoiser: "
        "use OptimalDenoiser(data) in one process"
    )
