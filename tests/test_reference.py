"""The exact references against what they must equal: quadrature, sums, autograd, and fine integration of the ODE."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, cast

import mpmath  # comes with torch, by way of sympy
import pytest
import torch
from contracts import check_denoiser
from problems import absolute_error, reference_posterior, row_error
from torch import Tensor
from torchdiffeq import odeint

from optimal import Denoiser, OptimalDenoiser
from optimal.reference import Gaussian, GaussianMixture, OnePoint, TwoPoint

Normal = Callable[..., Tensor]
Exact = OnePoint | TwoPoint | Gaussian | GaussianMixture


def f64(*values: Any) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


ROOT = f64([1.0, 0.0, 0.0], [0.4, 0.6, 0.0], [-0.3, 0.2, 0.0])
"""Of a covariance of rank 2 in three dimensions."""

LINE = f64([1.0], [-0.9], [2.5], [0.1], [-2.0])
"""Not sorted."""

REFERENCES: dict[str, Exact] = {
    "one point": OnePoint(torch.linspace(-1, 1, 12).reshape(3, 2, 2)),
    "two points": TwoPoint(f64(0.3, -0.2, 0.1), f64(0.5, 0.7, -0.4)),
    "two images": TwoPoint(torch.linspace(-1, 1, 12).reshape(1, 3, 4), torch.linspace(-0.2, 0.7, 12).reshape(1, 3, 4)),
    "isotropic Gaussian": Gaussian(f64([0.5, -1.0], [0.0, 2.0]), 0.3),
    "diagonal Gaussian": Gaussian(f64(0.5, -1.0, 0.2), f64(4.0, 0.01, 0.0)),
    "full Gaussian": Gaussian(f64(0.5, -1.0, 0.2), ROOT @ ROOT.T),
    "mixture of Gaussians": GaussianMixture(LINE, f64(0.3, 0.2, 0.5, 1.0, 0.25), f64(1.0, 2.0, 3.0, 0.5, 2.0)),
    "mixture of one width": GaussianMixture(LINE, 0.2),
    "mixture of points": GaussianMixture(LINE, 0.0, f64(1.0, 2.0, 3.0, 1.0, 2.0)),
    "mixture of both": GaussianMixture(LINE, f64(0.0, 0.2, 0.0, 1.0, 0.0)),
    "mixture in the plane": GaussianMixture(f64([0.0, 1.0], [-1.0, 0.5], [2.0, 0.0]), f64(0.5, 0.0, 1.0), f64(1, 2, 1)),
}
WITH_FLOW = {name: D for name, D in REFERENCES.items() if name != "mixture in the plane"}

every = pytest.mark.parametrize("D", REFERENCES.values(), ids=REFERENCES.keys())
every_flow = pytest.mark.parametrize("D", WITH_FLOW.values(), ids=WITH_FLOW.keys())


def close(a: Tensor, b: Tensor, tolerance: float) -> None:
    """Every value within tolerance times the size of its row, or of 1."""
    assert a.shape == b.shape
    size = b.double().abs().flatten(1).amax(1).clamp_min(1)
    error = absolute_error(a, b).flatten(1).amax(1) / size
    assert (error <= tolerance).all(), f"off by {float(error.amax()):.3g}, {tolerance:g} allowed"


def starts(D: Exact, sigma: float, count: int, normal: Normal) -> Tensor:
    """x0 + σ ε, (count, *event) float64."""
    x0 = D.sample(count, torch.Generator().manual_seed(3))
    return x0 + sigma * normal(*x0.shape)


def test_close_fails_on_permuted_rows(normal: Normal) -> None:
    a = normal(5, 3)
    close(a, a, 0.0)
    for permuted in (a.flip(0), a.flip(1), a.roll(1, 0)):
        with pytest.raises(AssertionError, match="off by"):
            close(permuted, a, 0.1)


# What every denoiser promises.


@pytest.mark.parametrize("name", [name for name in REFERENCES if name != "one point"])
def test_contract(name: str) -> None:
    D = REFERENCES[name]
    assert isinstance(D, Denoiser)
    check_denoiser(D, D.event)


@every
def test_contract_of_the_score(D: Exact) -> None:
    check_denoiser(D.score, D.event)


@every_flow
def test_contract_of_the_flow(D: Exact) -> None:
    check_denoiser(lambda x, sigma: D.flow(x, sigma, 0.2), D.event)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_one_point_is_constant(dtype: torch.dtype) -> None:
    """The battery asks that D depend on sigma; this one must not."""
    D = REFERENCES["one point"]
    y = torch.linspace(-1, 1, 12).reshape(3, 2, 2).to(dtype)
    for sigma in (0.001, 1000.0, torch.tensor(2.0), torch.linspace(0.1, 3, 4, dtype=dtype)):
        out = D(100 * torch.ones(4, 3, 2, 2, dtype=dtype), sigma)
        assert out.dtype == dtype
        assert torch.equal(out, y.expand(4, -1, -1, -1))
        out.zero_()
    assert D(torch.ones(0, 3, 2, 2, dtype=dtype), 1.0).shape == (0, 3, 2, 2)


# D, log density and score.


@pytest.mark.parametrize("sigma", [0.05, 0.4, 3.0, 80.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", ["one point", "two points", "two images", "mixture of points"])
def test_points_against_sums(name: str, sigma: float, dtype: torch.dtype, normal: Normal) -> None:
    """Eq. 43 by direct differences, and the optimal denoiser of the same points; a weight is a number of copies."""
    D = REFERENCES[name]
    if isinstance(D, GaussianMixture):
        data = LINE.repeat_interleave(torch.tensor([1, 2, 3, 1, 2]), 0)
    else:
        data = D.sample(64, torch.Generator().manual_seed(0)).unique(dim=0)
        assert len(data) == (1 if name == "one point" else 2)
    x = starts(D, sigma, 6, normal).to(dtype)
    expected, optimal = reference_posterior(data, x, sigma), OptimalDenoiser(data)
    tolerance = 1e-12 if dtype == torch.float64 else 1e-6
    close(D(x, sigma), expected.mean, tolerance)
    close(D.log_density(x, sigma)[:, None], expected.log_density[:, None], tolerance)
    close(D(x, sigma), optimal(x, sigma), 10 * tolerance)
    close(D.score(x, sigma), optimal.score(x, sigma), 10 * tolerance)
    close(D.log_density(x, sigma)[:, None], optimal.posterior(x, sigma).log_density[:, None], 10 * tolerance)


def by_quadrature(log_prior: Tensor, x0: Tensor, x: Tensor, sigma: float) -> tuple[Tensor, Tensor]:
    """E[x0 | x], (B, dim), and log ∫ p(x0) N(x; x0, σ² I) dx0 but for the cell size, (B,), on the grid x0 (M, dim)."""
    kernel = -(x[:, None] - x0).square().sum(2) / (2 * sigma**2) - x0.shape[1] / 2 * math.log(2 * math.pi * sigma**2)
    logits = log_prior + kernel
    return logits.softmax(1) @ x0, logits.logsumexp(1)


@pytest.mark.parametrize("sigma", [0.1, 0.6, 3.0, 80.0])
@pytest.mark.parametrize("name", ["mixture of Gaussians", "mixture of one width"])
def test_mixture_against_quadrature(name: str, sigma: float, normal: Normal) -> None:
    D = REFERENCES[name]
    std, weights = (f64(0.3, 0.2, 0.5, 1.0, 0.25), f64(1, 2, 3, 0.5, 2)) if "Gauss" in name else (f64(0.2), f64(1))
    grid, step = torch.linspace(-14, 14, 4001, dtype=torch.float64), 28 / 4000
    shares = weights.expand(5) / weights.expand(5).sum()
    prior = (shares * torch.exp(-0.5 * ((grid[:, None] - LINE.T) / std) ** 2) / (std * math.sqrt(2 * math.pi))).sum(1)
    x = starts(D, sigma, 8, normal)
    mean, log_density = by_quadrature(prior.log(), grid[:, None], x, sigma)
    close(D(x, sigma), mean, 1e-11)
    close(D.log_density(x, sigma)[:, None], log_density[:, None] + math.log(step), 1e-11)


@pytest.mark.parametrize("sigma", [0.5, 2.0, 80.0])
def test_gaussian_against_quadrature(sigma: float, normal: Normal) -> None:
    mu, C = f64(0.5, -1.0), f64([1.0, 0.4], [0.4, 0.52])
    axis = torch.linspace(-7.5, 7.5, 101, dtype=torch.float64)
    grid = torch.cartesian_prod(axis, axis)
    D, x = Gaussian(mu, C), mu + math.hypot(1, sigma) * normal(5, 2)
    prior = torch.distributions.MultivariateNormal(mu, C).log_prob(grid)
    mean, log_density = by_quadrature(prior, grid, x, sigma)
    close(D(x, sigma), mean, 1e-10)
    close(D.log_density(x, sigma)[:, None], log_density[:, None] + 2 * math.log(0.15), 1e-10)


@pytest.mark.parametrize("sigma", [0.05, 1.0, 30.0])
def test_densities_against_torch(sigma: float, normal: Normal) -> None:
    full, plane, two = (REFERENCES[name] for name in ("full Gaussian", "mixture in the plane", "two points"))
    eye = torch.eye(3, dtype=torch.float64)
    m, d = f64(0.3, -0.2, 0.1), f64(0.5, 0.7, -0.4)
    normal_of, mixture_of = torch.distributions.MultivariateNormal, torch.distributions.MixtureSameFamily
    means, std = f64([0.0, 1.0], [-1.0, 0.5], [2.0, 0.0]), f64(0.5, 0.0, 1.0)
    noisy = (std**2 + sigma**2)[:, None, None] * torch.eye(2, dtype=torch.float64)
    halves, thirds = (torch.distributions.Categorical(v) for v in (f64(1, 1), f64(1, 2, 1)))
    pairs: list[tuple[Exact, torch.distributions.Distribution]] = [
        (full, normal_of(f64(0.5, -1.0, 0.2), ROOT @ ROOT.T + sigma**2 * eye)),
        (plane, mixture_of(thirds, normal_of(means, noisy))),
        (two, mixture_of(halves, normal_of(torch.stack([m + d, m - d]), sigma**2 * eye))),
    ]
    for D, distribution in pairs:
        x = starts(D, sigma, 6, normal)
        close(D.log_density(x, sigma)[:, None], distribution.log_prob(x)[:, None], 1e-11)


@pytest.mark.parametrize("sigma", [0.05, 0.5, 20.0])
@pytest.mark.parametrize("name", [name for name in WITH_FLOW if name.startswith("mixture")])
def test_density_integrates_to_one(name: str, sigma: float) -> None:
    D, edge = REFERENCES[name], 12 + 10 * sigma
    x = torch.linspace(-edge, edge, 8001, dtype=torch.float64)
    assert abs(float(D.log_density(x[:, None], sigma).exp().sum()) * 2 * edge / 8000 - 1) <= 1e-12


@every
@pytest.mark.parametrize("sigma", [0.01, 0.3, 2.0, 80.0])
def test_score_is_the_gradient(D: Exact, sigma: float, normal: Normal) -> None:
    x = starts(D, sigma, 6, normal).requires_grad_()
    (gradient,) = torch.autograd.grad(D.log_density(x, sigma).sum(), x)
    close(D.score(x, sigma), gradient, 1e-10)
    close(sigma * D.score(x, sigma), (D(x, sigma) - x) / sigma, 1e-11)


@every
def test_jacobian_is_symmetric_and_positive(D: Exact, normal: Normal) -> None:
    """∂D/∂x = Cov[x0 | x]/σ²."""
    x, dim = starts(D, 0.7, 1, normal), math.prod(D.event)
    J: Any = torch.autograd.functional.jacobian(lambda v: D(v.reshape(1, *D.event), 0.7).flatten(), x.flatten(), True)
    assert J.shape == (dim, dim)
    assert absolute_error(J, J.T).amax() <= 1e-12
    assert torch.linalg.eigvalsh(J).amin() >= -1e-12


# The flow.


def integrate(D: Exact, x: Tensor, sigma: float, end: float) -> Tensor:
    """The probability-flow ODE by an independent integrator, which is told to step on the end, not to interpolate."""
    levels = f64(sigma, end)

    def velocity(level: Tensor, x: Tensor) -> Tensor:
        return (x - D(x, level)) / level

    path = odeint(velocity, x, levels, method="dopri8", rtol=1e-11, atol=1e-12, options={"step_t": levels})
    return cast(Tensor, path)[-1]


INTERVALS = [(name, 80.0, 0.1) for name in WITH_FLOW] + [
    (name, *levels)
    for name in ("two points", "full Gaussian", "mixture of Gaussians", "mixture of points")
    for levels in ((2.0, 0.05), (0.3, 20.0))
]


@pytest.mark.parametrize(("name", "sigma", "end"), INTERVALS)
def test_flow_against_integration(name: str, sigma: float, end: float, normal: Normal) -> None:
    D = REFERENCES[name]
    x = starts(D, sigma, 4, normal)
    out = D.flow(x, sigma, end)
    close(out, integrate(D, x, sigma, end), 1e-10)
    assert absolute_error(out.flip(0), out).amax() > 1e-3


def test_flow_near_the_separatrix_against_integration() -> None:
    """Between the points while σ is still comparable to their distance: the tanh is at work all the way."""
    D = TwoPoint(f64(0.0, 0.0, 0.0), f64(0.6, 0.0, 0.8))
    x = f64([0.03, 0.5, 0.04], [-0.006, 1.0, -0.008], [0.6, -0.2, 0.8])
    for sigma, end in ((1.0, 0.3), (0.5, 0.2)):
        close(D.flow(x, sigma, end), integrate(D, x, sigma, end), 1e-10)
    D = GaussianMixture(LINE, 0.2)
    x = f64([-1.45], [-0.4], [0.55], [1.75], [1.7])
    for sigma, end in ((1.0, 0.1), (0.3, 0.02)):
        close(D.flow(x, sigma, end), integrate(D, x, sigma, end), 1e-10)


MIXTURES = {
    "two points": (f64(-1.0, 1.0), f64(0.0, 0.0), f64(1.0, 1.0)),
    "five widths": (LINE.flatten(), f64(0.3, 0.2, 0.5, 1.0, 0.25), f64(1.0, 2.0, 3.0, 0.5, 2.0)),
    "rare and far": (f64(-1.0, 0.0, 0.0, 30.0), f64(0.2, 1.0, 0.01, 0.0), f64(1.0, 1.0, 1.0, 1e-6)),
}


@pytest.mark.parametrize("name", MIXTURES)
@pytest.mark.parametrize(("sigma", "end"), [(80.0, 0.1), (80.0, 1.0), (2.0, 0.3), (0.3, 0.1), (0.1, 0.3), (0.1, 80.0)])
def test_distribution_function_is_kept(name: str, sigma: float, end: float, normal: Normal) -> None:
    """F(x'; σ') = F(x; σ) in 120 digits: the error of x' is (F' − F)/p', at most some ulps of x' and p/p' ulps of x."""
    means, std, weights = MIXTURES[name]
    x = means.repeat(4) + math.hypot(sigma, 0.3) * normal(4 * len(means)) * f64(0.3, 1.0, 2.0, 6.0).repeat_interleave(
        len(means)
    )
    moved = GaussianMixture(means[:, None], std, weights).flow(x[:, None], sigma, end).flatten()
    parts = [tuple(map(mpmath.mpf, part)) for part in zip(means.tolist(), std.tolist(), weights.tolist(), strict=True)]

    def sums(at: float, level: float) -> tuple[Any, Any]:
        F = p = mpmath.mpf(0)
        for m, s, w in parts:
            tau = mpmath.sqrt(s**2 + mpmath.mpf(level) ** 2)
            F += w * mpmath.erfc((m - at) / (tau * mpmath.sqrt(2))) / 2
            p += w * mpmath.npdf(at, m, tau)
        return F, p

    for before, after in zip(x.tolist(), moved.tolist(), strict=True):
        with mpmath.workdps(120):
            (F, p), (F_end, p_end) = sums(before, sigma), sums(after, end)
            error, spread = float(abs(F_end - F) / p_end), float(p / p_end)
        size = 1 + float(means.abs().amax())
        allowed = 1e-15 * (size + end + abs(after) + spread * (size + sigma + abs(before)))
        assert error <= 4 * allowed, f"{before} -> {after}: off by {error:.3g}, conditioning {spread:.3g}"


