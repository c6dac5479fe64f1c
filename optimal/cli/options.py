"""The options that the command lines share: one name, one type and one help text for one thing.

`python -m optimal`, `neural` and `figures` are built of dataclasses whose fields have these types. What is asked of a
data set comes first, DATA, where the data are the subject; elsewhere it is --dataset.
"""

from __future__ import annotations

import contextlib
import io
import re
from collections.abc import Sequence
from typing import Annotated, Any, Literal

import tyro

from ..datasets import parse_options

__all__ = [
    "Batch",
    "Data",
    "DataOption",
    "Dataset",
    "Device",
    "DryRun",
    "Json",
    "Number",
    "Quick",
    "Seed",
    "SolverName",
    "SolverOption",
    "parse_options",
    "parsed",
]

_NAMES = "an embedded name (emoji, digits, faces, patches, five-deltas, ring …) or a path: zip, folder of images, npy, "
Data = Annotated[
    str,
    tyro.conf.Positional,
    tyro.conf.arg(metavar="DATA", help=f"Data: {_NAMES}npz, parquet, idx. --dataset DATA too."),
]
Dataset = Annotated[str | None, tyro.conf.arg(metavar="DATA", help=f"Data: {_NAMES}npz, parquet, idx.")]
DataOption = Annotated[
    tuple[str, ...],
    tyro.conf.UseAppendAction,
    tyro.conf.arg(
        metavar="NAME=VALUE", help="Option of the data; may be repeated: --option n=1000 --option resolution=64."
    ),
]
SolverName = Literal["euler", "heun", "edm_stochastic", "dpm_solver", "dpm_solver_pp", "reverse_sde", "consistency"]
SolverOption = Annotated[
    tuple[str, ...],
    tyro.conf.UseAppendAction,
    tyro.conf.arg(metavar="NAME=VALUE", help="Option of the solver; may be repeated: --solver-option order=3."),
]
Number = Annotated[int, tyro.conf.arg(aliases=["-n"], help="Number of samples.")]
Seed = Annotated[int, tyro.conf.arg(help="Of all draws.")]
Device = Annotated[str, tyro.conf.arg(help="cpu, cuda, cuda:1, mps …; auto is a GPU where there is one.")]
Batch = Annotated[
    int | None, tyro.conf.arg(help="Most points that the network is asked at once; by its size unless given.")
]
Quick = Annotated[bool, tyro.conf.arg(help="Fewer draws and coarser grids, to have a look.")]
DryRun = Annotated[bool, tyro.conf.arg(help="Say what would be done, and stop.")]
Json = Annotated[
    bool,
    tyro.conf.arg(help="Print one JSON object instead of sentences; null stands for what is infinite or undefined."),
]


def parsed(kinds: Any, *, prog: str, description: str | None, args: Sequence[str]) -> Any:
    """The command that the words of a command line ask for.

    Args:
        kinds: a dataclass, or a union of subcommands, as tyro takes them.
        prog, description: for --help.
        args: the words.

    Raises:
        ValueError: words that no command has; one sentence.
        SystemExit: of code 0, after --help.
    """
    told = io.StringIO()
    try:
        with contextlib.redirect_stderr(told):
            return tyro.cli(kinds, prog=prog, description=description, args=args)
    except SystemExit as end:
        if end.code in (0, None):
            raise
        raise ValueError(_sentence(told.getvalue())) from None


def _sentence(box: str) -> str:
    """What tyro says in a box, as one sentence.

    It has parts, with lines between them: what is wrong, perhaps what is known or similar, and where help is.
    """
    lines = re.sub(r"\x1b\[[0-9;]*m", "", box).splitlines()
    if any(line.startswith("╭") for line in lines):
        rows = [line[2:-1].rstrip() for line in lines if line.startswith("│")]
    else:
        # Without Unicode: a title, a rule, rows that are set in by two.
        rows = [line[2:].rstrip() for line in lines[2:]]
    parts: list[list[str]] = [[]]
    for row in rows:
        if row.strip("─- "):
            parts[-1].append(row)
        elif parts[-1]:
            parts.append([])
    message = " ".join(row.strip() for row in parts[0] if not row.startswith(" " * 8))
    for part in parts[1:]:
        first = part[0] if part else ""
        if first.startswith("Available"):
            message += f"; {' '.join(row.strip() for row in part).lower()}"
        elif first.startswith(("Perhaps", "Arguments similar")):
            near = dict.fromkeys(row.split()[0].rstrip(",") for row in part if row.startswith("    --"))
            message += f"; did you mean {' or '.join(near)}?" if near else ""
    message = re.sub("^Unrecognized (or misplaced )?options:", "unknown words or options:", message)
    return message.removesuffix(".")
