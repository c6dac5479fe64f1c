"""64x64x3 windows of photographs: as many as FFHQ-64 has images, at its exact size, for speed and memory work."""

from __future__ import annotations

import math
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import numpy as np

from ..packages import required
from . import store
from .dataset import Dataset
from .derive import spread
from .embedded import package_folder
from .store import Block, Decoding

__all__ = ["patches", "window_corners"]

_SIZE = 64
_BLOCK = 512  # windows gathered at a time: 6 MB
_PHOTOGRAPHS = (
    # (module, path in it): colour photographs inside the wheels, none that scikit-image would have to download
    ("skimage", "data/astronaut.png"),
    ("skimage", "data/chelsea.png"),
    ("skimage", "data/coffee.png"),
    ("skimage", "data/rocket.jpg"),
    ("skimage", "data/retina.jpg"),
    ("skimage", "data/ihc.png"),
    ("skimage", "data/hubble_deep_field.jpg"),
    ("skimage", "data/motorcycle_left.png"),
    ("sklearn", "datasets/images/china.jpg"),
    ("sklearn", "datasets/images/flower.jpg"),
)


def patches(*, n: int = 10_000, progress: bool = True) -> Dataset:
    """n windows of 64x64x3 cut from ten colour photographs, D = 12,288, for speed and memory work.

    Not for posterior statistics: the windows overlap, so neighbours are far closer to each other than the images of any
    real data set, and entropies, effective counts and borders measured on them mean little.

    Every photograph gives n / 10 windows, their corners on an even grid over it, all at distinct positions. The windows
    go to the store block by block; at n = 70,000 that is 860 MB on disk and never in memory.

    Args:
        n: how many, from 1 to 70,000.
        progress: whether a progress bar is drawn on stderr.

    Raises:
        ValueError: if n is out of range.
    """
    if not 1 <= n <= 70_000:
        raise ValueError(f"n of patches must be from 1 to 70,000, got {n}")
    required("the data set patches", "skimage", "sklearn")
    versions = {package: metadata.version(package) for package in ("scikit-image", "scikit-learn")}
    return store.build(
        "patches",
        {**versions, "n": n},
        lambda: Decoding(_windows(n), n),
        source="windows of ten photographs in "
        + " and ".join(f"{package} {versions[package]}" for package in versions),
        licence="public domain or CC0; china and flower CC BY 2.0 (danielbuechele, vultilion); "
        "motorcycle for research (Middlebury 2014)",
        progress=progress,
    )


def window_corners(count: int, height: int, width: int) -> np.ndarray:
    """Distinct corners spread evenly over an image: a grid of about equal spacing both ways, thinned to `count`.

    Args:
        count: how many, 0..height * width.
        height: number of rows a corner may take.
        width: number of columns it may take.

    Returns:
        int64 (count, 2), row and column, in reading order.
    """
    if count == 0:
        return np.zeros((0, 2), dtype=np.int64)
    rows = min(height, math.ceil(math.sqrt(count * height / width)))
    columns = math.ceil(count / rows)
    cells = spread(count, rows * columns)
    return np.stack([spread(rows, height)[cells // columns], spread(columns, width)[cells % columns]], axis=1)


def _windows(n: int) -> Iterator[Block]:
    shares = np.diff(np.arange(len(_PHOTOGRAPHS) + 1) * n // len(_PHOTOGRAPHS))
    for (module, path), share in zip(_PHOTOGRAPHS, shares, strict=True):
        picture = _photograph(package_folder(module) / path)
        views = np.lib.stride_tricks.sliding_window_view(
            picture, (_SIZE, _SIZE), axis=(1, 2)
        )  # (3, rows, columns, 64, 64)
        corners = window_corners(int(share), *views.shape[1:3])
        for start in range(0, len(corners), _BLOCK):
            chosen = corners[start : start + _BLOCK]
            yield Block(views[:, chosen[:, 0], chosen[:, 1]].transpose(1, 0, 2, 3))


def _photograph(path: Path) -> np.ndarray:
    from PIL import Image

    if not path.is_file():
        raise ValueError(f"the data set patches needs the photograph {path}, which this installation lacks")
    with Image.open(path) as picture:
        return np.asarray(picture.convert("RGB")).transpose(2, 0, 1)
