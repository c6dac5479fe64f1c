"""What docs/findings.rst and docs/gallery.md say of calls that are needed, of bench/results/schedules.json."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from wording import Arrays, bullet, held, spaced, table

__all__ = ["fewer", "needed", "reached", "reached_by"]

FILE = Path(__file__).parents[1] / "bench" / "results" / "schedules.json"
_ALLOWED = 0.05
_OF = {"digits": "digits", "faces": "faces", "emoji:16": "emoji at 16×16", "emoji": "emoji at 64×64"}
_PARTS = {"whole": "the whole range", "above": "above the border only"}


def needed(a: Arrays) -> str:
    """Of each data set and part a table: solvers, and the calls that each needs on each grid."""
    rows = _rows()
    blocks = []
    for data, name in _OF.items():
        for part, where in _PARTS.items():
            own = [row for row in rows if (row["data"], row["part"]) == (data, part)]
            if own:
                starts = spaced(sorted({f"{row['of']:,}" for row in own}, key=lambda text: int(text.replace(",", ""))))
                blocks += [bullet(f"**{name}**, {where}, {starts} starts:"), _table(own)]
    return "\n\n".join(blocks)


def fewer(a: Arrays) -> str:
    """A table of solvers and data: calls on EDM's grid, on landings, and how many times fewer."""
    rows = [row for row in _rows() if row["part"] == "whole"]
    known = [data for data in _OF if any((row["data"], row["grid"]) == (data, "landings") for row in rows)]
    lines, times = [], []
    for solver in _names(rows, "solver"):
        cells = []
        for data in known:
            edm, own = (_of(rows, data, "whole", solver, grid) for grid in ("EDM", "landings"))
            before, after = reached(edm)[0], reached(own)[0]
            if before is not None and after is not None:
                times.append(before / after)
            shown = [_short(calls, found) for calls, found in ((before, edm), (after, own))]
            ratio = f" ({times[-1]:.1f})" if before is not None and after is not None else ""
            cells.append(f"{shown[0]} → {shown[1]}{ratio}" if own else "")
        lines.append([solver, *cells])
    held(bool(times) and min(times) > 1, "the landings grid takes fewer calls than EDM's")
    return (
        "Calls, of those tried, for at most 5% wrong landings over the whole range, on EDM's grid → on levels made for "
        f"the data and the solver; where both were reached {min(times):.1f} to {max(times):.1f} times fewer. "
        "(Of 512 starts; the figure's are 2,048: near 5% some calls more or less are chance.)\n\n"
        + table(["calls", *(_OF[data] for data in known)], lines)
        + '\n\nEvery grid, with intervals: "Calls that solvers need" in [the findings](findings.rst).'
    )


def _short(calls: int | None, rows: list[dict[str, Any]]) -> str:
    return f"> {max((row['calls'] for row in rows), default=0)}" if calls is None else str(calls)


def reached(rows: Sequence[dict[str, Any]]) -> tuple[int | None, int | None, int | None]:
    """The fewest calls from which on, of those tried, at most 5% are wrong; by the interval's low end and by its high.

    None: not with any number that was tried.
    """
    return reached_by(rows, "share"), reached_by(rows, "low"), reached_by(rows, "high")


def reached_by(rows: Sequence[dict[str, Any]], column: str) -> int | None:
    found = None
    for row in sorted(rows, key=lambda row: -row["calls"]):
        value = row["wrong"] / row["of"] if column == "share" else row[column]
        if value > _ALLOWED:
            break
        found = row["calls"]
    return found


def _table(rows: list[dict[str, Any]]) -> str:
    grids = sorted(_names(rows, "grid"), key=lambda name: name == "landings")
    lines = [".. list-table::", "   :header-rows: 1", "", *_line(["calls for 5%", *grids])]
    for solver in _names(rows, "solver"):
        cells = []
        for grid in grids:
            own = [row for row in rows if (row["solver"], row["grid"]) == (solver, grid)]
            cells.append(_cell(own) if own else "–")
        lines += _line([solver, *cells])
    return "\n".join(lines)


def _line(cells: Sequence[str]) -> list[str]:
    return [f"   {'* -' if i == 0 else '  -'} {cell}" for i, cell in enumerate(cells)]


def _cell(rows: list[dict[str, Any]]) -> str:
    calls, low, high = reached(rows)
    if calls is None:
        last = max(rows, key=lambda row: row["calls"])
        return f"more than {last['calls']} ({100 * last['wrong'] / last['of']:.0f}%)"
    most = max(row["calls"] for row in rows)
    return f"{calls} [{low}, {high or f'more than {most}'}]"


def _of(rows: list[dict[str, Any]], *what: str) -> list[dict[str, Any]]:
    return [row for row in rows if tuple(row[name] for name in ("data", "part", "solver", "grid")) == what]


def _names(rows: list[dict[str, Any]], column: str) -> list[str]:
    """In the order in which they were first met."""
    return list(dict.fromkeys(row[column] for row in rows))


def _rows() -> list[dict[str, Any]]:
    return json.loads(FILE.read_text())["rows"]
