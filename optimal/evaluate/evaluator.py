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
_LARGE, _MANY = 2048, 2000
"""Values of an image, and images, from which on screening pays."""
_BLURRED = 0.15
"""tr Cov[x0]/σ², nats, below which it does not."""
_MATRIX = 64
"""Values of a point up to which the matrix of logits costs a GPU more than the products."""


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

    def weighted(self, log_weights: Tensor) -> Evaluator:
        """Of the same points under the prior π_j e^{b_j}: see `Points.weighted`."""
        return Evaluator(self.points.weighted(log_weights), self.accuracy)

    def choose(self, sigma: Tensor, *, single: bool) -> list[tuple[Method, Tensor]]:
        """The modules that do the sums, each with the rows of sigma, (b,) int64, that it does.

        "auto" looks at the data, the processor and each row's own sigma; neither at other rows nor at a clock. Images
        kept as bytes, 2,000 or more of at least 2,048 values, are screened where the processor multiplies bytes fast,
        unless the posterior is so blurred that hardly a point can be left out: where tr Cov[x0]/σ² is below 0.15 nats.
        Measured (one thread, processor time), 8,000 patches and as many images of noise, 4 and 64
        queries, took 0.11 to 1.0 of dense's time above, least for few queries and low noise, and up to 2.5 below. Other
        data are dense's on the CPU, where KeOps is no faster from D = 2 on. On a GPU, where no run was measured, keops
        is taken for D <= 64, the range in which a (B, N) matrix rather than the products is the cost.
        """
        points, method = self.points, self.accuracy.method
        rows = _rows(sigma)
        images = single and points.bytes
        if method == "keops" and len(sigma):  # It cannot reduce for no queries.
            return [(keops, rows)]
        if method == "screened" and images and len(sigma):
            return [(screened, rows)]
        if method == "auto" and sigma.device.type == "cuda" and len(sigma):
            return [(keops if points.dim <= _MATRIX and keops.available() else dense, rows)]
        large = images and points.dim >= _LARGE and points.size >= _MANY
        if method == "auto" and large and sigma.device.type == "cpu" and fast_bytes():
            spread = points.dim * (points.standard_deviation / points.unit / sigma).square()
            parts: list[tuple[Method, Tensor]] = [
                (screened, rows[spread >= _BLURRED]),
                (dense, rows[spread < _BLURRED]),
            ]
            return [part for part in parts if len(part[1])] or parts[1:]
        return [(dense, rows)]

    @ours()
    def moments(self, z: Tensor, sigma: Tensor, *, single: bool) -> Moments:
        """The running sums of every query."""
        chosen = self.choose(sigma, single=single)
        if len(chosen) == 1:
            return self._moments(z, sigma, *chosen[0], single=single)
        out = Moments(len(z), self.points.dim, z.device)
        for method, rows in chosen:
            sums = self._moments(z, sigma, method, rows, single=single)
            out.put(rows, sums)
            out.method = f"{out.method}, {sums.method}" if out.method else sums.method
        return out

    @ours()
    def tilt(self, z: Tensor, sigma: Tensor, tilt: Tilt, *, single: bool) -> Tensor:
        """Σ_j w_j c_j (y_j − D) with the c_j of `Tilt`, (B, D)."""
        out = torch.zeros_like(z)
        for method, rows in self.choose(sigma, single=single):
            for part in self.groups(rows):
                out[part] = method.tilt(
                    self.points, z[part], sigma[part], tilt.at(part), single=single, accuracy=self.accuracy
                )
        return out

    @ours()
    def tilted_square(self, z: Tensor, sigma: Tensor, tilt: Tilt, *, single: bool) -> Tensor:
        """Σ_j w_j c_j ‖y_j − D‖² with the c_j of `Tilt`, (B,) float64."""
        memory = self.accuracy.memory
        parts = [
            tilted_square(self.points, z[part], sigma[part], tilt.at(part), single=single, memory=memory)
            for part in self.groups(_rows(sigma))
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
        return self._logits(z, sigma, single=single)[0].softmax(1)

    @ours()
    def log_weights(self, z: Tensor, sigma: Tensor, *, single: bool) -> Tensor:
        """The logits behind `weights`, (B, N) float64; −inf where the weight is given 0."""
        logits, top = self._logits(z, sigma, single=single)
        return logits.add_(top[:, None])

    def nearest(self, z: Tensor) -> Tensor:
        """The data point nearest to each query, (B,); the first in the data among equals."""
        return self.points.nearest(z, screen)

    def neighbours(self, z: Tensor, count: int) -> tuple[Tensor, Tensor]:
        """The `count` nearest distinct points and their distances, (B, count) each; −1 and inf for none."""
        return self.points.neighbours(z, count, screen)

    @ours()
    def drift_bounds(self, z: Tensor, sigma: Tensor, index: Tensor, trials: tuple[float, ...]) -> Tensor:
        """S(δ) of `optimal.capture` for the points `index`, (B,), and every δ in `trials`: (B, len(trials)) float64."""
        parts = [
            drift_bounds(self.points, z[part], sigma[part], index[part], trials, memory=self.accuracy.memory)
            for part in self.groups(_rows(sigma))
        ]
        return torch.cat(parts)

    def _moments(self, z: Tensor, sigma: Tensor, method: Method, rows: Tensor, *, single: bool) -> Moments:
        """The running sums of the queries `rows`, by one method, with its name."""
        parts = [
            method.moments(self.points, z[part], sigma[part], single=single, accuracy=self.accuracy)
            for part in self.groups(rows)
        ]
        sums = parts[0] if len(parts) == 1 else Moments.cat(parts)
        sums.method = sums.method or method.__name__.rpartition(".")[2]
        return sums

    def _logits(self, z: Tensor, sigma: Tensor, *, single: bool) -> tuple[Tensor, Tensor]:
        return dense.log_weights(self.points, z, sigma, single=single, memory=self.accuracy.memory)

    @property
    def most(self) -> int:
        """Queries that go together: their float64 temporaries take at most a quarter of the budget."""
        return max(1, min(_QUERIES, self.accuracy.memory // (4 * 6 * 8 * self.points.dim)))

    def groups(self, rows: Tensor) -> list[Tensor]:
        """The rows in groups of at most so many."""
        return list(rows.split(self.most))


def _rows(sigma: Tensor) -> Tensor:
    return torch.arange(len(sigma), dtype=torch.int64, device=sigma.device)
