"""A network asked in another convention is noticed before it is measured, and its own is named."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from neural import (
    agreement,
    from_ddpm,
    from_edm,
    from_edm_raw,
    from_flow,
    from_prediction,
    from_unet,
    open_model,
    sanity,
)
from neural.__main__ import main
from neural.presets import PRESETS
from neural.run import new_training
from neural.training import train
from optimal import OptimalDenoiser, load

KEPT = torch.cumprod(1 - torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64), 0)
LOGS = ((1 - KEPT) / KEPT).log() / 2
D = OptimalDenoiser(load("digits"))


def wide(value: Tensor, x: Tensor) -> Tensor:
    return value.view(-1, *[1] * (x.ndim - 1))


def nearly(x: Tensor, sigma: Tensor) -> Tensor:
    """The optimum with an error of a few percent: a network that was trained."""
    w = wide(sigma, x)
    return D(x, sigma) + 0.05 * (3 * x).sin() * w / (1 + w**2).sqrt()


class Steps(nn.Module):
    """DDPM's eps."""

    def forward(self, x_t: Tensor, t: Tensor) -> Tensor:
        t = t.double().flatten().clamp(0, 999)
        low = t.floor().long().clamp_max(998)
        sigma = (LOGS[low] + (t - low) * (LOGS[low + 1] - LOGS[low])).exp()
        w = wide(sigma, x_t)
        x = x_t.double() * (1 + w**2).sqrt()
        return ((x - nearly(x, sigma)) / w).to(x_t)


class Flow(nn.Module):
    """eps − x0 at t = 1 for the noise."""

    def forward(self, x_t: Tensor, t: Tensor) -> Tensor:
        t = t.double().clamp(1e-6, 1 - 1e-6)
        x0 = nearly(x_t.double() / wide(1 - t, x_t), t / (1 - t))
        return ((x_t - x0) / wide(t, x_t)).to(x_t)


class Backward(nn.Module):
    """x0 − eps at t = 1 for the data."""

    def forward(self, x_t: Tensor, t: Tensor) -> Tensor:
        return -Flow()(x_t, 1 - t)


class Inner(nn.Module):
    """EDM's F."""

    def forward(self, x: Tensor, c_noise: Tensor) -> Tensor:
        sigma = (4 * c_noise.double()).exp()
        w = wide(sigma, x)
        size = (w**2 + 0.25).sqrt()
        noisy = x.double() * size
        return ((nearly(noisy, sigma) - 0.25 / size**2 * noisy) / (0.5 * w / size)).to(x)


DDPM, FLOW, BACK, RAW = (
    'from_ddpm(net, alphas_cumprod, "eps")',
    "from_flow(net)",
    "from_flow(net, data_at=1)",
    "from_edm_raw(net, sigma_data=0.5)",
)


FAR = "it is far from the optimum there, hardly trained or trained on other data"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("F", "named"),
    [
        (from_ddpm(Steps(), KEPT), None),
        (from_flow(Flow()), None),
        (from_flow(Backward(), data_at=1), None),
        (from_edm_raw(Inner()), None),
        (nearly, None),
        (from_flow(Steps()), DDPM),
        (from_flow(Steps(), time_scale=1000), DDPM),
        (from_ddpm(Steps(), KEPT, "v"), DDPM),
        (from_ddpm(Steps(), KEPT, "x0"), DDPM),
        (from_edm(Steps()), DDPM),
        (from_prediction(Steps(), "eps"), DDPM),
        (from_flow(Backward()), BACK),
        (from_flow(Flow(), data_at=1), FLOW),
        (from_edm(Inner()), RAW),
        (from_edm(Flow()), FLOW),
    ],
)
def test_the_convention_that_fits_is_named(F: Callable[..., Tensor], named: str | None) -> None:
    line = sanity(F, D)
    if named is None:
        assert line is None
    else:
        assert line is not None
        assert line.startswith("worse than ")
        assert f"is this the right convention? {named} fits best of " in line
        assert float(agreement(F, D, [2.0], draws=64).gap_share[0]) > 1


def test_a_network_that_no_convention_fits() -> None:
    line = sanity(from_edm(lambda x, sigma: 100 + 0 * x), D)
    assert line is not None
    assert line.startswith("worse than returning x at sigma = 0.0541 and than the mean of the data at sigma = 5.41: ")
    assert line.endswith("others that were tried fits")


