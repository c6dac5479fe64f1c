"""Guidance of two denoisers: its identities, its interval, what it is not, and networks."""

from __future__ import annotations

import copy
import math
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from contracts import check_denoiser
from problems import absolute_error, row_error
from torch import Tensor

from neural import open_model
from optimal import (
    FlowMap,
    Guided,
    OptimalDenoiser,
    basins,
    certify,
    collapse_border,
    effective_counts,
    guided,
    karras,
    load,
    orbit,
    sample,
    sample_in_span,
    seeking_refining_border,
)
from optimal.conditional import bandwidth, held_out_risk, mean_influence, split_stability
from optimal.reference import Gaussian
from optimal.regimes import top_eigenvalue

Normal = Callable[..., Tensor]


class Asked:
    """A denoiser that counts its calls, and notes at which level the first row was."""

    def __init__(self, D: Any):
        self.D, self.calls = D, 0
        self.levels: list[float] = []

    def __call__(self, x: Tensor, sigma: Any) -> Tensor:
        self.calls += 1
        self.levels.append(float(torch.as_tensor(sigma).flatten()[0]))
        return self.D(x, sigma)


@pytest.fixture
def classes(normal: Normal) -> tuple[Tensor, Tensor]:
    """Points of two classes, near enough to each other that both share in a posterior."""
    return normal(12, 3) + 0.5, normal(20, 3) - 0.5


@pytest.mark.parametrize("sigma", [0.05, 0.5, 1.0, 4.0, 80.0])
@pytest.mark.parametrize("weight", [-1.0, 0.5, 1.5, 3.0, 12.0])
def test_of_hard_labels_it_is_the_error_that_the_classifier_says(
    classes: tuple[Tensor, Tensor], sigma: float, weight: float, normal: Normal
) -> None:
    """D_w − D_c = (w − 1)(1 − P(c | x))(D_c − D_¬c), P(c | x) from the weights of the points of the class."""
    own, others = classes
    D, inside, outside = (OptimalDenoiser(points) for points in (torch.cat([own, others]), own, others))
    x = torch.cat([own, others]) + sigma * normal(32, 3)
    share = D.weights(x, sigma)[:, : len(own)].sum(1)
    error = (weight - 1) * (1 - share)[:, None] * (inside(x, sigma) - outside(x, sigma))
    found = guided(inside, D, weight)(x, sigma)
    assert absolute_error(found, inside(x, sigma) + error).max() <= 1e-13 * (1 + abs(weight))
    # The same as one that is guided by all others, of a weight of each x's own.
    other = guided(inside, outside, 1 + (weight - 1) * (1 - share))(x, sigma)
    assert absolute_error(found, other).max() <= 1e-13 * (1 + abs(weight))
    if 0.5 <= sigma <= 4:
        assert error.norm(dim=1).max() > 0.01


def test_the_tilted_posterior_of_hard_labels_is_the_class_and_of_soft_ones_is_not(normal: Normal) -> None:
    """p_w(x0) ∝ p(x0) p(c | x0)^w on the points: of labels of 0 and 1 no weight matters."""
    points, x, weight = normal(9, 2), normal(7, 2), 3
    for labels, hard in (((normal(9) > 0).double(), True), (torch.sigmoid(normal(9)), False)):
        logits = -torch.cdist(x, points).square() / 2
        tilted = (logits + weight * labels.log()).softmax(1) @ points
        of_class = (logits + labels.log()).softmax(1) @ points
        assert (absolute_error(tilted, of_class).max() <= 1e-14) == hard
        without = logits.softmax(1) @ points
        pushed = guided(lambda x, sigma, c=of_class: c, lambda x, sigma, u=without: u, weight)(x, 1.0)
        assert absolute_error(pushed, tilted).max() > 0.05


def test_of_digits_it_is_the_error_that_the_exact_classifier_says(normal: Normal) -> None:
    data = load("digits")
    D, label = OptimalDenoiser(data), 3
    own = torch.from_numpy(data.classes) == label
    others = D.weighted(torch.where(own, -torch.inf, 0.0).double())
    x = data.points[:40].double() + 0.9 * normal(40, 1, 8, 8)
    share = D.class_log_probabilities(x, 0.9)[:, int((D.classes == label).nonzero())].exp().view(-1, 1, 1, 1)
    given = D.given(label)
    error = (4.0 - 1) * (1 - share) * (given(x, 0.9) - others(x, 0.9))
    assert absolute_error(guided(given, D, 4.0)(x, 0.9), given(x, 0.9) + error).max() <= 1e-11
    # A label for every row, and a weight.
    labels, weights = torch.arange(40) % 10, torch.linspace(0, 3, 40)
    rows = [
        guided(D.given(c), D, w)(x[i : i + 1], 0.9)
        for i, (c, w) in enumerate(zip(labels.tolist(), weights.tolist(), strict=True))
    ]
    assert absolute_error(guided(D.given(labels), D, weights)(x, 0.9), torch.cat(rows)).max() <= 1e-11


