"""The sums over few points in float64, with a proven bound: for `screened`.

Products give all logits, with the error of long sums of numbers as large as ‖z‖ ‖y_j − c‖. Where that is too coarse for
the tolerance, at levels far below the distances of points, the few that may have weight are measured by their
differences from the leader, which lose nothing, and are 0 for copies. The leader itself, the first in the data among
equals, is always told by differences. The bounds are those of `optimal.evaluate.proof`, whose sections are named here.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..devices import block_bytes
from ..points import Points
from ..points.differences import leads
from ..points.rounding import UNIT, gamma
from .moments import Moments
from .proof import EXP, moved, share, upper

__all__ = ["leaders", "sharp"]

_BLOCK_BYTES = 8 * 2**20
"""Points are read in pieces of this size in float64."""
_PAIRS, _PAIR_VALUES = 512, 2**22
"""Points of one query that are measured by differences: at most so many, or of so many values together."""
_WINDOW = 27.0
"""Points certainly further below the leader than this many nats are left out where differences are taken."""
_NO_WEIGHT = math.exp(-40.0)
"""Weight, relative to the leader's, below which points are left out of the mean."""


def sharp(
    points: Points,
    z: Tensor,
    sigma: Tensor,
    index: Tensor | None,
    norms: Tensor,
    left_out: Tensor,
    tolerance: float,
) -> Moments:
    """The sums over the points `index`; `bound` and `estimate` are of ‖mean − exact mean‖ itself, proven.

    Args:
        z: (b, D); sigma: (b,); index: (n,), None for all.
        norms: (n,), at least ‖y_j − c‖.
        left_out: (b,), at least the weight of all other points.
        tolerance: what `bound` is to be below, relative to the mean, where differences help.
    """
    out, precision, largest = Moments(len(z), points.dim, z.device), sigma.square().reciprocal(), norms.max()
    half_norms = _at(points.half_norms.to(z.device), index)
    products = _products(points, z, index, half_norms)
    # Section 5.
    error = gamma(points.dim + 16) * (upper(z.norm(dim=1), points.dim) * largest + 0.5 * largest.square())
    if points.prior is not None:
        products.addr_(sigma.square(), _at(points.prior.log_weights.to(z.device), index))
        error += gamma(points.dim + 16) * sigma.square() * points.prior.reach
    best, first = products.max(1)
    may_lead = products >= (best - 2 * error)[:, None]
    out.top, out.index = best * precision, leaders(points, z, sigma, may_lead, first, index)
    logits = (products - best[:, None]).mul_(precision[:, None])
    weights, count = logits.exp(), products.shape[1]
    out.total, out.square = weights.sum(1), 2 * (weights @ half_norms)
    out.energy = logits.mul_(weights).sum(1)  # From here on, `logits` are no more.
    out.mean = _mean(points, weights, index)
    left_out = left_out + count * _NO_WEIGHT
    # Sections 6 to 8.
    rounding = _rounding(points, count, largest)
    size = out.average.norm(dim=1)
    square = out.square / out.total - size.square() + 2 * size * rounding
    square += gamma(2 * (points.dim + count) + 64) * largest.square()
    left = 2 * upper(points.radius, points.dim) * left_out
    out.bound = moved(error * precision + EXP, square.clamp_min(0)) + rounding + left
    out.doubt = 2 * error * precision + EXP + gamma(count + 16) + share(left_out)
    coarse = out.bound - left > tolerance / 4 * (out.average + points.centre.to(z)).norm(dim=1)
    for row in coarse.nonzero().squeeze(1).tolist():
        places = ((products[row] - best[row] + 2 * error[row]) * precision[row] >= -_WINDOW).nonzero().squeeze(1)
        if len(places) <= _most(points):
            beyond = left_out[row : row + 1] + count * math.exp(-_WINDOW)
            one = _by_differences(points, z, sigma, row, _global(index, places), out.index, beyond)
            one.top, one.doubt = out.top[row : row + 1].clone(), one.doubt + error[row] * precision[row]
            if bool(one.bound < out.bound[row]):
                out.put(torch.tensor([row], device=z.device), one)
    out.estimate = out.bound.clone()
    return out


