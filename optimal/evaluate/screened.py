"""The sums over images by products of 8-bit integers, with a proven bound on their error.

The data are bytes, y = (u + ½)/127.5 with u = u8 − 128 a signed byte, so products of bytes with bytes, three times as
fast as float32 on processors with such an instruction, give every inner product. The query z = x − c is written in
digits of 8 bits,

    z = s₁ q₁ + s₂ q₂ + … + r,        q_i signed bytes,  s_{i+1} = s_i/127,

and one pass over the data with q_i adds digit i of z·(y_j − c) for every j, without rounding: the sums stay below 2³¹.
What is not known yet is r·(y_j − c). Two bounds hold for it, and the smaller counts:

    |r·v| <= ‖r‖ ‖v‖                  always;
    |r·v| <= 4.6 s ‖v‖                with probability 1 − 10⁻¹²/16 for all of N = 70,000 points,

the second because digits are rounded at random (q = ⌊z/s + d⌋), by numbers that come from a hash of the query and
the data: the same for a query in any batch. At D = 12,288 it is 7 times the tighter one.

One digit of all queries in one pass; then queries go on in groups, by how many points can still have weight, each group
among its own points. Points are left out as soon as what all of them can weigh together, by the upper bounds on their
logits, is less than 2·10⁻⁸ of the leader's weight. Of what is left,

    few      are scored again in float64, by differences where products are too coarse (`sharp`);
    many     get more digits, until the bound on logits is below half of the tolerance, which needs few; the mean is
             then again a product of bytes, the weights written in digits as the query was.

In both cases `Moments.bound` is a proven bound on ‖mean − exact mean‖ over ‖exact mean‖, with probability 1 − 10⁻¹² a
row. The theorem, its assumptions, the proof and all constants stand in `optimal.evaluate.proof`; tests/test_proof.py
and bench/proof.py attack it. What no digit mends is the rounding of u8/127.5 − 1 to float32; its bound, 0.75·2⁻²⁴ √D
‖z‖/σ² nats, is above the default tolerance for σ below 0.6 at D = 12,288. There the points that are left are scored in
float64, few or many. From the same rounding, the variance of a query of many points is off by up to 2⁻²³ √D max ‖y −
c‖, 1e-3 for photographs at D = 12,288.

Data in floating point are no bytes; they are screened in float32 by `dense`, which has an estimate and no bound. Where
no fast product of bytes exists, the same digits go through float32 products (`byte_digits`).
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Sequence
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from ..points import Points
from ..points.rounding import UNIT, gamma
from . import dense
from .byte_digits import Streams
from .byte_logits import NOTHING, TERMS, ByteLogits, weighted_sum
from .byte_rest import Rest
from .dense import tilt
from .joint import Joint
from .moments import Moments
from .proof import EXP, MOST_DIGITS, bytes_as_floats, moved, relative, share, upper
from .protocol import Accuracy
from .sharp import leaders, sharp

__all__ = ["moments", "parted", "rivals", "streams_of", "tilt"]

_ENOUGH = 5e-4
"""Digits are added until the bound on the logits is below so many nats, or below half of the tolerance."""
_LIKELY = {True: 5e-6, False: 2e-5}
"""Digits are added to the weights until what is left, relative to the mean, is expected to be so small, certified or
not, and proven below a quarter of the tolerance if certified. Without a proof the logits' errors go by this, too."""
_FEW = 3000
"""Up to so many points, for all queries together, are scored in float64; and no more than an eighth of the data."""
_WORTH = 500
"""From so many on, it is worth a digit more to leave some of them."""
_BLURRED = 6.0
"""Bound on the logits, nats, above which the next digit may leave many points."""
_GATHER = 0.8
"""Above this share of the data, all of it is read rather than the points in question."""
_DIGESTS: WeakKeyDictionary[Points, bytes] = WeakKeyDictionary()
"""Of all data, by which random numbers are drawn: it takes a second for a gigabyte, once."""