@pytest.mark.parametrize("factor", [2.0, 0.5, 10.0, 0.1])
def test_a_wrong_unit_of_sigma_is_named(factor: float) -> None:
    line = sanity(lambda x, sigma: D(x, factor * sigma), D)
    assert line is not None
    assert f"{1 / factor:g} sigma" in line


@pytest.mark.parametrize("name", ["digits", "five-deltas", "ring", "faces"])
def test_no_unit_is_questioned_where_it_is_right(name: str) -> None:
    data = load(name)
    own = OptimalDenoiser(data)
    half = OptimalDenoiser(data.points[::2])
    assert sanity(own, own) is None
    for F in (half, lambda x, s: 0.9 * own(x, s), lambda x, s: own(x, s) + 0.1 * (40 * x).sin()):
        line = sanity(F, own) or "none of"
        assert "unit" not in line
        assert "none of" in line


def test_other_data_are_asked_for() -> None:
    """The optimum of half of the data is in the right convention, and fails on the other half."""
    points = load("digits").points
    line = sanity(OptimalDenoiser(points[:900]), D)
    assert line is not None
    assert line.startswith("worse than returning x at sigma = 0.0541, and none of ")
    assert line.endswith(FAR)
    other = sanity(OptimalDenoiser(load("digits").points.flip(-2)), D)
    assert other is not None
    assert "fits best" not in other
    wrong = sanity(from_flow(Steps()), D)
    assert wrong is not None
    assert "other data" not in wrong


@pytest.mark.slow
def test_a_network_that_was_hardly_trained_is_not_accused_of_a_unit() -> None:
    config = PRESETS["digits"]
    training, objective = new_training(config, load("digits"), device="cpu")
    for report in train(training, objective):
        if report.step == 25:
            break
    line = sanity(training.model.eval(), D)
    assert line is None or ("unit" not in line and "none of" in line)


class Classes(nn.Module):
    """The optimum of a class."""

    def __init__(self, data: Any) -> None:
        super().__init__()
        labels = torch.as_tensor(data.labels)
        self.optima = [OptimalDenoiser(data.points[labels == c]) for c in range(10)]

    def forward(self, x: Tensor, sigma: Tensor, class_labels: Tensor) -> Tensor:
        return torch.cat([self.optima[int(c)](x[i : i + 1], sigma[i : i + 1]) for i, c in enumerate(class_labels)])


@pytest.mark.slow
def test_labels_go_with_the_points() -> None:
    data = load("digits")
    model = open_model(Classes(data))
    labels = torch.as_tensor(data.labels)
    assert sanity(model, D, labels=labels) is None
    assert sanity(model, D, labels=(labels + 1) % 10) is not None
    with pytest.raises(ValueError, match="labels must be one for all, or one a point, 1797 of them, got 3"):
        sanity(model, D, labels=[1, 2, 3])
    with pytest.raises(ValueError, match=r"is made for points of shape \(3,\), the data has \(1, 8, 8\)"):
        sanity(open_model(nearly, event=(3,)), D)


def test_students_answer_with_points() -> None:
    """A jump to a data point is farther from x0 than the mean is, and right."""
    from diffusers import LCMScheduler

    jump = open_model(lambda x, sigma: D.take(D.nearest(x)))
    line = sanity(jump, D)
    assert line is not None
    assert line.startswith("worse than the mean of the data at sigma")
    assert sanity(dataclasses.replace(jump, meant=lambda steps, seed: {}), D) is None
    assert sanity(from_unet(Steps(), LCMScheduler()), D) is None


def test_the_command_line_asks_before_it_measures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "asked_wrongly.py").write_text("def make():\n    return lambda x, sigma: 3 + 0 * x\n")
    monkeypatch.syspath_prepend(tmp_path)
    words = "compare python:asked_wrongly.make --dataset two-points --sigmas 0.5 --draws 8 -n 4 --steps 1 --out"
    assert main([*words.split(), str(tmp_path / "found")]) == 0
    said = capsys.readouterr().err
    assert "warning: python:asked_wrongly.make is worse than returning x at sigma = 0.1 and than" in said
