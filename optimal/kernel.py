"""Two optima that are the optimum at another noise level: of smoothed data, and at a temperature.

Data convolved with N(0, s² I), as of a kernel density estimate of bandwidth s, or of points with noise of their own:
x0 = y_j + s ε', so that x = y_j + √(σ² + s²) ε'' and, given y_j, x0 is Gaussian about a point between y_j and x,

    D_s(x, σ) = (s² x + σ² D(x, √(σ² + s²)))/(σ² + s²),    log p_s(x; σ) = log p(x; √(σ² + s²)).

The flow of D_s from σ to 0 is that of D from √(σ² + s²) to s. Logits divided by a temperature T, that is
w_j ∝ π_j exp(−‖x − y_j‖²/2σ²T), are those at σ√T,

    D_T(x, σ) = D(x, σ√T),

for T ≠ 1 the denoiser of no fixed data at the noise levels σ.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float, Num
from torch import Tensor

from .numbers import is_number
from .query import Levels, beside, levels, require_points

if TYPE_CHECKING:
    from .denoiser import OptimalDenoiser

__all__ = ["Smoothed", "Tempered"]


class Smoothed:
    """The optimum of the data convolved with N(0, s² I), a `Denoiser`: see `OptimalDenoiser.smoothed`.

    Attributes:
        D: the optimum of the data themselves.
        bandwidth: s.
        event: shape of one point.

    Raises:
        ValueError: a bandwidth that is negative or not finite.
    """

    def __init__(self, D: OptimalDenoiser, bandwidth: float):
        self.D, self.event, self.bandwidth = D, D.event, _number("bandwidth", bandwidth, zero=True)

    def __repr__(self) -> str:
        return f"{self.D!r}.smoothed({self.bandwidth:g})"

    def __call__(self, x: Num[Tensor, "B *event"], sigma: Levels) -> Float[Tensor, "B *event"]:
        """D_s(x, σ), (B, *event).

        Raises:
            ValueError: as for `OptimalDenoiser`.
        """
        both, share = self._levels(x, sigma)
        mean = self.D(x, both).double()
        return (mean + beside(share, x) * (x.double() - mean)).to(x.dtype)

    def score(self, x: Num[Tensor, "B *event"], sigma: Levels) -> Float[Tensor, "B *event"]:
        """∇ log p_s(x; σ), (B, *event)."""
        return self.D.score(x, self._levels(x, sigma)[0])

    def log_density(self, x: Num[Tensor, "B *event"], sigma: Levels) -> Float[Tensor, " B"]:
        """log p_s(x; σ), (B,) float64, nats."""
        return self.D.posterior(x, self._levels(x, sigma)[0]).log_density

    def _levels(self, x: Tensor, sigma: Levels) -> tuple[Tensor, Tensor]:
        """√(σ² + s²) and s²/(σ² + s²) of every row, (B,) float64."""
        require_points(x, self.event)
        own = levels(sigma, len(x), x.device, graph=True)
        # The squares alone may be beyond all numbers, or 0.
        both = torch.hypot(own, torch.full_like(own, self.bandwidth))
        return both, (self.bandwidth / both).square()


class Tempered:
    """The optimum with its logits over T, a `Denoiser`: see `OptimalDenoiser.tempered`.

    Attributes:
        D: the optimum at T = 1.
        temperature: T.
        event: shape of one point.

    Raises:
        ValueError: a temperature that is not positive and finite.
    """

    def __init__(self, D: OptimalDenoiser, temperature: float):
        self.D, self.event, self.temperature = D, D.event, _number("temperature", temperature, zero=False)

    def __repr__(self) -> str:
        return f"{self.D!r}.tempered({self.temperature:g})"

    def __call__(self, x: Num[Tensor, "B *event"], sigma: Levels) -> Float[Tensor, "B *event"]:
        """D(x, σ√T), (B, *event).

        Raises:
            ValueError: as for `OptimalDenoiser`.
        """
        require_points(x, self.event)
        return self.D(x, levels(sigma, len(x), x.device, graph=True) * math.sqrt(self.temperature))


def _number(name: str, value: float, *, zero: bool) -> float:
    if not is_number(value):
        raise ValueError(f"{name} must be a number, got {value!r}")
    number = float(value)
    if not (0 < number < math.inf or (zero and number == 0)):
        raise ValueError(f"{name} must be finite and {'not negative' if zero else 'positive'}, got {number:g}")
    return number
