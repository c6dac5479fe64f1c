"""The notebooks run from nothing, are stored with their outputs, and use the door only."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOKS = sorted((Path(__file__).parents[1] / "notebooks").glob("*.ipynb"))
NAMES = (
    "01_optimal_denoiser",
    "02_border",
    "03_solvers_and_steps",
    "04_distilled_optimum",
    "05_trained_vs_optimal",
    "06_your_own_data",
    "07_measurements",
    "08_guidance",
    "09_theories",
)
DOORS = {
    "optimal",
    "optimal.conditional",
    "optimal.datasets",
    "optimal.samplers",
    "optimal.schedules",
    "optimal.theories",
    "neural",
}
ALLOWED = DOORS | {"matplotlib.pyplot", "ipywidgets", "torch", "pathlib", "tempfile"}
WITH_SLIDER = ("01_optimal_denoiser", "04_distilled_optimum")

NUMBER = re.compile(r"(?<![\w.])-?\d+(?:\.\d+)?(?:e[-+]?\d+)?(?!\w)")

each = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def _read(path: Path) -> nbformat.NotebookNode:
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    return notebook


def _code(path: Path) -> list[nbformat.NotebookNode]:
    return [cell for cell in _read(path).cells if cell.cell_type == "code"]


def _printed(notebook: nbformat.NotebookNode) -> list[str]:
    """What the cells print, line by line."""
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    text = "\n".join(output.text for output in outputs if output.get("name") == "stdout")
    return [line for line in text.splitlines() if line.strip()]


def assert_alike(stored: list[str], now: list[str]) -> None:
    """The same lines but for what processors round differently, which may also turn a close verdict's words."""
    assert len(stored) == len(now)
    turned = 0
    for old, new in zip(stored, now, strict=True):
        a, b = ([float(number) for number in NUMBER.findall(line)] for line in (old, new))
        if NUMBER.sub("", old).split() != NUMBER.sub("", new).split():
            turned += 1
            continue
        assert all(abs(x - y) <= 0.015 + 0.05 * abs(x) for x, y in zip(a, b, strict=True)), f"{old!r} is now {new!r}"
    assert turned <= len(stored) // 5


def test_all_are_there() -> None:
    assert tuple(path.stem for path in NOTEBOOKS) == NAMES


@each
def test_opens_with_a_question_and_ends_with_its_answer(path: Path) -> None:
    first, *_, answer, last = _read(path).cells
    assert first.cell_type == "markdown"
    assert first.source.splitlines()[0].startswith("# ")
    assert first.source.splitlines()[0].endswith("?")
    assert answer.source.startswith("## Answer\n")
    assert any(character.isdigit() for output in last.outputs for character in output.get("text", ""))


@each
def test_is_stored_as_it_ran(path: Path) -> None:
    assert path.stat().st_size < 1_000_000
    cells = _code(path)
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    outputs = [output for cell in cells for output in cell.outputs]
    assert sum("image/png" in output.get("data", {}) for output in outputs) >= 2
    assert not [output for output in outputs if output.output_type == "error" or output.get("name") == "stderr"]


@each
def test_uses_the_door_only(path: Path) -> None:
    tree = ast.parse("\n".join(cell.source for cell in _code(path)))
    imported = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    imported |= {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    assert imported <= ALLOWED
    assert not [node for node in ast.walk(tree) if isinstance(node, ast.ClassDef | ast.AsyncFunctionDef)]
    functions = [node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    assert functions == (["show"] if path.stem in WITH_SLIDER else [])


@pytest.mark.slow
@each
def test_runs(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPTIMAL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    # A second busy process would otherwise make the threads of small calls wait for each other.
    monkeypatch.setenv("OMP_WAIT_POLICY", "passive")
    notebook = _read(path)
    NotebookClient(notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": tmp_path}}).execute()
    assert_alike(_printed(_read(path)), _printed(notebook))
    # What the slider shows goes to its widget, errors of the callback included.
    widgets = notebook.metadata.get("widgets", {}).get("application/vnd.jupyter.widget-state+json", {})
    shown = [o for state in widgets.get("state", {}).values() for o in state["state"].get("outputs", [])]
    assert [output["output_type"] for output in shown] == ["display_data"] * (path.stem in WITH_SLIDER)
