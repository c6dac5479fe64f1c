"""What is on a drawn figure: its curves, bands, images, frames, legends and texts, as they lie in the `Figure`.

`faults` draws it once and says in words what is wrong with it, whatever it shows: ink that is missing or outside, text
that is cut off or written over other text. `differences` holds the artists of every axes to what should be there, from
the numbers behind the figure: each once, and nothing else. Nothing here imports `figures`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection, PathCollection, PolyCollection, QuadMesh
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.legend import Legend
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.text import Text
from matplotlib.transforms import Bbox, BboxBase

__all__ = ["Panel", "across", "differences", "faults", "straight"]

Pair = tuple[Any, Any]
"""x and y."""


@dataclass
class Panel:
    """What one axes has to show.

    Attributes:
        lines: x and y of every line, marks across the axes too (`straight`, `across`).
        named: label -> x and y of every line that a legend, here or elsewhere on the figure, shows in its style.
        bands: x, lower and upper edge of every filled band.
        meshes: x, y and values (y, x) of every colour mesh, and whether each value fills its cell.
        cells: left, top and image (C, H, W) in [-1, 1] of every unit square.
        points: x and y of every scatter.
        segments: all points of every collection of segments, (n, 2, 2).
        frames: left, bottom and colour of every frame.
        legend: its labels.
        words: texts that have to be there, or parts of them, anywhere in the axes or beside them all.
        placed: x and text of what stands at one place.
        groups: which of the first lines have one colour: those with one number, and no others.
        inside: least share of a line's points that lie within the limits.
    """

    lines: list[Pair] = field(default_factory=list)
    named: dict[str, Pair] = field(default_factory=dict)
    bands: list[tuple[Any, Any, Any]] = field(default_factory=list)
    meshes: list[tuple[Any, Any, Any, bool]] = field(default_factory=list)
    cells: list[tuple[float, float, Any]] = field(default_factory=list)
    points: list[Pair] = field(default_factory=list)
    segments: list[Any] = field(default_factory=list)
    frames: list[tuple[float, float, str]] = field(default_factory=list)
    legend: list[str] = field(default_factory=list)
    words: list[str] = field(default_factory=list)
    placed: list[tuple[float, str]] = field(default_factory=list)
    groups: list[int] = field(default_factory=list)
    inside: float = 1.0


def straight(x: float) -> Pair:
    """A mark from the bottom to the top."""
    return [x, x], [0, 1]


def across(y: float) -> Pair:
    """A mark from the left to the right."""
    return [0, 1], [y, y]


def differences(figure: Figure, panels: Sequence[Panel], legend: Sequence[str] = ()) -> list[str]:
    """What is on the axes and should not be, or the other way round; `legend` those beside them."""
    if len(figure.axes) != len(panels):
        return [f"{len(figure.axes)} axes, not {len(panels)}"]
    found = [f"the figure: {words}" for words in _labels(_own(figure), list(legend))]
    for i, (axes, panel) in enumerate(zip(figure.axes, panels, strict=True)):
        found += [f"axes {i}: {words}" for words in _of_axes(axes, panel)]
    return found


def _own(figure: Figure) -> list[Legend]:
    """The legends that belong to no axes."""
    return [legend for part in (figure, *figure.subfigs) for legend in part.legends]


def _of_axes(axes: Axes, panel: Panel) -> Iterator[str]:
    for kind, (drawn, wanted) in _kinds(axes, panel).items():
        yield from _unmatched(kind, drawn, wanted)
    own = axes.get_legend()
    yield from _labels([] if own is None else [own], panel.legend)
    for label, pair in panel.named.items():
        if not any(_same(line.get_xydata(), np.column_stack(pair)) and _alike(line, label) for line in axes.lines):
            yield f"the line of {label!r} has not the style that the legend says"
    texts = [text for text in axes.findobj(Text) if isinstance(text, Text)]
    page = axes.get_figure(root=True)
    assert page is not None
    # A note is wrapped as its line is long.
    beside = [" ".join(text.get_text().split()) for part in (page, *page.subfigs) for text in part.texts]
    for word in panel.words:
        if not any(word in text for text in (*(text.get_text() for text in texts), *beside)):
            yield f"no text {word!r}"
    places = [(text.get_position()[0], text.get_text()) for text in texts]
    for x, word in panel.placed:
        if not any(word == other and abs(x - at) < 1e-6 for at, other in places):
            yield f"no text {word!r} at {x:g}"
    numbers = panel.groups
    colours = [to_rgba(line.get_color()) for line in axes.lines[: len(numbers)]]
    if not len(set(zip(numbers, colours, strict=False))) == len(set(numbers)) == len(set(colours)):
        yield "the colours are not those of the groups"
    yield from _outside(axes, panel.inside)


def _kinds(axes: Axes, panel: Panel) -> dict[str, tuple[list[Any], list[Any]]]:
    """What is drawn, and what should be, of every kind of artist."""
    lines = [line for line in axes.lines if len(line.get_xydata())]
    bands = [each for each in axes.collections if isinstance(each, PolyCollection)]
    # A colour bar has a mesh and dividers of its own.
    own = axes.get_label() == "<colorbar>"
    meshes = [each for each in axes.collections if isinstance(each, QuadMesh) and not own]
    segments = [each for each in axes.collections if isinstance(each, LineCollection) and each.get_segments()]
    scatters = [each for each in axes.collections if isinstance(each, PathCollection)]
    frames = [each for each in axes.patches if isinstance(each, Rectangle)]
    pairs = [*panel.named.values(), *panel.lines]
    return {
        "line": ([line.get_xydata() for line in lines], [np.column_stack(each) for each in pairs]),
        "band": ([_edges(band) for band in bands], [_outline(*each) for each in panel.bands]),
        "mesh": ([_mesh(mesh) for mesh in meshes], [_flat(*each) for each in panel.meshes]),
        "cell": ([_cell(image) for image in axes.images], [_image(*each) for each in panel.cells]),
        "scatter": ([each.get_offsets() for each in scatters], [np.column_stack(each) for each in panel.points]),
        "segment": ([np.ravel(each.get_segments()) for each in segments], [np.ravel(each) for each in panel.segments]),
        "frame": ([_frame(each) for each in frames], [np.array([x, y, *to_rgba(c)]) for x, y, c in panel.frames]),
    }


def _alike(line: Line2D, label: str) -> bool:
    """Whether a line has the colour, and the dashes if both have any, that a legend shows under this label."""
    figure = line.get_figure(root=True)
    assert figure is not None
    assert line.axes is not None
    legends = [line.axes.get_legend(), *_own(figure), *(axes.get_legend() for axes in figure.axes)]
    for legend in (each for each in legends if each is not None):
        for handle, text in zip(legend.legend_handles, legend.get_texts(), strict=True):
            if text.get_text() == label and isinstance(handle, Line2D):
                dashes = {handle.get_linestyle(), line.get_linestyle()} - {"None"}
                return to_rgba(handle.get_color()) == to_rgba(line.get_color()) and len(dashes) < 2
    return False


def _outside(axes: Axes, inside: float) -> Iterator[str]:
    low, high = (np.array(pair) for pair in zip(axes.get_xlim(), axes.get_ylim(), strict=True))
    for number, line in enumerate(axes.lines):
        points = np.asarray(line.get_xydata(), dtype=np.float64).reshape(-1, 2)
        points = points[np.isfinite(points).all(1)]
        if len(points) and line.get_transform() == axes.transData and line.get_clip_on():
            room = 1e-3 * np.abs(high - low)
            within = (points >= np.minimum(low, high) - room) & (points <= np.maximum(low, high) + room)
            if within.all(1).mean() < inside:
                yield f"line {number}: {1 - within.all(1).mean():.0%} of it lies outside of the limits"


def _unmatched(kind: str, drawn: list[Any], wanted: list[Any]) -> Iterator[str]:
    """Each that is wanted takes one that is drawn; what is left over on either side is told."""
    left = list(drawn)
    for number, each in enumerate(wanted):
        at = next((i for i, other in enumerate(left) if _same(other, each)), None)
        if at is None:
            yield f"{kind} {number} of {len(wanted)} is not there"
        else:
            del left[at]
    if left:
        yield f"{len(left)} of {len(drawn)} {kind}s should not be there"


def _same(a: Any, b: Any) -> bool:
    a, b = np.ma.filled(np.ma.asarray(a, dtype=np.float64), np.nan), np.asarray(b, np.float64)
    return a.shape == b.shape and np.allclose(a, b, rtol=1e-6, atol=1e-9, equal_nan=True)


def _edges(band: PolyCollection) -> np.ndarray:
    """The outline's points in an order of their own."""
    points = np.concatenate([path.vertices for path in band.get_paths()])
    return np.unique(points.round(9), axis=0)


