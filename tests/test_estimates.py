"""What is made of the optimum by cutting, drawing, smoothing and joining, and its words in flow matching."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from torch import Tensor

from optimal import OptimalDenoiser, load
from optimal.process import FlowMatching
from optimal.samplers import sample, trajectory
from optimal.schedule import karras
from optimal.theories import (
    Wiener,
    closed_form_velocity,
    conditional_velocity,
    estimate_errors,
    golden_subset,
    nearest,
    nearest_proposal,
    pca_locality,
    score_smoothed,
    stable_target,
    subsampled,
    switch,
)


@pytest.fixture(scope="module")
def digits() -> OptimalDenoiser:
    return OptimalDenoiser(load("digits"))


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# --- The nearest points


@pytest.mark.parametrize("case", ["plain", "copies", "prior"])
def test_all_points_are_the_optimum_and_fewer_err_by_their_tail(case: str) -> None:
    y = random(30, 4)
    if case == "copies":
        y = torch.cat([y, y[:7]])
    D = OptimalDenoiser(y)
    if case == "prior":
        D = D.weighted(3 * random(30, seed=2))
    x, sigma = random(8, 4, seed=1), 0.8
    assert torch.allclose(nearest(D, 30)(x, sigma), D(x, sigma), atol=1e-12)
    assert torch.allclose(nearest(D, len(D))(x, sigma), D(x, sigma), atol=1e-12)
    cut = nearest(D, 5)
    weights = D.weights(x, sigma)
    squares = (x[:, None] - y[None]).square().sum(2)
    # A copy is as near as its first: the five nearest distinct ones and what equals them.
    border = torch.stack([row.unique()[4] for row in squares])
    head = torch.where(squares <= border[:, None], weights, 0)
    assert torch.allclose(cut.tail(x, sigma), 1 - head.sum(1), atol=1e-10)
    mean = head @ y / head.sum(1, keepdim=True)
    assert torch.allclose(cut(x, sigma), mean, atol=1e-12)
    widest = torch.cdist(y, y).max()
    assert ((cut(x, sigma) - D(x, sigma)).norm(dim=1) <= cut.tail(x, sigma) * widest + 1e-12).all()


def test_a_golden_subset_of_all_points_is_the_optimum(digits: OptimalDenoiser) -> None:
    x, sigma = digits.take(torch.arange(5)).double() + 0.7 * random(5, 1, 8, 8), 0.7
    assert torch.allclose(golden_subset(digits, 1.0, 1.0)(x, sigma), digits(x, sigma), atol=1e-12)
    part = golden_subset(digits)
    high, low = part.counts(80.0), part.counts(1e-3)
    assert high == (180, 180)
    assert low[1] == 90
    assert low[0] > 1790
    # At high noise the mean of N/10 points of the order, which is not the mean of all.
    at_top = part(x, 80.0)
    own = digits.take(part.order[:180]).double().mean(0)
    assert (at_top - own).norm() < 0.02 * (own - digits.mean).norm()


def test_a_golden_subset_with_the_weights_of_pca_locality() -> None:
    """Of all points it is PCA-locality, whatever the threshold's form; of some, that of these with all data's masks."""
    y = random(40, 2, 3, 3) * torch.linspace(0.3, 2, 18).view(2, 3, 3)
    D = OptimalDenoiser(y).weighted(random(40, seed=3))
    x, sigma = random(3, 2, 3, 3, seed=2), torch.tensor([0.4, 0.4, 2.0], dtype=torch.float64)
    for threshold in (0.0, 0.05, lambda level: 0.05 if level < 1 else 0.3):
        found = golden_subset(D, 1.0, 1.0, threshold=threshold)(x, sigma)
        assert torch.allclose(found, pca_locality(D, threshold)(x, sigma), atol=1e-12)
    few = golden_subset(D, 0.1, 0.2, threshold=0.0)
    assert torch.allclose(few(x, sigma), golden_subset(D, 0.1, 0.2)(x, sigma), atol=1e-12)
    assert not torch.allclose(golden_subset(D, 0.1, 0.2, threshold=0.3)(x, sigma), few(x, sigma), atol=1e-3)
    with pytest.raises(ValueError, match="threshold must be a number from 0 to 1, got 2"):
        golden_subset(D, threshold=2.0)


# --- Drawn points


@pytest.mark.parametrize("case", ["plain", "copies", "prior"])
def test_the_nearest_are_proposed_as_they_are_likely_and_others_as_the_last(case: str) -> None:
    """q by its formula; weighed by exp(l)/q its mean is D; with all points known q is the posterior."""
    y = random(20, 3)
    if case == "copies":
        y = torch.cat([y, y[:7]])
    D = OptimalDenoiser(y)
    if case == "prior":
        D = D.weighted(torch.cat([3 * random(19, seed=2), torch.tensor([-torch.inf])]))
    x, sigma = random(4, 3, seed=1), torch.tensor([0.2, 0.5, 1.0, 3.0], dtype=torch.float64)
    share = D.log_weights.exp()
    shares = torch.cat([share[:7] + share[20:], share[7:20]]) if case == "copies" else share
    away = (x[:, None] - y[:20]).square().sum(2)
    reach = away.masked_fill(shares == 0, torch.inf).sort(1).values[:, 4]
    near = shares * (-torch.minimum(away, reach[:, None]) / (2 * sigma[:, None] ** 2)).exp()
    q = nearest_proposal(D, 5, 1).probabilities(x, sigma)
    torch.testing.assert_close(q[:, :20], near / near.sum(1, keepdim=True), rtol=1e-12, atol=1e-15)
    assert not q[:, 20:].any()
    weights = q[:, :20] * ((reach[:, None] - away).clamp_max(0) / (2 * sigma[:, None] ** 2)).exp()
    assert torch.allclose(weights @ y[:20] / weights.sum(1, keepdim=True), D(x, sigma), atol=1e-12)
    every = nearest_proposal(D, 20, 1).probabilities(x, sigma)
    assert torch.allclose(every @ y, D(x, sigma), atol=1e-12)


def test_proposed_points_are_drawn_by_their_probability_and_tend_to_the_optimum() -> None:
    D = OptimalDenoiser(torch.tensor([[-1.0], [0.4], [1.0], [4.0]], dtype=torch.float64))
    x, sigma = torch.tensor([[0.3]], dtype=torch.float64), 1.5
    drawn = [float(nearest_proposal(D, 2, 1, torch.Generator().manual_seed(seed))(x, sigma)) for seed in range(2000)]
    q = nearest_proposal(D, 2, 1).probabilities(x, sigma)[0]
    counts = torch.tensor([sum(abs(each - value) < 1e-9 for each in drawn) for value in (-1.0, 0.4, 1.0, 4.0)])
    assert counts.sum() == 2000
    # χ² of three degrees: 16.3 once in a thousand.
    assert float(((counts - 2000 * q).square() / (2000 * q)).sum()) < 16.3
    found = nearest_proposal(D, 2, 1_000_000)(x, sigma)
    assert abs(float(found - D(x, sigma))) < 5e-3
    few = [nearest_proposal(D, 4, 3, torch.Generator().manual_seed(seed))(x, sigma) for seed in range(2000)]
    spread = torch.stack(few).std() / 2000**0.5
    assert abs(float(torch.stack(few).mean() - D(x, sigma))) < 4 * float(spread)
    for k, n in ((0, 1), (1, 0), (1, 2.5)):
        with pytest.raises(ValueError, match=r"must be (a whole number|at least 1), got"):
            nearest_proposal(D, k, n)  # pyright: ignore[reportArgumentType]


def test_the_stable_target_is_unbiased() -> None:
    """All sets of two of three points, each source in proportion to its posterior: the mean is D, by enumeration."""
    y = torch.tensor([[-1.0, 0.3], [0.2, 1.0], [1.5, -0.4]], dtype=torch.float64)
    D, x, sigma = OptimalDenoiser(y), torch.tensor([[0.3, 0.1]], dtype=torch.float64), 0.9
    posterior = D.weights(x, sigma)[0]
    total = torch.zeros(1, 2, dtype=torch.float64)
    for source in range(3):
        drawn = {
            tuple(
                stable_target(D, x, sigma, torch.tensor([source]), 2, torch.Generator().manual_seed(seed))[0].tolist()
            )
            for seed in range(40)
        }
        assert len(drawn) == 2
        total += posterior[source] * torch.tensor(sorted(drawn), dtype=torch.float64).mean(0)
    assert torch.allclose(total, D(x, sigma), atol=1e-12)


def test_one_point_is_the_source_and_all_are_the_optimum(digits: OptimalDenoiser) -> None:
    source = torch.tensor([3, 700, 41])
    x = digits.take(source).double() + 1.5 * random(3, 1, 8, 8)
    assert torch.equal(stable_target(digits, x, 1.5, source, 1), digits.take(source).double())
    assert torch.allclose(stable_target(digits, x, 1.5, source, 1797), digits(x, 1.5), atol=1e-12)
    with pytest.raises(ValueError, match="count must be 1 … 1797, got 1798"):
        stable_target(digits, x, 1.5, source, 1798)
    with pytest.raises(ValueError, match="equally likely"):
        stable_target(digits.weighted(torch.arange(1797.0)), x, 1.5, source, 3)


def test_errors_are_parted_into_bias_and_scatter(digits: OptimalDenoiser) -> None:
    """A thousandth of D and a draw of known size: what is measured is what was put in."""

    def off(draw: int):
        shift = torch.randn(1, 8, 8, generator=torch.Generator().manual_seed(draw), dtype=torch.float64)
        return lambda x, sigma: digits(x, sigma) + 0.2 + 0.3 * shift.to(x)

    (found,) = estimate_errors(digits, off, 5.0, n=64, draws=200)
    x0 = digits.take(torch.arange(1797)).double()
    x = x0 + 5 * random(*x0.shape, seed=4)
    size = float((digits(x, 5.0) - digits.mean).flatten(1).square().sum(1).mean())
    assert found.variance * size == pytest.approx(64 * 0.09, rel=0.15)
    assert found.bias * size == pytest.approx(64 * 0.04, rel=0.4)
    low, high = (estimate_errors(digits, lambda _, n=n: subsampled(digits, n), 1.0, n=64)[0] for n in (1797, 100))
    assert float(low.error.value) < 1e-20
    assert float(high.error.low) > 0.05
    with pytest.raises(ValueError, match="draws must be at least 2"):
        estimate_errors(digits, off, 5.0, draws=1)


# --- Smoothed in x


def test_two_points_by_quadrature() -> None:
    D = OptimalDenoiser(torch.tensor([[-1.0], [1.0]], dtype=torch.float64))
    x, sigma, s = torch.tensor([[0.4], [-1.3]], dtype=torch.float64), 0.7, 0.5
    nodes, weights = np.polynomial.hermite_e.hermegauss(200)
    shifted = x + s * torch.from_numpy(nodes)
    exact = (torch.tanh(shifted / sigma**2) @ torch.from_numpy(weights) / np.sqrt(2 * np.pi))[:, None]
    draws = score_smoothed(D, s, 40_000)
    # Antithetic pairs of a bounded function: the standard error is below 1/√20,000.
    assert torch.allclose(draws(x, sigma), exact, atol=0.02)
    plain = D(x, sigma)
    assert float((plain - exact).abs().min()) > 0.04
    assert torch.equal(score_smoothed(D, 0.0)(x, sigma), plain)


def test_samples_are_averages_of_few_points(digits: OptimalDenoiser) -> None:
    """As σ → 0 each displaced query is answered by one data point: the mean is one of at most M of them."""
    smoothed = score_smoothed(digits, 0.4, draws=4)
    noises = 80.0 * random(6, 1, 8, 8, seed=3)
    ends = sample(smoothed, noises, sigmas=karras(40), solver="heun")
    moved = ends.double()[:, None] + 0.4 * smoothed.displacements
    index = digits.nearest(moved.flatten(0, 1))
    averages = digits.take(index).double().view(6, 4, 1, 8, 8).mean(1)
    assert float((ends - averages).abs().amax()) < 5e-3
    assert (index.view(6, 4) != index.view(6, 4)[:, :1]).any()


def test_linear_parts_pass_and_axes_keep_displacements_in_the_data(digits: OptimalDenoiser) -> None:
    along = score_smoothed(digits, 1.0, 6, rank=3)
    axes = Wiener(digits, 3).axes
    flat = along.displacements.flatten(1)
    assert torch.allclose(flat @ axes @ axes.T, flat, atol=1e-12)
    assert torch.allclose(flat[:3], -flat[3:])
    x = digits.take(torch.arange(4)).double()
    width = lambda sigmas: 0.1 * sigmas  # noqa: E731
    levels = torch.tensor([0.5, 1.0, 2.0, 4.0])
    varying = score_smoothed(digits, width, 8)
    for row in range(4):
        alone = score_smoothed(digits, 0.1 * float(levels[row]), 8)(x[row : row + 1], float(levels[row]))
        assert torch.allclose(varying(x, levels)[row : row + 1], alone, atol=1e-10)
    for bad, sentence in ((-1.0, "s must be finite and not negative, got -1"), (float("nan"), "s must be finite")):
        with pytest.raises(ValueError, match=sentence):
            score_smoothed(digits, bad)
    with pytest.raises(ValueError, match="draws must be even, or 1, got 3"):
        score_smoothed(digits, 1.0, 3)
    with pytest.raises(ValueError, match="width of sigma must be finite and not negative"):
        score_smoothed(digits, lambda sigmas: -sigmas)(x, 1.0)


# --- Two in one


def test_every_row_has_the_denoiser_of_its_level(digits: OptimalDenoiser) -> None:
    linear = Wiener(digits)
    both = switch(linear, digits, 2.0)
    x, sigma = random(5, 1, 8, 8), torch.tensor([80.0, 2.0, 0.3, 2.001, 1.0])
    found = both(x, sigma)
    expected = torch.where((sigma > 2)[:, None, None, None], linear(x, sigma), digits(x, sigma))
    assert torch.allclose(found, expected, atol=1e-12)
    for level, own in ((5.0, linear), (2.0, digits)):
        assert torch.equal(both(x, level), own(x, level))
    assert torch.equal(switch(linear, digits, 0.0)(x, sigma), linear(x, sigma))
    with pytest.raises(ValueError, match="points of one shape"):
        switch(digits, OptimalDenoiser(random(3, 2)), 1.0)
    with pytest.raises(ValueError, match="must be a number and not negative, got -1"):
        switch(digits, digits, -1.0)


# --- Flow matching


def test_velocity_is_that_of_the_probability_flow(digits: OptimalDenoiser) -> None:
    """`process.FlowMatching` has the noise at t = 1; Euler's step there is x_t + Δt u*."""
    x, t = random(3, 1, 8, 8), 0.3
    process = FlowMatching()
    sigma = (1 - t) / t
    assert float(process.sigma(torch.tensor(1 - t))) == pytest.approx(sigma)
    u = closed_form_velocity(digits, x, t)
    assert torch.allclose(u, (digits(x / t, sigma) - x) / (1 - t), atol=1e-10)
    later = 0.31
    states = trajectory(digits, x, [sigma, (1 - later) / later, 0.0], solver="euler", process=process)
    there = list(states)[1].x
    assert torch.allclose(there, x + (later - t) * u, atol=1e-8)
    start = closed_form_velocity(digits, x, torch.tensor([0.0, 0.3, 0.3]))
    assert torch.allclose(start[0], digits.mean - x[0], atol=1e-12)
    assert torch.allclose(start[1:], u[1:], atol=1e-12)
    assert torch.allclose(closed_form_velocity(digits, x, 1e-7), digits.mean - x, atol=1e-4)


