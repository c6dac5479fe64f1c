"""What `bench/run.py` times: ways to evaluate E[x0 | x] over N points, and the arrays that they all get.

Ours (dense, screened, keops) return the whole posterior and read the array as it is on disk, bytes where it has bytes.
The others return the mean alone, from float32 data in memory:

    plain products   softmax((x @ Y.T − ½‖y_j‖²)/σ²) @ Y, what any exact evaluation by matrix products costs
    cdist            softmax(−torch.cdist(x, Y)²/2σ²) @ Y
    LazyTensor       the same in KeOps, as its tutorials write it
    smalldiffusion   IdealDenoiser, of that package (Permenter and Yuan 2024)
    deepinv          MMSE, of that package (Tachella et al. 2025)

The arrays of D = 12,288 are `load("patches")`; those of 3,072, 784 and 64 values are the same windows averaged over
blocks of pixels, rounded to bytes again; D = 1 is a Gaussian sample in float32.
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from optimal import OptimalDenoiser, Posterior, load
from optimal.datasets import to_float
from optimal.evaluate import keops
from optimal.evaluate.keops_library import imported

__all__ = ["BOUNDS", "DIMS", "METHODS", "Data", "data_of", "mean_of", "noisy", "shrink", "unavailable"]

Evaluate = Callable[[Tensor, float], "Tensor | Posterior"]
"""(x, sigma) -> the posterior, or its mean alone."""

DIMS = (1, 64, 784, 3_072, 12_288)
_BLOCK = 2_000
"""Windows averaged at a time: 25 MB."""


@dataclass
class Data:
    """N points: `array`, uint8 or float32 (N, *event), perhaps a memory map."""

    array: np.ndarray

    @property
    def event(self) -> tuple[int, ...]:
        return self.array.shape[1:]

    @functools.cached_property
    def flat(self) -> Tensor:
        """(N, D) float32, in memory from the first use on."""
        floats = to_float(self.array) if self.array.dtype == np.uint8 else np.array(self.array)
        return torch.from_numpy(floats).flatten(1)

    @functools.cached_property
    def half_norms(self) -> Tensor:
        return torch.linalg.vector_norm(self.flat, dim=1).square() / 2  # No second array of this size.


def data_of(n: int, dim: int, folder: Path) -> Data:
    """N points of `dim` values; what is averaged is kept in `folder` and mapped from then on."""
    if dim == 1:
        return Data(torch.randn(n, 1, generator=torch.Generator().manual_seed(1)).numpy())
    windows = load("patches", n=n).array
    if dim == 12_288:
        return Data(windows)
    path = folder / f"patches-{n}-{dim}.npy"
    if not path.exists():
        small = [shrink(windows[start : start + _BLOCK], dim) for start in range(0, n, _BLOCK)]
        np.save(path, np.concatenate(small))
    return Data(np.load(path, mmap_mode="r"))


def shrink(windows: np.ndarray, dim: int) -> np.ndarray:
    """(n, 3, 64, 64) bytes averaged to 3×32×32 (3,072), 1×28×28 (784, without the margin of 4) or 1×8×8 (64)."""
    margin, side, channels = {3_072: (0, 2, 3), 784: (4, 2, 1), 64: (0, 8, 1)}[dim]
    cut = windows[:, :, margin : 64 - margin, margin : 64 - margin].astype(np.float32)
    size = cut.shape[2] // side
    blocks = cut.reshape(len(cut), channels, 3 // channels, size, side, size, side)
    return np.rint(blocks.mean((2, 4, 6))).astype(np.uint8)


def noisy(data: Data, batch: int, sigma: float) -> Tensor:
    """x = x0 + σ ε, (batch, *event), with the same x0 among the data and the same ε at every σ."""
    generator = torch.Generator().manual_seed(0)
    index = torch.randint(len(data.array), (batch,), generator=generator).numpy()
    x0 = Data(data.array[index]).flat.view(batch, *data.event)
    return x0 + sigma * torch.randn(x0.shape, generator=generator)


def mean_of(result: Tensor | Posterior) -> Tensor:
    """(B, D)."""
    return (result.mean if isinstance(result, Posterior) else result).flatten(1)


def _ours(data: Data, **options: Any) -> Evaluate:
    return OptimalDenoiser(data.array, **options).posterior


def _plain(data: Data) -> Evaluate:
    Y, half_norms = data.flat, data.half_norms
    return lambda x, sigma: ((x.flatten(1) @ Y.T - half_norms) / sigma**2).softmax(1) @ Y


def _cdist(data: Data) -> Evaluate:
    Y = data.flat
    return lambda x, sigma: (-torch.cdist(x.flatten(1), Y).square() / (2 * sigma**2)).softmax(1) @ Y


def _lazy_tensor(data: Data) -> Evaluate:
    imported()  # with the compiler and the folder of `optimal`
    from pykeops.torch import LazyTensor

    # Its operations are made at run time, so that no type is known.
    lazy: Any = LazyTensor
    Y = data.flat

    def evaluate(x: Tensor, sigma: float) -> Tensor:
        x_i, y_j = lazy(x.flatten(1)[:, None, :]), lazy(Y[None, :, :])
        logits = -((x_i - y_j) ** 2).sum(-1) / (2 * sigma**2)
        return logits.sumsoftmaxweight(y_j, axis=1)

    return evaluate


def _smalldiffusion(data: Data) -> Evaluate:
    images = data.flat.view(-1, *data.event)
    ideal = importlib.import_module("smalldiffusion").IdealDenoiser(images[:1])
    ideal.data = images  # Given to the constructor they would be copied.
    # It predicts ε = (x − mean)/σ.
    return lambda x, sigma: x - sigma * ideal(x, torch.tensor(sigma))


def _deepinv(data: Data) -> Evaluate:
    denoiser = importlib.import_module("deepinv").models.MMSE(dataloader=data.flat, device=torch.device("cpu"))

    def evaluate(x: Tensor, sigma: float) -> Tensor:
        with torch.no_grad():
            return denoiser(x, sigma)

    return evaluate


METHODS: dict[str, Callable[[Data], Evaluate]] = {
    "plain products": _plain,
    "dense": functools.partial(_ours, method="dense"),
    "screened": functools.partial(_ours, method="screened"),
    "screened, estimated": functools.partial(_ours, method="screened", certified=False),
    "keops": functools.partial(_ours, method="keops"),
    "cdist": _cdist,
    "LazyTensor": _lazy_tensor,
    "smalldiffusion": _smalldiffusion,
    "deepinv": _deepinv,
}
BOUNDS = {"dense": 1e-5, "screened": 1e-3, "keops": 1e-5}
"""Largest relative error of the mean that a method states; the others state none."""


def unavailable(name: str, dim: int) -> str:
    """Why a method cannot be timed here; empty where it can."""
    if name.startswith("screened") and dim == 1:
        return "the data are no bytes"
    if name in ("keops", "LazyTensor") and not keops.available():
        return "no C++ compiler"
    if name in ("smalldiffusion", "deepinv"):
        try:
            importlib.import_module(name)
        except (ImportError, RuntimeError) as error:
            return f"{error} (it needs a torchvision made for this torch)"
    return ""
