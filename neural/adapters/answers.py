"""What a network answers with: a tensor, or something that holds one, of the shape of x or of twice its channels."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

__all__ = ["value_of"]

_NAMES = ("sample", "mean", "denoised", "prediction", "pred", "output", "x0", "out")
"""Of the tensor in an output: diffusers', azula's, and what else is in use."""


def value_of(answer: Any, x: Tensor) -> Tensor:
    """The tensor in an answer: itself, the first of a tuple, of a mapping or an output the one named sample, mean, … .

    Networks that learn their variance answer with 2C channels (Nichol, Dhariwal 2021): the first half is the mean.

    Raises:
        ValueError: none of the shape of x, or a complex one.
    """
    value = _tensor(answer)
    if value is None:
        raise ValueError(f"the network must return the shape of x, {tuple(x.shape)}, got {type(answer).__name__}")
    if value.is_complex():
        raise ValueError(f"the network must return real numbers, got {str(value.dtype).removeprefix('torch.')}")
    if x.ndim > 2 and value.shape == (len(x), 2 * x.shape[1], *x.shape[2:]):
        value = value[:, : x.shape[1]]
    if value.shape != x.shape:
        raise ValueError(f"the network must return the shape of x, {tuple(x.shape)}, got {tuple(value.shape)}")
    return value if value.dtype.is_floating_point else value.to(torch.promote_types(x.dtype, torch.float32))


def _tensor(answer: Any) -> Tensor | None:
    if isinstance(answer, Tensor):
        return answer
    if isinstance(answer, Mapping):
        named = [answer[name] for name in _NAMES if isinstance(answer.get(name), Tensor)]
        return (named or [each for each in answer.values() if isinstance(each, Tensor)] or [None])[0]
    if isinstance(answer, tuple | list):
        return _tensor(answer[0]) if answer else None
    return next((part for name in _NAMES if isinstance(part := getattr(answer, name, None), Tensor)), None)
