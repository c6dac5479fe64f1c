"""How numbers of figures become words: values with their intervals, shares, levels, tables."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Mapping, Sequence

import numpy as np

Arrays = Mapping[str, np.ndarray]
NAMES = ("five points", "digits", "faces", "emoji")


def interval(values: np.ndarray, form: Callable[[float], str]) -> str:
    value, low, high = (form(float(part)) for part in values)
    return f"{value} [{low}, {high}]"


def sigma_words(value: float) -> str:
    """Three digits: 0.500, 12.6, 80.0."""
    return f"{value:#.3g}".rstrip(".")


def percent(value: float) -> str:
    """Two digits, and more near 100: 0.063%, 3.8%, 91%, 99.4%."""
    share = 100 * value
    if 99 < share < 100:
        return f"{share:.1f}%"
    return f"{share:.0f}%" if share >= 9.95 or share == 0 else f"{share:.2g}%"


def pct(values: np.ndarray) -> str:
    """In percent, to a tenth of the interval's width: 34% [30, 38], 99.4% [99.1, 99.6]."""
    width = 100 * float(values[2] - values[1])
    digits = int(np.clip(1 - np.floor(np.log10(width)), 0, 4)) if width > 0 else 0
    value, low, high = (f"{100 * float(part):z.{digits}f}" for part in values)
    return f"{value}% [{low}, {high}]"


def spaced(values: Sequence[str]) -> str:
    return " and ".join([", ".join(values[:-1]), values[-1]] if len(values) > 1 else values)


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def list_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """The same in reStructuredText."""
    lines = [f"   {'  -' if k else '* -'} {cell}".rstrip() for row in (head, *rows) for k, cell in enumerate(row)]
    return "\n".join([".. list-table::", "   :header-rows: 1", "", *lines])


def at_level(sigmas: np.ndarray, values: np.ndarray, level: float) -> np.ndarray:
    """Values (S, …) at a level between the levels (S,), even in ln σ."""
    order = np.argsort(sigmas)
    columns = values.reshape(len(sigmas), -1)[order].T
    return np.array([np.interp(np.log(level), np.log(sigmas[order]), column) for column in columns])


def border_interval(a: Arrays, i: int) -> np.ndarray:
    return np.array([a[f"border/{i}_border{end}"] for end in ("", "_low", "_high")])


def marks_of(a: Arrays, i: int) -> list[float]:
    """Border, collapse, median capture."""
    captured = np.nan_to_num(a[f"border/{i}_captured"], nan=0.0)
    return [float(a[f"border/{i}_border"]), float(a[f"border/{i}_collapse"]), float(np.median(captured))]


def gap_pct(a: Arrays, i: int, place: str, level: float) -> str:
    at = int(np.abs(np.log(a[f"trained/{i}_sigmas"] / level)).argmin())
    return pct(a[f"trained/{i}_gap_share_{place}"][at])


def by_name(values: Sequence[str]) -> str:
    return spaced([f"{value} ({name})" for value, name in zip(values, NAMES, strict=True)])


def bullet(text: str) -> str:
    return textwrap.fill(text, 120, subsequent_indent="  ", break_on_hyphens=False)


def held(holds: bool, claim: str) -> None:
    """Stop where the numbers no longer bear the sentence that is written around them.

    Raises:
        ValueError: they do not.
    """
    if not holds:
        raise ValueError(f"the figures no longer say that {claim}: write another sentence")
