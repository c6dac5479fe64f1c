"""The gallery's copies of the figures, drawn again from figures/out/*.npz: 1,100 pixels wide, in true colour.

Pixels of noise cannot be packed. So noise is rounded to 0.8 of its standard deviation, which cannot be seen in images
of 50 pixels; everything else stays as it is.
"""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from figures.gallery import FIGURES
from figures.output import about
from neural.report.pictures import plain_style

DPI = 100


def rounded(arrays: dict[str, np.ndarray], scaled: bool) -> dict[str, np.ndarray]:
    """The arrays with the noise of `noisy` (M, K, *event), at K levels, in steps of 0.8 of its deviation."""
    sigmas = arrays["sigmas"]
    step = 0.8 * (sigmas / np.sqrt(1 + sigmas**2) if scaled else sigmas)
    step = step.reshape(1, -1, *[1] * (arrays["noisy"].ndim - 2))
    return arrays | {"noisy": np.round(arrays["noisy"] / step) * step}


@plain_style()
def draw(name: str, source: Path, target: Path) -> None:
    """Draw the gallery's copy of a figure."""
    module = FIGURES[name]
    with np.load(source) as file:
        arrays = dict(file)
    figure = module.draw(rounded(arrays, name == "trajectories") if "noisy" in arrays else arrays)
    drawn, words = io.BytesIO(), PngInfo()
    figure.savefig(drawn, dpi=DPI)
    for key, value in about(module.TITLE, arrays, rights="Copyright").items():
        words.add_itxt(key, value)
    with Image.open(drawn) as image:
        image.convert("RGB").save(target, optimize=True, pnginfo=words)


if __name__ == "__main__":
    for name in FIGURES:
        source = Path("figures/out") / f"{name}.npz"
        if source.exists():
            draw(name, source, Path("docs") / f"{name}.png")
