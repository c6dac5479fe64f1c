"""Calls timed in turn, so that what else the machine does falls on all of them alike."""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

from tqdm import tqdm

__all__ = ["in_turn", "over", "report", "timed"]

_SHORTEST = 0.02
"""Seconds that a timing takes at least; shorter calls are repeated."""


def timed(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def in_turn(calls: dict[str, Callable[[], Any]], turns: int) -> tuple[dict[str, list[float]], dict[str, Any]]:
    """The seconds of each call in each turn, and its result."""
    results, repeats = {}, {}
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for name, call in calls.items():
        start = time.perf_counter()
        results[name] = call()
        spent = time.perf_counter() - start
        if spent > 1:
            seconds[name].append(spent)  # Long enough to be the first turn.
        repeats[name] = 1 if spent > 1 else max(1, int(_SHORTEST / timed(call)))
    for turn in range(turns):
        for name, call in calls.items():
            if len(seconds[name]) <= turn:
                spent = timed(lambda call=call, count=repeats[name]: [call() for _ in range(count)])
                seconds[name].append(spent / repeats[name])
    return seconds, results


def over(seconds: list[float], reference: list[float]) -> dict[str, float]:
    """Median and range of the ratios within a turn."""
    ratios = [a / b for a, b in zip(seconds, reference, strict=True)]
    return {"ratio": statistics.median(ratios), "low": min(ratios), "high": max(ratios)}


def report(text: str) -> None:
    """A line of the table, above the progress bar."""
    tqdm.write(text, file=sys.stdout)
    sys.stdout.flush()
