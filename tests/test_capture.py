"""The capture certificate: never wrong where the destination is known, and as sharp as its formula."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction

import mpmath
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.integrate import quad
from scipy.special import erfcx, ndtr
from torch import Tensor

from optimal import OptimalDenoiser, load
from optimal.flow.certificate import TRIALS, Capture, Certificate, capture, certify
from optimal.reference import GaussianMixture

Normal = Callable[..., Tensor]


@dataclass(frozen=True)
class State:
    x: Tensor
    sigma: float


def column(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)[:, None]


def flow(data: Tensor, x: Tensor, sigmas: Tensor, substeps: int) -> Iterator[State]:
    """States of dx/dlnσ = x − D at every level of `sigmas`, by RK4 with D by direct differences in float64."""
    y, shape = data.double().flatten(1), x.shape
    x = x.double().flatten(1)

    def rate(x: Tensor, log_sigma: float) -> Tensor:
        squares = torch.cdist(x, y, compute_mode="donot_use_mm_for_euclid_dist").square_()
        return x - (squares * (-0.5 * math.exp(-2 * log_sigma))).softmax(1) @ y

    logs = sigmas.double().log().tolist()
    yield State(x=x.view(shape), sigma=math.exp(logs[0]))
    for start, stop in itertools.pairwise(logs):
        h = (stop - start) / substeps
        for step in range(substeps):
            s = start + step * h
            a = rate(x, s)
            b = rate(x + h / 2 * a, s + h / 2)
            c = rate(x + h / 2 * b, s + h / 2)
            x = x + h / 6 * (a + 2 * b + 2 * c + rate(x + h * c, s + h))
        yield State(x=x.view(shape), sigma=math.exp(stop))


def levels(low: float, count: int, high: float = 80.0) -> Tensor:
    return torch.logspace(math.log10(high), math.log10(low), count, dtype=torch.float64)


def drift_bounds(D: OptimalDenoiser, x: Tensor, sigma: float | Tensor, index: Tensor) -> Tensor:
    """The sums of the certificate, (B, len(TRIALS))."""
    return D.evaluator.drift_bounds(*D.query(x, sigma), index, TRIALS)


def reference_sums(data: Tensor, x: Tensor, sigma: float, k: int, trials: tuple[float, ...] = TRIALS) -> np.ndarray:
    """S(δ) of one query from differences, in float64: the integrals in closed form."""
    y, query = data.double().flatten(1).numpy(), x.double().flatten().numpy()
    differences = y[k] - y
    distances = np.sqrt((differences**2).sum(1))
    others = distances > 0
    A = distances[others] / sigma
    along = differences[others] @ (query - y[k]) / (distances[others] * sigma)
    with np.errstate(over="ignore"):
        terms = [
            np.exp(-A * (A / 2 + along - delta)) * erfcx((A + along - delta) / math.sqrt(2)) * math.sqrt(math.pi / 2)
            for delta in trials
        ]
    return np.array([term.sum() for term in terms]) / (~others).sum()


def references(data: Tensor, x: Tensor, sigma: float, index: Tensor) -> np.ndarray:
    """`reference_sums` of every row, (B, len(TRIALS))."""
    return np.stack([reference_sums(data, row, sigma, int(k)) for row, k in zip(x, index, strict=True)])


def follow(D: OptimalDenoiser, data: Tensor, states: list[State], destination: Tensor) -> Capture:
    """Check every certificate against the destination, and the theorem's other half: the leader stays."""
    certain = torch.zeros(len(destination), dtype=torch.bool)
    for state in states:
        certificate = certify(D, state.x, state.sigma)
        assert torch.equal(certificate.index[certificate.holds], destination[certificate.holds])
        assert torch.equal(certificate.index[certain], destination[certain])
        assert torch.equal(certificate.holds, certificate.drift.isfinite())
        certain |= certificate.holds
    assert certain.all()
    captured = capture(D, states)
    assert torch.equal(captured.index, destination)
    assert not captured.sigma.isnan().any()
    moved = ~captured.last_change.isnan()
    assert (captured.last_change > captured.sigma)[moved].all()
    return captured


# Never wrong.


