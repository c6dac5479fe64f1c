"""The sums over images by products of 8-bit integers, with a bound on what they leave out.

The data are bytes, y = (u + ½)/127.5 with u = u8 − 128 a signed byte, so products of bytes with bytes, three times as
fast as float32 on processors with such an instruction, give every inner product. The query z = x − c is written in
digits of 8 bits,

    z = s₁ q₁ + s₂ q₂ + … + r,        q_i signed bytes,  s_{i+1} = s_i/127,

and one pass over the data with q_i adds digit i of z·(y_j − c) for every j, without rounding: the sums stay below 2³¹.
What is not known yet is r·(y_j − c). Two bounds hold for it, and the smaller counts:

    |r·v| <= ‖r‖ ‖v‖                              always;
    |r·v| <= s ‖v‖ √(½ ln(2N/10⁻¹²)) ≈ 4.4 s ‖v‖     with probability 1 − 10⁻¹² for all N points and a digit,

the second because digits are rounded at random (q = ⌊z/s + d⌋, d uniform, the same for every query; Hoeffding's
inequality for a sum of independent terms of mean 0 and range s|v_i|). At D = 12,288 it is 7 times the tighter one.

One digit of all queries in one pass; then, for each query:

sharp    few points can lie within 27 nats of the leader. They alone are scored again, in float64.
spread   many can. More digits are computed until the bound on logits is below a quarter of the tolerance, which needs
         few; the mean is then again a product of bytes, the weights written in digits as the query was.

In both cases what was left out is bounded: `Moments.bound` is a proven bound on ‖mean − exact mean‖ over ‖mean‖, from
the weight of the points left out, the logits' errors and the weights' last digit. What no digit mends is the
rounding of u8/127.5 − 1 to float32; its bound, 2⁻²⁴ D/σ nats for x = x0 + σ ε, is above a quarter of the default
tolerance for σ below 3 at D = 12,288. There the points that are left are scored in float64, few or many.

Data in floating point are no bytes; they are screened in float32 by `dense`, which has an estimate and no bound. Where
no fast product of bytes exists, the same digits go through float32 products (`digits`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from . import dense
from .dense import tilt
from .digits import SUM_COLUMNS, Digits, product
from .moments import Moments
from .points import Points

__all__ = ["moments", "tilt"]

_WINDOW = 27.0
"""Points further below the leader than this many nats are left out: N e⁻²⁷ is 1e-7 at N = 70,000."""
_ENOUGH = 2.5e-4
"""Digits are added until the bound on the logits is below so many nats, or below a quarter of the tolerance."""
_FEW = 3000
"""Up to so many points, for all queries together, are scored in float64; and no more than an eighth of the data."""
_MOST = 6
"""Digits after which float64 itself is the limit."""
_BLOCK_BYTES = 12 * 2**20
"""Bytes of the data multiplied at a time."""
_FLOAT32 = 2.0**-24
"""Largest difference between (u + ½)/127.5 and the float32 number that `to_float` makes of it."""
_COLUMNS = 1024
_GATHER = 0.5
"""Above this share of the data, all of it is read rather than the points in question."""
_LIKELY = 5e-6
"""Digits are added to the weights until the bound on what is left, relative to the mean, is a quarter of the tolerance,
and its expected size this."""


@dataclass
class _Scores:
    """Logits of b queries over the points `index` (None: all), as far as the digits go.

    Attributes:
        z: (b, D); sigma: (b,).
        index: (n,) the points, None for all of them.
        digits: of z.
        products: (b, n) float64, ẑ·(y_j − c), ẑ the digits so far.
        norms: (n,) ‖y_j − c‖.
    """

    z: Tensor
    sigma: Tensor
    index: Tensor | None
    digits: Digits
    products: Tensor
    norms: Tensor

    def add(self, points: Points, count: int) -> None:
        """Add so many digits, all in one pass over the points."""
        before = self.z - self.digits.rest
        pairs = [self.digits.next() for _ in range(count)]
        change = self.z - self.digits.rest - before
        # ẑ·(y − c) = Σ s q·u/127.5 + ẑ·(½/127.5 − c): the second term is one number a query.
        constant = change.sum(1) * (0.5 / 127.5) - change @ points.centre.to(change)
        stacked = torch.cat([digit for digit, _ in pairs])
        units = torch.cat([step for _, step in pairs])[:, None] / 127.5
        for part, block in points.signed(_BLOCK_BYTES, self.z.device, self.index):
            sums = product(stacked, block.T).double().mul_(units).view(count, len(self.z), -1).sum(0)
            self.products[:, part] += sums.add_(constant[:, None])

    def error(self, points: Points) -> tuple[Tensor, Tensor]:
        """Bound on the error of `logits`, a + b ‖y_j − c‖ nats, up to one number a query: a and b, (b,) each."""
        precision = self.sigma.square().reciprocal()
        return self.stored(points) * precision, self.digits.error * precision

    def logits(self) -> Tensor:
        """(b, n) nats; in the memory of `products`, which are lost."""
        return self.products.sub_(0.5 * self.norms.square()).div_(self.sigma.square()[:, None])

    def near(self, points: Points) -> Tensor:
        """(b, n) bool: the points that can lie within the window of the leader."""
        parts = [slice(i, i + _COLUMNS) for i in range(0, self.products.shape[1], _COLUMNS)]
        error, half = self.digits.error, 0.5 * self.norms.square()
        # In units of σ² nats, with what is the same for all points left out, and in as few operations as can be.
        best = torch.full_like(self.sigma, -torch.inf)
        for part in parts:
            lower = torch.addr(self.products[:, part] - half[part], error, self.norms[part], alpha=-1)
            best = torch.maximum(best, lower.amax(1))
        window = _WINDOW * self.sigma.square() + 2 * self.stored(points)
        floor = (best - window)[:, None]
        near = torch.empty(self.products.shape, dtype=torch.bool, device=self.z.device)
        for part in parts:
            upper = torch.addr(self.products[:, part] - half[part], error, self.norms[part])
            torch.ge(upper, floor, out=near[:, part])
        return near

    def stored(self, points: Points) -> Tensor:
        """(b,): bound on what the rounding of `to_float` changes a product by."""
        return self.z.norm(dim=1) * (_FLOAT32 * points.dim**0.5)

    def narrowed(self, rows: Tensor, keep: Tensor | None) -> _Scores:
        """The same of the queries `rows` and, of the points, of those in the mask `keep` (None: all)."""
        if keep is None and len(rows) == len(self.z):
            return self
        digits = self.digits.narrowed(rows)
        if keep is None:
            return _Scores(self.z[rows], self.sigma[rows], self.index, digits, self.products[rows], self.norms)
        places = keep.nonzero().squeeze(1)
        index = places if self.index is None else self.index[places]
        products = self.products[rows[:, None], places]
        return _Scores(self.z[rows], self.sigma[rows], index, digits, products, self.norms[places])


def products(points: Points, z: Tensor, digits: int = 4, index: Tensor | None = None) -> Tensor:
    """z·(y_j − c) of the points `index`, (B, n) float64, for z (B, D): right to z's last digit, and to `to_float`."""
    norms = (2 * (points.half_norms if index is None else points.half_norms[index])).sqrt()
    out = torch.zeros(len(z), len(norms), dtype=torch.float64, device=z.device)
    scores = _Scores(z, torch.ones_like(z[:, 0]), index, Digits(z.clone(), points.size), out, norms)
    for _ in range(digits // 2):
        scores.add(points, 2)
    return out


def combination(points: Points, weights: Tensor, index: Tensor | None, accuracy: float) -> Tensor:
    """Σ_j w_j (y_j − c) over the points `index`, (B, D) float64, for weights (B, n) of either sign, which are used up.

    They are written in digits until what is left of them, Euclidean, is below `accuracy`.
    """
    digits, total = Digits(weights, 0), None
    for count in (2, 1, 1, 1):
        part = _weighted_sum(points, [digits.next() for _ in range(count)], index)
        total = part if total is None else total + part
        if float(digits.rest.norm(dim=1).max()) <= accuracy:
            break
    assert total is not None
    return total


def moments(
    points: Points,
    z: Tensor,
    sigma: Tensor,
    *,
    single: bool,
    memory: int,
    tolerance: float,
    certified: bool,
) -> Moments:
    """The running sums of `Moments` over the whole data, with their bound, for z (B, D) and sigma (B,), float64.

    Queries whose bound on the mean, relative to its norm, exceeds `tolerance` after all digits are left to `dense` in
    float64. certified=False stops at two digits, of spread queries and of their weights: `Moments.bound` is nan for
    them then, and `Moments.estimate` the expected size of the error.
    """
    if not points.bytes or not single:
        return dense.moments(points, z, sigma, single=single, memory=memory)
    group = max(1, memory // (5 * 8 * points.size))
    parts = [
        _group(points, z[i : i + group], sigma[i : i + group], tolerance, certified) for i in range(0, len(z), group)
    ]
    out = parts[0] if len(parts) == 1 else Moments.cat(parts)
    size = (out.average + points.centre.to(z)).norm(dim=1).clamp_min(torch.finfo(torch.float64).tiny)
    rows = (out.bound > tolerance * size).nonzero().squeeze(1)
    if len(rows):
        out.put(rows, _by_float64(points, z[rows], sigma[rows]))
    out.bound /= size
    out.estimate /= size
    return out


def _group(points: Points, z: Tensor, sigma: Tensor, tolerance: float, certified: bool) -> Moments:
    out = Moments(len(z), points.dim, z.device)
    norms = (2 * points.half_norms.to(z.device)).sqrt()
    products = torch.zeros(len(z), points.size, dtype=torch.float64, device=z.device)
    scores = _Scores(z, sigma, None, Digits(z.clone(), points.size), products, norms)
    scores.add(points, 1)
    near = scores.near(points)
    few = near.sum(1) <= _few(points)
    for rows in (few.nonzero().squeeze(1), (~few).nonzero().squeeze(1)):
        if len(rows) == 0:
            continue
        union = near[rows].any(0)
        if int(union.sum()) <= _few(points):
            _sharp(points, scores.narrowed(rows, union), rows, out)
        else:
            keep = union if int(union.sum()) < _GATHER * points.size else None
            _spread(points, scores.narrowed(rows, keep), rows, out, tolerance, certified)
    return out


def _few(points: Points) -> int:
    return min(_FEW, max(16, points.size // 8))


def _sharp(points: Points, scores: _Scores, rows: Tensor, out: Moments) -> None:
    """Sums over the points at hand in float64. All others are more than the window below the leader."""
    assert scores.index is not None
    squares = scores.norms.square()
    precision = scores.sigma.square().reciprocal()
    for places, logits, error, block in dense.rescored(points, scores.z, precision, scores.index):
        dense.merge(out, rows, scores.index[places], logits, error, block, squares[places])
    left_out = (points.size - len(scores.index)) * math.exp(-_WINDOW)
    bound = _rounding(points, out.at(rows), scores.z, scores.sigma) + 2 * points.radius * left_out
    out.bound[rows] = out.estimate[rows] = bound
    out.doubt[rows] = _float64_error(points, scores.z, scores.sigma) + left_out


def _by_float64(points: Points, z: Tensor, sigma: Tensor) -> Moments:
    out = dense.moments(points, z, sigma, single=False, memory=2**28)
    out.bound = out.estimate = _rounding(points, out, z, sigma)
    out.doubt = _float64_error(points, z, sigma)
    return out


def _rounding(points: Points, sums: Moments, z: Tensor, sigma: Tensor) -> Tensor:
    """(B,): bound on ‖mean − exact‖ of sums made in float64, from the rounding of their logits."""
    return _moved(points, sums, _float64_error(points, z, sigma)) + 1e-13 * points.largest_norm


def _float64_error(points: Points, z: Tensor, sigma: Tensor) -> Tensor:
    """(B,): bound on the error of logits made in float64, nats."""
    return dense.ROUNDING[torch.float64] * z.norm(dim=1) * points.radius / sigma.square()


def _moved(points: Points, sums: Moments, error: Tensor) -> Tensor:
    """(B,): how far the mean moves at most when every log-weight is off by `error`: (e^{2 error} − 1) √tr Cov.

    The variance is a difference of squares, of which this much of the larger may be lost.
    """
    variance = sums.variance + 1e-12 * points.radius**2
    return (torch.expm1(2 * error) * variance.sqrt()).nan_to_num(torch.inf, torch.inf)


def _spread(points: Points, scores: _Scores, rows: Tensor, out: Moments, tolerance: float, certified: bool) -> None:
    """Sums over the points at hand by products of bytes, once the logits are known well enough."""
    enough = min(_ENOUGH, tolerance / 4)
    precision = scores.sigma.square().reciprocal()
    count, largest = 0, float((scores.digits.error * precision).amax() * scores.norms.max())
    while largest > enough / 2 and count < (_MOST if certified else 1):
        largest /= 127
        count += 1
    if count:
        scores.add(points, count)
    near = scores.near(points)
    # No digit mends what `to_float` has rounded: for such queries it has to be float64.
    low = certified & (scores.stored(points) * precision > tolerance / 4)
    if int(near.any(0).sum()) <= _few(points):
        low.fill_(True)
    at, others = low.nonzero().squeeze(1), (~low).nonzero().squeeze(1)
    if len(at):
        _sharp(points, scores.narrowed(at, near[at].any(0)), rows[at], out)
    if len(others) == 0:
        return
    rows, scores = rows[others], scores.narrowed(others, None)
    index = torch.arange(points.size, device=rows.device) if scores.index is None else scores.index
    logits, (common, slope) = scores.logits(), scores.error(points)
    error = common + slope * scores.norms.max()
    tie = _settle_leaders(points, scores, logits, common, slope, index)
    top = logits.amax(1)
    leader = (logits >= (top - tie)[:, None]).int().argmax(1)
    squares, energy = scores.norms.square(), torch.empty_like(top)
    for row, lead, energy_of in zip(logits, top, energy, strict=True):
        relative = row - lead
        torch.exp(relative, out=row)  # from here on, `logits` are the weights
        energy_of.copy_(row @ relative)
    total, square = logits.sum(1), logits @ squares
    digits, mean, count = Digits(logits, 0), torch.zeros_like(scores.z), 2
    rest, likely_rest = total, total
    for _ in range(_MOST // 2 if certified else 1):
        mean += _weighted_sum(points, [digits.next() for _ in range(count)], scores.index)
        rest = torch.stack([row.abs() @ scores.norms for row in digits.rest]) / total
        likely_rest = torch.stack([row.square() @ squares for row in digits.rest]).sqrt() / total
        size = (mean / total[:, None] + points.centre.to(mean)).norm(dim=1)
        if ((rest <= 0.25 * tolerance * size) & (likely_rest <= _LIKELY * size)).all():
            break
        count = 1
    # The variance is a small difference: it is taken under the very weights that made the mean.
    used = total - digits.rest.sum(1)
    variance = (square - digits.rest @ squares) / used - (mean / used[:, None]).square().sum(1)
    square = total * (variance + (mean / total[:, None]).square().sum(1))
    out.merge(rows, top=top, total=total, energy=energy, mean=mean, square=square, index=index[leader])
    sums = out.at(rows)
    left_out = (points.size - len(index)) * math.exp(-_WINDOW)
    common = 2 * points.radius * left_out + 1e-13 * points.largest_norm + _FLOAT32 * points.dim**0.5
    proven = _moved(points, sums, error) + rest + common
    likely = scores.digits.step / 6**0.5 * sums.variance * precision[others] + likely_rest + common
    out.bound[rows] = proven if certified else torch.nan
    out.estimate[rows] = torch.minimum(proven, likely)
    out.doubt[rows] = error + left_out


def _settle_leaders(
    points: Points, scores: _Scores, logits: Tensor, common: Tensor, slope: Tensor, index: Tensor
) -> Tensor:
    """Put logits in float64 for the points that may lead, where they are few; returns how close a tie is, (b,)."""
    may_lead = torch.zeros_like(index, dtype=torch.bool)
    for row, a, b in zip(logits, common, slope, strict=True):
        may_lead |= torch.add(row, scores.norms, alpha=float(b)) >= (row - b * scores.norms).max() - 2 * a
    leading = may_lead.nonzero().squeeze(1)
    if len(leading) > _FEW:
        return 2 * (common + slope * scores.norms.max())
    precision = scores.sigma.square().reciprocal()
    rounding = torch.zeros_like(scores.sigma)
    for places, exact, error_again, _ in dense.rescored(points, scores.z, precision, index[leading]):
        logits[:, leading[places]] = exact
        rounding = torch.maximum(rounding, error_again)
    return rounding


def _weighted_sum(points: Points, parts: list[tuple[Tensor, Tensor]], index: Tensor | None) -> Tensor:
    """Σ_j w_j (y_j − c), (b, D), for weights in digits."""
    stacked = torch.cat([digit for digit, _ in parts])
    units = torch.cat([step for _, step in parts])[:, None]
    total = torch.zeros(len(stacked), points.dim, dtype=torch.float64, device=stacked.device)
    partial, weight, count = total.int(), units.new_zeros(len(stacked), 1), 0
    for part, block in points.signed(_BLOCK_BYTES, stacked.device, index):
        if count + len(block) > SUM_COLUMNS:
            total += partial
            partial, count = partial.zero_(), 0
        partial += product(stacked[:, part], block).int()
        weight += stacked[:, part].sum(1, keepdim=True)
        count += len(block)
    total += partial
    total = (total * units).view(len(parts), -1, points.dim).sum(0) / 127.5
    weight = (weight * units).view(len(parts), -1, 1).sum(0)
    return total + weight * (0.5 / 127.5 - points.centre.to(total))
