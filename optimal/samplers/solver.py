"""What a solver is: one pure step from (x, σ) to σ', in the coordinates every denoiser sees.

All solvers step in x̂ = x_t/s_t and σ, where the probability-flow ODE of any linear process is dx̂/dσ = (x̂ − D(x̂, σ))/σ
(Eq. 25; Karras et al. 2022, Eq. 4 with s = 1). A process therefore only rescales what comes in and what goes out, but
for the one solver that discretises its time, `reverse_sde`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from ..process import Process

__all__ = ["Solver", "Step"]


@dataclass(frozen=True)
class Step:
    """One interval of the grid, as a solver is given it.

    Attributes:
        evaluate: (x, sigma) -> D(x, sigma), counted.
        x: (B, *event), the state at sigma.
        sigma, sigma_next: ends of the interval; sigma_next is 0 in the last step down, and there only. On the way up
            (`optimal.samplers.invert`) it is above sigma.
        denoised: D(x, sigma).
        index, steps: which step this is, from 0, and of how many.
        past: (sigma, denoised) of the steps before, the latest first; as many as a solver asks for by `memory`.
        noise: () -> (B, *event), standard Gaussian.
        process: whose time `reverse_sde` discretises.
        kept: what the solver's earlier steps on this trajectory left here for the later ones; empty in the first. A
            solver that uses it says so by `keeps`.
    """

    evaluate: Callable[[Tensor, float], Tensor]
    x: Tensor
    sigma: float
    sigma_next: float
    denoised: Tensor
    index: int
    steps: int
    noise: Callable[[], Tensor]
    process: Process
    past: list[tuple[float, Tensor]] = field(default_factory=list)
    kept: dict[str, Any] = field(default_factory=dict)

    @property
    def eps(self) -> Tensor:
        """(x − D)/σ, the noise that D sees in x, and the slope dx/dσ of the probability-flow ODE."""
        return (self.x - self.denoised) / self.sigma


class Solver:
    """Interface of all solvers: frozen dataclasses of their options."""

    memory: int = 0
    """How many earlier denoiser outputs a step needs."""

    keeps: bool = False
    """Whether a step needs more of the earlier ones than their outputs, what they left in `Step.kept`."""

    down_only: bool = False
    """Whether a step is for σ' < σ alone; that of others depends on the two levels, in either order."""

    def draws(self, steps: int) -> bool:
        """Whether a run of so many steps draws noise."""
        return False

    def check(self, sigmas: list[float]) -> None:
        """Raise ValueError where the options do not fit the grid."""

    def perturb(
        self, x: Tensor, sigma: float, *, index: int, steps: int, noise: Callable[[], Tensor]
    ) -> tuple[Tensor, float]:
        """What is done to the state before D is called: nothing, but for churn."""
        return x, sigma

    def __call__(self, step: Step) -> Tensor:
        """The state at step.sigma_next."""
        raise NotImplementedError
