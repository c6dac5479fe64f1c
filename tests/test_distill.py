"""The four distillation losses: zero for the optimal student, and only for it; cached pairs; stages."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from neural import PRESETS, Distillation, Experiment, Network, Optimisation, distil, load_model
from neural.compare import wasserstein
from neural.distill import Consistency, Knowledge, MultistepKnowledge, Progressive, make_pairs, stages
from neural.distill.consistency import ode_step
from neural.loss import Source
from neural.networks import build
from neural.train import train
from optimal import (
    FlowMap,
    OptimalDenoiser,
    karras,
    knowledge_optimum,
    load,
    multistep_knowledge_optimum,
    progressive_optimum,
    sample,
    trajectory,
)

Normal = Callable[..., Tensor]
SIGMAS = karras(8, sigma_max=20.0, sigma_min=0.05)


class Student(nn.Module):
    """Any denoiser as a module, its answer moved by a learnable shift."""

    def __init__(self, denoiser: Callable, shift: float = 0.0):
        super().__init__()
        self.denoiser, self.shift = denoiser, nn.Parameter(torch.tensor(shift))

    def forward(self, x: Tensor, sigma: Tensor) -> Tensor:
        # x itself at σ = 0, as every consistency function answers.
        out, above = x.clone(), sigma > 0
        if above.any():
            out[above] = self.denoiser(x[above], sigma[above])
        return out + self.shift * above.to(x.dtype)[:, None]


def two() -> tuple[OptimalDenoiser, Source]:
    data = load("two-points")
    return OptimalDenoiser(data), Source(data)


def mean_loss(objective: object, student: nn.Module, average: nn.Module | None = None) -> float:
    batch = objective.draw(400, torch.Generator().manual_seed(2))
    losses, sigma = objective.loss(student, average or student, batch)
    assert losses.shape == sigma.shape == (400,)
    assert (sigma > 0).all()
    return float(losses.detach().mean())


@pytest.mark.parametrize("solver", ["euler", "heun"])
def test_consistency_is_zero_for_the_flow_map(solver: str) -> None:
    D, source = two()
    objective = Consistency(source, D, SIGMAS, solver)
    student = Student(FlowMap(D, SIGMAS, solver))
    assert mean_loss(objective, student) < 1e-8
    assert mean_loss(objective, Student(D)) > 1e-3
    # The boundary x_θ(x, 0) = x is what ties the outputs down.
    assert mean_loss(objective, Student(FlowMap(D, SIGMAS, solver), 0.1)) > 1e-3


@pytest.mark.parametrize("solver", ["euler", "heun"])
def test_rows_step_as_the_solver_does(solver: str, normal: Normal) -> None:
    D, _ = two()
    x = SIGMAS[:-1, None] * normal(8, 1)
    after = ode_step(D, x, SIGMAS[:-1], SIGMAS[1:], solver)
    for n in range(8):
        _, second, *_ = trajectory(D, x[n : n + 1], torch.cat([SIGMAS[n:]]), solver=solver)
        torch.testing.assert_close(after[n : n + 1], second.x, rtol=0, atol=1e-12)


@pytest.mark.parametrize("points", [8, 7, 1])
def test_progressive_is_zero_for_its_optimum(points: int) -> None:
    D, source = two()
    sigmas = karras(points, sigma_max=20.0, sigma_min=0.05)
    teacher: Callable = D
    for stage in (1, 2):
        objective = Progressive(source, teacher, sigmas)
        student = progressive_optimum(D, karras(points, sigma_max=20.0, sigma_min=0.05), stage)
        assert mean_loss(objective, Student(student)) < 1e-8
        if points == 8:
            assert mean_loss(objective, Student(D)) > 1e-4
        assert objective.student_sigmas.tolist() == student.sigmas.tolist()
        teacher, sigmas = student, objective.student_sigmas


def test_knowledge_is_zero_for_its_optimum(tmp_path: Path) -> None:
    D, _ = two()
    noises, ends = make_pairs(FlowMap(D), (1,), 20.0, 700, tmp_path)
    objective = Knowledge(noises, ends, 20.0)
    assert mean_loss(objective, Student(knowledge_optimum(D, 20.0))) < 1e-10
    assert mean_loss(objective, Student(D)) > 0.1


def test_multistep_is_zero_for_its_optimum(tmp_path: Path) -> None:
    D = OptimalDenoiser(load("five-deltas"))
    arrays = make_pairs(FlowMap(D), (1,), 20.0, 700, tmp_path)
    objective = MultistepKnowledge(*arrays, SIGMAS)
    optimum = Student(multistep_knowledge_optimum(D, 20.0))
    assert mean_loss(objective, optimum) < 1e-10
    # Right at σ_N alone is not enough: the flow map misses the student's own points.
    assert mean_loss(objective, Student(FlowMap(D))) > 1e-3
    batch = objective.draw(400, torch.Generator().manual_seed(2))
    reached = objective._reach(optimum, *batch[::2], batch[3])
    r = (SIGMAS[batch[2]] / 20.0).float()[:, None]
    torch.testing.assert_close(reached, r * batch[0] + (1 - r) * batch[1], rtol=0, atol=1e-5)
    assert (batch[2] == 0).double().mean() > 0.4
    assert len(batch[2].unique()) == 8


def test_pairs_are_made_once(tmp_path: Path) -> None:
    D, _ = two()
    calls = []

    def jump(x: Tensor, sigma: float) -> Tensor:
        calls.append(len(x))
        return FlowMap(D)(x, sigma)

    first = make_pairs(jump, (1,), 20.0, 1100, tmp_path)
    assert calls == [512, 512, 76]
    again = make_pairs(jump, (1,), 20.0, 1100, tmp_path)
    assert len(calls) == 3
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert not isinstance(again[0], np.ndarray) or again[0].base is not None
    # A damaged or other file is made anew.
    (tmp_path / "ends.npy").write_bytes(b"damaged")
    make_pairs(jump, (1,), 20.0, 1100, tmp_path)
    assert len(calls) == 6
    make_pairs(jump, (1,), 20.0, 10, tmp_path)
    assert len(calls) == 7
    assert sorted(path.name for path in tmp_path.iterdir()) == ["ends.npy", "noises.npy"]
    with pytest.raises(ValueError, match="pairs must be at least 1, got 0"):
        make_pairs(jump, (1,), 20.0, 0, tmp_path)


EXPERIMENT = Experiment(
    "two-points",
    network=Network(width=32, depth=1),
    optimisation=Optimisation(steps=250, batch=128, lr=3e-3, warmup=20, ema=0.95, sigma_min=0.05, sigma_max=20.0),
)


@pytest.mark.parametrize("technique", ["consistency", "progressive", "knowledge", "multistep"])
def test_every_technique_learns_two_points(technique: str, tmp_path: Path, normal: Normal) -> None:
    """From the optimum, in seconds: nearly all noises go to the point that the flow map takes them to."""
    data = load("two-points")
    D = OptimalDenoiser(data)
    steps = 600 if technique == "consistency" else 250
    experiment = dataclasses.replace(EXPERIMENT, optimisation=dataclasses.replace(EXPERIMENT.optimisation, steps=steps))
    config = Distillation(technique, points=8, pairs=2000, experiment=experiment)
    student = distil(config, data, D, tmp_path)
    x = 20 * normal(500, 1)
    ends = student(x, 20.0)
    assert (D.nearest(ends) == FlowMap(D).index(x, 20.0)).double().mean() > 0.9
    loaded, read_config = load_model(tmp_path)
    assert read_config == config
    torch.testing.assert_close(loaded(x, 20.0), ends)
    if technique == "multistep":
        again = sample(student, x, karras(4, sigma_max=20.0, sigma_min=0.05), solver="euler")
        assert (D.nearest(again) == FlowMap(D).index(x, 20.0)).double().mean() > 0.9
    if technique == "progressive":
        assert sorted(path.name for path in tmp_path.iterdir()) == ["steps-1", "steps-2", "steps-4"]


def test_students_start_from_a_teacher_of_their_kind(tmp_path: Path) -> None:
    data = load("two-points")
    teacher = build(EXPERIMENT.network, (1,), 1.0, seed=7)
    config = Distillation(points=4, experiment=EXPERIMENT)
    _, training, objective = next(stages(config, data, teacher, tmp_path))
    for ours, theirs in zip(training.model.parameters(), teacher.parameters(), strict=True):
        assert torch.equal(ours, theirs)
    other = dataclasses.replace(config, experiment=dataclasses.replace(EXPERIMENT, network=Network(width=16)))
    _, training, _ = next(stages(other, data, teacher, tmp_path))
    assert next(train(training, objective)).step == 1


def test_errors(tmp_path: Path) -> None:
    data = load("two-points")
    D, source = two()
    for config, teacher, sentence in (
        (Distillation("adversarial"), D, "technique must be one of consistency, .*, got 'adversarial'"),
        (Distillation(solver="dpm_solver"), D, "consistency distillation has the solvers euler, heun"),
        (Distillation(points=0), D, "a grid needs at least 1 step"),
        (Distillation(), OptimalDenoiser(load("ring")), r"the teacher does not take points of shape \(1,\)"),
        (Distillation(), lambda x, s: x[:, :0], r"the teacher answers points of shape \(1,\) with \(0,\)"),
    ):
        with pytest.raises(ValueError, match=sentence):
            next(stages(config, data, teacher, tmp_path))
    with pytest.raises(ValueError, match="progressive distillation needs a teacher of at least 2 steps"):
        distil(Distillation("progressive", points=1, experiment=PRESETS["toy"]), data, D, tmp_path)
    assert source.event == (1,)


def test_students_of_the_toy_preset(tmp_path: Path, normal: Normal) -> None:
    """The figures' students reach 95% and a Wasserstein distance of 0.1 after 3,000 and 4,000 steps; looser, after 700.

    From the same noises: one jump against the flow map, and four DDIM steps against one.
    """
    data = load("five-deltas")
    D, x = OptimalDenoiser(data), 80 * normal(2000, 1)
    landing = FlowMap(D).index(x, 80.0)
    options = dataclasses.replace(PRESETS["toy"].optimisation, steps=700, batch=512, ema=0.99, sigma_min=0.02)
    experiment = dataclasses.replace(PRESETS["toy"], optimisation=options)
    same, distance = {}, {}
    for technique in ("knowledge", "multistep"):
        config = Distillation(technique, pairs=16_384, experiment=experiment)
        student = distil(config, data, D, tmp_path / technique)
        for steps in (1, 4):
            ends = sample(student, x, karras(steps, sigma_min=0.02), solver="euler")
            same[technique, steps] = float((D.nearest(ends) == landing).double().mean())
            distance[technique, steps] = wasserstein(ends, D)
    assert same["knowledge", 1] > 0.95
    assert same["multistep", 1] > 0.9
    assert distance["knowledge", 1] < 0.3
    # Four steps are about as good as one for the multi-step student, and ruin the other.
    assert distance["multistep", 4] < distance["multistep", 1] + 0.15
    assert distance["knowledge", 4] > distance["multistep", 4] + 0.15


def test_pairs_are_those_of_the_teacher(tmp_path: Path) -> None:
    """Another teacher under the same name has pairs of its own."""
    data = load("two-points")
    options = dataclasses.replace(EXPERIMENT.optimisation, steps=1)
    experiment = dataclasses.replace(EXPERIMENT, optimisation=options)
    config = Distillation("knowledge", teacher="runs/teacher", points=4, pairs=20, experiment=experiment)
    for seed in (1, 2, 1):
        distil(config, data, build(experiment.network, (1,), 1.0, seed=seed), tmp_path, resume=True)
    assert len([path for path in tmp_path.iterdir() if path.name.startswith("pairs-")]) == 2
