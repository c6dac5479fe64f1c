"""What is promised holds in any units, at any offset, in any order and company, beside far points and near-copies."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from problems import absolute_error, density_error, log_weight_error, reference_posterior, row_error
from torch import Tensor

from optimal import OptimalDenoiser, Posterior, certify, karras, sample, sample_in_span

Normal = Callable[..., Tensor]
DTYPES = (torch.float64, torch.float32)
DIMS = (1, 3, 10, 700)
"""Differences at once; float64 products, of few values and more; float32 products."""


@pytest.fixture(params=["dense", "keops"])
def compiled_method(request: pytest.FixtureRequest) -> str:
    """Ways to sum over floating-point data; keops for the events that are compiled for the other tests, 1 and 2."""
    if request.param == "keops":
        request.getfixturevalue("compiled")
    return request.param


def assert_same(a: Posterior, b: Posterior, tolerance: float) -> None:
    assert row_error(a.mean, b.mean).amax() <= tolerance
    assert torch.equal(a.top_index, b.top_index)
    for name in ("entropy", "top_weight"):
        assert absolute_error(getattr(a, name), getattr(b, name)).amax() <= tolerance, name
    assert density_error(a.log_density, b.log_density).amax() <= 1


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("dim", DIMS)
@pytest.mark.parametrize("power", [-30, -22, -12, 12, 19, 30])
def test_any_unit(power: int, dim: int, dtype: torch.dtype, normal: Normal) -> None:
    data, noise, unit = normal(100, dim), normal(4, dim), 10.0**power
    for sigma in (0.05, 1.0, 20.0):
        x = data[:4] + sigma * noise
        plain = OptimalDenoiser(data.to(dtype)).posterior(x.to(dtype), sigma)
        post = OptimalDenoiser((unit * data).to(dtype)).posterior((unit * x).to(dtype), unit * sigma)
        # The numbers are rounded otherwise before they are given: by u|x|, which is u|x|²/σ² nats.
        rounding = 50 * torch.finfo(dtype).eps * float(x.square().sum(1).amax()) * max(1.0, sigma**-2)
        assert row_error(post.mean / unit, plain.mean).amax() <= rounding
        assert absolute_error(post.entropy, plain.entropy).amax() <= rounding
        assert absolute_error(post.variance / unit**2, plain.variance).amax() <= rounding * dim
        assert torch.equal(post.top_index, plain.top_index)


@pytest.mark.parametrize("offset", [1e2, 1e4, 1e6])
@pytest.mark.parametrize("dim", DIMS)
def test_offset_of_many_deviations(dim: int, offset: float, normal: Normal) -> None:
    """Data in float64, x in float32."""
    data = normal(200, dim) + offset
    D = OptimalDenoiser(data)
    for sigma in (0.05, 0.5, 5.0):
        x = (data[:6] + sigma * normal(6, dim)).float()
        reference, post = reference_posterior(data, x, sigma), D.posterior(x, sigma)
        assert log_weight_error(D.weights(x, sigma), reference.log_weights).amax() <= 1e-3
        assert absolute_error(post.entropy, reference.entropy).amax() <= 1e-4
        assert torch.equal(post.top_index, reference.log_weights.argmax(1))
    assert log_weight_error(D.weights(x, 5.0).flip(0), reference.log_weights).amax() > 1e-2


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("dim", [1, 2, 5, 20, 64, 768, 3072])
def test_near_copies(dim: int, dtype: torch.dtype, normal: Normal) -> None:
    """Two points one rounding of float32 apart, x on either and between them, σ down to 1e-6 deviations."""
    far, point = normal(50, dim).float(), normal(1, dim).abs().float() + 0.5
    near = torch.nextafter(point, torch.full_like(point, torch.inf))
    data = torch.cat([far, point, near, point])
    D = OptimalDenoiser(data)
    for deviations in (1e-6, 1e-5, 1e-3, 0.1):
        sigma = deviations * D.standard_deviation
        a, b = point.double(), near.double()
        x = torch.cat([a, b, (3 * a + b) / 4, (a + b) / 2, a + sigma * normal(1, dim)]).to(dtype)
        reference, post, weights = reference_posterior(data, x, sigma), D.posterior(x, sigma), D.weights(x, sigma)
        assert log_weight_error(weights.double(), reference.log_weights).amax() <= 1e-6
        assert row_error(post.mean, reference.mean).amax() <= 1e-6
        assert absolute_error(post.entropy, reference.entropy).amax() <= 1e-6
        assert torch.equal(post.top_index, reference.log_weights.argmax(1))
        assert absolute_error(weights[:, 50], weights[:, 52]).amax() <= 1e-6
        leading = post.top_index == 50
        assert torch.equal(weights[leading, 50], weights[leading, 52])


@pytest.mark.parametrize("far", [1e3, 1e5, 1e7, 1e8])
@pytest.mark.parametrize("dtype", DTYPES)
def test_one_far_point(dtype: torch.dtype, far: float, compiled_method: str) -> None:
    """What the others get does not depend on how far it is."""
    for data, x, sigma in (([0.0, 0.05], 0.05, 0.01), ([0.0, 1.0], 0.3, 0.25), ([0.0, 1.0], 0.5, 0.25)):
        points, queries = torch.tensor(data, dtype=dtype)[:, None], torch.tensor([[x]], dtype=dtype)
        with_far = torch.cat([points, torch.tensor([[far]], dtype=dtype)])
        post = OptimalDenoiser(with_far, method=compiled_method).posterior(queries, sigma)
        reference = reference_posterior(with_far, queries, sigma)
        assert row_error(post.mean, reference.mean).amax() <= (1e-7 if far < 1e7 else 1e-5)
        assert post.top_index.item() == reference.log_weights.argmax()
        assert absolute_error(post.entropy, reference.entropy).amax() <= 1e-7


def test_one_far_point_of_many_values(normal: Normal) -> None:
    data = normal(1000, 700).float()
    data[7] *= 1e4
    x = torch.cat([data[:3], data[7:9]])
    for sigma in (0.5, 20.0, 500.0):
        reference, D = reference_posterior(data, x, sigma), OptimalDenoiser(data)
        assert row_error(D(x, sigma), reference.mean).amax() <= 1e-5
        assert log_weight_error(D.weights(x, sigma), reference.log_weights).amax() <= 1e-3
        assert torch.equal(D.posterior(x, sigma).top_index, reference.log_weights.argmax(1))


@pytest.mark.parametrize("far", [1e20, 1e23, 1e30, 1e37])
@pytest.mark.parametrize("dim", [1, 10, 20, 200])
@pytest.mark.parametrize("method", ["dense", "keops"])
def test_one_point_so_far_that_the_others_leave_the_range_of_float32(
    method: str, dim: int, far: float, request: pytest.FixtureRequest, normal: Normal
) -> None:
    """The unit is that of the far one. What the others get is what they get without it."""
    if method == "keops":
        if dim > 1:
            pytest.skip("compiled for other tests at D = 1 only")
        request.getfixturevalue("compiled")
    data = normal(300, dim).float()
    data[0] = 0.0
    data[0, 0] = far
    x = data[1:5] + 0.1 * normal(4, dim).float()
    D, plain = OptimalDenoiser(data, method=method), OptimalDenoiser(data[1:])
    right = reference_posterior(data[1:], x, 1.0)
    post, leader = D.posterior(x, 1.0), right.log_weights.argmax(1) + 1
    assert row_error(post.mean, right.mean).amax() <= 1e-5
    assert absolute_error(post.entropy, right.entropy).amax() <= 1e-4
    assert log_weight_error(D.weights(x, 1.0)[:, 1:], right.log_weights).amax() <= 1e-3
    assert torch.equal(post.top_index, leader)
    assert torch.equal(D.nearest(x), leader)
    assert torch.equal(certify(D, x, 0.01).index, leader)
    for found, expected in zip(D.two_nearest(x), plain.two_nearest(x), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)
    direction = normal(4, dim).float()
    product, expected = (E.covariance_product(x, 1.0, direction) for E in (D, plain))
    assert absolute_error(product, expected).amax() <= 1e-4


def test_a_query_so_far_that_its_products_leave_the_range_of_float32(normal: Normal) -> None:
    data, x = 1e-30 * normal(300, 20), 1e38 * normal(3, 20)
    D = OptimalDenoiser(data.float())
    post, precise = D.posterior(x.float(), 1e38), D.posterior(x.float().double(), 1e38)
    assert torch.equal(post.top_index, precise.top_index)
    assert row_error(post.mean, precise.mean).amax() <= 1e-5
    assert absolute_error(post.entropy, precise.entropy).amax() <= 1e-4


@pytest.mark.parametrize("far", [1e20, 1e30])
@pytest.mark.parametrize("count", [100, 300])
def test_a_far_point_in_the_span(count: int, far: float, normal: Normal) -> None:
    """Coordinates of few points are float64; the leading axes are float32, and left to the exact denoiser."""
    data = normal(count, 500).float()
    data[0] = 0.0
    data[0, 0] = far
    D, x = OptimalDenoiser(data), 80 * normal(8, 500).float()
    ends = sample(D, x.double(), karras(4))
    assert torch.equal(sample_in_span(D, x, karras(4)).index, D.nearest(ends))


def test_points_that_cancel_in_the_mean(normal: Normal) -> None:
    """Two clusters a long way apart, x in the one at 0: a float32 sum over c − 1e4 would lose the mean."""
    data = normal(600, 100)
    data[250:] += 1e4
    data = data.float()
    x = (data[:3] + 2 * normal(3, 100)).float()
    assert row_error(OptimalDenoiser(data)(x, 20.0), reference_posterior(data, x, 20.0).mean).amax() <= 1e-5


@pytest.mark.slow
@pytest.mark.parametrize("dtype", DTYPES)
def test_heavy_tails(dtype: torch.dtype, compiled_method: str) -> None:
    data = torch.from_numpy(np.random.default_rng(0).standard_cauchy((5000, 1))).to(dtype)
    D = OptimalDenoiser(data, method=compiled_method)
    for sigma in (1e-3, 0.1, 3.0):
        post = D.posterior(data[::7], sigma)
        reference = reference_posterior(data, data[::7], sigma)
        leader = reference.log_weights.argmax(1)
        assert torch.equal(data[post.top_index], data[leader])
        assert absolute_error(post.top_weight, reference.log_weights.amax(1).exp()).amax() <= 1e-6
        assert row_error(post.mean, reference.mean).amax() <= 1e-5


@pytest.mark.parametrize("dtype", [*DTYPES, torch.uint8])
@pytest.mark.parametrize("method", ["dense", "screened"])
def test_a_lone_point_weighs_one(dtype: torch.dtype, method: str, normal: Normal) -> None:
    """Where all others trail by 25 nats, nothing of what a product rounds is left in the leader's weight."""
    data = (40 * normal(400, 3, 10, 10) + 128).clamp(0, 255).to(torch.uint8)
    if dtype != torch.uint8:
        if method == "screened":
            pytest.skip("of bytes only")
        data = (data / 127.5 - 1).to(dtype)
    D = OptimalDenoiser(data, method=method)
    y = D.take(torch.arange(130)).double()
    x = (y + 0.5 * normal(130, 3, 10, 10)).to(torch.float64 if dtype == torch.float64 else torch.float32)
    levels = torch.logspace(-2, 1, 130, dtype=torch.float64)
    post, points = D.posterior(x, levels), D.take(torch.arange(400)).double().flatten(1)
    log_weights = reference_posterior(points, x.flatten(1), levels).log_weights
    weight = log_weights.amax(1).exp()
    alone = log_weights.topk(2).values[:, 1] < -25
    assert alone.sum() > 50
    assert absolute_error(post.top_weight, weight)[alone].amax() <= (1e-8 if method == "screened" else 1e-12)
    assert absolute_error(post.top_weight, weight).amax() <= (1e-6 if method == "screened" else 1e-7)


