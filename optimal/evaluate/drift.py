"""How far x can still be pulled off a data point: the sums behind `optimal.capture`.

For a query x, one point y_k chosen for it, and every other y_j: the distance A_j = ‖y_k − y_j‖/σ and the lead of k,

    g_j = log w_k/w_j = (½‖y_k − y_j‖² + (x − y_k)·(y_k − y_j))/σ².

With c_j = g_j/A_j − A_j/2 − δ, z_j = A_j + c_j, and n copies of y_k in the data, the sums are

    S(δ) = (1/n) Σ_j ∫_{A_j}^∞ exp(−A²/2 − A c_j) dA = (1/n) Σ_j √(π/2) exp(−(g_j − δ A_j)) erfcx(z_j/√2)

over the points that differ from y_k. The last form has no large terms that cancel; it is √(2π) e^{c²/2} Q(A + c).

S falls as a lead grows, so what is returned is an upper bound: leads are lowered by their rounding, the same estimate
as for the logits of `dense`, and distances may be wrong by 1 part in 10⁶ either way. Points for which the products
cannot place the distance that well, copies and near copies, are compared by their differences.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from ..points import Points
from .dense import ROUNDING

__all__ = ["drift_bounds", "leads"]

_UNIT = ROUNDING[torch.float64]
_DISTANCE = 2.0**-20
"""Relative error of a distance that is let through."""
_FAR = 50.0
"""Points that trail by this many nats after any drift enter as erfcx <= 1: less than 2e-22 of drift each."""
_PAIR_BYTES = 8 * 2**20
"""Differences of single pairs are taken in pieces of this size."""


def leads(points: Points, z: Tensor, sigma: Tensor, index: Tensor, *, memory: int) -> Iterator[tuple[Tensor, Tensor]]:
    """The lead of y[index] over every point, and its distance from it, block by block in the order of the data.

    Args:
        z: (B, D) float64, x − c.
        sigma: (B,) float64.
        index: (B,) the point chosen for each query.
        memory: bytes for temporaries.

    Yields:
        lead: (B, n) float64, nats, lowered by its rounding error.
        distance: (B, n) float64, in units of sigma, right to 1 part in 2²⁰; 0 for copies, and for them only.
    """
    precision = sigma.square().reciprocal()[:, None]
    half_norms = points.half_norms.to(z.device)
    own = points.take(index).to(z.device).flatten(1).double()
    centred = own - points.centre.to(z.device)
    offset = z - centred
    queries = torch.cat([offset, centred])
    own_half, own_product = half_norms[index, None], (offset * centred).sum(1, keepdim=True)
    spread = 4 / points.dim**0.5
    reach = spread * (offset.norm(dim=1) + centred.norm(dim=1))[:, None]
    radii = (2 * half_norms).sqrt()
    for start, block in points.blocks(points.block_rows(len(queries), memory), z.device):
        part = slice(start, start + len(block))
        products = queries @ block.T
        by_offset, by_own = products[: len(z)], products[len(z) :]
        halves = own_half + half_norms[part]
        half = (halves - by_own).clamp_min_(0)
        half_error = _UNIT * (2 + spread) * halves
        product = own_product - by_offset
        error = own_product.abs() + by_offset.abs() + reach * (radii[index, None] + radii[part])
        error = half_error + _UNIT * error
        # The relative error of the distance is half that of its square.
        rows, columns = (half * (2 * _DISTANCE) <= half_error).nonzero(as_tuple=True)
        size = max(1, _PAIR_BYTES // (8 * points.dim))
        for row, column in zip(rows.split(size), columns.split(size), strict=True):
            difference = own[row] - points.take(start + column).to(z.device).flatten(1).double()
            at = row, column
            half[at] = 0.5 * difference.square().sum(1)
            product[at] = (difference * offset[row]).sum(1)
            length = (2 * half[at]).sqrt()
            error[at] = _UNIT * (half[at] + product[at].abs() + reach[row, 0] * length)
        yield half.add(product).sub_(error).mul_(precision), half.mul_(2 * precision).sqrt_()


def drift_bounds(
    points: Points, z: Tensor, sigma: Tensor, index: Tensor, trials: tuple[float, ...], *, memory: int
) -> Tensor:
    """S(δ) for every query and every δ in `trials`, (B, len(trials)) float64; may be inf. Arguments as for `leads`."""
    sums = torch.zeros(len(z), len(trials), dtype=torch.float64, device=z.device)
    copies = torch.zeros(len(z), 1, dtype=torch.float64, device=z.device)
    for lead, distance in leads(points, z, sigma, index, memory=memory):
        others = distance > 0
        copies += (~others).sum(1, keepdim=True)
        exponent = (max(trials) * (1 + _DISTANCE)) * distance - lead
        far = others & (exponent < -_FAR)
        sums += exponent.exp_().masked_fill_(~far, 0.0).sum(1, keepdim=True)
        rows, columns = (others & ~far).nonzero(as_tuple=True)
        g, A = lead[rows, columns], distance[rows, columns]
        least = g / A + A / 2 - 2 * _DISTANCE * (g.abs() / A + A / 2)
        for trial, drift in enumerate(trials):
            mills = torch.special.erfcx((least - drift) / math.sqrt(2))
            sums[:, trial].index_add_(0, rows, (drift * (1 + _DISTANCE) * A - g).exp_().mul_(mills))
    return sums.mul_(math.sqrt(math.pi / 2)).div_(copies)
