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
from collections.abc import Callable, Iterator
from typing import Any

import torch

__all__ = ["ours"]

_DEVICES = ("cpu", "cuda")
_FULL, _INHERITED = "ieee", "none"
_REDUCED = ("tf32", "bf16")
_LOCK = threading.Lock()


class _Setting:
    """The precision of some float32 products, of the whole process: its own, or that of `parent`."""

    def __init__(self, read: Callable[[], str], write: Callable[[str], object], parent: _Setting | None = None):
        self.read, self.write, self._parent = read, write, parent

    def own(self) -> str:
        """What it is set to itself, where PyTorch tells only what is in force."""
        found = self.read()
        if self._parent is None or found != self._parent.read() or torch.backends.flags_frozen():
            return found
        # For a moment the parent has the full precision: what follows it has none of its own.
        above = self._parent.own()
        self._parent.write(_FULL)
        follows = self.read() == _FULL
        self._parent.write(above)
        return _INHERITED if follows else found


def _attribute(backend: Any, parent: _Setting | None = None) -> _Setting:
    return _Setting(
        lambda: backend.fp32_precision, lambda value: setattr(backend, "fp32_precision", value), parent=parent
    )


def _of_products() -> tuple[_Setting, _Setting]:
    """Those of matrix products on the CPU and on GPUs, which inherit from their backend, and that from all backends."""
    backends: Any = torch.backends
    every, mkldnn = _attribute(backends), backends.mkldnn
    # PyTorch's attribute of mkldnn sets all backends; its function does not.
    cpu = _Setting(lambda: mkldnn.fp32_precision, lambda value: mkldnn.set_flags(_fp32_precision=value), every)
    cuda = _attribute(backends.cudnn, every)
    return _attribute(mkldnn.matmul, cpu), _attribute(backends.cuda.matmul, cuda)


class _Precision:
    """That of float32 products, of the whole process: while any thread is inside, all have the full one."""

    def __init__(self) -> None:
        self._inside = 0
        self._before: list[tuple[_Setting, str]] = []
        self._settings = _of_products()

    def enter(self) -> None:
        with _LOCK:
            if self._inside == 0:
                reduced = [setting for setting in self._settings if setting.read() in _REDUCED]
                self._before = [(setting, setting.own()) for setting in reduced]
                for setting in reduced:
                    setting.write(_FULL)
            self._inside += 1

    def leave(self) -> None:
        with _LOCK:
            self._inside -= 1
            if self._inside == 0:
                for setting, own in self._before:
                    setting.write(own)


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
