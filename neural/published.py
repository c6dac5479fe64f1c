"""The coefficients by which papers say how well one answer agrees with another, of single draws.

With f the answer of a network and d that of what it is held to, dim values each:

    explained     1 − ‖f − d‖²/‖f‖²                                                     (Wang, Vastola 2024)
    r_square      1 − ‖f − d‖²/(dim·Var f), Var over the values of one answer, dim − 1 in its divisor
                                                                                        (Lukoianov et al. 2025)
    pearson       the correlation over the values of one answer                         (Kamb, Ganguli 2024)
    cosine        ⟨f, d⟩/(‖f‖ ‖d‖)
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["coefficients", "cosine_of_rows"]

_INVERSE_SQUARE = 3
"""Fewest values of a point in which 1/‖F‖² can have a mean though the density of F is positive at 0."""


def coefficients(f: Tensor, d: Tensor) -> dict[str, Tensor]:
    """Of every row of answers (B, dim) float64, (B,) each; nan where there are too few values for it to have a mean."""
    dim, gap = f.shape[1], (f - d).square().sum(1)
    nothing = torch.full_like(gap, torch.nan)
    several = dim > 1
    return {
        "explained": 1 - gap / f.square().sum(1) if dim >= _INVERSE_SQUARE else nothing,
        "r_square": 1 - gap / (dim * f.var(1)) if several else nothing,
        "pearson": cosine_of_rows(f - f.mean(1, keepdim=True), d - d.mean(1, keepdim=True)) if several else nothing,
        "cosine": cosine_of_rows(f, d),
    }


def cosine_of_rows(a: Tensor, b: Tensor) -> Tensor:
    """Of rows; 0 where one of them is 0."""
    tiny = torch.finfo(torch.float64).tiny
    a, b = (each / each.norm(dim=1, keepdim=True).clamp_min(tiny) for each in (a, b))
    return (a * b).sum(1)
