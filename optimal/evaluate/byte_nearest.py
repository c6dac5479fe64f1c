"""Which images can be nearest to a query, by one exact product of bytes: for `optimal.points.nearest`.

A query z = x − c is rounded to one or two digits of a byte, z = ẑ + r, ẑ = s q + (s/254) q', and one pass over the data
gives every q·u, without rounding. With y = (u + ½)/127.5 up to 2⁻²⁴ in each value, and up to one number for all points,

    s_j = ½‖y_j − c‖² − z·(y_j − c) = ½‖y_j − c‖² − ẑ·u_j/127.5 + e_j,
    |e_j| <= ‖r‖ ‖y_j − c‖ + 2⁻²⁴ √D ‖ẑ‖ + γ_{D+3} ½‖y_j − c‖² + 4 γ_6 √D (‖s q‖ + ‖s q'/254‖),

the last term for the rounding of what is made of the exact sums. Points whose lower bound is above the smallest upper
bound (of k nearest: the k-th smallest) are not among them: proven, and three times faster than float32 products.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..points import Points
from ..points.rounding import gamma
from .byte_digits import fast_bytes, product

__all__ = ["screen"]

_BLOCK_BYTES = 12 * 2**20
_STORED = 2.0**-24
"""Largest difference between (u + ½)/127.5 and the float32 number that `to_float` makes of it."""
_ENOUGH = 0.02
"""One digit is enough where what it leaves moves no score by more than this share of ½‖y − c‖², on average."""
_NORMS = 1 + 2.0**-20
"""Above what the rounding of norms, and of the bounds themselves, can take from them."""


def screen(points: Points, z: Tensor, count: int = 1) -> tuple[Tensor, Tensor] | None:
    """Pairs (query, point), row by row, among which the nearest of every query are; None where bytes are not fast.

    Args:
        points: the points.
        z: (B, D) float64, as the points reduce them.
        count: how many distinct ones are asked for; of more than one, copies are left out.
    """
    if not points.bytes or z.device.type != "cpu" or not fast_bytes():
        return None
    size = max(1, points.memory // (4 * 8 * points.size))
    found = [(start, *_among(points, z[start : start + size], count)) for start in range(0, len(z), size)]
    rows = [row + start for start, row, _ in found]
    return torch.cat(rows), torch.cat([column for _, _, column in found])


def _among(points: Points, z: Tensor, count: int) -> tuple[Tensor, Tensor]:
    step = (torch.linalg.vector_norm(z, torch.inf, dim=1) / 127).clamp_min(torch.finfo(torch.float64).tiny)
    rest, digits, units, size = z, [], [], torch.zeros_like(step)
    for _ in range(2):
        digit = (rest / step[:, None]).round_().clamp_(-127, 127)
        rest = rest - digit * step[:, None]
        digits.append(digit.to(torch.int8))
        units.append(step / 127.5)
        size += digit.norm(dim=1) * step
        if float(rest.norm(dim=1).max()) * points.radius <= _ENOUGH * points.mean_half_norm:
            break
        step = step / 254
    common = size * (math.sqrt(points.dim) * (_STORED + 4 * gamma(6)) * _NORMS)
    # What the digits leave is itself off by a rounding of z.
    left = rest.norm(dim=1) * _NORMS + gamma(4) * z.norm(dim=1)
    queries = torch.cat(digits).T.contiguous()
    half_norms = points.half_norms.to(z.device)
    norms = (2 * half_norms).sqrt() * _NORMS
    low = torch.empty(points.size, len(z), dtype=torch.float64, device=z.device)
    best = torch.full((count, len(z)), torch.inf, dtype=torch.float64, device=z.device)
    copies = None
    if count > 1:
        copies = (points.first_copies != torch.arange(points.size, dtype=torch.int64, device="cpu")).to(z.device)
    for part, block in points.signed(_BLOCK_BYTES, z.device, columns=queries.shape[1]):
        half = half_norms[part, None]
        sums = product(block, queries).view(len(block), len(units), len(z))
        scores = half.expand(-1, len(z)).clone()
        for place, unit in enumerate(units):
            scores.addcmul_(sums[:, place].double(), unit, value=-1)
        error = torch.outer(norms[part], left).add_(common).add_(gamma(points.dim + 3) * half)
        if copies is not None:
            scores.masked_fill_(copies[part, None], torch.inf)
        high = scores + error
        most = high.amin(0, keepdim=True) if count == 1 else high.topk(min(count, len(high)), 0, largest=False).values
        best = torch.cat([best, most]).topk(count, 0, largest=False).values
        low[part] = scores.sub_(error)
    rows, columns = ((low <= best[-1]) & (low < torch.inf)).T.nonzero(as_tuple=True)
    return rows, columns
