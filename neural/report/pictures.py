"""Images as pixels: sheets of pairs for a file, single ones for a page."""

from __future__ import annotations

import base64
import io
import math
import textwrap
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from torch import Tensor

from optimal.datasets import to_uint8
from optimal.storage import replacing

__all__ = ["data_uri", "grey_levels", "pairs", "plain_style", "png", "write_figure"]

_LEAST = 4.5
_PAIR, _MARGIN, _CAPTION, _LINE = 2.0, 0.25, 0.55, 0.19
"""Inches: of a pair on a sheet, between pairs, below them, of a line above all; the least width is that of a sheet."""


@contextmanager
def plain_style() -> Iterator[None]:
    """Matplotlib's own defaults, whatever a user's matplotlibrc says; a decorator, too."""
    with mpl.rc_context():
        mpl.rcdefaults()
        yield


def grey_levels(image: Tensor) -> np.ndarray:
    """(H, W, 3) uint8 of an image (C, H, W), C = 1 or 3, values in [−1, 1]; others are cut."""
    pixels = to_uint8(image.detach().clamp(-1, 1)).cpu().permute(1, 2, 0).numpy()
    return np.ascontiguousarray(pixels.repeat(3, axis=2) if pixels.shape[2] == 1 else pixels)


def png(pixels: np.ndarray) -> bytes:
    """An image file of pixels (H, W, 3) uint8."""
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG", optimize=True)
    return file.getvalue()


def data_uri(file: bytes) -> str:
    """A PNG as an address that holds it."""
    return "data:image/png;base64," + base64.b64encode(file).decode("ascii")


@plain_style()
def pairs(
    left: Tensor, right: Tensor, captions: Sequence[str], *, title: str, words: Sequence[str] = (), columns: int = 4
) -> Figure:
    """Images two by two, with a caption below each pair.

    Args:
        left, right: (n, C, H, W).
        captions: (n,), of up to three lines.
        title: of the sheet.
        words: what the captions mean, a line each below the title.
        columns: pairs in a row.
    """
    columns = min(columns, max(1, len(left)))
    rows = max(1, math.ceil(len(left) / columns))
    height, width = left.shape[2:]
    gap = np.full((height, max(1, width // 16), 3), 255, np.uint8)
    tall = _PAIR * height / (2 * width + gap.shape[1])
    # Inches: a title on top, then rows of a picture, its caption and a margin.
    # Few pairs are narrower than what is written above them: it is broken into lines.
    wide = max(_LEAST, columns * (_PAIR + _MARGIN) + _MARGIN)
    texts = [(title, 9), *((word, 7) for word in words)]
    broken = [(line, size) for text, size in texts for line in _fit(text, wide - 2 * _MARGIN, size)]
    head = _MARGIN + _LINE * len(broken)
    high = rows * (tall + _CAPTION) + head
    figure = Figure(figsize=(wide, high))
    for place, (line, size) in enumerate(broken):
        figure.text(_MARGIN / wide, 1 - (0.2 + place * _LINE) / high, line, fontsize=size, va="center")
    for place, (one, other, caption) in enumerate(zip(left, right, captions, strict=True)):
        row, column = divmod(place, columns)
        x, y = _MARGIN + column * (_PAIR + _MARGIN), high - head - row * (tall + _CAPTION) - tall
        axes = figure.add_axes((x / wide, y / high, _PAIR / wide, tall / high))
        axes.imshow(np.concatenate([grey_levels(one), gap, grey_levels(other)], 1), interpolation="nearest")
        axes.set_axis_off()
        figure.text((x + _PAIR / 2) / wide, (y - 0.05) / high, caption, fontsize=7, ha="center", va="top")
    return figure


def _fit(text: str, wide: float, size: float) -> list[str]:
    """Lines no wider than so many inches, in a font of so many points whose letters are 0.6 of that wide."""
    return textwrap.wrap(text, max(1, int(wide * 72 / (0.6 * size))))


@plain_style()
def write_figure(figure: Figure, path: str | Path, *, title: str, dpi: int = 160) -> Path:
    """A figure as PNG.

    Raises:
        ValueError: it cannot be written.
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as temporary:
            figure.savefig(temporary, dpi=dpi, metadata={"Title": title, "Author": "optimal-diffusion"})
    except OSError as error:
        raise ValueError(f"the picture could not be written to {path}: {error.strerror or error}") from error
    return path