def test_inversion_takes_few_steps(monkeypatch: pytest.MonkeyPatch, normal: Normal) -> None:
    """Newton's, not bisection's 50; those are for F' with steps."""
    calls: list[None] = []

    def counted(z: Tensor) -> Tensor:
        calls.append(None)
        return torch.special.log_ndtr(z)

    monkeypatch.setattr("optimal.reference.transport.log_ndtr", counted)
    for name in ("two points", "mixture of Gaussians", "mixture of points"):
        D = REFERENCES[name]
        for sigma, end in ((80.0, 0.1), (2.0, 0.3), (80.0, 0.002)):
            calls.clear()
            D.flow(starts(D, sigma, 200, normal), sigma, end)
            assert 4 <= len(calls) <= 2 * 26


@every_flow
def test_flow_composes(D: Exact, normal: Normal) -> None:
    """Down in one step or two; down and up again, where the way up has not lost what it needs."""
    for a, b, c in ((80.0, 3.0, 0.3), (2.0, 0.7, 0.0), (0.4, 1.0, 5.0), (1.0, 5.0, 0.5)):
        x = starts(D, a, 8, normal)
        close(D.flow(D.flow(x, a, b), b, c), D.flow(x, a, c), 1e-11)
        close(D.flow(D.flow(x, a, b), b, a), x, 1e-11)
    close(D.flow(x, 1.0, 1.0), x, 1e-14)


