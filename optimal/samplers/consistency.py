"""Multistep consistency sampling (Eq. 37): jump to a clean point, noise it again to the next level, jump again.

    x' = f(x, σ) + √(σ'² − σ_min²) z

Here the denoiser is a consistency function f, one that maps a noisy point to the end of its trajectory.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor

from .solver import Solver, Step

__all__ = ["Consistency"]


@dataclass(frozen=True)
class Consistency(Solver):
    """One call a step; the last output is returned as it is.

    Args:
        sigma_min: noise left in the outputs of f, 0.002 for models trained to end there (Song et al. 2023), 0 for those
            that end on the data.

    Raises:
        ValueError: sigma_min negative, or above a level of the grid other than the last.

    References:
        Song, Dhariwal, Chen, Sutskever 2023, "Consistency Models", Algorithm 1.
    """

    sigma_min: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.sigma_min < math.inf:
            raise ValueError(f"sigma_min must be finite and not negative, got {self.sigma_min:g}")

    def draws(self, steps: int) -> bool:
        return steps > 1

    def check(self, sigmas: list[float]) -> None:
        if self.sigma_min > sigmas[-2]:
            raise ValueError(
                f"consistency sampling has levels from sigma_min = {self.sigma_min:g} on, got {sigmas[-2]:g}"
            )

    def __call__(self, step: Step) -> Tensor:
        if step.sigma_next == 0:
            return step.denoised
        return step.denoised + math.sqrt(step.sigma_next**2 - self.sigma_min**2) * step.noise()
