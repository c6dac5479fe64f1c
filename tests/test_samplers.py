"""What every solver promises beside its order: calls, states, coordinates, precision, noise, and what it refuses."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from optimal import OptimalDenoiser, cosine, karras, log_linear, sample, trajectory, uniform_t
from optimal.process import EDM, VE, VP, CosineVP, FlowMatching, GeometricVE, LinearSDE, Process
from optimal.reference import Gaussian, GaussianMixture, OnePoint
from optimal.samplers import SOLVERS, Solver, State
from optimal.samplers.consistency import Consistency
from optimal.samplers.dpm_solver import DPMSolver
from optimal.samplers.dpm_solver_pp import DPMSolverPP
from optimal.samplers.edm_stochastic import EDMStochastic
from optimal.samplers.euler import Euler
from optimal.samplers.heun import Heun
from optimal.samplers.reverse_sde import ReverseSDE
from optimal.samplers.sde_dpm_solver_pp import SDEDPMSolverPP
from optimal.samplers.unipc import UniPC

ODE: list[tuple[str, dict[str, Any]]] = [
    ("euler", {}),
    ("heun", {}),
    ("edm_stochastic", {}),
    ("dpm_solver", {"order": 1}),
    ("dpm_solver", {"order": 2}),
    ("dpm_solver", {"order": 3}),
    ("dpm_solver_pp", {"order": 2}),
    ("dpm_solver_pp", {"order": 3}),
    ("dpm_solver_pp", {"order": 3, "variant": "reference"}),
    ("dpm_solver_pp", {"order": 3, "lower_order_final": True}),
    ("unipc", {"order": 1}),
    ("unipc", {"order": 2, "variant": "bh1"}),
    ("unipc", {"order": 3}),
    ("unipc", {"order": 3, "lower_order_final": True}),
    ("sde_dpm_solver_pp", {"eta": 0.0}),
]
STOCHASTIC: list[tuple[str, dict[str, Any]]] = [
    ("euler", {"eta": 0.5}),
    ("euler", {"eta": 1.0}),
    ("edm_stochastic", {"S_churn": 0.4}),
    ("sde_dpm_solver_pp", {"order": 1}),
    ("sde_dpm_solver_pp", {"eta": 0.5}),
    ("sde_dpm_solver_pp", {}),
    ("reverse_sde", {}),
    ("consistency", {}),
]
ALL = [*ODE, *STOCHASTIC]

every_solver = pytest.mark.parametrize(("solver", "options"), ALL)
every_ode_solver = pytest.mark.parametrize(("solver", "options"), ODE)
every_stochastic_solver = pytest.mark.parametrize(("solver", "options"), STOCHASTIC)

EVENT = (2, 3)


def draws(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


D = GaussianMixture(0.7 * draws(6, *EVENT, seed=1), 0.3)
X = 80 * draws(5, *EVENT, seed=2)
NOISE = list(draws(64, 5, *EVENT, seed=3))


class Watched:
    """A denoiser that writes down how it was called."""

    def __init__(self, D: Any = D):
        self.D, self.x, self.sigmas, self.modes = D, [], [], []

    def __call__(self, x: Tensor, sigma: float | Tensor) -> Tensor:
        self.x.append(x.clone())
        self.sigmas.append(sigma)
        self.modes.append(torch.is_grad_enabled())
        return self.D(x, sigma)

    @property
    def calls(self) -> int:
        return len(self.x)


def run(solver: str | Solver, sigmas: Any, x: Tensor = X, denoiser: Any = D, **options: Any) -> list[State]:
    """All states, with noise pinned."""
    return list(trajectory(denoiser, x, sigmas, solver=solver, **{"noise": NOISE, **options}))


def relative(a: Tensor, b: Tensor) -> float:
    """max |a − b| in units of the largest |b|."""
    assert a.shape == b.shape
    return float((a.double() - b.double()).abs().max() / b.double().abs().max())


def test_every_solver_is_tested() -> None:
    assert {solver for solver, _ in ALL} == set(SOLVERS)


# --- Calls and states


def expected_calls(solver: str, options: dict[str, Any], n: int) -> int:
    if solver in ("heun", "edm_stochastic"):
        return 2 * n - 1
    return options["order"] * (n - 1) + 1 if solver == "dpm_solver" else n


@every_solver
@pytest.mark.parametrize("n", [1, 2, 18])
def test_calls_are_counted(solver: str, options: dict[str, Any], n: int) -> None:
    watched, seen = Watched(), []
    for state in trajectory(watched, X, karras(n), solver=solver, noise=NOISE, **options):
        # At the time of each state, its own D included.
        assert state.nfe == watched.calls
        seen.append(state)
    assert watched.calls == expected_calls(solver, options, n)
    assert len(seen) == n + 1
    assert [state.sigma for state in seen] == karras(n).tolist()


@every_solver
def test_the_sample_is_the_last_state(solver: str, options: dict[str, Any]) -> None:
    last = run(solver, karras(7), **options)[-1]
    assert torch.equal(sample(D, X, karras(7), solver=solver, noise=NOISE, **options), last.x)
    assert torch.equal(last.x, last.denoised)
    assert last.sigma == 0


@every_ode_solver
@pytest.mark.parametrize("process", [None, VP(), FlowMatching()])
def test_denoised_belongs_to_its_state(solver: str, options: dict[str, Any], process: Process | None) -> None:
    scale = 1.0 if process is None else float(process.scale_at(80.0))
    states = run(solver, karras(9), scale * X, process=process, **options)
    assert relative(states[0].x, scale * X) < 1e-15
    for state in states[:-1]:
        scale = 1.0 if process is None else float(process.scale_at(state.sigma))
        assert relative(state.denoised, D(state.x / scale, state.sigma)) < (1e-15 if process is None else 1e-12)


@pytest.mark.parametrize(("solver", "options"), [both for both in STOCHASTIC if both[0] != "edm_stochastic"])
def test_denoised_belongs_to_its_state_with_noise(solver: str, options: dict[str, Any]) -> None:
    for state in run(solver, karras(9), **options)[:-1]:
        assert torch.equal(state.denoised, D(state.x, state.sigma))


def test_churned_states_are_those_before_the_churn() -> None:
    watched = Watched()
    states = run("edm_stochastic", karras(9), denoiser=watched, S_churn=3.0, S_min=0.1, S_max=70.0)
    for i, state in enumerate(states[:-1]):
        raised = state.sigma * (4 / 3 if 0.1 <= state.sigma <= 70 else 1)
        assert float(watched.sigmas[2 * i]) == pytest.approx(raised, rel=1e-14)
        churn = math.sqrt(max(raised**2 - state.sigma**2, 0)) * NOISE[i]
        assert relative(state.x + churn, watched.x[2 * i]) < 1e-14
        assert torch.equal(state.denoised, D(watched.x[2 * i], watched.sigmas[2 * i]))


@every_solver
def test_one_step_is_the_denoiser(solver: str, options: dict[str, Any]) -> None:
    if options.get("S_churn"):
        raised = 80 * 1.4
        expected = D(X + math.sqrt(raised**2 - 80**2) * NOISE[0], raised)
    else:
        expected = D(X, 80.0)
    result = run(solver, [80.0, 0.0], **options)[-1].x
    assert relative(result, expected) < 1e-14


@every_solver
def test_the_last_step_is_the_denoiser(solver: str, options: dict[str, Any]) -> None:
    *_, before, last = run(solver, karras(5), **options)
    assert relative(last.x, before.denoised) < 1e-15


def test_states_are_frozen() -> None:
    state = run("euler", karras(2))[0]
    with pytest.raises(dataclasses.FrozenInstanceError):
        state.sigma = 1.0  # pyright: ignore[reportAttributeAccessIssue]


def test_an_interrupted_trajectory_calls_no_further() -> None:
    for solver, calls in (("euler", 3), ("heun", 5), ("dpm_solver_pp", 3)):
        watched = Watched()
        states = trajectory(watched, X, karras(18), solver=solver)
        assert watched.calls == 0
        taken = list(itertools.islice(states, 3))
        assert watched.calls == calls == taken[-1].nfe


def test_callbacks_see_every_state_once(capsys: pytest.CaptureFixture[str]) -> None:
    for progress in (False, True):
        seen: list[State] = []
        result = sample(D, X, karras(6), callback=seen.append, progress=progress)
        assert [state.sigma for state in seen] == karras(6).tolist()
        assert torch.equal(seen[-1].x, result)
        assert ("sampling" in capsys.readouterr().err) == progress


@every_solver
def test_no_one_in_the_batch(solver: str, options: dict[str, Any]) -> None:
    states = run(solver, karras(4), X[:0], noise=lambda i: NOISE[i][:0], **options)
    assert [state.x.shape for state in states] == [(0, *EVENT)] * 5


@every_solver
def test_rows_do_not_see_each_other(solver: str, options: dict[str, Any]) -> None:
    together = run(solver, karras(6), **options)
    alone = run(solver, karras(6), X[2:3], noise=lambda i: NOISE[i][2:3], **options)
    for a, b in zip(together, alone, strict=True):
        assert relative(a.x[2:3], b.x) < 1e-13


# --- Known answers


ratios = st.lists(st.floats(1.001, 1000.0), min_size=0, max_size=6)


@every_ode_solver
@given(ratios=ratios, lowest=st.floats(1e-3, 1.0))
def test_one_point_is_exact_at_every_level(
    solver: str, options: dict[str, Any], ratios: list[float], lowest: float
) -> None:
    """The flow is a straight line, whatever the grid.

    A second stage divides the rounding of x by the level it is at: with steps of ratio r it grows by r².
    """
    levels = [*itertools.accumulate(ratios, lambda level, ratio: level * ratio, initial=lowest)][::-1]
    y = torch.linspace(-1, 1, 6, dtype=torch.float64).reshape(EVENT)
    x = y + levels[0] * X / 80
    states = run(solver, [*levels, 0.0], x, OnePoint(y), **options)
    rounding = 1e-14 * (10 + max(ratios, default=1.0) ** 2)
    for state in states:
        exact = y + state.sigma / levels[0] * (x - y)
        assert float((state.x - exact).abs().max()) <= rounding * (1 + state.sigma)


@given(
    exponent=st.floats(-4.0, 4.0),
    shift=st.floats(-10.0, 10.0),
    n=st.integers(1, 12),
)
def test_heun_scales_and_shifts_with_the_problem(exponent: float, shift: float, n: int) -> None:
    c, root = 10**exponent, torch.tensor([[1.0, 0.0, 0.2], [0.4, 0.6, 0.0], [-0.3, 0.2, 0.5]], dtype=torch.float64)
    mu, x = draws(3, seed=5), 80 * draws(4, 3, seed=6)
    once = sample(Gaussian(mu, root @ root.T), x, karras(n))
    scaled = sample(Gaussian(c * (mu + shift), c**2 * root @ root.T), c * (x + shift), c * karras(n))
    assert relative(scaled, c * (once + shift)) < 1e-10


@pytest.mark.parametrize("n", [1, 2, 5])
def test_an_exact_consistency_function_keeps_the_distribution(n: int) -> None:
    """f moves N(μ, C + σ²I) to N(μ, C), so that every state has the variance of its level."""
    mu, variance = torch.tensor([0.5, -1.0], dtype=torch.float64), torch.tensor([0.2, 2.0], dtype=torch.float64)
    gaussian = Gaussian(mu, variance)
    x = mu + (variance + 80**2).sqrt() * draws(20_000, 2, seed=8)
    generator = torch.Generator().manual_seed(9)
    states = trajectory(
        lambda x, sigma: gaussian.flow(x, sigma, 0.0), x, karras(n), solver="consistency", generator=generator
    )
    for state in states:
        expected = variance + state.sigma**2
        assert ((state.x.mean(0) - mu).abs() < 5 * (expected / 20_000).sqrt()).all()
        assert ((state.x.var(0) / expected - 1).abs() < 5 * math.sqrt(2 / 20_000)).all()


SCHEDULES = {
    "karras": karras(30),
    "log_linear": log_linear(30),
    "uniform_t": uniform_t(30),
    "cosine": cosine(30),
    "list": [80, 40, 20, 10, 5, 3, 2, 1.4, 1, 0.7, 0.5, 0.3, 0.2, 0.1, 0],
}


@every_solver
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_any_schedule_reaches_the_data(solver: str, options: dict[str, Any], schedule: str) -> None:
    """A Gaussian from its own noisy distribution: mean and spread come out roughly right with thirty steps.

    Least so where extrapolation of order 3, or with noise, or UniPC's bh1, meets steps that grow in log σ towards the
    end, as on an even clock.
    """
    mu, deviation = torch.tensor([1.0, -2.0], dtype=torch.float64), torch.tensor([0.5, 1.5], dtype=torch.float64)
    gaussian, sigmas = Gaussian(mu, deviation.square()), SCHEDULES[schedule]
    x = mu + torch.hypot(deviation, torch.as_tensor(sigmas[0], dtype=torch.float64)) * draws(4000, 2, seed=4)
    denoiser = (lambda x, sigma: gaussian.flow(x, sigma, 0.0)) if solver == "consistency" else gaussian
    generator = torch.Generator().manual_seed(1)
    states = list(trajectory(denoiser, x, sigmas, solver=solver, generator=generator, **options))
    assert all(bool(state.x.isfinite().all()) for state in states)
    result = states[-1].x
    assert ((result.mean(0) - mu).abs() < 0.3 * deviation).all(), result.mean(0)
    far = [("dpm_solver_pp", {"order": 3}), ("unipc", {"order": 3}), ("unipc", {"order": 2, "variant": "bh1"})]
    far += [("sde_dpm_solver_pp", {})]
    extrapolated = (solver, options) in far and schedule in ("uniform_t", "cosine")
    assert ((result.std(0) / deviation).log().abs() < (0.6 if extrapolated else 0.3)).all(), result.std(0) / deviation


@every_solver
def test_the_optimal_denoiser_leads_to_data(solver: str, options: dict[str, Any]) -> None:
    data = draws(12, *EVENT, seed=10)
    result = run(solver, karras(18), denoiser=OptimalDenoiser(data, method="dense"), **options)[-1].x
    nearest = torch.cdist(result.flatten(1), data.flatten(1)).amin(1)
    assert float(nearest.max()) < 1e-9


# --- Coordinates


PROCESSES = {
    "VE": VE(80.0),
    "VP": VP(),
    "GeometricVE": GeometricVE(0.01, 100.0),
    "CosineVP": CosineVP(),
    "EDM": EDM(),
    "FlowMatching": FlowMatching(),
    "LinearSDE": LinearSDE(lambda t: -1.0, lambda t: math.sqrt(2), t_max=5.0),
}


@pytest.mark.parametrize(("solver", "options"), [both for both in ALL if both[0] != "reverse_sde"])
@pytest.mark.parametrize("name", PROCESSES)
def test_a_process_only_rescales(solver: str, options: dict[str, Any], name: str) -> None:
    process = PROCESSES[name]
    plain = run(solver, karras(7), **options)
    scaled = run(solver, karras(7), float(process.scale_at(80.0)) * X, process=process, **options)
    for a, b in zip(scaled, plain, strict=True):
        assert relative(a.x / float(process.scale_at(a.sigma)), b.x) < 1e-10
        assert relative(a.denoised, b.denoised) < 1e-10
        assert a.nfe == b.nfe


@pytest.mark.parametrize("name", ["VP", "EDM", "FlowMatching"])
def test_reverse_sde_forgets_the_process_with_many_steps(name: str) -> None:
    """With the same noise in each step the processes differ by the discretisation, which is of first order.

    The data are a Gaussian: nothing decides between points, where small differences grow.
    """
    process, differences, x = PROCESSES[name], [], 80 * draws(40, *EVENT, seed=13)
    gaussian = Gaussian(draws(*EVENT, seed=14), 0.5)
    for n in (20, 80, 320):
        results = []
        for p in (VE(80.0), process):
            start = float(p.scale_at(80.0)) * x
            noise = {"noise": lambda i: draws(*x.shape, seed=i)}
            results.append(run("reverse_sde", log_linear(n, sigma_min=0.01), start, gaussian, process=p, **noise)[-1].x)
        differences.append(float((results[0] - results[1]).abs().mean()))
    assert differences[0] > 0.1
    assert differences[0] > 3 * differences[1] > 9 * differences[2]


def test_levels_beyond_the_process_are_refused() -> None:
    with pytest.raises(ValueError, match="sigma must lie between 0 and"):
        trajectory(D, X, karras(4), process=GeometricVE())


# --- Precision


def test_the_precision_of_the_start_is_that_of_the_calls() -> None:
    for dtype in (torch.float32, torch.float64):
        watched = Watched()
        states = run("heun", karras(6), X.to(dtype), watched)
        assert {x.dtype for x in watched.x} == {dtype}
        assert {tensor.dtype for state in states for tensor in (state.x, state.denoised)} == {dtype}


@every_ode_solver
def test_sums_are_float64(solver: str, options: dict[str, Any]) -> None:
    """With float32 calls the result is off by their rounding; sums in float32 only add to it."""
    x = 80 * draws(100, *EVENT, seed=12).float()
    exact = run(solver, karras(30), x.double(), **options)[-1].x
    errors = []
    for dtype in (torch.float64, torch.float32):
        result = run(solver, karras(30), x, dtype=dtype, **options)[-1].x
        assert result.dtype == torch.float32
        errors.append(float((result.double() - exact).square().mean().sqrt()))
    assert errors[0] < 1e-6
    assert errors[0] <= errors[1] < 1e-4


@every_solver
def test_sigma_is_a_scalar_tensor(solver: str, options: dict[str, Any]) -> None:
    watched = Watched()
    states = run(solver, karras(4), X.float(), watched, **options)
    assert all(isinstance(sigma, Tensor) and sigma.shape == () for sigma in watched.sigmas)
    if solver != "edm_stochastic":
        # In full precision, although x is float32.
        assert {state.sigma for state in states[:-1]} <= {float(sigma) for sigma in watched.sigmas}


@every_solver
def test_the_start_is_not_modified(solver: str, options: dict[str, Any]) -> None:
    x, noise = X.clone(), [draw.clone() for draw in NOISE[:6]]
    run(solver, karras(6), x, noise=noise, **options)
    assert torch.equal(x, X)
    assert all(torch.equal(a, b) for a, b in zip(noise, NOISE, strict=False))


@every_solver
def test_states_may_be_written_to(solver: str, options: dict[str, Any]) -> None:
    states = trajectory(D, X, karras(6), solver=solver, noise=NOISE, **options)
    for state, expected in zip(states, run(solver, karras(6), **options), strict=True):
        assert torch.equal(state.x, expected.x)
        state.x.zero_()


# --- Gradients


class Network(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.tensor(0.5, dtype=torch.float64))
        self.modes: list[bool] = []

    def forward(self, x: Tensor, sigma: float | Tensor) -> Tensor:
        self.modes.append(torch.is_grad_enabled())
        return self.weight * x / (1 + torch.as_tensor(sigma) ** 2)


@every_solver
@pytest.mark.parametrize("enabled", [True, False])
def test_no_gradients(solver: str, options: dict[str, Any], enabled: bool) -> None:
    network = Network()
    with torch.set_grad_enabled(enabled):
        x, noise = X.clone().requires_grad_(), [draw.clone().requires_grad_() for draw in NOISE[:5]]
        for state in trajectory(network, x, karras(5), solver=solver, noise=noise, **options):
            assert torch.is_grad_enabled() == enabled
            assert not state.x.requires_grad
            assert not state.denoised.requires_grad
            assert state.x.grad_fn is None
    assert not any(network.modes)
    assert x.requires_grad


# --- Noise


@every_stochastic_solver
def test_generators(solver: str, options: dict[str, Any]) -> None:
    def result(seed: int) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        return sample(D, X, karras(8), solver=solver, generator=generator, **options)

    before = torch.get_rng_state()
    first, again, other = result(0), result(0), result(1)
    assert torch.equal(first, again)
    assert relative(first, other) > 1e-3
    assert torch.equal(torch.get_rng_state(), before)


@every_ode_solver
def test_deterministic_solvers_draw_nothing(solver: str, options: dict[str, Any]) -> None:
    generator = torch.Generator().manual_seed(0)
    before, before_global = generator.get_state(), torch.get_rng_state()
    drawn = sample(D, X, karras(5), solver=solver, generator=generator, **options)
    assert torch.equal(generator.get_state(), before)
    assert torch.equal(torch.get_rng_state(), before_global)
    assert torch.equal(drawn, sample(D, X, karras(5), solver=solver, **options))


@every_stochastic_solver
def test_noise_may_be_pinned(solver: str, options: dict[str, Any]) -> None:
    pinned = run(solver, karras(8), **options)[-1].x
    assert torch.equal(run(solver, karras(8), noise=lambda i: NOISE[i], **options)[-1].x, pinned)
    assert torch.equal(run(solver, karras(8), noise=torch.stack(NOISE[:8]), **options)[-1].x, pinned)
    # In the precision of the state, and over a generator.
    single = run(solver, karras(8), noise=[z.float() for z in NOISE[:8]], **options)[-1].x
    assert single.dtype == torch.float64
    assert relative(single, pinned) < 1e-5
    generator = torch.Generator().manual_seed(0)
    assert torch.equal(run(solver, karras(8), generator=generator, **options)[-1].x, pinned)
    assert relative(run(solver, karras(8), noise=NOISE[1:], **options)[-1].x, pinned) > 1e-3


@pytest.mark.parametrize("start", [torch.float64, torch.float32])
@every_stochastic_solver
def test_generators_draw_a_float64_tensor_a_step(solver: str, options: dict[str, Any], start: torch.dtype) -> None:
    if "S_churn" in options:
        options = {**options, "S_min": 0.1, "S_max": 50.0}
    asked: list[int] = []

    def drawn(index: int) -> Tensor:
        asked.append(index)
        return torch.randn(X.shape, generator=generator, dtype=torch.float64)

    generator = torch.Generator().manual_seed(5)
    pinned = run(solver, karras(8), X.to(start), noise=drawn, **options)[-1].x
    generator = torch.Generator().manual_seed(5)
    assert torch.equal(run(solver, karras(8), X.to(start), noise=None, generator=generator, **options)[-1].x, pinned)
    # In steps that need it only: not in the last, nor where nothing is churned.
    levels = karras(8).tolist()
    churned = [i for i, level in enumerate(levels) if 0.1 <= level <= 50]
    assert asked == (churned if "S_churn" in options else list(range(7)))


@every_stochastic_solver
def test_noise_has_to_come_from_somewhere(solver: str, options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"draws noise: give generator=torch\.Generator\(\) or noise="):
        trajectory(D, X, karras(4), solver=solver, **options)
    with pytest.raises(ValueError, match="draws noise"):
        sample(D, X, karras(4), solver=solver, **options)


def test_one_step_draws_nothing() -> None:
    for solver in (Euler(eta=1.0), ReverseSDE(), Consistency()):
        assert torch.equal(sample(D, X, [80.0, 0.0], solver=solver), D(X, 80.0))


@every_stochastic_solver
def test_noise_that_does_not_fit(solver: str, options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"noise of step 0 must have the shape of x, \(5, 2, 3\), got \(2, 3\)"):
        run(solver, karras(4), noise=[z[0] for z in NOISE], **options)
    with pytest.raises(ValueError, match=r"noise of step 0 must have the shape of x, \(5, 2, 3\), got \(5, 2, 1\)"):
        run(solver, karras(4), noise=lambda i: NOISE[i][..., :1], **options)
    with pytest.raises(ValueError, match="step 2 draws noise, and noise= ends with that of step 1"):
        run(solver, karras(4), noise=NOISE[:2], **options)


# --- Options


@pytest.mark.parametrize(
    ("solver", "options", "kind"),
    [
        ("euler", {}, Euler()),
        ("euler", {"eta": 0.5}, Euler(eta=0.5)),
        ("heun", {}, Heun()),
        ("edm_stochastic", {"S_churn": 2.0, "S_noise": 1.003}, EDMStochastic(S_churn=2.0, S_noise=1.003)),
        ("dpm_solver", {}, DPMSolver(order=2)),
        ("dpm_solver", {"order": 3}, DPMSolver(order=3)),
        ("dpm_solver_pp", {}, DPMSolverPP(order=2)),
        ("dpm_solver_pp", {"order": 3, "variant": "reference"}, DPMSolverPP(order=3, variant="reference")),
        ("unipc", {}, UniPC(order=2)),
        ("unipc", {"order": 3, "variant": "bh1"}, UniPC(order=3, variant="bh1")),
        ("sde_dpm_solver_pp", {}, SDEDPMSolverPP(order=2, eta=1.0)),
        ("reverse_sde", {}, ReverseSDE()),
        ("consistency", {"sigma_min": 0.002}, Consistency(sigma_min=0.002)),
    ],
)
def test_solvers_may_be_objects(solver: str, options: dict[str, Any], kind: Solver) -> None:
    for a, b in zip(run(solver, karras(8), **options), run(kind, karras(8)), strict=True):
        assert torch.equal(a.x, b.x)


def test_no_churn_is_heun_and_no_eta_is_dpm_solver_1() -> None:
    def same(a: list[State], b: list[State]) -> bool:
        return all(relative(p.x, q.x) < 1e-13 for p, q in zip(a, b, strict=True))

    assert same(run("edm_stochastic", karras(8)), run("heun", karras(8)))
    assert same(run("edm_stochastic", karras(8), S_churn=3.0, S_min=90.0), run("heun", karras(8)))
    assert same(run("euler", karras(8)), run("dpm_solver", karras(8), order=1))
    assert not same(run("edm_stochastic", karras(8), S_churn=3.0), run("heun", karras(8)))
    assert same(run("sde_dpm_solver_pp", karras(8), eta=0.0), run("dpm_solver_pp", karras(8)))
    assert same(run("sde_dpm_solver_pp", karras(8), order=1), run("euler", karras(8), eta=1.0))
    # Twice the same levels, but reuse of earlier outputs makes a difference.
    assert not same(run("dpm_solver_pp", karras(8)), run("euler", karras(8)))


def test_a_solver_of_ones_own() -> None:
    class Twice(Solver):
        def __call__(self, step: Any) -> Tensor:
            return Euler()(step)

    assert torch.equal(run(Twice(), karras(5))[-1].x, run("euler", karras(5))[-1].x)


def refused(sentence: str, *args: Any, **options: Any) -> None:
    """At the call, before the first state, in one sentence."""
    watched = Watched()
    with pytest.raises(ValueError, match=sentence) as caught:
        trajectory(watched, *args, **options)
    assert watched.calls == 0
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 200
    assert not message.endswith(".")


@pytest.mark.parametrize(
    ("sigmas", "sentence"),
    [
        ([1.0, 2.0, 0.0], r"decrease at every step, got sigmas\[0\] = 1 and sigmas\[1\] = 2"),
        ([2.0, 1.0, 1.0, 0.0], r"decrease at every step, got sigmas\[1\] = 1 and sigmas\[2\] = 1"),
        ([1.0, 0.0, 0.0], "decrease at every step"),
        ([2.0, 1.0, 0.5], "last level of a grid must be 0, got 0.5"),
        ([1.0], r"shape \(n \+ 1,\) with n >= 1 steps, got \(1,\)"),
        ([0.0], r"shape \(n \+ 1,\) with n >= 1 steps, got \(1,\)"),
        ([], r"shape \(n \+ 1,\) with n >= 1 steps, got \(0,\)"),
        ([[2.0, 1.0, 0.0]], r"got \(1, 3\)"),
        ([math.nan, 1.0, 0.0], r"finite and not negative, got sigmas\[0\] = nan"),
        ([math.inf, 1.0, 0.0], r"finite and not negative, got sigmas\[0\] = inf"),
        ([1.0, -1.0], r"finite and not negative, got sigmas\[1\] = -1"),
        (["a", "b"], "list, array or tensor of numbers"),
        (None, "list, array or tensor of numbers, got NoneType"),
    ],
)
def test_bad_grids(sigmas: Sequence[Any], sentence: str) -> None:
    refused(sentence, X, sigmas)


@pytest.mark.parametrize(
    ("x", "shown"),
    [
        (torch.ones(2, 3, dtype=torch.int64), "the start x must be floating point, got torch.int64"),
        (torch.tensor(1.0), r"shape \(B, \*event\)"),
        ([[1.0]], "the start x must be a tensor, got list"),
        (X.numpy(), "the start x must be a tensor, got ndarray"),
    ],
)
def test_bad_starts(x: Any, shown: str) -> None:
    refused(shown, x, karras(3))


@pytest.mark.parametrize(
    ("solver", "options", "sentence"),
    [
        ("huen", {}, "unknown solver 'huen'; did you mean 'heun'\\? known are euler, heun"),
        ("dpm_solver++", {}, "did you mean 'dpm_solver_pp'|did you mean 'dpm_solver'"),
        ("zzz", {}, "unknown solver 'zzz'; known are euler"),
        (None, {}, "unknown solver None"),
        ("DDIM", {}, "unknown solver 'DDIM'; here it is \"euler\"; known are euler"),
        ("sample_dpmpp_2m", {}, 'here it is "dpm_solver_pp" with order=2; known'),
        ("DPM++ 2M SDE", {}, 'here it is "sde_dpm_solver_pp"; known'),
        (Euler, {}, "unknown solver"),
        ("euler", {"etta": 0.5}, "euler has no option 'etta'; it has eta"),
        ("heun", {"order": 2}, "heun has no option 'order'; it has none"),
        ("edm_stochastic", {"churn": 2}, "no option 'churn'; it has S_churn, S_min, S_max, S_noise"),
        ("dpm_solver_pp", {"memory": 2}, "no option 'memory'; it has order, variant, lower_order_final"),
        (Euler(), {"eta": 0.5}, "options eta go into the solver object"),
        ("euler", {"eta": 1.5}, r"eta must lie in \[0, 1\], got 1.5"),
        ("euler", {"eta": -0.1}, r"eta must lie in \[0, 1\], got -0.1"),
        ("euler", {"eta": math.nan}, r"eta must lie in \[0, 1\], got nan"),
        ("dpm_solver", {"order": 4}, "orders 1, 2 and 3, got 4"),
        ("dpm_solver", {"order": 0}, "orders 1, 2 and 3, got 0"),
        ("dpm_solver_pp", {"order": 1}, "orders 2 and 3, got 1"),
        ("dpm_solver_pp", {"order": 4}, "orders 2 and 3, got 4"),
        ("dpm_solver_pp", {"variant": "x"}, 'variant must be "exact" or "reference", got \'x\''),
        ("unipc", {"order": 4}, "unipc has orders 1, 2 and 3, got 4"),
        ("unipc", {"order": 2.0}, "order must be a whole number, got 2.0"),
        ("unipc", {"variant": "vary"}, 'variant must be "bh1" or "bh2", got \'vary\''),
        ("sde_dpm_solver_pp", {"order": 3}, "sde_dpm_solver_pp has orders 1 and 2, got 3"),
        ("sde_dpm_solver_pp", {"eta": -0.5}, "eta must be finite and not negative, got -0.5"),
        ("sde_dpm_solver_pp", {"eta": math.nan}, "eta must be finite and not negative, got nan"),
        ("edm_stochastic", {"S_churn": -1.0}, "S_churn must not be negative, got -1"),
        ("edm_stochastic", {"S_churn": math.nan}, "S_churn must not be negative, got nan"),
        ("edm_stochastic", {"S_churn": 7.5}, r"at most n\(√2 − 1\) = 7.45584 for n = 18 steps, got 7.5"),
        ("edm_stochastic", {"S_churn": math.inf}, r"at most n\(√2 − 1\) = 7.45584"),
        ("edm_stochastic", {"S_min": 2.0, "S_max": 1.0}, "0 <= S_min <= S_max, got 2 and 1"),
        ("edm_stochastic", {"S_min": -2.0}, "0 <= S_min <= S_max, got -2 and inf"),
        ("edm_stochastic", {"S_noise": -1.0}, "S_noise must be finite and not negative, got -1"),
        ("consistency", {"sigma_min": -1.0}, "sigma_min must be finite and not negative, got -1"),
        ("consistency", {"sigma_min": math.inf}, "sigma_min must be finite and not negative, got inf"),
        ("consistency", {"sigma_min": 0.01}, "levels from sigma_min = 0.01 on, got 0.002"),
    ],
)
def test_bad_options(solver: Any, options: dict[str, Any], sentence: str) -> None:
    generator = torch.Generator()
    refused(sentence, X, karras(18), solver=solver, generator=generator, **options)


def test_the_largest_churn_is_allowed() -> None:
    states = run("edm_stochastic", karras(18), S_churn=18 * (math.sqrt(2) - 1))
    assert states[-1].x.isfinite().all()
    assert states[-1].nfe == 35


@pytest.mark.parametrize("shape", [(), (1,), EVENT, (1, *EVENT), (5, 3, 2), (5, 6), (5, *EVENT, 1)])
def test_a_denoiser_of_another_shape(shape: tuple[int, ...]) -> None:
    """Also one that would broadcast."""
    states = trajectory(lambda x, sigma: torch.zeros(shape), X, karras(3))
    with pytest.raises(ValueError, match=r"a denoiser must return the shape of x, \(5, 2, 3\), got .* at sigma = 80"):
        next(states)


@every_ode_solver
def test_nothing_is_shared_with_the_caller(solver: str, options: dict[str, Any]) -> None:
    """A denoiser that writes into x, or answers in one buffer, and a caller who writes into a state change nothing."""
    sigmas = karras(6)
    expected = sample(D, X, sigmas, solver=solver, **options)
    buffer = torch.empty_like(X)

    def careless(x: Tensor, sigma: float | Tensor) -> Tensor:
        buffer.copy_(D(x, sigma))
        x.zero_()
        return buffer

    assert torch.equal(sample(careless, X, sigmas, solver=solver, **options), expected)
    state: State | None = None
    for state in trajectory(D, X, sigmas, solver=solver, **options):
        if state.sigma > 0:
            state.denoised.zero_()
            state.x.zero_()
    assert state is not None
    assert torch.equal(state.x, expected)


@pytest.mark.parametrize(("solver", "order"), [("dpm_solver", 2.0), ("dpm_solver", True), ("dpm_solver_pp", "3.0")])
def test_an_order_is_an_int(solver: str, order: Any) -> None:
    with pytest.raises(ValueError, match="order must be a whole number, got"):
        sample(D, X, karras(3), solver=solver, order=order)


def test_long_steps_do_not_cancel() -> None:
    """In float32, over σ from 80 to 0.002 in one step: exact on one point, to the precision of the answer."""
    y = torch.tensor([[0.3, -0.7]])
    exact = OnePoint(y[0])
    for solver in ("euler", "dpm_solver"):
        options = {"order": 1} if solver == "dpm_solver" else {}
        states = list(trajectory(exact, 80 + y, [80.0, 0.002, 0.0], solver=solver, dtype=torch.float32, **options))
        assert (states[1].x - exact.flow(80 + y, 80.0, 0.002)).abs().max() < 1e-6


# --- Gradients where asked


class Wide(torch.nn.Module):
    """A small network, smooth, of few outputs and many inner values."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(5)
        self.up = torch.nn.Parameter(0.3 * torch.randn(7, 300, generator=generator, dtype=torch.float64))
        self.down = torch.nn.Parameter(0.1 * torch.randn(300, 6, generator=generator, dtype=torch.float64))
        self.calls = 0

    def forward(self, x: Tensor, sigma: float | Tensor) -> Tensor:
        self.calls += 1
        sigma = torch.as_tensor(sigma, dtype=torch.float64)
        z = torch.cat([x.flatten(1) / (1 + sigma**2).sqrt(), (sigma.log() / 4).expand(len(x), 1)], 1)
        return ((z @ self.up).tanh() @ self.down).view(x.shape)


