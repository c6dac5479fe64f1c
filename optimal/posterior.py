"""What is known of x0 given x: the answer of `OptimalDenoiser.posterior` and of everything that is one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, Protocol

import torch
from torch import Tensor

from .points import Points
from .query import Levels

__all__ = ["Optimum", "Posterior", "joined"]


@dataclass(frozen=True)
class Posterior:
    """p(x0 | x) over the data points. The mean is in the dtype of x, all else in float64, whatever x is.

    Gradients flow to x and to σ through mean, log_density, entropy, top_weight and variance.

    Attributes:
        mean: (B, *event), E[x0 | x].
        log_density: (B,), log p(x; σ) in nats.
        entropy: (B,), −Σ w log w in nats.
        top_index: (B,), the most probable point; the first in the data among equals.
        top_weight: (B,), its probability.
        variance: (B,), tr Cov[x0 | x] = E‖x0 − D‖². For a float32 x its error is up to 2e-4 σ² (the scale is that of
            the Jacobian: tr ∂D/∂x = variance/σ²), which can exceed a variance near 0; a float64 x has full precision.
        error_bound: (B,), method="screened": proven bound on the relative error of the mean as it is in float64, with
            probability 1 − 10⁻¹² (see `optimal.evaluate.screened`); nan where none was proven.
        error_estimate: (B,), the expected size of that error; nan where the method has no estimate of it.
        method: name of the way that summed over the data: dense, screened or keops, after "sharded " where processes
            share them; "screened, dense" where "auto" took one for some rows and one for the others.
    """

    mean: Tensor
    log_density: Tensor
    entropy: Tensor
    top_index: Tensor
    top_weight: Tensor
    variance: Tensor
    error_bound: Tensor
    error_estimate: Tensor
    method: str

    def __repr__(self) -> str:
        """Its shape and what is most telling of it: not its tensors."""
        rows, shape = len(self.entropy), tuple(self.mean.shape)
        told = "" if rows == 0 else f", effective_count {self._range(self.effective_count)}"
        return f"Posterior(mean {shape}{told}, method {self.method!r})"

    @staticmethod
    def _range(values: Tensor) -> str:
        low, high = float(values.min()), float(values.max())
        return f"{low:.3g}" if low == high else f"{low:.3g} to {high:.3g}"

    @property
    def effective_count(self) -> Tensor:
        """exp(entropy), (B,): 1 when the posterior is one point, N when it is uniform."""
        return self.entropy.exp()

    def at(self, rows: Tensor) -> Posterior:
        """Of the rows at these places, in their order."""
        names = (field.name for field in fields(Posterior) if field.name != "method")
        return Posterior(**{name: getattr(self, name)[rows] for name in names}, method=self.method)


def joined(posts: Sequence[Posterior]) -> Posterior:
    """Posteriors of some rows each, at least one of them, one after another as one."""
    names = (field.name for field in fields(Posterior) if field.name != "method")
    parts = {name: torch.cat([getattr(post, name) for post in posts]) for name in names}
    return Posterior(**parts, method=", ".join(dict.fromkeys(post.method for post in posts)))


class Optimum(Protocol):
    """The optimum of points that are known one by one: of data as they are, under a prior, with their images.

    What is measured along x = x0 + σ ε asks no more of it than this: points to draw, and the posterior over them.
    """

    event: tuple[int, ...]
    data: Any

    @property
    def points(self) -> Points: ...
    @property
    def mean(self) -> Tensor: ...
    @property
    def standard_deviation(self) -> float: ...
    def __len__(self) -> int: ...
    def __call__(self, x: Tensor, sigma: Levels, /) -> Tensor: ...
    def posterior(self, x: Tensor, sigma: Levels, /) -> Posterior: ...
    def drawn(self, count: int, generator: torch.Generator, /) -> Tensor: ...
    def take(self, index: Tensor, /) -> Tensor: ...
    def nearest(self, x: Tensor, /) -> Tensor: ...
