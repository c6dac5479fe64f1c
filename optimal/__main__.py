"""The optimum of your own data: `python -m optimal info | denoise | sample | border | where | schedule`."""

from __future__ import annotations

import dataclasses
import os
import sys
from collections.abc import Sequence
from typing import Any

# Before torch starts its threads: beside another busy process they would spin for each other.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

from .cli import as_json, commands, data_of
from .cli.commands import COMMANDS
from .cli.doing import answered
from .cli.run import run

__all__ = ["COMMANDS", "command_of", "main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code, see `optimal.cli.run`."""
    return run(lambda: _answer(list(sys.argv[1:] if arguments is None else arguments)))


def command_of(words: Sequence[str]) -> Any:
    """The command that the words of a command line ask for, as `optimal.cli.commands.command_of`."""
    return commands.command_of(words, __doc__)


def _answer(words: list[str]) -> None:
    command = command_of(words)
    data = data_of(command.data, command.option)
    label = getattr(command, "label", None)
    if label is not None:
        command = dataclasses.replace(command, label=data.class_of(label))
    found, sentences = answered(command, data)
    if command.json:
        print(as_json({"dataset": data.name, "fingerprint": data.fingerprint} | found))
    else:
        print("\n".join(sentences))


if __name__ == "__main__":
    sys.exit(main())
