"""What `python -m optimal schedule` asks: a grid made for the data, what it reaches, and EDM's beside it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from ..datasets import Dataset
from ..denoiser import OptimalDenoiser
from ..samplers import GaussianStart, Solver
from ..schedule import karras
from ..schedules import Objective, Starts, design, start_level, starts_of, wrong_landings
from ..theories import Wiener
from .answers import solver_on
from .estimate import Say, announce, seconds_of_a_call, seconds_of_the_axes
from .room import require_room, require_single

__all__ = ["expected_schedule", "scheduled"]

_FLOW_CALLS = 80
_TRIED = 150
"""Grids that "landings" tries, about."""
_CURVE_CALLS = 96
_EDM_LOW = 0.002 / 80
"""EDM's last level above 0, of its first."""


def expected_schedule(data: Dataset, n: int, objective: Objective, starts: int, judged: int) -> float:
    """Seconds that `scheduled` will take, about."""
    calls = judged * (_FLOW_CALLS + 4 * n)
    if objective == "landings":
        calls += starts * (_FLOW_CALLS + _TRIED * n)
    elif objective != "gaussian":
        calls += _CURVE_CALLS * min(starts, 128)
    axes = seconds_of_the_axes(OptimalDenoiser(data)) if objective == "gaussian" else 0.0
    return axes + seconds_of_a_call(len(data), math.prod(data.event), calls)


def scheduled(
    data: Dataset,
    n: int,
    solver: str,
    objective: Objective,
    *,
    options: Mapping[str, Any],
    sigma_max: float | None,
    gaussian_start: bool,
    starts: int,
    judged: int,
    seed: int,
    say: Say,
) -> dict[str, Any]:
    """The grid, and the share of wrong landings on it and on EDM's, each on the same `judged` other starts.

    `designed` and `edm` hold the share, its 95% interval and the calls; None for solvers that draw noise, whose ends
    are no function of the start. `design` holds those of the starts that landings were designed on, too low for others.
    """
    if judged < 1:
        raise ValueError(f"judged must be at least 1, got {judged}")
    for name, count in (("starts", starts), ("judged", judged)):
        require_room(name, count, math.prod(data.event))
    require_room("n", n)
    D = OptimalDenoiser(data)
    high = start_level(D) if sigma_max is None else sigma_max
    require_single("sigma_max", high)
    announce(expected_schedule(data, n, objective, starts, judged), say)
    plain = solver_on(karras(n, sigma_min=high * _EDM_LOW, sigma_max=high), solver, options)
    used: Solver = plain
    if gaussian_start:
        if objective != "landings":
            raise ValueError(f"--gaussian-start begins where its landings are best: {objective} takes none")
        used = GaussianStart(Wiener(D, progress=True), plain)
    sigmas = design(D, n, objective, used, sigma_max=high, starts=starts, seed=seed, progress=True)
    found: dict[str, Any] = {
        "objective": objective,
        "solver": solver,
        "n": n,
        "sigma_max": high,
        "gaussian_start": gaussian_start,
        "seed": seed,
        "starts": starts,
        "sigmas": sigmas.tolist(),
        "designed": None,
        "edm": None,
    }
    if plain.draws(max(n, 2)):
        return found
    others = starts_of(D, judged, seed, sigma_max=high, progress=True)
    found["judged"] = len(others)
    found["undecided"] = others.undecided
    found["designed"] = _reached(others, sigmas, used)
    found["edm"] = _reached(others, karras(n, sigma_min=high * _EDM_LOW, sigma_max=high), plain)
    if objective == "landings":
        found["design"] = _reached(starts_of(D, starts, seed, purpose="design", sigma_max=high), sigmas, used)
    return found


def _reached(starts: Starts, sigmas: Tensor, solver: Solver) -> dict[str, float]:
    landed = wrong_landings(starts, sigmas, solver=solver)
    low, high = landed.interval()
    return {"wrong": landed.share, "low": low, "high": high, "nfe": landed.nfe}
