"""Consistency distillation (Eq. 34–36): equal outputs at both ends of one step of the teacher's ODE.

    λ ‖x_θ(x, σ_n) − x_θ⁻(x̂, σ_{n−1})‖²/dim,   x = x0 + σ_n ε,   x̂ one solver step of the teacher from σ_n to σ_{n−1}

θ⁻ is the average of the weights, through which no gradient goes, and at the end of the grid, σ = 0, x_θ⁻(x̂, 0) = x̂. The
minimum is the flow map on this grid and solver, `optimal.FlowMap(teacher, sigmas, solver)` (Eq. 55), for which the loss
is 0.
"""

from __future__ import annotations

import torch
from torch import Tensor

from optimal.denoiser import Denoiser
from optimal.query import beside
from optimal.schedule import grid

from ..loss import Batch, Source, weighted
from ..streams import Streams

__all__ = ["SOLVERS", "Consistency", "ode_step"]

SOLVERS = ("euler", "heun")


class Consistency:
    """The loss of Eq. 35.

    Args:
        source: where x0 comes from.
        teacher: any denoiser, the optimum included.
        sigmas: (n + 1,) the grid, the last 0.
        solver: euler or heun.
        weighting: name of λ, see `neural.loss.weighting`.
        sigma_data: σ_d of the edm weighting.

    Raises:
        ValueError: another solver.

    References:
        Song, Dhariwal, Chen, Sutskever 2023, "Consistency Models", Algorithm 2.
    """

    def __init__(
        self,
        source: Source,
        teacher: Denoiser,
        sigmas: Tensor,
        solver: str = "heun",
        *,
        weighting: str = "edm",
        sigma_data: float = 1.0,
    ):
        if solver not in SOLVERS:
            raise ValueError(f"consistency distillation has the solvers {', '.join(SOLVERS)}, got {solver!r}")
        self.source, self.teacher, self.sigmas, self.solver = source, teacher, grid(sigmas), solver
        self.weighting, self.sigma_data = weighting, sigma_data

    def draw(self, count: int, streams: Streams) -> Batch:
        x0 = self.source.draw(count, streams)
        index = streams.below(len(self.sigmas) - 1, count)
        return x0, index, streams.normal(*x0.shape)

    def loss(self, student: Denoiser, average: Denoiser, batch: Batch) -> tuple[Tensor, Tensor]:
        x0, index, eps = batch
        sigmas = self.sigmas.to(x0.device)
        high, low = sigmas[index], sigmas[index + 1]
        x = x0 + beside(high.to(x0.dtype), x0) * eps
        with torch.no_grad():
            reached = ode_step(self.teacher, x, high, low, self.solver)
            # The boundary condition, x_θ(x, 0) = x: without EDM's preconditioning no network keeps it by itself.
            end = beside(low == 0, x)
            target = torch.where(end, reached, average(reached, low))
        return weighted(student(x, high) - target, high, self.weighting, self.sigma_data), high


def ode_step(D: Denoiser, x: Tensor, sigma: Tensor, sigma_next: Tensor, solver: str) -> Tensor:
    """One step of `optimal.samplers`' Euler or Heun, with a level of its own for every row.

    Args:
        D: the denoiser.
        x: (B, *event).
        sigma, sigma_next: (B,) float64, sigma > sigma_next >= 0.
        solver: euler or heun; a step to 0 returns D.
    """
    high, low = beside(sigma.to(x.dtype), x), beside(sigma_next.to(x.dtype), x)
    denoised = D(x, sigma)
    slope = (x - denoised) / high
    out = denoised + low * slope
    if solver == "euler":
        return out
    rows = (sigma_next > 0).nonzero().squeeze(1)
    slope_next = (out[rows] - D(out[rows], sigma_next[rows])) / low[rows]
    return out.index_add(0, rows, (low[rows] - high[rows]) / 2 * (slope_next - slope[rows]))
