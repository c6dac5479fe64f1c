"""The density of a network by its ODE, against densities that are known."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from neural import from_prediction
from neural.likelihood import log_density
from neural.model import open_model
from optimal import OptimalDenoiser, load
from optimal.process import VP

Normal = Callable[..., Tensor]


class Gaussian:
    """The optimum of N(μ, C), C = Q diag(λ) Qᵀ, and its density under noise."""

    def __init__(self, normal: Normal):
        self.spread = torch.tensor([0.01, 1.0, 4.0], dtype=torch.float64)
        self.mean = normal(3)
        self.turn = torch.linalg.qr(normal(3, 3))[0]

    def __call__(self, x: Tensor, sigma: float | Tensor) -> Tensor:
        share = self.spread / (self.spread + torch.as_tensor(sigma, dtype=torch.float64) ** 2)
        return (self.mean + ((x.double() - self.mean) @ self.turn * share) @ self.turn.T).to(x.dtype)

    def log_density(self, x: Tensor, sigma: float) -> Tensor:
        covariance = self.turn @ torch.diag(self.spread + sigma**2) @ self.turn.T
        return torch.distributions.MultivariateNormal(self.mean, covariance).log_prob(x.double())


@pytest.mark.parametrize("sigma", [0.002, 1.0])
def test_a_gaussian(normal: Normal, sigma: float) -> None:
    F = Gaussian(normal)
    x = F.mean + 1.5 * (normal(5, 3) * (F.spread + sigma**2).sqrt()) @ F.turn.T
    known = F.log_density(x, sigma)
    found = log_density(F, x, sigma_min=sigma, probes="exact", prior=F.log_density)
    assert (found.nats - known).abs().max() < 1e-4
    # Of the usual prior, N(0, 80²), nothing else is lost.
    usual = log_density(F, x, sigma_min=sigma, probes="exact")
    assert 1e-4 < (usual.nats - known).abs().max() < 4 * F.mean.norm() / 80 + 9 * 4 / 80**2
    single = log_density(F, x.float(), sigma_min=sigma, probes="exact", prior=F.log_density)
    assert (single.nats - known).abs().max() < 2e-3


def test_probes_have_the_error_that_they_say(normal: Normal) -> None:
    F = Gaussian(normal)
    x = F.mean + normal(40, 3)
    found = log_density(F, x, sigma_min=0.1, probes=32, prior=F.log_density)
    scores = (found.nats - F.log_density(x, 0.1)) / found.error
    assert 0.5 < scores.square().mean().sqrt() < 1.6
    assert found.trace == "probes"
    assert torch.equal(found.nats, log_density(F, x, sigma_min=0.1, probes=32, prior=F.log_density).nats)
    other = log_density(F, x, sigma_min=0.1, probes=32, prior=F.log_density, seed=1)
    assert not torch.equal(found.nats, other.nats)


def test_without_derivatives_by_differences(normal: Normal) -> None:
    F = Gaussian(normal)
    x = F.mean + normal(5, 3)
    found = log_density(lambda z, s: F(z.detach(), s), x, sigma_min=0.1, probes="exact", prior=F.log_density)
    assert found.trace == "differences"
    assert (found.nats - F.log_density(x, 0.1)).abs().max() < 1e-4
    derived = log_density(F, x, sigma_min=0.1, probes=2, seed=3)
    differed = log_density(lambda z, s: F(z.detach(), s), x, sigma_min=0.1, probes=2, seed=3)
    torch.testing.assert_close(derived.nats, differed.nats, rtol=0, atol=1e-4)


@pytest.mark.parametrize("sigma", [0.1, 0.5, 2.0])
def test_the_optimum_as_a_network(normal: Normal, sigma: float) -> None:
    """Its own exact density, from the ODE; and under the usual prior the differences of it."""
    D = OptimalDenoiser(load("five-deltas"))
    x = D.take(torch.arange(5)).double() + sigma * normal(5, 1)
    own = log_density(D, x, D, sigma_min=sigma, probes="exact", prior=lambda z, s: D.posterior(z, s).log_density)
    assert (own.nats - own.exact).abs().max() < 1e-4
    usual = log_density(D, x, D, sigma_min=sigma, probes="exact")
    assert (usual.nats - usual.exact).abs().max() < 0.02
    assert ((usual.nats - usual.nats[0]) - (own.exact - own.exact[0])).abs().max() < 0.02


@pytest.mark.slow
def test_the_optimum_of_images(normal: Normal) -> None:
    D = OptimalDenoiser(normal(30, 1, 4, 4))
    x = D.take(torch.tensor([3, 17])).double() + 0.7 * normal(2, *D.event)
    own = log_density(D, x, D, sigma_min=0.7, probes="exact", prior=lambda z, s: D.posterior(z, s).log_density)
    assert (own.nats - own.exact).abs().max() < 1e-3


def test_adapters_and_models_give_derivatives() -> None:
    """Of N(0, 1): noise predicted as x_t σ/√(1 + σ²), asked through an adapter and a model; nobody else is told."""
    net = torch.nn.Linear(3, 3, bias=False).double()
    torch.nn.init.eye_(net.weight)
    process = VP()
    F = from_prediction(lambda x_t, t: net(x_t) * process.std(t)[:, None], "eps", process=process)
    model = open_model(F)
    x = torch.linspace(-2, 2, 12, dtype=torch.float64).reshape(4, 3)
    known = torch.distributions.Normal(0.0, math.sqrt(1.01)).log_prob(x).sum(1)
    found = log_density(model, x, sigma_min=0.1, probes="exact")
    assert found.trace == "exact"
    assert (found.nats - known).abs().max() < 1e-2
    assert not model(x, 1.0).requires_grad


def test_bits_are_those_of_the_bins(normal: Normal) -> None:
    """Uniform grey levels, 256 of them, cost 8 bits each."""
    F = Gaussian(normal)
    found = log_density(F, normal(2, 3), sigma_min=1.0, step=2 / 255)
    nats = torch.full((2,), 3 * -math.log(2 * 256 / 255), dtype=torch.float64)
    torch.testing.assert_close(type(found)(**{**vars(found), "nats": nats}).bits, torch.full((2,), 8.0).double())
    assert found.exact.isnan().all()


def test_bad_input() -> None:
    D = OptimalDenoiser(load("five-deltas"))
    x = torch.zeros(2, 1)
    with pytest.raises(ValueError, match='probes must be at least 1, or "exact", got 0'):
        log_density(D, x, probes=0)
    with pytest.raises(ValueError, match="sigma_max must be finite and above sigma_min"):
        log_density(D, x, sigma_min=2.0, sigma_max=1.0)
    with pytest.raises(ValueError, match="x must be finite, row 0 is not"):
        log_density(D, x / 0)
    with pytest.raises(ValueError, match="F is not finite, or jumps"):
        log_density(lambda z, s: z * torch.nan, x)
    assert log_density(D, x[:0]).nats.shape == (0,)
