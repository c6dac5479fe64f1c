"""The four distillation losses: zero for the optimal student, and only for it; cached pairs; stages."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from neural import (
    PRESETS,
    Distillation,
    Experiment,
    Network,
    Optimisation,
    distil,
    fit,
    load_model,
    student_at,
    student_of,
)
from neural.distill import (
    Consistency,
    FixedPairs,
    FreshPairs,
    Knowledge,
    MultistepKnowledge,
    Progressive,
    make_pairs,
    pairs_seen,
    stages,
)
from neural.distill.consistency import ode_step
from neural.loss import Source
from neural.measures import wasserstein
from neural.networks import build
from neural.run import run
from neural.streams import Streams
from neural.training import train
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
    batch = objective.draw(400, Streams(2))
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
    objective = Knowledge(FixedPairs(*make_pairs(FlowMap(D), (1,), 20.0, 700, tmp_path)), 20.0)
    assert mean_loss(objective, Student(knowledge_optimum(D, 20.0))) < 1e-10
    assert mean_loss(objective, Student(D)) > 0.1


@pytest.mark.slow
def test_multistep_is_zero_for_its_optimum(tmp_path: Path) -> None:
    D = OptimalDenoiser(load("five-deltas"))
    arrays = make_pairs(FlowMap(D), (1,), 20.0, 700, tmp_path)
    objective = MultistepKnowledge(FixedPairs(*arrays), SIGMAS)
    optimum = Student(multistep_knowledge_optimum(D, 20.0))
    assert mean_loss(objective, optimum) < 1e-10
    # Right at σ_N alone is not enough: the flow map misses the student's own points.
    assert mean_loss(objective, Student(FlowMap(D))) > 1e-3
    batch = objective.draw(400, Streams(2))
    asked: list[Tensor] = []

    def answer(x: Tensor, sigma: Tensor) -> Tensor:
        asked.append(x)
        return x

    objective.loss(Student(answer), optimum, batch)
    (reached,) = asked
    r = (SIGMAS[batch[2]] / 20.0).float()[:, None]
    torch.testing.assert_close(reached, r * batch[0] + (1 - r) * batch[1], rtol=0, atol=1e-5)
    assert (batch[2] == 0).double().mean() > 0.4
    assert len(batch[2].unique()) == 8


@pytest.mark.slow
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
    ends = np.array(first[1])
    # A damaged or other file is made anew.
    (tmp_path / "ends.npy").write_bytes(b"damaged")
    make_pairs(jump, (1,), 20.0, 1100, tmp_path)
    assert len(calls) == 6
    (tmp_path / "ends.npy").write_bytes(b"")
    make_pairs(jump, (1,), 20.0, 1100, tmp_path)
    assert len(calls) == 9
    # Of the right size, but zeros.
    kept = (tmp_path / "ends.npy").read_bytes()
    (tmp_path / "ends.npy").write_bytes(kept[:128] + bytes(len(kept) - 128))
    assert np.array_equal(make_pairs(jump, (1,), 20.0, 1100, tmp_path)[1], ends)
    assert len(calls) == 12
    make_pairs(jump, (1,), 20.0, 10, tmp_path)
    assert len(calls) == 13
    assert sorted(path.name for path in tmp_path.iterdir()) == ["ends.npy", "meta.json", "noises.npy"]
    with pytest.raises(ValueError, match="pairs must be at least 1, got 0"):
        make_pairs(jump, (1,), 20.0, 0, tmp_path)


EXPERIMENT = Experiment(
    "two-points",
    network=Network(width=32, depth=1),
    optimisation=Optimisation(steps=250, batch=128, lr=3e-3, warmup=20, ema=0.95, sigma_min=0.05, sigma_max=20.0),
)


@pytest.mark.slow
@pytest.mark.parametrize("technique", ["consistency", "progressive", "knowledge", "multistep"])
def test_every_technique_learns_two_points(technique: str, tmp_path: Path, normal: Normal) -> None:
    """From the optimum, in seconds: noises go to the point that the flow map takes them to, not only in its direction.

    Whose answer has the right sign is nearest to the right point, and so are the mean and an untrained student.
    """
    data = load("two-points")
    D = OptimalDenoiser(data)
    steps = 600 if technique == "consistency" else 250
    experiment = dataclasses.replace(EXPERIMENT, optimisation=dataclasses.replace(EXPERIMENT.optimisation, steps=steps))
    config = Distillation(technique, levels=8, pairs=2000, experiment=experiment)
    student = distil(config, data, D, tmp_path)
    x = 20 * normal(500, 1)
    ends = student(x, 20.0)
    landing = FlowMap(D)(x, 20.0)

    def distance(ends: Tensor) -> float:
        return float((ends.double() - landing.double()).square().mean().sqrt())

    untrained = build(config.experiment.network, (1,), 1.0, seed=0)
    assert min(distance(D(x, 20.0)), distance(untrained(x, 20.0).detach())) > 0.9
    assert distance(ends) < 0.45
    loaded, read_config = load_model(tmp_path)
    assert read_config == config
    torch.testing.assert_close(loaded(x, 20.0), ends)
    if technique == "multistep":
        again = sample(student, x, karras(4, sigma_max=20.0, sigma_min=0.05), solver="euler")
        assert distance(again) < 0.45
    if technique == "progressive":
        assert sorted(path.name for path in tmp_path.iterdir() if path.is_dir()) == ["steps-1", "steps-2", "steps-4"]


def test_students_start_from_a_teacher_of_their_kind(tmp_path: Path) -> None:
    data = load("two-points")
    teacher = build(EXPERIMENT.network, (1,), 1.0, seed=7)
    config = Distillation(levels=4, experiment=EXPERIMENT)
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
        (Distillation(), OptimalDenoiser(load("ring")), r"the teacher does not take points of shape \(1,\)"),
        (Distillation(), lambda x, s: x[:, :0], r"the teacher answers points of shape \(1,\) with \(0,\)"),
    ):
        with pytest.raises(ValueError, match=sentence):
            next(stages(config, data, teacher, tmp_path))
    with pytest.raises(ValueError, match="consistency distillation has the solvers euler, heun"):
        Consistency(source, D, SIGMAS, "dpm_solver")
    assert source.event == (1,)


@pytest.mark.slow
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
        # Of the same pairs, which are made once.
        ((_, training, objective),) = stages(config, data, D, tmp_path / "pairs")
        student = run(training, objective, None)
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
    config = Distillation("knowledge", teacher="runs/teacher", levels=4, pairs=20, experiment=experiment)
    for seed in (1, 2, 1):
        distil(config, data, build(experiment.network, (1,), 1.0, seed=seed), tmp_path, resume=True)
    assert len([path for path in tmp_path.iterdir() if path.name.startswith("pairs-")]) == 2


def test_pairs_are_those_of_a_teacher_that_is_a_function(tmp_path: Path) -> None:
    data = load("two-points")
    experiment = dataclasses.replace(EXPERIMENT, optimisation=dataclasses.replace(EXPERIMENT.optimisation, steps=1))
    config = Distillation("knowledge", teacher="mine", levels=4, pairs=20, experiment=experiment)
    for value in (1.0, -1.0, 1.0):
        distil(config, data, lambda x, sigma, value=value: torch.full_like(x, value), tmp_path, resume=True)
    ends = [np.load(path) for path in tmp_path.glob("pairs-*/ends.npy")]
    assert sorted(float(end[0, 0]) for end in ends) == [-1.0, 1.0]


@pytest.mark.slow
def test_consistency_without_preconditioning_does_not_collapse(tmp_path: Path) -> None:
    """Any constant would solve Eq. 35 if the end of the grid did not hold it to the data."""
    data = load("two-points")
    options = Optimisation(steps=500, batch=256, lr=3e-3, ema=0.9, weighting="none", warmup=10, sigma_min=0.1)
    experiment = Experiment("two-points", network=Network(width=64, depth=1, precondition="none"), optimisation=options)
    student = distil(Distillation(levels=6, experiment=experiment), data, OptimalDenoiser(data), tmp_path)
    x = torch.tensor([[-60.0], [60.0]])
    assert student(x, 80.0).flatten().tolist() == pytest.approx([-1.0, 1.0], abs=0.2)


def test_a_folder_holds_one_distillation(tmp_path: Path) -> None:
    data, D = load("two-points"), two()[0]
    experiment = dataclasses.replace(EXPERIMENT, optimisation=dataclasses.replace(EXPERIMENT.optimisation, steps=1))
    config = Distillation("progressive", levels=4, experiment=experiment)
    distil(config, data, D, tmp_path)
    other = dataclasses.replace(config, technique="knowledge", levels=8)
    with pytest.raises(ValueError, match="holds a run already: resume it, or name another folder"):
        distil(other, data, D, tmp_path)
    with pytest.raises(ValueError, match="holds another distillation: it differs in technique, levels"):
        distil(other, data, D, tmp_path, resume=True)
    with pytest.raises(ValueError, match="holds a distillation: name another folder"):
        fit(experiment, data, tmp_path, resume=True)
    for path in (tmp_path / "steps-1").glob("step-*"):
        path.unlink()
    with pytest.raises(ValueError, match=r"no checkpoint .* in .*steps-1"):
        load_model(tmp_path)
    (tmp_path / "distillation.json").write_text("{")
    with pytest.raises(ValueError, match="is damaged"):
        load_model(tmp_path)


def test_students_are_sampled_on_their_own_levels(tmp_path: Path) -> None:
    data, D = load("two-points"), two()[0]
    options = dataclasses.replace(EXPERIMENT.optimisation, steps=1, sigma_min=0.05, sigma_max=20.0)
    experiment = dataclasses.replace(EXPERIMENT, optimisation=options)
    distil(Distillation("progressive", levels=8, experiment=experiment), data, D, tmp_path / "p")
    student, arguments = student_at(tmp_path / "p", 2)
    torch.testing.assert_close(arguments["sigmas"], SIGMAS[[0, 4, 8]])
    x = torch.full((1, 1), 3.0)
    assert torch.equal(student(x, 1.0), load_model(tmp_path / "p" / "steps-2")[0](x, 1.0))
    for steps in (3, 8):
        with pytest.raises(ValueError, match=f"has no stage of {steps} steps, but of 4, 2, 1"):
            student_at(tmp_path / "p", steps)
    distil(Distillation(levels=3, experiment=experiment), data, D, tmp_path / "c")
    generator = torch.Generator()
    _, arguments = student_at(tmp_path / "c", 2, generator=generator)
    assert arguments["solver"] == "consistency"
    assert arguments["generator"] is generator
    torch.testing.assert_close(arguments["sigmas"], karras(2, sigma_min=0.05, sigma_max=20.0))
    fit(experiment, data, tmp_path / "n")
    with pytest.raises(ValueError, match="holds no distillation"):
        student_at(tmp_path / "n", 1)


def test_students_of_presets() -> None:
    assert student_of("toy", "progressive").levels == 256
    # Elsewhere the preset's training, and what belongs to the technique.
    for technique, changes in (
        ("consistency", {"ema": 0.95, "weighting": "none"}),
        ("progressive", {}),
        ("multistep", {"weighting": "none"}),
    ):
        options = dataclasses.replace(PRESETS["faces"].optimisation, target="x0", **changes)
        config = student_of("faces", technique)
        assert config.experiment == dataclasses.replace(PRESETS["faces"], optimisation=options)
        assert config.solver == ("euler" if technique == "progressive" else "heun")
        assert config.pairs == 0
    with pytest.raises(ValueError, match="unknown preset 'tiny'"):
        student_of("tiny", "knowledge")
    with pytest.raises(ValueError, match="technique must be one of"):
        student_of("toy", "magic")


@pytest.mark.slow
def test_the_loss_of_multistep_students_is_not_all_at_low_noise(tmp_path: Path) -> None:
    """By the weighting that belongs to the technique; by 1/c_out² nearly all of it is where the answer is all but x."""
    data, D = load("five-deltas"), OptimalDenoiser(load("five-deltas"))
    config = student_of("toy", "multistep")
    share = {}
    for weighting in ("edm", config.experiment.optimisation.weighting):
        options = dataclasses.replace(config.experiment.optimisation, weighting=weighting, steps=150, batch=256)
        experiment = dataclasses.replace(config.experiment, optimisation=options)
        changed = dataclasses.replace(config, pairs=2048, experiment=experiment)
        _, training, objective = next(stages(changed, data, D, tmp_path / "pairs"))
        for _ in train(training, objective):
            pass
        with torch.no_grad():
            losses, sigma = objective.loss(training.denoiser, training.denoiser, objective.draw(2000, Streams(1)))
        share[weighting] = float(losses[sigma < 1].sum() / losses.sum())
    assert share["edm"] > 0.9
    assert share["none"] < 0.6


def test_pairs_that_a_student_has_seen_are_the_first_that_it_draws_from(tmp_path: Path) -> None:
    D = OptimalDenoiser(load("five-deltas"))
    config = student_of("toy", "knowledge")
    options = config.experiment.optimisation
    fresh = FreshPairs(FlowMap(D), D.event, options.sigma_max, seed=options.seed, at_once=64, folder=tmp_path)
    fresh.make(0)
    made = np.load(tmp_path / "000000.npy")
    seen = pairs_seen(config, D, 32)
    assert seen is not None
    np.testing.assert_array_equal(torch.stack(seen).numpy(), made[:, :32])
    # None for those that learn from noisy data, or from a file of pairs.
    assert pairs_seen(student_of("toy", "consistency"), D, 32) is None
    assert pairs_seen(dataclasses.replace(config, pairs=100), D, 32) is None
