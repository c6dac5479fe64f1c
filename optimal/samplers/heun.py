"""Heun's second-order method in σ, EDM's sampler.

    d = (x − D(x, σ))/σ,    x* = x + (σ' − σ) d,    d* = (x* − D(x*, σ'))/σ',    x' = x + (σ' − σ)(d + d*)/2

and x' = x* in the last step, where σ' = 0. In the code x* is D + σ' d, which does not cancel where σ' is far below σ.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from .solver import Solver, Step

__all__ = ["Heun"]


@dataclass(frozen=True)
class Heun(Solver):
    """Order 2, two denoiser calls a step but for the last: 2n − 1.

    References:
        Karras, Aittala, Aila, Laine 2022, "Elucidating the Design Space of Diffusion-Based Generative Models",
        Algorithm 1.
    """

    def __call__(self, step: Step) -> Tensor:
        if step.sigma_next == 0:
            return step.denoised
        slope = step.eps
        x = step.denoised + step.sigma_next * slope
        slope_next = (x - step.evaluate(x, step.sigma_next)) / step.sigma_next
        return x + (step.sigma_next - step.sigma) / 2 * (slope_next - slope)
