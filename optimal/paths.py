"""Entropies along x0 + σ ε at many levels, from two products that serve all of them.

The logits of Eq. 43 at x = x0 + σ ε are, for z0 = x0 − c and h_j = ½‖y_j − c‖²,

    l_j = ((z0·y_j − h_j) + σ ε·y_j)/σ² + a_j

so that z0·y_j − h_j and ε·y_j, in float64, are all that a level asks of the data: a level then takes an exponential for
each pair of draw and point, and no product. Products of D terms are off by (D + 4) u of the product of the norms at
most, u = 2⁻⁵³, and a logit by that over σ²: where it may be more than a hundred-thousandth of a nat, `holds` says no,
and the posterior is to be asked. x0 + σ ε itself is never rounded.
"""

from __future__ import annotations

from typing import TypeGuard

import torch
from torch import Tensor

from .denoiser import OptimalDenoiser

__all__ = ["Paths"]

_BYTES = 2**28
"""Of both products, at most."""
_BLOCK = 2**17
"""Logits that are worked on at once, so that they stay in the processor's cache: 1 MiB."""
_CLOSE = 1e-5
"""Nats that a logit may be off by."""
_LEAST = -80.0
"""Logits below it, relative to the leader's, are raised to it, where exponentials are fast: N e⁻⁸⁰ is nothing."""


class Paths:
    """What all levels ask of the data.

    Args:
        D: the optimum of points in memory.
        x0, eps: (B, *event) each.
    """

    def __init__(self, D: OptimalDenoiser, x0: Tensor, eps: Tensor):
        points = D.points
        self.points, self.draws = points, len(x0)
        z, noise = points.reduced(x0), eps.flatten(1).double()
        self.still = torch.empty(self.draws, points.size, dtype=torch.float64, device=z.device)
        self.moving = torch.empty_like(self.still)
        for start, block in points.blocks(points.few_rows, z.device):
            part = slice(start, start + len(block))
            self.still[:, part] = z @ block.T - points.half_norms[part].to(z.device)
            self.moving[:, part] = noise @ block.T
        longest = points.radius * (float(z.norm(dim=1).max()) + points.radius)
        loudest = points.radius * float(noise.norm(dim=1).max())
        self.rounding = (points.dim + 4) * 2.0**-53 * longest, (points.dim + 4) * 2.0**-53 * loudest

    @classmethod
    def of(cls, D: object, x0: Tensor, eps: Tensor) -> Paths | None:
        """None where they do not pay or do not fit: another optimum than of points on a CPU, or too many of them."""
        return cls(D, x0, eps) if cls.fit(D, len(x0)) else None

    @staticmethod
    def fit(D: object, draws: int) -> TypeGuard[OptimalDenoiser]:
        """Whether there is room for the products of so many draws."""
        if type(D) is not OptimalDenoiser or D.points.shared or D.points.device.type != "cpu":
            return False
        return 16 * draws * D.points.size <= min(_BYTES, D.points.memory)

    def holds(self, sigma: float) -> bool:
        """Whether logits at σ are as exact as is asked."""
        own = sigma / self.points.unit
        return (self.rounding[0] + own * self.rounding[1]) / own**2 < _CLOSE

    def entropies(self, sigma: float) -> Tensor:
        """−Σ w log w in nats, (B,) float64."""
        return self.at(sigma)[0]

    def at(self, sigma: float, draws: int | None = None) -> tuple[Tensor, Tensor]:
        """The entropies, (B,) float64, and the most probable points, (B,) int64, the first among equals; of the first
        draws only where so many are given."""
        own, weights = sigma / self.points.unit, self.points.log_weights
        parts, count = max(1, _BLOCK // self.points.size), self.draws if draws is None else draws
        entropy = torch.empty(count, dtype=torch.float64, device=self.still.device)
        leader = torch.empty(count, dtype=torch.int64, device=self.still.device)
        for start in range(0, count, parts):
            part = slice(start, min(start + parts, count))
            logits = torch.add(self.still[part], self.moving[part], alpha=own).div_(own * own)
            if weights is not None:
                logits += weights
            top = logits.max(1)
            near = logits.sub_(top.values[:, None]).float().clamp_(min=_LEAST)
            shares = near.exp()
            total, energy = shares.sum(1).double(), near.mul_(shares).sum(1).double()
            entropy[part] = total.log() - energy / total
            leader[part] = top.indices
        return entropy.clamp_(min=0), self.points.outer(leader)
