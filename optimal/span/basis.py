"""Principal axes of a data set, and data sets of few points in the span of their points.

The denoiser of N points sees of x only its products with them: with V orthonormal axes that hold all of Y − c,
(x − c)·(y_k − c) = Vᵀ(x − c) · Vᵀ(y_k − c). What is left of x enters no product, so the flow of the coordinates is the
flow of x in coordinates, exactly, and N points of D > N values are as good as N points of N values (`few_points`).
Where N is large too, the leading axes hold most of it, and `optimal.span` watches the rest.
"""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from ..arithmetic import ours
from ..datasets import Dataset
from ..denoiser import OptimalDenoiser
from ..numbers import require_whole
from ..points import Points
from ..randomness import stream
from ..storage import ArrayWriter, cache_folder, describe, fingerprint_of_blocks, made_once, open_entry

__all__ = ["OVERSAMPLING", "RANK", "SKETCH", "Basis", "basis_bytes", "basis_of"]

RANK = 768
"""Axes, unless told otherwise; more projections do more for the same time than more axes."""
OVERSAMPLING = 64
"""Axes more than are asked for, while they are looked for."""
SKETCH = 384
"""Random projections S of what the axes leave: products of two such, and lengths, are known to 7% of the lengths."""
_BLOCK = 2048


@dataclass(frozen=True)
class Basis:
    """Principal axes of a data set.

    Attributes:
        vectors: (D, r) float32, orthonormal.
        coordinates: (N, r + 384) float32: those of y_j − c, and the random projections of what they leave, R_j.
        rest: (N,) float32, ‖R_j‖.
    """

    vectors: Tensor
    coordinates: Tensor
    rest: Tensor

    @property
    def rank(self) -> int:
        return self.vectors.shape[1]


@ours()
def basis_of(D: OptimalDenoiser, rank: int = RANK, *, progress: bool = False) -> Basis:
    """The basis of D's data, from the cache if it is there; else computed, in two subspace iterations, and kept there.

    Args:
        D: the optimal denoiser.
        rank: r, at most N and the number of values of an event: then nothing is left out.
        progress: whether a progress bar is drawn on stderr.

    References:
        Halko, Martinsson, Tropp 2011, "Finding Structure with Randomness", Algorithm 4.4.
    """
    rank = require_whole("rank", rank)
    if type(D) is not OptimalDenoiser:
        raise NotImplementedError(f"a basis needs all points in one process, D is {type(D).__name__}")
    points = D.points
    rank = min(rank, points.dim, points.size)
    folder = _folder(D, rank)
    return _compute(points, rank, progress) if folder is None else _kept(folder, points, rank, progress)


def basis_bytes(size: int, dim: int, rank: int = RANK) -> int:
    """Memory that a basis takes, and its making, in bytes."""
    rank = min(rank, size, dim)
    return 4 * (size * (rank + SKETCH + 1) + dim * (4 * (rank + OVERSAMPLING) + 2 * SKETCH + _BLOCK))


def _seed(points: Points) -> int:
    """A hash of the data: projections drawn from it are random to data that were made in knowledge of this code."""
    every = torch.arange(points.size, device=points.device)
    blocks = (points.take(part).cpu().contiguous() for part in every.split(points.few_rows))
    raw = (block.view(torch.uint8).numpy().data for block in blocks)
    return int(fingerprint_of_blocks(np.dtype(np.uint8), (points.size, points.dim), raw), 16) >> 1


def _compute(points: Points, rank: int, progress: bool) -> Basis:
    device, generator = points.device, stream(_seed(points), "basis")

    def normal(count: int) -> Tensor:
        return torch.randn(points.dim, count, generator=generator, dtype=torch.float32, device="cpu").to(device)

    sketch = normal(SKETCH) / math.sqrt(SKETCH)
    exact = rank == points.dim
    width = min(rank + min(OVERSAMPLING, rank), points.dim, points.size)
    vectors = normal(width)
    passes = 0 if exact else 2
    with tqdm(
        total=(passes + 1) * points.size, desc="basis", unit="point", unit_scale=True, disable=not progress
    ) as bar:
        for _ in range(passes):
            vectors, _ = torch.linalg.qr(vectors)
            total = torch.zeros_like(vectors)
            for _, block in points.blocks(_BLOCK, device, dtype=torch.float32):
                total.addmm_(block.T, block @ vectors)
                bar.update(len(block))
            vectors = total
        # In the order of their variances, so that the first `rank` are kept.
        vectors = (
            torch.eye(points.dim, dtype=torch.float32, device=device)
            if exact
            else torch.linalg.svd(vectors, full_matrices=False)[0]
        )
        vectors = vectors[:, :rank].contiguous()
        both = torch.cat([vectors, sketch - vectors @ (vectors.T @ sketch)], 1)
        coordinates = torch.empty(points.size, rank + SKETCH, dtype=torch.float32, device=device)
        for start, block in points.blocks(_BLOCK, device, dtype=torch.float32):
            torch.mm(block, both, out=coordinates[start : start + len(block)])
            bar.update(len(block))
    inside = coordinates[:, :rank].double().square().sum(1)
    rest = (2 * points.half_norms - inside).clamp_min(0).sqrt().float()
    return Basis(vectors, coordinates, rest)


_NAMES = ("vectors", "coordinates", "rest")


def _folder(D: OptimalDenoiser, rank: int) -> Path | None:
    """Where a basis is kept; data without a fingerprint have none."""
    if not isinstance(D.data, Dataset):
        return None
    return cache_folder() / "bases" / f"4-{D.data.fingerprint}-{rank}"


def _kept(folder: Path, points: Points, rank: int, progress: bool) -> Basis:
    """From the cache, where another process may be about to put it; without room there, computed for once."""
    sizes, computed = (points.size, points.dim, rank), []

    def make(building: Path) -> None:
        computed.append(_compute(points, rank, progress))
        _write(building, computed[0])

    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        found = made_once(folder, lambda path: _read(path, sizes), make, "computing a basis")
        return computed[0] if computed else found
    except OSError as error:
        warnings.warn(
            f"the basis could not be kept in {folder.parent}, it will be computed again: {error.strerror or error}",
            RuntimeWarning,
            stacklevel=3,
        )
    return computed[0] if computed else _compute(points, rank, progress)


def _read(folder: Path, sizes: tuple[int, int, int]) -> Basis | None:
    size, dim, rank = sizes
    shapes = (dim, rank), (size, rank + SKETCH), (size,)
    found = open_entry(folder, "c")
    if found is None or set(found.arrays) != set(_NAMES):
        return None
    arrays = [found.arrays[name] for name in _NAMES]
    if any(a.shape != shape or a.dtype != np.float32 for a, shape in zip(arrays, shapes, strict=True)):
        return None
    return Basis(*map(torch.from_numpy, arrays))


def _write(building: Path, basis: Basis) -> None:
    prints = {}
    for name in _NAMES:
        with ArrayWriter(building / f"{name}.npy") as file:
            file.append(getattr(basis, name).cpu().numpy())
            prints[name] = file.finish()
    describe(building, prints, {})