@every_flow
def test_flow_per_row(D: Exact, normal: Normal) -> None:
    x, sigma, end = starts(D, 1.0, 4, normal), f64(0.5, 1.0, 2.0, 80.0), f64(3.0, 0.1, 0.0, 0.7)
    rows = [D.flow(x[i : i + 1], sigma[i], float(end[i])) for i in range(4)]
    close(D.flow(x, sigma, end), torch.cat(rows), 1e-13)
    close(D.flow(x, 2.0, end), torch.cat([D.flow(x[i : i + 1], 2.0, end[i]) for i in range(4)]), 1e-13)


@every_flow
def test_flow_carries_the_density(D: Exact, normal: Normal) -> None:
    """log p(x'; σ') + log|∂x'/∂x| = log p(x; σ), the Jacobian by central differences of the fourth order."""
    x, dim, h = starts(D, 1.2, 1, normal).expand(4, *D.event), math.prod(D.event), 1e-3
    shifts = f64(-2.0, -1.0, 1.0, 2.0)[:, None] * h
    columns = []
    for axis in torch.eye(dim, dtype=torch.float64):
        out = D.flow(x + (shifts * axis).view(x.shape), 1.2, 0.6).flatten(1)
        columns.append(f64(1.0, -8.0, 8.0, -1.0) @ out / (12 * h))
    log_det = torch.linalg.slogdet(torch.stack(columns))[1]
    x = x[:1]
    total = D.log_density(D.flow(x, 1.2, 0.6), 0.6) + log_det
    assert absolute_error(total, D.log_density(x, 1.2)).amax() <= 1e-8


