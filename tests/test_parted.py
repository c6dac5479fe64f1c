"""All classes from one scan: by every way to sum, with the proof kept in each, and how often data are read."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from optimal import Dataset, OptimalDenoiser, load, orbit
from optimal.evaluate import screened
from optimal.evaluate.byte_logits import ByteLogits
from optimal.evaluate.parted import Parts
from optimal.points import Points

Normal = Callable[..., Tensor]
CLASSES = 5


@pytest.fixture
def images() -> Dataset:
    """900 smooth images as bytes, classes of 5, of unlike sizes, with copies in one class and across."""
    generator = torch.Generator().manual_seed(3)
    coarse = torch.randint(40, 216, (900, 3, 4, 4), dtype=torch.uint8, generator=generator)
    coarse[[200, 350, 602]] = coarse[17].clone()
    wide = coarse.repeat_interleave(4, 2).repeat_interleave(4, 3)
    labels = (torch.rand(900, generator=generator) ** 2 * CLASSES).long()
    return Dataset("images", wide.numpy(), labels.numpy())


def noisy(data: Dataset, rows: int, sigma: float) -> Tensor:
    generator = torch.Generator().manual_seed(rows)
    x0 = data[: rows * 7 : 7]
    return x0 + sigma * torch.randn(x0.shape, generator=generator)


@pytest.fixture(params=[0, 3000], ids=["by bytes", "in float64"])
def few(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(screened, "_few", lambda points: min(request.param, points.size))


@pytest.mark.usefixtures("few")
@pytest.mark.parametrize("weighted", [False, True], ids=["", "weighted"])
@pytest.mark.parametrize("sigma", [0.02, 0.7, 3.0, 8.0, 60.0])
def test_every_class_keeps_its_bound(images: Dataset, sigma: float, weighted: bool, normal: Normal) -> None:
    """Against the class's own points in float64: the mean within its bound, which is below the tolerance."""
    D, x = OptimalDenoiser(images, method="screened"), noisy(images, 9, sigma)
    if weighted:
        a = 3 * normal(900)
        a[::11] = -torch.inf
        D = D.weighted(a)
    parts = Parts(D.evaluator, [D.given(label).evaluator for label in D.classes.tolist()])
    z, sigmas = D.query(x, sigma)
    seen = set()
    for k, rows, sums in parts.moments(z, sigmas, None, single=True):
        own = D.given(int(D.classes[k]))
        expected = own.posterior(x[rows].double(), sigma)
        mean = (sums.average + D.points.centre).view(x.shape)
        error = (mean - expected.mean).flatten(1).norm(dim=1) / expected.mean.flatten(1).norm(dim=1)
        assert sums.method == "screened"
        assert (error <= sums.bound).all()
        assert sums.bound.max() <= 1e-3
        assert torch.equal(own.points.outer(sums.index), expected.top_index)
        seen.add(k)
    assert seen == set(range(CLASSES))


@pytest.mark.parametrize("sigma", [0.02, 0.7, 3.0, 8.0, 60.0])
def test_screened_classes_are_the_whole(images: Dataset, sigma: float) -> None:
    D, x = OptimalDenoiser(images, method="screened"), noisy(images, 6, sigma)
    exact, found = OptimalDenoiser(images, method="dense").by_class(x.double(), sigma), D.by_class(x, sigma)
    assert (found.log_probabilities - exact.log_probabilities).abs().max() <= 1e-3 * (
        1 + exact.log_probabilities.abs().max()
    )
    off = (found.means.double() - exact.means).flatten(2).norm(dim=2) / exact.means.flatten(2).norm(dim=2)
    assert off.max() <= 1e-3
    labels = torch.tensor([0, 1, 2, 3, 4, 0])
    given = D.given(labels).posterior(x, sigma)
    picked = exact.means[torch.arange(6), labels]
    assert ((given.mean.double() - picked).flatten(1).norm(dim=1) <= 1e-3 * picked.flatten(1).norm(dim=1)).all()
    assert given.error_bound.max() <= 1e-3
    assert (D.labels[given.top_index] == labels).all()
    alone = torch.stack(
        [D.given(c).posterior(x[b : b + 1], sigma).log_density[0] for b, c in enumerate(labels.tolist())]
    )
    assert (given.log_density - alone).abs().max() <= 1e-3 * alone.abs().max()


