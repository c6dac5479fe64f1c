"""The empirical distribution as an object: N points y_j of probability π_j, 1/N unless told otherwise.

Everything the sums of Eq. 43 need from the data is here: rows relative to a fixed centre c, in a fixed unit s, and
h_j = ½‖(y_j − c)/s‖². Neither changes a posterior. The centre, a mean of some points after the far ones are clamped,
keeps the digits of x·y: of all points, however far away a few of them are. The unit, a power of two and so without
rounding, is 1 unless the points' radius lies far from it; then no square leaves the range of the numbers.

A uint8 array is taken as images, y = u8/127.5 − 1 in float32 arithmetic, and is never expanded as a whole.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from ..arithmetic import ours
from ..devices import block_bytes
from ..query import require_finite, require_levels
from .copies import first_copies
from .greys import doubt_greys
from .nearest import Screen, nearest, neighbours
from .part import Part
from .prior import Prior
from .rows import Rows, evenly
from .summary import Summary, centre_of, unit_of

__all__ = ["Points"]

_BLOCK_BYTES = 48 * 2**20
"""A block of rows in work precision: large enough for a matrix product, small enough for the processor's cache."""
_LOGITS = 2**19
"""Logits of a block, all queries together: 4 MiB. Without this bound, small events take 4 to 13 times longer."""
_COVARIANCE = 1024
"""Up to this many values in an event the covariance matrix is formed."""
_FEW_BYTES = 4 * 2**20
"""The same in float64 where there is no large product to feed: 5 times faster at D = 12,288 than 48 MiB."""
_RANGE = 2.0**250
"""Largest ratio of σ or ‖x − c‖ to the unit, and of the unit to σ: beyond, squares of ratios leave the range."""


