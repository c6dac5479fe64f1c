"""Held-out points that are none: found among all of them, mirrored too, before anything is measured."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from neural.__main__ import main
from neural.heldout import check_held_out
from neural.measuring import measure
from neural.model import open_model
from optimal import OptimalDenoiser, load

DIGITS = load("digits")
TRAIN, OTHER = DIGITS.points[:1000], DIGITS.points[1000:]
D = OptimalDenoiser(TRAIN)


def never(*asked: Any, **options: Any) -> Tensor:
    raise AssertionError("the network was asked")


def test_one_data_point_among_all_is_found_before_anything_is_measured() -> None:
    """Two draws hardly meet it."""
    held_out = torch.cat([OTHER, TRAIN[7:8]])
    with pytest.raises(ValueError, match=r"none of the data: of 798 1 are, such as number 797; to ask at"):
        measure(never, D, on=held_out, sigmas=[0.5], draws=2)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert check_held_out(D, OTHER).remarks == ()
        assert check_held_out(D, OTHER.numpy()).seen.all()


def test_near_copies_and_mirror_images_are_said_once_and_kept() -> None:
    near = torch.cat([OTHER, TRAIN[:3] + 1 / 127.5])
    with pytest.warns(RuntimeWarning, match="copies of data: of 800 3 nearly are, such as number 797; ") as told:
        found = measure(D, D, on=near, sigmas=[0.5], draws=64)
    assert len(told) == 1
    assert found.on == "held-out"
    assert found.remarks[1:] == (str(told[0].message),)
    turned = torch.cat([OTHER, TRAIN[4:6].flip(-1), TRAIN[9:10].flip(-1) + 1 / 127.5])
    with pytest.warns(RuntimeWarning, match="mirror images of data: of 800 3 are, or nearly, such as number 797; "):
        apart = check_held_out(D, turned)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert measure(D, D, on=apart, sigmas=[0.5], draws=64).remarks[1:] == apart.remarks


def test_what_there_was_no_time_for_is_said_and_what_is_drawn_is_looked_at() -> None:
    with pytest.warns(RuntimeWarning, match=r"of 797 held-out points 128 were looked at for being data points"):
        apart = check_held_out(D, OTHER, seconds=0)
    assert int(apart.seen.sum()) == 128
    at = int((~apart.seen).nonzero()[0])
    moved = OTHER.clone()
    moved[at] = TRAIN[3]
    with pytest.warns(RuntimeWarning, match="looked at"):
        partly = check_held_out(D, moved, seconds=0)
    with pytest.raises(ValueError, match=f"1 are, such as number {at};"):
        measure(never, D, on=partly, sigmas=[0.5], draws=20_000)


def test_other_shapes_and_few_values() -> None:
    with pytest.raises(ValueError, match="data must have points of shape"):
        measure(never, D, on=torch.zeros(3, 2), sigmas=[0.5])
    flat = OptimalDenoiser(torch.arange(8.0).view(8, 1))
    assert check_held_out(flat, torch.tensor([[0.01]])).remarks == ()
    assert check_held_out(flat, torch.tensor([[0.5], [9.0]], dtype=torch.float64)).seen.all()
    with pytest.raises(ValueError, match="of 2 1 are, such as number 1"):
        check_held_out(flat, torch.tensor([[0.5], [7.0]], dtype=torch.float64))
    with pytest.raises(ValueError, match="of 1 1 are"):
        check_held_out(OptimalDenoiser(torch.zeros(1, 3)), torch.zeros(1, 3))


@pytest.mark.parametrize("command", ["explain", "compare", "report", "likelihood"])
def test_the_command_lines_look_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    (tmp_path / "never_asked.py").write_text("def make():\n    return lambda x, sigma: x\n")
    monkeypatch.syspath_prepend(tmp_path)
    points = np.concatenate([OTHER.numpy(), TRAIN[7:8].numpy()])
    np.save(tmp_path / "train.npy", TRAIN.numpy()[:, 0])
    np.save(tmp_path / "held.npy", points[:, 0])
    words = [command, "python:never_asked.make", "--dataset", str(tmp_path / "train.npy")]
    words += ["--held-out", str(tmp_path / "held.npy"), "--out", str(tmp_path / "found")]
    assert main(words) == 2
    said = capsys.readouterr().err
    assert "held-out points must be none of the data: of 798 1 are, such as number 797" in said


def test_what_a_run_was_trained_on_is_remarked(tmp_path: Path) -> None:
    """The network of a run on the first half, measured as if the second half were its data and some others held out."""
    for name, points in (("first", DIGITS.array[:900]), ("second", DIGITS.array[900:])):
        np.save(tmp_path / f"{name}.npy", points[:, 0])
    first, second = load(str(tmp_path / "first.npy")), load(str(tmp_path / "second.npy"))
    words = f"train digits --dataset {tmp_path}/first.npy --steps 1 --width 8 --out {tmp_path}/run --device cpu"
    assert main(words.split()) == 0
    model = open_model(tmp_path / "run", name="mine")
    there, here = OptimalDenoiser(first), OptimalDenoiser(second)
    options: dict[str, Any] = {"sigmas": [0.5], "draws": 64}
    assert measure(model, there, on=second, **options).remarks == ()
    told = "mine was trained on 900 of the 900 held-out points, on "
    assert measure(model, here, on=first, **options).remarks[-1].startswith(told)
    other = torch.cat([first.points[:5], -first.points[:3]])
    found = measure(model, here, on=other, **options)
    assert found.remarks[-1].startswith("mine was trained on 5 of the 8 held-out points, on ")
    (tmp_path / "first.npy").unlink()
    assert measure(model, here, on=other, **options).remarks == ()


@pytest.mark.parametrize("dry", [[], ["--dry-run"]], ids=["", "dry"])
@pytest.mark.parametrize("command", ["explain", "compare", "report", "likelihood"])
def test_points_of_another_shape_are_refused_before_any_work(
    command: str, dry: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("__call__", "posterior", "neighbours", "nearest"):
        monkeypatch.setattr(OptimalDenoiser, name, never)
    assert main([command, "pretrained:digits", "--dataset", "digits", "--held-out", "five-deltas", *dry]) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith(
        "error: held-out points must have the shape of the data, (1, 8, 8), got (1,) (five-deltas): "
    )
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--held-out", "digits", "--held-out-option", "n=5"], "held-out points must be none of the data"),
        (["--sigmas", "1e9"], "sigmas must lie within"),
        (["--out", "file/there"], "could not be written to"),
    ],
)
def test_what_explain_refuses_it_refuses_before_any_work(
    words: list[str], sentence: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("file").write_text("")
    for name in ("seeking_refining_border", "families"):
        monkeypatch.setattr(f"neural.cli.explaining.{name}", never)
    assert main(["explain", "pretrained:digits", "--dataset", "digits", *words]) == 2
    assert sentence in capsys.readouterr().err.strip().splitlines()[-1]
