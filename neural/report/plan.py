"""How much a report measures, and how long that takes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch

from optimal import Dataset, Guided, OptimalDenoiser
from optimal.cli import seconds_of_a_row
from optimal.cli.estimate import LANDING_ROWS, around, seconds_of_the_border
from optimal.devices import require_room
from optimal.query import Levels
from optimal.randomness import fixed_generator

from ..measuring import default_sigmas
from ..model import Model
from ..named import as_meant, own_pairs
from ..places import STEPS
from .densities import CALLS

__all__ = ["Effort", "Plan", "has_density", "seconds_of"]

_RANGE = (0.01, 100.0)
"""In whose middle calls are timed."""
_SANITY = 128


@dataclass(frozen=True)
class Effort:
    """How much is drawn.

    Attributes:
        draws: pairs (x0, ε) at every noise level, and trajectories.
        samples: of every network.
        border_draws: of the border; as `optimal.border.default_draws` says unless given.
        likelihood: points whose likelihood is found, each of the data and of held-out ones; 0 for none.
    """

    draws: int = 1024
    samples: int = 256
    border_draws: int | None = None
    likelihood: int = 16

    def __post_init__(self) -> None:
        if self.draws < 2 or self.samples < 1:
            raise ValueError(f"draws must be at least 2 and samples 1, got {self.draws} and {self.samples}")


@dataclass(frozen=True)
class Plan:
    """What is asked for; the words are those of `neural.report.study.study`."""

    held_out: Dataset | None = None
    sigmas: Levels | None = None
    steps: int | None = None
    effort: Effort = field(default_factory=Effort)
    seed: int = 0
    level: float = 0.95

    def __post_init__(self) -> None:
        require_room("steps", self.steps or 1)


def has_density(model: Model) -> bool:
    """Whether there is a likelihood of its own: not of the optimum, nor of students, whose answers are no means, nor
    of guided networks, whose answers are means of nothing."""
    return model.meant is None and not isinstance(model.denoiser, OptimalDenoiser | Guided)


def seconds_of(models: Sequence[Model], D: OptimalDenoiser, plan: Plan) -> tuple[float, float]:
    """What all of it will take, but for the likelihood, and what that would; by timing a few rows.

    Raises:
        ValueError: more than fits into memory.
    """
    effort, held_out = plan.effort, plan.held_out is not None
    levels = len(default_sigmas(D, 1.0)) if plan.sigmas is None else torch.as_tensor(plan.sigmas).numel()
    places, dim = 3 if held_out else 2, math.prod(D.event)
    # x0, ε, x and both answers; starts, states in float64 and ends.
    require_room("draws", effort.draws, 5 * dim)
    require_room("n", effort.samples, 4 * dim)
    unit = torch.randn((effort.draws, *D.event), generator=fixed_generator("queries"), dtype=torch.float32)
    unit = unit.to(D.points.device)
    (x, middle), *_ = around(D, effort.draws, [math.sqrt(_RANGE[0] * _RANGE[1])])
    optimum = seconds_of_a_row(D.posterior, x, middle)
    total, likelihood = seconds_of_the_border(D, effort.border_draws), 0.0
    for model in models:
        middle = math.sqrt(max(model.sigma_min, _RANGE[0]) * min(model.sigma_max, _RANGE[1]))
        own = seconds_of_a_row(model, middle * unit[: model.batch], middle)
        calls = (places - 1) * levels * effort.draws + 2 * (STEPS + levels) * effort.draws + _SANITY
        nfe = 2 * len(as_meant(model, plan.steps, 0)[1]["sigmas"])
        # The audit looks twice, at the sample and at its mirror image.
        total += own * (calls + nfe * effort.samples) + optimum * (places * levels * effort.draws + 2 * effort.samples)
        if own_pairs(model) is not None:
            total += (2 * own + LANDING_ROWS * optimum) * effort.samples
        if has_density(model):
            likelihood += own * CALLS * effort.likelihood * (places - 1)
    return total, likelihood
