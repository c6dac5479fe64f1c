"""Networks that come with the toolkit are what their recipe says, and as far from the optimum as was written down."""

from __future__ import annotations

import dataclasses
import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from neural import fit, measure, open_model, samplers, student_of
from neural.__main__ import main
from neural.config import Experiment, Network, Optimisation, experiment_of
from neural.pretrained import About, Recipe, about, folder_of, names, recipe
from neural.pretrained.again import again, measured, ship, verdict
from neural.pretrained.slim import slim
from neural.saved import load_model, student_at, student_steps
from neural.teachers import OptimumByClass
from optimal import OptimalDenoiser

SHELF = Path(folder_of("toy")).parent
MEGABYTES = 25
SMALL = Experiment("two-points", {}, Network(width=16, depth=1), Optimisation(steps=40, batch=32, warmup=5))
TINY = Recipe("toy", SMALL, draws=64, samples=32, trajectory=32)


def test_what_is_shipped_has_a_recipe_and_is_small() -> None:
    there = names()
    assert {"toy", "toy-consistency", "toy-progressive", "toy-knowledge", "toy-multistep"} <= set(there)
    for name in there:
        assert recipe(name).name == name
    assert sum(path.stat().st_size for path in SHELF.rglob("*") if path.is_file()) < MEGABYTES * 2**20


@pytest.mark.parametrize("name", names())
def test_a_network_is_that_of_its_recipe(name: str) -> None:
    what, known = recipe(name), about(name)
    network, config = load_model(folder_of(name))
    assert config == what.config
    assert (known.dataset, known.fingerprint) == (what.data().name, what.data().fingerprint)
    assert known.points == len(what.data())
    assert known.weights == sum(weight.numel() for weight in network.parameters())
    assert known.seconds > 0
    assert known.steps > 0


@pytest.mark.parametrize("name", [name for name in names() if isinstance(recipe(name).config, Experiment)])
def test_a_network_is_as_far_from_the_optimum_as_was_written_down(name: str) -> None:
    """Measured again, with other draws: the intervals meet at every level that is looked at."""
    what, known = recipe(name), about(name)
    rows = [row for row in known.gap if row["on"] == "data"]
    chosen = rows[2::4]
    D, model, levels = OptimalDenoiser(what.data()), open_model(f"pretrained:{name}"), [row["sigma"] for row in chosen]
    # Of several levels, each but once in a thousand.
    draws = 512 if math.prod(D.event) < 3072 else 64
    found = measure(model, D, sigmas=levels, draws=draws, seed=known.seed + 1, level=0.999)
    for then, now in zip(chosen, found.rows(), strict=True):
        for column in ("gap_per_value", "gap_share"):
            assert now[f"{column}_low"] <= then[f"{column}_high"], (name, then["sigma"])
            assert then[f"{column}_low"] <= now[f"{column}_high"], (name, then["sigma"])


@pytest.mark.parametrize("name", [name for name in names() if experiment_of(recipe(name).config).network.classes])
def test_a_network_given_labels_is_as_far_from_the_optimum_of_each_class_as_was_written_down(name: str) -> None:
    what, known = recipe(name), about(name)
    classes = experiment_of(what.config).network.classes
    assert {row["label"] for row in known.labels} == {*range(classes)}
    model, optima = open_model(f"pretrained:{name}"), OptimumByClass(what.data(), classes)
    levels = sorted({row["sigma"] for row in known.labels})[4:9:2]
    for label in range(classes):
        then = [row for row in known.labels if row["label"] == label and row["sigma"] in levels]
        D = optima.of(label)
        now = measure(model.given(label), D, sigmas=levels, draws=256, seed=known.seed + 1, level=0.9999).rows()
        for a, b in zip(then, now, strict=True):
            assert b["gap_share_low"] <= a["gap_share_high"], (label, a["sigma"])
            assert a["gap_share_low"] <= b["gap_share_high"], (label, a["sigma"])


