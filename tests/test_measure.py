"""The table by noise level: its levels, rows, words, labels and files, and what it refuses."""

from __future__ import annotations

import csv
import dataclasses
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from neural import agreement
from neural.measuring import default_sigmas, measure
from neural.model import open_model
from neural.places import along
from optimal import OptimalDenoiser, load
from optimal.draws import draw_pairs
from optimal.randomness import stream

Normal = Callable[..., Tensor]

DELTAS = OptimalDenoiser(load("five-deltas"))


def test_default_levels_lie_around_the_border() -> None:
    found = measure(DELTAS, DELTAS, draws=32)
    assert len(found.sigmas) == 12
    assert found.border is not None
    assert (found.sigmas - found.border.sigma).abs().min() < 1e-9
    assert torch.equal(found.sigmas, measure(lambda x, s: 0 * x, DELTAS, draws=8, seed=5).sigmas)
    assert f"border {found.border.sigma:.3g}" in found.sentence()


@pytest.mark.parametrize("scale", [1.0, 40.0])
@pytest.mark.parametrize("within", [(0.0, math.inf), (0.1, 1.0), (0.001, 0.002), (3000.0, math.inf), (1e3, 2e3)])
def test_default_levels_lie_in_the_range(scale: float, within: tuple[float, float]) -> None:
    D = OptimalDenoiser(scale * DELTAS.take(torch.arange(5)))
    for border in (0.5 * scale, 0.0, math.inf):
        levels = default_sigmas(D, border, within)
        assert len(levels) == 12
        assert (levels.diff() > 0).all()
        assert levels[0] >= within[0]
        assert levels[-1] <= within[1]


def test_levels_outside_of_the_range_are_refused() -> None:
    model = dataclasses.replace(open_model(lambda x, s: DELTAS(x, s)), sigma_min=0.1, sigma_max=10.0)
    with pytest.raises(ValueError, match=r"sigmas must lie within the network's range, 0.1 to 10, got 20"):
        measure(model, DELTAS, sigmas=[1.0, 20.0])
    found = measure(model, DELTAS, on="trajectory", sigmas=[10.0, 0.1, 1.0, 1.0], draws=8)
    assert found.sigmas.tolist() == [10.0, 0.1, 1.0, 1.0]
    assert (found.columns["gap"].high < 1e-8).all()


def test_labels_go_one_a_row() -> None:
    """The class of every point, as its network is told it: a network that moves by its label has that gap."""

    def network(x: Tensor, sigma: Any, class_labels: Tensor) -> Tensor:
        return DELTAS(x, sigma) + 0.1 * class_labels.to(x)[:, None]

    model = open_model(network)
    for labels, size in ((3, 0.09), (torch.tensor([5, 5, 5, 5, 5]), 0.25)):
        found = measure(model, DELTAS, sigmas=[0.5], draws=40, labels=labels)
        assert float(found.columns["gap"].value) == pytest.approx(size, rel=1e-4)
    mixed = measure(model, DELTAS, sigmas=[0.5], draws=4000, labels=torch.arange(5)).columns["gap"]
    assert float(mixed.low) < 0.01 * (0 + 1 + 4 + 9 + 16) / 5 < float(mixed.high)
    away = torch.tensor([[0.123], [0.456]])
    one = measure(model, DELTAS, on=away, sigmas=[0.5], draws=40, labels=[2, 2])
    assert float(one.columns["gap"].value) == pytest.approx(0.04, rel=1e-4)
    along = measure(model, DELTAS, on="trajectory", sigmas=[0.5], draws=6, labels=[1] * 6)
    assert float(along.columns["gap"].value) == pytest.approx(0.01, rel=1e-4)
    with pytest.raises(ValueError, match="labels must be one for all, or one a point, 5 of them, got 3"):
        measure(model, DELTAS, labels=[1, 2, 3])
    with pytest.raises(ValueError, match="labels must be one for all, or one a point, 8 of them, got 5"):
        measure(model, DELTAS, on="trajectory", sigmas=[0.5], draws=8, labels=torch.arange(5))


