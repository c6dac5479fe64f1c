"""Knowledge distillation (Eq. 41): the teacher's end point, in one jump from noise.

    λ ‖x_θ(x, σ_N) − x̂(x)‖²/dim,    x̂(x) the end of the teacher's sampler from x

The pairs (x, x̂) cost a whole sampler run each. They are computed once, into a folder that the next run finds: an
entry (`optimal.storage.entries`) of noises.npy and ends.npy, memory-mapped. The minimum is
`optimal.knowledge_optimum(teacher, sigmas, solver)`, or, with pairs of the exact flow, `optimal.FlowMap(teacher)`.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from optimal.storage import ArrayWriter, describe, made_once, open_entry

from ..loss import Batch, weighted

__all__ = ["Knowledge", "in_memory", "make_pairs"]

_AT_ONCE = 512


def make_pairs(
    jump: Callable[[Tensor, float], Tensor],
    event: tuple[int, ...],
    sigma_max: float,
    count: int,
    folder: str | Path,
    *,
    seed: int = 0,
    progress: bool = False,
) -> tuple[np.ndarray, np.ndarray]:
    """Noises σ_N ε and where `jump` takes them, (count, *event) float32 each, from the folder if they are there.

    Args:
        jump: (x, sigma_max) -> end point: a `FlowMap` or a knowledge optimum.
        event: shape of one point.
        sigma_max: σ_N.
        count: number of pairs.
        folder: where they are kept; its name must be unique to the teacher, σ_N and the seed.
        seed: of the noises.
        progress: whether a progress bar is drawn on stderr.

    Raises:
        ValueError: the folder cannot be written, or count < 1.
    """
    if count < 1:
        raise ValueError(f"pairs must be at least 1, got {count}")
    shape, folder = (count, *event), Path(folder)

    def make(building: Path) -> None:
        _write(building, jump, shape, sigma_max, torch.Generator().manual_seed(seed), progress)

    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        return made_once(folder, lambda path: _open(path, shape), make, "computing pairs")
    except OSError as error:
        raise ValueError(f"the pairs could not be written to {folder}: {error.strerror or error}") from error


def _write(
    folder: Path,
    jump: Callable[[Tensor, float], Tensor],
    shape: tuple[int, ...],
    sigma_max: float,
    generator: torch.Generator,
    progress: bool,
) -> None:
    count, *event = shape
    with (
        ArrayWriter(folder / "noises.npy") as noises,
        ArrayWriter(folder / "ends.npy") as ends,
        tqdm(total=count, desc="pairs", unit="pair", disable=not progress) as bar,
    ):
        for start in range(0, count, _AT_ONCE):
            x = sigma_max * torch.randn(min(_AT_ONCE, count - start), *event, generator=generator)
            noises.append(x.numpy())
            ends.append(jump(x, sigma_max).float().numpy())
            bar.update(len(x))
        prints = {"noises": noises.finish(), "ends": ends.finish()}
    describe(folder, prints, {})


def _open(folder: Path, shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray] | None:
    found = open_entry(folder)
    if found is None or set(found.arrays) != {"noises", "ends"}:
        return None
    if any(array.shape != shape or array.dtype != np.float32 for array in found.arrays.values()):
        return None
    return found.arrays["noises"], found.arrays["ends"]


class Knowledge:
    """The loss of Eq. 41.

    Args:
        noises, ends: pairs, (M, *event) float32.
        sigma_max: σ_N.
        weighting, sigma_data: as for `Consistency`.
    """

    def __init__(
        self,
        noises: np.ndarray | Tensor,
        ends: np.ndarray | Tensor,
        sigma_max: float,
        *,
        weighting: str = "edm",
        sigma_data: float = 1.0,
    ):
        self.noises, self.ends, self.sigma_max = in_memory(noises), in_memory(ends), sigma_max
        self.weighting, self.sigma_data = weighting, sigma_data

    def draw(self, count: int, generator: torch.Generator) -> Batch:
        index = torch.randint(len(self.noises), (count,), generator=generator)
        return self.noises[index], self.ends[index]

    def loss(self, student: nn.Module, average: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
        x, ends = batch
        sigma = torch.full((len(x),), self.sigma_max, dtype=torch.float64, device=x.device)
        return weighted(student(x, sigma) - ends, sigma, self.weighting, self.sigma_data), sigma


def in_memory(array: np.ndarray | Tensor) -> Tensor:
    """The pairs as a tensor of their own."""
    return array if isinstance(array, Tensor) else torch.from_numpy(np.array(array))
