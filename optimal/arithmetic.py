"""Our own arithmetic, whatever surrounds a call.

`torch.autocast` turns the float32 products inside it into products of half precision, `set_float32_matmul_precision`
and TF32 those of processors and GPUs that have faster and coarser ones. A result that promises an error cannot depend
on either. Everything public that sums over the data, and everything that is written to the cache, runs under `ours`.

The default dtype and the default device are not touched, since other threads share them: they are named at every
allocation and every draw instead.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from typing import Any

import torch

__all__ = ["ours"]

_DEVICES = ("cpu", "cuda")
_FULL = "ieee"
_LOCK = threading.Lock()


class _Precision:
    """That of float32 products, of the whole process: while any thread is inside, all have the full one."""

    def __init__(self) -> None:
        self._inside = 0
        self._before: dict[Any, str] = {}

    def enter(self) -> None:
        with _LOCK:
            if self._inside == 0:
                backends: tuple[Any, ...] = (torch.backends.mkldnn.matmul, torch.backends.cuda.matmul)  # pyright: ignore
                self._before = {backend: backend.fp32_precision for backend in backends}
                for backend in backends:
                    backend.fp32_precision = _FULL
            self._inside += 1

    def leave(self) -> None:
        with _LOCK:
            self._inside -= 1
            if self._inside == 0:
                for backend, precision in self._before.items():
                    backend.fp32_precision = precision


_PRECISION = _Precision()


@contextlib.contextmanager
def ours() -> Iterator[None]:
    """Autocast off and float32 products at full precision; after it, both as they were. A decorator as well.

    Example:
        >>> with torch.autocast("cpu", torch.bfloat16), ours():
        ...     (torch.ones(1, 1) @ torch.full((1, 1), 1.001)).dtype
        torch.float32
    """
    with contextlib.ExitStack() as stack:
        for device in _DEVICES:
            if torch.is_autocast_enabled(device):
                stack.enter_context(torch.autocast(device, enabled=False))
        _PRECISION.enter()
        stack.callback(_PRECISION.leave)
        yield
