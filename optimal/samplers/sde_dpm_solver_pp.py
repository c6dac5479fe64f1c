"""SDE-DPM-Solver++: DPM-Solver++'s exponential integrator for D, with fresh noise in every step.

    x' = (σ'/σ)^{1 + η} x + (1 − (σ'/σ)^{1 + η}) D̂ + σ' √(1 − (σ'/σ)^{2η}) z,    D̂ = D_i + (D_i − D_{i−1})/2r₀

with r₀ = log(σ_{i−1}/σ)/log(σ/σ') (2M); D̂ = D_i for order 1. Where D stands still it is exact for every step: that is
the SDE of the family between the probability-flow ODE, η = 0, and the reverse SDE, η = 1, the solver's own.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor

from .solver import Solver, Step

__all__ = ["SDEDPMSolverPP"]


@dataclass(frozen=True)
class SDEDPMSolverPP(Solver):
    """Weak order 1 or 2, one denoiser call a step; the last step, to σ' = 0, is D itself and draws nothing.

    Of a run of one and the same noise the order is 1 either way: D_i − D_{i−1} has the noise of the step before in it.
    What that adds to the law is what a step leaves out of its own. With η = 0 order 2 is `dpm_solver_pp`.

    Args:
        order: 1, or 2 (2M, midpoint).
        eta: share of fresh noise, from 0 on; 1 in the paper, as in k-diffusion's `sample_dpmpp_2m_sde`.

    Raises:
        ValueError: another order; eta negative or not finite.

    References:
        Lu, Zhou, Bao, Chen, Li, Zhu 2022, "DPM-Solver++: Fast Solver for Guided Sampling of Diffusion Probabilistic
        Models", Section 5 and Appendix A.
    """

    order: int = 2
    eta: float = 1.0

    memory = 1

    def __post_init__(self) -> None:
        if type(self.order) is not int or self.order not in (1, 2):
            raise ValueError(f"sde_dpm_solver_pp has orders 1 and 2, got {self.order!r}")
        if not 0 <= self.eta < math.inf:
            raise ValueError(f"eta must be finite and not negative, got {self.eta:g}")

    def draws(self, steps: int) -> bool:
        return self.eta > 0 and steps > 1

    def __call__(self, step: Step) -> Tensor:
        if step.sigma_next == 0:
            return step.denoised
        h = math.log(step.sigma / step.sigma_next)
        gained = -math.expm1(-(1 + self.eta) * h)
        x = math.exp(-(1 + self.eta) * h) * step.x + gained * step.denoised
        if self.order == 2 and step.past:
            sigma1, denoised1 = step.past[0]
            r0 = math.log(sigma1 / step.sigma) / h
            x = x + gained / (2 * r0) * (step.denoised - denoised1)
        if self.eta == 0:
            return x
        return x + step.sigma_next * math.sqrt(-math.expm1(-2 * self.eta * h)) * step.noise()
