"""Targets from a batch: unbiased, x0 at M = 1 and the optimum at M = N, of a falling variance in between."""

from __future__ import annotations

import dataclasses
import itertools
from pathlib import Path

import pytest
import torch
from torch import Tensor

from neural import Experiment, Network, Optimisation, fit, target_variance
from neural.batch_target import BatchTarget
from neural.run import new_training
from neural.streams import Streams
from neural.training import train
from optimal import Dataset, OptimalDenoiser, load
from optimal.theories import batch_mean

THREE = torch.tensor([[-1.0, 0.2], [0.3, 0.9], [1.4, -0.7]], dtype=torch.float64)
OPTIONS = Optimisation(steps=20, batch=24, warmup=5, target="batch", target_points=3, noise="log_normal", P_mean=0.0)


def normal(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.mark.parametrize("size", [1, 2, 3])
@pytest.mark.parametrize("sigma", [0.3, 2.0])
def test_the_mean_over_all_batches_is_the_optimum(size: int, sigma: float) -> None:
    """Every set, and in it every source, as often as it is drawn together with x."""
    x = 2 * normal(5, 2)
    likelihood = (-(x[:, None] - THREE).square().sum(2) / (2 * sigma**2)).exp()  # Of x, given each source.
    found, total = torch.zeros_like(x), torch.zeros(5, dtype=torch.float64)
    for chosen in itertools.combinations(range(3), size):
        answer = batch_mean(THREE[list(chosen)], x, sigma)
        for source in chosen:
            found += likelihood[:, source, None] * answer
            total += likelihood[:, source]
    torch.testing.assert_close(found / total[:, None], OptimalDenoiser(THREE)(x, sigma), rtol=1e-12, atol=1e-12)


def test_without_the_source_it_would_be_biased() -> None:
    x, sigma = 2 * normal(5, 2), 1.0
    mean = torch.stack([batch_mean(THREE[list(two)], x, sigma) for two in itertools.combinations(range(3), 2)]).mean(0)
    assert float((mean - OptimalDenoiser(THREE)(x, sigma)).abs().max()) > 0.05


@pytest.mark.parametrize(("high", "count"), [(7, 1), (40, 4), (40, 30), (5, 5)])
def test_points_of_a_set_are_distinct_and_even(high: int, count: int) -> None:
    streams, draws = Streams(3), 4000
    sets = torch.stack([streams.distinct(high, count) for _ in range(draws)])
    assert all(len(each.unique()) == count for each in sets)
    for place in {0, count - 1}:
        seen = torch.bincount(sets[:, place], minlength=high)
        chi2 = float((seen - draws / high).square().sum() / (draws / high))
        assert chi2 < high - 1 + 6 * (2 * (high - 1)) ** 0.5


def drawn(data: Dataset, size: int, count: int = 50) -> tuple[Tensor, Tensor, Tensor]:
    x, sigma, target = BatchTarget(data, dataclasses.replace(OPTIONS, target_points=size), 0.5).draw(count, Streams(1))
    return x, sigma, target


def test_one_point_is_x0_and_all_points_are_the_optimum() -> None:
    data = Dataset("three", THREE.float().numpy())
    x, sigma, target = drawn(data, 1)
    assert (torch.cdist(target, data.points).amin(1) < 1e-6).all()
    assert len((x - target).unique(dim=0)) == len(x)
    x, sigma, target = drawn(data, 3)
    torch.testing.assert_close(target, OptimalDenoiser(data)(x, sigma), rtol=1e-5, atol=1e-6)


def test_the_variance_falls_from_that_of_x0_to_nothing() -> None:
    D = OptimalDenoiser(load("digits", n=40))
    rows = target_variance(D, (1, 2, 10, 40), [1.5], draws=400)
    x = D.take(torch.randint(40, (2000,), generator=torch.Generator().manual_seed(5))).float()
    mmse = float(D.posterior(x + 1.5 * normal(*x.shape).float(), 1.5).variance.mean()) / 64
    assert rows[0]["variance_low"] <= mmse <= rows[0]["variance_high"]
    values = [row["variance"] for row in rows]
    assert values == sorted(values, reverse=True)
    assert values[-1] < 1e-10
    assert [row["points"] for row in rows] == [1, 2, 10, 40]
    with pytest.raises(ValueError, match="points of a set must be 1 … 40, got 41"):
        target_variance(D, [41], [1.0])


def test_the_variance_of_a_class_is_that_of_its_points() -> None:
    data = load("digits", n=200)
    D = OptimalDenoiser(data).given(3)
    assert data.labels is not None
    alone = OptimalDenoiser(Dataset("threes", data.array[data.labels == 3]))
    rows, expected = (target_variance(each, (1, 5, len(alone)), [1.5], draws=50) for each in (D, alone))
    for found, row in zip(rows, expected, strict=True):
        assert found["variance"] == pytest.approx(row["variance"], rel=1e-5, abs=1e-12)
    with pytest.raises(ValueError, match=f"points of a set must be 1 … {len(alone)}, got {len(alone) + 1}"):
        target_variance(D, [len(alone) + 1], [1.0])
    with pytest.raises(ValueError, match="must be equally likely"):
        target_variance(D.weighted(torch.arange(200.0)), [1], [1.0])


def test_a_network_learns_the_optimum_from_it(tmp_path: Path) -> None:
    config = Experiment(
        "five-deltas",
        {},
        Network(width=32, depth=1),
        dataclasses.replace(OPTIONS, steps=600, batch=128, lr=1e-2, target_points=2),
    )
    data = config.load()
    F, D = fit(config, data, tmp_path / "run", device="cpu"), OptimalDenoiser(data)
    x = torch.linspace(-3, 3, 61)[:, None]
    with torch.no_grad():
        assert float((F(x, 1.0) - D(x, 1.0)).square().mean().sqrt()) < 0.15


def test_a_batch_in_parts_is_the_batch() -> None:
    config = Experiment("five-deltas", {}, Network(width=8, depth=1), OPTIONS)
    losses = []
    for parts in (1, 4):
        options = dataclasses.replace(OPTIONS, accumulate=parts)
        training, objective = new_training(
            dataclasses.replace(config, optimisation=options), config.load(), device="cpu"
        )
        losses.append(next(train(training, objective)).loss)
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)


def test_what_it_cannot_do_is_one_sentence() -> None:
    config = Experiment("five-deltas", {}, Network(width=8), dataclasses.replace(OPTIONS, target_points=6))
    with pytest.raises(ValueError, match="target_points must be at most 5, the points of five-deltas, got 6"):
        new_training(config, config.load(), device="cpu")
    labelled = Experiment("digits", {}, Network(width=8, classes=10), OPTIONS)
    with pytest.raises(ValueError, match="target batch takes no labels"):
        new_training(labelled, labelled.load(), device="cpu")
    with pytest.raises(ValueError, match="target batch needs the points that are trained on"):
        dataclasses.replace(OPTIONS, flip=True)
    with pytest.raises(ValueError, match="target_points must"):
        dataclasses.replace(OPTIONS, target_points=0)
