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
from ..span import are_few
from ..theories import Wiener
from .answers import solver_on
from .estimate import (
    LANDING_CALLS,
    LANDING_ROWS,
    Say,
    announce,
    calls_of,
    pace_of_the_optimum,
    seconds_of_the_axes,
    slowness,
)
from .room import require_room, require_single

__all__ = ["expected_schedule", "grids_tried", "scheduled"]

_FOLLOWED, _FOLLOWED_ROWS, _FOLLOWED_CALLS, _PAIRS = 64, 368, 400, 780
"""Starts that "landings" follows through many levels, what it asks for each and for all of them, and steps between the
levels, which solvers that ask twice a step ask once more."""
_CURVE_CALLS, _CURVES = 96, 128
"""Levels at which the other objectives look, and pairs (x0, ε) at each, at most."""
_EDM_LOW = 0.002 / 80
"""EDM's last level above 0, of its first."""


def expected_schedule(data: Dataset, n: int, objective: Objective, starts: int, judged: int, solver: Solver) -> float:
    """Seconds that `scheduled` will take, about: what it asks of the optimum, of which some rows are timed."""
    D = OptimalDenoiser(data)
    a_grid, few = calls_of(solver, n), min(starts, _FOLLOWED)
    rows, calls = 0, 0
    if not solver.draws(max(n, 2)):
        rows += judged * (LANDING_ROWS + 2 * a_grid)
        calls += LANDING_CALLS + 2 * a_grid
    if objective == "landings":
        between = _PAIRS if calls_of(solver, 2) > 2 else 0
        tried = grids_tried(n) * a_grid
        rows += starts * (2 * LANDING_ROWS + tried) + few * (_FOLLOWED_ROWS + between)
        calls += 2 * LANDING_CALLS + tried + _FOLLOWED_CALLS + between
    elif objective != "gaussian":
        rows, calls = rows + _CURVE_CALLS * min(starts, _CURVES), calls + _CURVE_CALLS
    axes = seconds_of_the_axes(D) if objective == "gaussian" or are_few(D) else 0.0
    return slowness() * axes + pace_of_the_optimum(D, max(starts, judged)).seconds(rows, calls)


def grids_tried(n: int) -> int:
    """How many grids of n steps "landings" tries, about: 12 of 2 and 45 to 59 of 4 steps, 80 to 190 of 8 and more."""
    return min(3 * n * n, 120)


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
    plain = solver_on(karras(n, sigma_min=high * _EDM_LOW, sigma_max=high), solver, options)
    announce(expected_schedule(data, n, objective, starts, judged, plain), say)
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
