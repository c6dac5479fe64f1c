"""What a posterior says beside its mean: in float64 whatever x is, and which method answered."""

from __future__ import annotations

import pytest
import torch

from optimal import OptimalDenoiser, ShardedDenoiser, load

DIAGNOSTICS = ("log_density", "entropy", "effective_count", "top_weight", "variance", "error_bound", "error_estimate")


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_diagnostics_are_float64(dtype: torch.dtype) -> None:
    D = OptimalDenoiser(load("digits"))
    x = D.take(torch.arange(3)).to(dtype)
    post, wide = D.posterior(x, 1.5), D.posterior(x.double(), 1.5)
    assert post.mean.dtype == dtype
    for name in DIAGNOSTICS:
        value = getattr(post, name)
        assert value.dtype == torch.float64, name
        torch.testing.assert_close(value, getattr(wide, name), rtol=1e-4, atol=1e-4, equal_nan=True)


@pytest.mark.filterwarnings("ignore:the values of the data .* as grey levels do")
def test_half_precision_overflows_nothing() -> None:
    """What float16 cannot hold: a density of -7e4 nats, a variance of 2.7e6, a count of 70,000 and a bound of 1e-5."""
    whole = torch.floor(256 * torch.rand(50, 784, generator=seeded()))
    D = OptimalDenoiser(whole)
    post = D.posterior(D.take(torch.arange(2)).half(), 1000.0)
    right = D.posterior(D.take(torch.arange(2)).double(), 1000.0)
    assert (post.variance / right.variance - 1).abs().max() <= 1e-3
    assert right.variance.min() > 1e6
    wide = OptimalDenoiser(torch.randn(20, 12_288, generator=seeded(1)))
    noisy = torch.randn(2, 12_288, generator=seeded(2)) * 80
    density = wide.posterior(noisy.half(), 80.0).log_density
    assert (density / wide.posterior(noisy.double(), 80.0).log_density - 1).abs().max() <= 1e-3
    assert density.max() < -6.6e4
    many = OptimalDenoiser(torch.randn(70_000, 1, generator=seeded(3)))
    assert many.posterior(torch.zeros(1, 1).half(), 1000.0).effective_count > 69_999
    images = (torch.rand(300, 3, 16, 16, generator=seeded(4)) * 255).to(torch.uint8)
    screened = OptimalDenoiser(images, method="screened").posterior(torch.zeros(2, 3, 16, 16).half(), 8.0)
    assert (screened.error_bound > 0).all()
    assert screened.method == "screened"


def test_method() -> None:
    data, x = torch.randn(20, 3, generator=seeded()), torch.zeros(2, 3)
    images = (torch.rand(20, 3, 4, 4, generator=seeded()) * 255).to(torch.uint8)
    assert OptimalDenoiser(data).posterior(x, 1.0).method == "dense"
    # Numbers that are no bytes, and queries in float64, are left to dense.
    assert OptimalDenoiser(data, method="screened").posterior(x, 1.0).method == "dense"
    screened = OptimalDenoiser(images, method="screened")
    assert screened.posterior(torch.zeros(2, 3, 4, 4), 1.0).method == "screened"
    assert screened.posterior(torch.zeros(2, 3, 4, 4).double(), 1.0).method == "dense"
    assert screened.posterior(torch.zeros(0, 3, 4, 4), 1.0).method == "dense"
    assert ShardedDenoiser(data).posterior(x, 1.0).method == "sharded dense"
    assert torch.vmap(lambda x: OptimalDenoiser(data).posterior(x[None], 1.0).mean)(x).shape == (2, 1, 3)


def test_method_of_keops(compiled: None) -> None:
    assert OptimalDenoiser(torch.eye(2), method="keops").posterior(torch.zeros(1, 2), 1.0).method == "keops"
