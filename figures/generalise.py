"""From memory to generalisation: the same network and training on more and more points, beside the optimum of each N.

One column a data set. Top, samples of two networks from the same noises, the two trained on N points each that have
none in common, from the same initial weights. Below, over N: the share of samples that are copies, and how alike the
samples of the two networks are (mean cosine about the mean of the data), beside how alike the points are on which the
exact flows of the two optima end; the gap E‖F − D‖² over E‖D − mean‖² at noisy training points and at noisy held-out
points; and how far the answers of the two networks, and of the two optima, are apart at the same noisy held-out points,
E‖F₁ − F₂‖² a value. All at the border of the held-out points, with 95% intervals over draws.

The numbers are those of the study `generalise`, which `python -m neural study generalise` measures again.

References:
    Kadkhodaie, Guth, Simoncelli, Mallat 2024, "Generalization in Diffusion Models Arises from Geometry-Adaptive
    Harmonic Representations", Figures 1 and 2.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from neural.studies import Done, table

from .common import SMALL, TITLE_SIZE, WIDTH, banded, cell, note, plain_ticks, stacked
from .config import Config

__all__ = ["OWN", "TITLE", "compute", "draw"]

TITLE = "One network on more and more points: from copies to samples on which networks agree that share no point"
OWN = "a study of digits and emoji"
"""What is drawn of no other data."""

_NAMES = {"digits": "digits, an MLP", "emoji-16": "emoji at 16×16, a U-Net"}
_SHARED = 4
"""Which of the levels that all N share is the border of the held-out points."""
_NOISES = 2
"""That are shown."""
_GAP = 0.4
"""Between the samples of two noises, in rows."""
_STYLES: dict[str, tuple[str, dict[str, Any]]] = {
    "memorised": ("copies among samples", {"color": "tab:red"}),
    "chance": ("among held-out images", {"color": "tab:red", "linestyle": ":"}),
    "alike": ("likeness, two networks", {"color": "tab:blue"}),
    "optimum_alike": ("likeness, two optima", {"color": "tab:blue", "linestyle": "--"}),
    "gap_data": ("at noisy training images", {"color": "k"}),
    "gap_held": ("at noisy held-out images", {"color": "tab:green"}),
    "apart": ("between the two networks", {"color": "tab:blue"}),
    "optimum_apart": ("between the two optima", {"color": "tab:blue", "linestyle": "--"}),
}
_ROWS = (
    (
        "Are samples copies, and are the two networks' alike?",
        "share, or cosine",
        ("memorised", "chance", "alike", "optimum_alike"),
    ),
    (
        "How far is a network from the optimum of its N images?",
        "gap, share of E‖D − mean‖²",
        ("gap_data", "gap_held"),
    ),
    (
        "How far are the answers to one noisy held-out image apart?",
        "mean square difference",
        ("apart", "optimum_apart"),
    ),
)


def compute(config: Config) -> dict[str, np.ndarray]:
    """Everything that is drawn: the shipped table, of which nothing is computed again.

    Returns:
        names (K,); for column i, as "0_sizes" and so on: sizes (M,); memorised, chance, gap_data and gap_held (M, 3):
        value and ends of the interval; alike, optimum_alike, apart and optimum_apart (P, 3), for the first P sizes, of
        which there are two networks; pictures (2 noises, 2 networks, M, *event), nan where there is no network; sigma,
        draws, samples, steps.

    Raises:
        ValueError: --dataset was given; the table is missing or damaged.
    """
    config.refuse_dataset("generalise", OWN)
    cells, arrays = table("generalise"), {}
    names = [name for name in _NAMES if any(cell.rpartition("-")[0] == name for cell in cells)]
    for i, name in enumerate(names):
        done = [each for each in cells.values() if each.name.rpartition("-")[0] == name]
        column = _column(sorted(done, key=_size))
        arrays |= {f"{i}_{key}": value for key, value in column.items()}
    return {"names": np.array(names)} | arrays


def _size(done: Done) -> int:
    return int(done.name.rpartition("-")[2])


def _column(cells: list[Done]) -> dict[str, np.ndarray]:
    pairs = [cell for cell in cells if "pairs" in cell.tables]
    gaps = [[_shared(cell, "gap", on) for cell in cells] for on in ("data", "held-out")]
    agreed = [_shared(cell, "agreement") for cell in pairs]
    samples = [_of(cell, "samplers", "first") for cell in cells]
    return {
        "sizes": np.array([_size(cell) for cell in cells]),
        "memorised": _ends(samples, "memorised"),
        "chance": _ends([_of(cell, "samplers", "held-out points") for cell in cells], "memorised"),
        "alike": _ends([cell.tables["pairs"][0] for cell in pairs], "cosine"),
        "optimum_alike": _ends([cell.tables["pairs"][0] for cell in pairs], "optimum_cosine"),
        "gap_data": _ends(gaps[0], "gap_share"),
        "gap_held": _ends(gaps[1], "gap_share"),
        "apart": _ends(agreed, "apart"),
        "optimum_apart": _ends(agreed, "optimum_apart"),
        "pictures": np.stack([[[_picture(cell, k, j) for cell in cells] for k in (0, 1)] for j in range(_NOISES)]),
        "sigma": np.array(gaps[0][0]["sigma"]),
        "draws": np.array(cells[0].config["draws"]),
        "samples": np.array(samples[0]["samples"]),
        "steps": np.array(cells[0].config["first"]["optimisation"]["steps"]),
        "batch": np.array(cells[0].config["first"]["optimisation"]["batch"]),
    }


def _shared(cell: Done, name: str, on: str | None = None) -> dict[str, Any]:
    """The row at the border of the held-out points, which is one level for all N."""
    rows = [row for row in cell.tables[name] if row["level"] == "shared" and (on is None or row["on"] == on)]
    return sorted(rows, key=lambda row: row["sigma"])[_SHARED]


def _of(cell: Done, name: str, method: str) -> dict[str, Any]:
    return next(row for row in cell.tables[name] if row["method"] == method)


def _ends(rows: list[dict[str, Any]], column: str) -> np.ndarray:
    return np.array([[row[f"{column}{end}"] for end in ("", "_low", "_high")] for row in rows])


def _picture(cell: Done, network: int, noise: int) -> np.ndarray:
    name = ("first", "second")[network]
    found = [row for row in cell.tables["pictures"] if row["method"] == name and row["noise"] == noise]
    if not found:
        return np.full(cell.tables["pictures"][0]["shape"], np.nan)
    return np.array(found[0]["image"]).reshape(found[0]["shape"]) / 127.5 - 1


def draw(arrays: Mapping[str, np.ndarray]) -> Figure:
    """Put the arrays of `compute` on one page."""
    count = len(arrays["names"])
    columns = [
        {key.partition("_")[2]: value for key, value in arrays.items() if key.startswith(f"{i}_")} for i in range(count)
    ]
    figure = Figure(figsize=(WIDTH, 12.2), layout="constrained")
    figure.suptitle("From memory to generalisation: the same network, trained on N images", fontsize=TITLE_SIZE)
    parts = stacked(figure, 1.45 if count > 1 else 1.8, *[1] * len(_ROWS))
    for i, (ax, column) in enumerate(zip(parts[0].subplots(1, count, squeeze=False)[0], columns, strict=True)):
        ax.set_title(_NAMES[str(arrays["names"][i])], fontsize=12)
        _draw_samples(ax, column)
    parts[0].suptitle("Samples from two noises, of two networks without a training image in common", fontsize=11)
    for part, (title, label, curves) in zip(parts[1:], _ROWS, strict=True):
        part.suptitle(title, fontsize=11)
        axes = part.subplots(1, count, squeeze=False, sharey=curves == _ROWS[0][2])[0]
        for ax, column in zip(axes, columns, strict=True):
            _draw_curves(ax, column, curves)
        axes[0].set_ylabel(label)
        for ax in axes if part is parts[-1] else ():
            ax.set_xlabel("N, number of training images")
        lines = axes[0].lines[: len(curves)]
        words = [_STYLES[name][0] for name in curves]
        part.legend(lines, words, loc="outside lower center", ncols=len(curves), fontsize=SMALL, frameon=False)
    levels = " and ".join(f"{float(column['sigma']):.3g}" for column in columns)
    steps = " and ".join(f"{int(column['steps']):,} steps of {int(column['batch'])}" for column in columns)
    note(
        figure,
        f"For each N two networks of the same initial weights are trained, {steps}, on N images each that have none in "
        "common; for the largest N there is one. A third of the data is held out. Copies: the nearest training image "
        "is less than a third as far as the second nearest. Likeness: mean cosine, about the mean of the data, of the "
        f"two samples from one noise, {int(columns[0]['samples'])} noises; of the optima, of the images on which their "
        f"exact flows end. Gap and distance: at noise level σ = {levels}, the border of the held-out images, "
        f"{int(columns[0]['draws']):,} draws; D is the optimum of the same N images. Bands are 95% intervals over "
        "draws; each network was trained once.",
    )
    return figure


def _draw_samples(axes: Axes, column: Mapping[str, np.ndarray]) -> None:
    pictures, sizes = column["pictures"], column["sizes"]
    for noise, networks in enumerate(pictures):
        for network, images in enumerate(networks):
            top = -(noise * (2 + _GAP) + network)
            for place, image in enumerate(images):
                if np.isfinite(image).all():
                    cell(axes, place, top, image)
            axes.text(-0.1, top - 0.5, f"network {network + 1}", ha="right", va="center", fontsize=SMALL)
    for place, size in enumerate(sizes.tolist()):
        axes.text(place + 0.5, 0.1, f"{size:,}", ha="center", va="bottom", fontsize=10)
    axes.text(-0.1, 0.1, "N =", ha="right", va="bottom", fontsize=10)
    axes.set(xlim=(-1.7, len(sizes) + 0.1), ylim=(-2 * (2 + _GAP) + _GAP - 0.05, 0.6), aspect="equal")
    axes.axis("off")


def _draw_curves(axes: Axes, column: Mapping[str, np.ndarray], curves: tuple[str, ...]) -> None:
    for name in curves:
        style = _STYLES[name][1]
        banded(axes, column["sizes"][: len(column[name])], column[name], marker="o", markersize=3, **style)
    sizes = column["sizes"].tolist()
    axes.set(xscale="log", xlim=(sizes[0] / 1.15, sizes[-1] * 1.15))
    plain_ticks(axes, tuple(sizes))
    if curves == _ROWS[0][2]:
        axes.set_ylim(-0.03, 1.03)
    else:
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.yaxis.set_minor_locator(NullLocator())
    axes.grid(alpha=0.3)
