"""What the README shows runs."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

import figures.__main__ as figures
import neural.cli as neural
import optimal.__main__ as optimal

README = (Path(__file__).parents[1] / "README.md").read_text()


@pytest.mark.slow
def test_the_lines_run() -> None:
    blocks = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert blocks
    # Read from the top: what one block defines the next ones use.
    scope: dict[str, object] = {}
    for block in blocks:
        exec(block, scope)
    assert {"x0_hat", "post", "border", "landing", "reached"} <= scope.keys()
    assert scope["x0_hat"].shape == (3, 1, 8, 8)  # pyright: ignore[reportAttributeAccessIssue]
    assert scope["landing"].x.shape == (8, 1, 8, 8)  # pyright: ignore[reportAttributeAccessIssue]


def test_pictures_and_files_that_it_names_exist() -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        if "://" not in target:
            assert (Path(__file__).parents[1] / target).exists(), target


SHOWN = re.findall(r"python -m ((?:optimal|neural|figures) [^`\n…|]*)", README)
LINES = sorted({re.sub(r" --help$", "", line.split("#")[0].rstrip(" .")) for line in SHOWN})


@pytest.mark.parametrize("line", LINES)
def test_the_commands_are_understood(line: str) -> None:
    """Every line that is shown is one that its command line takes, with options that it has."""
    door, *words = shlex.split(line)
    assert words
    if door == "neural":
        assert neural.command_of(words, None)
    else:
        assert {"optimal": optimal, "figures": figures}[door].command_of(words)


def test_there_are_commands() -> None:
    assert {line.split()[0] for line in LINES} == {"optimal", "neural", "figures"}
    assert len(LINES) > 20
