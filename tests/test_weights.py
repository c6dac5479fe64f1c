"""Prior log-weights: D(x, σ) = Σ w_j y_j with w_j ∝ exp(a_j − ‖x − y_j‖²/2σ²), by every way to sum, and around it.

Events have 1 or 63 values where KeOps is one of the ways, which adds one: its formulas are those of tests/formulas.py.
"""

from __future__ import annotations

import itertools
import math
import pickle
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from optimal import (
    Dataset,
    FlowMap,
    OptimalDenoiser,
    ShardedDenoiser,
    basins,
    capture,
    certify,
    forward_statistics,
    karras,
    orbit,
    sample,
    sample_in_span,
)
from optimal.datasets import to_float
from optimal.draws import draw_indexed
from optimal.evaluate import screened
from optimal.regimes import top_eigenvalue
from optimal.span import landed

sys.path.insert(0, str(Path(__file__).parents[1] / "bench"))

import proof as cases

Normal = Callable[..., Tensor]


@pytest.fixture(params=[0, 3000], ids=["by bytes", "in float64"])
def few(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Queries end in products of bytes, or in float64."""
    monkeypatch.setattr(screened, "_few", lambda points: min(request.param, points.size))


def reference(data: Tensor, log_weights: Tensor, x: Tensor, sigma: float | Tensor) -> dict[str, Tensor]:
    """The posterior from differences of points, in float64."""
    y, queries = data.double().flatten(1), x.double().flatten(1)
    levels = torch.as_tensor(sigma, dtype=torch.float64).expand(len(x))
    logits = -(queries[:, None] - y).square().sum(2) / (2 * levels[:, None].square())
    logits = logits + log_weights - log_weights.logsumexp(0)
    total = logits.logsumexp(1)
    weights = (logits - total[:, None]).exp()
    mean = weights @ y
    return {
        "mean": mean.reshape(x.shape),
        "log_density": total - y.shape[1] * (0.5 * math.log(2 * math.pi) + levels.log()),
        "entropy": -torch.special.xlogy(weights, weights).sum(1),
        "variance": (weights * (y - mean[:, None]).square().sum(2)).sum(1),
        "top_weight": weights.amax(1),
        "weights": weights,
    }


def drawn_weights(normal: Normal, n: int, scale: float) -> Tensor:
    """Gaussian log-weights, a fifth of them −inf."""
    a = scale * normal(n)
    a[:: max(5, n // 3)] = -torch.inf
    return a


def close(D: OptimalDenoiser, data: Tensor, a: Tensor, x: Tensor, sigma: float, tolerance: float) -> None:
    expected, found = reference(data, a, x, sigma), D.posterior(x, sigma)
    size = data.double().abs().max()
    assert (found.mean.double() - expected["mean"]).abs().max() <= tolerance * size
    for name in ("log_density", "entropy", "top_weight"):
        off = (getattr(found, name) - expected[name]).abs() / expected[name].abs().clamp_min(1)
        assert off.max() <= 10 * tolerance, (name, sigma)
    assert (D.weights(x, sigma).double() - expected["weights"]).abs().max() <= 10 * tolerance
    best = expected["weights"].gather(1, found.top_index[:, None]).squeeze(1)
    assert (best >= expected["top_weight"] * (1 - 10 * tolerance)).all()


@pytest.mark.parametrize("scale", [0.3, 3.0, 1e4])
@pytest.mark.parametrize("event", [(1,), (63,), (1, 7, 9)])
def test_float64_is_the_formula(normal: Normal, method: str, event: tuple[int, ...], scale: float) -> None:
    data = normal(60, *event)
    a = drawn_weights(normal, 60, scale)
    D = OptimalDenoiser(data, method=method).weighted(a)
    for sigma in (0.05, 0.7, 20.0):
        close(D, data, a, data[:5] + sigma * normal(5, *event), sigma, 1e-12)


@pytest.mark.parametrize("scale", [0.3, 30.0])
def test_images_in_float32(normal: Normal, method: str, scale: float) -> None:
    images = (60 * normal(200, 1, 7, 9) + 127).clamp(0, 255).to(torch.uint8)
    data = to_float(images)
    a = drawn_weights(normal, 200, scale)
    D = OptimalDenoiser(images, method=method).weighted(a)
    for sigma in (0.01, 0.3, 2.0, 50.0):
        x = (data[:6] + sigma * normal(6, 1, 7, 9)).float()
        close(D, data, a, x, sigma, 2e-4)
        found = D.posterior(x, sigma)
        if method == "screened":
            error = (found.mean.double() - reference(data, a, x, sigma)["mean"]).flatten(1).norm(dim=1)
            # Beside the bound, the rounding of the answer to float32.
            assert (error <= (found.error_bound + 2.0**-23) * found.mean.flatten(1).norm(dim=1).double()).all()


def test_the_bound_holds_under_a_prior_made_to_break_it(normal: Normal, monkeypatch: pytest.MonkeyPatch) -> None:
    """A prior that undoes the distances, as computed: all points weigh the same, and every rounding counts in full."""
    images = (60 * normal(400, 1, 16, 16) + 127).clamp(0, 255).to(torch.uint8)
    data = to_float(images).double()
    for few in (0, 3000):
        monkeypatch.setattr(screened, "_few", lambda points, few=few: min(few, points.size))
        for sigma in (0.02, 0.5, 5.0):
            x = (data[:1] + sigma * normal(1, 1, 16, 16)).float()
            a = (x.double() - data).flatten(1).square().sum(1) / (2 * sigma**2)
            D = OptimalDenoiser(images, method="screened").weighted(a)
            found, expected = D.posterior(x.double().float(), sigma), reference(data, a, x, sigma)["mean"]
            error = (found.mean.double() - expected).norm()
            assert error <= (found.error_bound[0] + 2.0**-23) * expected.norm(), (few, sigma)
            assert found.error_bound[0] <= 1e-3


def test_a_constant_changes_nothing(normal: Normal) -> None:
    data, x = normal(50, 30), normal(7, 30)
    D = OptimalDenoiser(data)
    same = D.weighted(torch.full((50,), -3.7))
    assert torch.equal(same(x, 0.5), D(x, 0.5))
    assert torch.equal(same.posterior(x, 0.5).log_density, D.posterior(x, 0.5).log_density)
    a = normal(50)
    some, more = (D.weighted(b).posterior(x, 0.5) for b in (a, a + 1e3))
    assert (some.mean - more.mean).abs().max() <= 1e-12
    assert (some.log_density - more.log_density).abs().max() <= 1e-10


def test_log_two_is_a_point_twice_and_whole_numbers_are_copies(normal: Normal, method: str) -> None:
    data, x = normal(20, 63), normal(9, 63)
    counts = torch.arange(20) % 4
    repeated = OptimalDenoiser(data.repeat_interleave(counts, 0)).posterior(x, 3.0)
    weighted = OptimalDenoiser(data, method=method).weighted(counts.double().log()).posterior(x, 3.0)
    assert (repeated.mean - weighted.mean).abs().max() <= 1e-12
    assert (repeated.log_density - weighted.log_density).abs().max() <= 1e-11
    assert (repeated.variance - weighted.variance).abs().max() <= 1e-11


def test_minus_infinity_is_the_data_without_the_point(normal: Normal, method: str) -> None:
    data, x = normal(40, 64), normal(9, 64)
    kept = torch.arange(40) % 3 != 0
    a = torch.where(kept, 0.0, -torch.inf).double()
    D, part = OptimalDenoiser(data, method=method).weighted(a), OptimalDenoiser(data[kept], method=method)
    assert (D(x, 2.0) - part(x, 2.0)).abs().max() <= 1e-12
    which = kept.nonzero().squeeze(1)
    found, of_part = D.posterior(x, 2.0), part.posterior(x, 2.0)
    assert torch.equal(found.top_index, which[of_part.top_index])
    assert torch.equal(D.nearest(x), which[part.nearest(x)])
    assert torch.equal(D.neighbours(x, 3)[0], which[part.neighbours(x, 3)[0]])
    assert torch.equal(D.take(found.top_index), part.take(of_part.top_index))
    assert torch.equal(D.weights(x, 2.0)[:, ~kept], torch.zeros(9, 14, dtype=torch.float64))
    assert len(D) == 40
    assert (D.mean - data[kept].mean(0)).abs().max() <= 1e-14
    assert D.standard_deviation == pytest.approx(part.standard_deviation, rel=1e-12)
    assert torch.equal(D.log_weights.exp() > 0, kept)


def test_copies_of_one_point_may_weigh_differently(normal: Normal, method: str) -> None:
    data = torch.cat([normal(4, 63)] * 3)
    a = 5 * normal(12)
    D = OptimalDenoiser(data, method=method).weighted(a)
    for sigma in (1e-3, 0.3):
        close(D, data, a, data[:4] + sigma * normal(4, 63), sigma, 1e-10)
    found = D.posterior(data[:4], 1e-3).top_index
    best = torch.stack([a[i::4].argmax() * 4 + i for i in range(4)])
    assert torch.equal(found, best)


def test_weights_multiply(normal: Normal) -> None:
    data, x, a, b = normal(30, 5), normal(4, 5), drawn_weights(normal, 30, 1.0), drawn_weights(normal, 30, 2.0)
    D = OptimalDenoiser(data)
    assert (D.weighted(a).weighted(b)(x, 1.0) - D.weighted(a + b)(x, 1.0)).abs().max() <= 1e-13


def test_moments_of_the_prior(normal: Normal) -> None:
    data, a = normal(50, 3), normal(50)
    D = OptimalDenoiser(data).weighted(a)
    weights = a.softmax(0)
    mean = weights @ data
    covariance = (data - mean).T @ ((data - mean) * weights[:, None])
    assert (D.mean - mean).abs().max() <= 1e-14
    assert D.standard_deviation == pytest.approx(math.sqrt(float(covariance.trace()) / 3), rel=1e-12)
    assert top_eigenvalue(D) == pytest.approx(float(torch.linalg.eigvalsh(covariance)[-1]), rel=1e-12)
    large = torch.cat([data, torch.zeros(50, 1100, dtype=torch.float64)], 1)
    assert top_eigenvalue(OptimalDenoiser(large).weighted(a)) == pytest.approx(top_eigenvalue(D), rel=1e-5)
    # As σ → ∞ the posterior is the prior.
    assert (D(mean[None] + 1.0, 1e6)[0] - mean).abs().max() <= 1e-6
    assert (D.posterior(mean[None], 1e6).entropy[0] + (weights * weights.log()).sum()).abs() <= 1e-6


def test_derivatives_are_those_of_the_weighted_density(normal: Normal, method: str) -> None:
    data, a, x = normal(30, 63), normal(30), normal(3, 63).requires_grad_()
    D = OptimalDenoiser(data, method=method).weighted(a)
    post = D.posterior(x, 3.0)
    (gradient,) = torch.autograd.grad(post.log_density.sum(), x, retain_graph=True)
    assert (gradient - D.score(x, 3.0)).abs().max() <= 1e-12
    v = normal(3, 63)
    (jacobian,) = torch.autograd.grad(post.mean, x, v)
    assert (jacobian * 9 - D.covariance_product(x, 3.0, v)).abs().max() <= 1e-11
    w = D.weights(x.detach(), 3.0)
    rest = data - post.mean.detach()[:, None]
    expected = (w[:, :, None] * rest * (rest * v[:, None]).sum(2, keepdim=True)).sum(1)
    assert (D.covariance_product(x, 3.0, v) - expected).abs().max() <= 1e-11


def test_the_data_are_shared_not_copied(tmp_path: Path, normal: Normal) -> None:
    images = (60 * normal(300, 1, 8, 8) + 127).clamp(0, 255).to(torch.uint8)
    np.save(tmp_path / "images.npy", images.numpy())
    mapped = OptimalDenoiser(np.load(tmp_path / "images.npy", mmap_mode="r"), memory=10_000)
    assert mapped.points.streamed
    a = drawn_weights(normal, 300, 2.0)
    D, x = mapped.weighted(a), normal(3, 1, 8, 8)
    assert D.points.streamed
    assert (D(x, 1.0) - OptimalDenoiser(images).weighted(a)(x, 1.0)).abs().max() <= 1e-12
    again = pickle.loads(pickle.dumps(D))
    assert torch.equal(again(x, 1.0), D(x, 1.0))
    whole = mapped.weighted(normal(300))
    assert whole.points.rows is mapped.points.rows
    assert whole.points.half_norms is mapped.points.half_norms


def test_surroundings_change_nothing(normal: Normal) -> None:
    data, a = normal(80, 40).float(), 3 * normal(80)
    x = (data[:9] + 0.2 * normal(9, 40)).float()
    D = OptimalDenoiser(data).weighted(a)
    expected = D(x, 0.2)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(D(x, 0.2), expected)
    order = torch.from_numpy(np.random.default_rng(0).permutation(80))
    other = OptimalDenoiser(data[order]).weighted(a[order])
    assert (other(x, 0.2) - expected).abs().max() <= 1e-5
    assert torch.equal(order[other.posterior(x, 0.2).top_index], D.posterior(x, 0.2).top_index)
    assert (torch.cat([D(row[None], 0.2) for row in x]) - expected).abs().max() <= 1e-5
    units = OptimalDenoiser(1e12 * data.double()).weighted(a)
    assert (units(1e12 * x.double(), 2e11) / 1e12 - D(x.double(), 0.2)).abs().max() <= 1e-10


@pytest.mark.parametrize("seed", range(4))
def test_the_flow_ends_where_a_fine_integration_does(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    data = torch.randn(5, 2, generator=generator, dtype=torch.float64)
    a = torch.tensor([0.0, 0.0, 2.0, -3.0, -torch.inf], dtype=torch.float64)
    D = OptimalDenoiser(data).weighted(a)
    x, level = 3 * torch.randn(24, 2, generator=generator, dtype=torch.float64), 3.0
    landing, state = FlowMap(D).land(x, level), x.clone()
    levels = torch.logspace(math.log10(level), -4, 600, dtype=torch.float64).tolist()
    for high, low in itertools.pairwise(levels):
        middle = math.sqrt(high * low)
        half = reference(data, a, state, high)["mean"]
        half = half + (middle / high) * (state - half)
        mean = reference(data, a, half, middle)["mean"]
        state = mean + (low / high) * (state - mean)
    distance = torch.cdist(state, data)
    decided = distance.amin(1) < 1e-2
    assert decided.sum() >= 20
    assert torch.equal(landing.index[decided], distance.argmin(1)[decided])
    assert not (landing.index == 4).any()
    # What was certain on the way, of any point, is where it ends.
    for sigma, at in ((3.0, x), (landing.captured.mean().item(), data[landing.index] + 0.1)):
        for k in range(4):
            holds = certify(D, at, sigma, torch.full((24,), k)).holds
            assert (FlowMap(D).index(at[holds], sigma) == k).all()


def test_certificates_of_a_point_with_hardly_any_probability() -> None:
    """At noise at which distances alone would make it certain, a prior against the point is not overcome."""
    data = torch.tensor([[-1.0], [1.0]], dtype=torch.float64)
    x, sigma = torch.tensor([[0.9]], dtype=torch.float64), 0.5
    D = OptimalDenoiser(data)
    one = torch.tensor([1])
    assert certify(D, x, sigma, one).holds
    against = D.weighted(torch.tensor([0.0, -20.0], dtype=torch.float64))
    assert FlowMap(against).index(x, sigma).item() == 0
    assert not certify(against, x, sigma, one).holds
    with pytest.raises(ValueError, match="point 1 has none"):
        certify(D.weighted(torch.tensor([0.0, -torch.inf])), x, sigma, one)


def test_basins_are_as_large_as_the_prior_says(normal: Normal) -> None:
    data = torch.tensor([[-1.0, 0.0], [1.0, 0.0], [0.0, 1.5], [1.0, 0.0], [9.0, 9.0]])
    a = torch.tensor([1.0, 0.0, 0.5, 0.7, -torch.inf])
    D = OptimalDenoiser(data).weighted(a)
    found = basins(D, 1500, torch.Generator().manual_seed(1), start="data", sigma_max=30.0)
    weights = a.double().softmax(0)
    expected = torch.stack([weights[0], weights[1] + weights[3], weights[2], *weights.new_zeros(2)])
    assert (found.probability - expected).abs().max() <= 1e-14
    assert torch.equal(found.copies, torch.tensor([1, 2, 1, 0, 0]))
    assert found.chi_square()[1] > 0.01
    equal = basins(OptimalDenoiser(data[:4]), 1500, torch.Generator().manual_seed(1), start="data", sigma_max=30.0)
    assert ((equal.counts - found.expected[:4]).abs() > 50).any()


def test_the_source_is_drawn_from_the_prior(normal: Normal) -> None:
    a = torch.tensor([0.0, -torch.inf, math.log(3.0), -torch.inf])
    D = OptimalDenoiser(normal(4, 3)).weighted(a)
    index = draw_indexed(D, None, 4000, None)[0]
    counts = index.bincount(minlength=4)
    assert counts[[1, 3]].sum() == 0
    assert abs(int(counts[2]) - 3000) < 120
    along = forward_statistics(D, torch.tensor([1e-3, 1e6]), draws=200)
    assert along.effective_count[0].max() == pytest.approx(1.0)
    assert along.effective_count[1].mean() == pytest.approx(
        math.exp(-0.25 * math.log(0.25) - 0.75 * math.log(0.75)), rel=1e-5
    )


def test_span_takes_the_prior(normal: Normal) -> None:
    """Few points in coordinates of their span; more are left to the exact denoiser."""
    data = normal(12, 3, 8, 8)
    a = drawn_weights(normal, 12, 3.0)
    D = OptimalDenoiser(data).weighted(a)
    x = 80 * normal(40, 3, 8, 8)
    found = sample_in_span(D, x, karras(12))
    assert torch.equal(found.index, landed(D, sample(D, x, karras(12))))
    assert (a[found.index[found.index >= 0]] > -torch.inf).all()
    exact = FlowMap(D).index(x, 80.0)  # 32 rows and more go by the span, fewer by the data.
    assert torch.equal(exact[:20], FlowMap(D).index(x[:20], 80.0))
    states = [type("State", (), {"x": data[[1, 2]], "sigma": 0.01})()]
    assert torch.equal(capture(D, states).index, torch.tensor([1, 2]))


@pytest.mark.parametrize("group", ["flip", "shifts"])
def test_orbits_of_weighted_points(normal: Normal, group: str) -> None:
    images = normal(12, 1, 3, 4)
    a = drawn_weights(normal, 12, 2.0)
    D = orbit(OptimalDenoiser(images).weighted(a), group)
    moved = [lambda y: y, lambda y: y.flip(-1)]
    if group == "shifts":
        moved = [lambda y, i=i, j=j: y.roll((i, j), (-2, -1)) for i in range(3) for j in range(4)]
    all_images = torch.cat([move(images) for move in moved])
    whole = OptimalDenoiser(all_images).weighted(a.repeat(len(moved)))
    x = all_images[:6] + 0.4 * normal(6, 1, 3, 4)
    found, expected = D.posterior(x, 0.4), whole.posterior(x, 0.4)
    for name in ("mean", "log_density", "entropy", "variance", "top_weight"):
        assert (getattr(found, name) - getattr(expected, name)).abs().max() <= 1e-11, name
    assert torch.equal(found.top_index, expected.top_index)
    assert torch.equal(D.nearest(x), whole.nearest(x))


@pytest.mark.usefixtures("few")
@pytest.mark.parametrize("prior", [name for name in cases.PRIORS if name != "none"])
@pytest.mark.parametrize("kind", ["ties", "noise"])
def test_the_bound_holds_in_exact_arithmetic(kind: str, prior: str) -> None:
    random = np.random.default_rng(sum(map(ord, kind + prior)))
    for query, sigma in itertools.product(("noisy", "a middle"), (1e-3, 1.0, 1e3)):
        images, x = cases.make(kind, query, 8, 300, sigma, random)
        error, bound = cases.error_over_bound(images, x, sigma, cases.PRIORS[prior](images, x, sigma, random))
        assert error <= bound, (query, sigma, error, bound)


@pytest.mark.parametrize(
    ("log_weights", "message"),
    [
        (torch.zeros(4), r"shape \(N,\), got \(4,\) with N = 3"),
        (torch.zeros(3, 1), r"shape \(N,\), got \(3, 1\)"),
        (torch.tensor([0.0, math.nan, 0.0]), "got nan at 1"),
        (torch.tensor([0.0, 0.0, math.inf]), "got inf at 2"),
        (torch.full((3,), -math.inf), "at least one point, all of them are -inf"),
        (torch.tensor([True, False, True]), "real numbers"),
        ([0.0, 0.0, 0.0], "tensor or array"),
        (np.array([0.0, 1e200, 0.0]), "at most 1e150"),
    ],
)
def test_bad_log_weights(log_weights: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        OptimalDenoiser(torch.eye(3)).weighted(log_weights)


def test_a_rank_alone_takes_every_prior(normal: Normal) -> None:
    data = Dataset("some", normal(6, 3).float().numpy(), np.arange(6) % 2)
    x, a = normal(2, 3), drawn_weights(normal, 6, 2.0)
    S, D = ShardedDenoiser(data), OptimalDenoiser(data)
    for ask in (
        lambda T: T.weighted(a).posterior(x, 1.0).log_density,
        lambda T: T.weighted(a).weighted(a)(x, 1.0),
        lambda T: T.weighted(a).weights(x, 1.0),
        lambda T: T.given(1)(x, 1.0),
        lambda T: T.given(torch.tensor([0, 1])).posterior(x, 1.0).log_density,
        lambda T: T.by_class(x, 1.0).log_probabilities,
        lambda T: T.without(0)(x, 1.0),
        lambda T: T.without(torch.tensor([0, 1])).posterior(x, 1.0).log_density,
        lambda T: T.weighted(a).mean,
    ):
        assert (ask(S) - ask(D)).abs().max() <= 1e-12
    assert torch.equal(S.log_weights, torch.full((6,), -math.log(6), dtype=torch.float64))


def test_no_point_is_left() -> None:
    a = torch.tensor([0.0, -math.inf, -math.inf])
    with pytest.raises(ValueError, match="none that has a probability is left"):
        OptimalDenoiser(torch.eye(3)).weighted(a).weighted(a.flip(0))
