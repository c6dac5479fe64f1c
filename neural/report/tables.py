"""The tables of the page, as HTML: what is read first."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from html import escape
from typing import Any

import numpy as np

from optimal.cli import in_words
from optimal.intervals import Interval

from ..copies import percent
from ..measuring import Measured
from .study import Studied, Study

__all__ = ["levels", "likelihood", "number", "overview", "pairs", "table"]

_ABOVE = (
    "the share is above 1: the network is farther from the optimum than the plain mean of the data is. It was not "
    "trained there, its range of noise levels is another, or it is asked in another convention than it was trained in."
)
_STUDENT = (
    "the share is above 1, as students' are: they answer with one point, and the optimum with the mean of all points "
    "that x may have come from. That says nothing of their samples."
)
_COLUMNS = ("same", "distance", "memorised")
_ALONE = "neural.log_density finds it."


def overview(study: Study) -> str:
    """A line a network."""
    rows, several = [], any(each.pairs is not None for each in study.networks)
    for each in study.networks:
        cells = [escape(each.name)]
        for measured in each.measured:
            at = _farthest(measured)
            gap, interval = _interval(measured, "gap_per_value", at).split(" ", 1)
            sigma = number(float(measured.sigmas[at]))
            cells.append(f'{gap}<br><span class="soft">{interval}<br>at σ = {sigma}</span>')
        if several:
            cells.append("–" if each.pairs is None else _stacked(each.pairs, "same_pairs"))
        if each.found is None:
            cells += ["–", "–"]
        else:
            value, interval = percent(each.found.share("memorised")).split(" ", 1)
            cells += [f'{value}<br><span class="soft">{interval}</span>', f"{each.found.count('copies'):,}"]
        rows.append(("", [*cells, f"{each.nfe}"]))
    heads = [
        "network",
        *(study.place(measured.on) for measured in study.networks[0].measured),
        *(["own pairs"] if several else []),
        "memorised",
        "copies",
        "calls",
    ]
    caption = (
        f"Largest gap per value and where it is; memorised share and copies of {study.effort.samples:,} samples; calls "
        "of the network a sample."
        + (
            " Own pairs: share of the training pairs of a student that it takes where its teacher did."
            if several
            else ""
        )
    )
    return "<h2>All networks</h2>" + table(heads, rows, caption)


def levels(network: Studied, study: Study) -> str:
    """The tables that are read first: by noise level, one a place, that of the data on top."""
    found = "".join(_level_table(network, measured, study) for measured in network.measured)
    remarks = "".join(f"<li>{escape(remark)}</li>" for remark in network.remarks())
    return f"<h2>{escape(network.name)}</h2>" + found + (remarks and f"<ul>{remarks}</ul>")


def _level_table(network: Studied, measured: Measured, study: Study) -> str:
    at, dim = _farthest(measured), study.D.points.dim
    share, weight = measured.columns["gap_share"], measured.columns["gap_over_sigma_square"]
    rows, above = [], []
    for i, sigma in enumerate(measured.sigmas.tolist()):
        marks = ["farthest"] if i == at and measured.columns["gap"].value[at] != 0 else []
        marks += ["border"] if math.isclose(sigma, study.border.sigma, rel_tol=1e-6) else []
        worse = bool(measured.worse()[i])
        above += [number(sigma)] if worse else []
        cells = [
            number(sigma),
            _interval(measured, "gap_per_value", i).replace(" [", ' <span class="soft">[', 1) + "</span>",
            number(float(share.value[i])) + (" *" if worse else ""),
            number(float(weight.value[i]) / dim),
        ]
        rows.append((" ".join(marks), cells))
    heads = ["σ", "gap per value", "share", "gap per value / σ²"]
    caption = (
        f"{network.name} on {study.place(measured.on)}, {measured.draws:,} draws a level; brackets: "
        f"{100 * measured.level:g}% intervals."
    )
    where = f"σ = {above[0]}" if len(above) == 1 else f"{len(above)} of the levels"
    note = f"<p>* At {where} {_STUDENT if network.student else _ABOVE}</p>" if above else ""
    return table(heads, rows, caption) + note


def pairs(study: Study) -> str:
    """Students on fresh noises and on the pairs that they were trained on."""
    learnt = [(each.name, each.pairs) for each in study.networks if each.pairs is not None]
    if not learnt:
        return ""
    # As all distances of a page: root mean square over the values of a point.
    points = study.D.points
    columns = {"same": 1.0, "distance": (127.5 if points.bytes else 1.0) / math.sqrt(points.dim), "memorised": 1.0}
    rows = [
        (
            "",
            [
                escape(name),
                where,
                *(_stacked(row, f"{column}{suffix}", by) for column, by in columns.items()),
            ],
        )
        for name, row in learnt
        for where, suffix in (("fresh noises", ""), ("its training pairs", "_pairs"))
    ]
    caption = (
        "Same: the share of noises that it takes to the data point where its teacher took them, or, of fresh noises, "
        "the exact flow does. Distance: root mean square, over noises and values, to that end, in "
        f"{'grey levels' if points.bytes else 'units of the data'}. What is good on its training pairs and not on "
        "fresh noises has been learnt by heart."
    )
    return "<h2>Students on their own training pairs</h2>" + table(
        ["student", "on", "same", "distance", "memorised"], rows, caption
    )


def likelihood(study: Study) -> str:
    """Bits for each value of a few points, beside the optimum's; or why there are none."""
    rows = []
    for network in study.networks:
        for each in network.densities:
            cells = [escape(network.name), study.place(each.on), _bits(each.bits), _bits(each.exact)]
            rows.append(("", cells))
    lost = [f"<p>{escape(each.name)}: no likelihood: {escape(each.lost)}.</p>" for each in study.networks if each.lost]
    if study.left_out is not None:
        long = f"{in_words(study.left_out)}, more than a quarter of the time for all else"
        return f"<h2>Likelihood</h2><p>Left out: it would have taken {long}; {_ALONE}</p>"
    if not rows:
        without = f"<p>Left out by --quick; {_ALONE}</p>" if not study.effort.likelihood else ""
        return f"<h2>Likelihood</h2>{without}{''.join(lost)}" if without or lost else ""
    one = next(each for network in study.networks for each in network.densities)
    unit = (
        "bits per dimension, in bins of a grey level"
        if one.step != 1
        else "bits for each value, −log₂ of the density in units of the data: below 0 where it is above 1,"
    )
    caption = (
        f"{unit[0].upper()}{unit[1:]} of {one.points} points with noise of σ = {one.sigma:g}, {100 * study.level:g}% "
        "intervals over the points; fewer is "
        "likelier. The optimum finds the data likely and nothing else. A network that does not memorise has the "
        "same on the data and on held-out data."
    )
    return "<h2>Likelihood</h2>" + table(["network", "points", "network's", "optimum's"], rows, caption) + "".join(lost)


