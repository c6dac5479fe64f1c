"""The same noises through the optimum, a trained network and its students: rows by method, columns by noise, on digits.

A frame marks a memorised sample: one whose distance to the nearest data point is below a third of that to the second
nearest."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from neural.config import TECHNIQUES
from neural.measures import memorised
from optimal import FlowMap, OptimalDenoiser, karras, sample

from .common import cell, generator, provenance
from .config import Config
from .networks import dataset, network, prepare, sampled

__all__ = ["TITLE", "compute", "draw"]

TITLE = "The same noises through the optimum, a network and four students, memorised samples marked"

_METHODS = (
    ("optimum, Heun 35 calls", "optimum", "heun", 18),
    ("optimum, Euler 6 calls", "optimum", "euler", 6),
    ("network, Heun 35 calls", "network", "heun", 18),
    ("network, Euler 18 calls", "network", "euler", 18),
    ("network, Euler 6 calls", "network", "euler", 6),
)
_STUDENT_STEPS = (1, 4)
_SHOWN = 14


def compute(config: Config) -> dict[str, np.ndarray]:
    """Everything that is drawn.

    Returns:
        methods (K,), samples (K, 14, *event), memorised (K, 14), share and same (K,): of all draws, how many are
        memorised, and how many end on the exact flow's data point; draws; what the data are.

    Raises:
        ValueError: --dataset was given.
    """
    if config.dataset:
        raise ValueError("samples shows the network of the preset digits; sample yours with python -m neural sample")
    prepare(config, ("digits",), ("digits",))
    data = dataset("digits")
    D, net = OptimalDenoiser(data), network(config, "digits")
    draws = 32 if config.quick else 512
    x = 80 * torch.randn(draws, *data.event, generator=generator(config, 7))
    landing = FlowMap(D).land(x, 80.0)
    shown, marks, share, same = [], [], [], []
    runs = {"exact flow": landing.x}
    for name, model, solver, steps in _METHODS:
        runs[name] = sample(D if model == "optimum" else net, x, karras(steps), solver=solver)
    for technique in TECHNIQUES:
        for n in _STUDENT_STEPS:
            model, arguments = sampled(config, "digits", technique, n)
            runs[f"{technique}, {n} call{'s' if n > 1 else ''}"] = sample(model, x, **arguments)
    for ends in runs.values():
        copied = memorised(ends, D)
        shown.append(ends[:_SHOWN].numpy())
        marks.append(copied[:_SHOWN].numpy())
        share.append(float(copied.double().mean()))
        same.append(float((D.nearest(ends) == landing.index).double().mean()))
    return provenance(data) | {
        "methods": np.array([*runs]),
        "samples": np.stack(shown),
        "memorised": np.stack(marks),
        "share": np.array(share),
        "same": np.array(same),
        "draws": np.array(draws),
    }


def draw(arrays: Mapping[str, np.ndarray]) -> Figure:
    """Put the arrays of `compute` on one page."""
    rows, columns = arrays["memorised"].shape
    figure = Figure(figsize=(15, 0.75 * rows + 1.1), layout="constrained")
    figure.suptitle("From the same noises: what do a network and its students do differently?", fontsize=15)
    axes = figure.subplots()
    for row in range(rows):
        for column in range(columns):
            cell(axes, column, -row, arrays["samples"][row, column])
            if arrays["memorised"][row, column]:
                place = (column + 0.03, -row - 0.97)
                axes.add_patch(Rectangle(place, 0.94, 0.94, fill=False, edgecolor="tab:green", linewidth=2.5))
        axes.text(-0.15, -row - 0.5, str(arrays["methods"][row]), ha="right", va="center", fontsize=10)
        note = f"{100 * arrays['share'][row]:.0f}% memorised\n{100 * arrays['same'][row]:.0f}% as exact flow"
        axes.text(columns + 0.15, -row - 0.5, note, ha="left", va="center", fontsize=9)
    about = (
        f"{arrays['dataset']}, N = {int(arrays['size']):,}; shares of {int(arrays['draws'])} noises. Green frame: "
        "memorised, the nearest data point is less than a third as far as the second nearest."
    )
    axes.text(columns / 2, -rows - 0.12, about, ha="center", va="top", fontsize=9, color="0.35")
    axes.set(xlim=(-3.4, columns + 2.6), ylim=(-rows - 0.5, 0.1), aspect="equal")
    axes.axis("off")
    return figure
