"""The noise levels of `python -m optimal sample`: EDM's (Karras et al. 2022, Eq. 5), or those that are given."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ..denoiser import OptimalDenoiser
from ..query import level_list
from ..schedule import karras
from ..schedules import start_level
from .room import require_room, require_single

__all__ = ["Grid"]

_STEPS, _LOW = 18, 0.002


class Grid(NamedTuple):
    """What was asked for; None stands for what was not.

    Attributes:
        steps: from the first level to 0.
        sigma_min, sigma_max: the last level above 0 and the first, in units of the data.
        levels: all of them, in place of these three.
    """

    steps: int | None = None
    sigma_min: float | None = None
    sigma_max: float | None = None
    levels: tuple[float, ...] | None = None

    @property
    def taken(self) -> int:
        """Steps."""
        if self.levels is None:
            return _STEPS if self.steps is None else self.steps
        return len(self.levels) - (self.levels[-1:] == (0,))

    @property
    def low(self) -> float:
        """The last level above 0."""
        if self.levels is None:
            return _LOW if self.sigma_min is None else self.sigma_min
        return self.levels[self.taken - 1]

    def over(self, D: OptimalDenoiser) -> Tensor:
        """The levels, (steps + 1,) float64, decreasing to 0.

        Raises:
            ValueError: levels that are none, or do not decrease, or are given beside what they stand for.
        """
        require_room("steps", self.taken)
        if self.levels is None:
            high = start_level(D) if self.sigma_max is None else self.sigma_max
            require_single("sigma_max", high)
            return karras(self.taken, sigma_min=self.low, sigma_max=high)
        for name in ("steps", "sigma_min", "sigma_max"):
            if getattr(self, name) is not None:
                raise ValueError(f"--levels are the grid: they take no --{name.replace('_', '-')}")
        sigmas = level_list(self.levels, zero=True, name="levels")
        sigmas = sigmas if sigmas[-1] == 0 else torch.cat([sigmas, sigmas.new_zeros(1)])
        if len(sigmas) < 2 or not bool((sigmas.diff() < 0).all()):
            raise ValueError(f"levels must decrease, above 0 but for the last, got {', '.join(map(str, self.levels))}")
        require_single("levels", float(sigmas[0]))
        return sigmas
