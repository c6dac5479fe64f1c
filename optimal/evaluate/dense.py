"""The sums over the data by blocked matrix products.

The logits of Eq. 43 relative to the centre c are l_j = (z·(y_j − c) − h_j)/σ², with z = x − c and h_j = ½‖y_j − c‖²;
the common −‖z‖²/2σ² drops out; the prior's log-weights a_j, if any, are added. A block of the data is read once,
multiplied (logits), exponentiated, and multiplied again (mean).

Exactness, estimated. In float32 the product z·y is off by some units of u (|z·y| + ‖z‖‖y‖/√D), u = 2⁻²⁴, whatever σ
is: at σ = 0.002 that is hundreds of nats. `scan` estimates the error, calibrated by bench/rounding.py, and where it
matters takes float64 products or differences of the points instead. What is left out weighs less than N·e⁻³⁰. Queries
in float64, and events of at most 16 values, are in float64 throughout. The mean of a query whose float32 sum may be off
by more than 1e-5 of its norm, since points cancel in it, is summed again in float64.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from ..points import Points
from .moments import Moments
from .products import combinations, products
from .protocol import Accuracy, Tilt
from .scan import Part, Scan

__all__ = ["Tilted", "log_weights", "moments", "tilt", "tilted"]

_LEAST, _LEAST_SINGLE = -700.0, -80.0
"""Weights below e to this are rounded up to it: exponentials that leave the range, here that of float32, are ten times
slower. N e⁻⁸⁰ is nothing."""
_TOLERANCE, _SUMS, _LOGITS = 1e-5, 10 * 2.0**-24, 1 / 256
"""Largest error of a float32 mean relative to itself. In units of √Σ w ‖y − c‖² it is up to the second, by its sums; or
the third times the estimated error of the logits over √(effective number of points), where that is larger."""


def moments(
    points: Points, z: Tensor, sigma: Tensor, *, single: bool, accuracy: Accuracy, without: Tensor | None = None
) -> Moments:
    """The running sums of `Moments` over the whole data, for z (B, D) and sigma (B,), float64.

    Without one point of each query, where `without`, (B,) int64, says so; −1 for none.
    """
    sums = Moments(len(z), points.dim, z.device)
    scan = Scan(points, z, sigma, single=single, memory=accuracy.memory, without=without)
    squares = 2 * points.half_norms.to(z.device)
    for part in scan.parts():
        _add(sums, part, squares[part.places])
    sums.lead(scan.leader, scan.top)
    if scan.single:
        leaders = points.read(scan.leader.to(points.device), torch.empty_like(z))
        sums.recount(scan.counted - scan.top, leaders, squares[scan.leader])
    sums.top = sums.top + scan.origin
    if scan.single:
        size = points.restored(sums.average).flatten(1).norm(dim=1) / points.unit
        half_entropy = 0.5 * (sums.total.log() - sums.energy / sums.total)
        lost = (_LOGITS * scan.unrepaired() / half_entropy.exp()).clamp_min_(_SUMS) * (sums.square / sums.total).sqrt()
        again = (lost > _TOLERANCE * size).nonzero().squeeze(1)
        if len(again):
            left = None if without is None else without[again]
            sums.put(again, moments(points, z[again], sigma[again], single=False, accuracy=accuracy, without=left))
    return sums


def _add(sums: Moments, part: Part, squares: Tensor) -> None:
    single = part.block.dtype == torch.float32
    # Near the leader the logits are small numbers, which lose nothing in float32; their exponentials cost half.
    logits = part.logits.float().clamp_(min=_LEAST_SINGLE) if single else part.logits.clamp_(min=_LEAST).clone()
    weights = logits.exp()
    # Sums of another dtype than their terms' take several times as long as a copy.
    double = part.logits.copy_(weights)
    sums.merge(
        part.rows,
        top=part.top,
        total=double.sum(0),
        square=squares @ double,
        energy=logits.mul_(weights).sum(0).double(),
        mean=combinations(weights if single else double, part.block),
        index=torch.zeros_like(sums.index if part.rows is None else part.rows),
    )


def log_weights(
    points: Points, z: Tensor, sigma: Tensor, *, single: bool, memory: int, without: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Logits relative to the leader's, (B, N) float64, −inf for points that were left out; and the leader's, (B,)."""
    out = torch.full((len(z), points.size), -torch.inf, dtype=torch.float64, device=z.device)
    scan = Scan(points, z, sigma, single=single, memory=memory, every=True, without=without)
    again: list[Part] = []
    for part in scan.parts():
        if isinstance(part.places, slice):
            logits = (part.logits + part.top).T
            if part.rows is None:
                out[:, part.places] = logits
            else:
                out[part.rows, part.places] = logits
        else:
            again.append(part)
    out -= scan.top[:, None]
    for rows, places, logits, top, _ in again:
        assert rows is not None
        assert isinstance(places, Tensor)
        at, found = (logits > -torch.inf).T.nonzero(as_tuple=True)
        # Relative to the leader they are exact; its own logit may be so large that it is not.
        out[rows[at], places[found]] = logits.T[at, found] + (top - scan.top[rows])[at]
    out[torch.arange(len(z), device=z.device), scan.leader] = 0.0
    out[scan.copies] = scan.ahead(*scan.copies)
    return out, scan.top + scan.origin


def tilt(
    points: Points,
    z: Tensor,
    sigma: Tensor,
    tilt: Tilt,
    *,
    single: bool,
    accuracy: Accuracy,
    without: Tensor | None = None,
) -> Tensor:
    """Σ_j w_j c_j (y_j − D), (B, D), with the c_j of `Tilt`; `without` as for `moments`."""
    out = torch.zeros_like(z)
    for part in tilted(points, z, sigma, tilt, single=single, memory=accuracy.memory, without=without):
        at = slice(None) if part.rows is None else part.rows
        weights = part.coefficient * part.weights
        sums = combinations(weights, part.block)
        out[at] += sums - weights.sum(0)[:, None] * tilt.mean[at]
    return out


class Tilted(NamedTuple):
    """Weights w_j, coefficients c_j and ‖y_j − D‖², (n, b) float64, and y_j − c, (n, D), of the queries `rows`."""

    rows: Tensor | None
    weights: Tensor
    coefficient: Tensor
    distance: Tensor
    block: Tensor


def tilted(
    points: Points,
    z: Tensor,
    sigma: Tensor,
    tilt: Tilt,
    *,
    single: bool,
    memory: int,
    without: Tensor | None = None,
) -> Iterator[Tilted]:
    """The terms of `tilt`'s sum, block by block."""
    squares = 2 * points.half_norms.to(z.device)
    offset, mean_square = (tilt.direction * tilt.mean).sum(1), tilt.mean.square().sum(1)
    scan = Scan(points, z, sigma, single=single, memory=memory, without=without)
    for rows, places, logits, top, block in scan.parts():
        at = slice(None) if rows is None else rows
        lead = (top + scan.origin[at] - tilt.top[at]) + tilt.top_weight[at].log()
        log_weights = logits.clamp_(min=_LEAST).add_(lead)
        coefficient = products(block, tilt.direction[at].to(block.dtype)).double() - offset[at]
        inner = products(block, tilt.mean[at].to(block.dtype)).double()
        distance = (squares[places, None] - 2 * inner + mean_square[at]).clamp_min(0)
        coefficient += tilt.by_log_weight[at] * log_weights + tilt.by_distance[at] * distance
        yield Tilted(rows, log_weights.exp(), coefficient, distance, block)
