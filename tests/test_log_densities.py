"""log p along the way up, against densities that are known."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from neural import derivatives, open_model
from optimal import OptimalDenoiser, log_linear
from optimal.reference import Gaussian
from optimal.samplers import log_densities

Normal = Callable[..., Tensor]


def grid(n: int) -> Tensor:
    return log_linear(n, sigma_min=0.3, sigma_max=20.0)


def two_points() -> OptimalDenoiser:
    return OptimalDenoiser(torch.tensor([[-1.0, 0.3], [1.0, -0.2]], dtype=torch.float64))


@pytest.mark.parametrize("kind", ["two points", "optimum"])
def test_the_optimum_at_every_level_to_the_order(normal: Normal, kind: str) -> None:
    D = two_points() if kind == "two points" else OptimalDenoiser(normal(40, 2))
    x, errors = normal(6, 2), []
    for n in (50, 100, 200):
        found = log_densities(D, x, grid(n))
        assert found.sigmas.tolist() == grid(n)[:-1].flip(0).tolist()
        exact = [D.posterior(z, float(sigma)).log_density for z, sigma in zip(found.x, found.sigmas, strict=True)]
        errors.append(float((found.nats - torch.stack(exact)).abs().max()))
    assert errors[-1] < 0.01
    assert abs(math.log2(errors[1] / errors[2]) - 2) < 0.3, errors


def test_a_gaussian_by_derivatives_and_by_probes(normal: Normal) -> None:
    spread, mean = torch.tensor([0.3, 1.0, 2.0], dtype=torch.float64), normal(3)
    F = Gaussian(mean, spread.square())

    def known(z: Tensor, sigma: float) -> Tensor:
        return torch.distributions.Normal(mean, (spread.square() + sigma**2).sqrt()).log_prob(z).sum(1)

    x = mean + normal(5, 3)
    found = log_densities(F, x, grid(200), prior=known)
    exact = torch.stack([known(z, float(sigma)) for z, sigma in zip(found.x, found.sigmas, strict=True)])
    assert (found.nats - exact).abs().max() < 2e-3
    # Of diagonal Jacobians random signs are without error.
    drawn = log_densities(F, x, grid(200), prior=known, probes=1, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(drawn.nats, found.nats)
    usual = log_densities(F, x, grid(200))
    assert 1e-4 < (usual.nats - found.nats).abs().max() < 1


def test_a_network_within_derivatives(normal: Normal) -> None:
    """The optimum's formula as a network: as the optimum itself."""
    D, x = two_points(), normal(4, 2)
    F, own = open_model(lambda z, sigma: D(z, sigma)), log_densities(D, x, grid(50))

    def prior(z: Tensor, sigma: float) -> Tensor:
        return D.posterior(z, sigma).log_density

    with derivatives():
        found = log_densities(F, x, grid(50), prior=prior)
    torch.testing.assert_close(found.nats, own.nats, rtol=0, atol=1e-5)
    with pytest.raises(ValueError, match="D must have gradients to x, the answer of Model has none"):
        log_densities(F, x, grid(50))


def test_what_cannot_be_asked(normal: Normal) -> None:
    x = normal(2, 2)
    with pytest.raises(ValueError, match='probes must be at least 1, or "exact", got 0'):
        log_densities(lambda z, sigma: z, x, grid(5), probes=0)
    with pytest.raises(ValueError, match=r"probes are drawn: give generator=torch\.Generator\(\)"):
        log_densities(lambda z, sigma: z, x, grid(5), probes=2)
    with pytest.raises(ValueError, match="takes no process"):
        log_densities(two_points(), x, grid(5), process=None)