@pytest.mark.slow
def test_five_deltas_against_the_conserved_mass(normal: Normal) -> None:
    """In one dimension the flow keeps the mass on each side of x: where it ends is known without integration."""
    data = load("five-deltas").points
    y = data.double().flatten()
    x = 80 * normal(2000, 1)
    share = ndtr(((x - y) / 80).numpy()).mean(1) * len(y)
    assert np.abs(share - share.round()).min() > 1e-9
    destination = y.argsort()[torch.from_numpy(np.floor(share).astype(np.int64))]
    states = list(flow(data, x, levels(1e-3, 60), 25))
    captured = follow(OptimalDenoiser(data), data, states, destination)
    assert 0.35 < captured.sigma.median() < 0.5
    counts = destination.bincount(minlength=5)
    assert counts.min() > 300


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "starts", "low", "high"), [("digits", 40, 0.5, 0.78), ("faces", 40, 1.8, 2.9)], ids=["digits", "faces"]
)
def test_images_against_fine_integration(name: str, starts: int, low: float, high: float, normal: Normal) -> None:
    dataset = load(name)
    data = dataset.points
    states = list(flow(data, 80 * normal(starts, *dataset.event), levels(2e-3, 50), 4))
    destination = torch.cdist(states[-1].x.flatten(1), data.double().flatten(1)).argmin(1)
    captured = follow(OptimalDenoiser(data), data, states, destination)
    assert low < captured.sigma.median() < high
    # Leaders settle well before it is certain that they have.
    assert captured.last_change.nanmedian() > 2 * captured.sigma.median()


@pytest.mark.parametrize("dim", [1, 3])
def test_two_points_against_theory(dim: int, normal: Normal) -> None:
    """±d: the side of the middle decides; the certificate holds exactly where one exponential integral is small."""
    d = normal(dim)
    data = torch.stack([d, -d])
    x = 5 * normal(200, dim)
    destination = (x @ d < 0).long()
    D = OptimalDenoiser(data)
    states = list(flow(data, x, levels(1e-3, 40, high=5.0), 20))
    follow(D, data, states, destination)
    for state in states[::3]:
        expected = references(data, state.x, state.sigma, destination)
        np.testing.assert_array_equal(certify(D, state.x, state.sigma).holds.numpy(), (expected <= TRIALS).any(1))


def overtaken(lead: float, A: float = 10.0) -> tuple[Tensor, Tensor]:
    """One point at 0 and the same point twice at A, σ = 1, and x where 0 leads each of them by `lead` nats."""
    return column(0.0, A, A), column(A / 2 - lead / A)


@pytest.mark.parametrize("lead", [0.3, 0.5, 0.6])
def test_a_leader_that_is_overtaken(lead: float) -> None:
    """Leading is not enough, nor is a small pull along the straight way: drift must feed back into the bound."""
    data, x = overtaken(lead)
    # Less mass is left of x than one of three points has: tails, as 1/3 itself would hide them.
    assert 2 * ndtr(float(x) - 10) > ndtr(-float(x))
    D = OptimalDenoiser(data)
    certificate = certify(D, x, 1.0)
    assert certificate.index.tolist() == [0]
    assert reference_sums(data, x[0], 1.0, 0, (0.0,))[0] < 0.3
    assert not certificate.holds
    assert certificate.drift.tolist() == [math.inf]
    captured = capture(D, flow(data, x, levels(0.01, 80, high=1.0), 10))
    assert captured.index.tolist() == [1]
    assert captured.sigma < captured.last_change <= 1


def test_the_overtaken_leader_wins_when_far_enough_ahead() -> None:
    data, x = overtaken(3.0)
    certificate = certify(OptimalDenoiser(data), x, 1.0)
    assert certificate.index.tolist() == [0]
    assert certificate.holds


