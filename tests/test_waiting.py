"""What is said of a work's time: by an injected clock that calls alone move; nothing is timed here."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from optimal import Dataset, OptimalDenoiser, load, orbit
from optimal.cli import estimate
from optimal.cli.answers import solver_on
from optimal.cli.estimate import Pace, calls_of, pace_of, pace_of_the_optimum, seconds_of_a_row, slowness
from optimal.cli.scheduled import expected_schedule, grids_tried, scheduled
from optimal.evaluate import Evaluator
from optimal.samplers import SOLVERS
from optimal.schedule import karras

X = torch.zeros(64, 3)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [0.0]
    monkeypatch.setattr("optimal.cli.estimate.time.perf_counter", lambda: now[0])
    return now


def taking(clock: list[float], seconds: Callable[[int], float]) -> Callable[[Tensor, float], None]:
    def call(x: Tensor, sigma: float) -> None:
        clock[0] += seconds(len(x))

    return call


def test_a_call_and_its_rows_are_told_apart(clock: list[float]) -> None:
    found = pace_of(taking(clock, lambda rows: 0.02 + 0.001 * rows), [(X, 1.0)])
    assert found.call == pytest.approx(0.02)
    assert found.row == pytest.approx(0.001)
    assert found.seconds(1000, 10) == pytest.approx(1.2)
    assert found.seconds(64) == pytest.approx(0.084)


def test_two_rows_that_take_long_say_nothing_of_many(clock: list[float]) -> None:
    """Going through the data takes long, whatever is asked: a row of 64 is not half of a call of two."""
    found = seconds_of_a_row(taking(clock, lambda rows: 0.8 + 1e-4 * rows), X, 1.0)
    assert found == pytest.approx(0.8 / 64 + 1e-4)


def test_what_takes_longer_than_the_pilot_is_asked_twice(clock: list[float]) -> None:
    found = pace_of(taking(clock, lambda rows: 30.0 * rows), [(X, 1.0), (X, 2.0)])
    assert found == Pace(0.0, 30.0)
    assert clock[0] == 2 * 60.0


def test_the_levels_count_alike(clock: list[float]) -> None:
    def call(x: Tensor, sigma: float) -> None:
        clock[0] += 0.001 * sigma * len(x)

    assert pace_of(call, [(X, 1.0), (X, 3.0)]).row == pytest.approx(0.002)


def test_a_machine_that_others_use_is_slower_for_as_long_as_it_is_timed(clock: list[float]) -> None:
    """Every other call waits for others: the least time is that of a call, and their mean is what will be taken."""
    calls = [0]

    def call(x: Tensor, sigma: float) -> None:
        calls[0] += 1
        clock[0] += 1e-4 * len(x) * (3.0 if calls[0] % 2 else 1.0)

    found = pace_of(call, [(X, 1.0)]).seconds(64) / 64e-4
    assert 1.5 < found < 2.5


def test_a_clock_that_stands_gives_no_time(clock: list[float]) -> None:
    assert pace_of(taking(clock, lambda rows: 0.0), [(X, 1.0)]) == Pace(0.0, 0.0)


@pytest.mark.parametrize("name", [name for name in SOLVERS if name != "consistency"])
@pytest.mark.parametrize("steps", [1, 4, 24])
def test_calls_of_a_solver_are_those_that_it_makes(name: str, steps: int) -> None:
    from optimal import sample

    grid, nfe = karras(steps), list[int]()
    solver = solver_on(grid, name, {})
    D = OptimalDenoiser(torch.tensor([[-1.0], [1.0]]))
    generator = torch.Generator().manual_seed(0)
    sample(
        D,
        80 * torch.ones(1, 1),
        grid,
        solver=solver,
        generator=generator,
        callback=lambda state: nfe.append(state.nfe),
    )
    assert calls_of(solver, steps) == nfe[-1]
    assert calls_of(solver, 100 * steps) == pytest.approx(100 * nfe[-1], rel=0.15 if steps > 1 else 1)


def test_few_points_are_timed_in_their_span(clock: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[int, ...]] = []

    def posterior(D: OptimalDenoiser, x: Tensor, sigma: Any) -> None:
        clock[0] += 1e-3 * D.points.dim * len(x)
        asked.append(tuple(x.shape))

    monkeypatch.setattr(OptimalDenoiser, "posterior", posterior)
    D = OptimalDenoiser(torch.randn(20, 400, generator=torch.Generator().manual_seed(0)))
    assert pace_of_the_optimum(D, 8).row == pytest.approx(0.02)
    assert {shape[1:] for shape in asked} == {(20,)}
    assert pace_of_the_optimum(D, 8, span=False).row == pytest.approx(0.4)


def test_slowness_is_over_the_product_that_sizes_tell(clock: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = 2 * 2000 * 512 / 6e10
    monkeypatch.setattr(estimate, "pace_of", lambda call, asked: Pace(0.0, 3 * seconds))
    slowness.cache_clear()
    try:
        assert slowness() == pytest.approx(3)
    finally:
        slowness.cache_clear()


def test_no_more_grids_are_thought_tried_than_there_are() -> None:
    assert [grids_tried(n) for n in (1, 2, 4, 8, 50)] == [3, 12, 48, 120, 120]


@pytest.mark.parametrize(
    ("objective", "solver", "n"),
    [("landings", "dpm_solver_pp", 4), ("landings", "heun", 3), ("entropy", "euler", 6), ("path-kl", "euler", 3)],
)
def test_the_estimate_of_a_schedule_holds(objective: Any, solver: str, n: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """In rows of the optimum, a second each."""
    data = Dataset("points", np.random.default_rng(0).normal(size=(40, 2)).astype(np.float32))
    monkeypatch.setattr("optimal.cli.scheduled.pace_of_the_optimum", lambda D, rows: Pace(0.0, 1.0))
    said = expected_schedule(data, n, objective, 64, 64, solver_on(karras(n), solver, {}))
    rows, moments = [0], Evaluator.moments

    def counted(self: Evaluator, z: Tensor, *words: Any, **named: Any) -> Any:
        rows[0] += len(z)
        return moments(self, z, *words, **named)

    monkeypatch.setattr(Evaluator, "moments", counted)
    scheduled(
        data,
        n,
        solver,
        objective,
        options={},
        sigma_max=None,
        gaussian_start=False,
        starts=64,
        judged=64,
        seed=0,
        say=lambda _: None,
    )
    assert 0.5 < said / rows[0] < 2.5


def test_a_border_is_asked_at_its_levels(monkeypatch: pytest.MonkeyPatch) -> None:
    """Once for the products, where there is room for them."""
    D = OptimalDenoiser(load("five-deltas"))
    monkeypatch.setattr(estimate, "pace_of", lambda call, asked, within=1.0: Pace(2.0, 0.5))
    assert estimate.seconds_of_the_border(D, 100) == (estimate.BORDER_LEVELS + 1) * 52
    assert estimate.seconds_of_the_border(D, levels=1) == 2 * 2002
    assert estimate.seconds_of_the_border(orbit(OptimalDenoiser(load("digits", n=20)), "flip"), 100, levels=3) == 3 * 52
