"""Derivatives in every way that torch has: torch.func, forward mode, and to σ; all against finite differences."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.utils.checkpoint import checkpoint

from optimal import OptimalDenoiser, ShardedDenoiser

Normal = Callable[..., Tensor]
QUANTITIES = ("mean", "log_density", "entropy", "top_weight", "variance")
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.script`:DeprecationWarning")  # torch.func.jvp's own.


@pytest.fixture
def case(normal: Normal) -> tuple[OptimalDenoiser, Tensor, Tensor]:
    return OptimalDenoiser(normal(9, 2, 3), memory=5_000), normal(4, 2, 3), normal(4, 2, 3)


def close(a: Tensor, b: Tensor, tolerance: float = 1e-12) -> None:
    assert a.shape == b.shape
    assert (a - b).abs().amax() <= tolerance * (1 + float(b.abs().amax()))


def test_jvp_is_the_covariance_product(case: Any) -> None:
    D, x, v = case
    value, tangent = torch.func.jvp(lambda x: D(x, 0.7), (x,), (v,))
    expected = D.covariance_product(x, 0.7, v) / 0.49
    close(value, D(x, 0.7))
    close(tangent, expected)
    _, pull = torch.func.vjp(lambda x: D(x, 0.7), x)
    close(pull(v)[0], expected)
    assert expected.abs().amax() > 0.1
    with forward_ad.dual_level():
        dual = D(forward_ad.make_dual(x, v), 0.7)
        close(forward_ad.unpack_dual(dual).tangent, expected)


def test_vmap_is_the_batch(case: Any) -> None:
    D, x, _ = case
    levels = torch.tensor([0.3, 0.7, 1.0, 2.0], dtype=torch.float64)
    batch = D.posterior(x, levels)
    for name in (*QUANTITIES, "top_index", "error_estimate"):
        rows = torch.vmap(lambda x, sigma, name=name: getattr(D.posterior(x[None], sigma), name)[0])(x, levels)
        torch.testing.assert_close(rows, getattr(batch, name), rtol=1e-12, atol=1e-12, equal_nan=True)
    close(
        torch.vmap(lambda x: D.score(x[None], 0.7)[0], in_dims=2, out_dims=2)(x.movedim(0, 2)),
        D.score(x, 0.7).movedim(0, 2),
    )
    close(torch.vmap(lambda sigma: D(x, sigma))(levels)[1], D(x, 0.7))
    close(torch.vmap(torch.vmap(lambda x: D(x[None], 0.7)[0]))(x.unflatten(0, (2, 2))), D(x, 0.7).unflatten(0, (2, 2)))
    assert torch.vmap(lambda x: D(x[None], 0.7)[0])(x[:0]).shape == (0, 2, 3)
    assert torch.vmap(lambda sigma: D(x[:0], sigma))(levels).shape == (4, 0, 2, 3)


def test_jacobians(case: Any) -> None:
    D, x, _ = case
    expected = torch.autograd.functional.jacobian(lambda x: D(x, 0.7), x)
    close(torch.func.jacrev(lambda x: D(x, 0.7))(x), expected)
    close(torch.func.jacfwd(lambda x: D(x, 0.7))(x), expected)
    rows = torch.vmap(torch.func.jacrev(lambda x: D(x[None], 0.7)[0]))(x)
    for b in range(4):
        close(rows[b], expected[b, ..., b, :, :])
    close(torch.vmap(torch.func.jacfwd(lambda x: D(x[None], 0.7)[0]))(x), rows)


def test_every_gradient_by_vmap(case: Any) -> None:
    """grad under vmap: what the backward keeps is mapped, too (the leader, the weights, the level)."""
    D, x, _ = case
    levels = torch.tensor([0.3, 0.7, 1.0, 2.0], dtype=torch.float64)
    for name in QUANTITIES:

        def value(x: Tensor, sigma: Tensor, name: str = name) -> Tensor:
            return getattr(D.posterior(x[None], sigma), name).sum()

        by_x, by_sigma = torch.vmap(torch.func.grad(value, argnums=(0, 1)))(x, levels)
        leaf, level = x.clone().requires_grad_(), levels.clone().requires_grad_()
        expected = torch.autograd.grad(getattr(D.posterior(leaf, level), name).sum(), (leaf, level))
        close(by_x, expected[0])
        close(by_sigma, expected[1])


@pytest.mark.slow
@pytest.mark.parametrize("quantity", QUANTITIES)
@pytest.mark.parametrize("shape", [(), (4,), (4, 1, 1)], ids=["one", "each", "beside"])
def test_gradient_to_sigma(method: str, quantity: str, shape: tuple[int, ...], normal: Normal) -> None:
    """Backward and forward, x and σ together, against finite differences."""
    D = OptimalDenoiser(normal(9, 2), method=method)
    x = normal(4, 2).requires_grad_()
    sigma = (0.6 + 0.2 * torch.arange(math.prod(shape), dtype=torch.float64)).reshape(shape).requires_grad_()

    def value(x: Tensor, sigma: Tensor) -> Tensor:
        return getattr(D.posterior(x, sigma), quantity)

    assert torch.autograd.gradcheck(value, (x, sigma), atol=1e-7, check_forward_ad=True)


def test_gradient_to_sigma_of_score_and_of_all_at_once(normal: Normal) -> None:
    D = OptimalDenoiser(normal(9, 2), memory=5_000)
    x, sigma = normal(4, 2).requires_grad_(), torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(D.score, (x, sigma), atol=1e-6, check_forward_ad=True)

    def everything(x: Tensor, sigma: Tensor) -> Tensor:
        post = D.posterior(x, sigma)
        return post.mean.sum(1) * post.entropy + post.top_weight * post.variance + post.log_density * post.entropy

    assert torch.autograd.gradcheck(everything, (x, sigma), atol=1e-7, check_forward_ad=True)


def test_the_gradient_to_sigma_is_not_that_through_x_alone() -> None:
    """D = tanh(x/σ²) of the points ±1, at x = ½ + σ e: d/dσ = (1 − D²) (e/σ² − 2 x/σ³)."""
    D = OptimalDenoiser(torch.tensor([[-1.0], [1.0]], dtype=torch.float64))
    sigma = torch.tensor(1.0, dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(D(0.5 + sigma * torch.tensor([[0.3]], dtype=torch.float64), sigma).sum(), sigma)
    assert math.isclose(float(slope), (1 - math.tanh(0.8) ** 2) * (0.3 - 1.6), rel_tol=1e-12)


@pytest.mark.parametrize("level", [0.5, 4.0, 30.0])
def test_gradient_to_sigma_in_float32_agrees_with_float64(level: float, normal: Normal) -> None:
    data = normal(50, 192).float()
    D = OptimalDenoiser(data, method="dense")
    x = (data[:6] + level * normal(6, 192)).float()
    for name in QUANTITIES:

        def slope(x: Tensor, name: str = name) -> Tensor:
            sigma = torch.full((6,), level, dtype=x.dtype, requires_grad=True)
            (out,) = torch.autograd.grad(getattr(D.posterior(x, sigma), name).sum(), sigma)
            return out

        single, double = slope(x), slope(x.double())
        assert single.dtype == torch.float32
        assert (single - double).abs().amax() <= 1e-3 * double.abs().amax() + 1e-6, name


def test_sigma_of_another_dtype(normal: Normal) -> None:
    D = OptimalDenoiser(normal(9, 2))
    x, sigma = normal(4, 2), torch.tensor(0.7, requires_grad=True)
    (slope,) = torch.autograd.grad(D(x, sigma).sum(), sigma)
    assert slope.dtype == torch.float32
    assert slope.shape == ()
    whole = torch.tensor(0.7, dtype=torch.float32).double().requires_grad_()
    torch.testing.assert_close(slope.double(), torch.autograd.grad(D(x, whole).sum(), whole)[0], rtol=1e-6, atol=0)


def test_second_derivatives_of_the_density(normal: Normal) -> None:
    """Of log p the Hessian is (Cov/σ² − 1)/σ²: first derivatives of D are all that it takes."""
    D = OptimalDenoiser(normal(9, 2))
    x = normal(1, 2)
    covariance = torch.stack([D.covariance_product(x, 0.7, e[None])[0] for e in torch.eye(2, dtype=torch.float64)])
    expected = (covariance / 0.49 - torch.eye(2, dtype=torch.float64)) / 0.49
    close(torch.func.hessian(lambda x: D.posterior(x[None], 0.7).log_density[0])(x[0]), expected)
    leaf, sigma = normal(3, 2).requires_grad_(), torch.tensor([0.5, 0.7, 2.0], dtype=torch.float64, requires_grad=True)
    for name in ("log_density", "top_weight"):

        def value(x: Tensor, sigma: Tensor, name: str = name) -> Tensor:
            return getattr(D.posterior(x, sigma), name)

        assert torch.autograd.gradgradcheck(value, (leaf, sigma), atol=1e-6)


@pytest.mark.parametrize("name", ["mean", "entropy", "variance"])
def test_other_second_derivatives_are_refused(name: str, normal: Normal) -> None:
    """Zeros would be believed."""
    D, x = OptimalDenoiser(normal(9, 2)), normal(4, 2)

    def value(x: Tensor, sigma: Tensor | float = 0.7) -> Tensor:
        return getattr(D.posterior(x, sigma), name).sum()

    leaf, sigma = x.clone().requires_grad_(), torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
    first = torch.autograd.grad(value(leaf, sigma), (leaf, sigma), create_graph=True)
    close(first[0], torch.func.grad(value)(x))
    for part in first:
        with pytest.raises(RuntimeError, match="first derivatives only, of all but log_density and top_weight"):
            torch.autograd.grad(part.sum(), leaf, retain_graph=True)
    for second in (torch.func.hessian, lambda f: torch.func.jacfwd(torch.func.jacfwd(f))):
        with pytest.raises(RuntimeError, match="first derivatives only"):
            second(value)(x)
    with pytest.raises(RuntimeError, match="first derivatives only"):
        torch.autograd.functional.hessian(value, x)


def test_values_are_checked_inside_transforms(case: Any) -> None:
    D, x, _ = case
    with pytest.raises(ValueError, match="sigma must be positive and finite, got -2"):
        torch.vmap(lambda sigma: D(x, sigma))(torch.tensor([1.0, -2.0]))
    with pytest.raises(ValueError, match="x must be finite, row 2 is not"):
        torch.vmap(lambda x: D(x[None], 1.0)[0])(x.index_fill(0, torch.tensor(2), torch.nan))
    with pytest.raises(ValueError, match=r"x must have shape \(B, 2, 3\), got \(2, 3\)"):
        torch.vmap(lambda x: D(x, 1.0))(x)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode, torch.enable_grad])
def test_grad_modes(mode: Any, case: Any) -> None:
    D, x, v = case
    expected = D(x, 0.7)
    with mode():
        leaf, sigma = x.clone().requires_grad_(), torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
        out = D(leaf, sigma)
        close(out, expected)
        assert out.requires_grad == (mode is torch.enable_grad)
        if mode is not torch.inference_mode:
            close(torch.func.jvp(lambda x: D(x, 0.7), (x,), (v,))[1], D.covariance_product(x, 0.7, v) / 0.49)


def test_expanded_and_strided_and_empty(case: Any) -> None:
    D, x, v = case
    same = x[:1].expand(4, 2, 3)
    pulled = torch.func.vjp(lambda x: D(x, 0.7), same)[1](v)[0]
    close(pulled, D.covariance_product(same.contiguous(), 0.7, v) / 0.49)
    turned = x.mT.contiguous().mT
    close(torch.func.grad(lambda x: D(x, 0.7).sum())(turned), torch.func.grad(lambda x: D(x, 0.7).sum())(x))
    none = x[:0].requires_grad_()
    sigma = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
    by_x, by_sigma = torch.autograd.grad(D(none, sigma).sum(), (none, sigma))
    assert by_x.shape == (0, 2, 3)
    assert by_sigma == 0


def test_half_precision(normal: Normal) -> None:
    D = OptimalDenoiser(normal(9, 2).float())
    x, sigma = normal(4, 2).half().requires_grad_(), torch.tensor(0.5, dtype=torch.float16, requires_grad=True)
    by_x, by_sigma = torch.autograd.grad(D(x, sigma).sum(), (x, sigma))
    wide, level = x.detach().double().requires_grad_(), sigma.detach().double().requires_grad_()
    expected = torch.autograd.grad(D(wide, level).sum(), (wide, level))
    assert by_x.dtype == by_sigma.dtype == torch.float16
    torch.testing.assert_close(by_x.double(), expected[0], rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(by_sigma.double(), expected[1], rtol=1e-3, atol=1e-3)


def test_checkpointed(case: Any) -> None:
    """A checkpoint unpacks what was saved once."""
    D, x, _ = case
    leaf, sigma = x.clone().requires_grad_(), torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
    for name in QUANTITIES:

        def value(x: Tensor, sigma: Tensor, name: str = name) -> Tensor:
            return getattr(D.posterior(x, sigma), name).sum()

        plain = torch.autograd.grad(value(leaf, sigma), (leaf, sigma))
        kept = torch.autograd.grad(checkpoint(value, leaf, sigma, use_reentrant=False), (leaf, sigma))
        assert all(torch.equal(a, b) for a, b in zip(plain, kept, strict=True))


@pytest.mark.parametrize("unit", [1e-30, 1e20])
def test_derivatives_in_other_units(unit: float, normal: Normal) -> None:
    """D(k x; k σ, k Y) = k D(x; σ, Y), and log p changes by dim log k: so do their slopes."""
    data, x = normal(9, 3), normal(4, 3)
    powers = {"mean": 1, "log_density": 0, "entropy": 0, "top_weight": 0, "variance": 2}
    for name, power in powers.items():
        found = []
        for scale in (1.0, unit):
            leaf = (scale * x).requires_grad_()
            sigma = torch.tensor(0.7 * scale, dtype=torch.float64, requires_grad=True)
            value = getattr(OptimalDenoiser(scale * data).posterior(leaf, sigma), name)
            found.append(torch.autograd.grad(value.sum(), (leaf, sigma)))
        for plain, scaled in zip(*found, strict=True):
            close(scaled * unit ** (1 - power), plain, 1e-11)


def test_one_rank_of_a_sharded_denoiser(case: Any) -> None:
    D, x, v = case
    shared = ShardedDenoiser(D.data)
    sigma = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
    for name in QUANTITIES:
        slopes = [torch.autograd.grad(getattr(d.posterior(x, sigma), name).sum(), sigma)[0] for d in (D, shared)]
        close(*slopes)
    close(*(torch.func.jvp(lambda x, d=d: d(x, 0.7), (x,), (v,))[1] for d in (D, shared)))


def test_data_that_require_grad_are_refused() -> None:
    data = torch.randn(5, 2, generator=torch.Generator().manual_seed(0), requires_grad=True)
    with pytest.raises(ValueError, match=r"data must not require grad, no gradient flows to the points: give data\.de"):
        OptimalDenoiser(data)


@pytest.mark.parametrize("radius", [1e3, 1e5, 1e7, 1e8])
def test_far_from_the_centre_covariance_and_gradients_keep_their_digits(radius: float) -> None:
    """The logits are of the size (radius/σ)², and rounded there: 1 nat at 1e8. Two points share the posterior."""
    data = torch.zeros(4, 5, dtype=torch.float64)
    data[:, 0] = torch.tensor([radius, radius, -radius, -radius])
    data[:, 1] = torch.tensor([0.0, 1.0, 3.0, 7.0])
    x = torch.tensor([[radius, 0.45, 0.0, 0.0, 0.0]], dtype=torch.float64, requires_grad=True)
    sigma, D = 0.6, OptimalDenoiser(data, method="dense")
    logit = (0.45**2 - 0.55**2) / (2 * sigma**2)  # Of the second point over the first.
    weight = 1 / (1 + math.exp(-logit))
    direction = torch.zeros_like(x)
    direction[0, 1] = 1.0
    covariance = D.covariance_product(x, sigma, direction)[0, 1]
    assert float(covariance) == pytest.approx(weight * (1 - weight), rel=1e-8)
    (gradient,) = torch.autograd.grad(D.posterior(x, sigma).entropy.sum(), x)
    assert float(gradient[0, 1]) == pytest.approx(-weight * (1 - weight) * logit / sigma**2, rel=1e-8)
