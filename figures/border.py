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
from optimal.intervals import positive_interval
from optimal.regimes import top_eigenvalue
from optimal.schedules import start_level

from .common import (
    BORDER_LEVELS,
    SMALL,
    TITLE_SIZE,
    WIDTH,
    banded,
    border_of,
    ends,
    generator,
    log_ticks,
    provenance,
    shape_in_words,
    shares,
    stacked,
)
from .config import Config

__all__ = ["TITLE", "compute", "draw", "rows"]

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
    "collapse_formula": (
        "tab:orange",
        ":",
        r"$\sigma_C = s/\sqrt{N^{2/d} - 1}$, for Gaussian data of d values, deviation s",
    ),
    "speciation": ("tab:green", ":", r"$\sigma_S = \sqrt{\Lambda - 1}$, speciation ($\Lambda$: largest variance)"),
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


def rows(quick: bool, values: int) -> float:
    """Queries of the optimum of data of so many values, about."""
    draws, paths, steps = next(cost for most, *cost in _COST if values <= most)
    levels = 33
    if quick:
        draws, paths, levels, steps = min(draws, 64), min(paths, 16), 16, 48
    return 2 * draws * (levels + BORDER_LEVELS) + 2 * paths * steps


def _column(config: Config, data: Dataset) -> dict[str, np.ndarray]:
    """One data set.

    Returns:
        Along the forward process: sigmas (S,), counts (S, 3) quantiles 0.1, 0.5, 0.9; with their 95% intervals, (S, 3)
        each, found, mmse and mmse_slope, dMMSE/dlnσ, both over the data's total variance. Of T trajectories: captured
        and last_change (T,), nan where there is none. The marks of `_MARKS`; border_low, border_high,
        border_draws, draws; what the data are.
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
        "found": shares(along.found),
        "mmse": ends(positive_interval(along.variance / total)),
        "mmse_slope": ends(positive_interval(2 * along.covariance_square / (sigmas.square()[:, None] * total))),
        "captured": found.sigma.numpy(),
        "last_change": found.last_change.numpy(),
        "border": np.array(border.sigma),
        "border_low": np.array(border.low),
        "border_high": np.array(border.high),
        "border_draws": np.array(border.draws),
        "collapse": np.array(collapse.sigma),
        "collapse_formula": np.array(collapse_sigma(len(data), math.prod(data.event), D.standard_deviation)),
        "speciation": np.array(speciation_sigma(top_eigenvalue(D))),
        "draws": np.array(draws),
    }


def draw(arrays: Mapping[str, np.ndarray]) -> Figure:
    """Put the arrays of `compute` on one page."""
    count = len(arrays["names"])
    figure = Figure(figsize=(WIDTH, 11.5), layout="constrained")
    figure.suptitle("From noise to data: when does the optimal denoiser stop choosing?", fontsize=TITLE_SIZE)
    labels = ("effective count,\nexp(entropy)", "probability;\nshare of the variance", "share of trajectories")
    rows = stacked(figure, 4, 3.3, 3.6)
    for page, label, drawing in zip(rows, labels, (_draw_counts, _draw_found, _draw_capture), strict=True):
        axes = page.subplots(1, count, squeeze=False)[0]
        for i, panel in enumerate(axes):
            column = {key.partition("_")[2]: value for key, value in arrays.items() if key.startswith(f"{i}_")}
            drawing(panel, column)
            panel.set(xscale="log", xlim=(column["sigmas"][0], column["sigmas"][-1]))
            log_ticks(panel, column["sigmas"][-1], column["sigmas"][0])
            _draw_marks(panel, column)
        axes[0].set_ylabel(label)
        page.legend(*axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=3, frameon=False)
    handles = [
        Line2D([], [], color=color, ls=style, linewidth=_WIDE if name == "border" else _THIN, label=label)
        for name, (color, style, label) in _MARKS.items()
    ]
    rows[2].legend(handles=handles, loc="outside lower center", ncols=2, frameon=False)
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
    axes.set_title(f"{column['dataset']}\nN = {size:,}, {shape_in_words(column)}\n{place}", fontsize=10)


def _draw_found(axes: Axes, column: Mapping[str, np.ndarray]) -> None:
    banded(axes, column["sigmas"], column["found"], color="tab:blue", label="P(leader = source)")
    banded(axes, column["sigmas"], column["mmse"], color="tab:red", label="MMSE / variance")
    style = {"color": "tab:red", "linestyle": "--", "label": "its slope, d/d ln σ"}
    banded(axes, column["sigmas"], column["mmse_slope"], **style)
    axes.set(ylim=(-0.03, None))


def _draw_capture(axes: Axes, column: Mapping[str, np.ndarray]) -> None:
    for name, color, label in (
        ("last_change", "tab:brown", "last change of leader made"),
        ("captured", "k", "captured: end is certain"),
    ):
        values = column[name]
        if name == "last_change":
            # Trajectories that never changed their leader had made their last change from the start.
            values = np.where(np.isnan(values), column["sigmas"][0], values)
        reached = np.sort(values[~np.isnan(values)])[::-1]
        x = np.concatenate([column["sigmas"][:1], reached, column["sigmas"][-1:]])
        count = torch.tensor([0, *range(1, len(reached) + 1), len(reached)])
        y = shares(torch.arange(len(values)) < count[:, None])
        axes.step(x, y[:, 0], where="post", color=color, label=label)
        axes.fill_between(x, y[:, 1], y[:, 2], step="post", color=color, alpha=0.18, linewidth=0)
    draws, paths = int(column["draws"]), len(column["captured"])
    axes.set_title(f"{draws:,} draws, {paths:,} trajectories", fontsize=SMALL)
    axes.set(ylim=(-0.03, 1.03), xlabel="noise level σ →")


def _draw_marks(axes: Axes, column: Mapping[str, np.ndarray]) -> None:
    low, high = column["sigmas"][-1], column["sigmas"][0]
    for name, (color, style, _) in _MARKS.items():
        if low < float(column[name]) < high:
            # The border is wide, and under the others: on images the collapse lies on it.
            width, layer = (_WIDE, 0.9) if name == "border" else (_THIN, 1)
            axes.axvline(float(column[name]), color=color, linestyle=style, linewidth=width, zorder=layer)