def plain(network: Wide, x: Tensor, levels: list[float], eta: float) -> Tensor:
    """Euler's method in one graph, written out; `NOISE` where η > 0."""
    for i, (sigma, after) in enumerate(itertools.pairwise(levels)):
        denoised = network(x, sigma)
        up = eta * after * math.sqrt(1 - (after / sigma) ** 2)
        x = denoised + math.sqrt(after**2 - up**2) * (x - denoised) / sigma + up * NOISE[i]
    return x


@pytest.mark.parametrize("eta", [0.0, 1.0])
def test_gradients_are_those_of_the_plain_graph(eta: float) -> None:
    network, x, probe = Wide(), X.clone().requires_grad_(), draws(5, *EVENT, seed=9)
    wanted = torch.autograd.grad((plain(network, x, karras(6).tolist(), eta) * probe).sum(), [x, *network.parameters()])
    ended = sample(network, x, karras(6), solver="euler", eta=eta, noise=NOISE, grad=True)
    found = torch.autograd.grad((ended * probe).sum(), [x, *network.parameters()])
    for a, b in zip(found, wanted, strict=True):
        assert relative(a, b) < 1e-12


@every_solver
def test_gradients_are_the_finite_differences(solver: str, options: dict[str, Any]) -> None:
    network, probe, way = Wide(), draws(5, *EVENT, seed=9), draws(5, *EVENT, seed=10)
    options = {**options, "noise": NOISE, "solver": solver}
    x = (0.1 * X).requires_grad_()
    levels = karras(5, sigma_max=8.0)

    def ended(moved: float, weight: float = 0.0) -> Tensor:
        with torch.no_grad():
            network.down += weight
            out = (sample(network, x + moved * way, levels, **options) * probe).sum()
            network.down -= weight
        return out

    last = sample(network, x, levels, grad=True, **options)
    of_x, of_down = torch.autograd.grad((last * probe).sum(), [x, network.down])
    assert torch.equal(last.detach(), sample(network, x, levels, **options))
    step = 1e-5
    torch.testing.assert_close((of_x * way).sum(), (ended(step) - ended(-step)) / (2 * step), rtol=2e-5, atol=1e-8)
    differed = (ended(0.0, step) - ended(0.0, -step)) / (2 * step)
    torch.testing.assert_close(of_down.sum(), differed, rtol=2e-5, atol=1e-8)