@pytest.fixture
def scans(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """Passes over points that were begun, and blocks that were read: of bytes, and in floating point."""
    count = {"passes": 0, "blocks": 0, "points": 0}
    signed, read = Points.signed, Points.read

    def counted(self: Points, *arguments: Any, **options: Any) -> Iterator[tuple[slice, Tensor]]:
        count["passes"] += 1
        for part, block in signed(self, *arguments, **options):
            count["blocks"] += 1
            count["points"] += len(block)
            yield part, block

    def counted_read(self: Points, where: Any, *arguments: Any) -> Tensor:
        out = read(self, where, *arguments)
        count["points"] += len(out)
        return out

    monkeypatch.setattr(Points, "signed", counted)
    monkeypatch.setattr(Points, "read", counted_read)
    return count


def reads(scans: dict[str, int], call: Callable[[], object]) -> dict[str, int]:
    call()  # Digests of the data are made once.
    scans.update(dict.fromkeys(scans, 0))
    call()
    return dict(scans)


def test_one_scan_of_bytes_answers_all_classes(images: Dataset, scans: dict[str, int]) -> None:
    D, x = OptimalDenoiser(images, method="screened"), noisy(images, 4, 0.1)
    labels = D.labels[:4]
    plain = reads(scans, lambda: D(x, 0.1))
    classes = reads(scans, lambda: D.by_class(x, 0.1))
    assert plain["passes"] == 1
    assert classes["passes"] == plain["passes"]
    assert classes["blocks"] == plain["blocks"]
    assert classes["points"] <= 1.3 * plain["points"]
    given = D.given(labels)
    assert reads(scans, lambda: given(x, 0.1))["points"] <= plain["points"] * 1.05
    # Where many points share, classes read no more than the whole does, but for their own sums.
    plain, classes = reads(scans, lambda: D(x, 8.0)), reads(scans, lambda: D.by_class(x, 8.0))
    assert classes["points"] <= 1.3 * plain["points"]


def test_dense_reads_every_point_once_for_all_classes(scans: dict[str, int]) -> None:
    data = load("digits")
    D, x = OptimalDenoiser(data, method="dense"), data[:3] + 0.5
    plain = reads(scans, lambda: D(x, 1.0))["points"]
    assert 1797 <= plain <= 1797 + 100
    assert reads(scans, lambda: D.by_class(x, 1.0))["points"] <= 1.1 * plain


def test_classes_of_few_points_are_screened_where_the_whole_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """The way goes by all points: classes of a tenth of them do not fall back to another."""
    generator = torch.Generator().manual_seed(0)
    array = torch.randint(0, 256, (2000, 3, 32, 32), dtype=torch.uint8, generator=generator).numpy()
    D = OptimalDenoiser(Dataset("noise", array, np.arange(2000) % 10))
    monkeypatch.setattr("optimal.evaluate.evaluator.fast_bytes", lambda: True)
    x = D.take(torch.arange(3)).float()
    assert D.posterior(x, 0.5).method == "screened"
    assert D.given(torch.tensor([0, 1, 2])).posterior(x, 0.5).method == "screened"
    monkeypatch.setattr("optimal.evaluate.evaluator.fast_bytes", lambda: False)
    assert D.given(torch.tensor([0, 1, 2])).posterior(x, 0.5).method == "dense"


@pytest.mark.parametrize("weighted", [False, True], ids=["", "weighted"])
@pytest.mark.parametrize("sigma", [0.05, 0.7, 3.0, 8.0, 40.0])
def test_turned_images_without_a_share_are_given_up_and_cost_no_accuracy(
    images: Dataset, sigma: float, weighted: bool, monkeypatch: pytest.MonkeyPatch, normal: Normal
) -> None:
    """Against float64, all of them summed; and what was given up is worth no more than is said."""
    x, elements = noisy(images, 8, sigma), None if not weighted else torch.tensor([0.0, 2.0])
    D, exact = (OptimalDenoiser(images, method=method) for method in ("screened", "dense"))
    if weighted:
        a = 3 * normal(900)
        D, exact = D.weighted(a), exact.weighted(a)
    given_up: list[Tensor] = []
    narrowed = ByteLogits.narrowed

    def watched(self: ByteLogits, rows: Tensor, keep: Tensor | None) -> ByteLogits:
        if len(self.z) == 16 and not given_up:
            given_up.append(torch.ones(16, dtype=torch.bool).index_fill(0, rows, False))
        return narrowed(self, rows, keep)

    monkeypatch.setattr(ByteLogits, "narrowed", watched)
    found = orbit(D, "flip", elements).posterior(x, sigma)
    monkeypatch.undo()
    right = orbit(exact, "flip", elements).posterior(x.double(), sigma)
    error = (found.mean.double() - right.mean).flatten(1).norm(dim=1) / right.mean.flatten(1).norm(dim=1)
    assert error.max() <= 1e-3
    assert (found.log_density - right.log_density).abs().max() <= 1e-3 + 1e-9 * right.log_density.abs().max()
    assert (found.entropy - right.entropy).abs().max() <= 1e-2
    shares = orbit(exact, "flip", elements).element_weights(x.double(), sigma).T.flatten()
    (lost,) = given_up
    assert shares[lost].sum() <= 8 * 2e-8
    if sigma <= 0.7:
        assert lost.sum() == 8  # One of the two of every row.


def test_a_flipped_query_that_is_given_up_is_not_summed(images: Dataset, scans: dict[str, int]) -> None:
    D, x = OptimalDenoiser(images, method="screened"), noisy(images, 4, 0.1)
    plain, flip = reads(scans, lambda: D(x, 0.1)), reads(scans, lambda: orbit(D, "flip")(x, 0.1))
    assert flip["passes"] == plain["passes"] == 1
    assert flip["points"] <= plain["points"] + 4