def test_flow_of_two_points_lands() -> None:
    m, d = f64(0.3, -0.2, 0.1), f64(0.5, 0.7, -0.4)
    D, side = TwoPoint(m, d), f64(1e-3, -1e-3, 20.0, -20.0, 1e-9, -1e-9)
    across = f64(0.7, -0.5, 0.0)
    for sigma in (0.01, 1.0, 80.0):
        x = m + side[:, None] * d + 3 * across
        assert torch.equal(D.flow(x, sigma, 0.0), m + side.sign()[:, None] * d)
        close(D.flow(x, sigma, 1e-9), m + side.sign()[:, None] * d, 1e-6 / sigma)


def test_flow_of_two_points_on_the_separatrix_and_its_symmetry(normal: Normal) -> None:
    D = TwoPoint(f64(0.0, 0.0), f64(1.0, 0.0))
    still = f64([0.0, 2.0], [-0.0, -4.0])
    for end in (0.0, 0.5, 10.0):
        assert torch.equal(D.flow(still, 2.0, end), still * end / 2)
    x = normal(50, 2)
    for sigma, end in ((80.0, 0.1), (0.1, 2.0), (1.0, 0.0)):
        out = D.flow(x, sigma, end)
        assert torch.equal(D.flow(-x, sigma, end), -out)
        assert (out[:, 0] * x[:, 0] >= 0).all()
    # Between the points the flow spreads, as (σ'/σ) exp(δ²/2σ'²) from high noise: part of the problem, not of the way.
    spread = D.flow(f64([1e-6, 0.0]), 80.0, 0.2)[0, 0] / 1e-6
    assert abs(float(spread) / (0.2 / 80 * math.exp(0.5 / 0.04)) - 1) <= 1e-3