def test_gradients_are_recomputed_call_by_call() -> None:
    """What is kept of a call is as large as x, however wide the network; on the way back every call is made again."""
    kept: list[int] = []

    def counted(value: Tensor) -> Tensor:
        kept.append(value.numel())
        return value

    network, x = Wide(), X.clone().requires_grad_()
    with torch.autograd.graph.saved_tensors_hooks(counted, lambda value: value):
        last = sample(network, x, karras(8), grad=True)
    assert network.calls == 15
    assert max(kept, default=0) <= X.numel()
    last.sum().backward()
    assert network.calls == 30
    kept.clear()
    with torch.autograd.graph.saved_tensors_hooks(counted, lambda value: value):
        plain(network, x, karras(8).tolist(), 0.0)
    assert max(kept) >= 5 * 300


def test_gradients_of_the_optimum() -> None:
    optimum = OptimalDenoiser(draws(12, *EVENT, seed=10), method="dense")
    x, way = (X / 80).requires_grad_(), draws(5, *EVENT, seed=11)
    levels = [1.0, 0.7, 0.5, 0.0]
    (found,) = torch.autograd.grad(sample(optimum, x, levels, grad=True).sum(), x)
    ahead, behind = (sample(optimum, x + sign * 1e-5 * way, levels).sum() for sign in (1, -1))
    assert float((found * way).sum()) == pytest.approx(float(ahead - behind) / 2e-5, rel=1e-6)


def test_gradients_of_a_denoiser_that_has_none() -> None:
    with pytest.raises(ValueError, match="D must have gradients to x, the answer of function has none"):
        sample(lambda x, sigma: D(x, sigma).detach(), X.clone().requires_grad_(), karras(3), grad=True)
