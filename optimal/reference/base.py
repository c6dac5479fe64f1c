"""What all references share: the public methods, which check and flatten, and how parameters are taken."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import Any

import torch
from jaxtyping import Float, Num
from torch import Tensor

from ..query import per_row

__all__ = ["Exact", "parameter", "point"]


class Exact(ABC):
    """The public methods: they check, flatten, and leave the formulas to z (B, dim) and sigma (B, 1) in float64.

    Attributes:
        event: shape of one point.
    """

    event: tuple[int, ...]

    def __call__(self, x: Num[Tensor, "B *event"], sigma: float | Tensor) -> Float[Tensor, "B *event"]:
        """E[x0 | x], (B, *event).

        Args:
            x: (B, *event) noisy points.
            sigma: noise level, > 0: float, () or (B,).

        Raises:
            ValueError: sigma not finite, not positive or of another shape; x of another event shape or not finite.
        """
        return _like(self._mean(*_checked(x, sigma, self.event)), x)

    def score(self, x: Num[Tensor, "B *event"], sigma: float | Tensor) -> Float[Tensor, "B *event"]:
        """∇ log p(x; σ) = (D − x)/σ² (Prop. 2), (B, *event)."""
        return _like(self._score(*_checked(x, sigma, self.event)), x)

    def log_density(self, x: Num[Tensor, "B *event"], sigma: float | Tensor) -> Float[Tensor, " B"]:
        """log p(x; σ) in nats, (B,)."""
        return self._log_density(*_checked(x, sigma, self.event)).to(x.dtype)

    def flow(
        self, x: Num[Tensor, "B *event"], sigma: float | Tensor, sigma_end: float | Tensor
    ) -> Float[Tensor, "B *event"]:
        """Where the probability-flow ODE takes x from sigma to sigma_end, (B, *event), without gradients.

        Args:
            x: (B, *event) noisy points.
            sigma: noise level of x, > 0: float, () or (B,).
            sigma_end: noise level of the result, >= 0, below or above sigma: float, () or (B,).

        Raises:
            ValueError: as for a call; sigma_end not finite, negative or of another shape; no closed form is known (a
                mixture of events of more than one value).
        """
        z, levels = _checked(x.detach() if isinstance(x, Tensor) else x, sigma, self.event)
        end = per_row("sigma_end", sigma_end, len(x), x.device)[:, None]
        usable = torch.isfinite(end) & (end >= 0)
        if not usable.all():
            raise ValueError(f"sigma_end must be finite and not negative, got {float(end[~usable][0]):g}")
        return _like(self._flow(z, levels, end), x)

    @abstractmethod
    def sample(self, n: int, generator: torch.Generator) -> Float[Tensor, "n *event"]:
        """n clean points x0, (n, *event) float64, on the generator's device."""

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
    copy = torch.as_tensor(value, dtype=torch.float64).detach().cpu().clone()
    if not torch.isfinite(copy).all():
        raise ValueError(f"{name} must be finite")
    return copy


def point(name: str, value: Any) -> tuple[Tensor, tuple[int, ...]]:
    """A parameter with axes: its values, (dim,), and its shape."""
    point = parameter(name, value)
    if point.ndim == 0 or point.numel() == 0:
        raise ValueError(f"{name} must have at least one axis and one value, got shape {tuple(point.shape)}")
    return point.flatten(), tuple(point.shape)


def _checked(x: Tensor, sigma: float | Tensor, event: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """x as (B, dim), with its graph, and sigma as (B, 1), both float64."""
    if not isinstance(x, Tensor):
        raise ValueError(f"x must be a tensor, got {type(x).__name__}: torch.from_numpy makes one of an array")
    if x.ndim == 0 or tuple(x.shape[1:]) != event:
        raise ValueError(f"x must have shape (B, {', '.join(map(str, event))}), got {tuple(x.shape)}")
    if not x.dtype.is_floating_point:
        raise ValueError(f"x must be floating point, got {x.dtype}")
    levels = per_row("sigma", sigma, len(x), x.device)[:, None]
    usable = torch.isfinite(levels) & (levels > 0)
    if not usable.all():
        raise ValueError(f"sigma must be positive and finite, got {float(levels[~usable][0]):g}")
    z = x.reshape(len(x), math.prod(event)).double()
    if not torch.isfinite(z).all():
        raise ValueError(f"x must be finite, row {int((~torch.isfinite(z)).any(1).nonzero()[0])} is not")
    return z, levels


def _like(z: Tensor, x: Tensor) -> Tensor:
    """z in the shape and dtype of x."""
    return z.reshape(x.shape).to(x.dtype)
