"""The likelihood of a few points under a network, beside the optimum's: bits for each value, with intervals.

At x = x0 + σ ε, σ the lowest level of the network, by `neural.log_density` with one probe a point and a tolerance of
1e-3: against 1e-5 that moved the mean of 16 points by 0.0001 bits (digits) and 0.011 bits (five deltas), where the
intervals are 0.08 and 1.1 wide.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from optimal import OptimalDenoiser
from optimal.draws import Data, draw_indexed
from optimal.intervals import Interval, mean_interval
from optimal.query import Levels
from optimal.randomness import stream

from ..likelihood import log_density
from ..model import Model

__all__ = ["CALLS", "Density", "density"]

CALLS = 600
"""Of a network, for each point: about 150 evaluations, each with its derivative as long as four calls."""
_MOST = 600
"""Evaluations after which a flow is given up: four times as many, so that the time that was said holds."""
_TOLERANCE = 1e-3
_GREY = 2 / 255
"""One of 256 grey levels."""


@dataclass(frozen=True)
class Density:
    """Mean bits for each value.

    Attributes:
        on: "data" or "held-out".
        points: how many.
        sigma: noise level at which the density is taken.
        step: width of the bins that bits are counted in: a grey level of images, else 1.
        bits, exact: of the network and of the optimum, () each.
    """

    on: str
    points: int
    sigma: float
    step: float
    bits: Interval
    exact: Interval

    def row(self) -> dict[str, Any]:
        """Flat, plain numbers."""
        about: dict[str, Any] = {"on": self.on, "points": self.points, "sigma": self.sigma, "step": self.step}
        return about | self.bits.flat("bits") | self.exact.flat("optimum_bits")


def density(
    model: Model, D: OptimalDenoiser, source: Data | None, on: str, *, points: int, seed: int, level: float
) -> Density:
    """Of points drawn from the data, or from `source`; of others than `measure` draws.

    Raises:
        ValueError: the network's flow cannot be followed, or only in more than 600 evaluations.
    """
    _, x0, eps = draw_indexed(D, source, points, stream(seed, "evaluation", 1))
    sigma, step = max(model.sigma_min, 0.002), _GREY if D.points.bytes else 1.0
    calls = itertools.count(1)

    def counted(x: Tensor, level: Levels) -> Tensor:
        if next(calls) > _MOST:
            raise ValueError(f"the density of {on} points took more than {_MOST} evaluations: its flow is too steep")
        return model(x, level)

    found = log_density(
        counted,
        x0 + sigma * eps,
        D,
        sigma_min=sigma,
        sigma_max=min(model.sigma_max, 80.0),
        tolerance=_TOLERANCE,
        step=step,
        seed=seed,
    )
    return Density(on, points, sigma, step, mean_interval(found.bits, level), mean_interval(found.exact_bits, level))
