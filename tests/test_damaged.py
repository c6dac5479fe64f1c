"""Runs on disk that are damaged or foreign: one sentence that names the file and what is wrong, never defaults."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from safetensors import safe_open
from safetensors.torch import save_file

from neural import Distillation, Experiment, Network, Optimisation, distil, fit, load_model, open_model, training_pairs
from neural.checkpoint import checkpoints, latest
from neural.config import from_json, to_json
from neural.saved import student_steps
from optimal import OptimalDenoiser, load

DATA = load("two-points")
SMALL = Experiment(
    "two-points", network=Network(width=8, depth=1), optimisation=Optimisation(steps=200, batch=8, warmup=2)
)
STUDENT = Distillation("knowledge", levels=4, pairs=24, experiment=SMALL)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    fit(SMALL, DATA, folder / "net", every=100, keep=5)
    distil(STUDENT, DATA, OptimalDenoiser(DATA), folder / "student")
    return folder


@pytest.fixture
def net(runs: Path, tmp_path: Path) -> Path:
    return shutil.copytree(runs / "net", tmp_path / "net")


@pytest.fixture
def student(runs: Path, tmp_path: Path) -> Path:
    return shutil.copytree(runs / "student", tmp_path / "student")


def without(text: str, *path: str) -> str:
    """A configuration without one of its fields."""
    whole = json.loads(text)
    inner = whole
    for name in path[:-1]:
        inner = inner[name]
    del inner[path[-1]]
    return json.dumps(whole)


def changed(path: Path, header: Mapping[str, str | None], keep: Callable[[str], bool] = lambda name: True) -> None:
    """A checkpoint with another header, None taking an entry away, and some of its tensors."""
    with safe_open(path, framework="pt") as file:
        now = file.metadata() | header
        tensors = {name: file.get_tensor(name) for name in file.keys() if keep(name)}  # noqa: SIM118
    # What a foreign program writes has no digest; ours would tell by that.
    now = {name: value for name, value in now.items() if value is not None and name != "digest"}
    save_file(tensors, path, metadata=now)


CONFIGURATIONS = [
    ("{}", "lacks dataset, options, network, optimisation"),
    (without(to_json(SMALL), "optimisation", "lr"), "Optimisation lacks lr"),
    (without(to_json(SMALL), "network"), "Experiment lacks network"),
    (json.dumps({"network": "mlp"} | {k: v for k, v in json.loads(to_json(SMALL)).items() if k != "network"}), "a str"),
    ("[]", "Experiment is an object with named fields, got a list"),
    ("null", "Experiment is an object with named fields, got a NoneType"),
    (to_json(SMALL).replace('"width": 8', '"width": "8"'), 'width of Network cannot be "8"'),
    (to_json(SMALL).replace('"flip": false', '"flip": "no"'), 'flip of Optimisation cannot be "no"'),
    (to_json(SMALL).replace('"steps": 200', '"steps": 0'), "steps must be at least 1, got 0"),
    ("{", "Expecting property name"),
]


@pytest.mark.parametrize(("text", "sentence"), CONFIGURATIONS)
def test_the_configuration_of_a_checkpoint(text: str, sentence: str, net: Path) -> None:
    changed(latest(net), {"config": text})
    with pytest.raises(ValueError, match=r"step-000000200.safetensors is a damaged checkpoint: ") as caught:
        open_model(net)
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("{}", "Distillation lacks technique, teacher, levels, solver, pairs, experiment"),
        (without(to_json(STUDENT), "experiment", "network", "depth"), "Network lacks depth"),
        (to_json(SMALL), "Distillation has no field 'dataset'"),
        ("[]", "Distillation is an object with named fields, got a list"),
    ],
)
def test_the_configuration_of_a_distillation(text: str, sentence: str, student: Path) -> None:
    (student / "distillation.json").write_text(text)
    for ask in (open_model, load_model, student_steps, training_pairs):
        with pytest.raises(ValueError, match=r"distillation.json is damaged: ") as caught:
            ask(student)
        assert sentence in str(caught.value)


def test_what_earlier_versions_did_not_say(student: Path) -> None:
    (student / "distillation.json").write_text(without(to_json(STUDENT), "uses"))
    assert from_json(Distillation, (student / "distillation.json").read_text()) == STUDENT
    open_model(student)


@pytest.mark.parametrize(
    ("header", "sentence"),
    [
        ({"format": "99"}, "was made by another version of this program"),
        ({"format": None}, "was made by another version of this program"),
        ({"kind": None}, "is a checkpoint of a foreign program"),
        ({"step": None}, "its header lacks step"),
        ({"config": None}, "its header lacks config"),
        ({"step": "many"}, "is a damaged checkpoint: invalid literal"),
        ({"data": None}, "its header lacks data"),
        ({"data": "{}"}, "it does not say the name, fingerprint, event, sigma_data of data"),
        ({"data": "[]"}, "it does not say the name"),
        ({"data": '{"name": "a", "fingerprint": "b", "sigma_data": 1}'}, "it does not say the event of data"),
        ({"data": "{"}, "or a damaged one: Expecting property name"),
    ],
)
def test_the_header_of_a_checkpoint(header: dict[str, Any], sentence: str, net: Path) -> None:
    changed(latest(net), header)
    with pytest.raises(ValueError, match=r"step-000000200.safetensors") as caught:
        open_model(net)
    assert sentence in str(caught.value)
    with pytest.raises(ValueError, match=r"step-000000200.safetensors"):
        fit(SMALL, DATA, net, resume=True)


@pytest.mark.parametrize("kept", [0, 7, 8, 100, 3000, -40, -1])
def test_a_truncated_checkpoint(kept: int, net: Path) -> None:
    path = latest(net)
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(ValueError, match=r"step-000000200.safetensors is no checkpoint, or a damaged one"):
        open_model(net)


@pytest.mark.parametrize("gone", ["average.", "model.", "adam.", "means"])
def test_a_checkpoint_without_tensors(gone: str, net: Path) -> None:
    before = latest(net)
    changed(before, {}, lambda name: not name.startswith(gone))
    with pytest.raises(ValueError, match=r"step-000000200.safetensors is a damaged checkpoint, or one of another"):
        fit(SMALL, DATA, net, resume=True)
    if gone == "average.":
        with pytest.raises(ValueError, match=r"the weights in .*step-000000200.safetensors are not those of"):
            open_model(net)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (b"step,loss,lr,gradient\n100,1.0,1.0\n200,1,1,1\n", "its line 2 is no row of 4 numbers"),
        (b"step,loss,lr,gradient\n\xff\xfe\x00\n", "its line 2 is no row of 4 numbers"),
        (b"step,loss,lr,gradient\n100,1,1,1\n\xc2\xb3,1,1,1\n", "its line 3 is no row of 4 numbers"),
        (b"step,loss,lr,gradient\nmany,1,1,1\n", "its line 2 is no row of 4 numbers"),
    ],
)
def test_damaged_metrics_are_named(text: bytes, sentence: str, net: Path) -> None:
    checkpoints(net)[-1].unlink()
    (net / "metrics.csv").write_bytes(text)
    with pytest.raises(ValueError, match=r"metrics.csv is damaged: ") as caught:
        fit(SMALL, DATA, net, resume=True)
    assert sentence in str(caught.value)
    assert (net / "metrics.csv").read_bytes() == text


def test_a_row_that_was_cut_off_is_written_again(net: Path) -> None:
    whole = (net / "metrics.csv").read_text()
    checkpoints(net)[-1].unlink()
    first = whole.splitlines(keepends=True)[:2]
    # Of step 200, of which the first digits look like an earlier one.
    (net / "metrics.csv").write_text("".join(first) + "20")
    fit(SMALL, DATA, net, resume=True)
    assert (net / "metrics.csv").read_text() == whole
