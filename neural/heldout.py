"""Held-out points are none of the data: looked at before anything is measured.

    a data point      |x − y₁| <= 2⁻²⁰ |x|, value by value: refused, for the network has seen it
    nearly one        ‖x − y₁‖/√dim <= 0.05 s, s the data's standard deviation of a value: said
    its mirror image  either of these of x turned left to right, where points are images: said

with y₁ the data point nearest to x. All points are looked at, in an order of no meaning, or as many as take 20 s; those
that are drawn are in any case.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from optimal import Dataset
from optimal.draws import Data, points_at, size_of
from optimal.posterior import Optimum
from optimal.randomness import fixed_generator

from .sampled import NEAR

__all__ = ["SECONDS", "Apart", "check_held_out", "require_drawn", "require_held_out_event"]

SECONDS = 20.0
"""What looking at held-out points may take."""
_SEVERAL = 16
"""Values of a point below which others are so near by chance."""
_SAME = 2.0**-20
"""Relative difference below which a point is a data point: float32 rounds the same image by less, and no two images
of 8 bits are so close."""
_FEW, _MOST, _VALUES = 128, 1024, 2**22
"""Points of the first block, of the others, and values of a block."""


@dataclass(frozen=True)
class Apart:
    """Held-out points that were looked at: what `measure` takes as its `on`, and then looks no second time.

    Attributes:
        points: as they were given.
        seen: (n,) bool, which of them were looked at.
        remarks: what is to be known of them, a sentence each.
    """

    points: Data
    seen: Tensor
    remarks: tuple[str, ...]


@dataclass
class _Found:
    """Numbers of the points that are data points, nearly so, and mirror images of (nearly) one."""

    same: list[int]
    near: list[int]
    mirrored: list[int]


def check_held_out(D: Optimum, points: Data, *, seconds: float = SECONDS, progress: bool = False) -> Apart:
    """Held-out points, looked at; what there is to say of them is said as one warning each, and kept.

    Args:
        D: the optimum of the data.
        points: (n, *event), or a `Dataset`.
        seconds: after how many no further block of points is begun.
        progress: whether a progress bar is drawn on stderr.

    Raises:
        ValueError: one of those looked at is a data point; points of another shape, or none.
    """
    count = size_of(D, points)
    order = torch.randperm(count, generator=fixed_generator("queries"))
    seen, found, began = torch.zeros(count, dtype=torch.bool), _Found([], [], []), time.perf_counter()
    with tqdm(total=count, desc="held-out", unit="point", leave=False, disable=not progress) as bar:
        for index in _blocks(order, D):
            _look(D, points, index, found)
            seen[index] = True
            bar.update(len(index))
            if time.perf_counter() - began > seconds:
                break
    remarks = _judged(found, int(seen.sum()), count)
    for remark in remarks:
        warnings.warn(remark, RuntimeWarning, stacklevel=2)
    return Apart(points, seen, remarks)


def require_held_out_event(held_out: Dataset, event: tuple[int, ...]) -> None:
    """Raise ValueError unless held-out points have the shape of the data, before any work is done."""
    if held_out.event != event:
        raise ValueError(
            f"held-out points must have the shape of the data, {event}, got {held_out.event} ({held_out.name}): hold "
            "out points of the same kind"
        )


def require_drawn(D: Optimum, apart: Apart, index: Tensor) -> None:
    """Raise ValueError where one of the points at `index` that nobody has looked at yet is a data point."""
    left = index.unique()
    left = left[~apart.seen[left]]
    found = _Found([], [], [])
    for part in _blocks(left, D):
        _look(D, apart.points, part, found)
    _judged(found, len(left), len(left))


def _blocks(index: Tensor, D: Optimum) -> Iterator[Tensor]:
    most = max(1, min(_MOST, _VALUES // D.points.dim))
    few = min(_FEW, most)
    yield from (part for part in (index[:few], *index[few:].split(most)) if len(part))


def _look(D: Optimum, points: Any, index: Tensor, found: _Found) -> None:
    x = points_at(D, points, index)
    same, near = _compared(D, x)
    found.same += index[same].tolist()
    found.near += index[near & ~same].tolist()
    if len(D.event) == 3 and D.event[0] in (1, 3):
        turned = x.flip(-1)
        own = (turned == x).flatten(1).all(1).cpu()
        alike, close = _compared(D, turned)
        found.mirrored += index[(alike | close) & ~own & ~same & ~near].tolist()


def _compared(D: Optimum, x: Tensor) -> tuple[Tensor, Tensor]:
    """Which of the rows are a data point, and which nearly, (B,) bool on the CPU."""
    difference = (x - D.take(D.nearest(x)).to(x)).flatten(1)
    same = difference.abs().amax(1) <= _SAME * x.abs().flatten(1).amax(1)
    near = difference.double().square().mean(1).sqrt() <= NEAR * D.standard_deviation
    return same.cpu(), near.cpu() & (D.points.dim >= _SEVERAL)


def _judged(found: _Found, seen: int, count: int) -> tuple[str, ...]:
    of = f"of {seen:,}" if seen == count else f"of {seen:,} looked at, of {count:,},"
    if found.same:
        raise ValueError(
            f"held-out points must be none of the data: {of} {len(found.same):,} are, such as number "
            f"{min(found.same)}; to ask at the data themselves, give no held-out points"
        )
    remarks = []
    if found.near:
        remarks.append(
            f"held-out points should not be copies of data: {of} {len(found.near):,} nearly are, such as number "
            f"{min(found.near)}; `python -m neural audit` lists them"
        )
    if found.mirrored:
        remarks.append(
            f"held-out points should not be mirror images of data: {of} {len(found.mirrored):,} are, or nearly, such "
            f"as number {min(found.mirrored)}; `python -m neural audit` lists them"
        )
    if seen < count:
        remarks.append(f"of {count:,} held-out points {seen:,} were looked at for being data points, as time allowed")
    return tuple(remarks)
