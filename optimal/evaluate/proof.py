"""Why the bound of `screened` holds: the theorem, its proof, and its constants.

Theorem. Let x and σ be one row of a call, D the posterior mean of Eq. 43 in exact arithmetic for the points as
`to_float` has them and, under a prior, for its log-weights a_j as `Points.log_weights` has them, and m the mean that
`screened` has in float64. Then `error_bound` >= ‖m − D‖/‖D‖ with probability at least 1 − `RISK` = 1 − 10⁻¹², row by
row; of B rows all hold with probability 1 − B·10⁻¹². `Moments.doubt` bounds in the same way the error of log Σ_j
e^{l_j}. Excluded is the rounding of m to the dtype of x, which is relative to ‖m‖ at most 2⁻²⁴ for float32, 2⁻¹¹ for
float16 and 2⁻⁸ for bfloat16, where nothing underflows.

Assumptions. Arithmetic is IEEE 754's, rounded to nearest, with u = 2⁻⁵³ and γ_n = n u/(1 − n u)
(`optimal.points.rounding`): sums may be taken in any order, products may be fused, matrix products are sums of products
(no Strassen). The exponential is within 2⁻⁴⁴ relative in float64, 2⁻¹² in float32. The random numbers are those of
Philox under a key that is BLAKE2b of the row's own bytes, of σ and of all data and log-weights; what is assumed of both
is that these numbers are as good as independent of x, σ, the data and the log-weights, which the key holds too. Who
makes x, or data, from the source to break the bound finds them by trying, some 10¹² times.

Notation. v_j = y_j − c, h_j = ½‖v_j‖², λ_j = z·v_j − h_j + σ² a_j = σ² l_j, a_j = 0 without a prior, A = max |a_j|, R
>= max ‖v_j‖. Norms are computed to within 1 ± γ_{D+6} and are taken with that factor (`upper`); a bound is itself
computed, by fewer than 2⁸ operations, and multiplied by `AGAIN` = 1 + 2⁻⁴⁰ at the end.

1. What exact logits would have to be. z = x − c is rounded, which moves λ_j by u ‖z‖ ‖v_j‖. Bytes stand for ỹ_j = (u_j
   + ½)/127.5 + κ, u_j signed bytes, where y_j is the float32 number that `to_float` makes; with κ and Δ of
   `bytes_as_floats` all 256 values differ by at most Δ, about 0.75·2⁻²⁴, so ‖y_j − ỹ_j‖ <= Δ √D.

2. Digits of the query (`byte_digits`). z = Σ_k s_k q_k + r + ζ, q_k = ⌊z_k/s_k + d⌋ of what is left, z_k, with s_1 =
   max |z|/127. Rounded at random, d = (k + ½) 2⁻¹⁶ with k uniform on 0 … 2¹⁶ − 1 is at least 2⁻¹⁷ from 0 and 1, more
   than z_k/s_k + d is rounded by (below 2⁻⁴⁰); so q_k takes one of two neighbouring values, both within ±127: nothing
   is ever clamped. What is left of a value takes two values s_k apart, of mean at most s_k 2⁻¹⁶ (`GRAIN`; 2⁻¹⁷ from the
   2¹⁶ values of d, and rounding), and is below s_k, independently for all values. By Hoeffding's inequality, for N
   vectors v_j,

       |r·v_j| <= s_k ‖v_j‖ (√(½ ln(2N/ρ)) + 2⁻¹⁶ √D)  for all j, but with probability ρ = `CHANCE` = `RISK`/16,

   given all digits before, whatever these and the choice of points depend on: each digit has numbers of its own. And
   always |r·v_j| <= ‖r‖ ‖v_j‖; the smaller counts. ζ collects the rounding of z_k − s_k q_k: at most 2u·128 s_k in each
   value, in norm 2u·Q with Q = `reach` = Σ_k 128 s_k √D >= Σ_k ‖s_k q_k‖.

3. Products (`byte_logits`). S_kj = q_k·u_j is an integer, exact in int32 and float32 (`product`). With what 1 and 2
   leave, computed products less h_j and with σ² a_j differ from λ_j, but for a number that is the same for all j, by at
   most α + β ‖v_j‖ with

       α = (‖z‖ + ‖r‖) Δ √D + γ_26 (2.02 Q √D + σ² A) + γ_{D+16} ½R²,      β = digits.error + 2u ‖z‖:

   |u_j|/127.5 and the constant ½/127.5 + κ − c are below 1.004 and 2.02 in every value, so all terms together are below
   2.02 Q √D, and each passes through at most 26 operations (7 digits, their sum, h_j, a_j, division by σ², the sums of
   `near`), `MOST_STEPS`; σ² a_j passes through fewer; h_j is known to γ_{D+2}. The number common to all j enters log Σ
   e^{l_j} only, with γ_{D+16} 2.02 Q √D.

4. What is left out (`near`). best = max_j(λ̂_j − β‖v_j‖) − 2α is below max_j λ_j + the common number − α, so that (λ̂_j
   + β‖v_j‖ − best)/σ² is at least the lead of j over all points, and e to it at least its weight in units of the
   largest. The leads are rounded to float32, their exponentials added in it, which `SINGLE` = 1.001 covers: e to
   2⁻²⁴·104 nats (beyond, float32 has no number: N 2⁻¹²⁶ is added), 2⁻¹² for the exponential and γ_4096 in float32 for
   the sums. The total is at least 1, so ω = `left_out`, added up over all passes, is at least the share of what was
   left out, and the mean moves by at most 2Rω.

5. Logits in float64 (`sharp`): by products, |λ̂_j − λ_j| <= γ_{D+16} (‖z‖ V + ½V² + σ² A), V = max ‖v_j‖ of the points
   at hand; or by differences, `points.differences`, relative to a leader y_k, with an error that goes to 0 with the
   distance, and 4u (σ² |a_j − a_k| + |lead|) for the prior: three roundings of the first, one of the sum.

6. From logits to the mean. Let all l_j be off by at most ε, but for a common number, and w, ŵ be the exact and computed
   weights. r_j = w_j/ŵ_j has Σ ŵ_j r_j = 1 and max r <= e^{2ε} min r, so Σ ŵ_j (r_j − 1)² <= (max r − 1)(1 − min r) <=
   sinh² ε (Bhatia and Davis 2000), and by Cauchy–Schwarz, for any point p,

       ‖Σ w_j y_j − Σ ŵ_j y_j‖ <= sinh ε · √(Σ ŵ_j ‖y_j − p‖²).

   ε has `EXP` = 2⁻⁴⁰ nats added: the exponential, and the rounding of arguments down to −745, below which it is 0. With
   p the computed mean a, known to e (7), Σ ŵ_j ‖y_j − p‖² <= Σ ŵ_j ‖v_j‖² − ‖a‖² + 2‖a‖e + γ_{2(D+n)+64} V², n the
   points.

7. The mean under ŵ, n points. In float64: off by 2γ_{n+16} V. By bytes: ŵ_j = Σ_k t_k p_kj + r_j + ζ_j in digits as z,
   rounded at random by numbers of their own. ‖Σ r_j v_j‖ is a function of independent r_j that changes by at most
   t ‖v_j‖ with each, and E‖Σ (r_j − E r_j) v_j‖² <= ¼ t² F², F² = Σ ‖v_j‖²; by McDiarmid's inequality

       ‖Σ r_j v_j‖ <= t (F (½ + √(½ ln(1/ρ))) + 2⁻¹⁶ Σ ‖v_j‖),  but with probability ρ = `CHANCE`,

   and always Σ |r_j| ‖v_j‖. To this come Δ √D Σ|ŵ_j − r_j| for the bytes, and with Q_w = Σ_k 128 t_k √n the roundings
   (2u V + γ_32 · 2.02 √D) √n Q_w. All over Σ ŵ_j, known to γ_{n+16}.

8. Adding c rounds by 4u (V + ‖c‖). The sum of all is a bound e on ‖m − D‖, and e/(‖m‖ − e) one on ‖m − D‖/‖D‖.

9. Parts. Sums over parts of the points, as of every class (`joint`), are held to all of this part by part: best, ω, the
   tolerance and the bound are those of the part's own sums. The digits of the query are one for all parts, and 2 bounds
   |r·v_j| for all N points at once; the key does not hold which point is in which part, and need not, since that choice
   enters 2 only by which of the N inequalities are used. The digits of weights are rounded by the same numbers in every
   part: the bound of each holds with the chance of 7, and not independently of the others.

10. Rivals (`rivals`). Evidence of unlike queries is compared by σ² log P + λ_j − ½‖z‖², whose terms are known to the
    margins of 3, the number common to all j with them (`doubt`), γ_{D+16} ½‖z‖² and γ_4 σ² |log P|. A query of which
    no point comes within log(N/2·10⁻⁸) nats of the best point of its group has at most 2·10⁻⁸ of the group's evidence.

11. Chances. A query has at most 7 digits and weights at most 6, each failing with ρ = `RISK`/16: together below `RISK`.

References:
    Higham 2002, "Accuracy and Stability of Numerical Algorithms", Section 3.1.
    Hoeffding 1963, "Probability Inequalities for Sums of Bounded Random Variables", Theorem 2.
    McDiarmid 1989, "On the method of bounded differences", Lemma 1.2.
    Bhatia, Davis 2000, "A Better Bound on the Variance".
    Salmon, Moraes, Dror, Shaw 2011, "Parallel random numbers: as easy as 1, 2, 3" (Philox).
"""

