"""What other priors cost: all classes at once, a label a row, and a flip, over one unconditional evaluation.

    .venv/bin/python bench/priors.py [--n 70000] [--batch 64]

The points are windows of 64 × 64 × 3 as for `bench/screened.py`, with ten classes drawn at random; or with --data any
data set by name. Calls are timed in turn, in processor time, and ratios are taken within a turn.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import tyro
from timing import over, report

from optimal import Dataset, OptimalDenoiser, load, orbit

_CLASSES = 10
_SHORTEST = 0.05
"""Seconds that a timing takes at least; shorter calls are repeated."""


@dataclass
class Config:
    """What is timed."""

    data: str = ""
    """Name of the data; windows of 64 × 64 × 3 unless given."""
    n: int = 70_000
    """Windows."""
    batch: int = 64
    """Queries per call."""
    turns: int = 3
    """Timings of each call at each noise level."""
    method: str = "auto"
    """Way to sum."""
    sigmas: tuple[float, ...] = (0.5, 2.0, 5.0, 10.0, 20.0, 60.0)
    """Noise levels, in units of the data."""


def main(config: Config) -> None:
    data = load(config.data) if config.data else load("patches", n=config.n)
    if data.labels is None:
        data = Dataset(data.name, data.array, np.random.default_rng(0).integers(0, _CLASSES, len(data)))
    D, generator = OptimalDenoiser(data, method=config.method), torch.Generator().manual_seed(1)
    index = torch.randint(len(D), (config.batch,), generator=generator)
    x0 = D.take(index).float()
    noise = torch.randn(x0.shape, generator=generator)
    given, flip = D.given(D.labels[index]), orbit(D, "flip")
    report(f"{data.name}: N = {len(D)}, batch {config.batch}, {torch.get_num_threads()} threads, {config.method}")
    report("  sigma   count   by             plain, s   over it: all classes       a label a row            flip")
    for sigma in config.sigmas:
        x = x0 + sigma * noise
        calls = [
            lambda x=x, s=sigma: D(x, s),
            lambda x=x, s=sigma: D.by_class(x, s),
            lambda x=x, s=sigma: given(x, s),
            lambda x=x, s=sigma: flip(x, s),
        ]
        post = D.posterior(x, sigma)
        for call in calls:
            call()
        plain, *others = zip(*([_seconds(call) for call in calls] for _ in range(config.turns)), strict=True)
        line = f"{sigma:7g}{float(post.effective_count.median()):8.1f}   {post.method:<12}"
        line += f"{statistics.median(plain):11.4f}"
        for seconds in others:
            found = over(list(seconds), list(plain))
            line += f"{found['ratio']:11.2f} [{found['low']:.2f}, {found['high']:.2f}]"
        report(line)


def _seconds(call: Callable[[], object]) -> float:
    """Processor time of a call: what else the machine does falls on the clock."""
    start, count = time.process_time(), 0
    while count == 0 or time.process_time() - start < _SHORTEST:
        call()
        count += 1
    return (time.process_time() - start) / count


if __name__ == "__main__":
    main(tyro.cli(Config))
