"""The flow of the data's Gaussian in place of a sampler's first steps.

Where σ is far above the data's size the optimum is nearly the linear denoiser of their mean and covariance, whose flow
is known in closed form: it takes noise from σ_max to the first level of a grid in no call.

References:
    Wang, Vastola 2024, "The Unreasonable Effectiveness of Gaussian Score Approximation for Diffusion Models and its
    Applications" ("analytical teleportation").
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from ..numbers import is_number
from .solver import Solver, Step

__all__ = ["FromGaussian", "GaussianStart", "Linear", "carried", "logs_of"]


class Linear(Protocol):
    """A Gaussian, as these solvers ask for it: `optimal.theories.Wiener` is one."""

    @property
    def mean(self) -> Tensor: ...
    def __call__(self, x: Tensor, sigma: float | Tensor, /) -> Tensor: ...
    def spectral(self, v: Tensor, function: Callable[[Tensor], Tensor], /) -> Tensor: ...


class FromGaussian(Solver):
    """Interface of solvers whose grid may begin where D stops being nearly Gaussian."""

    gaussian: Linear

    def start(self, x: Tensor, sigma: float, sigma_end: float) -> Tensor:
        """The state at sigma_end, the grid's first level, of x at sigma: without a call.

        Raises:
            ValueError: a level that is not positive and finite; x of another shape than the data.
        """
        raise NotImplementedError


@dataclass(frozen=True)
class GaussianStart(FromGaussian):
    """Any solver, on a grid that the Gaussian's flow leads to.

    Args:
        gaussian: `Wiener(D)`.
        solver: what makes the steps.

    Example:
        >>> from optimal import OptimalDenoiser, sample
        >>> from optimal.samplers import Heun
        >>> from optimal.theories import Wiener
        >>> D = OptimalDenoiser(torch.tensor([[-1.0], [1.0]]))
        >>> solver = GaussianStart(Wiener(D), Heun())
        >>> sample(D, solver.start(torch.tensor([[40.0]]), 80.0, 2.0), [2.0, 0.5, 0.0], solver=solver).round(decimals=3)
        tensor([[1.]])
    """

    gaussian: Linear
    solver: Solver

    @property
    def memory(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self.solver.memory

    @property
    def keeps(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self.solver.keeps

    @property
    def down_only(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self.solver.down_only

    def draws(self, steps: int) -> bool:
        return self.solver.draws(steps)

    def check(self, sigmas: list[float]) -> None:
        self.solver.check(sigmas)

    def perturb(
        self, x: Tensor, sigma: float, *, index: int, steps: int, noise: Callable[[], Tensor]
    ) -> tuple[Tensor, float]:
        return self.solver.perturb(x, sigma, index=index, steps=steps, noise=noise)

    def start(self, x: Tensor, sigma: float, sigma_end: float) -> Tensor:
        return carried(self.gaussian, x, *logs_of(sigma, sigma_end))

    def __call__(self, step: Step) -> Tensor:
        return self.solver(step)


def logs_of(sigma: float, sigma_end: float) -> tuple[float, float]:
    """log σ of the level that the Gaussian's flow leaves and of the one that it goes to.

    Raises:
        ValueError: one of them is not positive and finite.
    """
    for name, level in (("sigma", sigma), ("sigma_end", sigma_end)):
        if not (is_number(level) and 0 < level < math.inf):
            raise ValueError(f"{name} must be a positive and finite noise level, got {level!r}")
    return math.log(sigma), math.log(sigma_end)


def carried(
    gaussian: Linear, x: Tensor, log: float | Tensor, end: float | Tensor, gain: float | Tensor = 1.0
) -> Tensor:
    """m + g P(σ', σ) (x − m): along the Gaussian's flow from log σ to log σ' = end, times a gain."""
    mean = gaussian.mean.to(x)
    return mean + gain * gaussian.spectral(x - mean, lambda values: _propagator(values, log, end))


def _propagator(values: Tensor, log: float | Tensor, end: float | Tensor) -> Tensor:
    """√((λ + σ'²)/(λ + σ²)) of variances λ, (n,), from log σ to log σ' = end."""
    start, stop = (torch.as_tensor(level, dtype=torch.float64, device=values.device) for level in (log, end))
    return ((values + (2 * stop).exp()) / (values + (2 * start).exp())).sqrt()
