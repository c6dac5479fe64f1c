"""Sampling in the span of the data: the same ends as in full space, and an estimate that sees what is left out."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from caches import kept
from torch import Tensor

from optimal import Dataset, OptimalDenoiser, karras, load, sample, sample_in_span, trajectory
from optimal.samplers import Solver, Step, solver_of
from optimal.span import few_points, landed, way_of
from optimal.span.basis import SKETCH, basis_of
from optimal.span.denoiser import SpanDenoiser
from optimal.span.line import line_of

Normal = Callable[..., Tensor]
SOLVERS = {
    "heun": {},
    "euler": {},
    "dpm_solver": {"order": 3},
    "dpm_solver_pp": {"order": 3},
}


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPTIMAL_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def clusters() -> Dataset:
    """600 colour images of 16×16 around 40 of them, so that posteriors stay spread to low noise."""
    generator = np.random.default_rng(0)
    centres = generator.integers(40, 216, (40, 3, 16, 16))
    array = centres[generator.integers(0, 40, 600)] + generator.integers(-30, 31, (600, 3, 16, 16))
    return Dataset("clusters", np.clip(array, 0, 255).astype(np.uint8))


@pytest.mark.slow
@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("rank", [1024, 64])
def test_the_ends_of_every_solver(solver: str, rank: int, clusters: Dataset, normal: Normal) -> None:
    D, x, grid = OptimalDenoiser(clusters), 80 * normal(48, 3, 16, 16), karras(18)
    found = sample_in_span(D, x, grid, solver=solver, rank=rank, **SOLVERS[solver])
    ends = sample(D, x, grid, solver=solver, **SOLVERS[solver])
    assert torch.equal(found.x, ends)
    assert torch.equal(found.index, D.nearest(ends))
    assert int(found.exact.sum()) <= 4
    assert found.nfe == {"heun": 35, "euler": 18, "dpm_solver": 52, "dpm_solver_pp": 18}[solver]


def test_points_on_a_line_and_in_the_plane(normal: Normal) -> None:
    for name in ("five-deltas", "spiral"):
        D = OptimalDenoiser(load(name))
        x = 80 * normal(200, *D.event)
        found = sample_in_span(D, x, karras(18))
        ends = sample(D, x, karras(18))
        same = found.index == D.nearest(ends)
        assert same.double().mean() > 0.99
        assert (found.x - ends)[same].abs().max() < 1e-3


def test_coordinates_are_those_of_the_denoiser(clusters: Dataset, normal: Normal) -> None:
    """With nothing left out, D in coordinates is D, at every level of a trajectory."""
    D, x = OptimalDenoiser(clusters), 80 * normal(6, 3, 16, 16)
    z, _ = D.query(x, 1.0)
    reduced = SpanDenoiser(D, basis_of(D), z)
    rows = torch.arange(6)
    for state in trajectory(reduced, reduced.start, karras(12)):
        if state.sigma == 0:
            continue
        full = D.points.restored(reduced.left_out.states(rows, state.x))
        expected = D(full, state.sigma)
        got = D.points.restored(reduced.left_out.states(rows, state.denoised))
        torch.testing.assert_close(got, expected, rtol=0, atol=2e-4)
    # Nothing is left out: what remains is float32's rounding.
    assert (reduced.error < reduced.tolerance).all()


def test_what_is_left_out_is_estimated_and_the_error_measured(clusters: Dataset, normal: Normal) -> None:
    """The projections tell the part left out, its products with the data, and how far these are off."""
    D, x = OptimalDenoiser(clusters), 80 * normal(64, 3, 16, 16)
    z, _ = D.query(x, 1.0)
    basis = basis_of(D, 12)
    reduced = SpanDenoiser(D, basis, z, tolerance=1e9)
    points = D.take(torch.arange(600)).flatten(1).double() - D.points.centre
    left = points - basis.coordinates[:, :12].double() @ basis.vectors.T.double()
    torch.testing.assert_close(left.norm(dim=1).float(), basis.rest, rtol=1e-3, atol=1e-3)
    # States that are means of the data.
    coefficients = (3 * normal(64, 600)).softmax(1)
    u = torch.zeros_like(reduced.start)
    u[:, 1 : 1 + basis.coordinates.shape[1]] = coefficients @ basis.coordinates.double()
    out = coefficients @ left
    ratio = u[:, 13 : 13 + SKETCH].norm(dim=1) / out.norm(dim=1)
    assert ratio.mean() == pytest.approx(1.0, abs=0.03)
    assert ratio.std() < 0.1
    sigma = 3.0
    reduced(u, sigma)
    scores = (coefficients @ points) @ points.T - D.points.half_norms
    logs = (scores / sigma**2).log_softmax(1)
    off = reduced.weights(torch.arange(64), u, sigma)[1].double().log() - logs
    off -= (logs.exp() * off).sum(1, keepdim=True)
    actual = (logs.exp() * off.square()).sum(1).sqrt()
    assert (actual <= 2 * reduced.error).all()
    assert actual.mean() > 0.3 * reduced.error.mean()
    # Without the projections they are off by much more.
    u[:, 13 : 13 + SKETCH] = 0.0
    without = reduced.weights(torch.arange(64), u, sigma)[1].double().log() - logs
    without -= (logs.exp() * without).sum(1, keepdim=True)
    assert (logs.exp() * without.square()).sum(1).sqrt().mean() > 2 * actual.mean()


def test_what_is_left_out_is_computed_where_it_counts(clusters: Dataset, normal: Normal) -> None:
    """With four axes of 768, next to everything is left out: then nearly every call is computed, and is exact."""
    D, x = OptimalDenoiser(clusters), 80 * normal(12, 3, 16, 16)
    z, _ = D.query(x, 1.0)
    reduced = SpanDenoiser(D, basis_of(D, 4), z, tolerance=1e-4)
    rows = torch.arange(12)
    for state in trajectory(reduced, reduced.start, karras(12), solver="dpm_solver_pp"):
        if state.sigma == 0:
            break
        full = D.points.restored(reduced.left_out.states(rows, state.x))
        weights = D.weights(full, state.sigma)
        mean = weights @ reduced.basis.coordinates[:, :4].double()
        torch.testing.assert_close(state.denoised[:, 1:5], mean, rtol=0, atol=2e-3)
    assert (reduced.left_out.computed > 0).all()
    # Points that were far behind when it was computed keep an estimate, whose error counts, too.
    assert (reduced.error[~reduced.lost] <= 3e-4).all()
    assert not reduced.lost.all()
    found = sample_in_span(D, x, karras(18), rank=4)
    assert torch.equal(found.x, sample(D, x, karras(18)))
    assert not found.exact.any()


@pytest.mark.parametrize("solver", ["heun", "dpm_solver_pp"])
def test_a_grid_that_ends_above_the_border_ends_on_blends(solver: str, clusters: Dataset, normal: Normal) -> None:
    D, x, grid = OptimalDenoiser(clusters), 80 * normal(12, 3, 16, 16), karras(4, sigma_min=30.0)
    found = sample_in_span(D, x, grid, solver=solver, rank=64)
    assert (found.index == -1).all()
    torch.testing.assert_close(found.x, sample(D, x, grid, solver=solver), rtol=0, atol=2e-3)


def test_rows_that_the_exact_pass_does_not_confirm_are_sampled_again(
    clusters: Dataset, normal: Normal, monkeypatch: pytest.MonkeyPatch
) -> None:
    D, x = OptimalDenoiser(clusters), 80 * normal(12, 3, 16, 16)
    confirmed = SpanDenoiser.confirmed
    monkeypatch.setattr(SpanDenoiser, "confirmed", lambda self: confirmed(self).index_fill(0, torch.tensor([3, 5]), -1))
    found = sample_in_span(D, x, karras(18))
    assert found.exact.nonzero().squeeze(1).tolist() == [3, 5]
    assert (found.error[found.exact] == 0).all()
    assert torch.equal(found.x, sample(D, x, karras(18)))
    assert torch.equal(found.index, D.nearest(found.x))


def test_few_points_are_sampled_in_their_coordinates(normal: Normal) -> None:
    D, x = OptimalDenoiser(load("faces")), 80 * normal(30, 1, 25, 25)
    for solver in SOLVERS:
        found = sample_in_span(D, x, karras(18), solver=solver, **SOLVERS[solver])
        ends = sample(D, x, karras(18), solver=solver, **SOLVERS[solver])
        assert torch.equal(found.index, D.nearest(ends))
        assert torch.equal(found.x, D.take(found.index).float())
    blends = sample_in_span(D, x, karras(4, sigma_min=30.0))
    torch.testing.assert_close(blends.x, sample(D, x, karras(4, sigma_min=30.0)), rtol=0, atol=1e-4)
    assert (blends.index == -1).all()


def test_copies_are_the_first_of_them(clusters: Dataset, normal: Normal) -> None:
    D = OptimalDenoiser(Dataset("twice", np.concatenate([clusters.array, clusters.array])))
    found = sample_in_span(D, 80 * normal(12, 3, 16, 16), karras(18))
    assert (found.index < 600).all()


def test_the_basis_is_kept_and_damage_is_seen(
    clusters: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    D = OptimalDenoiser(clusters)
    basis = basis_of(D, 20)
    assert basis.rank == 20
    torch.testing.assert_close(basis.vectors.T @ basis.vectors, torch.eye(20), atol=1e-5, rtol=0)
    (folder,) = kept(tmp_path / "cache" / "bases")
    with monkeypatch.context() as patch:
        patch.setattr("optimal.span.basis._compute", lambda *_: pytest.fail("computed again"))
        assert torch.equal(basis_of(OptimalDenoiser(clusters), 20).coordinates, basis.coordinates)
    (folder / "coordinates.npy").write_bytes(b"\x93NUMPY")
    assert torch.equal(basis_of(D, 20).rest, basis.rest)
    whole = (folder / "vectors.npy").read_bytes()
    (folder / "vectors.npy").write_bytes(whole[:128] + bytes(len(whole) - 128))
    assert torch.equal(basis_of(D, 20).vectors, basis.vectors)
    assert kept(folder.parent) == [folder]
    # In the order of their variances, and as large as those of the covariance.
    variance = basis.coordinates[:, :20].double().square().sum(0)
    points = D.take(torch.arange(600)).flatten(1).double() - D.points.centre
    expected = torch.linalg.svdvals(points)[:20].square()
    torch.testing.assert_close(variance, expected, rtol=0.04, atol=0)


def test_of_several_that_want_a_basis_one_computes(clusters: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    D, calls = OptimalDenoiser(clusters), []

    def slow(*arguments: Any, **options: Any) -> Any:
        calls.append(1)
        time.sleep(0.1)
        return svd(*arguments, **options)

    svd = torch.linalg.svd
    monkeypatch.setattr(torch.linalg, "svd", slow)
    with ThreadPoolExecutor(3) as pool:
        first, *others = pool.map(lambda _: basis_of(D, 20), range(3))
    assert calls == [1]
    assert all(torch.equal(first.coordinates, other.coordinates) for other in others)


ALLOWED = [
    ("euler", {}),
    ("heun", {}),
    ("edm_stochastic", {}),
    ("dpm_solver", {"order": 2}),
    ("dpm_solver", {"order": 3}),
    ("dpm_solver_pp", {"order": 2}),
    ("dpm_solver_pp", {"order": 3}),
    ("dpm_solver_pp", {"order": 3, "variant": "reference"}),
]


def assert_same_landings(D: OptimalDenoiser, x: Tensor, grid: Tensor, most: int = 0, rank: int = 32, **solver) -> None:
    """The same points as the plain sampler in float64, but for so many rows, which lie on a border."""
    found = sample_in_span(D, x, grid, rank=rank, tolerance=1e-3, **solver)
    ends = sample(D, x.double(), grid, **solver)
    index = landed(D, ends)
    decided = (index >= 0) & (found.index >= 0)
    same = (D.take(found.index.clamp_min(0)) == D.take(index.clamp_min(0))).flatten(1).all(1)
    assert int((decided & ~same).sum()) <= most
    assert int(decided.sum()) >= 0.9 * int((index >= 0).sum())


@pytest.mark.slow
@pytest.mark.parametrize(("solver", "options"), ALLOWED)
@pytest.mark.parametrize("steps", [2, 3, 4])
def test_few_steps_of_every_solver(
    solver: str, options: dict[str, object], steps: int, clusters: Dataset, normal: Normal
) -> None:
    """Rows decided where the rest of the way is no line would land elsewhere: at inner points, after extrapolation."""
    D = OptimalDenoiser(clusters)
    assert way_of(D, 32) == "axes"
    assert_same_landings(D, 80 * normal(24, 3, 16, 16), karras(steps), solver=solver, **options)


@pytest.mark.parametrize("far", [1e3, 1e5, 1e8])
def test_a_far_point_changes_no_landing(far: float, normal: Normal) -> None:
    data = normal(300, 200).float()
    data[3] *= far
    D = OptimalDenoiser(data)
    assert way_of(D, 8) == "axes"
    assert_same_landings(D, 80 * normal(16, 200), karras(6), rank=8, solver="heun")


def test_heavy_tails_near_copies_and_more_points_than_are_measured(normal: Normal) -> None:
    generator = np.random.default_rng(0)
    heavy = torch.from_numpy(generator.standard_cauchy((400, 220))).float()
    near = normal(200, 220).float()
    near = torch.cat([near, near + 1e-5 * normal(200, 220).float()])
    many = (0.1 * normal(2100, 220)).float()
    many[7] = 100.0
    for data in (heavy, near, many):
        D = OptimalDenoiser(data)
        assert way_of(D, 8) == "axes"
        assert_same_landings(D, 80 * normal(12, 220), karras(5), rank=8, solver="heun")


def test_a_line_is_that_of_euler_and_is_refused_off_it() -> None:
    grid = [10.0, 4.0, 1.0, 0.0]
    line = line_of(solver_of("euler", {}), grid)
    assert line is not None
    # x' = (σ'/σ) x + (1 − σ'/σ) D: the limit is √(2 σ σ').
    assert line.limits == pytest.approx([min(80**0.5, 8**0.5), 8**0.5, np.inf])
    assert line.calls == 3
    for name, options, calls in (("heun", {}, 5), ("dpm_solver", {"order": 3}, 7), ("dpm_solver_pp", {"order": 3}, 3)):
        found = line_of(solver_of(name, options), grid)
        assert found is not None
        assert found.calls == calls
        assert all(limit > 0 for limit in found.limits)
        assert found.limits[0] < line.limits[0]
    off = line_of(Overshoot(), grid)
    assert off is not None
    assert off.limits[:2] == [-1.0, -1.0]
    assert line_of(Clamped(), grid) is None


class Overshoot(Solver):
    """Linear, but its way is no line to D: never to be decided early."""

    def __call__(self, step: Step) -> Tensor:
        return step.denoised + 2 * step.sigma_next * step.eps


class Clamped(Solver):
    """Not linear: not in the span of the data."""

    def __call__(self, step: Step) -> Tensor:
        return step.denoised.clamp(-0.5, 0.5) + step.sigma_next * step.eps


@pytest.mark.parametrize("solver", [Overshoot(), Clamped()])
def test_solvers_of_others(solver: Solver, clusters: Dataset, normal: Normal) -> None:
    D, x = OptimalDenoiser(clusters), 80 * normal(12, 3, 16, 16)
    found = sample_in_span(D, x, karras(8), solver=solver, rank=32)
    torch.testing.assert_close(found.x, sample(D, x, karras(8), solver=solver), rtol=0, atol=1e-5)
    assert bool(found.exact.all()) == isinstance(solver, Clamped)


def test_surroundings_change_nothing(clusters: Dataset, normal: Normal, tmp_path: Path) -> None:
    """Neither landings nor what is written to the cache."""
    x = (80 * normal(8, 3, 16, 16)).float()
    faces = load("faces")
    noise = (80 * normal(8, *faces.event)).float()
    expected = sample_in_span(OptimalDenoiser(clusters), x, karras(6), rank=32)
    among_few = sample_in_span(OptimalDenoiser(faces), noise, karras(6))
    axes = basis_of(OptimalDenoiser(clusters), 32).coordinates
    (folder,) = (path for path in (tmp_path / "cache" / "bases").iterdir() if path.name.startswith("4-"))

    def check() -> None:
        for path in folder.iterdir():
            path.unlink()
        folder.rmdir()
        D = OptimalDenoiser(clusters)
        found = sample_in_span(D, x, karras(6), rank=32)
        assert torch.equal(basis_of(D, 32).coordinates, axes)
        few = sample_in_span(OptimalDenoiser(faces), noise, karras(6))
        for a, b in ((found, expected), (few, among_few)):
            assert torch.equal(a.x, b.x)
            assert torch.equal(a.index, b.index)
            assert torch.equal(a.error, b.error)

    with torch.autocast("cpu", torch.bfloat16):
        check()
    torch.set_default_dtype(torch.float64)
    try:
        check()
    finally:
        torch.set_default_dtype(torch.float32)
    with torch.inference_mode():
        check()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_dtypes_end_on_the_same_points(dtype: torch.dtype, clusters: Dataset, normal: Normal) -> None:
    for data, rank in ((load("faces"), 768), (clusters, 32), (load("digits"), 768)):
        D = OptimalDenoiser(data)
        x = (80 * normal(16, *D.event)).to(dtype)
        found = sample_in_span(D, x, karras(18), rank=rank)
        assert found.x.dtype == dtype
        assert torch.equal(found.index, D.nearest(sample(D, x.double(), karras(18))))
        assert torch.equal(found.x, D.take(found.index).to(dtype))
        assert found.error.dtype == torch.float64


def test_an_empty_batch(clusters: Dataset) -> None:
    for D in (OptimalDenoiser(clusters), OptimalDenoiser(load("faces")), OptimalDenoiser(load("digits"))):
        found = sample_in_span(D, torch.zeros(0, *D.event), karras(4))
        assert found.x.shape == (0, *D.event)
        assert found.index.shape == found.error.shape == found.exact.shape == (0,)
        assert found.nfe == 7


def test_coordinates_of_few_points_are_right_to_float64(normal: Normal) -> None:
    """A pair 1e-5 deviations apart: leads by coordinates are those by differences, to what `rounding` estimates."""
    data = normal(60, 400).float()
    data[31] = data[4] + 1e-5 * normal(1, 400)[0].float()
    D = OptimalDenoiser(data)
    few = few_points(D)
    assert few is not None
    x = data[:8].double() + normal(8, 400)
    coordinates = few.reduced(x.half())
    assert coordinates.dtype == torch.float64
    coordinates, own = few.reduced(x), few.denoiser.take(torch.arange(60))
    exact = data.double()

    def leads(x: Tensor, y: Tensor) -> Tensor:
        """½‖x − y_j‖² − ½‖x − y_4‖², by differences."""
        return ((y[4] - y) * (x[:, None] - (y + y[4]) / 2)).sum(2)

    off = (leads(coordinates, own) - leads(x, exact)).abs()
    estimate = few.rounding(coordinates, 1.0)
    assert (off <= estimate[:, None]).all()
    assert off.max() > 1e-4 * estimate.max()
    # Of the pair, to 1 part in 10⁶ of what tells it apart.
    assert (off[:, 31] < 1e-6 * leads(x, exact)[:, 31].abs()).all()
    for k in range(8):
        one, all_rows = few.denoiser(coordinates[k : k + 1], 1e-3), few.denoiser(coordinates, 1e-3)[k : k + 1]
        torch.testing.assert_close(one, all_rows, rtol=0, atol=1e-12)


def test_the_budget_is_kept(clusters: Dataset, normal: Normal) -> None:
    """Where neither the axes of few points nor the leading ones have room, the exact denoiser samples."""
    few = load("faces")
    assert way_of(OptimalDenoiser(few)) == "few"
    assert way_of(OptimalDenoiser(few, memory=2**19)) == "full"
    assert way_of(OptimalDenoiser(clusters), 32) == "axes"
    D = OptimalDenoiser(clusters, memory=2**20)
    assert way_of(D, 32) == "full"
    found = sample_in_span(D, 80 * normal(4, 3, 16, 16), karras(4), rank=32)
    assert found.exact.all()
    assert (found.error == 0).all()


def test_what_is_a_landing_does_not_depend_on_a_far_point() -> None:
    D = OptimalDenoiser(torch.tensor([[0.0], [0.02], [3000.0]]))
    assert landed(D, torch.tensor([[0.0], [0.02], [0.01], [0.005]])).tolist() == [0, 1, -1, -1]


def test_projections_are_drawn_from_the_data(normal: Normal) -> None:
    data = normal(40, 90).float()
    seen = [basis_of(OptimalDenoiser(y), 4).coordinates[:, 4:] for y in (data, data.clone(), data + 0)]
    assert torch.equal(seen[0], seen[1])
    other = data.clone()
    other[0, 0] += 1e-6
    assert not torch.allclose(basis_of(OptimalDenoiser(other), 4).coordinates[1:, 4:], seen[0][1:], atol=0.1)


def test_bad_input(clusters: Dataset, normal: Normal) -> None:
    D, x = OptimalDenoiser(clusters), normal(2, 3, 16, 16)
    with pytest.raises(ValueError, match="ReverseSDE draws noise at every step"):
        sample_in_span(D, x, karras(4), solver="reverse_sde")
    with pytest.raises(ValueError, match="rank must be at least 1, got 0"):
        sample_in_span(D, x, karras(4), rank=0)
    with pytest.raises(ValueError, match="tolerance must be positive, got 0"):
        sample_in_span(D, x, karras(4), tolerance=0)
    with pytest.raises(ValueError, match="x must have shape"):
        sample_in_span(D, x[:, 0], karras(4))
