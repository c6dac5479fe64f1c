"""The empirical distribution: what it owns, what it answers, and that nothing around it changes either."""

from __future__ import annotations

import copy
import math
import pickle
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from optimal import OptimalDenoiser, load
from optimal.arithmetic import ours
from optimal.datasets import Dataset
from optimal.evaluate.byte_nearest import screen
from optimal.points import Points, leads
from optimal.points.rounding import UNIT, gamma, halvings, pairwise_sum

Normal = Callable[..., Tensor]


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def column(*values: float, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.tensor(values, dtype=dtype)[:, None]


def exact_dot(a: Tensor, b: Tensor) -> Fraction:
    return sum((Fraction(x) * Fraction(y) for x, y in zip(a.tolist(), b.tolist(), strict=True)), Fraction(0))


# Nearest.


def check_nearest(data: Tensor, x: Tensor) -> None:
    """By rational arithmetic: the first of the nearest, or one that is told apart by less than is promised."""
    found = OptimalDenoiser(data).nearest(x)
    points = Points(data)
    z, rows = points.reduced(x), data.flatten(1).double()
    norms = points.reduced(data).norm(dim=1)
    for query, reach, index in zip(x.flatten(1).double(), z.norm(dim=1), found.tolist(), strict=True):
        squares = [_square(query, point) for point in rows]
        best = squares.index(min(squares))
        apart = float((rows[best] - rows[index]).norm())
        promised = (
            4 * gamma(halvings(points.dim) + 10) * apart * float(reach + norms[best] + norms[index]) * points.unit
        )
        assert float(squares[index] - squares[best]) <= promised
        assert index == best or apart > 0


def _square(x: Tensor, y: Tensor) -> Fraction:
    return sum(((Fraction(a) - Fraction(b)) ** 2 for a, b in zip(x.tolist(), y.tolist(), strict=True)), Fraction(0))


@pytest.mark.parametrize("dim", [1, 2, 5, 70])
def test_nearest_is_that_of_rational_arithmetic(dim: int, normal: Normal) -> None:
    data = normal(40, dim)
    data[20:] = data[:20]
    data[30:] += 1e-9 * normal(10, dim)
    data[7] *= 1e6
    x = torch.cat([data[::3], (data[1:5] + data[2:6]) / 2, 1e4 * normal(3, dim), 0.3 * normal(5, dim)])
    check_nearest(data, x)
    check_nearest(data.float(), x.float())


def test_nearest_in_the_tree_is_that_of_the_products(normal: Normal, monkeypatch: pytest.MonkeyPatch) -> None:
    data = normal(3000, 2)
    data[1500:1600] = data[:100]
    x = torch.cat([data[::7], 5 * normal(50, 2), 1e3 * normal(5, 2)])
    by_tree = OptimalDenoiser(data).nearest(x)
    monkeypatch.setattr("optimal.points.nearest._TREE_DIM", 0)
    assert torch.equal(by_tree, OptimalDenoiser(data).nearest(x))
    assert torch.equal(by_tree, torch.cdist(x, data, compute_mode="donot_use_mm_for_euclid_dist").argmin(1))


def test_heavy_tails_and_far_points() -> None:
    """Ties are judged by the points concerned: 4,672 were wrong when they were judged by the farthest."""
    heavy = torch.from_numpy(np.random.default_rng(0).standard_cauchy(20_000)).float()[:, None]
    assert torch.equal(heavy[OptimalDenoiser(heavy).nearest(heavy)], heavy)
    for far in (3e5, 1e8):
        assert OptimalDenoiser(column(0.0, 0.05, far)).nearest(column(0.05)).item() == 1


def test_images_of_bytes(normal: Normal) -> None:
    images = torch.randint(0, 256, (300, 3, 8, 8), dtype=torch.uint8, generator=seeded())
    images[200:] = images[:100]
    images[7, 0, 0, 0] ^= 1
    D = OptimalDenoiser(images)
    index = torch.arange(300)
    assert torch.equal(D.nearest(D.take(index)), D.first_copies())
    x = D.take(index[:20]) + 0.3 * normal(20, 3, 8, 8).float()
    points = D.take(index).flatten(1).double()
    assert torch.equal(D.nearest(x), (x.flatten(1).double()[:, None] - points).square().sum(2).argmin(1))


@pytest.mark.parametrize("kind", ["bytes", "bytes by float32 products", "points", "far points"])
def test_neighbours_are_those_of_differences(kind: str, normal: Normal, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of copies the first, in the order of their distances, however they are looked for."""
    if kind.startswith("bytes"):
        data: Tensor = torch.randint(0, 256, (300, 3, 8, 8), dtype=torch.uint8, generator=seeded())
    else:
        data = normal(300, 5) + (1e4 if kind == "far points" else 0)
    data[200:280] = data[:80]
    if kind == "bytes by float32 products":
        monkeypatch.setattr("optimal.evaluate.byte_nearest.fast_bytes", lambda: False)
    D = OptimalDenoiser(data)
    points = D.take(torch.arange(300)).flatten(1).double()
    x = D.take(torch.arange(150, 260)) + 0.3 * normal(110, *D.event).to(points.dtype if data.ndim == 2 else torch.float)
    x[:9] = D.take(torch.arange(200, 209)).to(x)
    squares = (x.flatten(1).double()[:, None] - points).square().sum(2)
    squares[:, D.first_copies() != torch.arange(300)] = torch.inf
    order = squares.argsort(1)
    for count in (1, 2, 5):
        index, distance = D.neighbours(x, count)
        assert torch.equal(index, order[:, :count])
        torch.testing.assert_close(distance, squares.gather(1, index).sqrt(), rtol=1e-9, atol=0)
    assert torch.equal(D.neighbours(x, 1)[0][:, 0], D.nearest(x))


def test_neighbours_there_are_not() -> None:
    index, distance = OptimalDenoiser(column(1.0, 1.0, 3.0)).neighbours(column(0.0), 3)
    assert index.tolist() == [[0, 2, -1]]
    assert distance.tolist() == [[1.0, 3.0, math.inf]]
    with pytest.raises(ValueError, match="count must be at least 1, got 0"):
        OptimalDenoiser(column(1.0)).neighbours(column(0.0), 0)


def test_many_copies_and_many_ties(monkeypatch: pytest.MonkeyPatch) -> None:
    """More candidates than are compared one by one: copies are left to the first of them."""
    monkeypatch.setattr("optimal.points.nearest._PAIRS", 2)
    data = torch.ones(500, 20, dtype=torch.float64)
    data[250:] = 2.0
    D = OptimalDenoiser(data)
    x = torch.tensor([1.1, 1.9, 1.5], dtype=torch.float64)[:, None].expand(3, 20)
    assert D.nearest(x).tolist() == [0, 250, 0]
    near, second = D.two_nearest(x)
    torch.testing.assert_close(near, torch.tensor([0.1, 0.1, 0.5]).double() * 20**0.5)
    torch.testing.assert_close(second, torch.tensor([0.9, 0.9, 0.5]).double() * 20**0.5)


def test_queries_beyond_float32() -> None:
    D = OptimalDenoiser(torch.eye(70, dtype=torch.float64))
    assert D.nearest(1e60 * torch.eye(70, dtype=torch.float64)).tolist() == list(range(70))


# Rounding.


@pytest.mark.parametrize("size", [1, 2, 3, 1000, 12_288])
def test_a_pairwise_sum_is_within_its_bound(size: int, normal: Normal) -> None:
    values = normal(3, size) * torch.logspace(-8, 8, size).double()
    sums = pairwise_sum(values.clone())
    for row, found in zip(values, sums, strict=True):
        exact = exact_dot(row, torch.ones_like(row))
        size_of = float(sum(abs(Fraction(v)) for v in row.tolist()))
        assert abs(float(Fraction(found.item()) - exact)) <= gamma(halvings(size)) * size_of
    assert torch.equal(pairwise_sum(values[1:2].clone()), sums[1:2])


def test_gamma() -> None:
    assert gamma(1) >= UNIT
    assert gamma(12_288) == pytest.approx(12_288 * UNIT, rel=1e-10)
    assert [halvings(n) for n in (0, 1, 2, 3, 4, 5, 12_288)] == [0, 0, 1, 2, 2, 3, 14]


@pytest.mark.parametrize("dim", [1, 3, 700])
def test_leads_are_within_their_error(dim: int, normal: Normal) -> None:
    """Against rational arithmetic, for points of all distances from each other and from the centre."""
    data = 1e3 + normal(12, dim)
    data[1] = data[0]
    data[2] = data[0].nextafter(torch.tensor(math.inf).double())
    data[3] = data[0] + 1e-9 * normal(dim)
    data[11] *= 1e7
    points = Points(data)
    x = torch.cat([data[:4] + 1e-10 * normal(4, dim), data[5:7] + normal(2, dim), 1e5 * normal(2, dim)])
    z = points.reduced(x)
    rows = torch.arange(len(x)).repeat_interleave(12)
    columns = torch.arange(12).repeat(len(x))
    reference = torch.tensor([0, 0, 2, 3, 4, 11, 5, 6])
    found = leads(points, z, reference, rows, columns)
    for pair, (row, other) in enumerate(zip(rows.tolist(), columns.tolist(), strict=True)):
        own = int(reference[row])
        exact = (_square(x[row], data[other]) - _square(x[row], data[own])) / 2 / Fraction(points.unit) ** 2
        assert abs(float(Fraction(found.lead[pair].item()) - exact)) <= float(found.error[pair])
        half = float(_square(data[own], data[other]) / 2 / Fraction(points.unit) ** 2)
        assert float(found.half_square[pair]) == pytest.approx(half, rel=1e-13)
    copies = found.half_square == 0
    assert copies.sum() == sum((data[int(reference[r])] == data[c]).all() for r, c in zip(rows, columns, strict=True))
    assert (found.lead[copies] == 0).all()
    assert (found.error[copies] == 0).all()


# Copies.


def test_copies_are_compared_in_full(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the hashes say: here that all rows are one."""
    data = torch.randint(0, 2, (200, 6), generator=seeded()).double()
    data[3] = -0.0
    data[9] = 0.0
    first = [next(i for i in range(j + 1) if (data[i] == data[j]).all()) for j in range(200)]
    assert OptimalDenoiser(data).first_copies().tolist() == first
    monkeypatch.setattr("optimal.points.copies._hashes", lambda rows, index, words: torch.zeros_like(index))
    assert OptimalDenoiser(data).first_copies().tolist() == first


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("dim", [1, 7, 64])
def test_copies_of_every_type(dtype: torch.dtype, dim: int) -> None:
    data = (torch.rand(50, dim, generator=seeded()) * 255).to(dtype)
    data = torch.cat([data, data.flip(0), data[:1]])
    found = Points(data).first_copies
    if dim > 1:
        assert found.tolist() == [*range(50), *range(49, -1, -1), 0]
    assert (data[found] == data).all()
    assert (found[found] == found).all()


# Units, centre, spread.


def test_scale_and_unit(normal: Normal) -> None:
    data, x, v = normal(60, 70).float(), normal(5, 70).float(), normal(5, 70).float()
    plain = OptimalDenoiser(data)
    post, product = plain.posterior(x, 1.3), plain.covariance_product(x, 1.3, v)
    assert plain.points.unit == 1
    for power in (2.0**-99, 2.0**99):
        D = OptimalDenoiser(data * power)
        assert D.points.unit != 1
        found = D.posterior(x * power, 1.3 * power)
        torch.testing.assert_close(found.mean / power, post.mean, rtol=1e-6, atol=1e-7)
        torch.testing.assert_close(found.entropy, post.entropy, rtol=1e-6, atol=1e-9)
        torch.testing.assert_close(found.variance / power / power, post.variance, rtol=1e-5, atol=1e-9)
        shift = 70 * math.log(power)
        torch.testing.assert_close(found.log_density + shift, post.log_density, rtol=1e-9, atol=1e-6)
        torch.testing.assert_close(D.score(x * power, 1.3 * power) * power, plain.score(x, 1.3), rtol=1e-5, atol=1e-6)
        # Squares of 2⁹⁹ are no float32.
        wide = D.covariance_product(x.double() * power, 1.3 * power, v.double()) / power / power
        torch.testing.assert_close(wide, product.double(), rtol=1e-4, atol=1e-5)
        assert D.standard_deviation == pytest.approx(plain.standard_deviation * power, rel=1e-9)
        assert torch.equal(D.nearest(x * power), plain.nearest(x))
        for a, b in zip(D.two_nearest(x * power), plain.two_nearest(x), strict=True):
            torch.testing.assert_close(a / power, b, rtol=1e-7, atol=0)


@pytest.mark.parametrize(
    ("x", "sigma", "sentence"),
    [
        (0.9, 1e-160, "sigma must lie between 5.5[0-9]e-76 and 1.8[0-9]e\\+75 for these data, got 1e-160"),
        (0.9, 1e80, "sigma must lie between"),
        (4.2e154, 1.4, "x must lie within 1.8[0-9]e\\+75 of these data, row 0 does not"),
    ],
)
def test_what_no_square_holds_is_refused(x: float, sigma: float, sentence: str) -> None:
    D = OptimalDenoiser(column(-1.0, 1.0))
    with pytest.raises(ValueError, match=sentence):
        D(column(x), sigma)


def test_mean_and_deviation_are_those_of_all_points(normal: Normal) -> None:
    """The centre is that of some points only: of rows that alternate, once, those of one sign."""
    data = torch.tensor([1.0, -1.0], dtype=torch.float64).repeat(4096)[:, None] + 0.1 * normal(8192, 1)
    D = OptimalDenoiser(data)
    assert D.standard_deviation == pytest.approx(float(data.std(correction=0)), rel=1e-12)
    torch.testing.assert_close(D.mean, data.mean(0), rtol=0, atol=1e-13)
    far = torch.cat([data, column(1e6)])
    assert OptimalDenoiser(far).standard_deviation == pytest.approx(float(far.std(correction=0)), rel=1e-12)


def test_far_points_do_not_move_the_centre(normal: Normal) -> None:
    data = normal(1000, 3)
    data[::40] += 1e9
    assert Points(data).centre.abs().max() < 1
    assert Points(column(0.0, 1.0, 1e8)).centre.item() <= 1
    assert Points(torch.full((7, 3), 0.1)).radius == 0


def test_offset_of_a_million_deviations(normal: Normal) -> None:
    """float64 data far from 0 and an x of float32: y is not rounded before c is subtracted."""
    for offset in (1e4, 1e6):
        data = offset + normal(300, 100)
        x = (data[:5] + 0.7 * normal(5, 100)).float()
        D = OptimalDenoiser(data)
        logits = -(x.double()[:, None] - data).square().sum(2) / 2 / 0.7**2
        expected = logits.log_softmax(1)
        error = (D.weights(x, 0.7).double().log() - expected)[expected > -20].abs().max()
        assert error <= 1e-3


# What surrounds them.


def test_changed_data_are_noticed(tmp_path: Path) -> None:
    small = torch.randn(50, 2, generator=seeded())
    D, x = OptimalDenoiser(small), torch.zeros(1, 2)
    before = D(x, 1.0)
    small += 1
    assert torch.equal(D(x, 1.0), before)
    for large in (torch.zeros(300_000, 20), np.zeros((300_000, 20), np.float32)):
        D = OptimalDenoiser(large)
        D(torch.zeros(1, 20), 1.0)
        large += 100
        with pytest.raises(ValueError, match="the data were changed after the denoiser was made"):
            D(torch.zeros(1, 20), 1.0)


@pytest.mark.parametrize("kind", ["array", "numpy()", ".data", "float16"])
def test_one_value_that_is_changed_behind_the_count_of_writes_is_noticed(kind: str) -> None:
    array = np.random.default_rng(0).integers(0, 256, (9001, 2001), dtype=np.uint8)
    given = array if kind == "array" else torch.from_numpy(array)
    if kind == "float16":
        given = torch.from_numpy(array).half() - 128
    D = OptimalDenoiser(given)
    x = torch.zeros(1, 2001)
    D.nearest(x)
    if isinstance(given, torch.Tensor):
        (given.data if kind == ".data" else given.numpy())[1, 7] += 1
    else:
        given[1, 7] += 1
    with pytest.raises(ValueError, match="the data were changed after the denoiser was made"):
        D.nearest(x)


def test_masks_are_refused_wherever_an_array_is_taken() -> None:
    points = np.ma.masked_array(np.ones((3, 2), np.float32), mask=np.eye(3, 2))
    three = np.ma.masked_array(np.arange(3), mask=[1, 0, 0])
    data = Dataset("three", np.arange(6, dtype=np.float32).reshape(3, 2), np.arange(3))
    D, seen = OptimalDenoiser(data), torch.tensor([True, False])
    for name, take in (
        ("MaskedArray", lambda: OptimalDenoiser(points)),
        ("MaskedArray", lambda: OptimalDenoiser([points[0], points[1]])),
        ("data", lambda: Points(points, 2**30)),
        ("the array of a", lambda: Dataset("a", points)),
        ("the labels of a", lambda: Dataset("a", points.data, three)),
        ("log_weights", lambda: D.weighted(three.astype(float))),
        ("index", lambda: D.without(three)),
        ("labels", lambda: D.given(three)),
        ("observation", lambda: D.measured(seen, points[0], 0.1)),
        ("log_likelihood", lambda: D.observed(-three.astype(float))),
        ("log_likelihood", lambda: D.observed(-three[None].astype(float), rows=True)),
    ):
        with pytest.raises(ValueError, match=f"^{name} has a mask, which would be lost: give .filled"):
            take()


@pytest.mark.parametrize("order", ["C", "F"])
def test_a_map_is_pickled_by_name_and_copied(order: str, tmp_path: Path) -> None:
    array = np.asarray(np.random.default_rng(0).standard_normal((4000, 16)), np.float32, order=order)  # pyright: ignore[reportCallIssue, reportArgumentType]
    np.save(tmp_path / "data.npy", array)
    mapped = np.load(tmp_path / "data.npy", mmap_mode="r")
    D = OptimalDenoiser(mapped, memory=20_000)
    assert D.points.streamed == (order == "C")
    x = torch.randn(3, 16, generator=seeded())
    data = pickle.dumps(D.points)
    assert len(data) < 100_000
    for points in (pickle.loads(data), copy.deepcopy(D.points)):
        assert points.streamed == D.points.streamed
        assert torch.equal(points.nearest(points.reduced(x)), D.nearest(x))
    for other in (pickle.loads(pickle.dumps(D)), copy.deepcopy(D)):
        assert torch.equal(other(x, 1.0), D(x, 1.0))
    np.save(tmp_path / "data.npy", array + 1)
    with pytest.raises(ValueError, match="the data were changed"):
        pickle.loads(data)


def test_views_of_maps_are_pickled_by_their_place(tmp_path: Path) -> None:
    array = np.arange(6000 * 10, dtype=np.float32).reshape(6000, 2, 5)
    np.save(tmp_path / "data.npy", array)
    part = np.load(tmp_path / "data.npy", mmap_mode="r")[1000:5000].reshape(4000, 10)
    data = pickle.dumps(Points(part, 1000))
    assert len(data) < 80_000
    assert torch.equal(
        pickle.loads(data).take(torch.tensor([0, 3999])), torch.from_numpy(array[[1000, 4999]]).view(2, 10)
    )


def test_a_map_in_the_order_of_fortran_is_not_copied(tmp_path: Path) -> None:
    array = np.asfortranarray(np.random.default_rng(0).standard_normal((500, 2, 3)))
    np.save(tmp_path / "data.npy", array)
    mapped = np.load(tmp_path / "data.npy", mmap_mode="r")
    x = torch.randn(3, 2, 3, generator=seeded(), dtype=torch.float64)
    torch.testing.assert_close(OptimalDenoiser(mapped)(x, 1.0), OptimalDenoiser(array.copy("C"))(x, 1.0))
    assert torch.equal(OptimalDenoiser(array[::-1])(x, 1.0), OptimalDenoiser(array[::-1].copy())(x, 1.0))


def test_large_arrays_are_opened_for_reading(tmp_path: Path) -> None:
    np.save(tmp_path / "big.npy", np.random.default_rng(0).integers(0, 256, (400, 3, 16, 16), dtype=np.uint8))
    D = OptimalDenoiser(load(str(tmp_path / "big.npy"), progress=False), memory=10_000)
    assert D.points.streamed


def test_our_own_arithmetic() -> None:
    a, b = torch.randn(8, 300, generator=seeded()), torch.randn(300, 8, generator=seeded(1))
    plain = a @ b
    backends = torch.backends.mkldnn.matmul, torch.backends.cuda.matmul  # pyright: ignore[reportAttributeAccessIssue]
    for setting in ("medium", "high", "highest"):
        torch.set_float32_matmul_precision(setting)
        before = [backend.fp32_precision for backend in backends]
        with torch.autocast("cpu", torch.bfloat16), ours(), ours():
            assert torch.equal(a @ b, plain)
            # "none" is the default, which is full.
            assert {backend.fp32_precision for backend in backends} <= {"ieee", "none"}
        assert [backend.fp32_precision for backend in backends] == before
        assert torch.get_float32_matmul_precision() == setting
    with pytest.raises(ZeroDivisionError), ours():
        raise ZeroDivisionError
    assert [backend.fp32_precision for backend in backends] == before


@pytest.mark.parametrize("sigma", [0.01, 1.0, 30.0])
def test_nearest_by_bytes_is_that_by_products(sigma: float, normal: Normal) -> None:
    """The screen leaves the right ones in: on images of which some differ by one grey level, and on constant ones."""
    images = torch.randint(0, 256, (400, 3, 16, 16), dtype=torch.uint8, generator=seeded())
    images[100:200] = images[:100]
    images[150:200, 0, 0, 0] ^= 1
    images[300:] = 77
    D = OptimalDenoiser(images)
    x = (D.take(torch.arange(0, 400, 9)) + sigma * normal(45, 3, 16, 16)).float()
    z, _ = D.query(x, 1.0)
    found = D.nearest(x)
    assert torch.equal(found, D.points.nearest(z))
    squares = (z[:, None] - D.points.reduced(D.take(torch.arange(400)))).square().sum(2)
    assert torch.equal(found, squares.argmin(1))
    pairs = screen(D.points, z)
    if pairs is not None:
        assert len(pairs[0]) < 0.8 * squares.numel()
        small = Points(images, memory=400 * 8 * 4 * 7)
        for one, other in zip(pairs, screen(small, z) or (), strict=True):
            assert torch.equal(one, other)
