"""How much nearer a query is to one data point than to another, by the difference of the two points.

With l_j = −‖x − y_j‖²/2σ² the logit of Eq. 43, and z, y relative to the centre of the points,

    σ² (l_r − l_j) = ⟨y_r − y_j, z − ½(y_r + y_j)⟩.

Products of x with single points give the same, off by the rounding of numbers of the size ‖z‖ ‖y‖, however close y_r
and y_j are. Here the small factor, y_r − y_j, is taken first and from the rows themselves, where nothing is lost. For
copies it is 0, exactly.

Error, proven. u = 2⁻⁵³. y_r − y_j, from the rows as they are stored, is off by u |y_r − y_j| in each value; z came with
an error of at most u |z|, and each y − c with u |y − c|; halving, adding and subtracting them leaves
z − ½(y_r + y_j) off by at most 4u (|z| + |y_r| + |y_j|) in each value. With the rounding of n products and of their
pairwise sum, and by Cauchy–Schwarz over the n values,

    |computed − exact| <= γ_{⌈log2 n⌉ + 8} ‖y_r − y_j‖ (‖z‖ + ‖y_r‖ + ‖y_j‖).

The norms on the right are themselves computed: the index of γ is raised by 2 for them. What products lose below the
smallest normal number is not in it: n 2⁻¹⁰²² at most, in squared units of the points, so that points nearer to each
other than about 2⁻⁵¹⁰ units, 1e-154, may count as one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from .rounding import gamma, halvings, pairwise_sum

if TYPE_CHECKING:
    from .empirical import Points

__all__ = ["Leads", "leads"]

_PAIR_BYTES = 8 * 2**20
"""Differences are taken in pieces of this size."""


@dataclass(frozen=True)
class Leads:
    """Of pairs of a query and a point, in units of the points.

    Attributes:
        lead: (P,) float64, σ² (l_r − l_j): positive where the reference is nearer.
        error: (P,) float64, proven bound on |lead − exact|, up to n 2⁻¹⁰²²; 0 for copies of the reference.
        half_square: (P,) float64, ½‖y_r − y_j‖², right to γ_{⌈log2 n⌉ + 4}, up to n 2⁻¹⁰²²; 0 for copies, and for what
            differs by less than about 2⁻⁵¹⁰.
    """

    lead: Tensor
    error: Tensor
    half_square: Tensor


def leads(points: Points, z: Tensor, reference: Tensor, rows: Tensor, columns: Tensor) -> Leads:
    """The lead of each row's reference point over other points, pair by pair.

    Args:
        points: the points.
        z: (B, D) float64, the queries as the points reduce them.
        reference: (B,) int64, one point for every query.
        rows, columns: (P,) int64, a query and a point.
    """
    lead, half = (torch.empty(len(rows), dtype=torch.float64, device=z.device) for _ in range(2))
    size = max(1, _PAIR_BYTES // (8 * points.dim))
    for start in range(0, len(rows), size):
        at = slice(start, start + size)
        row, column = rows[at], columns[at]
        own, other = points.exact(reference[row], z.device), points.exact(column, z.device)
        difference = (own - other).mul_(1 / points.unit)
        for each in (own, other):
            each.sub_(points.centre.to(z.device)).mul_(0.5 / points.unit)
        middle = z[row].sub_(own).sub_(other)
        lead[at] = pairwise_sum(middle.mul_(difference))
        half[at] = pairwise_sum(difference.square_()).mul_(0.5)
    norms = (2 * points.half_norms.to(z.device)).sqrt()
    reach = z.norm(dim=1)[rows] + norms[reference[rows]] + norms[columns]
    error = gamma(halvings(points.dim) + 10) * (2 * half).sqrt() * reach
    return Leads(lead, error, half)
