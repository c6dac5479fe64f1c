"""What a report says beside gaps: likelihood, a student's own pairs, doubts and remarks; and what is said instead."""

from __future__ import annotations

import dataclasses
import json
import math
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from neural import Distillation, Experiment, Network, Optimisation, distil, fit, open_model, samplers
from neural.__main__ import main
from neural.named import as_meant, own_pairs
from neural.report.densities import density
from neural.report.plan import Effort
from neural.report.reported import write
from neural.report.study import study
from neural.report.tables import pairs
from optimal import Dataset, OptimalDenoiser, karras, load
from optimal.cli import in_words

pytestmark = pytest.mark.slow

DATA = load("two-points")
D = OptimalDenoiser(DATA)
DIGITS = load("digits")
SMALL = Experiment(
    "two-points",
    network=Network(width=8, depth=1),
    optimisation=Optimisation(steps=2, batch=8, warmup=2, sigma_min=0.05, sigma_max=20.0),
)


def itself(x: Tensor, sigma: Tensor) -> Tensor:
    """The optimum, as a network that nobody knows."""
    return D(x, sigma)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    distil(Distillation("knowledge", levels=4, pairs=24, experiment=SMALL), DATA, D, folder / "k")
    fit(SMALL, DATA, folder / "net")
    return folder


def gauss(x: Tensor, sigma: Tensor) -> Tensor:
    """The optimum of N(0, 1)."""
    return x / (1 + torch.as_tensor(sigma).view(-1, 1) ** 2)


def test_the_likelihood_of_the_optimum_is_its_own() -> None:
    found = density(open_model(itself), D, None, "data", points=16, seed=0, level=0.95)
    assert float(found.bits.value) == pytest.approx(float(found.exact.value), rel=0.01)
    assert found.row()["bits_low"] < found.row()["bits"] < found.row()["bits_high"]
    other = density(open_model(itself), D, None, "data", points=16, seed=1, level=0.95)
    assert other.bits.value != found.bits.value


@pytest.mark.parametrize("on", ["data", "held-out"])
def test_the_likelihood_of_a_gaussian(on: str) -> None:
    """In bits of its values' own units, by its closed form: ½ log 2π + ½ x² nats, at −1 and 1, or at 3."""
    x = 1.0 if on == "data" else 3.0
    held_out = None if on == "data" else torch.full((5, 1), 3.0)
    found = density(open_model(gauss), D, held_out, on, points=16, seed=0, level=0.95)
    nats = 0.5 * math.log(2 * math.pi) + 0.5 * x**2
    assert float(found.bits.value) == pytest.approx(nats / math.log(2), abs=0.02)


def test_a_steep_flow_is_given_up() -> None:
    """Between two points the optimum's is: the time that was said would not hold."""
    between = torch.tensor([[0.001], [-0.002]])
    with pytest.raises(ValueError, match="the density of held-out points took more than 600 evaluations"):
        density(open_model(itself), D, between, "held-out", points=16, seed=0, level=0.95)


def test_the_likelihood_is_on_the_page(tmp_path: Path) -> None:
    other = torch.tensor([[0.5], [0.9], [-1.2]])
    held_out = Dataset("other", other.numpy())
    models = [open_model(gauss, name="net"), open_model(D, name="optimum")]
    found = study(models, DATA, held_out=held_out, effort=Effort(1024, 4, 20), sigmas=[1.0, 2.0])
    net, optimum = found.networks
    assert [each.on for each in net.densities] == ["data", "held-out"]
    assert not optimum.densities
    page = write(found, tmp_path)[0].read_text()
    assert "<h2>Likelihood</h2><div" in page
    rows = json.loads((tmp_path / "gap.json").read_text())["networks"][0]["likelihood"]
    assert [row["bits"] for row in rows] == [float(each.bits.value) for each in net.densities]


