"""Products of the data with queries and weights in digits of bytes, with what they leave out: for `screened`.

The data are bytes, y = (u + ½)/127.5 + κ with u = u8 − 128 a signed byte. Queries and weights are written in digits
(`byte_digits`), and one pass over the data multiplies them with any number of digits, without rounding. The bounds are
those of `optimal.evaluate.proof`, whose sections are named here.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ..points import Points
from ..points.rounding import UNIT, gamma
from .byte_digits import SUM_COLUMNS, Digits, Streams, product
from .proof import MOST_STEPS, SINGLE, bytes_as_floats, upper

__all__ = ["NOTHING", "TERMS", "ByteLogits", "combination", "gram", "products", "weighted_sum"]

_WINDOWS = (18.0, 21.0, 24.0, 27.0)
"""Points so many nats below the leader are left out: by the first that leaves out little, else by the last, where
N e⁻²⁷ is 1e-7 at N = 70,000."""
NOTHING = 2e-8
"""Little: largest weight, proven, of what is left out at a time. The variance misses this times a squared distance."""
_SCATTERED = 0.002
"""Share of points within the last window from which on the others are worth a look."""
_BLOCK_BYTES = 12 * 2**20
"""Bytes of the data multiplied at a time."""
_COLUMNS = 2048
TERMS = 2.02
"""Largest value of (|u| + ½)/127.5 + |κ − c|, for c in [−1, 1]."""


@dataclass
class ByteLogits:
    """Logits of b queries over the points `index` (None: all), as far as the digits go.

    Attributes:
        z: (b, D); sigma: (b,).
        index: (n,) the points, None for all of them.
        digits: of z.
        products: (b, n) float64, ẑ·(y_j − c), ẑ the digits so far.
        half_norms: (n,) ½‖y_j − c‖²; norms: (n,) at least ‖y_j − c‖.
        log_weights: (n,) the prior's a_j, None where they are all the same.
        left_out: (b,), proven bound on the weight of the points that are no longer in `index`.
    """

    points: Points
    z: Tensor
    sigma: Tensor
    index: Tensor | None
    digits: Digits
    products: Tensor
    half_norms: Tensor
    norms: Tensor
    log_weights: Tensor | None
    left_out: Tensor

    @classmethod
    def of(
        cls, points: Points, z: Tensor, sigma: Tensor, index: Tensor | None = None, streams: Streams | None = None
    ) -> ByteLogits:
        """Of all points, or those of `index`, before the first digit; rounded to nearest without `streams`."""
        half_norms, log_weights = points.half_norms.to(z.device), points.log_weights
        log_weights = None if log_weights is None else log_weights.to(z.device)
        if index is not None:
            half_norms, log_weights = half_norms[index], None if log_weights is None else log_weights[index]
        products = torch.zeros(len(z), len(half_norms), dtype=torch.float64, device=z.device)
        norms = upper((2 * half_norms).sqrt(), points.dim)
        digits = Digits(z.clone(), points.size, streams)
        left_out = torch.zeros_like(sigma)
        return cls(points, z, sigma, index, digits, products, half_norms, norms, log_weights, left_out)

    @property
    def places(self) -> Tensor:
        """(n,) the points, where `index` may be None."""
        return torch.arange(self.points.size, device=self.z.device) if self.index is None else self.index

    def add(self, count: int) -> None:
        """Add so many digits, all in one pass over the points."""
        before = self.z - self.digits.rest
        pairs = [self.digits.next() for _ in range(count)]
        change = self.z - self.digits.rest - before
        # ẑ·(y − c) = Σ s q·u/127.5 + ẑ·(½/127.5 + κ − c): the second term is one number a query.
        constant = change.sum(1) * _offset(self.z.device) - change @ self.points.centre.to(change)
        # The data are the left matrix: the product packs the right one, which is small and the same for all blocks.
        stacked = torch.cat([digit for digit, _ in pairs]).T.contiguous()
        units = torch.cat([step for _, step in pairs]) / 127.5
        for part, block in self.points.signed(_BLOCK_BYTES, self.z.device, self.index, columns=stacked.shape[1]):
            sums = product(block, stacked).double().mul_(units).view(-1, count, len(self.z)).sum(1)
            self.products[:, part] += sums.add_(constant).T

    def error(self) -> tuple[Tensor, Tensor]:
        """α and β, (b,) each: the error of `scores` is at most α + β ‖y_j − c‖ (section 3)."""
        dim, length = self.points.dim, upper(self.z.norm(dim=1), self.points.dim)
        largest = self.norms.max()
        common = (length + self.digits.left) * (bytes_as_floats(self.z.device)[1] * dim**0.5)
        common += gamma(MOST_STEPS) * TERMS * dim**0.5 * self.digits.reach + gamma(dim + 16) * 0.5 * largest.square()
        if self.points.prior is not None:
            common += gamma(MOST_STEPS) * self.sigma.square() * self.points.prior.reach
        return common, self.digits.error + 2 * UNIT * length

    def doubt(self) -> Tensor:
        """(b,): what all `products` of a query may be off by together (section 3)."""
        return gamma(self.points.dim + 16) * TERMS * self.points.dim**0.5 * self.digits.reach

    def logits(self) -> Tensor:
        """(b, n) nats; in the memory of `products`, which are lost."""
        logits = self.products.sub_(self.half_norms).div_(self.sigma.square()[:, None])
        return logits if self.log_weights is None else logits.add_(self.log_weights)

    def scores(self, part: slice) -> Tensor:
        """σ² times the logits of some of the points, (b, m)."""
        scores = self.products[:, part] - self.half_norms[part]
        return scores if self.log_weights is None else scores.addr_(self.sigma.square(), self.log_weights[part])

    def extent(self) -> tuple[Tensor, Tensor, Tensor]:
        """Of the largest λ_j, σ² times a logit: at least, at most, (b,) each, but for `doubt`; and a point near it."""
        best = torch.full_like(self.sigma, -torch.inf)
        place = torch.zeros_like(self.sigma, dtype=torch.int64)
        for first in range(0, self.products.shape[1], _COLUMNS):
            found, at = self.scores(slice(first, first + _COLUMNS)).max(1)
            place = torch.where(found > best, at + first, place)
            best = torch.maximum(best, found)
        common, error = self.error()
        index = place if self.index is None else self.index[place]
        return best - common - error * self.norms[place], best + common + error * self.norms.max(), index

    def near(self) -> Tensor:
        """(b, n) bool: all but some that together have hardly any weight, which `left_out` grows by (section 4)."""
        parts = [slice(i, i + _COLUMNS) for i in range(0, self.products.shape[1], _COLUMNS)]
        common, error = self.error()
        precision = self.sigma.square().reciprocal()
        # In units of σ² nats, with what is the same for all points left out, and in as few operations as can be.
        best = torch.full_like(self.sigma, -torch.inf)
        for part in parts:
            lower = self.scores(part).addr_(error, self.norms[part], alpha=-1)
            best = torch.maximum(best, lower.amax(1))
        best -= 2 * common
        # Nats by which each point leads at most: the total is at least 1, so weights are at most e to that.
        lead = torch.empty(self.products.shape, dtype=torch.float32, device=self.z.device)
        for part in parts:
            upper_lead = self.scores(part).addr_(error, self.norms[part])
            lead[:, part] = upper_lead.sub_(best[:, None]).mul_(precision[:, None])
        near = lead >= -_WINDOWS[-1]
        weight = self.products.new_zeros(len(_WINDOWS), len(self.z))
        weight[-1] = self.products.shape[1] * math.exp(-_WINDOWS[-1])
        if int(near.sum()) > _SCATTERED * near.numel():
            for part in parts:
                of = lead[:, part]
                most = of.exp()
                for window, sums in zip(_WINDOWS[:-1], weight, strict=False):
                    sums += most.masked_fill_(of >= -window, 0.0).sum(1)
            little = weight <= NOTHING
            little[-1] = True
            chosen = little.int().argmax(0)
            weight = weight.gather(0, chosen[None])
            near = lead >= -weight.new_tensor(_WINDOWS)[chosen, None].float()
        tiny = self.products.shape[1] * torch.finfo(torch.float32).tiny
        self.left_out = self.left_out + (SINGLE * weight[-1] + tiny)
        return near

    def narrowed(self, rows: Tensor, keep: Tensor | None) -> ByteLogits:
        """The same of the queries `rows` and, of the points, of those in the mask `keep` (None: all)."""
        if keep is None and len(rows) == len(self.z):
            return self
        index, half_norms, norms, log_weights = self.index, self.half_norms, self.norms, self.log_weights
        if keep is None:
            products = self.products[rows]
        else:
            places = keep.nonzero().squeeze(1)
            index = places if index is None else index[places]
            half_norms, norms, products = half_norms[places], norms[places], self.products[rows[:, None], places]
            log_weights = None if log_weights is None else log_weights[places]
        return dataclasses.replace(
            self,
            z=self.z[rows],
            sigma=self.sigma[rows],
            index=index,
            digits=self.digits.narrowed(rows),
            products=products,
            half_norms=half_norms,
            norms=norms,
            log_weights=log_weights,
            left_out=self.left_out[rows],
        )


def _offset(device: torch.device) -> float:
    """½/127.5 + κ: what y is over u/127.5."""
    return 0.5 / 127.5 + bytes_as_floats(device)[0]


def products(points: Points, z: Tensor, digits: int, index: Tensor | None = None) -> Tensor:
    """z·(y_j − c) of the points `index`, (B, n) float64, for z (B, D): right to z's last digit, and to `to_float`."""
    logits = ByteLogits.of(points, z, torch.ones_like(z[:, 0]), index)
    logits.add(digits)
    return logits.products


