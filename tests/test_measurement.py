"""The optimum given a measurement: its identities, by hand, and what it refuses."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from contracts import check_denoiser
from torch import Tensor

from neural import derivatives, open_model
from optimal import FlowMap, OptimalDenoiser, karras, load, orbit, sample
from optimal.conditional import diffpir, dps, pigdm
from optimal.reference import Gaussian

Normal = Callable[..., Tensor]
NOISE, SIGMA = 0.7, 0.9


@pytest.fixture
def data(normal: Normal) -> Tensor:
    return normal(40, 2, 3, 4)


def by_hand(data: Tensor, a: Tensor, x: Tensor, sigma: float) -> tuple[Tensor, Tensor]:
    """E[x0 | x, y] and log p(y | x), from differences, with the log-likelihoods a."""
    logits = -(x.flatten(1)[:, None] - data.flatten(1)).square().sum(2) / (2 * sigma**2)
    mean = (logits + a).softmax(1) @ data.flatten(1)
    return mean.reshape(x.shape), (logits.log_softmax(1) + a).logsumexp(1)


def normal_density(residual: Tensor, noise: float) -> Tensor:
    """log N(residual; 0, noise² I), of rows."""
    flat = residual.flatten(1)
    return -flat.square().sum(1) / (2 * noise**2) - flat.shape[1] * math.log(noise * math.sqrt(2 * math.pi))


def blurred(x: Tensor) -> Tensor:
    return torch.nn.functional.avg_pool2d(x, 2, stride=1)


def halved(x: Tensor) -> Tensor:
    return x[..., ::2, ::2]


def crossed(x: Tensor) -> Tensor:
    """No linear one: values of 0 axes."""
    return x.flatten(1).square().sum(1).sqrt()


@pytest.mark.parametrize("operator", [blurred, halved, crossed])
def test_any_function_of_batches(data: Tensor, operator: Callable[[Tensor], Tensor], normal: Normal) -> None:
    x = data[:6] + SIGMA * normal(6, 2, 3, 4)
    y = operator(data[7:8])[0] + 0.1
    a = normal_density((operator(data) - y).reshape(40, -1), NOISE)
    M = OptimalDenoiser(data).measured(operator, y, NOISE)
    mean, log_probability = by_hand(data, a, x, SIGMA)
    assert (M(x, SIGMA) - mean).abs().max() <= 1e-12
    assert (M.log_probability(x, SIGMA) - log_probability).abs().max() <= 1e-12 * y.numel() * 10
    assert (M.log_likelihood - a).abs().max() <= 1e-12 * a.abs().max()
    assert (M.log_weights - a.log_softmax(0)).abs().max() <= 1e-12 * a.abs().max()
    assert M.log_evidence == pytest.approx(float(a.logsumexp(0)) - math.log(40), abs=1e-12)
    assert torch.equal(M.posterior(x, SIGMA).mean, M(x, SIGMA))
    assert (M.score(x, SIGMA) - (mean - x) / SIGMA**2).abs().max() <= 1e-11


def test_a_mask_a_matrix_and_a_function_are_one(data: Tensor, normal: Normal) -> None:
    """Under the mask, what it hides is not looked at."""
    mask = torch.rand(2, 3, 4, generator=torch.Generator().manual_seed(3)) < 0.5
    matrix = torch.eye(24)[mask.flatten()]
    y, x = normal(2, 3, 4), normal(5, 2, 3, 4)
    D = OptimalDenoiser(data)
    answers = [
        D.measured(mask, torch.where(mask, y, torch.nan), NOISE),
        D.measured(matrix, y[mask].numpy(), NOISE),
        D.measured(lambda x: x[:, mask], y[mask], NOISE),
    ]
    for M in answers[1:]:
        assert (M(x, SIGMA) - answers[0](x, SIGMA)).abs().max() <= 1e-12
        assert (M.log_likelihood - answers[0].log_likelihood).abs().max() <= 1e-12


def test_the_identity_is_two_observations(data: Tensor, normal: Normal) -> None:
    """A = I is D at the noise level (1/σ² + 1/s²)^−½, of the mean of both with these weights; so are the densities."""
    D, x, y = OptimalDenoiser(data), normal(5, 2, 3, 4), normal(2, 3, 4)
    for operator in (torch.ones(2, 3, 4, dtype=torch.bool), torch.eye(24, dtype=torch.float64)):
        M = D.measured(operator, y if operator.dtype == torch.bool else y.flatten(), NOISE)
        for sigma in (0.1, SIGMA, 30.0):
            precision = 1 / sigma**2 + 1 / NOISE**2
            both = (x / sigma**2 + y / NOISE**2) / precision
            expected = D.posterior(both, precision**-0.5)
            assert (M(x, sigma) - expected.mean).abs().max() <= 1e-12
            # N(x; x0, σ²) N(y; x0, s²) = N(both; x0, 1/precision) N(x; y, σ² + s²).
            joint = expected.log_density + normal_density(x - y, math.hypot(sigma, NOISE))
            found = M.log_probability(x, sigma) + D.posterior(x, sigma).log_density
            assert (found - joint).abs().max() <= 1e-12 * joint.abs().max().clamp_min(1)


def test_nothing_seen_is_the_optimum(data: Tensor, normal: Normal) -> None:
    D, x = OptimalDenoiser(data), normal(5, 2, 3, 4)
    nothing = torch.zeros(2, 3, 4, dtype=torch.bool)
    hidden = D.measured(nothing, torch.full((2, 3, 4), torch.nan), NOISE)
    assert (hidden.log_evidence, hidden.log_probability(x, SIGMA).abs().max()) == (pytest.approx(0, abs=1e-13), 0)
    for M in (hidden, D.measured(torch.zeros(3, 24), torch.ones(3), NOISE)):
        assert torch.equal(M(x, SIGMA), D(x, SIGMA))


def test_two_points_by_hand() -> None:
    """±u, of which y = A x0 + η is seen: tanh(u x/σ² + A u y/s²)."""
    u, A, y = 0.8, 1.5, 0.3
    M = OptimalDenoiser(torch.tensor([[u], [-u]], dtype=torch.float64)).measured(
        torch.tensor([[A]], dtype=torch.float64), torch.tensor([y], dtype=torch.float64), NOISE
    )
    x = torch.linspace(-3, 3, 13, dtype=torch.float64)[:, None]
    expected = u * torch.tanh(u * x / SIGMA**2 + A * u * y / NOISE**2)
    assert (M(x, SIGMA) - expected).abs().max() <= 1e-13
    first = 1 / (1 + math.exp(-2 * A * u * y / NOISE**2))
    assert M.log_weights.exp().tolist() == pytest.approx([first, 1 - first], abs=1e-13)


def test_the_gradient_of_the_likelihood_is_the_difference_of_the_optima(data: Tensor, normal: Normal) -> None:
    D, x = OptimalDenoiser(data), (data[:4] + SIGMA * normal(4, 2, 3, 4)).requires_grad_()
    M = D.measured(blurred, blurred(data[:1])[0], NOISE)
    (gradient,) = torch.autograd.grad(M.log_probability(x, SIGMA).sum(), x)
    z = x.detach()
    assert (gradient - (M(z, SIGMA) - D(z, SIGMA)) / SIGMA**2).abs().max() <= 1e-12
    step = torch.zeros_like(z)
    step[:, 1, 2, 0] = 1e-5
    differences = (M.log_probability(z + step, SIGMA) - M.log_probability(z - step, SIGMA)) / 2e-5
    assert (differences - gradient[:, 1, 2, 0]).abs().max() <= 1e-8


def test_measurements_add_up_and_keep_the_prior(data: Tensor, normal: Normal) -> None:
    """Of a denoiser with a prior and without some points; a second measurement of the first one's optimum."""
    prior = normal(40)
    prior[::3] = -torch.inf
    D, x = OptimalDenoiser(data).weighted(prior), normal(5, 2, 3, 4)
    first, second = halved(data[:1])[0], blurred(data[1:2])[0]
    M = D.measured(halved, first, NOISE)
    both = M.optimum.measured(blurred, second, 0.4)
    a = normal_density(halved(data) - first, NOISE)
    b = normal_density(blurred(data) - second, 0.4)
    log_prior = prior.log_softmax(0)
    assert (both(x, SIGMA) - by_hand(data, prior + a + b, x, SIGMA)[0]).abs().max() <= 1e-12
    assert M.log_evidence == pytest.approx(float((log_prior + a).logsumexp(0)), abs=1e-11)
    assert M.log_evidence + both.log_evidence == pytest.approx(float((log_prior + a + b).logsumexp(0)), abs=1e-10)
    assert (M.log_likelihood[::3] == -torch.inf).all()
    given = D.observed(a)
    assert (given(x, SIGMA) - M(x, SIGMA)).abs().max() <= 1e-12
    assert given.log_evidence == pytest.approx(M.log_evidence, abs=1e-12)


