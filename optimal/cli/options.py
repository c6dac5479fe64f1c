"""The options that the command lines share: one name, one type and one help text for one thing.

`python -m optimal`, `neural` and `figures` are built of dataclasses whose fields have these types. What is asked of a
data set comes first, DATA, where the data are the subject; elsewhere it is --dataset.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, Literal

import tyro

from ..datasets import Dataset as Points
from ..datasets import load, options_of, parse_options
from .sentences import sentence

__all__ = [
    "Batch",
    "Class",
    "Count",
    "Data",
    "DataOption",
    "Dataset",
    "Device",
    "DryRun",
    "Guidance",
    "Interval",
    "Json",
    "Label",
    "Number",
    "Orbit",
    "Out",
    "Quick",
    "Real",
    "Reals",
    "Seed",
    "SolverName",
    "SolverOption",
    "ValueRange",
    "Whole",
    "data_of",
    "parse_options",
    "parsed",
]

Whole = Annotated[int | None, tyro.conf.arg(metavar="INT", help_behavior_hint="")]
"""A whole number that need not be given; so are the next. What stands for it is said in the help text."""
Real = Annotated[float | None, tyro.conf.arg(metavar="FLOAT", help_behavior_hint="")]
Count = Annotated[int | None, tyro.conf.arg(metavar="INT", help_behavior_hint="")]
Reals = Annotated[tuple[float, ...] | None, tyro.conf.arg(metavar="FLOAT [FLOAT ...]", help_behavior_hint="")]

_MOST = 2**40
_NAMES = "an embedded name (emoji, digits, faces, patches, five-deltas, ring …) or a path: zip, folder of images, npy, "
Data = Annotated[
    str,
    tyro.conf.Positional,
    tyro.conf.arg(metavar="DATA", help=f"Data: {_NAMES}npz, parquet, idx. --dataset DATA too."),
]
Dataset = Annotated[
    str | None,
    tyro.conf.arg(
        metavar="DATA", help=f"Data: {_NAMES}npz, parquet, idx; their own unless given.", help_behavior_hint=""
    ),
]
DataOption = Annotated[
    tuple[str, ...],
    tyro.conf.UseAppendAction,
    tyro.conf.arg(
        metavar="NAME=VALUE", help="Option of the data; may be repeated: --option n=1000 --option resolution=64."
    ),
]
SolverName = Literal[
    "euler",
    "heun",
    "edm_stochastic",
    "dpm_solver",
    "dpm_solver_pp",
    "unipc",
    "sde_dpm_solver_pp",
    "reverse_sde",
    "consistency",
]
SolverOption = Annotated[
    tuple[str, ...],
    tyro.conf.UseAppendAction,
    tyro.conf.arg(metavar="NAME=VALUE", help="Option of the solver; may be repeated: --solver-option order=3."),
]
Orbit = Annotated[
    Literal["flip", "quarter-turns"] | None,
    tyro.conf.arg(
        metavar="{flip,quarter-turns}",
        help="Images of the data are taken with their mirror images (flip), or with all that turning adds "
        "(quarter-turns, square); as they are unless given.",
        help_behavior_hint="",
    ),
]
Number = Annotated[int, tyro.conf.arg(aliases=["-n"])]
"""A number; of what is said in the help text."""
Label = Annotated[
    int | None,
    tyro.conf.arg(
        metavar="INT",
        help="Class: the optimum is that of its points, and networks are asked for it; all unless given.",
        help_behavior_hint="",
    ),
]
Class = Annotated[
    int | str | None,
    tyro.conf.arg(
        metavar="CLASS",
        help="Class, by its name or number: the optimum is that of its points; all unless given.",
        help_behavior_hint="",
    ),
]
"""Of data that are loaded, whose classes may have names; `Dataset.class_of` finds it."""
Guidance = Annotated[
    float | None,
    tyro.conf.arg(
        metavar="FLOAT",
        help="Weight w of D + w (D_c - D), D_c of --label and D of all data, in optimum and network; no guidance "
        "unless given.",
        help_behavior_hint="",
    ),
]
Interval = Annotated[
    tuple[float, float] | None,
    tyro.conf.arg(
        metavar="LO HI",
        help="Noise levels that are guided, lo < sigma <= hi, in units of the data; all unless given.",
        help_behavior_hint="",
    ),
]
ValueRange = Annotated[
    tuple[float, float] | None,
    tyro.conf.arg(
        metavar="LO HI",
        help="Numbers of the file of x that become -1 and 1; 0 255 for uint8 and pictures, else -1 1, unless given. "
        "That of the data: --option value_range=LO,HI.",
        help_behavior_hint="",
    ),
]
Seed = Annotated[int, tyro.conf.arg(help="Seed of all draws.")]
Device = Annotated[str, tyro.conf.arg(help="Device: cpu, cuda, cuda:1, mps …; auto is a GPU where there is one.")]
Batch = Annotated[
    int | None,
    tyro.conf.arg(
        metavar="INT",
        help="Most points that the network is asked at once; by its size unless given.",
        help_behavior_hint="",
    ),
]
Out = Annotated[str, tyro.conf.arg(metavar="PATH")]
"""Where results go, as `optimal.cli.writable` takes it; a path would forget the slash of a folder."""
Quick = Annotated[bool, tyro.conf.arg()]
"""A look with less; how much is left is said in the help text."""
DryRun = Annotated[bool, tyro.conf.arg(help="A plan of what would be done, and nothing done.")]
Json = Annotated[
    bool,
    tyro.conf.arg(help="One JSON object in place of sentences; null stands for what is infinite or undefined."),
]


def data_of(name: str, options: Sequence[str]) -> Points:
    """The data set of a name or a path, with the options that a command line gives it, each name=value.

    Raises:
        ValueError: as for `optimal.load`.
    """
    return load(name, **options_of(name, parse_options(options)))


def parsed(
    kinds: Any,
    *,
    prog: str,
    description: str | None,
    args: Sequence[str],
    refused: Mapping[tuple[str, str], str] = MappingProxyType({}),
) -> Any:
    """The command that the words of a command line ask for.

    Args:
        kinds: a dataclass, or a union of subcommands, as tyro takes them.
        prog: the room, "optimal", whose usage line has the name that it was called by.
        description: for --help.
        args: the words.
        refused: (command, option) -> why a command cannot have an option that others have.

    Raises:
        ValueError: words that no command has; one sentence.
        SystemExit: of code 0, after --help.
    """
    for word in args[1:]:
        reason = refused.get((args[0], word.partition("=")[0]))
        if reason is not None:
            raise ValueError(f"{args[0]} takes no {word.partition('=')[0]}: {reason}")
    told = io.StringIO()
    try:
        with contextlib.redirect_stderr(told):
            command = tyro.cli(kinds, prog=_called(prog), description=description, args=args)
    except SystemExit as end:
        if end.code in (0, None):
            raise
        raise ValueError(sentence(told.getvalue())) from None
    _require_countable(command)
    return command


def _called(room: str) -> str:
    """The console script, or the module that Python was asked to run."""
    return room if Path(sys.argv[0]).stem == room else f"python -m {room}"


def _require_countable(command: Any) -> None:
    """Raise ValueError for a number of steps, draws, samples … that nothing could hold; a seed may be any."""
    for f in dataclasses.fields(command):
        value = getattr(command, f.name)
        for number in value if isinstance(value, tuple) else (value,):
            if isinstance(number, int) and f.name != "seed" and abs(number) > _MOST:
                raise ValueError(f"--{f.name.replace('_', '-')} must be at most {_MOST}, got {number:.3g}")
