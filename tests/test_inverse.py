"""Measurements by the row, and solvers of inverse problems on points too large for a matrix: beside dense algebra."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from contracts import check_denoiser
from torch import Tensor

from optimal import OptimalDenoiser, karras, sample, trajectory
from optimal.conditional import diffpir, dps, pigdm
from optimal.conditional.systems import Decomposed, Masked, Products, System, system_of
from optimal.reference import Gaussian

Normal = Callable[..., Tensor]
NOISE, SIGMA, EVENT = 0.7, 0.9, (2, 3, 4)
SOLVERS: dict[str, Callable[..., Any]] = {"dps": dps, "pigdm": pigdm, "diffpir": diffpir}
LARGE = (3, 64, 64)


@pytest.fixture
def data(normal: Normal) -> Tensor:
    return normal(40, *EVENT)


def blurred(x: Tensor) -> Tensor:
    return torch.nn.functional.avg_pool2d(x, 2, stride=1)


def posterior(data: Tensor, y: Tensor, A: Callable[[Tensor], Tensor], precision: Tensor) -> Tensor:
    """p(x0 = y_j | y) in float64, noise of any precision (m, m), from differences."""
    residual = (A(data.double()) - y.double()).flatten(1)
    return (-torch.einsum("ni,ij,nj->n", residual, precision, residual) / 2).softmax(0)


def mask_of(kind: str) -> Tensor:
    if kind == "all":
        return torch.ones(EVENT, dtype=torch.bool)
    if kind == "none":
        return torch.zeros(EVENT, dtype=torch.bool)
    return torch.rand(EVENT, generator=torch.Generator().manual_seed(3)) < 0.5


@pytest.mark.parametrize("kind", ["some", "all", "none"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.uint8])
def test_the_posterior_by_brute_force(kind: str, dtype: torch.dtype, normal: Normal) -> None:
    """Of data in each precision, with copies, under masks that show all and nothing; and E[x0 | x, y] of it."""
    given = normal(30, *EVENT)
    given[7] = given[21] = given[3]
    given = (60 * given + 127).clamp(0, 255).to(torch.uint8) if dtype == torch.uint8 else given.to(dtype)
    clean = (given.float() / 127.5 - 1).double() if dtype == torch.uint8 else given.double()
    mask, y, x = mask_of(kind), clean[3] + 0.5 * normal(*EVENT), clean[:4] + SIGMA * normal(4, *EVENT)
    M = OptimalDenoiser(given).measured(mask, y, NOISE)
    share = posterior(clean, y[mask], lambda x: x[:, mask], torch.eye(int(mask.sum())).double() / NOISE**2)
    assert (M.log_weights.exp() - share).abs().max() <= 1e-13
    assert float(share[3]) == pytest.approx(float(share[7]), abs=1e-15)
    away = -(x[:, None] - clean).flatten(2).square().sum(2) / (2 * SIGMA**2)
    weights = (away + share.log()).softmax(1)
    tolerance = 1e-12 if dtype == torch.float64 else 1e-9
    assert (M(x, SIGMA) - torch.einsum("bn,n...->b...", weights, clean)).abs().max() <= tolerance
    # log p(y | x) = log Σ_j p(j | x) p(y | j), normalised in y.
    likelihood = -(clean - y)[:, mask].square().sum(1) / (2 * NOISE**2)
    likelihood -= int(mask.sum()) * math.log(NOISE * math.sqrt(2 * math.pi))
    expected = (away.log_softmax(1) + likelihood).logsumexp(1)
    assert (M.log_probability(x, SIGMA) - expected).abs().max() <= 1e-11


def test_noise_that_is_correlated_is_whitened(data: Tensor, normal: Normal) -> None:
    """η = L ε: operator L⁻¹A and observation L⁻¹y, noise 1."""
    A, L, y = normal(5, 24), torch.tril(normal(5, 5)) + 3 * torch.eye(5, dtype=torch.float64), normal(5)
    M = OptimalDenoiser(data).measured(torch.linalg.solve(L, A), torch.linalg.solve(L, y), 1.0)
    share = posterior(data, y, lambda x: x.flatten(1) @ A.T, torch.linalg.inv(L @ L.T))
    assert (M.log_weights.exp() - share).abs().max() <= 1e-13


@pytest.mark.parametrize("kind", ["mask", "matrix", "function"])
def test_rows_have_observations_of_their_own(kind: str, data: Tensor, normal: Normal) -> None:
    D, x, levels = OptimalDenoiser(data), normal(3, *EVENT), torch.tensor([0.4, 0.9, 3.0], dtype=torch.float64)
    operators: dict[str, Any] = {"mask": mask_of("some"), "matrix": normal(5, 24), "function": blurred}
    seen = {"mask": normal(3, *EVENT), "matrix": normal(3, 5), "function": blurred(data[:3]) + 0.1}
    operator, y = operators[kind], seen[kind]
    rows = D.measured(operator, y, NOISE, rows=True)
    single = [D.measured(operator, one, NOISE) for one in y]
    for ask in ("__call__", "score", "log_probability"):
        alone = torch.cat([getattr(M, ask)(x[b : b + 1], levels[b]) for b, M in enumerate(single)])
        assert torch.equal(getattr(rows, ask)(x, levels), alone)
    post = rows.posterior(x, levels)
    assert torch.equal(post.mean, rows(x, levels))
    assert post.top_index.tolist() == [
        int(M.posterior(x[b : b + 1], levels[b]).top_index) for b, M in enumerate(single)
    ]
    assert torch.equal(rows.log_weights, torch.stack([M.log_weights for M in single]))
    assert [M.log_evidence for M in rows.rows] == [M.log_evidence for M in single]
    given = D.observed(torch.stack([M.log_likelihood for M in single]), rows=True)
    assert torch.equal(given(x, levels), rows(x, levels))
    for solver in SOLVERS.values():
        found = solver(D, EVENT, operator, y, NOISE, rows=True)(x, levels)
        alone = torch.cat([solver(D, EVENT, operator, one, NOISE)(x[b : b + 1], levels[b]) for b, one in enumerate(y)])
        assert (found - alone).abs().max() <= 1e-12
    ends = sample(rows, 3 * x, karras(6, sigma_max=3.0))
    assert (ends - data[D.nearest(ends)]).abs().max() <= 1e-2


def test_a_row_is_drawn_from_its_own_posterior(data: Tensor) -> None:
    D = OptimalDenoiser(data)
    rows = D.measured(mask_of("all"), data[[5, 11, 5]], 1e-3, rows=True)
    assert rows.drawn(torch.Generator().manual_seed(0)).tolist() == [5, 11, 5]
    assert "given 3 measurements" in repr(rows)
    assert len(rows) == 40
    check_denoiser(D.measured(mask_of("all"), data[[5]], 1.0, rows=True).rows[0], EVENT)
    none = D.measured(mask_of("all"), data[:0], 1.0, rows=True)
    assert none(data[:0], SIGMA).shape == (0, *EVENT)
    assert none.posterior(data[:0], SIGMA).entropy.shape == none.log_probability(data[:0], SIGMA).shape == (0,)
    assert none.log_weights.shape == (0, 40)
    assert none.drawn(torch.Generator()).shape == (0,)


@pytest.mark.parametrize(
    ("operator", "observation", "rows", "sentence"),
    [
        (
            mask_of("all"),
            torch.zeros(3, *EVENT),
            False,
            r"shape \(2, 3, 4\), got \(3, 2, 3, 4\); one a row takes",
        ),
        (mask_of("all"), torch.zeros(EVENT), True, r"must have shape \(2, 3, 4\), one a row, got \(2, 3, 4\)"),
        (torch.ones(5, 24), torch.zeros(3, 5), False, r"gives, \(5,\), got \(3, 5\); one a row takes rows=True"),
        (torch.ones(5, 24), torch.zeros(3, 4), True, r"operator gives, \(5,\), one a row, got \(3, 4\)"),
        (blurred, torch.zeros(()), True, r"observation must be one a row, \(B, \*out\), got shape \(\)"),
        (mask_of("all"), torch.full((3, *EVENT), torch.nan), True, "observation must be finite"),
    ],
)
def test_rows_that_are_refused(operator: Any, observation: Tensor, rows: Any, sentence: str, data: Tensor) -> None:
    D = OptimalDenoiser(data)
    with pytest.raises(ValueError, match=sentence):
        D.measured(operator, observation, NOISE, rows=rows)
    with pytest.raises(ValueError, match=sentence):
        dps(D, EVENT, operator, observation, NOISE, rows=rows)


def test_other_rows_than_observations_are_refused(data: Tensor) -> None:
    D, y = OptimalDenoiser(data), torch.zeros(3, *EVENT)
    ways = [D.measured(mask_of("all"), y, NOISE, rows=True)]
    ways += [solver(D, EVENT, mask_of("all"), y, NOISE, rows=True) for solver in SOLVERS.values()]
    for way in ways:
        with pytest.raises(ValueError, match="observation must be one a row: 3 of them for 5 rows"):
            way(data[:5], SIGMA)
    with pytest.raises(ValueError, match=r"log_likelihood must be one a row, \(B, 40\), got shape \(40,\)"):
        D.observed(np.zeros(40), rows=True)


def halved(x: Tensor) -> Tensor:
    return torch.nn.functional.avg_pool2d(x, 2)


def smeared(x: Tensor) -> Tensor:
    """A blur that keeps the size: as many values as there are."""
    kernel = torch.tensor([1.0, 4.0, 6.0, 4.0, 1.0], dtype=x.dtype, device=x.device) / 16
    weight = torch.outer(kernel, kernel).expand(x.shape[1], 1, 5, 5)
    return torch.nn.functional.conv2d(x, weight, padding=2, groups=x.shape[1])


def pull_of(system: System, mean: Tensor) -> Tensor:
    return system.pull(mean, NOISE**2, torch.tensor([0.0, 0.3, 40.0], dtype=torch.float64))


@pytest.mark.parametrize("operator", [halved, smeared])
def test_products_alone_give_what_the_matrix_does(
    operator: Callable[[Tensor], Tensor], normal: Normal, monkeypatch: pytest.MonkeyPatch
) -> None:
    event, mean = (2, 6, 8), normal(3, 2, 6, 8)
    y = operator(normal(1, *event))[0] + 0.1
    whole = system_of(operator, y, event)
    monkeypatch.setattr("optimal.conditional.systems._WHOLE", 10)
    products = system_of(operator, y, event)
    matrix = operator(torch.eye(96, dtype=torch.float64).reshape(96, *event)).reshape(96, -1).T
    of_matrix = system_of(matrix, y.flatten(), event)
    assert isinstance(whole, Decomposed)
    assert isinstance(products, Products)
    assert isinstance(of_matrix, Products)
    expected = pull_of(whole, mean)
    for system in (products, of_matrix):
        assert (pull_of(system, mean) - expected).abs().max() <= 1e-9 * expected.abs().max()
        with torch.inference_mode():
            assert (pull_of(system, mean.clone()) - expected).abs().max() <= 1e-9 * expected.abs().max()


def test_large_points_are_never_made_a_matrix(normal: Normal) -> None:
    """64 x 64 in three colours, 12,288 values: a mask, a small image and a blur; a matrix would be 1.2 GB."""
    D, x = OptimalDenoiser(normal(6, *LARGE).float()), normal(2, *LARGE)
    mask = torch.rand(LARGE, generator=torch.Generator().manual_seed(3)) < 0.5
    for operator, y, kind in (
        (mask, x[0], Masked),
        (halved, halved(x)[0], Products),
        (smeared, smeared(x)[0], Products),
    ):
        assert isinstance(system_of(operator, y, LARGE), kind)
        for solver in SOLVERS.values():
            assert solver(D, LARGE, operator, y, NOISE)(x, SIGMA).isfinite().all()
    # A A^T of halved is I/4: by hand.
    square = SIGMA**2
    mean = D(x, SIGMA)
    back = torch.nn.functional.interpolate(halved(x)[:1] - halved(mean), scale_factor=2) / 4
    expected = mean + square * back / (NOISE**2 + square / 4)
    assert (diffpir(D, LARGE, halved, halved(x)[0], NOISE)(x, SIGMA) - expected).abs().max() <= 1e-9


def test_large_operators_that_are_refused(normal: Normal) -> None:
    D, y = OptimalDenoiser(normal(3, *LARGE).float()), torch.zeros(LARGE)
    for operator, sentence in (
        (lambda x: smeared(x.detach()), "operator must have gradients where its matrix has more than 4,194,304 values"),
        (lambda x: smeared(x) + x - x.detach(), "operator must be linear here, its gradient is not its transpose"),
        (lambda x: smeared(x) + 1, "operator must be linear here, of a sum of points"),
        (lambda x: x.square(), "operator must be linear here, of a sum of points"),
    ):
        with pytest.raises(ValueError, match=sentence):
            pigdm(D, LARGE, operator, y, NOISE)
    hopeless = system_of(lambda x: smeared(smeared(smeared(x))), y, LARGE)
    with pytest.raises(ValueError, match="noise must not be that small beside the operator: after 2,000 steps"):
        hopeless.pull(normal(1, *LARGE), 1e-18, torch.ones(1).double())


def test_the_published_steps_are_these_shares_of_the_pull(data: Tensor, normal: Normal) -> None:
    """One step in the papers' own x_t = x/√(1 + σ²), written as published, beside the shares that the module names."""
    D, matrix, y = OptimalDenoiser(data), normal(5, 24), normal(5)
    # Where the posterior is spread: D moves with x.
    high, low, v = 3.0, 2.0, 1.0
    x = data[:3] + high * normal(3, *EVENT)
    now, then = (1 / math.sqrt(1 + level**2) for level in (high, low))
    x_t = (now * x).requires_grad_()
    clean = D(x_t / now, high)
    residual = y - clean.flatten(1) @ matrix.T
    noise_in = (x_t - now * clean) / (now * high)
    ddim = (then * clean + then * low * noise_in).detach()
    euler = D(x, high) + low / high * (x - D(x, high))
    problem = (D, EVENT, matrix, y, NOISE)

    (gradient,) = torch.autograd.grad(residual.flatten(1).norm(dim=1).sum(), x_t, retain_graph=True)
    at = x.clone().requires_grad_()
    (own,) = torch.autograd.grad((y - D(at, high).flatten(1) @ matrix.T).norm(dim=1).sum(), at)
    assert own.abs().max() > 0.1
    published = (ddim - 0.3 * gradient) / then
    assert (published - (euler - 0.3 / (now * then) * own)).abs().max() <= 1e-12
    # Whose direction is that of the pull, C Aᵀ(y − A D)/s² of dps, times s² ζ/(σ² ‖y − A D‖).
    pull = dps(*problem)(x, high) - D(x, high)
    length = residual.detach().norm(dim=1).reshape(-1, 1, 1, 1)
    assert (pull * NOISE**2 / (high**2 * length) + own).abs().max() <= 1e-12

    square = high**2 * v / (high**2 + v)
    inner = (
        torch.linalg.solve(square * matrix @ matrix.T + NOISE**2 * torch.eye(5).double(), residual.detach().T).T
        @ matrix
    )
    (gradient,) = torch.autograd.grad(clean, x_t, inner.reshape(x.shape))
    published = (ddim + now * then * square * gradient) / then
    pull = pigdm(*problem, variance=v)(x, high) - D(x, high)
    assert (published - (euler + v / (high**2 + v) * pull)).abs().max() <= 1e-12

    guess = diffpir(*problem)(x, high)
    published = (then * guess + then * low * (now * x - now * guess) / (now * high)) / then
    steps = torch.tensor([high, low, 0.0], dtype=torch.float64)
    ours = [state.x for state in trajectory(diffpir(*problem), x, steps, solver="euler")][1]
    assert (published - ours).abs().max() <= 1e-12


def test_an_exact_covariance_gives_an_exact_mean(normal: Normal) -> None:
    """x0 ~ N(m, v I) of a denoiser: pigdm with its v is E[x0 | x, y], with a mask, a matrix and by products alone."""
    v, mean = 0.6, normal(*EVENT)
    D = Gaussian(mean.flatten(), v * torch.eye(24, dtype=torch.float64))
    flat = (24,)
    mask, matrix, x = mask_of("some").flatten(), normal(7, 24), 2 * normal(5, 24)
    chosen = torch.eye(24, dtype=torch.float64)[mask]
    for A, operator, y in ((chosen, mask, normal(24)), (matrix, matrix, normal(7))):
        seen = y[mask] if operator is mask else y
        precision = (1 / v + 1 / SIGMA**2) * torch.eye(24, dtype=torch.float64) + A.T @ A / NOISE**2
        expected = torch.linalg.solve(precision, (mean.flatten() / v + x / SIGMA**2 + A.T @ seen / NOISE**2).T).T
        assert (pigdm(D, flat, operator, y, NOISE, variance=v)(x, SIGMA) - expected).abs().max() <= 1e-12
        assert (dps(D, flat, operator, y, NOISE)(x, SIGMA) - expected).abs().max() > 1e-2
