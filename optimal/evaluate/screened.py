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

One digit of all queries in one pass; then queries go on in groups, by how many points can still have weight, each group
among its own points. Points are left out as soon as what all of them can weigh together, by the upper bounds on their
logits, is less than 2·10⁻⁸ of the leader's weight. Of what is left,

few      are scored again in float64;
many     get more digits, until the bound on logits is below a quarter of the tolerance, which needs few; the mean is
         then again a product of bytes, the weights written in digits as the query was.

In both cases what was left out is bounded: `Moments.bound` is a proven bound on ‖mean − exact mean‖ over ‖mean‖, from
the weight of the points left out, the logits' errors and the weights' last digit. What no digit mends is the
rounding of u8/127.5 − 1 to float32; its bound, 2⁻²⁴ D/σ nats for x = x0 + σ ε, is above half the default tolerance for
σ below 1.5 at D = 12,288. There the points that are left are scored in float64, few or many. From the same rounding,
the variance of a query of many points is off by up to 2⁻²³ √D max ‖y − c‖, 1e-3 for photographs at D = 12,288.

Data in floating point are no bytes; they are screened in float32 by `dense`, which has an estimate and no bound. Where
no fast product of bytes exists, the same digits go through float32 products (`digits`).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..points import Points
from . import dense
from .byte_digits import RISK, Digits
from .byte_logits import FLOAT32, Scores, weighted_sum
from .dense import tilt
from .moments import Moments
from .protocol import Accuracy

__all__ = ["moments", "tilt"]

_ENOUGH = 2.5e-4
"""Digits are added until the bound on the logits is below so many nats, or below a quarter of the tolerance."""
_LIKELY = {True: 5e-6, False: 2e-5}
"""Digits are added to the weights until what is left, relative to the mean, is expected to be so small, certified or
not, and proven below a quarter of the tolerance if certified. Without a proof the logits' errors go by this, too."""
_FEW = 3000
"""Up to so many points, for all queries together, are scored in float64; and no more than an eighth of the data."""
_WORTH = 500
"""From so many on, it is worth a digit more to leave some of them."""
_BLURRED = 6.0
"""Bound on the logits, nats, above which the next digit may leave many points."""
_MOST = 6
"""Digits after which float64 itself is the limit."""
_SEED = 20252
"""Of the rounding of weights, which come from queries in digits of another seed."""
_GATHER = 0.8
"""Above this share of the data, all of it is read rather than the points in question."""


