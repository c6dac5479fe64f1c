"""Euler's method in σ, which is DDIM; with eta > 0 the ancestral samplers.

    x' = D + √(σ'² − up²) · (x − D)/σ + up · z,    up = η σ' √(1 − σ'²/σ²)

With η = 0 this is x + (σ' − σ)(x − D)/σ, Euler's step on Eq. 25, the deterministic DDIM, and DPM-Solver-1. With η = 1
it draws from q(x' | x, x0 = D), the ancestral sampler of DDPM.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor

from .solver import Solver, Step

__all__ = ["Euler"]


@dataclass(frozen=True)
class Euler(Solver):
    """Order 1, one denoiser call a step.

    Args:
        eta: share of fresh noise, from 0 (DDIM, deterministic) to 1 (DDPM's ancestral sampling).

    Raises:
        ValueError: eta outside [0, 1].

    References:
        Song, Meng, Ermon 2021, "Denoising Diffusion Implicit Models", Eq. 12 and 16.
    """

    eta: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.eta <= 1:
            raise ValueError(f"eta must lie in [0, 1], got {self.eta:g}")

    def draws(self, steps: int) -> bool:
        return self.eta > 0 and steps > 1

    def __call__(self, step: Step) -> Tensor:
        if self.eta == 0:
            return step.denoised + step.sigma_next * step.eps
        up = self.eta * step.sigma_next * math.sqrt(1 - (step.sigma_next / step.sigma) ** 2)
        down = math.sqrt(step.sigma_next**2 - up**2)
        x = step.denoised + down * step.eps
        return x + up * step.noise() if up > 0 else x
