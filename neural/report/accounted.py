"""A page on what a network does instead of the optimum: what each theory accounts for, by noise level, and pictures."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import partial
from html import escape

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from optimal import Dataset
from optimal.border import Border
from optimal.denoiser import Denoiser
from optimal.intervals import Interval

from ..ended import Endings
from ..explained import Explained
from ..verdict import OPTIMUM, Verdict, listed
from .charts import DARK, LIGHT, Theme, drawn, log_levels
from .page import chart, document
from .parameters import parameters
from .pictures import data_uri, grey_levels, png
from .styles import style_of
from .tables import number, table

__all__ = ["accounted_page"]

_SHOWN, _LARGEST = 8, 96
_LOWEST = -60
"""Percent, of what is drawn: theories that are much farther from the network than the optimum is lie below."""
_PLACES = {
    "data": "On noisy points of the data",
    "held-out": "On noisy points that were held out",
    "trajectory": "On its own trajectory",
}
_COEFFICIENTS = {"explained_variance": "explained variance", "r_square": "R²", "pearson": "Pearson"}
_WORDS = {
    "accounted": "1 − E‖F − T‖²/E‖F − D‖², F the network, D the optimum, T the theory: 1 for a theory that is the "
    "network, 0 for one as far from it as the optimum is, negative for one that is farther.",
    "direction": "The cosine of F − D and T − D over all draws: 1 where the theory leaves the optimum to the "
    "same side.",
    "share of the gap": "E‖F − D‖² over the mean square distance between the optimum and the mean of the data: what "
    "there is to account for. Below a thousandth the network is the optimum, and no theory is named.",
    "none surely": "The nearest theory accounts for less than a twentieth of the deviation at the lower end of its "
    "interval, or the optimum is as near as can be told.",
    "fitted": "A theory with a parameter has, at every level, the value of a list with which it is nearest to the "
    "network; on other draws than it is judged on.",
    "explained variance, R², Pearson": "As published: the mean of 1 − ‖F − T‖²/‖F‖² (Wang, Vastola 2024), the mean of "
    "1 − ‖F − T‖²/(dim·Var F) (Lukoianov et al. 2025), the median correlation of the values (Kamb, Ganguli 2024).",
}


def accounted_page(
    found: Sequence[Explained],
    last: Endings | None,
    data: Dataset,
    border: Border,
    theories: Mapping[str, Mapping[str, Denoiser]],
) -> str:
    """The page.

    Args:
        found: the network held to theories, a place each.
        last: where the same noises end; None where they were not sampled.
        data: what the network was trained on.
        border: of the data.
        theories: those that were fitted, by place and name.
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
        *(_said(each) for each in found),
        chart((light, dark), "What theories account for against the noise level", caption),
        *(_levels(each) for each in found),
        *([] if last is None else [_ends(last)]),
        *([] if last is None or not data.is_image else [_sheet(last)]),
        "<h2>Parameters</h2>",
        parameters(theories),
        "<h2>Words</h2>",
        "<dl>" + "".join(f"<dt>{escape(word)}</dt><dd>{escape(text)}</dd>" for word, text in _WORDS.items()) + "</dl>",
        f"<footer><p>{escape(data.describe())}; licence: {escape(data.licence)}.</p></footer>",
    ]
    return document(title, sections)


def _chart(found: Sequence[Explained], border: Border, theme: Theme) -> Figure:
    figure = Figure(figsize=(10, 4.8), layout="constrained")
    for axes, each in zip(figure.subplots(1, len(found), sharey=True, squeeze=False)[0], found, strict=True):
        for name in each.theories:
            columns = [each.at(sigma, name).columns["accounted"].scaled(100) for sigma in each.sigmas]
            value, low, high = (np.array([float(getattr(c, end)) for c in columns]) for end in ("value", "low", "high"))
            style = style_of(name, each.theories, theme)
            axes.plot(each.sigmas, value, **style, lw=1.5, marker="o", ms=2.5, label=name)
            axes.fill_between(each.sigmas, low, high, color=style["color"], alpha=0.15, lw=0)
        _finish(axes, each, border, theme)
    figure.axes[0].set_ylabel("share of the deviation accounted for, %")
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4, frameon=False, fontsize=8)
    return figure


def _finish(axes: Axes, found: Explained, border: Border, theme: Theme) -> None:
    axes.axhline(0, color=theme.ink, lw=0.8)
    axes.set(ylim=(_LOWEST, 103))
    axes.set_title(f"on {found.on}", fontsize=9, loc="left")
    log_levels(axes, border, theme)
    axes.grid(True, axis="y", alpha=0.6)


def _said(found: Explained) -> str:
    """The sentences of one place, a line each, without the words that they have in common."""
    start = f"{found.name} on {found.on}, "
    lines = "".join(f"<li>{escape(sentence.removeprefix(start))}.</li>" for sentence in found.sentences())
    return f"<h2>{escape(_PLACES.get(found.on, f'On {found.on}'))}</h2><ul>{lines}</ul>"


def _levels(found: Explained) -> str:
    """The nearest theory by level, if any, and how far it is: the verdict that the sentences are made of."""
    rows: list[tuple[str, list[str]]] = []
    for sigma in reversed(found.sigmas):
        verdict, optimum = found.verdict(sigma), found.at(sigma, OPTIMUM).columns
        best = found.at(sigma, verdict.names[0]).columns
        cells = [number(sigma), _interval(optimum["gap_share"], 100), _named(verdict)]
        if verdict.kind == "optimum":
            cells += ["–"] * 2 + [_beside(None, optimum[column]) for column in _COEFFICIENTS]
        else:
            cells += [_rounded(verdict.share, 100, 2), _rounded(best["direction"], 1, 3)]
            cells += [_beside(best[column], optimum[column]) for column in _COEFFICIENTS]
        rows.append(("", cells))
    heads = ["σ", "share of the gap, %", "nearest, and as near", "accounted, %", "direction", *_COEFFICIENTS.values()]
    caption = (
        f"{found.name} on {found.on}: the theory nearest to it, and those that are as near as can be told; in brackets "
        f"{100 * found.level:g}% intervals, of what is accounted for with the choice allowed for. Of the last three "
        "columns the optimum's own below."
    )
    return table(heads, rows, caption)


def _named(verdict: Verdict) -> str:
    if verdict.kind == "optimum":
        return '<span class="names">the network is the optimum</span>'
    first, *others = ("none surely", f"closest: {listed(verdict.names)}") if verdict.kind == "none" else verdict.names
    below = f'<br><span class="soft">{escape(", ".join(others))}</span>' if others else ""
    return f'<span class="names">{escape(first)}{below}</span>'


def _beside(theory: Interval | None, optimum: Interval) -> str:
    """A coefficient of the theory over that of the optimum."""
    above = "–" if theory is None else number(float(theory.value))
    return f'{above}<br><span class="soft">({number(float(optimum.value))})</span>'


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


def _interval(found: Interval, factor: float = 1.0) -> str:
    value, low, high = (factor * float(part) for part in (found.value, found.low, found.high))
    if not math.isfinite(value):
        return "–"
    return f'{number(value)}<br><span class="soft">[{number(low)}, {number(high)}]</span>'


def _rounded(found: Interval, factor: float, digits: int) -> str:
    """The same of what has a unit size, a share or a cosine, so that it is as wide everywhere: no more digits."""
    return _interval(found.map(lambda part: (factor * part).round(decimals=digits)))
