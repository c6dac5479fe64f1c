"""Products of the data with queries and weights in digits of bytes, with what they leave out: for `screened`.

The data are bytes, y = (u + ½)/127.5 with u = u8 − 128 a signed byte. Queries and weights are written in digits
(`digits`), and one pass over the data multiplies them with any number of digits, without rounding.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ..points import Points
from .byte_digits import SUM_COLUMNS, Digits, product

__all__ = ["FLOAT32", "Scores", "combination", "gram", "products", "weighted_sum"]

_WINDOWS = (18.0, 21.0, 24.0, 27.0)
"""Points so many nats below the leader are left out: by the first that leaves out little, else by the last, where
N e⁻²⁷ is 1e-7 at N = 70,000."""
_LEFT_OUT = 2e-8
"""Little: largest weight, proven, of what is left out at a time. The variance misses this times a squared distance."""
_SCATTERED = 0.002
"""Share of points within the last window from which on the others are worth a look."""
_BLOCK_BYTES = 12 * 2**20
"""Bytes of the data multiplied at a time."""
FLOAT32 = 2.0**-24
"""Largest difference between (u + ½)/127.5 and the float32 number that `to_float` makes of it."""
_COLUMNS = 2048


@dataclass
class Scores:
    """Logits of b queries over the points `index` (None: all), as far as the digits go.

    Attributes:
        z: (b, D); sigma: (b,).
        index: (n,) the points, None for all of them.
        digits: of z.
        products: (b, n) float64, ẑ·(y_j − c), ẑ the digits so far.
        norms: (n,) ‖y_j − c‖.
        left_out: (b,), proven bound on the weight of the points that are no longer in `index`.
    """

    z: Tensor
    sigma: Tensor
    index: Tensor | None
    digits: Digits
    products: Tensor
    norms: Tensor
    left_out: Tensor

    @classmethod
    def of(cls, points: Points, z: Tensor, sigma: Tensor, index: Tensor | None = None) -> Scores:
        """Of all points, or those of `index`, before the first digit."""
        half_norms = points.half_norms.to(z.device)
        norms = (2 * (half_norms if index is None else half_norms[index])).sqrt()
        products = torch.zeros(len(z), len(norms), dtype=torch.float64, device=z.device)
        return cls(z, sigma, index, Digits(z.clone(), points.size), products, norms, torch.zeros_like(sigma))

    def add(self, points: Points, count: int) -> None:
        """Add so many digits, all in one pass over the points."""
        before = self.z - self.digits.rest
        pairs = [self.digits.next() for _ in range(count)]
        change = self.z - self.digits.rest - before
        # ẑ·(y − c) = Σ s q·u/127.5 + ẑ·(½/127.5 − c): the second term is one number a query.
        constant = change.sum(1) * (0.5 / 127.5) - change @ points.centre.to(change)
        # The data are the left matrix: the product packs the right one, which is small and the same for all blocks.
        stacked = torch.cat([digit for digit, _ in pairs]).T.contiguous()
        units = torch.cat([step for _, step in pairs]) / 127.5
        for part, block in points.signed(_BLOCK_BYTES, self.z.device, self.index):
            sums = product(block, stacked).double().mul_(units).view(-1, count, len(self.z)).sum(1)
            self.products[:, part] += sums.add_(constant).T

    def error(self, points: Points) -> tuple[Tensor, Tensor]:
        """Bound on the error of `logits`, a + b ‖y_j − c‖ nats, up to one number a query: a and b, (b,) each."""
        precision = self.sigma.square().reciprocal()
        return self.stored(points) * precision, self.digits.error * precision

    def logits(self) -> Tensor:
        """(b, n) nats; in the memory of `products`, which are lost."""
        return self.products.sub_(0.5 * self.norms.square()).div_(self.sigma.square()[:, None])

    def near(self, points: Points) -> Tensor:
        """(b, n) bool: all points but some that together have hardly any weight, which `left_out` grows by."""
        parts = [slice(i, i + _COLUMNS) for i in range(0, self.products.shape[1], _COLUMNS)]
        error, half = self.digits.error, 0.5 * self.norms.square()
        precision = self.sigma.square().reciprocal()
        # In units of σ² nats, with what is the same for all points left out, and in as few operations as can be.
        best = torch.full_like(self.sigma, -torch.inf)
        for part in parts:
            lower = torch.addr(self.products[:, part] - half[part], error, self.norms[part], alpha=-1)
            best = torch.maximum(best, lower.amax(1))
        best -= 2 * self.stored(points)
        # Nats by which each point leads at most: the total is at least 1, so weights are at most e to that.
        lead = torch.empty(self.products.shape, device=self.z.device)
        for part in parts:
            upper = torch.addr(self.products[:, part] - half[part], error, self.norms[part])
            lead[:, part] = upper.sub_(best[:, None]).mul_(precision[:, None])
        near = lead >= -_WINDOWS[-1]
        weight = self.products.new_zeros(len(_WINDOWS), len(self.z))
        weight[-1] = self.products.shape[1] * math.exp(-_WINDOWS[-1])
        if int(near.sum()) > _SCATTERED * near.numel():
            for part in parts:
                of = lead[:, part]
                most = of.exp()
                for window, sums in zip(_WINDOWS[:-1], weight, strict=False):
                    sums += most.masked_fill_(of >= -window, 0.0).sum(1)
            little = weight <= _LEFT_OUT
            little[-1] = True
            chosen = little.int().argmax(0)
            weight = weight.gather(0, chosen[None])
            near = lead >= -weight.new_tensor(_WINDOWS)[chosen, None].float()
        # 1.001 for the rounding of float32.
        self.left_out = self.left_out + 1.001 * weight[-1]
        return near

    def stored(self, points: Points) -> Tensor:
        """(b,): bound on what the rounding of `to_float` changes a product by."""
        return self.z.norm(dim=1) * (FLOAT32 * points.dim**0.5)

    def narrowed(self, rows: Tensor, keep: Tensor | None) -> Scores:
        """The same of the queries `rows` and, of the points, of those in the mask `keep` (None: all)."""
        if keep is None and len(rows) == len(self.z):
            return self
        if keep is None:
            index, norms, products = self.index, self.norms, self.products[rows]
        else:
            places = keep.nonzero().squeeze(1)
            index = places if self.index is None else self.index[places]
            norms, products = self.norms[places], self.products[rows[:, None], places]
        digits, left_out = self.digits.narrowed(rows), self.left_out[rows]
        return Scores(self.z[rows], self.sigma[rows], index, digits, products, norms, left_out)


def products(points: Points, z: Tensor, digits: int, index: Tensor | None = None) -> Tensor:
    """z·(y_j − c) of the points `index`, (B, n) float64, for z (B, D): right to z's last digit, and to `to_float`."""
    scores = Scores.of(points, z, torch.ones_like(z[:, 0]), index)
    scores.add(points, digits)
    return scores.products


