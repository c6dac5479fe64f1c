"""The border between mode seeking and mode refining, against quadrature and on data where it is known."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
import torch
from scipy.optimize import brentq
from scipy.special import logsumexp, ndtri

from figures.common import border_of
from figures.config import Config
from optimal import OptimalDenoiser, borders, collapse_border, effective_counts, load, seeking_refining_border
from optimal.__main__ import main
from optimal.border import default_draws
from optimal.randomness import fixed_generator


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def median_count(y: np.ndarray, sigma: float, levels: int = 1001) -> float:
    """The median of exp(entropy) over x0 uniform on y and ε at evenly spaced quantiles: no randomness, no torch."""
    eps = ndtri((np.arange(levels) + 0.5) / levels)
    x = (y[:, None] + sigma * eps).reshape(-1)
    logits = -((x[:, None] - y) ** 2) / (2 * sigma**2)
    log_weights = logits - logsumexp(logits, axis=1, keepdims=True)
    return float(np.median(np.exp(-(np.exp(log_weights) * log_weights).sum(1))))


def exact_border(y: np.ndarray, threshold: float) -> float:
    return math.exp(brentq(lambda log_sigma: median_count(y, math.exp(log_sigma)) - threshold, -3, 4))


@pytest.mark.slow
@pytest.mark.parametrize("threshold", [1.5, 2.0, 3.0])
def test_five_deltas_against_quadrature(threshold: float) -> None:
    data = load("five-deltas")
    exact = exact_border(data.points.double().flatten().numpy(), threshold)
    D = OptimalDenoiser(data)
    few, many = (
        seeking_refining_border(D, threshold=threshold, draws=draws, generator=fixed_generator())
        for draws in (256, 5_000)
    )
    assert few.low <= exact <= few.high
    assert few.low < few.sigma < few.high
    assert many.low <= exact <= many.high
    assert abs(math.log(many.sigma / exact)) <= 0.05
    # 20 times the draws, 4.4 times as sure.
    assert math.log(many.high / many.low) < 0.4 * math.log(few.high / few.low)
    assert (few.draws, many.draws) == (256, 5_000)
    assert float(few) == few.sigma


def test_all_that_show_a_border_show_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    """The functions' default, the command line's and that of figures: the same draws, as many as the data allow."""
    for name, draws in (("five-deltas", 4000), ("digits", 4000)):
        D = OptimalDenoiser(load(name))
        border = seeking_refining_border(D)
        assert border.draws == draws
        assert border_of(Config(), D, 256) == border == borders(D)[0]
        assert main(["border", name, "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["count"]["sigma"] == border.sigma
    assert (default_draws(200_000), default_draws(200_001)) == (4000, 256)


def test_thresholds_are_crossed_in_turn() -> None:
    D = OptimalDenoiser(load("five-deltas"))
    sigmas = [seeking_refining_border(D, threshold=t).sigma for t in (1.1, 1.5, 2.0, 3.0, 4.0, 4.9)]
    assert sigmas == sorted(sigmas)
    assert seeking_refining_border(D, threshold=5.0).sigma == math.inf


@pytest.mark.parametrize(
    "points",
    [torch.tensor([[-1.0], [1.0]]), torch.tensor([[3.0, 1.0]]), torch.ones(2, 3)],
    ids=["two points", "one point", "one point twice"],
)
def test_never_more_than_two(points: torch.Tensor) -> None:
    border = seeking_refining_border(OptimalDenoiser(points))
    assert border.sigma == border.low == border.high == math.inf


@pytest.mark.parametrize("count", [2, 7, 11, 13])
@pytest.mark.parametrize("event", [(1,), (3,), (1, 10, 10)])
def test_rounding_makes_no_crossing(event: tuple[int, ...], count: int) -> None:
    """exp(log n) is not n in float32: n points never share more than equally, n equals never less."""
    points = torch.randn(count, *event, generator=generator())
    never = seeking_refining_border(OptimalDenoiser(points), threshold=count, draws=64)
    assert never.sigma == never.low == never.high == math.inf
    several = torch.randn(10, *event, generator=generator()).repeat(count, *(1 for _ in event))
    always = seeking_refining_border(OptimalDenoiser(several), threshold=count, draws=64)
    assert always.sigma == always.low == always.high == 0.0


def test_one_point_many_times_counts_as_many() -> None:
    """effective_count counts entries of the data set, so that equals share: above the threshold at any noise."""
    assert seeking_refining_border(OptimalDenoiser(torch.ones(7, 3))).sigma == 0.0


@pytest.mark.parametrize("name", ["five-deltas", "digits"])
def test_scales_with_the_data(name: str) -> None:
    points = load(name, n=None if name == "five-deltas" else 300).points
    base = seeking_refining_border(OptimalDenoiser(points), draws=64)
    scaled = seeking_refining_border(OptimalDenoiser(1024 * points), draws=64)
    for value in ("sigma", "low", "high"):
        assert math.isclose(getattr(scaled, value), 1024 * getattr(base, value), rel_tol=1e-3)
    assert base.low <= base.sigma <= base.high


def test_images_are_where_their_neighbours_are() -> None:
    """On digits the border lies within the distances between near neighbours: that is what it measures."""
    D = OptimalDenoiser(load("digits"))
    border = seeking_refining_border(D, draws=128)
    counts = effective_counts(D, torch.tensor([border.sigma / 1.2, border.sigma * 1.2]), draws=128)
    below, above = counts.median(dim=1).values.tolist()
    assert below < 2 < above


def test_reproducible_and_leaves_the_global_generator_alone() -> None:
    D = OptimalDenoiser(load("five-deltas"))
    state = torch.random.get_rng_state()
    a, b = (seeking_refining_border(D, generator=generator(5)) for _ in range(2))
    default = [seeking_refining_border(D) for _ in range(2)]
    counts = [effective_counts(D, torch.tensor([0.5]), draws=9, generator=generator(5)) for _ in range(2)]
    assert torch.equal(torch.random.get_rng_state(), state)
    assert a == b
    assert default[0] == default[1]
    assert torch.equal(*counts)
    assert a != seeking_refining_border(D, generator=generator(6))


@pytest.mark.slow
def test_the_interval_is_one() -> None:
    """95% intervals of independent draws hold the exact border about 19 times of 20: here at least 33 of 40."""
    data = load("five-deltas")
    exact = exact_border(data.points.double().flatten().numpy(), 2.0)
    D = OptimalDenoiser(data)
    borders = [seeking_refining_border(D, draws=100, generator=generator(seed)) for seed in range(40)]
    assert sum(border.low <= exact <= border.high for border in borders) >= 33


@pytest.mark.slow
@pytest.mark.parametrize(("draws", "least"), [(5, 0.88), (20, 0.9)])
def test_the_interval_is_one_for_few_draws(draws: int, least: float) -> None:
    """Two points, 100 seeds: the border of the median is 1.0903; with few draws the interval is wider than ±0.4."""
    y = np.array([-1.0, 1.0])
    exact = exact_border(y, 1.5)
    D = OptimalDenoiser(torch.from_numpy(y)[:, None])
    found = [seeking_refining_border(D, threshold=1.5, draws=draws, generator=generator(seed)) for seed in range(100)]
    assert least <= np.mean([border.low <= exact <= border.high for border in found]) <= 0.98
    assert all(0 < border.low <= border.sigma <= border.high < math.inf for border in found)
    sides = [max(math.log(b.high / b.sigma), math.log(b.sigma / b.low)) for b in found]
    assert max(sides) > 0.45


def test_the_interval_of_a_median_that_half_of_the_draws_decide() -> None:
    """Two points are single, two the same: resamples with more of the copies are above the threshold at any noise."""
    D = OptimalDenoiser(torch.tensor([[-3.0], [0.0], [3.0], [3.0]]))
    found = [seeking_refining_border(D, threshold=1.5, draws=9, generator=generator(seed)) for seed in range(20)]
    crossed = [border for border in found if border.sigma > 0]
    assert 0 < len(crossed) < 20
    assert any(border.low == 0 for border in crossed)
    assert all(border.low <= border.sigma <= border.high < math.inf for border in crossed)


def test_counts_against_quadrature() -> None:
    data = load("five-deltas")
    sigmas = torch.tensor([0.1, 0.5, 1.0, 5.0])
    counts = effective_counts(OptimalDenoiser(data), sigmas, draws=20_000)
    assert counts.shape == (4, 20_000)
    assert counts.dtype == torch.float64
    expected = [median_count(data.points.double().flatten().numpy(), sigma) for sigma in sigmas.tolist()]
    np.testing.assert_allclose(counts.median(dim=1).values.numpy(), expected, rtol=0.03)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"threshold": 1.0}, "threshold must be above 1, the count of a single point, got 1"),
        ({"threshold": math.nan}, "threshold must be above 1"),
        ({"draws": 0}, "draws must be at least 1, got 0"),
    ],
)
def test_errors(options: dict, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        seeking_refining_border(OptimalDenoiser(load("five-deltas")), **options)


def test_both_borders_of_the_same_draws_ask_for_each_level_once() -> None:
    D = OptimalDenoiser(torch.randn(40, 3, generator=torch.Generator().manual_seed(0)))
    asked: list[float] = []

    class Counted:
        event, standard_deviation = D.event, D.standard_deviation

        def __getattr__(self, name: str) -> object:
            return getattr(D, name)

        def __len__(self) -> int:
            return len(D)

        def posterior(self, x: torch.Tensor, sigma: float) -> object:
            asked.append(sigma)
            return D.posterior(x, sigma)

    counted: Any = Counted()
    points = D.take(torch.arange(40))
    alone = (
        seeking_refining_border(counted, points, generator=torch.Generator().manual_seed(3)),
        collapse_border(counted, points, generator=torch.Generator().manual_seed(3)),
    )
    apart = len(asked)
    asked.clear()
    both = borders(counted, points, generator=torch.Generator().manual_seed(3))
    assert both == alone
    assert len(asked) == len(set(asked)) < apart
    with pytest.raises(ValueError, match="above 1"):
        borders(D, count=1.0)
    with pytest.raises(ValueError, match="above 0"):
        borders(D, entropy=0.0)
