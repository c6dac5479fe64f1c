"""Matrices in digits of 8 bits, and exact products of bytes: the arithmetic of `screened`.

Queries and weights are written as s₁ q₁ + s₂ q₂ + … + r with signed bytes q_i, s_{i+1} = s_i/127. A product of bytes
with bytes is exact in int32 where at most 2¹⁶ are summed, and in float32 where at most 2¹⁰ are.

What the digits leave, and what that is worth in a bound, is part of the proof in `optimal.evaluate.proof`.
"""

from __future__ import annotations

import copy
import functools
import hashlib
import math
import operator
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from ..points.rounding import UNIT, gamma
from ..randomness import hashed_words
from .proof import CHANCE, GRAIN

__all__ = ["SUM_COLUMNS", "Digits", "Streams", "fast_bytes", "product"]

_int_mm: Callable[[Tensor, Tensor], Tensor] = operator.attrgetter("_int_mm")(torch)
"""The product of matrices of bytes, which has no public name."""
_IN_CACHE = 2**17
"""Values written in digits at a time."""
_EXACT_COLUMNS = 2**10
"""128 · 128 · 2¹⁰ = 2²⁴: sums of so many products of bytes are exact in float32, in whatever order."""
SUM_COLUMNS = 2**16
"""128 · 128 · 2¹⁶ = 2³⁰: and of so many in int32."""


@functools.cache
def fast_bytes() -> bool:
    """Whether matrices of bytes are multiplied faster than float32 ones here, and exactly.

    By what the processor can do, the same way every time: products of bytes that are summed in int32 at once (VNNI),
    which oneDNN must have been built to use. Processors without them saturate sums of two in int16, or are slower.
    """
    names = ("_is_vnni_supported", "_is_avx512_vnni_supported")  # The name in PyTorch changed.
    supported = any(getattr(torch.cpu, name, lambda: False)() for name in names)
    return supported and torch.backends.mkldnn.is_available() and _exact_bytes()


def _exact_bytes() -> bool:
    """That the largest products there are do not saturate, as they would with an instruction set held back by hand."""
    a = torch.full((32, 256), 127, dtype=torch.int8, device="cpu")
    b = torch.full((256, 32), -128, dtype=torch.int8, device="cpu")
    try:
        return bool((_bytes(a, b) == -127 * 128 * 256).all() and (_bytes(b.T, b) == 128 * 128 * 256).all())
    except (RuntimeError, AttributeError):
        return False


def _bytes(a: Tensor, b: Tensor) -> Tensor:
    """a @ b in int32, for any strides.

    `torch._int_mm` reads past the strides of operands that have a length of 1, or are expanded (tests/test_proof.py has
    the cases): it is given matrices of at least 2 by 2 that lie by rows, or by columns, without gaps.
    """
    rows, inner, columns = a.shape[0], a.shape[1], b.shape[1]
    if 1 in (rows, inner, columns):
        a = torch.nn.functional.pad(a, (0, int(inner == 1), 0, int(rows == 1)))
        b = torch.nn.functional.pad(b, (0, int(columns == 1), 0, int(inner == 1)))
    a, b = (x if x.is_contiguous() or x.T.is_contiguous() else x.contiguous() for x in (a, b))
    return _int_mm(a, b)[:rows, :columns]


def product(a: Tensor, b: Tensor) -> Tensor:
    """a @ b for int8 matrices, exactly; in the type in which it was summed, int32, float32 or float64."""
    fast = a.device.type == "cpu" and fast_bytes()
    inner, step = a.shape[1], SUM_COLUMNS if fast else _EXACT_COLUMNS
    if inner > step:
        out = product(a[:, :step], b[:step]).double()
        for start in range(step, inner, step):
            out += product(a[:, start : start + step], b[start : start + step])
        return out
    if fast:
        return _bytes(a, b)
    # Bytes are exact in every type that autocast or TF32 may round them to; their sums are not.
    with torch.autocast(a.device.type, enabled=False):
        return a.float() @ b.float()