from __future__ import annotations

import functools
from typing import overload

import torch
from torch import Tensor

from ..datasets import to_float
from ..points.rounding import UNIT, gamma

__all__ = [
    "AGAIN",
    "CHANCE",
    "EXP",
    "GRAIN",
    "MOST_DIGITS",
    "MOST_STEPS",
    "RISK",
    "SINGLE",
    "bytes_as_floats",
    "moved",
    "relative",
    "share",
    "upper",
]

RISK = 1e-12
"""That the bound of a row does not hold."""
CHANCE = RISK / 16
"""The share of one digit in it."""
MOST_DIGITS = 6
"""Of weights, and of a query after its first: beyond, float64 itself is the limit. 1 + 2 · 6 < 16."""
MOST_STEPS = 26
"""Operations that a term of a logit passes through."""
GRAIN = 2.0**-16
"""Distance of the numbers that digits are rounded by."""
EXP = 2.0**-40
"""Nats: what exponentials in float64 and the rounding of their arguments are worth."""
SINGLE = 1.001
"""The same for sums of exponentials in float32, as a factor."""
AGAIN = 1 + 2.0**-40
"""Factor for the rounding of the bounds."""


@overload
def upper(norm: float, dim: int) -> float: ...
@overload
def upper(norm: Tensor, dim: int) -> Tensor: ...
def upper(norm: Tensor | float, dim: int) -> Tensor | float:
    """At least the norm, where it was computed from `dim` values that were each rounded once or twice."""
    return norm * (1 + gamma(dim + 6))


