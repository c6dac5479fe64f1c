"""Grids that are even in what is learnt: in the entropy H, or in the rescaled time Φ.

    H(σ) = ∫ mmse σ⁻³ dσ,      Φ(σ) = ∫ σ dH = ∫ mmse σ⁻² dσ

Of one Gaussian direction of variance λ, Φ = √λ arctan(σ/√λ): equal angles, on which Euler's steps are best. On images
with networks Stancevic, Handke, Ambrogioni 2025 find Φ better than EDM's grid for Euler and the stochastic samplers and
worse for second-order ones, and H of use on discrete data only. The optimum's data are discrete: both are offered.

References:
    Stancevic, Handke, Ambrogioni 2025, "Entropic Time Schedulers for Generative Diffusion Models".
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float
from torch import Tensor

from ..schedule import grid
from .ancestral import range_of
from .curve import Curve, require_steps

__all__ = ["entropic_grid"]


def entropic_grid(
    curve: Curve, n: int, *, rescaled: bool = False, sigma_max: float | None = None, sigma_min: float | None = None
) -> Float[Tensor, " levels"]:
    """n levels even in H, or in Φ where `rescaled`, then 0.

    Args:
        curve: of the denoiser.
        n: number of steps, at least 1.
        rescaled: whether Φ is the clock.
        sigma_max, sigma_min: as for `path_kl_grid`.

    Returns:
        (n + 1,) float64, decreasing, the last entry 0.

    Raises:
        ValueError: n < 1, or levels out of the curve's range or order.
    """
    high, low = range_of(curve, sigma_max, sigma_min)
    require_steps(n)
    if n == 1:
        return grid([high, 0.0])
    places, total = curve.cumulative(2 if rescaled else 3, high, low)
    inner = np.exp(np.interp(np.linspace(total[-1], 0, n)[1:-1], total, np.log(places)))
    return grid([high, *inner, low, 0.0])
