"""What solvers of inverse problems take for E[x0 | x, y]: DPS, ΠGDM and DiffPIR, as denoisers.

Given y = A x0 + η, η ~ N(0, s² I), and a denoiser D alone, each takes p(x0 | x) for a Gaussian about D(x, σ), of some
covariance C in front and another R within,

    D_y ≈ D + C Aᵀ (s² I + A R Aᵀ)⁻¹ (y − A D),

where C = R = Cov[x0 | x] would be right of a Gaussian p(x0 | x), and Cov[x0 | x] = σ² (∂D/∂x)ᵀ is at hand for any D:

    DPS         C = Cov[x0 | x]     R = 0                   the likelihood at D(x), in the limit of small steps
    ΠGDM        C = Cov[x0 | x]     R = σ² v/(σ² + v) I     v = 1, the variance of the data, in the paper
    DiffPIR     C = R = σ²/λ I                              the proximal step towards y, from D

Each is a `Denoiser` for any sampler: with "euler" and "reverse_sde", what the papers do but for their step sizes. What
they should be is known on the data, `OptimalDenoiser.measured`.

References:
    Chung et al. 2023, "Diffusion Posterior Sampling for General Noisy Inverse Problems", Eq. 11. Song et al. 2023,
    "Pseudoinverse-Guided Diffusion Models for Inverse Problems", Eq. 7. Zhu et al. 2023, "Denoising Diffusion Models
    for Plug-and-Play Image Restoration", Eq. 12.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Float, Num
from torch import Tensor

from ..denoiser import Denoiser
from ..measurement import Operator, linear
from ..query import Levels, levels, require_points

__all__ = ["InverseSolver", "diffpir", "dps", "pigdm"]

Within = Callable[[Tensor], Tensor]
"""σ², (B,), to the variance of R, (B,)."""


class InverseSolver:
    """An estimate of E[x0 | x, y] from a denoiser, a `Denoiser`: made by `dps`, `pigdm` or `diffpir`.

    Attributes:
        D: the denoiser that knows x alone.
        event: shape of one point.
    """

    def __init__(
        self,
        D: Denoiser,
        event: tuple[int, ...],
        system: tuple[Tensor, Tensor],
        noise: float,
        within: Within,
        exact: bool,
    ):
        self.D, self.event = D, event
        matrix, self._observed = system
        # A Aᵀ = U diag(λ) Uᵀ, so that every row of a batch may have an R of its own.
        values, self._basis = torch.linalg.eigh(matrix @ matrix.T)
        self._matrix, self._values = matrix, values.clamp_min(0)
        self._square, self._within, self._exact = noise**2, within, exact

    def __call__(self, x: Num[Tensor, "B *event"], sigma: Levels) -> Float[Tensor, "B *event"]:
        """D + C Aᵀ (s² I + A R Aᵀ)⁻¹ (y − A D), (B, *event); no gradient flows through it.

        Raises:
            ValueError: x of another event shape, a level that is not positive, a D without gradients where they are
                needed, and what D refuses.
        """
        require_points(x, self.event)
        sigmas = levels(sigma, len(x), x.device)
        squares = sigmas.square()[:, None]
        within = self._within(squares)
        # Copies made out of inference mode may be asked for gradients.
        with torch.inference_mode(False), torch.enable_grad():
            z = x.detach().clone().requires_grad_(self._exact)
            mean = self.D(z, sigmas.clone())
        if self._exact and not mean.requires_grad and len(x):
            raise ValueError(f"D must have gradients to x, the answer of {type(self.D).__name__} has none")
        D = mean.detach().double().flatten(1)
        matrix, basis = self._matrix.to(x.device), self._basis.to(x.device)
        residual = (self._observed.to(x.device) - D @ matrix.T) @ basis
        pull = residual / (self._square + within * self._values.to(x.device)) @ basis.T @ matrix
        if self._exact and len(x):
            with torch.inference_mode(False):
                (slope,) = torch.autograd.grad(mean, z, pull.reshape(x.shape).to(mean.dtype, copy=True))
            moved = squares * slope.double().flatten(1)
        else:
            moved = within * pull
        return (D + moved).reshape(x.shape).to(x.dtype)


def dps(
    D: Denoiser, event: tuple[int, ...], operator: Operator, observation: Tensor | np.ndarray, noise: float
) -> InverseSolver:
    """D + Cov[x0 | x] Aᵀ (y − A D)/s²: the gradient of log p(y | x0 = D(x, σ)), taken for that of log p(y | x).

    Args:
        D: any denoiser with gradients; models of `neural` give theirs within `with neural.derivatives():`.
        event: shape of one point.
        operator: a mask, a matrix, or a linear function of batches, as for `OptimalDenoiser.measured`.
        observation: y.
        noise: s, > 0.

    Raises:
        ValueError: as for `OptimalDenoiser.measured`; an operator that is not linear.
    """
    return InverseSolver(D, event, linear(operator, observation, event), _positive("noise", noise), _nothing, True)


def pigdm(
    D: Denoiser,
    event: tuple[int, ...],
    operator: Operator,
    observation: Tensor | np.ndarray,
    noise: float,
    variance: float = 1.0,
) -> InverseSolver:
    """D + Cov[x0 | x] Aᵀ (s² I + r² A Aᵀ)⁻¹ (y − A D), r² = σ² v/(σ² + v): p(x0 | x) taken for N(D, r² I).

    Args:
        variance: v, of a coordinate of the data; 1 in the paper. The others as for `dps`.

    Raises:
        ValueError: as for `dps`; a variance that is not positive.
    """
    v = _positive("variance", variance)
    system = linear(operator, observation, event)
    return InverseSolver(D, event, system, _positive("noise", noise), lambda square: square * v / (square + v), True)


def diffpir(
    D: Denoiser,
    event: tuple[int, ...],
    operator: Operator,
    observation: Tensor | np.ndarray,
    noise: float,
    strength: float = 1.0,
) -> InverseSolver:
    """argmin over z of ‖y − A z‖²/s² + λ ‖z − D‖²/σ²: p(x0 | x) taken for N(D, σ²/λ I). D needs no gradients.

    Args:
        strength: λ, how closely it stays at D. The others as for `dps`.

    Raises:
        ValueError: as for `dps`; a strength that is not positive.
    """
    share = _positive("strength", strength)
    system = linear(operator, observation, event)
    return InverseSolver(D, event, system, _positive("noise", noise), lambda square: square / share, False)


def _nothing(square: Tensor) -> Tensor:
    return torch.zeros_like(square)


def _positive(name: str, value: float) -> float:
    number = float(value)
    if not 0 < number < math.inf:
        raise ValueError(f"{name} must be positive and finite, got {number:g}")
    return number
