"""Denoisers in time whose schedule is a function of it, as azula's are."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from optimal.query import beside

from .adapted import Adapted
from .asked import Asked, Order
from .clipping import Given, clip_of
from .ranges import OURS, Values

__all__ = ["Timed", "from_times"]

_HALVINGS = 60


def from_times(
    network: Callable[..., Any],
    schedule: Callable[[Tensor], tuple[Tensor, Tensor]],
    *,
    order: Order = "xt",
    value_range: Values = OURS,
    clip: Given = None,
    **arguments: Any,
) -> Timed:
    """A denoiser net(x_t, t) -> x0_hat, x_t = signal(t) x0 + noise(t) eps, t in [0, 1].

    Args:
        network: net(x_t, t): x_t (B, *event), t (B,) -> x0_hat (B, *event), or an output with a `mean`, as azula's.
        schedule: t -> (signal, noise), with noise/signal rising from t = 0 to 1.
        order: "tx" for net(t, x_t).
        value_range: the values of the network's images where ours have [−1, 1], see `neural.adapters.ranges`.
        clip: x0_hat is cut at ±clip, or (low, high); None for not at all.
        **arguments: given to net at every call.

    Raises:
        ValueError: a schedule whose noise does not rise; in calls, what `Adapted` raises.

    Example:
        >>> F = from_times(lambda x_t, t: x_t, lambda t: (1 - 0.99 * t, t + 1e-3))
        >>> round(float(F(torch.ones(1, 2), 1.0)[0, 0]), 4)                    # signal(t) where that is noise(t)
        0.503
    """
    return Timed(Asked(network, arguments, order=order), schedule, clip=clip).of_values(value_range)


class Timed(Adapted):
    """What `from_times` makes."""

    def __init__(self, asked: Asked, schedule: Callable[[Tensor], tuple[Tensor, Tensor]], *, clip: Given = None):
        super().__init__(asked, clip_of(clip))
        self._schedule = schedule
        ends = self._level(torch.linspace(0, 1, 5, dtype=torch.float64, device=torch.device("cpu")))
        if not bool((ends.diff() > 0).all()):
            raise ValueError(
                f"noise(t)/signal(t) must rise from t = 0 to 1, got {[f'{v:.3g}' for v in ends.exp().tolist()]}"
            )
        self.sigma_min, self.sigma_max = math.exp(float(ends[0])), math.exp(float(ends[-1]))

    def _level(self, t: Tensor) -> Tensor:
        """ln σ."""
        signal, noise = self._schedule(t)
        return noise.double().log() - torch.as_tensor(signal, dtype=torch.float64).log()

    def _time(self, sigma: Tensor) -> Tensor:
        low, high, aim = torch.zeros_like(sigma), torch.ones_like(sigma), sigma.log()
        for _ in range(_HALVINGS):
            middle = (low + high) / 2
            above = self._level(middle) > aim
            low, high = torch.where(above, low, middle), torch.where(above, middle, high)
        return (low + high) / 2

    def _denoised(self, x: Tensor, sigma: Tensor, dtype: torch.dtype, arguments: dict[str, Any]) -> Tensor:
        t = self._time(sigma)
        signal = torch.as_tensor(self._schedule(t)[0], dtype=torch.float64, device=x.device)
        return self.asked(beside(signal, x) * x.double(), t, dtype, **arguments)
