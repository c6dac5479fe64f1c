"""Euler–Maruyama on the reverse-time SDE of a process (Eq. 18), step by step in its own time t.

    x' = x + [f(t) x − g(t)² ∇ log p_t(x)] (t' − t) + g(t) √(t − t') z,    ∇ log p_t(x) = (D(x/s, σ) − x/s)/(s σ²)

Under VE, whose clock is s_t², this is Euler–Maruyama on Eq. 23. The discretisation belongs to the process: under VE, VP
and EDM the same grid gives samples that agree in the limit of many steps only. The last step, to σ' = 0, returns D, the
posterior mean: there the noise of one more step would stay in the image.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor

from .solver import Solver, Step

__all__ = ["ReverseSDE"]


@dataclass(frozen=True)
class ReverseSDE(Solver):
    """Weak order 1, one denoiser call a step.

    References:
        Anderson 1982, "Reverse-time diffusion equation models"; Song, Sohl-Dickstein, Kingma, Kumar, Ermon, Poole 2021,
        "Score-Based Generative Modeling through Stochastic Differential Equations", Eq. 6.
    """

    def draws(self, steps: int) -> bool:
        return steps > 1

    def __call__(self, step: Step) -> Tensor:
        if step.sigma_next == 0:
            return step.denoised
        process = step.process
        t, t_next = float(process.time(step.sigma)), float(process.time(step.sigma_next))
        scale, scale_next = float(process.scale_at(step.sigma)), float(process.scale_at(step.sigma_next))
        f, g = float(process.f(t)), float(process.g(t))
        score = (step.denoised - step.x) / (scale * step.sigma**2)
        x = scale * step.x
        x = x + (f * x - g**2 * score) * (t_next - t) + g * math.sqrt(t - t_next) * step.noise()
        return x / scale_next
