"""Pairs (x0, ε) of the forward process x = x0 + σ ε, for everything that is measured along it."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from .datasets import Dataset, to_float
from .devices import require_room
from .numbers import require_whole
from .posterior import Optimum
from .randomness import fixed_generator, generator_of

__all__ = ["Data", "draw_indexed", "draw_pairs", "fixed_generator", "points_at", "size_of"]

Data = Dataset | Tensor | np.ndarray
_HELD = 3
"""x0, ε and x, of each draw."""


def draw_pairs(D: Optimum, data: Data | None, draws: int, generator: torch.Generator | None) -> tuple[Tensor, Tensor]:
    """x0 and ε, float32, both (draws, *event), where the points of D are; x0 drawn with replacement.

    Args:
        D: the denoiser of the data.
        data: the points x0 is drawn from, uniformly; those of D, by their probabilities, unless given.
        draws: number of pairs.
        generator: source of randomness; without one, a fresh generator with a fixed seed. It draws where it is, so that
            the pairs do not depend on where the points are.

    Raises:
        ValueError: draws < 1, no whole number or more than fit into memory; a generator that is none; data of another
            event shape than D's, of another type, or none.
    """
    return draw_indexed(D, data, draws, generator)[1:]


def draw_indexed(
    D: Optimum, data: Data | None, draws: int, generator: torch.Generator | None
) -> tuple[Tensor, Tensor, Tensor]:
    """`draw_pairs`, and before them which of the points every x0 is, (draws,) int64 on the CPU."""
    draws = require_whole("draws", draws)
    require_room("draws", draws, _HELD * math.prod(D.event))
    source = generator_of(generator)
    if data is None:
        index = D.drawn(draws, source)
    else:
        size = size_of(D, data)
        index = torch.randint(size, (draws,), generator=source, dtype=torch.int64, device=source.device).cpu()
    x0 = D.take(index) if data is None else points_at(D, data, index)
    return index, x0, torch.randn(x0.shape, generator=source, dtype=torch.float32, device=source.device).to(x0.device)


def size_of(D: Optimum, data: Data) -> int:
    """How many points other data have.

    Raises:
        ValueError: data of another event shape than D's, of another type, or none.
    """
    return len(_rows(D, data))


def points_at(D: Optimum, data: Data, index: Tensor) -> Tensor:
    """The points of other data at `index`, (B,) int64, in floating point, where the points of D are.

    Raises:
        ValueError: as for `size_of`.
    """
    rows = _rows(D, data)
    some = rows[index.to(rows.device)] if isinstance(rows, Tensor) else torch.from_numpy(rows[index.numpy()])
    return (to_float(some) if some.dtype == torch.uint8 else some).to(D.points.device)


def _rows(D: Optimum, data: Data) -> Tensor | np.ndarray:
    """The points of other data, checked before anything is drawn; a map is not read."""
    rows = data.array if isinstance(data, Dataset) else data.detach() if isinstance(data, Tensor) else np.asarray(data)
    if rows.ndim == 0 or len(rows) == 0:
        raise ValueError(f"data must have at least one point, got an array of shape {tuple(rows.shape)}")
    if tuple(rows.shape[1:]) != D.event:
        shape = tuple(rows.shape[1:])
        raise ValueError(f"data must have points of shape {D.event}, those of the denoiser, got {shape}")
    floating = rows.dtype.is_floating_point if isinstance(rows, Tensor) else rows.dtype.kind == "f"
    if not floating and not str(rows.dtype).endswith("uint8"):
        raise ValueError(f"data must be floating point, or uint8 for images, got {rows.dtype}")
    return rows
