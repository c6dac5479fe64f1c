"""The speed comparison runs, its methods agree with float64, and its table reaches a README. Times are not tested."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytestmark = pytest.mark.slow

BENCH = Path(__file__).parents[1] / "bench"
sys.path.insert(0, str(BENCH))

import contenders  # noqa: E402
import table  # noqa: E402


@pytest.fixture(scope="module")
def results(compiled: None, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    out = tmp_path_factory.mktemp("bench")
    command = [sys.executable, str(BENCH / "run.py"), "--quick", "--out", str(out)]
    command += ["--parts", "methods", "crossovers", "span"]
    environment = {**os.environ, "PYTHONPATH": str(BENCH.parent), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "minutes" in done.stdout.splitlines()[1]
    return json.loads((out / "results.json").read_text())


def test_every_cell_is_there_or_has_a_reason(results: dict[str, Any]) -> None:
    found = results["methods"]
    missing = {(row["method"], row["dim"]) for row in found["missing"]}
    assert all(row["reason"] for row in found["missing"])
    cells = [(row["n"], row["dim"], row["level"], row["method"]) for row in found["cells"]]
    assert sorted(cells) == sorted(
        (n, dim, level, name)
        for n in (100, 300)
        for dim in (1, 64, 12_288)
        for level in ("border/10", "border", "10 border")
        for name in contenders.METHODS
        if (name, dim) not in missing
    )
    assert not {name for name, _ in missing} & {"plain products", "dense", "keops", "cdist", "LazyTensor"}
    assert {name for name, dim in missing if dim > 1} <= {"smalldiffusion", "deepinv"}
    for row in found["memory"]:
        assert 0 < row["peak"] < 2e9, row
    assert {"processor", "cores", "threads", "torch", "python", "date"} <= found["machine"].keys()


def test_errors_are_below_what_is_stated(results: dict[str, Any]) -> None:
    for row in results["methods"]["cells"]:
        if row["bound"] is not None:
            assert row["error"] <= row["bound"], row
        if row["method"] == "screened":
            # The proof is of the mean in float64, the result is in float32.
            assert row["error"] <= row["proven"] + 1e-6, row
        # Those that state none have the right formula.
        assert row["error"] < 2e-2, row


def test_crossovers_compare_both_with_dense(results: dict[str, Any]) -> None:
    assert {row["batch"] for row in results["crossovers"]["screened"]} == {1, 4}
    assert {row["dim"] for row in results["crossovers"]["keops"]} == {1, 64}
    for row in results["crossovers"]["screened"] + results["crossovers"]["keops"]:
        assert 0 < row["low"] <= row["ratio"] <= row["high"], row


def test_the_table_reaches_a_readme_and_nothing_else_changes(results: dict[str, Any], tmp_path: Path) -> None:
    readme = tmp_path / "README.md"
    readme.write_text(f"before\n{table.BEGIN}\nformer\n{table.END}\nafter\n")
    table.write(readme, results)
    once = readme.read_text()
    assert once.startswith(f"before\n{table.BEGIN}\n")
    assert once.endswith(f"\n{table.END}\nafter\n")
    assert "former" not in once
    lines = [line.strip("| ").split(" | ") for line in once.splitlines() if line.startswith("| ")]
    row = next(line for line in lines if line[0] == "`dense`")
    cells = [c for c in results["methods"]["cells"] if c["n"] == 300 and c["method"] == "dense"]
    for dim, text in zip((1, 64, 12_288), row[1:], strict=True):
        shown = [float(part.strip("*")) for part in text.split(" / ")]
        assert shown == pytest.approx([c["ratio"] for c in cells if c["dim"] == dim], rel=0.06)
        assert text.startswith("**") == cells[0]["auto"]
    table.write(readme, results)
    assert readme.read_text() == once
    found = {"seconds": 2.0, "plain": 40.0, "error": 3e-4}
    table.write(readme, {**results, "span": {"found": found}})
    assert "takes 0.050 of the time" in readme.read_text()


def test_calls_over_the_limit_are_marked(results: dict[str, Any]) -> None:
    found = json.loads(json.dumps(results))
    slow = [row for row in found["methods"]["cells"] if row["method"] == "LazyTensor" and row["dim"] == 12_288]
    for row in slow:
        row.update(seconds=None, ratio=30.2, error=None)
    for row in found["methods"]["memory"]:
        row["peak"] = None if row["method"] == "LazyTensor" else row["peak"]
    first, second = (line for line in table.tables(found).splitlines() if line.startswith("| KeOps"))
    assert first.endswith("| ≈ 30 |")
    assert second.startswith("| KeOps `LazyTensor` | – | – | – | – |")


@pytest.mark.parametrize("text", ["", table.BEGIN, f"{table.END}{table.BEGIN}", f"{table.BEGIN}{table.END}" * 2])
def test_a_readme_without_its_marks_is_refused(text: str, tmp_path: Path) -> None:
    readme = tmp_path / "README.md"
    readme.write_text(text)
    with pytest.raises(ValueError, match="once each"):
        table.write(readme, {})


def test_the_readme_has_the_marks() -> None:
    text = (BENCH.parent / "docs" / "speed.md").read_text()
    assert text.count(table.BEGIN) == text.count(table.END) == 1


@pytest.mark.parametrize(("dim", "event"), [(3_072, (3, 32, 32)), (784, (1, 28, 28)), (64, (1, 8, 8))])
def test_averaging_keeps_place_and_mean(dim: int, event: tuple[int, ...]) -> None:
    windows = np.zeros((2, 3, 64, 64), dtype=np.uint8)
    windows[0, :, 8:16, 24:32] = 240  # an aligned block: row 1, column 3 of 8
    windows[1] = 77
    small = contenders.shrink(windows, dim)
    assert small.shape == (2, *event)
    assert small.dtype == np.uint8
    assert (small[1] == 77).all()
    first, size = (2, 4) if dim == 784 else (event[1] // 8, event[1] // 8)
    column = 10 if dim == 784 else 3 * event[1] // 8
    assert (small[0, :, first : first + size, column : column + size] == 240).all()
    assert small[0].sum() == 240 * event[0] * size * size
