"""UniPC, multistep: DPM-Solver++'s exponential integrator, whose every step is corrected by the next output of D.

With λ = −log σ, h = λ' − λ, η = −h, D_0 = D at λ, and r_m = (λ_m − λ)/h of the earlier outputs D_m,

    x(σ') = (σ'/σ) x − (e^η − 1) D_0 − B(η) Σ_m a_m (D_m − D_0)/r_m,    B = η (bh1) or e^η − 1 (bh2)

The predictor sums over p − 1 earlier outputs. The corrector goes over the same interval again as soon as D is known at
its end: that output is one of the D_m, at r = 1, and the next step starts from the x it gives: one call a step.
The a_m are those of polynomial interpolation, Σ_m a_m r_m^{k−1} = k! φ_k/B with φ_1 = e^η/η − 1/η − 1 and φ_{k+1} =
φ_k/η − 1/(k + 1)!, but ½ where there is only one of them, as the authors have it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from .solver import Solver, Step

__all__ = ["UniPC"]


@dataclass(frozen=True)
class UniPC(Solver):
    """Convergence of order p + 1, one denoiser call a step; the last step, to σ' = 0, is D itself.

    A state's x is the predictor's, where D was asked; the corrector's goes into the next step.

    Args:
        order: p, how many outputs the predictor has: 1, 2 or 3. Order 4, of p = 3, is had from a start so high that D
            hardly changes in the first step (80 on the unit scale), as for `dpm_solver_pp`.
        variant: "bh1" or "bh2", B above; the same wherever the a_m are not ½.
        lower_order_final: whether p falls to 1 towards the end, as in diffusers. Worth it on grids whose last steps
            lengthen in log σ (`uniform_t`, `cosine`), where p = 3 extrapolates far; "bh1" does so for p = 2.

    Raises:
        ValueError: another order or variant.

    References:
        Zhao, Bai, Rao, Zhou, Lu 2023, "UniPC: A Unified Predictor-Corrector Framework for Fast Sampling of Diffusion
        Models", Algorithms 1 to 4 with data prediction; diffusers, UniPCMultistepScheduler.
    """

    order: int = 2
    variant: str = "bh2"
    lower_order_final: bool = False

    memory = 3
    keeps = True

    def __post_init__(self) -> None:
        if type(self.order) is not int or self.order not in (1, 2, 3):
            raise ValueError(f"unipc has orders 1, 2 and 3, got {self.order!r}")
        if self.variant not in ("bh1", "bh2"):
            raise ValueError(f'variant must be "bh1" or "bh2", got {self.variant!r}')

    def __call__(self, step: Step) -> Tensor:
        if step.sigma_next == 0:
            return step.denoised
        outputs = [(step.sigma, step.denoised), *step.past]
        x = step.x
        if step.past:
            before, order = step.kept["before"]
            x = self._moved(before, step.sigma, outputs[1 : order + 1], corrector=step.denoised)
        order = min(self.order, len(outputs))
        if self.lower_order_final:
            order = min(order, step.steps - step.index)
        step.kept["before"] = x, order
        return self._moved(x, step.sigma_next, outputs[:order])

    def _moved(
        self, x: Tensor, sigma_next: float, outputs: list[tuple[float, Tensor]], corrector: Tensor | None = None
    ) -> Tensor:
        """x at σ', from σ where the first of the outputs was made; `corrector` is D at σ', where it is known."""
        sigma, first = outputs[0]
        eta = math.log(sigma_next / sigma)
        shrunk = math.expm1(eta)
        ratios = [math.log(earlier / sigma) / eta for earlier, _ in outputs[1:]]
        others = [output for _, output in outputs[1:]]
        if corrector is not None:
            ratios, others = [*ratios, 1.0], [*others, corrector]
        whole = eta if self.variant == "bh1" else shrunk
        moved = (sigma_next / sigma) * x - shrunk * first
        for share, ratio, output in zip(_shares(ratios, eta, whole), ratios, others, strict=True):
            moved = moved - whole * share / ratio * (output - first)
        return moved


def _shares(ratios: list[float], eta: float, whole: float) -> list[float]:
    """a_m, of the ratios r_m."""
    if len(ratios) <= 1:
        return [0.5] * len(ratios)
    wanted, factorial, phi = [], 1, math.expm1(eta) / eta - 1
    for k in range(1, len(ratios) + 1):
        wanted.append(phi * factorial / whole)
        factorial *= k + 1
        phi = phi / eta - 1 / factorial
    return np.linalg.solve(np.vander(ratios, increasing=True).T, wanted).tolist()
