"""A model: one object from a folder, a function or a module, and what it is asked is checked."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from problems import small_unet
from torch import Tensor, nn

from neural import PRESETS, Model, fit, from_diffusers, from_edm, from_unet, open_model
from optimal import OptimalDenoiser, load, sample

DATA = torch.linspace(-1, 1, 24, dtype=torch.float64).view(6, 1, 2, 2)
D = OptimalDenoiser(DATA)


class Net(nn.Module):
    """What it was asked, kept; the answer depends on x, sigma and the labels of each row."""

    def __init__(self) -> None:
        super().__init__()
        self.weight, self.seen = nn.Parameter(torch.ones(())), []

    def forward(self, x: Tensor, sigma: Tensor, class_labels: Tensor | None = None, shift: float = 0.0) -> Tensor:
        self.seen.append((len(x), x.device, sigma.dtype))
        out = self.weight * x / (1 + sigma.view(-1, 1) ** 2) + shift
        return out if class_labels is None else out + class_labels.view(-1, 1)


def test_rows_are_asked_a_batch_at_a_time() -> None:
    net = Net()
    x, sigma = torch.randn(10, 3), torch.linspace(0.5, 5, 10)
    model = open_model(net, batch=4)
    labels = torch.arange(10)
    expected = x / (1 + sigma[:, None] ** 2) + labels[:, None]
    torch.testing.assert_close(model.given(labels)(x, sigma), expected)
    assert [rows for rows, *_ in net.seen] == [4, 4, 2]
    torch.testing.assert_close(model.given(3, shift=2.0)(x, 1.0), x / 2 + 5)
    torch.testing.assert_close(model(x, 1.0, class_labels=labels), x / 2 + labels[:, None])
    assert model(x[:0], 1.0).shape == (0, 3)


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda m: m(torch.zeros(2, 4), 1.0), r"is made for points of shape \(3,\), x has \(4,\)"),
        (lambda m: m(torch.zeros(2, 3), 9.0), "sigma must lie between 0.1 and 5, the range of Net, got 9"),
        (lambda m: m(torch.zeros(2, 3), [1.0, 0.01]), "sigma must lie between 0.1 and 5, the range of Net, got 0.01"),
        (lambda m: m(torch.zeros(2, 3), float("nan")), "sigma must be positive and finite"),
        (lambda m: m.given([1, 2, 3])(torch.zeros(2, 3), 1.0), "labels must be one, or one a row: 3 of them for 2"),
        (lambda _: open_model(Net), "Net is a class: give one of its kind"),
        (lambda m: open_model(m, clip="a"), r"clip must be a number above 0 or \(low, high\), got 'a'"),
        (lambda m: open_model(m, clip=(1, 2, 3)), r"clip must be a number above 0 or \(low, high\), got \(1, 2, 3\)"),
        (lambda m: m.given("three"), "labels must be numbers, got 'three'"),
        (lambda _: open_model(lambda x, sigma: x).given(3), "<lambda> takes no class_labels, and labels are given"),
        (
            lambda _: open_model(lambda x, sigma: x @ x)(torch.zeros(2, 3), 1.0),
            r"<lambda> failed on points of .*\(3,\): mat1",
        ),
        (lambda _: open_model(lambda x, sigma: (x,))(torch.zeros(2, 3), 1.0), "must return a tensor like x, got tuple"),
        (lambda m: open_model(m, batch=0), "batch must be at least 1, got 0"),
        (lambda m: open_model(m, device="nowhere"), "device must be auto or one that is there .*, got 'nowhere'"),
        (lambda _: open_model(3), "a network is a folder, a function"),
        (lambda _: open_model("no/such/folder"), "no checkpoint in no/such/folder: there is no such folder or file"),
        (
            lambda _: open_model(lambda x, sigma, class_labels: x)(torch.zeros(2, 3), 1.0),
            r"argument: 'class_labels' \(it takes class_labels: give labels= \(--label\)\)$",
        ),
        (
            lambda _: from_edm(lambda x, sigma, class_labels: x)(torch.zeros(2, 3), 1.0),
            r"argument: 'class_labels' \(it takes class_labels: give labels= \(--label\)\)$",
        ),
        (
            lambda _: open_model(from_edm(Net()))(torch.zeros(2, 3, 3), 1.0),
            r"^Net failed on points of shape",
        ),
        (lambda _: open_model("python:nothing"), "python: names a function as package.module.function"),
        (lambda _: open_model("python:no_such_module.f"), "cannot be imported: No module named"),
        (lambda _: open_model("python:math.no_such"), "cannot be imported: module 'math' has no attribute"),
        (lambda _: open_model(lambda x, t: x), r"is called with \(x, t\), and neither its noise levels"),
    ],
)
def test_what_is_wrong_is_one_sentence(call, sentence: str) -> None:
    model = dataclasses.replace(open_model(Net(), event=(3,)), sigma_min=0.1, sigma_max=5.0)
    with pytest.raises(ValueError, match=sentence) as caught:
        call(model)
    assert "\n" not in str(caught.value)


def test_functions_of_ones_own_are_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "of_my_own.py").write_text(
        "import torch\n"
        "def make(): return lambda x, sigma: 0 * x\n"
        "def denoise(x, sigma): return 2 * x\n"
        "def broken(): raise KeyError('weights')\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    x = torch.ones(2, 3)
    assert torch.equal(open_model("python:of_my_own.make")(x, 1.0), 0 * x)
    assert torch.equal(open_model("python:of_my_own.denoise")(x, 1.0), 2 * x)
    with pytest.raises(ValueError, match=r"python:of_my_own\.broken failed: KeyError: 'weights'"):
        open_model("python:of_my_own.broken")
    del sys.modules["of_my_own"]


def test_the_optimum_is_a_model(normal) -> None:
    x = DATA + normal(*DATA.shape)
    model = open_model(D, batch=4)
    torch.testing.assert_close(model(x, 1.0), D(x, 1.0))
    assert model.event == D.event
    ends = sample(model, 80 * normal(4, 1, 2, 2), **model.sampling(5))
    assert bool(torch.isfinite(ends).all())


def test_runs_and_their_range(tmp_path: Path) -> None:
    preset = PRESETS["toy"]
    options = dataclasses.replace(preset.optimisation, steps=2, batch=16, sigma_min=0.01, sigma_max=30.0)
    config = dataclasses.replace(preset, optimisation=options)
    net = fit(config, load("five-deltas"), tmp_path)
    model = open_model(str(tmp_path))
    assert isinstance(model, Model)
    assert (model.event, model.sigma_min, model.sigma_max) == ((1,), 0.01, 30.0)
    x = torch.linspace(-3, 3, 7)[:, None]
    with torch.no_grad():
        torch.testing.assert_close(model(x, 2.0), net(x, 2.0))
    assert float(model.sampling()["sigmas"][0]) == 30.0


def test_a_pipeline_on_disk(tmp_path: Path, normal) -> None:
    from diffusers.schedulers.scheduling_ddpm import DDPMScheduler

    small_unet().save_pretrained(tmp_path / "unet")
    DDPMScheduler().save_pretrained(tmp_path / "scheduler")
    model = open_model(f"diffusers:{tmp_path}")
    x = normal(2, 1, 8, 8)
    torch.testing.assert_close(model(x, 1.0), from_diffusers(tmp_path)(x, 1.0))
    assert 0.01 < model.sigma_min < 0.011


def test_wrapped_modules_are_looked_into() -> None:
    x = torch.randn(3, 2)
    for wrapped in (torch.compile(Net(), backend="eager"), _Parallel(Net())):
        torch.testing.assert_close(open_model(wrapped)(x, 1.0), x / 2)


class _Parallel(nn.Module):
    """As DistributedDataParallel is called."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, *inputs: Any, **named: Any) -> Any:
        return self.module(*inputs, **named)


