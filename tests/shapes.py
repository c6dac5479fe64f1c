"""The type checker behind jaxtyping's import hook (see conftest.py): shape annotations only.

beartype checks every annotation that it sees. Ours to check are the shapes; an int for a float, or a list for an
array, is for the code itself to take or to refuse in its own words.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from beartype import beartype
from jaxtyping import AbstractArray

__all__ = ["check"]


def check(function: Callable[..., Any]) -> Callable[..., Any]:
    """`function` with the shapes in its annotations enforced; as it is where it names none."""
    shapes = {name: hint for name, hint in function.__annotations__.items() if _is_shape(hint)}
    if not shapes:
        return function
    function.__annotations__ = shapes
    return beartype(function)


def _is_shape(hint: object) -> bool:
    return inspect.isclass(hint) and issubclass(hint, AbstractArray)
