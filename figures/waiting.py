"""How long a figure will take, said before it begins: on two cores, from how much it asks of the optimum."""

from __future__ import annotations

import math
from types import ModuleType

from optimal import OptimalDenoiser
from optimal.cli.estimate import seconds_of_a_call, seconds_of_the_axes
from optimal.span import are_few

from .config import Config

__all__ = ["seconds"]

_START = 6.0
"""Of drawing, and of what does not depend on the data."""
_OWN = {
    "fig1": 25.0,
    "border": 100.0,
    "trajectories": 20.0,
    "steps": 60.0,
    "schedules": 150.0,
    "distilled": 25.0,
    "prop4": 80.0,
    "grids": 35.0,
    "trained": 60.0,
    "generalise": 3.0,
    "students": 40.0,
    "difficulty": 3.0,
    "samples": 20.0,
    "fewstep": 60.0,
    "guidance": 90.0,
    "measurements": 40.0,
    "theories": 3.0,
}
"""Of a full run on the figures' own data, with networks that are there."""
_LOOK = 0.3
"""Of that, about, for a quick look."""
_SPAN = {"steps", "grids", "prop4", "distilled"}
"""Few points of many values are taken by these in coordinates of their span, in float64: as half as many values."""


def seconds(name: str, module: ModuleType, config: Config) -> float:
    """What a figure takes, about."""
    if config.dataset is None or not hasattr(module, "rows"):
        return _OWN.get(name, 0.0) * (_LOOK if config.quick else 1.0)
    data = config.load("digits")
    D, size, dim = OptimalDenoiser(data), len(data), math.prod(data.event)
    rows, axes = round(module.rows(config.quick, size * dim)), 0.0
    if name in _SPAN and are_few(D):
        dim, axes = 2 * size, seconds_of_the_axes(D)
    return _START + axes + seconds_of_a_call(size, dim, rows)
