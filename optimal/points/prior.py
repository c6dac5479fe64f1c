"""Prior log-weights: the points y_j have the probabilities π_j ∝ e^{a_j} instead of 1/N each.

The posterior is then w_j ∝ exp(a_j + l_j), l_j = −‖x − y_j‖²/2σ², and the density of the noisy data
log p(x; σ) = log Σ_j exp(a_j + l_j) − (D/2) log 2πσ², with the a_j normalised, log Σ_j e^{a_j} = 0. A constant added to
all a_j changes nothing; a point listed twice is a_j + log 2; a point of a_j = −∞ is no point, and is left out of the
rows (`Part`), so that what is computed with is finite.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..masks import refuse_mask

__all__ = ["Prior", "checked", "drawn"]

_LARGEST = 1e150
"""Log-weights beyond this have no digits left for the logits."""


@dataclass(frozen=True)
class Prior:
    """Probabilities of points that are not all the same.

    Attributes:
        log_weights: (n,) float64, a_j = log π_j, all finite, log Σ e^{a_j} = 0 to rounding.
        highest, lowest: the largest and the smallest of them.
    """

    log_weights: Tensor
    highest: float
    lowest: float

    @classmethod
    def of(cls, log_weights: Tensor) -> Prior | None:
        """Of (n,) finite numbers up to a constant; None where all are equal."""
        highest, lowest = float(log_weights.max()), float(log_weights.min())
        if highest == lowest:
            return None
        normalised = log_weights - highest
        normalised -= normalised.logsumexp(0)
        return cls(normalised, float(normalised.max()), float(normalised.min()))

    @property
    def weights(self) -> Tensor:
        """(n,) float64, π_j."""
        return self.log_weights.exp()

    def drawn(self, count: int, generator: torch.Generator) -> Tensor:
        """Points, each as often as it is likely, with replacement: (count,) int64, on the CPU."""
        return drawn(self.log_weights, count, generator)

    @property
    def reach(self) -> float:
        """max_j |a_j|: what the rounding of a logit to which a_j is added is a share of."""
        return max(abs(self.highest), abs(self.lowest))


def drawn(log_weights: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """`count` places, int64 on the CPU, with replacement, each in proportion to e to its log-weight, (n,)."""
    below = log_weights.cpu().double().exp().cumsum(0)
    at = torch.rand(count, generator=generator, dtype=torch.float64, device=generator.device).cpu() * below[-1]
    # What has no weight is no step of the sum, and is never met.
    return torch.searchsorted(below, at, right=True).clamp_max(int((below < below[-1]).sum()))


def checked(log_weights: Tensor | np.ndarray, size: int) -> Tensor:
    """Log-weights as a user gives them, (N,) float64, −inf allowed.

    Raises:
        ValueError: another type or length, nan, +inf, a size beyond 1e150, or all −inf.
    """
    if not isinstance(log_weights, Tensor | np.ndarray):
        raise ValueError(f"log_weights must be a tensor or array (N,), got {type(log_weights).__name__}")
    refuse_mask("log_weights", log_weights)
    given = torch.as_tensor(log_weights).detach()
    if given.shape != (size,):
        raise ValueError(f"log_weights must have shape (N,), got {tuple(given.shape)} with N = {size}")
    if given.is_complex() or given.dtype == torch.bool:
        raise ValueError(f"log_weights must be real numbers, got {given.dtype}")
    given = given.to(torch.float64, copy=True)
    wrong = ~(given.abs() <= _LARGEST) & ~(given == -torch.inf)
    if wrong.any():
        place = int(wrong.nonzero()[0])
        raise ValueError(f"log_weights must be at most 1e150 in size, or -inf, got {float(given[place])} at {place}")
    if not (given > -torch.inf).any():
        raise ValueError("log_weights must leave at least one point, all of them are -inf")
    return given
