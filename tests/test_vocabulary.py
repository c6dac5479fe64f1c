"""One vocabulary in three command lines: what has one name has one type, and what is shared is nowhere restated."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Iterator
from typing import Any, get_args

import figures.__main__ as figures
import neural.commands as neural
import optimal.__main__ as optimal
from optimal.cli import options
from optimal.samplers import SOLVERS

SHARED = {
    "dataset": options.Dataset,
    "option": options.DataOption,
    "data": options.Data,
    "solver_option": options.SolverOption,
    "n": options.Number,
    "label": options.Label,
    "guidance": options.Guidance,
    "interval": options.Interval,
    "orbit": options.Orbit,
    "seed": options.Seed,
    "device": options.Device,
    "batch": options.Batch,
    "quick": options.Quick,
    "dry_run": options.DryRun,
    "json": options.Json,
}
"""Names of fields, and their types."""


def commands() -> Iterator[tuple[str, type]]:
    yield from ((f"optimal {name}", kind) for name, kind in optimal.COMMANDS.items())
    yield from ((f"neural {name}", kind) for name, kind in neural.COMMANDS.items())
    yield "figures", figures.Command


def hints(kind: type) -> dict[str, Any]:
    return typing.get_type_hints(kind, include_extras=True)


def test_one_name_is_one_thing() -> None:
    met = set()
    for name, kind in commands():
        for field in dataclasses.fields(kind):
            wanted = SHARED.get(field.name)
            if wanted is options.Label and name.startswith("optimal "):
                wanted = options.Class  # of data that are loaded: also by its name
            if wanted is not None:
                assert hints(kind)[field.name] == wanted, f"{name} --{field.name}"
                met.add(field.name)
    assert met == set(SHARED)


def test_what_means_the_same_has_the_same_name() -> None:
    """A type with a name of its own is under that name everywhere."""
    for name, kind in commands():
        for field in dataclasses.fields(kind):
            for shared, wanted in SHARED.items():
                if hints(kind)[field.name] == wanted:
                    other = {"option": ("held_out_option", "sample_option")}.get(shared, ())
                    assert field.name == shared or field.name in other, f"{name} --{field.name} is --{shared}"


def test_solvers_are_listed() -> None:
    assert get_args(options.SolverName) == tuple(SOLVERS)


def test_every_command_can_be_tried_without_doing_anything() -> None:
    for name, kind in commands():
        fields = {field.name for field in dataclasses.fields(kind)}
        assert "dry_run" in fields, name
