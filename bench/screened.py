"""Screened evaluation beside two plain float32 products, from σ = 0.5 to 80: time and error.

    .venv/bin/python bench/screened.py [--n 70000] [--batch 64]

The plain products, `x @ Y.T`, softmax, `w @ Y`, have the data in float32 memory already and give the mean only. All are
timed in turn, and ratios taken within a turn. Errors are relative, ‖mean − exact‖/‖exact‖, the largest of the batch,
against our evaluation in float64.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import tyro
from timing import in_turn, over, report
from torch import Tensor

from optimal import OptimalDenoiser, load


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
    seed: int = 0
    """Of the queries."""


def main(config: Config) -> None:
    data = load("patches", n=config.n)
    exact = OptimalDenoiser(data, method="dense")
    proven = OptimalDenoiser(data, method="screened")
    estimated = OptimalDenoiser(data, method="screened", certified=False)
    Y = data.points.flatten(1)
    half_norms = Y.square().sum(1) / 2

    def plain(x: Tensor, sigma: float) -> Tensor:
        return (((x.flatten(1) @ Y.T - half_norms) / sigma**2).softmax(1) @ Y).view(x.shape)

    generator = torch.Generator().manual_seed(config.seed)
    x0 = data[torch.randint(len(data), (config.batch,), generator=generator)]
    report(f"{data.describe()}; {torch.get_num_threads()} threads; batch {config.batch}")
    report("  sigma   plain, s   proven: time over plain, times faster, error   estimated: the same   largest bound")
    for sigma in config.sigmas:
        x = x0 + sigma * torch.randn(x0.shape, generator=generator)
        calls = {
            "plain": lambda x=x, sigma=sigma: plain(x, sigma),
            "proven": lambda x=x, sigma=sigma: proven.posterior(x, sigma),
            "estimated": lambda x=x, sigma=sigma: estimated.posterior(x, sigma),
        }
        seconds, found = in_turn(calls, config.turns)
        truth = exact(x.double(), sigma).flatten(1)
        line = f"{sigma:7g}{sorted(seconds['plain'])[len(seconds['plain']) // 2]:11.2f}"
        for name in ("proven", "estimated"):
            ratio = over(seconds[name], seconds["plain"])["ratio"]
            error = (found[name].mean.flatten(1).double() - truth).norm(dim=1) / truth.norm(dim=1)
            line += f"{ratio:15.2f}{1 / ratio:8.1f}x{float(error.max()):10.0e}"
        report(f"{line}{float(found['proven'].error_bound.max()):16.0e}")


if __name__ == "__main__":
    main(tyro.cli(Config))