def gram(points: Points, index: Tensor) -> Tensor:
    """(y_j − c)·(y_k − c) of the points `index`, (n, n) float64."""
    ((_, block),) = points.signed(len(index) * points.dim, points.device, index)
    sums = block.sum(1, dtype=torch.int64).double()
    offset = 127.5 * _offset(points.device)
    total = (product(block, block.T) + offset * (sums[:, None] + sums) + offset**2 * points.dim) / 127.5**2
    # ‖y − c‖² is known, and gives y·c.
    half = 0.5 * total.diagonal() - points.half_norms[index]
    return total - half[:, None] - half


def combination(points: Points, weights: Tensor, index: Tensor | None, accuracy: float) -> Tensor:
    """Σ_j w_j (y_j − c) over the points `index`, (B, D) float64, for weights (B, n) of either sign, which are used up.

    They are written in digits until what is left of them, Euclidean, is below `accuracy`.
    """
    digits, total = Digits(weights), None
    rows = torch.arange(len(weights), device=weights.device)
    for count in (2, 1, 1, 1):
        part = weighted_sum(points, [(rows, *digits.next()) for _ in range(count)], len(rows), index)
        total = part if total is None else total + part
        if float(digits.left.max()) <= accuracy:
            break
    assert total is not None
    return total


def weighted_sum(
    points: Points, parts: list[tuple[Tensor, Tensor, Tensor]], count: int, index: Tensor | None
) -> Tensor:
    """Σ_j w_j (y_j − c), (count, D), for weights in digits: of some rows each, and the values of their units."""
    rows, stacked, units = (torch.cat(of) for of in zip(*parts, strict=True))
    total = torch.zeros(len(stacked), points.dim, dtype=torch.float64, device=stacked.device)
    partial = torch.zeros(len(stacked), points.dim, dtype=torch.int32, device=stacked.device)
    weight, summed = units.new_zeros(len(stacked)), 0
    for part, block in points.signed(_BLOCK_BYTES, stacked.device, index):
        if summed + len(block) > SUM_COLUMNS:
            total += partial
            partial, summed = partial.zero_(), 0
        sums = product(stacked[:, part], block)
        weight += stacked[:, part].sum(1, dtype=torch.int64)
        if len(block) > SUM_COLUMNS:
            total += sums
        else:
            partial += sums.int()
            summed += len(block)
    total += partial
    total *= units[:, None] / 127.5
    total += (weight * units)[:, None] * (_offset(total.device) - points.centre.to(total))
    return total.new_zeros(count, points.dim).index_add_(0, rows, total)
