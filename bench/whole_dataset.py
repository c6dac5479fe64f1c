"""Size: the exact posterior over N = 70,000 points of D = 12,288 against two plain float32 matrix products.

    .venv/bin/python bench/whole_dataset.py [--n 70000] [--batch 64]

Ours reads a memory-mapped uint8 store. The plain products, `x @ Y.T`, softmax, `w @ Y`, have the data in float32
memory already and are what any exact evaluation costs. Both are timed in turn in one process, the median of pairwise
ratios is printed; peak memory is that of a second process that does ours alone.
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
    memory_only: bool = False
    """Run ours alone and print the peak memory."""


def main(config: Config) -> None:
    data = load("patches", n=config.n)
    start = time.perf_counter()
    D = OptimalDenoiser(data)
    print(f"{data.describe()}; {torch.get_num_threads()} threads; set-up {time.perf_counter() - start:.2f} s")
    generator = torch.Generator().manual_seed(0)
    x0 = D.take(torch.randint(len(D), (config.batch,), generator=generator))
    queries = {sigma: x0 + sigma * torch.randn(x0.shape, generator=generator) for sigma in config.sigmas}
    if config.memory_only:
        for sigma, x in queries.items():
            D.posterior(x, sigma)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
        print(f"peak resident memory, memory map included: {peak:.2f} GB")
        return
    # First, because a process starts its life with the peak of the one that made it.
    command = [sys.executable, __file__, "--memory-only", "--n", str(config.n), "--batch", str(config.batch)]
    print(subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()[-1])
    Y = data.points.flatten(1)
    half_norms = Y.square().sum(1) / 2

    def plain(x: torch.Tensor, sigma: float) -> torch.Tensor:
        return (((x.flatten(1) @ Y.T) - half_norms) / sigma**2).softmax(1) @ Y

    print("sigma      ours s   plain s   ours/plain   relative difference of the means")
    for sigma, x in queries.items():
        ours, theirs = [], []
        mean = reference = torch.empty(0)
        for _ in range(config.repeats):
            start = time.perf_counter()
            mean = D(x, sigma)
            ours.append(time.perf_counter() - start)
            start = time.perf_counter()
            reference = plain(x, sigma)
            theirs.append(time.perf_counter() - start)
        ratio = statistics.median(a / b for a, b in zip(ours, theirs, strict=True))
        difference = float(((mean.flatten(1) - reference).norm(dim=1) / mean.flatten(1).norm(dim=1)).max())
        seconds = f"{statistics.median(ours):7.2f}   {statistics.median(theirs):7.2f}"
        print(f"{sigma:<9g} {seconds}   {ratio:10.2f}   {difference:.1e}", flush=True)


if __name__ == "__main__":
    main(tyro.cli(Config))
