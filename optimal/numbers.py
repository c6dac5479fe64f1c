"""What is a number, of what is asked for: bools, texts, lists and tensors of several numbers are none."""

from __future__ import annotations

import math

import numpy as np
from torch import Tensor

__all__ = ["is_number", "is_whole", "require_whole"]


def is_number(value: object) -> bool:
    """Whether it is one real number; a tensor or array of one counts, nan and infinity do."""
    return _is_one(value) and hasattr(value, "__float__")


def require_whole(name: str, value: object, least: int = 1) -> int:
    """A whole number of at least `least`, as an int.

    Raises:
        ValueError: anything else, True and 2.0 too.
    """
    if not is_whole(value):
        raise ValueError(f"{name} must be a whole number, got {value!r}")
    found = int(value)  # pyright: ignore[reportArgumentType]
    if found < least:
        raise ValueError(f"{name} must be at least {least}, got {found}")
    return found


def is_whole(value: object) -> bool:
    """Whether it is one whole number by its type; 2.0 is none."""
    if not _is_one(value):
        return False
    if isinstance(value, Tensor):
        return not value.is_floating_point() and not value.is_complex()
    return hasattr(value, "__index__")


def _is_one(value: object) -> bool:
    if isinstance(value, Tensor | np.ndarray):
        return math.prod(value.shape) == 1
    return not isinstance(value, bool | str | np.bool_)
