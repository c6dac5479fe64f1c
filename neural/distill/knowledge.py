"""Knowledge distillation (Eq. 41): the teacher's end point, in one jump from noise.

    λ ‖x_θ(x, σ_N) − x̂(x)‖²/dim,    x̂(x) the end of the teacher's sampler from x

The pairs (x, x̂) are made while training, or computed once (`neural.distill.pairs`). The minimum is
`optimal.knowledge_optimum(teacher, sigmas, solver)`, or, with pairs of the exact flow, `optimal.FlowMap(teacher)`.
"""

from __future__ import annotations

import torch
from torch import Tensor

from optimal.denoiser import Denoiser

from ..loss import Batch, weighted
from ..streams import Streams
from .pairs import Pairs

__all__ = ["Knowledge"]


class Knowledge:
    """The loss of Eq. 41.

    Args:
        pairs: where noises and their ends come from.
        sigma_max: σ_N.
        weighting, sigma_data: as for `Consistency`.
    """

    def __init__(self, pairs: Pairs, sigma_max: float, *, weighting: str = "none", sigma_data: float = 1.0):
        self.pairs, self.sigma_max = pairs, sigma_max
        self.weighting, self.sigma_data = weighting, sigma_data

    def draw(self, count: int, streams: Streams) -> Batch:
        return self.pairs.draw(count, streams)

    def loss(self, student: Denoiser, average: Denoiser, batch: Batch) -> tuple[Tensor, Tensor]:
        x, ends = batch
        sigma = torch.full((len(x),), self.sigma_max, dtype=torch.float64, device=x.device)
        return weighted(student(x, sigma) - ends, sigma, self.weighting, self.sigma_data), sigma
