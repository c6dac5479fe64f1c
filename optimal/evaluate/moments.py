"""Running sums over the data, each relative to the largest logit seen so far.

With l_j = log w_j up to a constant and m = max_j l_j, one pass over the data collects

    total  = Σ e^{l_j − m}              mean   = Σ e^{l_j − m} (y_j − c)
    energy = Σ e^{l_j − m} (l_j − m)    square = Σ e^{l_j − m} ‖y_j − c‖²

and the posterior mean, density, entropy, variance and leader follow. Sums of two parts of the data merge exactly, so
blocks, devices and machines can each take a part (the running log-sum-exp of Milakov and Gimelshein 2018, "Online
normalizer calculation for softmax").
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["Moments"]

_ROUNDING = 16 * 2.0**-53
"""Of a difference of squares, relative to either."""
_FIELDS = ("top", "total", "energy", "square", "mean", "index", "bound", "estimate", "doubt")


class Moments:
    """Sums for B queries, empty at first; float64, `index` int64. The leader among equals is the first in the data.

    bound and estimate, (B,), are of the relative error of the mean, proven and expected; doubt, (B,), is a proven bound
    on the error of top + log total, nats. nan where there is none. method is the name of the way that summed, "" before
    it is told.
    """

    method: str = ""

    def __init__(self, batch: int, dim: int, device: torch.device):
        def zeros(*shape: int) -> Tensor:
            return torch.zeros(*shape, dtype=torch.float64, device=device)

        self.top = torch.full((batch,), -torch.inf, dtype=torch.float64, device=device)
        self.total, self.energy, self.square = zeros(batch), zeros(batch), zeros(batch)
        self.mean = zeros(batch, dim)
        self.bound, self.estimate, self.doubt = (zeros(batch).fill_(torch.nan) for _ in range(3))
        self.index = torch.zeros(batch, dtype=torch.int64, device=device)

    def merge(
        self,
        rows: Tensor | None,
        *,
        top: Tensor,
        total: Tensor,
        energy: Tensor,
        mean: Tensor,
        square: Tensor,
        index: Tensor,
        tie: Tensor | float = 0.0,
    ) -> None:
        """Add another part's sums, for the queries `rows` (None: all of them). Parts come in the order of the data.

        A later part takes the lead only by more than `tie` nats.
        """
        at = slice(None) if rows is None else rows
        old = self.top[at]
        new = torch.maximum(old, top)
        # Rescaling e^{l − m} to e^{l − m'} also moves the energy, by (m − m') for each unit of weight; an
        # empty side has none.
        ours, theirs = torch.exp(old - new), torch.exp(top - new)
        shift = torch.where(self.total[at] > 0, old - new, 0.0)
        self.energy[at] = ours * (self.energy[at] + shift * self.total[at]) + theirs * (energy + (top - new) * total)
        self.total[at] = ours * self.total[at] + theirs * total
        self.square[at] = ours * self.square[at] + theirs * square
        self.index[at] = torch.where(top > old + tie, index, self.index[at])
        self.top[at] = new
        if rows is None:
            self.mean.mul_(ours[:, None]).addcmul_(theirs[:, None], mean.double())
        else:
            self.mean[rows] = self.mean[rows] * ours[:, None] + theirs[:, None] * mean

    def lead(self, index: Tensor, top: Tensor) -> None:
        """Say who leads, (B,), with which logit, and make the sums relative to it."""
        factor, shift = torch.exp(self.top - top), self.top - top
        self.energy = factor * (self.energy + shift * self.total)
        self.total, self.square, self.mean = factor * self.total, factor * self.square, factor[:, None] * self.mean
        self.top, self.index = top, index

    def recount(self, counted: Tensor, values: Tensor, square: Tensor) -> None:
        """Let the leader's term be 1, which came as e^counted: then a point that is alone weighs 1, not nearly 1.

        counted: (B,), its logit relative to `top`; values: (B, D), its y − c; square: (B,), their ‖y − c‖².
        """
        weight = counted.exp()
        missing = 1 - weight
        self.total = self.total + missing
        self.energy = self.energy - counted * weight
        self.square = self.square + missing * square
        self.mean.addcmul_(missing[:, None], values)

    @classmethod
    def cat(cls, parts: list[Moments]) -> Moments:
        """The sums of several groups of queries, one after another."""
        out = cls(0, parts[0].mean.shape[1], parts[0].mean.device)
        for name in _FIELDS:
            setattr(out, name, torch.cat([getattr(part, name) for part in parts]))
        out.method = parts[0].method
        return out

    def at(self, rows: Tensor) -> Moments:
        """The sums of the queries `rows`."""
        out = Moments(0, self.mean.shape[1], self.mean.device)
        for name in _FIELDS:
            setattr(out, name, getattr(self, name)[rows])
        return out

    def put(self, rows: Tensor, other: Moments) -> None:
        """Take the sums of the queries `rows` from another."""
        for name in _FIELDS:
            getattr(self, name)[rows] = getattr(other, name)

    @property
    def average(self) -> Tensor:
        """Posterior mean − c, (B, D)."""
        return self.mean / self.total[:, None]

    @property
    def variance(self) -> Tensor:
        """tr Cov, (B,): a difference of squares; 0 where their rounding is all that is left of it."""
        square = self.square / self.total
        variance = square - self.average.square().sum(1)
        return torch.where(variance > _ROUNDING * square, variance, 0.0)
