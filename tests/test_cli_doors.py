"""The three doors of the command line are one: names, completion, JSON, and an end of what is printed, in each."""

from __future__ import annotations

import importlib
import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from neural.commands import COMMANDS as NEURAL
from optimal.cli.commands import COMMANDS as OPTIMAL

ROOMS = ["optimal", "neural", "figures"]
Captured = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def asked(line: str) -> int:
    door, *words = shlex.split(line)
    return importlib.import_module(f"{door}.__main__").main(words)


def shown(line: str, capsys: Captured) -> str:
    with pytest.raises(SystemExit) as end:
        asked(line)
    assert end.value.code in (0, None)
    return capsys.readouterr().out


@pytest.mark.parametrize("room", ROOMS)
def test_the_usage_line_has_the_name_that_was_called(
    room: str, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    for argv0, name in ((f"/x/bin/{room}", room), (f"/x/{room}/__main__.py", f"python -m {room}")):
        monkeypatch.setattr(sys, "argv", [argv0, "--help"])
        assert shown(f"{room} --help", capsys).splitlines()[0].startswith(f"usage: {name} [-h]")


@pytest.mark.parametrize("room", ROOMS)
def test_shells_complete_every_door(room: str, capsys: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", [f"/x/bin/{room}"])
    script = shown(f"{room} --tyro-print-completion bash", capsys)
    assert subprocess.run(["bash", "-n"], input=script, text=True, check=False).returncode == 0
    assert room in script
    assert "--seed" in script


JSON = """
optimal info ring
optimal info ring --dry-run
optimal denoise ring 0,1 --sigma 1
optimal sample ring -n 2 --steps 2
optimal border five-deltas --draws 8
optimal where ring 0,1 --sigma 1
optimal schedule ring --dry-run
neural train toy --steps 1 --batch 4 --device cpu
neural train toy --dry-run
neural distill toy --levels 4 --steps 1 --batch 4 --device cpu --out student
neural distill toy --dry-run
neural sample optimum --dataset ring -n 2 --steps 2
neural sample optimum --dataset ring -n 2 --dry-run
neural compare pretrained:toy --draws 4 -n 4 --steps 1
neural compare pretrained:toy --dry-run
neural audit ring ring
neural report pretrained:toy --dry-run
neural explain pretrained:toy --dry-run
neural likelihood optimum --dataset five-deltas -n 2
neural likelihood optimum --dataset five-deltas --dry-run
neural pretrain toy --dry-run
neural study --dry-run
figures list
figures fig1 --dry-run
"""


@pytest.mark.parametrize("line", JSON.strip().splitlines())
def test_every_command_prints_one_json_object(line: str, capsys: Captured) -> None:
    assert asked(f"{line} --json") == 0
    found = json.loads(capsys.readouterr().out)
    assert isinstance(found, dict)
    assert found


@pytest.mark.slow
def test_a_figure_that_was_drawn_is_named_in_json(capsys: Captured) -> None:
    assert asked("figures prop4 --quick --json --out drawn") == 0
    files = json.loads(capsys.readouterr().out)["figures"]["prop4"]
    assert len(files) == 4
    assert all(Path(file).exists() for file in files)


class _NobodyReads:
    """A stream whose reader has gone away, as after `| head -1`."""

    encoding = "utf-8"

    def __init__(self) -> None:
        self.wrote = 0

    def write(self, text: str) -> int:
        self.wrote += 1
        raise BrokenPipeError

    def flush(self) -> None:
        if self.wrote:
            raise BrokenPipeError

    def isatty(self) -> bool:
        return False

    def fileno(self) -> int:
        raise ValueError("no file")


@pytest.mark.parametrize("line", [*JSON.strip().splitlines(), *(f"{room} --help" for room in ROOMS)])
def test_every_command_survives_head(line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", _NobodyReads())
    assert asked(line) == 141


def helps(room: str, command: str, capsys: Captured) -> dict[str, str]:
    """The options and arguments of a command, and what --help says of each."""
    found: dict[str, str] = {}
    name = ""
    for line in shown(f"{room} {command} --help", capsys).splitlines():
        # In a box, or set in by two where there is no Unicode.
        row = line[2:].rstrip("│ ")
        start = re.match(r"(--?[A-Za-z]\S*.*?|[A-Z]+…?)(?: {2,}(\S.*))?$", row)
        if start:
            name, found[start[1]] = start[1], start[2] or ""
        elif name and not found[name] and not row.startswith("   "):
            # A long list of choices goes on.
            continue
        elif name and row.startswith("     "):
            found[name] = f"{found[name]} {row.strip()}".strip()
        elif not (name and row.strip() and not found[name]):  # long choices go on in the next line
            name = ""
    found.pop("-h, --help", None)
    return found


VERBS = [
    "Add",
    "Also",
    "Begin",
    "Draw",
    "Give",
    "Go",
    "How",
    "Of",
    "Print",
    "Put",
    "Say",
    "Set",
    "Take",
    "Use",
    "What",
    "Where",
    "Whether",
    "Write",
]
SAYS = ("(default: ", "(required)", "(repeatable)", "unless given", "the models' own", "not trained on")


@pytest.mark.parametrize(
    ("room", "command"),
    [("figures", ""), *(("optimal", name) for name in OPTIMAL), *(("neural", name) for name in NEURAL)],
)
def test_help_texts_are_noun_phrases_with_unit_and_default(room: str, command: str, capsys: Captured) -> None:
    found = helps(room, command, capsys)
    assert len(found) >= 5
    for name, text in found.items():
        assert text, name
        assert text.split()[0] not in VERBS, (name, text)
        assert any(words in text for words in SAYS), (name, text)
        if re.search(r"[Nn]oise levels?\b", text) and "FLOAT" in name:
            assert "units of the data" in text, (name, text)