def leaders(points: Points, z: Tensor, sigma: Tensor, may_lead: Tensor, first: Tensor, index: Tensor | None) -> Tensor:
    """The leader of every query, (b,), the first in the data among equals, told by differences.

    Args:
        z: (b, D); sigma: (b,).
        may_lead: (b, n) bool: the points that may be it.
        first: (b,) one of them.
        index: (n,) the points, None for all.
    """
    out, counts = _global(index, first), may_lead.sum(1)
    many = counts > _most(points)
    if points.prior is not None:
        # The nearest need not lead.
        many = torch.zeros_like(many)
    elif many.any():
        out[many] = points.nearest(z[many])
    some = (counts > 1) & ~many
    rows, places = (may_lead & some[:, None]).nonzero().unbind(1)
    if len(rows) == 0:
        return out
    columns = _global(index, places)
    measured, error, _ = _leads(points, z, sigma, out, rows, columns)
    most = torch.full_like(z[:, 0], torch.inf).scatter_reduce_(0, rows, measured + error, "amin")
    # What differences do not tell apart is equal; places come in the order of the data.
    lead = measured - error <= most[rows]
    chosen = torch.full_like(out, points.size).scatter_reduce_(0, rows[lead], columns[lead], "amin")
    return torch.where(some, chosen, out)


def _leads(
    points: Points, z: Tensor, sigma: Tensor, leader: Tensor, rows: Tensor, columns: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """σ² times the lead of each row's leader over points, a bound on its error, and ½‖y − y_j‖², (P,) each."""
    found = leads(points, z, leader, rows, columns)
    if points.prior is None:
        return found.lead, found.error, found.half_square
    ahead = sigma.square()[rows] * (points.log_weight(columns) - points.log_weight(leader[rows]))
    error = found.error + 4 * UNIT * (ahead.abs() + found.lead.abs())
    return found.lead - ahead, error, found.half_square


def _by_differences(
    points: Points, z: Tensor, sigma: Tensor, row: int, places: Tensor, leader: Tensor, left_out: Tensor
) -> Moments:
    """The sums of one query over the points `places`, relative to its leader; `doubt` is without that of the leader."""
    out = Moments(1, points.dim, z.device)
    rows = torch.full_like(places, row)
    lead, error, half_square = _leads(points, z, sigma, leader, rows, places)
    precision = sigma[row].square().reciprocal()
    logits, errors = -lead * precision, error * precision
    near = logits + errors >= -_WINDOW
    left_out = left_out + len(places) * math.exp(-_WINDOW)
    logits, places, half_square = logits[near], places[near], half_square[near]
    error, weights = errors[near].amax()[None], logits.exp()[None]
    half_norms = points.half_norms.to(z.device)[places]
    largest = upper((2 * half_norms.max()).sqrt(), points.dim)
    out.total, out.energy, out.square = weights.sum(1), weights @ logits, 2 * (weights @ half_norms)
    out.index, out.mean = leader[row : row + 1].clone(), _mean(points, weights, places)
    square = upper(2 * (weights @ half_square) / out.total, points.dim + len(places))
    rounding = _rounding(points, len(places), largest)
    out.bound = moved(error + EXP, square) + rounding + 2 * upper(points.radius, points.dim) * left_out
    out.doubt = error + EXP + gamma(len(places) + 16) + share(left_out)
    out.estimate = out.bound.clone()
    return out


def _products(points: Points, z: Tensor, index: Tensor | None, half_norms: Tensor) -> Tensor:
    """z·(y_j − c) − ½‖y_j − c‖², (b, n)."""
    out = torch.empty(len(z), len(half_norms), dtype=torch.float64, device=z.device)
    for start, block in points.blocks(_rows(points, z.device), z.device, index):
        out[:, start : start + len(block)] = z @ block.T
    return out.sub_(half_norms)


def _mean(points: Points, weights: Tensor, index: Tensor | None) -> Tensor:
    """Σ_j w_j (y_j − c), (b, D), over the points with any weight to speak of."""
    used = (weights >= _NO_WEIGHT).any(0).nonzero().squeeze(1)
    out = torch.zeros(len(weights), points.dim, dtype=torch.float64, device=weights.device)
    everything = len(used) == weights.shape[1]
    chosen = index if everything else _global(index, used)
    kept = weights if everything else weights[:, used]
    for start, block in points.blocks(_rows(points, weights.device), weights.device, chosen):
        out += kept[:, start : start + len(block)] @ block
    return out


def _rows(points: Points, device: torch.device) -> int:
    """Of a block in float64."""
    return max(1, block_bytes(_BLOCK_BYTES, device) // (8 * points.dim))


def _rounding(points: Points, count: int, largest: Tensor) -> Tensor:
    """(): what the mean of so many points, with c added, is off by at most from rounding (sections 7 and 8)."""
    return (2 * gamma(count + 16) + 4 * UNIT) * largest + 4 * UNIT * points.centre.norm().to(largest)


def _most(points: Points) -> int:
    return max(_PAIRS, _PAIR_VALUES // points.dim)


def _at(values: Tensor, index: Tensor | None) -> Tensor:
    return values if index is None else values[index]


def _global(index: Tensor | None, places: Tensor) -> Tensor:
    return places.clone() if index is None else index[places]
