"""Samplers side by side: each from its own first level, held to the flow from there, with intervals that hold."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import ot
import pytest
import torch
from torch import Tensor

from neural import compare
from neural.sampled import UnitNoises, sample_from, samplers
from neural.transport import transport, transport_interval
from optimal import FlowMap, OptimalDenoiser, karras, load
from optimal.process import VP
from optimal.randomness import RowNoise, stream
from optimal.theories import Wiener

Normal = Callable[..., Tensor]

DELTAS = OptimalDenoiser(load("five-deltas"))
DIGITS = OptimalDenoiser(load("digits"))


@pytest.mark.slow
def test_each_method_starts_at_its_own_level() -> None:
    """A grid from 20 was given noises at 80, and nothing said so."""
    methods = {f"{top:g}": (DIGITS, {"sigmas": karras(24, sigma_max=top)}) for top in (80.0, 20.0)}
    rows = samplers(methods, DIGITS, n=64)
    assert [row["first"] for row in rows] == [80.0, 20.0]
    for row in rows:
        assert row["same"] >= 0.95
        assert row["same_low"] <= row["same"] <= row["same_high"]
    with pytest.raises(ValueError, match="x is at one noise level, and 20 starts at 20, 80 at 80"):
        compare(methods, DIGITS, torch.zeros(4, *DIGITS.event), reference=torch.zeros(4, *DIGITS.event))


def test_a_process_scales_what_comes_in() -> None:
    """sigma is what a denoiser sees: variance-preserving x_t are scaled, and land where the others do."""
    grid = karras(24, sigma_max=40.0)
    methods = {"ve": (DIGITS, {"sigmas": grid}), "vp": (DIGITS, {"sigmas": grid, "process": VP()})}
    rows = samplers(methods, DIGITS, n=32)
    assert rows[0]["same"] == rows[1]["same"] >= 0.9


@pytest.mark.slow
def test_a_student_of_its_pairs_alone_is_seen() -> None:
    """It answers its 40 training noises as the flow does, and others with the end of the training noise nearest."""
    unit = RowNoise(stream(0, "pairs")).draw((40, *DIGITS.event))
    noises = (80 * unit).float()
    ends = FlowMap(DIGITS)(noises, 80.0)

    def student(x: Tensor, sigma: object) -> Tensor:
        return ends[torch.cdist(x.flatten(1), noises.flatten(1)).argmin(1)]

    methods = {
        "student": (student, {"sigmas": karras(1), "solver": "euler"}),
        "optimum": (DIGITS, {"sigmas": karras(24)}),
    }
    for seed in (0, 1):
        row, other = samplers(methods, DIGITS, n=32, seed=seed, pairs={"student": (noises.numpy(), ends.numpy())})
        assert row["same_pairs"] == 1
        assert row["same_pairs_low"] == pytest.approx(0.025 ** (1 / 32))
        assert row["same_high"] < 0.2
        assert row["distance_pairs"] == 0
        assert math.isnan(other["same_pairs"])
        assert list(row) == list(other)


@pytest.mark.slow
def test_solvers_that_draw_noise_are_repeatable() -> None:
    """Without a generator from the seed; with one from a copy of it, so that the order of methods is no matter."""
    churn = {"sigmas": karras(12), "solver": "edm_stochastic", "S_churn": 4.0}
    given = churn | {"generator": torch.Generator().manual_seed(3)}
    methods = {"own": (DELTAS, churn), "given": (DELTAS, given), "again": (DELTAS, given)}
    rows = samplers(methods, DELTAS, n=32)
    assert rows == samplers(methods, DELTAS, n=32)
    assert rows[1] | {"method": "again"} == rows[2]
    assert rows[0]["same"] < 0.9
    assert samplers({"own": (DELTAS, churn)}, DELTAS, n=32, seed=1)[0]["distance"] != rows[0]["distance"]


def test_what_diverges_is_no_copy_of_anything() -> None:
    def broken(x: Tensor, sigma: object) -> Tensor:
        return torch.where(x.flatten(1)[:, :1] > 0, DELTAS(x, 1.0), torch.nan)

    row = samplers({"broken": (broken, {"sigmas": karras(1), "solver": "euler"})}, DELTAS, n=64)[0]
    assert 0.2 < row["memorised"] < 0.8
    assert row["nearest"] == math.inf
    assert math.isnan(row["wasserstein"])
    assert 0 < row["coverage"] <= 1


def test_bad_input() -> None:
    methods = {"optimum": (DELTAS, {"sigmas": karras(4)})}
    noises = 80 * torch.ones(800, 1)
    for pairs, words in (
        ({"other": (noises, noises)}, "pairs must be of one of optimum, got 'other'"),
        ({"optimum": (noises / 4, noises)}, "the pairs of optimum start at σ = 20, its first noise level is 80"),
        ({"optimum": (noises, noises[:4])}, "noises and as many ends of shape"),
    ):
        with pytest.raises(ValueError, match=words):
            samplers(methods, DELTAS, n=800, pairs=pairs)
    for n in (0, 2.5):
        with pytest.raises(ValueError, match=r"n must be (a whole number|at least 1), got"):
            samplers(methods, DELTAS, n=n)  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="must name its noise levels, sigmas="):
        samplers({"optimum": (DELTAS, {"solver": "heun"})}, DELTAS)
    assert samplers(methods, DELTAS, n=1)[0]["same_low"] < 0.1


def test_transport_is_that_of_the_linear_program(normal: Normal) -> None:
    """On the line: the distance, and potentials whose dual attains it."""
    x = normal(33, 1)
    data = 2 * normal(20, 1) + 1
    square, potential = transport(x, OptimalDenoiser(data))
    cost = ot.dist(x.numpy(), data.numpy())
    program: Any = ot.emd2([], [], cost)
    assert float(square) == pytest.approx(float(program))
    dual = torch.from_numpy(cost).sub(potential[:, None]).amin(0).mean() + potential.mean()
    assert float(dual) == pytest.approx(float(square))


@pytest.mark.parametrize("shape", ["line", "plane", "sliced"])
def test_transport_intervals_hold_the_mean(shape: str) -> None:
    """Of as many samples: W₂² of n draws is itself biased, and the interval is about that."""
    generator = torch.Generator().manual_seed(5)
    D = {"line": DELTAS, "plane": OptimalDenoiser(load("ring", n=60)), "sliced": DIGITS}[shape]
    found = []
    for _ in range(100):
        x = D.take(torch.randint(len(D), (48,), generator=generator))
        x = x + 0.2 * torch.randn(x.shape, generator=generator) + 0.1
        found.append(transport_interval(x, D, projections=32))
    mean = float(torch.stack([each.value.square() for each in found]).mean().sqrt())
    assert sum(float(each.low) <= mean <= float(each.high) for each in found) >= 90
    assert np.mean([float(each.high - each.low) for each in found]) < 2 * mean


def test_sampler_intervals_hold() -> None:
    """100 repetitions: a method that answers a known mixture of right and wrong points, near and far."""
    home = torch.arange(len(DIGITS))
    every = DIGITS.take(home)
    held: dict[str, int] = {}
    truth: dict[str, float] = {}
    rows = []
    for seed in range(100):
        generator = torch.Generator().manual_seed(seed)
        index = torch.randint(len(DIGITS), (48,), generator=generator)
        wrong = torch.rand(48, generator=generator) < 0.3
        answers = every[torch.where(wrong, (index + 7) % len(DIGITS), index)]
        answers = answers + 0.3 * wrong[:, None, None, None] * torch.randn(answers.shape, generator=generator)
        one = {"sigmas": karras(1), "solver": "euler"}
        sampled = sample_from("method", lambda x, s, a=answers: a, one, DIGITS, 80 * answers, every[index], index)
        rows.append({k: v for k, v in sampled.columns(DIGITS, projections=4).items() if k != "wasserstein"})
    for name in rows[0]:
        values = torch.stack([row[name].value for row in rows]).double()
        truth[name] = float(values.square().mean().sqrt() if name == "distance" else values.mean())
        held[name] = sum(float(row[name].low) <= truth[name] <= float(row[name].high) for row in rows)
    assert all(count >= 90 for count in held.values()), held


def test_noises_are_the_same_at_every_level() -> None:
    noises = UnitNoises(DELTAS, 16, seed=3)
    torch.testing.assert_close(noises.at(80.0)[0] / 80, noises.at(20.0)[0] / 20)
    assert not torch.equal(noises.at(80.0)[0], UnitNoises(DELTAS, 16, seed=4).at(80.0)[0])


def test_a_theory_is_sampled_like_any_other_denoiser() -> None:
    D = OptimalDenoiser(load("digits"))
    W = Wiener(D)
    arguments = {"sigmas": karras(18), "solver": "heun"}
    (plain, asked) = samplers({"W": W, "asked": (W, arguments)}, D, n=16)
    assert plain | {"method": "asked"} == asked
    with pytest.raises(ValueError, match="any denoiser, or"):
        samplers({"W": 3}, D, n=4)  # pyright: ignore
