"""The denoiser and its distillation side by side: E[x0 | x], a blend, and the flow map f(x, σ), a data point (Prop. 4).

Top, five deltas: both over (σ, x), in the same colours; the white lines are the exact borders between the basins.
Bottom, images: one source and one noise at many σ: the noisy x, the posterior mean, and where the flow map lands."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from matplotlib.patches import Rectangle

from optimal import Dataset, FlowMap, OptimalDenoiser, karras, load
from optimal.reference import GaussianMixture

from .common import (
    BORDER_LEVELS,
    FLOW,
    SMALL,
    TITLE_SIZE,
    WIDTH,
    border_draws,
    border_of,
    cell,
    generator,
    note,
    plain_ticks,
    provenance,
    stacked,
)
from .config import Config

__all__ = ["TITLE", "compute", "draw", "rows"]

TITLE = "The distilled optimum: the posterior mean beside the flow map, on five points and on images"

_SOURCE, _OTHER = "tab:green", "tab:red"
_LARGE = 2 * 10**8


def compute(config: Config) -> dict[str, np.ndarray]:
    """Everything that is drawn.

    Returns:
        Toy: toy_positions (N,), toy_x (X,), toy_sigmas (S,), toy_mean and toy_flow (S, X), toy_borders (S, N − 1),
        toy_border. Images: sigmas (K,), sources (M, *event), noisy, means and landings (M, K, *event), hit (M, K),
        whether the landing is the source, border; what the data are.

    Raises:
        ValueError: the data set is not one of images.
    """
    data = config.load("emoji")
    if not data.is_image:
        raise ValueError(f"distilled draws images in its bottom row, {data.name} has points of shape {data.event}")
    return _toy(config) | _images(config, data)


def rows(quick: bool, values: int) -> float:
    """Queries of the optimum of data of so many values, about."""
    draws = 64 if quick or values > _LARGE else 256
    return 28 * FLOW + border_draws(quick, draws, values) * BORDER_LEVELS


def _toy(config: Config) -> dict[str, np.ndarray]:
    data = load("five-deltas")
    D = OptimalDenoiser(data)
    size = 81 if config.quick else 301
    x = torch.linspace(-4, 4, size, dtype=torch.float64)
    sigmas = torch.logspace(np.log10(0.05), np.log10(10), size, dtype=torch.float64)
    queries, levels = x.repeat(size)[:, None], sigmas.repeat_interleave(size)
    return {
        "toy_positions": data.points.flatten().numpy(),
        "toy_x": x.numpy(),
        "toy_sigmas": sigmas.numpy(),
        "toy_mean": D(queries, levels).view(size, size).numpy(),
        "toy_flow": FlowMap(D)(queries, levels).view(size, size).numpy(),
        "toy_borders": GaussianMixture(data.points, 0.0).separatrices(sigmas).numpy(),
        "toy_border": np.array(border_of(config, D, 4000).sigma),
    }


def _images(config: Config, data: Dataset) -> dict[str, np.ndarray]:
    D = OptimalDenoiser(data)
    sigmas = karras(18)
    sigmas = sigmas[sigmas >= 0.1]
    count = 2
    # Spread over the data, since neighbours in a file are often alike; other ones than in fig1.
    x0 = data[((torch.arange(count) * len(data) // count + len(data) // 5) % len(data)).numpy()]
    eps = torch.randn(x0.shape, generator=generator(config, 3))
    levels = sigmas.float().view(1, -1, *[1] * len(data.event))
    noisy = x0[:, None] + levels * eps[:, None]
    queries, per_query = noisy.flatten(0, 1), sigmas.repeat(count)
    landings = FlowMap(D)(queries, per_query).view(noisy.shape)
    draws = 64 if config.quick or data.array.size > _LARGE else 256
    return provenance(data) | {
        "sigmas": sigmas.numpy(),
        "sources": x0.numpy(),
        "noisy": noisy.numpy(),
        "means": D(queries, per_query).view(noisy.shape).numpy(),
        "landings": landings.numpy(),
        "hit": (landings == x0[:, None]).flatten(2).all(2).numpy(),
        "border": np.array(border_of(config, D, draws).sigma),
    }


def draw(arrays: Mapping[str, np.ndarray]) -> Figure:
    """Put the arrays of `compute` on one page."""
    figure = Figure(figsize=(WIDTH, 9.6), layout="constrained")
    top, bottom = stacked(figure, 3.7, 6.3)
    figure.suptitle("Denoise, or jump to the end: the posterior mean and the flow map", fontsize=TITLE_SIZE)
    _draw_heat(top, arrays)
    _draw_strip(bottom, arrays)
    return figure


def _draw_heat(figure: SubFigure, arrays: Mapping[str, np.ndarray]) -> None:
    sigmas, positions = arrays["toy_sigmas"], arrays["toy_positions"]
    axes = figure.subplots(1, 2, sharey=True)
    titles = ("E[x0 | x], what denoising learns: a blend", "f(x, σ), what distillation learns: one of the points")
    mesh = None
    for ax, name, title in zip(axes, ("mean", "flow"), titles, strict=True):
        mesh = ax.pcolormesh(
            sigmas,
            arrays["toy_x"],
            arrays[f"toy_{name}"].T,
            cmap="viridis",
            vmin=positions.min(),
            vmax=positions.max(),
            shading="gouraud" if name == "mean" else "nearest",
            rasterized=True,
        )
        ax.plot(np.full_like(positions, sigmas[0] * 1.08), positions, "k*", markersize=9, label="data point")
        ax.set(xscale="log", xlim=(sigmas[-1], sigmas[0]), ylim=(-4, 4))
        ax.set_title(title, fontsize=11)
        ax.set_xlabel("noise level σ, from noise to data →")
        plain_ticks(ax, (10, 5, 2, 1, 0.5, 0.2, 0.1))
        border = float(arrays["toy_border"])
        ax.axvline(border, color="k", linestyle="--", linewidth=1)
        ax.text(border / 1.06, 3.8, f"border, σ = {border:.2f}", ha="left", va="top", fontsize=SMALL)
    for separatrix in arrays["toy_borders"].T:
        axes[1].plot(sigmas, separatrix, color="w", linewidth=1.2)
    axes[1].plot([], [], color="w", label="border between basins, exact")
    axes[1].legend(fontsize=SMALL, loc="lower left", facecolor="0.6")
    axes[0].set_ylabel("noisy point x")
    assert mesh is not None
    colorbar = figure.colorbar(mesh, ax=list(axes), label="output", pad=0.01, fraction=0.03)
    colorbar.ax.hlines(positions, *colorbar.ax.get_xlim(), color="w", linewidth=1)


def _draw_strip(figure: SubFigure, arrays: Mapping[str, np.ndarray]) -> None:
    sigmas, border = arrays["sigmas"], float(arrays["border"])
    count, columns = len(arrays["sources"]), len(sigmas)
    axes = figure.subplots()
    gap = 0.35
    before = int((sigmas >= border).sum())
    left = np.arange(columns) + gap * (np.arange(columns) >= before)
    scale = 1 / np.sqrt(1 + sigmas**2)
    for row in range(count):
        y = -3.2 * row
        for column in range(columns):
            cell(axes, left[column], y, arrays["noisy"][row, column] * scale[column])
            cell(axes, left[column], y - 1, arrays["means"][row, column])
            cell(axes, left[column], y - 2, arrays["landings"][row, column])
            color = _SOURCE if arrays["hit"][row, column] else _OTHER
            axes.add_patch(
                Rectangle((left[column] + 0.02, y - 2.98), 0.96, 0.96, fill=False, edgecolor=color, linewidth=2)
            )
        cell(axes, columns + 2 * gap, y - 1, arrays["sources"][row])
        for place, label in enumerate(("noisy x", "E[x0 | x]", "f(x, σ)")):
            axes.text(-0.1, y - 0.5 - place, label, ha="right", va="center", fontsize=SMALL)
    for column in range(columns):
        axes.text(left[column] + 0.5, 0.08, f"{sigmas[column]:.3g}", ha="center", va="bottom", fontsize=SMALL)
    axes.text(-0.1, 0.08, "σ =", ha="right", va="bottom", fontsize=SMALL)
    axes.text(columns + 2 * gap + 0.5, 0.08, "source x0", ha="center", va="bottom", fontsize=SMALL)
    end = -3.2 * count + 0.2
    if 0 < before < columns:
        _draw_border(axes, left[before] - gap / 2, end, border)
    note(
        figure,
        f"{arrays['dataset']}, N = {int(arrays['size']):,}, {arrays['event']}, fingerprint {arrays['fingerprint']}; "
        f"{arrays['source']}; {arrays['licence']}. "
        "One noise for each source, at every σ; noisy images are drawn as x/√(1 + σ²). The flow map always lands on an "
        "image of the data, exactly: framed green where it is the source, red where it is another.",
    )
    axes.set(xlim=(-1.35, columns + 2 * gap + 1.05), ylim=(end - 0.15, 0.85), aspect="equal")
    axes.axis("off")


def _draw_border(axes: Axes, at: float, end: float, border: float) -> None:
    axes.plot([at, at], [end - 0.1, 0.3], "k--", linewidth=1.5, clip_on=False)
    axes.text(at, 0.4, f"border, σ = {border:.3g}", ha="center", va="bottom", fontsize=10)