def test_rows_and_files(tmp_path: Path) -> None:
    found = measure(lambda x, s: 3 * DELTAS(x, s), DELTAS, sigmas=[0.5, 20.0], draws=50)
    rows = found.rows()
    assert [row["sigma"] for row in rows] == [0.5, 20.0]
    for row in rows:
        assert row["gap_low"] < row["gap"] < row["gap_high"]
        assert row["on"] == "data"
    assert "worse than the mean of the data (share above 1) at σ = 0.5 and 20" in found.sentence()
    found.save(tmp_path / "table")
    saved = json.loads((tmp_path / "table.json").read_text(), parse_constant=lambda word: pytest.fail(word))
    assert saved["sentence"] == found.sentence()
    assert saved["remarks"] == list(found.remarks)
    assert "50 draws are fewer than 64" in found.remarks[0]
    assert saved["rows"][0]["r_square"] is None
    with open(tmp_path / "table.csv", newline="") as file:
        assert float(next(csv.DictReader(file))["gap"]) == rows[0]["gap"]


def test_a_gap_of_few_draws_is_told() -> None:
    """A network that errs where x > 2.4 alone: no interval can hold what hardly a draw shows, and the table says so."""
    D = OptimalDenoiser(torch.zeros(1, 1))
    exact = measure(lambda x, s: D(x, s), D, sigmas=[1.0], draws=50)
    assert exact.rows()[0]["gap_carriers"] == 0
    rare = measure(lambda x, s: D(x, s) + 0.5 * (x > 2.4).to(x), D, sigmas=[1.0, 3.0, 40.0], draws=500)
    first, second, third = rare.carriers.tolist()
    assert 1 <= first <= 3
    assert first < second < third < 250
    assert [row["gap_carriers"] for row in rare.rows()] == [first, second, third]
    assert len([said for said in rare.remarks if "carry" in said]) == (first < 3)
    alone = measure(lambda x, s: D(x, s) + 0.5 * (x > 3.0).to(x), D, sigmas=[1.0, 40.0], draws=700)
    assert alone.carriers[0] <= 2 < alone.carriers[1]
    where = "one or two draws carry half of the gap at σ = 1: its intervals hold less than they say there"
    assert alone.remarks[:-1] == (where,)
    few = measure(lambda x, s: D(x, s) + 1, D, sigmas=[1.0], draws=63)
    told = "63 draws are fewer than 64: 95% intervals hold as little as 80% where the gap is uneven"
    assert few.remarks[:-1] == (told,)


def test_what_no_draw_shows_is_not_excluded() -> None:
    """A network that errs by 0.5 on one x in 741: of 500 draws none meets it, which is no proof."""
    D = OptimalDenoiser(torch.zeros(1, 3))
    rare = measure(lambda x, s: D(x, s) + 0.5 * (x[:, :1] > 3.0).to(x), D, sigmas=[0.5, 1.0, 40.0], draws=500, seed=1)
    assert (rare.carriers[:2] == 0).all()
    assert rare.carriers[2] > 0
    assert float(rare.columns["gap"].high[1]) < 1e-6 < 0.75 / 741
    told = "at σ = 0.5 and 1 none of 500 draws shows a difference beyond rounding; up to 0.6% of x may have one (95%)"
    assert rare.remarks == (told,)
    assert "farthest from the optimum at σ = 40" in rare.sentence()
    everywhere = measure(D, D, sigmas=[1.0, 2.0], draws=64, level=0.9)
    told = "at all 2 levels none of 64 draws shows a difference beyond rounding; up to 3.5% of x may have one (90%)"
    assert everywhere.remarks == (told,)
    assert everywhere.sentence() == "network on data: as near to the optimum as can be told at all 2 levels"
    # One draw far beyond rounding is a difference, though the mean over all is less than what all may be off by.
    far = OptimalDenoiser(torch.tensor([[0.0, 0.0, 0.0], [1e3, 0.0, 0.0]]))
    once = measure(lambda x, s: far(x, s) + 0.1 * (x[:, 1:2] == x[:, 1].max()).to(x), far, sigmas=[1.0], draws=500)
    assert once.carriers.tolist() == [1]


