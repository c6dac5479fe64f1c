"""Pairs (x0, ε) of the forward process x = x0 + σ ε, for everything that is measured along it."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from .datasets import Dataset, to_float
from .denoiser import OptimalDenoiser

__all__ = ["Data", "draw_pairs", "fixed_generator"]

_SEED = 220600364
"""Of draws nobody gave a generator for. Not 0: data made with manual_seed(0) would share its numbers with the noise."""

Data = Dataset | Tensor | np.ndarray


def fixed_generator() -> torch.Generator:
    """A fresh source of randomness, the same in every run."""
    return torch.Generator("cpu").manual_seed(_SEED)


def draw_pairs(
    D: OptimalDenoiser, data: Data | None, draws: int, generator: torch.Generator | None
) -> tuple[Tensor, Tensor]:
    """x0, drawn uniformly and with replacement, and ε, both (draws, *event), on the device of D's points.

    Args:
        D: the denoiser of the data.
        data: the points x0 is drawn from, those of D unless given.
        draws: number of pairs.
        generator: source of randomness; without one, a fresh generator with a fixed seed. It draws where it is, so that
            the pairs do not depend on where the points are.

    Raises:
        ValueError: draws < 1, data of another event shape than D's.
    """
    if draws < 1:
        raise ValueError(f"draws must be at least 1, got {draws}")
    generator = generator or fixed_generator()
    size = len(D) if data is None else len(data)
    index = torch.randint(size, (draws,), generator=generator, device=generator.device)
    if data is None:
        x0 = D.take(index)
    else:
        x0 = _rows(data.array if isinstance(data, Dataset) else data, index).to(D.points.device)
    if tuple(x0.shape[1:]) != D.event:
        raise ValueError(f"data must have points of shape {D.event}, those of the denoiser, got {tuple(x0.shape[1:])}")
    eps = torch.randn(x0.shape, generator=generator, dtype=torch.float32, device=generator.device)
    return x0, eps.to(x0.device)


def _rows(data: Tensor | np.ndarray, index: Tensor) -> Tensor:
    """data[index] as the denoiser would have it: images as float32."""
    if isinstance(data, Tensor):
        rows = data.detach()[index.to(data.device)]
    else:
        rows = torch.as_tensor(np.asarray(data)[index.cpu().numpy()])
    return to_float(rows) if rows.dtype == torch.uint8 else rows
