"""Gaussians of parts of the data: against the formula, between the linear denoiser and the optimum, and their fits."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.distributions import Categorical, MixtureSameFamily, MultivariateNormal

from optimal import OptimalDenoiser, load
from optimal.randomness import stream
from optimal.samplers import sample
from optimal.schedule import karras
from optimal.theories import Mixture, Wiener


@pytest.fixture(scope="module")
def digits() -> OptimalDenoiser:
    return OptimalDenoiser(load("digits"))


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.fixture(scope="module")
def blobs() -> OptimalDenoiser:
    """Three blobs of 30, 60 and 90 points, in the order of a coin."""
    centres = torch.tensor([[-9.0, 0.0, 0.0], [9.0, 4.0, 0.0], [0.0, 9.0, 9.0]], dtype=torch.float64)
    which = torch.arange(3).repeat_interleave(torch.tensor([30, 60, 90]))
    points = centres[which] + random(180, 3)
    return OptimalDenoiser(points[torch.randperm(180, generator=torch.Generator().manual_seed(1))])


def test_it_is_the_mixture_of_its_parts_moments(blobs: OptimalDenoiser) -> None:
    """E[x0 | x], density and score of a mixture that torch.distributions holds, autograd through its density."""
    fit = Mixture(blobs, 3, floor=0.01)
    y = blobs.take(torch.arange(180))
    own = torch.stack([part.mean for part in fit.parts])
    nearest = torch.cdist(y, own).argmin(1)
    shares = nearest.bincount() / 180
    assert torch.allclose(fit.shares, shares.double(), atol=1e-12)
    x = y[:20] + 2.0 * random(20, 3, seed=2)
    x.requires_grad_()
    noisy = torch.stack([y[nearest == k].T.cov(correction=0) + 4.01 * torch.eye(3) for k in range(3)])
    law = MixtureSameFamily(Categorical(shares), MultivariateNormal(own, noisy))
    log_density = law.log_prob(x)
    (score,) = torch.autograd.grad(log_density.sum(), x)
    assert torch.allclose(fit.log_density(x, 2.0), log_density, atol=1e-10)
    assert torch.allclose(fit.score(x, 2.0), score, atol=1e-10)
    assert torch.allclose(fit(x, 2.0), x + 4 * score, atol=1e-10)


def test_one_part_is_the_linear_denoiser_and_a_part_a_point_the_optimum(digits: OptimalDenoiser) -> None:
    x = random(6, 1, 8, 8)
    assert torch.allclose(Mixture(digits, 1, floor=0.0)(x, 0.7), Wiener(digits)(x, 0.7), atol=1e-12)
    few = OptimalDenoiser(random(40, 5)).weighted(random(40, seed=4))
    z = random(6, 5, seed=1)
    for sigma in (0.05, 0.6, 9.0):
        assert torch.allclose(Mixture(few, 40, floor=0.0)(z, sigma), few(z, sigma), atol=1e-12)
        kde = few.smoothed(0.3)
        fit = Mixture(few, 40, floor=0.09)
        assert torch.allclose(fit(z, sigma), kde(z, sigma), atol=1e-12)
        assert torch.allclose(fit.log_density(z, sigma), kde.log_density(z, sigma), atol=1e-10)
        assert torch.allclose(fit.score(z, sigma), kde.score(z, sigma), atol=1e-10 / sigma**2)


def test_parts_keep_the_mean_and_the_prior(digits: OptimalDenoiser) -> None:
    prior = digits.weighted(random(len(digits), seed=5))
    for D in (digits, prior):
        fit = Mixture(D, "classes", rank=5)
        means = torch.stack([part.mean for part in fit.parts])
        assert torch.allclose(torch.einsum("k,k...->...", fit.shares, means), D.mean, atol=1e-12)
        assert len(fit.parts) == 10
        assert all(len(part.eigenvalues) == 5 for part in fit.parts)
    seven = Wiener(digits.given(7))
    assert torch.allclose(Mixture(digits, "classes").parts[7].mean, seven.mean, atol=1e-14)


def test_clusters_of_well_separated_parts_are_found_in_any_order(blobs: OptimalDenoiser) -> None:
    fits = [Mixture(blobs, 3, generator=stream(seed, "unnamed")) for seed in range(5)]
    for fit in fits:
        assert sorted((fit.shares * 180).round().tolist()) == [30.0, 60.0, 90.0]
    copies = OptimalDenoiser(torch.zeros(4, 2))
    assert len(Mixture(copies, 1).parts) == 1
    with pytest.raises(ValueError, match="modes must be at most 1, the number of distinct data points, got 2"):
        Mixture(copies, 2)


def test_a_point_without_a_probability_is_in_no_part(blobs: OptimalDenoiser) -> None:
    a = torch.zeros(180)
    a[17:] = -torch.inf
    few = OptimalDenoiser(blobs.take(torch.arange(17)))
    x = random(3, 3)
    pairs = [Mixture(D, 4, generator=stream(0, "unnamed"))(x, 0.5) for D in (blobs.weighted(a), few)]
    assert torch.allclose(*pairs, atol=1e-12)


def test_the_likelihood_rises_with_every_iteration(blobs: OptimalDenoiser, digits: OptimalDenoiser) -> None:
    for D, modes in ((blobs, 4), (digits, 8)):
        found = Mixture(D, modes, floor=1e-2, em=6)
        rises = torch.tensor(found.log_likelihoods).diff()
        assert len(rises) == 6
        assert float(rises.min()) > -1e-9
        assert float(rises.sum()) > 0.01
        y = D.take(torch.arange(len(D))).double()
        assert float(found.log_density(y, 1e-9).mean()) == pytest.approx(found.log_likelihoods[-1], abs=1e-5)


def test_it_samples_its_parts(blobs: OptimalDenoiser) -> None:
    fit = Mixture(blobs, 3, floor=0.25)
    drawn = fit.sample(9000, stream(0, "samples"))
    nearest = torch.cdist(drawn, torch.stack([part.mean for part in fit.parts])).argmin(1)
    counts = nearest.bincount(minlength=3).double()
    expected = 9000 * fit.shares
    # χ² of two degrees of freedom: beyond 20 once in 20,000.
    assert float(((counts - expected).square() / expected).sum()) < 20
    spread = drawn[nearest == 0].T.cov()
    covariance = fit.parts[0].spectral(torch.eye(3).double(), lambda v: v) + 0.25 * torch.eye(3)
    assert torch.allclose(spread, covariance, atol=0.15)


def test_sampling_with_its_own_score_recovers_the_shares(blobs: OptimalDenoiser) -> None:
    """From noise around its mean, by its exact score, as many end in each part as it has shares: 90, 60, 30 of 180."""
    fit = Mixture(blobs, 3, floor=0.25)
    means = torch.stack([part.mean for part in fit.parts])
    centre = fit.shares @ means
    # So far above the data the noisy mixture is a Gaussian around its mean, to a share of (9/400)².
    x = centre + 400.0 * torch.randn(6000, 3, generator=stream(0, "samples"), dtype=torch.float64)
    ends = sample(fit, x, karras(40, sigma_min=0.01, sigma_max=400.0), solver="heun")
    counts = torch.cdist(ends, means).argmin(1).bincount(minlength=3).double()

    def chi_square(shares: Tensor) -> float:
        return float(((counts - 6000 * shares).square() / (6000 * shares)).sum())

    # Of two degrees of freedom: beyond 20 once in 20,000.
    assert chi_square(fit.shares) < 20
    assert chi_square(torch.full((3,), 1 / 3).double()) > 500
    assert chi_square((fit.shares + torch.tensor([0.03, -0.03, 0.0]).double()).clamp(0, 1)) > 20


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"modes": 0}, "modes must be a whole number of at least 1, got 0"),
        ({"modes": "kinds"}, "modes must be a number, classes or the part of every point, got 'kinds'"),
        ({"modes": torch.zeros(3)}, "180 whole numbers"),
        ({"modes": "classes"}, "data without labels have no classes"),
        ({"modes": 2, "floor": -1.0}, "floor must be finite and not negative, got -1"),
        ({"modes": 2, "floor": 0.0, "em": 3}, "em must be a number of iterations, with a floor above 0, got 3 with 0"),
    ],
)
def test_bad_input(arguments: dict[str, object], sentence: str, blobs: OptimalDenoiser) -> None:
    with pytest.raises(ValueError, match=sentence):
        Mixture(blobs, **arguments)  # pyright: ignore[reportArgumentType]


def test_no_closed_flow(blobs: OptimalDenoiser) -> None:
    with pytest.raises(ValueError, match="integrate the ODE"):
        Mixture(blobs, 2).flow(torch.zeros(1, 3), 1.0, 0.0)