def test_what_is_undefined_for_few_values_has_no_number(normal: Normal) -> None:
    """Of x0_hat near 0, as the optimum of N(0, 1) often has it, E 1/|F|² is infinite for one value and for two."""
    for dim, lacking in ((1, 4), (2, 1), (3, 0)):
        D = OptimalDenoiser(normal(50, dim).float())
        found = measure(lambda x, s, D=D: D(x, s) + 0.1, D, sigmas=[2.0], draws=64)
        names = [name for name in found.columns if bool(found.columns[name].value.isnan().all())]
        assert len(names) == lacking
        told = [said for said in found.remarks if "not defined" in said]
        assert len(told) == bool(lacking)
        assert all(name in told[0] for name in names)


def test_the_excess_risk_of_the_optimum_holds_zero() -> None:
    """In another precision and another order of the sums it is the same optimum."""
    for D in (DELTAS, OptimalDenoiser(load("digits"))):
        other = OptimalDenoiser(D.take(torch.arange(len(D))).double().flip(0))
        network = lambda x, s, other=other: other(x.double(), s * (1 + 1e-7)).to(x)  # noqa: E731
        for seed in range(5):
            found = measure(network, D, sigmas=[0.3, 0.5, 1.0, 2.0, 5.0, 20.0], draws=64, seed=seed)
            excess = found.columns["excess_risk"]
            assert (excess.low <= 0).all()
            assert (excess.high >= 0).all()
            assert (excess.high - excess.low < 1e-2).all()


def test_published_coefficients(normal: Normal) -> None:
    """Of one draw, by hand: Wang and Vastola's, Lukoianov's, Kamb and Ganguli's, as analytic-spec has them."""
    D = OptimalDenoiser(normal(6, 5).float())
    F = lambda x, s: 0.8 * D(x, s) + 0.1 * x  # noqa: E731
    found = measure(F, D, sigmas=[0.7], draws=33, seed=4)
    x0, eps = draw_pairs(D, None, 33, stream(4, "evaluation"))
    x = x0 + 0.7 * eps
    f, d = F(x, 0.7).double().numpy(), D.posterior(x, 0.7).mean.double().numpy()
    gap = ((f - d) ** 2).sum(1)
    r = np.array([np.corrcoef(a, b)[0, 1] for a, b in zip(f, d, strict=True)])
    expected = {
        "explained_variance": (1 - gap / (f**2).sum(1)).mean(),
        "r_square": (1 - gap / (5 * f.var(1, ddof=1))).mean(),
        "pearson": np.median(r),
        "pearson_square": np.median(r**2),
        "cosine": ((f * d).sum(1) / np.linalg.norm(f, axis=1) / np.linalg.norm(d, axis=1)).mean(),
        "gap_share": gap.mean() / ((d - D.mean.numpy()) ** 2).sum(1).mean(),
        "excess_risk": (((f - x0.numpy()) ** 2).sum(1) - ((d - x0.numpy()) ** 2).sum(1)).mean(),
    }
    for name, value in expected.items():
        assert float(found.columns[name].value) == pytest.approx(value, rel=1e-6), name


def test_excess_risk_draw_by_draw_is_surer() -> None:
    """Paired with D's own error it scatters less than with the mean of the posterior's variance."""
    D = OptimalDenoiser(load("digits"))
    sigmas = [0.3, 0.5, 1.0, 2.0, 5.0]
    for F in (lambda x, s: D(x, 1.1 * s), lambda x, s: D(x, s) + 0.02):
        old = agreement(F, D, sigmas, draws=1000).excess_error
        column = measure(F, D, sigmas=sigmas, draws=1000).columns["excess_risk"]
        assert (old / ((column.high - column.low) / 4) > 3).all()