@pytest.mark.parametrize("dim", DIMS)
def test_threads_batch_and_order_change_nothing(dim: int, normal: Normal) -> None:
    data = normal(400, dim).float()
    x = (data[:130] + 2 * normal(130, dim)).float()
    levels = torch.logspace(-2, 1.5, 130, dtype=torch.float64)
    D, order = OptimalDenoiser(data), torch.randperm(400, generator=torch.Generator().manual_seed(0))
    whole, threads = D.posterior(x, levels), torch.get_num_threads()
    shuffled = OptimalDenoiser(data[order]).posterior(x, levels)
    assert torch.equal(order[shuffled.top_index], whole.top_index)
    assert row_error(shuffled.mean, whole.mean).amax() <= 1e-5
    for size in (1, 64, 65):
        parts = [D.posterior(x[i : i + size], levels[i : i + size]) for i in range(0, 130, size)]
        joined = Posterior(
            **{name: torch.cat([getattr(part, name) for part in parts]) for name in vars(whole) if name != "method"},
            method=whole.method,
        )
        assert_same(joined, whole, 1e-5)
    try:
        for count in (1, 2):
            torch.set_num_threads(count)
            assert_same(D.posterior(x, levels), whole, 1e-5)
    finally:
        torch.set_num_threads(threads)


def test_the_first_among_equals_wherever_they_are(compiled_method: str, normal: Normal) -> None:
    """Copies lead in the order of the data, however many there are between them."""
    data = normal(3000, 2).float()
    copies = torch.cat([data, data.flip(0), data])
    D = OptimalDenoiser(copies, method=compiled_method, memory=2**22)
    for sigma in (1e-3, 0.3):
        assert torch.equal(D.posterior(data[:50], sigma).top_index, torch.arange(50))
    # All points within any error of each other: still the nearest leads.
    assert torch.equal(OptimalDenoiser(copies).posterior(data[:50], 1e9).top_index, torch.arange(50))