class Points:
    """N data points; all inner numbers are relative to `centre` and in units of `unit`.

    Args:
        array: (N, *event), floating point or uint8; may be a memory map of any size.
        memory: budget in bytes; a map that is larger is streamed.
        centre, unit: those given, where other processes hold other parts.
        summary: where it is known: of the whole, where the points are shared by processes and no one reads all of them.
        prior: the probabilities of the points; None where all are the same.

    Attributes:
        centre, unit, half_norms, radius: see `Summary`.
        prior: see there.
        shared: whether several processes share the points: what would read all of them is refused.

    Raises:
        ValueError: the array is empty, has no point axis, holds nan or inf, is masked, or is neither float nor uint8.
    """

    def __init__(
        self,
        array: Tensor | np.ndarray | Rows | Part,
        memory: int = 2**30,
        *,
        centre: Tensor | None = None,
        unit: float | None = None,
        summary: Summary | None = None,
        prior: Prior | None = None,
    ):
        self.rows = array if isinstance(array, Rows | Part) else Rows(array, memory)
        self.memory, self.prior = memory, prior
        self.shared = summary is not None and summary.half_norms is None
        with ours():
            if summary is None:
                self.centre = centre_of(self.rows) if centre is None else centre
                summary = self._measured(unit)
        self.centre, self.unit, self.radius = summary.centre, summary.unit, summary.radius
        self._half_norms, self._mean_half_norm = summary.half_norms, summary.mean_half_norm
        self._offset = summary.offset

    def __len__(self) -> int:
        return self.size

    @property
    def event(self) -> tuple[int, ...]:
        """Shape of one point."""
        return self.rows.event

    @property
    def size(self) -> int:
        """N."""
        return self.rows.size

    @property
    def of(self) -> int:
        """How many points the data have: more than N where a prior has taken some away."""
        return self.rows.of

    @property
    def dim(self) -> int:
        """D, the number of values of a point."""
        return self.rows.dim

    @property
    def device(self) -> torch.device:
        return self.rows.device

    @property
    def streamed(self) -> bool:
        """Whether blocks are read ahead from a file and given back."""
        return self.rows.streamed

    @property
    def bytes(self) -> bool:
        """Whether the points are images kept as bytes, for `signed`."""
        return self.rows.dtype == torch.uint8

    @property
    def log_weights(self) -> Tensor | None:
        """(N,) float64, a_j = log π_j, on the points' device; None where all are −log N."""
        return None if self.prior is None else self.prior.log_weights

    def log_weight(self, index: Tensor) -> Tensor:
        """a_j = log π_j of the points `index`, like it in shape, float64."""
        if self.prior is None:
            return torch.full(index.shape, -math.log(self.size), dtype=torch.float64, device=index.device)
        return self.prior.log_weights.to(index.device)[index]

    def log_share_without(self, index: Tensor) -> Tensor:
        """log Σ_{k≠j} π_k for every j of `index`, (B,) int64: (B,) float64; 0 where j is −1, none."""
        own = self.log_weight(index.clamp_min(0))
        share = torch.log1p(-own.exp().clamp_max(0.5))
        for row in (own > math.log(0.5)).nonzero().squeeze(1).tolist():
            # Hardly anything is left beside it, and no digit of a difference.
            others = self.log_weight(torch.arange(self.size, device=index.device))
            others[index[row]] = -torch.inf
            share[row] = others.logsumexp(0)
        return share.masked_fill(index < 0, 0.0)

    def weighted(self, log_weights: Tensor) -> Points:
        """The same points under the prior π_j e^{b_j}: rows, norms, centre and unit are shared, not copied.

        Args:
            log_weights: (N,) float64, b_j, those of the data of which these points are; −inf takes a point away.

        Raises:
            ValueError: no point is left.
        """
        rows, kept, prior = self.reweighted(log_weights)
        half_norms = self.half_norms if len(kept) == self.size else self.half_norms[kept]
        mean = half_norms.mean() if prior is None else prior.weights @ half_norms
        radius = math.sqrt(2 * float(half_norms.max()))
        summary = Summary(self.centre, self.unit, half_norms, None, radius, float(mean))
        out = Points(rows, self.memory, summary=summary, prior=prior)
        if len(kept) == self.size and "first_copies" in vars(self):
            out.first_copies = self.first_copies
        return out

    def reweighted(self, log_weights: Tensor) -> tuple[Rows | Part, Tensor, Prior | None]:
        """The rows that are left under the prior π_j e^{b_j}, which of these points they are, (n,), and the prior.

        Args, Raises: as for `weighted`.
        """
        own = log_weights.to(self.device)
        if isinstance(self.rows, Part):
            own = own[self.rows.index]
        if self.prior is not None:
            own = own + self.prior.log_weights
        kept = (own > -torch.inf).nonzero().squeeze(1)
        if len(kept) == 0:
            raise ValueError("log_weights must leave at least one point, none that has a probability is left")
        rows = self.rows
        if len(kept) < self.size:
            whole, index = (rows.whole, rows.index[kept]) if isinstance(rows, Part) else (rows, kept)
            rows = Part(whole, index)
        return rows, kept, Prior.of(own[kept])

    def outer(self, index: Tensor) -> Tensor:
        """Which of the data the points `index` are, where some of the data have no weight; −1 stays."""
        if not isinstance(self.rows, Part):
            return index
        known = self.rows.index.to(index.device)
        return torch.where(index < 0, index, known[index.clamp_min(0)])

    def inner(self, index: Tensor) -> Tensor:
        """The places among these points of the data points `index`; −1 for those that have no weight."""
        if not isinstance(self.rows, Part):
            return index
        known = self.rows.index.to(index.device)
        place = torch.searchsorted(known, index.contiguous()).clamp_max(len(known) - 1)
        return torch.where(known[place] == index, place, -1)

    @property
    def half_norms(self) -> Tensor:
        """(N,) float64, ½‖y_j − c‖²."""
        if self._half_norms is None:
            raise _unshared()
        return self._half_norms

    @property
    def mean_half_norm(self) -> float:
        """Σ_j π_j h_j."""
        return self._mean_half_norm

    @functools.cached_property
    @ours()
    def offset(self) -> Tensor:
        """(D,) float64, E x0 − c in units of `unit`: one pass over the points where it is not known yet."""
        if self._offset is not None:
            return self._offset
        out = torch.zeros(self.dim, dtype=torch.float64, device=self.device)
        for start, block in self.blocks(self.few_rows, self.device):
            out += self._share(start, len(block)) @ block
        return out

    @property
    def largest_norm(self) -> float:
        """At least max_j ‖y_j‖, in units of the data."""
        return self.radius * self.unit + float(self.centre.norm())

    @property
    def few_rows(self) -> int:
        """Rows of a float64 block that stays in the cache of one core, and within the budget."""
        return max(1, min(_FEW_BYTES, self.memory // 4) // (8 * self.dim))

    @property
    def mean(self) -> Tensor:
        """E x0, (*event) float64."""
        return self.restored(self.offset[None])[0]

    @property
    def standard_deviation(self) -> float:
        """√(E‖x0 − E x0‖² / D) under the prior, in units of the data."""
        variance = 2 * self._mean_half_norm - float(self.offset.square().sum())
        return self.unit * math.sqrt(max(variance, 0.0) / self.dim)

    @property
    def spread(self) -> float:
        """How far the points lie apart, in units of the data: √tr Cov[x0] without a prior.

        Under a prior, in which one point may be all, the root of the mean of ‖y_j − c‖² over the points.
        """
        if self.prior is None:
            return math.sqrt(self.dim) * self.standard_deviation
        return self.unit * math.sqrt(2 * float(self.half_norms.mean()))

    def reduced(self, x: Tensor) -> Tensor:
        """(x − c)/unit, (B, D) float64, of x (B, *event); carries x's graph."""
        z = x.reshape(len(x), self.dim).double() - self.centre.to(x.device)
        return z if self.unit == 1 else z / self.unit

    def restored(self, z: Tensor) -> Tensor:
        """c + unit·z, (B, *event) float64, of z (B, D)."""
        scaled = z if self.unit == 1 else z * self.unit
        return (scaled + self.centre.to(z.device)).reshape(len(z), *self.event)

    def check(self, z: Tensor, sigma: Tensor) -> None:
        """Raise ValueError unless queries z, (B, D), and levels, (B,), in units of the points, can be answered.

        They must be finite, the levels positive, neither so far from the size of the data that squares of ratios leave
        the range of the numbers; and the data unchanged.
        """
        self.rows.check()
        usable = (sigma >= 1 / _RANGE) & (sigma <= _RANGE)
        if not usable.all():
            require_levels(sigma * self.unit)
            raise ValueError(
                f"sigma must lie between {self.unit / _RANGE:.3g} and {self.unit * _RANGE:.3g} for these data, got "
                f"{float(sigma[~usable][0]) * self.unit:g}"
            )
        near = torch.linalg.vector_norm(z, torch.inf, dim=1) <= _RANGE
        if not near.all():
            require_finite(z)
            row = int((~near).nonzero()[0])
            raise ValueError(f"x must lie within {self.unit * _RANGE:.3g} of these data, row {row} does not")
        doubt_greys(self, z)

    def block_rows(
        self, batch: int = 1, memory: int | None = None, itemsize: int = 8, device: torch.device | None = None
    ) -> int:
        """Rows of a block: it and its (batch, rows) logits stay in cache, and within half of `memory` bytes."""
        memory = self.memory if memory is None else memory
        where = device or self.device
        logits = block_bytes(8 * _LOGITS, where) // (8 * max(batch, 1))
        in_cache = min(block_bytes(_BLOCK_BYTES, where) // (itemsize * self.dim), logits)
        in_budget = min(memory // (4 * itemsize * self.dim), memory // (4 * 8 * 6 * max(batch, 1)))
        return evenly(self.size, max(1, min(in_cache, in_budget)))

    def read(self, where: slice | Tensor, out: Tensor, scratch: Tensor | None = None) -> Tensor:
        """Write (y[where] − c)/unit into the rows of `out`, in its dtype, and return those rows.

        `scratch`, float32 and like `out`, spares images that are read as float64 a new tensor.
        """
        with self.rows.opened(where) as rows:
            block = rows.to(out.device)
            out = out[: len(block)]
            if block.dtype == torch.uint8:
                # `to_float` without new tensors: in place, all of this stays in cache.
                if out.dtype == torch.float32:
                    scratch = out
                elif scratch is None:
                    scratch = torch.empty_like(out, dtype=torch.float32)
                block = scratch[: len(block)].copy_(block).div_(127.5).sub_(1)
            elif block.dtype == torch.float64 and out.dtype != torch.float64:
                # Rounded before the difference, points far from 0 would lose what tells them apart.
                return out.copy_((block / self.unit).sub_(self.centre.to(block) / self.unit))
            if block is not out:
                out.copy_(block)
            if self.unit == 1:
                return out.sub_(self.centre.to(out))
            return out.mul_(1 / self.unit).sub_((self.centre / self.unit).to(out))

    def blocks(
        self, rows: int, device: torch.device, index: Tensor | None = None, dtype: torch.dtype = torch.float64
    ) -> Iterator[tuple[int, Tensor]]:
        """Yield (start, y[start : start + rows] − c) over all points or y[index]; one buffer serves all."""
        if index is None:
            self.whole()
        count = self.size if index is None else len(index)
        buffer = torch.empty(min(rows, count), self.dim, dtype=dtype, device=device)
        scratch = torch.empty_like(buffer, dtype=torch.float32) if dtype != torch.float32 and self.bytes else None
        for start in range(0, count, rows):
            part = slice(start, start + rows)
            yield start, self.read(part if index is None else index[part], buffer, scratch)

    def signed(
        self, size: int, device: torch.device, index: Tensor | None = None, *, columns: int = 0
    ) -> Iterator[tuple[slice, Tensor]]:
        """Yield (places, u8 − 128 as int8, (n, D)) over all points or those of `index`, about `size` bytes at a time.

        On a GPU in larger blocks, which with `columns` sums of a point, 12 bytes each, have the size of `block_bytes`.

        y = (u8 − 128 + ½)/127.5, but for the rounding of `to_float`. One buffer serves all.
        """
        count = self.size if index is None else len(index)
        whole = block_bytes(size, device)
        rows = evenly(count, max(1, size // self.dim, whole // (self.dim + 12 * columns) if whole > size else 1))
        buffer = torch.empty(rows, self.dim, dtype=torch.uint8, device=device)
        for start in range(0, count, rows):
            part = slice(start, min(start + rows, count))
            with self.rows.opened(part if index is None else index[part], buffer) as block:
                # Bit for bit, u8 ^ 128 is the signed byte u8 − 128.
                signed = torch.bitwise_xor(block.to(device), 128, out=buffer[: len(block)]).view(torch.int8)
            yield part, signed

    def take(self, index: Tensor) -> Tensor:
        """y[index], (len(index), *event), in the data's own precision; images as float32."""
        return self.rows.take(index)

    def exact(self, index: Tensor, device: torch.device) -> Tensor:
        """y[index] themselves, (len(index), D) float64, in units of the data and relative to 0."""
        return self.rows.exact(index).to(device)

    def whole(self) -> None:
        """Raise NotImplementedError where several processes share the points, for what would read all of them."""
        if self.shared:
            raise _unshared()

    @functools.cached_property
    def first_copies(self) -> Tensor:
        """For every point the first one that equals it, (N,) int64, on the CPU."""
        self.whole()
        return first_copies(self.rows)

    @ours()
    def covariance(self) -> Tensor | None:
        """Σ π_j (y_j − ȳ)(y_j − ȳ)ᵀ, (D, D) float64, in units of the data; None beyond 1,024 values."""
        if self.dim > _COVARIANCE:
            return None
        second = torch.zeros(self.dim, self.dim, dtype=torch.float64, device=self.device)
        for start, block in self.blocks(self.few_rows, self.device):
            block.sub_(self.offset)
            second += block.T @ (block * self._share(start, len(block))[:, None])
        return second * self.unit**2

    @ours()
    def nearest(self, z: Tensor, screen: Screen | None = None) -> Tensor:
        """The point nearest to each query z, (B, D): (B,) int64; the first in the data among equals."""
        return nearest(self, z, screen)

    @ours()
    def neighbours(self, z: Tensor, count: int, screen: Screen | None = None) -> tuple[Tensor, Tensor]:
        """The `count` nearest distinct points: (B, count) int64, and the distances in units of the data, float64."""
        return neighbours(self, z, count, screen)

    def half_distances(self, z: Tensor) -> Iterator[tuple[int, Tensor]]:
        """Yield (start, ½‖z − (y_j − c)‖² − ½‖z‖² of a block, (B, n)) over all points, for z (B, D) float64."""
        for start, block in self.blocks(self.block_rows(len(z)), z.device):
            yield start, self.half_norms[start : start + len(block)].to(z.device) - z @ block.T

    def _share(self, start: int, count: int) -> Tensor:
        """π_j of `count` points from `start` on, float64."""
        if self.prior is None:
            return torch.full((count,), 1 / self.size, dtype=torch.float64, device=self.device)
        return self.prior.log_weights[start : start + count].exp()

    def _measured(self, unit: float | None) -> Summary:
        """One pass over all points; a second one where their size asks for a unit of its own."""
        self.unit = 1.0 if unit is None else unit
        half_norms, offset = self._norms()
        largest = float(half_norms.max())
        radius = math.sqrt(2 * largest) if math.isfinite(largest) else largest
        if unit is None and radius > 0 and unit_of(math.log2(radius)) != 1:
            size = max(float(block.abs().max()) for _, block in self.blocks(self.few_rows, self.device))
            if 0 < size < math.inf:
                self.unit = unit_of(math.log2(size) + 0.5 * math.log2(self.dim))
                half_norms, offset = self._norms()
        if not torch.isfinite(half_norms).all():
            self._refuse((~torch.isfinite(half_norms)).nonzero().squeeze(1))
        radius = math.sqrt(2 * float(half_norms.max()))
        return Summary(self.centre, self.unit, half_norms, offset, radius, float(half_norms.mean()))

    def _refuse(self, index: Tensor) -> None:
        """Raise the ValueError for points whose squares are no numbers."""
        sizes = torch.cat([self.rows.exact(part).abs().amax(1) for part in index.split(self.few_rows)])
        sizes.nan_to_num_(math.inf, math.inf)
        largest = sizes.max()
        rule = "below 1e150" if largest < math.inf else "finite"
        raise ValueError(f"data must be {rule}, point {int(index[sizes == largest][0])} is not")

    def _norms(self) -> tuple[Tensor, Tensor]:
        # Filled in place: thousands of small results between the large temporaries would fragment the heap.
        half_norms = torch.empty(self.size, dtype=torch.float64, device=self.device)
        offset = torch.zeros(self.dim, dtype=torch.float64, device=self.device)
        for start, block in self.blocks(self.few_rows, self.device):
            offset += block.sum(0)
            torch.sum(block.square_(), 1, out=half_norms[start : start + len(block)]).mul_(0.5)
        return half_norms, offset / self.size


def _unshared() -> NotImplementedError:
    return NotImplementedError(
        "this reads all data on every rank and is not shared by ShardedDenoiser: "
        "use OptimalDenoiser(data) in one process"
    )