def _outline(x: Any, low: Any, high: Any) -> np.ndarray:
    points = np.concatenate([np.column_stack([x, low]), np.column_stack([x, high])])
    return np.unique(points.round(9), axis=0)


def _mesh(mesh: QuadMesh) -> np.ndarray:
    corners, values = np.asarray(mesh.get_coordinates()), np.asarray(mesh.get_array())
    return np.concatenate([corners[0, :, 0], corners[:, 0, 1], values.ravel()])


def _flat(x: Any, y: Any, values: Any, nearest: bool) -> np.ndarray:
    """Cells that meet half-way between the points where shading is "nearest"."""
    if nearest:
        x, y = (
            np.concatenate([[1.5 * v[0] - v[1] / 2], (v[1:] + v[:-1]) / 2, [1.5 * v[-1] - v[-2] / 2]]) for v in (x, y)
        )
    return np.concatenate([x, y, np.ravel(values)])


def _cell(image: Any) -> np.ndarray:
    left, right, bottom, top = image.get_extent()
    return np.concatenate([[left, right, bottom, top], np.asarray(image.get_array(), np.float64).ravel()])


def _image(left: float, top: float, image: Any) -> np.ndarray:
    shown = np.clip((np.asarray(image, np.float64).transpose(1, 2, 0) + 1) / 2, 0, 1)
    shown = np.broadcast_to(shown, (*shown.shape[:2], 3))
    return np.concatenate([[left + 0.02, left + 0.98, top - 0.98, top - 0.02], shown.ravel()])


