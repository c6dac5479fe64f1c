"""The best linear denoiser of data: against the Gaussian of their moments, and what only the moments decide."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from optimal import OptimalDenoiser, load
from optimal.reference import Gaussian
from optimal.theories import Wiener


@pytest.fixture(scope="module")
def digits() -> OptimalDenoiser:
    return OptimalDenoiser(load("digits"))


def moments(y: Tensor, weights: Tensor | None = None) -> tuple[Tensor, Tensor]:
    y = y.double().flatten(1)
    share = torch.full((len(y),), 1 / len(y), dtype=torch.float64) if weights is None else weights
    mean = share @ y
    return mean, (y - mean).T @ ((y - mean) * share[:, None])


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("case", ["digits", "few points", "prior", "far and large"])
def test_it_is_the_gaussian_of_the_data_s_moments(case: str, digits: OptimalDenoiser) -> None:
    D, weights = digits, None
    if case == "few points":
        D = OptimalDenoiser(random(7, 3, 4, 4))
    if case == "prior":
        log_weights = random(len(digits), seed=3)
        D, weights = digits.weighted(log_weights), log_weights.softmax(0)
    if case == "far and large":
        D = OptimalDenoiser(1e5 + 1e3 * random(50, 6))
    mean, covariance = moments(D.take(torch.arange(len(D))), weights)
    reference, linear = Gaussian(mean, covariance), Wiener(D)
    assert torch.allclose(
        linear.axes.T @ linear.axes, torch.eye(len(linear.eigenvalues), dtype=torch.float64), atol=1e-12
    )
    sigma = D.standard_deviation * torch.tensor([0.1, 1.0, 30.0], dtype=torch.float64)
    x = mean + sigma[:, None] * random(3, len(mean), seed=1)
    shaped = x.reshape(3, *D.event)
    size = float(x.abs().amax())
    assert torch.allclose(linear(shaped, sigma).flatten(1), reference(x, sigma), rtol=0, atol=1e-10 * size)
    assert torch.allclose(linear.log_density(shaped, sigma), reference.log_density(x, sigma), rtol=1e-9)
    scale = 1 / D.standard_deviation
    scores = linear.score(shaped, sigma).flatten(1), reference.score(x, sigma)
    assert torch.allclose(*scores, rtol=1e-8, atol=1e-8 * scale)
    moved = linear.flow(shaped, sigma, 0.3 * sigma).flatten(1)
    assert torch.allclose(moved, reference.flow(x, sigma, 0.3 * sigma), rtol=0, atol=1e-10 * size)


def test_no_linear_denoiser_is_better(digits: OptimalDenoiser) -> None:
    """E‖D_G − x0‖² = Σ λσ²/(λ + σ²) over the data, ε averaged in closed form; and other factors do worse."""
    linear = Wiener(digits)
    y = digits.take(torch.arange(len(digits))).double().flatten(1) - linear.mean.flatten()
    inside = y @ linear.axes
    for sigma in (0.2, 1.0, 5.0):
        shrink = linear.eigenvalues / (linear.eigenvalues + sigma**2)

        def risk(factors: Tensor, sigma: float = sigma) -> float:
            return float(((1 - factors) * inside).square().sum(1).mean() + sigma**2 * factors.square().sum())

        assert risk(shrink) == pytest.approx(float(linear.mmse(sigma)), rel=1e-10)
        assert all(risk(shrink + change) > risk(shrink) for change in (0.01, -0.01))


def test_axes_that_are_left_out_share_what_is_left(digits: OptimalDenoiser) -> None:
    linear, whole = Wiener(digits, rank=10), Wiener(digits)
    assert linear.rest == pytest.approx(float(whole.eigenvalues[10:].sum()) / 54)
    v = random(4, 64)
    split = (v - v @ linear.axes @ linear.axes.T) * linear.rest + v @ linear.axes * linear.eigenvalues @ linear.axes.T
    assert torch.allclose(linear.spectral(v, lambda values: values), split, atol=1e-12)
    isotropic = Wiener(digits, rank=0)
    assert isotropic.rest == pytest.approx(digits.standard_deviation**2)
    x = random(2, 1, 8, 8)
    expected = isotropic.mean + isotropic.rest / (isotropic.rest + 4) * (x - isotropic.mean)
    assert torch.allclose(isotropic(x, 2.0), expected, atol=1e-12)
    values, counts = linear.spectrum()
    assert float((values * counts).sum()) == pytest.approx(float(whole.eigenvalues.sum()))
    covariance = linear.axes @ torch.diag(linear.eigenvalues - linear.rest) @ linear.axes.T
    dense = Gaussian(linear.mean.flatten(), covariance + linear.rest * torch.eye(64, dtype=torch.float64))
    assert torch.allclose(linear.log_density(x, 0.7), dense.log_density(x.flatten(1), 0.7))


def test_the_leading_axes_of_large_data_are_those_of_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the matrix of all would be too large the axes are looked for, and the rest is their complement's share."""
    y = random(300, 40) * torch.logspace(0, -3, 40, dtype=torch.float64)
    whole = Wiener(OptimalDenoiser(y))
    monkeypatch.setattr("optimal.theories.gaussian._WHOLE", 30)
    few = Wiener(OptimalDenoiser(y), rank=5)
    assert torch.allclose(few.eigenvalues, whole.eigenvalues[:5], rtol=5e-4)
    assert few.rest == pytest.approx(float(whole.eigenvalues[5:].sum()) / 35, rel=1e-2)
    overlap = (few.axes.T @ whole.axes[:, :5]).square().sum(0)
    assert torch.allclose(overlap, torch.ones(5, dtype=torch.float64), atol=1e-3)


def test_far_above_the_data_it_is_the_optimum_to_first_order(digits: OptimalDenoiser) -> None:
    linear = Wiener(digits)
    eps = random(8, 1, 8, 8)
    shares = []
    for sigma in (20.0, 40.0, 80.0):
        x = linear.mean + sigma * eps
        exact = digits(x, sigma) - linear.mean
        shares.append(float((digits(x, sigma) - linear(x, sigma)).norm() / exact.norm()))
    assert shares[0] < 0.1
    # r falls as 1/σ², D − m as 1/σ.
    assert shares[0] / shares[1] == pytest.approx(2, rel=0.15)
    assert shares[1] / shares[2] == pytest.approx(2, rel=0.1)


def test_samples_have_its_moments() -> None:
    linear = Wiener(OptimalDenoiser(random(30, 5) * torch.tensor([3.0, 2.0, 1.0, 0.5, 0.1])), rank=3)
    drawn = linear.sample(200_000, torch.Generator().manual_seed(1))
    covariance = linear.spectral(torch.eye(5, dtype=torch.float64), lambda values: values)
    _, found = moments(drawn)
    assert torch.allclose(found, covariance, atol=4 * float(covariance.amax()) * math.sqrt(2 / 200_000))


@pytest.mark.parametrize(("rank", "words"), [(-1, "got -1"), (65, "0 to 64"), (1.5, "got 1.5")])
def test_ranks_that_cannot_be(rank: float, words: str, digits: OptimalDenoiser) -> None:
    with pytest.raises(ValueError, match=words):
        Wiener(digits, rank=rank)  # pyright: ignore[reportArgumentType]
