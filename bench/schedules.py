"""Every solver on every grid: how many trajectories of the optimum end on another data point than the exact flow's.

    .venv/bin/python bench/schedules.py [--data digits --parts whole above] [--minutes 30]

Of each solver and grid the share of wrong landings at a few numbers of denoiser calls, and the calls from which on at
most 5% are wrong, over the whole range and above the border only, from where the exact flow leads on. Grids that are
made on starts are judged on others. Results go to bench/results/schedules.json, a row a solver, grid and number of
steps; those that are there are kept, so that it can be stopped and called again.
"""

from __future__ import annotations

import functools
import json
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro
from timing import report
from torch import Tensor

from optimal import OptimalDenoiser, cosine, karras, kl_optimal, load, log_linear, seeking_refining_border
from optimal.randomness import fixed_generator
from optimal.samplers import DPMSolver, DPMSolverPP, Euler, Heun, Solver, UniPC
from optimal.schedules import (
    curve_of,
    entropic_grid,
    gaussian_grid,
    landings_grid,
    path_kl_grid,
    start_level,
    starts_of,
    wrong_landings,
)
from optimal.schedules.search import Followed
from optimal.theories import Wiener

FILE = Path(__file__).parent / "results" / "schedules.json"
SOLVERS: dict[str, tuple[Solver, int]] = {
    "Euler": (Euler(), 1),
    "Heun": (Heun(), 2),
    "DPM-Solver-2": (DPMSolver(2), 2),
    "DPM-Solver-3": (DPMSolver(3), 3),
    "DPM-Solver++ 2M": (DPMSolverPP(2), 1),
    "DPM-Solver++ 3M": (DPMSolverPP(3), 1),
    "UniPC-2": (UniPC(2), 1),
}
"""And their calls a step above 0."""
PUBLISHED = {"EDM": karras, "even in log σ": log_linear, "cosine": cosine, "kl-optimal": kl_optimal}
CURVES = {"entropy": {}, "rescaled entropy": {"rescaled": True}, "path KL": None}
GRIDS = (*PUBLISHED, "Gaussian W2", *CURVES, "trajectories", "landings")
SHOWN = (6, 8, 9, 12, 18)
MORE = (4, 5, 7, 10, 11, 13, 14, 15, 16, 20, 22, 24, 26, 28, 30, 32, 36, 40, 44, 48, 56, 64, 80, 96, 128)
ALLOWED, AFTER = 0.05, 3
"""Share that may be wrong; how many further numbers of calls it has to hold for, before no more are tried."""
_RANGE = 40_000


@dataclass
class Config:
    """What is counted."""

    data: tuple[str, ...] = ("digits",)
    """Data sets by name; NAME:16 for images of 16 × 16."""
    parts: tuple[str, ...] = ("whole", "above")
    grids: tuple[str, ...] = GRIDS
    solvers: tuple[str, ...] = tuple(SOLVERS)
    designed: int = 512
    """Starts that grids are made on."""
    judged: int = 512
    """Starts that all are judged on."""
    calls: tuple[int, ...] = ()
    """Denoiser calls that are tried; all from 4 up unless given."""
    most: int = 128
    """Denoiser calls, at most."""
    shown: bool = True
    """Whether the share is also wanted at calls beyond those that are needed."""
    minutes: float = 600.0
    """When to stop."""
    out: Path = FILE


def main(config: Config) -> None:
    end = time.monotonic() + 60 * config.minutes
    rows: list[dict[str, Any]] = json.loads(config.out.read_text())["rows"] if config.out.exists() else []
    for data in config.data:
        work = None
        for part in config.parts:
            for grid in config.grids:
                for solver in config.solvers:
                    for n in _steps(solver, part, config):
                        what = (data, part, solver, grid, config.designed, config.judged)
                        own = [row for row in rows if _key(row) == what]
                        if any(row["n"] == n for row in own):
                            continue
                        if _enough(own, n, solver, part, shown=config.shown):
                            continue
                        if time.monotonic() > end:
                            return
                        work = work or _Work(data, config)
                        rows.append(work.row(part, solver, grid, n))
                        report("  ".join(str(value) for value in rows[-1].values() if not isinstance(value, list)))
                        _write(config.out, rows)


def _key(row: dict[str, Any]) -> tuple[Any, ...]:
    """What a row is of, but for the number of steps."""
    return tuple(row[name] for name in ("data", "part", "solver", "grid", "designed", "judged"))


