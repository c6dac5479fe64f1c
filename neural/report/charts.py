"""The curves of a report, drawn from a `Study` for a light and for a dark page; no maths but on what is drawn."""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from optimal.border import Border

from ..copies import percent
from ..measuring import Measured
from ..sampled import MEMORISED
from .pictures import plain_style
from .study import Studied, Study

__all__ = ["DARK", "LIGHT", "Theme", "drawn", "gap_chart", "log_levels", "points_chart", "ratio_chart", "themed"]


@dataclass(frozen=True)
class Theme:
    """Colours of a picture: ground, ink, faint lines, and one for each network in turn."""

    ground: str
    ink: str
    faint: str
    networks: tuple[str, ...]


LIGHT = Theme("#ffffff", "#1c1c1e", "#c9c9ce", ("#0b62b8", "#c8501e", "#2a8a3e", "#8a3fa8", "#a07800", "#00808a"))
DARK = Theme("#1b1c1f", "#e8e8ea", "#4a4b50", ("#69b1ff", "#ff9a66", "#6fd389", "#d595f0", "#e6c34c", "#4fd1d9"))

_STYLES: dict[str, Any] = {"data": "-", "held-out": (0, (5, 2)), "trajectory": (0, (1, 1.5))}
_FLOOR = 1e-7
"""Of the data's variance: less is float32's rounding, and drawn at the lower edge."""

_CEILING = 1e9
"""Shares of data that are all alike are out of all bounds, and no axis is to go there."""


@contextmanager
def themed(theme: Theme) -> Iterator[None]:
    """Matplotlib's defaults in the colours of a page."""
    ink = ("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color")
    ground = ("figure.facecolor", "axes.facecolor", "savefig.facecolor", "legend.facecolor")
    with plain_style():
        mpl.rcParams.update(
            {
                **dict.fromkeys(ink, theme.ink),
                **dict.fromkeys(ground, theme.ground),
                "legend.edgecolor": theme.faint,
                "grid.color": theme.faint,
                "grid.linewidth": 0.5,
                "font.size": 9,
                "axes.spines.top": False,
                "axes.spines.right": False,
            }
        )
        yield


def drawn(draw: Callable[[Theme], Figure], theme: Theme, *, dpi: int = 150) -> bytes:
    """A chart as a PNG file."""
    with themed(theme):
        figure, file = draw(theme), io.BytesIO()
        figure.savefig(file, dpi=dpi, metadata={"Author": "optimal-diffusion"})
    return file.getvalue()


