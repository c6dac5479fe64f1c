"""A second device, played by the CPU, for machines without one: what would fail on a GPU for its place, fails here.

Inside `second_device()` tensors on "cuda" exist. Each is a shell around a tensor of the CPU, which does the arithmetic,
so that programs run to their end, and to the same numbers; but an operation on tensors of both devices is refused as
CUDA refuses it. Allowed is what CUDA allows: copies, single numbers of the CPU as operands, indices on the CPU.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch._C import _disabled_torch_function_impl, _only_lift_cpu_tensors, _set_only_lift_cpu_tensors
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing
from torch.utils._pytree import tree_flatten, tree_map
from torch.utils.backend_registration import _DummyBackendModule, _setup_privateuseone_for_python_backend

__all__ = ["DEVICE", "second_device"]


class _Module(_DummyBackendModule):
    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return [torch.bfloat16, torch.float16]

    def get_rng_state(self, device: Any = None) -> Tensor:
        """As `torch.random.fork_rng` asks every backend for it, in other tests of this process, too."""
        return torch.get_rng_state()

    def set_rng_state(self, state: Tensor, device: Any = None) -> None:
        """Nothing is drawn there."""


_setup_privateuseone_for_python_backend("elsewhere", _Module())
DEVICE = torch.device("elsewhere", 0)
aten: Any = torch.ops.aten
_COPIES = {"aten._to_copy.default", "aten.copy_.default"}
_INDEXED = {"aten.index.Tensor", "aten.index_put_.default", "aten._index_put_impl_.default"}


class _There(Tensor):
    """A tensor of the second device; `held` is where its numbers are."""

    held: Tensor

    @staticmethod
    def __new__(cls, held: Tensor) -> _There:
        out = cls._make_wrapper_subclass(
            cls,
            held.shape,
            strides=held.stride(),
            storage_offset=held.storage_offset(),
            dtype=held.dtype,
            device=DEVICE,
            requires_grad=held.requires_grad,
        )
        out.held = held
        return out

    def __repr__(self, **_: Any) -> str:
        return f"{self.held!r} on {DEVICE}"

    def tolist(self) -> Any:
        return self.held.tolist()

    __torch_function__ = _disabled_torch_function_impl

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {})


class _Mode(TorchDispatchMode):
    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {})


def _run(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    tensors = [each for each in tree_flatten((args, kwargs))[0] if isinstance(each, Tensor)]
    there = any(isinstance(each, _There) for each in tensors)
    if there:
        _require_one_place(func, args, kwargs, tensors)
    # The zeros of forward differentiation have no numbers, which a shell would hide.
    func = aten.zeros.default if str(func) == "aten._efficientzerotensor.default" else func
    inner = dict(kwargs)
    if "device" in kwargs and kwargs["device"] is not None:
        there = torch.device(kwargs["device"]).type == DEVICE.type
        inner["device"] = torch.device("cpu")
    if "pin_memory" in inner:
        inner["pin_memory"] = False
    out = func(*tree_map(_unwrapped, args), **tree_map(_unwrapped, inner))
    if func is aten.copy_.default:
        return args[0]
    if not there:
        return out
    wrapped = tree_map(lambda each: _There(each) if isinstance(each, Tensor) else each, out)
    return return_and_correct_aliasing(func, args, kwargs, wrapped)


def _unwrapped(value: Any) -> Any:
    return value.held if isinstance(value, _There) else value


def _require_one_place(func: Any, args: Any, kwargs: dict[str, Any], tensors: list[Tensor]) -> None:
    if str(func) in _COPIES:
        return
    if str(func) in _INDEXED and isinstance(args[0], _There):
        tensors = [args[0], *(each for each in args[2:3] if isinstance(each, Tensor))]
    if str(func) == "aten._int_mm.default":
        _require_cublas_shapes(*args)
    for each in tensors:
        if not isinstance(each, _There) and each.ndim:
            raise RuntimeError(
                f"expected all tensors to be on the same device, but found at least two, {DEVICE} and cpu, "
                f"in {func} of {[tuple(each.shape) for each in tensors]}"
            )


def _require_cublas_shapes(a: Tensor, b: Tensor) -> None:
    """As `_int_mm_out_cuda` checks them."""
    if a.shape[0] <= 16:
        raise RuntimeError(f"self.size(0) needs to be greater than 16, but got {a.shape[0]}")
    if a.shape[1] == 0 or a.shape[1] % 8:
        raise RuntimeError(f"self.size(1) needs to be greater than 0 and a multiple of 8, but got {a.shape[1]}")
    if b.shape[1] == 0 or b.shape[1] % 8:
        raise RuntimeError(f"mat2.size(1) needs to be greater than 0 and a multiple of 8, but got {b.shape[1]}")


@contextlib.contextmanager
def second_device() -> Iterator[torch.device]:
    """While it is open, `DEVICE` can be computed on."""
    # torch.tensor(…, device=DEVICE) then copies as others do, where we see it.
    before = _only_lift_cpu_tensors()
    _set_only_lift_cpu_tensors(True)
    try:
        # That holds for this thread only: gradients are taken in it, too.
        with torch.autograd.set_multithreading_enabled(False), _Mode():
            yield DEVICE
    finally:
        _set_only_lift_cpu_tensors(before)