def test_draws_follow_the_posterior_and_the_flow_lands_on_its_points(data: Tensor) -> None:
    D = OptimalDenoiser(data)
    M = D.measured(halved, halved(data[3:4])[0], 2.0)
    share = M.log_weights.exp()
    generator = torch.Generator().manual_seed(0)
    counts = M.drawn(20_000, generator).bincount(minlength=40)
    expected = 20_000 * share
    usual = expected > 5
    statistic = float(((counts - expected).square() / expected)[usual].sum())
    assert statistic <= 2.5 * int(usual.sum())
    only = D.observed(torch.where(torch.arange(40) == 11, 0.0, -torch.inf))
    x = 80 * torch.randn(3, 2, 3, 4, generator=generator, dtype=torch.float64)
    assert FlowMap(only.optimum).index(x, 80.0).tolist() == [11] * 3
    assert (sample(only, x, karras(6)) - data[11]).abs().max() <= 1e-12


def test_images_kept_as_bytes_are_measured_in_blocks(normal: Normal, monkeypatch: pytest.MonkeyPatch) -> None:
    images = (60 * normal(50, 1, 6, 6) + 127).clamp(0, 255).to(torch.uint8)
    asked = []

    def operator(x: Tensor) -> Tensor:
        asked.append((len(x), x.dtype))
        return halved(x)

    clean = (images.float() / 127.5 - 1).double()
    a = normal_density(halved(clean) - 0.1, 0.3)
    monkeypatch.setattr("optimal.measurement._BLOCK_BYTES", 8 * 36 * 16)
    M = OptimalDenoiser(images).measured(operator, torch.full((1, 3, 3), 0.1, dtype=torch.float64), 0.3)
    assert asked == [(16, torch.float64)] * 3 + [(2, torch.float64)]
    assert (M.log_likelihood - a).abs().max() <= 1e-12 * a.abs().max()


