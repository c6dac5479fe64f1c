"""Quality against calls, every method from the same noises: does the diffusion model beat its students at many steps?

On five points and on digits. Samplers of the optimum and of the trained network (Euler, Heun), and the four students,
each sampled as it is meant to be: consistency models by jumping and noising again (Eq. 37), the others by DDIM. Left,
how many noises end on the point of the exact flow; right, the 2-Wasserstein distance of the samples to the data. On
five points the noises are even in probability."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter
from tqdm import tqdm

from neural.config import TECHNIQUES
from neural.sampled import sample_from
from optimal import FlowMap, OptimalDenoiser, karras

from .common import SMALL, TITLE_SIZE, WIDTH, banded, ends, generator, note, power_ticks, stacked
from .config import Config
from .networks import COLORS, SIGMA_MIN, dataset, network, prepare, sampled, stages

__all__ = ["OWN", "TITLE", "compute", "draw"]

TITLE = "Few steps: quality against denoiser calls for the optimum, a network and its students"
OWN = "the networks of the presets toy and digits; see python -m neural compare"
"""What is drawn of no other data."""

_PRESETS = ("toy", "digits")


_FLOOR = {"color": "0.6", "alpha": 0.2, "linewidth": 0}


def compute(config: Config) -> dict[str, np.ndarray]:
    """Everything that is drawn.

    Returns:
        names (2,), methods (K,), and for method k on data set i, as "0_1_nfe" and so on: nfe (n,); same, wasserstein,
        memorised and distance, (n,) on five points, where the noises are not random, (n, 3) with 95% intervals on
        digits; "0_draws" and "0_floor", () or (3,), the Wasserstein distance of as many exact landings.

    Raises:
        ValueError: --dataset was given.
    """
    config.refuse_dataset("fewstep", OWN)
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
        few = stages(config, preset) if technique == "progressive" else [n for n in counts if n <= 6]
        runs[f"{technique} student"] = {str(n): sampled(config, preset, technique, n) for n in few}
    arrays: dict[str, np.ndarray] = {"methods": np.array([*runs]), "draws": np.array(len(x))}
    home = D.nearest(exact)

    def found(model: Any, arguments: dict[str, Any]) -> tuple[int, dict[str, np.ndarray]]:
        run = sample_from("", model, arguments, D, x, exact, home)
        columns = {name: ends(column) for name, column in run.columns(D).items()}
        return run.nfe, columns if preset == "digits" else {name: column[0] for name, column in columns.items()}

    with tqdm(total=sum(map(len, runs.values())), desc=f"fewstep, {preset}", unit="sampler", leave=False) as bar:
        for k, methods in enumerate(runs.values()):
            rows = []
            for method in methods.values():
                rows.append(found(*method))
                bar.update()
            arrays[f"{k}_nfe"] = np.array([nfe for nfe, _ in rows])
            for name in ("same", "wasserstein", "memorised", "distance"):
                arrays[f"{k}_{name}"] = np.stack([columns[name] for _, columns in rows])
    floor = found(FlowMap(D), {"sigmas": [80.0, 0.0], "solver": "euler"})[1]["wasserstein"]
    return arrays | {"floor": floor}


def _noises(config: Config, preset: str, event: tuple[int, ...]) -> torch.Tensor:
    if preset == "digits":
        return 80 * torch.randn(64 if config.quick else 512, *event, generator=generator(config, 7))
    # Even in probability: drawn at random, 4,000 samples of the data themselves are 0.2 from them in W2.
    draws = 500 if config.quick else 4000
    return 80 * torch.special.ndtri((torch.arange(draws, dtype=torch.float64) + 0.5) / draws).float()[:, None]


def draw(arrays: Mapping[str, np.ndarray]) -> Figure:
    """Put the arrays of `compute` on one page."""
    figure = Figure(figsize=(WIDTH, 11), layout="constrained")
    figure.suptitle("How many calls until sampling a network beats its one-call students?", fontsize=TITLE_SIZE)
    top, bottom = stacked(figure, 1.1, 1)
    axes = [top.subplots(1, 2), bottom.subplots(1, 2)]
    for i, (left, right) in enumerate(axes):
        for k, name in enumerate(arrays["methods"].tolist()):
            style = _style(name) | {"label": name, "markersize": 4}
            for ax, value in ((left, "same"), (right, "wasserstein")):
                x, y = arrays[f"{i}_{k}_nfe"], arrays[f"{i}_{k}_{value}"]
                banded(ax, x, y, **style) if y.ndim == 2 else ax.plot(x, y, **style)
        about = f"{('Five points', 'Digits')[i]}, {int(arrays[f'{i}_draws']):,} noises"
        left.set(ylim=(-0.02, 1.03), ylabel="share on the exact flow's point")
        left.set_title(f"{about}: the right point?", fontsize=11)
        right.set_ylabel(f"{('2-Wasserstein', 'sliced 2-Wasserstein')[i]} distance to the data")
        right.set_title(f"{about}: the right distribution?", fontsize=11)
        _limit(right, arrays, i)
        for ax in (left, right):
            power_ticks(ax)
            ax.set_xlabel("denoiser calls a sample")
            ax.grid(alpha=0.3)
    handles, labels = axes[0][0].get_legend_handles_labels()
    top.legend(handles, labels, loc="outside upper center", ncols=4, fontsize=10, frameon=False)
    note(
        bottom,
        "Left: how many samples are nearest to the data point on which the exact flow from their noise ends. Right: "
        "the distance of the samples, as a distribution, to the data; grey: of as many ends of the exact flow. "
        "Bands: 95% intervals; the noises of five points are not random, but even in probability. In few steps "
        "Heun's correction divides the network's error by a small σ, and samples fly far off.",
    )
    return figure


def _style(name: str) -> dict[str, Any]:
    """Optimum black, network red, dashed with Euler; students in the colours of their techniques."""
    for technique, color in COLORS.items():
        if name.startswith(technique):
            return {"color": color, "marker": "s"}
    line = "--" if name.endswith("euler") else "-"
    return {"color": "k" if name.startswith("optimum") else "tab:red", "marker": "o", "linestyle": line}


def _limit(axes: Axes, arrays: Mapping[str, np.ndarray], i: int) -> None:
    """The axis ends at twice what one call of any method has; what is farther is said in words."""
    methods, floor = arrays["methods"].tolist(), arrays[f"{i}_floor"]
    values = [arrays[f"{i}_{k}_wasserstein"] for k in range(len(methods))]
    values = [value[:, 0] if value.ndim == 2 else value for value in values]
    top = 2 * max(float(value[0]) for value in values)
    axes.set(yscale="log", ylim=(0.7 * min(float(floor.flat[0]), *(float(value.min()) for value in values)), top))
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.axhline(float(floor.flat[0]), color="0.6", linewidth=1)
    if floor.ndim:
        axes.fill_between([0, 1], *floor[1:, None].repeat(2, 1), transform=axes.get_yaxis_transform(), **_FLOOR)
    far = [k for k in range(len(methods)) if float(values[k].max()) > top]
    for line, k in enumerate(sorted(far, key=lambda k: -float(values[k].max()))):
        calls = int(arrays[f"{i}_{k}_nfe"][values[k].argmax()])
        words = f"↑ {methods[k]}: {float(values[k].max()):,.0f} at {calls} calls"
        style = {"ha": "right", "va": "top", "fontsize": SMALL, "color": _style(methods[k])["color"], "zorder": 5}
        style["bbox"] = {"facecolor": "w", "alpha": 0.85, "edgecolor": "none", "pad": 2}
        axes.text(0.98, 0.97 - 0.06 * line, words, transform=axes.transAxes, **style)
