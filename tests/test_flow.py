"""The flow map: the solver's own steps on a grid, the certified end of the exact flow without one."""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Callable

import pytest
import torch
from contracts import check_denoiser
from scipy.integrate import solve_ivp
from torch import Tensor
from torchdiffeq import odeint
from tqdm import tqdm

from optimal import FlowMap, OptimalDenoiser, capture, karras, load, log_linear, sample, trajectory
from optimal.denoiser import Posterior
from optimal.flow.adaptive import AdaptiveFlow
from optimal.query import Levels
from optimal.reference import Gaussian, GaussianMixture, TwoPoint
from optimal.samplers import SOLVERS, Solver, Step
from optimal.span import few_points
from optimal.theories import Wiener

Normal = Callable[..., Tensor]

ONE_STEP = [("euler", {}), ("heun", {}), ("dpm_solver", {"order": 2}), ("dpm_solver", {"order": 3})]


def column(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)[:, None]


def five() -> tuple[OptimalDenoiser, GaussianMixture]:
    data = load("five-deltas")
    return OptimalDenoiser(data), GaussianMixture(data.points, 0.0)


# On a grid.


@pytest.mark.parametrize(("solver", "options"), ONE_STEP)
def test_it_is_the_solver_from_every_level(solver: str, options: dict, normal: Normal) -> None:
    """Eq. 55: the steps composed down to 0, with the calls that the sampler counts; all levels in one batch."""
    data, sigmas = normal(20, 3), karras(9, sigma_max=20.0, sigma_min=0.05)
    D = OptimalDenoiser(data)
    jump = FlowMap(D, sigmas, solver, **options)
    x = sigmas[:-1, None] * normal(9, 3)
    landing = jump.land(x, sigmas[:-1])
    for n in range(9):
        *_, last = trajectory(D, x[n : n + 1], sigmas[n:], solver=solver, **options)
        torch.testing.assert_close(landing.x[n : n + 1], last.x, rtol=0, atol=1e-12)
        assert int(landing.nfe[n]) == last.nfe
    nearest = torch.cdist(landing.x, data).argmin(1)
    assert torch.equal(landing.index, nearest)
    assert torch.equal(jump.index(x, sigmas[:-1]), nearest)


@pytest.mark.parametrize(("solver", "options"), ONE_STEP)
def test_semigroup_on_a_grid(solver: str, options: dict, normal: Normal) -> None:
    D, sigmas = OptimalDenoiser(normal(20, 3)), karras(9, sigma_max=20.0, sigma_min=0.05)
    jump = FlowMap(D, sigmas, solver, **options)
    x = 20 * normal(6, 3)
    for level in sigmas[1:].tolist():
        half = jump.flow(x, 20.0, level)
        torch.testing.assert_close(jump(half, level), jump(x, 20.0), rtol=0, atol=1e-12)
    mixed = sigmas[torch.tensor([0, 2, 4, 5, 7, 8])]
    torch.testing.assert_close(jump(jump.flow(x, mixed, 0.05), 0.05), jump(x, mixed), rtol=0, atol=1e-12)


def test_identity_at_the_end(normal: Normal) -> None:
    """x_θ(x, t_1) = x, in a batch with others; nothing is called for it."""
    D, x = OptimalDenoiser(normal(20, 3)), normal(3, 3)
    for jump in (FlowMap(D, karras(5)), FlowMap(D)):
        sigma = torch.tensor([0.0, karras(5)[2], 0.0])
        landing = jump.land(x, sigma)
        assert torch.equal(landing.x[[0, 2]], x[[0, 2]])
        assert landing.nfe[[0, 2]].tolist() == [0, 0]
        assert landing.captured[[0, 2]].isnan().all()
        assert torch.equal(landing.index[[0, 2]], D.nearest(x[[0, 2]]))
        assert landing.nfe[1] > 0
        assert not torch.equal(landing.x[1], x[1])
        assert torch.equal(jump.flow(x, 1.0, 1.0) if jump.sigmas is None else x, x)


def test_between_levels_it_starts_with_a_shorter_step(normal: Normal) -> None:
    D, sigmas = OptimalDenoiser(normal(20, 3)), karras(6, sigma_max=20.0, sigma_min=0.05)
    jump, x = FlowMap(D, sigmas), normal(4, 3)
    levels = torch.tensor([19.0, 3.0, float(sigmas[3]), 0.06], dtype=torch.float64)
    landed = jump(x, levels)
    for n, level in enumerate(levels.tolist()):
        own = torch.cat([levels[n : n + 1], sigmas[sigmas < level]])
        *_, last = trajectory(D, x[n : n + 1], own, solver="heun")
        torch.testing.assert_close(landed[n : n + 1], last.x, rtol=0, atol=1e-12)


def test_levels_are_those_of_the_grid_to_float32(normal: Normal) -> None:
    """A float32 σ is the level it was rounded from: no step of length 1e-7, no error at the ends of the range."""
    D, sigmas = OptimalDenoiser(normal(20, 3)), karras(6)
    jump, x = FlowMap(D, sigmas), normal(6, 3)
    exact = jump.land(x, sigmas[:-1])
    rounded = jump.land(x, sigmas[:-1].float())
    assert torch.equal(exact.x, rounded.x)
    assert exact.nfe.tolist() == rounded.nfe.tolist() == [11, 9, 7, 5, 3, 1]


def slope(steps: list[int], errors: list[float]) -> float:
    x = -torch.tensor(steps, dtype=torch.float64).log()
    y = torch.tensor(errors, dtype=torch.float64).log()
    x, y = x - x.mean(), y - y.mean()
    return float((x @ y) / (x @ x))


