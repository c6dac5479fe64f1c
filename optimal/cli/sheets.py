"""Images with words under them, tile by tile, as a PNG."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from torch import Tensor

from ..datasets import to_uint8
from ..storage import replacing

__all__ = ["Tile", "save_sheet"]

_SIDE = 128
"""Pixels that the longer side of an image has at least about, and a line of words may take."""
_LETTERS = 13
_LINE = 16
_GAP = 6


class Tile(NamedTuple):
    """An image (C, H, W), C = 1 or 3, values in [−1, 1] (others are cut), and the lines under it."""

    image: Tensor
    lines: tuple[str, ...] = ()


def save_sheet(tiles: Sequence[Tile], path: Path, *, columns: int | None = None) -> Path:
    """Tiles row by row, each image enlarged by whole pixels; lines too long for it lose their middle.

    Args:
        tiles: images of one shape.
        path: of the PNG.
        columns: of the sheet; about as many as rows unless given.

    Returns:
        path.
    """
    from PIL import Image, ImageDraw, ImageFont

    columns = min(columns or math.ceil(math.sqrt(len(tiles))), len(tiles))
    _, height, width = tiles[0].image.shape
    scale = max(1, _SIDE // max(height, width))
    wide, high = max(width * scale, _SIDE), height * scale
    words = _LINE * max(len(tile.lines) for tile in tiles)
    down = -(-len(tiles) // columns)
    sheet = Image.new("RGB", (columns * (wide + _GAP) - _GAP, down * (high + words + _GAP) - _GAP), "white")
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(size=_LETTERS)
    for i, tile in enumerate(tiles):
        row, column = divmod(i, columns)
        left, top = column * (wide + _GAP), row * (high + words + _GAP)
        pixels = to_uint8(tile.image.clamp(-1, 1)).permute(1, 2, 0).cpu().numpy().repeat(scale, 0).repeat(scale, 1)
        sheet.paste(Image.fromarray(np.broadcast_to(pixels, (*pixels.shape[:2], 3)).copy()), (left, top))
        for k, line in enumerate(tile.lines):
            plain = line.encode("latin-1", "replace").decode("latin-1")  # what Pillow's own font has
            pen.text((left, top + high + k * _LINE), _fitting(plain, wide, font.getlength), font=font, fill="black")
    with replacing(path) as temporary:
        sheet.save(temporary)
    return path


def _fitting(line: str, width: float, length: Callable[[str], float]) -> str:
    """The line, or as much of its beginning and end as `width` pixels hold, by bisection."""
    if length(line) <= width:
        return line
    low, high = 0, len(line)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if length(_without_middle(line, middle)) <= width else (low, middle)
    return _without_middle(line, low)


def _without_middle(line: str, kept: int) -> str:
    """So many letters of a line, the later ones first: files are told apart by how their names end."""
    head = kept // 3
    return f"{line[:head]}...{line[len(line) - (kept - head) :]}"
