"""Sums over the data for any number of queries: which way, in which parts, within the budget."""

from __future__ import annotations

import torch
from torch import Tensor

from ..arithmetic import ours
from ..points import Points
from . import dense, keops, screened
from .byte_digits import fast_bytes
from .byte_nearest import screen
from .drift import drift_bounds
from .moments import Moments
from .protocol import Accuracy, Method, Tilt
from .squares import tilted_square

__all__ = ["Evaluator"]

_QUERIES = 4096
"""Most queries that pass over the data together; more gain nothing and push a block's logits out of cache."""


_METHODS: dict[str, Method] = {"dense": dense, "keops": keops, "screened": screened}


class Evaluator:
    """Sums over the data for any number of queries, within a memory budget.

    Queries come as z = x − c, (B, D) float64, and sigma, (B,) float64; `single` allows float32 products, whose
    rounding the method must then repair.

    Raises:
        ValueError: keops without a C++ compiler.
    """

    def __init__(self, points: Points, accuracy: Accuracy):
        if accuracy.method == "keops":
            keops.require()
        self.points, self.accuracy = points, accuracy

    def choose(self, z: Tensor, *, single: bool) -> Method:
        """The module that does the sums for the queries z.

        "auto" on the CPU, measured on 2 cores (`bench/run.py --parts crossovers`): for D = 1 keops is 2 to 3 times
        faster than dense, for D = 2 they are level, for D = 8 dense is 3 times faster, for D = 64 over 20 times. KeOps
        compiles for about 8 s once for every D, so it is taken for D = 1 and at least 2·10⁹ pairs of query and point,
        where dense needs about 15 s. Images kept as bytes, of at least 2,048 values, are screened where the processor
        multiplies bytes fast: 10,000 and 70,000 patches of 64×64×3 in 0.1 to 0.9 of dense's time, least for few queries
        and low noise; 2,429 emoji of that size or of 32×32×3 in 0.15 to 1.1 for up to 64 queries. On a GPU, where no
        run was measured, keops is taken for D <= 64, the range in which a (B, N) matrix rather than the products is the
        cost.
        """
        if len(z) == 0:
            return dense  # KeOps cannot reduce for no queries.
        if self.accuracy.method == "screened" and not (single and self.points.bytes):
            return dense  # As it would itself.
        if self.accuracy.method != "auto":
            return _METHODS[self.accuracy.method]
        points = self.points
        if single and points.bytes and points.dim >= 2048 and points.size >= 2000 and z.device.type == "cpu":
            few = len(z) <= 64 or points.size >= 10_000
            return screened if few and fast_bytes() else dense
        if z.device.type == "cuda":
            worthwhile = self.points.dim <= 64
        else:
            worthwhile = self.points.dim == 1 and len(z) * self.points.size >= 2 * 10**9
        return keops if worthwhile and keops.available() else dense

    @ours()
    def moments(self, z: Tensor, sigma: Tensor, *, single: bool) -> Moments:
        """The running sums of every query."""
        method = self.choose(z, single=single)
        parts = [
            method.moments(self.points, z[part], sigma[part], single=single, accuracy=self.accuracy)
            for part in self._parts(len(z))
        ]
        out = parts[0] if len(parts) == 1 else Moments.cat(parts)
        out.method = out.method or method.__name__.rpartition(".")[2]
        return out

    @ours()
    def tilt(self, z: Tensor, sigma: Tensor, tilt: Tilt, *, single: bool) -> Tensor:
        """Σ_j w_j c_j (y_j − D) with the c_j of `Tilt`, (B, D)."""
        method = self.choose(z, single=single)
        parts = [
            method.tilt(self.points, z[part], sigma[part], tilt.at(part), single=single, accuracy=self.accuracy)
            for part in self._parts(len(z))
        ]
        return torch.cat(parts)

    @ours()
    def tilted_square(self, z: Tensor, sigma: Tensor, tilt: Tilt, *, single: bool) -> Tensor:
        """Σ_j w_j c_j ‖y_j − D‖² with the c_j of `Tilt`, (B,) float64."""
        memory = self.accuracy.memory
        parts = [
            tilted_square(self.points, z[part], sigma[part], tilt.at(part), single=single, memory=memory)
            for part in self._parts(len(z))
        ]
        return torch.cat(parts)

    @ours()
    def weights(self, z: Tensor, sigma: Tensor, *, single: bool) -> Tensor:
        """Every posterior weight, (B, N) float64; points more than 30 nats below the leader may be given 0.

        Raises:
            ValueError: the result does not fit the budget.
        """
        need = 3 * 8 * len(z) * self.points.size
        if need > self.accuracy.memory:
            raise ValueError(
                f"weights of {len(z)} queries over {self.points.size} points need {need:,} bytes, over the budget of "
                f"{self.accuracy.memory:,}: raise memory=, take fewer queries, or use posterior()"
            )
        return self.log_weights(z, sigma, single=single).softmax(1)

    @ours()
    def log_weights(self, z: Tensor, sigma: Tensor, *, single: bool) -> Tensor:
        """The logits behind `weights`, (B, N) float64; −inf where the weight is given 0."""
        scores = torch.full((len(z), self.points.size), -torch.inf, dtype=torch.float64, device=z.device)
        for rows, index, part, _, _ in dense.logits(self.points, z, sigma, single=single, memory=self.accuracy.memory):
            if rows is None:
                scores[:, index] = part
            else:
                scores[rows[:, None], index] = part
        return scores

    def nearest(self, z: Tensor) -> Tensor:
        """The data point nearest to each query, (B,); the first in the data among equals."""
        return self.points.nearest(z, screen)

    @ours()
    def drift_bounds(self, z: Tensor, sigma: Tensor, index: Tensor, trials: tuple[float, ...]) -> Tensor:
        """S(δ) of `optimal.capture` for the points `index`, (B,), and every δ in `trials`: (B, len(trials)) float64."""
        parts = [
            drift_bounds(self.points, z[part], sigma[part], index[part], trials, memory=self.accuracy.memory)
            for part in self._parts(len(z))
        ]
        return torch.cat(parts)

    def _parts(self, batch: int) -> list[slice]:
        """The queries in groups whose float64 temporaries take at most a quarter of the budget."""
        size = max(1, min(_QUERIES, self.accuracy.memory // (4 * 6 * 8 * self.points.dim)))
        return [slice(start, start + size) for start in range(0, max(batch, 1), size)]
