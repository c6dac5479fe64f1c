"""Speciation and collapse: published values, data whose covariance is known, and the measured collapse beside them."""

from __future__ import annotations

import math

import pytest
import torch

from optimal import OptimalDenoiser, collapse_border, collapse_sigma, forward_statistics, load, speciation_sigma
from optimal.regimes import top_eigenvalue


@pytest.mark.parametrize(("eigenvalue", "t"), [(7.66, 1.02), (16.72, 1.41), (3.05, 0.56), (12.11, 1.25), (60.52, 2.05)])
def test_speciation_as_published(eigenvalue: float, t: float) -> None:
    """Biroli et al. 2024, their table of Λ and t_S; σ² = e^{2t} − 1."""
    assert math.isclose(0.5 * math.log1p(speciation_sigma(eigenvalue) ** 2), t, abs_tol=0.006)


def test_nothing_to_speciate() -> None:
    assert speciation_sigma(0.7) == speciation_sigma(1.0) == speciation_sigma(0.0) == 0.0


@pytest.mark.parametrize(
    ("n", "d", "t"),
    [
        (20_000, 4, 0.0035),
        (20_000, 8, 0.0439),
        (20_000, 16, 0.1712),
        (20_000, 64, 0.6618),
        (50_000, 3_072, 2.4795),
        (70_000, 12_288, 3.1561),
    ],
)
def test_collapse_as_published(n: int, d: int, t: float) -> None:
    assert math.isclose(0.5 * math.log1p(collapse_sigma(n, d) ** 2), t, abs_tol=6e-5)
    assert math.isclose(collapse_sigma(n, d, 3.0), 3 * collapse_sigma(n, d), rel_tol=1e-12)


def test_one_point_has_collapsed_at_any_noise() -> None:
    assert collapse_sigma(1, 10) == math.inf


@pytest.mark.parametrize(("n", "d", "s"), [(2_000, 8, 1.0), (2_000, 16, 1.0), (5_000, 64, 0.5), (2_000, 300, 1.0)])
def test_measured_collapse_of_gaussian_data_is_the_formula(n: int, d: int, s: float) -> None:
    points = s * torch.randn(n, d, generator=torch.Generator().manual_seed(0))
    measured = collapse_border(OptimalDenoiser(points), draws=512)
    assert math.isclose(measured.sigma, collapse_sigma(n, d, s), rel_tol=0.12)
    assert measured.low < measured.sigma < measured.high
    assert measured.threshold == 1.0


def test_excess_entropy_is_the_mean_posterior_entropy() -> None:
    """f = (ln n)/d + ½ (1 + ln 2πΔ_t) − s(t), in the letters of Biroli et al., from −log P_t alone."""
    D = OptimalDenoiser(load("digits", n=500))
    draws, dim = 2_000, 64
    for sigma in (0.5, 1.0, 2.0, 5.0):
        generator = torch.Generator().manual_seed(3)
        x0 = D.take(torch.randint(500, (draws,), generator=generator))
        x = x0 + sigma * torch.randn(x0.shape, generator=generator)
        t = 0.5 * math.log1p(sigma**2)
        # Their x_t is e^{−t} times ours.
        log_density = D.posterior(x.double(), sigma).log_density + dim * t
        samples = math.log(500) + dim / 2 * (1 + math.log(2 * math.pi * (1 - math.exp(-2 * t)))) + log_density
        entropy = forward_statistics(D, torch.tensor([sigma]), draws=draws).entropy[0]
        error = math.hypot(float(samples.std()), float(entropy.std())) / math.sqrt(draws)
        assert abs(float(samples.mean() - entropy.mean())) < 4 * error
        assert error < 0.2


@pytest.mark.parametrize("dim", [5, 1_500])
def test_top_eigenvalue(dim: int) -> None:
    """Both ways, one pass and Lanczos, on data far from the origin."""
    generator = torch.Generator().manual_seed(0)
    points = torch.randn(400, dim, generator=generator) * torch.linspace(1, 3, dim) + 20
    expected = torch.linalg.matrix_norm(points.double() - points.double().mean(0), 2) ** 2 / 400
    assert math.isclose(top_eigenvalue(OptimalDenoiser(points)), float(expected), rel_tol=1e-4)


def test_top_eigenvalue_of_images() -> None:
    data = load("faces")
    points = data.points.double().flatten(1)
    expected = torch.linalg.eigvalsh(torch.cov(points.T, correction=0))[-1]
    assert math.isclose(top_eigenvalue(OptimalDenoiser(data)), float(expected), rel_tol=1e-5)


def test_a_single_point_has_no_variance() -> None:
    assert top_eigenvalue(OptimalDenoiser(torch.ones(1, 3))) == 0.0
    assert top_eigenvalue(OptimalDenoiser(torch.ones(3, 2_000))) <= 1e-9


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: speciation_sigma(-1.0), "finite and not negative, got -1"),
        (lambda: speciation_sigma(math.nan), "finite and not negative, got nan"),
        (lambda: collapse_sigma(0, 3), "n must be at least 1, got 0"),
        (lambda: collapse_sigma(10, 0), "d must be at least 1, got 0"),
        (lambda: collapse_sigma(10, 3, math.inf), "finite and not negative, got inf"),
        (
            lambda: collapse_border(OptimalDenoiser(torch.eye(3)), threshold=0.0),
            "threshold must be above 0, the entropy of a single point, got 0",
        ),
    ],
)
def test_errors(call, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        call()


def test_autocast_does_not_move_the_top_eigenvalue() -> None:
    """Beyond 1,024 values it comes from float32 products."""
    D = OptimalDenoiser(torch.randn(60, 1100, generator=torch.Generator().manual_seed(0)))
    plain = top_eigenvalue(D)
    with torch.autocast("cpu", torch.bfloat16):
        assert top_eigenvalue(D) == plain
