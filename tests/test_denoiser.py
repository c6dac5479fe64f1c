"""The closed form against its identities (shared/validation.md), at the precision of float64."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from contracts import check_denoiser
from hypothesis import given
from hypothesis import strategies as st
from problems import PROBLEMS, Problem, absolute_error, reference_posterior, row_error
from torch import Tensor

from optimal import Denoiser, OptimalDenoiser, Posterior, load

Normal = Callable[..., Tensor]
LEVELS = (0.05, 0.4, 1.0, 3.0, 30.0)
FIELDS = ("mean", "log_density", "entropy", "top_weight", "variance")


def same(a: Posterior, b: Posterior, tolerance: float) -> None:
    """All quantities of two posteriors, the mean per row, the rest relative to their size or to 1."""
    assert row_error(a.mean, b.mean).amax() <= tolerance
    for name in FIELDS[1:]:
        left, right = getattr(a, name), getattr(b, name)
        assert (absolute_error(left, right) / right.double().abs().clamp_min(1)).amax() <= tolerance, name


def test_same_fails_on_permuted_rows(normal: Normal) -> None:
    D, x = OptimalDenoiser(normal(10, 2)), normal(5, 2)
    same(D.posterior(x, 0.5), D.posterior(x, 0.5), 0.0)
    with pytest.raises(AssertionError):
        same(D.posterior(x.flip(0), 0.5), D.posterior(x, 0.5), 1e-3)


@pytest.mark.parametrize("problem", PROBLEMS, ids=lambda problem: problem.name)
def test_known_answers(problem: Problem, normal: Normal) -> None:
    D = OptimalDenoiser(problem.data)
    for sigma in problem.sigmas:
        x = problem.start + sigma * normal(*problem.start.shape).clamp(-2, 2)
        expected, nats = problem.denoise(x, sigma), problem.log_density(x, sigma)
        post = D.posterior(x, sigma)
        assert absolute_error(post.mean, expected).amax() <= problem.tolerance
        assert (absolute_error(post.log_density, nats) <= problem.tolerance * (1 + nats.abs())).all()
        if len(problem.data) > 1:
            assert absolute_error(post.mean.flip(0), expected).amax() > problem.tolerance
            assert absolute_error(post.log_density.flip(0), nats).amax() > problem.tolerance


@pytest.mark.parametrize("event", [(1,), (2,), (4, 4, 4)])
def test_contract(method: str, event: tuple[int, ...], normal: Normal) -> None:
    D = OptimalDenoiser(normal(30, *event).float(), method=method)
    assert isinstance(D, Denoiser)
    check_denoiser(D, event)
    check_denoiser(D.score, event)


@pytest.mark.parametrize("event", [(3, 8, 8), (1, 28, 28)])
def test_contract_with_float32_products(event: tuple[int, ...], normal: Normal) -> None:
    check_denoiser(OptimalDenoiser(normal(30, *event).float(), method="dense"), event)


def test_contract_on_images() -> None:
    check_denoiser(OptimalDenoiser(load("digits")), (1, 8, 8))


@pytest.mark.parametrize("sigma", LEVELS)
def test_rigid_motion_scaling_permutation(sigma: float, normal: Normal) -> None:
    data, x, b = normal(40, 6), normal(9, 6), 10 * normal(6)
    Q = torch.linalg.qr(normal(6, 6)).Q
    D = OptimalDenoiser(data)
    base = D.posterior(x, sigma)
    moved = OptimalDenoiser(data @ Q + b).posterior(x @ Q + b, sigma)
    same(moved, Posterior(**{**vars(base), "mean": base.mean @ Q + b}), 1e-11 if sigma > 0.1 else 1e-9)
    scaled = OptimalDenoiser(7 * data).posterior(7 * x, 7 * sigma)
    expected = {
        "mean": 7 * base.mean,
        "variance": 49 * base.variance,
        "log_density": base.log_density - 6 * math.log(7),
    }
    same(scaled, Posterior(**{**vars(base), **expected}), 1e-12 if sigma > 0.1 else 1e-10)
    order = torch.randperm(40, generator=torch.Generator().manual_seed(0))
    shuffled = OptimalDenoiser(data[order]).posterior(x, sigma)
    same(shuffled, base, 1e-12 if sigma > 0.1 else 1e-10)
    assert torch.equal(order[shuffled.top_index], base.top_index)


@pytest.mark.parametrize("memory", [2**30, 100_000])
def test_repeated_point_counts_twice(method: str, memory: int, normal: Normal) -> None:
    data, x = normal(20, 64), normal(6, 64)
    twice = OptimalDenoiser(torch.cat([data, data[3:4]]), method=method, memory=memory)
    reference = reference_posterior(torch.cat([data, data[3:4]]), x, 5.0)
    once = OptimalDenoiser(data).weights(x, 5.0)
    once[:, 3] *= 2
    expected = once / once.sum(1, keepdim=True)
    assert row_error(twice(x, 5.0), expected @ data).amax() <= 1e-12
    assert absolute_error(twice.posterior(x, 5.0).entropy, reference.entropy).amax() <= 1e-12
    # Among equals the first in the data leads, whatever block the other falls into.
    many = OptimalDenoiser(data.repeat(5, 1), method=method, memory=memory)
    post = many.posterior(data + 1e-3, 0.5)
    assert post.top_index.tolist() == list(range(20))
    assert absolute_error(post.top_weight, torch.full((20,), 0.2)).amax() <= 1e-8
    assert absolute_error(post.effective_count, torch.full((20,), 5.0)).amax() <= 1e-6


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_first_among_equals_in_float32_products(dtype: torch.dtype, normal: Normal) -> None:
    data = normal(20, 200).float()
    D = OptimalDenoiser(data.repeat(5, 1), memory=200_000)
    for sigma in (0.01, 0.5, 5.0):
        x = (data + 0.01 * normal(20, 200)).to(dtype)
        leader = reference_posterior(data, x, sigma).log_weights.argmax(1)
        assert torch.equal(D.posterior(x, sigma).top_index, leader)


def test_limits(method: str, normal: Normal) -> None:
    data, x = normal(30, 2), 2 * normal(12, 2)
    D = OptimalDenoiser(data, method=method)
    nearest = torch.cdist(x, data).argmin(1)
    assert row_error(D(x, 1e-4), data[nearest]).amax() <= 1e-12
    assert torch.equal(D.posterior(x, 1e-4).top_index, nearest)
    assert row_error(D(x, 1e7), data.mean(0).expand(12, 2)).amax() <= 1e-12
    assert absolute_error(D.posterior(x, 1e7).effective_count, torch.full((12,), 30.0)).amax() <= 1e-9


@pytest.mark.parametrize("sigma", LEVELS)
def test_posterior_is_the_average_over_weights(method: str, sigma: float, normal: Normal) -> None:
    data, x = normal(30, 2), normal(7, 2)
    D = OptimalDenoiser(data, method=method)
    weights, post = D.weights(x, sigma), D.posterior(x, sigma)
    assert absolute_error(weights.sum(1), torch.ones(7)).amax() <= 1e-14
    assert row_error(post.mean, weights @ data).amax() <= 1e-12
    assert torch.equal(post.top_index, weights.argmax(1))
    assert absolute_error(post.top_weight, weights.amax(1)).amax() <= 1e-12
    distances = torch.cdist(post.mean, data).square()
    assert absolute_error(post.variance, (weights * distances).sum(1)).amax() <= 1e-12


@pytest.mark.parametrize("sigma", LEVELS)
def test_mmse_identities(sigma: float, normal: Normal) -> None:
    """E‖x0‖² − E‖D‖² = E‖x0 − D‖² = E tr Cov, and σ²E‖score‖² = dim − MMSE/σ², each within 4 standard errors."""
    data, draws = normal(8, 3), 40_000
    D = OptimalDenoiser(data)
    index = torch.randint(8, (draws,), generator=torch.Generator().manual_seed(3))
    x = data[index] + sigma * normal(draws, 3)
    post = D.posterior(x, sigma)

    def is_zero(sample: Tensor) -> None:
        error = sample.std() / math.sqrt(draws)
        assert sample.mean().abs() <= 4 * error + 1e-9

    squares = data.square().sum(1)
    is_zero(squares[index] - post.mean.square().sum(1) - post.variance)
    is_zero((data[index] - post.mean).square().sum(1) - post.variance)
    is_zero(sigma**2 * D.score(x, sigma).square().sum(1) - 3 + post.variance / sigma**2)
    if sigma >= 0.4:
        with pytest.raises(AssertionError):
            is_zero(squares[index] - post.mean.square().sum(1) - 1.2 * post.variance)


def test_excess_risk(normal: Normal) -> None:
    """E‖F − x0‖² − MMSE = E‖F − D‖² for any F; here F = D + 0.3 x."""
    data, sigma = normal(8, 3), 0.8
    index = torch.randint(8, (40_000,), generator=torch.Generator().manual_seed(3))
    x = data[index] + sigma * normal(40_000, 3)
    best = OptimalDenoiser(data)(x, sigma)
    sample = (best + 0.3 * x - data[index]).square().sum(1) - (best - data[index]).square().sum(1)
    sample -= (0.3 * x).square().sum(1)
    assert sample.mean().abs() <= 4 * sample.std() / 200


@given(
    points=st.integers(1, 20),
    dim=st.integers(1, 5),
    log_sigma=st.floats(-3, 3),
    seed=st.integers(0, 2**32 - 1),
    repeat=st.booleans(),
)
def test_properties(points: int, dim: int, log_sigma: float, seed: int, repeat: bool) -> None:
    generator = torch.Generator().manual_seed(seed)
    data = torch.randn(points, dim, generator=generator, dtype=torch.float64)
    data = torch.cat([data, data[:1]]) if repeat else data
    sigma = 10.0**log_sigma
    x = data[:3] + sigma * torch.randn(data[:3].shape, generator=generator, dtype=torch.float64)
    D = OptimalDenoiser(data)
    post, weights = D.posterior(x, sigma), D.weights(x, sigma)
    reference = reference_posterior(data, x, sigma)
    assert absolute_error(weights.sum(1), torch.ones(len(x))).amax() <= 1e-12
    assert weights.min() >= 0
    # A point of the hull goes no further in any direction than the data do.
    directions = torch.randn(dim, 8, generator=generator, dtype=torch.float64)
    reach = (data @ directions).amax(0) + 1e-9
    assert (post.mean @ directions <= reach).all()
    assert (post.entropy >= 0).all()
    assert (post.effective_count <= len(data) * (1 + 1e-12)).all()
    # In nats, the rounding of l = −‖x − y‖²/2σ² itself.
    rounding = 1e-12 + 1e-14 * (x.square().sum(1).amax() + data.square().sum(1).amax()) / sigma**2
    assert absolute_error(post.mean, reference.mean).amax() <= 10 * rounding
    assert absolute_error(post.entropy, reference.entropy).amax() <= 20 * rounding
    assert absolute_error(post.variance, reference.variance).amax() <= 100 * rounding
    assert (
        absolute_error(post.log_density, reference.log_density) <= rounding * (1 + reference.log_density.abs())
    ).all()
    shift = torch.randn(dim, generator=generator, dtype=torch.float64)
    moved = OptimalDenoiser(data + shift)(x + shift, sigma)
    assert absolute_error(moved, post.mean + shift).amax() <= 100 * rounding


def test_data_may_come_in_any_form(normal: Normal, tmp_path) -> None:
    dataset = load("digits", n=50)
    path = tmp_path / "digits.npy"
    np.save(path, dataset.array)
    mapped = np.load(path, mmap_mode="r")
    x = normal(4, 1, 8, 8).float()
    expected = OptimalDenoiser(dataset)(x, 1.0)
    for data in (dataset.points, torch.tensor(mapped), mapped, np.asarray(dataset.points)):
        assert torch.equal(OptimalDenoiser(data)(x, 1.0), expected)
    half = normal(20, 3).half()
    assert (
        absolute_error(
            OptimalDenoiser(half)(x[:, 0, 0, :3], 1.0), OptimalDenoiser(half.float())(x[:, 0, 0, :3], 1.0)
        ).amax()
        == 0
    )


def test_small_parts(normal: Normal) -> None:
    data = normal(12, 1, 3, 3).float()
    D = OptimalDenoiser(data, method="dense")
    assert len(D) == 12
    assert D.event == (1, 3, 3)
    assert "12 points" in repr(D)
    assert torch.equal(D.take(torch.tensor([5, 0])), data[[5, 0]])
    expected = (data - data.mean(0)).square().mean().sqrt()
    assert math.isclose(D.standard_deviation, float(expected), rel_tol=1e-6)
    images = OptimalDenoiser(torch.tensor([[0], [255]], dtype=torch.uint8))
    assert images.take(torch.tensor([0, 1])).tolist() == [[-1.0], [1.0]]
