"""A `Study` as one HTML page: what is read first on top, every picture inside, no script, nothing loaded."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from html import escape
from importlib.metadata import version
from pathlib import Path

import torch

from ..sampled import MEMORISED
from . import tables
from .pictures import data_uri, grey_levels, png
from .study import Studied, Study

__all__ = ["chart", "document", "html"]

_SHOWN = 24
"""Samples of one network on the page; half of that where there are several."""
_LARGEST = 128
"""Side of an image on the page, pixels of its own; larger ones are thinned out for show."""
_WORDS = {
    "optimum": "E[x0 | x], what a perfect network would answer: the mean of the data points, each weighted by how "
    "likely x was made from it at this noise level. A network that reaches it everywhere generates data points only.",
    "gap per value": "Mean square of the distance between network and optimum, over the number of values of a point; "
    "in brackets its interval over the draws.",
    "share": "The gap over the mean square distance between the optimum and the mean of the data: 0 for the optimum, "
    "1 for a network that always answers the mean.",
    "gap per value / σ²": "The weight of the gap in dx/dσ = (x − F)/σ, along which samples are drawn.",
    "border": "The noise level at which the optimum blends two data points, in the median. Above it the optimum "
    "blends many, below it returns one of them: a network that does not memorise has to leave it there.",
    "distance": "Of a sample to the data point nearest to it, root mean square over the values of a point: in grey "
    "levels of 0 to 255 for images, else in units of the data. The gap per value is a mean square: its root compares.",
    "ratio": "The distance to the nearest data point over that to the second nearest; 0 is a copy, near 1 is as far "
    "from both.",
    "memorised": "Nearer to one data point than a third of the distance to the second nearest: a ratio below 1/3.",
    "copy": "Equal to an image of the data in grey levels (exact), or within a twentieth of the standard deviation of "
    "the data from it, root mean square (near); mirrored: as its mirror image, left to right.",
}
_GUIDED = (
    "D + w (D_c − D) of the exact optima of the class and of all data: what a network that is perfect on both would "
    "answer under this guidance. It is the mean of no distribution."
)
_BITS = (
    "−log₂ of the density of a noisy point under the network, over the number of values: one bit less is twice the "
    "density for each value. A density may be above 1, of which the logarithm is positive: such bits are negative."
)


def html(study: Study, charts: Mapping[str, tuple[bytes, bytes]], files: Sequence[str]) -> str:
    """The page.

    Args:
        study: what was measured.
        charts: name ("gap", "ratio", "points") -> PNG for a light and for a dark page.
        files: names of the tables and pictures beside the page.
    """
    names = ", ".join(each.name for each in study.networks)
    kind = "optimum" if study.wanted.guidance is None else "guided optimum"
    title = f"{names} beside the {kind} of {study.data.name}"
    sections = [
        f"<h1>{escape(title)}</h1>",
        *(f"<p>{escape(sentence)}.</p>" for sentence in study.wanted.sentences()),
        *(f'<p class="doubt">{escape(note)}</p>' for note in study.notes),
        *(f'<p class="lead">{escape(sentence)}.</p>' for each in study.networks for sentence in each.sentences()),
        *(_copies(each) for each in study.networks if each.found is None or len(study.networks) == 1),
        *(_doubt(each) for each in study.networks if each.doubt is not None),
        tables.overview(study) if len(study.networks) > 1 else "",
        *(tables.levels(each, study) for each in study.networks),
        "<h2>The gap by noise level</h2>",
        chart(charts["gap"], "Gap and share of the gap against the noise level", _gap_caption(study)),
        tables.likelihood(study),
        tables.pairs(study),
        "<h2>Memorised samples</h2>",
        chart(
            charts["ratio"],
            "Histogram of the distance to the nearest over that to the second nearest data point",
            f"{study.effort.samples:,} samples of each network, from the same unit noises. A sample left of 1/3 is "
            "nearer to one data point than a third of the distance to any other: memorised.",
        ),
        *(_samples(each, study) for each in study.networks if study.data.is_image),
    ]
    if "points" in charts:
        caption = "Samples (in colour) and data points (dashed lines, or grey)."
        sections += ["<h2>Samples</h2>", chart(charts["points"], "Samples beside the data", caption)]
    sections += ["<h2>Words</h2>", _words(study), "<h2>Files</h2>", _files(files), _foot(study)]
    return document(title, sections)


def document(title: str, sections: Sequence[str]) -> str:
    """A page of its own: the style inside, nothing loaded; what is empty is left out."""
    style = (Path(__file__).parent / "page.css").read_text(encoding="utf-8")
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>\n{style}</style>\n</head>\n<body>\n"
        + "\n".join(part for part in sections if part)
        + "\n</body>\n</html>\n"
    )


def _doubt(network: Studied) -> str:
    """Before any number is believed."""
    return f'<p class="doubt">{escape(network.name)} is {escape(str(network.doubt))}</p>'


def _copies(network: Studied) -> str:
    if network.found is None:
        return f"<p>{escape(network.name)}: its samples are not finite; its sampler diverges.</p>"
    return f"<p>{escape(network.name)}, samples: {escape(network.found.sentence())}.</p>"


def _samples(network: Studied, study: Study) -> str:
    """The samples nearest to an image of the data, and some that were not chosen, beside the nearest ones."""
    found = network.found
    if found is None:
        return ""
    half = _SHOWN // (2 if len(study.networks) == 1 else 4)
    closest = found.closest(half)
    first = [i for i in range(len(found)) if i not in closest][:half]
    out = [f"<h2>Samples of {escape(network.name)}</h2>"]
    for title, chosen in (("Least distance to the data", closest), ("The first others", first)):
        if not chosen:
            continue
        nearest = study.D.take(torch.tensor([found.sides[i].index for i in chosen]))
        cells = [
            f'<figure><div class="pair"><img alt="sample {i}" src="{_image(network.samples[i])}">'
            f'<img alt="image {found.sides[i].index}" src="{_image(image)}"></div>'
            f"<figcaption>{_pair(network, i)}</figcaption></figure>"
            for i, image in zip(chosen, nearest, strict=True)
        ]
        out.append(f"<h3>{title}: the sample left, the nearest image of the data right</h3>")
        out.append(f'<div class="pairs">{"".join(cells)}</div>')
    return "\n".join(out)


def _pair(network: Studied, i: int) -> str:
    assert network.found is not None
    found, side, kind = network.found, network.found.sides[i], network.found.kind[i]
    where = f"sample {i}, image {side.index} of the data{', mirrored' if side.mirrored else ''}"
    mark = f'<span class="copy">{kind} copy</span>, ' if kind else "memorised, " if side.ratio < MEMORISED else ""
    return f"{where}<br>{mark}distance {found.difference(side.distance)}, ratio {side.ratio:.2f}"


def _image(image: torch.Tensor) -> str:
    step = -(-max(image.shape[1:]) // _LARGEST)
    return data_uri(png(grey_levels(image[:, ::step, ::step])))


def chart(files: tuple[bytes, bytes], alt: str, caption: str) -> str:
    """A picture for light and for dark pages, with its caption."""
    light, dark = map(data_uri, files)
    return (
        f'<figure><picture><source media="(prefers-color-scheme: dark)" srcset="{dark}">'
        f'<img alt="{escape(alt)}" src="{light}"></picture><figcaption>{escape(caption)}</figcaption></figure>'
    )


def _gap_caption(study: Study) -> str:
    measured = study.networks[0].measured[0]
    held_out = f" Held-out data: {study.held_out}." if study.held_out else ""
    return (
        "F is the network, D the optimum, dim the number of values of a point. "
        f"Bands: {100 * measured.level:g}% intervals over {measured.draws:,} draws, often narrower than the line. "
        f"Dashed upright line and band: the border of {study.data.name} and its interval. On its own trajectory the "
        f"network is asked where its flow goes, not at data points with noise.{held_out}"
    )


def _words(study: Study) -> str:
    words = dict(_WORDS) | ({} if study.wanted.guidance is None else {"optimum": _GUIDED})
    if study.data.is_image and not study.trained:
        words["training image"] = f"An image of {study.data.name}, whatever the networks were trained on."
    if any(each.densities for each in study.networks):
        words["bits"] = _BITS
    return "<dl>" + "".join(f"<dt>{escape(word)}</dt><dd>{escape(text)}</dd>" for word, text in words.items()) + "</dl>"


def _files(files: Sequence[str]) -> str:
    links = ", ".join(f'<a href="{escape(name, quote=True)}">{escape(name)}</a>' for name in files)
    return f'<p class="soft">{links}</p>'


def _foot(study: Study) -> str:
    data, border = study.data, study.border
    interval = f"{border.sigma:.4g} [{border.low:.4g}, {border.high:.4g}]"
    text = (
        f"{data.describe()}; licence: {data.licence}. Border {interval}, {border.draws} draws. Seed {study.seed}. "
        f"optimal-diffusion {version('optimal-diffusion')}, torch {torch.__version__}, Python "
        f"{platform.python_version()}."
    )
    return f"<footer><p>{escape(text)}</p></footer>"