def test_two_points_in_closed_form() -> None:
    """One point a class, ±u: D_w = u (w + (1 − w) tanh(x u/σ²))."""
    u, weight = torch.tensor([[0.7]], dtype=torch.float64), 2.5
    D = guided(OptimalDenoiser(u), OptimalDenoiser(torch.cat([u, -u])), weight)
    x = torch.linspace(-3, 3, 13, dtype=torch.float64)[:, None]
    expected = 0.7 * (weight + (1 - weight) * torch.tanh(0.7 * x / 0.64))
    assert absolute_error(D(x, 0.8), expected).max() <= 1e-14


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_weights_one_and_nought_are_the_two_denoisers_to_the_bit(
    classes: tuple[Tensor, Tensor], dtype: torch.dtype, normal: Normal
) -> None:
    own, others = classes
    given, without = Asked(OptimalDenoiser(own)), Asked(OptimalDenoiser(torch.cat([own, others])))
    x = (2 * normal(6, 3)).to(dtype)
    assert torch.equal(guided(given, without, 1.0)(x, 0.7), given.D(x, 0.7))
    assert (given.calls, without.calls) == (1, 0)
    assert torch.equal(guided(given, without, 0.0)(x, 0.7), without.D(x, 0.7))
    assert (given.calls, without.calls) == (1, 1)
    weights = torch.tensor([1.0, 0.0, 2.0, 1.0, 0.5, 0.0])
    mixed = guided(given, without, weights)(x, 0.7)
    assert mixed.dtype == dtype
    assert torch.equal(mixed[[0, 3]], given.D(x, 0.7)[[0, 3]])
    assert torch.equal(mixed[[1, 5]], without.D(x, 0.7)[[1, 5]])
    for row, weight in ((2, 2.0), (4, 0.5)):
        assert row_error(mixed[row : row + 1], guided(given, without, weight)(x, 0.7)[row : row + 1]).max() <= 1e-7


def test_outside_of_its_interval_it_is_the_conditional_one(classes: tuple[Tensor, Tensor], normal: Normal) -> None:
    """lo < σ <= hi, row by row; where no row is inside, the other denoiser is not asked."""
    own, others = classes
    given, without = OptimalDenoiser(own), Asked(OptimalDenoiser(torch.cat([own, others])))
    x, sigma = 2 * normal(5, 3), torch.tensor([0.2, 0.5, 0.7, 2.0, 2.1], dtype=torch.float64)
    D, always = guided(given, without, 3.0, interval=(0.5, 2.0)), guided(given, without, 3.0)
    found = D(x, sigma)
    assert torch.equal(found[[0, 1, 4]], given(x, sigma)[[0, 1, 4]])
    assert torch.equal(found[2:4], always(x, sigma)[2:4])
    assert row_error(found[2:4], given(x, sigma)[2:4]).min() > 1e-3
    without.calls = 0
    D(x, 0.5)
    D(x, 2.0001)
    assert without.calls == 0


@pytest.mark.parametrize(
    ("solver", "options"),
    [("heun", {}), ("dpm_solver", {"order": 2}), ("edm_stochastic", {"S_churn": 2.0}), ("dpm_solver_pp", {})],
)
def test_a_step_takes_the_weight_of_the_level_that_it_asks_at(
    normal: Normal, solver: str, options: dict[str, Any]
) -> None:
    """(lo, hi] of Kynkäänniemi et al.: also where a step begins on one side of an end and asks again on the other."""
    u = torch.tensor([[1.0]], dtype=torch.float64)
    given, without = Asked(OptimalDenoiser(u)), Asked(OptimalDenoiser(torch.cat([u, -u])))
    sigmas = torch.tensor([8.0, 4.0, 2.0, 1.0, 0.5, 0.0], dtype=torch.float64)
    D = guided(given, without, 3.0, interval=(1.0, 4.0))
    sample(D, 8 * normal(3, 1), sigmas, solver=solver, generator=torch.Generator().manual_seed(1), **options)
    assert without.levels == [sigma for sigma in given.levels if 1 < sigma <= 4]
    assert 1.0 in given.levels
    assert 0 < len(without.levels) < len(given.levels)
    between = set(given.levels) - set(sigmas.tolist())
    assert bool(between) == (solver in ("dpm_solver", "edm_stochastic"))
    if solver == "heun":
        # Every level but the first and the last is asked twice: by the step that ends there, and by that which starts.
        assert given.levels == [8.0, 4.0, 4.0, 2.0, 2.0, 1.0, 1.0, 0.5, 0.5]
        assert without.levels == [4.0, 4.0, 2.0, 2.0]


