"""What networks do instead of the optimum, level by level: what each published theory accounts for.

One column a network that comes with the toolkit. Top, three noises sampled alike under the network, the optimum and the
theories. Then, on noisy points of the data and on the network's own trajectory, the share of its deviation from the
optimum that each theory accounts for, 1 − E‖F − T‖²/E‖F − D‖², and below what there is to account for, the gap over
E‖D − mean‖²; with 95% intervals. A theory with a parameter has at each level the one that suits the network best, found
on other draws.

The numbers are those of the study `theories`, which `python -m neural study theories` measures again.

References:
    Kamb, Ganguli 2024, "An analytic theory of creativity in convolutional diffusion models"; Niedoba, Zwartsenberg,
    Murphy, Wood 2025, "Towards a Mechanistic Explanation of Diffusion Model Generalization"; Lukoianov, Yuan, Solomon,
    Sitzmann 2025, "Locality in Image Diffusion Models Emerges from Data Statistics"; Wang, Vastola 2024, "The
    Unreasonable Effectiveness of Gaussian Score Approximation for Diffusion Models and its Applications"; Scarvelis,
    Sáez de Ocáriz Borde, Solomon 2023, "Closed-Form Diffusion Models".
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from neural.explained import LEAST
from neural.report.styles import STYLES
from neural.studies import Done, table

from .common import SMALL, TITLE_SIZE, WIDTH, banded, cell, log_ticks, note, stacked
from .config import Config

__all__ = ["OWN", "TITLE", "compute", "draw"]

TITLE = "What networks do instead of the optimum, and which theory accounts for it, by noise level"
OWN = "a study of digits, faces and emoji"
"""What is drawn of no other data."""

_NAMES = {
    "digits": "digits, an MLP",
    "faces": "faces, a U-Net",
    "emoji-16": "emoji at 16×16, a U-Net",
    "emoji-16-dit": "emoji at 16×16, a DiT",
}
_LOWEST = -0.6
"""Of the shares that are drawn."""
_PLACES = {"data": "on noisy points of the data", "trajectory": "on the network's own trajectory"}


def compute(config: Config) -> dict[str, np.ndarray]:
    """Everything that is drawn: the shipped table, of which nothing is computed again.

    Returns:
        names (K,); for column i, as "0_sigmas" and so on: sigmas (S,); theories (T,), the optimum first; accounted
        (2 places, T, S, 3) and gap_share (2 places, S, 3): value and ends of the interval; ends (T, 3), the median
        correlation with the network's samples; sampled (T + 1,), whose pictures (T + 1, noises, *event) are, the
        network first; border (3,); draws, noises; nearest (2, S): the nearest theory, those as near after commas; cut
        (2, S): whether the first of them has the last value that was tried, beyond which there are others.

    Raises:
        ValueError: --dataset was given; the table is missing or damaged.
    """
    config.refuse_dataset("theories", OWN)
    cells, arrays = table("theories"), {}
    names = [name for name in _NAMES if name in cells]
    for i, name in enumerate(names):
        arrays |= {f"{i}_{key}": value for key, value in _column(cells[name]).items()}
    return {"names": np.array(names)} | arrays


def _column(done: Done) -> dict[str, np.ndarray]:
    held = done.tables["held"]
    theories = list(dict.fromkeys(row["theory"] for row in held))
    sigmas = sorted({row["sigma"] for row in held})
    place = {(row["on"], row["theory"], row["sigma"]): row for row in held}

    def of(column: str) -> np.ndarray:
        values = [
            [[_ends(place[on, theory, sigma], column) for sigma in sigmas] for theory in theories] for on in _PLACES
        ]
        return np.array(values, dtype=np.float64)

    pictures = done.tables["pictures"]
    sampled = list(dict.fromkeys(row["theory"] for row in pictures))
    images = [[_image(row) for row in pictures if row["theory"] == name] for name in sampled]
    last = {row["theory"]: row for row in done.tables["endings"]}
    near = {(row["on"], row["sigma"]): row["nearest"] for row in done.tables["nearest"] if "sigma" in row}
    ended = {(row["on"], row["theory"], row["sigma"]): row["cut"] for row in done.tables["chosen"]}
    border = done.tables["border"][0]
    return {
        "sigmas": np.array(sigmas),
        "theories": np.array(theories),
        "accounted": of("accounted"),
        "gap_share": of("gap_share")[:, 0],
        "ends": np.array([_ends(last[name], "pearson") for name in theories], dtype=np.float64),
        "sampled": np.array(sampled),
        "pictures": np.array(images),
        "border": np.array([border["border"], border["low"], border["high"]]),
        "draws": np.array(done.config["draws"]),
        "noises": np.array(done.config["noises"]),
        "nearest": np.array([[",".join(near[on, sigma]) for sigma in sigmas] for on in _PLACES]),
        "cut": np.array([[ended.get((on, near[on, sigma][0], sigma), False) for sigma in sigmas] for on in _PLACES]),
    }


def _ends(row: Mapping[str, Any], column: str) -> list[float]:
    """nan where nothing could be told."""
    values = (row[f"{column}{end}"] for end in ("", "_low", "_high"))
    return [float("nan") if value is None else value for value in values]


def _image(row: Mapping[str, Any]) -> np.ndarray:
    return np.array(row["image"]).reshape(row["shape"]) / 127.5 - 1


def draw(arrays: Mapping[str, np.ndarray]) -> Figure:
    """Put the arrays of `compute` on one page."""
    count = len(arrays["names"])
    columns = [
        {key.partition("_")[2]: value for key, value in arrays.items() if key.startswith(f"{i}_")} for i in range(count)
    ]
    figure = Figure(figsize=(WIDTH, 13.5), layout="constrained")
    figure.suptitle("What networks do instead of the optimum, and which theory accounts for it", fontsize=TITLE_SIZE)
    parts = stacked(figure, 1.55, 1, 1, 0.75)
    parts[0].suptitle("The same noises under network, optimum and theories", fontsize=11)
    for i, (axes, column) in enumerate(zip(parts[0].subplots(1, count, squeeze=False)[0], columns, strict=True)):
        axes.set_title(_NAMES[str(arrays["names"][i])], fontsize=12)
        _draw_samples(axes, column)
    for place, part in enumerate(parts[1:3]):
        part.suptitle(f"Share of the deviation accounted for, {list(_PLACES.values())[place]}", fontsize=11)
        row = part.subplots(1, count, squeeze=False, sharey=True)[0]
        for axes, column in zip(row, columns, strict=True):
            _draw_shares(axes, column, place)
        row[0].set_ylabel("accounted for")
    lines = [Line2D([], [], **style) for style in STYLES.values()]
    parts[2].legend(lines, list(STYLES), loc="outside lower center", ncols=5, fontsize=SMALL, frameon=False)
    parts[3].suptitle("What there is to account for", fontsize=11)
    row = parts[3].subplots(1, count, squeeze=False, sharey=True)[0]
    for axes, column in zip(row, columns, strict=True):
        for place, style in enumerate(({"color": "k"}, {"color": "k", "linestyle": "--"})):
            banded(axes, column["sigmas"], column["gap_share"][place], **style)
        axes.set_yscale("log")
        _level_axis(axes, column)
        axes.set_xlabel("noise level σ")
    row[0].set_ylabel("gap, share of\nE‖D − mean‖²")
    parts[3].legend(
        row[0].lines[:2], list(_PLACES.values()), loc="outside lower center", ncols=2, fontsize=SMALL, frameon=False
    )
    draws = ", ".join(str(int(column["draws"])) for column in columns)
    note(
        figure,
        "F is the network, D the optimum of its data, T the theory: 1 − E‖F − T‖²/E‖F − D‖² (at "
        f"{draws} draws, from left) is 1 for a theory that is the network, 0 for one as far from it as the optimum is, "
        f"and below 0 for one that is farther. Not shown: what is below {_LOWEST:g}, but for bands; "
        f"levels where the gap is below {LEAST:.1%} of E‖D − mean‖², with nothing to account for. A theory with a "
        "parameter has at each level the one of a list that suits the network best, found on other draws; the "
        "equivariant machine has the windows of the local one, and of all but digits a part of the images. Numbers "
        "beside the pictures: median correlation with the network's samples. Upright lines: borders. Bands are 95% "
        "intervals over draws; each network was trained once.",
    )
    return figure


def _draw_samples(axes: Axes, column: Mapping[str, np.ndarray]) -> None:
    correlation = dict(zip(column["theories"].tolist(), column["ends"][:, 0].tolist(), strict=True))
    shown = column["pictures"].shape[1]
    for row, (name, images) in enumerate(zip(column["sampled"].tolist(), column["pictures"], strict=True)):
        for noise, image in enumerate(images):
            cell(axes, noise, -row, image)
        axes.text(-0.1, -row - 0.5, name.partition(",")[0], ha="right", va="center", fontsize=SMALL)
        if name in correlation:
            axes.text(shown + 0.1, -row - 0.5, f"{correlation[name]:z.2f}", va="center", fontsize=SMALL)
    axes.set(xlim=(-3.2, shown + 0.8), ylim=(-len(column["sampled"]) - 0.05, 0.05), aspect="equal", anchor="N")
    axes.axis("off")


def _draw_shares(axes: Axes, column: Mapping[str, np.ndarray], place: int) -> None:
    told = column["gap_share"][place][:, 0] >= LEAST
    for name, curve in zip(column["theories"].tolist(), column["accounted"][place], strict=True):
        style = STYLES.get(name.partition(",")[0])
        if style is not None:
            banded(axes, column["sigmas"][told], curve[told], marker="o", markersize=2.5, linewidth=1.4, **style)
    if not told.all():
        axes.text(0.02, 0.97, f"below: gap under {LEAST:.1%}", transform=axes.transAxes, va="top", fontsize=SMALL)
    axes.axhline(0, color="k", linewidth=0.8)
    axes.set_ylim(_LOWEST, 1.03)
    _level_axis(axes, column)


def _level_axis(axes: Axes, column: Mapping[str, np.ndarray]) -> None:
    sigmas = column["sigmas"]
    axes.set_xscale("log")
    log_ticks(axes, float(sigmas[0]), float(sigmas[-1]))
    axes.axvline(float(column["border"][0]), color="k", linewidth=0.9, linestyle=(0, (4, 2)))
    axes.grid(alpha=0.3)
