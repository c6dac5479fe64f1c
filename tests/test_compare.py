"""Measures of agreement: their identities, and their values where these are known."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from neural import agreement, compare, landing_agreement
from neural.measures import coverage, memorised, save_table, wasserstein
from optimal import FlowMap, OptimalDenoiser, karras, load

Normal = Callable[..., Tensor]


def column(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)[:, None]


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


SIGMAS = torch.tensor([0.1, 0.5, 2.0, 10.0], dtype=torch.float64)


def test_the_optimum_agrees_with_itself() -> None:
    D = OptimalDenoiser(load("five-deltas"))
    found = agreement(D, D, SIGMAS, draws=4000)
    assert found.gap.amax() < 1e-12
    assert found.gap_share.amax() < 1e-10
    for name in ("explained_variance", "r_square", "pearson", "pearson_square", "cosine"):
        torch.testing.assert_close(getattr(found, name), torch.ones(4).double(), rtol=0, atol=1e-6)
    assert (found.excess_risk.abs() < 4 * found.excess_error).all()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["five-deltas", "digits"])
def test_excess_risk_is_the_gap(name: str) -> None:
    """E‖F − x0‖² − MMSE = E‖F − D*‖² for any F, within error bars, at every σ."""
    data = load(name)
    D, told_apart = OptimalDenoiser(data), []
    for F in (lambda x, s: D(x, 1.3 * s), lambda x, s: 0.9 * D(x, s) + 0.1 * x / (1 + s), lambda x, s: 0 * x):
        found = agreement(F, D, SIGMAS, draws=3000, generator=seeded(3))
        assert (found.identity.abs() < 4).all()
        assert (found.gap > 0).all()
        assert ((found.excess_risk - found.gap).abs() < 4 * found.excess_error).all()
        told_apart.append(float((found.gap / found.excess_error).amax()))
    # Being close to each other says something where both are far from 0.
    assert max(told_apart) > 30


def test_the_measures_are_what_they_are_named() -> None:
    """F = a D* + b in one dimension: every measure in closed form of the moments of D*."""
    D = OptimalDenoiser(load("five-deltas"))
    a, b = 0.8, 0.3
    found = agreement(lambda x, s: a * D(x, s) + b, D, [0.7], draws=5000, generator=seeded(1))
    from optimal.draws import draw_pairs

    x0, eps = draw_pairs(D, None, 5000, seeded(1))
    d = D(x0 + 0.7 * eps, 0.7).double().flatten()
    f = a * d + b
    gap = float((f - d).square().mean())
    mean = float(D.mean)
    expected = {
        "gap": gap,
        "gap_share": gap / float((d - mean).square().mean()),
        "explained_variance": 1 - gap / float(f.square().mean()),
        "r_square": 1 - gap / float(d.var(correction=0)),
        "pearson": 1.0,
        "pearson_square": 1.0,
        "cosine": float((f.sign() * d.sign()).mean()),
    }
    for name, value in expected.items():
        assert float(getattr(found, name)) == pytest.approx(value, rel=1e-5), name
    assert found.draws == 5000
    # A network that always answers the mean has share 1, explains nothing more, and correlates with nothing.
    blank = agreement(lambda x, s: torch.full_like(x, mean), D, SIGMAS, draws=1000)
    torch.testing.assert_close(blank.gap_share, torch.ones(4).double(), rtol=1e-5, atol=0)
    assert blank.pearson.abs().amax() == 0


def test_what_is_no_number_stays_none() -> None:
    D = OptimalDenoiser(load("five-deltas"))
    found = agreement(lambda x, s: torch.full_like(x, torch.nan), D, [0.7], draws=50, generator=seeded(1))
    assert found.gap.isnan().all()
    assert found.pearson.isnan().all()
    assert agreement(lambda x, s: 0 * x, D, [0.7], draws=50, generator=seeded(1)).pearson == 0


def test_memorised_copies() -> None:
    D = OptimalDenoiser(column(0.0, 4.0, 0.0, 10.0))
    x = column(0.0, 0.9, 1.1, 2.0, 3.1, 10.0, -100.0)
    # Distances to the nearest and the second nearest of the distinct points 0, 4, 10: 0.9/3.1 is below a third, 1.1/2.9
    # is not.
    assert memorised(x, D).tolist() == [True, True, False, False, True, True, False]
    first, second = D.two_nearest(x)
    torch.testing.assert_close(first, torch.tensor([0, 0.9, 1.1, 2, 0.9, 0, 100]).double())
    torch.testing.assert_close(second, torch.tensor([4, 3.1, 2.9, 2, 3.1, 6, 104]).double())
    assert memorised(x, OptimalDenoiser(torch.ones(3, 1))).all()


def test_two_nearest_of_images(normal: Normal) -> None:
    data = load("emoji", n=50)
    D = OptimalDenoiser(data)
    x = data.points[:7].double() + 0.3 * normal(7, *data.event)
    distances = torch.cdist(
        x.flatten(1), data.points.double().flatten(1), compute_mode="donot_use_mm_for_euclid_dist"
    ).sort(1)
    first, second = D.two_nearest(x)
    torch.testing.assert_close(first, distances.values[:, 0], rtol=1e-9, atol=0)
    torch.testing.assert_close(second, distances.values[:, 1], rtol=1e-9, atol=0)
    torch.testing.assert_close(D.mean, data.points.double().mean(0), rtol=0, atol=1e-9)


def test_coverage_counts_distinct_points() -> None:
    D = OptimalDenoiser(torch.arange(10.0)[:, None])
    assert coverage(torch.arange(10.0)[:, None], D) == pytest.approx(1 / (1 - 0.9**10))
    assert coverage(torch.zeros(1000, 1), D) == pytest.approx(0.1, rel=1e-3)
    draws = torch.randint(10, (20,), generator=seeded()).float()[:, None]
    assert 0.7 < coverage(draws, D) < 1.2
    twice = OptimalDenoiser(column(0.0, 1.0, 1.0, 1.0))
    assert coverage(column(0.0, 1.0), twice) == pytest.approx(2 / (2 - 0.75**2 - 0.25**2))


def test_wasserstein_distances(normal: Normal) -> None:
    """0 to the data themselves, the length of a shift, and on the line the quantile formula."""
    line = OptimalDenoiser(normal(200, 1))
    assert wasserstein(line.data, line) == pytest.approx(0, abs=1e-9)
    assert wasserstein(line.data + 0.7, line) == pytest.approx(0.7)
    x = normal(200, 1)
    by_quantiles = float((x.sort(0).values - line.data.sort(0).values).square().mean().sqrt())
    assert wasserstein(x, line) == pytest.approx(by_quantiles)
    plane = OptimalDenoiser(normal(60, 2))
    assert wasserstein(plane.data + torch.tensor([0.3, 0.4]), plane) == pytest.approx(0.5)
    images = OptimalDenoiser(normal(100, 1, 4, 4))
    assert wasserstein(images.data, images) == pytest.approx(0, abs=1e-9)
    shift = torch.full((1, 4, 4), 0.25)
    assert wasserstein(images.data + shift, images, projections=2000) == pytest.approx(1.0, rel=0.1)


def test_landings_beside_the_flow_map(normal: Normal) -> None:
    D = OptimalDenoiser(load("five-deltas"))
    x = 80 * normal(300, 1)
    landing = FlowMap(D).land(x, 80.0)
    own = landing_agreement(FlowMap(D), x, 80.0, landing.x, landing.index, D)
    assert own == {"distance": 0.0, "same": 1.0}
    shifted = landing_agreement(lambda x, s: FlowMap(D)(x, s) + 0.1, x, 80.0, landing.x, landing.index, D)
    assert shifted["distance"] == pytest.approx(0.1)
    assert shifted["same"] == 1.0
    mean = landing_agreement(lambda x, s: D(x, s), x, 80.0, landing.x, landing.index, D)
    assert mean["same"] < 0.4


def test_one_table_for_all_methods(normal: Normal, tmp_path: Path) -> None:
    D = OptimalDenoiser(load("five-deltas"))
    x = 80 * normal(200, 1)
    jump = FlowMap(D)
    arguments = {"sigmas": karras(40), "solver": "heun"}
    methods = {
        "optimum": (D, arguments),
        "one step": (D, {"sigmas": karras(1), "solver": "euler"}),
        "flow map": (jump, {"sigmas": karras(1), "solver": "euler"}),
        "off": (lambda x, s: D(x, s) + 0.2, arguments),
    }
    rows = {row["method"]: row for row in compare(methods, D, x, reference=jump(x, 80.0))}
    assert rows["optimum"]["nfe"] == 79
    assert rows["optimum"]["same"] > 0.97
    assert rows["optimum"]["memorised"] == 1
    assert rows["flow map"] | {"wasserstein": 0, "coverage": 0} == {
        "method": "flow map", "nfe": 1, "distance": 0.0, "same": 1.0, "wasserstein": 0, "memorised": 1.0, "coverage": 0,
    }  # fmt: skip
    assert rows["one step"]["coverage"] < 0.5
    assert rows["one step"]["wasserstein"] > 1
    assert rows["off"]["distance"] >= 0.2
    save_table(list(rows.values()), tmp_path / "table", {"dataset": "five-deltas"})
    with open(tmp_path / "table.csv", newline="") as file:
        written = list(csv.DictReader(file))
    assert [row["method"] for row in written] == list(methods)
    assert float(written[0]["same"]) == rows["optimum"]["same"]
    saved = json.loads((tmp_path / "table.json").read_text())
    assert saved["dataset"] == "five-deltas"
    assert len(saved["rows"]) == 4


def test_errors(normal: Normal) -> None:
    D = OptimalDenoiser(load("two-points"))
    with pytest.raises(ValueError, match="draws must be at least 2, got 1"):
        agreement(D, D, [1.0], draws=1)
    with pytest.raises(ValueError, match="a denoiser must return the shape of x"):
        agreement(lambda x, s: x[:, :0], D, [1.0])
    assert math.isfinite(float(np.float64(agreement(D, D, [1.0], draws=2).gap)))
