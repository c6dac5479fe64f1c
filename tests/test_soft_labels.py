"""Soft labels: the tilted distribution on two points in closed form, where guidance goes instead, and their source."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from problems import absolute_error
from scipy.integrate import solve_ivp
from scipy.special import ndtr
from torch import Tensor

from optimal import Dataset, FlowMap, OptimalDenoiser, guided, karras, load
from optimal.conditional import landing_shares, soft_labels, tilted

Normal = Callable[..., Tensor]
TWO = OptimalDenoiser(torch.tensor([[-1.0], [1.0]], dtype=torch.float64))
LOG_P = torch.tensor([0.1, 0.9], dtype=torch.float64).log()
RATIO = math.log(9)


@pytest.mark.parametrize("weight", [-1.0, 0.0, 0.5, 1.0, 3.0, 8.0])
def test_two_points_in_closed_form(weight: float) -> None:
    """±1, p(c | ±1) = 0.9 and 0.1: tilted tanh(x/σ² + w δ), guided t(0) + w (t(δ) − t(0)), δ = ½ log 9."""
    x, sigma, delta = torch.linspace(-4, 4, 33, dtype=torch.float64)[:, None], 0.9, RATIO / 2
    s = x / sigma**2
    exact = tilted(TWO, LOG_P, weight)
    assert absolute_error(exact(x, sigma), torch.tanh(s + weight * delta)).max() <= 1e-14
    assert exact.log_weights.exp()[1] == pytest.approx(1 / (1 + 9.0**-weight), rel=1e-13)
    pushed = guided(tilted(TWO, LOG_P), TWO, weight)(x, sigma)
    assert absolute_error(pushed, torch.tanh(s) + weight * (torch.tanh(s + delta) - torch.tanh(s))).max() <= 1e-14
    apart = absolute_error(pushed, exact(x, sigma)).max()
    assert apart <= 1e-14 if weight in (0.0, 1.0) else apart > 0.02


def _share(weight: float, first: float) -> float:
    """P(the guided flow of the two points lands on 1), by the point that separates the two, followed up from σ = 0.

    With s = x/σ², D_w = tanh s + w (tanh(s + δ) − tanh s): dx/dσ = (x − D_w)/σ is ds/dσ = −s/σ − D_w/σ³, and s is
    where D_w = 0 at σ = 0.
    """
    delta = RATIO / 2

    def mean(s: float) -> float:
        return math.tanh(s) + weight * (math.tanh(s + delta) - math.tanh(s))

    low, high = -50.0, 50.0
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (low, middle) if mean(middle) > 0 else (middle, high)
    # In u = log σ it is stiff at the start only.
    found = solve_ivp(
        lambda u, s: [-s[0] - mean(s[0]) * math.exp(-2 * u)],
        (math.log(0.02), math.log(first)),
        [low],
        method="Radau",
        rtol=1e-9,
        atol=1e-14,
    )
    return float(ndtr(-float(found.y[0, -1]) * first))


def test_the_separating_point_gives_what_is_known_of_the_class() -> None:
    """The test of the reference: at w = 1 the guided flow is that of the class, of 0.9."""
    assert _share(1.0, 1e4) == pytest.approx(0.9, abs=1e-4)
    assert _share(0.0, 1e4) == pytest.approx(0.5, abs=1e-9)


@pytest.mark.parametrize(("weight", "apart"), [(-1.0, 0.1), (0.5, 0.02), (2.0, 0.003)])
def test_where_the_two_go(weight: float, apart: float) -> None:
    """The tilted flow lands on 1 with probability 1/(1 + 9^−w); the guided one with another, as its own ODE says."""
    sigmas, draws = karras(64, sigma_min=0.01, sigma_max=100.0), 4000
    found = landing_shares(guided(tilted(TWO, LOG_P), TWO, weight), TWO, sigmas, draws=draws)
    exact = landing_shares(tilted(TWO, LOG_P, weight), TWO, sigmas, draws=draws)
    known = 1 / (1 + 9.0**-weight)
    for share, expected in ((found[1], _share(weight, 100.0)), (exact[1], known)):
        # The last term is what is left of the mean of the data at σ = 100.
        assert abs(float(share) - expected) <= 4 * math.sqrt(expected * (1 - expected) / draws) + 4e-3
    assert found.sum() == exact.sum() == 1
    assert abs(_share(weight, 1e4) - known) > apart


def test_the_tilted_flow_lands_as_its_weights_say(normal: Normal) -> None:
    points, log_p = normal(6, 2), -normal(6).abs()
    D = OptimalDenoiser(points).weighted(normal(6))
    exact = tilted(D, log_p, 3.0)
    expected = (D.log_weights + 3 * log_p).softmax(0)
    assert absolute_error(exact.log_weights.exp(), expected).max() <= 1e-14
    found = FlowMap(exact).index(200 * normal(4000, 2), 200.0).bincount(minlength=6) / 4000
    assert ((found - expected).abs() <= 4 * (expected * (1 - expected) / 4000).sqrt() + 5e-3).all()


def test_soft_labels_are_what_the_others_say(normal: Normal) -> None:
    """Each point left out by hand, and the class of one point alone."""
    labels = np.array([0, 1, 0, 2, 1, 0, 1, 0])
    points = normal(8, 3).float()
    points[6] = points[0]
    D = OptimalDenoiser(Dataset("some", points.numpy(), labels))
    found = soft_labels(D, 0.8)
    kernel = (-torch.cdist(points.double(), points.double(), compute_mode="donot_use_mm_for_euclid_dist").square()) / (
        2 * 0.64
    )
    kernel.fill_diagonal_(-torch.inf)
    expected = torch.stack([kernel[:, torch.from_numpy(labels == c)].logsumexp(1) for c in range(3)], 1).log_softmax(1)
    assert torch.equal(found.isinf(), expected.isinf())
    assert found[3, 2] == -torch.inf
    assert (found - expected)[~found.isinf()].abs().max() <= 1e-11
    weighted = soft_labels(D.weighted(torch.tensor(labels == 1).double()), 0.8)
    moved = torch.stack(
        [kernel[:, torch.from_numpy(labels == c)].logsumexp(1) + (c == 1) for c in range(3)], 1
    ).log_softmax(1)
    assert (weighted - moved)[~found.isinf()].abs().max() <= 1e-11


def test_of_digits_they_are_hard_at_small_noise_and_the_shares_of_classes_at_large() -> None:
    D = OptimalDenoiser(load("digits"))
    near, far = soft_labels(D, 0.3), soft_labels(D, 1e4)
    right = near.argmax(1) == D.labels
    assert 0.95 < right.double().mean() < 1
    shares = D.labels.bincount() / len(D)
    assert (far.exp() - shares).abs().max() <= 1e-3


@pytest.mark.parametrize(
    ("log_p", "weight", "sentence"),
    [
        (LOG_P[:1], 1.0, r"one a data point, 2 of them, got shape \(1,\)"),
        (torch.tensor([0.0, -math.inf]), 1.0, r"finite and at most 0, got -inf: give D.given\(label\)"),
        (torch.tensor([0.5, 0.5]), 1.0, "finite and at most 0, got 0.5"),
        (LOG_P, math.inf, "weight must be finite, got inf"),
    ],
)
def test_bad_input(log_p: Tensor, weight: float, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        tilted(TWO, log_p, weight)


def test_bad_questions() -> None:
    with pytest.raises(ValueError, match="data without labels have no classes"):
        soft_labels(TWO, 1.0)
    one = OptimalDenoiser(Dataset("one", np.ones((3, 2), np.float32), np.zeros(3, np.int64)))
    with pytest.raises(ValueError, match="two classes or more, the data have 1"):
        soft_labels(one, 1.0)
    with pytest.raises(ValueError, match="draws must be at least 1, got 0"):
        landing_shares(TWO, TWO, karras(4), draws=0)
    with pytest.raises(ValueError, match="the ends of the denoiser are not finite"):
        landing_shares(lambda x, sigma: x * torch.nan, TWO, karras(4), draws=4)
