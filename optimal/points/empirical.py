"""The N data points as the rows of a matrix that is read in blocks.

Everything the sums of Eq. 43 need from the data is here: rows relative to a fixed centre c, and h_j = ½‖y_j − c‖².
A uint8 array is taken as images, y = u8/127.5 − 1 in float32 arithmetic, and is never expanded as a whole. The centre
is the mean of at most 4,096 points spread evenly over the data; any c gives the same posterior, one near the mean
loses the fewest digits in x·y.

A read-only memory map larger than the budget is streamed: the kernel reads the next block while this one is used, and
used blocks are given back, so that they do not count as this process's memory.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import math
import mmap
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..datasets import to_float

__all__ = ["Points", "evenly"]

_BLOCK_BYTES = 48 * 2**20
"""A block of rows in work precision: large enough for a matrix product, small enough for the processor's cache."""
_LOGITS = 2**19
"""Logits of a block, all queries together: 4 MiB. Without this bound, small events take 4 to 13 times longer."""
_COVARIANCE = 1024
"""Up to this many values in an event the covariance matrix is formed."""
_CANDIDATES = 8
"""Nearest points by their products that are measured by their differences."""
_FEW_BYTES = 4 * 2**20
"""The same in float64 where there is no large product to feed: 5 times faster at D = 12,288 than 48 MiB."""


