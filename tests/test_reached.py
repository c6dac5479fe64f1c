"""Which points of a class are reached, by samplers whose answer is known."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from neural import class_landings
from optimal import OptimalDenoiser, guided, karras

Normal = Callable[..., Tensor]
GRID: dict[str, Any] = {"sigmas": karras(18)}


@pytest.fixture
def two(normal: Normal) -> tuple[OptimalDenoiser, OptimalDenoiser, Tensor]:
    """Twelve points of two classes, the optimum of all and of the first five, and which those are."""
    points, own = normal(12, 2) * 2, torch.arange(12) < 5
    return OptimalDenoiser(points), OptimalDenoiser(points[own]), own


def test_the_optimum_of_the_class_reaches_it_evenly(two: tuple[OptimalDenoiser, OptimalDenoiser, Tensor]) -> None:
    D, inside, own = two
    row = class_landings(inside, D, own, {"sigmas": karras(32, sigma_max=800.0)}, n=2048).row()
    assert (row["inside"], row["reached"], row["off"]) == (1.0, 1.0, pytest.approx(0, abs=1e-5))
    assert row["inside_low"] > 0.99
    assert row["variation_low"] <= row["uniform"] <= row["variation_high"]
    assert row["uniform_low"] < row["uniform"] < row["uniform_high"]
    # ½ E Σ |n_j/n − 1/m| of 2,048 uniform draws over five points, about √(m − 1)/√(2π n).
    assert row["uniform"] == pytest.approx((4 / (2 * torch.pi * 2048)) ** 0.5, rel=0.05)


def test_a_jump_to_one_point_is_known_to_all_columns(two: tuple[OptimalDenoiser, OptimalDenoiser, Tensor]) -> None:
    D, _, own = two
    away = float((D.take(torch.tensor([3])) - D.take(torch.arange(5, 12))).norm(dim=1).min())
    for at, inside in ((3, 1.0), (7, 0.0)):
        target = D.take(torch.tensor([at])).float() + torch.tensor([[1e-3, 0.0]])
        found = class_landings(lambda x, sigma, y=target: y.expand_as(x), D, own, GRID, n=64)
        row = found.row()
        assert found.index.tolist() == [at] * 64
        assert found.class_size == 5
        assert row["inside"] == inside
        assert row["reached"] == inside / 5
        assert row["variation"] == pytest.approx(0.8 if inside else 1.0)
        assert row["off"] == pytest.approx(1e-3, rel=1e-3)
        if inside:
            assert row["away"] == pytest.approx(away, abs=2e-3)
            assert row["coverage"] == pytest.approx(1 / (5 * (1 - 0.8**64)))


def test_copies_are_one_point_of_their_weight(two: tuple[OptimalDenoiser, OptimalDenoiser, Tensor]) -> None:
    """What reaches a point as often as it is listed is even."""
    points = torch.cat([two[0].take(torch.arange(12)), two[0].take(torch.tensor([0, 0, 0]))])
    own = torch.tensor([True] * 5 + [False] * 7 + [True] * 3)
    arguments = {"sigmas": karras(32, sigma_max=800.0)}
    found = class_landings(OptimalDenoiser(points[own]), OptimalDenoiser(points), own, arguments, n=1024)
    row = found.row()
    assert found.class_size == 5
    assert row["reached"] == 1.0
    assert row["variation_low"] <= row["uniform"] <= row["variation_high"]


def test_guidance_leaves_points_out_and_goes_away_from_others() -> None:
    """Eight points in a row of each class: those next to the other class are reached no more."""
    line = torch.linspace(0.25, 2, 8)[:, None].expand(8, 1)
    points, own = torch.cat([line, -line]), torch.arange(16) < 8
    D, inside = OptimalDenoiser(points), OptimalDenoiser(points[own])
    rows = [
        class_landings(guided(inside, D, weight, interval), D, own, GRID, n=512).row()
        for weight, interval in ((1.0, None), (4.0, None), (4.0, (0.01, 0.1)))
    ]
    plain, strong, late = rows
    assert plain["reached"] == 1.0
    assert strong["reached"] < 0.75
    assert strong["variation_low"] > plain["variation_high"]
    assert strong["away_low"] > plain["away_high"]
    # Where the class is decided guidance has nothing left to do.
    assert {name: late[name] for name in ("reached", "inside")} == {"reached": 1.0, "inside": 1.0}
    assert late["variation"] == pytest.approx(plain["variation"], abs=0.02)


def test_what_is_refused(two: tuple[OptimalDenoiser, OptimalDenoiser, Tensor]) -> None:
    D, inside, own = two
    with pytest.raises(ValueError, match="n must be at least 16, got 15"):
        class_landings(inside, D, own, GRID, n=15)
    for members in (own[:5], torch.zeros(12, dtype=torch.bool), torch.ones(12, dtype=torch.bool)):
        with pytest.raises(ValueError, match="members must say of each of 12 points whether it is of the class"):
            class_landings(inside, D, members, GRID)
    with pytest.raises(ValueError, match="the ends of function are not finite"):
        class_landings(lambda x, sigma: x * torch.nan, D, own, GRID, n=16)
