"""Quality against calls, every method from the same noises: does the diffusion model beat its students at many steps?

On five deltas and on digits. Samplers of the optimum and of the trained network (Euler, Heun), and the four students,
each sampled as it is meant to be: consistency models by jumping and noising again (Eq. 37), the others by DDIM. Left,
how many noises end on the point of the exact flow; right, the 2-Wasserstein distance of the samples to the data. On
five deltas the noises are even in probability."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullLocator

from neural import compare
from neural.config import TECHNIQUES
from optimal import FlowMap, OptimalDenoiser, karras

from .common import generator
from .config import Config
from .networks import SIGMA_MIN, dataset, network, prepare, sampled

__all__ = ["TITLE", "compute", "draw"]

TITLE = "Few steps: quality against denoiser calls for the optimum, a network and its students"

_PRESETS = ("toy", "digits")


def compute(config: Config) -> dict[str, np.ndarray]:
    """Everything that is drawn.

    Returns:
        names (2,), methods (K,), and for method k on data set i, as "0_1_nfe" and so on: nfe, same, wasserstein,
        memorised, distance (n,); "0_draws" and "0_floor", the Wasserstein distance of as many exact landings.

    Raises:
        ValueError: --dataset was given.
    """
    if config.dataset:
        raise ValueError("fewstep shows the networks of the presets toy and digits; see python -m neural compare")
    prepare(config, _PRESETS, _PRESETS)
    arrays: dict[str, np.ndarray] = {}
    for i, preset in enumerate(_PRESETS):
        arrays |= {f"{i}_{key}": value for key, value in _column(config, preset).items()}
    return arrays | {"names": np.array(_PRESETS), "methods": arrays["0_methods"]}


def _column(config: Config, preset: str) -> dict[str, np.ndarray]:
    data = dataset(preset)
    D, net = OptimalDenoiser(data), network(config, preset)
    x = _noises(config, preset, data.event)
    exact = FlowMap(D)(x, 80.0)
    counts = (1, 2, 4) if config.quick else (1, 2, 3, 4, 6, 8, 12, 16, 24, 32)
    runs: dict[str, dict[str, Any]] = {}
    for name, model in {"optimum": D, "network": net}.items():
        for solver in ("euler", "heun"):
            runs[f"{name}, {solver}"] = {
                str(n): (model, {"solver": solver, "sigmas": karras(n, sigma_min=SIGMA_MIN)}) for n in counts
            }
    for technique in TECHNIQUES:
        few = (1, 2, 4, 8) if technique == "progressive" else [n for n in counts if n <= 6]
        runs[f"{technique} student"] = {str(n): sampled(config, preset, technique, n) for n in few}
    arrays: dict[str, np.ndarray] = {"methods": np.array([*runs]), "draws": np.array(len(x))}
    for k, methods in enumerate(runs.values()):
        rows = compare(methods, D, x, reference=exact, progress=True)
        for name in ("nfe", "same", "wasserstein", "memorised", "distance"):
            arrays[f"{k}_{name}"] = np.array([row[name] for row in rows])
    floor = compare({"exact": (FlowMap(D), {"sigmas": [80.0, 0.0], "solver": "euler"})}, D, x, reference=exact)
    return arrays | {"floor": np.array(floor[0]["wasserstein"])}


def _noises(config: Config, preset: str, event: tuple[int, ...]) -> torch.Tensor:
    if preset == "digits":
        return 80 * torch.randn(64 if config.quick else 512, *event, generator=generator(config, 7))
    # Even in probability: drawn at random, 4,000 samples of the data themselves are 0.2 from them in W2.
    draws = 500 if config.quick else 4000
    return 80 * torch.special.ndtri((torch.arange(draws, dtype=torch.float64) + 0.5) / draws).float()[:, None]


def draw(arrays: Mapping[str, np.ndarray]) -> Figure:
    """Put the arrays of `compute` on one page."""
    figure = Figure(figsize=(14, 11), layout="constrained")
    figure.suptitle("Does the diffusion model beat its students, and from how many steps on?", fontsize=15)
    axes = figure.subplots(2, 2)
    for i, (left, right) in enumerate(axes):
        for k, name in enumerate(arrays["methods"]):
            style = {"color": f"C{k}", "marker": "o", "markersize": 4}
            style["linestyle"] = "--" if "network" in str(name) else "-"
            left.plot(arrays[f"{i}_{k}_nfe"], arrays[f"{i}_{k}_same"], label=str(name), **style)
            right.plot(arrays[f"{i}_{k}_nfe"], arrays[f"{i}_{k}_wasserstein"], label=str(name), **style)
        floor = float(arrays[f"{i}_floor"])
        right.axhline(floor, color="0.6", linewidth=1)
        right.annotate("exact landings", (0.99, floor), xycoords=right.get_yaxis_transform(), ha="right", va="top")
        about = f"{('five deltas', 'digits')[i]}, {int(arrays[f'{i}_draws']):,} noises"
        left.set(ylabel="share that ends on the exact flow's data point", ylim=(0, 1.03), title=about)
        kind = ("2-Wasserstein", "sliced 2-Wasserstein")[i]
        right.set(ylabel=f"{kind} distance to the data", yscale="log", title=about)
        for ax in (left, right):
            ax.set_xscale("log", base=2)
            ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
            ax.xaxis.set_minor_locator(NullLocator())
            ax.grid(alpha=0.3)
    for ax in axes[1]:
        ax.set_xlabel("denoiser calls a sample")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4, fontsize=9, frameon=False)
    return figure
