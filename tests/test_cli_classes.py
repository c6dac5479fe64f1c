"""Classes by their names, levels given by hand, and what is said of small numbers, on the command line."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from optimal import Dataset, OptimalDenoiser, load, sample
from optimal.__main__ import main
from optimal.cli.wording import counted_points, nats

Captured = pytest.CaptureFixture[str]
pytestmark = pytest.mark.filterwarnings("ignore:pets joins")


@pytest.fixture(autouse=True)
def pets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for k, name in enumerate(("cat/a.png", "cat/b.png", "dog/a.png", "2/a.png")):
        path = tmp_path / "pets" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.random.default_rng(k).integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(path)
    return tmp_path / "pets"


FOLDERS = ("--option", "labels=folders")


def test_a_class_is_asked_for_by_its_name_or_its_number(capsys: Captured) -> None:
    found: list[dict[str, object]] = []
    for label in ("cat", "1"):
        assert main(["denoise", "pets", "@1", "--sigma", "1", *FOLDERS, "--label", label, "--json"]) == 0
        found.append(json.loads(capsys.readouterr().out))
    assert found[0] == found[1]
    assert found[0]["label"] == 1
    assert main(["denoise", "pets", "@1", "--sigma", "1", *FOLDERS, "--label", "cat"]) == 0
    assert "; its 2 points of class 1 cat\n" in capsys.readouterr().out
    # A folder that is called 2 goes before the class of number 2, the dogs.
    assert main(["sample", "pets", "-n", "2", "--steps", "4", *FOLDERS, "--label", "2"]) == 0
    assert "; its 1 point of class 0 2\n" in capsys.readouterr().out
    for label, words in (("bird", "class bird, the classes are 0 2, 1 cat, 2 dog"), ("7", "class 7, the")):
        assert main(["border", "pets", *FOLDERS, "--label", label]) == 2
        assert f"there are no points of {words}" in capsys.readouterr().err
    assert main(["border", "pets", "--label", "cat"]) == 2
    assert 'pets has no labels, so that there are no classes of points; labels="folders"' in capsys.readouterr().err


def test_info_tells_classes_and_folders(capsys: Captured) -> None:
    assert main(["info", "pets", *FOLDERS]) == 0
    out = capsys.readouterr().out
    assert "3 classes: 0 2 (1), 1 cat (2), 2 dog (1)\n" in out
    assert "pictures of 3 folders: 2/ (1), cat/ (2), dog/ (1)\n" in out
    assert main(["info", "ring"]) == 0
    assert "classes" not in capsys.readouterr().out


def test_several_classes_of_one_name_are_refused() -> None:
    data = Dataset("d", np.zeros((2, 1), np.float32), np.array([0, 1]), class_names=("a", "a"))
    with pytest.raises(ValueError, match="several classes are called a, the classes are 0 a, 1 a"):
        data.class_of("a")
    assert data.class_of("1") == 1


def test_where_shows_what_it_found_as_denoise_does(capsys: Captured) -> None:
    assert main(["where", "pets", "cat/b.png", "--sigma", "0.1"]) == 0
    assert "where.png: x, E[x0 | x], the destination" in capsys.readouterr().out
    assert Path("where.png").exists()
    assert main(["where", "ring", "1,0", "--sigma", "0.1"]) == 0
    assert "png" not in capsys.readouterr().out


def test_samples_on_given_levels(capsys: Captured) -> None:
    levels = (20.0, 3.0, 0.4)
    for last in ([], ["0"]):
        words = ["sample", "pets", "-n", "3", "--solver", "euler", "--levels", *map(str, levels), *last, "--json"]
        assert main(words) == 0
        found = json.loads(capsys.readouterr().out)
        assert (found["steps"], found["sigma_max"], found["sigma_min"]) == (3, 20, 0.4)
        with np.load("samples.npz") as file:
            np.testing.assert_array_equal(file["sigmas"], [*levels, 0])
            assert 10 < file["noises"].std() < 30
            sigmas = torch.tensor([*levels, 0], dtype=torch.float64)
            expected = sample(OptimalDenoiser(load("pets")), torch.from_numpy(file["noises"]), sigmas, solver="euler")
            np.testing.assert_allclose(file["samples"], expected, atol=1e-4)
    for words, sentence in (
        (["3", "20"], "levels must decrease, above 0 but for the last, got 3.0, 20.0"),
        (["0"], "levels must decrease"),
        (["nan"], "levels must be finite and not negative, got nan"),
        (["3", "--steps", "2"], "--levels are the grid: they take no --steps"),
        (["3", "--sigma-max", "2"], "--levels are the grid: they take no --sigma-max"),
    ):
        assert main(["sample", "pets", "--levels", *words]) == 2
        assert sentence in capsys.readouterr().err


def test_numbers_of_points_and_small_entropies() -> None:
    assert [counted_points(n) for n in (1.0, 1.00001, 1.2, 9.339)] == [
        "1 point",
        "1 point",
        "1.2 points",
        "9.339 points",
    ]
    assert [nats(v) for v in (0.0, 5.8e-31, 2.2341)] == ["0 nats", "under 1e-06 nats", "2.234 nats"]


def test_a_grid_is_printed_as_it_can_be_given(capsys: Captured) -> None:
    words = [
        "schedule",
        "ring",
        "--option",
        "n=8",
        "-n",
        "3",
        "--objective",
        "gaussian",
        "--starts",
        "8",
        "--judged",
        "8",
    ]
    assert main(words) == 0
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("here: sample ring")]
    assert main([*line.removeprefix("here: ").split(), "-n", "2"]) == 0
    assert "3 steps of dpm_solver_pp" in capsys.readouterr().out
