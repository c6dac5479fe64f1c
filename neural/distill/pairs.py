"""Pairs (x, x̂) for knowledge distillation: noises at σ_N, and the end of the teacher's sampler from each.

A pair costs a whole sampler run. Of a fixed number of them a student learns the pairs, not the map: it is right on them
and wrong elsewhere. `FreshPairs` are made while training: a pool of them that grows with every step. `FixedPairs` are
computed once, into a folder that the next run finds (`make_pairs`): an entry (`optimal.storage.entries`) of noises.npy
and ends.npy, memory-mapped.

All noises come from the stream "pairs" of the seed. What is measured draws from others.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from optimal.numbers import require_whole
from optimal.randomness import stream
from optimal.storage import ArrayWriter, describe, made_once, open_entry, replacing

from ..streams import Streams

__all__ = ["FixedPairs", "FreshPairs", "Jump", "Pairs", "first_pairs", "make_pairs", "open_pairs"]

Jump = Callable[[Tensor, float], Tensor]
"""(x, sigma_max) -> end point: a `FlowMap` or a knowledge optimum."""

_AT_ONCE = 512
_FIRST = 8192
"""Pairs of a pool when training begins; fewer where they would take more than `_MEMORY` bytes."""
_MOST = 2**20
"""Pairs that a pool holds, of so few values that `_MEMORY` bytes would hold more."""
_MEMORY = 2**29


class Pairs(Protocol):
    """Where a student's pairs come from."""

    def draw(self, count: int, streams: Streams) -> tuple[Tensor, Tensor]:
        """Noises and ends, (count, *event) float32 each, on the CPU."""
        ...


class FixedPairs:
    """So many and no more, drawn with replacement.

    Args:
        noises, ends: (M, *event) float32, at σ_N.
    """

    def __init__(self, noises: np.ndarray | Tensor, ends: np.ndarray | Tensor):
        self.noises, self.ends = _in_memory(noises), _in_memory(ends)

    def draw(self, count: int, streams: Streams) -> tuple[Tensor, Tensor]:
        index = streams.rows(len(self.noises), count)
        return self.noises[index], self.ends[index]


