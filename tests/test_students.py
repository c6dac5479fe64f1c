"""A student is one thing, by whatever path it is opened: sampled, compared and reported by the stage that was made."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from neural import Distillation, Experiment, Network, Optimisation, distil, fit, load_model, open_model
from neural.checkpoint import latest
from neural.named import as_meant, own_pairs, takes
from neural.report.plan import Effort
from neural.report.study import study
from optimal import OptimalDenoiser, karras, load, sample

DATA = load("two-points")
D = OptimalDenoiser(DATA)
SMALL = Experiment(
    "two-points",
    network=Network(width=8, depth=1),
    optimisation=Optimisation(steps=2, batch=8, warmup=2, sigma_min=0.05, sigma_max=20.0),
)
X = torch.linspace(-2, 2, 5)[:, None]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    distil(Distillation("progressive", levels=8, experiment=SMALL), DATA, D, folder / "p")
    distil(Distillation("knowledge", levels=4, pairs=24, experiment=SMALL), DATA, D, folder / "k")
    fit(SMALL, DATA, folder / "steps-7")
    fit(SMALL, DATA, folder / "student")
    return folder


@pytest.mark.parametrize("steps", [4, 2, 1, None])
def test_every_number_of_steps_has_its_stage(runs: Path, steps: int | None) -> None:
    own = steps or 1
    expected = load_model(runs / "p" / f"steps-{own}")[0]
    sigmas = karras(8, sigma_min=0.05, sigma_max=20.0)[:: 8 // own]
    paths = [runs / "p", runs / "p" / f"steps-{own}", latest(runs / "p" / f"steps-{own}")]
    for path in paths:
        # Whatever it is called.
        asked, arguments = as_meant(open_model(path, name="other"), steps, 0)
        assert asked.name == "other"
        assert torch.equal(asked(X, 1.0), expected(X, 1.0)), path
        torch.testing.assert_close(arguments["sigmas"], sigmas)
    # Without named steps, `open_model` and `sampling` are the same student.
    if steps in (None, 1):
        model = open_model(runs / "p")
        assert torch.equal(sample(model, X, **model.sampling()), sample(asked, X, **arguments))


def test_stages_that_are_not_there(runs: Path) -> None:
    for path, steps in (("p", 3), ("p", 8), ("p/steps-2", 4)):
        model = open_model(runs / path)
        assert not takes(model, steps)
        with pytest.raises(ValueError, match=f"has no stage of {steps} steps"):
            as_meant(model, steps, 0)
    with pytest.raises(ValueError, match=r"this student takes 1 step, got 4: each other stage of .*p is a network"):
        open_model(runs / "p").sampling(4)
    assert takes(open_model(runs / "p" / "steps-2"), 2)


@pytest.mark.parametrize("inside", ["", "student"])
def test_a_students_pairs_are_found_by_its_stage_too(runs: Path, inside: str, monkeypatch: pytest.MonkeyPatch) -> None:
    found = [own_pairs(open_model(path)) for path in (runs / "k" / inside, latest(runs / "k" / "student"))]
    monkeypatch.chdir(runs / "k" / inside)
    found += [own_pairs(open_model("."))]
    for pairs in found:
        assert pairs is not None
        assert pairs[0].shape == pairs[1].shape == (24, 1)
    model = open_model(".")
    assert len(model.sampling()["sigmas"]) == 2
    assert takes(model, 5)


@pytest.mark.parametrize("name", ["steps-7", "student"])
def test_a_network_in_a_folder_of_such_a_name_is_no_student(runs: Path, name: str) -> None:
    model = open_model(runs / name)
    assert model.meant is None
    assert own_pairs(model) is None
    assert not takes(model, 1)


def test_a_report_is_of_the_stage_that_takes_so_many_steps(runs: Path) -> None:
    told: list[float] = []
    models = [open_model(runs / path, name=path) for path in ("p", "p/steps-2", "p/steps-1")]
    effort = Effort(8, 6, 20)
    whole, stage = study(models[:2], DATA, sigmas=[1.0], steps=2, effort=effort, say=told.append).networks
    assert whole.nfe == stage.nfe == 2
    assert torch.equal(whole.samples, stage.samples)
    assert torch.equal(whole.measured[0].columns["gap"].value, stage.measured[0].columns["gap"].value)
    (last,) = study(models[2:], DATA, sigmas=[1.0], effort=effort).networks
    assert last.nfe == 1
    assert not torch.equal(last.measured[0].columns["gap"].value, stage.measured[0].columns["gap"].value)
    assert told[0] > 0
