"""Screened evaluation beside the two plain float32 products, from σ = 0.5 to 80: time and error.

    .venv/bin/python bench/screened.py [--n 70000] [--batch 64]

The contenders are those of `bench/contenders.py`, at D = 12,288, timed in turn, and ratios are taken within a turn.
Errors are relative, ‖mean − exact‖/‖exact‖, the largest of the batch, against our evaluation in float64.
"""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from pathlib import Path

import torch
import tyro
from contenders import METHODS, data_of, mean_of, noisy
from timing import in_turn, over, report

from optimal import OptimalDenoiser

_NAMES = ("plain products", "screened", "screened, estimated")


@dataclass
class Config:
    """What is timed."""

    n: int = 70_000
    """Points: windows of 64 × 64 × 3."""
    batch: int = 64
    """Queries per call."""
    turns: int = 3
    """Timings of each method at each noise level."""
    sigmas: tuple[float, ...] = (0.5, 1.0, 2.0, 3.0, 5.0, 10.0, 20.0, 80.0)
    """Noise levels, in units of the data."""


def main(config: Config) -> None:
    data = data_of(config.n, 12_288, Path(__file__).parent / "out")
    exact = OptimalDenoiser(data.array, method="dense")
    methods = {name: METHODS[name](data) for name in _NAMES}
    report(f"N = {config.n}, batch {config.batch}, {torch.get_num_threads()} threads")
    report("  sigma   plain, s   proven: time over plain, times faster, error   estimated: the same   largest bound")
    for sigma in config.sigmas:
        x = noisy(data, config.batch, sigma)
        calls = {name: lambda evaluate=evaluate, x=x, s=sigma: evaluate(x, s) for name, evaluate in methods.items()}
        seconds, found = in_turn(calls, config.turns)
        truth = exact(x.double(), sigma).flatten(1)
        plain = seconds[_NAMES[0]]
        line = f"{sigma:7g}{statistics.median(plain):11.2f}"
        for name in _NAMES[1:]:
            ratio = over(seconds[name], plain)["ratio"]
            error = (mean_of(found[name]).double() - truth).norm(dim=1) / truth.norm(dim=1)
            line += f"{ratio:15.2f}{1 / ratio:8.1f}x{float(error.max()):10.0e}"
        report(f"{line}{float(found['screened'].error_bound.max()):16.0e}")


if __name__ == "__main__":
    main(tyro.cli(Config))
