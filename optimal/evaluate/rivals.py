"""The sums of queries whose evidence is added up: each is worth what its share in the whole is.

As for the images of an x under the elements of a group. An image far from all data has no share, and its own posterior,
over points that are all about as far away, is the dearest of all; where the first digit of `screened` proves that its
share is nothing, no more is asked.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..arithmetic import ours
from ..points import Points
from . import screened
from .evaluator import Evaluator
from .moments import Moments
from .protocol import Accuracy, Method

__all__ = ["RivalEvaluator"]


class RivalEvaluator(Evaluator):
    """`Evaluator` of G·B queries, query g of group i at g·B + i; of V times as many, one after another, under a `vmap`.

    The sums of a query whose share in the evidence of its group is proven to be below 2·10⁻⁸ are those of one point.

    Args:
        points, accuracy: as for `Evaluator`.
        log_weights: (G,) float64, finite, what the evidence of each of the G counts by.
        count: B.
    """

    def __init__(self, points: Points, accuracy: Accuracy, log_weights: Tensor, count: int):
        super().__init__(points, accuracy)
        self._log_weights, self._count = log_weights, count

    @ours()
    def moments(self, z: Tensor, sigma: Tensor, *, single: bool) -> Moments:
        elements = len(self._log_weights)
        if len(z) == 0 or elements == 1:
            return super().moments(z, sigma, single=single)
        # The logits of one digit over all points fit the budget, too.
        most = max(1, min(self.most, self.accuracy.memory // (5 * 8 * self.points.size)) // elements)
        every = torch.arange(len(z), dtype=torch.int64, device=z.device)
        table = every.view(-1, elements, self._count).transpose(0, 1).reshape(elements, -1)
        parts = [
            (method, table[:, some].flatten())
            for method, chosen in self.choose(sigma, single=single)
            for some in torch.isin(table[0], chosen).nonzero().squeeze(1).split(most)
        ]
        if len(parts) == 1 and torch.equal(parts[0][1], every):
            return self._sums(parts[0][0], z, sigma, single=single)
        out = Moments(len(z), self.points.dim, z.device)
        for method, rows in parts:
            sums = self._sums(method, z[rows], sigma[rows], single=single)
            out.put(rows, sums)
            if sums.method not in out.method.split(", "):
                out.method = f"{out.method}, {sums.method}" if out.method else sums.method
        return out

    def _sums(self, method: Method, z: Tensor, sigma: Tensor, *, single: bool) -> Moments:
        points, accuracy = self.points, self.accuracy
        if method is screened:
            out = screened.rivals(points, z, sigma, self._log_weights, accuracy=accuracy)
        else:
            out = method.moments(points, z, sigma, single=single, accuracy=accuracy)
        out.method = out.method or method.__name__.rpartition(".")[2]
        return out