def test_two_points_are_a_mixture(normal: Normal) -> None:
    two, mixture = TwoPoint(f64(0.4), f64(-1.3)), GaussianMixture(f64([1.7], [-0.9]), 0.0)
    x = 0.4 + 2 * normal(40, 1)
    close(two(x, 0.8), mixture(x, 0.8), 1e-13)
    close(two.score(x, 0.8), mixture.score(x, 0.8), 1e-12)
    for sigma, end in ((2.0, 0.5), (2.0, 0.0), (1.0, 9.0)):
        close(two.flow(x, sigma, end), mixture.flow(x, sigma, end), 1e-12)


@pytest.mark.parametrize("sigma", [0.2, 1.0, 80.0])
def test_flow_of_a_mixture_of_points_lands(sigma: float) -> None:
    """On the point whose cumulative weights hold F, exactly."""
    weights = f64(1.0, 2.0, 3.0, 1.0, 2.0) / 9
    x = torch.linspace(-3 - 3 * sigma, 3 + 3 * sigma, 1501, dtype=torch.float64)
    F = (weights * 0.5 * torch.erfc((LINE.T - x[:, None]) / (sigma * math.sqrt(2)))).sum(1)
    centres, order = LINE.flatten().sort()
    levels = weights[order].cumsum(0)
    # F itself, in float64, knows the side of a level to about 1e-15.
    clear = (F[:, None] - levels[:-1]).abs().amin(1) > 1e-12
    assert clear.double().mean() > 0.9
    expected = centres[torch.searchsorted(levels[:-1].contiguous(), F)]
    out = REFERENCES["mixture of points"].flow(x[:, None], sigma, 0.0).flatten()
    assert torch.equal(out[clear], expected[clear])
    assert (out.diff() >= 0).all()
    assert set(out.tolist()) <= set(LINE.flatten().tolist())


def test_gaps_are_told_apart_in_the_tails() -> None:
    """At σ = 0.02 F equals its level to all digits over most of a gap, yet each x has its point: the nearest one."""
    D = REFERENCES["mixture of points"]
    x = f64([0.549], [0.551], [-1.451], [-1.449], [40.0], [-40.0])
    assert D.flow(x, 0.02, 0.0).flatten().tolist() == [0.1, 1.0, -2.0, -0.9, 2.5, -2.0]
    assert D.flow(x, 0.002, 0.0).flatten().tolist() == [0.1, 1.0, -2.0, -0.9, 2.5, -2.0]
    # On the separatrix of two equal points, the lower one; repeats count once as a place.
    D = GaussianMixture(f64([1.0], [-1.0], [-1.0], [1.0]), 0.0)
    assert D.flow(f64([0.0], [0.01], [-0.01]), 1.0, 0.0).flatten().tolist() == [-1.0, 1.0, -1.0]


def test_flow_reaches_each_point_by_its_weight(normal: Normal) -> None:
    D, weights = REFERENCES["mixture of points"], f64(1.0, 2.0, 3.0, 1.0, 2.0) / 9
    count = 5_000
    landed = D.flow(starts(D, 30.0, count, normal), 30.0, 0.0)
    share = (landed == LINE.T).double().mean(0)
    assert absolute_error(share.sum(), f64(1.0)) <= 1e-12
    assert ((share - weights).abs() <= 4 * (weights / count).sqrt()).all()


