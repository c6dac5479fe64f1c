"""The noise levels that a scheduler of diffusers takes its steps at, in our units.

What `set_timesteps(n)` chooses follows from a scheduler's configuration: leading, trailing or linspace spacing of the
steps of its table, Karras's or exponential levels, EDM's, the shift of flow matching. Here they are σ, the noise over
the signal, of n steps and a last level of 0.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .quietly import quiet

__all__ = ["Grid"]

_HIGHEST = 1e4


@dataclass(frozen=True)
class Grid:
    """steps -> (steps + 1,) float64 levels, decreasing, the last 0.

    Three things are ours. A level above the highest that the network can be asked at, that of a table or a flow without
    signal at its end, is that highest one, or 10⁴. The last level is 0, where the network's x0_hat is, also for
    schedulers that stop at their lowest level. And sampling begins at σ₀ times unit noises, as everywhere here, where
    pipelines of a table begin at √(1 + σ₀²) times them.

    Attributes:
        scheduler: left as it is.
        highest: σ that the network can be asked at.
    """

    scheduler: Any
    highest: float

    def __call__(self, steps: int) -> Tensor:
        """The levels.

        Raises:
            ValueError: a number of steps that the scheduler has not.

        Example:
            >>> from diffusers import DDIMScheduler
            >>> Grid(DDIMScheduler(timestep_spacing="trailing"), 200.0)(2).round(decimals=3)
            tensor([157.4070,   3.4240,   0.0000], dtype=torch.float64)
        """
        if steps < 1:
            raise ValueError(f"a grid needs at least 1 step, got n = {steps}")
        name = type(self.scheduler).__name__
        try:
            with quiet():
                levels = _levels(self.scheduler, name, steps)
        except (ValueError, IndexError, AssertionError, ZeroDivisionError, NotImplementedError) as error:
            reason = " ".join(str(error).split()) or type(error).__name__
            raise ValueError(f"{name} has no grid of {steps} steps: {reason}") from error
        levels = levels[levels > 0].clamp(max=min(self.highest, _HIGHEST)).unique_consecutive()
        if len(levels) < 1 or bool((levels.diff() >= 0).any()):
            raise ValueError(f"{name} has no grid of {steps} steps: its noise levels do not decrease")
        return torch.cat([levels, levels.new_zeros(1)])


def _levels(scheduler: Any, name: str, steps: int) -> Tensor:
    """σ of the steps, and of the end where the scheduler names it."""
    own = copy.deepcopy(scheduler)
    if name == "PNDMScheduler":
        # Between its first steps it asks at half steps, which are none of its own.
        own = type(scheduler).from_config(scheduler.config, skip_prk_steps=True)
    own.set_timesteps(steps)
    sigmas = getattr(own, "sigmas", None)
    if sigmas is None:
        kept = own.alphas_cumprod.double()[own.timesteps.long()].unique_consecutive()
        return ((1 - kept) / kept).sqrt()
    # Solvers that ask twice a step list their levels twice; the end is not a step.
    taken = torch.as_tensor(sigmas, dtype=torch.float64)[:-1].unique_consecutive()
    if name.startswith("FlowMatch"):
        noise = 1 - taken if own.config.get("invert_sigmas") else taken
        return noise / (1 - noise)
    return taken / (1 - taken) if own.config.get("use_flow_sigmas") else taken
