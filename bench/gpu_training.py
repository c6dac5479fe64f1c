"""What `bench/gpu.py` checks of training on a device: nothing is left elsewhere, and runs go on as if never stopped."""

from __future__ import annotations

import functools
import importlib.util
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from gpu_checks import Check, Sizes
from torch import Tensor, nn

__all__ = ["training"]

_TECHNIQUES = ("consistency", "progressive", "knowledge", "multistep")


@dataclass(frozen=True)
class _Plan:
    """Steps of a run, which stops once in the middle, and rows of a batch."""

    steps: int
    batch: int
    points: int


def training(device: torch.device, sizes: Sizes) -> Iterator[Check]:
    """Bit for bit after a stop, with dropout; students likewise; teachers on the device, in float32."""
    if any(importlib.util.find_spec(name) is None for name in ("safetensors", "tyro")):
        return  # As for the part on networks.
    plan = _Plan(6, 16, 8) if sizes.points < 1000 else _Plan(60, 256, 200)
    for bf16 in (False, True):
        words = "a run with dropout, stopped" + (", bf16" if bf16 else "")
        yield Check(words, 0.0, functools.partial(_stopped, device, plan, bf16))
        yield Check(
            f"draws left to torch's generators{', bf16' if bf16 else ''}",
            0.0,
            functools.partial(_touched, device, plan, bf16),
        )
    for technique in _TECHNIQUES:
        yield Check(
            f"{technique}: a student, stopped", 0.0, functools.partial(_student_stopped, technique, device, plan)
        )
        yield Check(
            f"{technique}: questions to the teacher elsewhere, or under autocast",
            0.0,
            functools.partial(_asked_elsewhere, technique, device, plan),
        )


class _Dropping(nn.Module):
    def __init__(self, dim: int):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(dim + 1, 64), nn.Dropout(0.5), nn.SiLU(), nn.Linear(64, dim))

    def forward(self, x: Tensor, c_noise: Tensor) -> Tensor:
        return self.layers(torch.cat([x, c_noise[:, None]], 1))


def _experiment(plan: _Plan, bf16: bool = False):
    from neural import Experiment, Network, Optimisation

    options = Optimisation(steps=plan.steps, batch=plan.batch, warmup=1, bf16=bf16, sigma_min=0.05, sigma_max=20.0)
    return Experiment("ring", network=Network(width=32, depth=1), optimisation=options)


def _new(device: torch.device, plan: _Plan, bf16: bool):
    from neural import Preconditioned, Training
    from neural.loss import Denoising

    config = _experiment(plan, bf16)
    data = config.load()
    with torch.random.fork_rng(devices=[]):
        net = Preconditioned(_Dropping(2), 1.0).to(device)
    return Training(net, config.optimisation, config, data), Denoising(data, config.optimisation, 1.0)


def _stopped(device: torch.device, plan: _Plan, bf16: bool) -> float:
    """Largest difference of the weights of a run that was stopped from one that was not."""
    from neural import train

    with tempfile.TemporaryDirectory() as folder:
        whole, objective = _new(device, plan, bf16)
        for report in train(whole, objective):
            if report.step == plan.steps // 2:
                whole.save(folder)
        again, objective = _new(device, plan, bf16)
        again.resume(folder)
        for _ in train(again, objective):
            pass
    return _apart(whole.model, again.model)


def _touched(device: torch.device, plan: _Plan, bf16: bool) -> float:
    """1 if training has moved a generator of torch's own."""
    from neural import train

    def states() -> list[Tensor]:
        found = [torch.get_rng_state()]
        return [*found, torch.cuda.get_rng_state(device)] if device.type == "cuda" else found

    trained, objective = _new(device, plan, bf16)
    before = states()
    for _ in train(trained, objective):
        pass
    return float(not all(map(torch.equal, before, states())))


def _student_stopped(technique: str, device: torch.device, plan: _Plan) -> float:
    from neural import Distillation, distil
    from neural.checkpoint import checkpoints
    from optimal import OptimalDenoiser

    config = Distillation(technique, levels=4, pairs=plan.points, experiment=_experiment(plan))  # pyright: ignore
    data = config.experiment.load()
    teacher = OptimalDenoiser(data)
    with tempfile.TemporaryDirectory() as folder:
        whole = distil(config, data, teacher, f"{folder}/whole", device=device)
        distil(config, data, teacher, f"{folder}/again", device=device, every=plan.steps // 2)
        last = Path(folder) / "again" / ("steps-1" if technique == "progressive" else "student")
        checkpoints(last)[-1].unlink()
        again = distil(config, data, teacher, f"{folder}/again", device=device, resume=True)
    return _apart(whole, again)


def _asked_elsewhere(technique: str, device: torch.device, plan: _Plan) -> float:
    from neural import Distillation, distil
    from optimal import OptimalDenoiser

    config = Distillation(technique, levels=4, pairs=plan.points, experiment=_experiment(plan, True))  # pyright: ignore
    data = config.experiment.load()
    D, wrong = OptimalDenoiser(data), 0

    def teacher(x: Tensor, sigma: float | Tensor) -> Tensor:
        nonlocal wrong
        wrong += x.device.type != device.type or torch.is_autocast_enabled(device.type)
        return D(x, sigma)

    with tempfile.TemporaryDirectory() as folder:
        distil(config, data, teacher, folder, device=device)
    return float(wrong)


def _apart(a: nn.Module, b: nn.Module) -> float:
    return max(float((p - q).detach().abs().max()) for p, q in zip(a.parameters(), b.parameters(), strict=True))
