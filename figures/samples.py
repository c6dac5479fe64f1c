"""The same noises through the optimum, a trained network and students of the optimum, on digits.

A row is a method, a column a noise. A frame marks a memorised sample: one whose distance to the nearest data point is
below a third of that to the second nearest."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise

import numpy as np
import torch
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from neural.config import TECHNIQUES
from neural.measures import memorised
from optimal import FlowMap, OptimalDenoiser, karras, sample

from .common import TITLE_SIZE, WIDTH, cell, generator, note, provenance, shares
from .config import Config
from .networks import dataset, network, prepare, sampled, stages

__all__ = ["OWN", "TITLE", "compute", "draw"]

TITLE = "The same noises through the optimum, a network and four students of the optimum, memorised samples marked"
OWN = "the network of the preset digits; sample yours with python -m neural sample"
"""What is drawn of no other data."""

_METHODS = (
    ("optimum: Heun, 35 calls", "optimum", "heun", 18),
    ("optimum: Euler, 6 calls", "optimum", "euler", 6),
    ("network: Heun, 35 calls", "network", "heun", 18),
    ("network: Euler, 18 calls", "network", "euler", 18),
    ("network: Euler, 6 calls", "network", "euler", 6),
)
_FLOW = "optimum: its exact flow"
_STUDENT_STEPS = (1, 4)
_GAP = 0.35
"""Between the optimum, the network and the students, in rows."""
_SHOWN = 14


def compute(config: Config) -> dict[str, np.ndarray]:
    """Everything that is drawn.

    Returns:
        methods (K,), samples (K, 14, *event), memorised (K, 14), share and same (K, 3): of all draws, how many are
        memorised, and how many end on the exact flow's data point, with 95% intervals; draws; what the data are.

    Raises:
        ValueError: --dataset was given.
    """
    config.refuse_dataset("samples", OWN)
    prepare(config, ("digits",), ("digits",))
    data = dataset("digits")
    D, net = OptimalDenoiser(data), network(config, "digits")
    draws = 32 if config.quick else 512
    x = 80 * torch.randn(draws, *data.event, generator=generator(config, 7))
    landing = FlowMap(D).land(x, 80.0)
    shown, marks, share, same = [], [], [], []
    runs = {_FLOW: landing.x}
    for name, model, solver, steps in _METHODS:
        runs[name] = sample(D if model == "optimum" else net, x, karras(steps), solver=solver)
    for technique in TECHNIQUES:
        few = [n for n in stages(config, "digits") if n <= 4] if technique == "progressive" else _STUDENT_STEPS
        for n in (few[0], few[-1]):
            model, arguments = sampled(config, "digits", technique, n)
            runs[f"{technique} student: {n} call{'s' if n > 1 else ''}"] = sample(model, x, **arguments)
    for ends in runs.values():
        copied = memorised(ends, D)
        shown.append(ends[:_SHOWN].numpy())
        marks.append(copied[:_SHOWN].numpy())
        share.append(shares(copied))
        same.append(shares(D.nearest(ends) == landing.index))
    return provenance(data) | {
        "methods": np.array([*runs]),
        "samples": np.stack(shown),
        "memorised": np.stack(marks),
        "share": np.stack(share),
        "same": np.stack(same),
        "draws": np.array(draws),
    }


def draw(arrays: Mapping[str, np.ndarray]) -> Figure:
    """Put the arrays of `compute` on one page."""
    methods, (rows, columns) = arrays["methods"].tolist(), arrays["memorised"].shape
    groups = [method.partition(":")[0] if method.startswith(("optimum", "network")) else "" for method in methods]
    tops = -(np.arange(rows) + _GAP * np.cumsum([0, *(a != b for a, b in pairwise(groups))]))
    figure = Figure(figsize=(WIDTH, 8.9), layout="constrained")
    figure.suptitle("From the same noises: the optimum, a network, and students of the optimum", fontsize=TITLE_SIZE)
    axes = figure.subplots()
    for row, top in enumerate(tops):
        for column in range(columns):
            cell(axes, column, top, arrays["samples"][row, column])
            if arrays["memorised"][row, column]:
                place = (column + 0.03, top - 0.97)
                axes.add_patch(Rectangle(place, 0.94, 0.94, fill=False, edgecolor="tab:green", linewidth=2))
        axes.text(-0.15, top - 0.5, methods[row], ha="right", va="center", fontsize=10)
        copied, same = 100 * arrays["share"][row, 0], 100 * arrays["same"][row, 0]
        for place, text in ((1, f"{copied:.0f}%"), (3, f"{same:.0f}%")):
            axes.text(columns + place, top - 0.5, text, ha="center", va="center", fontsize=10)
    for place, words in ((1, "copies"), (3, "same\nimage")):
        axes.text(columns + place, 0.1, words, ha="center", va="bottom", fontsize=10)
    axes.text(columns / 2, 0.1, "one column a noise", ha="center", va="bottom", fontsize=10)
    note(
        figure,
        f"{arrays['dataset']}, N = {int(arrays['size']):,}. The network was trained on the data; students answer at "
        "once, or in two or four calls, and were trained to end where the optimum's exact flow ends. Copies, framed "
        "green: the nearest image of the data is less than a third as far as the second nearest. Same image: the "
        f"nearest image is that on which the exact flow ends (first row). Shares of {int(arrays['draws'])} noises. "
        "Between its calls the consistency sampler adds new noise; the knowledge student learned one level, so that "
        "further calls ask what it was never taught.",
    )
    axes.set(xlim=(-4.3, columns + 4), ylim=(tops[-1] - 1.05, 1.0), aspect="equal")
    axes.axis("off")
    return figure
