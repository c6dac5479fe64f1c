"""Exactness: against float64 by direct differences, sigma from 0.002 to 80, D from 1 to 12,288.

Relative error of the mean <= 1e-5; log-weights within 20 nats of the best to 1e-3; log density to 1e-6 relative or
1e-3; entropy to 1e-4. Plain float32 fails these by far, which is tested too.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
import torch
from problems import (
    Reference,
    absolute_error,
    density_error,
    log_weight_error,
    reference_posterior,
    row_error,
)
from torch import Tensor

from optimal import OptimalDenoiser, load
from optimal.datasets import to_float

Normal = Callable[..., Tensor]
SIGMAS = (0.002, 0.01, 0.1, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 80.0)
CASES = [(2, "dense"), (64, "dense"), (784, "dense"), (2, "keops"), (64, "keops")]


def check(D: OptimalDenoiser, data: Tensor, x: Tensor, sigma: float | Tensor) -> Reference:
    """Hold D to the reference on x; the reference, for more."""
    reference, post = reference_posterior(data, x, sigma), D.posterior(x, sigma)
    floor = 1e-6 * float(data.double().var(0, correction=0).sum()) + 1e-12
    errors = {
        "mean": row_error(post.mean, reference.mean) / 1e-5,
        "log weights": log_weight_error(D.weights(x, sigma), reference.log_weights) / 1e-3,
        "log density": density_error(post.log_density, reference.log_density),
        "entropy": absolute_error(post.entropy, reference.entropy) / 1e-4,
        "top weight": absolute_error(post.top_weight, reference.log_weights.amax(1).exp()) / 1e-3,
        # A millionth of the data's own variance is what float32 sums leave.
        "variance": absolute_error(post.variance, reference.variance) / (1e-3 * reference.variance + floor),
    }
    for name, error in errors.items():
        worst = int(error.argmax())
        level = torch.as_tensor(sigma).expand(len(x))[worst]
        assert error[worst] <= 1, f"{name} is {error[worst]:.3g} times its tolerance off at sigma = {level:g}"
    return reference


def noisy(data: Tensor, normal: Normal, per_level: int = 4, sigmas: Sequence[float] = SIGMAS) -> tuple[Tensor, Tensor]:
    """x = x0 + σ ε in float32, `per_level` of them at every sigma, and the sigmas, (B,)."""
    levels = torch.tensor(sigmas, dtype=torch.float64).repeat_interleave(per_level)
    picks = torch.arange(len(levels)) * 7919 % len(data)
    x0 = data[picks].double()
    eps = normal(*x0.shape)
    return (x0 + levels.view(-1, *(1 for _ in x0.shape[1:])) * eps).float(), levels


def as_float(images: Tensor) -> Tensor:
    return images.float() / 127.5 - 1


def emoji(count: int) -> Tensor:
    return torch.from_numpy(load("emoji", n=count).array.copy())


@pytest.mark.parametrize("error", [row_error, absolute_error, density_error])
def test_errors_see_a_permutation(error: Callable[[Tensor, Tensor], Tensor], normal: Normal) -> None:
    a = normal(6, 4) if error is row_error else normal(6)
    assert error(a, a).amax() == 0
    assert error(a.flip(0), a).amax() > 0.1
    # Signed differences would cancel.
    assert error(a.roll(1, 0), a).amin() > 0


def test_log_weight_error_sees_a_permutation(normal: Normal) -> None:
    log_weights = (10 * normal(6, 30)).log_softmax(1)
    assert log_weight_error(log_weights.exp(), log_weights).amax() <= 1e-12
    assert log_weight_error(log_weights.exp().flip(0), log_weights).amin() > 1
    assert log_weight_error(log_weights.exp().flip(1), log_weights).amin() > 1
    far = torch.where(log_weights < log_weights.amax(1, keepdim=True) - 20, 0.0, log_weights.exp())
    assert log_weight_error(far, log_weights).amax() <= 1e-12


@pytest.mark.parametrize("dim", [1, 2, 64])
def test_points(dim: int, method: str, normal: Normal) -> None:
    data = normal(500, dim).float()
    check(OptimalDenoiser(data, method=method), data, *noisy(data, normal))


@pytest.mark.parametrize("dim", [192, 784, 3072])
def test_points_in_float32_products(dim: int, normal: Normal) -> None:
    data = normal(500, dim).float()
    D = OptimalDenoiser(data, method="dense")
    x, levels = noisy(data, normal)
    check(D, data, x, levels)
    # One sigma a call takes other paths through the blocks than a mixture.
    for sigma in SIGMAS:
        check(D, data, x[levels == sigma], sigma)


def test_digits(method: str, normal: Normal) -> None:
    data = torch.from_numpy(load("digits").array.copy())
    check(OptimalDenoiser(data, method=method), as_float(data), *noisy(as_float(data), normal))


@pytest.mark.slow
def test_images_of_12288_values(method: str, normal: Normal) -> None:
    images = emoji(600)
    # A near-duplicate and a repeat among them, each with a query of its own.
    images[1], images[2] = images[0], images[3]
    images[1, 0, 30, 30] ^= 1
    data = as_float(images)
    x, levels = noisy(data, normal, 3, SIGMAS if method == "dense" else SIGMAS[::3])
    x[0], x[1] = data[1], data[3]
    check(OptimalDenoiser(images, method=method), data, x, levels)


@pytest.mark.slow
@pytest.mark.parametrize("sigma", [2.5, 3.5, 5.0])
def test_overlapping_windows(sigma: float, normal: Normal) -> None:
    """Hundreds of near neighbours share the posterior here, and their float32 errors go together: the hardest case."""
    images = torch.from_numpy(load("patches", n=4000).array.copy())
    data = as_float(images)
    x = data[::250] + sigma * normal(*data[::250].shape).float()
    D = OptimalDenoiser(images)
    post, reference = D.posterior(x, sigma), reference_posterior(data, x, sigma)
    assert row_error(post.mean, reference.mean).max() <= 1e-5
    assert log_weight_error(D.weights(x, sigma), reference.log_weights).max() <= 1e-3
    assert absolute_error(post.entropy, reference.entropy).max() <= 1e-4
    assert absolute_error(post.variance, reference.variance).max() <= 3e-4 * sigma**2


def test_near_duplicates_are_told_apart(method: str, normal: Normal) -> None:
    """One grey level in one pixel is (2/255)²/2σ² = 7.7 nats at σ = 0.002."""
    images = emoji(40)
    images[7] = images[30]
    images[7, 1, 20, 20] ^= 1
    data = as_float(images)
    D = OptimalDenoiser(images, method=method)
    weights = D.weights(data[[7, 30]], 0.002).double().log()
    assert abs(float(weights[0, 7] - weights[0, 30]) - 7.69) <= 0.01
    assert abs(float(weights[1, 30] - weights[1, 7]) - 7.69) <= 0.01
    x = (data[[7, 30, 7, 30]] + 0.002 * normal(4, 3, 64, 64)).float()
    check(D, data, x, 0.002)
    middle = ((data[7].double() + data[30].double()) / 2)[None]
    post = D.posterior(middle, 0.002)
    assert absolute_error(post.effective_count, torch.tensor([2.0])).amax() <= 1e-6
    assert post.top_index.item() == 7


@pytest.mark.parametrize("sigma", [0.002, 0.01])
def test_plain_float32_would_fail(sigma: float, normal: Normal) -> None:
    """The tests above have teeth: the float32 expansion ‖x‖² − 2x·y + ‖y‖² is off by nats where D is right to 1e-3."""
    images = emoji(40)
    images[7] = images[30]
    images[7, 1, 20, 20] ^= 1
    data = as_float(images)
    x = (data[[7, 30, 5]] + sigma * normal(3, 3, 64, 64)).float()
    reference = reference_posterior(data, x, sigma)
    flat, points = x.flatten(1), data.flatten(1)
    squares = flat.square().sum(1, keepdim=True) - 2 * flat @ points.T + points.square().sum(1)
    naive = (-squares / (2 * sigma**2)).softmax(1)
    assert log_weight_error(naive, reference.log_weights)[:2].amax() > 0.1
    check(OptimalDenoiser(images, method="dense"), data, x, sigma)


@pytest.mark.parametrize("dim", [1, 64, 192])
def test_repeated_points(dim: int, normal: Normal) -> None:
    data = normal(100, dim).float().repeat(3, 1)
    check(OptimalDenoiser(data), data, *noisy(data, normal))


@pytest.mark.parametrize(("dim", "method"), CASES, indirect=["method"])
@pytest.mark.parametrize("distance", [10.0, 1000.0])
def test_far_outside_the_data(dim: int, distance: float, method: str, normal: Normal) -> None:
    data = normal(200, dim).float()
    levels = torch.tensor((0.5, 2.0, 10.0, 80.0), dtype=torch.float64)
    x = normal(4, dim)
    x = (distance * data.norm(dim=1).amax() * x / x.norm(dim=1, keepdim=True)).float()
    check(OptimalDenoiser(data, method=method), data, x, levels)


@pytest.mark.parametrize("dim", [2, 64, 784])
def test_common_offset(dim: int, normal: Normal) -> None:
    data = (normal(200, dim) + 100).float()
    D = OptimalDenoiser(data)
    x, levels = noisy(data, normal)
    reference = check(D, data, x, levels)
    # Against the spread of the data, not against the offset.
    assert (D(x.double(), levels) - reference.mean).norm(dim=1).amax() <= 1e-5 * data.std() * dim**0.5


def test_uint8_and_float32_of_the_same_images(normal: Normal) -> None:
    images = torch.randint(0, 256, (60, 3, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    x, levels = noisy(to_float(images), normal)
    a, b = (OptimalDenoiser(data, method="dense").posterior(x, levels) for data in (images, to_float(images)))
    for name in ("mean", "log_density", "entropy", "top_index", "top_weight", "variance"):
        torch.testing.assert_close(getattr(a, name), getattr(b, name), rtol=1e-6, atol=1e-9)
    check(OptimalDenoiser(images), as_float(images), x, levels)


def test_sum_of_a_hundred_thousand_terms(method: str, normal: Normal) -> None:
    data = normal(100_000, 2).float()
    check(OptimalDenoiser(data, method=method, memory=2**28), data, *noisy(data, normal, 1))


@pytest.mark.parametrize("batch", [1, 300])
@pytest.mark.parametrize("dim", [2, 784])
def test_one_query_and_many(batch: int, dim: int, normal: Normal) -> None:
    data = normal(100, dim).float()
    x, levels = noisy(data, normal, 30)
    check(OptimalDenoiser(data), data, x[-batch:], levels[-batch:])


@pytest.mark.parametrize(("dim", "method"), CASES, indirect=["method"])
def test_a_small_budget_changes_nothing(dim: int, method: str, normal: Normal) -> None:
    data = normal(150, dim).float()
    x, levels = noisy(data, normal, 2)
    large = OptimalDenoiser(data, method=method)
    small = OptimalDenoiser(data, method=method, memory=600 * dim)
    a, b = large.posterior(x, levels), small.posterior(x, levels)
    assert row_error(b.mean, a.mean).amax() <= 1e-5
    assert absolute_error(b.log_density, a.log_density).amax() <= 1e-3
    assert absolute_error(b.entropy, a.entropy).amax() <= 1e-4
    assert torch.equal(a.top_index, b.top_index)
    v = normal(*x.shape).float()
    left, right = (D.covariance_product(x, levels, v) for D in (small, large))
    assert (left - right).norm(dim=1).amax() <= 1e-4 * right.norm(dim=1).amax()


@pytest.mark.parametrize(("size", "dim"), [(20_000, 17), (2, 32)])
@pytest.mark.parametrize("level", [1.0, 80.0, 1000.0])
def test_the_mean_of_points_that_cancel_whatever_the_batch(size: int, dim: int, level: float) -> None:
    """About 0 the mean is small, and the sum that makes it is not; with few rows it is added up term by term."""
    data = torch.randn(size, dim, generator=torch.Generator().manual_seed(0))
    data = torch.cat([data[:1], -data[:1]]) if size == 2 else (data.double() - data.double().mean(0)).float()
    x = level * torch.randn(32, dim, generator=torch.Generator().manual_seed(1))
    D = OptimalDenoiser(data, method="dense")
    exact = D(x.double(), level)
    for batch in (1, 3, 32):
        mean = torch.cat([D(part, level) for part in x.split(batch)]).double()
        assert ((mean - exact).norm(dim=1) <= 1e-5 * exact.norm(dim=1)).all(), batch
