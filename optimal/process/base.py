"""What a process is: scale, sigma, f, g, their derivatives and inverses, with times and levels checked once."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor

__all__ = ["Process"]


class Process(ABC):
    """dx_t = f(t) x_t dt + g(t) dw, with the moments of p(x_t | x0) and their inverses.

    Times are checked once, here; a leaf gives `_f _g _scale _sigma _time` for float64 tensors inside the range, and
    what else it knows in closed form.

    Attributes:
        t_max: the last time, where the noise is largest.
    """

    t_max: float = 1.0

    def f(self, t: float | Tensor) -> Tensor:
        """Drift per unit of x_t, d log scale/dt; like every method of t, ValueError outside [0, t_max]."""
        return self._f(self._checked(t))

    def g(self, t: float | Tensor) -> Tensor:
        """Diffusion, √(2 scale² sigma dsigma/dt)."""
        return self._g(self._checked(t))

    def scale(self, t: float | Tensor) -> Tensor:
        """Signal scale: E[x_t | x0] = scale x0."""
        return self._scale(self._checked(t))

    def sigma(self, t: float | Tensor) -> Tensor:
        """Noise level of x = x_t/scale, std/scale."""
        return self._sigma(self._checked(t))

    def std(self, t: float | Tensor) -> Tensor:
        """Standard deviation of a coordinate of x_t given x0, scale·sigma."""
        return self._std(self._checked(t))

    def scale_dot(self, t: float | Tensor) -> Tensor:
        """dscale/dt."""
        return self._scale_dot(self._checked(t))

    def sigma_dot(self, t: float | Tensor) -> Tensor:
        """dsigma/dt; inf at t = 0 where g(0) > 0."""
        return self._sigma_dot(self._checked(t))

    def time(self, sigma: float | Tensor) -> Tensor:
        """The t at which the noise level is sigma; time(0) = 0.

        Raises:
            ValueError: sigma negative, nan or above sigma(t_max).
        """
        levels = self._checked_level(sigma)
        return torch.where(levels == 0, 0.0, self._time(levels).clamp(0, self.t_max))

    def time_of_scale(self, scale: float | Tensor) -> Tensor:
        """The t at which the signal scale is `scale`.

        Raises:
            ValueError: scale outside its range, or a process whose scale is 1 throughout.
        """
        scales = _float64(scale)
        low, high = sorted((1.0, float(self.scale(self.t_max))))
        if low == high:
            raise ValueError(f"the scale of {type(self).__name__} is 1 throughout, so no time follows from it")
        outside = ~((scales >= low) & (scales <= high))
        if outside.any():
            raise ValueError(f"scale must lie in [{low:.10g}, {high:.10g}], got {_first(scales, outside)}")
        return torch.where(scales == 1, 0.0, self._time_of_scale(scales).clamp(0, self.t_max))

    def scale_at(self, sigma: float | Tensor) -> Tensor:
        """The signal scale at noise level sigma, scale(time(sigma))."""
        return self._scale_at(self._checked_level(sigma))

    @abstractmethod
    def _f(self, t: Tensor) -> Tensor: ...

    @abstractmethod
    def _g(self, t: Tensor) -> Tensor: ...

    @abstractmethod
    def _scale(self, t: Tensor) -> Tensor: ...

    @abstractmethod
    def _sigma(self, t: Tensor) -> Tensor: ...

    @abstractmethod
    def _time(self, sigma: Tensor) -> Tensor: ...

    def _time_of_scale(self, scale: Tensor) -> Tensor:
        raise NotImplementedError(f"{type(self).__name__} gives no time of its scale")

    def _scale_at(self, sigma: Tensor) -> Tensor:
        return self._scale(self.time(sigma))

    def _std(self, t: Tensor) -> Tensor:
        return self._scale(t) * self._sigma(t)

    def _scale_dot(self, t: Tensor) -> Tensor:
        return self._f(t) * self._scale(t)

    def _sigma_dot(self, t: Tensor) -> Tensor:
        return (self._g(t) / self._scale(t)).square() / (2 * self._sigma(t))

    def _checked(self, t: float | Tensor) -> Tensor:
        times = _float64(t)
        outside = ~((times >= 0) & (times <= self.t_max))
        if outside.any():
            raise ValueError(f"t must lie in [0, {self.t_max:g}], got {_first(times, outside)}")
        return times

    def _checked_level(self, sigma: float | Tensor) -> Tensor:
        levels = _float64(sigma)
        largest = float(self.sigma(self.t_max))
        outside = ~((levels >= 0) & (levels <= largest))
        if outside.any():
            raise ValueError(
                f"sigma must lie between 0 and sigma(t_max) = {largest:.10g}, got {_first(levels, outside)}"
            )
        return levels


def _float64(values: float | Tensor) -> Tensor:
    """A tensor where it is, numbers on the CPU."""
    return values.double() if isinstance(values, Tensor) else torch.as_tensor(values, dtype=torch.float64, device="cpu")


def _first(values: Tensor, where: Tensor) -> str:
    return f"{float(values[where].reshape(-1)[0]):.10g}"
