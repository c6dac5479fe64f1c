"""The API reference: every public name has a docstring and a place in it, and it builds without a warning."""

from __future__ import annotations

import importlib
import inspect
import os
import re
import shlex
import subprocess
import sys
import zlib
from pathlib import Path
from types import ModuleType
from xml.etree import ElementTree

import pytest

import figures.__main__ as figures
import neural.cli as neural
import optimal.__main__ as optimal

DOCS = Path(__file__).parents[1] / "docs"
FRONT = (DOCS / "index.rst").read_text()
DOORS = [
    (door, name)
    for door in ("optimal", "neural")
    for name, value in vars(importlib.import_module(door)).items()
    if not name.startswith("_") and not inspect.ismodule(value)
]


@pytest.fixture(scope="module")
def entries(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """Full names of everything in the built pages."""
    pytest.importorskip("sphinx")
    pytest.importorskip("furo")
    out = tmp_path_factory.mktemp("docs")
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-b", "html", "-d", out / "trees"]
    ran = subprocess.run(
        [*map(str, command), str(DOCS), str(out / "html")],
        capture_output=True,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        timeout=300,
    )
    assert ran.returncode == 0, ran.stderr
    packed = (out / "html" / "objects.inv").read_bytes().split(b"\n", 4)[4]
    return {line.split()[0] for line in zlib.decompress(packed).decode().splitlines()}


@pytest.mark.parametrize(("door", "name"), [both for both in DOORS if both[1] != "PRESETS"])
def test_every_public_name_has_a_docstring(door: str, name: str) -> None:
    value = getattr(importlib.import_module(door), name)
    # A dataclass without one is given its signature.
    assert value.__doc__, f"{door}.{name}"
    assert not value.__doc__.startswith(f"{name}("), f"{door}.{name}"


def test_every_module_has_a_page() -> None:
    """In one place only; commands and presets are among others."""
    root = DOCS.parent
    pages = "".join(path.read_text() for path in DOCS.glob("*.rst"))
    named = re.findall(r"^\.\. automodule:: (\S+)$", pages, re.MULTILINE)
    modules = {
        ".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__")
        for door in ("optimal", "neural", "figures")
        for path in (root / door).rglob("*.py")
    }
    doors = {"optimal", "neural", "figures"}
    assert not {name for name in modules - doors if not name.endswith("__main__")} - set(named)
    assert not set(named) - modules
    assert len(named) == len(set(named))


def test_the_front_page_names_the_whole_door() -> None:
    named = set(re.findall(r"`(\w+)`", FRONT))
    assert not {name for door, name in DOORS if door == "optimal"} - named


@pytest.mark.parametrize("text", ["w_j ∝ exp(−‖x − y_j‖²/2σ²)", "c_skip = σ_d²/√(σ² + σ_d²)", "x̂ = D_{−j} + e^{l_j}"])
def test_formulas_are_read(text: str) -> None:
    found = notation().latex([f"    {text}"])
    assert found is not None
    ElementTree.fromstring(notation().mathml(found, display=True))


def test_a_formula_has_its_parts_where_they_belong() -> None:
    found = notation().latex(["    σ_max = Σ_j √(2x0) x_θ⁻¹ A_j² D_{−j} e^{l_j − m} ŷ"])
    for part in (
        r"\sum_{j}",
        r"\sigma_{\mathrm{max}}",
        r"\sqrt{2 x_{0}}",
        r"x_{\theta}^{-1}",
        "A_{j}^{2}",
        "D_{- j}",
        r"\hat{y}",
    ):
        assert part in found, part
    assert re.search(r"e\^\{l_\{j\} .*- .*m\}", found)


@pytest.mark.parametrize(
    "text", ["net(x) -> `y`", "gap  = 2 # a comment", "held   share = 1", "a < b: no formula", "x, y"]
)
def test_what_is_no_formula_stays(text: str) -> None:
    assert notation().latex([f"    {text}"]) is None


def notation() -> ModuleType:
    """`docs/notation.py`, which is no package's."""
    pytest.importorskip("latex2mathml")
    if str(DOCS) not in sys.path:
        sys.path.insert(0, str(DOCS))
    return importlib.import_module("notation")


@pytest.mark.slow
def test_every_public_name_has_an_entry(entries: set[str]) -> None:
    for door, name in DOORS:
        value = getattr(importlib.import_module(door), name)
        module = getattr(value, "__module__", door)
        places = {f"{place}.{name}" for place in (module, module.rpartition(".")[0], f"{door}.presets")}
        assert places & entries, f"{door}.{name}"


@pytest.mark.slow
def test_every_solver_and_figure_has_an_entry(entries: set[str]) -> None:
    from figures.__main__ import FIGURES
    from optimal.samplers import SOLVERS

    for kind in SOLVERS.values():
        assert f"{kind.__module__}.{kind.__qualname__}" in entries
    for module in FIGURES.values():
        assert module.__name__ in entries


BLOCKS = [
    (path.name, number, inspect.cleandoc(block))
    for path in sorted(DOCS.glob("*.rst"))
    for number, block in enumerate(
        re.findall(r"code-block:: python\n\n((?:   .*\n|\n)+)", path.read_text()),
    )
]


def _run(block: str) -> dict[str, object]:
    scope: dict[str, object] = {}
    exec(block, scope)
    return scope


@pytest.mark.slow
@pytest.mark.parametrize("block", [block for _, _, block in BLOCKS], ids=[f"{page}-{k}" for page, k, _ in BLOCKS])
def test_every_block_of_a_page_runs_alone(block: str) -> None:
    _run(block)


def test_the_lines_of_the_front_page_run() -> None:
    (block,) = (block for page, _, block in BLOCKS if page == "index.rst")
    assert _run(block)["x0"].shape == (64, 1, 8, 8)  # pyright: ignore[reportAttributeAccessIssue]


LINES = sorted(
    {
        line.replace("\\\n", " ")
        for path in DOCS.glob("*.rst")
        for line in re.findall(r"^    (python -m (?:.*\\\n)*.*)$", path.read_text(), re.MULTILINE)
    }
)


@pytest.mark.parametrize("line", LINES)
def test_the_commands_of_the_pages_are_understood(line: str) -> None:
    _, _, door, *words = shlex.split(line)
    commands = {"optimal": optimal.command_of, "neural": lambda words: neural.command_of(words, None)}
    assert (commands | {"figures": figures.command_of})[door](words)
