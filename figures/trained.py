"""Where trained networks leave the optimum, by noise level: at noisy data, at noisy held-out data, where they go.

One column a network. Top, the gap E‖F − D‖² over E‖D − mean‖²: 0 for the optimum, 1 for a network that always answers
the mean of the data. Bottom, the gap over σ², its weight in the velocity dx/dσ = (x − F)/σ. Both by `neural.measure`,
with its 95% intervals: at x0 + σ ε with x0 of the data, with x0 that was left out of them, and on the network's own
trajectory from noise.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from neural import PRESETS, measure, open_model
from neural.places import On
from optimal import OptimalDenoiser

from .common import SMALL, TITLE_SIZE, WIDTH, border_of, log_ticks
from .config import Config
from .networks import dataset, network, prepare

__all__ = ["OWN", "TITLE", "compute", "draw"]

TITLE = "Trained networks against the optimum: the gap at every noise level, on data, held-out data and trajectories"
OWN = "the networks of the presets toy and digits; train yours with python -m neural"
"""What is drawn of no other data."""

_PRESETS = ("toy", "digits")
_PLACES = {
    "data": ("k", "-", "at noisy data"),
    "held-out": ("tab:blue", "--", "at noisy held-out data"),
    "trajectory": ("tab:red", ":", "on the network's own trajectory"),
}
_ROWS = {"gap_share": "gap, E‖F − D‖² / E‖D − mean‖²", "gap_over_sigma_square": "gap / σ², its weight in the velocity"}
_DRAWS, _PATHS = {"toy": 40_000, "digits": 4096}, 512
"""At low noise all of the toy's gap is in the few draws between two points."""

_ABOVE = "above 1: worse than the mean,\nwhich is nearly right there"


def compute(config: Config) -> dict[str, np.ndarray]:
    """Everything that is drawn.

    Returns:
        names (K,), and for column i, as "0_sigmas" and so on: sigmas (S,); for each place of it, gap_share_data and so
        on, (S, 3): value and ends of the interval; places (P,), border, size, dataset, steps, draws, paths.

    Raises:
        ValueError: --dataset was given: networks are trained for their presets.
    """
    config.refuse_dataset("trained", OWN)
    presets = _PRESETS[:1] if config.quick else _PRESETS
    prepare(config, presets)
    paths = 64 if config.quick else _PATHS
    arrays: dict[str, np.ndarray] = {"names": np.array(presets)}
    for i, preset in enumerate(presets):
        data, rest, draws = dataset(preset), PRESETS[preset].rest(), 500 if config.quick else _DRAWS[preset]
        D, model = OptimalDenoiser(data), open_model(network(config, preset), name=preset)
        sigmas = torch.logspace(np.log10(0.02), np.log10(40), 9 if config.quick else 25, dtype=torch.float64)
        places: dict[str, On] = {"data": None, "held-out": rest, "trajectory": "trajectory"}
        if rest is None:
            del places["held-out"]
        column: dict[str, np.ndarray] = {"sigmas": sigmas.numpy()}
        for place, on in places.items():
            count = paths if place == "trajectory" else draws
            found = measure(model, D, on=on, sigmas=sigmas, draws=count, seed=config.seed, progress=True)
            for row in _ROWS:
                value = found.columns[row]
                column[f"{row}_{place}"] = torch.stack([value.value, value.low, value.high], 1).numpy()
        column |= {
            "places": np.array([*places]),
            "border": np.array(border_of(config, D, 256).sigma),
            "size": np.array(len(data)),
            "dataset": np.array(data.name),
            "steps": np.array(PRESETS[preset].optimisation.steps),
            "draws": np.array(draws),
            "paths": np.array(paths),
        }
        arrays |= {f"{i}_{key}": value for key, value in column.items()}
    return arrays


def draw(arrays: Mapping[str, np.ndarray]) -> Figure:
    """Put the arrays of `compute` on one page."""
    count = len(arrays["names"])
    figure = Figure(figsize=(WIDTH, 8), layout="constrained")
    figure.suptitle("Where does a trained network leave the optimum?", fontsize=TITLE_SIZE)
    axes = figure.subplots(2, count, squeeze=False, sharex="col")
    shown: set[str] = set()
    for i in range(count):
        column = {key.partition("_")[2]: value for key, value in arrays.items() if key.startswith(f"{i}_")}
        shown |= set(column["places"].tolist())
        for ax, row in zip(axes[:, i], _ROWS, strict=True):
            _draw_gap(ax, column, row)
        size, border = int(column["size"]), float(column["border"])
        axes[0, i].set_title(f"{column['dataset']}, N = {size:,}; border σ = {border:.3g}", fontsize=11)
        if axes[0, i].get_ylim()[1] > 1:
            axes[0, i].axhline(1, color="0.6", linewidth=0.8)
            axes[0, i].text(0.03, 0.03, _ABOVE, transform=axes[0, i].transAxes, fontsize=SMALL, color="0.35")
        drawn = f"{int(column['draws']):,} draws of (x0, ε)\n{int(column['paths']):,} trajectories"
        axes[1, i].text(0.03, 0.97, drawn, transform=axes[1, i].transAxes, fontsize=SMALL, va="top", color="0.35")
        axes[1, i].set_xlabel("noise level σ, from noise to data →")
    for ax, label in zip(axes[:, 0], _ROWS.values(), strict=True):
        ax.set_ylabel(label)
    places = {place: style for place, style in _PLACES.items() if place in shown}
    handles = [axes[0, 0].plot([], [], color=c, linestyle=s, label=label)[0] for c, s, label in places.values()]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), fontsize=SMALL, frameon=False)
    return figure


def _draw_gap(axes: Axes, column: Mapping[str, np.ndarray], row: str) -> None:
    sigmas = column["sigmas"]
    for place in column["places"].tolist():
        color, style, _ = _PLACES[place]
        value, low, high = column[f"{row}_{place}"].T
        axes.plot(sigmas, value, color=color, linestyle=style)
        axes.fill_between(sigmas, low, high, color=color, alpha=0.2, linewidth=0)
    least = min(float(column[f"{row}_{place}"][:, 0].min()) for place in column["places"].tolist())
    most = max(float(column[f"{row}_{place}"][:, 0].max()) for place in column["places"].tolist())
    axes.set(xscale="log", xlim=(sigmas[-1], sigmas[0]))
    axes.set_yscale("log", nonpositive="clip")
    axes.set_ylim(max(least / 3, most * 1e-12), 3 * most)
    axes.axvline(float(column["border"]), color="k", linestyle="--", linewidth=1)
    log_ticks(axes, sigmas[0], sigmas[-1])
    axes.grid(alpha=0.3)
