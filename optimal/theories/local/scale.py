"""The scale of a local theory at every noise level: a number, or a function of σ."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from torch import Tensor

from ...numbers import is_number

__all__ = ["Rule", "Scale", "asked_of", "between", "odd", "scales", "word"]

Scale = float | Callable[[float], float]
"""A number, or a function of σ in units of the data."""

Rule = Callable[[str, float], float]
"""Takes a name and a value, and gives the value or raises ValueError."""


def odd(most: float = math.inf) -> Rule:
    """Odd whole numbers from 1 to `most`: sides of windows that have a middle."""

    def rule(name: str, value: float) -> float:
        if not _whole(value) or int(value) % 2 == 0 or not 1 <= value <= most:
            end = "" if most == math.inf else f" to {most:g}"
            raise ValueError(f"{name} must be an odd whole number from 1{end or ' on'}, got {value!r}")
        return int(value)

    return rule


def between(low: float, high: float, *, whole: bool = False, open_below: bool = False) -> Rule:
    """Numbers from `low` to `high`, or from above `low`; whole ones only where asked."""

    def rule(name: str, value: float) -> float:
        if not (low < value if open_below else low <= value) or not value <= high or (whole and not _whole(value)):
            kind = "a whole number" if whole else "a number"
            raise ValueError(
                f"{name} must be {kind} {'above' if open_below else 'from'} {low:g} to {high:g}, got {value!r}"
            )
        return int(value) if whole else float(value)

    return rule


def asked_of(name: str, scale: Scale, rule: Rule) -> Callable[[Tensor], list[float]]:
    """What gives the scale of every row from the levels, (B,). A number is held against its rule at once."""
    if not callable(scale):
        rule(name, _number(name, scale))
    return lambda sigma: scales(name, scale, rule, sigma)


def word(scale: Scale) -> str:
    """The scale in a name."""
    return "σ ↦ …" if callable(scale) else f"{float(scale):g}"


def scales(name: str, scale: Scale, rule: Rule, sigma: Tensor) -> list[float]:
    """The scale of every row at its level, sigma (B,) in units of the data; a function is asked once a level.

    Raises:
        ValueError: a scale that breaks its rule.
    """
    levels = sigma.tolist()
    if not callable(scale):
        return [rule(name, _number(name, scale))] * len(levels)
    known = {level: rule(name, _number(name, scale(level))) for level in dict.fromkeys(levels)}
    return [known[level] for level in levels]


def _number(name: str, value: object) -> float:
    if not is_number(value):
        raise ValueError(f"{name} must be a number, or a function of sigma that gives one, got {value!r}")
    return value.item() if isinstance(value, Tensor | np.ndarray) else value  # pyright: ignore[reportReturnType]


def _whole(value: float) -> bool:
    return math.isfinite(value) and float(value) == int(value)