def test_many_points_overtake_one() -> None:
    """A blend of 200 points pulls x away from the single nearest one, so the certificate waits."""
    generator = torch.Generator().manual_seed(3)
    crowd = torch.randn(200, 2, generator=generator, dtype=torch.float64) * 0.3
    data = torch.cat([torch.tensor([[-2.0, 0.0]], dtype=torch.float64), crowd])
    x = torch.tensor([[-1.6, 0.0]], dtype=torch.float64)
    D = OptimalDenoiser(data)
    assert certify(D, x, 1.0).index.tolist() == [0]
    states = list(flow(data, x, levels(1e-3, 80, high=1.0), 10))
    captured = follow(D, data, states, torch.cdist(states[-1].x, data).argmin(1))
    assert captured.index.tolist() != [0]


# The bound is what the formula says.


def test_sums_against_quadrature(normal: Normal) -> None:
    data, sigma = normal(7, 4), 0.7
    data[4] = data[1]
    x = data[1:2] + 0.4 * normal(1, 4)
    expected = np.zeros(len(TRIALS))
    for j in (0, 2, 3, 5, 6):
        A = float((data[1] - data[j]).norm()) / sigma
        along = float((data[1] - data[j]) @ (x[0] - data[1])) / (A * sigma**2)
        for trial, delta in enumerate(TRIALS):
            c = along - delta
            expected[trial] += quad(lambda a, c=c: math.exp(-a * a / 2 - a * c), A, math.inf, epsabs=0)[0] / 2
    sums = drift_bounds(OptimalDenoiser(data), x, sigma, torch.tensor([1]))
    np.testing.assert_allclose(sums[0].numpy(), expected, rtol=1e-5)
    np.testing.assert_allclose(reference_sums(data, x, sigma, 1), expected, rtol=1e-8)


@pytest.mark.parametrize("dim", [1, 3, 100])
@pytest.mark.parametrize("far", [1.0, 1e4])
def test_sums_are_upper_bounds(dim: int, far: float, normal: Normal) -> None:
    """Two clusters `far` apart, with copies and near copies, from σ where all blend to σ where rounding shows."""
    data = normal(40, dim)
    data[20:] += far
    data[3], data[4], data[5] = data[0], data[0] + 1e-9, data[0] + 1e-5
    D = OptimalDenoiser(data)
    for sigma in (1e-3, 1e-2, 0.1, 1.0, 10.0):
        x = data[:12] + sigma * normal(12, dim)
        index = torch.cdist(x, data, compute_mode="donot_use_mm_for_euclid_dist").argmin(1)
        sums = drift_bounds(D, x, sigma, index).numpy()
        expected = references(data, x, sigma, index)
        assert (sums >= expected * (1 - 1e-9)).all()
        if far == 1.0:
            small = expected < 1e6
            np.testing.assert_allclose(sums[small], expected[small], rtol=2e-3, atol=1e-12)


def exact_sums(data: Tensor, x: Tensor, sigma: float, k: int) -> list[mpmath.mpf]:
    """S(δ) of one query, from leads and distances in rational arithmetic, to 40 digits."""
    y = [[Fraction(value) for value in row] for row in data.double().flatten(1).tolist()]
    query, square = [Fraction(value) for value in x.double().flatten().tolist()], Fraction(sigma) ** 2
    to_points = [sum((a - b) ** 2 for a, b in zip(query, row, strict=True)) for row in y]
    sums, copies = [mpmath.mpf(0)] * len(TRIALS), 0
    for j, row in enumerate(y):
        apart = sum((a - b) ** 2 for a, b in zip(y[k], row, strict=True))
        if apart == 0:
            copies += 1
            continue
        g, A = number((to_points[j] - to_points[k]) / (2 * square)), mpmath.sqrt(number(apart / square))
        for trial, delta in enumerate(TRIALS):
            c = g / A - A / 2 - mpmath.mpf(delta)
            term = mpmath.exp(c * c / 2) * mpmath.erfc((A + c) / mpmath.sqrt(2)) * mpmath.sqrt(mpmath.pi / 2)
            sums[trial] += term
    return [total / copies for total in sums]


def number(value: Fraction) -> mpmath.mpf:
    return mpmath.mpf(value.numerator) / value.denominator


