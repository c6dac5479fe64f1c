"""The rows of the data where they live: in memory, in a file larger than memory, on a device.

A small array is copied. A large one is used where it is; that it has not been written to since is checked at every call
(`Rows.check`): by PyTorch's own count of writes, for tensors; by the sum of all its words of 8 bytes modulo 2⁶⁴, where
it is contiguous in memory (0.6 ms of processor time for 24 MB, beside 24 ms and more for a call); and by some of its
rows, which are all there is for memory maps, for what is not contiguous and on other devices. What leaves the sum as it
is, as an exchange of rows, is noticed by those rows only. A read-only memory map
larger than the budget is streamed: the kernel reads the next block while this one is used, and used blocks are given
back, so that they do not count as this process's memory.
"""

from __future__ import annotations

import contextlib
import hashlib
import math
import operator
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..datasets import to_float
from ..masks import refuse_mask
from .mapped import MappedFile, Reference, by_reference

__all__ = ["Rows", "evenly"]

_writes: Callable[[Tensor], int] = operator.attrgetter("_version")
"""PyTorch's own count of writes to a tensor, which has no public name."""

_SMALL_BYTES = 16 * 2**20
"""Up to this size the array is copied."""
_INTEGERS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
"""By bytes."""
_LOOK, _LOOK_BYTES = 64, 2**18
"""Most rows, and bytes, by which a change of a large array is noticed."""


