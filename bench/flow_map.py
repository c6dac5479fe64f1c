"""The continuous flow map on large images: seconds, denoiser calls, and what the tolerance decides.

    .venv/bin/python bench/flow_map.py [DATASET [NOISES]]

From σ = 80, with one set of noises. Compared with what one would do without it: 128 steps of Heun's method, each state
certified until all are captured. Landings are compared with those at a tolerance of 1e-6.
"""

from __future__ import annotations

import sys
import time

import torch

from optimal import FlowMap, OptimalDenoiser, capture, load, log_linear, trajectory


def main(name: str = "emoji", noises: str = "256") -> None:
    data = load(name)
    D = OptimalDenoiser(data)
    x = 80 * torch.randn(int(noises), *data.event, generator=torch.Generator().manual_seed(0))
    print(f"{data.describe()}; {len(x)} noises from σ = 80, {torch.get_num_threads()} threads")
    rows = []
    for tolerance in (1e-2, 1e-3, 1e-4, 1e-6):
        start = time.perf_counter()
        landing = FlowMap(D, tolerance=tolerance).land(x, 80.0)
        rows.append((f"tolerance {tolerance:g}", time.perf_counter() - start, landing.index, landing.nfe.double()))
    start = time.perf_counter()
    states = trajectory(D, x, log_linear(128, sigma_min=0.01), solver="heun")
    found = capture(D, states)
    rows.append(("Heun, 128 levels", time.perf_counter() - start, found.index, torch.tensor([torch.nan])))
    print("                    seconds   calls: mean   most   other landings")
    for label, seconds, index, nfe in rows:
        other = int((index != rows[-2][2]).sum())
        print(f"{label:18}  {seconds:7.1f}   {float(nfe.mean()):11.1f}   {float(nfe.max()):4.0f}   {other:4}")


if __name__ == "__main__":
    main(*sys.argv[1:])