def check_bounds(data: Tensor, x: Tensor, sigma: float, index: Tensor, D: OptimalDenoiser | None = None) -> list[float]:
    """Assert that no sum is below its exact value; by what factors they are above."""
    sums, ratios = drift_bounds(D or OptimalDenoiser(data), x, sigma, index).tolist(), []
    with mpmath.workdps(60):
        for row, k in enumerate(index.tolist()):
            for found, exact in zip(sums[row], exact_sums(data, x[row], sigma, k), strict=True):
                assert not found < exact, (row, k, found, exact)
                if 1e-200 < exact < 1e200 and math.isfinite(found):
                    ratios.append(float(found / exact))
    return ratios


@pytest.mark.parametrize("dim", [1, 3, 50])
@pytest.mark.parametrize("sigma", [1e-3, 1.0, 30.0])
def test_no_sum_is_below_its_exact_value(dim: int, sigma: float, normal: Normal) -> None:
    """On the border between points 100 apart, where at σ = 1e-3 products lose nats; near copies, copies."""
    data = 100 * normal(12, dim)
    data[1], data[2], data[3] = data[0] + 1e-3, data[0] * (1 + 2.0**-50), data[4]
    x = torch.cat([(data[:6] + data[6:]) / 2, data[:6] + sigma * normal(6, dim)])
    ratios = check_bounds(data, x, sigma, torch.arange(12))
    # At σ = 1e-3 nearly all sums are too small or too large for float64.
    assert len(ratios) > (10 if sigma > 0.1 else -1)
    assert max(ratios, default=1.0) < 1 + 1e-3


@pytest.mark.slow
@pytest.mark.parametrize("scale", [1e-30, 1e-8, 1.0, 1e8, 1e30])
@pytest.mark.parametrize("offset", [0.0, 1e6])
def test_nor_in_other_units_and_far_from_zero(scale: float, offset: float, normal: Normal) -> None:
    data = (normal(10, 4) + offset) * scale
    data[5], data[6] = data[0], torch.nextafter(data[0], data[0] * 2)
    for sigma in (1e-7, 0.3, 3.0):
        x = data[:8] + sigma * scale * normal(8, 4)
        ratios = check_bounds(data, x, sigma * scale, torch.arange(8))
        assert max(ratios, default=1.0) < 1 + 1e-4


@given(st.data())
def test_nor_for_any_numbers(chosen: st.DataObject) -> None:
    """Numbers of few digits and of all sizes, so that ties, copies and near copies are common."""
    value = st.sampled_from([0.0, 1.0, -1.0, 3.0, 2.0**-30, 1 + 2.0**-52, 1 - 2.0**-53, 1e-12, 1e6, -1e6])
    size, dim = chosen.draw(st.integers(2, 5)), chosen.draw(st.integers(1, 3))
    rows = st.lists(value, min_size=dim, max_size=dim)
    data = torch.tensor(chosen.draw(st.lists(rows, min_size=size, max_size=size)), dtype=torch.float64)
    x = torch.tensor(chosen.draw(st.lists(rows, min_size=2, max_size=2)), dtype=torch.float64)
    sigma = chosen.draw(st.sampled_from([2.0**-31, 1e-9, 0.1, 1.0, 1e3, 1e6, 1e9]))
    check_bounds(data, x, sigma, torch.tensor([0, size - 1]))


@pytest.mark.parametrize("x", [1e30, 1e60, 1e68, 1e75])
def test_nor_from_as_far_as_can_be_asked_for(x: float) -> None:
    """−1 and 1 from where they are 20 nats and next to no σ apart: z is 3e15 to 1e38, and S = e⁻²⁰/z."""
    sigma = math.sqrt(x / 10)
    with mpmath.workdps(60):
        lead = mpmath.mpf(x) * 2 / mpmath.mpf(sigma) ** 2
        exact = mpmath.exp(-lead) * sigma / x
        sums = drift_bounds(OptimalDenoiser(column(-1.0, 1.0)), column(x), sigma, torch.tensor([1]))[0]
        assert all(float(found / exact) > 1 - 1e-12 for found in sums.tolist())
    assert sums.max() < 1e-20


