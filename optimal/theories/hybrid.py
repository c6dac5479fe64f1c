"""Two denoisers, one above a noise level and the other from there down.

With the optimum above and a network below it shows where a sample is decided: as long as the optimum leads for σ > s
only, with s far above the border, samples are the network's; with s near it, they are the training point that the
optimum would have ended on. The other way round, the network above and the optimum below, every sample is a training
point, and which one is the network's choice.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float, Num
from torch import Tensor

from ..denoiser import Denoiser
from ..numbers import is_number
from ..query import Levels, levels, require_points

__all__ = ["Switch", "switch"]


class Switch:
    """first for σ > s, second for σ <= s, a `Denoiser`; made by `switch`.

    Attributes:
        first, second: the denoisers.
        sigma: s.
        event: shape of a point, where either says it; else None.
        sigma_min, sigma_max: the noise levels that it takes: down to those of `second`, up to those of `first`.
    """

    def __init__(self, first: Denoiser, second: Denoiser, sigma: float):
        if not is_number(sigma) or not 0 <= sigma <= math.inf:
            raise ValueError(f"the level at which denoisers change must be a number and not negative, got {sigma!r}")
        self.first, self.second, self.sigma = first, second, float(sigma)
        events = [tuple(event) for D in (first, second) if (event := getattr(D, "event", None)) is not None]
        if len(set(events)) > 1:
            raise ValueError(f"both denoisers must be of points of one shape, got {events[0]} and {events[1]}")
        self.event: tuple[int, ...] | None = events[0] if events else None
        self.sigma_min = float(getattr(second, "sigma_min", 0.0))
        self.sigma_max = float(getattr(first, "sigma_max", math.inf))

    def __repr__(self) -> str:
        return f"Switch({self.first!r}, {self.second!r}, sigma={self.sigma:g})"

    def __call__(self, x: Num[Tensor, "B *event"], sigma: Levels) -> Float[Tensor, "B *event"]:
        """Each row from the denoiser of its level, to the bit; a denoiser that no row needs is not asked.

        Raises:
            ValueError: what either denoiser refuses.
        """
        require_points(x, self.event)
        sigmas = levels(sigma, len(x), x.device, graph=True)
        high = sigmas > self.sigma
        if high.all():
            return self.first(x, sigmas)
        if not high.any():
            return self.second(x, sigmas)
        places = torch.cat([high.nonzero(), (~high).nonzero()]).squeeze(1)
        above, below = (D(x[rows], sigmas[rows]) for D, rows in ((self.first, high), (self.second, ~high)))
        return torch.cat([above, below])[places.argsort()]


def switch(first: Denoiser, second: Denoiser, sigma: float) -> Switch:
    """The hybrid of two denoisers: `first` at noise levels above `sigma`, `second` from there down.

    Args:
        first, second: any denoisers, of the same points: optimum, theory, network.
        sigma: s; inf is `second` alone, 0 is `first` alone.

    Raises:
        ValueError: denoisers of points of different shapes; a level that is negative or nan.

    References:
        Bertrand, Gagneux, Massias, Emonet 2025, "On the Closed-Form of Flow Matching": the exact velocity up to their
        time τ, σ > (1 − τ)/τ, then the network.

    Example:
        >>> from optimal import OptimalDenoiser
        >>> low, high = OptimalDenoiser(torch.tensor([[1.0]])), OptimalDenoiser(torch.tensor([[5.0]]))
        >>> switch(high, low, sigma=2.0)(torch.zeros(3, 1), torch.tensor([0.5, 2.0, 80.0])).flatten()
        tensor([1., 1., 5.])
    """
    return Switch(first, second, sigma)
