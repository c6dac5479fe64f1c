"""Noise grids: decreasing sigmas whose last entry is 0, for any number of steps from one on.

The EDM grid (Eq. 33; Karras et al. 2022, Eq. 5) spaces σ^{1/ρ} evenly, so that steps are shortest at low noise:

    σ_i = (σ_max^{1/ρ} + i/(n − 1) · (σ_min^{1/ρ} − σ_max^{1/ρ}))^ρ   for i = 0 … n − 1,    σ_n = 0
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["karras"]


def karras(n: int, *, sigma_min: float = 0.002, sigma_max: float = 80.0, rho: float = 7.0) -> Tensor:
    """The EDM grid of n steps (Eq. 33).

    Args:
        n: number of steps, at least 1. One step is [sigma_max, 0].
        sigma_min, sigma_max: last non-zero and first noise level.
        rho: exponent; larger spends more steps at low noise.

    Returns:
        (n + 1,) float64, decreasing, the last entry 0.

    Raises:
        ValueError: n < 1, not 0 < sigma_min <= sigma_max < inf, or rho not positive and finite.

    Example:
        >>> karras(3)
        tensor([8.0000e+01, 2.5152e+00, 2.0000e-03, 0.0000e+00], dtype=torch.float64)
    """
    if n < 1:
        raise ValueError(f"a grid needs at least 1 step, got n = {n}")
    if not 0 < sigma_min <= sigma_max < torch.inf:
        raise ValueError(f"a grid needs 0 < sigma_min <= sigma_max < inf, got {sigma_min:g} and {sigma_max:g}")
    if not 0 < rho < torch.inf:
        raise ValueError(f"rho must be positive and finite, got {rho:g}")
    fraction = torch.arange(n, dtype=torch.float64) / max(n - 1, 1)
    high, low = sigma_max ** (1 / rho), sigma_min ** (1 / rho)
    sigmas = torch.cat([(high + fraction * (low - high)) ** rho, torch.zeros(1, dtype=torch.float64)])
    # The ends are what was asked for, to the last digit.
    sigmas[0] = sigma_max
    if n > 1:
        sigmas[-2] = sigma_min
    return sigmas