def test_points_whose_squares_leave_the_range_are_two_points() -> None:
    """0 and 1e-200 beside 1: no copies, so that neither is certain, at any σ that can be asked for."""
    D = OptimalDenoiser(column(0.0, 1e-200, 1.0))
    for sigma in (1e-3, 1e-70):
        for k in (0, 1):
            assert not certify(D, column(0.0, 1e-200, 1e-150), sigma, torch.full((3,), k)).holds.any()
    assert certify(OptimalDenoiser(column(0.0, -0.0, 1.0)), column(0.0), 1e-3).holds.all()


def test_exp_and_erfcx_are_as_good_as_the_proof_takes_them_to_be() -> None:
    arguments = torch.linspace(-700, 700, 1401, dtype=torch.float64)
    mills = torch.cat([torch.linspace(-26, 60, 1201), torch.logspace(-12, 3, 200)]).double()
    with mpmath.workdps(50):
        for function, exact, values in (
            (torch.exp, mpmath.exp, arguments),
            (torch.special.erfcx, lambda v: mpmath.exp(v * v) * mpmath.erfc(v), mills),
        ):
            for value, found in zip(values.tolist(), function(values).tolist(), strict=True):
                assert abs(mpmath.mpf(found) / exact(mpmath.mpf(value)) - 1) < 2.0**-40


def destination(data: Tensor, x: float, sigma: float) -> int:
    """Where the exact flow on the line ends, −1 on a border: by the mass on either side of x, to 40 digits.

    It ends left of a border between the m-th and the next point if less of the mass of the points up to m is right of x
    than of the mass of the others is left of x.
    """
    y, copies = data.double().flatten().unique(return_counts=True)
    with mpmath.workdps(40):
        steps = [(mpmath.mpf(x) - mpmath.mpf(value)) / (mpmath.mpf(sigma) * mpmath.sqrt(2)) for value in y.tolist()]
        right, left = (
            [n * mpmath.erfc(sign * z) for n, z in zip(copies.tolist(), steps, strict=True)] for sign in (1, -1)
        )
        for k in range(len(y)):
            gone, come = sum(right[: k + 1]), sum(left[k + 1 :])
            if gone == come and k < len(y) - 1:
                return -1
            if gone > come:
                return int((data.double().flatten() == y[k]).nonzero()[0, 0])
    raise AssertionError("the last point has no others to its right")


def on_borders(data: Tensor, sigma: float) -> Tensor:
    """The float64 numbers next to each border between basins on the line, one on either side, and some further off."""
    borders = GaussianMixture(data, 0.0).separatrices(torch.tensor([sigma], dtype=torch.float64))[0]
    shifts = torch.tensor([-1e-3, -1e-6, -1e-9, -1e-12, 0.0, 1e-12, 1e-9, 1e-6, 1e-3], dtype=torch.float64)
    beside = (borders[:, None] + sigma * shifts).flatten()
    return torch.cat([beside, torch.nextafter(borders, borders + 1), torch.nextafter(borders, borders - 1)])[:, None]


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("offset", [0.0, 1e5])
def test_no_point_is_certified_but_the_one_where_the_flow_ends(seed: int, offset: float) -> None:
    """Every point asked for at every x next to every border on the line, with near copies, against the mass."""
    generator = torch.Generator().manual_seed(seed)
    data = torch.randint(-8, 9, (7, 1), generator=generator).double() / 4 + offset
    data[-1] = data[0] + torch.tensor([1e-3, 1e-7, 1e-11])[seed % 3]
    D, held = OptimalDenoiser(data), 0
    for sigma in (1e-12, 1e-8, 1e-5, 1e-2, 0.3, 1.0, 5.0):
        x = torch.cat([on_borders(data, sigma), data + sigma * torch.randn(7, 1, generator=generator)])
        ends = [destination(data, float(value), sigma) for value in x]
        for k in range(7):
            found = certify(D, x, sigma, torch.full((len(x),), k))
            held += int(found.holds.sum())
            for row in found.holds.nonzero().flatten().tolist():
                assert float(data[ends[row]]) == float(data[k]), (sigma, float(x[row]), k, ends[row])
    assert held > 30


