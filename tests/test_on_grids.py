"""Networks on noise grids: their loss as a curve, samples held to their own ends, and the study that comes of it."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from neural import PRESETS, followed, loss_curve, on_grids, open_model
from neural.curves import near_level
from neural.grids import Followed
from neural.sampled import UnitNoises
from neural.studies import Place, table
from neural.studies.grids import Grids, network_grids, within_range
from neural.transport import transport_interval
from optimal import OptimalDenoiser, forward_statistics, karras, load, sample
from optimal.draws import draw_pairs
from optimal.randomness import RowNoise, stream
from optimal.schedules import Curve, curve_of, entropic_grid, path_kl_grid

DIGITS = OptimalDenoiser(load("digits", without=(10, 11)))
TOY = OptimalDenoiser(load("five-deltas"))


def test_the_curve_of_the_optimum_is_its_own() -> None:
    """On the same levels and pairs: as measured along the forward process."""
    same: dict[str, Any] = {"sigma_max": 80.0, "nodes": 12, "draws": 64}
    found = loss_curve(DIGITS, DIGITS, sigma_min=0.1, generator=stream(3, "design"), **same)
    along = forward_statistics(DIGITS, found.sigmas, draws=64, generator=stream(3, "design"))
    torch.testing.assert_close(found.mmse, along.mmse.double().cpu(), rtol=2e-3, atol=1e-6)
    # With other pairs, within what 64 draws leave open.
    optimum = curve_of(DIGITS, sigma_max=80.0)
    np.testing.assert_allclose(found.mmse[4:], optimum.at(found.sigmas[4:].numpy()), rtol=0.2)
    for grid in (path_kl_grid, entropic_grid):
        assert torch.isfinite(grid(found, 5)).all()


def test_a_networks_curve_is_its_denoising_loss_and_lies_above_the_optimums() -> None:
    model = open_model("pretrained:digits")
    found, optimum = (
        loss_curve(F, DIGITS, sigma_max=80.0, sigma_min=0.1, nodes=8, draws=512, generator=stream(1, "design"))
        for F in (model, DIGITS)
    )
    assert (found.mmse >= optimum.mmse).all()
    assert (found.mmse > 1.05 * optimum.mmse)[:3].all()
    # E‖x0 − F‖², as it is defined, with other pairs.
    x0, eps = draw_pairs(DIGITS, None, 1024, stream(2, "design"))
    for level, value in zip(found.sigmas.tolist(), found.mmse.tolist(), strict=True):
        square = (model(x0 + level * eps, level) - x0).double().flatten(1).square().sum(1)
        assert float(square.mean()) == pytest.approx(value, abs=5 * float(square.std()) / math.sqrt(512) + 1e-3)


def test_a_curve_is_near_below_a_level() -> None:
    curve = Curve.of(torch.logspace(-2, 1, 40), lambda sigma: sigma**2)
    assert near_level(curve, 0.5) == float(curve.sigmas[curve.sigmas <= 0.5].max())
    assert near_level(curve, 1e-4) == curve.low


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"nodes": 7}, "at least 8 levels, got 7"),
        ({"sigma_min": 90.0}, "0 < sigma_min < sigma_max, got 90 and 80"),
        ({"sigma_min": 0.0}, "0 < sigma_min < sigma_max, got 0 and 80"),
        ({"draws": 0}, "draws must be at least 1"),
        ({"F": lambda x, sigma: x / 0}, "must be finite, they are not at sigma = 0.002"),
    ],
)
def test_no_curve_of_what_has_none(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        loss_curve(values.pop("F", TOY), TOY, **{"sigma_max": 80.0} | values)


@pytest.fixture(scope="module")
def starts() -> Followed:
    return followed(open_model("pretrained:digits"), DIGITS, n=64, steps=24)


def test_samples_are_held_to_the_networks_own_ends(starts: Followed) -> None:
    """Columns by hand, equal calls counted, and the differences paired by noises."""
    grids = {"edm": karras(6), "raised": karras(6, sigma_min=0.2), "again": karras(6)}
    calls: list[int] = []

    def counted(x: Tensor, sigma: Tensor) -> Tensor:
        calls.append(len(x))
        return starts.model(x, sigma)

    rows = on_grids(starts, grids, solver="dpm_solver_pp", order=3)
    noises = (80.0 * RowNoise(stream(0, "evaluation-noises")).draw((64, *DIGITS.event))).float()
    own = sample(starts.model, noises, karras(24), solver="heun")
    for row in rows:
        ends = sample(counted, noises, grids[row["grid"]], solver="dpm_solver_pp", order=3)
        assert row["nfe"] == len(calls) == 6
        calls.clear()
        same = DIGITS.nearest(ends) == DIGITS.nearest(own)
        assert row["own_same"] == pytest.approx(float(same.double().mean()))
        square = (ends.double() - own.double()).flatten(1).square().sum(1).mean()
        assert row["own_distance"] == pytest.approx(float(square.sqrt()))
        distance = transport_interval(ends, DIGITS, generator=stream(0, "projections"))
        assert row["wasserstein"] == pytest.approx(float(distance.value))
    edm, raised, again = rows
    assert not any("_change" in name for name in edm)
    for name in ("own_same", "own_distance", "flow_same", "wasserstein"):
        assert raised[f"{name}_change"] == pytest.approx(raised[name] - edm[name])
        assert raised[f"{name}_change_low"] < raised[f"{name}_change"] < raised[f"{name}_change_high"]
        assert again[f"{name}_change"] == 0
        assert again[f"{name}_change_low"] <= 0 <= again[f"{name}_change_high"]
    assert raised["last"] == pytest.approx(0.2)
    # Paired, a difference is known better than from the two intervals.
    width = raised["own_distance_change_high"] - raised["own_distance_change_low"]
    assert width < sum(row["own_distance_high"] - row["own_distance_low"] for row in (edm, raised))


def test_grids_are_compared_with_several(starts: Followed) -> None:
    """The first as alone; of the second, each column less its own, and with signs exchanged beside the first."""
    grids = {"edm": karras(6), "raised": karras(6, sigma_min=0.2), "other": karras(6, sigma_min=0.4)}
    alone = on_grids(starts, grids)
    rows = on_grids(starts, grids, against=("edm", "raised"))
    for row, before in zip(rows, alone, strict=True):
        assert {name: value for name, value in row.items() if "_less_" not in name} == before
    edm, raised, other = rows
    assert not any("_less_" in name for name in raised)
    for name in ("own_same", "own_distance", "flow_same", "wasserstein"):
        less, change = f"{name}_less_raised", f"{name}_change"
        assert other[less] == pytest.approx(other[name] - raised[name])
        assert other[f"{less}_low"] < other[less] < other[f"{less}_high"]
        for mine, its in (("", ""), ("_low", "_high"), ("_high", "_low")):
            assert edm[less + mine] == pytest.approx(-raised[change + its])


def test_the_optimums_own_ends_are_the_flows() -> None:
    starts = followed(open_model(TOY), TOY, n=200)
    (row,) = on_grids(starts, {"many": karras(64)})
    assert min(row["flow_same"], row["own_same"], float(starts.own.same.double().mean())) >= 0.99


def test_design_noises_are_no_evaluation_noises() -> None:
    judged, shown = (UnitNoises(TOY, 8, 0, generator=g).at(80.0)[0] for g in (None, stream(0, "design")))
    assert (judged[:, None] != shown[None]).all()


@pytest.mark.parametrize(
    ("grids", "values", "message"),
    [
        ({}, {}, "there are none"),
        ({"edm": karras(4)}, {"against": "other"}, "against must be one of the grids, edm, got 'other'"),
        ({"edm": karras(4)}, {"against": ("edm", "other")}, r"one of the grids, edm, got \('edm', 'other'\)"),
        ({"edm": karras(4)}, {"against": ()}, r"one of the grids, edm, got \(\)"),
        ({"low": karras(4, sigma_max=20.0)}, {}, "the starts lie at sigma = 80, low begins at 20"),
        ({"edm": karras(4)}, {"level": 1.0}, "level must lie between 0 and 1"),
    ],
)
def test_grids_that_do_not_compare(
    starts: Followed, grids: dict[str, Tensor], values: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        on_grids(starts, grids, **values)


@pytest.mark.parametrize("optimum", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_a_cell_of_the_study_designs_and_measures(
    tmp_path: Path, optimum: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    solvers = ("heun", "dpm_solver_pp 3")[not optimum :]
    few: dict[str, Any] = {"calls": (3,), "samples": 16, "starts": 8, "tuned": 8, "steps": 8}
    config = Grids("toy", PRESETS["toy"], optimum=optimum, solvers=solvers, **few)
    tables = config.work(Place(tmp_path))
    rows = tables["grids"]
    assert {(row["solver"], row["nfe"], row["n"]) for row in rows} == {
        (name, 3, 2 if name == "heun" else 3) for name in solvers
    }
    by_name = {row["grid"]: row for row in rows if row["solver"] == solvers[-1]}
    assert by_name.keys() >= {"karras", "karras-raised", "karras-tuned", "landings", "path-kl", "rescaled-entropy"}
    assert ("own-path-kl" in by_name) is not optimum
    assert all(("own_same_less_karras-tuned" in row) is (name != "karras-tuned") for name, row in by_name.items())
    assert by_name["karras"]["levels"] == pytest.approx(karras(3).tolist(), rel=1e-4)
    assert by_name["karras-raised"]["last"] == by_name["landings"]["last"]
    assert all(row["levels"][0] == 80 and row["levels"][-1] == 0 for row in rows)
    assert [row["ends"] for row in tables["ends"]] == ["own", "draws of the data"]

    def never(*_: object, **__: object) -> None:
        raise AssertionError("what was kept is measured again")

    # A cell that was stopped goes on after the solvers and calls that it has measured.
    monkeypatch.setattr("neural.studies.grids.on_grids", never)
    assert config.work(Place(tmp_path)) == tables


def test_the_arrays_are_those_of_the_shipped_table() -> None:
    arrays = network_grids()
    assert arrays["models"].tolist() == [*table("grids")]
    rows = table("grids")["digits"].tables["grids"]
    row = rows[len(rows) // 2 + 3]
    place = tuple(
        arrays[f"digits_{words}"].tolist().index(row[word])
        for word, words in (("solver", "solvers"), ("calls", "calls"), ("grid", "grids"))
    )
    for column in ("own_same", "wasserstein", "wasserstein_change"):
        expected = [row[column + end] for end in ("", "_low", "_high")]
        np.testing.assert_array_equal(arrays[f"digits_{column}"][place], expected)
    assert arrays["digits_nfe"][place[:2]] == row["nfe"]
    assert arrays["digits_ends"][0] == table("grids")["digits"].tables["ends"][0]["wasserstein"]


def test_a_grid_below_the_networks_range_is_shrunk_into_it() -> None:
    """Gaussian grids of many steps end below 0.002, where a network cannot be asked: even steps in log σ stay even."""
    below = torch.tensor([80.0, 0.8, 0.008, 0.00008, 0.0], dtype=torch.float64)
    found = within_range(below, 0.002)
    torch.testing.assert_close(found[:-1].log().diff(), torch.full((3,), math.log(0.002 / 80) / 3).double())
    assert found[[0, -1]].tolist() == [80, 0]
    for levels in (karras(5), torch.tensor([80.0, 0.0])):
        assert within_range(levels, 0.002) is levels