def _steps(solver: str, part: str, config: Config) -> list[int]:
    """Steps for each number of calls, the fewest first."""
    a_step = SOLVERS[solver][1]
    calls = sorted(c for c in config.calls or (*SHOWN, *MORE) if c <= config.most)
    return sorted({(c if part == "above" else c - 1 + a_step) // a_step for c in calls} - {0, 1})


def _enough(own: list[dict[str, Any]], n: int, solver: str, part: str, *, shown: bool) -> bool:
    """Whether n steps need not be looked at: fewer have done."""
    a_step = SOLVERS[solver][1]
    calls = a_step * n if part == "above" else a_step * (n - 1) + 1
    if shown and any(0 <= c - calls < a_step for c in SHOWN):
        return False
    before = sorted((row for row in own if row["n"] < n), key=lambda row: row["n"])[-AFTER:]
    return len(before) == AFTER and all(row["wrong"] <= ALLOWED * row["of"] for row in before)


class _Work:
    """One data set: its starts, and grids by name."""

    def __init__(self, name: str, config: Config):
        self.name, self.config = name, config
        base, _, size = name.partition(":")
        options: dict[str, Any] = {"size": int(size)} if size else {}
        self.D = OptimalDenoiser(load(base, **options))
        self.begun = starts_of(self.D, config.designed, purpose="design")
        self.others = starts_of(self.D, config.judged)
        self.high = start_level(self.D)
        report(f"{name}: N = {len(self.D)}, {len(self.others)} starts, {self.others.undecided} undecided")

    @functools.cached_property
    def border(self) -> float:
        # From the draws of what is kept, whose levels go by it.
        return seeking_refining_border(self.D, draws=256, generator=fixed_generator()).sigma

    @functools.cached_property
    def curve(self) -> Any:
        return curve_of(self.D)

    @functools.cached_property
    def spectrum(self) -> tuple[Tensor, Tensor]:
        return Wiener(self.begun.D).spectrum()

    @functools.lru_cache(maxsize=4)  # noqa: B019
    def followed(self, solver: str, until: float) -> Followed:
        return Followed(self.begun, SOLVERS[solver][0], until)

    def row(self, part: str, solver: str, grid: str, n: int) -> dict[str, Any]:
        until, start = self.border if part == "above" else 0.0, time.perf_counter()
        levels = self.levels(grid, solver, n, until)
        spent = time.perf_counter() - start
        found = wrong_landings(self.others, levels, solver=SOLVERS[solver][0], until=until)
        low, high = found.interval()
        return {
            "data": self.name,
            "part": part,
            "solver": solver,
            "grid": grid,
            "designed": self.config.designed,
            "judged": self.config.judged,
            "n": n,
            "calls": found.nfe,
            "wrong": found.wrong,
            "of": found.of,
            "low": round(low, 4),
            "high": round(high, 4),
            "seconds": round(spent, 1),
            "levels": [float(f"{float(level):.5g}") for level in levels],
        }

    def levels(self, grid: str, solver: str, n: int, until: float) -> Any:
        """The grid of n steps, to `until`."""
        if grid == "landings":
            return landings_grid(self.begun, n, solver=SOLVERS[solver][0], until=until)
        # Above the border these grids have a level there, and the step from it to 0 is not made.
        steps = n + (until > 0)
        span = {"sigma_max": self.high, "sigma_min": until or self.high / _RANGE}
        if grid in PUBLISHED:
            levels = PUBLISHED[grid](steps, **span)
        elif grid == "trajectories":
            levels = [*self.followed(solver, until).cheapest(steps), 0.0]
        elif grid == "Gaussian W2":
            # For the whole range also where only a part of it is sampled: its end is that of the data.
            values, counts = self.spectrum
            whole = gaussian_grid(values, steps, solver=SOLVERS[solver][0], sigma_max=self.high, counts=counts)
            levels = whole if not until else _stretched(whole, until)
        else:
            given = {"sigma_min": until} if until else {}
            make = path_kl_grid if CURVES[grid] is None else functools.partial(entropic_grid, **CURVES[grid])
            levels = make(self.curve, steps, **given)
        return levels[:-1] if until else levels


def _stretched(levels: Tensor, until: float) -> Tensor:
    """Levels above 0 moved evenly in log σ so that the last is `until`."""
    logs = levels[:-1].log()
    share = (logs[0] - logs) / (logs[0] - logs[-1])
    moved = levels.clone()
    moved[:-1] = (logs[0] + share * (float(Tensor.log(logs.new_tensor(until))) - logs[0])).exp()
    moved[-2] = until
    return moved


def _write(path: Path, rows: list[dict[str, Any]]) -> None:
    path.parent.mkdir(exist_ok=True)
    text = ",\n".join(json.dumps(row, ensure_ascii=False) for row in rows)
    part = path.with_suffix(".part")
    part.write_text('{"rows": [\n' + text + "\n]}\n")
    os.replace(part, path)


if __name__ == "__main__":
    main(tyro.cli(Config))
