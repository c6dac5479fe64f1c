"""Shapes checked at every call by jaxtyping's import hook (see conftest.py), where they are annotated only.

beartype checks every annotation that it sees. Ours to check are the shapes; an int for a float, or a list for an
array, is for the code itself to take or to refuse in its own words.

The hook wraps every function of a module, those inside functions anew at each call, and a wrapper binds the arguments
of each call: where hardly a function names a shape, that took half of the time of small calls. So those that name none
are left as they are; of the others the hook makes what it always does.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Sequence
from types import CodeType
from typing import Any

import jaxtyping
from beartype import beartype
from jaxtyping import AbstractArray, install_import_hook

__all__ = ["check", "install"]

_wrapped = jaxtyping.jaxtyped
_NAMING: dict[CodeType, bool] = {}
"""Whether a function names a shape, by its code: those inside functions are many objects of one code."""


def install(modules: Sequence[str]) -> None:
    """Check the shapes of all functions of `modules`, which must not have been imported yet."""
    # What the hook writes before every function is a call to this name.
    jaxtyping.jaxtyped = _where_shapes_are_named  # pyright: ignore[reportAttributeAccessIssue]
    install_import_hook(modules, f"{__name__}.{check.__name__}")


def check(function: Callable[..., Any]) -> Callable[..., Any]:
    """`function` with the shapes in its annotations enforced; as it is where it names none."""
    shapes = {name: hint for name, hint in function.__annotations__.items() if _is_shape(hint)}
    if not shapes:
        return function
    function.__annotations__ = shapes
    return beartype(function)


def _where_shapes_are_named(target: Any = None, *, typechecker: Any) -> Any:
    """`jaxtyping.jaxtyped` of a function or class; as it is where it names no shape."""
    if target is None:
        return functools.partial(_where_shapes_are_named, typechecker=typechecker)
    function = target.__init__ if inspect.isclass(target) else target
    return _wrapped(target, typechecker=typechecker) if _names_shapes(function) else target


def _names_shapes(function: Any) -> bool:
    code = getattr(function, "__code__", None)
    if code is None:
        # The __init__ of a class that has none of its own.
        return False
    if code not in _NAMING:
        hints = function.__annotations__.values()
        _NAMING[code] = any(_is_shape(_evaluated(hint, function.__globals__)) for hint in hints)
    return _NAMING[code]


def _evaluated(hint: object, names: dict[str, Any]) -> object:
    try:
        return eval(hint, names) if isinstance(hint, str) else hint
    except NameError:
        # Of a name that only type checkers import.
        return None


def _is_shape(hint: object) -> bool:
    return inspect.isclass(hint) and issubclass(hint, AbstractArray)
