"""DPM-Solver, singlestep: exponential integrators for the noise prediction ε = (x − D)/σ in λ = −log σ.

With x̂ = x_t/s_t the linear part of the ODE is gone (φ = 1 in Eq. 29) and Eq. 31 reads

    x(σ') = x(σ) − ∫ e^{−λ} ε dλ  from λ to λ' = λ + h

ε is expanded in λ: order k uses k values in the interval, at λ, and at r₁h, r₂h beyond it (½ for order 2; ⅓, ⅔ for 3).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor

from .solver import Solver, Step

__all__ = ["DPMSolver"]


@dataclass(frozen=True)
class DPMSolver(Solver):
    """Order 1, 2 or 3, as many denoiser calls a step; the last step, to σ' = 0 where λ is infinite, is D itself.

    Args:
        order: 1 (Euler, DDIM), 2 or 3.

    Raises:
        ValueError: another order.

    References:
        Lu, Zhou, Bao, Chen, Li, Zhu 2022, "DPM-Solver: A Fast ODE Solver for Diffusion Probabilistic Model Sampling in
        Around 10 Steps", Eq. 3.7, Algorithms 1 and 2; Eq. 28 to 31 of the paper. Their code takes r₁, r₂ of its default
        grid ("time_uniform") from that grid instead.
    """

    order: int = 2

    def __post_init__(self) -> None:
        if type(self.order) is not int or self.order not in (1, 2, 3):
            raise ValueError(f"dpm_solver has orders 1, 2 and 3, got {self.order!r}")

    def __call__(self, step: Step) -> Tensor:
        if step.sigma_next == 0:
            return step.denoised
        h = math.log(step.sigma / step.sigma_next)
        return (_first, _second, _third)[self.order - 1](step, h)


def _eps(step: Step, x: Tensor, sigma: float) -> Tensor:
    return (x - step.evaluate(x, sigma)) / sigma


def _advance(step: Step, h: float, r: float) -> tuple[Tensor, float]:
    """x after rh with ε held, and σ there. x − σ' (e^{rh} − 1) ε is D + σ' ε, since σ' e^{rh} = σ."""
    sigma = step.sigma * math.exp(-r * h)
    return step.denoised + sigma * step.eps, sigma


def _first(step: Step, h: float) -> Tensor:
    return _advance(step, h, 1.0)[0]


def _second(step: Step, h: float) -> Tensor:
    r = 0.5
    change = _eps(step, *_advance(step, h, r)) - step.eps
    return _first(step, h) - step.sigma_next * math.expm1(h) / (2 * r) * change


def _third(step: Step, h: float) -> Tensor:
    r1, r2 = 1 / 3, 2 / 3
    change1 = _eps(step, *_advance(step, h, r1)) - step.eps
    x2, sigma2 = _advance(step, h, r2)
    x2 = x2 - sigma2 * (r2 / r1) * (math.expm1(r2 * h) / (r2 * h) - 1) * change1
    change2 = _eps(step, x2, sigma2) - step.eps
    return _first(step, h) - step.sigma_next / r2 * (math.expm1(h) / h - 1) * change2