class Streams:
    """Random numbers for every row, from a hash of the row itself: the same in any batch, and not known to the row.

    Args:
        z: (B, D) float64 and sigma (B,) float64, the rows.
        data: digest of all that else enters, so that neither can be made to suit the other; asked for once, if at all.
    """

    def __init__(self, z: Tensor, sigma: Tensor, data: Callable[[], bytes]):
        self._z, self._sigma, self._data = z.detach(), sigma.detach(), data
        self._keys: dict[int, int] = {}
        self._rows, self._purpose = list(range(len(z))), 0

    def of(self, rows: list[int]) -> Streams:
        """Those of some rows."""
        out = copy.copy(self)
        vars(out).update(_rows=[self._rows[row] for row in rows])
        return out

    def other(self) -> Streams:
        """Numbers of the same rows for another purpose."""
        out = copy.copy(self)
        vars(out).update(_purpose=self._purpose + 1)
        return out

    def draw(self, row: int, part: int, count: int) -> Tensor:
        """(count,) float64, uniform over (k + ½) 2⁻¹⁶, k = 0 … 2¹⁶ − 1; each `part` has its own."""
        place = self._rows[row]
        if place not in self._keys:
            digest = hashlib.blake2b(self._data(), digest_size=16)
            digest.update(self._sigma[place].cpu().numpy().tobytes())
            digest.update(self._z[place].cpu().contiguous().numpy().data)
            self._keys[place] = int.from_bytes(digest.digest(), "little")
        counter = (self._purpose << 224) + (part << 192)
        words = hashed_words(self._keys[place], counter, -(-count // 4))
        numbers = words.view(np.uint16)[:count].astype(np.float64)
        return torch.from_numpy(numbers).add_(0.5).mul_(GRAIN)


class Digits:
    """A matrix (B, D) written in signed bytes, digit after digit.

    Args:
        values: (B, D) float64; they become `rest`, and are changed.
        count: of the vectors that `error` is for.
        streams: of the rounding of each row; None rounds to nearest.

    Attributes:
        rest: (B, D) float64, what the digits so far leave.
        step: (B,) float64, the value of one unit of the last digit.
        left: (B,) float64, at least ‖rest‖.
        reach: (B,) float64, at least Σ_k ‖s_k q_k‖.
        error: (B,) float64: |(values − Σ s_k q_k)·v| <= error ‖v‖ for all of `count` vectors v.
        random: whether digits are rounded at random.
        digits: (B,) int64, how many there are.
    """

    def __init__(self, values: Tensor, count: int = 1, streams: Streams | None = None):
        self.rest, self.dim = values, values.shape[1]
        self.step = torch.linalg.vector_norm(values, torch.inf, dim=1)
        self.digits = torch.zeros(len(values), dtype=torch.int64, device=values.device)
        self._root = math.sqrt(self.dim)
        self._chance = math.sqrt(0.5 * math.log(2 * max(count, 1) / CHANCE)) + GRAIN * self._root
        # Rounding at random doubles the square of what is left; where the bound on ‖r‖ counts, it is not worth it.
        self.random = streams is not None and self.dim > 12 * self._chance**2
        self._streams = streams
        self._rows = max(1, _IN_CACHE // self.dim)
        self.reach = torch.zeros_like(self.step)
        self.left = self._norm(values)
        self.error = self.left.clone()

    @property
    def likely(self) -> Tensor:
        """(B,), the expected size of a value of `rest`."""
        return self.step / (6**0.5 if self.random else 12**0.5)

    @property
    def finer(self) -> int:
        """What each digit divides `step` by."""
        # Rounded to nearest, at most half a unit is left.
        return 127 if self.random else 254

    @property
    def streams(self) -> Streams:
        """Of the rounding, where it is at random."""
        assert self._streams is not None
        return self._streams

    def narrowed(self, rows: Tensor) -> Digits:
        """The same of the rows."""
        out = copy.copy(self)
        for name in ("rest", "step", "left", "reach", "error", "digits"):
            setattr(out, name, getattr(self, name)[rows])
        vars(out).update(_streams=None if self._streams is None else self._streams.of(rows.tolist()))
        return out

    def next(self, rows: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The next digit of some rows (None: all), (b, D) int8, and the value of its unit, (b,)."""
        at = torch.arange(len(self.step), device=self.step.device) if rows is None else rows
        finer = torch.where(self.digits[at] == 0, 127.0, float(self.finer)).double()
        step = (self.step[at] / finer).clamp_min(torch.finfo(torch.float64).tiny)
        digits = torch.empty(len(at), self.dim, dtype=torch.int8, device=self.rest.device)
        count = self._rows if rows is None else 1
        for first in range(0, len(at), count):
            part = slice(first, first + count)
            rest = self.rest[part] if rows is None else self.rest[int(rows[first])][None]
            digit = rest.div(step[part, None]).add_(self._dither(at[part])).floor_()
            rest.addcmul_(digit, step[part, None], value=-1)
            digits[part] = digit
        self.step[at], self.left[at] = step, self._norm(self.rest if rows is None else self.rest[at])
        self.digits[at] += 1
        self.reach[at] += 128 * self._root * step
        error = self.left[at]
        if self.random:
            error = torch.minimum(error, self._chance * step)
        self.error[at] = error + 2 * UNIT * self.reach[at]
        return digits, step

    def _dither(self, rows: Tensor) -> Tensor | float:
        if not self.random:
            return 0.5
        assert self._streams is not None
        parts = self.digits[rows].tolist()
        drawn = [self._streams.draw(row, part, self.dim) for row, part in zip(rows.tolist(), parts, strict=True)]
        return torch.stack(drawn).to(self.rest.device)

    def _norm(self, values: Tensor) -> Tensor:
        return torch.linalg.vector_norm(values, dim=1).mul_(1 + gamma(self.dim + 3))
