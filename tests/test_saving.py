"""What is saved: any network that can be, refused before training where it cannot, under paths of either type."""

from __future__ import annotations

import copy
import dataclasses
import importlib
import inspect
import pickle
import pkgutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import neural
from neural import (
    PRESETS,
    Distillation,
    Optimisation,
    Preconditioned,
    Training,
    distil,
    fit,
    from_ddpm,
    from_edm,
    from_flow,
    from_prediction,
    load_model,
)
from neural.loss import Denoising
from neural.measures import save_table
from neural.run import run
from optimal import OptimalDenoiser, load
from optimal.parametrize import as_denoiser


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(1, 1)

    def forward(self, x: Tensor, c_noise: Tensor) -> Tensor:
        return self.a(x)


class Tied(Net):
    def __init__(self) -> None:
        super().__init__()
        self.b = self.a


class View(Net):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("big", torch.arange(16.0).view(4, 4))
        self.register_buffer("part", self.big[1:3])
        self.register_buffer("turned", self.big.T)


class Sparse(Net):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("odd", torch.eye(3).to_sparse())


class Complex(Net):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("odd", torch.zeros(3, dtype=torch.complex128))


class Expanded(Net):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("odd", torch.zeros(1).expand(3))


class Extra(Net):
    def get_extra_state(self) -> dict[str, int]:
        return {"k": 1}

    def set_extra_state(self, state: Any) -> None:
        pass


OPTIONS = Optimisation(steps=4, batch=16, warmup=1)


def training(kind: Callable[[], nn.Module]) -> Training:
    data = load("five-deltas")
    return Training(Preconditioned(kind(), 1.0), OPTIONS, PRESETS["toy"], data)


def go_on(trained: Training, folder: Path | None) -> Preconditioned:
    return run(trained, Denoising(load("five-deltas"), OPTIONS, 1.0), folder, every=2)


@pytest.mark.parametrize("kind", [Net, Tied, View])
def test_shared_memory_is_saved_and_gone_on_with(kind: Callable[[], nn.Module], tmp_path: Path) -> None:
    first = training(kind)
    whole = go_on(first, tmp_path)
    (tmp_path / "step-000000004.safetensors").unlink()
    again = training(kind)
    with torch.no_grad():
        for value in (*again.model.parameters(), *again.average.module.buffers()):
            value.mul_(0)
    again.resume(tmp_path)
    assert again.step == 2
    resumed = go_on(again, tmp_path).state_dict()
    assert set(resumed) == set(whole.state_dict())
    for name, value in whole.state_dict().items():
        assert torch.equal(resumed[name], value), name


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (Sparse, r"keeps dense tensors of real numbers only, model\.net\.odd cannot be kept: its layout is sparse_coo"),
        (Complex, r"model\.net\.odd cannot be kept: its type is complex128"),
        (Extra, r"model\.net\._extra_state cannot be kept: it is a dict, no tensor"),
        (Expanded, r"the network could be saved but not loaded again: .*net\.odd.*single memory location"),
    ],
)
def test_what_cannot_be_saved_is_refused_before_the_first_step(
    kind: Callable[[], nn.Module], message: str, tmp_path: Path
) -> None:
    trained = training(kind)
    with pytest.raises(ValueError, match=message):
        go_on(trained, tmp_path / "run")
    assert trained.step == 0
    assert not (tmp_path / "run").exists()
    if kind is not Expanded:
        with pytest.raises(ValueError, match=message):
            trained.save(tmp_path / "run")
        assert not (tmp_path / "run").exists()


def test_what_is_not_saved_may_be_anything() -> None:
    assert go_on(training(Extra), None)(torch.zeros(2, 1), 1.0).shape == (2, 1)


def test_odd_teachers_are_told_apart(tmp_path: Path) -> None:
    config = Distillation(
        "knowledge", experiment=dataclasses.replace(PRESETS["toy"], optimisation=OPTIONS), levels=2, pairs=8
    )
    data = load("five-deltas")
    for kind in (Extra, Sparse):
        student = distil(config, data, Preconditioned(kind(), 1.0), str(tmp_path / kind.__name__))
        assert student(torch.zeros(2, 1), 1.0).shape == (2, 1)


def test_paths_are_text_or_path(tmp_path: Path) -> None:
    experiment = dataclasses.replace(PRESETS["toy"], optimisation=dataclasses.replace(OPTIONS, steps=2))
    data, folder = experiment.load(), str(tmp_path / "run")
    trained = fit(experiment, data, folder)
    x = torch.linspace(-1, 1, 5)[:, None]
    assert torch.equal(load_model(folder)[0](x, 1.0), trained(x, 1.0))
    assert torch.equal(fit(experiment, data, folder, resume=True)(x, 1.0), trained(x, 1.0))
    config = Distillation("multistep", experiment=experiment, levels=2, pairs=8)
    student = distil(config, data, OptimalDenoiser(data), str(tmp_path / "student"))
    assert torch.equal(load_model(str(tmp_path / "student"))[0](x, 1.0), student(x, 1.0))
    save_table([{"a": 1}], str(tmp_path / "tables" / "one.two"), {})
    assert (tmp_path / "tables" / "one.two.csv").read_text().split() == ["a", "1"]


def modules() -> list[Any]:
    names = [found.name for found in pkgutil.walk_packages(neural.__path__, "neural.")]
    return [importlib.import_module(name) for name in names if not name.endswith("__main__")]


def test_every_path_of_a_public_function_may_be_text() -> None:
    seen = 0
    for module in modules():
        for name in getattr(module, "__all__", ()):
            value = getattr(module, name)
            if not inspect.isfunction(value):
                continue
            for parameter in inspect.signature(value).parameters.values():
                kinds = str(parameter.annotation).replace("pathlib._local.", "").replace("pathlib.", "").split(" | ")
                if "Path" in kinds:
                    seen += 1
                    assert "str" in kinds, f"{module.__name__}.{name}({parameter})"
    assert seen > 20


class Asked(nn.Module):
    """net(x, level), with a level of one value a row."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Conv2d(1, 1, 3, padding=1)

    def forward(self, x: Tensor, level: Tensor, class_labels: Tensor | None = None) -> Tensor:
        return self.net(x) + level.to(x).view(-1, 1, 1, 1)


@pytest.mark.parametrize(
    "adapted",
    [
        lambda net: from_edm(net, labels=torch.tensor(3)),
        lambda net: from_edm(net, broadcast_sigma=True),
        lambda net: from_prediction(net, "score", time_scale=999),
        from_flow,
        lambda net: from_flow(net, data_at=1, time_scale=1000),
        lambda net: from_ddpm(net, torch.linspace(0.99, 0.01, 50), "v", whole_steps=True),
        lambda net: as_denoiser(net, "eps"),
    ],
)
def test_what_adapters_make_is_pickled_and_copied(adapted: Callable[[nn.Module], Any]) -> None:
    torch.manual_seed(0)
    net = Asked()
    F, x = adapted(net), torch.randn(3, 1, 4, 4)
    expected = F(x, 1.5)
    pickled, copied = pickle.loads(pickle.dumps(F)), copy.deepcopy(F)
    with torch.no_grad():
        net.net.weight.zero_()
    assert not torch.equal(F(x, 1.5), expected)
    assert torch.equal(pickled(x, 1.5), expected)
    assert torch.equal(copied(x, 1.5), expected)
