"""One point, and two: the flow of two keeps F along the line through them, and is odd to the last bit."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from ..randomness import generator_of
from .base import Exact, point
from .transport import log_normal, transport

__all__ = ["OnePoint", "TwoPoint"]


class OnePoint(Exact):
    """All mass on y: D(x, σ) = y, and the flow is the straight line y + (σ'/σ)(x − y).

    Args:
        y: (*event), at least one axis.

    Raises:
        ValueError: y without an axis, empty or not finite.

    Example:
        >>> D = OnePoint(torch.tensor([1.0, 2.0]))
        >>> D.flow(torch.tensor([[5.0, 2.0]]), 4.0, 1.0)
        tensor([[2., 2.]])
    """

    def __init__(self, y: Tensor):
        self._y, self.event = point("y", y)

    def sample(self, n: int, generator: torch.Generator | None = None) -> Float[Tensor, "n *event"]:
        return self._y.to(generator_of(generator).device).expand(n, -1).reshape(n, *self.event).clone()

    def _mean(self, z: Tensor, sigma: Tensor) -> Tensor:
        return self._y.to(z).expand_as(z).clone()

    def _log_density(self, z: Tensor, sigma: Tensor) -> Tensor:
        return log_normal(z - self._y.to(z), sigma)

    def _flow(self, z: Tensor, sigma: Tensor, end: Tensor) -> Tensor:
        y = self._y.to(z)
        return y + end / sigma * (z - y)


class TwoPoint(Exact):
    """Half the mass on m + d, half on m − d: D(x, σ) = m + d tanh(⟨x − m, d⟩/σ²).

    Across d the flow is a straight line, x − m scales by σ'/σ. Along d, with a = ⟨x − m, d⟩/δ and δ = ‖d‖, it keeps

        F(a; σ) = ½ Φ((a + δ)/σ) + ½ Φ((a − δ)/σ),

    and ends at σ = 0 on m + d where a > 0, on m − d where a < 0; a = 0, the separatrix, stays 0.

    Args:
        m: (*event), the middle, at least one axis.
        d: (*event), from the middle to a point.

    Raises:
        ValueError: m without an axis, empty or not finite; d of another shape, zero or not finite.

    Example:
        >>> D = TwoPoint(torch.zeros(2), torch.tensor([1.0, 0.0]))
        >>> D(torch.tensor([[0.5, 3.0]]), 1.0)              # tanh(0.5)
        tensor([[0.4621, 0.0000]])
        >>> D.flow(torch.tensor([[0.5, 3.0]]), 1.0, 0.0)
        tensor([[1., 0.]])
    """

    def __init__(self, m: Tensor, d: Tensor):
        (self._m, self.event), (self._d, event) = point("m", m), point("d", d)
        if event != self.event:
            raise ValueError(f"d must have the shape of m, {self.event}, got {event}")
        self._delta = float(self._d.norm())
        if self._delta == 0:
            raise ValueError("d must not be zero: the two points would be one")

    def sample(self, n: int, generator: torch.Generator | None = None) -> Float[Tensor, "n *event"]:
        generator = generator_of(generator)
        side = 2 * torch.randint(0, 2, (n, 1), generator=generator, device=generator.device).double() - 1
        return (self._m.to(side) + side * self._d.to(side)).reshape(n, *self.event)

    def _mean(self, z: Tensor, sigma: Tensor) -> Tensor:
        m, d = self._m.to(z), self._d.to(z)
        return m + d * torch.tanh(((z - m) @ d)[:, None] / sigma.square())

    def _log_density(self, z: Tensor, sigma: Tensor) -> Tensor:
        m, d = self._m.to(z), self._d.to(z)
        halves = [log_normal(z - m - d, sigma), log_normal(z - m + d, sigma)]
        return torch.stack(halves).logsumexp(0) - math.log(2)

    def _flow(self, z: Tensor, sigma: Tensor, end: Tensor) -> Tensor:
        m, d, delta = self._m.to(z), self._d.to(z), self._delta
        a = (z - m) @ d / delta
        across = z - m - (a / delta)[:, None] * d
        centres = z.new_tensor([-delta, delta])
        halves = torch.full_like(centres, 0.5).log()
        # Solved for |a|, the flow is odd to the last bit. A tie, a = 0, goes to the lower side: clamped, it stays.
        size = transport(a.abs(), centres, halves, sigma.expand(-1, 2), end.expand(-1, 2)).clamp_min(0)
        return m + end / sigma * across + (size.copysign(a) / delta)[:, None] * d
