"""How far float64 arithmetic can be off: the constants behind everything that is called proven.

With u = 2⁻⁵³ every operation gives the exact result times 1 + δ, |δ| <= u (IEEE 754, rounding to nearest, no
underflow), and n of them in a row give a factor within 1 ± γ_n,

    γ_n = n u/(1 − n u)                                                    (Higham 2002, Lemma 3.1)

so that a product of n-vectors, summed in any order and with or without fused multiply-adds, is off by at most
γ_n Σ|a_i b_i| <= γ_n ‖a‖ ‖b‖ (Higham 2002, Section 3.1). What is assumed is that matrix products are sums of products:
no product of the kind of Strassen's, and no lower precision inside (`optimal.arithmetic`).

Below ω, the smallest normal number, a result is off by ω at most, whatever the processor makes of it. A product of
n-vectors takes n products and n sums, and where its vectors are rounded to the type first, each of their values is off
by ω more, which moves it by ω √n (‖a‖ + ‖b‖) at most: less than λ (1 + (‖a‖ + ‖b‖)/√n), λ = 4 ω n, in all, a half of
which is to spare.

`pairwise_sum` adds by halves, in an order of our own, the same for every batch: n terms are off by γ_{⌈log2 n⌉} Σ|a_i|.

References:
    Higham 2002, "Accuracy and Stability of Numerical Algorithms", Chapters 3 and 4.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

__all__ = ["UNIT", "gamma", "halvings", "lost", "pairwise_sum"]

UNIT = 2.0**-53
"""u, of float64."""


def gamma(n: int, dtype: torch.dtype = torch.float64) -> float:
    """γ_n = n u/(1 − n u), u that of `dtype`; inf where n u >= 1.

    Example:
        >>> gamma(1) / UNIT
        1.0000000000000002
    """
    share = n * torch.finfo(dtype).eps / 2
    return share / (1 - share) if share < 1 else math.inf


def lost(n: int, dtype: torch.dtype) -> float:
    """λ = 4 ω n, such that λ (1 + (‖a‖ + ‖b‖)/√n) is more than a product of n-vectors of type `dtype` loses below ω.

    Example:
        >>> f"{lost(4, torch.float32):.3g}"
        '1.88e-37'
    """
    return 4 * n * torch.finfo(dtype).tiny


def halvings(n: int) -> int:
    """⌈log2 n⌉: how often n terms are halved until one is left."""
    return max(n - 1, 0).bit_length()


def pairwise_sum(values: Tensor) -> Tensor:
    """Σ over the last axis by halves: the error is at most γ_{⌈log2 n⌉} Σ|a_i|.

    Args:
        values: (…, n); destroyed.

    Returns:
        (…,).

    Example:
        >>> import torch
        >>> pairwise_sum(torch.tensor([[1.0, 2.0, 3.0], [0.0, 0.0, 5.0]]))
        tensor([6., 5.])
    """
    count = values.shape[-1]
    if count == 0:
        return values.sum(-1)
    while count > 1:
        half = (count + 1) // 2
        values[..., : count - half] += values[..., half:count]
        count = half
    return values[..., 0].clone()
