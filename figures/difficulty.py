"""Is iterative denoising easier to learn than direct prediction? The same network and budget, as either, on N points.

Top left, a denoiser sampled in more and more steps; top right, students of the exact flow in one call, beside it: the
share of fresh noises at σ = 80 that end nearest to the data point on which the exact flow lands from there. Bottom
left, the denoiser's gap E‖F − D‖² over E‖D − mean‖² at the border of its N points. Bottom right, students that learn
from pairs, on pairs that they have seen and on fresh ones.

The law is ln p/(1 − p) = a − b ln N, for the share p of the best student of each N and for that of the denoiser in 35
calls, by least squares over the N at which p lies between 2 and 99%; N at 90% has a 95% interval from the residuals'
t distribution.

The numbers are those of the study `difficulty`, which `python -m neural study difficulty` measures again.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import scipy.stats
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from neural.config import TECHNIQUES
from neural.studies import Done, table

from .common import SMALL, TITLE_SIZE, WIDTH, banded, note, plain_ticks
from .config import Config

__all__ = ["OWN", "TITLE", "compute", "draw", "law"]

TITLE = "Is iterative denoising easier to learn than direct prediction? One network and budget, on more and more points"
OWN = "a study of digits"
"""What is drawn of no other data."""

_STEPS = (1, 2, 4, 8, 18)
_GREYS = ("0.75", "0.6", "0.45", "0.25", "k")
_COLORS = {
    "consistency": "tab:blue",
    "progressive": "tab:green",
    "knowledge": "tab:red",
    "multistep": "tab:purple",
}
_WORDS = {"multistep": "multi-step"}
_MORE = {"more": ("*", "more pairs"), "longer": ("x", "the same pairs"), "most": ("P", "more pairs")}
_LEAST, _MOST = 0.02, 0.99
_ASKED = 0.9


def compute(config: Config) -> dict[str, np.ndarray]:
    """Everything that is drawn: the shipped table, of which nothing is computed again.

    Returns:
        learners (K,), denoiser first; for each, as knowledge_sizes and so on: sizes (M,); same (M, 3), share of fresh
        noises and its interval, in one step; denoiser_same_2 and so on in more steps; knowledge_pairs (M, 3) on pairs
        that were seen; more_sizes (L,), more_same and more_pairs (L, 3) of more_steps on more pairs, longer_… on the
        same pairs, most_… of most_steps; gap_sizes (G,), gap (G, 3); best (M,), the student of the highest share at
        each N of the denoiser; law and denoiser_law (5,): a, b, N at 90% and its interval; samples, draws, steps,
        batch; seconds (K,), of training, the mean over N.

    Raises:
        ValueError: --dataset was given.
    """
    config.refuse_dataset("difficulty", OWN)
    cells = [*table("difficulty").values()]
    learners = [name for name in ("denoiser", *TECHNIQUES) if any(_learner(cell) == name for cell in cells)]
    arrays: dict[str, np.ndarray] = {"learners": np.array(learners)}
    for name in learners:
        mine = sorted((cell for cell in cells if _learner(cell) == name), key=_size)
        arrays[f"{name}_sizes"] = np.array([_size(cell) for cell in mine])
        for steps in _STEPS if name == "denoiser" else (1,):
            arrays[f"{name}_same" + (f"_{steps}" if steps > 1 else "")] = _ends([_row(c, steps) for c in mine], "same")
        if "same_pairs" in _row(mine[0], 1):
            arrays[f"{name}_pairs"] = _ends([_row(cell, 1) for cell in mine], "same_pairs")
        if name == "denoiser":
            gaps = [row for cell in mine for row in cell.tables["gap"] if row["level"] == "at the border"]
            arrays |= {"gap_sizes": np.array([row["n"] for row in gaps]), "gap": _ends(gaps, "gap_share")}
    for kind in _MORE:
        some = sorted((cell for cell in cells if _learner(cell) == kind), key=_size)
        rows = [_row(cell, 1) for cell in some]
        arrays |= {
            f"{kind}_sizes": np.array([_size(cell) for cell in some]),
            f"{kind}_same": _ends(rows, "same").reshape(-1, 3),
            f"{kind}_pairs": _ends(rows, "same_pairs").reshape(-1, 3),
        }
        if some:
            arrays[f"{kind}_steps"] = np.array(some[0].config["training"]["experiment"]["optimisation"]["steps"])
    sizes = arrays["denoiser_sizes"]
    best = [max(learners[1:], key=lambda name, size=size: _at(arrays, name, size)) for size in sizes.tolist()]
    highest = np.array([_at(arrays, name, size) for name, size in zip(best, sizes.tolist(), strict=True)])
    first = cells[0].config
    optimisation = first["training"]["optimisation"]
    return arrays | {
        "best": np.array(best),
        "law": np.array(law(sizes, highest)),
        "denoiser_law": np.array(law(sizes, arrays["denoiser_same_18"][:, 0])),
        "samples": np.array(first["samples"]),
        "draws": np.array(first["draws"]),
        "steps": np.array(optimisation["steps"]),
        "batch": np.array(optimisation["batch"]),
        "seconds": np.array([np.mean([c.seconds for c in cells if _learner(c) == name]) for name in learners]),
    }


def law(sizes: np.ndarray, shares: np.ndarray) -> tuple[float, float, float, float, float]:
    """a and b of ln p/(1 − p) = a − b ln N, and N at p = 90% with its 95% interval; nan for fewer than three N."""
    used = (shares > _LEAST) & (shares < _MOST)
    if used.sum() < 3:
        return math.nan, math.nan, math.nan, math.nan, math.nan
    x, y = np.log(sizes[used]), np.log(shares[used] / (1 - shares[used]))
    b, a = np.polyfit(x, y, 1)
    at = (math.log(_ASKED / (1 - _ASKED)) - a) / b
    freedom = len(x) - 2
    spread = math.sqrt(float(((y - a - b * x) ** 2).sum()) / freedom)
    # Of where the line is, at that N, over its slope.
    error = spread * math.sqrt(1 / len(x) + (at - x.mean()) ** 2 / ((x - x.mean()) ** 2).sum()) / abs(b)
    reach = float(scipy.stats.t.ppf(0.975, freedom)) * error
    return float(a), float(-b), math.exp(at), math.exp(at - reach), math.exp(at + reach)


def _learner(cell: Done) -> str:
    return cell.name.rpartition("-")[2]


def _size(cell: Done) -> int:
    return cell.data["data"]["points"]


def _row(cell: Done, steps: int) -> dict[str, Any]:
    return next(row for row in cell.tables["samplers"] if row["steps"] == steps)


def _ends(rows: list[dict[str, Any]], column: str) -> np.ndarray:
    return np.array([[row[f"{column}{end}"] for end in ("", "_low", "_high")] for row in rows])


def _at(arrays: Mapping[str, np.ndarray], name: str, size: int) -> float:
    """The share of a student on N points; −1 where it was not trained on so many."""
    known = arrays[f"{name}_sizes"].tolist()
    return float(arrays[f"{name}_same"][known.index(size), 0]) if size in known else -1.0


def draw(arrays: Mapping[str, np.ndarray]) -> Figure:
    """Put the arrays of `compute` on one page."""
    students = arrays["learners"].tolist()[1:]
    figure = Figure(figsize=(WIDTH, 8.6), layout="constrained")
    figure.suptitle("Is iterative denoising easier to learn than direct prediction?", fontsize=TITLE_SIZE)
    (first, second), (third, fourth) = figure.subplots(2, 2)
    sizes = arrays["denoiser_sizes"]
    for steps, grey in zip(_STEPS, _GREYS, strict=True):
        curve = arrays["denoiser_same" + (f"_{steps}" if steps > 1 else "")]
        calls = 2 * steps - 1
        label = f"{calls} call{'s' if calls > 1 else ''}"
        banded(first, sizes, curve, color=grey, marker="o", markersize=3, label=label)
    first.plot(sizes, 1 / sizes, color="0.5", linestyle=":", linewidth=1, label="by chance")
    first.set_title("A denoiser, sampled by Heun's solver", fontsize=11)
    banded(second, sizes, arrays["denoiser_same_18"], color="k", marker="o", markersize=3, label="denoiser, 35 calls")
    for name in students:
        style = {"color": _COLORS[name], "marker": "o", "markersize": 3, "label": _WORDS.get(name, name)}
        banded(second, arrays[f"{name}_sizes"], arrays[f"{name}_same"], **style)
    for kind, (marker, words) in _MORE.items():
        if len(arrays[f"{kind}_sizes"]):
            value, low, high = arrays[f"{kind}_same"].T
            label = f"{int(arrays[f'{kind}_steps']):,} steps, {words}"
            second.plot(arrays[f"{kind}_sizes"], value, marker, color=_COLORS["knowledge"], markersize=8, label=label)
            second.vlines(arrays[f"{kind}_sizes"], low, high, color=_COLORS["knowledge"], linewidth=1)
    _draw_law(second, arrays)
    second.set_title("Students of the exact flow, in one call", fontsize=11)
    for ax in (first, second):
        ax.set_ylabel("share of noises on the flow's point")
    banded(third, arrays["gap_sizes"], arrays["gap"], color="k", marker="o", markersize=3)
    third.set_title("The denoiser's gap at its border", fontsize=11)
    third.set_ylabel("gap, share of E‖D − mean‖²")
    third.set_ylim(0, None)
    for name in students:
        if f"{name}_pairs" in arrays:
            word, style = _WORDS.get(name, name), {"color": _COLORS[name], "marker": "o", "markersize": 3}
            own = arrays[f"{name}_pairs"]
            banded(fourth, arrays[f"{name}_sizes"], own, linestyle="--", label=f"{word}, pairs seen", **style)
            banded(fourth, arrays[f"{name}_sizes"], arrays[f"{name}_same"], label=f"{word}, fresh noises", **style)
    fourth.set_title("Learnt by heart? Pairs seen in training, and fresh ones", fontsize=11)
    fourth.set_ylabel("share on the flow's point")
    for ax in (first, second, third, fourth):
        ax.set(xscale="log", xlim=(sizes[0] / 1.15, sizes[-1] * 1.15), xlabel="N, number of training images")
        plain_ticks(ax, tuple(n for n in sizes.tolist() if n == sizes[-1] or 2 * n < sizes[-1]))
        ax.grid(alpha=0.3)
    for ax, place in ((first, "upper right"), (second, "lower left"), (fourth, "lower left")):
        ax.set_ylim(-0.03, 1.03)
        ax.legend(fontsize=SMALL, frameon=False, loc=place)
    seconds = ", ".join(
        f"{_WORDS.get(name, name)} {value:.0f}"
        for name, value in zip(arrays["learners"], arrays["seconds"], strict=True)
    )
    note(
        figure,
        f"One MLP of 3 × 256 for every point, {int(arrays['steps']):,} steps of {int(arrays['batch'])} on N digits; "
        f"seconds of training, pairs included, on average: {seconds}. {int(arrays['samples']):,} fresh noises at "
        f"σ = 80; a sample counts where it ends nearest to the image on which the exact flow lands. Gap: "
        f"{int(arrays['draws']):,} draws. Bands are 95% intervals over draws; each network was trained once.",
    )
    return figure


def _draw_law(axes: Axes, arrays: Mapping[str, np.ndarray]) -> None:
    a, b, at, low, high = arrays["law"].tolist()
    if not math.isfinite(at):
        return
    sizes = np.geomspace(arrays["denoiser_sizes"][0], arrays["denoiser_sizes"][-1], 50)
    label = f"best: 90% at N = {at:.2g} [{low:.2g}, {high:.2g}]"
    axes.plot(sizes, 1 / (1 + np.exp(b * np.log(sizes) - a)), color="0.4", linestyle="--", linewidth=1, label=label)
