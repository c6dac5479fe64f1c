"""What solvers of inverse problems take for E[x0 | x, y]: DPS, ΠGDM and DiffPIR, as denoisers.

Given y = A x0 + η, η ~ N(0, s² I), and a denoiser D alone, each takes p(x0 | x) for a Gaussian about D(x, σ), of some
covariance C in front and another R within,

    D_y ≈ D + C Aᵀ (s² I + A R Aᵀ)⁻¹ (y − A D),

where C = R = Cov[x0 | x] would be right of a Gaussian p(x0 | x), and Cov[x0 | x] = σ² (∂D/∂x)ᵀ is at hand for any D:

    DPS         C = Cov[x0 | x]     R = 0                   the likelihood at D(x), in the limit of small steps
    ΠGDM        C = Cov[x0 | x]     R = σ² v/(σ² + v) I     v = 1, the variance of the data, in the paper
    DiffPIR     C = R = σ²/λ I                              the proximal step towards y, from D

Each is a `Denoiser` for any sampler, which then takes its own share of the pull C Aᵀ (…)⁻¹ (y − A D): Euler's method
1 − σ'/σ of it, from σ to σ'. The papers add it to a step of DDPM or DDIM with a size of their own. In x = x_t/scale:

    DPS         −ζ/(scale scale') ∇_x ‖y − A D‖, ζ tuned for each task, whatever the number of steps (Algorithm 1)
    ΠGDM        v/(σ² + v) of the pull, however small the step (Algorithm 1)
    DiffPIR     1 − σ'/σ of it: this one under "euler" is Algorithm 1 with its noise ζ = 0

so that dps and pigdm here are the papers' likelihoods with the step that these ask for, and not the papers' steps: no
step size is tuned. What E[x0 | x, y] is on the data `OptimalDenoiser.measured` knows.

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
from ..measurement import Operator
from ..query import Levels, beside, levels, require_points, require_rows
from .systems import System, system_of

__all__ = ["InverseSolver", "diffpir", "dps", "pigdm"]

Within = Callable[[Tensor], Tensor]
"""σ², (B,), to the variance of R, (B,)."""


class InverseSolver:
    """An estimate of E[x0 | x, y] from a denoiser, a `Denoiser`: made by `dps`, `pigdm` or `diffpir`.

    Attributes:
        D: the denoiser that knows x alone.
        event: shape of one point.
    """

    def __init__(self, D: Denoiser, event: tuple[int, ...], system: System, noise: float, within: Within, exact: bool):
        self.D, self.event = D, event
        self._system, self._square, self._within, self._exact = system, noise**2, within, exact

    def __call__(self, x: Num[Tensor, "B *event"], sigma: Levels) -> Float[Tensor, "B *event"]:
        """D + C Aᵀ (s² I + A R Aᵀ)⁻¹ (y − A D), (B, *event); no gradient flows through it.

        Raises:
            ValueError: x of another event shape, or of other rows than there are observations; a level that is not
                positive; a D without gradients where they are needed, and what D refuses.
        """
        require_points(x, self.event)
        if self._system.rows is not None:
            require_rows(x, self.event, self._system.rows, "observation")
        sigmas = levels(sigma, len(x), x.device)
        squares = sigmas.square()
        within = self._within(squares)
        # Copies made out of inference mode may be asked for gradients.
        with torch.inference_mode(False), torch.enable_grad():
            z = x.detach().clone().requires_grad_(self._exact)
            mean = self.D(z, sigmas.clone())
        if self._exact and not mean.requires_grad and len(x):
            raise ValueError(f"D must have gradients to x, the answer of {type(self.D).__name__} has none")
        D = mean.detach().double()
        pull = self._system.pull(D, self._square, within)
        if self._exact and len(x):
            with torch.inference_mode(False):
                (slope,) = torch.autograd.grad(mean, z, pull.to(mean.dtype, copy=True))
            moved = beside(squares, x) * slope.double()
        else:
            moved = beside(within, x) * pull
        return (D + moved).to(x.dtype)


def dps(
    D: Denoiser,
    event: tuple[int, ...],
    operator: Operator,
    observation: Tensor | np.ndarray,
    noise: float,
    *,
    rows: bool = False,
) -> InverseSolver:
    """D + Cov[x0 | x] Aᵀ (y − A D)/s²: the gradient of log p(y | x0 = D(x, σ)), taken for that of log p(y | x).

    With the weight 1/s² of the likelihood; the paper's steps of length ζ are another sampler, see the module.

    Args:
        D: any denoiser with gradients; models of `neural` give theirs within `with neural.derivatives():`.
        event: shape of one point.
        operator: a mask, a matrix, or a linear function of batches, as for `OptimalDenoiser.measured`. A function whose
            matrix would have more than 2²² values needs gradients to what it is given, and is never made one.
        observation: y, (*out).
        noise: s, > 0.
        rows: whether there is an observation for every row, (B, *out), for a denoiser of B rows.

    Raises:
        ValueError: as for `OptimalDenoiser.measured`; an operator that is not linear.
    """
    system = system_of(operator, observation, event, rows=rows)
    return InverseSolver(D, event, system, _positive("noise", noise), torch.zeros_like, True)


def pigdm(
    D: Denoiser,
    event: tuple[int, ...],
    operator: Operator,
    observation: Tensor | np.ndarray,
    noise: float,
    variance: float = 1.0,
    *,
    rows: bool = False,
) -> InverseSolver:
    """D + Cov[x0 | x] Aᵀ (s² I + r² A Aᵀ)⁻¹ (y − A D), r² = σ² v/(σ² + v): p(x0 | x) taken for N(D, r² I).

    It is E[x0 | x, y] where x0 is Gaussian of covariance v I. The paper's steps are v/(σ² + v) of the pull, whatever
    the sampler would take, see the module.

    Args:
        variance: v, of a coordinate of the data; 1 in the paper. The others as for `dps`.

    Raises:
        ValueError: as for `dps`; a variance that is not positive.
    """
    v = _positive("variance", variance)
    system = system_of(operator, observation, event, rows=rows)
    return InverseSolver(D, event, system, _positive("noise", noise), lambda square: square * v / (square + v), True)


def diffpir(
    D: Denoiser,
    event: tuple[int, ...],
    operator: Operator,
    observation: Tensor | np.ndarray,
    noise: float,
    strength: float = 1.0,
    *,
    rows: bool = False,
) -> InverseSolver:
    """argmin over z of ‖y − A z‖²/s² + λ ‖z − D‖²/σ²: p(x0 | x) taken for N(D, σ²/λ I). D needs no gradients.

    Under the solver "euler" it is the paper's Algorithm 1 with ζ = 0.

    Args:
        strength: λ, how closely it stays at D. The others as for `dps`.

    Raises:
        ValueError: as for `dps`; a strength that is not positive.
    """
    share = _positive("strength", strength)
    system = system_of(operator, observation, event, rows=rows)
    return InverseSolver(D, event, system, _positive("noise", noise), lambda square: square / share, False)


def _positive(name: str, value: float) -> float:
    number = float(value)
    if not 0 < number < math.inf:
        raise ValueError(f"{name} must be positive and finite, got {number:g}")
    return number