def gap_chart(study: Study, theme: Theme) -> Figure:
    """Gap per value and share of the gap against σ, with intervals and the border."""
    figure = Figure(figsize=(10, 4.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    variance = study.D.standard_deviation**2 or 1.0
    panels = (
        (left, "gap_per_value", _FLOOR * variance, "gap per value, E‖F − D‖² / dim"),
        (right, "gap_share", _FLOOR, "share of the gap, E‖F − D‖² / E‖D − mean‖²"),
    )
    right.axhline(1, color=theme.ink, lw=0.8)
    for axes, column, least, label in panels:
        floor = _lowest(study, column, least)
        clipped = [
            _curve(axes, measured, column, floor, color, place)
            for place, (network, color) in enumerate(_coloured(study, theme))
            for measured in network.measured
        ]
        log_levels(axes, study.border, theme)
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter(FuncFormatter(_plain))
        axes.set_ylabel(label)
        axes.grid(True, axis="y", alpha=0.6)
        if any(clipped):
            axes.set_ylim(floor, max(axes.get_ylim()[1], 100 * floor))
            box = {"facecolor": theme.ground, "edgecolor": "none", "pad": 1}
            words = "▾ below what is shown, down to 0"
            # On the right, where gaps are large and curves far above.
            axes.text(0.99, 0.03, words, transform=axes.transAxes, ha="right", fontsize=7, bbox=box, zorder=20)
    _legend(figure, left, study, theme)
    return figure


def ratio_chart(study: Study, theme: Theme) -> Figure:
    """How near samples are to the nearest data point, over the second nearest."""
    figure = Figure(figsize=(10, 2.9), layout="constrained")
    axes = figure.subplots()
    edges = np.linspace(0, 1, 31)
    for network, color in _coloured(study, theme):
        if network.found is None:
            continue
        values = 100 * np.histogram(network.found.plain.ratio.numpy(), edges)[0] / len(network.found)
        label = f"{network.name}: {percent(network.found.share('memorised'))} memorised"
        axes.stairs(values, edges, color=color, lw=1.6, label=label)
        axes.stairs(values, edges, color=color, alpha=0.18, fill=True)
    axes.axvline(MEMORISED, color=theme.ink, lw=1, ls=(0, (4, 2)))
    axes.annotate(
        "memorised ←",
        (MEMORISED, 0.96),
        xycoords=("data", "axes fraction"),
        xytext=(-4, 0),
        textcoords="offset points",
        ha="right",
        va="top",
        fontsize=8,
    )
    axes.set_xlim(0, 1)
    axes.set_ylim(bottom=0)
    axes.set_xlabel("distance to the nearest data point / to the second nearest")
    axes.set_ylabel("samples, %")
    if axes.get_legend_handles_labels()[0]:
        axes.legend(loc="best", frameon=False, fontsize=8)
    return figure


def points_chart(study: Study, theme: Theme) -> Figure:
    """Samples of points on the line or in the plane, and the data."""
    count = len(study.networks)
    dim = study.D.points.dim
    figure = Figure(figsize=(10, 0.6 + 2.4 * count if dim == 1 else 4.4 * -(-count // 3)), layout="constrained")
    shape = (count, 1) if dim == 1 else (-(-count // 3), min(count, 3))
    panels = figure.subplots(*shape, squeeze=False, sharex=True)
    data = study.D.points.mean.new_tensor(study.data[:2000].flatten(1).double().numpy()).numpy()
    reach = 1.4 * float(np.abs(data).max()) or 1.0
    for axes in panels.flat:
        axes.set_axis_off()
    for axes, (network, color) in zip(panels.flat, _coloured(study, theme), strict=False):
        axes.set_axis_on()
        axes.set_title(network.name, fontsize=9, loc="left", color=color)
        samples = network.samples.double().flatten(1).cpu().numpy()
        samples = samples[np.isfinite(samples).all(1)]
        outside = int((np.abs(samples) > reach).any(1).sum())
        if dim == 1:
            axes.hist(samples[:, 0], np.linspace(-reach, reach, 121), color=color)
            for at in np.unique(data[:, 0])[:200]:
                axes.axvline(at, color=theme.ink, lw=0.8, ls=(0, (4, 2)), zorder=0)
            axes.set_ylabel("samples")
        else:
            axes.plot(*data.T, ".", color=theme.faint, ms=11 if len(data) <= 200 else 3)
            axes.plot(*samples.T, ".", color=color, ms=3, alpha=0.6)
            axes.set_aspect("equal")
            axes.set_ylim(-reach, reach)
            axes.set_xlabel("first value")
            axes.set_ylabel("second value")
            axes.tick_params(labelbottom=True)
        axes.set_xlim(-reach, reach)
        if outside:
            words = f"{outside} samples lie outside"
            axes.text(0.99, 0.95, words, transform=axes.transAxes, ha="right", va="top", fontsize=8, zorder=9)
    if dim == 1:
        panels[-1, 0].set_xlabel("value of a point, in units of the data")
        data_style: dict[str, Any] = {"color": theme.ink, "lw": 0.8, "ls": (0, (4, 2))}
    else:
        data_style = {"color": theme.faint, "ls": "", "marker": "."}
    samples_style: dict[str, Any] = {"ls": "", "marker": "s" if dim == 1 else ".", "color": theme.networks[0]}
    handles = [Line2D([], [], label="data", **data_style)]
    handles.append(
        Line2D([], [], label="samples, each network in its colour" if count > 1 else "samples", **samples_style)
    )
    figure.legend(handles=handles, loc="outside lower center", ncols=2, frameon=False, fontsize=8)
    return figure


def _coloured(study: Study, theme: Theme) -> list[tuple[Studied, str]]:
    return [(each, theme.networks[i % len(theme.networks)]) for i, each in enumerate(study.networks)]


def _curve(axes: Axes, measured: Measured, column: str, floor: float, color: str, place: int) -> bool:
    """One curve with its intervals; whether some of it lies below `floor`."""
    found, sigmas = measured.columns[column], measured.sigmas.numpy()
    value, low, high = (part.numpy() for part in (found.value, found.low, found.high))
    below = value < floor
    axes.plot(sigmas, value.clip(floor, _CEILING), ls=_STYLES[measured.on], color=color, lw=1.6, zorder=3 + place)
    axes.plot(sigmas[~below], value[~below].clip(max=_CEILING), "o", ms=2.5, color=color, zorder=3 + place)
    if below.any():
        edge = np.full(int(below.sum()), floor)
        axes.plot(sigmas[below], edge, "v", ms=4, color=color, clip_on=False, zorder=9)[0].set_in_layout(False)
    axes.fill_between(sigmas, low.clip(floor, _CEILING), high.clip(floor, _CEILING), color=color, alpha=0.2, lw=0)
    return bool(below.any())


def _lowest(study: Study, column: str, least: float) -> float:
    """What curves are not drawn below: a third of the smallest value above `least`, or that."""
    values = [
        v for each in study.networks for m in each.measured for v in m.columns[column].value.tolist() if v > least
    ]
    return max(least, min(values, default=least) / 3)


def log_levels(axes: Axes, border: Border, theme: Theme) -> None:
    """A log axis of σ, and the border with its interval."""
    axes.set_xscale("log")
    axes.set_xlabel("noise level σ, in units of the data")
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 3.0)))
    axes.xaxis.set_major_formatter(FuncFormatter(_plain))
    axes.xaxis.set_minor_formatter(NullFormatter())
    if 0 < border.sigma < math.inf:
        axes.axvline(border.sigma, color=theme.ink, lw=0.9, ls=(0, (4, 2)))
        if border.low > 0 and border.high < math.inf:
            axes.axvspan(border.low, border.high, color=theme.ink, alpha=0.12, lw=0)
        text = f"border {border.sigma:.3g}"
        axes.annotate(
            text,
            (border.sigma, 1.0),
            xycoords=("data", "axes fraction"),
            xytext=(0, 3),
            textcoords="offset points",
            ha="center",
            fontsize=8,
        )


def _legend(figure: Figure, axes: Axes, study: Study, theme: Theme) -> None:
    """Colours are networks, styles are places, in rows of their own."""
    networks = [axes.plot([], [], color=color, lw=3, label=each.name)[0] for each, color in _coloured(study, theme)]
    places = [measured.on for measured in study.networks[0].measured]
    rest = [axes.plot([], [], color=theme.ink, ls=_STYLES[on], label=f"on {study.place(on)}")[0] for on in places]
    # Written in the picture it would be crossed by curves.
    rest.append(axes.plot([], [], color=theme.ink, lw=0.8, label="share 1: always the mean of the data")[0])
    columns = max(len(rest), min(4, len(networks)))
    rows = [networks[at : at + columns] for at in range(0, len(networks), columns)] + [rest]
    nothing = Line2D([], [], ls="", label=" ")
    # A legend is filled column by column.
    handles = [row[at] if at < len(row) else nothing for at in range(columns) for row in rows]
    figure.legend(handles=handles, loc="outside lower center", ncols=columns, frameon=False, fontsize=8)


def _plain(value: float, _: int) -> str:
    return f"{value:g}" if 1e-3 <= abs(value) < 1e5 else f"{value:.0e}".replace("e-0", "e-").replace("e+0", "e")
