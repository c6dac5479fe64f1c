"""Matrices in digits of 8 bits, and exact products of bytes: the arithmetic of `screened`.

Queries and weights are written as s₁ q₁ + s₂ q₂ + … + r with signed bytes q_i and s_{i+1} = s_i/127. A product of bytes
with bytes is exact in int32 where at most 2¹⁷ are summed, and in float32 where at most 2¹⁰ are.
"""

from __future__ import annotations

import copy
import functools
import math
import time

import torch
from torch import Tensor

__all__ = ["RISK", "SUM_COLUMNS", "Digits", "fast_bytes", "product"]

RISK = 1e-12
"""That a bound by chance does not hold."""
_IN_CACHE = 2**17
"""Values written in digits at a time."""
_EXACT_COLUMNS = 1024
"""127 · 128 · 1,024 < 2²⁴: sums of so many products of bytes are exact in float32."""
SUM_COLUMNS = 2**17
"""127 · 128 · 2¹⁷ < 2³¹: and of so many in int32."""


@functools.cache
def fast_bytes() -> bool:
    """Whether this processor and this torch multiply matrices of bytes faster than float32 ones; tried once."""
    a, b = torch.ones(64, 2048, dtype=torch.int8), torch.ones(2048, 2048, dtype=torch.int8)
    x, y = a.float(), b.float()
    try:
        spent = []
        for run in (lambda: _bytes(a, b.T), lambda: x @ y.T):
            run()
            start = time.perf_counter()
            for _ in range(3):
                run()
            spent.append(time.perf_counter() - start)
    except (RuntimeError, AttributeError):
        return False
    return spent[0] < spent[1]


def _bytes(a: Tensor, b: Tensor) -> Tensor:
    return torch._int_mm(a, b)  # pyright: ignore[reportPrivateImportUsage]


def product(a: Tensor, b: Tensor) -> Tensor:
    """a @ b for int8 matrices, exactly; in the type in which it was summed."""
    inner = a.shape[1]
    step = SUM_COLUMNS if fast_bytes() else _EXACT_COLUMNS
    if inner > step:
        out = product(a[:, :step], b[:step]).double()
        for start in range(step, inner, step):
            out += product(a[:, start : start + step], b[start : start + step])
        return out
    if fast_bytes():
        return _bytes(a.contiguous(), b)
    return a.float() @ b.float()


class Digits:
    """A matrix (B, D) written in signed bytes, digit after digit.

    Args:
        values: (B, D) float64; they become `rest`, and are changed.
        count: of the vectors that `error` is for.
        seed: of the rounding; values that come from other digits need another than theirs.

    Attributes:
        rest: (B, D) float64, what the digits so far leave.
        step: (B,) float64, the value of one unit of the last digit.
        error: (B,) float64: |rest · v| <= error ‖v‖ for all of `count` vectors v.
        random: whether digits are rounded at random.
    """

    def __init__(self, values: Tensor, count: int, seed: int = 20251):
        self.rest = values
        self.step = torch.linalg.vector_norm(values, torch.inf, dim=1)
        self.dim = values.shape[1]
        self._factor = math.sqrt(0.5 * math.log(2 * max(count, 1) / RISK))
        # Rounding at random doubles the square of what is left; where the bound on ‖r‖ counts, it is not worth it.
        self.random = self.dim > 12 * self._factor**2
        self._generator = torch.Generator().manual_seed(seed)
        self._rows = max(1, _IN_CACHE // self.dim)
        self.error = values.norm(dim=1)

    def narrowed(self, rows: Tensor) -> Digits:
        """The same of the rows."""
        out = copy.copy(self)
        # The generator goes on from one state, so that digits do not depend on how queries are grouped.
        out._generator = self._generator.clone_state()
        out.rest, out.step, out.error = self.rest[rows], self.step[rows], self.error[rows]
        return out

    def next(self, rows: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The next digit of some rows (None: all), (b, D) int8, and the value of its unit, (b,)."""
        at = slice(None) if rows is None else rows
        step = (self.step[at] / 127).clamp_min(torch.finfo(torch.float64).tiny)
        if self.random:
            dither = torch.rand(self.dim, generator=self._generator, dtype=torch.float64).to(self.rest)
        else:
            dither = 0.5
        digits = torch.empty(len(step), self.dim, dtype=torch.int8, device=self.rest.device)
        count = self._rows if rows is None else 1
        for first in range(0, len(step), count):
            part = slice(first, first + count)
            rest = self.rest[part] if rows is None else self.rest[int(rows[first])][None]
            digit = rest.div(step[part, None]).add_(dither).floor_().clamp_(-127, 127)
            rest.addcmul_(digit, step[part, None], value=-1)
            digits[part] = digit
        error = self.rest[at].norm(dim=1)
        if self.random:
            error = torch.minimum(error, self._factor * step)
        if rows is None:
            self.step, self.error = step, error
        else:
            self.step[rows], self.error[rows] = step, error
        return digits, step
