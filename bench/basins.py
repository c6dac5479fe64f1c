"""Basins of a data set: seconds for 10,000 draws, and whether they fall evenly.

    .venv/bin/python bench/basins.py [DATASET [DRAWS]]

Starts are x0 + 80 ε, from which the exact flow reaches every data point equally often.
"""

from __future__ import annotations

import sys
import time

import torch

from optimal import OptimalDenoiser, basins, load


def main(name: str = "emoji", draws: str = "10000") -> None:
    data = load(name)
    D = OptimalDenoiser(data)
    print(f"{data.describe()}; {torch.get_num_threads()} threads")
    start = time.perf_counter()
    found = basins(D, int(draws), torch.Generator().manual_seed(0), start="data", progress=True)
    statistic, probability = found.chi_square()
    print(
        f"{found.draws} draws: {time.perf_counter() - start:.0f} s; {found.undecided} undecided; chi-square "
        f"{statistic:.0f} of {int((found.copies > 0).sum()) - 1} degrees of freedom, p = {probability:.2f}"
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
