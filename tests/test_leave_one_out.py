"""What leaving points out measures, against direct computation and the formulas of two points and a Gaussian."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from optimal import OptimalDenoiser
from optimal.conditional import bandwidth, held_out_risk, influence, mean_influence, split_stability
from optimal.draws import draw_indexed
from optimal.intervals import positive_interval

Normal = Callable[..., Tensor]


def test_held_out_risk_is_that_of_the_data_without_each_point(normal: Normal) -> None:
    data, sigmas = normal(12, 3), torch.tensor([0.1, 1.0])
    D = OptimalDenoiser(data)
    found = held_out_risk(D, sigmas, draws=20, generator=torch.Generator().manual_seed(3))
    index, x0, eps = draw_indexed(D, None, 20, torch.Generator().manual_seed(3))
    for s, sigma in enumerate(sigmas.tolist()):
        losses = []
        for j, clean, noise in zip(index.tolist(), x0.double(), eps.double(), strict=True):
            part = OptimalDenoiser(data[torch.arange(12) != j])
            losses.append((part((clean + sigma * noise)[None], sigma)[0] - clean).square().sum())
        values = torch.stack(losses)
        assert found.value[s] == pytest.approx(float(values.mean()), rel=1e-12)
        interval = positive_interval(values)
        assert found.high[s] == pytest.approx(float(interval.high), rel=1e-9)
        assert found.low[s] == pytest.approx(float(interval.low), rel=1e-9)


def test_intervals_hold_also_where_few_draws_carry_the_mean(normal: Normal) -> None:
    """Student's hold the mean influence at σ = 2 in four trials of five only."""
    D, sigmas = OptimalDenoiser(normal(40, 2)), torch.tensor([0.1, 2.0])
    truth = mean_influence(D, sigmas, draws=100_000, generator=torch.Generator().manual_seed(1000)).value
    held = torch.zeros(2)
    for seed in range(200):
        found = mean_influence(D, sigmas, draws=128, generator=torch.Generator().manual_seed(seed))
        held += (found.low <= truth) & (truth <= found.high)
    assert held[0] >= 0.92 * 200
    assert held[1] >= 0.86 * 200


@pytest.mark.parametrize("sigma", [1e-3, 0.05, 0.5, 5.0])
def test_influence_is_the_difference(normal: Normal, sigma: float) -> None:
    data, a = normal(15, 4), normal(15)
    data[4] = data[9]
    index = torch.tensor([0, 4, 9, 3])
    for D in (OptimalDenoiser(data), OptimalDenoiser(data).weighted(a)):
        x = data[index] + sigma * normal(4, 4)
        difference = (D(x, sigma) - D.without(index)(x, sigma)).norm(dim=1)
        found = influence(D, x, sigma, index)
        assert (found - difference).abs().max() <= 1e-12
        # Of a point of hardly any weight, the difference has no digits; the product has all of them.
        far = influence(D, x, sigma, torch.tensor([14, 13, 12, 11]))
        weights = D.weights(x, sigma)[torch.arange(4), [14, 13, 12, 11]]
        rest = (data[[14, 13, 12, 11]] - D(x, sigma)).norm(dim=1)
        near = weights > 1e-200
        expected = weights / (1 - weights) * rest
        assert ((far - expected).abs() <= 1e-7 * expected + 1e-300)[near].all()


def test_two_points_know_each_other_only() -> None:
    D = OptimalDenoiser(torch.tensor([[-1.0], [1.0]]))
    risk = held_out_risk(D, torch.tensor([0.01, 100.0]), draws=8)
    assert torch.equal(risk.value, torch.full((2,), 4.0, dtype=torch.float64))
    along = mean_influence(D, torch.tensor([0.01, 1e4]), draws=8)
    # All of the distance where a point has all of the weight, half of it where it has half.
    assert along.value == pytest.approx([4.0, 1.0], abs=1e-3)
    assert split_stability(D, torch.tensor([1.0]), draws=8).value.item() == pytest.approx(4.0)


def test_stability_grows_with_the_data(normal: Normal) -> None:
    sigmas = torch.tensor([0.5])
    few, many = (split_stability(OptimalDenoiser(normal(n, 2)), sigmas, draws=100) for n in (20, 2000))
    assert 5 * many.high < few.low
    halves = split_stability(OptimalDenoiser(normal(20, 2)).weighted(normal(20)), sigmas, draws=5)
    assert halves.low <= halves.value <= halves.high


def test_bandwidth_is_the_best_of_a_fine_search(normal: Normal) -> None:
    data = normal(300, 1)
    D = OptimalDenoiser(data)
    found = bandwidth(D, draws=300, generator=torch.Generator().manual_seed(1))
    index, x0, _ = draw_indexed(D, None, 300, torch.Generator().manual_seed(1))
    squares = (x0.double() - data.T).square()
    squares[torch.arange(300), index] = torch.inf
    levels = torch.logspace(-1.5, 0.5, 400, dtype=torch.float64)
    curve = torch.stack([(-squares / (2 * s**2)).logsumexp(1).mean() - s.log() for s in levels])
    assert found.value == pytest.approx(float(levels[curve.argmax()]), rel=0.02)
    assert found.low < found.value < found.high
    # Scott's rule for a Gaussian, 1.06 n^{-1/5}, is of this size.
    assert 0.5 < float(found.value) / (1.06 * 300**-0.2) < 1.6


def test_bandwidth_of_copies_is_none(normal: Normal) -> None:
    data = normal(10, 2).repeat(2, 1)
    found = bandwidth(OptimalDenoiser(data), draws=16)
    assert found.value == found.low == 0


@pytest.mark.parametrize("measure", [held_out_risk, mean_influence, split_stability])
def test_bad_input(measure: Callable[..., object]) -> None:
    with pytest.raises(ValueError, match="draws must be at least 2"):
        measure(OptimalDenoiser(torch.eye(3)), 1.0, draws=1)
    with pytest.raises(ValueError, match=r"at least (one point|two points)"):
        measure(OptimalDenoiser(torch.ones(1, 3)), 1.0, draws=4)


def test_bandwidth_of_one_point() -> None:
    with pytest.raises(ValueError, match="at least two distinct points"):
        bandwidth(OptimalDenoiser(torch.ones(3, 2)), draws=4)
