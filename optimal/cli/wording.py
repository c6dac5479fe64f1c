"""What the commands of `python -m optimal` say of data, classes, points and borders, in words."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from ..datasets import Dataset
from ..datasets.notes import counted, folders_of
from .commands import Sample, label_of
from .output import as_table

__all__ = [
    "about",
    "counted_points",
    "drawn",
    "guided_towards",
    "located_at",
    "named",
    "nats",
    "parts",
    "points_of",
    "pushed",
    "speciation",
    "words_of",
    "written",
]

_BAR = 24
_NO_NATS = 1e-6


def parts(data: Dataset) -> list[str]:
    """How many points there are of each class, and in each folder."""
    said: list[str] = []
    folders = folders_of(data.names or ())
    with contextlib.suppress(ValueError):  # without labels, or with vectors
        label, count = np.unique(data.classes, return_counts=True)
        named = map(data.class_called, label.tolist())
        said.append(f"{len(label)} classes: {counted(dict(zip(named, count.tolist(), strict=True)))}")
    return said + ([f"pictures of {len(folders)} folders: {counted(folders)}"] if folders else [])


def speciation(found: dict[str, Any]) -> str:
    if found["sigma_S"] == 0:
        # Of data whose scale is that of its noise; √Λ is the same condition for data of any scale.
        scale = math.sqrt(found["top_eigenvalue"])
        return f"speciation: the formula for sigma_S needs an eigenvalue above 1; its square root is {scale:.4g}"
    return f"speciation predicted at sigma_S = {found['sigma_S']:.4g}: above it trajectories have not chosen a class"


def drawn(curve: list[dict[str, Any]]) -> list[str]:
    """The curve as a table, with a bar of the logarithm of the count."""
    if not curve:
        return []
    most = max(math.log(row["count"]) for row in curve) or 1.0
    rows = [
        [
            f"{row['sigma']:.3g}",
            f"{row['count']:.4g}",
            f"{row['low_quartile']:.4g} to {row['high_quartile']:.4g}",
            f"{row['entropy']:.2f}",
            f"{100 * row['source']:.0f}%",
        ]
        for row in curve
    ]
    table = as_table(["sigma", "points in the blend", "middle half", "nats", "led by the source"], rows).splitlines()
    bars = ["blend, log scale", *("#" * round(_BAR * math.log(row["count"]) / most) for row in curve)]
    return ["", *(f"{line}  {bar}".rstrip() for line, bar in zip(table, bars, strict=True))]


def located_at(border: dict[str, float]) -> str:
    if not 0 < border["sigma"] < math.inf:
        return f"{border['sigma']:g} (it is never crossed)"
    return f"{border['sigma']:.4g} [{border['low']:.4g}, {border['high']:.4g}]"


def words_of(data: Dataset, index: int, element: str | None = None) -> tuple[str, ...]:
    """Of a point of the data, what stands under its picture: @3 cats/a.png, its label."""
    own = None if data.labels is None else data.labels[index].tolist()
    label = () if own is None else (f"label {data.class_called(own) if isinstance(own, int) else own}",)
    return (" ".join(filter(None, (data.called(index), element))), *label)


def counted_points(effective: float) -> str:
    """A number of points."""
    number = f"{effective:.4g}"
    return f"{number} point{'' if number == '1' else 's'}"


def nats(entropy: float) -> str:
    """An entropy; what rounding leaves of none is no number to be read."""
    return f"under {_NO_NATS:g} nats" if 0 < entropy < _NO_NATS else f"{entropy:.4g} nats"


def pushed(found: dict[str, Any]) -> str:
    """What guidance does to the answer: it is no posterior mean, and has no entropy of its own."""
    return (
        f"guided, w = {found['weight']:g} at this noise level: the answer lies {found['pushed']:.4g} from that of the "
        f"class, whose probability here is {found['probability']:.4g}; it is the mean of no distribution"
    )


def named(data: Dataset, point: dict[str, Any]) -> str:
    """@3 cats/a.png, or that under an element of the group: @3 cats/a.png mirrored."""
    return words_of(data, point["index"], point.get("element"))[0]


def about(data: Dataset, label: int | None, orbit: str | None) -> str:
    count = 0 if label is None else int((data.classes == label).sum())
    own = "" if label is None else f"; its {count} point{'' if count == 1 else 's'} of class {data.class_called(label)}"
    return data.describe() + own + ("" if orbit is None else f"; with their images under {orbit}")


def guided_towards(command: Sample, data: Dataset) -> str:
    interval = command.interval
    where = "" if interval is None else f" for {interval[0]:g} < sigma <= {interval[1]:g}"
    label = label_of(command)
    towards = "" if label is None else f" towards class {data.class_called(label)}"
    return f"guided from all data{towards}, w = {command.guidance:g}{where}"


def points_of(orbit: str | None) -> str:
    return "data points" if orbit is None else "images of data points"


def written(files: Iterable[Path], what: str = "") -> str:
    return ", ".join(map(str, files)) + (f": {what}" if what else "")