class Rows:
    """Rows of `array` (N, *event); a memory map of more than `memory` bytes is streamed.

    Attributes:
        event: shape of one row.
        size, dim: N and D = prod(event).

    Raises:
        ValueError: the array is empty, has no row axis, is masked, or is neither float nor uint8.
    """

    def __init__(self, array: Tensor | np.ndarray, memory: int):
        refuse_mask("data", array)
        tensor = _as_tensor(array)
        if tensor.ndim < 2 or tensor.numel() == 0:
            raise ValueError(
                f"data must have shape (N, *event) with at least one point and one axis, got {tuple(tensor.shape)}"
            )
        if tensor.dtype != torch.uint8 and not tensor.dtype.is_floating_point:
            raise ValueError(f"data must be floating point, or uint8 for images, got {tensor.dtype}")
        self._memory = memory
        mapped = isinstance(array, np.memmap)
        own = not mapped and tensor.numel() * tensor.element_size() <= _SMALL_BYTES
        self._hold(tensor.clone() if own else tensor, None if own else array)
        self._seen = self._look()

    def _hold(self, tensor: Tensor, array: Any) -> None:
        self._array, self._tensor, self._trusted = array, tensor, False
        self._file = MappedFile.of(array, self._memory)
        self._version = None if tensor.is_inference() else _writes(tensor)
        self._words = _words(tensor)
        self.event = tuple(tensor.shape[1:])
        self.size = tensor.shape[0]
        self.dim = math.prod(self.event)

    def __getstate__(self) -> dict[str, Any]:
        state = {"memory": self._memory, "seen": self._seen, "array": by_reference(self._array)}
        # The array of a map is found again in its file; every other is the tensor itself.
        state["tensor"] = None if isinstance(state["array"], Reference) else self._tensor
        if state["tensor"] is not None:
            state["array"] = None
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        self._memory, self._seen = state["memory"], state["seen"]
        array, tensor = state["array"], state["tensor"]
        if tensor is None:
            array = array.open()
            tensor = _as_tensor(array)
        self._hold(tensor, array)
        if self._array is not None:
            self.check()

    @property
    def device(self) -> torch.device:
        return self._tensor.device

    @property
    def dtype(self) -> torch.dtype:
        return self._tensor.dtype

    @property
    def streamed(self) -> bool:
        """Whether blocks are read ahead from a file and given back."""
        return self._file is not None

    @contextlib.contextmanager
    def checked_once(self) -> Iterator[None]:
        """Check now, and not again within the context: of one call that asks many times."""
        self.check()
        before, self._trusted = self._trusted, True
        try:
            yield
        finally:
            self._trusted = before

    def check(self) -> None:
        """Raise ValueError if a large array is no longer what it was, as far as that is noticed: see the module."""
        if self._array is None or self._trusted:
            return
        written = self._version is not None and _writes(self._tensor) != self._version
        if written or self._look() != self._seen:
            raise ValueError(
                "the data were changed after the denoiser was made: make a new one, or give it a copy of the data"
            )

    def _look(self) -> bytes:
        """A digest of rows spread over an array that is not our own, and of the sum of its words."""
        if self._array is None:
            return b""
        row_bytes = max(1, self.dim * self._tensor.element_size())
        count = min(self.size, _LOOK, max(2, _LOOK_BYTES // row_bytes))
        index = np.arange(count) * (self.size - 1) // max(count - 1, 1)
        if self._words is None:
            rows = self._tensor.index_select(0, torch.from_numpy(index).to(self.device)).cpu().contiguous()
            return hashlib.blake2b(rows.view(-1).view(torch.uint8).numpy().data, digest_size=16).digest()
        digest = hashlib.blake2b(np.ascontiguousarray(self._words[index]).data, digest_size=16)
        if self._words.flags.c_contiguous and not isinstance(self._array, np.memmap):
            raw = self._words.reshape(-1).view(np.uint8)
            digest.update(raw[: len(raw) // 8 * 8].view(np.int64).sum().tobytes())
        return digest.digest()

    @contextlib.contextmanager
    def opened(self, where: slice | Tensor, buffer: Tensor | None = None) -> Iterator[Tensor]:
        """Rows as they are stored, (n, D), to be used within the context.

        Rows at an index are gathered in `buffer`, (at least n, D), where there is one of their type and device: new
        memory for each block takes as long as the rows themselves.
        """
        if self._file is not None and isinstance(where, slice):
            self._file.ahead(where)
        rows = self._tensor[where] if isinstance(where, slice) else self._gathered(where.to(self.device), buffer)
        yield rows.reshape(len(rows), self.dim)
        if self._file is None or len(rows) == 0:
            return
        self._file.release(where if isinstance(where, slice) else slice(int(where.min()), int(where.max()) + 1))

    def _gathered(self, index: Tensor, buffer: Tensor | None) -> Tensor:
        # Indexing bytes with a tensor is 9 times slower than `index_select`.
        if buffer is None or buffer.dtype != self.dtype or buffer.device != self.device:
            return self._tensor.index_select(0, index)
        out = buffer[: len(index)].view(len(index), *self.event)
        return torch.index_select(self._tensor, 0, index, out=out)

    def exact(self, index: Tensor) -> Tensor:
        """The rows themselves, (len(index), D) float64; images as `to_float` has them."""
        with self.opened(index) as rows:
            return (to_float(rows) if rows.dtype == torch.uint8 else rows).to(torch.float64, copy=True)

    @property
    def of(self) -> int:
        """How many rows the data have: all of these."""
        return self.size

    def of_data(self, index: Tensor) -> Tensor:
        """`take`: row j of these is row j of the data."""
        return self.take(index)

    def take(self, index: Tensor) -> Tensor:
        """Rows at `index`, (len(index), *event), in their own precision; images as float32."""
        with self.opened(index) as rows:
            chosen = to_float(rows) if rows.dtype == torch.uint8 else rows.clone()
        return chosen.view(-1, *self.event)


def evenly(count: int, most: int) -> int:
    """Size of the parts, at most `most`, that leave the least rest: as few parts as possible, all about equal."""
    parts = -(-count // most)
    return -(-count // parts)


def _words(tensor: Tensor) -> np.ndarray | None:
    """The memory of a tensor on the CPU, which is read within `torch.func.jvp`, too, where no other tensor has any."""
    if tensor.device.type != "cpu" or tensor.is_neg():
        return None
    return tensor.detach().view(_INTEGERS[tensor.element_size()]).numpy()


def _as_tensor(array: Tensor | np.ndarray) -> Tensor:
    """The array as a tensor, without a copy where there is a way."""
    if isinstance(array, Tensor):
        return array.detach()
    array = np.asarray(array)
    if any(stride < 0 for stride in array.strides):
        array = np.ascontiguousarray(array)
    with warnings.catch_warnings():
        # The rows are only read, so a read-only memory map is as good as any.
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return torch.from_numpy(array)
