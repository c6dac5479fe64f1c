"""Weak scaling: one posterior over data shared by 1, 2 … processes, the same number of points for each.

    .venv/bin/python bench/sharded.py [--per-rank 20000] [--ranks 1 2] [--sigma 2]

A file of random images (3×64×64, uint8) is made for the largest run in a temporary folder and mapped. Every run starts
its own processes with torchrun, one thread each, and takes as many points as it has ranks. Printed: seconds per call
with the share of the slowest rank's own pass in it, seconds of the collectives alone (the same messages, sent by ranks
that wait for nothing), and bytes per call. Runs alternate; medians of all calls. More ranks than cores measure the
cores, not the method, and are marked.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import tyro
from torch import distributed

from optimal import ShardedDenoiser
from optimal.evaluate.ranks import Ranks
from optimal.evaluate.sharded import COLUMNS

EVENT = (3, 64, 64)


@dataclass
class Config:
    """What is timed."""

    per_rank: int = 20_000
    """Points of each rank."""
    ranks: tuple[int, ...] = (1, 2)
    """Numbers of processes."""
    batch: int = 64
    """Queries per call."""
    sigma: float = 2.0
    """Noise level."""
    method: str = "dense"
    """As for OptimalDenoiser."""
    calls: int = 5
    """Timed calls in a run."""
    turns: int = 3
    """Runs of each number of processes, in turn."""
    file: str = ""
    """Set for the processes that torchrun starts: the data."""


def main(config: Config) -> None:
    if config.file:
        one_rank(config)
        return
    cores = len(os.sched_getaffinity(0))
    print(
        f"{cores} cores, load {os.getloadavg()[0]:.1f}; {config.per_rank:,} points of 3×64×64 a rank, one thread each"
    )
    print(f"batch {config.batch}, sigma {config.sigma:g}, {config.method}")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "array.npy"
        data = np.lib.format.open_memmap(path, "w+", np.uint8, (max(config.ranks) * config.per_rank, *EVENT))
        generator = np.random.default_rng(0)
        for start in range(0, len(data), 1000):
            block = data[start : start + 1000]
            block[:] = generator.integers(0, 256, block.shape, dtype=np.uint8)
        data.flush()
        found = {ranks: list[dict[str, float]]() for ranks in config.ranks}
        for _ in range(config.turns):
            for ranks in config.ranks:
                found[ranks].append(launch(config, ranks, path))
    base = statistics.median(run["call"] for run in found[config.ranks[0]])
    print(
        "ranks  seconds a call [range of runs]  over the first  own pass  collectives  bytes a rank sends and receives"
    )
    for ranks, runs in found.items():
        call, own, collectives = (
            statistics.median(run[name] for run in runs) for name in ("call", "own", "collectives")
        )
        low, high = (side(run["call"] for run in runs) for side in (min, max))
        note = "  more ranks than cores" if ranks > cores else ""
        print(
            f"{ranks:5}  {call:6.3f} [{low:.3f}, {high:.3f}]  {call / base:14.2f}  {own:8.3f}  {collectives:11.4f}  "
            f"{runs[0]['bytes']:,.0f}{note}"
        )


def launch(config: Config, ranks: int, path: Path) -> dict[str, float]:
    """One run of so many processes; what rank 0 measured."""
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(ranks)]
    options = {"per-rank": config.per_rank, "batch": config.batch, "sigma": config.sigma, "method": config.method}
    options |= {"calls": config.calls, "file": path}
    arguments = [text for name, value in options.items() for text in (f"--{name}", str(value))]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    done = subprocess.run([*torchrun, __file__, *arguments], env=environment, capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stderr)
    return json.loads(done.stdout.splitlines()[-1])


def one_rank(config: Config) -> None:
    torch.set_num_threads(1)
    ranks = int(os.environ["WORLD_SIZE"])
    D = ShardedDenoiser(np.load(config.file, mmap_mode="r")[: ranks * config.per_rank], method=config.method)
    generator = torch.Generator().manual_seed(0)
    x = D.take(torch.randint(len(D), (config.batch,), generator=generator))
    x = x + config.sigma * torch.randn(x.shape, generator=generator)
    D(x, config.sigma)
    # The group that D has made.
    everyone = Ranks(600.0)
    call, own = [], []
    alone = D.evaluator.own
    assert alone is not None
    z, sigma = D.query(x, config.sigma)
    for _ in range(config.calls):
        distributed.barrier()
        start = time.perf_counter()
        D(x, config.sigma)
        call.append(time.perf_counter() - start)
        distributed.barrier()
        start = time.perf_counter()
        alone.moments(z, sigma, single=True)
        own.append(time.perf_counter() - start)
    row = torch.zeros(config.batch, COLUMNS, dtype=torch.float64)
    mean = torch.zeros_like(z)
    collectives = []
    for _ in range(20):
        distributed.barrier()
        start = time.perf_counter()
        everyone.agree("posterior", z.device, x=z, sigma=sigma)
        everyone.gather(row, "bench")
        everyone.sum(mean, "bench")
        collectives.append(time.perf_counter() - start)
    slowest = everyone.objects([statistics.median(times) for times in (call, own, collectives)], "bench")
    if D.rank == 0:
        sent = (ranks - 1) * (128 + 8 * row.numel()) + 2 * (ranks - 1) / ranks * 8 * mean.numel()
        values = [max(column) for column in zip(*slowest, strict=True)]
        print(json.dumps(dict(zip(("call", "own", "collectives"), values, strict=True)) | {"bytes": sent}))


if __name__ == "__main__":
    main(tyro.cli(Config))
