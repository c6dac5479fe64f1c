"""Size: the exact posterior over N = 70,000 points of D = 12,288 against two plain float32 matrix products.

    .venv/bin/python bench/whole_dataset.py [--n 70000] [--batch 64]

Ours reads a memory-mapped uint8 store: dense, screened with its proof, and screened with an estimate. The plain
products, `x @ Y.T`, softmax, `w @ Y`, have the data in float32 memory already and are what any exact evaluation costs.
All are timed in turn in one process, the medians of ratios to the plain run of the same turn are printed with their
range; errors are against float64; peak memory is that of a second process that does ours alone.
"""

from __future__ import annotations

import resource
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass

import torch
import tyro

from optimal import OptimalDenoiser, load


@dataclass
class Config:
    """What is timed."""

    n: int = 70_000
    """Points (at most 70,000)."""
    batch: int = 64
    """Queries per call."""
    repeats: int = 3
    """Pairs of runs at each noise level."""
    sigmas: tuple[float, ...] = (0.002, 1.0, 2.0, 3.0, 5.0, 10.0, 20.0, 80.0)
    """Noise levels."""
    memory_only: str = ""
    """Run this one of ours alone and print the peak memory."""


OURS = {
    "dense": {"method": "dense"},
    "screened": {"method": "screened"},
    "estimated": {"method": "screened", "certified": False},
}


def main(config: Config) -> None:
    data = load("patches", n=config.n)
    models = {name: OptimalDenoiser(data, **options) for name, options in OURS.items()}
    print(f"{data.describe()}; {torch.get_num_threads()} threads; batch {config.batch}")
    D = models["dense"]
    generator = torch.Generator().manual_seed(0)
    x0 = D.take(torch.randint(len(D), (config.batch,), generator=generator))
    queries = {sigma: x0 + sigma * torch.randn(x0.shape, generator=generator) for sigma in config.sigmas}
    if config.memory_only:
        for sigma, x in queries.items():
            models[config.memory_only].posterior(x, sigma)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
        print(f"{config.memory_only}: peak resident memory, memory map included, {peak:.2f} GB")
        return
    # First, because a process starts its life with the peak of the one that made it.
    for name in OURS:
        command = [sys.executable, __file__, "--memory-only", name, "--n", str(config.n), "--batch", str(config.batch)]
        print(subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()[-1])
    Y = data.points.flatten(1)
    half_norms = Y.square().sum(1) / 2

    def plain(x: torch.Tensor, sigma: float) -> torch.Tensor:
        return (((x.flatten(1) @ Y.T) - half_norms) / sigma**2).softmax(1) @ Y

    print(f"plain products: float32 data {Y.numel() * 4 / 1e9:.2f} GB")
    print("sigma  plain s | of it, and error of the mean: " + ", ".join(OURS) + "; proven, estimated errors")
    for sigma, x in queries.items():
        exact = D.posterior(x.double(), sigma).mean.flatten(1)
        spent: dict[str, list[float]] = {name: [] for name in (*OURS, "plain")}
        errors = {}
        proven = estimated = float("nan")
        for _ in range(config.repeats):
            for name, model in models.items():
                start = time.perf_counter()
                post = model.posterior(x, sigma)
                spent[name].append(time.perf_counter() - start)
                errors[name] = float(((post.mean.flatten(1) - exact).norm(dim=1) / exact.norm(dim=1)).max())
                proven = float(post.error_bound.max()) if name == "screened" else proven
                estimated = float(post.error_estimate.max()) if name == "estimated" else estimated
            start = time.perf_counter()
            plain(x, sigma)
            spent["plain"].append(time.perf_counter() - start)
        cells = []
        for name in OURS:
            ratios = [a / b for a, b in zip(spent[name], spent["plain"], strict=True)]
            cells.append(f"{statistics.median(ratios):.2f} [{min(ratios):.2f}, {max(ratios):.2f}] {errors[name]:.0e}")
        seconds = statistics.median(spent["plain"])
        print(f"{sigma:<6g} {seconds:6.2f} | " + ", ".join(cells) + f"; {proven:.0e}, {estimated:.0e}", flush=True)


if __name__ == "__main__":
    main(tyro.cli(Config))
