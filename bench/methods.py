"""Where KeOps beats blocked matrix products on this machine: the crossovers of method="auto".

    .venv/bin/python bench/methods.py

Each pair of calls is timed in turn, five times; the median ratio is printed. KeOps is compiled before the clock starts.
"""

from __future__ import annotations

import statistics
import time

import torch

from optimal import OptimalDenoiser


def seconds(D: OptimalDenoiser, x: torch.Tensor) -> float:
    start = time.perf_counter()
    D.posterior(x, 0.3)
    return time.perf_counter() - start


def main() -> None:
    print(f"{torch.get_num_threads()} threads\nD     N        B      dense s   keops s   dense/keops")
    for dim in (1, 2, 4, 8, 16, 64):
        for count, batch in ((1_000, 100), (100_000, 100), (10_000, 1_000), (1_000, 100_000)):
            if dim >= 16 and batch * count > 10**7:
                continue
            generator = torch.Generator().manual_seed(0)
            data, x = torch.randn(count, dim, generator=generator), torch.randn(batch, dim, generator=generator)
            dense, keops = (OptimalDenoiser(data, method=method) for method in ("dense", "keops"))
            seconds(dense, x)
            seconds(keops, x)
            pairs = [(seconds(dense, x), seconds(keops, x)) for _ in range(5)]
            times = "   ".join(f"{statistics.median(column):7.4f}" for column in zip(*pairs, strict=True))
            print(
                f"{dim:<5} {count:<8} {batch:<6}  {times}   {statistics.median(a / b for a, b in pairs):8.2f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
