"""Derivatives: Tweedie's formula, the Jacobian as a covariance, and every gradient against finite differences."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from problems import absolute_error, row_error
from torch import Tensor
from torch.autograd.gradcheck import GradcheckError

from optimal import OptimalDenoiser

Normal = Callable[..., Tensor]
QUANTITIES = ("mean", "log_density", "entropy", "top_weight", "variance")


@pytest.mark.parametrize("sigma", [0.1, 0.5, 2.0, 20.0])
def test_score_is_the_gradient_of_log_density(method: str, sigma: float, normal: Normal) -> None:
    D = OptimalDenoiser(normal(15, 2), method=method)
    x = normal(6, 2).requires_grad_()
    (gradient,) = torch.autograd.grad(D.posterior(x, sigma).log_density.sum(), x)
    score = D.score(x, sigma)
    assert row_error(score, gradient).amax() <= 1e-12
    assert row_error(score, (D(x, sigma) - x) / sigma**2).amax() <= 1e-12
    assert row_error(score.flip(0), gradient).amax() > 1e-2


@pytest.mark.parametrize("sigma", [0.3, 1.0, 5.0])
def test_jacobian_is_the_covariance(method: str, sigma: float, normal: Normal) -> None:
    data, x = normal(15, 64), 0.5 * normal(64)
    D = OptimalDenoiser(data, method=method)
    jacobian = torch.autograd.functional.jacobian(lambda x: D(x[None], sigma)[0], x)
    weights = D.weights(x[None], sigma)[0]
    centred = data - D(x[None], sigma)
    covariance = centred.T @ (weights[:, None] * centred)
    product = D.covariance_product(x.expand(64, 64), sigma, torch.eye(64, dtype=torch.float64))
    size = covariance.abs().amax()
    assert absolute_error(product, covariance).amax() <= 1e-12 * size + 1e-14
    assert absolute_error(jacobian, product / sigma**2).amax() <= 1e-12 * jacobian.abs().amax() + 1e-14
    assert absolute_error(product, product.T).amax() <= 1e-12 * size + 1e-14
    assert torch.linalg.eigvalsh((product + product.T) / 2).amin() >= -1e-12 * size
    variance = D.posterior(x[None], sigma).variance
    assert absolute_error(product.trace(), variance).amax() <= 1e-11 * float(size) + 1e-12


@pytest.mark.parametrize("quantity", QUANTITIES)
@pytest.mark.parametrize("sigma", [0.3, 1.0, 4.0])
def test_gradient_of_every_quantity(method: str, quantity: str, sigma: float, normal: Normal) -> None:
    D = OptimalDenoiser(normal(9, 2), method=method)
    x = normal(4, 2).requires_grad_()
    levels = sigma * torch.tensor([0.8, 1.0, 1.1, 1.2], dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda x: getattr(D.posterior(x, levels), quantity), x, atol=1e-7)


def test_gradient_of_score_and_of_all_at_once(method: str, normal: Normal) -> None:
    D = OptimalDenoiser(normal(9, 2), method=method, memory=5_000)
    x = normal(4, 2).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: D.score(x, 0.7), x, atol=1e-7)

    def everything(x: Tensor) -> Tensor:
        post = D.posterior(x, 0.7)
        return (
            post.mean.sum(1) * post.entropy + post.top_weight * post.variance + post.log_density + post.effective_count
        )

    assert torch.autograd.gradcheck(everything, x, atol=1e-7)


def test_gradcheck_would_notice(normal: Normal) -> None:
    D = OptimalDenoiser(normal(9, 2))
    x = normal(4, 2).requires_grad_()

    def wrong(x: Tensor) -> Tensor:
        return D.posterior(x, 0.7).entropy + 1e-3 * (x - x.detach()).sum(1) - 1e-3 * x.detach().sum(1)

    with pytest.raises(GradcheckError):
        torch.autograd.gradcheck(wrong, x, atol=1e-7)


@pytest.mark.parametrize("sigma", [0.5, 4.0, 30.0])
def test_gradients_in_float32_agree_with_float64(sigma: float, normal: Normal) -> None:
    data = normal(50, 192).float()
    D = OptimalDenoiser(data, method="dense")
    x = (data[:6] + sigma * normal(6, 192)).float()
    pick = normal(6, 192)
    for quantity in QUANTITIES:

        def gradient(x: Tensor, quantity: str = quantity) -> Tensor:
            value = getattr(D.posterior(x.requires_grad_(), sigma), quantity)
            (out,) = torch.autograd.grad((value * pick.to(value) if value.ndim == 2 else value).sum(), x)
            return out

        single, double = gradient(x.clone()), gradient(x.double())
        assert single.dtype == torch.float32
        # A gradient that is 0 to all digits has no relative error.
        size = double.norm(dim=1).clamp_min(1e-6 / sigma**2)
        assert ((single.double() - double).norm(dim=1) / size).amax() <= 1e-3, quantity


def test_index_and_weights_carry_no_gradient(normal: Normal) -> None:
    D = OptimalDenoiser(normal(9, 2))
    x = normal(4, 2).requires_grad_()
    assert not D.posterior(x, 1.0).top_index.requires_grad
    assert not D.weights(x, 1.0).requires_grad