def test_it_is_a_denoiser(data: Tensor) -> None:
    M = OptimalDenoiser(data).measured(halved, halved(data[:1])[0], NOISE)
    check_denoiser(M, (2, 3, 4))
    assert len(M) == 40
    assert "given a measurement" in repr(M)


def test_digits_of_which_the_upper_half_is_seen() -> None:
    data = load("digits")
    D, mask = OptimalDenoiser(data), torch.zeros(1, 8, 8, dtype=torch.bool)
    mask[:, :4] = True
    M = D.measured(mask, data[7], 0.05)
    assert int(M.log_weights.argmax()) == 7
    assert int(M.optimum.posterior(torch.zeros(1, 1, 8, 8), 80.0).top_index) == 7
    assert M.log_evidence > D.measured(mask, -data[7], 0.05).log_evidence


def test_an_orbit_of_what_was_measured_is_refused(data: Tensor, normal: Normal) -> None:
    """The mirror image of a point is not as likely as the point; where it is, and where it is data, there is a way."""
    D, x = OptimalDenoiser(data), normal(5, 2, 3, 4)
    M = D.measured(halved, halved(data[7:8])[0], NOISE)
    knowing: Any
    for knowing in (M, M.optimum, M.optimum.weighted(torch.zeros(40)), M.optimum.without(3)):
        with pytest.raises(ValueError, match="D must not know an observation, which tells a point from its images"):
            orbit(knowing, "flip")
    doubled = OptimalDenoiser(torch.cat([data, data.flip(-1)]))
    alike = crossed(data[7:8])[0]
    by_weights = orbit(D.weighted(D.measured(crossed, alike, NOISE).log_likelihood), "flip")
    assert (by_weights(x, SIGMA) - doubled.measured(crossed, alike, NOISE)(x, SIGMA)).abs().max() <= 1e-12
    # What it would have answered, taking the likelihood of a point for that of its mirror image.
    wrong = orbit(D.weighted(M.log_likelihood), "flip")
    assert (wrong(x, SIGMA) - doubled.measured(halved, halved(data[7:8])[0], NOISE)(x, SIGMA)).abs().max() > 0.1
    # Priors, classes and points left out belong to the images of a point as well.
    assert len(orbit(D.weighted(normal(40)).without(3), "flip")) == 80