@pytest.mark.parametrize("sigma_min", [0.0, 0.1])
def test_it_is_the_mean_of_what_is_regressed_on(sigma_min: float) -> None:
    y = random(7, 3)
    D, t = OptimalDenoiser(y), 0.6
    x = random(4, 3, seed=1)
    noise = 1 - (1 - sigma_min) * t
    weights = (-(x[:, None] - t * y).square().sum(2) / (2 * noise**2)).softmax(1)
    each = torch.stack([conditional_velocity(point.expand(4, 3), x, t, sigma_min=sigma_min) for point in y], 1)
    # Of x1 − (1 − σ_min) x0 with x0 = (x_t − t x1)/noise.
    ends = torch.stack([point - (1 - sigma_min) * (x - t * point) / noise for point in y], 1)
    assert torch.allclose(each, ends, atol=1e-12)
    mean = (weights[:, :, None] * each).sum(1)
    assert torch.allclose(closed_form_velocity(D, x, t, sigma_min=sigma_min), mean, atol=1e-10)


def test_times_that_are_none() -> None:
    D = OptimalDenoiser(random(3, 2))
    x = random(2, 2)
    for t, sigma_min in itertools.product((-0.1, 1.1, float("nan")), (0.0, 0.1)):
        with pytest.raises(ValueError, match="t must lie from 0 to 1"):
            closed_form_velocity(D, x, t, sigma_min=sigma_min)
    with pytest.raises(ValueError, match="below 1 where sigma_min is 0, got 1"):
        closed_form_velocity(D, x, 1.0)
    assert torch.isfinite(closed_form_velocity(D, x, 1.0, sigma_min=0.1)).all()
    with pytest.raises(ValueError, match=r"sigma_min must lie in \[0, 1\], got 2"):
        closed_form_velocity(D, x, 0.5, sigma_min=2.0)