@pytest.mark.parametrize(("solver", "order"), [("euler", 1), ("heun", 2)])
def test_order_down_to_the_data(solver: str, order: int) -> None:
    """Eq. 36, literally: the supremum over n and x, with Δt = σ_max/n in σ itself, f known all the way to 0."""
    D = Gaussian(torch.tensor([0.5, -1.0]), torch.tensor([1.0, 0.3]))
    steps, errors = [40, 80, 160, 320], []
    unit = torch.cartesian_prod(*[torch.linspace(-2, 2, 5, dtype=torch.float64)] * 2)
    for n in steps:
        sigmas = torch.linspace(3, 0, n + 1, dtype=torch.float64)
        jump = FlowMap(D, sigmas, solver)
        levels = sigmas[:-1][:: n // 20]
        x = torch.tensor([0.5, -1.0]) + (1 + levels.square()).sqrt()[:, None, None] * unit
        queries, per_query = x.flatten(0, 1), levels.repeat_interleave(len(unit))
        errors.append(float((jump(queries, per_query) - D.flow(queries, per_query, 0.0)).norm(dim=1).amax()))
    assert abs(slope(steps, errors) - order) <= 0.15
    assert errors[-1] < 0.05


@pytest.mark.slow
@pytest.mark.parametrize(("solver", "order"), [("euler", 1), ("heun", 2)])
def test_order_on_points_away_from_basin_borders(solver: str, order: int) -> None:
    """The discrete flow tends to the continuous one at the solver's order, and lands with it once it is fine."""
    D, exact = five()
    mass = torch.linspace(0.005, 0.995, 100, dtype=torch.float64)
    away = (mass * 5 - (mass * 5).round()).abs() > 0.1
    x = 80 * torch.special.ndtri(mass[away])[:, None]
    truth, ends = exact.flow(x, 80.0, 0.3), exact.flow(x, 80.0, 0.0)
    steps, errors = [80, 160, 320, 640], []
    for n in steps:
        sigmas = torch.cat([log_linear(n + 1, sigma_min=0.3)[:-1], log_linear(20, sigma_min=0.002, sigma_max=0.3)[1:]])
        jump = FlowMap(D, sigmas, solver)
        errors.append(float((jump.flow(x, 80.0, 0.3) - truth).abs().amax()))
    assert abs(slope(steps, errors) - order) <= 0.15
    torch.testing.assert_close(jump(x, 80.0), ends, rtol=0, atol=1e-9)
    continuous = FlowMap(D, tolerance=1e-9)
    torch.testing.assert_close(continuous.flow(x, 80.0, 0.3), truth, rtol=0, atol=1e-6)
    torch.testing.assert_close(continuous(x, 80.0), ends, rtol=0, atol=0)


def test_any_denoiser_has_a_flow_map_on_a_grid() -> None:
    D = Gaussian(torch.zeros(2), 1.0)
    jump = FlowMap(D, karras(200, sigma_max=5.0))
    x = torch.tensor([[3.0, -1.0]], dtype=torch.float64)
    torch.testing.assert_close(jump(x, 5.0), D.flow(x, 5.0, 0.0), rtol=0, atol=1e-3)
    assert jump.land(x, 5.0).index.tolist() == [-1]
    with pytest.raises(ValueError, match="data points are known of an OptimalDenoiser only, D is Gaussian"):
        jump.index(x, 5.0)


# Without a grid.


@pytest.mark.slow
def test_five_deltas_against_the_conserved_mass(normal: Normal) -> None:
    D, exact = five()
    x = 80 * normal(2000, 1)
    landing = FlowMap(D).land(x, 80.0)
    other = landing.x != exact.flow(x, 80.0, 0.0)
    share = torch.special.ndtr((x - D.take(torch.arange(5)).double().T) / 80).mean(1)
    from_border = (share * 5 - (share * 5).round()).abs() / 5
    # The tolerance decides only for what is as close to a border as it can move a row.
    assert from_border[other.squeeze(1)].tolist() == [] or from_border[other.squeeze(1)].amax() < 1e-4
    assert other.sum() <= 3
    assert torch.equal(landing.x, D.take(landing.index).double())
    assert ((landing.captured > 0.01) & (landing.captured <= 80)).all()
    finer = FlowMap(D, tolerance=1e-9).land(x, 80.0)
    assert torch.equal(finer.x, exact.flow(x, 80.0, 0.0))
    assert landing.nfe.double().mean() < 80


@pytest.mark.slow
def test_mixed_levels_and_the_way_down(normal: Normal) -> None:
    """Every row with its own start and its own end; the error follows the tolerance."""
    D, exact = five()
    sigma = torch.logspace(-1, 2, 300, dtype=torch.float64)
    x = D.take(torch.arange(300) % 5).double() + sigma[:, None] * normal(300, 1)
    fine = FlowMap(D, tolerance=1e-9)
    assert torch.equal(fine(x, sigma), exact.flow(x, sigma, 0.0))
    ends = sigma * torch.linspace(0, 1, 300, dtype=torch.float64)
    expected = exact.flow(x, sigma, ends)
    for tolerance in (1e-3, 1e-5, 1e-7):
        found = FlowMap(D, tolerance=tolerance).flow(x, sigma, ends)
        # What starts next to a border is spread apart on the way: all but a few per cent are compared.
        error = (found - expected).abs().squeeze(1) / ends.clamp_min(0.01)
        assert error.quantile(0.95) < 10 * tolerance
    assert torch.equal(fine.flow(x, sigma, ends)[ends == sigma], x[ends == sigma])
    torch.testing.assert_close(fine(fine.flow(x, sigma, ends), ends)[1:], fine(x, sigma)[1:], rtol=0, atol=0)


# Up.

M, OFF = torch.tensor([0.3, -0.2], dtype=torch.float64), torch.tensor([0.5, 0.7], dtype=torch.float64)
TWO, PAIR = TwoPoint(M, OFF), torch.stack([M + OFF, M - OFF])


@pytest.mark.parametrize(("low", "high"), [(0.002, 80.0), (0.5, 20.0), (5.0, 50.0), (1e-6, 1e6)])
def test_up_to_noise_against_the_closed_form(low: float, high: float, normal: Normal) -> None:
    """Within 30 tolerances, and back within 60; what is far above the data takes one step of seven calls."""
    x = TWO.flow(80 * normal(200, 2), 80.0, low)
    jump = FlowMap(OptimalDenoiser(PAIR), tolerance=1e-6)
    up = jump.flow(x, low, high)
    assert (up - TWO.flow(x, low, high)).norm(dim=1).amax() <= 3e-5 * high
    assert (jump.flow(up, high, low) - x).norm(dim=1).amax() <= 6e-5 * low
    down = 80 * normal(200, 2) * high / 80
    assert (jump.flow(jump.flow(down, high, low), low, high) - down).norm(dim=1).amax() <= 3e-5 * high


@pytest.mark.slow
def test_the_way_up_follows_the_tolerance(normal: Normal) -> None:
    """Each row from its own level to its own end, some up and some down, on five deltas."""
    D, exact = five()
    sigma = torch.logspace(-1, 2, 300, dtype=torch.float64)
    x = D.take(torch.arange(300) % 5).double() + sigma[:, None] * normal(300, 1)
    ends = sigma * torch.logspace(1, -0.5, 300, dtype=torch.float64)[torch.randperm(300)]
    expected = exact.flow(x, sigma, ends)
    for tolerance in (1e-3, 1e-5, 1e-7):
        found = FlowMap(D, tolerance=tolerance).flow(x, sigma, ends)
        assert ((found - expected).abs().squeeze(1) / ends).quantile(0.95) < 10 * tolerance


def test_up_against_integrators_of_others(normal: Normal) -> None:
    """scipy's DOP853 and torchdiffeq's dopri8, in log σ, from 0.3 to 40 on nine points in the plane."""
    D = OptimalDenoiser(normal(9, 2))
    x = D.take(torch.arange(9)).double() + 0.3 * normal(9, 2)
    ends = math.log(0.3), math.log(40.0)

    def slope(t: float | Tensor, x: Tensor) -> Tensor:
        return x - D(x, math.exp(float(t)))

    found = FlowMap(D, tolerance=1e-10).flow(x, 0.3, 40.0)
    scipy = solve_ivp(
        lambda t, z: slope(t, torch.from_numpy(z).view(9, 2)).flatten().numpy(),
        ends,
        x.flatten().numpy(),
        method="DOP853",
        rtol=1e-12,
        atol=1e-12,
    )
    torch.testing.assert_close(found, torch.from_numpy(scipy.y[:, -1]).view(9, 2), rtol=0, atol=1e-9 * 40)
    other = odeint(slope, x, torch.tensor(ends, dtype=torch.float64), method="dopri8", rtol=1e-12, atol=1e-12)[-1]
    # dopri8's own error, at the tightest tolerances that it takes: DOP853 agrees with us to 1e-10.
    torch.testing.assert_close(found, other, rtol=0, atol=5e-8 * 40)


def test_up_through_the_gaussian_of_the_data(normal: Normal) -> None:
    """From where their Gaussian is all that D sees of 400 points: Wiener's closed form, to its distance from D."""
    D = OptimalDenoiser(normal(400, 3) * torch.tensor([2.0, 1.0, 0.3]))
    wiener, x = Wiener(D), 30 * normal(50, 3)
    jump, errors = FlowMap(D, tolerance=1e-8), []
    for low in (30.0, 120.0):
        errors.append(
            float((jump.flow(x * low / 30, low, 1e4) - wiener.flow(x * low / 30, low, 1e4)).norm(dim=1).max())
        )
    # Their difference is the data's third cumulant, of 1/σ² in D: in x at 1e4, of 1/σ³.
    assert errors[0] <= 1e-4 * 1e4
    assert errors[1] <= errors[0] / 40


def test_clean_images_go_up_in_single_precision(normal: Normal) -> None:
    """From σ_min, where D stands still, in float32 and in float64; a spent row arrives, too."""
    data = load("digits").points[:200]
    D, z = OptimalDenoiser(data), normal(4, 1, 8, 8)
    x = D.take(torch.arange(4)).double() + 0.002 * z
    up = FlowMap(D, tolerance=1e-5).flow(x, 0.002, 80.0)
    assert 0.8 < float(up.std()) / 80 < 1.2
    # Rounding x to float32 is a displacement of 6e-8 where σ is 0.002.
    single = FlowMap(D, tolerance=1e-5).flow(x.float(), 0.002, 80.0)
    assert single.dtype == torch.float32
    assert (single.double() - up).flatten(1).norm(dim=1).amax() <= 2e-3 * 80


def test_rows_arrive_above_however_much_the_mean_errs(normal: Normal) -> None:
    nothing = torch.zeros(4, dtype=torch.float64)

    def noisy(x: Tensor, sigma: Tensor) -> Posterior:
        return Posterior(normal(*x.shape), *[nothing] * 2, nothing.long(), *[nothing] * 4, "noisy")

    flow = AdaptiveFlow(noisy, normal(4, 2), nothing + 1e-6, nothing + 1, 1e-4, spread=1.0, most=100)
    while not flow.spent.all():
        flow.advance()
    for _ in range(math.ceil(math.log(1e6, 5 / 3))):
        flow.advance()
    assert (flow.sigma == 1).all()


def test_two_points_in_space(normal: Normal) -> None:
    m, d = normal(4), normal(4)
    x = m + 10 * normal(200, 4)
    landed = FlowMap(OptimalDenoiser(torch.stack([m + d, m - d])))(x, 10.0)
    torch.testing.assert_close(landed, TwoPoint(m, d).flow(x, 10.0, 0.0), rtol=0, atol=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "starts"), [("digits", 64), ("faces", 32)])