@pytest.mark.parametrize(
    ("index", "sentence"),
    [
        (torch.tensor([0, 3]), "index must lie between 0 and 2, got 3"),
        (torch.tensor([-1, 0]), "index must lie between 0 and 2, got -1"),
        (torch.tensor([0]), r"index must have shape \(B,\), got \(1,\) with B = 2"),
        (torch.tensor(0), r"index must have shape \(B,\), got \(\) with B = 2"),
        (torch.tensor([0.0, 1.0]), "index must be a tensor of whole numbers, got torch.float32"),
        (torch.tensor([True, False]), "index must be a tensor of whole numbers, got torch.bool"),
        ([0, 1], "index must be a tensor of whole numbers, got list"),
    ],
)
def test_points_that_cannot_be_certified(index: Tensor, sentence: str) -> None:
    D, x = OptimalDenoiser(column(0.0, 1.0, 2.0)), column(0.1, 0.9)
    with pytest.raises(ValueError, match=sentence):
        certify(D, x, 1.0, index)
    small = certify(D, x, 0.1, torch.tensor([0, 1], dtype=torch.int32))
    assert small.index.dtype == torch.int64
    assert small.holds.all()


def test_queries_whose_squares_leave_the_range_are_refused() -> None:
    """They were certified, wrongly: x = 4.2e154 at σ = 1.4e154 for the point at −1."""
    D = OptimalDenoiser(column(-1.0, 1.0))
    for x, sigma in ((4.2e154, 1.4e154), (4.2e154, 1.0), (0.5, 1e-160)):
        with pytest.raises(ValueError, match="must lie"):
            certify(D, column(x), sigma)
    for scale in (1e30, 1e70):
        assert not certify(D, column(3.0 * scale, -3.0 * scale), scale, torch.tensor([0, 1])).holds.any()
    assert certify(D, column(1e-8, -1e-8), 1e-6, torch.tensor([1, 0])).holds.all()


@pytest.mark.parametrize("sigma", [0.002, 0.3, 2.0])
def test_images_in_uint8_on_a_small_budget(sigma: float, normal: Normal) -> None:
    images = torch.from_numpy(load("emoji", n=60).array.copy())
    data = images.float() / 127.5 - 1
    x = (data[:6].double() + sigma * normal(6, *data.shape[1:])).float()
    large, small = OptimalDenoiser(images), OptimalDenoiser(images, memory=2**20)
    certificate = certify(large, x, sigma)
    assert torch.equal(certificate.drift, certify(small, x, sigma).drift)
    sums = drift_bounds(small, x, sigma, certificate.index).numpy()
    expected = references(data, x, sigma, certificate.index)
    near = expected < 1e3
    np.testing.assert_allclose(sums[near], expected[near], rtol=1e-3, atol=1e-12)
    np.testing.assert_array_equal(certificate.holds.numpy(), (expected <= TRIALS).any(1))


# Copies and near copies.


def test_copies_are_one_point(normal: Normal) -> None:
    data, x = normal(30, 5), 2 * normal(50, 5)
    once, twice = OptimalDenoiser(data), OptimalDenoiser(torch.cat([data, data]))
    for sigma in (0.1, 0.4, 0.7, 1.0):
        a, b = certify(once, x, sigma), certify(twice, x, sigma)
        assert torch.equal(a.index, b.index)
        assert torch.equal(a.drift, b.drift)
        sums = [drift_bounds(D, x, sigma, a.index) for D in (once, twice)]
        torch.testing.assert_close(*sums, rtol=1e-9, atol=1e-30)


def test_a_heavier_point_wins_earlier() -> None:
    y, x = [0.0, 3.0, -3.0], column(0.2)
    sums = [
        drift_bounds(OptimalDenoiser(column(*y, *copies)), x, 1.0, torch.tensor([0]))
        for copies in ([], [0.0], [3.0, -3.0])
    ]
    torch.testing.assert_close(sums[1], sums[0] / 2)
    torch.testing.assert_close(sums[2], sums[0] * 2)


