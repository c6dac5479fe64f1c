"""One HTML file from arrays: numbers as JSON, images as sprite sheets in data URIs, scripts and style inlined."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from optimal.datasets import to_uint8
from optimal.storage import replacing

from ..config import Config
from ..output import stem

__all__ = ["page_of", "write"]

_PARTS = Path(__file__).parent
_SCRIPTS = ("posterior.js", "canvas.js", "line.js", "plane.js", "toy.js", "images.js")
_SIDE = 64
"""Largest side of a picture on the page, pixels; larger images are averaged down for show, not for the numbers."""
_PICTURES = ("sources", "noisy", "means", "landings")


def page_of(config: Config) -> Path:
    """Where the page is: --out itself if it ends in .html, else a file in it."""
    return config.out if config.out.suffix == ".html" else config.out / f"{stem('explore', config)}.html"


def write(config: Config, arrays: Mapping[str, np.ndarray]) -> Path:
    """Write the page, under a temporary name first.

    Args:
        config: --out is a folder, in which the page is explore.html or, as `figures.output.stem` says, named
            after its data, or the name of the page if it ends in .html.
        arrays: those of `compute`.

    Returns:
        The path of the page.

    Raises:
        ValueError: it cannot be written.
    """
    path = page_of(config)
    page = (_PARTS / "page.html").read_text(encoding="utf-8")
    script = "\n".join((_PARTS / name).read_text(encoding="utf-8") for name in _SCRIPTS)
    # The only "</" in a script element's text must be its end.
    numbers = json.dumps(_payload(arrays), ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c")
    for mark, text in (
        ("/*style*/", (_PARTS / "style.css").read_text(encoding="utf-8")),
        ("/*script*/", script),
        ("/*numbers*/", numbers),
    ):
        page = page.replace(mark, text, 1)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as temporary:
            temporary.write_text(page, encoding="utf-8")
    except OSError as error:
        raise ValueError(f"the page could not be written to {path}: {error.strerror or error}") from error
    return path


def _payload(arrays: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """{"toy": {…}, "images": {…} or null}, names as in the arrays."""
    toy = {key[4:]: _plain(value) for key, value in arrays.items() if key.startswith("toy_")}
    if "sigmas" not in arrays:
        return {"toy": toy, "images": None}
    kept = {key: value for key, value in arrays.items() if not key.startswith("toy_")}
    drawn = (*_PICTURES, "others", "other_names")
    images = {key: _plain(value) for key, value in kept.items() if key not in drawn}
    images["others"] = [
        {"name": name, "sheet": _sheet(rows)[0]}
        for name, rows in zip(kept["other_names"].tolist(), kept["others"], strict=True)
    ]
    # x/√(1 + σ²), so that noise of any σ fits the range of a picture.
    shrunk = kept["noisy"] / np.sqrt(1 + kept["sigmas"] ** 2).reshape(1, -1, 1, 1, 1)
    pictures = kept | {"noisy": shrunk, "sources": kept["sources"][:, None], "landings": kept["landings"][None]}
    for key in _PICTURES:
        images[key], images["cell"] = _sheet(pictures[key])
    images["shown_reduced"] = max(kept["sources"].shape[-2:]) > _SIDE
    return {"toy": toy, "images": images}


def _plain(value: np.ndarray) -> Any:
    """Numbers and text that JSON knows; infinity is null."""
    if value.ndim:
        return value.tolist()
    item = value.item()
    return None if item in (np.inf, -np.inf) else item


def _sheet(pictures: np.ndarray) -> tuple[str, tuple[int, int]]:
    """(rows, columns, C, H, W) in [−1, 1] as one PNG in a data URI, and (width, height) of each picture on it."""
    rows, columns, channels, height, width = pictures.shape
    cells = torch.from_numpy(np.ascontiguousarray(pictures, dtype=np.float32)).flatten(0, 1)
    shrink = min(1.0, _SIDE / max(height, width))
    if shrink < 1:
        size = (max(1, round(height * shrink)), max(1, round(width * shrink)))
        cells = torch.nn.functional.interpolate(cells, size, mode="area")
        height, width = size
    grey = to_uint8(cells).numpy().reshape(rows, columns, channels, height, width)
    sheet = grey.transpose(0, 3, 1, 4, 2).reshape(rows * height, columns * width, channels)
    file = io.BytesIO()
    Image.fromarray(sheet[:, :, 0] if channels == 1 else sheet).save(file, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode(), (width, height)
