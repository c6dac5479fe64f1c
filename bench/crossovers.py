"""Where screened and keops beat dense on this machine: what method="auto" chooses by.

    .venv/bin/python bench/run.py --parts crossovers

Screened: images, by their number and size, the batch and σ. KeOps: Gaussian points, by D, N and the batch.
"""

from __future__ import annotations

import functools
import math
import statistics
from typing import Any

import torch
from contenders import Data, noisy, unavailable
from timing import in_turn, over, report
from torch import Tensor
from tqdm import tqdm

from optimal import OptimalDenoiser, load

__all__ = ["run"]


def run(turns: int, *, quick: bool) -> dict[str, Any]:
    """Where screened and keops beat dense."""
    images: list[tuple[str, dict[str, Any]]] = [("emoji", {"size": size}) for size in (16, 32, 64)]
    images += [("patches", {"n": n}) for n in (10_000, 70_000)]
    batches, sigmas, dims = (1, 8, 64, 256), (0.1, 1.0, 3.0, 10.0, 40.0), (1, 2, 4, 8, 16, 64)
    pairs = ((1_000, 100), (100_000, 100), (10_000, 1_000), (1_000, 100_000))
    if quick:
        images, batches, sigmas, dims, pairs = [("patches", {"n": 300})], (1, 4), (1.0,), (1, 64), ((300, 4),)
    print("screened over dense, [range]\ndata      N       D      batch  sigma    dense s   ratio")
    screened = []
    for name, options in tqdm(images, desc="screened"):
        data = load(name, **options)
        dense, other = (OptimalDenoiser(data, method=method) for method in ("dense", "screened"))
        for batch in batches:
            if batch * len(data) > 64 * 70_000:
                continue
            for sigma in sigmas:
                x = noisy(Data(data.array), batch, sigma)
                row = {"data": name, "n": len(data), "dim": math.prod(data.event), "batch": batch, "sigma": sigma}
                screened.append(row | pair(dense, other, x, sigma, turns))
                report(f"{name:9} {len(data):<7} {row['dim']:<6} {batch:<6} {sigma:<6g} {compared(screened[-1])}")
    print("\nkeops over dense, [range]\nD      N        batch    dense s   ratio")
    keops = []
    for dim in tqdm(dims if not unavailable("keops", 1) else (), desc="keops"):
        for n, batch in pairs:
            if dim >= 16 and batch * n > 10**7:
                continue
            generator = torch.Generator().manual_seed(0)
            data, x = torch.randn(n, dim, generator=generator), torch.randn(batch, dim, generator=generator)
            dense, other = (OptimalDenoiser(data, method=method) for method in ("dense", "keops"))
            row = {"n": n, "dim": dim, "batch": batch, "sigma": 0.3}
            keops.append(row | pair(dense, other, x, 0.3, turns))
            report(f"{dim:<6} {n:<8} {batch:<7} {compared(keops[-1])}")
    return {"turns": turns, "screened": screened, "keops": keops}


def pair(dense: OptimalDenoiser, other: OptimalDenoiser, x: Tensor, sigma: float, turns: int) -> dict[str, Any]:
    """Another method over dense."""
    models = {"dense": dense, "other": other}
    for model in models.values():
        model.posterior(x[:1], sigma)  # Computes norms and compiles.
    seconds, _ = in_turn({key: functools.partial(D.posterior, x, sigma) for key, D in models.items()}, turns)
    return {"seconds": seconds["other"], "dense": seconds["dense"], **over(seconds["other"], seconds["dense"])}


def compared(row: dict[str, Any]) -> str:
    return f"{statistics.median(row['dense']):9.4f}   {row['ratio']:6.2f} [{row['low']:.2f}, {row['high']:.2f}]"
