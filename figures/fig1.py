"""Figure 1: the optimal denoiser E[x0 | x] at many noise levels, and the border (section D.1 of the paper).

Top, five deltas on a line: E[x0 | x] against x as curves and as a heat map over (σ, x). Bottom, images: for a few
sources x0 the noisy x = x0 + σ ε (one ε per source) and E[x0 | x], from σ = 80 down to 0.1 on the EDM grid. Top right,
where the border comes from: the median effective_count over each data set against σ; it is drawn where that median
falls to 2."""

from __future__ import annotations

from collections.abc import Mapping

import matplotlib as mpl
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure, SubFigure
from tqdm import tqdm

from optimal import Dataset, OptimalDenoiser, effective_counts, karras, load

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

TITLE = "Figure 1: the optimal denoiser E[x0 | x] and the border between mode seeking and mode refining"

_SEEKING, _REFINING = "tab:red", "tab:blue"
_QUANTILES = (0.1, 0.5, 0.9)
_LARGE = 2 * 10**8


def compute(config: Config) -> dict[str, np.ndarray]:
    """Everything that is drawn.

    Returns:
        Toy: toy_positions (N,), toy_x (X,), toy_sigmas (S,), toy_mean (S, X), toy_curve_sigmas (C,), toy_curves (C, X),
            toy_counts (S, 3) quantiles 0.1, 0.5, 0.9 over the data, toy_border, toy_border_low, toy_border_high.
        Images: sigmas (K,), sources (M, *event), noisy and means (M, K, *event), counts (K, 3), border, border_low,
            border_high, dataset, size, event, fingerprint, source, licence.

    Raises:
        ValueError: the data set is not one of images.
    """
    data = config.load("emoji")
    if not data.is_image:
        raise ValueError(f"fig1 draws images in its bottom row, {data.name} has points of shape {data.event}")
    return _toy(config) | _images(config, data)


def rows(quick: bool, values: int) -> float:
    """Queries of the optimum of data of so many values, about."""
    draws = 64 if quick or values > _LARGE else 256
    return draws * len(karras(18)) + border_draws(quick, draws, values) * BORDER_LEVELS


def _toy(config: Config) -> dict[str, np.ndarray]:
    data = load("five-deltas")
    D = OptimalDenoiser(data)
    size = 101 if config.quick else 401
    x = torch.linspace(-4, 4, size, dtype=torch.float64)
    sigmas = torch.logspace(np.log10(0.05), np.log10(10), size, dtype=torch.float64)
    curve_sigmas = torch.tensor([0.1, 0.3, 0.6, 1.0, 2.0, 5.0], dtype=torch.float64)
    draws = 500 if config.quick else 4000

    def means(levels: torch.Tensor) -> np.ndarray:
        return D(x.repeat(len(levels))[:, None], levels.repeat_interleave(size)).view(len(levels), size).numpy()

    counts = effective_counts(D, sigmas[::4], draws=draws, generator=generator(config))
    border = border_of(config, D, draws)
    return {
        "toy_positions": data.points.flatten().numpy(),
        "toy_x": x.numpy(),
        "toy_sigmas": sigmas.numpy(),
        "toy_mean": means(sigmas),
        "toy_curve_sigmas": curve_sigmas.numpy(),
        "toy_curves": means(curve_sigmas),
        "toy_count_sigmas": sigmas[::4].numpy(),
        "toy_counts": _quantiles(counts),
        "toy_border": np.array(border.sigma),
        "toy_border_low": np.array(border.low),
        "toy_border_high": np.array(border.high),
        "toy_border_draws": np.array(border.draws),
    }


