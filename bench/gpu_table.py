"""The table of `bench/gpu.py`: seconds of one call, beside the plain products and the most that the card can do.

Points are random bytes, x is a point and noise. The plain products, softmax((x @ Yᵀ − ½‖y_j‖²)/σ²) @ Y, hold Y in the
type named, expanded; ours hold the bytes. "peak" is measured: a square product in that type, and a copy on the card.
"""

from __future__ import annotations

import contextlib
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from optimal import OptimalDenoiser
from optimal.evaluate import Accuracy, Evaluator

__all__ = ["Clock", "Shape", "peaks", "rows"]

_LONGEST, _REPEATS = 2.0, 5
"""Seconds from which on a call is timed once; and how often else."""
_CHUNK = 2**28
"""Values drawn, and expanded, at a time."""
_ROOM = 2 * 2**30
"""Bytes of the card that stay free, for what is computed."""
_PLAIN = {"float32": torch.float32, "TF32": torch.float32, "bfloat16": torch.bfloat16}
_LEVELS = (1.0, 20.0)


class Clock:
    """The seconds that are left of a budget."""

    def __init__(self, seconds: float):
        self._end = time.monotonic() + seconds

    @property
    def left(self) -> float:
        return self._end - time.monotonic()

    def at_most(self, seconds: float) -> Clock:
        """A part of it."""
        return Clock(min(seconds, self.left))


@dataclass(frozen=True)
class Shape:
    """N points of D values, and B queries."""

    points: int
    dim: int
    batch: int


def peaks(device: torch.device, *, quick: bool) -> dict[str, float]:
    """What the card can do: TFLOP/s of square products in each type, GB/s read and written by a copy."""
    side, size = (256, 2**20) if quick else (8_192, 2**30)
    found: dict[str, float] = {}
    for name, dtype in _PLAIN.items():
        a = torch.randn(side, side, dtype=dtype, device=device)
        with _precision(name):
            found[name] = 2e-12 * side**3 / _seconds(device, lambda a=a: a @ a)
    source = torch.zeros(size, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    found["copy"] = 2e-9 * size / _seconds(device, lambda: target.copy_(source))
    return found


def rows(
    device: torch.device, shapes: list[Shape], peak: dict[str, float], clock: Clock, methods: tuple[str, ...]
) -> Iterator[dict[str, Any]]:
    """One row for every way, shape and noise level: seconds, or the reason why there are none."""
    drawn: tuple[int, int] | None = None
    data, D = torch.empty(0), _nothing()
    for shape in shapes:
        if shape.points * shape.dim + _ROOM > _free(device) + (data.numel() if drawn else 0):
            yield {**vars(shape), "method": "all", "reason": "the bytes do not fit the card"}
            continue
        if drawn != (shape.points, shape.dim):
            data, D = torch.empty(0), _nothing()  # Given back before the next are drawn.
            data, drawn = _bytes(shape, device), (shape.points, shape.dim)
            D = OptimalDenoiser(data)
        for method, sigma in [(name, level) for name in methods for level in _levels(name)]:
            row: dict[str, Any] = {**vars(shape), "method": method, "sigma": sigma}
            if clock.left < 0:
                yield {**row, "reason": "the time is used up"}
                continue
            try:
                yield {**row, **_row(method, data, D, shape, sigma, peak)}
            except (RuntimeError, ValueError, ImportError) as error:
                yield {**row, "reason": str(error).splitlines()[0][:200]}


def _nothing() -> OptimalDenoiser:
    return OptimalDenoiser(torch.zeros(1, 1, device="cpu"))


def _levels(method: str) -> tuple[float, ...]:
    """What plain products cost does not depend on the noise."""
    return _LEVELS[:1] if method in _PLAIN else _LEVELS


def _row(
    method: str, data: Tensor, D: OptimalDenoiser, shape: Shape, sigma: float, peak: dict[str, float]
) -> dict[str, Any]:
    device = data.device
    x = (data[: shape.batch].float() / 127.5 - 1).contiguous()
    x = x + sigma * torch.randn(x.shape, generator=torch.Generator("cpu").manual_seed(1), device="cpu").to(device)
    if method in _PLAIN:
        dtype = _PLAIN[method]
        size = data.numel() * dtype.itemsize
        if size + _ROOM > _free(device):
            return {"reason": f"{size / 1e9:.0f} GB do not fit the card"}
        points, half_norms = _expanded(data, dtype)
        with _precision(method):
            seconds = _seconds(device, lambda: _plain(points, half_norms, x.to(dtype), sigma))
        kind, error = method, None
    else:
        # One pass over the points finds their norms, for all methods.
        D.evaluator = Evaluator(D.points, Accuracy(method))
        seconds = _seconds(device, lambda: D.posterior(x, sigma))
        bound = D.posterior(x, sigma).error_bound
        kind, size, error = "float32", data.numel(), float(bound.max())
    flops = 4e-12 * shape.points * shape.dim * shape.batch / seconds
    return {
        "seconds": seconds,
        "GB/s": size * 1e-9 / seconds,
        "share of the copy": size * 1e-9 / seconds / peak["copy"],
        "TFLOP/s": flops,
        "share of the product": flops / peak[kind],
        "bound": error,
    }


def _plain(points: Tensor, half_norms: Tensor, x: Tensor, sigma: float) -> Tensor:
    logits = (x @ points.T).float().sub_(half_norms).div_(sigma**2)
    return logits.softmax(1).to(points.dtype) @ points


def _expanded(data: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """y = u8/127.5 − 1 in that type, and ½‖y‖²."""
    out = torch.empty(data.shape, dtype=dtype, device=data.device)
    half_norms = torch.empty(len(data), dtype=torch.float32, device=data.device)
    for part in torch.arange(len(data), device="cpu").split(max(1, _CHUNK // data.shape[1])):
        at = slice(int(part[0]), int(part[-1]) + 1)
        block = data[at].float() / 127.5 - 1
        out[at], half_norms[at] = block, block.square().sum(1) / 2
    return out, half_norms


def _bytes(shape: Shape, device: torch.device) -> Tensor:
    # On the card: drawing 12 GB on the CPU would take the whole budget. No result depends on these numbers.
    generator = torch.Generator(device).manual_seed(0)
    out = torch.empty(shape.points, shape.dim, dtype=torch.uint8, device=device)
    step = max(1, _CHUNK // shape.dim)
    for start in range(0, shape.points, step):
        out[start : start + step].random_(0, 256, generator=generator)
    return out


def _free(device: torch.device) -> int:
    if device.type != "cuda":
        return 2**33
    torch.cuda.empty_cache()
    return torch.cuda.mem_get_info(device)[0]


@contextlib.contextmanager
def _precision(name: str) -> Iterator[None]:
    """TF32 where it is asked for, and only there."""
    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = name == "TF32"
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before


def _seconds(device: torch.device, call: Callable[[], object]) -> float:
    """The median of some calls, after one that is not counted; of a long one, its own."""
    spent = [_timed(device, call)]
    if spent[0] > _LONGEST:
        return spent[0]
    return statistics.median(_timed(device, call) for _ in range(_REPEATS))


def _timed(device: torch.device, call: Callable[[], object]) -> float:
    _wait(device)
    start = time.perf_counter()
    call()
    _wait(device)
    return time.perf_counter() - start


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
