"""Reduced copies of figures/out/*.png for the README: 1600 pixels wide, 256 colours, titles and licences kept."""

from __future__ import annotations

from pathlib import Path

from PIL import Image
from PIL.PngImagePlugin import PngImageFile, PngInfo

WIDTH = 1600

if __name__ == "__main__":
    for name in (
        "fig1",
        "border",
        "trajectories",
        "steps",
        "distilled",
        "prop4",
        "grids",
        "trained",
        "students",
        "samples",
        "fewstep",
    ):
        with Image.open(Path("figures/out") / f"{name}.png") as image:
            assert isinstance(image, PngImageFile)
            about = PngInfo()
            for key, value in image.text.items():
                about.add_itxt(key, value)
            small = image.convert("RGB").resize(
                (WIDTH, round(image.height * WIDTH / image.width)), Image.Resampling.LANCZOS
            )
            small.quantize(256, kmeans=3).save(Path("docs") / f"{name}.png", optimize=True, pnginfo=about)