def gram(points: Points, index: Tensor) -> Tensor:
    """(y_j − c)·(y_k − c) of the points `index`, (n, n) float64."""
    ((_, block),) = points.signed(len(index) * points.dim, points.device, index)
    sums = block.sum(1, dtype=torch.int32).double()
    total = (product(block, block.T) + 0.5 * (sums[:, None] + sums) + 0.25 * points.dim) / 127.5**2
    # ‖y − c‖² is known, and gives y·c.
    half = 0.5 * total.diagonal() - points.half_norms[index]
    return total - half[:, None] - half


def combination(points: Points, weights: Tensor, index: Tensor | None, accuracy: float) -> Tensor:
    """Σ_j w_j (y_j − c) over the points `index`, (B, D) float64, for weights (B, n) of either sign, which are used up.

    They are written in digits until what is left of them, Euclidean, is below `accuracy`.
    """
    digits, total = Digits(weights, 0), None
    rows = torch.arange(len(weights), device=weights.device)
    for count in (2, 1, 1, 1):
        part = weighted_sum(points, [(rows, *digits.next()) for _ in range(count)], len(rows), index)
        total = part if total is None else total + part
        if float(digits.rest.norm(dim=1).max()) <= accuracy:
            break
    assert total is not None
    return total


def weighted_sum(
    points: Points, parts: list[tuple[Tensor, Tensor, Tensor]], count: int, index: Tensor | None
) -> Tensor:
    """Σ_j w_j (y_j − c), (count, D), for weights in digits: of some rows each, and the values of their units."""
    rows, stacked, units = (torch.cat(of) for of in zip(*parts, strict=True))
    total = torch.zeros(len(stacked), points.dim, dtype=torch.float64, device=stacked.device)
    partial, weight, summed = total.int(), units.new_zeros(len(stacked)), 0
    for part, block in points.signed(_BLOCK_BYTES, stacked.device, index):
        if summed + len(block) > SUM_COLUMNS:
            total += partial
            partial, summed = partial.zero_(), 0
        partial += product(stacked[:, part], block).int()
        weight += stacked[:, part].sum(1)
        summed += len(block)
    total += partial
    total *= units[:, None] / 127.5
    total += (weight * units)[:, None] * (0.5 / 127.5 - points.centre.to(total))
    return total.new_zeros(count, points.dim).index_add_(0, rows, total)