@functools.cache
def bytes_as_floats(device: torch.device) -> tuple[float, float]:
    """κ and Δ: |to_float(b) − (2b − 255)/255 − κ| <= Δ for all 256 bytes b, as the device computes `to_float`."""
    values = torch.arange(256, dtype=torch.uint8, device=device)
    exact = (2 * values.double() - 255) / 255
    off = to_float(values).double() - exact
    low, high = float(off.min()), float(off.max())
    # The quotient and the difference are rounded, of numbers up to 1.
    return 0.5 * (low + high), 0.5 * (high - low) + 4 * UNIT


def share(left_out: Tensor) -> Tensor:
    """(B,) nats: how much more log Σ_j e^{l_j} is over all points, where those left out weigh at most so much."""
    return torch.where(left_out < 1, -torch.log1p(-left_out.clamp_max(1)), torch.inf)


def moved(error: Tensor, square: Tensor) -> Tensor:
    """(B,): how far the mean moves at most where log-weights are off by `error`, and Σ w ‖y − p‖² <= `square`."""
    return torch.where(square > 0, torch.sinh(error) * square.sqrt(), 0.0).nan_to_num(torch.inf, torch.inf)


def relative(bound: Tensor, size: Tensor) -> Tensor:
    """(B,): bound on ‖m − D‖/‖D‖ from one on ‖m − D‖, and `size` = ‖m‖ as computed; nan stays."""
    left = size * (1 - 2.0**-30) - bound
    return torch.where(left <= 0, torch.inf, AGAIN * bound / left)
