"""Generated distributions small enough to see through: deltas on a line, points in the plane. All deterministic."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from ..numbers import require_whole
from .dataset import Dataset

__all__ = ["five_deltas", "grid", "ring", "spiral", "two_points"]

_LICENCE = "generated, no licence needed"


def five_deltas(*, positions: Sequence[float] = (-2.0, -1.6, -0.4, 0.4, 2.0)) -> Dataset:
    """Deltas on a line, the top row of Figure 1; event (1,).

    The default gaps 0.4, 1.2, 0.8, 1.6 all differ, so that rising noise merges the modes one pair after the other, each
    at its own sigma; and the mean, -0.32, lies on none of them.

    Args:
        positions: where the deltas are, one or more finite numbers; a position listed twice has twice the weight.

    Raises:
        ValueError: if there is no position or one is not finite.
    """
    return _on_a_line("five-deltas", positions)


def two_points(*, positions: Sequence[float] = (-1.0, 1.0)) -> Dataset:
    """Two deltas on a line, event (1,); at -a and a the denoiser is a * tanh(a x / sigma^2).

    Args:
        positions: where they are, two finite numbers.

    Raises:
        ValueError: if there are not exactly two positions or one is not finite.
    """
    if len(positions) != 2:
        raise ValueError(f"two-points takes exactly two positions, got {len(positions)}")
    return _on_a_line("two-points", positions)


def ring(*, n: int = 8, radius: float = 1.0) -> Dataset:
    """n points spread evenly on a circle about the origin, event (2,); the first one lies on the first axis.

    Args:
        n: how many, at least 1.
        radius: of the circle, greater than 0.

    Raises:
        ValueError: if n or radius is out of range.
    """
    _check(n, radius=radius)
    angle = 2.0 * math.pi * np.arange(n) / n
    return _in_the_plane("ring", radius * np.stack([np.cos(angle), np.sin(angle)], axis=1), f"{n=} {radius=}")


def spiral(*, n: int = 64, radius: float = 1.0, turns: float = 2.0) -> Dataset:
    """n points along an Archimedean spiral r = radius * angle / (2 pi turns), event (2,).

    The angle grows as the square root of the position, which makes the spacing along the arm almost even.

    Args:
        n: how many, at least 1.
        radius: of the outermost point, greater than 0.
        turns: how often the arm winds about the origin, greater than 0.

    Raises:
        ValueError: if an option is out of range.
    """
    _check(n, radius=radius, turns=turns)
    along = np.sqrt(np.arange(1, n + 1) / n)
    angle = 2.0 * math.pi * turns * along
    points = radius * along[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    return _in_the_plane("spiral", points, f"{n=} {radius=} {turns=}")


def grid(*, n: int = 25, radius: float = 1.0) -> Dataset:
    """n points on a square grid over [-radius, radius]^2, event (2,), in row-major order.

    Args:
        n: how many, a square number (1, 4, 9, ...).
        radius: half the side of the square, greater than 0.

    Raises:
        ValueError: if n is not a square number or radius is out of range.
    """
    _check(n, radius=radius)
    side = math.isqrt(n)
    if side * side != n:
        raise ValueError(
            f"n of a grid must be a square number, got {n}; the nearest are {side**2} and {(side + 1) ** 2}"
        )
    axis = radius * (np.linspace(-1.0, 1.0, side) if side > 1 else np.zeros(1))
    points = np.stack(np.meshgrid(axis, axis, indexing="ij"), axis=-1).reshape(n, 2)
    return _in_the_plane("grid", points, f"{n=} {radius=}")


def _on_a_line(name: str, positions: Sequence[float]) -> Dataset:
    points = np.asarray(positions, dtype=np.float32)
    if points.ndim != 1 or len(points) == 0:
        raise ValueError(f"positions must be a sequence of one or more numbers, got {positions!r}")
    if not np.isfinite(points).all():
        raise ValueError(f"positions must be finite, got {positions!r}")
    return Dataset(name, points[:, None].copy(), None, _LICENCE, f"generated, positions={tuple(positions)}")


def _in_the_plane(name: str, points: np.ndarray, options: str) -> Dataset:
    return Dataset(name, points.astype(np.float32), None, _LICENCE, f"generated, {options}")


def _check(n: int, **positive: float) -> None:
    require_whole("n", n)
    for name, value in positive.items():
        if not (value > 0.0 and math.isfinite(value)):
            raise ValueError(f"{name} must be finite and greater than 0, got {value}")
