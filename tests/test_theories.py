"""The best linear denoiser of data: against the Gaussian of their moments, and what only the moments decide."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from optimal import OptimalDenoiser, load
from optimal.border import forward_statistics
from optimal.reference import Gaussian
from optimal.theories import Wiener, linear_square_norms, mean_square_norms, variances


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


@pytest.mark.parametrize("case", ["digits", "few points", "prior"])
@pytest.mark.parametrize(("rank", "rest"), [(None, True), (0, True), (5, True), (5, False), (0, False)])
def test_how_long_the_answers_of_a_linear_denoiser_are(
    case: str, rank: int | None, rest: bool, digits: OptimalDenoiser
) -> None:
    """‖m‖² + Σ λ²/(λ + σ²) is the mean of ‖D_G‖² over all data, ε averaged in closed form."""
    D, weights = digits, None
    if case == "few points":
        D = OptimalDenoiser(random(7, 3, 4, 4))
    if case == "prior":
        log_weights = random(len(digits), seed=3)
        D, weights = digits.weighted(log_weights), log_weights.softmax(0)
    y = D.take(torch.arange(len(D))).double().flatten(1)
    mean, covariance = moments(y, weights)
    values, axes = torch.linalg.eigh(covariance)
    kept = len(values) if rank is None else rank
    other = float(values[: len(values) - kept].sum()) / max(1, len(values) - kept) if rest else 0.0
    values[: len(values) - kept] = other
    sigmas = [0.1, 1.0, 7.0]
    expected: list[Tensor] = []
    for sigma in sigmas:
        W = axes @ torch.diag(values / (values + sigma**2)) @ axes.T
        lengths = (mean + (y - mean) @ W).square().sum(1) + sigma**2 * W.square().sum()
        expected.append(lengths.mean() if weights is None else weights @ lengths)
    assert torch.allclose(linear_square_norms(D, sigmas, rank, rest=rest), torch.stack(expected), rtol=1e-10)


def test_lengths_of_drawn_answers_are_the_linear_one_s_and_the_optimum_s(digits: OptimalDenoiser) -> None:
    """What 4,000 draws say holds the closed form; and E‖D‖² = E‖x0‖² − MMSE, the latter of other draws."""
    sigmas = [0.3, 1.0, 3.0]
    for rank in (None, 0, 6):
        drawn = mean_square_norms(digits, Wiener(digits, rank), sigmas, 4000, level=0.9999)
        exact = linear_square_norms(digits, sigmas, rank)
        assert ((drawn.mean.low < exact) & (exact < drawn.mean.high)).all()
        assert float(((drawn.mean.high - drawn.mean.low) / exact).max()) < 0.1
        assert torch.allclose(drawn.deviation / math.sqrt(4000), (drawn.mean.high - drawn.mean.low) / 7.8, rtol=0.05)
    total = float(digits.mean.square().sum()) + 64 * digits.standard_deviation**2
    drawn = mean_square_norms(digits, digits, sigmas, 4000, level=0.9999)
    mmse = forward_statistics(digits, sigmas, draws=4000, generator=torch.Generator().manual_seed(9)).mmse
    slack = 4 * drawn.deviation / math.sqrt(4000)
    assert ((drawn.mean.value - (total - mmse)).abs() < 1.5 * slack).all()
    # Were it the linear one's, it would be found out.
    assert float(((linear_square_norms(digits, sigmas) - (total - mmse)) / slack).abs().max()) > 5


def test_all_variances_of_data_with_fewer_points_than_values(monkeypatch: pytest.MonkeyPatch) -> None:
    y = random(9, 20)
    found = variances(OptimalDenoiser(y + 1e3))
    expected = torch.linalg.eigvalsh(moments(y)[1]).flip(0)[:9]
    assert torch.allclose(found, expected, atol=1e-10)
    monkeypatch.setattr("optimal.theories.moments._MOST", 8)
    with pytest.raises(ValueError, match="need a matrix of 9 rows, of at most 8"):
        variances(OptimalDenoiser(y))
    with pytest.raises(ValueError, match="a spectrum is that of data: D must be an OptimalDenoiser, got Tensor"):
        variances(y)  # pyright: ignore[reportArgumentType]
    for rank in (-1, 9, 1.5):
        with pytest.raises(ValueError, match=f"rank must be a whole number from 0 to 8, .*, got {rank}"):
            linear_square_norms(OptimalDenoiser(y), 1.0, rank)  # pyright: ignore[reportArgumentType]


def test_what_is_left_far_above_the_data_is_their_third_moment(digits: OptimalDenoiser) -> None:
    """At fixed x, σ² (D − D_G) → −½ E[(y − m) ‖y − m‖²]; of data that are symmetric about their mean, 0."""
    y = random(12, 3).exp()
    D = OptimalDenoiser(y)
    centred = y - y.mean(0)
    third = (centred * centred.square().sum(1, keepdim=True)).mean(0)
    linear, x = Wiener(D), random(5, 3, seed=1)
    for sigma in (300.0, 3000.0):
        left = sigma**2 * (D(x, sigma) - linear(x, sigma))
        # The next term is 1/σ².
        assert torch.allclose(left, -0.5 * third.expand(5, 3), rtol=0, atol=300 / sigma**2 * float(third.norm()))
    both = OptimalDenoiser(torch.cat([centred, -centred]))
    left = 300.0**2 * (both(x, 300.0) - Wiener(both)(x, 300.0))
    assert float(left.norm(dim=1).amax()) < 0.01 * float(third.norm())


def test_two_points_have_one_variance() -> None:
    m, u = random(3, 2, 2), random(3, 2, 2, seed=1)
    D = OptimalDenoiser(torch.stack([m + u, m - u]))
    linear, square = Wiener(D), float(u.square().sum())
    assert torch.allclose(variances(D), torch.tensor([square, 0.0], dtype=torch.float64), atol=1e-12)
    assert linear.eigenvalues.tolist() == pytest.approx([square])
    assert float((linear.axes[:, 0] @ u.flatten()).abs()) == pytest.approx(square**0.5)
    x = random(4, 3, 2, 2, seed=2)
    along = ((x - m) * u).flatten(1).sum(1).reshape(4, 1, 1, 1)
    assert torch.allclose(linear(x, 0.7), m + along * u / (square + 0.49), atol=1e-12)
    assert torch.allclose(D(x, 0.7), m + torch.tanh(along / 0.49) * u, atol=1e-12)


@pytest.mark.parametrize("rank", [None, 4, 0])
def test_its_flow_may_be_gone_in_parts(rank: int | None, digits: OptimalDenoiser) -> None:
    """Flow after flow is the flow; it undoes itself; and dx/dσ = (x − D)/σ."""
    linear = Wiener(digits, rank)
    x = 9 * random(4, 1, 8, 8)
    whole = linear.flow(x, 9.0, 0.2)
    assert torch.allclose(linear.flow(linear.flow(x, 9.0, 1.3), 1.3, 0.2), whole, atol=1e-12)
    # Back from where what has no variance of its own is shrunk by 45 at most.
    assert torch.allclose(linear.flow(whole, 0.2, 9.0), x, atol=1e-10)
    assert float((whole - x).norm(dim=(2, 3)).amin()) > 1
    step = 1e-4
    slope = (linear.flow(x, 2.0, 2.0 + step) - linear.flow(x, 2.0, 2.0 - step)) / (2 * step)
    assert torch.allclose(slope, (x - linear(x, 2.0)) / 2.0, atol=1e-6)


def test_what_it_loses_to_the_optimum_is_its_distance_from_it() -> None:
    """E‖D_G − D‖² = mmse_G − mmse, by quadrature over x in one dimension, under a prior."""
    y = torch.tensor([[-1.5], [0.2], [2.0]], dtype=torch.float64)
    D = OptimalDenoiser(y).weighted(torch.tensor([0.5, 0.2, 0.3]).double().log())
    linear = Wiener(D)
    for sigma in (0.4, 1.0, 4.0):
        x = torch.linspace(-3 - 12 * sigma, 3 + 12 * sigma, 4001, dtype=torch.float64)[:, None]
        post = D.posterior(x, sigma)
        density = post.log_density.exp()

        def mean(values: Tensor, x: Tensor = x, density: Tensor = density) -> float:
            return float(torch.trapezoid(values * density, x[:, 0]))

        mmse = mean(post.variance)
        distance = mean((linear(x, sigma) - post.mean).square().sum(1))
        assert mean(torch.ones(4001, dtype=torch.float64)) == pytest.approx(1, abs=1e-12)
        assert distance == pytest.approx(float(linear.mmse(sigma)) - mmse, abs=1e-10)
        assert distance > 1e-4


@pytest.mark.parametrize(("rank", "words"), [(-1, "got -1"), (65, "0 to 64"), (1.5, "got 1.5")])
def test_ranks_that_cannot_be(rank: float, words: str, digits: OptimalDenoiser) -> None:
    with pytest.raises(ValueError, match=words):
        Wiener(digits, rank=rank)  # pyright: ignore[reportArgumentType]
