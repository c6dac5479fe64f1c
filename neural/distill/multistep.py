"""Multi-step knowledge distillation (Eq. 42): also right at the points that the student itself reaches.

    λ ‖x_θ(x', σ_n) − x̂(x)‖²/dim,    x' reached from x at σ_N by the student's own DDIM steps

with the pairs (x, x̂) of knowledge distillation. Half of the levels are σ_N, where every sample starts (Eq. 42 draws n
uniformly); the others are drawn from the grid, and so are the levels at which the DDIM steps that lead to them stop,
five at most; they are taken with the averaged weights, and no gradient goes through them. The minimum is
`optimal.multistep_knowledge_optimum(teacher, …)`, on those points. Sampled with 1 to 6 DDIM steps.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from optimal.query import beside
from optimal.schedule import grid

from ..loss import Batch, weighted
from .knowledge import in_memory

__all__ = ["MultistepKnowledge"]


class MultistepKnowledge:
    """The loss of Eq. 42.

    Args:
        noises, ends: pairs, (M, *event) float32.
        sigmas: (n + 1,) the student's grid, from σ_N, the last 0: levels it is trained at.
        most: most DDIM steps that lead to a level.
        weighting, sigma_data: as for `Consistency`.
    """

    def __init__(
        self,
        noises: np.ndarray | Tensor,
        ends: np.ndarray | Tensor,
        sigmas: Tensor,
        *,
        most: int = 5,
        weighting: str = "edm",
        sigma_data: float = 1.0,
    ):
        self.noises, self.ends, self.sigmas, self.most = in_memory(noises), in_memory(ends), grid(sigmas), most
        self.weighting, self.sigma_data = weighting, sigma_data

    def draw(self, count: int, generator: torch.Generator) -> Batch:
        index = torch.randint(len(self.noises), (count,), generator=generator)
        level = torch.randint(len(self.sigmas) - 1, (count,), generator=generator)
        level = torch.where(torch.rand(count, generator=generator) < 0.5, 0, level)
        between = torch.rand(count, self.most - 1, generator=generator)
        return self.noises[index], self.ends[index], level, between

    def loss(self, student: nn.Module, average: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
        x, ends, level, between = batch
        sigmas = self.sigmas.to(x.device)
        with torch.no_grad():
            x = self._reach(average, x, level, between)
        sigma = sigmas[level]
        return weighted(student(x, sigma) - ends, sigma, self.weighting, self.sigma_data), sigma

    def _reach(self, student: nn.Module, x: Tensor, level: Tensor, between: Tensor) -> Tensor:
        """DDIM from σ_N to each row's level, over grid levels drawn between; some of them equal: fewer steps."""
        sigmas = self.sigmas.to(x.device)
        stops = torch.cat([(between * (level[:, None] + 1)).long(), level[:, None]], 1).sort(1).values
        at = torch.zeros_like(level)
        for stop in stops.T:
            rows = (stop > at).nonzero().squeeze(1)
            if len(rows) == 0:
                continue
            here, there = sigmas[at[rows]], sigmas[stop[rows]]
            clean = student(x[rows], here)
            ratio = beside((there / here).to(x.dtype), x)
            x = x.index_copy(0, rows, clean + ratio * (x[rows] - clean))
            at = at.index_copy(0, rows, stop[rows])
        return x