MASK = torch.ones(2, 3, 4, dtype=torch.bool)
POINT = torch.zeros(2, 3, 4)


@pytest.mark.parametrize(
    ("operator", "observation", "noise", "sentence"),
    [
        (MASK[0], POINT, 1.0, r"operator, a mask, must have the shape of a point, \(2, 3, 4\), got \(3, 4\)"),
        (MASK, POINT[0], 1.0, r"observation under a mask must have shape \(2, 3, 4\), got \(3, 4\)"),
        (POINT, POINT, 1.0, r"operator must be a mask of bools \(2, 3, 4\) or a real matrix \(m, 24\), got"),
        (torch.ones(5, 23), torch.ones(5), 1.0, r"operator must be .* got torch.float32 of shape \(5, 23\)"),
        (torch.full((5, 24), torch.inf), torch.ones(5), 1.0, "operator must be finite, the matrix has values"),
        (torch.ones(5, 24), torch.ones(4), 1.0, r"the shape that the operator gives, \(5,\), got \(4,\)"),
        (blurred, torch.ones(2, 2, 2), 1.0, r"the shape that the operator gives, \(2, 2, 3\), got \(2, 2, 2\)"),
        (torch.sum, torch.tensor(1.0), 1.0, r"operator must make a real tensor \(B, \*out\) .* shape \(\) for B"),
        (lambda x: x.numpy(), POINT, 1.0, r"operator must make a real tensor .* got ndarray for B = 40"),
        (lambda x: x / 0, POINT, 1.0, "operator must give finite values within .* of point 0 it does not"),
        ("blur", POINT, 1.0, "operator must be a mask, a matrix or a function, got str"),
        (MASK, torch.full((2, 3, 4), torch.nan), 1.0, "observation must be finite"),
        (MASK, POINT, 0.0, "noise must be positive and finite, got 0: of an exact observation, D.observed takes 0"),
        (MASK, POINT, -1.0, "noise must be positive and finite, got -1"),
        (MASK, POINT, math.nan, "noise must be positive and finite, got nan"),
        (MASK, POINT, torch.ones(2), r"noise must have shape \(\) or \(B,\), got \(2,\) with B = 1"),
        (MASK, POINT, 1e-100, "noise must not be that small, 1e-100"),
    ],
)
def test_what_is_refused(data: Tensor, operator: Any, observation: Any, noise: Any, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        OptimalDenoiser(data).measured(operator, observation, noise)


@pytest.mark.parametrize("a", [np.zeros(3), np.full(40, -np.inf), np.full(40, np.nan), [0.0] * 40])
def test_log_likelihoods_are_checked_as_log_weights_are(data: Tensor, a: Any) -> None:
    with pytest.raises(ValueError, match="log_weights must"):
        OptimalDenoiser(data).observed(a)


def solver_of(name: str, D: Any, event: tuple[int, ...], *problem: Any) -> Any:
    return {"dps": dps, "pigdm": pigdm, "diffpir": diffpir}[name](D, event, *problem)


def test_dps_is_the_gradient_of_the_likelihood_at_the_mean(data: Tensor, normal: Normal) -> None:
    D, x = OptimalDenoiser(data), (data[:4] + SIGMA * normal(4, 2, 3, 4)).requires_grad_()
    y = blurred(data[9:10])[0]
    guess = normal_density(blurred(D(x, SIGMA)) - y, NOISE)
    (gradient,) = torch.autograd.grad(guess.sum(), x)
    z = x.detach()
    expected = D(z, SIGMA) + SIGMA**2 * gradient
    with torch.no_grad():
        assert (dps(D, (2, 3, 4), blurred, y, NOISE)(z, SIGMA) - expected).abs().max() <= 1e-12


def test_pigdm_is_exact_where_the_points_are_an_isotropic_gaussian(normal: Normal) -> None:
    """x0 ~ N(m, v I): Cov[x0 | x] is σ² v/(σ² + v) I, as it takes for granted; E[x0 | x, y] from the precisions."""
    v, mean, matrix, y, x = 0.6, normal(6), normal(3, 6), normal(3), 2 * normal(5, 6)
    D = Gaussian(mean, v * torch.eye(6, dtype=torch.float64))
    for sigma in (0.1, 1.0, 20.0):
        precision = (1 / v + 1 / sigma**2) * torch.eye(6, dtype=torch.float64) + matrix.T @ matrix / NOISE**2
        expected = torch.linalg.solve(precision, (mean / v + x / sigma**2 + matrix.T @ y / NOISE**2).T).T
        assert (pigdm(D, (6,), matrix, y, NOISE, variance=v)(x, sigma) - expected).abs().max() <= 1e-12
        assert (pigdm(D, (6,), matrix, y, NOISE)(x, sigma) - expected).abs().max() > 1e-4


def test_diffpir_is_the_proximal_step(data: Tensor, normal: Normal) -> None:
    D, x, y, strength = OptimalDenoiser(data), 2 * normal(5, 2, 3, 4), blurred(data[9:10])[0], 3.0
    z = diffpir(D, (2, 3, 4), blurred, y, NOISE, strength)(x, SIGMA).requires_grad_()
    cost = (blurred(z) - y).square().sum() / NOISE**2 + strength * (z - D(x, SIGMA)).square().sum() / SIGMA**2
    (slope,) = torch.autograd.grad(cost, z)
    assert slope.abs().max() <= 1e-11


@pytest.mark.parametrize("name", ["dps", "pigdm", "diffpir"])
def test_an_estimate_is_a_denoiser_and_of_nothing_seen_the_optimum(name: str, data: Tensor, normal: Normal) -> None:
    D, event, x = OptimalDenoiser(data), (2, 3, 4), normal(5, 2, 3, 4)
    nothing = solver_of(name, D, event, torch.zeros(2, 24), torch.ones(2), NOISE)
    assert (nothing(x, SIGMA) - D(x, SIGMA)).abs().max() <= 1e-15
    mask = torch.rand(event, generator=torch.Generator().manual_seed(3)) < 0.5
    y = data[4]
    one = solver_of(name, D, event, mask, y, NOISE)(x, SIGMA)
    other = solver_of(name, D, event, lambda x: x[:, mask], y[mask], NOISE)(x, SIGMA)
    assert (one - other).abs().max() <= 1e-12
    rows = solver_of(name, D, event, mask, y, NOISE)
    levels = torch.linspace(0.5, 2, 5, dtype=torch.float64)
    single = torch.cat([rows(x[i : i + 1], levels[i]) for i in range(5)])
    assert (rows(x, levels) - single).abs().max() <= 1e-12
    assert rows(x.float(), SIGMA).dtype == torch.float32
    assert rows(x[:0], SIGMA).shape == (0, 2, 3, 4)
    with torch.inference_mode():
        assert torch.equal(rows(x.clone(), SIGMA), rows(x, SIGMA))
    assert sample(rows, 3 * x, karras(5, sigma_max=3.0)).isfinite().all()


@pytest.mark.parametrize("name", ["dps", "pigdm", "diffpir"])
def test_what_estimates_refuse(name: str, data: Tensor) -> None:
    D, event = OptimalDenoiser(data), (2, 3, 4)
    for operator, observation, sentence in (
        (crossed, torch.tensor(1.0), "operator must be linear here, of a sum of points"),
        (lambda x: x.flatten(1) + 1, torch.ones(24), "operator must be linear here"),
        (lambda x: x.flatten(1) / 0, torch.ones(24), "operator must give finite values, of a point it does not"),
        (MASK[0], POINT, "operator, a mask, must have the shape of a point"),
        (MASK, torch.full(event, torch.nan), "observation must be finite"),
    ):
        with pytest.raises(ValueError, match=sentence):
            solver_of(name, D, event, operator, observation, NOISE)
    with pytest.raises(ValueError, match="noise must be positive and finite, got 0"):
        solver_of(name, D, event, MASK, POINT, 0.0)
    with pytest.raises(ValueError, match=r"x must have shape \(B, 2, 3, 4\)"):
        solver_of(name, D, event, MASK, POINT, 1.0)(torch.zeros(2, 3), 1.0)
    if name != "diffpir":
        with pytest.raises(ValueError, match="D must have gradients to x, the answer of function has none"):
            solver_of(name, lambda x, sigma: D(x.detach(), sigma), event, MASK, POINT, 1.0)(POINT[None], 1.0)
    if name != "dps":
        with pytest.raises(ValueError, match=r"(variance|strength) must be positive and finite, got -1"):
            {"pigdm": pigdm, "diffpir": diffpir}[name](D, event, MASK, POINT, 1.0, -1.0)


def test_a_network_is_asked_for_its_gradients() -> None:
    F, y = open_model("pretrained:digits", device="cpu"), torch.zeros(1, 8, 8)
    x, mask = torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(0)), torch.ones(1, 8, 8).bool()
    pushed = dps(F, (1, 8, 8), mask, y, 2.0)
    with pytest.raises(ValueError, match="D must have gradients to x, the answer of Model has none"):
        pushed(x, 1.0)
    with torch.no_grad(), derivatives():
        assert (pushed(x, 1.0) - F(x, 1.0)).norm() > 0.01
    assert diffpir(F, (1, 8, 8), mask, y, 2.0)(x, 1.0).square().sum() < F(x, 1.0).square().sum()


