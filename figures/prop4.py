"""What Prop. 4 says, measured: does the flow map land on the source, on the nearest point, near E[x0 | x]?

Top, five points: the exact basins over (σ, x), and where two points are equally near (dotted). Below, a column for each
data set, along x = x0 + σ ε: how often the landing is the source x0, the nearest data point (which is the leader of the
posterior), and the one nearest to E[x0 | x]; dashed, how often the leader is the source, the most that any function of
x can reach; then the distance between the landing and E[x0 | x], over that of two points of the data."""

from __future__ import annotations

import math
from collections.abc import Mapping

import matplotlib as mpl
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from tqdm import tqdm

from optimal import Dataset, OptimalDenoiser, landing_statistics, load
from optimal.reference import GaussianMixture
from optimal.schedules import start_level

from .common import (
    BORDER_LEVELS,
    FLOW,
    SMALL,
    TITLE_SIZE,
    WIDTH,
    banded,
    border_draws,
    border_of,
    generator,
    log_ticks,
    note,
    plain_ticks,
    provenance,
    shape_in_words,
    shares,
    stacked,
)
from .config import Config

__all__ = ["TITLE", "compute", "draw", "rows"]

TITLE = "Proposition 4, measured: where the flow map lands, against the source, the nearest point and E[x0 | x]"

_DEFAULT = ("five-deltas", "digits", "faces", "emoji")
_COST = ((10**5, 1000, 25), (10**6, 256, 25), (5 * 10**7, 96, 13), (3 * 10**8, 16, 11), (10**12, 8, 9))
"""Up to so many values in the data: draws of (x0, ε), and levels."""
_LINES = {
    "source": ("tab:green", "-", "landing = source"),
    "leader": ("tab:blue", "-", "landing = nearest data point = leader"),
    "nearest_to_mean": ("tab:orange", "-", "landing = data point nearest to E[x0 | x]"),
    "leader_is_source": ("0.4", "--", "leader = source (the best guess)"),
}


def compute(config: Config) -> dict[str, np.ndarray]:
    """Everything that is drawn.

    Returns:
        names (K,), and for column i the arrays of `_column`, as "0_sigmas" and so on; basin_sigmas (S,), basin_borders
        (S, N − 1) and basin_points (N,) of five deltas; with --dataset also what that data set is.
    """
    line = load("five-deltas")
    datasets = [line, config.load("digits")] if config.dataset else [load(name) for name in _DEFAULT]
    sigmas = torch.logspace(np.log10(0.05), np.log10(20), 200, dtype=torch.float64)
    arrays: dict[str, np.ndarray] = {
        "names": np.array([data.name for data in datasets]),
        "basin_sigmas": sigmas.numpy(),
        "basin_borders": GaussianMixture(line.points, 0.0).separatrices(sigmas).numpy(),
        "basin_points": np.sort(line.points.flatten().numpy()),
    }
    with tqdm(datasets, desc="prop4", unit="data set", leave=False) as bar:
        for i, data in enumerate(bar):
            bar.set_postfix_str(data.name)
            arrays |= {f"{i}_{key}": value for key, value in _column(config, data).items()}
    return arrays | (provenance(datasets[1]) if config.dataset else {})


def rows(quick: bool, values: int) -> float:
    """Queries of the optimum of data of so many values, about."""
    draws, levels = next(cost for most, *cost in _COST if values <= most)
    draws, levels = (min(draws, 32), 9) if quick else (draws, levels)
    return draws * levels * FLOW + border_draws(quick, max(draws, 64), values) * BORDER_LEVELS


def _column(config: Config, data: Dataset) -> dict[str, np.ndarray]:
    """One data set.

    Returns:
        sigmas (S,), the shares of `_LINES` (S, 3) with their 95% intervals, distance (S, 3) quantiles 0.1, 0.5, 0.9
        over that of two points of the data, border, draws; what the data are.
    """
    D = OptimalDenoiser(data)
    draws, levels = next(cost for values, *cost in _COST if data.array.size <= values)
    if config.quick:
        draws, levels = min(draws, 32), 9
    high = start_level(D)
    border = border_of(config, D, max(draws, 64)).sigma
    low = high / 8000
    if border > 0 and math.isfinite(border):
        # Nothing changes far below the border.
        low = max(low, border / 20)
    sigmas = torch.logspace(np.log10(high), np.log10(low), levels, dtype=torch.float64)
    found = landing_statistics(D, sigmas, draws=draws, generator=generator(config), progress=True)
    unit = D.standard_deviation * math.sqrt(2 * math.prod(data.event)) or 1.0
    quantiles = torch.tensor([0.1, 0.5, 0.9], dtype=torch.float64)
    return (
        provenance(data)
        | {name: shares(getattr(found, name)) for name in _LINES}
        | {
            "sigmas": sigmas.numpy(),
            "distance": (found.distance / unit).quantile(quantiles, dim=1).T.numpy(),
            "border": np.array(border),
            "draws": np.array(draws),
        }
    )


