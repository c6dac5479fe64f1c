"""Where trajectories go: the lines of the probability-flow ODE, coloured by destination, and where they are captured.

Top left, five deltas on a line, over the density of the noisy data; top right, a toy in the plane. Bottom, the data set
itself: a few trajectories from noise to an image, what the denoiser says on the way, and the level at which the
destination is certain."""

from __future__ import annotations

from collections.abc import Mapping

import matplotlib as mpl
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from torch import Tensor

from optimal import Dataset, OptimalDenoiser, capture, load, log_linear, trajectory
from optimal.schedules import start_level

from .common import (
    BORDER_LEVELS,
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

TITLE = "Trajectories of the probability-flow ODE, coloured by destination, with their capture"

_CAPTURED = "tab:green"


def compute(config: Config) -> dict[str, np.ndarray]:
    """Everything that is drawn.

    Returns:
        line_… and plane_…: points, sigmas (S,), paths (S, T, dim) x/√(1 + σ²), index (T,) destination, captured (T,)
        its σ; line_border; line_y (Y,) and line_density (S, Y), the density of x/√(1 + σ²) over its largest value at
        that σ. Images: sigmas (K,), noisy (T, K, *event) x/√(1 + σ²), denoised (T, K, *event), captured (T,), ends (T,
        *event), last_change (T,), border; what the data are.

    Raises:
        ValueError: the data set is not one of images.
    """
    data = config.load("emoji")
    if not data.is_image:
        raise ValueError(f"trajectories draws images in its lower part, {data.name} has points of shape {data.event}")
    line, plane = load("five-deltas"), load("ring", n=8)
    arrays = {f"line_{key}": value for key, value in _toy(config, line, 60).items()}
    arrays |= {f"plane_{key}": value for key, value in _toy(config, plane, 200).items()}
    arrays |= _density(line, arrays["line_sigmas"])
    arrays["line_border"] = np.array(border_of(config, OptimalDenoiser(line), 256).sigma)
    return arrays | _images(config, data)


def rows(quick: bool, values: int) -> float:
    """Queries of the optimum of data of so many values, about."""
    return 8 * (32 if quick else 128) + border_draws(quick, 64, values) * BORDER_LEVELS


def _toy(config: Config, data: Dataset, paths: int) -> dict[str, np.ndarray]:
    D = OptimalDenoiser(data)
    levels = 100 if config.quick else 300
    sigmas = log_linear(levels, sigma_min=0.02, sigma_max=20.0)
    dim = data.event[0]
    if dim == 1:
        # Even in probability: one line for each equal share of the start.
        quantiles = (torch.arange(paths, dtype=torch.float64) + 0.5) / paths
        start = 20.0 * (torch.special.ndtri(quantiles))[:, None] + D.take(torch.arange(len(D))).double().mean(0)
    else:
        start = 20.0 * torch.randn(paths, dim, generator=generator(config, 1), dtype=torch.float64)
    states = list(trajectory(D, start, sigmas, solver="heun"))[:-1]
    found = capture(D, states)
    scaled = torch.stack([state.x / (1 + state.sigma**2) ** 0.5 for state in states])
    return {
        "points": data.points.numpy(),
        "sigmas": sigmas[:-1].numpy(),
        "paths": scaled.numpy(),
        "index": found.index.numpy(),
        "captured": found.sigma.numpy(),
    }


def _density(data: Dataset, sigmas: np.ndarray) -> dict[str, np.ndarray]:
    D = OptimalDenoiser(data)
    y = torch.linspace(-3, 3, 401, dtype=torch.float64)
    rows = []
    for sigma in sigmas:
        log_density = D.posterior(y[:, None] * (1 + sigma**2) ** 0.5, float(sigma)).log_density
        rows.append((log_density - log_density.max()).exp())
    return {"line_y": y.numpy(), "line_density": torch.stack(rows).numpy()}


def _images(config: Config, data: Dataset) -> dict[str, np.ndarray]:
    D = OptimalDenoiser(data)
    high = start_level(D)
    low = high / 8000
    levels = 32 if config.quick else 128
    sigmas = log_linear(levels, sigma_min=low, sigma_max=high)
    start = high * torch.randn(4, *data.event, generator=generator(config, 2))
    states = list(trajectory(D, start, sigmas, solver="heun"))
    found = capture(D, states)
    border = border_of(config, D, 64).sigma
    centre = border if low < border < high else (low * high) ** 0.5
    # Columns even in log σ, from well above the border to well below.
    wanted = torch.logspace(np.log10(min(high, 12 * centre)), np.log10(max(low, centre / 12)), 15, dtype=torch.float64)
    picked = [int((sigmas[:-1].log() - level.log()).abs().argmin()) for level in wanted]

    def column(name: str) -> Tensor:
        return torch.stack([getattr(states[i], name) for i in picked], dim=1)

    chosen = sigmas[picked]
    scale = (1 + chosen.float().square()).rsqrt().view(1, -1, *[1] * len(data.event))
    return provenance(data) | {
        "sigmas": chosen.numpy(),
        "noisy": (column("x") * scale).numpy(),
        "denoised": column("denoised").numpy(),
        "ends": states[-1].x.numpy(),
        "captured": found.sigma.numpy(),
        "last_change": found.last_change.numpy(),
        "border": np.array(border),
    }


def draw(arrays: Mapping[str, np.ndarray]) -> Figure:
    """Put the arrays of `compute` on one page."""
    figure = Figure(figsize=(WIDTH, 11.6), layout="constrained")
    top, bottom = stacked(figure, 4.6, 7.4)
    figure.suptitle("Where the exact flow goes, and when that is decided", fontsize=TITLE_SIZE)
    line, plane = top.subplots(1, 2, width_ratios=(1.6, 1))
    _draw_line(line, arrays)
    _draw_plane(plane, arrays)
    top.legend(*line.get_legend_handles_labels(), loc="outside lower left", frameon=False, fontsize=SMALL)
    _draw_strips(bottom, arrays)
    return figure


def _draw_line(axes: Axes, arrays: Mapping[str, np.ndarray]) -> None:
    sigmas, paths = arrays["line_sigmas"], arrays["line_paths"][:, :, 0]
    axes.pcolormesh(
        sigmas, arrays["line_y"], arrays["line_density"].T, cmap="Greys", vmax=1.6, shading="gouraud", rasterized=True
    )
    colors = mpl.colormaps["tab10"](arrays["line_index"] % 10)
    for path, color in zip(paths.T, colors, strict=True):
        axes.plot(sigmas, path, color=color, linewidth=0.9)
    _draw_captures(axes, sigmas, paths.T, arrays["line_captured"])
    axes.axvline(float(arrays["line_border"]), color="k", linestyle="--", linewidth=1)
    axes.text(float(arrays["line_border"]), 2.92, " border", va="top", fontsize=SMALL)
    points = arrays["line_points"][:, 0]
    axes.plot(np.full_like(points, sigmas[-1]), points, "k*", markersize=11, clip_on=False, zorder=5)
    axes.set(xscale="log", xlim=(sigmas[0], sigmas[-1]), ylim=(-3, 3), ylabel="x / √(1 + σ²)")
    axes.set_title(
        "Five points on a line: each trajectory has the colour\nof the point (star) on which it ends", fontsize=11
    )
    axes.set_xlabel("noise level σ, from noise to data →")
    plain_ticks(axes, (10, 5, 2, 1, 0.5, 0.2, 0.1, 0.05))


def _draw_captures(axes: Axes, sigmas: np.ndarray, paths: np.ndarray, captured: np.ndarray) -> None:
    at = np.array([np.abs(np.log(sigmas / level)).argmin() if level > 0 else -1 for level in captured])
    known = at >= 0
    rows = np.arange(len(paths))[known]
    style = {"s": 12, "color": "w", "edgecolors": "k", "linewidths": 0.7, "zorder": 4}
    axes.scatter(
        sigmas[at[known]],
        paths[rows, at[known]],
        label="captured: the end is certain from here on.  Grey: density of the noisy data, over its maximum at that σ",
        **style,
    )


def _draw_plane(axes: Axes, arrays: Mapping[str, np.ndarray]) -> None:
    sigmas, paths, captured = arrays["plane_sigmas"], arrays["plane_paths"], arrays["plane_captured"]
    colors = mpl.colormaps["tab10"](arrays["plane_index"] % 10)
    for i, color in enumerate(colors):
        axes.plot(*paths[:, i].T, color=color, linewidth=0.7, alpha=0.8)
        if captured[i] > 0:
            at = np.abs(np.log(sigmas / captured[i])).argmin()
            axes.scatter(*paths[at, i], s=7, color="w", edgecolors="k", linewidths=0.6, zorder=4)
    axes.plot(*arrays["plane_points"].T, "k*", markersize=11, zorder=5)
    axes.set(xlim=(-2.6, 2.6), ylim=(-2.6, 2.6), aspect="equal", xlabel="x₁ / √(1 + σ²)", ylabel="x₂ / √(1 + σ²)")
    axes.set_title(
        f"The same in the plane: {len(arrays['plane_points'])} points\non a ring, {len(colors)} starts", fontsize=11
    )


def _draw_strips(figure: SubFigure, arrays: Mapping[str, np.ndarray]) -> None:
    sigmas, captured, border = arrays["sigmas"], arrays["captured"], float(arrays["border"])
    count, columns = len(captured), len(sigmas)
    axes = figure.subplots()
    for row in range(count):
        y = -2.2 * row
        for column in range(columns):
            cell(axes, column, y, arrays["noisy"][row, column])
            cell(axes, column, y - 1, arrays["denoised"][row, column])
        cell(axes, columns + 0.5, y - 0.5, arrays["ends"][row])
        axes.text(-0.1, y - 0.5, "x", ha="right", va="center", fontsize=SMALL)
        axes.text(-0.1, y - 1.5, "D(x, σ)", ha="right", va="center", fontsize=SMALL)
        at = _position(sigmas, captured[row])
        if at is not None:
            axes.plot([at, at], [y - 2.02, y + 0.02], color=_CAPTURED, linewidth=3)
            axes.text(
                at + 0.06, y - 2.0, f"captured, σ = {captured[row]:.3g}", fontsize=SMALL, color=_CAPTURED, va="top"
            )
        at = _position(sigmas, arrays["last_change"][row])
        if at is not None:
            axes.plot([at, at], [y - 2.02, y + 0.02], color="tab:brown", linewidth=2, linestyle=":")
    for column in range(columns):
        axes.text(column + 0.5, 0.1, f"{sigmas[column]:.3g}", ha="center", va="bottom", fontsize=SMALL)
    axes.text(-0.1, 0.1, "σ =", ha="right", va="bottom", fontsize=SMALL)
    axes.text(columns + 1, 0.1, "end", ha="center", va="bottom", fontsize=SMALL)
    bottom = -2.2 * count
    at = _position(sigmas, border)
    if at is not None:
        axes.plot([at, at], [bottom + 0.1, 0.06], "k--", linewidth=1.2)
        axes.text(at, 0.45, f"border, σ = {border:.3g}", ha="center", va="bottom", fontsize=10)
    note(
        figure,
        "Below, four trajectories on images: the state x, drawn as x/√(1 + σ²), and what the denoiser D says of it, "
        "from noise to the image on which it ends. Green bar: from here on the end is certain, by a proof. Brown, "
        "dotted: the last change of the leader, the image nearest to x. Fine steps of Heun's method. "
        f"{arrays['dataset']}, N = {int(arrays['size']):,}, {arrays['event']}, fingerprint {arrays['fingerprint']}; "
        f"{arrays['source']}; {arrays['licence']}.",
    )
    axes.set(xlim=(-1.2, columns + 1.6), ylim=(bottom - 0.1, 1.0), aspect="equal")
    axes.axis("off")


def _position(sigmas: np.ndarray, level: float) -> float | None:
    """Where σ = level lies along columns whose middles are at `sigmas`; None outside."""
    if not sigmas[-1] < level < sigmas[0]:
        return None
    return float(np.interp(-np.log(level), -np.log(sigmas), np.arange(len(sigmas)) + 0.5))
