"""Basins and landings, against the mass that the exact flow conserves."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from scipy.stats import chi2, norm
from torch import Tensor

from optimal import FlowMap, OptimalDenoiser, basins, karras, landing_statistics, load
from optimal.reference import GaussianMixture

Normal = Callable[..., Tensor]


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def column(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)[:, None]


def borders(D: OptimalDenoiser, sigma: float) -> Tensor:
    """The basins of five deltas at σ, from left to right, as (N + 1,) edges."""
    inner = GaussianMixture(D.take(torch.arange(len(D))), 0.0).separatrices(torch.tensor([sigma]))[0]
    return torch.cat([torch.tensor([-math.inf]), inner, torch.tensor([math.inf])]).double()


@pytest.mark.slow
@pytest.mark.parametrize("sigma_max", [80.0, 3.0])
def test_five_deltas_from_the_prior(sigma_max: float) -> None:
    """At 80 all five alike; at 3 the prior is visibly not the noisy data, by what its density says."""
    D = OptimalDenoiser(load("five-deltas"))
    found = basins(D, 20_000, seeded(), sigma_max=sigma_max)
    order = D.take(torch.arange(5)).flatten().argsort()
    share = torch.from_numpy(norm.cdf(borders(D, sigma_max) / sigma_max)).diff()
    counts = found.counts[order].double()
    statistic = float(((counts - 20_000 * share).square() / (20_000 * share)).sum())
    assert chi2.sf(statistic, 4) > 1e-3
    assert found.draws == found.counts.sum() == 20_000
    assert found.undecided == 0
    # The mismatch, by quadrature.
    x = torch.linspace(-8, 8, 400_001, dtype=torch.float64) * sigma_max
    p = GaussianMixture(D.data.points, 0.0).log_density(x[:, None], sigma_max).exp()
    q = torch.from_numpy(norm.pdf((x / sigma_max).numpy()) / sigma_max)
    tv = float(torch.trapezoid((p - q).abs(), x)) / 2
    assert abs(found.mismatch - tv) < 4 * found.mismatch_error + 1e-6
    assert 0 < found.mismatch_error < 0.1 * tv
    # No basin differs by more than the mismatch allows, and the weights undo it.
    assert (share - 0.2).abs().sum() / 2 <= tv + 1e-9
    torch.testing.assert_close(found.weighted / 20_000, torch.full((5,), 0.2).double(), rtol=0, atol=0.015)
    if sigma_max == 3.0:
        assert found.chi_square()[1] < 1e-6
        assert (counts / 20_000 - 0.2).abs().amax() > 0.02
    else:
        assert found.chi_square()[1] > 1e-3


@pytest.mark.slow
@pytest.mark.parametrize("sigma_max", [0.3, 2.0])
def test_from_noisy_data_it_is_uniform_at_any_level(sigma_max: float) -> None:
    D = OptimalDenoiser(load("five-deltas"))
    found = basins(D, 10_000, seeded(1), sigma_max=sigma_max, start="data")
    assert found.chi_square()[1] > 1e-3
    assert found.mismatch == found.mismatch_error == 0
    assert torch.equal(found.weighted, found.counts.double())


@pytest.mark.slow
def test_digits_are_reached_equally_often() -> None:
    """N = 1,797, two draws each; with a coarse grid in place of the exact flow some are not."""
    D = OptimalDenoiser(load("digits"))
    found = basins(D, 3600, seeded(2))
    statistic, p = found.chi_square()
    assert p > 1e-3
    assert 0.005 < found.mismatch < 0.06
    # Ten in a row as one cell, for which the distribution of the statistic is not in doubt.
    cells = found.counts[:1790].view(-1, 10).sum(1).double()
    expected = 3600 * 10 / 1797
    assert chi2.sf(float(((cells - expected).square() / expected).sum()), len(cells)) > 1e-3
    coarse = basins(D, 3600, seeded(2), flow=FlowMap(D, karras(6), "euler"))
    assert coarse.chi_square()[0] > 1.5 * statistic
    assert coarse.chi_square()[1] < 1e-9


@pytest.mark.slow
def test_repeated_points_get_double() -> None:
    D = OptimalDenoiser(column(-1.0, 0.5, 2.0, 0.5, -0.0, 0.0, 0.0))
    found = basins(D, 7000, seeded(3))
    assert found.copies.tolist() == [1, 2, 1, 0, 3, 0, 0]
    assert found.expected.tolist() == [1000, 2000, 1000, 0, 3000, 0, 0]
    assert found.counts[[3, 5, 6]].tolist() == [0, 0, 0]
    assert found.chi_square()[1] > 1e-3
    torch.testing.assert_close(found.weighted, found.expected, rtol=0, atol=200)


def test_one_point_takes_all() -> None:
    found = basins(OptimalDenoiser(torch.ones(1, 2)), 10, seeded())
    assert found.counts.tolist() == [10]
    assert found.chi_square() == (0.0, 1.0)


def test_memory_does_not_grow_with_the_draws() -> None:
    """No more than 512 are ever followed, and the last group is the rest."""
    D = OptimalDenoiser(column(-1.0, 1.0))
    sizes = []

    class Watched(FlowMap):
        def land(self, x, sigma):
            sizes.append(len(x))
            return super().land(x, sigma)

    found = basins(D, 1200, seeded(), flow=Watched(D))
    assert sizes == [512, 512, 176]
    assert found.counts.sum() == 1200
    again = basins(D, 1200, generator=seeded())
    assert torch.equal(found.counts, again.counts)
    assert found.mismatch == again.mismatch


def test_without_a_generator_every_run_is_the_same() -> None:
    """As for `forward_statistics` and `landing_statistics`: a fixed seed of its own, nothing global touched."""
    D, state = OptimalDenoiser(column(-1.0, 0.3, 1.0)), torch.random.get_rng_state()
    first, second, other = basins(D, 300), basins(D, 300), basins(D, 300, seeded(1))
    assert torch.equal(first.counts, second.counts)
    assert first.mismatch == second.mismatch != other.mismatch
    assert torch.equal(torch.random.get_rng_state(), state)


def test_the_default_dtype_changes_no_draw() -> None:
    D = OptimalDenoiser(column(-1.0, 0.3, 1.0))
    before = basins(D, 300, start="data")
    torch.set_default_dtype(torch.float64)
    try:
        after = basins(D, 300, start="data")
    finally:
        torch.set_default_dtype(torch.float32)
    assert torch.equal(before.counts, after.counts)


@pytest.mark.slow
def test_flows_of_other_denoisers_count_for_the_nearest_point() -> None:
    """A network's flow knows no data, another data set's knows others."""
    D = OptimalDenoiser(load("five-deltas"))
    sigmas = karras(40)
    own = basins(D, 600, seeded(), flow=FlowMap(D, sigmas))
    wrapped = FlowMap(lambda x, sigma: D(x, sigma), sigmas)
    assert torch.equal(basins(D, 600, seeded(), flow=wrapped).counts, own.counts)
    ours, theirs = (
        landing_statistics(D, [0.1, 1.0], draws=50, flow=flow, generator=seeded())
        for flow in (FlowMap(D, sigmas), wrapped)
    )
    assert torch.equal(ours.source, theirs.source)
    assert ours.source[0].double().mean() > 0.9
    beyond = basins(D, 100, seeded(), flow=FlowMap(OptimalDenoiser(column(5.0, -5.0))))
    outer = D.nearest(column(5.0, -5.0)).tolist()
    assert beyond.counts[outer].sum() == 100


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"n": 0}, "n must be a whole number from 1 on, got 0"),
        ({"n": 1.5}, "n must be a whole number from 1 on, got 1.5"),
        ({"generator": 0}, "generator must be a torch.Generator, got int"),
        ({"sigma_max": 0.0}, "sigma_max must be positive and finite, got 0"),
        ({"sigma_max": math.inf}, "sigma_max must be positive and finite, got inf"),
        ({"start": "noise"}, 'start must be "prior" or "data", got \'noise\''),
    ],
)
def test_errors(options: dict, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        basins(OptimalDenoiser(column(-1.0, 1.0)), **({"n": 10, "generator": seeded()} | options))


# Along the forward process.


@pytest.mark.slow
def test_landings_of_five_deltas_in_closed_form() -> None:
    """P(landing = source) and P(landing = leader) from the exact basins and the midpoints between neighbours."""
    D = OptimalDenoiser(load("five-deltas"))
    points = D.take(torch.arange(5)).double().flatten().sort().values
    halves = torch.cat([torch.tensor([-math.inf]), (points[1:] + points[:-1]) / 2, torch.tensor([math.inf])]).double()
    sigmas, draws = torch.tensor([20.0, 2.0, 0.7, 0.3, 0.05], dtype=torch.float64), 4000
    found = landing_statistics(D, sigmas, draws=draws, generator=seeded(4))
    for row, sigma in enumerate(sigmas.tolist()):
        edges = borders(D, sigma)

        def mass(low: Tensor, high: Tensor, sigma: float = sigma) -> Tensor:
            """Of x = y_j + σ ε between low and high, (j, interval)."""
            at = torch.special.ndtr((high - points[:, None]) / sigma) - torch.special.ndtr(
                (low - points[:, None]) / sigma
            )
            return at.clamp_min(0)

        overlap = mass(torch.maximum(edges[:-1], halves[:-1]), torch.minimum(edges[1:], halves[1:]))
        expected = {
            "source": float(mass(edges[:-1], edges[1:]).diagonal().mean()),
            "leader": float(overlap.sum() / 5),
            "leader_is_source": float(mass(halves[:-1], halves[1:]).diagonal().mean()),
        }
        for name, p in expected.items():
            share = float(getattr(found, name)[row].double().mean())
            assert abs(share - p) < 4 * math.sqrt(p * (1 - p) / draws) + 1e-9, name
        assert expected["source"] <= expected["leader_is_source"] + 1e-12
        # The leader's probability is how often it is the source.
        spread = float(found.top_weight[row].std()) + math.sqrt(p * (1 - p))
        assert abs(float(found.top_weight[row].mean()) - expected["leader_is_source"]) < 4 * spread / math.sqrt(draws)


@pytest.mark.slow
def test_where_proposition_4_holds_and_where_not() -> None:
    """Digits: the source far below the border, where the posterior is one-hot; any point at high noise."""
    D = OptimalDenoiser(load("digits", n=600))
    found = landing_statistics(D, torch.tensor([0.1, 0.65, 20.0]), draws=96, generator=seeded(5))
    assert found.source[0].all()
    assert found.top_weight[0].amin() > 1 - 1e-6
    assert found.distance[0].amax() < 1e-3
    assert found.nearest_to_mean[0].all()
    assert 0.4 < found.source[1].double().mean() < 0.98
    assert found.source[2].double().mean() < 0.05
    assert found.distance[2].amin() > 1
    # It lands on a data point that leads less often the higher the noise.
    shares = found.leader.double().mean(1)
    assert shares[0] == 1
    assert shares[2] < 0.7
    assert (found.nfe.double().mean(1).diff() > 0).all()


def test_the_nearest_point_is_the_leader_at_every_level(normal: Normal) -> None:
    data = normal(40, 5)
    D = OptimalDenoiser(data)
    x = 2 * normal(30, 5)
    nearest = torch.cdist(x, data).argmin(1)
    assert torch.equal(D.nearest(x), nearest)
    for sigma in (0.1, 1.0, 80.0):
        assert torch.equal(D.posterior(x, sigma).top_index, nearest)


def test_sources_of_other_data(normal: Normal) -> None:
    """Held-out points: never the source, always a data point of D."""
    D = OptimalDenoiser(normal(20, 2))
    found = landing_statistics(D, torch.tensor([0.01, 1.0]), normal(7, 2), draws=50)
    assert not found.source.any()
    assert found.leader[0].double().mean() > 0.9
    with pytest.raises(ValueError, match="data must have points of shape"):
        landing_statistics(D, torch.tensor([1.0]), normal(7, 3))
    with pytest.raises(ValueError, match="draws must be at least 1, got 0"):
        landing_statistics(D, torch.tensor([1.0]), draws=0)


def test_the_separatrices_carry_the_mass_of_their_points() -> None:
    """F at each is the weight below it, copies and unequal weights included; far below, the middle of the gap."""
    D = GaussianMixture(column(0.5, -2.0, 0.5, 3.0), 0.0, torch.tensor([1.0, 2.0, 3.0, 4.0]))
    sigmas = torch.tensor([1e-3, 0.5, 5.0, 500.0], dtype=torch.float64)
    found = D.separatrices(sigmas)
    assert found.shape == (4, 2)
    means = torch.tensor([0.5, -2.0, 0.5, 3.0], dtype=torch.float64)
    share = torch.tensor([0.1, 0.2, 0.3, 0.4], dtype=torch.float64)
    for row, sigma in enumerate(sigmas.tolist()):
        F = (share * torch.special.ndtr((found[row][:, None] - means) / sigma)).sum(1)
        torch.testing.assert_close(F, torch.tensor([0.2, 0.6], dtype=torch.float64), rtol=0, atol=1e-12)
    torch.testing.assert_close(found[0], torch.tensor([-0.75, 1.75], dtype=torch.float64), rtol=0, atol=1e-5)
    for bad, sentence in (
        (GaussianMixture(column(0.0, 1.0), 0.1), "for points on the line only"),
        (GaussianMixture(torch.eye(2), 0.0), "for points on the line only"),
    ):
        with pytest.raises(ValueError, match=sentence):
            bad.separatrices(sigmas)
    with pytest.raises(ValueError, match="sigma must be positive and finite"):
        D.separatrices(torch.tensor([0.0]))


def test_first_copies_of_images_and_floats() -> None:
    images = torch.tensor([1, 2, 1, 3, 2], dtype=torch.uint8).view(5, 1, 1, 1).expand(5, 1, 70, 70)
    assert OptimalDenoiser(images.contiguous()).first_copies().tolist() == [0, 1, 0, 3, 1]
    for dtype in (torch.float64, torch.float32, torch.bfloat16):
        points = torch.tensor([[0.0], [-0.0], [1.0], [1.0]], dtype=dtype)
        assert OptimalDenoiser(points).first_copies().tolist() == [0, 0, 2, 2]
