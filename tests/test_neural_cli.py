"""`python -m neural`: a user's path from training to the comparison, and one sentence for bad input."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from problems import small_unet

from neural.__main__ import main


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def run(*arguments: str) -> int:
    return main(list(arguments))


def test_train_distil_sample_compare(capsys: pytest.CaptureFixture[str]) -> None:
    small = ["--steps", "120", "--batch", "64"]
    assert run("train", "--preset", "toy", *small, "--out", "net") == 0
    assert "trained five-deltas: net" in capsys.readouterr().out
    assert run("distill", "--technique", "knowledge", *small, "--pairs", "300", "--out", "student") == 0
    assert run("distill", "--technique", "progressive", "--teacher", "net", "--points", "4", *small, "--out", "pd") == 0
    capsys.readouterr()
    assert run("sample", "net", "-n", "5", "--steps", "4", "--out", "s") == 0
    with np.load("s.npz") as arrays:
        assert arrays["samples"].shape == arrays["noises"].shape == (5, 1)
    assert run("compare", "net", "student", "--n", "40", "--draws", "50", "--steps", "1", "4", "--out", "table") == 0
    printed = capsys.readouterr().out
    assert "gap_share" in printed
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
        assert image.size == (3 * 26, 2 * 26)
    assert run("sample", "optimum", "--dataset", "digits", "-n", "4", "--steps", "40", "--out", "sub/digits") == 0
    with Image.open("sub/digits.png") as image:
        assert image.size == (18, 18)
        assert image.mode == "L"


@pytest.mark.parametrize("preset", ["toy", "digits", "faces", "emoji-16"])
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
        (["train", "--preset", "cifar"], "unknown preset 'cifar'; known are toy, digits"),
        (["train", "--preset", "faces", "--dataset", "five-deltas"], "a UNet works on images"),
        (["train", "--batch", "0"], "batch must be at least 1, got 0"),
        (["distill", "--technique", "magic"], "technique must be one of"),
        (["distill", "--teacher", "nowhere"], "no checkpoint"),
        (["sample", "optimum"], "give --dataset"),
        (["sample", "nowhere"], "no checkpoint"),
        (["sample", "diffusers:nowhere", "--dataset", "digits"], "holds no unconditional diffusers checkpoint"),
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
    assert "error: the run cannot be written to file" in capsys.readouterr().err


def test_help_names_units_and_defaults(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        run("sample", "--help")
    assert caught.value.code == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "in units of the data" in text
    assert "default: 16" in text
    assert torch.get_num_threads() >= 1


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
        (["distill", "--technique", "magic"], "technique must be one of"),
        (["distill", "--solver", "foo"], "solver must be euler or heun"),
        (["distill", "--points", "0"], "points must be at least 1"),
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
