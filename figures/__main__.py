"""`python -m figures list | all | NAME…  [--dataset] [--option] [--out] [--seed] [--quick]`."""

from __future__ import annotations

import difflib
import os
import sys
import warnings
from dataclasses import dataclass
from typing import Annotated

import tyro

from optimal.datasets import with_options

from .config import Config
from .gallery import FIGURES, PAGES, make, make_together, warn
from .networks import prepare

__all__ = ["FIGURES", "main"]

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
    warnings.showwarning = warn
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
            prepare(command, ("toy", "digits"), ("toy", "digits"))
            if (os.cpu_count() or 1) > 1:
                make_together(names, command)
                return 0
        for name in names:
            print(make(name, command))
    except (ValueError, OSError) as error:
        print(f"error: {with_options(error)}", file=sys.stderr)
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


if __name__ == "__main__":
    sys.exit(main())
