"""What `make gpu` runs on a machine with CUDA, on the CPU at small size: checks hold, rows have times."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from second_device import DEVICE, second_device

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "bench"))

import gpu  # noqa: E402
import gpu_checks  # noqa: E402


@pytest.fixture(scope="module")
def results(compiled: None, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    out = tmp_path_factory.mktemp("gpu")
    command = [sys.executable, str(ROOT / "bench" / "gpu.py"), "--device", "cpu", "--quick", "--out", str(out)]
    done = subprocess.run(
        command, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=600
    )
    (path,) = out.glob("gpu-cpu-*.json")
    failed = [line for line in done.stdout.splitlines() if "FAILS" in line]
    assert not failed, "\n".join(failed)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(path.read_text())


@pytest.mark.slow
def test_every_check_holds(results: dict[str, Any]) -> None:
    for part in gpu.checks():
        found = results["parts"][part]
        assert not found["left out"]
        assert len(found["checks"]) >= 8
        assert all(row["value"] <= row["limit"] for row in found["checks"]), part


@pytest.mark.slow
def test_every_row_of_the_table_has_a_time(results: dict[str, Any]) -> None:
    for part, methods in (
        ("table", {"float32", "TF32", "bfloat16", "dense", "screened"}),
        ("keops", {"dense", "keops"}),
    ):
        found = results["parts"][part]
        assert methods <= {row["method"] for row in found["rows"]}
        for row in found["rows"]:
            assert row["seconds"] > 0, row
            assert row["share of the product"] == pytest.approx(
                4e-12 * row["points"] * row["dim"] * row["batch"] / row["seconds"]
                / found["peaks"][row["method"] if row["method"] in found["peaks"] else "float32"]
            )  # fmt: skip
    assert {"device", "torch", "cores", "date"} <= results["machine"].keys()


def test_a_check_that_breaks_is_told_and_hides_no_other(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def broken() -> float:
        raise RuntimeError("no such kernel")

    checks = [
        gpu_checks.Check(name, 1.0, call) for name, call in (("a", broken), ("b", lambda: 2.0), ("c", lambda: 1.0))
    ]
    monkeypatch.setitem(gpu_checks.PARTS, "data", lambda device, sizes: iter(checks))
    assert gpu.main(["--device", "cpu", "--quick", "--parts", "data", "--out", str(tmp_path)]) == 1
    (path,) = tmp_path.glob("*.json")
    rows = json.loads(path.read_text())["parts"]["data"]["checks"]
    assert [(row["name"], row["holds"]) for row in rows] == [("a", False), ("b", False), ("c", True)]
    assert rows[0]["reason"] == "RuntimeError: no such kernel"
    monkeypatch.setitem(gpu.SECONDS, "data", -1.0)
    assert gpu.main(["--device", "cpu", "--quick", "--parts", "data", "--out", str(tmp_path)]) == 0
    assert json.loads(path.read_text())["parts"]["data"]["left out"] == ["a", "b", "c"]


def test_the_checks_notice_answers_that_differ() -> None:
    problem = gpu_checks.PARTS["agreement"](torch.device("cpu"), gpu_checks.Sizes.quick())
    check = next(problem)
    assert check.measure() <= check.limit
    ask, expected, *rest = check.measure.args  # pyright: ignore
    for key in ("mean", "log_density", "nearest", "gradient to sigma", "landings"):
        changed = {**expected, key: expected[key].flip(0)}
        assert gpu_checks.differs(ask, changed, *rest) > 1, key


def test_wheels_stand_in_for_what_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(gpu, "NEEDED", (*gpu.NEEDED, "carried_along"))
    monkeypatch.setattr(gpu, "WHEELS", tmp_path)
    assert gpu.main(["--device", "cpu"]) == 2
    assert capsys.readouterr().out.startswith("carried_along is missing: make gpu-wheels on a machine with internet")
    with zipfile.ZipFile(tmp_path / "carried_along-1-py3-none-any.whl", "w") as wheel:
        wheel.writestr("carried_along.py", "")
    monkeypatch.setitem(gpu.SECONDS, "data", -1.0)
    assert gpu.main(["--device", "cpu", "--parts", "data", "--out", str(tmp_path)]) == 0


@pytest.mark.skipif(torch.cuda.is_available(), reason="a CUDA device is here")
def test_without_cuda_it_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    assert gpu.main([]) == 2
    assert capsys.readouterr().out == "no CUDA device is here: --device cpu --quick runs every line of it on the CPU\n"


def test_bounds_hold_on_a_second_device() -> None:
    with second_device():
        for check in gpu_checks.PARTS["bounds"](DEVICE, gpu_checks.Sizes.quick()):
            assert check.measure() <= check.limit, check.name


def test_networks_answer_alike_on_a_second_device() -> None:
    with second_device():
        for check in gpu.checks()["networks"](DEVICE, gpu_checks.Sizes.quick()):
            assert check.measure() <= check.limit, check.name