def test_images_against_fine_steps(name: str, starts: int, normal: Normal) -> None:
    """The certified end of 400 fine steps of Heun's method, and the same in float32 and float64."""
    data = load(name)
    D = OptimalDenoiser(data)
    x = 80 * normal(starts, *data.event)
    landing = FlowMap(D).land(x, 80.0)
    states = trajectory(D, x, log_linear(400, sigma_min=0.01), solver="heun")
    assert torch.equal(landing.index, capture(D, states).index)
    assert torch.equal(landing.x, data[landing.index].double())
    single = FlowMap(D).land(x.float(), 80.0)
    assert torch.equal(single.index, landing.index)
    assert single.x.dtype == torch.float32
    assert torch.equal(FlowMap(D, karras(128))(x, 80.0).float().round(decimals=3), single.x.round(decimals=3))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_few_points_are_followed_in_their_span(
    dtype: torch.dtype, normal: Normal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """40 images of 768 values, two of them copies: the same landings from the same levels, in 40 coordinates."""
    images = torch.randint(0, 256, (40, 3, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    images[31] = images[4]
    D = OptimalDenoiser(images)
    x = (80 * normal(64, 3, 16, 16)).to(dtype)
    landing = FlowMap(D).land(x, 80.0)
    few = few_points(D)
    assert few is not None
    assert few.denoiser.event == (40,)
    points = D.take(torch.arange(40)).flatten(1)
    torch.testing.assert_close(few.expanded(few.reduced(points)).float(), points, rtol=0, atol=1e-5)
    monkeypatch.setattr("optimal.flow.exact.few_points", lambda _: None)
    expected = FlowMap(D).land(x, 80.0)
    assert torch.equal(landing.index, expected.index)
    assert torch.equal(landing.x, expected.x)
    assert not (landing.index == 31).any()
    # The certificate is asked at steps. Where it nearly held, rounding to float32 decides which of two is first.
    same = landing.nfe == expected.nfe
    assert (~same).sum() <= (0 if dtype == torch.float64 else 2)
    rtol = 1e-9 if dtype == torch.float64 else 0.002
    torch.testing.assert_close(landing.captured[same], expected.captured[same], rtol=rtol, atol=0)
    assert (landing.nfe - expected.nfe).abs().max() <= 12
    assert (landing.captured / expected.captured).log().abs().max() <= math.log(2)


@pytest.mark.slow
def test_it_is_a_denoiser(normal: Normal) -> None:
    for event in ((3,), (1, 4, 4)):
        data = normal(30, *event)
        check_denoiser(FlowMap(OptimalDenoiser(data)), event)
        wide = log_linear(30, sigma_min=1e-3, sigma_max=1e3)
        check_denoiser(FlowMap(OptimalDenoiser(data), wide), event)


@pytest.mark.slow
def test_a_budget_splits_the_batch(normal: Normal) -> None:
    data = normal(50, 1, 8, 8)
    x = 80 * normal(40, 1, 8, 8)
    whole = FlowMap(OptimalDenoiser(data)).land(x, 80.0)
    # Room for seven rows at a time.
    parts = FlowMap(OptimalDenoiser(data, memory=7 * 8 * 12 * 64)).land(x, 80.0)
    assert torch.equal(whole.index, parts.index)
    assert torch.equal(whole.x, parts.x)
    half = FlowMap(OptimalDenoiser(data, memory=7 * 8 * 12 * 64)).flow(x, 80.0, 1.0)
    torch.testing.assert_close(half, FlowMap(OptimalDenoiser(data)).flow(x, 80.0, 1.0), rtol=0, atol=1e-9)


def test_multistep_consistency_sampling(normal: Normal) -> None:
    """Eq. 37 with the optimum: jump, noise again, jump; from the exact flow every point stays equally likely."""
    D, _ = five()
    ends = sample(
        FlowMap(D), 80 * normal(3000, 1), [80.0, 2.0, 0.5, 0.0], solver="consistency", generator=torch.Generator()
    )
    counts = D.nearest(ends).bincount(minlength=5)
    assert torch.equal(ends, D.take(D.nearest(ends)).double())
    assert float(((counts - 600.0) ** 2 / 600).sum()) < 20


# Edges.


@pytest.mark.parametrize(
    ("points", "x"),
    [
        (column(-1.0, 1.0), column(0.0)),
        (column(1.0, -1.0), column(0.0)),
        (torch.tensor([[0.0, 1.0], [1.0, 0.0], [0.0, -1.0], [-1.0, 0.0]]), torch.zeros(1, 2)),
        (column(-1.0, 1.0, 1.0, -1.0), column(0.0)),
    ],
    ids=["two", "swapped", "square", "copies"],
)
@pytest.mark.parametrize("sigma", [1e-3, 1.0, 80.0])
def test_ties_go_to_the_first_point(points: Tensor, x: Tensor, sigma: float) -> None:
    jump = FlowMap(OptimalDenoiser(points))
    landing = jump.land(x, sigma)
    assert landing.index.tolist() == [0]
    assert landing.captured.tolist() == [0.0]
    assert torch.equal(landing.x, points[:1].to(landing.x))
    # One rounding error off the border, the side is decided and certain.
    beside = jump.land(x + 1e-9 * points[1].to(x), sigma)
    assert torch.equal(beside.x, points[1:2].to(x))
    assert (beside.captured > 0).all()


def test_a_tie_that_rounding_breaks_is_broken_the_same_way_every_time() -> None:
    jump = FlowMap(OptimalDenoiser(torch.tensor([[0.1], [0.7]])))
    first = jump.land(column(0.4), 80.0)
    assert first.index.tolist() == jump.land(column(0.4), 80.0).index.tolist()
    assert first.index.tolist()[0] in (0, 1)


@pytest.mark.parametrize("copies", [1, 4])
def test_one_point(copies: int, normal: Normal) -> None:
    y = normal(1, 3)
    D = OptimalDenoiser(y.repeat(copies, 1))
    for jump in (FlowMap(D), FlowMap(D, karras(4)), FlowMap(D, [80.0, 0.0], "euler")):
        landing = jump.land(80 * normal(5, 3), 80.0)
        torch.testing.assert_close(landing.x, y.expand(5, -1), rtol=0, atol=1e-12)
        assert landing.index.tolist() == [0] * 5


def test_copies_lead_to_the_first_and_near_copies_are_told_apart() -> None:
    D = OptimalDenoiser(column(3.0, -1.0, 3.0, -1.0 + 1e-4))
    x = torch.linspace(-2, 5, 200, dtype=torch.float64)[:, None]
    landing = FlowMap(D).land(x, 1.0)
    assert set(landing.index.tolist()) == {0, 1, 3}
    exact = GaussianMixture(D.data, 0.0)
    assert torch.equal(landing.x, exact.flow(x, 1.0, 0.0))
    assert (landing.captured > 0).all()


def test_far_away_and_far_below(normal: Normal) -> None:
    D = OptimalDenoiser(normal(10, 2))
    x = torch.cat([1e6 * normal(5, 2), normal(5, 2)])
    far = FlowMap(D).land(x[:5], 80.0)
    assert torch.equal(far.index, FlowMap(D, tolerance=1e-8).land(x[:5], 80.0).index)
    # Below every distance between points it is the nearest point.
    below = FlowMap(D).land(x[5:], 1e-9)
    assert torch.equal(below.index, D.nearest(x[5:]))
    assert below.nfe.tolist() == [1] * 5


def test_nothing_else_is_touched(normal: Normal) -> None:
    D = OptimalDenoiser(normal(10, 2))
    x = (5 * normal(6, 2)).requires_grad_()
    kept, state = x.detach().clone(), torch.random.get_rng_state()
    for jump in (FlowMap(D), FlowMap(D, karras(5))):
        landing = jump.land(x, 5.0)
        landing.x.zero_()
        assert not landing.x.requires_grad
        assert torch.equal(x, kept)
        jump.flow(x, 5.0, 5.0 if jump.sigmas is None else float(jump.sigmas[3])).zero_()
        assert torch.equal(x, kept)
    assert torch.equal(torch.random.get_rng_state(), state)


@pytest.mark.slow
def test_batch_is_loop(normal: Normal) -> None:
    D = OptimalDenoiser(load("digits", n=200))
    x, sigma = 5 * normal(12, 1, 8, 8), torch.linspace(0.1, 80, 12)
    jump = FlowMap(D)
    rows = [jump.index(x[i : i + 1], sigma[i]) for i in range(12)]
    assert torch.equal(jump.index(x, sigma), torch.cat(rows))
    order = torch.arange(11, -1, -1)
    assert torch.equal(jump.index(x[order], sigma[order]), torch.cat(rows)[order])


GRID = [10.0, 1.0, 0.1, 0.0]
POINTS = column(-1.0, 1.0)


@pytest.mark.parametrize(
    ("sigma", "sentence"),
    [
        (10.1, "sigma must lie on the grid's range, from 0.1 to 10, or be 0, got 10.1"),
        (0.09, "sigma must lie on the grid's range, from 0.1 to 10, or be 0, got 0.09"),
        (-1.0, "sigma must lie on the grid's range, from 0.1 to 10, or be 0, got -1"),
        (math.nan, "got nan"),
        (torch.ones(3), r"sigma must have shape \(\) or \(B,\), got \(3,\) with B = 2"),
        (torch.tensor([1.0, 20.0]), "got 20"),
    ],
)
def test_errors_of_the_level(sigma: float | Tensor, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        FlowMap(OptimalDenoiser(POINTS), GRID)(column(0.1, 0.2), sigma)


@pytest.mark.parametrize(
    ("sigma", "sentence"),
    [
        (-1.0, "sigma must be finite and not negative, got -1"),
        (math.inf, "sigma must be finite and not negative, got inf"),
        (torch.ones(3), r"sigma must have shape \(\) or \(B,\), got \(3,\) with B = 2"),
    ],
)
def test_errors_of_the_continuous_level(sigma: float | Tensor, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        FlowMap(OptimalDenoiser(POINTS))(column(0.1, 0.2), sigma)


def test_errors_of_the_construction() -> None:
    D = OptimalDenoiser(POINTS)
    for arguments, options, sentence in (
        ((Gaussian(torch.zeros(1), 1.0),), {}, "D must be an OptimalDenoiser, got Gaussian: give sigmas="),
        ((D, None, "heun"), {}, "give sigmas="),
        ((D, None), {"eta": 0.0}, "give sigmas="),
        ((None, GRID), {}, r"D must be a denoiser, a function \(x, sigma\) -> x0_hat, got NoneType"),
        ((D,), {"tolerance": 0.0}, "tolerance must lie between 1e-10 and 0.1, got 0"),
        ((D, GRID), {"tolerance": 1e-3}, "tolerance= is of the continuous flow"),
        ((D, [1.0, 2.0, 0.0]), {}, "a grid must decrease"),
        ((D, GRID, "dpm_solver_pp"), {}, "a flow map composes single steps .*, DPMSolverPP builds on earlier ones"),
        ((D, GRID, "reverse_sde"), {}, "a flow map is a function of x, ReverseSDE draws noise"),
        ((D, GRID, "euler"), {"eta": 1.0}, "a flow map is a function of x, Euler draws noise"),
        ((D, GRID, "huen"), {}, "did you mean 'heun'"),
        ((D, GRID, "heun"), {"order": 2}, "heun has no option 'order'"),
    ):
        with pytest.raises(ValueError, match=sentence):
            FlowMap(*arguments, **options)


def test_errors_of_the_ends() -> None:
    D = OptimalDenoiser(POINTS)
    x = column(0.1, 0.2)
    for jump, end, sentence in (
        (FlowMap(D, GRID), 0.5, "sigma_end must be a level of the grid, got 0.5"),
        (FlowMap(D, GRID), torch.tensor([0.1, 0.1]), "with a grid, sigma_end is one level for all rows"),
        (FlowMap(D, GRID), 10.0, "on a grid .* sigma_end must lie between 0 and sigma, got 10 from 1: .*invert"),
        (FlowMap(D), math.inf, "sigma_end must be finite and not negative, got inf"),
        (FlowMap(D), torch.tensor([0.5, -1.0]), "sigma_end must be finite and not negative, got -1"),
        (FlowMap(D), torch.ones(3), r"sigma_end must have shape \(\) or \(B,\), got \(3,\) with B = 2"),
    ):
        with pytest.raises(ValueError, match=sentence):
            jump.flow(x, 1.0, end)
    bare = torch.tensor([0.0, 1.0])
    with pytest.raises(ValueError, match=r"the way up starts above sigma 0, .*, got sigma 0 and sigma_end 2"):
        FlowMap(D).flow(x, bare, 2.0)
    assert torch.equal(FlowMap(D).flow(x, bare, torch.tensor([0.0, 1.0])), x)


@pytest.mark.parametrize("bad", [torch.zeros(2, 3), torch.tensor([[math.nan]]), torch.zeros(2, 1, dtype=torch.int64)])
def test_errors_of_x(bad: Tensor) -> None:
    for jump in (FlowMap(OptimalDenoiser(POINTS)), FlowMap(OptimalDenoiser(POINTS), GRID)):
        for sigma in (1.0, 0.0):
            with pytest.raises(ValueError, match="x must"):
                jump(bad, sigma)


def test_every_solver_is_taken_or_refused_by_name() -> None:
    D = OptimalDenoiser(POINTS)
    taken = []
    for name in SOLVERS:
        try:
            FlowMap(D, GRID, name)
        except ValueError:
            continue
        taken.append(name)
    assert taken == ["euler", "heun", "edm_stochastic", "dpm_solver"]


def test_rows_step_for_themselves(normal: Normal) -> None:
    """A row far from any decision takes no more calls for having a neighbour that is close to one."""
    D, _ = five()
    x = column(200.0, -0.999)
    alone = FlowMap(D).land(x[:1], 80.0)
    together = FlowMap(D).land(x, torch.tensor([80.0, 1.0]))
    assert alone.nfe[0] == together.nfe[0]
    assert alone.captured[0] == together.captured[0]
    flow = AdaptiveFlow(
        D.posterior, x, torch.tensor([80.0, 1.0], dtype=torch.float64), torch.zeros(2), 1e-4, spread=1.0, most=1000
    )
    flow.advance()
    flow.keep(torch.tensor([False, True]))
    assert len(flow) == 1
    assert flow.rows.tolist() == [1]
    assert flow.sigma.shape == flow.nfe.shape == (1,)


@pytest.mark.slow
@pytest.mark.parametrize(("solver", "options"), ONE_STEP)
def test_rows_at_mixed_levels_share_their_calls(solver: str, options: dict, normal: Normal) -> None:
    """64 rows at 64 levels on and between those of the grid: as many calls as the row with most, and its own steps."""
    D, sigmas = OptimalDenoiser(normal(20, 3)), karras(8, sigma_max=20.0, sigma_min=0.05)
    levels = torch.logspace(math.log10(0.05), math.log10(20), 64, dtype=torch.float64)
    x = levels[:, None] * normal(64, 3)
    asked = []

    def watched(x: Tensor, sigma: float | Tensor) -> Tensor:
        asked.append(len(x))
        return D(x, sigma)

    landing = FlowMap(watched, sigmas, solver, **options).land(x, levels)
    assert len(asked) == landing.nfe.max()
    assert sum(asked) == landing.nfe.sum()
    jump = FlowMap(D, sigmas, solver, **options)
    alone = [jump.land(x[row : row + 1], levels[row]) for row in range(64)]
    torch.testing.assert_close(landing.x, torch.cat([one.x for one in alone]), rtol=0, atol=1e-12)
    assert torch.equal(landing.nfe, torch.cat([one.nfe for one in alone]))


def test_solvers_that_write_into_what_they_are_given(normal: Normal) -> None:
    """A step is run again for each of its questions: from a fresh copy of its start and of the answers."""

    class Writing(Solver):
        def __call__(self, step: Step) -> Tensor:
            step.x.sub_(step.denoised).mul_(step.sigma_next / step.sigma).add_(step.denoised)
            if step.sigma_next:
                step.x.add_(step.evaluate(step.x, step.sigma_next)).div_(2)
            return step.denoised.copy_(step.x)

    class Pure(Solver):
        def __call__(self, step: Step) -> Tensor:
            x = (step.x - step.denoised) * (step.sigma_next / step.sigma) + step.denoised
            return (x + step.evaluate(x, step.sigma_next)) / 2 if step.sigma_next else x

    D, x = OptimalDenoiser(normal(20, 3)), 5 * normal(4, 3)
    writing, pure = (FlowMap(D, [5.0, 2.0, 1.0, 0.0], solver) for solver in (Writing(), Pure()))
    assert torch.equal(writing(x, 5.0), pure(x, 5.0))


def test_calls_are_counted_on_stderr(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("optimal.flow.flow_map.tqdm", functools.partial(tqdm, mininterval=0))
    D = OptimalDenoiser(column(-1.0, 1.0))
    slow = FlowMap(lambda x, sigma: time.sleep(0.4) or D(x, sigma), [8.0, 4.0, 2.0, 1.0, 0.0], "euler")
    slow.land(column(0.3), 8.0)
    assert capsys.readouterr().err == ""
    slow.land(column(0.3), 8.0, progress=True)
    assert "flow: 4call" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_landings_do_not_depend_on_the_batch(dtype: torch.dtype, normal: Normal) -> None:
    """40 images, two of them 1e-5 deviations apart: in coordinates of their span from 32 rows on, and in all below."""
    data = normal(40, 768)
    data[1] = data[0] + 1e-5 * normal(768)
    x = (data[0] + 0.05 * normal(66, 768)).to(dtype)
    jump = FlowMap(OptimalDenoiser(data))
    whole = jump.land(x, 0.05)
    assert set(whole.index.tolist()) == {0, 1}
    assert (whole.captured > 0).all()
    for sizes in ([65, 1], [26, 40], [20, 20, 20, 6], [1, 1, 1, 31, 32]):
        parts = [jump.land(part, 0.05) for part in x.split(sizes)]
        assert torch.equal(torch.cat([part.index for part in parts]), whole.index)
        assert torch.equal(torch.cat([part.x for part in parts]), whole.x)
        assert all((part.captured > 0).all() for part in parts)
    order = torch.arange(66).flip(0)
    assert torch.equal(jump.index(x[order], 0.05), whole.index[order])


@pytest.mark.slow
@pytest.mark.parametrize(("tolerance", "distance"), [(1e-4, 1e-3), (1e-6, 5e-5)])
@pytest.mark.parametrize("seed", range(4))
def test_no_landing_is_wrong_at_a_distance_from_borders(tolerance: float, distance: float, seed: int) -> None:
    """Points on the line of all spacings, from 12 levels, next to every border, against the mass that is conserved."""
    generator = torch.Generator().manual_seed(seed)
    points = torch.randn(9, 1, generator=generator, dtype=torch.float64)
    points *= torch.exp((seed % 2) * 2 * torch.randn(9, 1, generator=generator, dtype=torch.float64))
    D, exact = OptimalDenoiser(points), GaussianMixture(points, 0.0)
    levels = D.standard_deviation * torch.logspace(-1.5, 1.5, 12, dtype=torch.float64)
    x = exact.separatrices(levels)[:, :, None] + levels[:, None, None] * column(-distance, distance).T
    sigma, x = levels[:, None, None].expand(x.shape).flatten(), x.reshape(-1, 1)
    landing = FlowMap(D, tolerance=tolerance).land(x, sigma)
    assert torch.equal(landing.x, exact.flow(x, sigma, 0.0))


def test_the_side_of_a_border_that_was_wrong() -> None:
    """2e-4 σ from it, where 1e-5 was promised: a finer tolerance decides it."""
    D = OptimalDenoiser(column(2.0, 6, 14, 14.125, 22.125, 30.125, 32.125, 32.625, 36.625))
    assert FlowMap(D, tolerance=1e-6).index(column(9.414165313321979), 3.4201067962607237).tolist() == [2]


def test_a_far_point_moves_no_landing(normal: Normal) -> None:
    """0, 0.05 and 3e5: the deviation of the data is no measure of what float64 tells apart near 0."""
    near = column(0.0, 0.05, -0.03)
    x = column(*torch.linspace(-0.2, 0.2, 81).tolist())
    expected = FlowMap(OptimalDenoiser(near)).land(x, 0.1)
    for far in (3e5, 1e8):
        found = FlowMap(OptimalDenoiser(torch.cat([near, column(far)]))).land(x, 0.1)
        assert torch.equal(found.index, expected.index)
        assert torch.equal(found.captured > 0, expected.captured > 0)


def test_rows_that_take_too_many_calls_are_said_to_have(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("optimal.flow.exact._MOST", 14)
    D, x = OptimalDenoiser(load("five-deltas")), column(0.3, 40.0, 1e6)
    with pytest.warns(RuntimeWarning, match="2 of 3 rows were not decided within 14 denoiser calls"):
        landing = FlowMap(D).land(x, 80.0)
    assert (landing.captured > 0).tolist() == [False, False, True]
    assert torch.equal(landing.x, D.take(landing.index).double())
    with pytest.warns(RuntimeWarning, match="3 of 3 rows .* the rest of their way was taken in steps of any error"):
        FlowMap(D).flow(x, 80.0, 0.01)


@pytest.mark.parametrize("error", [1e-3, 1.0, 1e30])
def test_rows_arrive_however_much_the_mean_errs(error: float, normal: Normal) -> None:
    """Steps shrink for as long as rows are held to a tolerance, and no longer."""
    nothing = torch.zeros(4, dtype=torch.float64)

    def noisy(x: Tensor, sigma: Tensor) -> Posterior:
        return Posterior(error * normal(*x.shape), *[nothing] * 2, nothing.long(), *[nothing] * 4, "noisy")

    flow = AdaptiveFlow(noisy, normal(4, 2), nothing + 1, nothing + 1e-6, 1e-4, spread=1.0, most=100)
    while not flow.spent.all():
        flow.advance()
        assert (flow.sigma > 1e-6).all()
    for _ in range(math.ceil(math.log2(1e6))):
        flow.advance()
    assert (flow.sigma == 1e-6).all()


def test_single_precision_far_above_and_far_from_zero() -> None:
    """A mean in float32 at σ = 1e9, beside which its rounding is nothing, is a slope down to where it is all."""
    points = 1e7 + column(-0.75, -0.25, 0.125, 0.5, 1.0)
    sigma = torch.full((8,), 2.0**30, dtype=torch.float64)
    borders = GaussianMixture(points - 1e7, 0.0).separatrices(sigma[:1])
    x = (1e7 + borders + sigma[0] * column(-3e-3, 3e-3)).flatten()[:, None].float()
    index = FlowMap(OptimalDenoiser(points)).index(x, sigma)
    assert torch.equal(points[index] - 1e7, GaussianMixture(points - 1e7, 0.0).flow(x.double() - 1e7, sigma, 0.0))


@pytest.mark.parametrize("sigma", [1e9, 1e30, 1e70])
def test_far_above_the_data_the_way_is_no_longer(sigma: float, normal: Normal) -> None:
    """One step takes a row down to the data, however high it begins: D is their mean all the way."""
    D, noise = OptimalDenoiser(normal(10, 2)), normal(64, 2).double()
    landing, near = FlowMap(D).land(sigma * noise, sigma), FlowMap(D).land(1e3 * noise, 1e3)
    assert (landing.captured > 0).all()
    assert landing.nfe.max() <= 100
    assert (landing.nfe - near.nfe).double().mean() <= 12
    # At 1e3 the points are still 1e-3 of it away from their mean.
    assert (landing.index == near.index).double().mean() > 0.9


@pytest.mark.parametrize("size", [1e-30, 1e-12, 1e12, 1e30])
def test_units_change_nothing(size: float, normal: Normal) -> None:
    data, x = normal(30, 3), 20 * normal(30, 3)
    plain, other = FlowMap(OptimalDenoiser(data)).land(x, 20.0), FlowMap(OptimalDenoiser(size * data))
    landing = other.land(size * x, size * 20.0)
    assert torch.equal(landing.index, plain.index)
    torch.testing.assert_close(landing.captured / size, plain.captured, rtol=1e-3, atol=0)


def test_the_centre_of_many_points_is_a_border_and_beside_it_is_none(normal: Normal) -> None:
    """200 points at equal distances: the tie is told from a row that is slow to decide, however far apart they are."""
    D = OptimalDenoiser(torch.eye(200, dtype=torch.float64))
    centre = torch.full((1, 200), 1 / 200, dtype=torch.float64)
    assert FlowMap(D).land(centre, 1.0).captured.tolist() == [0.0]
    beside = 1e-9 * normal(8, 200)
    landing = FlowMap(D).land(centre + beside, 1.0)
    assert torch.equal(landing.index, beside.argmax(1))
    assert (landing.captured > 0).all()


class ByDifferences(OptimalDenoiser):
    """The posterior of few points with every logit taken by differences of points: right however close they are."""

    def posterior(self, x: Tensor, sigma: Levels) -> Posterior:
        y = self.take(torch.arange(len(self))).double().flatten(1)
        z, levels = x.double().flatten(1), torch.as_tensor(sigma, dtype=torch.float64).expand(len(x))
        means, rows = [], []
        for query, level in zip(z, levels.tolist(), strict=True):
            first = y[(y - query).square().sum(1).argmin()]
            weights = (((y - first) * (query - (y + first) / 2)).sum(1) / level**2).softmax(0)
            means.append(first + weights @ (y - first))
            variance = weights @ (y - means[-1]).square().sum(1)
            entropy = -torch.special.xlogy(weights, weights).sum()
            rows.append([variance, entropy, weights.argmax(), weights.amax()])
        variance, entropy, index, top = torch.tensor(rows, dtype=torch.float64).view(-1, 4).unbind(1)
        nan = torch.full_like(variance, torch.nan)
        mean = torch.stack(means).view(x.shape)
        return Posterior(mean, nan, entropy, index.long(), top, variance, nan, nan, "differences")


@pytest.mark.slow
@pytest.mark.parametrize("dim", [768, 3072])
@pytest.mark.parametrize("values", [1, None])
@pytest.mark.parametrize("kind", ["differences", "own"])
def test_one_image_twice_up_to_one_rounding(kind: str, dim: int, values: int | None, normal: Normal) -> None:
    """At most 200 calls, from σ = 80 too, and every row is told on which of the two it lands."""
    data = normal(20, dim).float()
    data[19] = data[0]
    data[19, :values] = torch.nextafter(data[0, :values], data[0, :values] + 1)
    jump = FlowMap(OptimalDenoiser(data) if kind == "own" else ByDifferences(data))
    for x, sigma in ((data[0] + 0.3 * normal(8, dim), 0.3), (data[0] + 80 * normal(8, dim), 80.0)):
        landing = jump.land(x, sigma)
        assert landing.nfe.max() <= 200
        assert (landing.captured > 0).all()
        if sigma < 1:
            assert set(landing.index.tolist()) == {0, 19}


def test_no_step_is_rejected_for_what_rounding_does(normal: Normal) -> None:
    """A mean that is off by rounding, at random, as σ falls far below what it is off by: half of σ at each step."""
    y = 100 * normal(1, 50)
    nothing = torch.zeros(4, dtype=torch.float64)

    def noisy(x: Tensor, sigma: Tensor) -> Posterior:
        mean = y + 2.0**-53 * y.norm() * torch.nn.functional.normalize(normal(*x.shape), dim=1)
        return Posterior(mean, *[nothing] * 2, nothing.long(), nothing + 1, *[nothing] * 3, "noisy")

    flow = AdaptiveFlow(noisy, y + normal(4, 50), nothing + 1, nothing + 1e-20, 1e-4, spread=10.0, most=10**6)
    for _ in range(80):
        flow.advance()
        assert flow.accepted.all()
    assert (flow.sigma == 1e-20).all()
