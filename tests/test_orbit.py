"""The optimum of data with their images under a group: that of the doubled data, without them."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from contracts import check_denoiser
from problems import absolute_error, row_error
from surroundings import SURROUNDINGS
from torch import Tensor

from neural import measure
from optimal import Dataset, FlowMap, OptimalDenoiser, Orbit, karras, load, orbit, sample, seeking_refining_border

pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.script`:DeprecationWarning")  # torch.func.jvp's own.
Normal = Callable[..., Tensor]
Transform = Callable[[Tensor], Tensor]
SIDE = (-2, -1)
TURNS: list[Transform] = [
    lambda x, k=k, f=f: torch.rot90(x.flip(-1) if f else x, k, SIDE) for f in (False, True) for k in range(4)
]
FLIP: list[Transform] = [lambda x: x, lambda x: x.flip(-1)]
FIELDS = ("log_density", "entropy", "top_weight", "variance")


def shifts(height: int, width: int) -> list[Transform]:
    return [lambda x, a=a, b=b: torch.roll(x, (a, b), SIDE) for a in range(height) for b in range(width)]


CASES: dict[str, tuple[Any, list[Transform]]] = {
    "flip": ("flip", FLIP),
    "quarter-turns": ("quarter-turns", TURNS),
    "shifts": ("shifts", shifts(4, 4)),
    "a list": (shifts(4, 4), shifts(4, 4)),
}


def doubled(points: Tensor, transforms: list[Transform]) -> OptimalDenoiser:
    return OptimalDenoiser(torch.cat([g(points) for g in transforms]))


def same(G: Orbit, R: OptimalDenoiser, x: Tensor, sigma: float, tolerance: float = 1e-12) -> None:
    found, right = G.posterior(x, sigma), R.posterior(x, sigma)
    assert row_error(found.mean, right.mean).max() <= tolerance
    for name in FIELDS:
        a, b = getattr(found, name), getattr(right, name)
        assert (absolute_error(a, b) / b.abs().clamp_min(1)).max() <= tolerance, name
    assert torch.equal(found.top_index, right.top_index)


@pytest.fixture
def points(normal: Normal) -> Tensor:
    return normal(20, 2, 4, 4)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("sigma", [0.01, 0.5, 1.5, 30.0])
def test_it_is_the_optimum_of_the_doubled_data(name: str, sigma: float, points: Tensor, normal: Normal) -> None:
    group, transforms = CASES[name]
    G, R = orbit(OptimalDenoiser(points), group), doubled(points, transforms)
    every = torch.arange(len(R))
    assert len(G) == len(R)
    assert torch.equal(G.take(every), R.take(every))
    x = R.take(every[::7]) + sigma * normal(len(every[::7]), 2, 4, 4)
    same(G, R, x, sigma)
    assert row_error(G.score(x, sigma), R.score(x, sigma)).max() <= 1e-12
    assert absolute_error(G.mean, R.mean).max() <= 1e-14
    assert abs(G.standard_deviation - R.standard_deviation) <= 1e-14
    assert torch.equal(G.nearest(x), R.nearest(x))
    # Of every element and of every point, from the weights of the doubled data.
    weights = R.weights(x, sigma).view(len(x), len(transforms), 20)
    assert absolute_error(G.element_weights(x, sigma), weights.sum(2)).max() <= 1e-12
    over_points = weights.sum(1)
    entropy = -torch.special.xlogy(over_points, over_points).sum(1)
    assert absolute_error(G.entropy_of_points(x, sigma), entropy).max() <= 1e-12
    if sigma < 30:
        assert row_error(G(x.flip(0), sigma), R(x, sigma)).max() > 0.1


def test_digits_as_they_are_loaded_with_mirror_images(normal: Normal) -> None:
    data, twice = load("digits"), load("digits", xflip=True)
    D = OptimalDenoiser(data.points.double())
    G, R = orbit(D, "flip"), OptimalDenoiser(twice.points.double())
    for sigma in (0.05, 0.7, 3.0):
        same(G, R, twice.points[::97].double() + sigma * normal(38, 1, 8, 8), sigma)
    # Images kept as bytes, and an x in float32, as precise as D is of the doubled images.
    x = (twice.points[::97] + 0.7 * normal(38, 1, 8, 8)).float()
    found, right = orbit(OptimalDenoiser(data), "flip").posterior(x, 0.7), R.posterior(x.double(), 0.7)
    assert found.mean.dtype == torch.float32
    assert row_error(found.mean, right.mean).max() <= 1e-5
    assert absolute_error(found.entropy, right.entropy).max() <= 1e-4


@pytest.mark.parametrize("name", CASES)
def test_it_is_equivariant(name: str, points: Tensor, normal: Normal) -> None:
    group, transforms = CASES[name]
    G, x = orbit(OptimalDenoiser(points), group), normal(5, 2, 4, 4)
    for g in transforms:
        assert row_error(G(g(x), 0.8), g(G(x, 0.8))).max() <= 1e-12
    D = OptimalDenoiser(points)
    assert row_error(D(transforms[1](x), 0.8), transforms[1](D(x, 0.8))).max() > 0.1


def test_the_average_over_the_group_is_another(points: Tensor) -> None:
    """At a clean image it blends that with its mirror image, or with what is nearest to it."""
    D = OptimalDenoiser(points)
    average = (D(points, 0.05) + D(points.flip(-1), 0.05).flip(-1)) / 2
    assert row_error(orbit(D, "flip")(points, 0.05), points).max() <= 1e-12
    assert row_error(average, points).min() > 0.3


def test_one_point_is_the_problem_of_two(normal: Normal) -> None:
    y, x = normal(1, 1, 2, 3), normal(9, 1, 2, 3)
    m, d = (y + y.flip(-1)) / 2, (y - y.flip(-1)) / 2
    expected = m + d * torch.tanh(((x - m) * d).sum((1, 2, 3)) / 0.25)[:, None, None, None]
    assert row_error(orbit(OptimalDenoiser(y), "flip")(x, 0.5), expected).max() <= 1e-13


def test_the_trivial_group_is_none(points: Tensor, normal: Normal) -> None:
    D, x = OptimalDenoiser(points), normal(5, 2, 4, 4)
    G = orbit(D, [lambda x: x])
    same(G, D, x, 0.8)
    assert row_error(G(x, 0.8), D(x, 0.8)).max() <= 1e-15


def test_an_image_that_is_its_own_mirror_image_counts_twice_as_in_the_doubled_data(normal: Normal) -> None:
    points = normal(6, 1, 4, 4)
    points[2] = (points[2] + points[2].flip(-1)) / 2
    G, R, x = orbit(OptimalDenoiser(points), "flip"), doubled(points, FLIP), points[2:3] + 0.01 * normal(1, 1, 4, 4)
    post = G.posterior(x, 0.01)
    same(G, R, x, 0.01)
    assert abs(float(post.entropy) - math.log(2)) <= 1e-12
    assert float(G.entropy_of_points(x, 0.01)) <= 1e-12
    assert torch.equal(G.element_weights(x, 0.01), torch.full((1, 2), 0.5, dtype=torch.float64))
    # Exactly between an image and its mirror image neither leads, and the first in the data is named.
    between = (points[:1] + points[:1].flip(-1)) / 2
    post = orbit(OptimalDenoiser(points[:1]), "flip").posterior(between, 1e-3)
    assert post.top_index.tolist() == [0]
    assert absolute_error(post.top_weight, torch.tensor([0.5])).max() <= 1e-9


@pytest.mark.parametrize("name", ["quarter-turns", "shifts"])
def test_weighted_elements(name: str, points: Tensor, normal: Normal) -> None:
    """Integer weights are copies; −∞ leaves an element out."""
    group, transforms = CASES[name]
    counts = [3, 0, 1, 2, *[0] * (len(transforms) - 4)]
    some = [g for g, count in zip(transforms, counts, strict=True) for _ in range(count)]
    G = orbit(OptimalDenoiser(points), group, torch.tensor(counts).double().log() + 7)
    R, x = doubled(points, some), 1.5 * normal(7, 2, 4, 4)
    found, right = G.posterior(x, 1.2), R.posterior(x, 1.2)
    assert row_error(found.mean, right.mean).max() <= 1e-12
    assert absolute_error(found.log_density, right.log_density).max() <= 1e-12 * right.log_density.abs().max()
    assert absolute_error(found.variance, right.variance).max() <= 1e-11
    assert absolute_error(G.mean, R.mean).max() <= 1e-14
    shares = G.element_weights(x, 1.2)
    expected = R.weights(x, 1.2).view(7, 6, 20).sum(2)
    assert absolute_error(shares[:, 3], expected[:, 4:].sum(1)).max() <= 1e-12
    assert (shares[:, 1] == 0).all()
    assert set((found.top_index // 20).tolist()) <= {0, 2, 3}


@pytest.mark.parametrize("name", ["flip", "a list"])
def test_derivatives_are_those_of_the_doubled_data(name: str, points: Tensor, normal: Normal) -> None:
    group, transforms = CASES[name]
    G, R, v = orbit(OptimalDenoiser(points), group), doubled(points, transforms), normal(5, 2, 4, 4)
    x = normal(5, 2, 4, 4).requires_grad_()
    sigma = torch.full((5,), 1.1, dtype=torch.float64, requires_grad=True)

    def gradients(T: Any) -> tuple[Tensor, ...]:
        post = T.posterior(x, sigma)
        total = (post.mean * v).sum() + sum(getattr(post, name).sum() for name in FIELDS)
        return torch.autograd.grad(total, (x, sigma))

    for found, right in zip(gradients(G), gradients(R), strict=True):
        assert absolute_error(found, right).max() <= 1e-11 * right.abs().max()
    asked = x.detach()
    product = G.covariance_product(asked, 1.1, v)  # pyright: ignore
    assert row_error(product, R.covariance_product(asked, 1.1, v)).max() <= 1e-11
    tangent = torch.func.jvp(lambda u: G(u, 1.1), (asked,), (v,))[1]
    assert row_error(tangent, product / 1.1**2).max() <= 1e-11


def test_the_contract_of_a_denoiser(points: Tensor) -> None:
    for group in ("flip", "quarter-turns", "shifts"):
        check_denoiser(orbit(OptimalDenoiser(points.float()), group), (2, 4, 4))


@pytest.mark.parametrize("surrounding", SURROUNDINGS)
def test_what_surrounds_a_call_changes_nothing(surrounding: str, points: Tensor, normal: Normal) -> None:
    x = normal(5, 2, 4, 4).float()
    for group in ("flip", "shifts"):
        G = orbit(OptimalDenoiser(points.float()), group)
        right = G.posterior(x, 0.8)
        with SURROUNDINGS[surrounding]():
            found = orbit(OptimalDenoiser(points.float()), group).posterior(x, 0.8)
        assert found.mean.dtype == torch.float32
        assert row_error(found.mean, right.mean).max() <= 1e-5
        assert absolute_error(found.entropy, right.entropy).max() <= 1e-4


def test_it_is_sampled_and_measured_like_any_other(points: Tensor, normal: Normal) -> None:
    D = OptimalDenoiser(points[:8])
    G, R = orbit(D, "flip"), doubled(points[:8], FLIP)
    noises, sigmas = 20 * normal(16, 2, 4, 4), karras(12, sigma_max=20.0)
    ends = sample(G, noises, sigmas)
    assert row_error(ends, sample(R, noises, sigmas)).max() <= 1e-9
    assert row_error(FlowMap(G, sigmas)(noises, 20.0), ends).max() <= 1e-9
    # Mirrored noises end on mirror images.
    assert row_error(sample(G, noises.flip(-1), sigmas), ends.flip(-1)).max() <= 1e-9
    with pytest.raises(ValueError, match=r"D must be an OptimalDenoiser, got PermutedOrbit: give sigmas="):
        FlowMap(G)
    borders = [seeking_refining_border(T, draws=32) for T in (G, R)]
    # The border of plain points has its exponentials in single precision: `optimal.paths`.
    assert borders[0].sigma == pytest.approx(borders[1].sigma, rel=1e-6)
    tables = [measure(D, T, sigmas=[0.5, 2.0], draws=64) for T in (G, R)]
    for name in tables[0].columns:
        a, b = (table.columns[name].value for table in tables)
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)


def test_what_is_refused(points: Tensor) -> None:
    D = OptimalDenoiser(points)
    coin = torch.Generator().manual_seed(0)
    others: list[Transform] = [
        lambda x: x.sort(-1).values,
        lambda x: -x,
        lambda x: x[:, :, :2],
        lambda x: x.clamp(-1, 1),
        lambda x: (x + x.roll(1, -1)) / 2,
        lambda x: x.flip(-1) if torch.rand((), generator=coin) < 0.5 else x,
    ]
    for other in others:
        with pytest.raises(ValueError, match="element 1 of the group must only move the values of a point"):
            orbit(D, [lambda x: x, other])
    for group, message in (
        ("flips", 'group must be "flip", "quarter-turns", "shifts", or a list of transforms, got \'flips\''),
        ([], "group must have at least one element, got none"),
        (lambda x: x, "or a list of transforms, got function"),
    ):
        with pytest.raises(ValueError, match=message):
            orbit(D, group)  # pyright: ignore
    wide, flat = OptimalDenoiser(points[..., :3]), OptimalDenoiser(points.flatten(1))
    assert len(orbit(wide, "flip")) == 40
    assert len(orbit(wide, "shifts")) == 240
    with pytest.raises(ValueError, match="quarter-turns are of square images, got 4 by 3"):
        orbit(wide, "quarter-turns")
    for group in ("flip", "quarter-turns", "shifts"):
        with pytest.raises(ValueError, match=r"needs images of shape \(C, H, W\), the points have shape \(32,\)"):
            orbit(flat, group)
    with pytest.raises(ValueError, match="D must be an OptimalDenoiser, got function"):
        orbit(lambda x, sigma: x, "flip")  # pyright: ignore
    for weights, message in (
        ([0.0], r"log_weights must be one an element, \(2,\), got shape \(1,\)"),
        ([0.0, math.nan], "log_weights must be finite or −inf"),
        ([-math.inf, -math.inf], "not all of them −inf"),
    ):
        with pytest.raises(ValueError, match=message):
            orbit(D, "flip", weights)
    for group in ("flip", "shifts"):
        G = orbit(D, group)
        with pytest.raises(ValueError, match=r"x must have shape \(B, 2, 4, 4\), got \(1, 2, 4, 3\)"):
            G(points[:1, :, :, :3], 1.0)
        with pytest.raises(ValueError, match="sigma must be positive and finite, got 0"):
            G(points[:1], 0.0)
        with pytest.raises(ValueError, match="x must be finite"):
            G(points[:1] * math.nan, 1.0)


@pytest.mark.parametrize("name", ["flip", "quarter-turns", "shifts"])
@pytest.mark.parametrize("sigma", [0.05, 0.7, 5.0])
def test_a_label_a_row_is_the_doubled_data_of_that_class(
    name: str, sigma: float, points: Tensor, normal: Normal
) -> None:
    points, labels = points.float(), np.array([4, 9, 4, 2] * 5)
    D = OptimalDenoiser(Dataset("some", points.numpy(), labels))
    own = torch.tensor([9, 4, 2, 4, 9])
    G, x = orbit(D.given(own), name), points[:5].double() + sigma * normal(5, 2, 4, 4)
    found, transforms = G.posterior(x, sigma), CASES[name][1]
    assert torch.equal(G(x, sigma), found.mean)
    assert len(G) == len(transforms) * 20
    for b, label in enumerate(own.tolist()):
        part, row = torch.from_numpy(np.flatnonzero(labels == label)), x[b : b + 1]
        R = doubled(points[part], transforms)
        right = R.posterior(row, sigma)
        assert row_error(found.mean[b : b + 1], right.mean).max() <= 1e-12
        for field in FIELDS:
            assert abs(float(getattr(found, field)[b] - getattr(right, field)[0])) <= 1e-11 * max(
                1.0, abs(float(getattr(right, field)[0]))
            )
        g, j = divmod(int(right.top_index), len(part))
        assert int(found.top_index[b]) == 20 * g + int(part[j])
        assert row_error(G.score(x, sigma)[b : b + 1], R.score(row, sigma)).max() <= 1e-11
        weights = R.weights(row, sigma).view(1, len(transforms), -1).sum(2)
        assert absolute_error(G.element_weights(x, sigma)[b : b + 1], weights).max() <= 1e-12
    images = G.take(found.top_index)
    assert torch.equal(images, orbit(D, name).take(found.top_index))
    with pytest.raises(ValueError, match="labels must be one a row: 5 of them for 2 rows"):
        G(x[:2], sigma)
    assert orbit(D.given(own[:0]), name)(x[:0], sigma).shape == (0, 2, 4, 4)
