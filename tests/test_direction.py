"""The cosine of two deviations over all draws: its interval where few of them carry it."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from neural.direction import direction_interval, effective_draws
from neural.explained import explain
from optimal import OptimalDenoiser, load
from optimal.intervals import influence_interval


def drawn(n: int, spread: float, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Deviations of log-normal sizes that go alike by another angle each: ab, a², b²."""
    size, other, way = torch.randn(3, n, generator=generator, dtype=torch.float64)
    a, b = (spread * size).exp(), (spread * size + 0.4 * other).exp()
    return (1.8 + 0.4 * way).tanh() * a * b, a.square(), b.square()


def by_influence(product: Tensor, first: Tensor, second: Tensor) -> tuple[float, float]:
    """The ends without those of Fisher's z."""
    both = (first.mean() * second.mean()).sqrt()
    value = product.mean() / both
    found = influence_interval(value, product / both - 0.5 * value * (first / first.mean() + second / second.mean()))
    return float(found.low), float(found.high)


@pytest.mark.parametrize(("spread", "least"), [(0.3, 0.9), (1.0, 0.89), (1.5, 0.89)])
def test_intervals_hold_where_few_draws_carry_it(spread: float, least: float) -> None:
    generator, repetitions = torch.Generator().manual_seed(0), 400
    product, first, second = (each.mean() for each in drawn(4_000_000, spread, generator))
    truth = float(product / (first * second).sqrt())
    held = alone = 0
    for _ in range(repetitions):
        draws = drawn(64, spread, generator)
        found = direction_interval(*draws)
        low, high = by_influence(*draws)
        assert float(found.low) <= max(low, -1) + 1e-12
        assert float(found.high) >= min(high, 1) - 1e-12
        held += float(found.low) <= truth <= float(found.high)
        alone += low <= truth <= high
    assert held >= least * repetitions, held
    # The influence alone does where no draw stands out, and not else.
    assert (alone >= 0.85 * repetitions) == (spread < 1), alone


def test_one_draw_that_carries_all_tells_nothing() -> None:
    product, first, second = drawn(32, 0.3, torch.Generator().manual_seed(1))
    found = direction_interval(product, first, second)
    assert float(found.high) - float(found.low) < 0.2
    assert 16 < effective_draws(first, second) < 32
    for each in (product, first, second):
        each[5] *= 1e8
    assert effective_draws(first, second) == pytest.approx(1, abs=1e-5)
    found = direction_interval(product, first, second)
    assert float(found.low) < -0.9
    assert float(found.high) > 0.99
    assert effective_draws(torch.ones(9), torch.ones(9)) == pytest.approx(9)


def test_alike_and_opposite_and_nothing() -> None:
    size = torch.rand(20, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    for sign in (1.0, -1.0):
        found = direction_interval(sign * size, size, size)
        assert [float(part) for part in (found.value, found.low, found.high)] == pytest.approx([sign] * 3, abs=1e-6)
    assert all(math.isnan(float(part)) for part in vars(direction_interval(0 * size, 0 * size, size)).values())
    few = direction_interval(2 * size[:2], size[:2], 4 * size[:2])
    assert float(few.value) == pytest.approx(1, abs=1e-6)


def test_a_larger_level_has_a_wider_interval_and_the_order_of_draws_is_nothing() -> None:
    draws = drawn(40, 0.8, torch.Generator().manual_seed(3))
    wide, narrow = direction_interval(*draws, 0.99), direction_interval(*draws, 0.8)
    assert float(wide.low) < float(narrow.low) < float(narrow.value) < float(narrow.high) < float(wide.high)
    turned = direction_interval(*(each.flip(0) for each in draws), 0.99)
    assert float(turned.low) == pytest.approx(float(wide.low), abs=1e-9)
    mixed = direction_interval(draws[0].flip(0), *draws[1:], 0.99)
    assert abs(float(mixed.low) - float(wide.low)) > 1e-3


def test_a_theory_that_is_the_optimum_but_for_rounding_has_no_direction() -> None:
    D = OptimalDenoiser(load("digits"))
    theories = {"rounded": lambda x, sigma: D(x, sigma) * (1 + 1e-7), "aside": lambda x, sigma: D(x, sigma) * 1.001}
    found = explain(lambda x, sigma: 0.9 * D(x, sigma), D, theories, sigmas=0.5, draws=16)
    assert math.isnan(float(found.at(0.5, "rounded").columns["direction"].value))
    assert float(found.at(0.5, "rounded").columns["accounted"].value) == pytest.approx(0, abs=1e-5)
    assert float(found.at(0.5, "aside").columns["direction"].value) == pytest.approx(-1, abs=1e-3)
