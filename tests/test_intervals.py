"""Intervals hold what they are for: skewed draws, shares of 0 and 1, few draws, draws that are all alike."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from optimal import OptimalDenoiser, load
from optimal.draws import draw_pairs
from optimal.intervals import (
    Interval,
    distinct_interval,
    mean_interval,
    median_interval,
    paired_share_interval,
    positive_interval,
    ratio_interval,
    require_level,
    share_interval,
)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def uniform(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, generator=generator(seed), dtype=torch.float64)


def held(interval: Interval, value: float) -> float:
    """In what share of the repetitions it holds the value."""
    return float(((interval.low <= value) & (value <= interval.high)).double().mean())


SHAPES: dict[str, tuple[Callable[[Tensor], Tensor], float]] = {
    "normal": (lambda u: torch.special.ndtri(u), 0.0),
    "exponential": (lambda u: -u.log(), 1.0),
    "its mirror": (lambda u: u.log(), -1.0),
    "log-normal": (lambda u: torch.special.ndtri(u).exp(), math.exp(0.5)),
    "one in 200": (lambda u: -(200 * u).clamp_max(1).log(), 1 / 200),
}


@pytest.mark.parametrize(("shape", "n", "least"), [
    ("normal", 8, 0.93), ("normal", 128, 0.93), ("exponential", 8, 0.91), ("exponential", 32, 0.93),
    ("exponential", 1024, 0.93), ("its mirror", 32, 0.93), ("log-normal", 32, 0.9), ("log-normal", 128, 0.93),
    ("one in 200", 1024, 0.92),
])  # fmt: skip
def test_means(shape: str, n: int, least: float) -> None:
    """As the module quotes them; 1,000 repetitions have a standard error of 0.007."""
    draw, mean = SHAPES[shape]
    assert least <= held(mean_interval(draw(uniform(1000, n))), mean) <= 0.985


def test_ninety_percent_is_less() -> None:
    draws = SHAPES["exponential"][0](uniform(1000, 64))
    wide, narrow = mean_interval(draws), mean_interval(draws, 0.9)
    assert 0.87 < held(narrow, 1.0) < 0.94
    assert (narrow.high - narrow.low < wide.high - wide.low).all()


def test_a_ratio_knows_that_its_parts_move_together() -> None:
    below = 1 + uniform(1000, 64)
    above = below * (1 + 0.1 * (uniform(1000, 64, seed=1) - 0.5))
    together, apart = ratio_interval(above, below), mean_interval(above)
    assert 0.92 < held(together, 1.0) < 0.98
    assert (together.high - together.low < 0.3 * (apart.high - apart.low)).all()
    assert ratio_interval(torch.zeros(5).double(), torch.zeros(5).double()).value == 0


def of_five_points(sigma: float) -> tuple[Tensor, Tensor]:
    """‖F − D‖² and ‖D − ȳ‖² of a network that is asked at 1.5 sigma, at 100,000 draws."""
    D = OptimalDenoiser(load("five-deltas"))
    x0, eps = draw_pairs(D, None, 100_000, generator(5))
    x = x0 + sigma * eps
    right, answer = D(x, sigma).double(), (D(x, 1.5 * sigma) + 0.02 * (7 * x).sin()).double()
    return (answer - right).square().sum(1), (right - D.mean).square().sum(1)


@pytest.mark.parametrize(("n", "least", "more", "width"), [
    (8, 0.9, 0.03, 1.7), (16, 0.92, 0.02, 1.4), (32, 0.93, 0.01, 1.2), (64, 0.93, 0.0, 1.1), (512, 0.93, 0.0, 1.03),
])  # fmt: skip
def test_what_is_never_negative(n: int, least: float, more: float, width: float) -> None:
    """The share of a gap: it holds more than the delta method does of few draws, and is hardly wider of many."""
    for sigma in (0.3, 1.0):
        gap, spread = of_five_points(sigma)
        index = (len(gap) * uniform(1000, n)).long()
        found, delta = positive_interval(gap[index], spread[index]), ratio_interval(gap[index], spread[index])
        true = float(gap.mean() / spread.mean())
        assert max(least, held(delta, true) + more) <= held(found, true) <= 0.985
        assert ((found.low >= 0) & (found.low <= found.value) & (found.value <= found.high)).all()
        assert ((found.high - found.low) / (delta.high - delta.low)).median() < width
    plain = positive_interval(gap[index])
    torch.testing.assert_close(plain.value, gap[index].mean(-1))


def test_what_is_never_negative_may_be_nothing() -> None:
    none = torch.zeros(5).double()
    for found in (positive_interval(none), positive_interval(none, none), positive_interval(none, none + 1)):
        assert (found.value, found.low, found.high) == (0, 0, 0)
    one = positive_interval(torch.ones(1).double())
    assert (one.low, one.high) == (-math.inf, math.inf)
    alone = positive_interval(torch.tensor([0.0, 0.0, 3.0]).double(), torch.tensor([0.0, 0.0, 2.0]).double())
    assert alone.value == 1.5
    assert not alone.high.isnan()
    assert positive_interval(torch.tensor([1.0, math.nan]).double()).low.isnan()
    huge = positive_interval(1e150 * uniform(50))
    assert 0 < huge.low < huge.value < huge.high < math.inf


@pytest.mark.parametrize("n", [6, 7, 20, 101])
def test_medians(n: int) -> None:
    assert 0.93 < held(median_interval(uniform(2000, n) ** 3), 0.125) <= 1


@pytest.mark.parametrize("share", [0.0, 0.004, 0.3, 0.98, 1.0])
@pytest.mark.parametrize("n", [1, 8, 200])
def test_shares_hold_at_least_what_they_say(share: float, n: int) -> None:
    assert held(share_interval(uniform(2000, n) < share), share) >= 0.945
    none = share_interval(torch.zeros(n, dtype=torch.bool))
    assert none.low == 0
    assert float(none.high) == pytest.approx(1 - 0.025 ** (1 / n))


@pytest.mark.parametrize(("points", "n"), [(5, 16), (5, 64), (100, 64), (100, 256), (2000, 64), (2000, 256)])
def test_counts_of_different_points(points: int, n: int) -> None:
    expected = points * (1 - (1 - 1 / points) ** n)
    index = (uniform(200, n) * points).long()
    found = [distinct_interval(row, most=points) for row in index]
    assert sum(float(each.low) <= expected <= float(each.high) for each in found) >= 190
    assert all(each.low <= each.value <= each.high <= min(n, points) for each in found)
    # Of unequal points, too, none of which is known.
    weights = torch.arange(1, points + 1, dtype=torch.float64).reciprocal()
    weights /= weights.sum()
    expected = float((1 - (1 - weights) ** n).sum())
    index = torch.multinomial(weights, 200 * n, replacement=True, generator=generator(2)).reshape(200, n)
    found = [distinct_interval(row, most=points) for row in index]
    assert sum(float(each.low) <= expected <= float(each.high) for each in found) >= 180


def test_draws_that_say_little() -> None:
    one = mean_interval(torch.ones(3, 1).double())
    assert (one.low == -math.inf).all()
    assert (one.high == math.inf).all()
    alike = mean_interval(torch.full((20,), 0.3).double())
    assert abs(float(alike.high - alike.low)) < 1e-12
    assert mean_interval(torch.tensor([1.0, math.nan]).double()).low.isnan()
    tiny = mean_interval(1e-200 * uniform(50))
    assert 0 < tiny.low < tiny.value < tiny.high
    huge = mean_interval(1e200 * uniform(50))
    assert huge.low < huge.value < huge.high < math.inf
    assert float(distinct_interval(torch.zeros(1, dtype=torch.int64)).value) == 1
    for level in (0.0, 1.0, 95.0):
        with pytest.raises(ValueError, match="level must lie between 0 and 1"):
            require_level(level)


@pytest.mark.parametrize(("n", "more", "less"), [(256, 0.1, 0.1), (64, 0.18, 0.02), (1024, 0.045, 0.005), (64, 0, 0)])
def test_the_difference_of_paired_shares_is_held(n: int, more: float, less: float) -> None:
    """Of draws that are hits among both half of the time, among one only with these shares, or among none."""
    ends = []
    for row in uniform(1000, n):
        one, other = (row < more) | (row > 0.5), ((more <= row) & (row < more + less)) | (row > 0.5)
        found = paired_share_interval(one, other)
        assert float(found.value) == pytest.approx(float(one.double().mean() - other.double().mean()))
        assert found.low < found.high
        ends.append(torch.stack([found.low, found.high]))
    low, high = torch.stack(ends).unbind(1)
    assert 0.93 <= float(((low <= more - less) & (more - less <= high)).double().mean()) <= (1 if not more else 0.975)


def test_paired_shares_are_known_better_than_two() -> None:
    """Of 1,000 draws 900 are hits among both: the difference is of the other 100."""
    one, other = torch.arange(1000) < 940, (torch.arange(1000) < 900) | (torch.arange(1000) >= 980)
    found, apart = paired_share_interval(one, other), share_interval(one)
    assert float(found.value) == pytest.approx(0.02)
    assert float(found.high - found.low) < 0.85 * float(apart.high - apart.low) * math.sqrt(2)
    turned = paired_share_interval(other, one)
    torch.testing.assert_close(turned.low, -found.high)
    assert float(paired_share_interval(one, ~one).high) <= 1