class Points:
    """Rows of `array` (N, *event), relative to a centre; a memory map of more than `memory` bytes is streamed.

    Attributes:
        event: shape of one point.
        size, dim: N and D = prod(event).
        centre: (D,) float64, exactly representable in float32; the mean of some points unless it was given.
        half_norms: (N,) float64, ½‖y_j − c‖².
        radius: max_j ‖y_j − c‖.

    Raises:
        ValueError: the array is empty, has no point axis, holds nan or inf, or is neither float nor uint8.
    """

    def __init__(self, array: Tensor | np.ndarray, memory: int = 2**30, centre: Tensor | None = None):
        tensor = _as_tensor(array)
        self._file = _MappedFile.of(array, memory)
        if tensor.ndim < 2 or tensor.numel() == 0:
            raise ValueError(
                f"data must have shape (N, *event) with at least one point and one axis, got {tuple(tensor.shape)}"
            )
        if tensor.dtype != torch.uint8 and not tensor.dtype.is_floating_point:
            raise ValueError(f"data must be floating point, or uint8 for images, got {tensor.dtype}")
        self.event = tuple(tensor.shape[1:])
        self.size = tensor.shape[0]
        self.dim = math.prod(self.event)
        self._rows = tensor.reshape(self.size, self.dim)
        self.centre = self._mean_of_some().float().double() if centre is None else centre
        self._measure()

    def _measure(self) -> None:
        """Read all points once: their norms, and whether they are finite."""
        # Filled in place: thousands of small results between the large temporaries would fragment the heap.
        self.half_norms = torch.empty(self.size, dtype=torch.float64, device=self.device)
        for start, block in self.blocks(self.few_rows, self.device):
            torch.sum(block.square_(), 1, out=self.half_norms[start : start + len(block)]).mul_(0.5)
        if not torch.isfinite(self.half_norms).all():
            raise ValueError(
                f"data must be finite, point {int((~torch.isfinite(self.half_norms)).nonzero()[0])} is not"
            )
        self.radius = math.sqrt(2 * float(self.half_norms.max()))

    @property
    def largest_norm(self) -> float:
        """At least max_j ‖y_j‖."""
        return self.radius + float(self.centre.norm())

    @property
    def device(self) -> torch.device:
        return self._rows.device

    @property
    def streamed(self) -> bool:
        """Whether blocks are read ahead from a file and given back."""
        return self._file is not None

    @property
    def few_rows(self) -> int:
        """Rows of a float64 block that stays in the cache of one core."""
        return max(1, _FEW_BYTES // (8 * self.dim))

    def block_rows(self, batch: int = 1, memory: int = 2**30, itemsize: int = 8) -> int:
        """Rows of a block: it and its (batch, rows) logits stay in cache, and within half of `memory` bytes."""
        in_cache = min(_BLOCK_BYTES // (itemsize * self.dim), _LOGITS // max(batch, 1))
        in_budget = min(memory // (4 * itemsize * self.dim), memory // (4 * 8 * 6 * max(batch, 1)))
        return evenly(self.size, max(1, min(in_cache, in_budget)))

    def read(self, where: slice | Tensor, out: Tensor, scratch: Tensor | None = None) -> Tensor:
        """Write y[where] − c into the rows of `out`, in its dtype, and return those rows.

        `scratch`, float32 and like `out`, spares images that are read as float64 a new tensor.
        """
        with self._opened(where) as rows:
            block = rows.to(out.device)
            out = out[: len(block)]
            if block.dtype == torch.uint8:
                # `to_float` without new tensors: in place, all of this stays in cache.
                if out.dtype == torch.float32:
                    scratch = out
                elif scratch is None:
                    scratch = torch.empty_like(out, dtype=torch.float32)
                block = scratch[: len(block)].copy_(block).div_(127.5).sub_(1)
            return (out if block is out else out.copy_(block)).sub_(self.centre.to(out))

    @contextlib.contextmanager
    def _opened(self, where: slice | Tensor) -> Iterator[Tensor]:
        """Rows of the array, (n, D), to be used within the context."""
        if self._file is not None and isinstance(where, slice):
            self._file.ahead(where)
        # Indexing bytes with a tensor is 9 times slower than `index_select`.
        yield self._rows[where] if isinstance(where, slice) else self._rows.index_select(0, where)
        if self._file is None:
            return
        self._file.release(where if isinstance(where, slice) else slice(int(where.min()), int(where.max()) + 1))

    def blocks(
        self, rows: int, device: torch.device, index: Tensor | None = None, dtype: torch.dtype = torch.float64
    ) -> Iterator[tuple[int, Tensor]]:
        """Yield (start, y[start : start + rows] − c) over all points or y[index]; one buffer serves all."""
        count = self.size if index is None else len(index)
        buffer = torch.empty(min(rows, count), self.dim, dtype=dtype, device=device)
        scratch = torch.empty_like(buffer, dtype=torch.float32) if dtype != torch.float32 else None
        for start in range(0, count, rows):
            part = slice(start, start + rows)
            yield start, self.read(part if index is None else index[part].to(self.device), buffer, scratch)

    @property
    def bytes(self) -> bool:
        """Whether the points are images kept as bytes, for `signed`."""
        return self._rows.dtype == torch.uint8

    def signed(self, size: int, device: torch.device, index: Tensor | None = None) -> Iterator[tuple[slice, Tensor]]:
        """Yield (places, u8 − 128 as int8, (n, D)) over all points or those of `index`, about `size` bytes at a time.

        y = (u8 − 128 + ½)/127.5, but for the rounding of `to_float`. One buffer serves all.
        """
        count = self.size if index is None else len(index)
        rows = evenly(count, max(1, size // self.dim))
        buffer = torch.empty(rows, self.dim, dtype=torch.uint8, device=device)
        for start in range(0, count, rows):
            part = slice(start, min(start + rows, count))
            with self._opened(part if index is None else index[part].to(self.device)) as block:
                # Bit for bit, u8 ^ 128 is the signed byte u8 − 128.
                signed = torch.bitwise_xor(block.to(device), 128, out=buffer[: len(block)]).view(torch.int8)
            yield part, signed

    def take(self, index: Tensor) -> Tensor:
        """y[index], (len(index), *event), in the data's own precision; images as float32."""
        if len(index) == 0:
            chosen = self._rows[:0]
        else:
            with self._opened(index.to(self.device)) as chosen:
                pass
        return (to_float(chosen) if chosen.dtype == torch.uint8 else chosen).view(-1, *self.event)

    @functools.cached_property
    def first_copies(self) -> Tensor:
        """For every point the first one that equals it, (N,) int64, on the CPU; told apart by 16-byte hashes."""
        first = torch.empty(self.size, dtype=torch.int64)
        seen: dict[bytes, int] = {}
        for start in range(0, self.size, self.few_rows):
            with self._opened(slice(start, start + self.few_rows)) as rows:
                # Adding 0 makes one zero of both.
                block = rows.cpu().double() + 0.0 if rows.dtype.is_floating_point else rows.cpu()
                for place, row in enumerate(block.numpy(), start):
                    first[place] = seen.setdefault(hashlib.blake2b(row.tobytes(), digest_size=16).digest(), place)
        return first

    @functools.cached_property
    def offset(self) -> Tensor:
        """ȳ − c, (D,) float64: the mean of the points as `blocks` gives them."""
        total = torch.zeros(self.dim, dtype=torch.float64, device=self.device)
        for _, block in self.blocks(self.few_rows, self.device):
            total += block.sum(0)
        return total / self.size

    def covariance(self) -> Tensor | None:
        """(1/N) Σ (y_j − ȳ)(y_j − ȳ)ᵀ, (D, D) float64; None for events of more than 1,024 values."""
        if self.dim > _COVARIANCE:
            return None
        second = torch.zeros(self.dim, self.dim, dtype=torch.float64, device=self.device)
        for _, block in self.blocks(self.few_rows, self.device):
            second += block.T @ block / self.size
        return second - torch.outer(self.offset, self.offset)

    def half_distances(self, z: Tensor) -> Iterator[tuple[int, Tensor]]:
        """Yield (start, ½‖z − (y_j − c)‖² − ½‖z‖² of a block, (B, n)) over all points, for z (B, D) float64."""
        for start, block in self.blocks(self.block_rows(len(z)), z.device):
            yield start, self.half_norms[start : start + len(block)].to(z.device) - z @ block.T

    def two_nearest(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """‖z − (y − c)‖ of the nearest and the second nearest distinct point, for z (B, D) float64; (B,) each.

        Products find the candidates, differences measure them.
        """
        first = self.first_copies.to(z.device)
        best = torch.full((len(z), 0), torch.inf, dtype=torch.float64, device=z.device)
        index = torch.zeros(len(z), 0, dtype=torch.int64, device=z.device)
        for start, scores in self.half_distances(z):
            places = torch.arange(start, start + scores.shape[1], device=z.device)
            scores[:, first[places] != places] = torch.inf
            joined = torch.cat([best, scores], 1)
            best, chosen = joined.topk(min(_CANDIDATES, joined.shape[1]), largest=False)
            index = torch.cat([index, places.expand(len(z), -1)], 1).gather(1, chosen)
        out = torch.full((len(z), 2), torch.inf, dtype=torch.float64, device=z.device)
        for row, (query, places, scores) in enumerate(zip(z, index, best, strict=True)):
            places = places[scores.isfinite()]
            candidates = self._exact(self._rows[places.to(self.device)]).to(z.device) - self.centre.to(z.device)
            distances = (candidates - query).norm(dim=1).sort().values[:2]
            out[row, : len(distances)] = distances
        return out[:, 0], out[:, 1]

    @property
    def standard_deviation(self) -> float:
        """√(E‖y − c‖² / D); c is the mean to within the sampling of `centre`."""
        return math.sqrt(2 * float(self.half_norms.mean()) / self.dim)

    def _exact(self, block: Tensor) -> Tensor:
        """The values themselves, in float64."""
        return (to_float(block) if block.dtype == torch.uint8 else block).double()

    def _mean_of_some(self) -> Tensor:
        step = max(1, self.size // 4096)
        total = torch.zeros(self.dim, dtype=torch.float64, device=self.device)
        for start in range(0, self.size, step * self.few_rows):
            with self._opened(slice(start, start + step * self.few_rows)) as rows:
                total += self._exact(rows[::step]).sum(0)
        # A point that is not finite shows in its own half norm only.
        return (total / len(range(0, self.size, step))).nan_to_num(0.0, 0.0, 0.0)


class _MappedFile:
    """A memory-mapped array whose pages are asked for before they are used, and given back after.

    Args:
        mapped: the map; first: offset of the array in it, in bytes; row: bytes of a row; size: rows.
    """

    def __init__(self, mapped: mmap.mmap, first: int, row: int, size: int):
        self._map, self._first, self._row, self._size = mapped, first, row, size

    @classmethod
    def of(cls, array: Any, memory: int) -> _MappedFile | None:
        """None for an array that is no map of a file in C order, or is no larger than `memory`."""
        mapped = getattr(array, "_mmap", None)
        if not isinstance(mapped, mmap.mmap) or array.nbytes <= memory or not array.flags.c_contiguous:
            return None
        if array.mode == "c" or not hasattr(mmap, "MADV_DONTNEED"):
            # Pages of a private copy would lose what was written to them.
            return None
        start = np.frombuffer(mapped, np.uint8).__array_interface__["data"][0]
        return cls(mapped, array.__array_interface__["data"][0] - start, array.nbytes // len(array), len(array))

    def ahead(self, rows: slice) -> None:
        """Have the kernel read the block after this one."""
        self._advise(mmap.MADV_WILLNEED, rows.stop, 2 * rows.stop - rows.start)

    def release(self, rows: slice) -> None:
        """Take the block's pages from this process; in the page cache they stay."""
        self._advise(mmap.MADV_DONTNEED, rows.start, rows.stop)

    def _advise(self, advice: int, start: int, stop: int) -> None:
        stop = min(stop, self._size)
        begin = (self._first + start * self._row) // mmap.PAGESIZE * mmap.PAGESIZE
        end = self._first + stop * self._row
        if end > begin:
            self._map.madvise(advice, begin, end - begin)


def evenly(count: int, most: int) -> int:
    """Size of the parts, at most `most`, that leave the least rest: as few parts as possible, all about equal."""
    parts = -(-count // most)
    return -(-count // parts)


def _as_tensor(array: Tensor | np.ndarray) -> Tensor:
    if isinstance(array, Tensor):
        return array.detach()
    with warnings.catch_warnings():
        # The rows are only read, so a read-only memory map is as good as any.
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return torch.from_numpy(np.asarray(array, order="C"))