@pytest.mark.parametrize("scale", [1e-8, 1.0, 1e6])
def test_units_and_origin_change_nothing(normal: Normal, scale: float) -> None:
    """In other units every column is what it was; far from the origin, to what float32 leaves of it."""
    data = normal(12, 3)

    def columns(offset: float) -> dict[str, float]:
        D = OptimalDenoiser((scale * data + offset).float())
        network = lambda x, s: D(x, s) + 0.3 * scale * (x - D(x, s)).sign()  # noqa: E731
        found = measure(network, D, sigmas=[0.5 * scale], draws=64)
        return {name: float(column.value) for name, column in found.columns.items()}

    plain, moved = columns(0.0), columns(100 * scale)
    assert plain["gap_per_value"] == pytest.approx(0.09 * scale**2, rel=1e-4)
    for name in ("gap_per_value", "gap_share", "gap_over_sigma_square", "excess_risk"):
        assert moved[name] == pytest.approx(plain[name], rel=2e-3), name


def test_bad_input() -> None:
    with pytest.raises(ValueError, match="draws must be at least 2, got 1"):
        measure(DELTAS, DELTAS, draws=1)
    with pytest.raises(ValueError, match="level must lie between 0 and 1, got 95"):
        measure(DELTAS, DELTAS, level=95)
    with pytest.raises(ValueError, match="held-out points must be none of the data: of 3 3 are, such as number 0;"):
        measure(DELTAS, DELTAS, on=DELTAS.take(torch.tensor([0, 2, 3])), draws=64)
    with pytest.raises(ValueError, match="the network's own trajectory is not finite at σ = "):
        measure(lambda x, s: x * math.nan, DELTAS, on="trajectory", sigmas=[1.0])
    with pytest.raises(ValueError, match="places in the data must lie in 0 to 4, got 5"):
        measure(DELTAS, DELTAS, on=torch.tensor([0, 5]), sigmas=[1.0])
    with pytest.raises(ValueError, match=r"the network makes points of shape \(2,\), the data have \(1,\)"):
        measure(open_model(lambda x, s: x, event=(2,)), DELTAS)
    with pytest.raises(ValueError, match="held-out points must be none of the data"):
        measure(DELTAS, DELTAS, on=load("five-deltas"), sigmas=[1.0])
    with pytest.raises(ValueError, match="five-deltas has no labels, so that there are no classes"):
        measure(DELTAS, DELTAS, labels=3)


def test_a_network_of_no_numbers_is_named() -> None:
    D = OptimalDenoiser(load("five-deltas"))
    with pytest.raises(ValueError, match=r"the answer of nothing is not finite at σ = 0\.5"):
        measure(open_model(lambda x, sigma: x / 0 * 0, name="nothing"), D, sigmas=[0.5], draws=8)


def test_labels_one_a_row_belong_to_the_points_not_to_the_draws() -> None:
    """They would reach the wrong rows wherever there are as many draws as points."""
    D = OptimalDenoiser(torch.arange(8.0).view(8, 1))
    model = open_model(lambda x, sigma, class_labels: class_labels.to(x).view(-1, 1).expand_as(x))
    labels = torch.arange(8)
    found = measure(model, D, sigmas=[0.01], draws=64, labels=labels).rows()[0]["gap"]
    assert found == pytest.approx(0, abs=1e-9)
    with pytest.raises(ValueError, match="one label a row does not say which points they are of"):
        measure(model.given(labels), D, sigmas=[0.01], draws=8)


def test_a_trajectory_is_the_networks_own_flow() -> None:
    """Of a Gaussian, x(σ) = x(σ_max) √((s² + σ²)/(s² + σ_max²))."""
    D, square = OptimalDenoiser(torch.tensor([[-1.0], [1.0]], dtype=torch.float64)), 0.25
    model = open_model(lambda x, sigma: x * square / (square + sigma.view(-1, 1) ** 2), event=(1,))
    levels = torch.tensor([3.0, 0.3, 0.05], dtype=torch.float64)
    unit = torch.randn((100, 1), generator=stream(0, "evaluation-noises"))
    first = 160 * D.standard_deviation
    for sigma, x, _, _ in along(model, D, levels, 100, 0):
        flow = first * unit * math.sqrt((square + sigma**2) / (square + first**2))
        torch.testing.assert_close(x, flow.to(x), rtol=5e-3, atol=0)