class FreshPairs:
    """A pool of pairs that grows as it is used, drawn with replacement.

    It begins with 8,192 and has one more for every `uses` that were drawn, in batches of the stream; where memory is
    full, the oldest make room. Which pairs these are depends on the seed and on the step alone, so that a resumed run
    has the same.

    Args:
        jump: the teacher's sampler.
        event: shape of one point.
        sigma_max: σ_N.
        seed: of the noises.
        uses: draws for every new pair.
        at_once: how many noises the jump is asked with.
        device: where the jump is asked.
        folder: where batches are kept for the next run, which then need not ask the jump; its name must be unique to
            the teacher, σ_N, the seed and at_once. None: nowhere.
        progress: whether a progress bar is drawn on stderr while the pool is filled.

    Raises:
        ValueError: uses or at_once < 1.
    """

    def __init__(
        self,
        jump: Jump,
        event: tuple[int, ...],
        sigma_max: float,
        *,
        seed: int = 0,
        uses: int = 8,
        at_once: int = _AT_ONCE,
        device: torch.device | str = "cpu",
        folder: Path | None = None,
        progress: bool = False,
    ):
        for name, value in (("uses", uses), ("at_once", at_once)):
            require_whole(name, value)
        self.jump, self.event, self.sigma_max = jump, event, sigma_max
        self.seed, self.uses, self.device, self.folder, self.progress = seed, uses, device, folder, progress
        bytes_of_one = 2 * 4 * int(np.prod(event, dtype=np.int64))
        most = min(_MOST, _MEMORY // bytes_of_one)
        self.at_once, self.held = at_once, max(1, most // at_once)
        self.first = max(1, min(_FIRST, most) // at_once)
        # Of memory that is not written to nothing is taken.
        self._noises, self._ends = (torch.empty(self.held, at_once, *event, dtype=torch.float32) for _ in range(2))
        self._batch_in: list[int | None] = [None] * self.held

    def draw(self, count: int, streams: Streams) -> tuple[Tensor, Tensor]:
        made = self.first + streams.step * count // (self.uses * self.at_once)
        gone = max(0, made - self.held)
        missing = [batch for batch in range(gone, made) if self._batch_in[batch % self.held] != batch]
        shown = self.progress and len(missing) >= self.first
        for batch in tqdm(missing, desc="first pairs", unit_scale=self.at_once, unit=" pairs", disable=not shown):
            self.make(batch)
        index = (gone * self.at_once + streams.rows((made - gone) * self.at_once, count)) % (self.held * self.at_once)
        return self._noises.flatten(0, 1)[index], self._ends.flatten(0, 1)[index]

    def make(self, batch: int) -> None:
        """Have a batch of the stream in memory, and in the folder."""
        place, path = batch % self.held, None if self.folder is None else self.folder / f"{batch:06d}.npy"
        found = None if path is None else _kept(path, (2, self.at_once, *self.event))
        if found is None:
            generator = stream(self.seed, "pairs", batch)
            found = torch.stack(_made(self.jump, self.at_once, self.event, self.sigma_max, generator, self.device))
            if path is not None:
                _keep(path, found)
        self._noises[place], self._ends[place] = found
        self._batch_in[place] = batch


def _kept(path: Path, shape: tuple[int, ...]) -> Tensor | None:
    """What `_keep` wrote; None where there is nothing, or something damaged."""
    try:
        found = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    whole = found.shape == shape and found.dtype == np.float32 and np.isfinite(found).all()
    return torch.from_numpy(found) if whole else None


def _require_space(folder: Path, count: int, event: tuple[int, ...]) -> None:
    """Raise ValueError for more pairs than the disk has room for."""
    home = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    room = shutil.disk_usage(home).free // (8 * math.prod(event))
    if count > room:
        raise ValueError(f"pairs must be at most {room:,}, as many as the disk of {home} has room for, got {count:,}")


def _keep(path: Path, pairs: Tensor) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as temporary:
            np.save(temporary, pairs.numpy(), allow_pickle=False)
    except OSError as error:
        raise ValueError(f"the pairs could not be written to {path.parent}: {error.strerror or error}") from error


def make_pairs(
    jump: Jump,
    event: tuple[int, ...],
    sigma_max: float,
    count: int,
    folder: str | Path,
    *,
    seed: int = 0,
    at_once: int = _AT_ONCE,
    device: torch.device | str = "cpu",
    progress: bool = False,
) -> tuple[np.ndarray, np.ndarray]:
    """Noises σ_N ε and where `jump` takes them, (count, *event) float32 each, from the folder if they are there.

    Args:
        jump: the teacher's sampler.
        event: shape of one point.
        sigma_max: σ_N.
        count: number of pairs.
        folder: where they are kept; its name must be unique to the teacher, σ_N and the seed.
        seed: of the noises.
        at_once: how many noises the jump is asked with.
        device: where the jump is asked.
        progress: whether a progress bar is drawn on stderr.

    Raises:
        ValueError: the folder cannot be written, or count < 1.
    """
    if count < 1:
        raise ValueError(f"pairs must be at least 1, got {count}")
    shape, folder = (count, *event), Path(folder)

    def make(building: Path) -> None:
        _require_space(building, count, event)
        generator = stream(seed, "pairs")
        with (
            ArrayWriter(building / "noises.npy") as noises,
            ArrayWriter(building / "ends.npy") as ends,
            tqdm(total=count, desc="pairs", unit="pair", disable=not progress) as bar,
        ):
            for start in range(0, count, at_once):
                rows = min(at_once, count - start)
                x, ended = _made(jump, rows, event, sigma_max, generator, device)
                noises.append(x.numpy())
                ends.append(ended.numpy())
                bar.update(rows)
            prints = {"noises": noises.finish(), "ends": ends.finish()}
        describe(building, prints, {})

    def opened(path: Path) -> tuple[np.ndarray, np.ndarray] | None:
        found = open_pairs(path)
        return found if found is not None and found[0].shape == shape else None

    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        return made_once(folder, opened, make, "computing pairs")
    except OSError as error:
        raise ValueError(f"the pairs could not be written to {folder}: {error.strerror or error}") from error


def open_pairs(folder: str | Path) -> tuple[np.ndarray, np.ndarray] | None:
    """What `make_pairs` has left in a folder, whatever its size; None if it is missing or damaged."""
    found = open_entry(Path(folder))
    if found is None or set(found.arrays) != {"noises", "ends"}:
        return None
    noises, ends = found.arrays["noises"], found.arrays["ends"]
    if noises.shape != ends.shape or any(array.dtype != np.float32 for array in (noises, ends)):
        return None
    return noises, ends


def first_pairs(
    jump: Jump,
    event: tuple[int, ...],
    sigma_max: float,
    count: int,
    *,
    seed: int = 0,
    device: torch.device | str = "cpu",
) -> tuple[Tensor, Tensor]:
    """The first of the pairs that `FreshPairs` of this seed draw from, noises and ends, (count, *event) each.

    Args:
        jump, event, sigma_max, seed, device: as theirs.
        count: at most their `at_once`.
    """
    return _made(jump, count, event, sigma_max, stream(seed, "pairs", 0), device)


def _made(
    jump: Jump,
    count: int,
    event: tuple[int, ...],
    sigma_max: float,
    generator: torch.Generator,
    device: torch.device | str,
) -> tuple[Tensor, Tensor]:
    x = sigma_max * torch.randn(count, *event, generator=generator, dtype=torch.float32)
    return x, jump(x.to(device), sigma_max).float().cpu()


def _in_memory(array: np.ndarray | Tensor) -> Tensor:
    """The pairs as a tensor of their own."""
    return array if isinstance(array, Tensor) else torch.from_numpy(np.array(array))
