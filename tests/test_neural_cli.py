"""`python -m neural`: a user's path from training to the comparison, and one sentence for bad input."""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import io
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
from PIL import Image
from problems import small_unet

from neural.__main__ import main
from neural.answers import Place, Plan, compared
from neural.cli.parsing import command_of
from neural.commands import QUICK_DRAWS, QUICK_SAMPLES, Distill, Preset, Train
from neural.config import Network, to_json
from neural.model import open_model
from neural.named import _tell_of_other_data
from neural.presets import PRESETS, student_of
from optimal import OptimalDenoiser, load


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def run(*arguments: str) -> int:
    return main(list(arguments))


@pytest.mark.slow
def test_train_distil_sample_compare(capsys: pytest.CaptureFixture[str]) -> None:
    small = ["--steps", "120", "--batch", "64"]
    assert run("train", "--preset", "toy", *small, "--out", "net") == 0
    assert "trained five-deltas: net" in capsys.readouterr().out
    assert run("distill", "--technique", "knowledge", *small, "--pairs", "300", "--out", "student") == 0
    assert run("distill", "--technique", "progressive", "--teacher", "net", "--levels", "4", *small, "--out", "pd") == 0
    capsys.readouterr()
    assert run("sample", "net", "-n", "5", "--steps", "4", "--out", "s") == 0
    with np.load("s.npz") as arrays:
        assert arrays["samples"].shape == arrays["noises"].shape == (5, 1)
    assert run("compare", "net", "student", "--n", "40", "--draws", "50", "--steps", "1", "4", "--out", "table") == 0
    printed = capsys.readouterr().out
    lines = printed.splitlines()
    assert lines[lines.index("net on data") + 1].split() == [
        "sigma",
        "gap",
        "per",
        "value",
        "share",
        "gap",
        "per",
        "value/sigma²",
    ]
    assert "net on data: farthest from the optimum at σ = " in printed
    assert "; border 0.5" in printed
    assert "same on own pairs" in printed
    assert lines[lines.index("") - 1] == "50 draws at every noise level, 40 samples of every method"
    at = next(i for i, line in enumerate(lines) if line.startswith("optimum, 4 steps"))
    assert lines[at].count("[") == 5
    assert lines[lines.index("net on data") + 2].count("[") == 2
    assert [line.count("pearson_square") for line in lines if "not defined" in line] == [1]
    with open("table-samplers.csv", newline="") as file:
        above = any(float(f"{float(row['coverage']):.3g}") > 1 for row in csv.DictReader(file))
    assert any(line.startswith("coverage above 1: ") for line in lines) == above
    assert "optimum, 4 steps" in printed
    with open("table-samplers.csv", newline="") as file:
        rows = {row["method"]: row for row in csv.DictReader(file)}
    assert set(rows) == {f"{name}, {n} steps" for name in ("optimum", "net", "student") for n in (1, 4)} | {
        f"student, {n} steps as it is meant" for n in (1, 4)
    }
    assert rows["net, 4 steps"]["nfe"] == "4"
    about = json.loads(Path("table-denoiser.json").read_text())
    assert about["dataset"] == "five-deltas"
    assert {row["method"] for row in about["rows"]} == {"net", "student"}


