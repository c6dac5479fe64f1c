"""Studies: cells that are done once, tables that are held to what they say, and what is shipped."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from neural import Distillation, Experiment, Network, Optimisation, fit, load_model, open_model
from neural.__main__ import main
from neural.config import experiment_of, key
from neural.sampled import UnitNoises
from neural.studies import STUDIES, Cell, Done, Place, Study, Tables, catalogue, names, shelf, study, table
from neural.studies.again import chosen, done, finished, is_current, ship, verdict
from neural.studies.generalise import Generalise
from optimal import OptimalDenoiser, load

SMALL = Experiment("two-points", {}, Network(width=16, depth=1), Optimisation(steps=30, batch=32, warmup=5))


class Counted:
    """A study of one cell, and how often it was done."""

    def __init__(self, steps: int = 30, value: float = 1.0):
        self.config = dataclasses.replace(SMALL, optimisation=dataclasses.replace(SMALL.optimisation, steps=steps))
        self.calls, self.value = 0, value
        cell = Cell("points-2", self.config, lambda: {"data": self.config.load()}, self.work, 1.0)
        self.study = Study("counted", "How often?", (cell,), (("gap", "share"),))

    def work(self, place: Place) -> Tables:
        self.calls += 1
        folder, clock = place.part("network")
        fit(self.config, self.config.load(), folder, resume=True, listeners=[clock])
        row = {"sigma": 0.5, "share": self.value, "share_low": self.value - 0.1, "share_high": self.value + 0.1}
        return {"gap": [row, {"sigma": 1.0, "share": float("nan")}]}


@pytest.mark.slow
def test_a_cell_is_done_once_and_knows_what_it_was(tmp_path: Path) -> None:
    it = Counted()
    cell = it.study.cells[0]
    assert finished(it.study, cell, tmp_path) is None
    first = done(it.study, cell, tmp_path)
    assert done(it.study, cell, tmp_path) == first == finished(it.study, cell, tmp_path)
    assert it.calls == 1
    data = it.config.load()
    assert first.data == {"data": {"dataset": data.name, "fingerprint": data.fingerprint, "points": 2}}
    assert first.seconds > 0
    assert first.key == key(it.config)
    assert first.config["optimisation"]["steps"] == 30
    assert first.torch == torch.__version__
    # JSON has no nan.
    assert first.tables["gap"][1] == {"sigma": 1.0}


def test_a_cell_is_done_again_where_its_configuration_has_changed_or_its_file_is_damaged(tmp_path: Path) -> None:
    before, after = Counted(), Counted(steps=40)
    done(before.study, before.study.cells[0], tmp_path)
    found = done(after.study, after.study.cells[0], tmp_path)
    assert after.calls == 1
    assert is_current(after.study.cells[0], found)
    assert not is_current(before.study.cells[0], found)
    assert finished(before.study, before.study.cells[0], tmp_path) is not None
    for path in tmp_path.rglob("rows.json"):
        path.write_text("{")
    assert finished(after.study, after.study.cells[0], tmp_path) is None
    done(after.study, after.study.cells[0], tmp_path)
    assert after.calls == 2


def test_a_training_goes_on_where_it_was_stopped(tmp_path: Path) -> None:
    it = Counted()

    def stopped(place: Place) -> Tables:
        it.work(place)
        raise KeyboardInterrupt

    cell = dataclasses.replace(it.study.cells[0], work=stopped)
    with pytest.raises(KeyboardInterrupt):
        done(it.study, cell, tmp_path)
    trained = next(tmp_path.rglob("step-*"))
    written, seconds = trained.stat().st_mtime_ns, next(tmp_path.rglob("seconds.csv")).read_text()
    found = done(it.study, it.study.cells[0], tmp_path)
    assert trained.stat().st_mtime_ns == written
    assert found.seconds == pytest.approx(sum(float(line.split(",")[1]) for line in seconds.split()), abs=0.06)


def test_what_is_shipped_is_put_cell_by_cell_and_compared(tmp_path: Path) -> None:
    one, two = Counted(), Counted(value=2.0)
    extra = dataclasses.replace(one.study.cells[0], name="points-3", config=Counted(steps=31).config)
    grid = dataclasses.replace(one.study, cells=(*one.study.cells, extra))
    both = [done(grid, cell, tmp_path / "a") for cell in grid.cells]
    path = ship(grid, both, tmp_path)
    assert table("counted", tmp_path) == {each.name: each for each in both}
    assert names(tmp_path) == ["counted"]
    now = done(two.study, two.study.cells[0], tmp_path / "b")
    ship(grid, [now], tmp_path)
    assert list(table("counted", tmp_path)) == ["points-2", "points-3"]
    assert table("counted", tmp_path)["points-2"] == now
    # A cell that the study does otherwise now is not kept.
    ship(dataclasses.replace(grid, cells=(grid.cells[0], dataclasses.replace(extra, config=one.config))), [], tmp_path)
    assert list(table("counted", tmp_path)) == ["points-2"]
    told: list[str] = []
    for then, later in ((both[0], both[0]), (both[0], now), (now, both[0])):
        verdict(grid, then, later, told.append)
    words = [line.rpartition(", ")[2] for line in told]
    assert words == ["as the shipped 1", "above the shipped 1", "below the shipped 2"]
    assert told[1].startswith("points-2, sigma 0.5: share 2 [1.9, 2.1]")
    assert path.read_text().count("\n") > 3


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (lambda path: path.unlink(), "the table of the study counted is not there: .*counted.json is missing"),
        (lambda path: path.write_text("{"), "counted.json is damaged"),
        (lambda path: path.write_bytes(b"\xff\xfe"), "counted.json is damaged"),
        (lambda path: path.write_text("[]"), "counted.json is damaged"),
        (lambda path: path.write_text('{"format": 1}'), "counted.json is damaged: no 'cells'"),
        (lambda path: path.write_text('{"format": 1, "cells": [{"name": "a"}]}'), "counted.json is damaged"),
        (lambda path: path.write_text('{"format": 0, "cells": []}'), "made by another version"),
    ],
)
def test_a_damaged_table_is_one_sentence_and_an_offer(
    tmp_path: Path, harm: Callable[[Path], object], message: str
) -> None:
    it = Counted()
    path = ship(it.study, [done(it.study, it.study.cells[0], tmp_path / "runs")], tmp_path)
    harm(path)
    with pytest.raises(ValueError, match=message) as told:
        table("counted", tmp_path)
    assert str(told.value).endswith("`python -m neural study counted --ship` makes it again")
    ship(it.study, [done(it.study, it.study.cells[0], tmp_path / "runs")], tmp_path)
    assert list(table("counted", tmp_path)) == ["points-2"]


def test_the_command_says_how_long_does_what_is_left_and_ships(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    it = Counted()
    monkeypatch.setitem(catalogue.STUDIES, "counted", it.study)
    monkeypatch.setattr(shelf, "MEASURED", tmp_path / "measured")
    for function in (shelf.names, shelf.table, shelf.put, ship):
        monkeypatch.setattr(function, "__defaults__", (tmp_path / "measured",))
    words = ["study", "counted", "--threads", "1", "--out", str(tmp_path)]
    assert main([*words, "--dry-run"]) == 0
    said = capsys.readouterr()
    assert "counted: 1 cells to do, about 1 s; 0 are done. How often?" in said.err
    assert "nothing was trained" in said.out
    assert it.calls == 0
    assert main([*words, "--ship"]) == 0
    assert "counted, points-2: " in capsys.readouterr().out
    assert list(table("counted", tmp_path / "measured")) == ["points-2"]
    assert main(words) == 0
    assert it.calls == 1
    assert "share 1 [0.9, 1.1], as the shipped 1" in capsys.readouterr().out
    for wrong, sentence in (
        (["study", "countet"], "error: there is no study 'countet'; did you mean 'counted'?"),
        ([*words, "--cells", "digits"], "error: no cell of counted is called 'digits': points-2"),
        ([*words, "--threads", "0"], "error: threads must be at least 1, got 0"),
    ):
        assert main(wrong) == 2
        assert sentence in capsys.readouterr().err


def test_cells_are_chosen_by_patterns() -> None:
    grid = study("generalise")
    assert {cell.name.rpartition("-")[0] for cell in chosen(grid, ["digits-*"])} == {"digits"}
    assert chosen(grid) == list(grid.cells)


@pytest.mark.parametrize("name", names())
def test_a_shipped_table_is_that_of_its_study_and_of_todays_data(name: str) -> None:
    cells, found = {cell.name: cell for cell in study(name).cells}, table(name)
    assert found
    for each in found.values():
        assert isinstance(each, Done)
        assert is_current(cells[each.name], each), each.name
        for part, data in cells[each.name].data().items():
            assert each.data[part] == {"dataset": data.name, "fingerprint": data.fingerprint, "points": len(data)}
        assert each.tables
        assert all(rows for rows in each.tables.values())


def test_cells_of_generalise_are_disjoint_equal_and_of_their_size() -> None:
    for cell in STUDIES["generalise"].cells:
        config = cell.config
        data = {part: {row.tobytes() for row in each.array} for part, each in cell.data().items()}
        for a, b in (("first", "second"), ("first", "held-out"), ("second", "held-out")):
            if a in data and b in data and cell.name.startswith("digits"):
                assert not data[a] & data[b]
        assert config.size == int(cell.name.rpartition("-")[2])
        if config.second is not None:
            assert len(config.second.load()) == config.size
            assert config.second.network == config.first.network
            changed = dataclasses.replace(config.second.optimisation, seed=config.first.optimisation.seed)
            assert changed == config.first.optimisation


@pytest.fixture(scope="module")
def generalised(tmp_path_factory: pytest.TempPathFactory) -> tuple[Generalise, Tables, Path]:
    """Two networks on ten digits each, a few steps long."""
    folder = tmp_path_factory.mktemp("generalise")
    options = Optimisation(steps=60, batch=64, warmup=5)
    training = Experiment("digits", {"only": (0, 3), "n": 10}, Network(width=32, depth=1), options)
    other = dataclasses.replace(
        training, options={"only": (1, 3), "n": 10}, optimisation=dataclasses.replace(options, seed=1)
    )
    config = Generalise(training, other, {"only": (2, 3)}, draws=64, samples=32)
    return config, config.work(Place(folder)), folder


@pytest.mark.slow
def test_generalise_measures_both_networks_and_both_optima(generalised: tuple[Generalise, Tables, Path]) -> None:
    config, tables, _ = generalised
    assert {row["on"] for row in tables["gap"]} == {"data", "held-out"}
    assert {row["n"] for row in tables["gap"]} == {10}
    assert sum(row["level"] == "at the border" for row in tables["gap"]) == 2
    first, second = (OptimalDenoiser(data) for name, data in config.data().items() if name != "held-out")
    row = tables["agreement"][3]
    for name in ("apart", "optimum_apart", "ratio"):
        assert row[f"{name}_low"] < row[name] < row[f"{name}_high"]
    assert row["ratio"] == pytest.approx(row["apart"] / row["optimum_apart"])
    # The optima's distance from each other, with other draws and by hand.
    clean = load("digits", only=(2, 3)).points
    noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(5))
    x = clean + row["sigma"] * noise
    apart = float((first(x, row["sigma"]) - second(x, row["sigma"])).double().square().mean())
    assert row["optimum_apart_low"] * 0.8 < apart < row["optimum_apart_high"] * 1.2
    methods = [row["method"] for row in tables["samplers"]]
    assert methods == ["first", "second", "held-out points"]
    assert {len(row["image"]) for row in tables["pictures"]} == {64}
    pair = tables["pairs"][0]
    assert -1 <= pair["cosine_low"] <= pair["cosine"] <= pair["cosine_high"] <= 1
    assert pair["optimum_apart"] > 0


@pytest.mark.slow
def test_both_networks_of_generalise_begin_with_the_same_weights_and_draw_their_own(
    generalised: tuple[Generalise, Tables, Path], tmp_path: Path
) -> None:
    config, _, folder = generalised
    assert config.second is not None
    short = [
        dataclasses.replace(each, optimisation=dataclasses.replace(each.optimisation, steps=1, lr=1e-12))
        for each in (config.first, config.second)
    ]
    Generalise(short[0], short[1], config.held_out, draws=4, samples=4).work(Place(tmp_path))
    first, second = (load_model(tmp_path / name)[0] for name in ("first", "second"))
    for a, b in zip(first.parameters(), second.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-9)
    first, second = (load_model(folder / name)[0] for name in ("first", "second"))
    assert any(not torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))


@pytest.mark.parametrize("learner", ["denoiser", "knowledge", "consistency", "progressive"])
def test_difficulty_holds_every_learner_to_the_exact_landings(learner: str, tmp_path: Path) -> None:
    """On three digits, a few steps long; what is shipped is the same with other numbers."""
    cell = next(each for each in STUDIES["difficulty"].cells if each.name == f"digits-5-{learner}")
    config = cell.config
    experiment = experiment_of(config.training)
    options = dataclasses.replace(experiment.optimisation, steps=40, batch=64, warmup=5)
    data = experiment.options | {"n": 3}
    experiment = dataclasses.replace(experiment, options=data, network=Network(width=32, depth=1), optimisation=options)
    if isinstance(config.training, Distillation):
        training = dataclasses.replace(config.training, levels=4, experiment=experiment)
    else:
        training = experiment
    tables = dataclasses.replace(config, training=training, draws=32, samples=48).work(Place(tmp_path))
    rows = tables["samplers"]
    assert {row["learner"] for row in rows} == {learner}
    assert {row["n"] for row in rows} == {3}
    assert [row["steps"] for row in rows] == ([1, 2, 4, 8, 18] if learner == "denoiser" else [1, 2, 4][: len(rows)])
    assert ("same_pairs" in rows[0]) == (learner == "knowledge")
    assert ("gap" in tables) == (learner == "denoiser")
    # By hand: one step is the network itself at σ = 80.
    model, D = open_model(tmp_path / learner), OptimalDenoiser(experiment.load())
    start, _, home = UnitNoises(D, 48, 0).at(80.0)
    assert rows[0]["same"] == pytest.approx(float((D.nearest(model(start, 80.0)) == home).double().mean()))
    for row in rows:
        assert row["same_low"] <= row["same"] <= row["same_high"]


def test_learners_of_difficulty_differ_in_what_they_are_asked_alone() -> None:
    cells = STUDIES["difficulty"].cells
    sizes = {cell.name.split("-")[1] for cell in cells}
    assert sizes == {"2", "5", "10", "30", "100", "300", "1000", "all"}
    shared = {"steps", "batch", "optimizer", "lr", "warmup", "clip", "seed"}
    for cell in cells:
        experiment = experiment_of(cell.config.training)
        assert experiment.network == Network(width=256, depth=3)
        options = dataclasses.asdict(experiment.optimisation)
        if cell.name.endswith(("more", "longer")):
            options["steps"] //= 8
        if cell.name.endswith("most"):
            options["steps"] //= 32
        if cell.name.endswith("progressive"):
            options["steps"] *= 4
        assert {name: options[name] for name in shared} == {
            "steps": 400, "batch": 512, "optimizer": "muon", "lr": 4e-3, "warmup": 50, "clip": 1.0, "seed": 0,
        }  # fmt: skip
        size = cell.name.split("-")[1]
        assert experiment.options == {"without": (10, 11)} | ({} if size == "all" else {"n": int(size)})