def test_flow_of_points_and_gaussians_to_zero() -> None:
    """Steps and slopes of F together: x at the given shares of F, by bisection, goes to the quantiles of x0."""
    D = GaussianMixture(f64([0.0], [2.0], [-1.0]), f64(0.0, 0.0, 1.0), f64(1.0, 1.0, 2.0))
    # F' is ½Φ(x + 1), a quarter more from 0 on, another from 2 on.
    share = f64(0.1, 0.3, 0.43, 0.6, 0.6, 0.72, 0.745, 0.98, 0.9999)
    slope = math.sqrt(2) * torch.erfinv(2 * f64(0.2, 0.6, 0.0, 0.0, 0.0, 0.94, 0.99, 0.0, 0.9998) - 1) - 1
    expected = torch.where(f64(0, 0, 1, 1, 1, 0, 0, 1, 0) > 0, f64(0, 0, 0, 0, 0, 0, 0, 2, 0), slope)
    low, high, x = -99 + 0 * share, 99 + 0 * share, 0 * share
    for _ in range(80):
        tau = f64(1.0, 1.0, math.sqrt(2))
        F = (f64(0.25, 0.25, 0.5) * 0.5 * torch.erfc((f64(0.0, 2.0, -1.0) - x[:, None]) / (tau * math.sqrt(2)))).sum(1)
        low, high = torch.where(share > F, x, low), torch.where(share > F, high, x)
        x = (low + high) / 2
    close(D.flow(x[:, None], 1.0, 0.0), expected[:, None], 1e-11)
    assert (D.flow(x[:, None], 1.0, 0.0).flatten()[[2, 3, 4, 7]] == f64(0, 0, 0, 2)).all()
    # A step at the origin, where a relative tolerance never arrives.
    assert GaussianMixture(f64([0.0], [0.0]), f64(0.0, 1.0)).flow(f64([0.01], [-0.3]), 1.0, 0.0).abs().amax() == 0


# Symmetries.


def test_rigid_motion_and_scale(normal: Normal) -> None:
    """D(c(Qx + b)) = c(Q D(x) + b) for the data moved alike, σ by c; so for the flow."""
    Q, b, c = torch.linalg.qr(normal(3, 3))[0], normal(3), 2.5
    m, d, mu, means, std = normal(3), normal(3), normal(3), normal(4, 3), f64(0.2, 0.0, 1.0, 0.5)
    C, weights = ROOT @ ROOT.T, f64(1.0, 2.0, 3.0, 4.0)

    def move(v: Tensor) -> Tensor:
        return c * (v @ Q.T + b)

    pairs: list[tuple[Exact, Exact]] = [
        (OnePoint(m), OnePoint(move(m))),
        (TwoPoint(m, d), TwoPoint(move(m), c * Q @ d)),
        (Gaussian(mu, C), Gaussian(move(mu), c**2 * Q @ C @ Q.T)),
        (Gaussian(mu, 0.3), Gaussian(move(mu), c**2 * 0.3)),
        (GaussianMixture(means, std, weights), GaussianMixture(move(means), c * std, 7 * weights)),
    ]
    x = 2 * normal(6, 3)
    for D, moved in pairs:
        close(moved(move(x), c * 0.8), move(D(x, 0.8)), 1e-12)
        close(moved.score(move(x), c * 0.8), D.score(x, 0.8) @ Q.T / c, 1e-12)
        log_density = D.log_density(x, 0.8)[:, None] - 3 * math.log(c)
        close(moved.log_density(move(x), c * 0.8)[:, None], log_density, 1e-12)
        if not isinstance(D, GaussianMixture):
            close(moved.flow(move(x), c * 0.8, c * 0.3), move(D.flow(x, 0.8, 0.3)), 1e-10)
    line, x = REFERENCES["mixture of Gaussians"], 2 * normal(6, 1)
    mirrored = GaussianMixture(1 - c * LINE, c * f64(0.3, 0.2, 0.5, 1.0, 0.25), f64(1.0, 2.0, 3.0, 0.5, 2.0))
    close(mirrored.flow(1 - c * x, c * 0.8, c * 0.3), 1 - c * line.flow(x, 0.8, 0.3), 1e-11)


def test_covariance_in_three_forms(normal: Normal) -> None:
    mu, x = normal(2, 2), normal(5, 2, 2)
    forms = [Gaussian(mu, 0.3), Gaussian(mu, torch.full((4,), 0.3).double()), Gaussian(mu, 0.3 * torch.eye(4).double())]
    for D in forms[1:]:
        close(D(x, 0.5), forms[0](x, 0.5), 1e-7)
        close(D.flow(x, 0.5, 0.1), forms[0].flow(x, 0.5, 0.1), 1e-7)
        close(D.log_density(x, 0.5)[:, None], forms[0].log_density(x, 0.5)[:, None], 1e-7)