def test_images_become_a_grid(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("train", "--preset", "faces", "--steps", "2", "--batch", "4", "--out", "net") == 0
    assert run("sample", "net", "-n", "5", "--steps", "2", "--out", "grid") == 0
    with Image.open("grid.png") as image:
        assert image.size == (3 * 128 + 2 * 6, 2 * 125 + 6)
    assert run("sample", "optimum", "--dataset", "digits", "-n", "4", "--steps", "40", "--out", "sub/digits") == 0
    with Image.open("sub/digits.png") as image:
        assert image.size == (2 * 128 + 6, 2 * 128 + 6)
        shown = np.asarray(image.convert("L"))[8:128:16, 8:128:16]
    with np.load("sub/digits.npz") as arrays:
        np.testing.assert_allclose(shown / 127.5 - 1, arrays["samples"][0, 0].clip(-1, 1), atol=1 / 127)


@pytest.mark.parametrize("preset", ["toy", "digits", "digits-classes", "faces", "emoji-16", "emoji-16-dit", "emoji-32"])
def test_every_preset_takes_steps(preset: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("train", "--preset", preset, "--steps", "2", "--batch", "4", "--out", "net") == 0
    assert "trained" in capsys.readouterr().out
    assert [path.name for path in Path("net").glob("step-*")] == ["step-000000002.safetensors"]


@pytest.mark.parametrize(
    "command", [["train", "--preset", "digits"], ["distill"], ["sample", "optimum", "--dataset", "digits"]]
)
def test_dry_runs_do_nothing(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(*command, "--dry-run") == 0
    assert "nothing was" in capsys.readouterr().out
    assert not list(Path().iterdir())


@pytest.mark.parametrize(
    ("command", "sentence"),
    [
        (
            ["train", "--preset", "cifar"],
            "preset must be one of toy, digits, digits-classes, faces, emoji-16, emoji-16-dit, emoji-32, emoji-64, "
            "cifar-32, ffhq-64, got 'cifar'",
        ),
        (["train", "--preset", "faces", "--dataset", "five-deltas"], "a UNet works on images"),
        (["train", "--batch", "0"], "batch must be at least 1, got 0"),
        (
            ["distill", "--technique", "magic"],
            "--technique must be one of consistency, progressive, knowledge, multistep, got 'magic'",
        ),
        (["distill", "--teacher", "nowhere"], "no checkpoint"),
        (["sample", "optimum"], "give --dataset"),
        (["sample", "nowhere"], "no checkpoint"),
        (["compare", "runs/nope"], "no checkpoint in runs/nope: there is no such folder or file"),
        (["sample", "diffusers:nowhere", "--dataset", "digits"], "nowhere is not there; a pipeline is a folder with"),
        (["sample", "optimum", "--dataset", "digits", "-n", "0"], "n must be at least 1, got 0"),
        (["compare"], "name at least one model"),
    ],
)
def test_bad_input_is_one_sentence(command: list[str], sentence: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(*command) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("error: ")
    assert sentence in error


def test_an_out_folder_that_is_a_file(capsys: pytest.CaptureFixture[str]) -> None:
    Path("file").write_text("")
    assert run("train", "--steps", "2", "--batch", "4", "--out", "file") == 2
    assert "error: file could not be written to: it is a file" in capsys.readouterr().err


def test_help_names_units_and_defaults(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        run("sample", "--help")
    assert caught.value.code == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "in units of the data" in text
    assert "default: 16" in text


def test_quick_says_what_it_leaves(capsys: pytest.CaptureFixture[str]) -> None:
    for command in ("compare", "report"):
        with pytest.raises(SystemExit):
            run(command, "--help")
        text = " ".join(capsys.readouterr().out.replace("│", " ").split())
        assert f"At most {QUICK_DRAWS} draws and {QUICK_SAMPLES} samples, whatever --draws and -n say" in text
    assert run("compare", "optimum", "--dataset", "five-deltas", "--quick", "-n", "500", "--dry-run") == 0
    assert "128 draws at every noise level, 64 samples of every method" in capsys.readouterr().out


def test_names_with_dots_are_kept(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("train", "--steps", "2", "--batch", "4", "--out", "net.a") == 0
    assert run("sample", "net.a", "-n", "2", "--steps", "2", "--out", "s.1") == 0
    assert Path("s.1.npz").exists()
    assert run("compare", "net.a", "-n", "4", "--draws", "4", "--steps", "1", "--out", "table.v1") == 0
    for kind in ("denoiser", "samplers"):
        assert Path(f"table.v1-{kind}.csv").exists()
        assert Path(f"table.v1-{kind}.json").exists()
    assert "table.v1-denoiser.csv" in capsys.readouterr().out


def test_a_teacher_brings_its_data_and_other_data_are_told(capsys: pytest.CaptureFixture[str]) -> None:
    small = ["--steps", "2", "--batch", "4"]
    assert run("train", "--dataset", "two-points", *small, "--out", "net") == 0
    assert run("distill", "--teacher", "net", "--points", "2", *small, "--out", "student") == 0
    assert "distilled two-points" in capsys.readouterr().out
    assert run("sample", "student", "-n", "3", "--out", "s") == 0
    with np.load("s.npz") as arrays:
        # One step from its own first level.
        assert np.abs(arrays["noises"]).max() > 10
    assert run("compare", "student", "--dataset", "five-deltas", "-n", "4", "--draws", "4", "--steps", "1") == 0
    assert "warning: student was trained on other data (two-points) than five-deltas" in capsys.readouterr().err


def test_options_of_the_data(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("train", "--dataset", "ring", "--option", "n=7", "--steps", "2", "--batch", "4", "--dry-run") == 0
    assert "N = 7" in capsys.readouterr().out
    assert run("sample", "optimum", "--dataset", "ring", "--option", "n=7", "-n", "2", "--dry-run") == 0
    assert "N = 7" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("command", "sentence"),
    [
        (
            ["distill", "--technique", "magic"],
            "--technique must be one of consistency, progressive, knowledge, multistep, got 'magic'",
        ),
        (["distill", "--solver", "foo"], "--solver must be one of euler, heun, got 'foo'"),
        (["distill", "--levels", "0"], "levels must be at least 1"),
        (["distill", "--teacher", "nowhere"], "no checkpoint"),
        (["train", "--lr", "-3"], "lr must be positive and finite"),
        (["train", "--every", "0"], "every must be at least 1"),
        (["sample", "optimum", "--dataset", "digits", "--solver", "foo"], "solver"),
        (["sample", "optimum", "--option", "n=3"], "--option is of --dataset"),
        (["compare", "x", "--solver", "foo"], "solver"),
        (["compare", "x", "-n", "0"], "n be at least 1"),
        (["compare", "x", "--sigmas"], "sigmas and steps must name at least one each"),
    ],
)
def test_a_dry_run_refuses_what_the_run_would(
    command: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*command, "--dry-run") == 2
    assert sentence in capsys.readouterr().err


@pytest.mark.slow
def test_a_diffusers_pipeline_is_compared_on_its_own_range(capsys: pytest.CaptureFixture[str]) -> None:
    from diffusers.schedulers.scheduling_ddpm import DDPMScheduler

    small_unet().save_pretrained("pipeline/unet")
    DDPMScheduler().save_pretrained("pipeline/scheduler")
    few = ["--sigmas", "1", "--draws", "4", "-n", "4", "--steps", "2"]
    assert run("compare", "diffusers:pipeline", "--dataset", "digits", *few) == 0
    about = json.loads(Path("comparison-samplers.json").read_text())
    assert about["sigma_min"] == pytest.approx(0.0100013, rel=1e-4)
    assert about["sigma_max"] == 80.0
    assert {row["method"] for row in about["rows"]} == {"optimum, 2 steps", "diffusers:pipeline, 2 steps"}
    capsys.readouterr()
    assert run("compare", "diffusers:pipeline", "--dataset", "digits", *few, "--sigma-min", "0.002") == 2
    assert "sigma must lie between 0.01" in capsys.readouterr().err


def configured(*words: str) -> dict[str, Any]:
    """The configuration that a command line asks for, by its dry run."""
    with contextlib.redirect_stdout(io.StringIO()) as told:
        assert run(*words, "--dry-run") == 0
    text = told.getvalue()
    return json.loads(text[text.index("{") : text.rindex("}") + 1])


CHANGED: dict[str, Any] = {
    "kind": "unet", "precondition": "none", "optimizer": "muon", "noise": "uniform_t", "weighting": "snr",
    "target": "posterior", "technique": "progressive", "solver": "euler", "channels": (8, 16), "attention": (4,),
    "ema": 0.5, "teacher": "net", "label_dropout": 0.3,
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["train", "distill"])
def test_every_field_of_a_configuration_is_reachable(kind: str) -> None:
    """In full and, but for what commands name themselves, by its last part."""
    command = {"train": Train("toy"), "distill": Distill("toy")}[kind]

    def walk(config: Any, path: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
        for f in dataclasses.fields(config):
            value = getattr(config, f.name)
            yield from walk(value, (*path, f.name)) if dataclasses.is_dataclass(value) else [(*path, f.name)]

    paths = [path for path in walk(command.config, ()) if path[-1] not in ("dataset", "options")]
    assert len(paths) > 20
    for path in paths:
        old = command.config
        for name in path:
            old = getattr(old, name)
        new = CHANGED[path[-1]] if path[-1] in CHANGED else not old if isinstance(old, bool) else 2 * old + 1
        values = [str(part) for part in new] if isinstance(new, tuple) else [str(new)]
        for name in (".".join(path[-2:] if path[-2:-1] in (("network",), ("optimisation",)) else path[-1:]), path[-1]):
            found: Any = command_of([kind, f"--{name}", *values], None).config
            for part in path:
                found = getattr(found, part)
            assert found == new, name


def test_presets_are_defaults_with_overrides() -> None:
    assert PRESETS.keys() == set(get_args(Preset))
    wanted = to_json(dataclasses.replace(PRESETS["digits"], network=Network(width=64, depth=3)))
    for words in (
        ["digits", "--network.width", "64"],
        ["--preset", "digits", "--width=64"],
        ["--width", "64", "digits"],
    ):
        assert configured("train", *words) == json.loads(wanted)
    for words in (["digits", "--technique", "knowledge"], ["--technique=knowledge", "--preset=digits"]):
        assert configured("distill", *words) == json.loads(to_json(student_of("digits", "knowledge")))
    mirrored = configured("train", "faces", "--option", "n=50")
    assert mirrored["options"] == {"without": [9, 10], "xflip": True, "n": 50}
    assert configured("train", "faces", "--dataset", "digits")["options"] == {}


def test_help_shows_the_defaults_of_what_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    for words, default in ((["train", "digits"], "384"), (["train", "--preset", "toy"], "128")):
        with pytest.raises(SystemExit):
            run(*words, "--help")
        text = " ".join(capsys.readouterr().out.replace("│", " ").split())
        about = "--network.width INT mlp: width of the hidden layers; dit: values of a token, a multiple of 32."
        assert f"{about} (default: {default})" in text
        assert "--optimisation.noise {log_normal,log_uniform,uniform_t}" in text


@pytest.mark.slow
def test_a_run_is_made_longer_and_measured_on_the_way(capsys: pytest.CaptureFixture[str]) -> None:
    small = ["train", "toy", "--dataset", "two-points", "--batch", "16", "--out", "net", "--device", "cpu"]
    assert run(*small, "--steps", "4", "--gap-every", "2", "--every", "1", "--keep", "3") == 0
    assert len(list(Path("net").glob("step-*"))) == 3
    with open("net/gap.csv", newline="") as file:
        assert {row["step"] for row in csv.DictReader(file)} == {"2", "4"}
    assert run(*small, "--steps", "6", "--resume") == 2
    assert "optimisation.steps" in capsys.readouterr().err
    assert run(*small, "--steps", "6", "--extend") == 0
    assert json.loads(Path("net/config.json").read_text())["optimisation"]["steps"] == 6


def test_a_network_of_ones_own_is_compared_in_every_place(capsys: pytest.CaptureFixture[str]) -> None:
    """The optimum as a user's function has no gap at any place; one that is off by 0.1 has that of 0.01."""
    images = load("digits").array
    np.save("train.npy", images[:300])
    np.save("held.npy", images[300:350])
    Path("mine.py").write_text(
        "from optimal import OptimalDenoiser, load\nD = OptimalDenoiser(load('train.npy'))\n"
        "def exact(): return lambda x, sigma: D(x, sigma)\ndef off(): return lambda x, sigma: D(x, sigma) + 0.1\n"
    )
    few = ["--draws", "8", "-n", "4", "--steps", "2", "--sigmas", "0.5", "2", "--json"]
    places = ["--held-out", "held.npy", "--on", "data", "held-out", "trajectory"]
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(Path.cwd())
        assert run("compare", "python:mine.exact", "python:mine.off", "--dataset", "train.npy", *few, *places) == 0
        del sys.modules["mine"]
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    rows = {(row["method"], row["on"], row["sigma"]): row["gap_per_value"] for row in found["denoisers"]}
    for place in ("data", "held-out", "trajectory"):
        for sigma in (0.5, 2.0):
            assert rows["python:mine.exact", place, sigma] < 1e-9
            assert rows["python:mine.off", place, sigma] == pytest.approx(0.01, rel=1e-3)
    assert len(rows) == 12


class Slow:
    """The optimum, with rows that take a third of a millisecond each and calls that take three more."""

    def __init__(self, D: OptimalDenoiser):
        self.D, self.rows, self.calls = D, 0, 0

    def __call__(self, x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        self.rows, self.calls = self.rows + len(x), self.calls + 1
        time.sleep(3e-3 + 3e-4 * len(x))
        return self.D(x, sigma)


@pytest.mark.parametrize("places", [("data",), ("trajectory",)])
def test_the_time_is_said_first_and_holds_within_a_factor_of_two(
    places: tuple[Place, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the time that the network itself took, since other processes may take the rest."""
    data = load("five-deltas")
    network = Slow(OptimalDenoiser(data))
    model, told = open_model(network, name="slow", batch=128), []
    plan = Plan(on=places, draws=256 if places == ("data",) else 64, n=64, steps=(1, 32))
    monkeypatch.setattr("optimal.cli.estimate.LONG", 0.0)
    monkeypatch.setattr("optimal.cli.estimate.in_words", "{:g}".format)

    def say(text: str) -> None:
        told.append((text, network.rows, network.calls))

    compared([model], data, plan, say=say)
    before = told[0]
    assert before[0].startswith("this will take about ")
    assert before[1] < 700
    seconds = 3e-3 * (network.calls - before[2]) + 3e-4 * (network.rows - before[1])
    assert 0.5 < float(before[0].split()[-1]) / seconds < 2


def test_a_part_of_the_same_data_is_told_from_them() -> None:
    told: list[str] = []
    run = open_model("pretrained:digits").run
    assert run is not None
    _tell_of_other_data("it", run, load("digits"), told.append, flipped=False)
    assert told == [
        "note: 1 in 11 of the points of digits is held out from the training of it; --option without=10,11 leaves them "
        "out of the optimum, too"
    ]
