"""Quality against calls, every method from the same noises: does the diffusion model beat its students at many steps?

On five deltas. Samplers of the optimum and of the trained network (Euler, Heun), and the four students, each sampled as
it is meant to be: consistency models by jumping and noising again (Eq. 37), the others by DDIM. Left, how many noises
end on the point of the exact flow; right, the 2-Wasserstein distance of the samples to the data. The noises are even in
probability."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullLocator

from neural import compare
from optimal import FlowMap, OptimalDenoiser, karras, load

from .common import generator
from .config import Config
from .networks import network, student

__all__ = ["TITLE", "compute", "draw"]

TITLE = "Few steps: quality against denoiser calls for the optimum, a network and its students"

_SIGMA_MIN = 0.02


def compute(config: Config) -> dict[str, np.ndarray]:
    """Everything that is drawn.

    Returns:
        methods (K,), and for method i, as "0_nfe" and so on: nfe, same, wasserstein, memorised, distance (n,); draws;
        floor, the Wasserstein distance of as many exact landings.

    Raises:
        ValueError: --dataset was given.
    """
    if config.dataset:
        raise ValueError("fewstep shows the networks of the preset toy; compare yours with python -m neural compare")
    data = load("five-deltas")
    D = OptimalDenoiser(data)
    draws = 500 if config.quick else 4000
    # Even in probability: drawn at random, 4,000 samples of the data themselves are 0.2 from them in W2.
    x = 80 * torch.special.ndtri((torch.arange(draws, dtype=torch.float64) + 0.5) / draws).float()[:, None]
    exact = FlowMap(D)(x, 80.0)
    steps = (1, 2, 4) if config.quick else (1, 2, 3, 4, 6, 8, 12, 16, 24, 32)
    runs: dict[str, tuple[Any, dict[str, Any], tuple[int, ...]]] = {}
    models = {"optimum": D, "network": network(config, "toy")}
    for name, model in models.items():
        for solver in ("euler", "heun"):
            runs[f"{name}, {solver}"] = (model, {"solver": solver}, steps)
    few = tuple(n for n in steps if n <= 6)
    runs["consistency student"] = (student(config, "toy", "consistency"), {"solver": "consistency"}, few)
    runs["knowledge student"] = (student(config, "toy", "knowledge"), {"solver": "euler"}, few)
    runs["multi-step knowledge student"] = (student(config, "toy", "multistep"), {"solver": "euler"}, few)
    arrays: dict[str, np.ndarray] = {"methods": np.array([*runs, "progressive students"]), "draws": np.array(draws)}
    for i, (model, options, counts) in enumerate(runs.values()):
        methods = {str(n): (model, _arguments(config, n, options)) for n in counts}
        arrays |= _row(i, compare(methods, D, x, reference=exact))
    methods = {}
    for n in (1, 2, 4, 8):
        model = student(config, "toy", "progressive", f"steps-{n}")
        grid = karras(32, sigma_min=_SIGMA_MIN)
        grid = torch.cat([grid[:-1][:: (len(grid) - 1) // n], grid[-1:]])
        methods[str(n)] = (model, {"sigmas": grid, "solver": "euler"})
    arrays |= _row(len(runs), compare(methods, D, x, reference=exact))
    floor = compare({"exact": (FlowMap(D), {"sigmas": [80.0, 0.0], "solver": "euler"})}, D, x, reference=exact)
    return arrays | {"floor": np.array(floor[0]["wasserstein"])}


def _arguments(config: Config, n: int, options: dict[str, Any]) -> dict[str, Any]:
    return options | {"sigmas": karras(n, sigma_min=_SIGMA_MIN), "generator": generator(config, 6)}


def _row(i: int, rows: list[dict[str, Any]]) -> dict[str, np.ndarray]:
    names = ("nfe", "same", "wasserstein", "memorised", "distance")
    return {f"{i}_{name}": np.array([row[name] for row in rows]) for name in names}


def draw(arrays: Mapping[str, np.ndarray]) -> Figure:
    """Put the arrays of `compute` on one page."""
    figure = Figure(figsize=(14, 6.2), layout="constrained")
    figure.suptitle("Does the diffusion model beat its students, and from how many steps on?", fontsize=15)
    left, right = figure.subplots(1, 2)
    for i, name in enumerate(arrays["methods"]):
        style = {"color": f"C{i}", "marker": "o", "markersize": 4, "linestyle": "--" if "network" in str(name) else "-"}
        left.plot(arrays[f"{i}_nfe"], arrays[f"{i}_same"], label=str(name), **style)
        right.plot(arrays[f"{i}_nfe"], arrays[f"{i}_wasserstein"], label=str(name), **style)
    right.axhline(float(arrays["floor"]), color="0.6", linewidth=1)
    right.annotate(
        "exact landings", (0.99, float(arrays["floor"])), xycoords=right.get_yaxis_transform(), ha="right", va="top"
    )
    left.set(ylabel="share that ends on the exact flow's data point", ylim=(0, 1.03))
    right.set(ylabel="2-Wasserstein distance to the data", yscale="log")
    for ax in (left, right):
        ax.set_xscale("log", base=2)
        ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        ax.xaxis.set_minor_locator(NullLocator())
        ax.set_xlabel("denoiser calls a sample")
        ax.grid(alpha=0.3)
    handles, labels = left.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4, fontsize=9, frameon=False)
    return figure