# Samples, parameters, errors.


@every
def test_sample(D: Exact) -> None:
    """Moments of x0 by those that D knows: E x0 and tr Cov are D and σ² tr ∂D/∂x as σ grows."""
    n, dim, state = 40_000, math.prod(D.event), torch.random.get_rng_state()
    x0 = D.sample(n, torch.Generator().manual_seed(5))
    assert x0.shape == (n, *D.event)
    assert x0.dtype == torch.float64
    assert torch.equal(x0[:7], D.sample(n, torch.Generator().manual_seed(5))[:7])
    assert torch.equal(torch.random.get_rng_state(), state)
    assert D.sample(0, torch.Generator()).shape == (0, *D.event)
    sigma, x0 = 1e4, x0.flatten(1)
    basis = torch.cat([torch.zeros(1, dim), torch.eye(dim), -torch.eye(dim)]).double().reshape(-1, *D.event)
    out = D(10 * basis, sigma).flatten(1)
    covariance = (out[1 : dim + 1] - out[dim + 1 :]) / 20 * sigma**2
    error = (4 * covariance.diagonal().clamp_min(0) / n).sqrt() * 1.3
    assert ((x0.mean(0) - out[0]).abs() <= error + 1e-6).all()
    scale = float(covariance.diagonal().amax())
    assert absolute_error(x0.T.cov().reshape(dim, dim), covariance).amax() <= 0.05 * scale + 1e-6


def test_parameters_of_any_kind_are_copied(normal: Normal) -> None:
    means = f64([0.5], [-1.0])
    D = GaussianMixture(means, 0.25)
    x, before = normal(3, 1), D(torch.zeros(3, 1), 1.0)
    means.zero_()
    assert torch.equal(D(torch.zeros(3, 1), 1.0), before)
    alike: list[Any] = [torch.tensor([[0.5], [-1.0]]).half(), [[0.5], [-1.0]], f64([0.5], [-1.0]).numpy()]
    for form in alike:
        assert torch.equal(GaussianMixture(form, 0.25)(x, 1.0), D(x, 1.0))
    assert OnePoint(torch.zeros(2, 3)).event == TwoPoint(torch.zeros(2, 3), torch.ones(2, 3)).event == (2, 3)


@every_flow
def test_flow_keeps_the_type_and_no_graph(D: Exact, normal: Normal) -> None:
    x = starts(D, 1.0, 3, normal)
    out = D.flow(x.float().requires_grad_(), 1.0, 0.3)
    assert out.dtype == torch.float32
    assert not out.requires_grad
    assert row_error(out, D.flow(x.float().double(), 1.0, 0.3)).amax() <= 1e-6
    assert D.flow(x[:0], 1.0, 0.3).shape == (0, *D.event)


def test_flow_of_a_mixture_with_one_value_in_more_axes(normal: Normal) -> None:
    x = normal(5, 1)
    line, pixel = REFERENCES["mixture of one width"], GaussianMixture(LINE[:, :, None, None], 0.2)
    assert torch.equal(pixel.flow(x[:, :, None, None], 1.0, 0.1).flatten(), line.flow(x, 1.0, 0.1).flatten())


@every_flow
def test_sigma_as_in_edms_loop(D: Exact, normal: Normal) -> None:
    """Levels (B, 1, …, 1), as EDM hands them to its networks, are those of the rows."""
    x, sigma = starts(D, 1.0, 4, normal), torch.linspace(0.5, 2.0, 4)
    assert torch.equal(D(x, sigma[:, None, None]), D(x, sigma))
    assert torch.equal(D.flow(x, sigma[:, None], 0.5 * sigma[:, None]), D.flow(x, sigma, 0.5 * sigma))


@pytest.mark.parametrize("name", ["__call__", "score", "log_density", "flow"])
@pytest.mark.parametrize("D", [REFERENCES["full Gaussian"], REFERENCES["mixture of both"]], ids=["vector", "value"])
@pytest.mark.parametrize(
    ("x", "sigma", "sentence"),
    [
        (torch.zeros(4, 7), 1.0, r"x must have shape \(B, [13]\), got \(4, 7\)$"),
        (torch.zeros(4, dtype=torch.int64), 1.0, r"x must be floating point, got torch.int64$"),
        (torch.tensor([0.0, 0.0, math.nan, 0.0]), 1.0, r"x must be finite, row 2 is not$"),
        (torch.tensor([0.0, math.inf, math.nan, 0.0]), 1.0, r"x must be finite, row 1 is not$"),
        (torch.zeros(4), 0.0, r"^sigma must be positive and finite, got 0$"),
        (torch.zeros(4), torch.tensor([1.0, 1.0, -3.0, 1.0]), r"^sigma must be positive and finite, got -3$"),
        (torch.zeros(4), math.nan, r"^sigma must be positive and finite, got nan$"),
        (torch.zeros(4), math.inf, r"^sigma must be positive and finite, got inf$"),
        (torch.zeros(4), torch.ones(1, 4), r"^sigma must have shape \(\) or \(B,\), got \(1, 4\) with B = 4$"),
        (torch.zeros(4), torch.ones(3), r"^sigma must have shape \(\) or \(B,\), got \(3,\) with B = 4$"),
    ],
)
def test_bad_input(name: str, D: Exact, x: Tensor, sigma: Any, sentence: str) -> None:
    x = x[:, None].expand(-1, *D.event) if x.ndim == 1 else x
    with pytest.raises(ValueError, match=sentence):
        getattr(D, name)(x, sigma, *((0.1,) if name == "flow" else ()))


