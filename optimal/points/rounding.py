"""How far float64 arithmetic can be off: the constants behind everything that is called proven.

With u = 2⁻⁵³ every operation gives the exact result times 1 + δ, |δ| <= u (IEEE 754, rounding to nearest, no
underflow), and n of them in a row give a factor within 1 ± γ_n,

    γ_n = n u/(1 − n u)                                                    (Higham 2002, Lemma 3.1)

so that a product of n-vectors, summed in any order and with or without fused multiply-adds, is off by at most
γ_n Σ|a_i b_i| <= γ_n ‖a‖ ‖b‖ (Higham 2002, Section 3.1). What is assumed is that matrix products are sums of products:
no product of the kind of Strassen's, and no lower precision inside (`optimal.arithmetic`).

`pairwise_sum` adds by halves, in an order of our own, the same for every batch: n terms are off by γ_{⌈log2 n⌉} Σ|a_i|.

References:
    Higham 2002, "Accuracy and Stability of Numerical Algorithms", Chapters 3 and 4.
"""

from __future__ import annotations

from torch import Tensor

__all__ = ["UNIT", "gamma", "halvings", "pairwise_sum"]

UNIT = 2.0**-53
"""u, of float64."""


def gamma(n: int) -> float:
    """γ_n = n u/(1 − n u).

    Example:
        >>> gamma(1) / UNIT
        1.0000000000000002
    """
    return n * UNIT / (1 - n * UNIT)


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
