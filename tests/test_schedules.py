"""Grids designed from the optimum: against published closed forms, and what each promises to be least."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from scipy.integrate import quad
from torch import Tensor

from optimal import FlowMap, OptimalDenoiser, design, karras, load, log_linear, orbit, sample, trajectory
from optimal.samplers import DPMSolverPP, Euler, GaussianExponential, GaussianStart, Heun, Solver
from optimal.samplers.gaussian_exponential import adams
from optimal.schedules import (
    Curve,
    Starts,
    calibrated,
    curve_of,
    entropic_grid,
    gaussian_grid,
    gaussian_ratios,
    landings_grid,
    path_kl,
    path_kl_grid,
    starts_of,
    wrong_landings,
)
from optimal.theories import Wiener


def two_points(sigma: float) -> float:
    """mmse of ±1: E 1/cosh²((1 + σε)/σ²), by quadrature."""

    def integrand(z: float) -> float:
        inner = min(300.0, abs((1 + sigma * z) / sigma**2))
        return math.exp(-z * z / 2) / math.sqrt(2 * math.pi) / math.cosh(inner) ** 2

    middle = max(-1 / sigma, -39.0)
    return quad(integrand, -40, middle, limit=200)[0] + quad(integrand, middle, 40, limit=200)[0]


@pytest.fixture(scope="module")
def pair() -> Curve:
    levels = torch.logspace(math.log10(0.02), math.log10(300), 300, dtype=torch.float64)
    values = np.maximum.accumulate([two_points(float(level)) for level in levels])
    return Curve(levels, torch.as_tensor(values))


@pytest.fixture(scope="module")
def digits() -> OptimalDenoiser:
    return OptimalDenoiser(load("digits"))


@pytest.fixture(scope="module")
def starts(digits: OptimalDenoiser) -> Starts:
    return starts_of(digits, 256, purpose="design")


def gaussian_curve(variance: float = 1.0) -> Curve:
    levels = torch.logspace(-3, 3, 400, dtype=torch.float64)
    return Curve.of(levels, lambda sigma: variance * sigma**2 / (variance + sigma**2))


def test_two_points_lose_the_published_nats(pair: Curve) -> None:
    """∫ mmse σ⁻³ dσ = ln 2, and the KL of five grids of 6 and 12 steps from 80 to 0.2."""
    assert pair.integral(300, 0.02, 3) == pytest.approx(math.log(2), abs=1e-5)
    published = {6: (0.350, 3.845, 1.569, 1.499, 3.749), 12: (0.150, 0.805, 0.497, 0.711, 2.061)}
    for n, (best, of_karras, even, entropic, rescaled) in published.items():
        span = {"sigma_max": 80.0, "sigma_min": 0.2}
        found = path_kl_grid(pair, n + 1, **span)
        assert path_kl(pair, found) == pytest.approx(best, abs=2e-3)
        assert path_kl(pair, karras(n + 1, **span)) == pytest.approx(of_karras, abs=1e-3)
        assert path_kl(pair, log_linear(n + 1, **span)) == pytest.approx(even, abs=1e-3)
        assert path_kl(pair, entropic_grid(pair, n + 1, **span)) == pytest.approx(entropic, abs=2e-3)
        assert path_kl(pair, entropic_grid(pair, n + 1, rescaled=True, **span)) == pytest.approx(rescaled, abs=2e-3)
    six = path_kl_grid(pair, 7, sigma_max=80.0, sigma_min=0.2)
    assert six[:-1].tolist() == pytest.approx([80, 1.28, 0.82, 0.59, 0.45, 0.33, 0.2], rel=0.03)


def test_path_kl_is_not_negative_and_never_rises_with_a_level_more(pair: Curve) -> None:
    source = np.random.default_rng(0)
    for _ in range(200):
        inner = np.exp(source.uniform(math.log(0.2), math.log(80), source.integers(0, 8)))
        levels = [80.0, *sorted(inner, reverse=True), 0.2]
        added = float(np.exp(source.uniform(math.log(0.21), math.log(79))))
        coarse, fine = (path_kl(pair, [*grid, 0.0]) for grid in (levels, sorted([*levels, added], reverse=True)))
        assert -1e-9 <= fine <= coarse + 1e-9


def test_n_times_path_kl_converges(pair: Curve) -> None:
    """To ½ (∫ √(−f') dγ)², f = mmse/2."""
    places = np.geomspace(0.2, 80, 20_001)
    slope = -np.diff(pair.at(places) / 2) / np.diff(places**-2.0)
    limit = 0.5 * (np.sqrt(np.maximum(slope, 0)) * -np.diff(places**-2.0)).sum() ** 2
    products = [n * path_kl(pair, path_kl_grid(pair, n + 1, sigma_max=80.0, sigma_min=0.2)) for n in (8, 32, 64)]
    assert abs(products[2] / limit - 1) < abs(products[0] / limit - 1)
    assert products[2] == pytest.approx(limit, rel=0.05)


def test_path_kl_bounds_the_end_of_the_ancestral_sampler() -> None:
    """One Gaussian direction: the variance of the sampler's last state is known step by step."""
    curve, levels = gaussian_curve(), path_kl_grid(gaussian_curve(), 5, sigma_max=50.0, sigma_min=0.3)
    variance = 1 + float(levels[0]) ** 2
    for high, low in zip(levels[:-2].tolist(), levels[1:-1].tolist(), strict=True):
        shrink, ratio = 1 / (1 + high**2), low**2 / high**2
        # x' = D + ratio (x − D) + √(low² (1 − ratio)) z.
        variance = (shrink + ratio * (1 - shrink)) ** 2 * variance + low**2 * (1 - ratio)
    exact = 1 + float(levels[-2]) ** 2
    end = 0.5 * (variance / exact - 1 - math.log(variance / exact))
    assert 0 < end <= path_kl(curve, levels)


def test_the_curve_of_an_optimum_is_that_of_two_points(pair: Curve) -> None:
    found = curve_of(OptimalDenoiser(torch.tensor([[-1.0], [1.0]])), sigma_max=80.0, draws=4096)
    inside = (found.sigmas > 0.2) & (found.sigmas < 80)
    error = torch.as_tensor(pair.at(found.sigmas[inside].numpy())) - found.mmse[inside]
    assert float(error.abs().max()) < 4 * 0.5 / math.sqrt(4096)
    assert found.disagreement < 0.05


def test_entropic_steps_of_a_gaussian_are_equal_angles() -> None:
    levels = entropic_grid(gaussian_curve(4.0), 6, rescaled=True, sigma_max=500.0, sigma_min=0.01)
    angles = (levels[:-1] / 2).atan()
    assert torch.allclose(angles.diff(), angles.diff().mean().expand(5), atol=1e-5)


def test_steps_of_euler_shrink_a_gaussian_by_the_cosine() -> None:
    """80 to 0.002 in eight steps: 0.858693 of the exact deviation with equal angles, 0.726173 on EDM's grid."""
    high, low = (math.atan(level) for level in (80.0, 0.002))
    even = [math.tan(high + (low - high) * i / 8) for i in range(9)]
    for levels, published in ((even, 0.858693), (karras(9).tolist()[:-1], 0.726173)):
        ratio = np.prod([1 + (b - a) * a / (1 + a * a) for a, b in itertools.pairwise(levels)])
        ratio /= math.sqrt((1 + levels[-1] ** 2) / (1 + levels[0] ** 2))
        assert ratio == pytest.approx(published, abs=1e-6)
        # The step to 0 is one more, from the last level.
        last = math.cos(math.atan(levels[-1]))
        found = gaussian_ratios(torch.tensor([1.0]), [*levels, 0.0])
        assert float(found) == pytest.approx(published * last, abs=1e-6)


def test_the_gaussian_grid_of_one_variance_has_equal_angles() -> None:
    levels = gaussian_grid(torch.tensor([0.25]), 6, sigma_max=80.0)
    angles = (levels / 0.5).atan()
    assert torch.allclose(angles.diff(), angles.diff().mean().expand(6), atol=1e-5)


@pytest.mark.parametrize("distance", ["w2", "kl"])
@pytest.mark.parametrize(("solver", "options"), [("euler", {}), ("heun", {}), ("dpm_solver_pp", {"order": 3})])
def test_no_level_of_a_gaussian_grid_can_be_moved_for_the_better(
    solver: str, options: dict[str, Any], distance: str, digits: OptimalDenoiser
) -> None:
    values = Wiener(digits).eigenvalues
    values = values[values > 1e-9]

    def cost(levels: Tensor) -> float:
        ratios = gaussian_ratios(values, levels, solver=solver, **options)
        if distance == "w2":
            return float((values * (ratios - 1).square()).sum())
        return float((ratios.square() - 1 - ratios.square().log()).sum()) / 2

    levels = gaussian_grid(values, 6, solver=solver, distance=distance, **options)  # pyright: ignore[reportArgumentType]
    best = cost(levels)
    assert best < cost(karras(6)) / 2
    for place in range(1, 6):
        for factor in (0.99, 1.01):
            tried = levels.clone()
            tried[place] *= factor
            if (tried.diff() >= 0).any():
                continue
            assert cost(tried) > best * (1 - 1e-6)


def test_designed_landings_hold_on_other_starts(digits: OptimalDenoiser, starts: Starts) -> None:
    """Six calls from σ = 86.6, where EDM's grid has almost all ends wrong."""
    solver = DPMSolverPP(order=3)
    levels = landings_grid(starts, 6, solver=solver)
    others = starts_of(digits, 512)
    found = wrong_landings(others, levels, solver=solver)
    assert found.nfe == 6
    assert found.interval()[1] < 0.16
    low, high = found.interval()
    assert low < found.share < high
    assert wrong_landings(others, karras(6, sigma_max=others.sigma), solver=solver).share > 0.7


def test_above_a_level_the_exact_flow_leads_on(digits: OptimalDenoiser, starts: Starts) -> None:
    """Sampled by hand down to σ = 3, and landed from there; and on a fine grid all ends are right."""
    levels = karras(3, sigma_min=3.0, sigma_max=starts.sigma)[:-1]
    for solver, calls in ((Heun(), 4), (DPMSolverPP(3), 2)):
        found = wrong_landings(starts, levels, solver=solver, until=3.0)
        *_, last, _ = trajectory(digits, starts.x, [*levels.tolist(), 0.0], solver=solver)
        landing = FlowMap(digits).land(last.x, 3.0)
        assert found.wrong == int((digits.first_copies()[landing.index] != starts.index).sum()) > 0
        assert found.nfe == calls
    fine = log_linear(33, sigma_min=3.0, sigma_max=starts.sigma)[:-1]
    assert wrong_landings(starts, fine, until=3.0).share < 0.01
    for until in (0.0, 2.0):
        with pytest.raises(ValueError, match=r"the last level of (a|the) grid must be"):
            wrong_landings(starts, levels, until=until)


def test_grids_are_designed_for_the_part_above_a_level(digits: OptimalDenoiser, starts: Starts) -> None:
    levels = landings_grid(starts, 3, solver="dpm_solver_pp", until=2.0)
    assert levels.shape == (4,)
    assert float(levels[0]) == starts.sigma
    assert float(levels[-1]) == 2.0
    others = starts_of(digits, 256)
    shares = [
        wrong_landings(others, one, solver="dpm_solver_pp", until=2.0)
        for one in (levels, karras(4, sigma_min=2.0, sigma_max=others.sigma)[:-1])
    ]
    assert shares[0].nfe == shares[1].nfe == 3
    assert shares[0].wrong < 0.7 * shares[1].wrong
    assert landings_grid(starts, 1, until=3.0).tolist() == [starts.sigma, 3.0]
    with pytest.raises(ValueError, match="until must be 0 or a level below"):
        landings_grid(starts, 2, until=100.0)


def test_starts_for_design_and_for_judging_share_no_numbers(digits: OptimalDenoiser, starts: Starts) -> None:
    other = starts_of(digits, 256)
    assert not torch.isin(starts.x, other.x).any()


def test_copies_count_as_one_end() -> None:
    y = torch.tensor([[-1.0], [0.0], [1.0]])
    once, twice = (starts_of(OptimalDenoiser(points), 64, sigma_max=80.0) for points in (y, y.repeat(3, 1)))
    assert torch.equal(once.index, twice.index)
    levels = karras(8)
    assert wrong_landings(twice, levels, solver="euler").wrong == wrong_landings(once, levels, solver="euler").wrong


def test_the_integrator_is_exact_on_gaussian_data() -> None:
    y = torch.randn(40, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    linear = Wiener(OptimalDenoiser(y))
    x = 50 * torch.randn(5, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    *_, last, _ = trajectory(linear, x, [50.0, 7.0, 0.4, 0.0], solver=GaussianExponential(linear))
    assert torch.allclose(last.x, linear.flow(x, 50.0, 0.4), atol=1e-12)


@pytest.mark.parametrize("order", [1, 2, 3])
def test_the_integrator_has_its_order(order: int) -> None:
    """Two points on a line: the error of x at σ = 0.4 falls as n^{−order}, from where D is Gaussian still."""
    y = torch.tensor([[-1.0], [1.0], [0.3]], dtype=torch.float64)
    D = OptimalDenoiser(y)
    solver = GaussianExponential(Wiener(D), order)
    x = torch.linspace(-30, 30, 12, dtype=torch.float64)[:, None]

    def end(n: int) -> Tensor:
        *_, last, _ = trajectory(D, x, log_linear(n, sigma_max=20.0, sigma_min=0.4), solver=solver)
        return last.x

    reference = end(800)
    errors = [float((end(n) - reference).abs().mean()) for n in (25, 50, 100)]
    assert math.log2(errors[1] / errors[2]) == pytest.approx(order, abs=0.25)


def test_adams_weights_integrate_polynomials_in_the_logarithm() -> None:
    """Of a constant, ∫ P dτ/τ by quadrature; and the weights of all places sum to it."""
    values = torch.tensor([0.0, 0.3, 5.0], dtype=torch.float64)
    logs, end = [math.log(2.0), math.log(5.0), math.log(9.0)], math.log(0.5)
    total = sum((adams(values, end, logs, place) for place in range(3)), torch.zeros(3, dtype=torch.float64))
    for value, found in zip(values.tolist(), total.tolist(), strict=True):
        exact = quad(lambda tau, v=value: math.sqrt((v + 0.25) / (v + tau * tau)) / tau, 0.5, 2.0)[0]
        assert found == pytest.approx(exact, rel=1e-9)


@pytest.mark.slow
def test_a_gaussian_start_saves_calls(digits: OptimalDenoiser, starts: Starts) -> None:
    shares = {}
    for name, solver in (("plain", DPMSolverPP(3)), ("started", GaussianStart(Wiener(digits), DPMSolverPP(3)))):
        levels = landings_grid(starts, 5, solver=solver)
        shares[name] = wrong_landings(starts_of(digits, 512), levels, solver=solver).share
    assert shares["started"] < shares["plain"]


@pytest.mark.slow
def test_calibrated_numbers_do_better_than_extrapolation(digits: OptimalDenoiser) -> None:
    """Four calls from σ = 86.6 for about one wrong end in twenty; extrapolation has one in ten."""
    linear = Wiener(digits)
    solver = calibrated(starts_of(digits, 1024, purpose="design"), 4, linear, steps=250)
    others = starts_of(digits, 1024)
    found = wrong_landings(others, [*solver.levels, 0.0], solver=solver)
    plain = GaussianExponential(linear)
    before = wrong_landings(
        others, landings_grid(starts_of(digits, 512, purpose="design"), 4, solver=plain), solver=plain
    )
    assert found.nfe == before.nfe == 4
    assert found.share < 0.85 * before.share


@pytest.mark.parametrize("objective", ["landings", "path-kl", "entropy", "rescaled-entropy", "gaussian"])
def test_design_answers_for_any_number_of_steps(objective: Any, digits: OptimalDenoiser) -> None:
    for n in (1, 2, 5):
        levels = design(digits, n, objective, "euler", starts=32)
        assert levels.shape == (n + 1,)
        assert float(levels[0]) == pytest.approx(86.6, abs=0.1)
        assert (levels.diff() < 0).all()


def test_data_of_one_point_take_any_grid_and_say_so() -> None:
    for y in (torch.ones(1, 3), torch.ones(4, 3)):
        with pytest.warns(UserWarning, match="data of one point"):
            assert len(design(OptimalDenoiser(y), 3)) == 4


@pytest.mark.parametrize(
    ("words", "given"),
    [
        ("at least 1 step", {"n": 0}),
        ("at least 1 step", {"n": 2.5}),
        ("below the border", {"sigma_max": 0.05}),
        ("positive and finite", {"sigma_max": math.inf}),
        ("draws noise", {"solver": Euler(eta=1.0)}),
        ("draws noise", {"solver": "reverse_sde", "objective": "gaussian"}),
        ("objective must be one of", {"objective": "best"}),
        ("unknown solver", {"solver": "rk45"}),
        ("starts must be at least 1", {"starts": 0}),
    ],
)
def test_what_design_refuses(words: str, given: dict[str, Any], digits: OptimalDenoiser) -> None:
    with pytest.raises(ValueError, match=words):
        design(digits, **({"n": 4} | given))


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.fixture(scope="module")
def few() -> OptimalDenoiser:
    """Six points of 192 values: sampled in the six coordinates of their span."""
    return OptimalDenoiser(random(6, 3, 8, 8))


def test_few_points_take_solvers_with_a_gaussian_of_the_points(few: OptimalDenoiser) -> None:
    """In coordinates of their span a solver does what it does to the points themselves, whatever axes it knows."""
    starts = starts_of(few, 32, sigma_max=100.0)
    assert starts.span is not None
    assert starts.D.event == (6,)
    x = starts.span.expanded(starts.x).reshape(-1, *few.event)
    levels = torch.tensor([10.0, 2.0, 1.0, 0.0])
    for linear in (Wiener(few), Wiener(few, rank=2)):
        for solver in (GaussianExponential(linear), GaussianStart(linear, GaussianExponential(linear, 1))):
            ends = few.nearest(sample(few, solver.start(x, 100.0, 10.0), levels, solver=solver))
            assert wrong_landings(starts, levels, solver=solver).wrong == int((ends != starts.index).sum())
    found = calibrated(starts_of(few, 64, purpose="design"), 2, Wiener(few), steps=1)
    assert sample(few, x, [*found.levels, 0.0], solver=found).shape == x.shape
    with pytest.raises(ValueError, match=r"of shape \(2,\), and D's have \(3, 8, 8\)"):
        wrong_landings(starts, levels, solver=GaussianExponential(Wiener(OptimalDenoiser(random(5, 2)))))


@pytest.mark.parametrize("objective", ["landings", "path-kl"])
def test_priors_are_no_border(objective: Any) -> None:
    """A rare point, a point taken away, copies of unequal probability: D is as undecided as its prior lets it be."""
    y = torch.tensor([[-1.0], [1.0], [5.0], [1.0]])
    for log_weights in ([0.0, -5.0, -math.inf, -math.inf], [-1.0, -0.3, -math.inf, 0.0]):
        D = OptimalDenoiser(y).weighted(torch.tensor(log_weights))
        assert len(design(D, 3, objective, "euler", starts=8)) == 4
        with pytest.raises(ValueError, match="below the border"):
            design(D, 3, objective, "euler", starts=8, sigma_max=0.02)
    alone = OptimalDenoiser(y).weighted(torch.tensor([0.0, -math.inf, -math.inf, -math.inf]))
    with pytest.warns(UserWarning, match="data of one point"):
        design(alone, 3, objective)


def test_starts_know_the_prior_of_points_that_were_left() -> None:
    y = torch.tensor([[5.0], [-1.0], [1.0], [1.0]])
    D = OptimalDenoiser(y).weighted(torch.tensor([0.0, 0.2, 0.3, 0.5]).log())
    starts = starts_of(D, 64, sigma_max=80.0)
    assert starts.index.unique().tolist() == [1, 2]
    expected = torch.where(starts.index == 1, 0.2, 0.8).double()
    assert torch.allclose(starts.log_prior.exp(), expected)


def test_copies_do_not_lower_the_border_or_the_curve() -> None:
    y = random(20, 3)
    once, often = OptimalDenoiser(y), OptimalDenoiser(y.repeat(8, 1))
    with pytest.raises(ValueError, match="below the border"):
        design(often, 3, sigma_max=0.02)
    one, many = (curve_of(D, draws=32) for D in (once, often))
    assert many.low == pytest.approx(one.low, rel=3)


def test_a_curve_reaches_down_to_the_data_whatever_its_first_level() -> None:
    """Points 1e-7 apart under EDM's 80: the levels of points 1 apart, 1e-7 times."""
    y = random(20, 3)
    far = design(OptimalDenoiser(1e-7 * y), 4, "path-kl")
    near = design(OptimalDenoiser(y), 4, "path-kl")
    assert float(far[0]) == 80.0
    assert torch.allclose(far[1:-1] * 1e7, near[1:-1], rtol=0.3)


def test_starts_that_are_decided_take_no_grid() -> None:
    with pytest.raises(ValueError, match="centre data that lie far from 0"):
        design(OptimalDenoiser(1e6 + random(20, 3)), 4, starts=8)


def test_more_steps_than_levels_of_the_programming() -> None:
    levels = design(OptimalDenoiser(torch.tensor([[-1.0], [1.0], [0.2]])), 41, solver="euler", starts=1, sigma_max=2.0)
    assert len(levels) == 42


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_calibration_takes_gradients_in_any_mode(mode: Any) -> None:
    y = random(8, 2)

    def found() -> tuple[float, ...]:
        D = OptimalDenoiser(y)
        return calibrated(starts_of(D, 64, purpose="design"), 2, Wiener(D), steps=2).gains

    plain = found()
    assert plain[0] != 1
    with mode():
        assert found() == plain
        assert not torch.is_grad_enabled()


@pytest.mark.parametrize("what", ["orbit", "network"])
def test_grids_are_made_from_the_optimum_of_data(what: str, digits: OptimalDenoiser) -> None:
    D: Any = orbit(digits, "flip") if what == "orbit" else torch.nn.Linear(2, 2)
    for made in (lambda: design(D, 3), lambda: starts_of(D, 8), lambda: Wiener(D)):
        with pytest.raises(ValueError, match=f"OptimalDenoiser, got {type(D).__name__}"):
            made()
    if what == "network":
        with pytest.raises(ValueError, match="Linear has none"):
            curve_of(D)


@pytest.mark.parametrize(
    ("words", "values", "given"),
    [
        ("finite numbers that are not negative", [1.0, math.nan], {}),
        ("finite numbers that are not negative", [1.0, -1.0], {}),
        ("finite numbers that are not negative", [[1.0]], {}),
        ("without variance", [0.0], {}),
        ("without variance", [], {}),
        ("2 positive numbers", [1.0, 2.0], {"counts": torch.ones(3)}),
        ("2 positive numbers", [1.0, 2.0], {"counts": torch.tensor([0.0, 1.0])}),
        ("at least 1 step", [1.0], {"n": 1.5}),
    ],
)
def test_what_a_gaussian_grid_refuses(words: str, values: list[Any], given: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=words):
        gaussian_grid(torch.tensor(values), **({"n": 3} | given))  # pyright: ignore[reportArgumentType]


def test_a_solver_by_a_gaussian_has_no_grid_of_eigenvalues(digits: OptimalDenoiser) -> None:
    with pytest.raises(ValueError, match="Gaussian of its own"):
        design(digits, 3, "gaussian", GaussianExponential(Wiener(digits)))


def test_long_steps_are_integrated_to_rounding() -> None:
    """∫ √((λ + σ'²)/(λ + τ²)) dτ/τ over ten e-folds, the bend of the integrand in the middle."""
    high, low = math.log(100.0), math.log(100.0) - 10
    for value in (1e-4, 1e-2, 1.0, 100.0):

        def kernel(log: float, value: float = value) -> float:
            return math.sqrt((value + math.exp(2 * low)) / (value + math.exp(2 * log)))

        exact = quad(kernel, low, high, points=[math.log(value) / 2], epsabs=0, epsrel=1e-13)[0]
        found = adams(torch.tensor([value], dtype=torch.float64), low, [high], 0)
        assert float(found) == pytest.approx(exact, rel=1e-12)


def test_a_solver_keeps_to_the_levels_it_was_calibrated_for(digits: OptimalDenoiser) -> None:
    solver = calibrated(starts_of(digits, 64, purpose="design"), 2, Wiener(digits), steps=2)
    x = torch.zeros(1, *digits.event)
    with pytest.raises(ValueError, match="calibrated for the levels"):
        sample(digits, x, [5.0, 1.0, 0.0], solver=solver)


def test_a_grid_that_begins_lower_needs_a_way_there(starts: Starts) -> None:
    for solver in (Heun(), DPMSolverPP()):
        assert isinstance(solver, Solver)
        with pytest.raises(ValueError, match="the starts lie at"):
            wrong_landings(starts, [5.0, 1.0, 0.0], solver=solver)


@pytest.mark.parametrize("n", [0, 2.5, -1])
def test_numbers_of_steps_that_no_grid_has(n: int) -> None:
    for made in (path_kl_grid, entropic_grid):
        with pytest.raises(ValueError, match="a grid needs at least 1 step, got n = "):
            made(gaussian_curve(), n)


@pytest.mark.parametrize("made", [path_kl_grid, entropic_grid])
def test_a_curve_of_zeros_has_no_grid(made: Callable[..., Tensor]) -> None:
    with pytest.raises(ValueError, match=r"the curve is 0 up to 10, so nothing is learnt below: every grid is right$"):
        made(Curve(torch.tensor([0.1, 1.0, 10.0]), torch.zeros(3)), 5)


@pytest.mark.parametrize("n", [3, 4, 30])
def test_no_level_of_the_least_path_can_be_moved_for_the_better(n: int) -> None:
    """Odd and even places take turns: none is left over, of the first and the last between the ends either."""
    curve = gaussian_curve(1.0)
    levels = path_kl_grid(curve, n, sigma_max=50.0, sigma_min=0.1)
    least = path_kl(curve, levels)
    for place in range(1, n - 1):
        for factor in (0.999, 1.001):
            other = levels.clone()
            other[place] *= factor
            assert path_kl(curve, other) > least
