"""`python -m figures list | all | NAME…  [--dataset] [--option] [--out] [--seed] [--quick]`."""

from __future__ import annotations

import difflib
import sys
import time
import warnings
from dataclasses import dataclass
from types import ModuleType
from typing import Annotated

import tyro

from . import border, distilled, explore, fewstep, fig1, grids, prop4, samples, steps, students, trained, trajectories
from .config import Config
from .networks import prepare
from .output import save

__all__ = ["FIGURES", "main"]

FIGURES: dict[str, ModuleType] = {
    "fig1": fig1,
    "border": border,
    "trajectories": trajectories,
    "steps": steps,
    "distilled": distilled,
    "prop4": prop4,
    "grids": grids,
    "trained": trained,
    "students": students,
    "samples": samples,
    "fewstep": fewstep,
}
PAGES: dict[str, ModuleType] = {"explore": explore}
"""Pages of their own, which draw themselves."""

_PRESETS = ("trained", "students", "samples", "fewstep")
"""Figures of the networks of presets."""


@dataclass(frozen=True)
class Command(Config):
    """Draw figures into --out, each as PNG and PDF with the numbers behind it as NPZ and JSON; `explore` as HTML."""

    names: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="NAME…")] = ()
    """Figures to draw: names, or `all`; `list` shows what there is."""


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; returns the exit code: 0, or 2 with one sentence on stderr for bad input."""
    command = tyro.cli(Command, prog="python -m figures", args=arguments)
    warnings.showwarning = lambda message, *_, **__: print(f"warning: {message}", file=sys.stderr)
    try:
        if command.names == ("list",):
            for name, module in (FIGURES | PAGES).items():
                print(f"{name:10} {module.TITLE}")
            return 0
        names = _chosen(command.names)
        if len(names) > 1 and command.dataset:
            for name in [name for name in names if name in _PRESETS]:
                print(f"{name}: left out, it shows networks trained on presets, not --dataset")
            names = [name for name in names if name not in _PRESETS]
        if command.names == ("all",) and not command.dataset:
            # First, so that what is left can use all cores.
            prepare(command, ("toy", "digits"), ("toy", "digits"))
        for name in names:
            _make(name, command)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted; finished figures are complete, the others are as they were", file=sys.stderr)
        return 130
    return 0


def _chosen(names: tuple[str, ...]) -> list[str]:
    known = [*FIGURES, *PAGES]
    if not names:
        raise ValueError(f"name a figure, `all` or `list`; known are {', '.join(known)}")
    if names == ("all",):
        return known
    for name in names:
        if name not in known:
            near = difflib.get_close_matches(name, [*known, "all", "list"], n=1, cutoff=0.4)
            hint = f"did you mean {near[0]!r}? " if near else ""
            raise ValueError(f"unknown figure {name!r}; {hint}known are {', '.join(known)}")
    return list(dict.fromkeys(names))


def _make(name: str, config: Config) -> None:
    start = time.perf_counter()
    module = (FIGURES | PAGES)[name]
    arrays = module.compute(config)
    for part in ("toy_", ""):
        if f"{part}dataset" in arrays:
            data, size, event, mark = (arrays[part + key] for key in ("dataset", "size", "event", "fingerprint"))
            print(f"{data}: N = {int(size):,}, shape {event}, fingerprint {mark}")
    if name in PAGES:
        path = module.write(config, arrays)
    else:
        path = save(name, module.TITLE, config, arrays, module.draw(arrays))
    print(f"{name}: {path} ({time.perf_counter() - start:.0f} s)")


if __name__ == "__main__":
    sys.exit(main())
