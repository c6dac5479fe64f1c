"""The capture certificate: never wrong where the destination is known, and as sharp as its formula."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import pytest
import torch
from scipy.integrate import quad
from scipy.special import erfcx, ndtr
from torch import Tensor

from optimal import OptimalDenoiser, load
from optimal.evaluate.drift import leads
from optimal.flow.certificate import TRIALS, Capture, Certificate, capture, certify
from optimal.points import Points

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


@pytest.mark.parametrize("dim", [1, 3, 50])
def test_leads_are_lower_bounds(dim: int, normal: Normal) -> None:
    """Against rational arithmetic, on the border between points 100 apart at σ = 1e-3, where nats are lost."""
    data = 100 * normal(30, dim)
    data[1] = data[0] + 1e-3
    x = (data[:10] + data[10:20]) / 2
    index, sigma = torch.arange(10), 1e-3
    points = Points(data)
    z = x - points.centre
    parts = list(leads(points, z, torch.full((10,), sigma, dtype=torch.float64), index, memory=2**30))
    lead, distance = (torch.cat(columns, 1) for columns in zip(*parts, strict=True))
    exact = [[[Fraction(value) for value in row] for row in rows] for rows in (data.tolist(), x.tolist())]
    precision = 1 / Fraction(sigma) ** 2
    slack = []
    for row, k in enumerate(index.tolist()):
        to_points = [sum((a - b) ** 2 for a, b in zip(exact[1][row], y, strict=True)) * precision for y in exact[0]]
        for j in range(30):
            slack.append(float((to_points[j] - to_points[k]) / 2 - Fraction(float(lead[row, j]))))
            assert math.isclose(float(distance[row, j]), float((data[k] - data[j]).norm()) / sigma, rel_tol=1e-6)
    assert min(slack) >= 0
    # The estimate is what a product with vectors of the data's size may lose, not more.
    size = float(z.norm(dim=1).max() + 2 * points.radius) * points.radius
    assert max(slack) < 10 * 256 * 2.0**-53 * (1 + 4 / dim**0.5) * size / sigma**2


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
