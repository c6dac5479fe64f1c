"""Entropy, source and MMSE along the forward process, against quadrature on the line and identities elsewhere."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.integrate import quad
from scipy.special import logsumexp

from optimal import OptimalDenoiser, forward_statistics, load, seeking_refining_border

DELTAS = load("five-deltas").points.double().flatten().numpy()
SIGMAS = torch.tensor([0.2, 0.5, 1.0, 3.0])


def expectation(quantity, sigma: float) -> float:
    """E over x0 uniform on the deltas and x = x0 + σ ε, by adaptive quadrature over x."""

    def integrand(x: float) -> float:
        logits = -((x - DELTAS) ** 2) / (2 * sigma**2)
        density = np.exp(logsumexp(logits)) / (len(DELTAS) * math.sqrt(2 * math.pi) * sigma)
        return density * quantity(np.exp(logits - logsumexp(logits)))

    edges = [-3 - 12 * sigma, *sorted(DELTAS), *(DELTAS[1:] + DELTAS[:-1]) / 2, 3 + 12 * sigma]
    return sum(quad(integrand, a, b, limit=200)[0] for a, b in zip(sorted(edges)[:-1], sorted(edges)[1:], strict=True))


def variance(w: np.ndarray) -> float:
    return float(w @ DELTAS**2 - (w @ DELTAS) ** 2)


@pytest.fixture(scope="module")
def along():
    D = OptimalDenoiser(load("five-deltas"))
    return forward_statistics(D, SIGMAS, draws=40_000, derivative=True)


def test_shapes_and_types(along) -> None:
    for value in (along.entropy, along.variance, along.covariance_square, along.effective_count):
        assert value.shape == (4, 40_000)
        assert value.dtype == torch.float64
    assert along.found.shape == (4, 40_000)
    assert along.mmse.shape == along.mmse_derivative.shape == along.source_probability.shape == (4,)


@pytest.mark.parametrize("i", range(len(SIGMAS)))
def test_against_quadrature(along, i: int) -> None:
    """Within four standard errors, which are stated: a factor left out would not pass."""
    sigma = float(SIGMAS[i])

    def agrees(samples: torch.Tensor, expected: float) -> None:
        error = float(samples.double().std()) / math.sqrt(samples.numel())
        assert abs(float(samples.double().mean()) - expected) < 4 * error
        assert error < 0.06 * expected

    agrees(along.entropy[i], expectation(lambda w: -float((w * np.log(np.maximum(w, 1e-300))).sum()), sigma))
    agrees(along.variance[i], expectation(variance, sigma))
    agrees(along.covariance_square[i], expectation(lambda w: variance(w) ** 2, sigma))
    # The leader is the source with the leader's own probability.
    agrees(along.found[i], expectation(lambda w: float(w.max()), sigma))


@pytest.mark.parametrize("i", range(len(SIGMAS)))
def test_derivative_of_the_mmse(along, i: int) -> None:
    sigma, step = float(SIGMAS[i]), 1e-3
    numeric = (expectation(variance, sigma + step) - expectation(variance, sigma - step)) / (2 * step)
    error = float(along.covariance_square[i].std()) / math.sqrt(40_000) * 2 / sigma**3
    assert abs(float(along.mmse_derivative[i]) - numeric) < 4 * error


def test_mmse_on_images() -> None:
    """E‖x0‖² − E‖D‖² = E‖x0 − D‖² = E tr Cov (validation.md), and the derivative is the slope between two levels."""
    data = load("digits", n=600)
    D = OptimalDenoiser(data)
    sigmas = torch.tensor([1.0, 2.0, 2.02])
    along = forward_statistics(D, sigmas, draws=4_000, derivative=True)
    generator = torch.Generator().manual_seed(9)
    x0 = D.take(torch.randint(600, (4_000,), generator=generator)).double()
    x = x0 + 2 * torch.randn(x0.shape, generator=generator, dtype=torch.float64)
    squares = (x0 - D(x, 2.0)).flatten(1).square().sum(1)
    error = float(squares.std()) / math.sqrt(4_000)
    assert abs(float(squares.mean() - along.mmse[1])) < 5 * error
    slope = float(along.mmse[2] - along.mmse[1]) / 0.02
    assert math.isclose(slope, float(along.mmse_derivative[1:].mean()), rel_tol=0.1)


def test_a_repeated_source_is_found_under_its_first_copy() -> None:
    points = load("digits", n=50).points
    along = forward_statistics(OptimalDenoiser(torch.cat([points, points])), torch.tensor([0.05]), draws=64)
    assert along.source_probability.tolist() == [1.0]
    assert torch.allclose(along.effective_count, torch.tensor(2.0, dtype=torch.float64), atol=1e-4)


def test_sources_from_other_data() -> None:
    """Held-out images: none is ever found, and the border of the two is not that of one alone."""
    points = load("digits").points
    D, others = OptimalDenoiser(points[:900]), points[900:]
    along = forward_statistics(D, torch.tensor([0.05, 0.5]), others, draws=128)
    assert along.source_probability.tolist() == [0.0, 0.0]
    data = load("digits", n=900)
    from_data = forward_statistics(OptimalDenoiser(data), torch.tensor([0.05]), data, draws=64)
    from_array = forward_statistics(D, torch.tensor([0.05]), points[:900].numpy(), draws=64)
    assert from_data.source_probability.tolist() == from_array.source_probability.tolist() == [1.0]
    own, held_out = seeking_refining_border(D), seeking_refining_border(D, others)
    assert own.sigma != held_out.sigma
    assert held_out.sigma == seeking_refining_border(D, others.numpy()).sigma


def test_without_derivative_it_is_nan() -> None:
    along = forward_statistics(OptimalDenoiser(load("five-deltas")), SIGMAS, draws=3)
    assert along.covariance_square.isnan().all()
    assert not along.variance.isnan().any()


def test_data_of_another_shape() -> None:
    with pytest.raises(ValueError, match=r"data must have points of shape \(1,\), those of the denoiser, got \(2,\)"):
        forward_statistics(OptimalDenoiser(load("five-deltas")), SIGMAS, torch.ones(4, 2))