@pytest.mark.parametrize("name", [name for name in names() if not isinstance(recipe(name).config, Experiment)])
def test_a_student_lands_as_often_where_the_flow_does_as_was_written_down(name: str) -> None:
    what, known = recipe(name), about(name)
    model = open_model(f"pretrained:{name}")
    now = samplers({name: model}, OptimalDenoiser(what.data()), n=256, seed=known.seed + 1)[0]
    then = known.samplers[0]
    assert now["same_low"] <= then["same_high"]
    assert then["same_low"] <= now["same_high"]


def test_a_network_is_opened_sampled_and_compared_by_its_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = open_model("pretrained:toy")
    assert model.name == "pretrained:toy"
    assert model(torch.zeros(3, 1), 0.5).shape == (3, 1)
    words = ["compare", "pretrained:toy", "pretrained:toy-progressive", "--quick", "--steps", "1", "2", "--json"]
    assert main([*words, "--out", str(tmp_path / "c")]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["dataset"] == "five-deltas"
    methods = {row["method"]: row for row in found["samplers"]}
    assert methods["pretrained:toy-progressive, 2 steps as it is meant"]["same"] > 0.9


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (lambda at: (at / "about.json").unlink(), r"network toy is not there: .*about.json is missing"),
        (lambda at: (at / "about.json").write_text("{"), "about.json is damaged"),
        (lambda at: (at / "about.json").write_text('{"format": 1}'), "about.json is damaged"),
        (lambda at: (at / "about.json").write_text('{"format": 0}'), "made by another version"),
        (lambda at: next(at.glob("step-*")).unlink(), "the shipped network toy is damaged"),
        (lambda at: next(at.glob("step-*")).write_bytes(b"x" * 1000), "the shipped network toy is damaged"),
    ],
)
def test_a_damaged_network_is_one_sentence_and_an_offer(
    tmp_path: Path, harm: Callable[[Path], object], message: str
) -> None:
    shutil.copytree(SHELF / "toy", tmp_path / "toy")
    assert folder_of("toy", tmp_path) == tmp_path / "toy"
    harm(tmp_path / "toy")
    with pytest.raises(ValueError, match=message) as told:
        folder_of("toy", tmp_path)
    assert str(told.value).endswith("`python -m neural pretrain toy --ship` trains it again")


def test_a_name_that_is_not_shipped() -> None:
    with pytest.raises(ValueError, match=r"no network 'digit' comes with the toolkit; did you mean 'digits'\?"):
        open_model("pretrained:digit")


def test_a_run_without_its_training_opens_and_cannot_go_on(tmp_path: Path) -> None:
    run = again(TINY, tmp_path, progress=False)
    size = slim(run, tmp_path / "slim", half=False)
    assert size == sum(path.stat().st_size for path in (tmp_path / "slim").iterdir())
    whole, thin = (open_model(str(path)) for path in (run, tmp_path / "slim"))
    x = torch.linspace(-2, 2, 9)[:, None]
    assert torch.equal(whole(x, 0.7), thin(x, 0.7))
    slim(run, tmp_path / "half", half=True)
    torch.testing.assert_close(open_model(str(tmp_path / "half"))(x, 0.7), whole(x, 0.7), atol=2e-3, rtol=0)
    with pytest.raises(
        ValueError, match="holds the network alone, as it is shipped: it can be used, but not gone on with"
    ):
        fit(dataclasses.replace(SMALL), SMALL.load(), tmp_path / "slim", resume=True)
    with pytest.raises(ValueError, match="holds no finished training"):
        slim(tmp_path / "nothing", tmp_path / "out", half=False)


def test_what_is_trained_again_goes_on_and_is_held_to_what_was_shipped(tmp_path: Path) -> None:
    shelf = tmp_path / "shelf"
    run = again(TINY, tmp_path / "runs", progress=False)
    assert again(TINY, tmp_path / "runs", progress=False) == run
    known, size = ship(TINY, run, shelf_folder=shelf, progress=False)
    assert 0 < size < 1e5
    assert about("toy", shelf) == known
    assert known.seconds > 0
    assert {row["on"] for row in known.gap} == {"data", "trajectory"}
    told: list[str] = []
    verdict(known, measured(TINY, run, progress=False), told.append)
    assert len(told) == len({row["sigma"] for row in known.gap if row["on"] == "data"})
    assert all(", as the shipped" in line for line in told)
    rows = [row | {name: 2 * row[name] + 1 for name in row if name.startswith("gap_share")} for row in known.gap]
    told.clear()
    verdict(known, {"gap": rows, "samplers": []}, told.append)
    assert all(", above the shipped" in line for line in told)