def test_a_likelihood_that_takes_too_long_is_left_out(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    clock = [0.0]
    monkeypatch.setattr("optimal.cli.estimate.time.perf_counter", lambda: clock[0])

    def slow(x: Tensor, sigma: Tensor) -> Tensor:
        clock[0] += len(x)
        return 0.5 * x

    found = study([open_model(slow)], DATA, effort=Effort(20, 4, 20), sigmas=[1.0])
    assert not found.networks[0].densities
    assert found.left_out == pytest.approx(600 * 16)
    assert f"Left out: it would have taken {in_words(9600)}" in write(found, tmp_path)[0].read_text()
    quick = study([open_model(itself)], DATA, effort=Effort(20, 4, 20, likelihood=0), sigmas=[1.0])
    assert "Left out by --quick" in write(quick, tmp_path)[0].read_text()


def test_a_network_whose_flow_cannot_be_followed(tmp_path: Path) -> None:
    def torn(x: Tensor, sigma: Tensor) -> Tensor:
        return torch.where(sigma.view(-1, 1) < 0.01, torch.nan, 0.0) * x

    found = study([open_model(torn)], DATA, sigmas=[1.0, 2.0], effort=Effort(2048, 2, 20))
    assert "not finite" in str(found.networks[0].lost)
    assert "no likelihood: the density cannot be followed" in write(found, tmp_path)[0].read_text()


def test_a_students_own_pairs_are_beside_fresh_noises(runs: Path, tmp_path: Path) -> None:
    for path in ("k", "k/student"):
        model = open_model(runs / path, name="k")
        found = study([model], DATA, sigmas=[1.0, 10.0], effort=Effort(100, 24, 20), seed=2)
        (student,) = found.networks
        own = own_pairs(model)
        assert own is not None
        (row,) = samplers({"k": as_meant(model, None, 2)}, D, n=24, seed=2, pairs={"k": own})
        assert student.pairs == row
        assert not student.densities
        page = write(found, tmp_path)[0].read_text()
        assert "<td>fresh noises</td>" in page
        assert "<td>its training pairs</td>" in page
        assert "adapter" not in page
        assert (
            json.loads((tmp_path / "gap.json").read_text())["networks"][0]["pairs"]["same_pairs"] == row["same_pairs"]
        )
    (net,) = study([open_model(runs / "net")], DATA, sigmas=[1.0], effort=Effort(10, 4, 20)).networks
    assert net.pairs is None


def test_a_student_above_one_is_explained_as_a_student(tmp_path: Path) -> None:
    def opposite(x: Tensor, sigma: Tensor) -> Tensor:
        return 3 * torch.ones_like(x)

    model = dataclasses.replace(
        open_model(opposite), meant=lambda steps, seed: {"sigmas": karras(1), "solver": "euler"}
    )
    found = study([model], DATA, sigmas=[5.0, 10.0], effort=Effort(100, 4, 20))
    page = write(found, tmp_path)[0].read_text()
    assert "the share is above 1, as students' are: they answer with one point" in page
    assert "convention" not in page
    page = write(study([open_model(opposite)], DATA, sigmas=[5.0], effort=Effort(100, 4, 20)), tmp_path)[0].read_text()
    assert "in another convention than it was trained in" in page


def test_doubts_are_told_first_and_on_the_page(tmp_path: Path) -> None:
    def noise(x: Tensor, sigma: Tensor) -> Tensor:
        return x - D(x, sigma)

    told: list[str] = []
    models = [open_model(noise, name="<noise>"), open_model(itself, name="sound")]
    found = study(models, DATA, sigmas=[1.0], effort=Effort(10, 4, 20), tell=told.append)
    assert len(told) == 1
    assert told[0].startswith("warning: <noise> is worse than returning x")
    assert [network.doubt is None for network in found.networks] == [False, True]
    page = write(found, tmp_path)[0].read_text()
    assert page.count('<p class="doubt">') == 1
    assert '<p class="doubt">&lt;noise&gt; is worse than returning x' in page


def test_remarks_are_on_the_page(tmp_path: Path) -> None:
    found = study([open_model(itself)], DATA, sigmas=[1.0], effort=Effort(20, 4, 20))
    assert found.networks[0].remarks()
    page = write(found, tmp_path)[0].read_text()
    assert "<li>On data, trajectory: 20 draws are fewer than 64: " in page


@pytest.mark.parametrize("shape", [(40, 1, 1, 1), (40, 3, 1, 1), (20, 3, 5, 4), (30, 2), (30, 5), (1, 2), (1, 1, 3, 3)])
def test_points_of_every_shape(shape: tuple[int, ...], tmp_path: Path) -> None:
    """Also one alone, of three samples, with networks whose names give the same file names."""
    rng = np.random.default_rng(0)
    image = len(shape) == 4
    array = rng.integers(0, 255, shape, dtype=np.uint8) if image else rng.normal(size=shape).astype(np.float32)

    def shrunk(x: Tensor, sigma: Tensor) -> Tensor:
        return 0.9 * x / (1 + torch.as_tensor(sigma).view(-1, *[1] * (x.ndim - 1)) ** 2)

    models = [open_model(shrunk, name=name) for name in ("<script>ü</script>", "a/b", "a b")]
    found = study(models, Dataset("<b>ö</b>", array), sigmas=[0.5, 1.0], effort=Effort(64, 3, 20))
    files = write(found, tmp_path)
    assert len({*files}) == len(files)
    assert all(file.exists() for file in files)
    page = files[0].read_text()
    assert "<script>" not in page
    assert "<b>" not in page


# Bits below 0, and students, have words.


def test_what_a_stranger_would_not_know_has_words(runs: Path, tmp_path: Path) -> None:
    found = study([open_model(gauss, name="net")], DATA, effort=Effort(1024, 4, 20), sigmas=[1.0])
    text = write(found, tmp_path)[0].read_text()
    assert "below 0 where it is above 1" in text
    assert "<dt>bits</dt>" in text
    assert "bins of width 1" not in text
    (student,) = study([open_model(runs / "k", name="k")], DATA, sigmas=[1.0], effort=Effort(10, 24, 20)).networks
    assert len(student.sentences()) == 3
    assert student.sentences()[-1].startswith("k is a student: it answers with one point")


def test_a_students_distance_is_that_of_the_words_on_the_page() -> None:
    """In grey levels, for each value: not the length of a whole image."""
    optimum, half = OptimalDenoiser(DIGITS), Dataset("half", DIGITS.array[::8])
    found = study([open_model(optimum, name="k")], half, sigmas=[1.0], effort=Effort(4, 2, 20, likelihood=0))
    row = {
        f"{name}{suffix}{end}": 4.8
        for name in ("same", "distance", "memorised")
        for suffix in ("", "_pairs")
        for end in ("", "_low", "_high")
    }
    shown = dataclasses.replace(found, networks=[dataclasses.replace(found.networks[0], pairs=row)])
    # 4.8 · 127.5 / √64
    assert pairs(shown).count("<td>76.5<br>") == 2
    assert "in grey levels" in pairs(shown)


# The command line.


def test_data_that_a_network_was_not_trained_on(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is told on stderr is on the page, and no curve is said to be on training data."""
    monkeypatch.chdir(tmp_path)
    np.save("two.npy", np.array([[-1.0], [0.5]], np.float32))
    words = ["report", str(runs / "net"), "--quick", "--draws", "8", "-n", "4"]
    assert main([*words, "--dataset", "two.npy", "--out", "other"]) == 0
    told = capsys.readouterr()
    assert "net was trained on other data (two-points) than two" in told.err
    text = Path("other/index.html").read_text()
    assert "net was trained on other data (two-points) than two" in text
    assert "training data" not in text
    about = json.loads(Path("other/gap.json").read_text())
    assert about["trained"] is False
    assert len(about["notes"]) == 1
    # A sentence a place.
    assert [line.split(": ")[0].split(" ")[-1] for line in told.out.splitlines()] == [
        "data",
        "trajectory",
        "other/index.html",
    ]
    assert main([*words, "--out", "own"]) == 0
    assert json.loads(Path("own/gap.json").read_text())["trained"] is True
    assert "net on training data, 8 draws" in Path("own/index.html").read_text()


def test_a_refused_report_leaves_no_folder(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    empty = tmp_path / "empty.npy"
    np.save(empty, np.empty((0, 1), np.float32))
    words = ["report", str(runs / "net"), "--quick", "--out", "new/deep"]
    assert main([*words, "--held-out", str(empty)]) == 2
    assert "empty.npy is empty" in capsys.readouterr().err
    empty.unlink()
    assert main([*words, "--held-out", "two-points"]) == 2
    assert main([*words, "--sigmas", "1e9"]) == 2
    assert main([*words[:-1], "new/" + 300 * "x"]) == 2
    assert len([line for line in capsys.readouterr().err.splitlines() if line.startswith("error")]) == 3
    assert not list(tmp_path.iterdir())


def test_a_report_that_cannot_be_written_leaves_the_one_that_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> str:
        raise OSError(28, "No space left on device")

    found = study([open_model(D, name="optimum")], DATA, sigmas=[1.0], effort=Effort(4, 4, 20))
    monkeypatch.setattr("neural.report.reported.html", full)
    with pytest.raises(ValueError, match=r"new: No space left on device"):
        write(found, tmp_path / "new")
    assert not list(tmp_path.iterdir())
    (tmp_path / "gap.csv").write_text("what was there")
    with pytest.raises(ValueError, match="No space left on device"):
        write(found, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["gap.csv"]
    assert (tmp_path / "gap.csv").read_text() == "what was there"


def test_an_interrupt_while_writing_leaves_no_half_page(tmp_path: Path) -> None:
    """^C once the first table is there: all of the page or nothing."""
    code = (
        "import sys, time; import neural.report.reported as reported; from neural.__main__ import main\n"
        "def slow(*given): print('writing', flush=True); time.sleep(60)\n"
        "reported.html = slow\n"
        "sys.exit(main(sys.argv[1:]))"
    )
    words = ["report", "optimum", "--dataset", "two-points", "--quick", "--draws", "8", "-n", "4", "--out", "r"]
    process = subprocess.Popen(
        [sys.executable, "-c", code, *words],
        text=True,
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "writing\n"
        assert any(tmp_path.rglob("gap.csv"))
        time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        _, told = process.communicate(timeout=60)
    finally:
        process.kill()
        process.communicate()
    assert process.returncode == 130
    assert told.rstrip().endswith("interrupted")
    assert not list(tmp_path.iterdir())


def test_tables_of_an_earlier_report_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [
        "report",
        "optimum",
        "--dataset",
        "two-points",
        "--quick",
        "--draws",
        "8",
        "-n",
        "4",
        "--out",
        str(tmp_path),
    ]
    (tmp_path / "samples-mine.txt").write_text("")
    assert main(words) == 0
    assert "earlier report" not in capsys.readouterr().err
    (tmp_path / "samples-net.csv").write_text("")
    assert main(words) == 0
    assert "also has samples-net.csv of an earlier report, which this page does not show" in capsys.readouterr().err
    assert (tmp_path / "samples-net.csv").exists()


def test_report_in_json_and_dry(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["report", "optimum", "--dataset", "two-points", "--quick", "--out", str(tmp_path / "r")]
    assert main([*words, "--dry-run"]) == 0
    assert "nothing was measured" in capsys.readouterr().out
    assert main([*words, "--dry-run", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["models"] == ["optimum"]
    assert said["seconds"] > 0
    assert not (tmp_path / "r").exists()
    assert main([*words, "--json"]) == 0
    said = json.loads(capsys.readouterr().out, parse_constant=pytest.fail)
    assert said["files"][0] == str(tmp_path / "r" / "index.html")
    assert len(said["rows"]) == 2 * 12
    assert said["fingerprint"] == DATA.fingerprint


def test_audit_in_json_and_dry(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["audit", "digits", "digits", "--sample-option", "n=7", "--out", str(tmp_path / "a")]
    assert main([*words, "--dry-run"]) == 0
    assert "7 samples of digits" in capsys.readouterr().out
    assert main([*words, "--dry-run", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["seconds"] > 0
    assert not list(tmp_path.iterdir())
    assert main([*words, "--json"]) == 0
    said = json.loads(capsys.readouterr().out, parse_constant=pytest.fail)
    assert said["exact"] == said["samples"] == 7
    assert said["sentence"].startswith("Copies: 7 of 7 samples")
    assert [Path(name).suffix for name in said["files"]] == [".csv", ".json", ".png"]
    assert all(Path(name).exists() for name in said["files"])


def test_what_draws_is_not_loaded_with_the_library() -> None:
    """Nor by commands that draw nothing."""
    code = "import sys, neural, neural.__main__; print('matplotlib' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
