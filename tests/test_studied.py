"""Training that can be studied: what is random, what runs in which precision and mode, and what a run leaves behind."""

from __future__ import annotations

import csv
import dataclasses
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from second_device import second_device
from torch import Tensor, nn

from neural import (
    Distillation,
    Experiment,
    Network,
    Optimisation,
    Preconditioned,
    Training,
    distil,
    fit,
    load_model,
    train,
    training_pairs,
)
from neural.__main__ import main
from neural.checkpoint import checkpoints, latest
from neural.distill import FreshPairs, stages
from neural.distill.pairs import Jump
from neural.gap import GapCurve
from neural.loss import Denoising
from neural.run import new_training, run
from neural.saved import student_steps
from neural.streams import Streams
from neural.teachers import teacher_of
from optimal import FlowMap, OptimalDenoiser, load
from optimal.randomness import stream

OPTIONS = Optimisation(steps=60, batch=32, warmup=5, lr=1e-2, ema=0.5, sigma_min=0.05, sigma_max=20.0)
SMALL = Experiment("two-points", network=Network(width=16, depth=1), optimisation=OPTIONS)
DATA = load("two-points")
D = OptimalDenoiser(DATA)


def changed(**options: object) -> Experiment:
    return dataclasses.replace(SMALL, optimisation=dataclasses.replace(OPTIONS, **options))


def weights(model: nn.Module) -> Tensor:
    return torch.cat([p.detach().flatten() for p in model.parameters()])


