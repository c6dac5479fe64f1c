"""What holds figures to their numbers finds each way in which a figure can be wrong."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import matplotlib
import numpy as np
import pytest
from drawn import Panel, across, differences, faults, straight
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

matplotlib.use("Agg")

X = np.linspace(0, 3, 31)
UP, DOWN = np.sin(X), np.cos(X)
MESH = np.outer(np.linspace(0, 1, 9), X)
IMAGE = np.linspace(-1, 1, 16).reshape(1, 4, 4)


def drawn() -> tuple[Figure, Axes, Axes]:
    """A figure that is right, as `PANELS` says."""
    figure = Figure(figsize=(8, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    left.pcolormesh(X, np.linspace(-2, 2, 9), MESH, cmap="Greys", shading="gouraud")
    left.plot(X, UP, color="C1", label="up")
    left.plot(X, DOWN, color="C2", linestyle="--", label="down")
    left.fill_between(X, UP - 0.1, UP + 0.1, color="C1", alpha=0.2)
    left.scatter(X[:3], UP[:3], color="C4")
    left.hlines([0.5, 1.0], 0, 3, color="C5")
    left.axvline(1.5, color="C3")
    left.set(xlim=(0, 3), ylim=(-2, 2), xlabel="x", title="Curves")
    left.legend(loc="lower left")
    shown = ((IMAGE.transpose(1, 2, 0) + 1) / 2).repeat(3, axis=2)
    right.imshow(shown, extent=(0.02, 0.98, -0.98, -0.02))
    right.add_patch(Rectangle((0.02, -0.98), 0.96, 0.96, fill=False, edgecolor="tab:red"))
    right.text(0.5, 0.2, "80", ha="center")
    right.set(xlim=(-0.5, 1.5), ylim=(-1.5, 0.5))
    right.axis("off")
    return figure, left, right


PANELS = [
    Panel(
        named={"up": (X, UP), "down": (X, DOWN)},
        lines=[straight(1.5)],
        bands=[(X, UP - 0.1, UP + 0.1)],
        meshes=[(X, np.linspace(-2, 2, 9), MESH, False)],
        points=[(X[:3], UP[:3])],
        segments=[[[(0, y), (3, y)] for y in (0.5, 1.0)]],
        legend=["up", "down"],
        words=["Curves"],
        groups=[0, 1],
    ),
    Panel(cells=[(0.0, 0.0, IMAGE)], frames=[(0.02, -0.98, "tab:red")], placed=[(0.5, "80")]),
]


def test_what_is_right_passes() -> None:
    figure, *_ = drawn()
    assert differences(figure, PANELS) == []
    assert faults(figure) == []


def swap(axes: Axes) -> None:
    line = axes.lines[0]
    line.set_data(line.get_ydata(), line.get_xdata())


def relabel(axes: Axes) -> None:
    first, second, *_ = axes.lines
    first.set_label("down")
    second.set_label("up")
    axes.legend([second, first], ["up", "down"], loc="lower left")


def shift(axes: Axes) -> None:
    axes.lines[0].set_ydata(np.roll(UP, 1))


WRONG: dict[str, tuple[Callable[[Axes, Axes], Any], str]] = {
    "a curve less": (lambda left, right: left.lines[0].remove(), "line 0 of 3 is not there"),
    "a curve twice": (lambda left, right: left.plot(X, UP), "1 of 4 lines should not be there"),
    "zeros": (lambda left, right: left.lines[0].set_ydata(0 * X), "line 0 of 3 is not there"),
    "nan": (lambda left, right: left.lines[0].set_ydata(np.nan * X), "line 0 of 3 is not there"),
    "x for y": (lambda left, right: swap(left), "line 0 of 3 is not there"),
    "one place on": (lambda left, right: shift(left), "line 0 of 3 is not there"),
    "the other label": (lambda left, right: relabel(left), "the line of 'up' has not the style that the legend says"),
    "a band less": (lambda left, right: left.collections[1].remove(), "band 0 of 1 is not there"),
    "a mesh turned": (lambda left, right: left.collections[0].set_array(MESH[::-1]), "mesh 0 of 1 is not there"),
    "a scatter moved": (lambda left, right: left.collections[2].set_offsets(np.zeros((3, 2))), "scatter 0 of 1"),
    "segments less": (lambda left, right: left.collections[3].remove(), "segment 0 of 1 is not there"),
    "a mark less": (lambda left, right: left.lines[2].remove(), "line 2 of 3 is not there"),
    "no legend": (lambda left, right: left.get_legend().remove(), "the legend says [], not ['up', 'down']"),
    "a title less": (lambda left, right: left.set_title(""), "no text 'Curves'"),
    "one colour": (lambda left, right: left.lines[1].set_color("C1"), "the colours are not those of the groups"),
    "limits": (lambda left, right: left.set_ylim(-2, 0.9), "of it lies outside of the limits"),
    "an image less": (lambda left, right: right.images[0].remove(), "cell 0 of 1 is not there"),
    "an image turned": (lambda left, right: right.images[0].set_data(np.zeros((4, 4, 3))), "cell 0 of 1"),
    "an image elsewhere": (lambda left, right: right.images[0].set_extent((1, 2, 0, 1)), "cell 0 of 1"),
    "a frame of another colour": (lambda left, right: right.patches[0].set_edgecolor("tab:green"), "frame 0 of 1"),
    "a level elsewhere": (lambda left, right: right.texts[0].set_x(0.6), "no text '80' at 0.5"),
    "axes more": (lambda left, right: left.figure.add_axes((0, 0, 0.1, 0.1)), "3 axes, not 2"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_not_what_was_saved(name: str) -> None:
    figure, left, right = drawn()
    breaks, words = WRONG[name]
    breaks(left, right)
    assert any(words in fault for fault in differences(figure, PANELS)), differences(figure, PANELS)


FAULTS: dict[str, tuple[Callable[[Axes, Axes], Any], str]] = {
    "over a text": (lambda left, right: right.text(0.55, 0.22, "90", ha="center"), "'80' lies on '90'"),
    "under the legend": (lambda left, right: left.text(0.2, -1.7, "words"), "'words' lies under a legend"),
    "off the page": (lambda left, right: right.figure.text(0.98, 0.5, "words"), "'words' is cut off"),
    "off the axes": (lambda left, right: left.text(2.9, 1.0, "words", clip_on=True), "'words' is cut off by its axes"),
    "invisible": (lambda left, right: left.lines[0].set_visible(False), "line 0 (up) leaves no ink"),
    "transparent": (lambda left, right: left.lines[0].set_alpha(0.0), "line 0 (up) leaves no ink"),
    "thin": (lambda left, right: left.lines[0].set_linewidth(0.0), "line 0 (up) leaves no ink"),
    "of no dashes": (lambda left, right: left.lines[0].set_linestyle("None"), "line 0 (up) leaves no ink"),
    "hidden": (lambda left, right: left.lines[0].set_zorder(-3), "line 0 (up) leaves no ink"),
    "a mesh of nan": (lambda left, right: left.collections[0].set_array(np.nan * MESH), "mesh 0 has holes"),
    "a mesh of one value": (lambda left, right: left.collections[0].set_array(0 * MESH), "mesh 0 has holes"),
    "a white image": (lambda left, right: right.images[0].set_data(np.ones((4, 4, 3))), "image 0 has holes"),
    "an image outside": (lambda left, right: right.set_xlim(0.5, 1.5), "image 0 lies outside of the limits"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_what_cannot_be_seen_or_read(name: str) -> None:
    figure, left, right = drawn()
    breaks, words = FAULTS[name]
    breaks(left, right)
    found = faults(figure)
    assert any(words in fault for fault in found), found


def test_marks() -> None:
    axes = Figure().subplots()
    lines = (axes.axvline(2.0), axes.axhline(3.0))
    for line, pair in zip(lines, (straight(2.0), across(3.0)), strict=True):
        np.testing.assert_array_equal(line.get_xydata(), np.column_stack(pair))
