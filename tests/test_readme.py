"""What the README and the pages beside it show runs, each block alone."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

import figures.__main__ as figures
import neural.cli as neural
import optimal.__main__ as optimal

ROOT = Path(__file__).parents[1]
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
BLOCKS = [
    pytest.param(path.name, block, id=f"{path.name}-{number}")
    for path in PAGES
    for number, block in enumerate(re.findall(r"```python\n(.*?)```", path.read_text(), re.DOTALL))
]
MADE = {
    "README.md": {"x0_hat": (3, 1, 8, 8), "x0": (64, 1, 8, 8)},
    "gallery.md": {"x": (8, 1, 8, 8)},
    "speed.md": {},
    "python.md": {"x0_hat": (3, 1, 8, 8)},
    "networks.md": {},
}
"""Of each page's blocks, what the first that has it has made, by shape."""


def test_the_readme_is_short() -> None:
    assert len(PAGES[0].read_text().splitlines()) <= 150


def test_its_blocks_fit_the_page() -> None:
    """838 pixels hold 92 letters."""
    blocks = re.findall(r"```\w*\n(.*?)```", PAGES[0].read_text(), re.DOTALL)
    assert max(len(line) for block in blocks for line in block.splitlines()) <= 92


@pytest.mark.slow
@pytest.mark.parametrize(("page", "block"), BLOCKS)
def test_every_block_runs_alone(page: str, block: str) -> None:
    scope: dict[str, object] = {}
    exec(block, scope)
    for name, shape in MADE[page].items():
        if name in scope:
            assert scope[name].shape == shape  # pyright: ignore[reportAttributeAccessIssue]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_pictures_and_files_that_it_names_exist(page: Path) -> None:
    for target in re.findall(r"\]\(([^)]+)\)", page.read_text()):
        if "://" not in target:
            file, _, heading = target.partition("#")
            path = page.parent / file if file else page
            assert path.exists(), target
            headings = re.findall(r"^#+ (.*)$", path.read_text(), re.MULTILINE) if heading else []
            assert not heading or heading in [words.lower().replace(" ", "-") for words in headings], target


SHOWN = [
    line for page in PAGES for line in re.findall(r"python -m ((?:optimal|neural|figures) [^`\n…|]*)", page.read_text())
]
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
