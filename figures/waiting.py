"""How long a figure will take, said before it begins: by what it took on two cores and how much slower this machine is,
or of other data from how much it asks of the optimum, of which some rows are timed."""

from __future__ import annotations

import math
from types import ModuleType

from optimal import OptimalDenoiser
from optimal.cli.estimate import pace_of_the_optimum, seconds_of_the_axes, slowness
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
"""Of a full run on the figures' own data, with networks that are there, on two cores where `slowness` is 1."""
_LOOK = 0.3
"""Of that, about, for a quick look."""
_SPAN = {"steps", "grids", "prop4", "distilled"}
"""These take few points of many values in coordinates of their span, as they are timed, whose axes they find first."""
_TOGETHER = 256
"""Rows that are asked at once, about."""


def seconds(name: str, module: ModuleType, config: Config) -> float:
    """What a figure takes, about."""
    if config.dataset is None or not hasattr(module, "rows"):
        alone = _OWN.get(name, 0.0) * (_LOOK if config.quick else 1.0)
        return alone * slowness() if alone else 0.0
    data = config.load("digits")
    D = OptimalDenoiser(data)
    rows = module.rows(config.quick, len(data) * math.prod(data.event))
    axes = seconds_of_the_axes(D) * slowness() if name in _SPAN and are_few(D) else 0.0
    return _START + axes + pace_of_the_optimum(D, _TOGETHER, span=name in _SPAN).seconds(rows, rows / _TOGETHER)
