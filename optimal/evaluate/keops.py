"""The sums over the data by KeOps reductions: no (B, N) matrix exists, on CPU or GPU.

Charlier, Feydy, Glaunès, Collin, Durif 2021, "Kernel Operations on the GPU, with Autodiff, without Memory Overflows".
Each of the three formulas below is compiled once for each D (about 5 s, then kept on disk), and all arithmetic is in
float64. The logits are those of `dense`: l_j = (z·(y_j − c) − h_j)/σ².
"""

from __future__ import annotations

import functools
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..points import Points
from ..storage import cache_folder, running
from .moments import Moments
from .protocol import Accuracy, Tilt

__all__ = ["available", "moments", "require", "tilt"]

_MARK = "compiling-"
_LOGIT = "p * ((z | y) - h)"


def available() -> bool:
    """Whether a C++ compiler is there, without which KeOps cannot run."""
    return any(shutil.which(name) for name in (os.environ.get("CXX"), "g++", "clang++") if name)


def require() -> None:
    """Raise the one clear sentence when KeOps cannot run.

    Raises:
        ValueError: there is no C++ compiler.
    """
    if not available():
        raise ValueError(
            "method='keops' needs a C++ compiler (g++ or clang++ on the path): install one or use method='dense'"
        )


def moments(points: Points, z: Tensor, sigma: Tensor, *, single: bool, accuracy: Accuracy) -> Moments:
    """The running sums of `Moments`, for z (B, D) and sigma (B,), float64: the leader, then sums relative to it."""
    sums = Moments(len(z), points.dim, z.device)
    precision = 1 / sigma.square()[:, None]
    find_leader = _reduction("Max_ArgMax", _LOGIT, points.dim)
    add_up = _reduction("Sum", f"Exp({_LOGIT} - m) * Concat(v, {_LOGIT} - m)", points.dim)
    for start, block, half_norms in _blocks(points, z, accuracy.memory):
        top, leader = find_leader(z, block, half_norms, precision)
        values = torch.cat([torch.ones_like(half_norms), 2 * half_norms, block], 1)
        summed = add_up(z, block, half_norms, precision, top.contiguous(), values)
        sums.merge(
            None,
            top=top.squeeze(1),
            total=summed[:, 0],
            energy=summed[:, -1],
            mean=summed[:, 2:-1],
            square=summed[:, 1],
            index=leader.squeeze(1).long() + start,
        )
    return sums


def tilt(points: Points, z: Tensor, sigma: Tensor, tilt: Tilt, *, single: bool, accuracy: Accuracy) -> Tensor:
    """Σ_j w_j c_j (y_j − D), (B, D), with the c_j of `Tilt`."""
    precision = 1 / sigma.square()[:, None]
    log_weight = f"({_LOGIT} - t)"
    distance = "(IntCst(2) * (h - (m | y)) + (m | m))"
    formula = f"Exp({log_weight}) * ((d | (y - m)) + a * {log_weight} + b * {distance}) * (y - m)"
    reduce = _reduction("Sum", formula, points.dim)
    out = torch.zeros_like(z)
    for _start, block, half_norms in _blocks(points, z, accuracy.memory):
        coefficients = (tilt.by_log_weight[:, None], tilt.by_distance[:, None])
        out += reduce(
            z, block, half_norms, precision, tilt.log_total[:, None], tilt.mean, tilt.direction, *coefficients
        )
    return out


def _blocks(points: Points, z: Tensor, memory: int) -> Iterator[tuple[int, Tensor, Tensor]]:
    """(start, y − c, h), large enough that the cost of a call does not show."""
    rows = max(1, memory // (4 * 3 * 8 * points.dim))
    half_norms = points.half_norms.to(z.device)
    for start, block in points.blocks(rows, z.device):
        yield start, block, half_norms[start : start + len(block), None].contiguous()


@functools.lru_cache(maxsize=64)
def _reduction(kind: str, formula: str, dim: int) -> Callable[..., Any]:
    """A compiled reduction over the data of `formula`, with only the variables that it names."""
    variables = {"z": f"Vi({dim})", "y": f"Vj({dim})", "h": "Vj(1)", "p": "Vi(1)"}
    if "t)" in formula:
        variables |= {"t": "Vi(1)", "m": f"Vi({dim})", "d": f"Vi({dim})", "a": "Vi(1)", "b": "Vi(1)"}
    elif "m" in formula:
        variables |= {"m": "Vi(1)", "v": f"Vj({dim + 2})"}
    aliases = [f"{name} = {shape}" for name, shape in variables.items()]
    reduce = _genred()(formula, aliases, reduction_op=kind, axis=1)
    loaded = False

    def marked(*arguments: Tensor) -> Any:
        # KeOps loads whatever file it finds, and a half-written one ends the process: the first call, which compiles,
        # leaves a mark until it is through.
        nonlocal loaded
        if loaded:
            return reduce(*arguments)
        mark = Path(os.environ["KEOPS_CACHE_FOLDER"]) / f"{_MARK}{os.getpid()}"
        mark.touch()
        result = reduce(*arguments)
        mark.unlink(missing_ok=True)
        loaded = True
        return result

    return marked


@functools.lru_cache(maxsize=1)
def _genred() -> Callable[..., Any]:
    """KeOps' entry point, imported on first use: the import itself looks for compilers and writes to a cache folder."""
    require()
    if not os.environ.get("KEOPS_CACHE_FOLDER"):
        folder = cache_folder() / "keops"
        marks = list(folder.glob(f"{_MARK}*"))
        if marks and not any(running(int(mark.name.removeprefix(_MARK))) for mark in marks):
            shutil.rmtree(folder, ignore_errors=True)
        os.environ["KEOPS_CACHE_FOLDER"] = str(folder)
    Path(os.environ["KEOPS_CACHE_FOLDER"]).mkdir(parents=True, exist_ok=True)
    # Quiet about the GPU that is not there when it is imported, but not about the seconds that it spends compiling.
    asked = os.environ.setdefault("KEOPS_VERBOSE", "0")
    import pykeops
    from pykeops.torch import Genred

    if asked == "0" and "PYKEOPS_VERBOSE" not in os.environ:
        pykeops.set_verbose(True)
    return Genred