@pytest.mark.parametrize(
    ("end", "sentence"),
    [
        (-0.5, r"sigma_end must be finite and not negative, got -0.5$"),
        (math.nan, r"sigma_end must be finite and not negative, got nan$"),
        (torch.tensor([0.0, math.inf]), r"sigma_end must be finite and not negative, got inf$"),
        (torch.ones(1), r"sigma_end must have shape \(\) or \(B,\), got \(1,\) with B = 2$"),
    ],
)
def test_bad_end(end: Any, sentence: str) -> None:
    for D in WITH_FLOW.values():
        with pytest.raises(ValueError, match=sentence):
            D.flow(torch.zeros(2, *D.event), 1.0, end)


ZERO = torch.zeros(2)


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: OnePoint(torch.tensor(1.0)), r"y must have at least one axis and one value, got shape \(\)$"),
        (lambda: OnePoint(torch.empty(2, 0)), r"y must have at least one axis and one value, got shape \(2, 0\)$"),
        (lambda: OnePoint(torch.tensor([math.nan])), r"y must be finite, got nan$"),
        (lambda: TwoPoint(torch.tensor(1.0), ZERO), r"m must have at least one axis and one value, got shape \(\)$"),
        (lambda: TwoPoint(ZERO, torch.ones(2, 1)), r"d must have the shape of m, \(2,\), got \(2, 1\)$"),
        (lambda: TwoPoint(ZERO, ZERO), r"d must not be zero: the two points would be one$"),
        (lambda: TwoPoint(ZERO, torch.tensor([math.inf, 0.0])), r"d must be finite, got inf$"),
        (lambda: Gaussian(ZERO, torch.ones(3)), r"covariance must have shape \(\), \(2,\) or \(2, 2\), got \(3,\)$"),
        (lambda: Gaussian(ZERO, -1.0), r"covariance must be positive semidefinite, got the eigenvalue -1$"),
        (lambda: Gaussian(ZERO, torch.tensor([1.0, -1e-9])), r"positive semidefinite, got the eigenvalue -1e-09$"),
        (lambda: Gaussian(ZERO, f64([1, 2], [2, 1])), r"positive semidefinite, got the eigenvalue -1$"),
        (lambda: Gaussian(ZERO, f64([1, 0.5], [0, 1])), r"must be symmetric, C and its transpose differ by 0.5$"),
        (lambda: Gaussian(ZERO, math.nan), r"covariance must be finite, got nan$"),
        (lambda: GaussianMixture(ZERO, 1.0), r"means must have shape \(K, \*event\) and not be empty, got \(2,\)$"),
        (lambda: GaussianMixture(torch.empty(0, 2), 1.0), r"means .* not be empty, got \(0, 2\)$"),
        (lambda: GaussianMixture(LINE, ZERO), r"std must have shape \(\) or \(K,\), got \(2,\) with K = 5$"),
        (lambda: GaussianMixture(LINE, -0.1), r"std must not be negative, got -0.1$"),
        (lambda: GaussianMixture(LINE, 0.1, ZERO), r"weights must have shape \(K,\), got \(2,\) with K = 5$"),
        (
            lambda: GaussianMixture(LINE, 0.1, torch.tensor(1.0)),
            r"weights must have shape \(K,\), got \(\) with K = 5$",
        ),
        (lambda: GaussianMixture(LINE, 0.1, f64(1, 1, 0, 1, 1)), r"weights must be positive, got 0$"),
        (
            lambda: REFERENCES["mixture in the plane"].flow(torch.zeros(1, 2), 1.0, 0.1),
            r"closed form for events of one value only, got shape \(2,\): integrate the ODE \(optimal.samplers\)$",
        ),
    ],
)
def test_bad_parameters(make: Callable[[], Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        make()


def test_covariance_from_float32_products(normal: Normal) -> None:
    """Singular and asymmetric in the last digits of float32: taken, its negative eigenvalues as 0."""
    A = normal(20, 5).float()
    C = A @ A.T
    C[0, 1] *= 1 + 1e-7
    D = Gaussian(torch.zeros(20), C)
    assert torch.isfinite(D.flow(normal(3, 20), 1.0, 0.0)).all()
