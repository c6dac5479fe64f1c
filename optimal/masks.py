"""Masked arrays of NumPy are refused: PyTorch takes what lies under the mask for values."""

from __future__ import annotations

from typing import Any

import numpy as np

__all__ = ["refuse_mask"]


def refuse_mask(name: str, value: Any) -> None:
    """Raise ValueError for a masked array, whatever its mask hides.

    Args:
        name: what it is called in the message.
        value: anything.

    Example:
        >>> refuse_mask("data", np.zeros(3))
    """
    if isinstance(value, np.ma.MaskedArray):
        raise ValueError(f"{name} has a mask, which would be lost: give .filled(value), or what is not masked")
