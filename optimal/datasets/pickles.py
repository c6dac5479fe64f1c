"""Plain values out of a pickle: numbers, text, bytes, lists, dictionaries and NumPy arrays of bytes, nothing else.

A pickle is a program that may call anything. Here it can call two stand-ins, which only keep what they are given, and
the array is made from that when the program has ended; any other name ends it.
"""

from __future__ import annotations

import io
import math
import pickle
import pickletools
from typing import Any

import numpy as np

from .notes import reason

__all__ = ["plain_values"]

_ARRAYS = ("numpy.core.multiarray", "numpy._core.multiarray")
_BYTES = ("u1", b"u1")
_STEPS = 1 << 22
"""The most that a program may have: a label and a name of 60,000 pictures are some 300,000."""


def plain_values(data: bytes) -> dict[str, Any]:
    """The dictionary that a pickle holds, its keys as text.

    Args:
        data: the pickle; text of Python 2 becomes bytes.

    Returns:
        Its values; arrays are uint8.

    Raises:
        ValueError: it holds something else, or is broken.
    """
    try:
        _check(data)
        found = _Plain(io.BytesIO(data), encoding="bytes").load()
        if not isinstance(found, dict):
            raise ValueError(f"it holds {type(found).__name__}, not a dictionary")
        plain = {key.decode("latin1") if isinstance(key, bytes) else str(key): found[key] for key in found}
        return {key: value.array() if type(value) is _Array else value for key, value in plain.items()}
    except Exception as error:  # whatever a broken program does to the machine that runs it
        raise ValueError(reason(error)) from error


def _check(data: bytes) -> None:
    """That no step asks for memory that the program does not fill: the number of a memo is believed otherwise."""
    for step, (code, argument, _) in enumerate(pickletools.genops(data)):
        memo = argument if code.name in ("PUT", "BINPUT", "LONG_BINPUT") else 0
        if step > _STEPS or int(memo or 0) > step:
            raise ValueError("it claims more values than it holds")


class _Array:
    """What becomes an array, (version, shape, dtype, Fortran order, bytes)."""

    def __init__(self, *_: Any):
        self._state: Any = None

    def __setstate__(self, state: Any) -> None:
        self._state = state

    def array(self) -> np.ndarray:
        match self._state:
            case (_, tuple() as shape, _Dtype(), False, bytes() as levels) if all(
                type(length) is int and length >= 0 for length in shape
            ) and math.prod(shape) == len(levels):
                return np.frombuffer(levels, np.uint8).reshape(shape)
        raise ValueError("its array is not as many bytes as its shape says")


class _Dtype:
    def __init__(self, name: Any, *_: Any):
        if name not in _BYTES:
            raise ValueError(f"it holds an array of {str(name)[:20]}, where bytes are read")

    def __setstate__(self, state: Any) -> None:
        """Of bytes it says nothing."""


class _Plain(pickle.Unpickler):
    def find_class(self, module_name: str, global_name: str, /) -> Any:
        if (module_name, global_name) == ("numpy", "ndarray"):
            return None  # handed to the stand-in, which needs no kind
        if (module_name, global_name) == ("numpy", "dtype"):
            return _Dtype
        if module_name in _ARRAYS and global_name == "_reconstruct":
            return _Array
        raise ValueError(f"it asks for {module_name}.{global_name}, and nothing that a file names is called")
