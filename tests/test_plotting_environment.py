"""A user's matplotlibrc changes nothing in what is drawn."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest
import torch
from matplotlib.figure import Figure

from figures.config import Config
from figures.gallery import make
from figures.output import stem
from neural.report.charts import LIGHT, Theme, drawn
from neural.report.pictures import pairs, write_figure

STYLE = {
    "text.usetex": True,
    "axes.grid": True,
    "font.size": 17.0,
    "savefig.bbox": "tight",
    "savefig.transparent": True,
    "figure.facecolor": "k",
    "axes.unicode_minus": False,
    "lines.linewidth": 9.0,
    "image.cmap": "jet",
}


@pytest.fixture(params=STYLE)
def style(request: pytest.FixtureRequest) -> Iterator[None]:
    with mpl.rc_context({request.param: STYLE[request.param]}):
        yield


def chart(theme: Theme) -> Figure:
    figure = Figure(figsize=(3, 2), layout="constrained")
    axes = figure.subplots()
    axes.plot([-1, 1], [0, 1], label="a")
    axes.set_xlabel("noise level σ")
    axes.legend()
    return figure


def report(folder: Path) -> tuple[bytes, bytes]:
    images = torch.linspace(-1, 1, 2 * 3 * 64).reshape(2, 3, 8, 8)
    sheet = write_figure(pairs(images, images, ["one_%", "two"], title="pairs"), folder / "sheet.png", title="pairs")
    return sheet.read_bytes(), drawn(partial(chart), LIGHT)


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> tuple[bytes, bytes]:
    return report(tmp_path_factory.mktemp("plain"))


def test_sheets_and_charts_are_the_same_bytes(style: None, plain: tuple[bytes, bytes], tmp_path: Path) -> None:
    assert report(tmp_path) == plain


@pytest.mark.slow
def test_figures_are_the_same_bytes(tmp_path: Path) -> None:
    files = []
    for name, given in (("plain", {}), ("styled", STYLE)):
        config = Config(dataset="digits", quick=True, option=("n=100",), out=tmp_path / name)
        with mpl.rc_context(given):
            make("trajectories", config)
            assert mpl.rcParams["axes.grid"] == bool(given)
        with np.load(config.out / f"{stem('trajectories', config)}.npz") as file:
            assert file.files
        files.append([path.read_bytes() for path in sorted(config.out.glob("*.p[nd][gf]"))])
    assert len(files[0]) == 2
    assert files[0] == files[1]