def _frame(patch: Rectangle) -> np.ndarray:
    return np.array([*np.round(patch.get_xy(), 6), *patch.get_edgecolor()])


def _labels(legends: list[Legend], wanted: list[str]) -> Iterator[str]:
    labels = [text.get_text() for legend in legends for text in legend.get_texts()]
    if labels != wanted:
        yield f"the legend says {labels}, not {wanted}"


def faults(figure: Figure) -> list[str]:
    """What is wrong with a figure whatever it shows, once it has been drawn as `savefig` draws it."""
    canvas = FigureCanvasAgg(figure)
    with pytest.MonkeyPatch.context() as patch:
        texts = _recorded(patch)
        canvas.draw()
    found = [*_cut(figure, texts), *_small(figure, texts), *_overlapping(figure, texts)]
    pixels = _pixels(canvas)
    # The same without any line: what a line has changed it has drawn.
    figure.set_layout_engine("none")
    shown = [line for axes in figure.axes for line in axes.lines if line.get_visible()]
    for line in shown:
        line.set_visible(False)
    canvas.draw()
    ink = np.where((pixels != _pixels(canvas)).any(2, keepdims=True), pixels, np.nan)
    for line in shown:
        line.set_visible(True)
    for i, axes in enumerate(figure.axes):
        found += [f"axes {i}: {words}" for words in _without_ink(axes, ink)]
    return found


def _pixels(canvas: FigureCanvasAgg) -> np.ndarray:
    return np.array(canvas.buffer_rgba(), dtype=np.float64)[..., :3] / 255


def _recorded(patch: pytest.MonkeyPatch) -> dict[Text, list[Bbox]]:
    """Texts that are drawn from here on, and where: tick labels outside of the limits, say, never are."""
    texts: dict[Text, list[Bbox]] = {}
    draw = Text.draw

    def recording(text: Text, renderer: Any, *args: Any, **kwargs: Any) -> None:
        draw(text, renderer, *args, **kwargs)
        if text.get_visible() and text.get_text().strip():
            texts[text] = _line_boxes(text, renderer)

    patch.setattr(Text, "draw", recording)
    return texts


def _line_boxes(text: Text, renderer: Any) -> list[Bbox]:
    """Where each line of a text lies: below a long one there is room beside a short one."""
    box, lines = Text.get_window_extent(text, renderer), text.get_text().split("\n")
    if len(lines) == 1 or text.get_rotation() or "$" in text.get_text():
        return [box]
    share = {"left": 0.0, "center": 0.5, "right": 1.0}[str(text.get_horizontalalignment())]
    boxes = []
    for i, line in enumerate(lines):
        wide, _, _ = renderer.get_text_width_height_descent(line or " ", text.get_fontproperties(), False)
        left, top = box.x0 + share * (box.width - wide), box.y1 - i * box.height / len(lines)
        boxes.append(Bbox.from_extents(left, top - box.height / len(lines), left + wide, top))
    return boxes


def _cut(figure: Figure, texts: Mapping[Text, list[Bbox]]) -> Iterator[str]:
    for text, box in ((text, Bbox.union(boxes)) for text, boxes in texts.items()):
        if not _holds(figure.bbox, box):
            yield f"{text.get_text()!r} is cut off"
        elif text.get_clip_on() and text.get_clip_box() is not None and not _holds(text.get_clip_box(), box):
            yield f"{text.get_text()!r} is cut off by its axes"