def moments(points: Points, z: Tensor, sigma: Tensor, *, single: bool, accuracy: Accuracy) -> Moments:
    """The running sums of `Moments` over the whole data, with their bound, for z (B, D) and sigma (B,), float64.

    Queries whose bound on the mean, relative to its norm, exceeds `tolerance` after all digits are left to `dense` in
    float64. certified=False goes by the expected size of the error, `Moments.estimate`, where many points share a
    query; `Moments.bound` is nan there.
    """
    if not points.bytes or not single:
        return dense.moments(points, z, sigma, single=single, accuracy=accuracy)
    tolerance, certified = accuracy.tolerance, accuracy.certified
    group = max(1, accuracy.memory // (5 * 8 * points.size))
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
    scores = Scores.of(points, z, sigma)
    scores.add(points, 1)
    near = scores.near(points)
    # Queries of few points, of more, and of most, each among their own.
    counts, last = near.sum(1), -1
    for most in (64, points.size // 64, points.size // 8, points.size):
        rows = ((counts > last) & (counts <= most)).nonzero().squeeze(1)
        last = max(last, most)
        if len(rows):
            _among(points, _narrowed(scores, rows, near[rows]), rows, out, tolerance, certified)
    return out


def _narrowed(scores: Scores, rows: Tensor, near: Tensor) -> Scores:
    """Of the queries `rows` and of the points near any of them, (len(rows), n), where these are not most."""
    union = near.any(0)
    return scores.narrowed(rows, union if int(union.sum()) < _GATHER * len(union) else None)


def _few(points: Points) -> int:
    return min(_FEW, max(16, points.size // 8))


def _sharp(points: Points, scores: Scores, rows: Tensor, out: Moments) -> None:
    """Sums over the points at hand in float64."""
    index = _index(points, scores)
    squares = scores.norms.square()
    precision = scores.sigma.square().reciprocal()
    for places, logits, error, block in dense.rescored(points, scores.z, precision, index):
        dense.merge(out, rows, index[places], logits, error, block, squares[places])
    bound = _rounding(points, out.at(rows), scores.z, scores.sigma) + 2 * points.radius * scores.left_out
    out.bound[rows] = out.estimate[rows] = bound
    out.doubt[rows] = _float64_error(points, scores.z, scores.sigma) + scores.left_out


def _index(points: Points, scores: Scores) -> Tensor:
    return torch.arange(points.size, device=scores.z.device) if scores.index is None else scores.index


def _by_float64(points: Points, z: Tensor, sigma: Tensor) -> Moments:
    out = dense.moments(points, z, sigma, single=False, accuracy=Accuracy(memory=2**28))
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


def _among(points: Points, scores: Scores, rows: Tensor, out: Moments, tolerance: float, certified: bool) -> None:
    """Sums over the points at hand: in float64 where they are few, else by products of bytes."""
    precision = scores.sigma.square().reciprocal()
    every = torch.arange(len(rows), device=rows.device)
    missing = _digits_missing(scores, tolerance, certified)
    while missing and len(scores.norms) > min(_few(points), _WORTH):
        # One at a time as long as the next may leave few points; all of one pass once it will not.
        _, slope = scores.error(points)
        count = 1 if float(slope.max() * scores.norms.max()) > _BLURRED else missing
        scores.add(points, count)
        missing -= count
        scores = _narrowed(scores, every, scores.near(points))
    # No digit mends what `to_float` has rounded: for such queries it has to be float64.
    low = certified & (scores.stored(points) * precision > tolerance / 2)
    if len(scores.norms) <= _few(points):
        low.fill_(True)
    at, others = low.nonzero().squeeze(1), (~low).nonzero().squeeze(1)
    if len(at):
        _sharp(points, scores.narrowed(at, None), rows[at], out)
    if len(others):
        _by_bytes(points, scores.narrowed(others, None), rows[others], out, tolerance, certified)


def _by_bytes(points: Points, scores: Scores, rows: Tensor, out: Moments, tolerance: float, certified: bool) -> None:
    """Sums over the points at hand, their logits known well enough, by products of bytes."""
    index = _index(points, scores)
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
    size = 0.5 * (square / total + points.centre.square().sum()).sqrt()
    mean, rest = torch.zeros_like(scores.z), _Rest(logits, scores.norms, total)
    while True:
        parts = rest.digits_until(_LIKELY[certified] * size, (0.25 * tolerance if certified else torch.inf) * size)
        if not parts:
            break
        mean += weighted_sum(points, parts, len(rows), scores.index)
        size = (mean / total[:, None] + points.centre.to(mean)).norm(dim=1)
    # The variance is a small difference: it is taken under the very weights that made the mean.
    used = total - rest.total
    variance = (square - rest.square) / used - (mean / used[:, None]).square().sum(1)
    square = total * (variance + (mean / total[:, None]).square().sum(1))
    out.merge(rows, top=top, total=total, energy=energy, mean=mean, square=square, index=index[leader])
    sums = out.at(rows)
    common = 2 * points.radius * scores.left_out + 1e-13 * points.largest_norm + FLOAT32 * points.dim**0.5
    proven = _moved(points, sums, error) + rest.proven + common
    likely = scores.digits.step / 6**0.5 * sums.variance / scores.sigma.square() + rest.likely + common
    out.bound[rows] = proven if certified else torch.nan
    out.estimate[rows] = torch.minimum(proven, likely)
    out.doubt[rows] = error + scores.left_out
    late = certified & (proven > tolerance * size)
    if late.any():
        at = late.nonzero().squeeze(1)
        exact = Moments(len(at), points.dim, rows.device)
        _sharp(points, scores.narrowed(at, None), torch.arange(len(at), device=rows.device), exact)
        out.put(rows[at], exact)


def _digits_missing(scores: Scores, tolerance: float, certified: bool) -> int:
    """How many more digits the logits need."""
    precision = scores.sigma.square().reciprocal()
    if certified:
        error, enough = scores.digits.error, min(_ENOUGH, tolerance / 4)
    else:
        error, enough = scores.digits.step / 6**0.5, _LIKELY[False]
    largest, count = float((error * precision).max() * scores.norms.max()), 0
    while largest > enough and count < _MOST:
        largest, count = largest / 127, count + 1
    return count


class _Rest:
    """What the digits of weights leave of them.

    Attributes:
        proven, likely: (b,), bound on ‖Σ_j r_j (y_j − c)‖ over the total, r what is left; and its expected size.
        total, square: (b,), Σ_j r_j and Σ_j r_j ‖y_j − c‖².
    """

    def __init__(self, weights: Tensor, norms: Tensor, of: Tensor):
        self._digits, self._norms, self._of = Digits(weights, 0, _SEED), norms, of
        self._squares, self._count = norms.square(), torch.zeros_like(of, dtype=torch.int64)
        self.proven, self.likely = torch.full_like(of, torch.inf), torch.full_like(of, torch.inf)
        self.total, self.square = torch.zeros_like(of), torch.zeros_like(of)

    def digits_until(self, likely: Tensor, proven: Tensor) -> list[tuple[Tensor, Tensor, Tensor]]:
        """More digits, each of the rows that still need it, until what is left is no more than this."""
        parts = []
        while True:
            missing = (self.likely > likely) | (self.proven > proven)
            rows = (missing & (self._count < _MOST)).nonzero().squeeze(1)
            if len(rows) == 0:
                return parts
            parts.append((rows, *self._digits.next(rows)))
            self._count[rows] += 1
            for row in rows.tolist():
                self._measure(row)

    def _measure(self, row: int) -> None:
        rest, of = self._digits.rest[row], self._of[row]
        self.total[row], self.square[row] = rest.sum(), rest @ self._squares
        self.likely[row] = (rest.square() @ self._squares).sqrt() / of
        proven = rest.abs() @ self._norms
        if self._digits.random:
            # A sum of independent vectors of mean 0, none longer than step · ‖y_j − c‖ (Pinelis 1994, Theorem 3.5).
            by_chance = math.sqrt(2 * math.log(2 / RISK)) * self._digits.step[row] * self._squares.sum().sqrt()
            proven = torch.minimum(proven, by_chance)
        self.proven[row] = proven / of


def _settle_leaders(
    points: Points, scores: Scores, logits: Tensor, common: Tensor, slope: Tensor, index: Tensor
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
