"""`python -m neural study`: the tables of studies, made again."""

from __future__ import annotations

import sys

import torch

from optimal.cli import as_json, in_words, writable
from optimal.cli.run import say

from ..commands import Study
from ..studies import STUDIES, Cell, Done, shelf
from ..studies import Study as Grid
from ..studies import study as study_of
from ..studies.again import chosen, done, finished, is_current, ship, verdict

__all__ = ["study"]


def study(command: Study) -> None:
    """Cells done one after the other, each beside what is shipped of it."""
    if command.threads is not None and command.threads < 1:
        raise ValueError(f"threads must be at least 1, got {command.threads}")
    wanted = [study_of(name) for name in command.names or STUDIES]
    cells = {grid.name: chosen(grid, command.cells) for grid in wanted}
    known = {grid.name: _known(grid) for grid in wanted}
    out = writable(command.out, "", folder=True)
    for grid in wanted:
        left = [cell for cell in cells[grid.name] if finished(grid, cell, out) is None]
        took = sum(_seconds(cell, known[grid.name]) for cell in left)
        there = len(cells[grid.name]) - len(left)
        say(f"{grid.name}: {len(left)} cells to do, about {in_words(took)}; {there} are done. {grid.about}")
    if command.dry_run:
        names = [grid.name for grid in wanted]
        plan = {"studies": {name: [cell.name for cell in cells[name]] for name in names}, "out": str(out)}
        print(as_json(plan) if command.json else f"{', '.join(names)} into {out}; nothing was trained")
        return
    if command.threads is not None:
        torch.set_num_threads(command.threads)
    tell = say if command.json else print
    made: dict[str, dict[str, float]] = {}
    for grid in wanted:
        found = []
        for cell in cells[grid.name]:
            now = done(grid, cell, out, progress=True)
            then = known[grid.name].get(cell.name)
            if then is not None and is_current(cell, then):
                verdict(grid, then, now, tell)
            tell(f"{grid.name}, {cell.name}: {in_words(now.seconds + now.measuring)}")
            sys.stdout.flush()
            made.setdefault(grid.name, {})[cell.name] = now.seconds + now.measuring
            found.append(now)
        if command.ship:
            tell(f"{grid.name}: {ship(grid, found)}")
    if command.json:
        print(as_json({"studies": made, "out": str(out), "shipped": command.ship}))


def _known(grid: Grid) -> dict[str, Done]:
    """What is shipped of a study; nothing where there is no table, or a damaged one."""
    if grid.name not in shelf.names():
        return {}
    try:
        return shelf.table(grid.name)
    except ValueError as error:
        say(f"warning: {error}")
        return {}


def _seconds(cell: Cell, known: dict[str, Done]) -> float:
    then = known.get(cell.name)
    return cell.seconds if then is None or not is_current(cell, then) else then.seconds + then.measuring
