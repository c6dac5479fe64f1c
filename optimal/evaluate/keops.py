"""The sums over the data by KeOps reductions: no (B, N) matrix exists, on CPU or GPU.

Charlier, Feydy, Glaunès, Collin, Durif 2021, "Kernel Operations on the GPU, with Autodiff, without Memory Overflows".
Each of the three formulas below is compiled once for each D (about 5 s, then kept on disk), and all arithmetic is in
float64. The logits are l_j = (z·(y_j − c) − h_j)/σ²; queries for which these may be off by more than 1e-6 nats are left
to `dense`.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from ..points import Points
from . import dense
from .keops_library import Unavailable, compiler, reduction, required_compiler
from .moments import Moments
from .products import TIE, logit_error
from .protocol import Accuracy, Tilt

__all__ = ["available", "moments", "require", "tilt"]

_LOGIT = "p * ((z | y) - h)"
_failed: list[Unavailable] = []
"""What made "auto" go on without KeOps in this process."""


def available() -> bool:
    """Whether KeOps can be expected to run: there is a C++ compiler that works, and nothing has failed so far."""
    return not _failed and compiler() is not None


def require() -> None:
    """Raise the one clear sentence when KeOps cannot run.

    Raises:
        ValueError: there is no C++ compiler that works.
    """
    required_compiler()


def moments(points: Points, z: Tensor, sigma: Tensor, *, single: bool, accuracy: Accuracy) -> Moments:
    """The running sums of `Moments`, for z (B, D) and sigma (B,), float64: the leader, then sums relative to it.

    Raises:
        ValueError: KeOps fails where it was asked for; where "auto" chose it, dense takes its place, with a warning.
    """
    try:
        sums = _moments(points, z, sigma, accuracy)
        rows = _close(points, z, sigma, sums.top)
        if len(rows):
            sums.put(rows, dense.moments(points, z[rows], sigma[rows], single=single, accuracy=accuracy))
        return sums
    except Unavailable as error:
        _instead(error, accuracy)
    return dense.moments(points, z, sigma, single=single, accuracy=accuracy)


def tilt(points: Points, z: Tensor, sigma: Tensor, tilt: Tilt, *, single: bool, accuracy: Accuracy) -> Tensor:
    """Σ_j w_j c_j (y_j − D), (B, D), with the c_j of `Tilt`.

    Raises:
        ValueError: as for `moments`.
    """
    try:
        out = _tilt(points, z, sigma, tilt, accuracy)
        rows = _close(points, z, sigma, tilt.top)
        if len(rows):
            out[rows] = dense.tilt(points, z[rows], sigma[rows], tilt.at(rows), single=single, accuracy=accuracy)
        return out
    except Unavailable as error:
        _instead(error, accuracy)
    return dense.tilt(points, z, sigma, tilt, single=single, accuracy=accuracy)


def _close(points: Points, z: Tensor, sigma: Tensor, top: Tensor) -> Tensor:
    """Queries whose logits by products may be off by more than 1e-6 nats: `dense` takes differences there."""
    return (logit_error(points, z.norm(dim=1), sigma, top, torch.float64) > TIE).nonzero().squeeze(1)


def _moments(points: Points, z: Tensor, sigma: Tensor, accuracy: Accuracy) -> Moments:
    sums, dim = Moments(len(z), points.dim, z.device), points.dim
    precision = 1 / sigma.square()[:, None]
    z = _widened(points, z, sigma.square())
    find_leader = _reduction("Max_ArgMax", _LOGIT, z.shape[1])
    add_up = _reduction("Sum", f"Exp({_LOGIT} - m) * Concat(v, {_LOGIT} - m)", z.shape[1])
    for start, block, half_norms in _blocks(points, z, accuracy.memory):
        top, leader = find_leader(z, block, half_norms, precision)
        values = torch.cat([torch.ones_like(half_norms), 2 * half_norms, block], 1)
        summed = add_up(z, block, half_norms, precision, top.contiguous(), values)
        sums.merge(
            None,
            top=top.squeeze(1),
            total=summed[:, 0],
            energy=summed[:, -1],
            mean=summed[:, 2 : 2 + dim],
            square=summed[:, 1],
            index=leader.squeeze(1).long() + start,
        )
    return sums


def _tilt(points: Points, z: Tensor, sigma: Tensor, tilt: Tilt, accuracy: Accuracy) -> Tensor:
    precision = 1 / sigma.square()[:, None]
    log_weight = f"({_LOGIT} - t)"
    distance = "(IntCst(2) * (h - (m | y)) + (m | m))"
    formula = f"Exp({log_weight}) * ((d | (y - m)) + a * {log_weight} + b * {distance}) * (y - m)"
    z = _widened(points, z, sigma.square())
    mean, direction = (_widened(points, part, torch.zeros_like(sigma)) for part in (tilt.mean, tilt.direction))
    reduce = _reduction("Sum", formula, z.shape[1])
    out = torch.zeros_like(z)
    coefficients = (tilt.by_log_weight[:, None], tilt.by_distance[:, None])
    log_total = (tilt.top - tilt.top_weight.log())[:, None]
    for _start, block, half_norms in _blocks(points, z, accuracy.memory):
        out += reduce(z, block, half_norms, precision, log_total, mean, direction, *coefficients)
    return out[:, : points.dim]


def _blocks(points: Points, z: Tensor, memory: int) -> Iterator[tuple[int, Tensor, Tensor]]:
    """(start, y − c, h), large enough that the cost of a call does not show; with a_j behind y − c under a prior."""
    rows = max(1, memory // (4 * 3 * 8 * points.dim))
    half_norms = points.half_norms.to(z.device)
    for start, block in points.blocks(rows, z.device):
        part = slice(start, start + len(block))
        if points.log_weights is not None:
            block = torch.cat([block, points.log_weights[part, None].to(block)], 1)
        yield start, block, half_norms[part, None].contiguous()


def _widened(points: Points, rows: Tensor, value: Tensor) -> Tensor:
    """Rows (B, D) with one more value each, (B,), where points have one more, too."""
    return rows if points.prior is None else torch.cat([rows, value[:, None]], 1)


def _reduction(kind: str, formula: str, dim: int) -> Callable[..., Any]:
    """A compiled reduction over the data of `formula`, with only the variables that it names."""
    variables = {"z": f"Vi({dim})", "y": f"Vj({dim})", "h": "Vj(1)", "p": "Vi(1)"}
    if "t)" in formula:
        variables |= {"t": "Vi(1)", "m": f"Vi({dim})", "d": f"Vi({dim})", "a": "Vi(1)", "b": "Vi(1)"}
    elif "m" in formula:
        variables |= {"m": "Vi(1)", "v": f"Vj({dim + 2})"}
    return reduction(kind, formula, tuple(f"{name} = {shape}" for name, shape in variables.items()))


def _instead(error: Unavailable, accuracy: Accuracy) -> None:
    """Go on with dense where the choice was ours, and choose it from now on.

    Raises:
        Unavailable: keops was asked for.
    """
    if accuracy.method != "auto":
        raise error
    _failed.append(error)
    warnings.warn(f"dense sums are used, which take longer here: {error}", RuntimeWarning, stacklevel=2)