def draw(arrays: Mapping[str, np.ndarray]) -> Figure:
    """Put the arrays of `compute` on one page."""
    count = len(arrays["names"])
    figure = Figure(figsize=(WIDTH, 11.5), layout="constrained")
    figure.suptitle(
        "Where does the flow map land? On a data point; on the source only at low noise", fontsize=TITLE_SIZE
    )
    top, bottom = stacked(figure, 3.7, 7.8)
    _draw_basins(top.subplots(), arrays)
    axes = bottom.subplots(2, count, squeeze=False, sharex="col")
    for i in range(count):
        column = {key.partition("_")[2]: value for key, value in arrays.items() if key.startswith(f"{i}_")}
        _draw_shares(axes[0, i], column)
        _draw_distance(axes[1, i], column)
    axes[0, 0].set_ylabel("share of draws")
    axes[1, 0].set_ylabel("distance of the landing from E[x0 | x]\n(1: between two points of the data)")
    axes[1, 0].legend(fontsize=SMALL, loc="upper right")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    bottom.legend(handles, labels, loc="outside upper center", ncols=2, fontsize=10, frameon=False)
    note(
        bottom,
        "x = x0 + σ ε, where x0, the source, is drawn from the data. Landing: the data point f(x, σ) on which the "
        "exact flow from x ends; its basin is all x that end on it. Leader: the data point with the largest weight, "
        "which is the nearest to x. Dashed vertical: the border. Grey horizontal: one of N. Bands of shares: 95% "
        "intervals.",
    )
    return figure


def _draw_basins(axes: Axes, arrays: Mapping[str, np.ndarray]) -> None:
    sigmas, points = arrays["basin_sigmas"], arrays["basin_points"]
    unit = np.sqrt(1 + sigmas**2)
    edges = np.column_stack([np.full(len(sigmas), -1e3), arrays["basin_borders"], np.full(len(sigmas), 1e3)])
    colors = mpl.colormaps["tab10"](np.arange(len(points)) % 10)
    for i, point in enumerate(points):
        axes.fill_between(sigmas, edges[:, i] / unit, edges[:, i + 1] / unit, color=colors[i], alpha=0.35, linewidth=0)
        axes.plot(sigmas, point / unit, color=colors[i], linewidth=1.5)
        axes.plot(sigmas[0], point / unit[0], "*", color=colors[i], markersize=12, clip_on=False, markeredgecolor="k")
    for middle in (points[1:] + points[:-1]) / 2:
        axes.plot(sigmas, middle / unit, "k:", linewidth=1)
    axes.axvline(float(arrays["0_border"]), color="k", linestyle="--", linewidth=1)
    axes.text(float(arrays["0_border"]) / 1.05, 2.4, "border", ha="left", va="top", fontsize=SMALL)
    axes.set(xscale="log", xlim=(sigmas[-1], sigmas[0]), ylim=(-2.5, 2.5), ylabel="x / √(1 + σ²)")
    axes.set_xlabel("noise level σ, from noise to data →")
    axes.set_title(
        "Five points (solid lines, stars) and their exact basins, in the same colours; dotted: halfway between two "
        "points",
        fontsize=11,
    )
    plain_ticks(axes, (10, 5, 2, 1, 0.5, 0.2, 0.1))


def _draw_shares(axes: Axes, column: Mapping[str, np.ndarray]) -> None:
    for name, (color, style, label) in _LINES.items():
        banded(axes, column["sigmas"], column[name], color=color, linestyle=style, label=label)
    size = int(column["size"])
    axes.axhline(1 / size, color="0.85", linewidth=0.8)
    axes.set_title(
        f"{column['dataset']}\nN = {size:,}, {shape_in_words(column)}\nborder σ = {float(column['border']):.3g}; "
        f"{int(column['draws']):,} draws",
        fontsize=10,
    )
    axes.set(ylim=(-0.03, 1.03))
    _draw_border(axes, column)


def _draw_distance(axes: Axes, column: Mapping[str, np.ndarray]) -> None:
    sigmas, distance = column["sigmas"], column["distance"]
    axes.plot(sigmas, distance[:, 1], color="tab:red", label="median")
    axes.fill_between(
        sigmas, distance[:, 0], distance[:, 2], color="tab:red", alpha=0.2, linewidth=0, label="10% to 90%"
    )
    axes.set(xscale="log", xlim=(sigmas[0], sigmas[-1]), ylim=(-0.03, None), xlabel="noise level σ →")
    log_ticks(axes, sigmas[-1], sigmas[0])
    _draw_border(axes, column)


def _draw_border(axes: Axes, column: Mapping[str, np.ndarray]) -> None:
    if column["sigmas"][-1] < float(column["border"]) < column["sigmas"][0]:
        axes.axvline(float(column["border"]), color="k", linestyle="--", linewidth=1)
