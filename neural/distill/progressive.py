"""Progressive distillation (Eq. 38–40): one DDIM step of the student for two of its teacher.

    λ ‖x_θ(x, σ_n) − x'‖²/dim,   x = x0 + σ_n ε,   x' the output with which one DDIM step does what the teacher's two do

Each stage halves the steps, its student starting from the weights of the last and becoming the next teacher. The
minimum of stage k is `optimal.progressive_optimum(teacher, sigmas, k)`.
"""

from __future__ import annotations

import torch
from torch import Tensor

from optimal.denoiser import Denoiser
from optimal.distilled import ddim_target
from optimal.query import beside
from optimal.schedule import grid

from ..loss import Batch, Source, weighted
from ..streams import Streams

__all__ = ["Progressive", "student_grid"]


def student_grid(sigmas: Tensor) -> Tensor:
    """Every second level of a teacher's grid, from the first, and the 0 at its end."""
    return torch.cat([sigmas[:-1][::2], sigmas[-1:]])


class Progressive:
    """The loss of one stage, Eq. 38.

    Args:
        source: where x0 comes from.
        teacher: any denoiser, the optimum included.
        sigmas: (n + 1,) the teacher's grid, the last 0. The student's is every second level of it, `student_sigmas`.
        weighting, sigma_data: as for `Consistency`.

    References:
        Salimans, Ho 2022, "Progressive Distillation for Fast Sampling of Diffusion Models", Algorithm 2.
    """

    def __init__(
        self, source: Source, teacher: Denoiser, sigmas: Tensor, *, weighting: str = "edm", sigma_data: float = 1.0
    ):
        self.source, self.teacher, self.sigmas = source, teacher, grid(sigmas)
        self.student_sigmas = student_grid(self.sigmas)
        self.weighting, self.sigma_data = weighting, sigma_data

    def draw(self, count: int, streams: Streams) -> Batch:
        x0 = self.source.draw(count, streams)
        index = 2 * streams.below(len(self.student_sigmas) - 1, count)
        return x0, index, streams.normal(*x0.shape)

    def loss(self, student: Denoiser, average: Denoiser, batch: Batch) -> tuple[Tensor, Tensor]:
        x0, index, eps = batch
        sigmas = self.sigmas.to(x0.device)
        high = sigmas[index]
        x = x0 + beside(high.to(x0.dtype), x0) * eps
        target = torch.empty_like(x)
        with torch.no_grad():
            # An odd grid leaves one step for the last level.
            for steps in (1, 2):
                rows = ((len(self.sigmas) - 1 - index).clamp_max(2) == steps).nonzero().squeeze(1)
                if len(rows):
                    levels = torch.stack([sigmas[index[rows] + i] for i in range(steps + 1)])
                    target[rows] = ddim_target(self.teacher, x[rows], levels)
        return weighted(student(x, high) - target, high, self.weighting, self.sigma_data), high
