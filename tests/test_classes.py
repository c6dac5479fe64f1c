"""Class-conditional networks: labels in training, the optimum that each label has, and networks that take none."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from second_device import second_device

from neural import PRESETS, Distillation, Experiment, Network, Optimisation, distil, fit, open_model, student_of
from neural.classes import labels_of, of_label
from neural.config import from_json, key, to_json
from neural.loss import Denoising, Regression
from neural.networks import build
from neural.run import new_training
from neural.streams import Streams
from neural.teachers import OptimumByClass
from optimal import Dataset, OptimalDenoiser, load

POINTS = np.array([[-1.0, 0.0], [-1.0, 1.0], [1.0, 0.0], [1.0, 1.0]], dtype=np.float32)
TWO = Dataset("two classes", POINTS, np.array([0, 0, 1, 1]))
NETWORK = Network(width=32, depth=2, classes=2)
OPTIONS = Optimisation(steps=500, batch=256, noise="log_normal", P_mean=0.0, P_std=1.0, warmup=20, lr=3e-3)


def x_of(rows: int) -> torch.Tensor:
    """Noisy points."""
    generator = torch.Generator().manual_seed(1)
    index = torch.randint(4, (rows,), generator=generator)
    return torch.from_numpy(POINTS)[index] + 0.7 * torch.randn(rows, 2, generator=generator)


@pytest.fixture(scope="module", params=["x0", "posterior"])
def trained(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp(request.param)
    config = Experiment("two classes", {}, NETWORK, dataclasses.replace(OPTIONS, target=request.param))
    fit(config, TWO, folder)
    return folder


@pytest.mark.slow
def test_given_a_label_a_network_learns_the_optimum_of_its_class_and_without_one_that_of_all(trained: Path) -> None:
    x, optima = x_of(500), OptimumByClass(TWO, 2)
    model = open_model(str(trained))
    answers = {label: model if label < 0 else model.given(label) for label in (-1, 0, 1)}
    for label, F in answers.items():
        gaps = {of: float((F(x, 0.7) - optima.of(of)(x, 0.7)).square().mean()) for of in (-1, 0, 1)}
        assert gaps[label] < 0.02, gaps
        assert all(gaps[other] > 5 * gaps[label] for other in gaps if other != label), gaps
    mixed = torch.arange(500) % 3 - 1
    found = model.given(mixed)(x, 0.7)
    for label, F in answers.items():
        rows = mixed == label
        torch.testing.assert_close(found[rows], F(x[rows], 0.7), atol=1e-5, rtol=0)


@pytest.mark.slow
def test_a_network_with_classes_can_be_guided(trained: Path) -> None:
    """F + w (F_c − F) moves away from the other class, as the optima's own does."""
    x, optima = x_of(500), OptimumByClass(TWO, 2)
    model, weight = open_model(str(trained)), 2.0
    for label, side in ((0, -1.0), (1, 1.0)):
        found = model(x, 0.7) + weight * (model.given(label)(x, 0.7) - model(x, 0.7))
        wanted = optima.of(-1)(x, 0.7) + weight * (optima.of(label)(x, 0.7) - optima.of(-1)(x, 0.7))
        assert float((found - wanted).square().mean()) < 0.2
        assert float((side * found[:, 0]).mean()) > 1