class Dropping(nn.Module):
    """A network that drops half of its hidden values, and remembers how it was asked."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(2, 32), nn.Dropout(0.5), nn.SiLU(), nn.Linear(32, 1))
        self.asked: list[tuple[bool, bool]] = []

    def forward(self, x: Tensor, c_noise: Tensor) -> Tensor:
        self.asked.append((self.training, torch.is_autocast_enabled("cpu")))
        return self.layers(torch.cat([x, c_noise[:, None]], 1))


def dropping(**options: object) -> Training:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = Dropping()
    config = changed(**options)
    return Training(Preconditioned(net, 1.0), config.optimisation, config, DATA)


def test_dropout_resumes_bit_for_bit_and_draws_nothing_of_the_users(tmp_path: Path) -> None:
    objective = Denoising(DATA, OPTIONS, 1.0)
    before = torch.get_rng_state()
    whole = dropping()
    curve = []
    for report in train(whole, objective):
        curve.append(report)
        if report.step == 20:
            whole.save(tmp_path)
    assert torch.equal(torch.get_rng_state(), before)
    torch.rand(7)  # What the user draws between does not matter.
    again = dropping()
    again.resume(tmp_path)
    assert list(train(again, objective)) == curve[20:]
    assert torch.equal(weights(again.model), weights(whole.model))
    # And it is dropout of the seed: of another one the same draws of data do not give the same losses.
    other = dropping()
    other.streams.restore(Streams(0).state() | {"network-cpu": Streams(1).state()["network-cpu"]})
    assert next(train(other, objective)).loss != curve[0].loss


def test_seeds_are_split_by_purpose(tmp_path: Path) -> None:
    """Order, noise, dropout, pairs and weights of one seed share nothing, and no draw of two processes is the same."""
    taken = [Streams(0, part) for part in range(2)]
    numbers = [value for each in taken for value in each.normal(50).tolist()]
    for each in taken:
        with each.within():
            numbers += torch.randn(50).tolist()
    pairs = FreshPairs(lambda x, sigma: x, (1,), 1.0)
    numbers += (pairs.draw(1, Streams(0))[0], pairs._noises[: pairs.first].flatten().tolist())[1]  # noqa: SLF001
    assert len(set(numbers)) == len(numbers)
    assert len(set(map(tuple, (each.rows(1000, 20).tolist() for each in taken)))) == 2


def test_what_cannot_be_gone_on_with_is_said() -> None:
    """A process that was not there, or a generator of another kind of device."""
    streams = Streams(3)
    state = streams.state()
    for other in ({}, state | {"noise": state["noise"][:16]}):
        with pytest.warns(RuntimeWarning, match="goes on with other random numbers than it would have had"):
            streams.restore(other)
        assert streams.state().keys() == state.keys()
        assert all(torch.equal(value, state[name]) for name, value in streams.state().items())


@pytest.mark.parametrize("technique", ["consistency", "progressive", "knowledge", "multistep"])
def test_the_exact_teacher_is_never_under_autocast(technique: str, tmp_path: Path) -> None:
    """And the network always is: student and target."""
    teachers: list[bool] = []

    def teacher(x: Tensor, sigma: float | Tensor) -> Tensor:
        teachers.append(torch.is_autocast_enabled("cpu"))
        return D(x, sigma)

    config = Distillation(technique, levels=4, pairs=16, experiment=changed(bf16=True, steps=2))
    seen: list[bool] = []
    _, training, objective = next(stages(config, DATA, teacher, tmp_path / "pairs"))
    for module in (training.model, training.denoiser):
        module.net.register_forward_pre_hook(lambda *_: seen.append(torch.is_autocast_enabled("cpu")))
    for _ in train(training, objective):
        pass
    assert teachers
    assert not any(teachers)
    assert seen
    assert all(seen)


@pytest.mark.parametrize("technique", ["consistency", "multistep"])
def test_the_target_is_in_evaluation_mode(technique: str, tmp_path: Path) -> None:
    training = dropping(steps=3)
    config = Distillation(technique, levels=4, pairs=16, experiment=SMALL)
    _, _, objective = next(stages(config, DATA, D, tmp_path / "pairs"))
    training.average.train()
    for _ in train(training, objective):
        assert training.denoiser.net.asked
        assert not any(mode for mode, _ in training.denoiser.net.asked)
        assert all(mode for mode, _ in training.model.net.asked)


def test_a_teacher_in_training_mode_is_asked_in_evaluation_mode(tmp_path: Path) -> None:
    teacher = dropping().model.train()
    config = Distillation("consistency", levels=4, experiment=SMALL)
    _, _, objective = next(stages(config, DATA, teacher, tmp_path))
    assert not objective.teacher.training
    assert teacher.training


def test_a_module_of_ones_own_is_loaded_into(tmp_path: Path) -> None:
    training = dropping(steps=4)
    ends = run(training, Denoising(DATA, OPTIONS, 1.0), tmp_path)
    x = torch.linspace(-1, 1, 5)[:, None]
    for net in (Dropping(), Preconditioned(Dropping(), 3.0, "none")):
        model, config = load_model(tmp_path, net=net)
        assert torch.equal(model(x, 1.0), ends(x, 1.0))
        assert not model.training
        assert config == training.config
    with pytest.raises(ValueError, match="are not those of the net given"):
        load_model(tmp_path, net=nn.Linear(1, 1))
    with pytest.raises(ValueError, match=r"are not those of the network that it names: give .* as net="):
        load_model(tmp_path)


def test_a_run_is_made_longer(tmp_path: Path) -> None:
    """It goes on where it stopped, at the learning rate of a run of so many steps."""
    fit(changed(steps=20), DATA, tmp_path, every=5)
    with pytest.raises(ValueError, match=r"optimisation.steps: 20 there, 40 here; extend=True \(--extend\) makes"):
        fit(changed(steps=40), DATA, tmp_path, resume=True)
    with pytest.raises(ValueError, match="can be made longer, not shorter: it has 20 steps, got 10"):
        fit(changed(steps=10), DATA, tmp_path, extend=True)
    with pytest.raises(ValueError, match=r"optimisation.lr: 0.01 there, 0.1 here"):
        fit(changed(steps=40, lr=0.1), DATA, tmp_path, extend=True)
    training, objective = new_training(changed(steps=40), DATA)
    training.resume(latest(tmp_path), extend=True)
    reports = list(train(training, objective))
    assert [report.step for report in reports] == list(range(21, 41))
    whole, objective = new_training(changed(steps=40), DATA)
    assert [report.lr for report in reports] == [report.lr for report in train(whole, objective)][20:]
    longer = fit(changed(steps=40), DATA, tmp_path, extend=True)
    assert torch.equal(weights(longer), weights(training.denoiser))
    assert load_model(tmp_path)[1] == changed(steps=40)


def test_students_are_made_longer_but_for_progressive(tmp_path: Path) -> None:
    for technique in ("knowledge", "progressive"):
        folder = tmp_path / technique
        short = Distillation(technique, levels=4, pairs=16, experiment=changed(steps=4))
        long = dataclasses.replace(short, experiment=changed(steps=8))
        distil(short, DATA, D, folder)
        with pytest.raises(ValueError, match=r"another distillation: it differs in experiment\.optimisation\.steps"):
            distil(long, DATA, D, folder, resume=True)
        if technique == "progressive":
            with pytest.raises(ValueError, match="progressive distillation cannot be made longer"):
                distil(long, DATA, D, folder, extend=True)
        else:
            distil(long, DATA, D, folder, extend=True)
            assert load_model(folder)[1] == long
            assert len(list(folder.glob("pairs-*"))) == 1


def test_metrics_are_means_of_all_steps(tmp_path: Path) -> None:
    """Also where a run stops between two rows."""
    config = changed(steps=230)
    training, objective = new_training(config, DATA)
    curve = list(train(training, objective))
    fit(config, DATA, tmp_path / "whole", every=50, keep=9)
    (tmp_path / "again").mkdir()
    shutil.copy(tmp_path / "whole" / "step-000000150.safetensors", tmp_path / "again")
    (tmp_path / "again" / "metrics.csv").write_text((tmp_path / "whole" / "metrics.csv").read_text())
    fit(config, DATA, tmp_path / "again", resume=True)
    texts = [(tmp_path / name / "metrics.csv").read_text() for name in ("whole", "again")]
    assert texts[0] == texts[1]
    rows = [[float(value) for value in row] for row in list(csv.reader(texts[0].splitlines()))[1:]]
    for row, (low, high) in zip(rows, ((0, 100), (100, 200), (200, 230)), strict=True):
        part = curve[low:high]
        mean = [np.mean([getattr(report, name) for report in part]) for name in ("loss", "gradient")]
        assert row == pytest.approx([high, mean[0], part[-1].lr, mean[1]])


def test_the_gap_is_logged_and_changes_nothing(tmp_path: Path) -> None:
    config = changed(steps=60)
    plain = fit(config, DATA, tmp_path / "plain")
    seen = fit(config, DATA, tmp_path / "seen", gap_every=25)
    assert torch.equal(weights(plain), weights(seen))
    assert not (tmp_path / "plain" / "gap.csv").exists()
    rows = list(csv.DictReader((tmp_path / "seen" / "gap.csv").read_text().splitlines()))
    levels = {float(row["sigma"]) for row in rows}
    assert [int(row["step"]) for row in rows] == [step for step in (25, 50, 60) for _ in levels]
    assert all(float(row["gap_low"]) <= float(row["gap"]) <= float(row["gap_high"]) for row in rows)
    with pytest.raises(ValueError, match=r"gap_every is for gap.csv in the folder of the run: name one"):
        fit(config, DATA, gap_every=5)


def test_a_run_goes_on_with_a_table_that_had_another_name_for_a_column(tmp_path: Path) -> None:
    """gap_carriers was gap_draws."""
    fit(changed(steps=20), DATA, tmp_path / "run", gap_every=10)
    path = tmp_path / "run" / "gap.csv"
    before = list(csv.DictReader(path.read_text().splitlines()))
    assert "gap_carriers" in before[0]
    path.write_text(path.read_text().replace("gap_carriers", "gap_draws"))
    fit(changed(steps=30), DATA, tmp_path / "run", gap_every=10, extend=True)
    after = list(csv.DictReader(path.read_text().splitlines()))
    assert after[: len(before)] == before
    assert after[-1]["step"] == "30"


def test_the_gap_has_its_known_value_within_its_interval() -> None:
    """Of the optimum 0; of it moved by 0.1 exactly 0.01; of noise of size 0.1 0.01, in 95 of 100 intervals."""
    curve = GapCurve(D, sigma_min=0.05, sigma_max=20.0)
    assert (curve.sigmas.min(), curve.sigmas.max(), len(curve.sigmas)) == (0.05, 20, 12)
    for found in curve.of(D, 3, batch=100):
        assert (found.step, found.gap, found.gap_low, found.gap_high, found.gap_share) == (3, 0, 0, 0, 0)
        assert found.gap_carriers == 0
    for found in curve.of(lambda x, sigma: D(x, sigma) + 0.1, 3):
        assert found.gap == pytest.approx(0.01, rel=1e-4)
        assert found.gap_low == pytest.approx(found.gap_high, rel=1e-3)
    generator, held = torch.Generator().manual_seed(1), 0
    short = GapCurve(D, sigma_min=0.05, sigma_max=20.0, sigmas=[1.0], draws=64)
    for _ in range(400):
        (found,) = short.of(lambda x, sigma: D(x, sigma) + 0.1 * torch.randn(x.shape, generator=generator), 0)
        held += found.gap_low <= 0.01 <= found.gap_high
    assert 0.90 < held / 400 < 0.99


def test_so_many_checkpoints_are_kept(tmp_path: Path) -> None:
    fit(changed(steps=25), DATA, tmp_path, every=5, keep=3)
    assert [path.name[5:14] for path in checkpoints(tmp_path)] == ["000000015", "000000020", "000000025"]
    with pytest.raises(ValueError, match="keep must be at least 1, got 0"):
        fit(SMALL, DATA, tmp_path / "none", keep=0)


def test_the_first_pairs_are_announced(capsys: pytest.CaptureFixture[str]) -> None:
    """Filling the pool may take minutes before the first step; later pairs come between steps."""
    pairs, streams = FreshPairs(lambda x, sigma: x, (1,), 20.0, uses=1, progress=True), Streams(0)
    pairs.draw(512, streams)
    assert "first pairs: 100%" in capsys.readouterr().err
    streams.step = 1
    pairs.draw(512, streams)
    assert capsys.readouterr().err == ""


def doubling() -> tuple[list[Tensor], Jump]:
    """A jump, and what it is asked."""
    asked: list[Tensor] = []

    def jump(x: Tensor, sigma: float) -> Tensor:
        asked.append(x)
        return 2 * x

    return asked, jump


def test_fresh_pairs_grow_in_number_and_depend_on_the_step_alone() -> None:
    asked, jump = doubling()
    streams, pairs = Streams(0), FreshPairs(jump, (1,), 20.0, uses=4)
    drawn: list[Tensor] = []
    for streams.step in range(200):
        noises, ends = pairs.draw(512, streams)
        assert torch.equal(ends, 2 * noises)
        drawn.append(noises.flatten())
    assert [len(x) for x in asked] == [512] * (16 + 199 // 4)
    made = torch.cat(asked).flatten()
    assert len({float(x[0, 0]) for x in asked}) == len(asked)
    # All that are there are drawn alike: the first ones in every step, the last ones not before they were made.
    last = torch.cat(drawn[-40:])
    shares = [torch.isin(last, part).double().mean().item() for part in made[: 3 * 8192].split(8192)]
    assert shares == pytest.approx([16 / 62.6] * 3, abs=0.02)
    assert not torch.isin(drawn[0], made[8192:]).any()
    again, late = Streams(0), FreshPairs(jump, (1,), 20.0, uses=4)
    again.restore(streams.state())
    streams.step = again.step = 200
    assert all(map(torch.equal, pairs.draw(512, streams), late.draw(512, again)))
    with pytest.raises(ValueError, match="uses must be at least 1, got 0"):
        FreshPairs(jump, (1,), 20.0, uses=0)


def test_the_oldest_pairs_make_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("neural.distill.pairs._MEMORY", 8 * 512 * 20)
    asked, jump = doubling()
    streams, pairs = Streams(0), FreshPairs(jump, (1,), 20.0, uses=1)
    for streams.step in range(30):
        noises, _ = pairs.draw(512, streams)
        made = 16 + streams.step
        held = torch.cat(asked[max(0, made - 20) : made]).flatten()
        assert torch.isin(noises.flatten(), held).all()
    assert len(asked) == 16 + 29


def test_fresh_pairs_are_found_again(tmp_path: Path) -> None:
    asked, jump = doubling()
    first = FreshPairs(jump, (1,), 20.0, folder=tmp_path / "kept").draw(512, Streams(0))
    assert len(asked) == 16
    again = FreshPairs(jump, (1,), 20.0, folder=tmp_path / "kept").draw(512, Streams(0))
    assert len(asked) == 16
    assert all(map(torch.equal, first, again))
    # What was cut off, is of another shape or holds no numbers is made again.
    kept = sorted((tmp_path / "kept").iterdir())
    kept[0].write_bytes(kept[0].read_bytes()[:-1])
    np.save(kept[1], np.zeros((2, 3, 1), np.float32))
    np.save(kept[2], np.full((2, 512, 1), np.nan, np.float32))
    again = FreshPairs(jump, (1,), 20.0, folder=tmp_path / "kept").draw(512, Streams(0))
    assert len(asked) == 19
    assert all(map(torch.equal, first, again))
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match=r"the pairs could not be written to .*file"):
        FreshPairs(jump, (1,), 20.0, folder=tmp_path / "file").draw(512, Streams(0))


@pytest.mark.slow
@pytest.mark.parametrize("technique", ["knowledge", "multistep"])
def test_students_of_fresh_pairs_resume_bit_for_bit(technique: str, tmp_path: Path) -> None:
    config = Distillation(technique, "mine", levels=4, uses=1, experiment=changed(steps=40, batch=256))
    teacher = Moved()
    whole = distil(config, DATA, teacher, tmp_path / "whole")
    again = distil(config, DATA, teacher, tmp_path / "again", every=15, keep=9)
    for path in checkpoints(tmp_path / "again" / "student")[1:]:
        path.unlink()
    again = distil(config, DATA, teacher, tmp_path / "again", resume=True)
    assert torch.equal(weights(again), weights(whole))
    assert training_pairs(tmp_path / "whole") is None
    assert not list((tmp_path / "whole").glob("pairs-*"))


def test_a_students_own_pairs_are_given_back(tmp_path: Path) -> None:
    config = Distillation("knowledge", levels=4, pairs=24, experiment=changed(steps=1))
    distil(config, DATA, D, tmp_path / "student")
    (tmp_path / "student" / "pairs-other").mkdir()
    found = training_pairs(tmp_path / "student")
    assert found is not None
    noises, ends = found
    assert noises.shape == ends.shape == (24, 1)
    assert torch.equal(FlowMap(D)(noises, 20.0), ends)
    fit(SMALL, DATA, tmp_path / "net")
    assert training_pairs(tmp_path / "net") is None
    distil(dataclasses.replace(config, technique="consistency"), DATA, D, tmp_path / "c")
    assert training_pairs(tmp_path / "c") is None
    for path in (tmp_path / "student").glob("pairs-*/ends.npy"):
        path.unlink()
    with pytest.raises(ValueError, match=r"the pairs of .*student are missing or damaged"):
        training_pairs(tmp_path / "student")


def test_a_damaged_stage_is_named_where_students_are_compared(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = Distillation("progressive", levels=4, experiment=changed(steps=1))
    distil(config, DATA, D, tmp_path / "p")
    assert student_steps(tmp_path / "p") == (2, 1)
    path = latest(tmp_path / "p" / "steps-2")
    path.write_bytes(path.read_bytes()[:-40])
    words = ["compare", str(tmp_path / "p"), "--draws", "4", "-n", "4", "--steps", "2", "3"]
    assert main([*words, "--out", str(tmp_path / "table")]) == 2
    assert f"{path} is no checkpoint, or a damaged one" in capsys.readouterr().err


class Moved:
    """A teacher that says where it was asked."""

    def __init__(self) -> None:
        self.places: set[str] = set()

    def __call__(self, x: Tensor, sigma: float | Tensor) -> Tensor:
        self.places.add(x.device.type)
        return D(x, sigma)


@pytest.mark.slow
@pytest.mark.parametrize("technique", ["consistency", "progressive", "knowledge", "multistep", "fit"])
def test_trained_on_a_second_device_as_on_the_cpu(technique: str, tmp_path: Path) -> None:
    """Nothing is left behind on the CPU, the teacher is asked on the device, and the numbers are the same."""
    experiment, x = changed(steps=4, batch=16), torch.linspace(-2, 2, 5)[:, None]

    def trained(device: str | torch.device) -> Tensor:
        folder = tmp_path / str(device)
        if technique == "fit":
            model = fit(experiment, DATA, folder, device=device, every=2, gap_every=2)
        else:
            teacher = Moved()
            config = Distillation(technique, "mine", levels=4, pairs=16, experiment=experiment)
            model = distil(config, DATA, teacher, folder, device=device, every=2)
            assert torch.device(device).type in teacher.places
        return model(x.to(device), 1.0).detach().cpu()

    expected = trained("cpu")
    with second_device() as device:
        torch.testing.assert_close(trained(device), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.slow
def test_the_optimum_teaches_on_the_device(tmp_path: Path) -> None:
    """Its points are there too, and pairs of its exact flow are those of the CPU."""
    config = Distillation("knowledge", levels=4, pairs=8, experiment=changed(steps=1))
    expected = FlowMap(D)(stream_noise(8), 20.0)
    with second_device() as device:
        teacher = teacher_of(config, DATA, device)
        assert isinstance(teacher, OptimalDenoiser)
        assert teacher.points.device.type == device.type
        distil(config, DATA, teacher, tmp_path, device=device)
    found = training_pairs(tmp_path)
    assert found is not None
    assert torch.equal(found[0], stream_noise(8))
    torch.testing.assert_close(found[1], expected)
    with second_device() as device:
        pairs = FreshPairs(FlowMap(teacher), (1,), 20.0, at_once=4096, device=device)
        noises, ends = pairs.draw(5, Streams(0))
    assert noises.device.type == ends.device.type == "cpu"
    torch.testing.assert_close(FlowMap(D)(noises, 20.0), ends)


def stream_noise(count: int) -> Tensor:
    return 20 * torch.randn(count, 1, generator=stream(0, "pairs"))


def test_a_device_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"device must be auto or one that is there .*, got 'nowhere'"):
        fit(SMALL, DATA, tmp_path, device="nowhere")
