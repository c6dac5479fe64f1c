"""How far x can still be pulled off a data point: upper bounds on the sums behind `optimal.capture`.

For a query x, one point y_k chosen for it, and every other y_j: the distance A_j = ‖y_k − y_j‖/σ and the lead of k,

    g_j = l_k − l_j = (½‖y_k − y_j‖² + (x − y_k)·(y_k − y_j))/σ².

With c_j = g_j/A_j − A_j/2 − δ, z_j = A_j + c_j, and π_j the probability of y_j, the sums are

    S(δ) = (1/Π) Σ_j π_j ∫_{A_j}^∞ exp(−A²/2 − A c_j) dA = (1/n) Σ_j √(π/2) exp(−(g_j − δ A_j) + b_j) erfcx(z_j/√2)

over the points that differ from y_k, Π the probability of y_k with all its copies, n = Π/π_k, their number where no
point has more probability than another, and b_j = log π_j/π_k. The lead g_j is that of the distances alone, without
b_j. The last form has no large terms that cancel; its integral is √(2π) e^{c²/2} Q(A + c).

What is returned is proven to be at least S(δ), for the x and the points as they were given:

1. Products (`_by_products`). With o = x − y_k, h = ½‖y − c‖² and u = 2⁻⁵³, and every number in units of the points,

       σ² g_j = h_k + h_j − (y_k − c)·(y_j − c) + o·(y_k − c) − o·(y_j − c).

   x − c, y − c and o are rounded once in each value, so that o is off by u (‖x − c‖ + ‖y_k − c‖ + ‖o‖) in all; norms
   and products of D values are off by γ_{D+3} of what Cauchy–Schwarz says (`optimal.points.rounding`), and sums and
   differences of two by u. Together, with G = γ_{D+16} and a factor 1 + 2⁻⁸ for what is of second order,

       half square:  2 G (h_k + h_j)
       lead:         2 G (h_k + h_j) + (G ‖o‖ + u (‖x − c‖ + ‖y_k − c‖)) (‖y_k − c‖ + ‖y_j − c‖).

2. Differences (`optimal.points.leads`), with their own bound, for the pairs that matter and that products cannot place:
   a lead to 2⁻²⁰ nats, a half square to 2⁻²⁶ of itself. Copies are what is equal value by value. Points that differ, by
   so little that squares leave the range of the numbers (half squares below 2⁻⁹⁰⁰), make the sum infinite.
3. S falls as a lead grows, so that leads are lowered by their error, and by 2⁻⁴⁰ of themselves for the rounding of
   a few operations. A distance enters in two ways: e^{δA} grows with it, and A is raised by 2⁻²⁵ there; and z_j is
   lowered by 2⁻²⁴ (|g_j|/A_j + A_j/2), more than errors of 2⁻²⁶ in A_j and of a few u in the rest can
   raise it, and by 2⁻⁴⁰.
4. A point that trails by more than 50 nats after any drift, with b_j and without, has z_j > 0 and enters as erfcx <= 1,
   at the largest of all distances that products allow: less than 2e-22 of drift.
5. For z >= 3 erfcx is taken from above by the ninth convergent of Laplace's continued
   fraction,

       √(π/2) erfcx(z/√2) = 1/(z + 1/(z + 2/(z + 3/(z + …))))  <  z⁸ + 35z⁶ + 345z⁴ + 975z² + 384
                                                                  ────────────────────────────────
                                                                  z (z⁸ + 36z⁶ + 378z⁴ + 1260z² + 945)

   Its terms are positive, so that convergents of odd order are above it. It takes a tenth of the time. As erfcx falls
   with z, a z beyond 1e30 counts as 1e30: powers of more would leave the range of the numbers.
6. exp and erfcx are those of torch. Nothing is proven about them: both are taken to be right to 2⁻³², and the tests
   compare them with 50 digits over their range (found: 1 u and, where erfcx is about to overflow, 510 u). With N
   positive terms in a sum of any order the result is raised by 2⁻³⁰ + γ_{N+64} of itself, and by 2⁻⁹⁰⁰ for what is too
   small to be a number.
7. b_j, a difference of two log-weights as `Points.log_weights` has them, is raised by 2⁻⁴⁰ of itself for its rounding
   and that of the sum it enters; in n, a sum of exponentials then, it is lowered by as much
   and n by 2⁻³⁰ + γ_{N+64} of itself; an n beyond 1e30 counts as 1e30.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from ..points import Points
from ..points import leads as leads_by_differences
from ..points.rounding import UNIT, gamma

__all__ = ["drift_bounds"]

_SECOND_ORDER = 1 + 2.0**-8
"""Products of the relative errors above: each is below 2⁻¹⁰ for D < 2⁴²."""
_NATS, _CLOSE = 2.0**-20, 2.0**-26
"""Errors that are let through: of a lead, in nats, and of a half square, in units of itself."""
_LEAST = 2.0**-900
"""Half squares below which products of differences may underflow, and what the sums are raised by for terms that do."""
_FAR = 50.0
"""Points that trail by this many nats after any drift enter as erfcx <= 1."""
_LARGE = 3.0
"""z from which on a convergent stands for erfcx, 3.5e-6 of it above at most."""
_ABOVE, _BELOW = (35.0, 345.0, 975.0, 384.0), (36.0, 378.0, 1260.0, 945.0)
"""The convergent, in z²: z⁸ + 35 z⁶ + … over z (z⁸ + 36 z⁶ + …)."""
_HIGHEST = 1e30
"""z above this count as it: z⁹ is a number."""
_NOTHING = 600.0
_IN_CACHE = 2**15
"""Pairs that a processor looks at together; devices without such a cache take a block at once."""
_ROUNDED = 2.0**-40
_PAIR_BYTES = 8 * 2**20
"""Pairs are compared value by value in pieces of this size."""
_FUNCTIONS = 2.0**-30
"""Of exp, erfcx and their arguments, twice over."""


def drift_bounds(
    points: Points, z: Tensor, sigma: Tensor, index: Tensor, trials: tuple[float, ...], *, memory: int
) -> Tensor:
    """At least S(δ) for every query and every δ in `trials`, (B, len(trials)) float64; may be inf or nan.

    Args:
        z: (B, D) float64, x − c, in units of the points.
        sigma: (B,) float64, in the same units.
        index: (B,) the point chosen for each query.
        trials: the δ, > 0.
        memory: bytes for temporaries.
    """
    sums = torch.zeros(len(z), len(trials), dtype=torch.float64, device=z.device)
    copies = torch.zeros(len(z), dtype=torch.float64, device=z.device)
    if len(z) == 0:
        return sums
    for start, *parts in _by_products(points, z, index, memory):
        some = max(1, _IN_CACHE // parts[0].shape[1]) if z.device.type == "cpu" else len(z)
        found: list[list[Tensor]] = []
        ahead = _ahead(points, index, slice(start, start + parts[0].shape[1]))
        for first, lead, lead_error, half, half_error in zip(
            range(0, len(z), some), *(part.split(some) for part in parts), strict=True
        ):
            here = slice(first, first + some)
            level = sigma[here, None]
            lead, lead_error = lead.div_(level.square()), lead_error.div_(level.square())
            longest = (half + half_error).mul_(2).sqrt_().div_(level)
            g = _lowered(lead, lead_error)
            exponent = longest.mul_(max(trials) * (1 + 2 * _CLOSE)).sub_(g)
            far, more = exponent < -_FAR, None if ahead is None else ahead[here]
            if more is not None:
                far &= exponent.add_(more) < -_FAR
            sums[here] += exponent.exp_().masked_fill_(~far, 0.0).sum(1, keepdim=True)
            A = (2 * half).sqrt_().div_(level)
            along = _along(g, A)
            rest = ~(far | (along >= max(trials) + _LARGE)) | (~far & _coarse(lead_error, half, half_error))
            sums[here] += _large_terms(g, A, along, far | rest, trials, more)
            rows, columns = rest.nonzero(as_tuple=True)
            pairs = (part[rows, columns] for part in (lead, lead_error, half, half_error))
            found.append([rows + first, columns, *pairs])
        rows, columns, *pairs = (torch.cat(each) for each in zip(*found, strict=True))
        same = _placed(points, z, sigma, index, rows, columns + start, *pairs)
        more = None if ahead is None else ahead[rows, columns]
        copies.index_add_(0, rows, same.double() if more is None else torch.where(same, _share(more), 0.0))
        rows, lead, lead_error, half = rows[~same], *(part[~same] for part in pairs[:3])
        more = None if more is None else more[~same]
        for trial, term in enumerate(_terms(_lowered(lead, lead_error), (2 * half).sqrt() / sigma[rows], trials, more)):
            sums[:, trial].index_add_(0, rows, torch.where(half < _LEAST, torch.inf, term))
    raised = math.sqrt(math.pi / 2) * (1 + _FUNCTIONS + gamma(points.size + 64))
    if points.prior is not None:
        copies.mul_(1 - _FUNCTIONS - gamma(points.size + 64)).clamp_max_(_HIGHEST)
    return sums.mul_(raised).add_(_LEAST).div_(copies[:, None])


def _ahead(points: Points, index: Tensor, part: slice) -> Tensor | None:
    """At least b_j = log π_j/π_k of the points `part` over those of `index`, (B, n); None where all are 0."""
    if points.log_weights is None:
        return None
    log_weights = points.log_weights.to(index.device)
    ahead = log_weights[part] - log_weights[index, None]
    return ahead.add_(ahead.abs(), alpha=_ROUNDED)


def _share(more: Tensor) -> Tensor:
    """At most π_j/π_k, up to what exp is off by, where `more` is at least its logarithm and was made by `_ahead`."""
    return more.sub(more.abs(), alpha=3 * _ROUNDED).exp()


def _by_products(
    points: Points, z: Tensor, index: Tensor, memory: int
) -> Iterator[tuple[int, Tensor, Tensor, Tensor, Tensor]]:
    """Of y[index] over every point, block by block, all (B, n) and in units of the points.

    Yields:
        the first point of the block; σ² times the lead and a bound on its error; half the squared distance and a bound
        on its error.
    """
    half_norms = points.half_norms.to(z.device)
    norms = (2 * half_norms).sqrt()
    ((_, own),) = points.blocks(len(index), z.device, index)
    offset = z - own
    queries = torch.cat([offset, own])
    own_half, own_norm, own_product = half_norms[index], norms[index], (offset * own).sum(1)
    slack = _SECOND_ORDER * gamma(points.dim + 16)
    slope = slack * offset.norm(dim=1) + _SECOND_ORDER * UNIT * (z.norm(dim=1) + own_norm)
    for start, block in points.blocks(points.block_rows(len(queries), memory, device=z.device), z.device):
        part = slice(start, start + len(block))
        by_offset, by_own = (queries @ block.T).split(len(z))
        halves = own_half[:, None] + half_norms[part]
        half = (halves - by_own).clamp_min_(0)
        half_error = halves.mul_(2 * slack)
        lead_error = half_error + slope[:, None] * (own_norm[:, None] + norms[part])
        yield start, half + (own_product[:, None] - by_offset), lead_error, half, half_error


def _placed(
    points: Points,
    z: Tensor,
    sigma: Tensor,
    index: Tensor,
    rows: Tensor,
    columns: Tensor,
    lead: Tensor,
    lead_error: Tensor,
    half: Tensor,
    half_error: Tensor,
) -> Tensor:
    """Put what differences say where products are too coarse, for the pairs (rows, columns); nats. Which are copies."""
    same = columns == index[rows]
    coarse = (~same & _coarse(lead_error, half, half_error)).nonzero().squeeze(1)
    if len(coarse):
        at, others = rows[coarse], columns[coarse]
        found = leads_by_differences(points, z, index, at, others)
        precision = sigma[at].square()
        lead[coarse], lead_error[coarse] = found.lead / precision, found.error / precision
        half[coarse] = found.half_square
        for pairs in coarse[found.half_square < _LEAST].split(max(1, _PAIR_BYTES // (16 * points.dim))):
            own, other = points.exact(index[rows[pairs]], z.device), points.exact(columns[pairs], z.device)
            same[pairs] = (own == other).all(1)
    return same


def _lowered(lead: Tensor, error: Tensor) -> Tensor:
    """At most the exact lead, in nats, whatever the division by σ² has rounded."""
    return lead - error * (1 + _ROUNDED) - lead.abs() * _ROUNDED


def _coarse(lead_error: Tensor, half: Tensor, half_error: Tensor) -> Tensor:
    """Which pairs products cannot place."""
    return (half * _CLOSE <= half_error) | (half < _LEAST) | ~(lead_error <= _NATS)


def _along(g: Tensor, A: Tensor) -> Tensor:
    """At most z + δ = g/A + A/2, for leads that are at least g and distances A to 2⁻²⁶."""
    along = (g / A).add_(A, alpha=0.5).sub_(g.abs().div_(A).add_(A, alpha=0.5), alpha=4 * _CLOSE)
    return along.sub_(_ROUNDED).clamp_max_(_HIGHEST)


def _terms(g: Tensor, A: Tensor, trials: tuple[float, ...], more: Tensor | None) -> Iterator[Tensor]:
    """At least exp(−(g − δA) + b) erfcx(z/√2) of each pair, leads at least g, b at most `more`, A to 2⁻²⁶."""
    along = _along(g, A)
    for drift in trials:
        mills = torch.special.erfcx((along - drift) / math.sqrt(2))
        exponent = drift * (1 + 2 * _CLOSE) * A - g
        yield (exponent if more is None else exponent.add_(more)).exp_().mul_(mills)


def _large_terms(
    g: Tensor, A: Tensor, along: Tensor, without: Tensor, trials: tuple[float, ...], more: Tensor | None
) -> Tensor:
    """The sums of the same over the pairs of a matrix, but those `without`, where z >= `_LARGE`: (b, len(trials)).

    What is left out adds e⁻⁶⁰⁰ a pair. g, A and along are overwritten.
    """
    if more is not None:
        g = g - more  # Along holds what was made of the lead of the distances alone.
    g.masked_fill_(without, _NOTHING)
    A.masked_fill_(without, 0.0)
    along.masked_fill_(without, max(trials) + _LARGE)
    sums = g.new_empty(len(g), len(trials))
    term, z, square, above, below = (torch.empty_like(g) for _ in range(5))
    for trial, drift in enumerate(trials):
        torch.mul(A, drift * (1 + 2 * _CLOSE), out=term).sub_(g).exp_()
        torch.sub(along, drift, out=z)
        torch.mul(z, z, out=square)
        for polynomial, out in ((_ABOVE, above), (_BELOW, below)):
            torch.add(square, polynomial[0], out=out)
            for coefficient in polynomial[1:]:
                out.mul_(square).add_(coefficient)
        sums[:, trial] = term.mul_(above).div_(below.mul_(z)).sum(1)
    return sums.mul_(math.sqrt(2 / math.pi))
