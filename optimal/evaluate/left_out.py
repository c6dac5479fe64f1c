"""The sums over all points but one, another one for every query.

Of the posterior w over all points, that of the others is w_k/(1 − w_j), and D without y_j is (D − w_j y_j)/(1 − w_j).
The difference is not taken: where w_j is nearly 1, which is the case of interest, nothing is left of it. The pass over
the data of `dense` leaves y_j out instead, at the price of a comparison a block; the answer is as exact as D is.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..arithmetic import ours
from ..points import Points
from . import dense
from .evaluator import Evaluator
from .moments import Moments
from .protocol import Accuracy, Tilt
from .squares import tilted_square

__all__ = ["LeftOutEvaluator"]


class LeftOutEvaluator(Evaluator):
    """`Evaluator` of B queries that each do not know one point; of V times B queries, B after B, under a `vmap`.

    Args:
        points, accuracy: as for `Evaluator`; the sums are those of `dense`, whatever the method.
        index: (B,) int64, the point that each query does not know; −1 for none.
    """

    def __init__(self, points: Points, accuracy: Accuracy, index: Tensor):
        super().__init__(points, accuracy)
        self._index = index

    @ours()
    def moments(self, z: Tensor, sigma: Tensor, *, single: bool) -> Moments:
        without = self._of(z)
        parts = [
            dense.moments(
                self.points, z[part], sigma[part], single=single, accuracy=self.accuracy, without=without[part]
            )
            for part in self.groups(torch.arange(len(z), device=z.device))
        ]
        sums = parts[0] if len(parts) == 1 else Moments.cat(parts)
        sums.method = "dense"
        return sums

    @ours()
    def tilt(self, z: Tensor, sigma: Tensor, tilt: Tilt, *, single: bool) -> Tensor:
        out, without = torch.zeros_like(z), self._of(z)
        for part in self.groups(torch.arange(len(z), device=z.device)):
            arguments = self.points, z[part], sigma[part], tilt.at(part)
            out[part] = dense.tilt(*arguments, single=single, accuracy=self.accuracy, without=without[part])
        return out

    @ours()
    def tilted_square(self, z: Tensor, sigma: Tensor, tilt: Tilt, *, single: bool) -> Tensor:
        memory, out, without = self.accuracy.memory, torch.zeros_like(sigma), self._of(z)
        for part in self.groups(torch.arange(len(z), device=z.device)):
            arguments = self.points, z[part], sigma[part], tilt.at(part)
            out[part] = tilted_square(*arguments, single=single, memory=memory, without=without[part])
        return out

    def _logits(self, z: Tensor, sigma: Tensor, *, single: bool) -> tuple[Tensor, Tensor]:
        memory = self.accuracy.memory
        return dense.log_weights(self.points, z, sigma, single=single, memory=memory, without=self._of(z))

    def _of(self, z: Tensor) -> Tensor:
        index = self._index.to(z.device)
        return index if len(index) == 0 else index.repeat(len(z) // len(index))
