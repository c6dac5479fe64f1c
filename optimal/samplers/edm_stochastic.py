"""EDM's stochastic sampler: noise is added (churn) before each of Heun's steps.

    σ̂ = σ + γ σ,    x̂ = x + √(σ̂² − σ²) · S_noise · z,    then Heun from (x̂, σ̂) to σ'

with γ = S_churn/n where S_min <= σ <= S_max, and 0 elsewhere. EDM caps γ at √2 − 1 without a word; here a larger
S_churn is an error that names the cap.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from .heun import Heun

__all__ = ["EDMStochastic"]

_LARGEST = math.sqrt(2) - 1


@dataclass(frozen=True)
class EDMStochastic(Heun):
    """2n − 1 denoiser calls; with S_churn = 0 this is `heun`.

    `State.denoised` belongs to (x̂, σ̂), the point after the churn. Noise is drawn in the steps with γ > 0 only.

    Args:
        S_churn: total churn, 0 to n(√2 − 1).
        S_min, S_max: noise levels between which there is churn.
        S_noise: standard deviation of the noise added, slightly above 1 to make up for detail lost.

    Raises:
        ValueError: S_churn negative or above n(√2 − 1) for the grid's n steps; S_min above S_max; S_noise negative.

    References:
        Karras, Aittala, Aila, Laine 2022, Algorithm 2; NVlabs/edm, generate.py, draws (unused) noise where γ = 0 too.
    """

    S_churn: float = 0.0
    S_min: float = 0.0
    S_max: float = math.inf
    S_noise: float = 1.0

    def __post_init__(self) -> None:
        if not self.S_churn >= 0:
            raise ValueError(f"S_churn must not be negative, got {self.S_churn:g}")
        if not 0 <= self.S_min <= self.S_max:
            raise ValueError(f"churn needs 0 <= S_min <= S_max, got {self.S_min:g} and {self.S_max:g}")
        if not 0 <= self.S_noise < math.inf:
            raise ValueError(f"S_noise must be finite and not negative, got {self.S_noise:g}")

    def draws(self, steps: int) -> bool:
        return self.S_churn > 0

    def check(self, sigmas: list[float]) -> None:
        steps = len(sigmas) - 1
        if self.S_churn > steps * _LARGEST * (1 + 1e-12):
            raise ValueError(
                f"S_churn must be at most n(√2 − 1) = {steps * _LARGEST:.6g} for n = {steps} steps, "
                f"got {self.S_churn:g} (EDM's own script silently uses the bound)"
            )

    def perturb(
        self, x: Tensor, sigma: float, *, index: int, steps: int, noise: Callable[[], Tensor]
    ) -> tuple[Tensor, float]:
        gamma = self.S_churn / steps if self.S_min <= sigma <= self.S_max else 0.0
        if gamma == 0:
            return x, sigma
        raised = sigma + gamma * sigma
        return x + math.sqrt(raised**2 - sigma**2) * self.S_noise * noise(), raised
