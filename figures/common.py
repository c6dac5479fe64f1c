"""What several figures share: the seed, where data come from, plain numbers on a log axis."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from optimal import Border, Dataset, OptimalDenoiser, seeking_refining_border
from optimal.randomness import stream

from .config import Config

__all__ = ["border_of", "cell", "generator", "log_ticks", "plain_ticks", "provenance", "shape_in_words", "start_level"]

_SMALL, _DRAWS = 200_000, 4000
"""Data of up to so many values have their border from so many draws: a second for digits."""


def generator(config: Config, part: int = 0) -> torch.Generator:
    """A fresh source of randomness for figures; parts of one seed are independent."""
    return stream(config.seed, "figures", part)


def border_of(config: Config, D: OptimalDenoiser, draws: int) -> Border:
    """The border between mode seeking and mode refining, for small data from so many draws that all figures agree."""
    if not config.quick and D.mean.numel() * len(D) <= _SMALL:
        draws = max(draws, _DRAWS)
    return seeking_refining_border(D, draws=draws, generator=generator(config), progress=True)


def provenance(data: Dataset) -> dict[str, np.ndarray]:
    """Which data a figure shows, as scalars for its NPZ and JSON."""
    return {
        "dataset": np.array(data.name),
        "size": np.array(len(data)),
        "event": np.array("×".join(map(str, data.event))),
        "fingerprint": np.array(data.fingerprint),
        "source": np.array(data.source),
        "licence": np.array(data.licence),
    }


def shape_in_words(provenance: Mapping[str, np.ndarray]) -> str:
    """3×64×64; on the line; 2-dimensional."""
    event = str(provenance["event"])
    return event if "×" in event else "on the line" if event == "1" else f"{event}-dimensional"


def start_level(D: OptimalDenoiser) -> float:
    """σ at which trajectories start: EDM's 80, for data of EDM's size (standard deviation ½) or smaller; else more."""
    return 80.0 * max(1.0, 2 * D.standard_deviation)


def plain_ticks(axes: Axes, ticks: tuple[float, ...]) -> None:
    """Ticks of a log axis at these values, written out."""
    axes.xaxis.set_major_locator(FixedLocator(ticks))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_locator(NullLocator())


def log_ticks(axes: Axes, low: float, high: float) -> None:
    """Powers of ten between low and high, written out."""
    powers = range(int(np.ceil(np.log10(low))), int(np.floor(np.log10(high))) + 1)
    plain_ticks(axes, tuple(10.0**power for power in powers))


def cell(axes: Axes, left: float, top: float, image: np.ndarray) -> None:
    """Draw one image (C, H, W) of values in [-1, 1] into a unit square."""
    shown = np.clip((image.transpose(1, 2, 0) + 1) / 2, 0, 1)
    if shown.shape[2] == 1:
        shown = shown.repeat(3, axis=2)
    extent = (left + 0.02, left + 0.98, top - 0.98, top - 0.02)
    axes.imshow(shown, extent=extent, interpolation="nearest", aspect="equal")
