"""Which samples are copies of training data: their nearest and second nearest data points, also mirrored.

Of a sample x, with y₁ and y₂ the nearest and the second nearest distinct data point, d_k = ‖x − y_k‖ by differences in
float64, dim the number of values of a point and s the data's standard deviation of a value:

    exact        x = y₁, value by value; in grey levels, as x would be saved, where the data are images of bytes
    near         d₁/√dim <= near · s, without being exact: a root mean square difference of a twentieth of the spread
    memorised    d₁/d₂ < 1/3, the published definition

and the same of the mirror image of x, left to right. The first two are blind to nothing but larger changes; the third
needs no scale, but misses copies of data that have a near-copy in the data, and finds them where data are far apart.
What such a share is without any copying, the same audit of held-out data says.

References:
    Yoon, Choi, Kwon, Ryu 2023, "Diffusion Probabilistic Models Generalize when They Fail to Memorize"; Gu, Du, Pang,
    Li, Lin, Wang 2023, "On Memorization in Diffusion Models" (1/3); Carlini et al. 2023, "Extracting Training Data from
    Diffusion Models" (near copies, by a root mean square difference).
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from optimal import Dataset, OptimalDenoiser
from optimal.datasets import to_float, to_uint8
from optimal.intervals import require_level

from .copies import Audit, Looked
from .sampled import NEAR

__all__ = ["audit"]

_BYTES = 2**27
"""Of a block of samples in float64."""
_FEW, _MOST = 128, 1024
"""Samples that are timed first, and of a block."""
_BRIGHT = 2.0
"""No image in [−1, 1] with a generator's overshoot reaches so far."""


def audit(
    D: OptimalDenoiser | Dataset | Tensor,
    samples: Dataset | Tensor | np.ndarray,
    *,
    near: float = NEAR,
    level: float = 0.95,
    any_range: bool = False,
    progress: bool = False,
    say: Callable[[float], object] | None = None,
) -> Audit:
    """Nearest and second nearest data point of every sample, and of its mirror image, exactly.

    Copies within the data count as one point. About 2 n N dim operations, twice for images.

    Args:
        D: the training data, or their optimum.
        samples: (n, *event), uint8 for images or floating point in units of the data.
        near: largest root mean square difference of a near copy, over the data's standard deviation of a value.
        level: of the intervals.
        any_range: whether images may lie in another range than [−1, 1], as those of a network that fails do.
        progress: whether a progress bar is drawn on stderr.
        say: told after the first few samples how many seconds the rest will take.

    Raises:
        ValueError: no samples; samples of another shape than the data, or images in another range; near below 0; level
            outside (0, 1).

    Example:
        >>> data = torch.tensor([[-1.0], [1.0], [4.0]])
        >>> found = audit(data, torch.tensor([[1.0], [2.0], [4.05]]))
        >>> found.kind, found.plain.memorised.tolist()
        (['exact', '', 'near'], [True, False, True])
    """
    D = D if isinstance(D, OptimalDenoiser) else OptimalDenoiser(D)
    array = samples.array if isinstance(samples, Dataset) else samples
    require_level(level)
    if not 0 <= near < math.inf:
        raise ValueError(f"near must be at least 0, got {near:g}")
    if tuple(array.shape[1:]) != D.event:
        raise ValueError(f"samples must have the shape of the data, {_size(D.event)}, got {_size(array.shape[1:])}")
    if not len(array):
        raise ValueError("there must be at least one sample, got none")
    if not any_range:
        _require_units(D, array)
    is_image = len(D.event) == 3 and D.event[0] in (1, 3)
    plain: list[Looked] = []
    mirrored: list[Looked] = []
    start, began = 0, 0.0
    most = max(_FEW, min(_MOST, _BYTES // (8 * D.points.dim)))
    with tqdm(total=len(array), desc="audit", unit="sample", leave=False, disable=not progress) as bar:
        while start < len(array):
            # The first one also prepares what is kept of the data; the next few are timed.
            rows = 1 if start == 0 else _FEW if start == 1 else most
            x = _read(array, slice(start, start + rows))
            plain.append(_looked(D, x))
            if is_image:
                mirrored.append(_looked(D, x.flip(-1)))
            start += len(x)
            bar.update(len(x))
            if start == 1:
                began = time.perf_counter()
            elif start == 1 + _FEW and say is not None:
                say((time.perf_counter() - began) / _FEW * (len(array) - start))
    reach = near * D.standard_deviation * math.sqrt(D.points.dim)
    joined = Looked.joined(mirrored) if is_image else None
    return Audit(Looked.joined(plain), joined, reach, D.points.dim, level, D.points.bytes)


def _read(array: Tensor | np.ndarray, rows: slice) -> Tensor:
    part = array[rows]
    part = torch.from_numpy(np.array(part)) if isinstance(part, np.ndarray) else part
    if part.dtype == torch.uint8:
        return to_float(part)
    if not part.is_floating_point():
        raise ValueError(f"samples must be uint8 or floating point, got {part.dtype}")
    return part


def _require_units(D: OptimalDenoiser, array: Tensor | np.ndarray) -> None:
    """Raise ValueError for images in another range than [−1, 1], where copies would look like none."""
    if not D.points.bytes or array.dtype in (torch.uint8, np.uint8):
        return
    some = _read(array, slice(0, _FEW))
    low, high = float(some.amin()), float(some.amax())
    dark = float(D.take(torch.arange(min(len(D), _FEW))).amin()) < -0.5
    if high > _BRIGHT or (low >= 0 and dark):
        raise ValueError(
            f"samples of images must lie in [-1, 1], or be uint8: those here reach from {low:.3g} to {high:.3g}"
        )


def _looked(D: OptimalDenoiser, x: Tensor) -> Looked:
    index, distance = (part.cpu() for part in D.neighbours(x, 2))
    nearest = D.take(index[:, 0]).to(x.device)
    same = to_uint8(x) == to_uint8(nearest) if D.points.bytes else x.double() == nearest.double()
    exact = same.flatten(1).all(1).cpu()
    return Looked(index[:, 0], index[:, 1], distance[:, 0], distance[:, 1], exact)


def _size(event: tuple[int, ...] | torch.Size) -> str:
    return "×".join(map(str, event)) or "()"
