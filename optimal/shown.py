"""How results of many numbers are printed: by shapes and ranges, in a line."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from torch import Tensor

__all__ = ["in_short"]

_FEW = 6
"""Numbers that are printed one by one."""


def in_short(self: Any) -> str:
    """The `__repr__` of a dataclass that holds tensors: their numbers where they are few, else shape and range.

    Example:
        >>> import torch
        >>> @dataclasses.dataclass
        ... class Found:
        ...     x: torch.Tensor
        ...     nfe: torch.Tensor
        ...     __repr__ = in_short
        >>> Found(torch.zeros(9, 1, 8, 8), torch.arange(9))
        Found(x=(9, 1, 8, 8) of float32, nfe=(9,) from 0 to 8)
    """
    fields = (field.name for field in dataclasses.fields(self) if field.repr)
    return f"{type(self).__name__}({', '.join(f'{name}={_told(getattr(self, name))}' for name in fields)})"


def _told(value: object) -> str:
    if not isinstance(value, Tensor):
        return _number(value) if isinstance(value, float) else repr(value)
    shape = tuple(value.shape)
    if value.ndim < 2 and value.numel() <= _FEW:
        return str([_number(each) for each in value.tolist()] if value.ndim else _number(value.item())).replace("'", "")
    if value.ndim == 1 and value.dtype == torch.bool:
        return f"{int(value.sum())} of {len(value)}"
    if value.ndim == 1 and not value.is_complex():
        numbers = value.double()
        known = numbers[~numbers.isnan()]
        lost = "" if len(known) == len(numbers) else f", {len(numbers) - len(known)} nan"
        if len(known):
            return f"{shape} from {_number(float(known.min()))} to {_number(float(known.max()))}{lost}"
    return f"{shape} of {str(value.dtype).removeprefix('torch.')}"


def _number(value: float) -> str:
    return f"{value:.4g}"