def test_the_optimum_by_class_is_that_of_each_row() -> None:
    data = load("digits")
    optima, labels = OptimumByClass(data, 10), torch.tensor([3, -1, 9, 3])
    x = data.points[:4] + 0.5
    sigma = torch.tensor([0.3, 0.5, 1.0, 2.0])
    found = optima(x, sigma, labels)
    for row, label in enumerate(labels.tolist()):
        D = OptimalDenoiser(data if label < 0 else of_label(data, label))
        torch.testing.assert_close(found[row : row + 1], D(x[row : row + 1], float(sigma[row])), atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(optima(x, 0.5), OptimalDenoiser(data)(x, 0.5))
    with pytest.raises(ValueError, match="labels must lie in 0 … 9, the classes of the network, or be -1"):
        optima(x, 0.5, 10)
    few = Dataset("few", POINTS, np.array([0, 0, 2, 2]))
    with pytest.raises(ValueError, match="the data have no points of class 1"):
        OptimumByClass(few, 3)(torch.zeros(1, 2), 0.5, 1)


def test_labels_are_those_of_the_points_and_dropped_as_often_as_is_said() -> None:
    objective = Denoising(TWO, dataclasses.replace(OPTIONS, label_dropout=0.25), 1.0, 2)
    x0, sigma, eps, labels = objective.draw(4000, Streams(0))
    known = labels >= 0
    assert torch.equal(labels[known], (x0[known, 0] > 0).long())
    assert abs(float((~known).double().mean()) - 0.25) < 0.03
    # What is drawn beside them is what a training without labels draws.
    plain = Denoising(TWO, OPTIONS, 1.0).draw(4000, Streams(0))
    assert all(torch.equal(a, b) for a, b in zip((x0, sigma, eps), plain, strict=True))
    for share, count in ((0.0, 0), (1.0, 100)):
        options = dataclasses.replace(OPTIONS, label_dropout=share)
        assert int((Denoising(TWO, options, 1.0, 2).draw(100, Streams(0))[3] < 0).sum()) == count


def test_the_target_posterior_is_the_optimum_of_each_rows_label() -> None:
    optima = OptimumByClass(TWO, 2)
    objective = Regression(TWO, optima, OPTIONS, 1.0, 2)
    batch = objective.draw(200, Streams(3))

    def perfect(x: torch.Tensor, sigma: torch.Tensor, class_labels: torch.Tensor) -> torch.Tensor:
        return optima(x, sigma, class_labels)

    losses, _ = objective.loss(perfect, optima, batch)
    assert float(losses.abs().max()) < 1e-12
    wrong, _ = objective.loss(lambda x, sigma, class_labels: optima(x, sigma, 1), optima, batch)
    assert float(wrong[batch[3] == 0].mean()) > 0.1


@pytest.mark.parametrize("kind", ["mlp", "unet", "dit"])
def test_every_kind_takes_labels(kind: str) -> None:
    config = Network(kind=kind, width=32, depth=1, channels=(16,), layers=1, classes=3)  # pyright: ignore
    """Each has an answer of its own, and no label, −1, is what is asked without labels."""
    event = (1, 4, 4)
    F, x = build(config, event, 0.5).eval(), torch.randn(4, *event, generator=torch.Generator().manual_seed(0))
    assert F.classes == 3
    with torch.no_grad():
        for weight in F.parameters():
            weight.normal_(std=0.3, generator=torch.Generator().manual_seed(1))
    answers = [F(x, 0.7, label).detach() for label in (-1, 0, 1, 2)]
    torch.testing.assert_close(F(x, 0.7).detach(), answers[0])
    for i, a in enumerate(answers):
        assert all(not torch.allclose(a, b) for b in answers[i + 1 :])
    for labels, message in (
        (3, "labels must lie in 0 … 2, the classes of the network, or be -1 for none, got 3"),
        (torch.tensor([0, -2, 0, 0]), "got -2"),
        (torch.tensor([0, 1]), "labels must be one, or one a row: 2 of them for 4 rows"),
        (torch.eye(3)[:1].expand(4, 3), "labels must be whole numbers"),
    ):
        with pytest.raises(ValueError, match=message):
            F(x, 0.7, labels)
    plain = build(dataclasses.replace(config, classes=0), event, 0.5)
    with pytest.raises(ValueError, match="labels are given, and the network is not class-conditional"):
        plain(x, 0.7, 0)
    with pytest.raises(ValueError, match="takes no class_labels, and labels are given"):
        open_model(plain).given(0)


def test_a_training_with_labels_goes_on_bit_for_bit(tmp_path: Path) -> None:
    config = Experiment("two classes", {}, NETWORK, dataclasses.replace(OPTIONS, steps=6))
    whole = fit(config, TWO, tmp_path / "whole")
    fit(config, TWO, tmp_path / "cut", every=3)
    (tmp_path / "cut" / "step-000000006.safetensors").unlink()
    cut = fit(config, TWO, tmp_path / "cut", resume=True)
    for a, b in zip(whole.parameters(), cut.parameters(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["mlp", "unet", "dit"])
@pytest.mark.parametrize("target", ["x0", "posterior"])
def test_trained_with_labels_on_a_second_device_as_on_the_cpu(kind: Any, target: Any) -> None:
    """Labels follow the batch, and the optima of the classes are asked there."""
    images = Dataset("images", np.tile(POINTS[:, :, None, None], (1, 1, 4, 4)), np.array([0, 0, 1, 1]))
    options = dataclasses.replace(OPTIONS, steps=2, batch=8, target=target)
    config = Experiment("images", {}, Network(kind, 32, 1, (16,), 1, classes=2), options)
    x, labels = images.points + 0.3, torch.tensor([0, 1, -1, 1])
    expected = fit(config, images, device="cpu")(x, 0.7, labels).detach()
    with second_device() as device:
        found = fit(config, images, device=device)(x.to(device), 0.7, labels).detach().cpu()
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_data_whose_labels_are_not_those_of_the_network() -> None:
    config = Experiment("two classes", {}, NETWORK, OPTIONS)
    with pytest.raises(ValueError, match=r"plain has no labels, and network\.classes is 2: it must be 0"):
        new_training(config, Dataset("plain", POINTS))
    with pytest.raises(ValueError, match=r"network\.classes must be above all labels of more, 0 … 2, got 2"):
        new_training(config, Dataset("more", POINTS, np.array([0, 1, 2, 0])))
    assert labels_of(Dataset("one-hot", POINTS, np.eye(4, dtype=np.float32)), 4).tolist() == [0, 1, 2, 3]
    for field, value, message in (
        ("classes", -1, "classes must not be negative, got -1"),
        ("classes", 10**9, "classes must be at most"),
    ):
        with pytest.raises(ValueError, match=message):
            Network(**{field: value})
    for share in (-0.1, 1.1, float("nan")):
        with pytest.raises(ValueError, match=r"label_dropout must lie in \[0, 1\]"):
            Optimisation(label_dropout=share)


def test_students_take_no_labels(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"students take no labels: network\.classes must be 0, got 2"):
        distil(Distillation(experiment=Experiment(network=NETWORK)), TWO, OptimalDenoiser(TWO), tmp_path)
    assert not any(tmp_path.iterdir())
    student = student_of("digits-classes", "knowledge")
    assert student.experiment.network == dataclasses.replace(PRESETS["digits-classes"].network, classes=0)


def test_configurations_of_before_open_and_have_their_keys() -> None:
    """As they were written down before networks had classes."""
    old = {"toy": "f781bd8d01497d98", "digits": "e1da2bfb445bc89f"}
    assert {name: key(PRESETS[name]) for name in old} == old
    assert key(student_of("toy", "knowledge")) == "cce3fac91fe434fe"
    values = json.loads(to_json(PRESETS["toy"]))
    del values["network"]["classes"], values["network"]["patch"], values["optimisation"]["label_dropout"]
    assert from_json(Experiment, json.dumps(values)) == PRESETS["toy"]
    other = dataclasses.replace(PRESETS["toy"], network=dataclasses.replace(PRESETS["toy"].network, classes=2))
    assert key(other) != key(PRESETS["toy"])
    assert from_json(Experiment, to_json(other)) == other
