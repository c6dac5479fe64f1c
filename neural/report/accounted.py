"""A page on what a network does instead of the optimum: what each theory accounts for, by noise level, and pictures."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from html import escape

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from optimal import Dataset
from optimal.border import Border
from optimal.intervals import Interval

from ..ended import Endings
from ..explained import OPTIMUM, Explained
from .charts import DARK, LIGHT, Theme, drawn, log_levels
from .page import chart, document
from .pictures import data_uri, grey_levels, png
from .tables import number, table

__all__ = ["accounted_page"]

_SHOWN, _LARGEST = 8, 96
_LOWEST = -0.6
"""Of what is drawn: theories that are much farther from the network than the optimum is lie below."""
_DASHES = ("-", (0, (5, 2)), (0, (1, 1.5)))
_WORDS = {
    "accounted": "1 − E‖F − T‖²/E‖F − D‖², F the network, D the optimum, T the theory: 1 for a theory that is the "
    "network, 0 for one as far from it as the optimum is, negative for one that is farther.",
    "direction": "The cosine of F − D and T − D over all draws: 1 where the theory leaves the optimum to the "
    "same side.",
    "share of the gap": "E‖F − D‖² over the mean square distance between the optimum and the mean of the data: what "
    "there is to account for.",
    "fitted": "A theory with a parameter has, at every level, the value of a list with which it is nearest to the "
    "network; on other draws than it is judged on.",
    "explained variance, R², Pearson": "As published: the mean of 1 − ‖F − T‖²/‖F‖² (Wang, Vastola 2024), the mean of "
    "1 − ‖F − T‖²/(dim·Var F) (Lukoianov et al. 2025), the median correlation of the values (Kamb, Ganguli 2024).",
}


def accounted_page(
    found: Sequence[Explained], last: Endings | None, data: Dataset, border: Border, chosen: Sequence[str]
) -> str:
    """The page.

    Args:
        found: the network held to theories, a place each.
        last: where the same noises end; None where they were not sampled.
        data: what the network was trained on.
        border: of the data.
        chosen: the fitted parameters, a sentence a theory and place.
    """
    name = found[0].name
    title = f"What {name} does instead of the optimum of {data.name}"
    light, dark = (drawn(partial(_chart, found, border), theme) for theme in (LIGHT, DARK))
    caption = (
        f"What each theory accounts for of the deviation of {name} from the optimum, with {100 * found[0].level:g}% "
        f"intervals over {found[0].draws:,} draws. Dashed upright line: the border of {data.name}. Curves that leave "
        "the picture below are farther from the network than the optimum is."
    )
    sections = [
        f"<h1>{escape(title)}</h1>",
        *(f'<p class="lead">{escape(sentence)}.</p>' for each in found for sentence in each.sentences()),
        chart((light, dark), "What theories account for against the noise level", caption),
        *(_levels(each) for each in found),
        *([] if last is None else [_ends(last)]),
        *([] if last is None or not data.is_image else [_sheet(last)]),
        "<h2>Parameters</h2>",
        *(f"<p>{escape(sentence)}.</p>" for sentence in chosen),
        "<h2>Words</h2>",
        "<dl>" + "".join(f"<dt>{escape(word)}</dt><dd>{escape(text)}</dd>" for word, text in _WORDS.items()) + "</dl>",
        f"<footer><p>{escape(data.describe())}; licence: {escape(data.licence)}.</p></footer>",
    ]
    return document(title, sections)


def _chart(found: Sequence[Explained], border: Border, theme: Theme) -> Figure:
    figure = Figure(figsize=(10, 4.8), layout="constrained")
    for axes, each in zip(figure.subplots(1, len(found), sharey=True, squeeze=False)[0], found, strict=True):
        for place, name in enumerate(each.theories):
            columns = [each.at(sigma, name).columns["accounted"] for sigma in each.sigmas]
            value, low, high = (np.array([float(getattr(c, end)) for c in columns]) for end in ("value", "low", "high"))
            color, dashes = theme.networks[place % len(theme.networks)], _DASHES[place // len(theme.networks)]
            axes.plot(each.sigmas, value, color=color, ls=dashes, lw=1.5, marker="o", ms=2.5, label=name)
            axes.fill_between(each.sigmas, low, high, color=color, alpha=0.15, lw=0)
        _finish(axes, each, border, theme)
    figure.axes[0].set_ylabel("share of the deviation accounted for")
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4, frameon=False, fontsize=8)
    return figure


def _finish(axes: Axes, found: Explained, border: Border, theme: Theme) -> None:
    axes.axhline(0, color=theme.ink, lw=0.8)
    axes.set(ylim=(_LOWEST, 1.03))
    axes.set_title(f"on {found.on}", fontsize=9, loc="left")
    log_levels(axes, border, theme)
    axes.grid(True, axis="y", alpha=0.6)


def _levels(found: Explained) -> str:
    """The nearest theory by level, and how far everybody is."""
    rows: list[tuple[str, list[str]]] = []
    for sigma in reversed(found.sigmas):
        optimum, names = found.at(sigma, OPTIMUM).columns, found.best(sigma)[0]
        best = found.at(sigma, names[0]).columns
        cells = [number(sigma), _interval(optimum["gap_share"]), _named(names)]
        cells += [_interval(best[column]) for column in ("accounted", "direction")]
        for column in ("explained_variance", "r_square", "pearson"):
            cells.append(f"{number(float(best[column].value))} ({number(float(optimum[column].value))})")
        rows.append(("", cells))
    heads = ["σ", "share of the gap", "nearest, and as near", "accounted", "direction"]
    heads += ["explained variance (optimum's)", "R² (optimum's)", "Pearson (optimum's)"]
    caption = f"{found.name} on {found.on}: the theory nearest to it, first, and those that are as near as can be told"
    return table(heads, rows, caption)


def _named(names: Sequence[str]) -> str:
    others = f'<br><span class="soft">{escape(", ".join(names[1:]))}</span>' if names[1:] else ""
    return f'<span class="names">{escape(names[0])}{others}</span>'


def _ends(last: Endings) -> str:
    rows = [
        ("", [escape(name), *(_interval(columns[key]) for key in ("pearson", "r_square", "distance"))])
        for name in last.others
        for columns in (last.columns(name),)
    ]
    caption = f"Where {len(last.network)} noises end, held to where {last.name} takes them"
    heads = ["sampled", "median Pearson", "mean R²", "distance, root mean square"]
    return f"<h2>Samples</h2><p>{escape(last.sentence())}.</p>" + table(heads, rows, caption)


def _sheet(last: Endings) -> str:
    """A row of pictures for everybody, a noise a column."""
    lines: list[str] = []
    for name, images in {last.name: last.network, **last.others}.items():
        cells = "".join(f'<img alt="{escape(name)}" src="{_picture(image)}">' for image in images[:_SHOWN])
        lines.append(
            f'<figure class="row"><figcaption>{escape(name)}</figcaption><div class="strip">{cells}</div></figure>'
        )
    return "<h3>The same noises, a column each</h3>" + "\n".join(lines)


def _picture(image: Tensor) -> str:
    pixels = grey_levels(image)
    scale = max(1, _LARGEST // max(pixels.shape[:2]))
    step = -(-max(pixels.shape[:2]) // _LARGEST)
    return data_uri(png(np.ascontiguousarray(pixels[::step, ::step].repeat(scale, 0).repeat(scale, 1))))


def _interval(found: Interval) -> str:
    value, low, high = (float(part) for part in (found.value, found.low, found.high))
    if not math.isfinite(value):
        return "–"
    return f'{number(value)}<br><span class="soft">[{number(low)}, {number(high)}]</span>'