def test_points_that_were_left_out_are_measured_too(tmp_path: Path) -> None:
    config = dataclasses.replace(SMALL, dataset="ring", options={"n": 20, "without": (1, 4)})
    what = Recipe("toy", config, draws=64, samples=32, trajectory=32)
    found = measured(what, again(what, tmp_path, progress=False), progress=False)
    assert {row["on"] for row in found["gap"]} == {"data", "held-out", "trajectory"}
    assert len(what.data()) == 15


@pytest.mark.slow
def test_a_network_with_classes_is_measured_beside_the_optimum_of_each(tmp_path: Path) -> None:
    config = dataclasses.replace(
        SMALL, dataset="digits", options={"n": 100}, network=Network(width=16, depth=1, classes=10)
    )
    what = Recipe("toy", config, draws=64, samples=32, trajectory=32)
    known, _ = ship(what, again(what, tmp_path, progress=False), shelf_folder=tmp_path / "shelf", progress=False)
    assert about("toy", tmp_path / "shelf") == known
    levels = [row["sigma"] for row in known.gap if row["on"] == "data"]
    assert [(row["label"], row["sigma"]) for row in known.labels] == [(c, s) for c in range(10) for s in levels]
    # At high noise a class is its mean, which the network, hardly trained, does not know.
    assert known.labels[-1]["gap_share"] > 1


def test_students_are_shipped_with_their_stages(tmp_path: Path) -> None:
    config = student_of("toy", "progressive")
    small = dataclasses.replace(config, levels=4, experiment=SMALL)
    what = Recipe("toy-progressive", small, samples=32)
    known, _ = ship(what, again(what, tmp_path, progress=False), shelf_folder=tmp_path / "shelf", progress=False)
    assert known.steps == 80
    assert known.gap == []
    assert [row["nfe"] for row in known.samplers] == [1, 2]


def test_stages_that_are_not_shipped_are_not_asked_for(tmp_path: Path) -> None:
    config = dataclasses.replace(student_of("toy", "progressive"), levels=4, experiment=SMALL)
    what = Recipe("toy-progressive", config, samples=32, stages=(1,))
    known, _ = ship(what, again(what, tmp_path, progress=False), shelf_folder=tmp_path / "shelf", progress=False)
    folder = tmp_path / "shelf" / "toy-progressive"
    assert [row["nfe"] for row in known.samplers] == [1]
    assert [path.name for path in folder.glob("steps-*")] == ["steps-1"]
    assert student_steps(folder) == (1,)
    assert load_model(folder)[0](torch.zeros(2, 1), 1.0).shape == (2, 1)
    with pytest.raises(ValueError, match="has no stage of 2 steps, but of 1"):
        student_at(folder, 2)


def test_the_command_says_what_it_would_train(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["pretrain", "toy", "--dry-run", "--out", str(tmp_path)]) == 0
    told = capsys.readouterr()
    assert "nothing was trained" in told.out
    assert "toy: " in told.err
    assert main(["pretrain", "toys"]) == 2
    assert "did you mean 'toy'?" in capsys.readouterr().err
    assert main(["pretrain", "toy", "--threads", "0"]) == 2


def test_a_damaged_network_can_be_trained_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What its sentence offers."""
    (tmp_path / "toy").mkdir()
    (tmp_path / "toy" / "about.json").write_text("{")
    monkeypatch.setattr("neural.cli.pretraining.names", lambda: ["toy"])
    monkeypatch.setattr("neural.cli.pretraining.about", lambda name: about(name, tmp_path))
    assert main(["pretrain", "toy", "--dry-run"]) == 0
    told = capsys.readouterr()
    assert "about.json is damaged" in told.err
    assert "nothing was trained" in told.out


def test_about_is_what_its_file_holds(tmp_path: Path) -> None:
    values = json.loads((SHELF / "toy" / "about.json").read_text())
    assert About(**values) == about("toy")
