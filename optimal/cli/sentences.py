"""What the parser of command lines says in a box, as one sentence that a person would write.

tyro's boxes have parts, with lines between them: what is wrong, perhaps what is known or similar or what the option is,
and where help is. Its words for types and for what it wraps commands in are of no use to who typed the line.
"""

from __future__ import annotations

import re

__all__ = ["sentence"]

_KINDS = {
    "INT": "a whole number",
    "FLOAT": "a number",
    "[INT [INT ...]]": "whole numbers",
    "[FLOAT [FLOAT ...]]": "numbers",
    "FLOAT [FLOAT ...]": "numbers",
}
"""What stands for a value in --help, in words."""
_OF_DATA = (
    "resolution",
    "value_range",
    "n",
    "only",
    "without",
    "xflip",
    "labels",
    "shape",
    "layout",
    "split",
    "key",
    "column",
    "skip_unreadable",
)
"""Options of `load` that are looked for among those of commands."""


def sentence(box: str) -> str:
    """The sentence, without a full stop.

    Args:
        box: what was printed, with its colours.
    """
    parts = _parts(box)
    message = " ".join(row.strip() for row in parts[0] if not row.startswith(" " * 8)).removesuffix(".")
    asked = re.findall(r"--[\w-]+", message)
    message = re.sub(r" \(applied to [^)]*\)", "", message)
    for part in parts[1:]:
        first = part[0] if part else ""
        if first.startswith("Available"):
            message += f"; {' '.join(row.strip() for row in part).lower()}"
        elif first.startswith(("Perhaps", "Arguments similar")):
            words = (row.split()[0].rstrip(",") for row in part if row.startswith("    --"))
            near = dict.fromkeys(word for word in words if word not in asked)  # of other commands: these have them not
            message += f"; did you mean {' or '.join(near)}?" if near else ""
    helped = next((part[1] for part in parts[1:] if part and part[0].startswith("Argument helptext")), "")
    return _rewritten(message, parts[0], helped.strip())


def _parts(box: str) -> list[list[str]]:
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
    return parts


def _rewritten(message: str, rows: list[str], helped: str) -> str:
    """By what tyro says; words of another version of it are left as they are."""
    if found := re.match(r"Error parsing (\S+): (.*)", message):
        return _of_value(found[1], found[2], helped)
    if found := re.match(r"invalid choice ('.*') for argument '(\S+)'. Expected one of (\(.*\))", message):
        known = re.findall("'([^']*)'", found[3])
        # Those of an option that need not be given come in any order.
        known = sorted({*known} - {"None"}) if "None" in known else known
        return f"{found[2]} must be one of {', '.join(known)}, got {found[1]}"
    if found := re.match(r"Missing value for argument '(\S+)'", message):
        return f"{found[1]} needs a value"
    if found := re.match(r"Missing from (.*?):", message):
        missing = [row.strip() for row in rows[1:] if re.match(r" {4}\S", row)]
        return f"{found[1]} needs {' and '.join(missing)}"
    if found := re.fullmatch(r"Expected one of \{(.*)\}", message):
        return f"name a command: {found[1]}"
    message, unknown = re.subn("^Unrecognized (or misplaced )?options:", "unknown words or options:", message)
    of_data = [word for word in re.findall(r"--([\w-]+)", message) if word.replace("-", "_") in _OF_DATA]
    if unknown and of_data:
        given = re.search(rf"--{of_data[0]},? ((?!-)[^\s;]+(?:,? (?!--)[^\s;]+)*)", message)
        value = given[1].replace(", ", ",").replace(" ", ",") if given else "…"
        message += f"; of the data there is --option {of_data[0].replace('-', '_')}={value}"
    return message


def _of_value(name: str, reason: str, helped: str) -> str:
    """What is wrong with the value of an option; of a group of options, which the program checks itself, its words."""
    if not helped:
        return reason
    option = name.rpartition("/")[2]
    kind = next((words for sign, words in _KINDS.items() if helped.endswith(f" {sign}")), None)
    value = re.search(r"(?:from|arguments:|base 10:|float:) (\[.*\]|'.*'|\".*\")$", reason)
    if kind is None or value is None:
        return f"{option}: {reason}"
    return f"{option} must be {kind}, got {value[1].strip('[]') if value[1].startswith('[') else value[1]}"
