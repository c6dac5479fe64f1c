"""Optima given a measurement of every row: row b knows y_b = A(x0) + η, and answers E[x0 | x_b, y_b].

The log-likelihoods of all observations come of one pass over the data; the answers are those of `GivenMeasurement`, row
by row, each with its own weights of the points.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float, Int, Num
from torch import Tensor

from .masks import refuse_mask
from .measurement import GivenMeasurement
from .posterior import Posterior, joined
from .query import Levels, per_row, require_rows

if TYPE_CHECKING:
    from .denoiser import OptimalDenoiser

__all__ = ["GivenMeasurements"]


class GivenMeasurements:
    """E[x0 | x, y] with an observation for every row, a `Denoiser` of B rows: see `OptimalDenoiser.measured`.

    Each row is a pass over the data: the points of all rows are the same, their weights are not.

    Attributes:
        D: the optimum that knows x alone.
        rows: of every row its `GivenMeasurement`, with all that it knows.
        event: shape of one point.

    Raises:
        ValueError: log-likelihoods (B, N) of another shape, or as for `GivenMeasurement`.
    """

    def __init__(self, D: OptimalDenoiser, log_likelihood: Float[Tensor, "B N"] | np.ndarray):
        refuse_mask("log_likelihood", log_likelihood)
        values = torch.as_tensor(log_likelihood)
        if values.ndim != 2:
            raise ValueError(f"log_likelihood must be one a row, (B, {len(D)}), got shape {tuple(values.shape)}")
        self.D, self.event = D, D.event
        self.rows = tuple(GivenMeasurement(D, row) for row in values)

    def __repr__(self) -> str:
        return f"{self.D!r}, given {len(self.rows)} measurements"

    def __len__(self) -> int:
        return len(self.D)

    def __call__(self, x: Num[Tensor, "B *event"], sigma: Levels) -> Float[Tensor, "B *event"]:
        """Row b is E[x0 | x_b, y_b].

        Raises:
            ValueError: as for `OptimalDenoiser`; another number of rows than of observations.
        """
        return self._joined(x, sigma, lambda M, z, level: M(z, level), x)

    def score(self, x: Num[Tensor, "B *event"], sigma: Levels) -> Float[Tensor, "B *event"]:
        """∇ log p(x | y; σ) = (D_y − x)/σ², (B, *event)."""
        return self._joined(x, sigma, lambda M, z, level: M.score(z, level), x)

    def posterior(self, x: Num[Tensor, "B *event"], sigma: Levels) -> Posterior:
        """p(x0 | x, y) of every row; `log_density` is log p(x | y; σ)."""
        posts = [M.posterior(z, level) for M, z, level in self._parts(x, sigma)]
        return joined(posts) if posts else self.D.posterior(x, sigma)

    def log_probability(self, x: Num[Tensor, "B *event"], sigma: Levels) -> Float[Tensor, " B"]:
        """log p(y | x) of every row, (B,) float64; see `GivenMeasurement.log_probability`."""
        none = torch.zeros(0, dtype=torch.float64, device=x.device)
        return self._joined(x, sigma, lambda M, z, level: M.log_probability(z, level), none)

    @property
    def log_weights(self) -> Float[Tensor, "B N"]:
        """log p(x0 = y_j | y) of every row, (B, N) float64."""
        parts = [M.log_weights for M in self.rows]
        return torch.stack(parts) if parts else self.D.log_weights.new_zeros(0, len(self.D))

    def drawn(self, generator: torch.Generator) -> Int[Tensor, " B"]:
        """An exact sample of p(x0 | y) for every row: which data points, (B,) int64, on the CPU."""
        parts = [M.drawn(1, generator) for M in self.rows]
        return torch.cat(parts) if parts else torch.zeros(0, dtype=torch.int64, device="cpu")

    def _parts(self, x: Tensor, sigma: Levels) -> list[tuple[GivenMeasurement, Tensor, Tensor]]:
        require_rows(x, self.event, len(self.rows), "observation")
        values = per_row("sigma", sigma, len(x), x.device, graph=True)
        return [(M, x[b : b + 1], values[b : b + 1]) for b, M in enumerate(self.rows)]

    def _joined(self, x: Tensor, sigma: Levels, ask: Callable[..., Tensor], none: Tensor) -> Tensor:
        parts = self._parts(x, sigma)
        with self.D.points.rows.checked_once():
            return torch.cat([ask(*part) for part in parts]) if parts else none
