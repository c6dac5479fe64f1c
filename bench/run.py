"""Every way to evaluate the posterior mean, on the same arrays in one run: time, peak memory, error.

    .venv/bin/python bench/run.py                       # as `make bench`: about 12 minutes on two cores
    .venv/bin/python bench/run.py --parts crossovers    # what `auto` chooses by: about 7 minutes
    .venv/bin/python bench/run.py --quick               # every line of it on few points
    .venv/bin/python bench/table.py                     # writes the results into docs/speed.md

methods      What is timed stands in `bench/contenders.py`. Methods are timed in turn in one process; a ratio is taken
             to the plain products of the same turn, and medians are printed with the range over the turns. Errors are
             relative, ‖mean − exact‖/‖exact‖, the largest of the batch, against our evaluation in float64. The noise
             levels are a tenth of the border (one point leads), the border (two share) and ten times it. Peak memory
             is that of a process of its own, its data included and its imports not; memory maps that were read count.
crossovers   `bench/crossovers.py`: dense against screened and against keops, over sizes, batches and noise levels.
span         `bench/span.py`, where it is there: sampling in the span of the data.

A call expected to take longer than --limit seconds, judged by two on fewer points, is left out; the ratio is
then marked as an estimate. Results go to `results.json` in --out; a part that is not run keeps its last ones.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import functools
import importlib
import io
import json
import math
import multiprocessing
import os
import platform
import resource
import statistics
import sys
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import crossovers
import torch
import tyro
from contenders import BOUNDS, DIMS, METHODS, Data, data_of, mean_of, noisy, unavailable
from timing import in_turn, over, report, timed
from tqdm import tqdm

from optimal import OptimalDenoiser, Posterior
from optimal.evaluate import Accuracy, Evaluator
from optimal.points import Points

PLAIN = "plain products"
LEVELS = {"border/10": 0.1, "border": 1.0, "10 border": 10.0}
_PILOTS = (100, 25)
"""Pilot calls have N over this many points."""


@dataclass
class Config:
    """What is timed."""

    parts: tuple[Literal["methods", "crossovers", "span"], ...] = ("methods", "span")
    """Parts to run."""
    n: tuple[int, ...] = (1_000, 10_000, 70_000)
    """Points (at most 70,000); peak memory is measured for the last."""
    dims: tuple[int, ...] = DIMS
    """Values of a point, among 1, 64, 784, 3072 and 12288."""
    batch: int = 64
    """Queries per call."""
    turns: int = 3
    """Timings of each method at each noise level."""
    limit: float = 10.0
    """Longest call in seconds."""
    out: Path = Path(__file__).parent / "out"
    """Folder of results.json and of the averaged images."""
    quick: bool = False
    """Few points and queries, to see that everything runs: under a minute once KeOps has compiled its formulas."""


def main(config: Config) -> None:
    if config.quick:
        config = dataclasses.replace(config, n=(100, 300), dims=(1, 64, 12_288), batch=4, turns=2)
    config.out.mkdir(parents=True, exist_ok=True)
    path = config.out / "results.json"
    results = json.loads(path.read_text()) if path.exists() else {}
    for part in config.parts:
        found = {"methods": run_methods, "crossovers": run_crossovers, "span": run_span}[part](config)
        results[part] = {"machine": machine(), "quick": config.quick, **found}
        path.write_text(json.dumps(results, indent=1))
    print(f"results in {path}")


def machine() -> dict[str, Any]:
    """What the numbers depend on."""
    model = platform.processor() or platform.machine()
    with contextlib.suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), model)
    return {
        "processor": model,
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "date": datetime.date.today().isoformat(),
    }


def run_methods(config: Config) -> dict[str, Any]:
    print(f"{machine()}\nbatch {config.batch}, {config.turns} turns; about {expected(config) / 60:.0f} minutes")
    missing = {(name, dim): reason for name in METHODS for dim in config.dims if (reason := unavailable(name, dim))}
    for name in METHODS:
        if dims := [dim for dim in config.dims if (name, dim) in missing]:
            print(f"without {name} for D = {', '.join(map(str, dims))}: {missing[name, dims[0]]}")
    sizes = [(n, dim) for n in config.n for dim in config.dims]
    borders = {size: border(data_of(*size, config.out), config.batch) for size in tqdm(sizes, desc="borders")}
    memory = []
    print("\nN       D      method                 peak GB   expected seconds")
    alone = [(name, dim) for dim in config.dims for name in METHODS if (name, dim) not in missing]
    for name, dim in tqdm(alone, desc="memory"):
        row = in_a_process(name, config, dim, borders[config.n[-1], dim])
        memory.append(row)
        peak = "      –" if row["peak"] is None else f"{row['peak'] / 1e9:7.2f}"
        report(f"{row['n']:<7} {dim:<6} {name:22} {peak}   {row['expected']:.3g}")
    left = sum(row["expected"] * n / row["n"] for row in memory if row["peak"] is not None for n in config.n)
    print(f"\nabout {left * len(LEVELS) * config.turns / 60:.0f} minutes more")
    cells: list[dict[str, Any]] = []
    print("\nN       D      sigma     method                 seconds   over plain [range]       error")
    for n, dim in tqdm(sizes, desc="methods"):
        calls = {row["method"]: row["expected"] * n / row["n"] for row in memory if row["dim"] == dim}
        cells += of_size(config, n, dim, borders[n, dim], calls)
    return {
        "batch": config.batch,
        "turns": config.turns,
        "limit": config.limit,
        "missing": [{"method": name, "dim": dim, "reason": reason} for (name, dim), reason in missing.items()],
        "memory": memory,
        "cells": cells,
    }


def expected(config: Config) -> float:
    """Seconds that the part `methods` will take, from those of one product."""
    a, b = torch.randn(64, 12_288), torch.randn(2_048, 12_288)
    product = min(timed(lambda: a @ b.T) for _ in range(3)) / (64 * 2_048 * 12_288)
    total = 40.0 + 2.0 * len(config.dims) * len(METHODS)
    for n in config.n:
        for dim in config.dims:
            plain = 2 * product * config.batch * n * dim
            keops = 25 * plain if 25 * plain < config.limit else 0.0
            total += len(LEVELS) * (config.turns + 2) * (10 * plain + 2 * keops)
    return total


def border(data: Data, batch: int) -> float:
    """The σ at which the median of the effective number of points crosses 2, to 10%, by bisection in log σ."""
    D = OptimalDenoiser(data.array, method="dense")
    low, high = (math.log(factor * D.standard_deviation) for factor in (1e-6, 1e2))
    for _ in range(8):
        sigma = math.exp((low + high) / 2)
        if float(D.posterior(noisy(data, batch, sigma), sigma).effective_count.median()) < 2:
            low = math.log(sigma)
        else:
            high = math.log(sigma)
    return float(f"{math.exp((low + high) / 2):.2g}")


def in_a_process(name: str, config: Config, dim: int, border: float) -> dict[str, Any]:
    """`measure_alone` in a process that has imported its modules and done nothing else."""
    # A process started from this one would begin its life with this one's peak.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["torch", "optimal"])
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(measure_alone, name, config, dim, border).result()


def measure_alone(name: str, config: Config, dim: int, border: float) -> dict[str, Any]:
    """The peak memory of one method, and the seconds that calls on fewer points let expect of its slowest."""
    idle = peak_memory()
    data = data_of(config.n[-1], dim, config.out)
    queries = [(factor * border, noisy(data, config.batch, factor * border)) for factor in LEVELS.values()]
    sizes, spent = [], []
    for share in _PILOTS:
        fewer = Data(data.array[::share].copy())
        pilot = METHODS[name](fewer)
        pilot(queries[0][1], queries[0][0])
        sizes.append(len(fewer.array))
        spent.append(max(timed(lambda x=x, sigma=sigma, pilot=pilot: pilot(x, sigma)) for sigma, x in queries))
        if spent[0] * _PILOTS[0] > 5 * config.limit:
            break
    # By a straight line, since part of a call does not grow with N, unless the first was far too long already.
    slope = spent[0] / sizes[0] if len(spent) == 1 else max(0.0, spent[1] - spent[0]) / (sizes[1] - sizes[0])
    seconds = spent[-1] + slope * (len(data.array) - sizes[-1])
    peak = None
    if name == PLAIN or seconds <= config.limit:
        evaluate = METHODS[name](data)
        for sigma, x in queries:
            evaluate(x, sigma)
        peak = peak_memory() - idle
    return {"n": config.n[-1], "dim": dim, "method": name, "peak": peak, "expected": seconds}


def peak_memory() -> int:
    """Peak resident memory of this process in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def of_size(config: Config, n: int, dim: int, border: float, calls: dict[str, float]) -> list[dict[str, Any]]:
    """Every method at every noise level; `calls` are the seconds expected of one."""
    data = data_of(n, dim, config.out)
    running = {name: METHODS[name](data) for name in calls if name == PLAIN or calls[name] <= config.limit}
    D = OptimalDenoiser(data.array, method="dense")
    evaluator = Evaluator(Points(data.array), Accuracy())
    rows = []
    for level, factor in LEVELS.items():
        sigma = factor * border
        x = noisy(data, config.batch, sigma)
        exact = D.posterior(x.double(), sigma).mean.flatten(1)
        levels = torch.full((config.batch,), sigma, dtype=torch.float64)
        auto = {method.__name__.split(".")[-1] for method, _ in evaluator.choose(levels, single=True)}
        if not rows:
            for run in running.values():
                run(x, sigma)  # The first call computes norms and loads what is compiled.
        seconds, results = in_turn(
            {name: functools.partial(run, x, sigma) for name, run in running.items()}, config.turns
        )
        for name in calls:
            row: dict[str, Any] = {"n": n, "dim": dim, "level": level, "sigma": sigma, "method": name}
            row |= {"auto": name in auto, "bound": BOUNDS.get(name), "proven": None}
            head = f"{n:<7} {dim:<6} {sigma:<9.3g} {name:20} "
            if name in running:
                row |= {"seconds": seconds[name], **over(seconds[name], seconds[PLAIN])}
                result = results[name]
                row["error"] = float(((mean_of(result) - exact).norm(dim=1) / exact.norm(dim=1)).max())
                if isinstance(result, Posterior) and bool(result.error_bound.isfinite().all()):
                    row["proven"] = float(result.error_bound.max())
                spread = f"[{row['low']:.2f}, {row['high']:.2f}]"
                middle = statistics.median(seconds[name])
                report(f"{head} {middle:9.4f}   {row['ratio']:6.2f} {spread:16} {row['error']:.0e}")
            else:
                row |= {"seconds": None, "ratio": calls[name] / calls[PLAIN], "error": None}
                report(f"{head} about {row['ratio']:.3g} times plain; left out")
            rows.append(row)
    return rows


def run_crossovers(config: Config) -> dict[str, Any]:
    print(machine())
    return crossovers.run(config.turns, quick=config.quick)


def run_span(config: Config) -> dict[str, Any]:
    """What `main(Config())` of `bench/span.py` prints and returns.

    Where it returns `seconds` in the span, `plain` seconds and `error`, docs/speed.md says so.
    """
    try:
        span = importlib.import_module("span")
    except ImportError as error:
        print(f"without span: {error}")
        return {"missing": str(error)}
    options = {"n": 300, "batch": 4, "steps": 4, "rank": 32} if config.quick else {"n": config.n[-1]}
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        found = span.main(span.Config(**options))
    print(printed.getvalue(), end="")
    return {"printed": printed.getvalue().splitlines(), "found": found}


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
