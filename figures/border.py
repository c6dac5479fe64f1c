"""Where the border lies: what happens to the posterior, and to trajectories, between noise and data.

One column a data set. Top, effective_count along the forward process x = x0 + σ ε; middle, the probability that the
leading point is the source, and MMSE over the data's variance; bottom, the share of ODE trajectories that are already
captured (certified to end where they do), and that have made their last change of leader. Lines across all three mark
the border, the collapse by excess entropy, and the closed formulas σ_S and σ_C of Biroli et al. 2024."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, NullFormatter
from tqdm import tqdm

from optimal import (
    Dataset,
    OptimalDenoiser,
    capture,
    collapse_border,
    collapse_sigma,
    forward_statistics,
    load,
    log_linear,
    speciation_sigma,
    trajectory,
)
from optimal.regimes import top_eigenvalue

from .common import border_of, generator, log_ticks, provenance, shape_in_words, start_level
from .config import Config

__all__ = ["TITLE", "compute", "draw"]

TITLE = "The border between mode seeking and mode refining, measured"

_DEFAULT = ("five-deltas", "digits", "faces", "emoji")
_COST = (
    (10**5, 2000, 1000, 128),
    (10**7, 512, 256, 128),
    (5 * 10**7, 256, 64, 128),
    (3 * 10**8, 128, 48, 64),
    (10**12, 64, 16, 64),
)
"""Up to so many values in the data: draws of (x0, ε), trajectories, and steps of each."""
_WIDE, _THIN = 3.5, 1.2
_MARKS = {
    "border": ("0.45", "-", "border: median count = 2"),
    "collapse": ("tab:orange", "-", "collapse, measured: mean entropy = 1 nat"),
    "collapse_formula": ("tab:orange", ":", r"$\sigma_C = s/\sqrt{N^{2/d} - 1}$, for Gaussian data"),
    "speciation": ("tab:green", ":", r"$\sigma_S = \sqrt{\Lambda - 1}$, speciation"),
}


def compute(config: Config) -> dict[str, np.ndarray]:
    """Everything that is drawn.

    Returns:
        names (K,), and for column i the arrays of `_column`, as "0_sigmas" and so on; with --dataset also what that
        data set is.
    """
    datasets = [load("five-deltas"), config.load("digits")] if config.dataset else [load(name) for name in _DEFAULT]
    arrays: dict[str, np.ndarray] = {"names": np.array([data.name for data in datasets])}
    with tqdm(datasets, desc="border", unit="data set", leave=False) as bar:
        for i, data in enumerate(bar):
            bar.set_postfix_str(data.name)
            arrays |= {f"{i}_{key}": value for key, value in _column(config, data).items()}
    return arrays | (provenance(datasets[1]) if config.dataset else {})


def _column(config: Config, data: Dataset) -> dict[str, np.ndarray]:
    """One data set.

    Returns:
        Along the forward process: sigmas (S,), counts (S, 3) quantiles 0.1, 0.5, 0.9, found (S,), mmse (S,) and
        mmse_slope (S,), dMMSE/dlnσ, both over the data's total variance. Of T trajectories: captured and last_change
        (T,), nan where there is none. The marks of `_MARKS`; border_low, border_high, draws; what the data are.
    """
    D = OptimalDenoiser(data)
    draws, paths, steps = next(cost for values, *cost in _COST if data.array.size <= values)
    levels = 33
    if config.quick:
        draws, paths, levels, steps = min(draws, 64), min(paths, 16), 16, 48
    high = start_level(D)
    low = high / 8000
    sigmas = torch.logspace(np.log10(high), np.log10(low), levels, dtype=torch.float64)
    along = forward_statistics(D, sigmas, draws=draws, derivative=True, generator=generator(config), progress=True)
    border = border_of(config, D, draws)
    collapse = collapse_border(D, draws=draws, generator=generator(config), progress=True)
    start = high * torch.randn(paths, *data.event, generator=generator(config, 1))
    states = trajectory(D, start, log_linear(steps, sigma_min=low, sigma_max=high), solver="heun")
    with tqdm(states, desc="trajectories, until all are captured", total=steps + 1, unit="level", leave=False) as bar:
        found = capture(D, bar)
    total = D.standard_deviation**2 * math.prod(data.event)
    quantiles = torch.tensor([0.1, 0.5, 0.9], dtype=torch.float64)
    return provenance(data) | {
        "sigmas": sigmas.numpy(),
        "counts": along.effective_count.quantile(quantiles, dim=1).T.numpy(),
        "found": along.source_probability.numpy(),
        "mmse": (along.mmse / total).numpy(),
        "mmse_slope": (along.mmse_derivative * sigmas / total).numpy(),
        "captured": found.sigma.numpy(),
        "last_change": found.last_change.numpy(),
        "border": np.array(border.sigma),
        "border_low": np.array(border.low),
        "border_high": np.array(border.high),
        "collapse": np.array(collapse.sigma),
        "collapse_formula": np.array(collapse_sigma(len(data), math.prod(data.event), D.standard_deviation)),
        "speciation": np.array(speciation_sigma(top_eigenvalue(D))),
        "draws": np.array(draws),
    }


def draw(arrays: Mapping[str, np.ndarray]) -> Figure:
    """Put the arrays of `compute` on one page."""
    count = len(arrays["names"])
    figure = Figure(figsize=(1.5 + 4.6 * count, 10.5), layout="constrained")
    figure.suptitle("From noise to data: when does the optimal denoiser stop choosing?", fontsize=15)
    axes = figure.subplots(3, count, squeeze=False, sharex="col")
    for i in range(count):
        column = {key.partition("_")[2]: value for key, value in arrays.items() if key.startswith(f"{i}_")}
        _draw_counts(axes[0, i], column)
        _draw_found(axes[1, i], column)
        _draw_capture(axes[2, i], column)
        for row in axes[:, i]:
            _draw_marks(row, column)
    axes[0, 0].set_ylabel("effective count, exp(entropy)")
    axes[1, 0].set_ylabel("probability; share of the variance")
    axes[2, 0].set_ylabel("share of trajectories")
    for row in axes:
        row[0].legend(fontsize=8, loc="best")
    handles = [
        Line2D([], [], color=color, ls=style, linewidth=_WIDE if name == "border" else _THIN, label=label)
        for name, (color, style, label) in _MARKS.items()
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(_MARKS), fontsize=9, frameon=False)
    return figure


def _draw_counts(axes: Axes, column: Mapping[str, np.ndarray]) -> None:
    counts, size = column["counts"], int(column["size"])
    axes.plot(column["sigmas"], counts[:, 1], color="tab:purple", label="median over the data")
    axes.fill_between(
        column["sigmas"], counts[:, 0], counts[:, 2], color="tab:purple", alpha=0.2, linewidth=0, label="10% to 90%"
    )
    axes.axhline(2, color="0.6", linewidth=0.8)
    interval = f"[{float(column['border_low']):.3g}, {float(column['border_high']):.3g}]"
    place = f"border σ = {float(column['border']):.3g} {interval}"
    if column["sigmas"][-1] < float(column["border"]) < column["sigmas"][0]:
        axes.plot(float(column["border"]), 2, "o", color="k", markersize=6)
    axes.set(yscale="log", ylim=(0.8, 1.5 * size))
    powers = [10**power for power in range(1, len(str(size)))]
    axes.yaxis.set_major_locator(FixedLocator([1, 2, *([3, 5] if size < 10 else []), *powers]))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.set_title(f"{column['dataset']}: N = {size:,}, {shape_in_words(column)}\n{place}", fontsize=10)


def _draw_found(axes: Axes, column: Mapping[str, np.ndarray]) -> None:
    axes.plot(column["sigmas"], column["found"], color="tab:blue", label="P(leading point = source)")
    axes.plot(column["sigmas"], column["mmse"], color="tab:red", label="MMSE / variance of the data")
    axes.plot(column["sigmas"], column["mmse_slope"], color="tab:red", linestyle="--", label="its slope, d/d ln σ")
    axes.set(ylim=(-0.03, None))


def _draw_capture(axes: Axes, column: Mapping[str, np.ndarray]) -> None:
    for name, color, label in (
        ("last_change", "tab:brown", "made their last change of leader"),
        ("captured", "k", "captured: destination certain"),
    ):
        values = column[name]
        if name == "last_change":
            # Trajectories that never changed their leader had made their last change from the start.
            values = np.where(np.isnan(values), column["sigmas"][0], values)
        reached = np.sort(values[~np.isnan(values)])[::-1]
        x = np.concatenate([column["sigmas"][:1], reached, column["sigmas"][-1:]])
        y = np.concatenate([[0], np.arange(1, len(reached) + 1), [len(reached)]]) / len(values)
        axes.step(x, y, where="post", color=color, label=label)
    draws, paths = int(column["draws"]), len(column["captured"])
    axes.text(
        0.98,
        0.04,
        f"{draws:,} draws of (x0, ε)\n{paths:,} trajectories",
        transform=axes.transAxes,
        fontsize=8,
        ha="right",
    )
    axes.set(xscale="log", ylim=(-0.03, 1.03), xlabel="noise level σ, from noise to data →")
    sigmas = column["sigmas"]
    axes.set_xlim(sigmas[0], sigmas[-1])
    log_ticks(axes, sigmas[-1], sigmas[0])


def _draw_marks(axes: Axes, column: Mapping[str, np.ndarray]) -> None:
    low, high = column["sigmas"][-1], column["sigmas"][0]
    for name, (color, style, _) in _MARKS.items():
        if low < float(column[name]) < high:
            # The border is wide, and under the others: on images the collapse lies on it.
            width, layer = (_WIDE, 0.9) if name == "border" else (_THIN, 1)
            axes.axvline(float(column[name]), color=color, linestyle=style, linewidth=width, zorder=layer)
