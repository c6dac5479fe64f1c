"""DPM-Solver++, multistep: exponential integrators for D itself in λ = −log σ, reusing earlier outputs.

    x(σ') = (σ'/σ) x + σ' ∫ e^λ D dλ  from λ to λ' = λ + h

D is extrapolated from its last two or three values by Newton's divided differences. With τ = (λ − λ_i)/h and the
distances r₀, r₁ between earlier levels in units of h,

    D ≈ D_i + D⁽¹⁾ τ + D⁽²⁾ τ²/2,    D⁽¹⁾ = d₀ + r₀ (d₀ − d₁)/(r₀ + r₁),    D⁽²⁾ = 2 (d₀ − d₁)/(r₀ + r₁)

with d₀ = (D_i − D_{i−1})/r₀ and d₁ = (D_{i−1} − D_{i−2})/r₁. The published third-order method, and the libraries after
it, lack the factor 2 of the second derivative D⁽²⁾; without it the order is 2.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor

from .solver import Solver, Step

__all__ = ["DPMSolverPP"]


@dataclass(frozen=True)
class DPMSolverPP(Solver):
    """One denoiser call a step. The first step is of order 1, the second of order 2 at most, the last one D itself.

    Args:
        order: 2 or 3.
        variant: for order 3, "exact" has the second derivative right: order 3 from a start so high that D hardly
            changes in the first, first-order step (80 on the unit scale; from 10 on that step makes it order 2).
            "reference" is what the community runs (LuChengTHU/dpm-solver, k-diffusion, diffusers), which lacks a
            factor 2 there and is of order 2. They do not differ for order 2.
        lower_order_final: whether the orders fall to 1 towards the end, as some libraries do for few steps. Worth it on
            grids whose last steps lengthen in log σ (`uniform_t`, `cosine`), where order 3 extrapolates far.

    Raises:
        ValueError: another order or variant.

    References:
        Lu, Zhou, Bao, Chen, Li, Zhu 2022, "DPM-Solver++: Fast Solver for Guided Sampling of Diffusion Probabilistic
        Models", Algorithm 2 (order 2); order 3 after the authors' code, dpm_solver_pytorch.py,
        multistep_dpm_solver_third_update.
    """

    order: int = 2
    variant: str = "exact"
    lower_order_final: bool = False

    memory = 2

    def __post_init__(self) -> None:
        if type(self.order) is not int or self.order not in (2, 3):
            raise ValueError(f"dpm_solver_pp has orders 2 and 3, got {self.order!r}")
        if self.variant not in ("exact", "reference"):
            raise ValueError(f'variant must be "exact" or "reference", got {self.variant!r}')

    def __call__(self, step: Step) -> Tensor:
        if step.sigma_next == 0:
            return step.denoised
        order = min(self.order, len(step.past) + 1)
        if self.lower_order_final:
            order = min(order, step.steps - step.index)
        h = math.log(step.sigma / step.sigma_next)
        # ∫ e^{λ − λ'} τ^k dλ for k = 0, 1, 2.
        zeroth = -math.expm1(-h)
        x = (step.sigma_next / step.sigma) * step.x + zeroth * step.denoised
        if order == 1:
            return x
        sigma1, denoised1 = step.past[0]
        r0 = math.log(sigma1 / step.sigma) / h
        d0 = (step.denoised - denoised1) / r0
        if order == 2:
            return x + zeroth / 2 * d0
        sigma2, denoised2 = step.past[1]
        r1 = math.log(sigma2 / sigma1) / h
        d1 = (denoised1 - denoised2) / r1
        second = (d0 - d1) / (r0 + r1)
        factor = 2 if self.variant == "exact" else 1
        linear = 1 - zeroth / h
        return x + linear * (d0 + r0 * second) + (0.5 - linear / h) * factor * second
