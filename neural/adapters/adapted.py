"""What every adapter makes: a `Denoiser` around a network, which checks what it is asked and clips what it answers."""

from __future__ import annotations

import copy
import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, Self

import torch
from torch import Tensor

from optimal.query import Levels, levels, require_points

from .asked import Asked
from .clipping import Clip, Given, clip_of
from .ranges import OURS, Scaled, Values, values_of

__all__ = ["Adapted"]


class Adapted(ABC):
    """(x, sigma, **arguments) -> x0_hat; a leaf says what the network is asked and what follows from its answer.

    Attributes:
        asked: the network.
        sigma_min, sigma_max: noise levels that it can be asked at; 0 and inf where nothing limits them.
        event: the shape of its points, None where it does not say so; x of another one is refused.
        values: (c, h) of the values that its network was trained on, see `neural.adapters.ranges`.
        clip: what is done to x0_hat, in our values.
        grid: steps -> (steps + 1,) levels that its scheduler takes; None where there is none.
        jumps: whether it is a consistency function, which answers with a point where the flow ends, not with a mean.
    """

    sigma_min: float = 0.0
    sigma_max: float = math.inf
    jumps: bool = False
    grid: Callable[[int], Tensor] | None = None

    def __init__(self, asked: Asked, clip: Clip | None = None):
        self.asked, self.clip, self.event = asked, clip, asked.event
        self.values = values_of(OURS)

    def __call__(self, x: Tensor, sigma: Levels, **arguments: Any) -> Tensor:
        """x0_hat, (B, *event), in the dtype and on the device of x.

        Args:
            x: (B, *event) noisy points.
            sigma: noise level, > 0: float, () or (B,).
            **arguments: of the network, in this call; class_labels are one or one a row.

        Raises:
            ValueError: x not floating point or of another event, a level outside the range, and what
                `neural.adapters.asked.ask` says of a network that fails.
        """
        require_points(x)
        if self.event is not None and tuple(x.shape[1:]) != self.event:
            raise ValueError(
                f"the network is made for points of shape {self.event}, x has {tuple(x.shape[1:])} (event=, or "
                ".at(event), asks it there)"
            )
        values = levels(sigma, len(x), x.device)
        outside = (values < self.sigma_min * (1 - 1e-6)) | (values > self.sigma_max * (1 + 1e-6))
        if outside.any():
            raise ValueError(
                f"sigma must lie between {self.sigma_min:g} and {self.sigma_max:g}, the range of the network, got "
                f"{float(values[outside][0]):g}"
            )
        centre, half = self.values
        if (centre, half) == values_of(OURS):
            x0 = self._denoised(x, values, x.dtype, arguments)
        else:
            theirs = self._denoised(centre + half * x.double(), half * values, x.dtype, arguments)
            x0 = (theirs.to(torch.float64) - centre) / half
        return (x0 if self.clip is None else self.clip(x0)).to(x)

    def at(self, event: tuple[int, ...]) -> Self:
        """The same, asked at points of another shape than its network says."""
        found = copy.copy(self)
        found.event = tuple(event)
        return found

    def clipped(self, clip: Given) -> Self:
        """The same, with x0_hat cut otherwise: at ±clip, (low, high), or not at all."""
        found = copy.copy(self)
        found.clip = clip_of(clip)
        return found

    def of_values(self, value_range: Values) -> Self:
        """The same, of a network trained on images with values in (low, high); its levels and x stay in ours.

        Raises:
            ValueError: no rising range.
        """
        found = copy.copy(self)
        found.values = values_of(value_range)
        by = found.values[1] / self.values[1]
        found.sigma_min, found.sigma_max = self.sigma_min / by, self.sigma_max / by
        found.grid = None if self.grid is None else Scaled(self.grid, by)
        return found

    @abstractmethod
    def _denoised(self, x: Tensor, sigma: Tensor, dtype: torch.dtype, arguments: dict[str, Any]) -> Tensor:
        """x0_hat, unclipped, of x and sigma (B,) float64 in the network's values; functions are given x in dtype."""
