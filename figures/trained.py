"""Where trained networks leave the optimum: gap and excess risk of a network trained with Eq. 26, against noise.

One column a data set. Top, the gap E‖F − D*‖² and the excess risk E‖F − x0‖² − MMSE, two measures of one quantity, over
E‖D* − mean‖². Bottom, explained variance, R² and r² of the same network, which published comparisons use."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from neural import PRESETS, agreement
from optimal import OptimalDenoiser

from .common import border_of, generator, log_ticks
from .config import Config
from .networks import dataset, network, prepare

__all__ = ["TITLE", "compute", "draw"]

TITLE = "Trained networks against the optimum: gap and excess risk at every noise level"

_PRESETS = ("toy", "digits")
_MEASURES = {
    "explained_variance": ("tab:blue", "explained variance"),
    "r_square": ("tab:green", "R²"),
    "pearson_square": ("tab:orange", "Pearson's r²"),
}

_DRAWS = {"toy": 40_000, "digits": 4000}
"""At low noise all of the toy's risk is in the few draws between two points: 4,000 do not tell its standard error."""


def compute(config: Config) -> dict[str, np.ndarray]:
    """Everything that is drawn.

    Returns:
        names (K,), and for column i, as "0_sigmas" and so on: sigmas (S,), every field of `neural.Agreement`, scale
        (S,) E‖D* − mean‖², border, size, steps.

    Raises:
        ValueError: --dataset was given: networks are trained for their presets.
    """
    if config.dataset:
        raise ValueError("trained shows the networks of the presets toy and digits; train yours with python -m neural")
    presets = _PRESETS[:1] if config.quick else _PRESETS
    prepare(config, presets)
    arrays: dict[str, np.ndarray] = {"names": np.array(presets)}
    for i, preset in enumerate(presets):
        net, data = network(config, preset), dataset(preset)
        D = OptimalDenoiser(data)
        sigmas = torch.logspace(np.log10(0.02), np.log10(40), 9 if config.quick else 25, dtype=torch.float64)
        draws = 500 if config.quick else _DRAWS[preset]
        found = agreement(net, D, sigmas, draws=draws, generator=generator(config), progress=True)
        column = {name: value.numpy() for name, value in vars(found).items() if isinstance(value, torch.Tensor)}
        column |= {
            "scale": (found.gap / found.gap_share).numpy(),
            "border": np.array(border_of(config, D, 256).sigma),
            "size": np.array(len(data)),
            "dataset": np.array(data.name),
            "steps": np.array(PRESETS[preset].optimisation.steps),
        }
        arrays |= {f"{i}_{key}": value for key, value in column.items()}
    return arrays


def draw(arrays: Mapping[str, np.ndarray]) -> Figure:
    """Put the arrays of `compute` on one page."""
    count = len(arrays["names"])
    figure = Figure(figsize=(1 + 6 * count, 8.5), layout="constrained")
    figure.suptitle("Where does a trained network leave the optimum?", fontsize=15)
    axes = figure.subplots(2, count, squeeze=False, sharex="col")
    for i in range(count):
        column = {key.partition("_")[2]: value for key, value in arrays.items() if key.startswith(f"{i}_")}
        _draw_gap(axes[0, i], column)
        _draw_measures(axes[1, i], column)
    axes[0, 0].set_ylabel("share of E‖D* − mean‖²")
    axes[1, 0].set_ylabel("agreement with the optimum")
    for row in axes:
        row[0].legend(fontsize=8, loc="best")
    return figure


def _draw_gap(axes: Axes, column: Mapping[str, np.ndarray]) -> None:
    sigmas, scale = column["sigmas"], column["scale"]
    axes.plot(sigmas, column["gap_share"], color="k", label="gap, E‖F − D*‖²")
    excess, error = column["excess_risk"] / scale, 2 * column["excess_error"] / scale
    axes.errorbar(sigmas, excess, yerr=error, fmt="o", ms=3, color="tab:red", label="excess risk, ±2 standard errors")
    axes.set_xscale("log")
    # Where its error bar reaches 0, excess risk says only that the gap is below the bar's end.
    axes.set_yscale("log", nonpositive="clip")
    axes.set_ylim(max(float(column["gap_share"].min()) / 3, 1e-6), 3 * float(column["gap_share"].max()))
    axes.set_title(
        f"{column['dataset']}, N = {int(column['size']):,}; border σ = {float(column['border']):.3g}", fontsize=11
    )
    _finish(axes, column)


def _draw_measures(axes: Axes, column: Mapping[str, np.ndarray]) -> None:
    for name, (color, label) in _MEASURES.items():
        axes.plot(column["sigmas"], column[name], color=color, label=label)
    low = min(float(column[name].min()) for name in _MEASURES)
    axes.set(ylim=(max(low, 0.5) - 0.01, 1.005), xlabel="noise level σ, from noise to data →")
    _finish(axes, column)


def _finish(axes: Axes, column: Mapping[str, np.ndarray]) -> None:
    sigmas = column["sigmas"]
    axes.axvline(float(column["border"]), color="k", linestyle="--", linewidth=1)
    axes.set_xlim(sigmas[-1], sigmas[0])
    log_ticks(axes, sigmas[0], sigmas[-1])
    axes.grid(alpha=0.3)
