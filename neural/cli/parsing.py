"""From words to the commands of `python -m neural`.

A training has an option for every field of its configuration, `--optimisation.lr`, which also goes by its last part,
`--lr`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Annotated, Any

import tyro

from optimal.cli import parsed

from ..commands import COMMANDS, Distill, Train
from ..config import TECHNIQUES, Distillation, Experiment, Optimisation
from ..presets import PRESETS, student_of

__all__ = ["command_of"]

_FLAGS = [f"optimisation.{f.name}" for f in dataclasses.fields(Optimisation) if isinstance(f.default, bool)]
"""Options that are on or off."""
_GUIDED = "a guided denoiser is the mean of no distribution, and its flow has a density that nothing is compared with"
_REFUSED = {("likelihood", option): _GUIDED for option in ("--guidance", "--interval")}


def command_of(words: Sequence[str], description: str | None) -> Any:
    """The command that the words of a command line ask for; defaults are those of the preset and technique it names.

    Raises:
        ValueError: words that no command has; one sentence.
        SystemExit: of code 0, after --help.
    """
    words = list(words)
    if not words or words[0] not in ("train", "distill"):
        return _parsed(words, "toy", "consistency", description)
    words = _in_full(words)
    # --help shows the defaults of what is named, too.
    assumed = (words[1] if words[1:] and words[1] in PRESETS else "toy", _named(words, "--technique", TECHNIQUES))
    command = _parsed(words, *assumed, description)
    technique = command.config.technique if isinstance(command, Distill) else assumed[1]
    meant = (command.preset, technique)
    return command if meant == assumed else _parsed(words, *meant, description)


def _parsed(words: Sequence[str], preset: str, technique: str, description: str | None) -> Any:
    start: Any = preset
    defaults: dict[str, Any] = {
        "train": Train(start, PRESETS[preset]),
        "distill": Distill(start, student_of(preset, technique)),
    }
    kinds: Any = None
    for name, kind in COMMANDS.items():
        given = {"default": defaults[name]} if name in defaults else {}
        one = Annotated[kind, tyro.conf.subcommand(name, **given)]  # pyright: ignore
        kinds = one if kinds is None else kinds | one
    return parsed(kinds, prog="neural", description=description, args=words, refused=_REFUSED)


def _in_full(words: list[str]) -> list[str]:
    """--preset NAME in its place, and the names of fields in full: --lr is --optimisation.lr; --bf16 True is --bf16.

    Raises:
        ValueError: another value of a flag.
    """
    kind, config = (Train, Experiment) if words[0] == "train" else (Distill, Distillation)
    own, fields = {f.name for f in dataclasses.fields(kind)}, _fields(config)
    out, rest = words[:1], words[1:]
    while rest:
        name, equals, value = rest.pop(0).partition("=")
        if name == "--preset":
            out.insert(1, value if equals else rest.pop(0) if rest else "")
            continue
        field, off = _field(name, fields) if name[2:].replace("-", "_") not in own else (None, False)
        if field in _FLAGS:
            if not off and not equals and rest[:1] in (["True"], ["False"]):
                equals, value = "=", rest.pop(0)
            if equals and (off or value not in ("True", "False")):
                raise ValueError(f"{name} takes no value, got {value!r}")
            off = off or value == "False"
            out.append(f"--{field}" if not off else f"--{'.no-'.join(field.rsplit('.', 1))}")
        else:
            out.append(f"--{field}{equals}{value}" if field else f"{name}{equals}{value}")
    return out


def _field(name: str, fields: Sequence[str]) -> tuple[str | None, bool]:
    """The field that an option names in full or by its last part, and whether it is told off, --no-bf16."""
    plain = name[2:].replace("-", "_")
    # Its name before.
    plain = "levels" if plain == "points" and "levels" in fields else plain
    head, dot, last = plain.rpartition(".")
    for asked, off in ((plain, False), (f"{head}{dot}{last.removeprefix('no_')}", True)):
        near = [field for field in fields if asked == field or field.endswith(f".{asked}")]
        if name.startswith("--") and len(near) == 1 and (not off or near[0] in _FLAGS):
            return near[0], off
    return None, False


def _fields(kind: Any) -> list[str]:
    """Of a configuration, dotted as the command line has them; --dataset and --option are commands' own."""
    names = []
    for f in dataclasses.fields(kind):
        default = f.default_factory() if f.default_factory is not dataclasses.MISSING else f.default
        if f.name == "experiment":
            names += _fields(Experiment)
        elif dataclasses.is_dataclass(default):
            names += [f"{f.name}.{name}" for name in _fields(type(default))]
        elif f.name not in ("dataset", "options"):
            names.append(f.name)
    return names


def _named(words: Sequence[str], option: str, known: Sequence[str]) -> str:
    """What the words give an option that is among the known; the first of these where they give none."""
    for i, word in enumerate(words):
        value = words[i + 1] if word == option and i + 1 < len(words) else word.removeprefix(f"{option}=")
        if word.startswith(option) and value in known:
            return value
    return known[0]
