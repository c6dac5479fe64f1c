"""Data that are not like images: heavy tails, far points, near-copies, odd sizes, units and types.

Right is float64 by direct differences; where the data are copies or nearly so, exact rational numbers. Sampling in the
span is held to the plain sampler, landing by landing, for few steps of every solver.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import pytest
import torch
from problems import Reference, absolute_error, density_error, log_weight_error, reference_posterior, row_error
from surroundings import threads
from torch import Tensor

from optimal import Dataset, FlowMap, OptimalDenoiser, ShardedDenoiser, certify, karras, sample, sample_in_span
from optimal.datasets import to_float

SOLVERS: dict[str, dict[str, Any]] = {
    "euler": {},
    "heun": {},
    "dpm_solver": {"order": 3},
    "dpm_solver_pp": {"order": 3},
}


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Any:
    with threads(1):
        yield


def normal(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def cauchy(*shape: int) -> Tensor:
    return normal(*shape, seed=10) / normal(*shape, seed=11)


def with_far(distance: float, dim: int, dtype: torch.dtype) -> Tensor:
    points = normal(200, dim, seed=12).to(dtype)
    points[7] *= distance
    return points


def near_copies(gap: float, dim: int, dtype: torch.dtype) -> Tensor:
    """Pairs whose second is `gap` times their size away; 0: copies; one rounding where the type is coarser."""
    points = normal(40, dim, seed=13).to(dtype)
    other = points * (1 + gap)
    other[:, 0] = torch.nextafter(points[:, 0], torch.full_like(points[:, 0], torch.inf)) if gap > 0 else points[:, 0]
    return torch.cat([points, other])


def clusters(count: int, dim: int) -> Tensor:
    return (normal(20, dim, seed=30)[torch.arange(count) % 20] + 0.2 * normal(count, dim, seed=31)).float()


def constant(count: int, dim: int) -> Tensor:
    return torch.full((count, dim), 0.25)


F32, F64 = torch.float32, torch.float64
DATA: dict[str, Callable[[], Tensor]] = {
    "heavy tails": lambda: cauchy(300, 1).float(),
    "heavy tails in float64": lambda: cauchy(300, 3),
    "heavy tails, many values": lambda: cauchy(300, 100).float(),
    **{
        f"a point at {far:g}, D = {dim}, {str(dtype)[6:]}": functools.partial(with_far, far, dim, dtype)
        for far in (1e3, 1e5, 1e8)
        for dim, dtype in ((1, F32), (2, F64), (100, F32), (100, F64))
    },
    "one rounding apart": lambda: near_copies(1e-9, 100, F32),
    "one rounding apart, one value": lambda: near_copies(1e-9, 1, F32),
    "1e-9 apart": lambda: near_copies(1e-9, 100, F64),
    "copies": lambda: near_copies(0.0, 100, F32),
    "one value": lambda: normal(300, 1, seed=14).float(),
    "one point": lambda: normal(1, 100, seed=15).float(),
    "two points": lambda: normal(2, 100, seed=15).float(),
    "constant": lambda: constant(50, 100),
    "constant, one value": lambda: constant(50, 1),
    "an offset of 1e6 deviations": lambda: 1e6 + normal(200, 10, seed=16),
    "an offset of 1e6 deviations, many values": lambda: 1e6 + normal(200, 100, seed=16),
    "an offset of 1e3 deviations": lambda: (1e3 + normal(200, 100, seed=16)).float(),
    "float16": lambda: normal(200, 100, seed=17).half(),
    "bfloat16": lambda: normal(200, 100, seed=17).bfloat16(),
}
NEAR = ("one rounding apart", "one rounding apart, one value")
SIGMAS = (1e-3, 0.05, 0.7, 3.0, 60.0)


def queries(points: Tensor, dtype: torch.dtype, per_level: int = 6) -> tuple[Tensor, Tensor]:
    """x = y + σ ε, in units of the typical distance from the middle."""
    flat = points.double().flatten(1)
    unit = float((flat - flat.median(0).values).abs().median()) or 1.0
    sigma = unit * torch.tensor(SIGMAS, dtype=F64).repeat_interleave(per_level)
    index = torch.arange(len(sigma)) * 7 % len(flat)
    x = flat[index] + sigma[:, None] * normal(len(sigma), flat.shape[1], seed=18)
    return x.to(dtype).reshape(-1, *points.shape[1:]), sigma


def check(D: OptimalDenoiser, points: Tensor, x: Tensor, sigma: Tensor) -> Reference:
    """The promises of tests/test_exactness.py; of a float64 x a thousandth."""
    reference, post = reference_posterior(points, x, sigma), D.posterior(x, sigma)
    exact = 1e-3 if x.dtype == F64 else 1.0
    logs, flat = reference.log_weights, points.double().flatten(1)
    # What float64 differences themselves leave: of squares of the distances near the leader, over σ².
    square = (x.double().flatten(1) - flat[logs.argmax(1)]).square().sum(1)
    nats = 4e-16 * square / sigma.square() * math.log2(flat.shape[1] + 2)
    # x − c itself is rounded, to the size that x has from the middle of the points.
    away = 3e-16 * (x.double().flatten(1) - flat.median(0).values).norm(dim=1) * square.sqrt() / sigma.square()
    gap = logs.amax(1) - logs.gather(1, post.top_index[:, None])[:, 0]
    spread = (flat[logs.argmax(1)] - reference.mean.flatten(1)).norm(dim=1)
    mean = (post.mean.double() - reference.mean).flatten(1).norm(dim=1)
    errors = {
        "mean": mean / (1e-5 * exact * reference.mean.flatten(1).norm(dim=1) + 30 * nats * (spread + sigma)),
        "log weights": log_weight_error(D.weights(x, sigma), logs) / (1e-3 * exact + nats),
        "log density": density_error(post.log_density, reference.log_density) / (exact + 1e3 * (nats + away)),
        "entropy": absolute_error(post.entropy, reference.entropy) / (1e-4 * exact + 20 * nats),
        "top weight": absolute_error(post.top_weight.log(), logs.amax(1)) / (1e-3 * exact + nats),
        "leader": gap / (1e-3 * exact + nats),
        "variance": absolute_error(post.variance, reference.variance)
        / (2e-4 * exact * sigma.square() + 1e-9 * reference.variance + 30 * nats * reference.variance),
    }
    broken = {
        name: f"{float(error.amax()):.3g} times its promise at sigma = {sigma[int(error.argmax())]:g}"
        for name, error in errors.items()
        if not (error <= 1).all()
    }
    assert not broken, broken
    return reference


@pytest.mark.parametrize("dtype", [F32, F64])
@pytest.mark.parametrize("data", DATA)
def test_the_posterior(data: str, dtype: torch.dtype) -> None:
    points = DATA[data]()
    check(OptimalDenoiser(points), points, *queries(points, dtype))


def exact_distances(points: Tensor, x: Tensor) -> list[list[Fraction]]:
    """‖x − y_j‖² in rational numbers."""
    rows = [[Fraction(v) for v in row.tolist()] for row in points.double().flatten(1)]
    return [
        [sum(((a - b) ** 2 for a, b in zip(query, row, strict=True)), Fraction(0)) for row in rows]
        for query in ([Fraction(v) for v in row.tolist()] for row in x.double().flatten(1))
    ]


@pytest.mark.parametrize("data", [name for name in DATA if not name.startswith("an offset of 1e3")])
def test_the_nearest(data: str) -> None:
    """Of every point itself it is the first of its copies; of others, one that no other is nearer than by rounding."""
    points = DATA[data]()
    D = OptimalDenoiser(points)
    flat = points.double().flatten(1)
    first = torch.tensor([int((flat == row).all(1).nonzero()[0]) for row in flat])
    assert torch.equal(D.first_copies(), first)
    assert torch.equal(D.nearest(points), first)
    x, _ = queries(points, F64, 4)
    squares = torch.stack([(flat - row).square().sum(1) for row in x.flatten(1)])
    least = squares.amin(1)
    found = squares.gather(1, D.nearest(x)[:, None])[:, 0]
    assert (found <= least * (1 + 1e-13)).all()
    one, two = D.two_nearest(x)
    distinct = squares[:, (first == torch.arange(len(first))).nonzero()[:, 0]].sort(1).values
    torch.testing.assert_close(one, distinct[:, 0].sqrt(), rtol=1e-7, atol=1e-7)
    if distinct.shape[1] > 1:
        torch.testing.assert_close(two, distinct[:, 1].sqrt(), rtol=1e-7, atol=1e-7)
    else:
        assert two.isinf().all()


@pytest.mark.parametrize("data", ["one rounding apart", "one rounding apart, one value", "1e-9 apart"])
def test_near_copies_in_rational_numbers(data: str) -> None:
    """Halfway between a point and its near-copy, and a little to either side: which is nearer is known exactly."""
    points = DATA[data]().flatten(1)[[0, 1, 2, 3, 40, 41, 42, 43]]
    D = OptimalDenoiser(points)
    a, b = points[:4].double(), points[4:].double()
    x = torch.cat([a + share * (b - a) for share in (0.0, 0.25, 0.4, 0.6, 0.75, 1.0)])
    exact = exact_distances(points, x)
    right = [min(range(len(row)), key=row.__getitem__) for row in exact]
    assert D.nearest(x).tolist() == right
    sigma = float((b - a).norm(dim=1).max())
    assert D.posterior(x, sigma).top_index.tolist() == right
    lead = [[float((min(row) - other) / Fraction(sigma) ** 2 / 2) for other in row] for row in exact]
    logs = torch.tensor(lead, dtype=F64)
    off = (D.weights(x, sigma).log() - logs.log_softmax(1)).abs()
    assert off[logs > -20].max() <= 1e-3


@pytest.mark.parametrize("count", [63, 64, 65, 128, 129, 130, 1999, 2000, 2001, 2047, 2048, 2049])
@pytest.mark.parametrize("dim", [1, 3, 66])
def test_sizes_around_every_threshold(count: int, dim: int) -> None:
    points = normal(count, dim, seed=20).float()
    D = OptimalDenoiser(points)
    x, sigma = queries(points, F32, 2)
    check(D, points, x, sigma)
    squares = torch.stack([(points.double() - row).square().sum(1) for row in x.double()])
    assert torch.equal(D.nearest(x), squares.argmin(1))


@pytest.mark.parametrize("dim", [63, 64, 65, 1023, 1024, 1025, 2047, 2048, 2049])
def test_values_around_every_threshold(dim: int) -> None:
    points = (128 + 40 * normal(70, dim, seed=21)).clamp(0, 255).to(torch.uint8)
    for method in ("dense", "screened", "auto"):
        D = OptimalDenoiser(points, method=method)
        x, sigma = queries(to_float(points), F32, 2)
        reference = check(D, to_float(points), x, sigma)
        average = D.points.restored(D.evaluator.moments(*D.query(x, sigma), single=True).average)
        bound = D.posterior(x, sigma).error_bound
        proven = ~bound.isnan()
        assert proven.all() == (method == "screened")
        assert (row_error(average, reference.mean)[proven] <= bound[proven] + 1e-12).all()


@pytest.mark.slow
@pytest.mark.parametrize("power", [-30, -25, -20, -15, -8, -3, 0, 3, 8, 15, 20, 25, 30])
@pytest.mark.parametrize("dim", [2, 100])
def test_results_scale_with_the_data(power: int, dim: int) -> None:
    """In float64, of the float32 numbers themselves, to which a power of ten is a rounding of its own."""
    scale = 10.0**power
    points = (scale * normal(60, dim, seed=22)).float()
    levels = torch.tensor([0.05, 0.7, 3.0, 30.0], dtype=F64).repeat(4)
    unit = points.double() / scale
    x = (scale * (unit[: len(levels)] + levels[:, None] * normal(len(levels), dim, seed=23))).float()
    D = OptimalDenoiser(points)
    post = D.posterior(x, scale * levels)
    right = reference_posterior(unit, x.double() / scale, levels)
    assert row_error(post.mean.double() / scale, right.mean).max() <= 1e-5
    density = post.log_density + dim * math.log(scale)
    assert density_error(density, right.log_density).max() <= 1
    assert absolute_error(post.entropy, right.entropy).max() <= 1e-4
    assert (absolute_error(post.variance / scale**2, right.variance) <= 2e-4 * levels.square()).all()
    assert torch.equal(post.top_index, right.log_weights.argmax(1))
    plain, z = OptimalDenoiser(unit), x.double() / scale
    assert torch.equal(FlowMap(D).index(x[:4], scale * levels[:4]), FlowMap(plain).index(z[:4], levels[:4]))
    assert torch.equal(certify(D, x, scale * levels).holds, certify(plain, z, levels).holds)
    assert D.standard_deviation / scale == pytest.approx(plain.standard_deviation, rel=1e-6)


@pytest.mark.parametrize("make", [OptimalDenoiser, ShardedDenoiser])
def test_bytes_of_one_value(make: Callable[..., OptimalDenoiser]) -> None:
    points = torch.arange(0, 256, 5, dtype=torch.uint8)[:, None]
    for method in ("dense", "screened"):
        x, sigma = queries(to_float(points), F32)
        check(make(points, method=method), to_float(points), x, sigma)


def landings_agree(points: Tensor | Dataset, x: Tensor, steps: int, solver: str, **options: Any) -> None:
    D, grid = OptimalDenoiser(points), karras(steps)
    found = sample_in_span(D, x, grid, solver=solver, **SOLVERS[solver], **options)
    ends = sample(D, x.double(), grid, solver=solver, **SOLVERS[solver])
    scale = D.standard_deviation * math.sqrt(D.points.dim)
    apart = (found.x.double() - ends).flatten(1).norm(dim=1)
    other = int((apart > 1e-3 * scale).sum())
    assert other == 0, (
        f"{other} of {len(x)} rows end elsewhere, {float(apart.max() / scale):.2g} of the data's size away"
    )
    ended = found.index >= 0
    assert torch.equal(found.index[ended], D.nearest(ends)[ended])


SPANS: dict[str, tuple[Callable[[], Tensor], int]] = {
    "clusters": (
        lambda: (normal(20, 150, seed=30)[torch.arange(200) % 20] + 0.2 * normal(200, 150, seed=31)).float(),
        12,
    ),
    "few points": (lambda: normal(30, 100, seed=32).float(), 768),
    "D = 2 N": (lambda: normal(50, 100, seed=33).float(), 768),
    "heavy tails": (lambda: cauchy(200, 2).float(), 768),
    "one value and a far point": (
        lambda: torch.cat([normal(2100, 1, seed=34), torch.tensor([[3000.0]], dtype=F64)]).float(),
        768,
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("steps", [1, 2, 3, 4, 8])
@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("data", SPANS)
def test_few_steps_in_the_span(data: str, solver: str, steps: int) -> None:
    make, rank = SPANS[data]
    points = make()
    x = 80 * normal(32, *points.shape[1:], seed=35)
    landings_agree(points, x, steps, solver, rank=rank)


@pytest.mark.slow
@pytest.mark.parametrize("data", ["heavy tails", *NEAR, "copies", "a point at 100000, D = 2, float64", "constant"])
def test_the_flow_ends_and_does_not_depend_on_the_batch(data: str) -> None:
    points = DATA[data]()
    D = OptimalDenoiser(points)
    x, sigma = queries(points, F32, 3)
    whole = FlowMap(D).land(x, sigma)
    most = 200 if points[0].numel() > 1 else 300
    assert (whole.nfe <= most).all(), f"{int(whole.nfe.max())} calls"
    halves = [FlowMap(D).land(x[part], sigma[part]).index for part in (slice(0, 7), slice(7, None))]
    assert torch.equal(torch.cat(halves), whole.index)
    first = D.first_copies()
    assert torch.equal(first[whole.index], whole.index)


@pytest.mark.parametrize("dim", [1, 2])
def test_the_flow_beside_near_copies_of_few_values(dim: int) -> None:
    """The most calls that were found: 229 at D = 2."""

    def uniform(count: int, seed: int) -> Tensor:
        return torch.rand(count, dim, generator=torch.Generator().manual_seed(seed)) * 2 - 1

    point = uniform(1, 0)
    points = torch.cat([torch.nextafter(point, torch.tensor(2.0)), point, uniform(20, 3)])
    landing = FlowMap(OptimalDenoiser(points)).land(80 * normal(16, dim, seed=1), 80.0)
    assert landing.nfe.max() <= 250
    assert (landing.captured > 0).all()


@pytest.mark.parametrize("data", ["heavy tails", *NEAR[:1], "copies", "a point at 1e+08, D = 100, float64", "constant"])
def test_what_is_certified_is_where_the_flow_ends(data: str) -> None:
    points = DATA[data]()
    D = OptimalDenoiser(points)
    x, sigma = queries(points, F64, 3)
    found, landed = certify(D, x, sigma), FlowMap(D).land(x, sigma)
    assert found.holds.any()
    assert torch.equal(found.index[found.holds], landed.index[found.holds])
