"""Multi-step knowledge distillation (Eq. 42): also right at the points that the student itself reaches.

    λ ‖x_θ(x', σ_n) − x̂(x)‖²/dim,    x' reached from x at σ_N by the student's own DDIM steps

with the pairs (x, x̂) of knowledge distillation. Half of the levels are σ_N, where every sample starts (Eq. 42 draws n
uniformly); the others are drawn from the grid, and so are the levels at which the DDIM steps that lead to them stop,
five at most; they are taken with the averaged weights, and no gradient goes through them. The minimum is
`optimal.multistep_knowledge_optimum(teacher, …)`, on those points. Sampled with 1 to 6 DDIM steps.
"""

from __future__ import annotations

import torch
from torch import Tensor

from optimal.denoiser import Denoiser
from optimal.query import beside
from optimal.schedule import grid

from ..loss import Batch, weighted
from ..streams import Streams
from .pairs import Pairs

__all__ = ["MultistepKnowledge"]


class MultistepKnowledge:
    """The loss of Eq. 42.

    Args:
        pairs: where noises and their ends come from.
        sigmas: (n + 1,) the student's grid, from σ_N, the last 0: levels it is trained at.
        most: most DDIM steps that lead to a level.
        weighting, sigma_data: as for `Consistency`.
    """

    def __init__(
        self,
        pairs: Pairs,
        sigmas: Tensor,
        *,
        most: int = 5,
        weighting: str = "none",
        sigma_data: float = 1.0,
    ):
        self.pairs, self.sigmas, self.most = pairs, grid(sigmas), most
        self.weighting, self.sigma_data = weighting, sigma_data

    def draw(self, count: int, streams: Streams) -> Batch:
        noises, ends = self.pairs.draw(count, streams)
        level = streams.below(len(self.sigmas) - 1, count)
        level = torch.where(streams.uniform(count) < 0.5, 0, level)
        return noises, ends, level, streams.uniform(count, self.most - 1)

    def loss(self, student: Denoiser, average: Denoiser, batch: Batch) -> tuple[Tensor, Tensor]:
        x, ends, level, between = batch
        sigmas = self.sigmas.to(x.device)
        with torch.no_grad():
            x = self._reach(average, x, level, between)
        sigma = sigmas[level]
        return weighted(student(x, sigma) - ends, sigma, self.weighting, self.sigma_data), sigma

    def _reach(self, student: Denoiser, x: Tensor, level: Tensor, between: Tensor) -> Tensor:
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