def test_edges_of_the_interval_are_those_of_the_paper(classes: tuple[Tensor, Tensor], normal: Normal) -> None:
    own, others = classes
    given, without = OptimalDenoiser(own), OptimalDenoiser(torch.cat([own, others]))
    D, x = guided(given, without, 3.0, interval=(0.5, 2.0)), 2 * normal(6, 3)
    ends = torch.tensor([0.5, math.nextafter(0.5, 1), 2.0, math.nextafter(2.0, 3), 0.01, 80.0], dtype=torch.float64)
    inside = torch.tensor([False, True, True, False, False, False])
    always = guided(given, without, 3.0)
    assert torch.equal(D(x, ends), torch.where(inside[:, None], always(x, ends), given(x, ends)))
    assert torch.equal(guided(given, without, 3.0, (0.0, math.inf))(x, ends), always(x, ends))


def test_it_is_no_posterior(classes: tuple[Tensor, Tensor]) -> None:
    D = guided(OptimalDenoiser(classes[0]), OptimalDenoiser(torch.cat(classes)), 2.0)
    public = {name for name in dir(D.conditional) if not name.startswith("_")} - {"event"}
    for name in sorted(public | {"log_density", "entropy", "effective_count"}):
        assert not hasattr(D, name)
        with pytest.raises(AttributeError, match=f"a guided denoiser has no {name}: .* mean of no distribution"):
            getattr(D, name)
    with pytest.raises(AttributeError, match="'Guided' object has no attribute 'anything'"):
        D.anything  # noqa: B018
    x = torch.ones(2, 3)
    for other in (copy.deepcopy(D), pickle.loads(pickle.dumps(D))):
        assert torch.equal(other(x, 0.7), D(x, 0.7))


ASKED: dict[str, Callable[[Any], object]] = {
    "border": seeking_refining_border,
    "collapse": collapse_border,
    "counts": lambda D: effective_counts(D, [1.0]),
    "held-out risk": lambda D: held_out_risk(D, 1.0),
    "influence": lambda D: mean_influence(D, 1.0),
    "stability": lambda D: split_stability(D, 1.0),
    "bandwidth": bandwidth,
    "eigenvalue": top_eigenvalue,
    "span": lambda D: sample_in_span(D, torch.ones(1, 3), karras(4)),
    "certify": lambda D: certify(D, torch.ones(1, 3), 1.0, torch.tensor([0])),
    "basins": lambda D: basins(D, n=4, generator=torch.Generator()),
    "flow": FlowMap,
    "index": lambda D: FlowMap(D, karras(4)).index(torch.ones(1, 3), 1.0),
    "orbit": lambda D: orbit(D, "flip"),
}


@pytest.mark.parametrize("question", ASKED)
def test_what_asks_for_a_posterior_refuses_it_in_a_sentence(classes: tuple[Tensor, Tensor], question: str) -> None:
    D = guided(OptimalDenoiser(classes[0]), OptimalDenoiser(torch.cat(classes)), 2.0)
    with pytest.raises(ValueError, match=r"a guided denoiser has no|OptimalDenoiser, got Guided|D is Guided") as caught:
        ASKED[question](D)
    assert "\n" not in str(caught.value)


def test_what_is_proven_of_the_class_is_not_of_the_guided_flow() -> None:
    """x is captured by a point of the class, at this σ already; guided, it goes to the other one."""
    own, other = torch.tensor([[0.41, -1.84], [0.88, 3.26]]).double(), torch.tensor([[0.58, -2.43]]).double()
    inside, D = OptimalDenoiser(own), OptimalDenoiser(torch.cat([own, other]))
    x, sigma = torch.tensor([[-1.82, -0.97]], dtype=torch.float64), 2.56
    assert bool(certify(inside, x, sigma, torch.tensor([0])).holds)
    grid = karras(200, sigma_min=1e-3, sigma_max=sigma)
    for weight, end in ((1.0, 0), (8.0, 1)):
        landing = FlowMap(guided(inside, D, weight), grid).land(x, sigma)
        assert absolute_error(landing.x, own[end : end + 1]).max() <= 1e-6
        # And it says of itself that nothing is known.
        assert landing.index.tolist() == [-1]
        assert landing.captured.isnan().all()


