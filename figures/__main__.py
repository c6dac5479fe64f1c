"""`python -m figures list | all | NAME…  [--dataset] [--option] [--out] [--seed] [--quick]`."""

from __future__ import annotations

import dataclasses
import difflib
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from optimal.cli import as_json, options, parsed, writable
from optimal.cli.run import run, say
from optimal.packages import door

door("a figure", "matplotlib")

from .config import Config  # noqa: E402
from .explore.page import page_of  # noqa: E402
from .gallery import FIGURES, PAGES, foretell, make, make_together  # noqa: E402
from .networks import prepare  # noqa: E402
from .output import stem  # noqa: E402

__all__ = ["FIGURES", "Command", "command_of", "main"]

_PRESETS = tuple(name for name, module in FIGURES.items() if hasattr(module, "OWN"))
"""Figures of data of their own, most of them with networks of presets."""


@dataclass(frozen=True)
class Command(Config):
    """Draw figures into --out, each as PNG and PDF with the numbers behind it as NPZ and JSON; `explore` as HTML."""

    names: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="NAME…")] = ()
    """Figures to draw: names, or `all`; `list` shows what there is."""
    json: options.Json = False
    dry_run: options.DryRun = False


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code, see `optimal.cli.run`."""
    told = "interrupted; finished figures are complete, the others are as they were"
    return run(lambda: _draw(list(sys.argv[1:] if arguments is None else arguments)), interrupted=told)


def command_of(words: Sequence[str]) -> Command:
    """What the words of a command line ask for; as `optimal.__main__.command_of`."""
    return parsed(Command, prog="figures", description=Command.__doc__, args=words)


def _draw(words: list[str]) -> None:
    command = command_of(words)
    if command.names == ("list",):
        titles = {name: module.TITLE for name, module in (FIGURES | PAGES).items()}
        lines = [f"{name:12} {title}" for name, title in titles.items()]
        print(as_json({"figures": titles}) if command.json else "\n".join(lines))
        return
    tell = say if command.json else print
    names = _chosen(command.names)
    if command.network is not None and names != ["explore"]:
        raise ValueError("--network is for `explore` alone: `python -m neural report` holds a network to the optimum")
    if len(names) > 1 and command.dataset is not None:
        for name in [name for name in names if name in _PRESETS]:
            tell(f"{name}: left out, it shows data of its own, not --dataset")
        names = [name for name in names if name not in _PRESETS]
    elif names[0] in _PRESETS:
        command.refuse_dataset(names[0], FIGURES[names[0]].OWN)
    if command.dry_run:
        if command.dataset is not None:
            tell(command.load(command.dataset).describe())
        text = f"{', '.join(names)} into {command.out}; nothing was drawn"
        print(as_json({"figures": names, "out": str(command.out)}) if command.json else text)
        return
    page = command.out.suffix == ".html"
    home = writable(command.out.parent if page else command.out, "", folder=True)
    command = dataclasses.replace(command, out=home / command.out.name if page else home)
    _make(names, command, tell)
    if command.json:
        print(as_json({"figures": {name: list(map(str, _files(name, command))) for name in names}}))


def _make(names: list[str], command: Command, tell: Callable[[str], object]) -> None:
    if command.names == ("all",) and (os.cpu_count() or 1) > 1:
        # Those that wait for no network first, in the order of the gallery.
        make_together([name for name in names if name not in _PRESETS], command, tell)
        names = [name for name in names if name in _PRESETS]
        if names:
            prepare(command, ("toy", "digits"), ("toy", "digits"))
            make_together(names, command, tell)
        return
    for name in names:
        foretell([name], command)
        tell(make(name, command))


def _files(name: str, command: Command) -> list[Path]:
    """What a figure has written."""
    if name in PAGES:
        return [page_of(command)]
    return [command.out / f"{stem(name, command)}.{kind}" for kind in ("png", "pdf", "npz", "json")]


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