def test_near_copies_are_two_points() -> None:
    """0 and d beside a point far off: decided well outside of both, or at σ far below d, and not in between."""
    for d in (1e-5, 1e-9):
        D = OptimalDenoiser(column(0.0, d, 1.0))
        # At σ = 1e-3 both weigh the same but for 1 part in 10⁵ or less; the mass left of x still tells.
        outside = certify(D, column(-4e-3, 4e-3), 1e-3)
        assert outside.index.tolist() == [0, 1]
        assert outside.holds.all()
        assert not certify(D, column(0.4 * d, 0.6 * d, 0.0, d, 1e-3), 1e-3).holds.any()
    inside = certify(OptimalDenoiser(column(0.0, 1e-5, 1.0)), column(2e-6, 8e-6), 1e-6)
    assert inside.index.tolist() == [0, 1]
    assert inside.holds.all()


def test_near_copies_far_below_the_radius_are_told_apart() -> None:
    """0 from 1e-9 at σ = 1e-10, beside a point at 1."""
    certificate = certify(OptimalDenoiser(column(0.0, 1e-9, 1.0)), column(2e-10, 8e-10), 1e-10)
    assert certificate.index.tolist() == [0, 1]
    assert certificate.holds.all()


@pytest.mark.parametrize("data", [torch.ones(1, 3), torch.ones(5, 3), torch.zeros(4, 3)], ids=["one", "five", "zero"])
def test_one_point_is_always_certain(data: Tensor, normal: Normal) -> None:
    for sigma in (1e-3, 1.0, 1e3):
        certificate = certify(OptimalDenoiser(data), 1e3 * normal(4, 3), sigma)
        assert certificate.holds.all()
        assert (certificate.index == 0).all()
        assert (certificate.drift == min(TRIALS)).all()


# What must not matter.


def some(normal: Normal, sigma: float = 0.7) -> tuple[Tensor, Tensor, Certificate]:
    """25 points in five dimensions and 40 queries, some certain and some not."""
    data, x = normal(25, 5), 1.5 * normal(40, 5)
    certificate = certify(OptimalDenoiser(data), x, sigma)
    assert 5 < certificate.holds.sum() < 35
    return data, x, certificate


def same(a: Certificate, b: Certificate) -> None:
    for name in ("index", "holds", "drift"):
        assert torch.equal(getattr(a, name), getattr(b, name))


def test_scale_rotation_translation_and_order(normal: Normal) -> None:
    data, x, base = some(normal)
    Q, shift, order = torch.linalg.qr(normal(5, 5))[0], normal(5), torch.randperm(25, generator=torch.Generator())
    for c in (1e-3, 1e3):
        same(certify(OptimalDenoiser(c * data), c * x, c * 0.7), base)
    same(certify(OptimalDenoiser(data @ Q.T + shift), x @ Q.T + shift, 0.7), base)
    shuffled = certify(OptimalDenoiser(data[order]), x, 0.7)
    same(Certificate(order[shuffled.index], shuffled.holds, shuffled.drift), base)


def test_batch_is_loop_and_sigma_per_row(normal: Normal) -> None:
    data, x, base = some(normal)
    D = OptimalDenoiser(data)
    sigmas = torch.linspace(0.3, 1.2, 40)
    together = certify(D, x, sigmas)
    for row in range(40):
        part = slice(row, row + 1)
        same(certify(D, x[part], 0.7), Certificate(base.index[part], base.holds[part], base.drift[part]))
        alone = certify(D, x[part], float(sigmas[row]))
        same(alone, Certificate(together.index[part], together.holds[part], together.drift[part]))
    same(certify(D, x, torch.tensor(0.7, dtype=torch.float64)), base)
    assert certify(D, x[:0], 0.7).index.shape == (0,)


def test_types(normal: Normal) -> None:
    data, x, base = some(normal)
    state = torch.random.get_rng_state()
    single = certify(OptimalDenoiser(data.float()), x.float().requires_grad_(), 0.7)
    assert torch.equal(torch.random.get_rng_state(), state)
    for certificate in (base, single):
        assert certificate.index.dtype == torch.int64
        assert certificate.holds.dtype == torch.bool
        assert certificate.drift.dtype == torch.float64
        assert certificate.drift.shape == (40,)
    assert not single.drift.requires_grad
    assert torch.equal(single.holds, base.holds)
    with pytest.raises(ValueError, match="sigma must be positive and finite, got 0"):
        certify(OptimalDenoiser(data), x, 0.0)
    with pytest.raises(ValueError, match=r"x must have shape \(B, 5\)"):
        certify(OptimalDenoiser(data), x[:, :3], 0.7)


