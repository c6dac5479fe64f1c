"""What all references share: the public methods, which check and flatten, and how parameters are taken."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import torch
from jaxtyping import Float, Num
from torch import Tensor

from ..query import Levels, levels, require_finite, require_points

__all__ = ["Exact", "parameter", "point"]


class Exact(ABC):
    """The public methods: they check, flatten, and leave the formulas to z (B, dim) and sigma (B, 1) in float64.

    Attributes:
        event: shape of one point.
    """

    event: tuple[int, ...]

    def __call__(self, x: Num[Tensor, "B *event"], sigma: Levels) -> Float[Tensor, "B *event"]:
        """E[x0 | x], (B, *event).

        Args:
            x: (B, *event) noisy points.
            sigma: noise level, > 0: float, () or (B,).

        Raises:
            ValueError: sigma not finite, not positive or of another shape; x of another event shape or not finite.
        """
        return _like(self._mean(*_checked(x, sigma, self.event)), x)

    def score(self, x: Num[Tensor, "B *event"], sigma: Levels) -> Float[Tensor, "B *event"]:
        """∇ log p(x; σ) = (D − x)/σ² (Prop. 2), (B, *event)."""
        return _like(self._score(*_checked(x, sigma, self.event)), x)

    def log_density(self, x: Num[Tensor, "B *event"], sigma: Levels) -> Float[Tensor, " B"]:
        """log p(x; σ) in nats, (B,) float64."""
        return self._log_density(*_checked(x, sigma, self.event))

    def flow(self, x: Num[Tensor, "B *event"], sigma: Levels, sigma_end: Levels) -> Float[Tensor, "B *event"]:
        """Where the probability-flow ODE takes x from sigma to sigma_end, (B, *event), without gradients.

        Args:
            x: (B, *event) noisy points.
            sigma: noise level of x, > 0: float, () or (B,).
            sigma_end: noise level of the result, >= 0, below or above sigma: float, () or (B,).

        Raises:
            ValueError: as for a call; sigma_end not finite, negative or of another shape; no closed form is known (a
                mixture of events of more than one value).
        """
        z, start = _checked(x, sigma, self.event)
        end = levels(sigma_end, len(x), x.device, zero=True, name="sigma_end")[:, None]
        return _like(self._flow(z.detach(), start.detach(), end), x)

    @abstractmethod
    def sample(self, n: int, generator: torch.Generator | None = None) -> Float[Tensor, "n *event"]:
        """n clean points x0, (n, *event) float64, on the generator's device; without one, a fixed seed on the CPU's."""

    @abstractmethod
    def _mean(self, z: Tensor, sigma: Tensor) -> Tensor: ...

    @abstractmethod
    def _log_density(self, z: Tensor, sigma: Tensor) -> Tensor: ...

    @abstractmethod
    def _flow(self, z: Tensor, sigma: Tensor, end: Tensor) -> Tensor: ...

    def _score(self, z: Tensor, sigma: Tensor) -> Tensor:
        return (self._mean(z, sigma) - z) / sigma.square()


def parameter(name: str, value: Any) -> Tensor:
    """A float64 copy on the CPU that no later change of `value` reaches."""
    copy = torch.as_tensor(value, dtype=torch.float64, device="cpu").detach().clone()
    finite = torch.isfinite(copy)
    if not finite.all():
        raise ValueError(f"{name} must be finite, got {float(copy[~finite][0])}")
    return copy


def point(name: str, value: Any) -> tuple[Tensor, tuple[int, ...]]:
    """A parameter with axes: its values, (dim,), and its shape."""
    point = parameter(name, value)
    if point.ndim == 0 or point.numel() == 0:
        raise ValueError(f"{name} must have at least one axis and one value, got shape {tuple(point.shape)}")
    return point.flatten(), tuple(point.shape)


def _checked(x: Tensor, sigma: Levels, event: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """x as (B, dim) and sigma as (B, 1), both float64, with their graphs."""
    require_points(x, event)
    sigmas = levels(sigma, len(x), x.device, graph=True)
    z = x.flatten(1).double()
    require_finite(z)
    return z, sigmas[:, None]


def _like(z: Tensor, x: Tensor) -> Tensor:
    """z in the shape and dtype of x."""
    return z.reshape(x.shape).to(x.dtype)
