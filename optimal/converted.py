"""Words and values for parameters, by the annotation that these have: of a reader of data, or of a solver.

A command line and a configuration give words: `n=1000`, `xflip=no`, `value_range=0,1`. What a parameter is annotated as
says what a word means, and what else it cannot be; that is decided here, once, for all of them.
"""

from __future__ import annotations

import re
import types
import typing
from collections.abc import Sequence
from numbers import Integral, Real
from typing import Any, Literal, get_args, get_origin

import numpy as np

__all__ = ["converted", "shown"]

_WORDS = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
_WHOLE = re.compile(r"\s*[+-]?\d{1,4000}\s*")
_LONGEST = 60
_NOT = object()
"""What stands for a value that cannot be converted."""


def converted(name: str, value: Any, kind: Any) -> Any:
    """`value` as a parameter of this annotation takes it: a word is read; anything else is checked, and left as it is.

    Args:
        name: of the parameter, for the sentence.
        value: a word (bool: true, false, yes, no, 1, 0; pairs and sequences: 0,1), or a value.
        kind: bool, int, float, str, None, a `Literal`, a tuple or `Sequence` of them, or a union; others take anything.

    Raises:
        ValueError: it cannot be that. No other error leaves here.

    Example:
        >>> [converted("xflip", word, bool) for word in ("no", "True", 1)]
        [False, True, True]
        >>> converted("value_range", "0,1", tuple[float, float] | str | None), converted("key", "1", str | None)
        ((0, 1), '1')
    """
    parts = _parts(kind)
    # A word is the last thing that a word may be.
    for part in sorted(parts, key=lambda part: part is str):
        if str in parts and isinstance(value, str) and (part is types.NoneType or (part is bool and _is_name(value))):
            # An array, a column and a split may be called None, 1 or yes.
            continue
        found = _as(value, part)
        if found is not _NOT:
            return found
    known = dict.fromkeys(_in_words(part) for part in parts if part is not types.NoneType)
    raise ValueError(f"{name} must be {' or '.join(known)}, got {shown(value)}")


def shown(value: object) -> str:
    """A value for a sentence, cut where it is long."""
    text = repr(value)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"


def _parts(kind: Any) -> list[Any]:
    if get_origin(kind) in (typing.Union, types.UnionType):
        return [part for one in get_args(kind) for part in _parts(one)]
    return [types.NoneType if kind is None else kind]


def _as(value: Any, kind: Any) -> Any:
    """The value as this kind takes it; `_NOT` where it cannot."""
    origin = get_origin(kind)
    if kind is types.NoneType:
        return None if value is None or (isinstance(value, str) and value.strip().lower() == "none") else _NOT
    if kind is bool:
        return _as_bool(value)
    if kind in (int, float):
        return _as_number(value, kind)
    if kind is str:
        return _unquoted(value) if isinstance(value, str) else _NOT
    if origin is Literal:
        known = get_args(kind)
        return next((one for one in known if type(one) is type(value) and one == value), _NOT)
    if isinstance(origin, type) and issubclass(origin, Sequence):
        return _as_sequence(value, get_args(kind))
    return value


def _is_name(word: str) -> bool:
    return word.strip().lower() not in ("true", "false")


def _as_bool(value: Any) -> Any:
    if isinstance(value, str):
        return _WORDS.get(value.strip().lower(), _NOT)
    known = isinstance(value, bool | np.bool_) or (isinstance(value, Integral) and value in (0, 1))
    return bool(value) if known else _NOT


def _as_number(value: Any, kind: type) -> Any:
    if isinstance(value, str):
        if _WHOLE.fullmatch(value):
            return int(value)
        try:
            return float(value) if kind is float else _NOT
        except ValueError:
            return _NOT
    # True is no number of anything.
    if isinstance(value, bool | np.bool_) or not isinstance(value, Integral if kind is int else Real):
        return _NOT
    try:
        float(value)
    except OverflowError:
        return _NOT if kind is float else value
    return value


def _as_sequence(value: Any, kinds: tuple[Any, ...]) -> Any:
    if isinstance(value, str):
        text = value.strip()
        if text[:1] + text[-1:] in ("()", "[]"):
            text = text[1:-1]
        parts: list[Any] = text.split(",") if text.strip() else []
        parts = parts[:-1] if parts and not parts[-1].strip() else parts
    elif isinstance(value, list | tuple) or (isinstance(value, np.ndarray) and value.ndim == 1):
        parts = list(value)
    else:
        return _NOT
    endless = len(kinds) == 1 or kinds[1:] == (Ellipsis,)
    if not endless and len(parts) != len(kinds):
        return _NOT
    found = [_as(part, kinds[0] if endless else kinds[i]) for i, part in enumerate(parts)]
    if _NOT in found:
        return _NOT
    return tuple(found) if isinstance(value, str) else value


def _unquoted(word: str) -> str:
    return word[1:-1] if len(word) > 1 and word[0] == word[-1] and word[0] in "'\"" else word


def _in_words(kind: Any) -> str:
    known = {bool: "true or false", int: "a whole number", float: "a number", str: "a word"}
    if kind in known:
        return known[kind]
    if get_origin(kind) is Literal:
        return f"one of {', '.join(map(str, get_args(kind)))}"
    kinds = get_args(kind)
    what = "whole numbers" if kinds[0] is int else "numbers" if kinds[0] is float else "words"
    return f"two {what} as 0,1" if len(kinds) == 2 and kinds[1] is not Ellipsis else f"{what} as 1,2,3"