def moments(points: Points, z: Tensor, sigma: Tensor, *, single: bool, accuracy: Accuracy) -> Moments:
    """The running sums of `Moments` over the whole data, with their bound, for z (B, D) and sigma (B,), float64.

    Queries whose bound on the mean, relative to its norm, exceeds `tolerance` for what was left out are done in float64
    over all points. certified=False goes by the expected size of the error, `Moments.estimate`, where many points share
    a query; `Moments.bound` is nan there.
    """
    if not points.bytes or not single:
        return dense.moments(points, z, sigma, single=single, accuracy=accuracy)
    rows = torch.arange(len(z), device=z.device)
    return parted(points, [(points, rows)], z, sigma, accuracy=accuracy)[0]


def parted(
    points: Points, parts: Sequence[tuple[Points, Tensor]], z: Tensor, sigma: Tensor, *, accuracy: Accuracy
) -> list[Moments]:
    """`moments` over each part of the points by itself, in one scan for all.

    What is left out of a part has no weight to speak of in that part's own sums: every part has its own thresholds, and
    a bound of its own.

    Args:
        points: images kept as bytes.
        parts: of each its points, some of these, and which queries want their sums, (b,) int64, increasing.
    """
    found: list[list[Moments]] = [[] for _ in parts]
    group = max(1, accuracy.memory // (5 * 8 * points.size))
    for first in range(0, len(z), group):
        at = slice(first, min(first + group, len(z)))
        wanted = [(part, rows[(rows >= at.start) & (rows < at.stop)] - at.start) for part, rows in parts]
        logits = _first_digit(points, z[at], sigma[at])
        for sums, some in zip(found, _summed(logits, wanted, accuracy), strict=True):
            sums.append(some)
    return [_finished(part, sums) for (part, _), sums in zip(parts, found, strict=True)]


def rivals(points: Points, z: Tensor, sigma: Tensor, log_weights: Tensor, *, accuracy: Accuracy) -> Moments:
    """`moments` of queries whose evidence is to be added up, without those that have no share in it.

    Of the G queries z_g of a group each counts by P_g Σ_j e^{l_j − ‖z_g‖²/2σ²}. Where the first digit proves that all
    points together are worth less than 2·10⁻⁸ of the largest term of the group, a query is given the sums of one point,
    which is a term of its evidence and no more than all of it; it has no bound.

    Args:
        z: (G·n, D), query g of group i at g·n + i; sigma: (G·n,), the same within a group.
        log_weights: (G,) float64, log P_g.
    """
    logits, count = _first_digit(points, z, sigma), len(z) // len(log_weights)
    low, high, leader = logits.extent()
    half, prior = (
        0.5 * torch.linalg.vector_norm(z, dim=1).square(),
        log_weights.to(sigma).repeat_interleave(count) * sigma.square(),
    )
    # Section 10 of the proof.
    margin = gamma(points.dim + 16) * half + gamma(4) * prior.abs() + logits.doubt()
    floor = (low - half + prior - margin).view(-1, count).amax(0).repeat(len(log_weights))
    nats = (high - half + prior + margin - floor) / sigma.square()
    lost = nats < math.log(NOTHING / points.size)
    out, rows, others = Moments(len(z), points.dim, z.device), (~lost).nonzero().squeeze(1), lost.nonzero().squeeze(1)
    every = torch.arange(len(rows), device=rows.device)
    out.put(rows, _finished(points, _summed(logits.narrowed(rows, None), [(points, every)], accuracy)))
    alone = torch.empty(len(others), points.dim, dtype=torch.float64, device=z.device)
    points.read(leader[others].to(points.device), alone)
    out.mean[others], out.square[others] = alone, 2 * points.half_norms.to(z.device)[leader[others]]
    out.total[others], out.index[others] = 1.0, leader[others]
    out.top[others] = ((z[others] * alone).sum(1) - 0.5 * out.square[others]) / sigma[others].square()
    if points.log_weights is not None:
        out.top[others] += points.log_weights.to(z.device)[leader[others]]
    return out


def streams_of(points: Points, z: Tensor, sigma: Tensor) -> Streams:
    """The random numbers of queries: from the query's own bytes, its level and all data."""
    return Streams(z, sigma, lambda: _digest(points))


def _digest(points: Points) -> bytes:
    if points not in _DIGESTS:
        digest = hashlib.blake2b(points.centre.cpu().numpy().data)
        if points.log_weights is not None:
            digest.update(points.log_weights.cpu().numpy().data)
        for _, block in points.signed(2**22, torch.device("cpu")):
            digest.update(block.numpy().data)
        _DIGESTS[points] = digest.digest()
    return _DIGESTS[points]


def _size(points: Points, sums: Moments) -> Tensor:
    """‖mean‖, (B,)."""
    return (sums.average + points.centre.to(sums.mean)).norm(dim=1)


def _finished(points: Points, groups: list[Moments]) -> Moments:
    """The sums of groups of queries, their bounds relative to the mean."""
    out = groups[0] if len(groups) == 1 else Moments.cat(groups)
    out.bound, out.estimate = (relative(bound, _size(points, out)) for bound in (out.bound, out.estimate))
    return out


def _first_digit(points: Points, z: Tensor, sigma: Tensor) -> ByteLogits:
    """Of all queries and points, by one pass over the data."""
    logits = ByteLogits.of(points, z, sigma, streams=streams_of(points, z, sigma))
    logits.add(1)
    return logits


def _summed(logits: ByteLogits, parts: Sequence[tuple[Points, Tensor]], accuracy: Accuracy) -> list[Moments]:
    """The sums over every part of queries whose first digit is known."""
    points = logits.points
    out = [Moments(len(rows), points.dim, rows.device) for _, rows in parts]
    joint = Joint.of(logits, parts)
    near = joint.near()
    # Queries of few points, of more, and of most, each among their own.
    counts, last = near.sum(1), -1
    for most in (64, points.size // 64, points.size // 8, points.size):
        rows = ((counts > last) & (counts <= most)).nonzero().squeeze(1)
        last = max(last, most)
        if len(rows):
            for number, at, sums in _among(_narrowed(joint, rows, near[rows]), accuracy):
                out[number].put(at, sums)
    return out


def _narrowed(joint: Joint, rows: Tensor, near: Tensor) -> Joint:
    """Of the queries `rows` and of the points near any of them, (len(rows), n), where these are not most."""
    union = near.any(0)
    return joint.narrowed(rows, union if int(union.sum()) < _GATHER * len(union) else None)


def _few(points: Points) -> int:
    return min(_FEW, max(16, points.size // 8))


def _among(joint: Joint, accuracy: Accuracy) -> Iterator[tuple[int, Tensor, Moments]]:
    """Yield parts, queries asked of them, and their sums: in float64 over few points, else by products of bytes."""
    few, tolerance = _few(joint.logits.points), accuracy.tolerance
    every = torch.arange(len(joint.logits.z), device=joint.logits.z.device)
    missing = _digits_missing(joint.logits, accuracy)
    while missing and len(joint.logits.norms) > min(few, _WORTH):
        # One at a time as long as the next may leave few points; all of one pass once it will not.
        logits = joint.logits
        blur = logits.digits.error / logits.sigma.square()
        count = 1 if float(blur.max() * logits.norms.max()) > _BLURRED else missing
        logits.add(count)
        missing -= count
        joint = _narrowed(joint, every, joint.near())
    many = len(joint.logits.norms) > few
    for number, rows, logits in joint.parts():
        # No digit mends what `to_float` has rounded: for such queries it has to be float64.
        common, _ = logits.error()
        low = (common / logits.sigma.square() > tolerance) & accuracy.certified
        if not many or len(logits.norms) <= few // len(joint):
            low.fill_(True)
        at, others = low.nonzero().squeeze(1), (~low).nonzero().squeeze(1)
        if len(at):
            yield number, rows[at], _sharp(logits.narrowed(at, None), tolerance)
        if len(others):
            yield number, rows[others], _by_bytes(logits.narrowed(others, None), accuracy)


def _sharp(logits: ByteLogits, tolerance: float) -> Moments:
    """Sums in float64 over the points at hand, and over all where what was left out makes the bound too large."""
    points, z, sigma = logits.points, logits.z, logits.sigma
    out = sharp(points, z, sigma, logits.index, logits.norms, logits.left_out, tolerance)
    left = 2 * upper(points.radius, points.dim) * logits.left_out
    coarse = (out.bound > tolerance * _size(points, out)) & (left > 0.1 * out.bound)
    rows = coarse.nonzero().squeeze(1)
    if len(rows):
        norms = upper((2 * points.half_norms.to(z.device)).sqrt(), points.dim)
        none = torch.zeros_like(sigma[rows])
        out.put(rows, sharp(points, z[rows], sigma[rows], None, norms, none, tolerance))
    return out


def _by_bytes(logits: ByteLogits, accuracy: Accuracy) -> Moments:
    """Sums over the points at hand, their logits known well enough, by products of bytes."""
    points, z, sigma, norms = logits.points, logits.z, logits.sigma, logits.norms
    out = Moments(len(z), points.dim, z.device)
    (common, slope), doubt = logits.error(), logits.doubt()
    precision, largest, count = sigma.square().reciprocal(), norms.max(), len(norms)
    error = (common + slope * largest) * precision
    weights = logits.logits()
    out.top, first = weights.max(1)
    may_lead = torch.empty_like(weights, dtype=torch.bool)
    for row, mask, a, b in zip(weights, may_lead, common * precision, slope * precision, strict=True):
        most = (row - b * norms).max() - 2 * a
        torch.ge(torch.add(row, norms, alpha=float(b)), most, out=mask)
    out.index = leaders(points, z, sigma, may_lead, first, logits.index)
    squares = 2 * logits.half_norms
    for row, top, energy in zip(weights, out.top, out.energy, strict=True):
        relative_row = row - top
        torch.exp(relative_row, out=row)
        energy.copy_(row @ relative_row)
    out.total, square = weights.sum(1), weights @ squares
    size = 0.5 * (square / out.total + points.centre.square().sum().to(square)).sqrt()
    rest = Rest(weights, norms, out.total, logits.digits.streams.other())
    likely, enough = _LIKELY[accuracy.certified], 0.25 * accuracy.tolerance if accuracy.certified else math.inf
    while True:
        parts = rest.digits_until(likely * size, enough * size)
        if not parts:
            break
        out.mean += weighted_sum(points, parts, len(z), logits.index)
        size = _size(points, out)
    # The variance is a small difference: it is taken under the very weights that made the mean.
    used = out.total - rest.total
    variance = (square - rest.square(squares)) / used - (out.mean / used[:, None]).square().sum(1)
    out.square = out.total * (variance + out.average.square().sum(1))
    # Sections 6 to 8 of the proof.
    root = points.dim**0.5
    stored = bytes_as_floats(z.device)[1] * root * (1 + rest.absolute / out.total)
    rounding = (2 * UNIT * largest + gamma(32) * TERMS * root) * count**0.5 * rest.reach / out.total
    rounding += 2 * gamma(count + 16) * largest + 4 * UNIT * (largest + points.centre.norm().to(z))
    made = rest.proven + stored + rounding
    length = out.average.norm(dim=1)
    spread = square / out.total - length.square() + 2 * length * made
    spread = (spread + gamma(2 * (points.dim + count) + 64) * largest.square()).clamp_min(0)
    left = 2 * upper(points.radius, points.dim) * logits.left_out
    proven = moved(error + EXP, spread) + made + left
    expected = logits.digits.likely * out.variance * precision + rest.likely + stored + rounding + left
    out.bound = proven if accuracy.certified else torch.full_like(proven, torch.nan)
    out.estimate = torch.minimum(proven, expected)
    out.doubt = error + doubt * precision + EXP + gamma(count + 16) + share(logits.left_out)
    late = (proven > accuracy.tolerance * size) & accuracy.certified
    if late.any():
        at = late.nonzero().squeeze(1)
        out.put(at, _sharp(logits.narrowed(at, None), accuracy.tolerance))
    return out


def _digits_missing(logits: ByteLogits, accuracy: Accuracy) -> int:
    """How many more digits the logits need."""
    if accuracy.certified:
        error, enough = logits.digits.error, min(_ENOUGH, accuracy.tolerance / 2)
    else:
        error, enough = logits.digits.likely, _LIKELY[False]
    largest, count = float((error / logits.sigma.square()).max() * logits.norms.max()), 0
    while largest > enough and count < MOST_DIGITS:
        largest, count = largest / logits.digits.finer, count + 1
    return count