# Trajectories.


def test_capture_is_the_first_certificate(normal: Normal) -> None:
    """Against certificates and leaders taken level by level, over a path that is not a flow."""
    data = normal(20, 2)
    D = OptimalDenoiser(data)
    states = [State(x=s * normal(50, 2) + 0.1, sigma=float(s)) for s in levels(0.2, 12, high=5.0)]
    captured = capture(D, [*states, State(x=normal(50, 2), sigma=0.0)])
    certificates = [certify(D, state.x, state.sigma) for state in states]
    for row in range(50):
        holds = [bool(certificate.holds[row]) for certificate in certificates]
        end = holds.index(True) if any(holds) else len(states) - 1
        leaders = [int(certificate.index[row]) for certificate in certificates[: end + 1]]
        changes = [states[i].sigma for i in range(end) if leaders[i] != leaders[i + 1]]
        assert captured.last_change[row].nan_to_num(-1) == (changes[-1] if changes else -1)
        assert captured.sigma[row].nan_to_num(-1) == (states[end].sigma if any(holds) else -1)
        assert captured.index[row] == (leaders[end] if any(holds) else -1)
    assert captured.sigma.isnan().any()
    assert not captured.sigma.isnan().all()
    for values, dtype in ((captured.sigma, torch.float64), (captured.index, torch.int64)):
        assert values.shape == (50,)
        assert values.dtype == dtype


def test_states_are_read_until_all_are_captured() -> None:
    read = []

    def states() -> Iterator[State]:
        for sigma in (1.0, 0.3, 0.1, 0.01):
            read.append(sigma)
            yield State(x=column(0.5), sigma=sigma)

    captured = capture(OptimalDenoiser(column(-0.3, 0.3)), states())
    assert captured.sigma.tolist() == [0.3]
    assert read == [1.0, 0.3]


def test_only_sigma_zero_captures_nothing() -> None:
    captured = capture(OptimalDenoiser(column(-1.0, 1.0)), [State(x=column(1.0, 0.5), sigma=0.0)])
    assert captured.sigma.isnan().all()
    assert captured.last_change.isnan().all()
    assert captured.index.tolist() == [-1, -1]


@pytest.mark.parametrize(
    ("sigmas", "sizes", "sentence"),
    [
        ([], [], "states must hold at least one state, got none"),
        ([1.0, 1.0], [2, 2], "states must come with decreasing sigma, got 1 after 1"),
        ([1.0, 2.0], [2, 2], "states must come with decreasing sigma, got 2 after 1"),
        ([1.0, 0.0, 0.5], [2, 2, 2], "states must come with decreasing sigma, got 0.5 after 0"),
        ([1.0, 0.5], [2, 3], r"states must hold x of one shape, got \(3, 1\) after \(2, 1\)"),
        ([math.nan], [1], "states must come with decreasing sigma, got nan"),
    ],
)
def test_errors(sigmas: list[float], sizes: list[int], sentence: str) -> None:
    states = [State(x=torch.zeros(n, 1), sigma=s) for n, s in zip(sizes, sigmas, strict=True)]
    with pytest.raises(ValueError, match=sentence):
        capture(OptimalDenoiser(column(-1.0, 1.0)), states)


def test_states_of_any_process() -> None:
    """x_t of VP is over its scale before it is certified: the same capture as under EDM."""
    from optimal import capture, log_linear, trajectory
    from optimal.process import VP

    points = torch.tensor([[0.0], [1.0], [10.0], [11.0]])
    D, sigmas = OptimalDenoiser(points), log_linear(100)
    start = 80 * torch.randn(100, 1, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    scale = float(VP().scale_at(80.0))
    plain = capture(D, trajectory(D, start, sigmas))
    preserving = capture(D, trajectory(D, scale * start, sigmas, process=VP()))
    assert torch.equal(plain.index, preserving.index)
    assert torch.equal(plain.sigma, preserving.sigma)