_PAGE, _LEAST = 830, 9
"""Pixels across a figure in the gallery, and of its smallest letters there."""


def _small(figure: Figure, texts: Mapping[Text, list[Bbox]]) -> Iterator[str]:
    for text in texts:
        size = float(text.get_fontsize()) / 72 * _PAGE / figure.get_figwidth()
        if size < _LEAST:
            yield f"{text.get_text()!r} has letters of {size:.1f} pixels in the gallery"


def _holds(outer: BboxBase, inner: BboxBase) -> bool:
    return bool(
        outer.x0 - 1 <= inner.x0 and inner.x1 <= outer.x1 + 1 and outer.y0 - 1 <= inner.y0 and inner.y1 <= outer.y1 + 1
    )


def _overlapping(figure: Figure, texts: Mapping[Text, list[Bbox]]) -> Iterator[str]:
    """Texts on texts, or under a legend; boxes have some room around their letters."""
    items = [
        (text, Bbox.from_extents(box.x0 + 1, box.y0 + 2, box.x1 - 1, box.y1 - 2))
        for text, boxes in texts.items()
        for box in boxes
    ]
    for i, (one, box) in enumerate(items):
        for other, second in items[i + 1 :]:
            if one is not other and box.overlaps(second):
                yield f"{one.get_text()!r} lies on {other.get_text()!r}"
    for legend in figure.findobj(Legend):
        own, frame = set(legend.findobj(Text)), legend.get_window_extent()
        for text, box in items:
            if text not in own and box.overlaps(frame):
                yield f"{text.get_text()!r} lies under a legend"


def _without_ink(axes: Axes, ink: np.ndarray) -> Iterator[str]:
    """Lines of whose colour no pixel is seen where they run, and images and meshes of one colour."""
    for number, line in enumerate(axes.lines):
        if len(line.get_xydata()) and not _seen(line, ink):
            yield f"line {number} ({line.get_label()}) leaves no ink"
    for number, mesh in enumerate(each for each in axes.collections if isinstance(each, QuadMesh)):
        values = np.ma.filled(np.ma.asarray(mesh.get_array(), dtype=np.float64), np.nan)
        if not np.isfinite(values).all() or np.ptp(values) == 0 or not mesh.get_visible():
            yield f"mesh {number} has holes, or one colour"
    x0, x1, y0, y1 = (*sorted(axes.get_xlim()), *sorted(axes.get_ylim()))
    for number, image in enumerate(axes.images):
        values = np.ma.filled(np.ma.asarray(image.get_array(), dtype=np.float64), np.nan)
        left, right, bottom, top = image.get_extent()
        if not np.isfinite(values).all() or np.ptp(values) == 0 or not image.get_visible():
            yield f"image {number} has holes, or one colour"
        if left < x0 or right > x1 or bottom < y0 or top > y1:
            yield f"image {number} lies outside of the limits"


_NEAR, _SOME = 0.3, 0.02
"""Of a colour, in (0, 1)³, since thin lines are mixed with what lies under them; and of the places along a line."""


def _seen(line: Line2D, ink: np.ndarray) -> bool:
    """Whether what lines have drawn has the colour of this one along it; `ink` is nan where no line is."""
    bare = line.get_linestyle() == "None"
    ends = line.get_transform().transform(line.get_xydata())
    ends = ends[np.isfinite(ends).all(1)]
    # Between its points too, a pixel apart.
    steps = [np.linspace(a, b, 2 + int(min(400, np.abs(b - a).max()))) for a, b in pairwise(ends)]
    at = ends if bare else np.concatenate([ends, *steps])
    height, width, _ = ink.shape
    at = np.column_stack([height - at[:, 1], at[:, 0]]).astype(int)
    at = at[((at >= 1) & (at < np.array([height - 1, width - 1]))).all(1)]
    near = np.array([ink[at[:, 0] + i, at[:, 1] + j] for i in (-1, 0, 1) for j in (-1, 0, 1)])
    for colour in (line.get_markerfacecolor(), line.get_markeredgecolor()) if bare else (line.get_color(),):
        *rgb, alpha = to_rgba(colour, line.get_alpha())
        like = (np.abs(near - (alpha * np.array(rgb) + 1 - alpha)).max(2) < _NEAR).any(0)
        if len(at) and like.mean() >= _SOME:
            return True
    return False