def _images(config: Config, data: Dataset) -> dict[str, np.ndarray]:
    D = OptimalDenoiser(data)
    sigmas = karras(18)
    sigmas = sigmas[sigmas >= 0.1]
    # Sources spread over the data, since neighbours in a file are often alike.
    index = (torch.arange(3) * len(data) // 3 + len(data) // 7) % len(data)
    x0 = data[index.numpy()]
    eps = torch.randn(x0.shape, generator=generator(config))
    levels = sigmas.float().view(1, -1, *[1] * len(data.event))
    noisy = x0[:, None] + levels * eps[:, None]
    means = D(noisy.flatten(0, 1), sigmas.repeat(len(x0))).view(noisy.shape)
    # A pass over FFHQ-64 takes seconds for every 64 queries.
    draws = 64 if config.quick or data.array.size > _LARGE else 256
    counts = torch.cat(
        [
            effective_counts(D, sigma[None], draws=draws, generator=generator(config))
            for sigma in tqdm(sigmas, desc=f"fig1: effective counts of {data.name}", unit="level")
        ]
    )
    border = border_of(config, D, draws)
    return {
        "sigmas": sigmas.numpy(),
        "sources": x0.numpy(),
        "noisy": noisy.numpy(),
        "means": means.numpy(),
        "counts": _quantiles(counts),
        "border_draws": np.array(border.draws),
        "draws": np.array(draws),
        "border": np.array(border.sigma),
        "border_low": np.array(border.low),
        "border_high": np.array(border.high),
    } | provenance(data)


def _quantiles(counts: torch.Tensor) -> np.ndarray:
    levels = torch.tensor(_QUANTILES, dtype=torch.float64)
    return counts.quantile(levels, dim=1).T.numpy()


def draw(arrays: Mapping[str, np.ndarray]) -> Figure:
    """Put the arrays of `compute` on one page."""
    figure = Figure(figsize=(WIDTH, 9.6), layout="constrained")
    top, bottom = stacked(figure, 3.5, 6.1)
    figure.suptitle(
        "What would the perfect denoiser do?   E[x0 | x] = Σ wⱼ yⱼ over the data points yⱼ", fontsize=TITLE_SIZE
    )
    curves, heat, count = top.subplots(1, 3, width_ratios=(1, 1.25, 1))
    _draw_curves(curves, arrays)
    _draw_heat(top, heat, arrays)
    _draw_counts(count, arrays)
    _draw_strip(bottom, arrays)
    return figure


def _draw_curves(axes: Axes, arrays: Mapping[str, np.ndarray]) -> None:
    positions, sigmas = arrays["toy_positions"], arrays["toy_curve_sigmas"]
    norm = LogNorm(float(sigmas[0]) / 1.5, float(sigmas[-1]) * 1.5)
    axes.hlines(positions, -4, 4, color="0.85", linewidth=0.8, zorder=0)
    for sigma, curve in zip(sigmas, arrays["toy_curves"], strict=True):
        axes.plot(arrays["toy_x"], curve, color=mpl.colormaps["plasma"](0.85 * norm(sigma)), label=f"σ = {sigma:g}")
    axes.plot(positions, positions, "k*", markersize=9, label="data point")
    axes.set(xlabel="noisy point x", ylabel="E[x0 | x]", xlim=(-4, 4), title="Five points:\nfrom steps to a blend")
    axes.legend(fontsize=SMALL, loc="upper left", handlelength=1, labelspacing=0.15, borderpad=0.25)


def _draw_heat(figure: SubFigure, axes: Axes, arrays: Mapping[str, np.ndarray]) -> None:
    sigmas, positions = arrays["toy_sigmas"], arrays["toy_positions"]
    mesh = axes.pcolormesh(
        sigmas, arrays["toy_x"], arrays["toy_mean"].T, cmap="viridis", shading="gouraud", rasterized=True
    )
    colorbar = figure.colorbar(mesh, ax=axes, label="E[x0 | x]", pad=0.02)
    colorbar.ax.hlines(positions, *colorbar.ax.get_xlim(), color="w", linewidth=1)
    axes.plot(np.full_like(positions, sigmas[0] * 1.08), positions, "k*", markersize=9, clip_on=False)
    axes.set(xscale="log", xlim=(sigmas[-1], sigmas[0]), ylabel="noisy point x", title="The same over (σ, x)")
    axes.set_xlabel("noise level σ (units of the data), from noise to data →")
    plain_ticks(axes, (10, 5, 2, 1, 0.5, 0.2, 0.1))
    border = float(arrays["toy_border"])
    if np.isfinite(border) and border > 0:
        axes.axvline(border, color="w", linestyle="--")
        box = {"facecolor": "w", "alpha": 0.85, "edgecolor": "none", "pad": 2}
        axes.text(border * 1.12, 3.7, "mode seeking", color=_SEEKING, ha="right", va="top", bbox=box)
        axes.text(border / 1.12, 3.7, "mode refining", color=_REFINING, ha="left", va="top", bbox=box)
        axes.text(border / 1.12, -3.7, f"border, σ = {border:.2f}", ha="left", va="bottom", bbox=box, fontsize=SMALL)


def _draw_counts(axes: Axes, arrays: Mapping[str, np.ndarray]) -> None:
    name, size = str(arrays["dataset"]), int(arrays["size"])
    rows = (
        ("five points", arrays["toy_count_sigmas"], arrays["toy_counts"], float(arrays["toy_border"]), "tab:green"),
        (f"{name} (N = {size:,})", arrays["sigmas"], arrays["counts"], float(arrays["border"]), "tab:purple"),
    )
    for (label, sigmas, counts, border, color), offset in zip(rows, ((6, 6), (6, -13)), strict=True):
        axes.plot(sigmas, counts[:, 1], color=color, label=label)
        style = {"color": color, "alpha": 0.2, "linewidth": 0}
        axes.fill_between(sigmas, counts[:, 0], counts[:, 2], **style)
        if np.isfinite(border) and border > 0:
            axes.plot(border, 2, "o", color=color)
            style = {"textcoords": "offset points", "color": color, "fontsize": 9}
            axes.annotate(f"σ = {border:.3g}", (border, 2), offset, **style)
    axes.axhline(2, color="k", linestyle="--", linewidth=1)
    axes.text(0.02, 2.1, "2: border", transform=axes.get_yaxis_transform(), fontsize=SMALL, va="bottom")
    axes.set(
        xscale="log",
        yscale="log",
        ylim=(0.8, None),
        title="Where the border comes from:\nmedian, 10% to 90%",
    )
    axes.set(xlabel="noise level σ (units of the data)", ylabel="effective count, exp(entropy)")
    axes.invert_xaxis()
    plain_ticks(axes, (100, 10, 1, 0.1))
    axes.legend(fontsize=SMALL, loc="upper right")


def _draw_strip(figure: SubFigure, arrays: Mapping[str, np.ndarray]) -> None:
    sigmas, counts, border = arrays["sigmas"], arrays["counts"], float(arrays["border"])
    count, columns = len(arrays["sources"]), len(sigmas)
    axes = figure.subplots()
    gap = 0.35
    before = int((sigmas >= border).sum())
    left = np.arange(columns) + gap * (np.arange(columns) >= before)
    for row in range(count):
        y = -2.15 * row
        for column in range(columns):
            scale = 1 / np.sqrt(1 + sigmas[column] ** 2)
            cell(axes, left[column], y, arrays["noisy"][row, column] * scale)
            cell(axes, left[column], y - 1, arrays["means"][row, column])
        cell(axes, columns + 2 * gap, y - 0.5, arrays["sources"][row])
        axes.text(-0.1, y - 0.5, "noisy x", ha="right", va="center", fontsize=SMALL)
        axes.text(-0.1, y - 1.5, "E[x0 | x]", ha="right", va="center", fontsize=SMALL)
    # Apart from the examples: it is of all data.
    end = -2.15 * count - 0.1
    axes.plot([-0.8, left[-1] + 1], [end + 0.08] * 2, color="0.7", linewidth=0.8)
    for column in range(columns):
        middle = left[column] + 0.5
        axes.text(middle, 0.08, f"{sigmas[column]:.3g}", ha="center", va="bottom", fontsize=SMALL)
        axes.text(middle, end - 0.08, _rounded(counts[column, 1]), ha="center", va="top", fontsize=SMALL)
    axes.text(-0.1, 0.08, "σ =", ha="right", va="bottom", fontsize=SMALL)
    axes.text(
        -0.1, end - 0.08, f"effective count,\nmedian of {int(arrays['draws'])}", ha="right", va="top", fontsize=SMALL
    )
    axes.text(columns + 2 * gap + 0.5, 0.08, "source x0", ha="center", va="bottom", fontsize=SMALL)
    if 0 < before < columns:
        at = left[before] - gap / 2
        axes.plot([at, at], [end - 0.35, 0.75], "k--", linewidth=1.5, clip_on=False)
        interval = f"border, σ = {border:.3g} [{float(arrays['border_low']):.3g}, {float(arrays['border_high']):.3g}]"
        axes.text(at, end - 0.45, interval, ha="center", va="top", fontsize=10)
    else:
        at = left[-1] + 1 if before == columns else 0
    style = {"va": "bottom", "fontsize": 11}
    if before > 0:
        axes.text(at - 0.15, 0.42, "mode seeking: the output is a blend", color=_SEEKING, ha="right", **style)
    if before < columns:
        axes.text(at + 0.15, 0.42, "mode refining: one data point, polished", color=_REFINING, ha="left", **style)
    name = f"{arrays['dataset']}, N = {int(arrays['size']):,}, {arrays['event']}"
    note(
        figure,
        f"{name}, fingerprint {arrays['fingerprint']}; {arrays['source']}; {arrays['licence']}. "
        f"Noisy images are drawn as x/√(1 + σ²). Last row: exp(entropy) of the weights, the median over "
        f"{int(arrays['draws'])} draws of x0 and noise from all data; the border is where it falls to 2, with its 95% "
        "bootstrap interval.",
    )
    axes.set(xlim=(-1.9, columns + 2 * gap + 1.2), ylim=(end - 0.95, 0.95), aspect="equal")
    axes.axis("off")


def _rounded(count: float) -> str:
    return f"{count:,.0f}" if count >= 100 else f"{count:.3g}"