def test_its_flow_need_not_end_on_a_data_point() -> None:
    """At w = ¼ of two points ±1, one a class: −½ is nearer to −1, and there D_w = ¼ − ¾ = −½."""
    own, both = torch.tensor([[1.0]]).double(), torch.tensor([[1.0], [-1.0]]).double()
    D = guided(OptimalDenoiser(own), OptimalDenoiser(both), 0.25)
    ends = sample(D, torch.tensor([[-3.0], [3.0]], dtype=torch.float64), karras(60, sigma_min=1e-3, sigma_max=1.0))
    assert absolute_error(ends, torch.tensor([[-0.5], [1.0]])).max() <= 1e-6


def test_it_is_sampled_like_any_other(classes: tuple[Tensor, Tensor], normal: Normal) -> None:
    own, others = classes
    D = guided(OptimalDenoiser(own), OptimalDenoiser(torch.cat([own, others])), 2.0, interval=(0.3, 10.0))
    check_denoiser(D, (3,))
    noises = 80 * normal(16, 3)
    ends = sample(D, noises, karras(18))
    assert torch.equal(ends, FlowMap(D, karras(18))(noises, 80.0))
    assert row_error(ends, own[torch.cdist(ends, own).argmin(1)]).median() <= 1e-3
    x = normal(4, 3).requires_grad_()
    gradient = torch.autograd.grad(D(x, 1.0).sum(), x)[0]
    parts = [torch.autograd.grad(part(x, 1.0).sum(), x)[0] for part in (D.unconditional, D.conditional)]
    assert row_error(gradient, parts[0] + 2 * (parts[1] - parts[0])).max() <= 1e-12


def test_linear_denoisers_are_guided_to_a_shifted_mean(normal: Normal) -> None:
    """Of two Gaussians of one covariance guidance is the Gaussian whose mean is extrapolated as much."""
    covariance = torch.diag(torch.tensor([1.0, 0.25], dtype=torch.float64))
    means, x = normal(2, 2), normal(9, 2)
    both = [Gaussian(mean, covariance) for mean in means]
    moved = Gaussian(means[0] + 2.5 * (means[1] - means[0]), covariance)
    assert row_error(guided(both[1], both[0], 2.5)(x, 0.6), moved(x, 0.6)).max() <= 1e-12


@pytest.mark.slow
def test_a_network_given_labels_is_guided(normal: Normal) -> None:
    model = open_model("pretrained:digits-classes", device="cpu")
    x, labels = (0.7 * normal(6, 1, 8, 8)).float(), torch.tensor([0, 1, 2, 3, 4, 5])
    D = guided(model.given(labels), model, 2.0, interval=(0.1, 5.0))
    assert D.event == (1, 8, 8)
    assert (D.sigma_min, D.sigma_max) == (model.sigma_min, model.sigma_max)
    given, without = model.given(labels)(x, 0.7), model(x, 0.7)
    assert row_error(D(x, 0.7), without + 2 * (given - without)).max() <= 1e-6
    assert torch.equal(D(x, 0.1), model.given(labels)(x, 0.1))
    assert row_error(D(x, 0.7), given).min() > 1e-3


def test_what_is_refused(normal: Normal) -> None:
    flat, image = OptimalDenoiser(normal(3, 2)), OptimalDenoiser(normal(3, 1, 2, 2))
    with pytest.raises(ValueError, match=r"points of one shape, got \(2,\) and \(1, 2, 2\)"):
        guided(flat, image, 2.0)
    with pytest.raises(ValueError, match=r"must answer in one shape, got \(4, 2\) and \(4, 1\)"):
        guided(flat, lambda x, sigma: x[:, :1], 2.0)(normal(4, 2), 1.0)
    with pytest.raises(ValueError, match="unconditional must be a denoiser"):
        guided(flat, torch.ones(2), 2.0)  # pyright: ignore
    for weight, message in (
        (math.nan, "weight must be finite, got nan"),
        (torch.tensor([1.0, math.inf]), "weight must be finite, got inf"),
        (torch.ones(2, 2), r"weight must have shape \(\) or \(B,\), got \(2, 2\)"),
        ("two", "weight must be a number, or one a row, got 'two'"),
    ):
        with pytest.raises(ValueError, match=message):
            guided(flat, flat, weight)  # pyright: ignore
    for interval in ((2.0, 1.0), (1.0, 1.0), (-1.0, 1.0), (math.nan, 1.0)):
        with pytest.raises(ValueError, match=r"interval must be \(lo, hi\) with 0 <= lo < hi"):
            guided(flat, flat, 2.0, interval)
    with pytest.raises(ValueError, match=r"interval must be \(lo, hi\), two noise levels, got"):
        guided(flat, flat, 2.0, 3.0)  # pyright: ignore
    with pytest.raises(ValueError, match="weight must be one, or one a row: 3 of them for 4 rows"):
        guided(flat, flat, torch.ones(3) * 2)(normal(4, 2), 1.0)
    assert isinstance(guided(flat, flat, 2.0), Guided)
