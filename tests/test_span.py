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
from optimal.span.basis import SKETCH, basis_of
from optimal.span.denoiser import SpanDenoiser

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
        assert (found.index == D.nearest(ends)).double().mean() > 0.99
        assert (found.x - ends).abs().max() < 1e-3 or (found.index != D.nearest(ends)).any()


def test_coordinates_are_those_of_the_denoiser(clusters: Dataset, normal: Normal) -> None:
    """With nothing left out, D in coordinates is D, at every level of a trajectory."""
    D, x = OptimalDenoiser(clusters), 80 * normal(6, 3, 16, 16)
    z, _ = D.query(x, 1.0)
    reduced = SpanDenoiser(D, basis_of(D), z)
    rows = torch.arange(6)
    for state in trajectory(reduced, reduced.start, karras(12)):
        if state.sigma == 0:
            continue
        full = reduced.states(rows, state.x).view(x.shape)
        expected = D(full, state.sigma)
        got = reduced.states(rows, state.denoised).view(x.shape)
        torch.testing.assert_close(got, expected, rtol=0, atol=2e-4)
    assert (reduced.error < 1e-6).all()


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
    scores = (coefficients @ points) @ points.T - reduced.half_norms
    logs = (scores / sigma**2).log_softmax(1)
    off = reduced._weights(torch.arange(64), u, sigma)[1].double().log() - logs
    off -= (logs.exp() * off).sum(1, keepdim=True)
    actual = (logs.exp() * off.square()).sum(1).sqrt()
    assert (actual <= 2 * reduced.error).all()
    assert actual.mean() > 0.3 * reduced.error.mean()
    # Without the projections they are off by much more.
    u[:, 13 : 13 + SKETCH] = 0.0
    without = reduced._weights(torch.arange(64), u, sigma)[1].double().log() - logs
    without -= (logs.exp() * without).sum(1, keepdim=True)
    assert (logs.exp() * without.square()).sum(1).sqrt().mean() > 2 * actual.mean()


def test_what_is_left_out_is_computed_where_it_counts(clusters: Dataset, normal: Normal) -> None:
    """With four axes of 768, next to everything is left out: then nearly every call is computed, and is exact."""
    D, x = OptimalDenoiser(clusters), 80 * normal(12, 3, 16, 16)
    z, _ = D.query(x, 1.0)
    reduced = SpanDenoiser(D, basis_of(D, 4), z, tolerance=1e-4)
    rows = torch.arange(12)
    for state in trajectory(reduced, reduced.start, karras(12), solver="dpm_solver_pp"):
        if state.sigma == 0 or (reduced.leader >= 0).any():
            break
        full = reduced.states(rows, state.x).view(x.shape)
        weights = D.weights(full.float(), state.sigma)
        mean = weights.double() @ reduced.basis.coordinates[:, :4].double()
        torch.testing.assert_close(state.denoised[:, 1:5], mean, rtol=0, atol=2e-3)
    assert (reduced.computed > 0).all()
    assert (reduced.error <= 1e-4).all()
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
