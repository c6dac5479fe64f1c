"""Priors through what is built on the posterior: the flow, its certificate, the border, basins, spans, distillation.

Three identities, each on all of them: a constant added to all log-weights changes nothing; a_j + log 2 is point j
listed twice; −inf, a class and a point left out are the data without those points.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from optimal import (
    Dataset,
    FlowMap,
    OptimalDenoiser,
    basins,
    certify,
    karras,
    multistep_knowledge_optimum,
    sample_in_span,
    seeking_refining_border,
)

Normal = Callable[..., Tensor]
Two = tuple[OptimalDenoiser, OptimalDenoiser, Tensor]
SIGMAS = (0.3, 1.0, 4.0)
LABELS = torch.arange(12) % 3


@pytest.fixture(params=["constant", "twice", "some", "class", "without"])
def two(request: pytest.FixtureRequest, normal: Normal) -> Two:
    """One optimum under a prior, the same as data of its own, and which of the first's data each of these is."""
    points = normal(12, 6).float()
    D, every = OptimalDenoiser(Dataset("some", points.numpy(), LABELS.numpy())), torch.arange(12)
    zero, away = torch.zeros(12, dtype=torch.float64), torch.tensor([1, 5, 6, 11])
    kept = {
        "constant": every,
        "twice": torch.cat([every, every[3:4]]),
        "some": every[~torch.isin(every, away)],
        "class": every[LABELS == 1],
        "without": every[every != 4],
    }[request.param]
    one = {
        "constant": lambda: D.weighted(zero + 7.25),
        "twice": lambda: D.weighted(zero.index_fill(0, torch.tensor([3]), math.log(2))),
        "some": lambda: D.weighted(zero.index_fill(0, away, -torch.inf)),
        "class": lambda: D.given(1),
        "without": lambda: D.without(4),
    }[request.param]()
    return one, OptimalDenoiser(points[kept].double()), kept


def x_at(sigma: float, two: Two, normal: Normal, rows: int = 40) -> Tensor:
    D = two[1]
    return D.take(torch.arange(rows) % len(D)).double() + sigma * normal(rows, 6)


@pytest.mark.parametrize("sigma", SIGMAS)
def test_the_posterior_and_the_flow(two: Two, sigma: float, normal: Normal) -> None:
    D, R, kept = two
    x = x_at(sigma, two, normal)
    assert (D(x, sigma) - R(x, sigma)).abs().max() <= 1e-12
    assert (D.posterior(x, sigma).log_density - R.posterior(x, sigma).log_density).abs().max() <= 1e-11
    assert torch.equal(FlowMap(D).index(x, sigma), kept[FlowMap(R).index(x, sigma)])
    assert (FlowMap(D).flow(x, sigma, 0.1) - FlowMap(R).flow(x, sigma, 0.1)).abs().max() <= 1e-3
    ends = FlowMap(D).index(x, sigma)
    place = torch.stack([(kept == end).nonzero()[0, 0] for end in ends])
    found, right = certify(D, x, sigma, ends), certify(R, x, sigma, place)
    if len(kept) <= 12:  # That of a point listed twice has a rival less.
        assert torch.equal(found.holds, right.holds)
    for k in range(len(kept)):
        holds = certify(D, x, sigma, kept[k].expand(len(x))).holds
        assert (FlowMap(D).index(x[holds], sigma) == kept[k]).all()


@pytest.mark.slow
def test_the_border_and_the_basins(two: Two, normal: Normal) -> None:
    D, R, kept = two
    a, b = (seeking_refining_border(T, draws=300, generator=torch.Generator().manual_seed(1)).sigma for T in (D, R))
    assert a == pytest.approx(b, rel=0.15)
    found = basins(D, 600, torch.Generator().manual_seed(2), start="data", sigma_max=20.0)
    share = torch.zeros(12, dtype=torch.float64).index_add_(0, kept, torch.ones(len(kept), dtype=torch.float64))
    assert (found.probability - share / len(kept)).abs().max() <= 1e-14
    assert found.counts[share == 0].sum() == 0
    assert found.chi_square()[1] > 1e-3


def test_samples_in_the_span(two: Two, normal: Normal) -> None:
    D, R, kept = two
    wide = torch.linalg.qr(normal(40, 6))[0].T
    points = R.take(torch.arange(len(R))).double() @ wide
    whole = torch.zeros(12, 40, dtype=torch.float64)
    whole[kept] = points
    S = OptimalDenoiser(whole).weighted(D.log_weights)
    x = 60 * normal(30, 40)
    one, other = sample_in_span(S, x, karras(14)), sample_in_span(OptimalDenoiser(points), x, karras(14))
    assert torch.equal(one.index, torch.where(other.index < 0, other.index, kept[other.index.clamp_min(0)]))


@pytest.mark.slow
@pytest.mark.parametrize("grid", [False, True], ids=["exact flow", "on a grid"])
def test_the_optimum_of_multistep_distillation(two: Two, grid: bool, normal: Normal) -> None:
    """Proposition 4's optimum: the same ends, from σ_N and on the student's own points, searched among points left."""
    D, R, kept = two
    sigmas = karras(24, sigma_max=20.0) if grid else 20.0
    solver = "heun" if grid else None
    one, other = (multistep_knowledge_optimum(T, sigmas, solver, tries=len(T)) for T in (D, R))
    x = 20 * normal(24, 6)
    ends = one(x, 20.0)
    assert (ends - other(x, 20.0)).abs().max() <= 1e-9
    for sigma in (10.0, 2.0, 0.5):
        at, target = one.intermediate(x, sigma)
        assert (at - other.intermediate(x, sigma)[0]).abs().max() <= 1e-9
        assert (target - ends).abs().max() <= 1e-9
        assert one.reached(at, sigma).all()
        assert (one(at, sigma) - ends).abs().max() <= 1e-6
        assert (one(at, sigma) - other(at, sigma)).abs().max() <= 1e-6
    lost = torch.isin(torch.arange(12), kept, invert=True)
    nearest = torch.cdist(ends, D.take(torch.arange(12)).double()).argmin(1)
    assert not lost[nearest].any()


def test_the_classes_make_up_the_whole_along_the_flow(normal: Normal) -> None:
    """D = Σ_c P(c | x) D_c, of which the flow's velocity and the span's denoiser are made."""
    points = normal(12, 6).float()
    D = OptimalDenoiser(Dataset("some", points.numpy(), LABELS.numpy())).weighted(normal(12))
    for sigma in SIGMAS:
        x = points.double()[:9] + sigma * normal(9, 6)
        found = D.by_class(x, sigma)
        shares = found.log_probabilities.exp()
        assert ((shares[..., None] * found.means).sum(1) - D(x, sigma)).abs().max() <= 1e-12
        scores = torch.stack([D.given(int(c)).score(x, sigma) for c in found.classes], 1)
        assert ((shares[..., None] * scores).sum(1) - D.score(x, sigma)).abs().max() <= 1e-11 / sigma**2
