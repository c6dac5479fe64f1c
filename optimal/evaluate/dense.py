"""The sums over the data by blocked matrix products.

The logits of Eq. 43 relative to the centre c are l_j = (z·(y_j − c) − h_j)/σ², with z = x − c and h_j = ½‖y_j − c‖²;
the common −‖z‖²/2σ² drops out. A block of the data is read once, multiplied (logits), exponentiated, and multiplied
again (mean).

Exactness. In float32 the product z·y is off by a few u·(|z·y| + ‖z‖‖y‖/√D), u = 2⁻²⁴, whatever σ is: at σ = 0.002 that
is hundreds of nats. Where the error in nats may exceed 1e-3, the float32 logits only select: every point that can lie
within 30 nats of the leader is scored again, and averaged, in float64. What is dropped weighs less than N·e⁻³⁰.
Queries in float64, and events of at most 64 values, are in float64 throughout.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from ..points import Points, evenly
from .moments import Moments
from .protocol import Accuracy, Tilt

__all__ = ["ROUNDING", "logits", "merge", "moments", "rescored", "tilt"]

_WINDOW = 30.0
"""Points further below the leader than this many nats are left out."""
_TOLERANCE = 1e-3
"""Largest error of a float32 logit, in nats, that is let through; the error itself is typically 100 times smaller."""
_LEAD, _LEADERS = 10.0, 192
"""Where float32 logits are let through, but by less than a factor 6, the points within so many nats of the leader,
which make up the result, are still scored in float64 if a block holds no more than so many for a query."""
ROUNDING = {torch.float32: 24 * 2.0**-24, torch.float64: 256 * 2.0**-53}
"""Rounding of a product in units of |z·y| + 4‖z‖‖y‖/√D. Largest measured at D = 12,288, for 1 to 300 queries, blocks of
64 to 2,000 points, σ from 0.05 to 20, on photographs, drawings and constant images (bench/rounding.py): 22 and 135.
Much smaller blocks, for which it is up to 40, do not occur: blocks are of even size."""
_READ_BYTES = 12 * 2**20
"""Points are read, and multiplied while they are in cache, in pieces of this size in float32."""
_AGAIN_BYTES = 8 * 2**20
"""Points are scored again in pieces of this size in float64."""
_SMALL = 64
"""Up to this many values in an event, float64 costs nothing: exponentials dominate."""


def logits(
    points: Points, z: Tensor, sigma: Tensor, *, single: bool, memory: int
) -> Iterator[tuple[Tensor | None, Tensor, Tensor, Tensor, Tensor]]:
    """Score the data block by block.

    Args:
        z: (B, D) float64, x − c.
        sigma: (B,) float64.
        single: whether float32 products may be used at all.
        memory: bytes for temporaries.

    Yields:
        rows: indices of the queries concerned, None for all of them.
        index: (n,) indices of the points.
        logits: (len(rows), n) float64.
        error: (len(rows),) estimate of their rounding errors, nats.
        block: (n, D) y − c, in the precision that these logits need; overwritten when the iteration goes on.
    """
    precision = 1 / sigma.square()
    half_norms = points.half_norms.to(z.device)
    single = single and points.dim > _SMALL
    dtype = torch.float32 if single else torch.float64
    query = z.to(dtype)
    spread = 4 * z.norm(dim=1) * points.radius / points.dim**0.5
    best = torch.full_like(sigma, -torch.inf)
    rows_per_block = points.block_rows(len(z), memory, 4 if single else 8)
    step = evenly(rows_per_block, max(1, _READ_BYTES // (4 * points.dim)))
    scratch = None if single else torch.empty(step, points.dim, device=z.device)
    buffer = torch.empty(rows_per_block, points.dim, dtype=dtype, device=z.device)
    products = torch.empty(len(z), rows_per_block, dtype=dtype, device=z.device)
    for start in range(0, points.size, rows_per_block):
        index = torch.arange(start, min(start + rows_per_block, points.size), device=z.device)
        block, product = buffer[: len(index)], products[:, : len(index)]
        for first in range(0, len(index), step):
            rows = slice(start + first, start + min(first + step, len(index)))
            part = points.read(rows, block[first:], scratch)
            product[:, first : first + len(part)] = query @ part.T
        scores = (product.double() - half_norms[index]) * precision[:, None]
        top = scores.amax(1)
        size = (product.abs().amax(1).double() + spread) * precision
        if not single:
            yield None, index, scores, ROUNDING[torch.float64] * size, block
            continue
        error = ROUNDING[torch.float32] * size
        best = torch.maximum(best, top - error)
        near = top + error >= best - _WINDOW
        trusted = error <= _TOLERANCE
        for rows, in_doubt in ((near & trusted, False), (near & ~trusted, True)):
            chosen = None if rows.all() else rows.nonzero().squeeze(1)
            if chosen is not None and len(chosen) == 0:
                continue
            at = slice(None) if chosen is None else chosen
            part = scores[at]
            part_z, part_precision = z[at], precision[at]
            if not in_doubt:
                leading = part >= best[at, None] - _LEAD
                worthwhile = (error[at] > _TOLERANCE / 6) & (leading.sum(1) <= _LEADERS)
                leaders = leading[worthwhile].any(0).nonzero().squeeze(1)
                for places, exact, _, _ in rescored(points, part_z, part_precision, index[leaders]):
                    part[:, leaders[places]] = exact
                yield chosen, index, part, error[at], block
                continue
            floor = (best - error - _WINDOW)[at, None]
            candidates = index[(part >= floor).any(0)]
            for places, part, _, exact in rescored(points, part_z, part_precision, candidates):
                best[at] = torch.maximum(best[at], part.amax(1))
                yield chosen, candidates[places], part, ROUNDING[torch.float64] * size[at], exact


def rescored(
    points: Points, z: Tensor, precision: Tensor, index: Tensor
) -> Iterator[tuple[slice, Tensor, Tensor, Tensor]]:
    """Score the points `index` in float64: z (B, D), precision (B,) 1/σ².

    Yields:
        places in `index`; logits (B, n); estimate of their rounding errors (B,), nats; block (n, D) of y − c.
    """
    half_norms = points.half_norms.to(z.device)[index]
    spread = 4 * z.norm(dim=1) * points.radius / points.dim**0.5
    for first, block in points.blocks(max(1, _AGAIN_BYTES // (8 * points.dim)), z.device, index):
        places = slice(first, first + len(block))
        product = z @ block.T
        error = ROUNDING[torch.float64] * (product.abs().amax(1) + spread) * precision
        yield places, (product - half_norms[places]) * precision[:, None], error, block


def moments(points: Points, z: Tensor, sigma: Tensor, *, single: bool, accuracy: Accuracy) -> Moments:
    """The running sums of `Moments` over the whole data, for z (B, D) and sigma (B,), float64."""
    sums = Moments(len(z), points.dim, z.device)
    squares = 2 * points.half_norms.to(z.device)
    for rows, index, scores, error, block in logits(points, z, sigma, single=single, memory=accuracy.memory):
        merge(sums, rows, index, scores, error, block, squares[index])
    return sums


def merge(
    sums: Moments,
    rows: Tensor | None,
    index: Tensor,
    scores: Tensor,
    error: Tensor,
    block: Tensor,
    squares: Tensor,
) -> None:
    """Add the points `index` to the sums of the queries `rows`: a part as `logits` yields it, with ‖y_j − c‖², (n,)."""
    top = scores.amax(1)
    scores.sub_(top[:, None])
    # Equal points get logits that differ by rounding; the first in the data is to lead.
    leader = (scores >= -error[:, None]).int().argmax(1)
    weights = scores.exp()
    sums.merge(
        rows,
        top=top,
        total=weights.sum(1),
        energy=scores.mul_(weights).sum(1),
        mean=weights.to(block.dtype) @ block,
        square=weights @ squares,
        index=index[leader],
        tie=error,
    )


def tilt(points: Points, z: Tensor, sigma: Tensor, tilt: Tilt, *, single: bool, accuracy: Accuracy) -> Tensor:
    """Σ_j w_j c_j (y_j − D), (B, D), with the c_j of `Tilt`."""
    mean, direction, by_distance = tilt.mean, tilt.direction, tilt.by_distance
    out = torch.zeros_like(z)
    squares = 2 * points.half_norms.to(z.device)
    offset = (direction * mean).sum(1)
    mean_square = mean.square().sum(1)
    for rows, index, scores, _, block in logits(points, z, sigma, single=single, memory=accuracy.memory):
        at = slice(None) if rows is None else rows
        centre = mean[at]
        log_weights = scores.sub_(tilt.log_total[at, None])
        coefficient = (direction[at].to(block.dtype) @ block.T).double() - offset[at, None]
        coefficient += tilt.by_log_weight[at, None] * log_weights
        if by_distance.any():
            distance = squares[index] - 2 * (centre.to(block.dtype) @ block.T).double() + mean_square[at, None]
            coefficient += by_distance[at, None] * distance
        coefficient *= log_weights.exp()
        out[at] += (coefficient.to(block.dtype) @ block).double() - coefficient.sum(1, keepdim=True) * centre
    return out