def _bits(found: Interval) -> str:
    value, low, high = (number(float(part)) for part in (found.value, found.low, found.high))
    return f'{value}<br><span class="soft">[{low}, {high}]</span>'


def _stacked(row: Mapping[str, Any], column: str, by: float = 1.0) -> str:
    value, low, high = (number(by * row[f"{column}{end}"]) for end in ("", "_low", "_high"))
    return f'{value}<br><span class="soft">[{low}, {high}]</span>'


def _farthest(measured: Measured) -> int:
    return int(measured.columns["gap_per_value"].value.nan_to_num(math.inf).argmax())


def _interval(measured: Measured, column: str, i: int) -> str:
    found = measured.columns[column]
    return f"{number(float(found.value[i]))} [{number(float(found.low[i]))}, {number(float(found.high[i]))}]"


def table(heads: Iterable[str], rows: Iterable[tuple[str, list[str]]], caption: str) -> str:
    """Cells are HTML already."""
    head = "".join(f"<th>{escape(each)}</th>" for each in heads)
    body = "".join(
        f'<tr class="{marks}">' + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>" for marks, cells in rows
    )
    return (
        f'<div class="scroll"><table><caption>{escape(caption)}</caption><thead><tr>{head}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


def number(value: float) -> str:
    """Three digits, as HTML: 0.0123, −1930, 1.2·10<sup>−7</sup>; 0 has no sign."""
    if not math.isfinite(value):
        return "–" if math.isnan(value) else "∞" if value > 0 else "−∞"
    if value == 0 or 1e-4 <= abs(value) < 1e6:
        return np.format_float_positional(float(f"{value:z.3g}"), trim="-").replace("-", "−")
    digits, power = f"{value:.1e}".split("e")
    return f"{digits}·10<sup>{int(power)}</sup>".replace("-", "−")
