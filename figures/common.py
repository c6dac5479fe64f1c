"""What several figures share: the seed, where data come from, intervals and their bands, plain numbers on a log axis.

A figure is `WIDTH` inches wide and its letters are of `SMALL` points or more, so that they can be read where it is 830
pixels wide, as in the gallery: 9.4 pixels.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure, FigureBase, SubFigure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator
from torch import Tensor

from optimal import Border, Dataset, OptimalDenoiser, seeking_refining_border
from optimal.intervals import Interval, share_interval
from optimal.randomness import stream

from .config import Config

__all__ = [
    "BORDER_LEVELS",
    "FLOW",
    "SMALL",
    "TITLE_SIZE",
    "WIDTH",
    "banded",
    "border_draws",
    "border_of",
    "cell",
    "ends",
    "generator",
    "log_ticks",
    "note",
    "plain_ticks",
    "power_ticks",
    "provenance",
    "shape_in_words",
    "shares",
    "stacked",
]

WIDTH, SMALL, TITLE_SIZE = 11.0, 9.0, 14.0
"""Inches, and points of the smallest letters and of the title."""
_LINE = 160
"""Small letters across a page."""

_DRAWS = {200_000: 4000, 50_000_000: 256}
"""Data of up to so many values have their border from so many draws or more: seconds for digits, and for emoji."""


BORDER_LEVELS, FLOW = 22, 50
"""Levels at which a border asks for the posterior, and calls in which the exact flow lands, about."""


def generator(config: Config, part: int = 0) -> torch.Generator:
    """A fresh source of randomness for figures; parts of one seed are independent."""
    return stream(config.seed, "figures", part)


def border_of(config: Config, D: OptimalDenoiser, draws: int) -> Border:
    """The border between mode seeking and mode refining, from so many draws that all figures agree."""
    draws = border_draws(config.quick, draws, D.mean.numel() * len(D))
    return seeking_refining_border(D, draws=draws, generator=generator(config), progress=True)


def ends(interval: Interval) -> np.ndarray:
    """(…,) to (…, 3): the value, and the ends of its interval."""
    return torch.stack([interval.value, interval.low, interval.high], -1).numpy()


def shares(hits: Tensor) -> np.ndarray:
    """(…, n) draws of yes and no to (…, 3): the share of yes, and its 95% interval."""
    return ends(share_interval(hits))


def banded(axes: Axes, x: np.ndarray, curve: np.ndarray, **style: Any) -> None:
    """A curve (n, 3) of values and the ends of their intervals: a line, and the intervals as a band around it."""
    axes.plot(x, curve[:, 0], **style)
    axes.fill_between(x, curve[:, 1], curve[:, 2], color=style["color"], alpha=0.18, linewidth=0)


def border_draws(quick: bool, draws: int, values: int) -> int:
    """Draws that the border of data of so many values is taken from, where a figure has so many."""
    return draws if quick else max(draws, next((count for most, count in _DRAWS.items() if values <= most), 0))


def provenance(data: Dataset) -> dict[str, np.ndarray]:
    """Which data a figure shows, as scalars for its NPZ and JSON; of files the name alone: figures are passed on."""
    return {
        "dataset": np.array(data.name),
        "size": np.array(len(data)),
        "event": np.array("×".join(map(str, data.event))),
        "fingerprint": np.array(data.fingerprint),
        "source": np.array(Path(data.source).name if Path(data.source).is_absolute() else data.source),
        "licence": np.array(data.licence),
    }


def shape_in_words(provenance: Mapping[str, np.ndarray]) -> str:
    """3×64×64; on the line; 2-dimensional."""
    event = str(provenance["event"])
    return event if "×" in event else "on the line" if event == "1" else f"{event}-dimensional"


def plain_ticks(axes: Axes, ticks: tuple[float, ...]) -> None:
    """Ticks of a log axis at these values, written out."""
    axes.xaxis.set_major_locator(FixedLocator(ticks))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_locator(NullLocator())


def log_ticks(axes: Axes, low: float, high: float) -> None:
    """Powers of ten between low and high, written out."""
    powers = range(int(np.ceil(np.log10(low))), int(np.floor(np.log10(high))) + 1)
    plain_ticks(axes, tuple(10.0**power for power in powers))


def stacked(figure: Figure, *heights: float) -> list[SubFigure]:
    """Parts of a page, one below the other, each with a legend and a note of its own."""
    grid = figure.add_gridspec(len(heights), 1, height_ratios=heights)
    return [figure.add_subfigure(place) for place in grid]


def note(page: FigureBase, words: str) -> None:
    """What a stranger has to know, at the foot of the page in small grey letters."""
    page.supxlabel(textwrap.fill(words, _LINE), fontsize=SMALL, color="0.35", x=0.01, ha="left")


def power_ticks(axes: Axes) -> None:
    """A log axis of counts that double: powers of two, written out."""
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_locator(NullLocator())


def cell(axes: Axes, left: float, top: float, image: np.ndarray) -> None:
    """Draw one image (C, H, W) of values in [-1, 1] into a unit square."""
    shown = np.clip((image.transpose(1, 2, 0) + 1) / 2, 0, 1)
    if shown.shape[2] == 1:
        shown = shown.repeat(3, axis=2)
    extent = (left + 0.02, left + 0.98, top - 0.98, top - 0.02)
    axes.imshow(shown, extent=extent, interpolation="nearest", aspect="equal")