def test_the_jacobian_of_a_network_is_that_of_differences() -> None:
    """Cov[x0 | x] Aᵀ … is σ² times the gradient of ⟨D, u⟩, which a network answers within `derivatives`."""
    F = open_model("pretrained:digits", device="cpu")
    data, mask = load("digits"), torch.zeros(1, 8, 8, dtype=torch.bool)
    mask[:, :3] = True
    y, x = data[5], data[6][None] + SIGMA * torch.randn(1, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    with derivatives():
        moved = dps(F, (1, 8, 8), mask, y, NOISE)(x.double(), SIGMA) - F(x.double(), SIGMA)
    towards = (mask * (y - F(x, SIGMA))).double() / NOISE**2
    step = torch.zeros_like(x, dtype=torch.float64)
    for place in ((0, 0, 2, 3), (0, 0, 6, 4)):
        step.zero_()[place] = 1e-2
        change = (F(x.double() + step, SIGMA) - F(x.double() - step, SIGMA)) / 2e-2
        assert float((change * towards).sum()) * SIGMA**2 == pytest.approx(float(moved[place]), rel=0.02, abs=1e-3)
    start = 80 * torch.randn(4, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    with derivatives():
        seen = sample(pigdm(F, (1, 8, 8), mask, y, NOISE), start, karras(12))
    unseen = sample(F, start, karras(12))
    assert not seen.requires_grad
    assert (mask * (seen - y)).norm() < (mask * (unseen - y)).norm()


def test_the_referee_tells_them_apart() -> None:
    """Two points, seen halfway between them: Cov[x0 | x] = 0.64, and each estimate by hand beside the exact one."""
    u, s = torch.tensor([[0.8], [-0.8]], dtype=torch.float64), 1.0
    D, matrix, y = OptimalDenoiser(u), torch.ones(1, 1, dtype=torch.float64), torch.tensor([0.3])
    M, x = D.measured(matrix, y, s), torch.zeros(1, 1, dtype=torch.float64)
    pull, square = float(y) / s**2, SIGMA**2
    assert float(M(x, SIGMA)) == pytest.approx(0.8 * math.tanh(0.8 * pull), abs=1e-12)
    found = {name: float(solver_of(name, D, (1,), matrix, y, s)(x, SIGMA)) for name in ("dps", "pigdm", "diffpir")}
    spread = square / (square + 1)
    expected = {"dps": 0.64 * pull, "pigdm": 0.64 * float(y) / (s**2 + spread), "diffpir": float(y) * spread}
    assert found == pytest.approx(expected, abs=1e-7)