def test_a_model_answers_in_evaluation_mode() -> None:
    """And leaves its network in the mode that it was in."""
    from neural import MLP, Preconditioned

    torch.manual_seed(0)
    net = Preconditioned(_Dropping(), 0.5)
    x = torch.randn(4, 3)
    model = open_model(net.train())
    assert torch.equal(model(x, 1.0), model(x, 1.0))
    assert not torch.equal(net(x, 1.0), net(x, 1.0))
    assert net.training
    assert isinstance(open_model(Preconditioned(MLP((3,), 8, 1), 0.5)), Model)


class _Dropping(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.drop = nn.Dropout(0.5)

    def forward(self, x: Tensor, level: Tensor) -> Tensor:
        return self.drop(x.cos())


def test_what_an_adapter_made_has_the_name_of_its_network() -> None:
    from diffusers.schedulers.scheduling_ddpm import DDPMScheduler

    model = open_model(from_unet(small_unet(), DDPMScheduler()))
    assert model.name == "UNet2DModel"
    with pytest.raises(ValueError, match=r"the range of UNet2DModel, got 0\.001"):
        model(torch.zeros(2, *model.event), 0.001)
    assert open_model(from_edm(Net())).name == "Net"
    assert open_model(from_edm(Net()), name="mine").name == "mine"
