"""The same trajectories as independent code: diffusers, torchdiffeq, and the papers' algorithms written out here.

Every state is compared, not only the end, with the same denoiser and the same noise. Some of the others compute in
float32 or take their own grid in float32; their tolerance is 1e-6 then, and 1e-12 where all is float64.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import (
    CMStochasticIterativeScheduler,
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    DPMSolverSinglestepScheduler,
    EDMDPMSolverMultistepScheduler,
    EDMEulerScheduler,
    HeunDiscreteScheduler,
    ScoreSdeVeScheduler,
    UniPCMultistepScheduler,
)
from diffusers.schedulers.deprecated.scheduling_sde_vp import ScoreSdeVpScheduler
from scipy.integrate import quad
from torch import Tensor
from torchdiffeq import odeint

from optimal import karras, trajectory
from optimal.process import VE, VP
from optimal.reference import GaussianMixture
from optimal.samplers import Step
from optimal.samplers.edm_stochastic import EDMStochastic
from optimal.samplers.euler import Euler

# NumPy 2 about torch's Tensor.__array__, from numpy.array(tensor) inside diffusers.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")

N = 18
SHAPE = (8, 3, 4, 4)
FLOAT64, FLOAT32 = 1e-12, 1e-6

_generator = torch.Generator().manual_seed(7)


def _normal(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=_generator, dtype=torch.float64)


D = GaussianMixture(0.4 * _normal(40, *SHAPE[1:]), 0.25)
Z = _normal(*SHAPE)
X = 80 * Z
NOISE = [_normal(*SHAPE) for _ in range(64)]


def deviation(ours: Sequence[Tensor], theirs: Sequence[Tensor]) -> float:
    """The largest |a − b| over all states, each in units of its largest value, or of 1 where that is smaller.

    inf if the numbers of states, or their shapes, differ.
    """
    if [a.shape for a in ours] != [b.shape for b in theirs]:
        return math.inf
    pairs = zip(ours, theirs, strict=True)
    scaled = [(a - b).abs().max() / b.abs().max().clamp_min(1) for a, b in pairs]
    return float(torch.stack(scaled).max())


def agree(ours: Sequence[Tensor], theirs: Sequence[Tensor], tolerance: float) -> bool:
    return deviation(ours, theirs) <= tolerance


def states(solver: Any, sigmas: Tensor | Sequence[float], x: Tensor = X, **options: Any) -> list[Tensor]:
    return [state.x for state in trajectory(D, x, sigmas, solver=solver, **options)]


def alpha(sigma: Tensor) -> Tensor:
    """The signal scale of a variance-preserving process."""
    return 1 / (1 + sigma**2).sqrt()


def preserving(sigmas: Tensor) -> dict[str, Any]:
    """x_t and not x_t/scale comes in and out: the start, and the process."""
    return {"x": alpha(sigmas[0]) * sigmas[0] * Z, "process": VP()}


def raw(x: Tensor, sigma: Tensor, sigma_data: float = 0.5) -> Tensor:
    """The output of the network in EDM's preconditioning whose denoiser is D."""
    c_skip = sigma_data**2 / (sigma**2 + sigma_data**2)
    return (D(x, sigma) - c_skip * x) * (sigma**2 + sigma_data**2).sqrt() / (sigma * sigma_data)


def pin(monkeypatch: pytest.MonkeyPatch, module: str) -> Callable[[int], None]:
    """What a diffusers module draws: `pinned(i)` is the noise of its next step."""
    index = 0

    def pinned(i: int) -> None:
        nonlocal index
        index = i

    monkeypatch.setattr(f"diffusers.schedulers.{module}.randn_tensor", lambda *_, **__: NOISE[index])
    return pinned


# --- diffusers


def heun_of_diffusers(sigmas: Tensor, x: Tensor = X) -> list[Tensor]:
    scheduler: Any = HeunDiscreteScheduler(prediction_type="sample")
    scheduler.set_timesteps(len(sigmas) - 1)
    scheduler.sigmas = torch.cat([sigmas[:1], sigmas[1:-1].repeat_interleave(2), sigmas[-1:]])
    scheduler.timesteps = torch.arange(len(scheduler.sigmas) - 1).double()
    scheduler.set_begin_index(0)
    visited = [x]
    for t in scheduler.timesteps:
        x = scheduler.step(D(x, scheduler.sigmas[scheduler.step_index or 0]), t, x).prev_sample
        if scheduler.state_in_first_order:
            visited.append(x)
    # The last step is of first order: it leaves the scheduler waiting for a second stage.
    return [*visited, x]


@pytest.mark.parametrize("n", [1, 2, N])
def test_heun(n: int) -> None:
    assert agree(states("heun", karras(n)), heun_of_diffusers(karras(n)), FLOAT64)


def edm_scheduler(kind: type, n: int, **options: Any) -> Any:
    scheduler = kind(sigma_min=0.002, sigma_max=80.0, sigma_data=0.5, rho=7.0, **options)
    scheduler.set_timesteps(n)
    return scheduler


@pytest.mark.parametrize("as_network", [False, True])
def test_euler(as_network: bool) -> None:
    """diffusers steps in float32, from its own grid."""
    scheduler = edm_scheduler(EDMEulerScheduler, N)
    x, theirs = X, [X]
    for t in scheduler.timesteps:
        scheduler.scale_model_input(x, t)
        sigma = scheduler.sigmas[scheduler.step_index].double()
        if as_network:
            x = scheduler.step(raw(x, sigma), t, x).prev_sample
        else:
            x = scheduler.step(torch.zeros_like(x), t, x, pred_original_sample=D(x, sigma)).prev_sample
        theirs.append(x)
    assert agree(states("euler", karras(N)), theirs, FLOAT32)


@pytest.mark.parametrize("own_grid", [False, True])
@pytest.mark.parametrize(
    ("n", "order", "lower_order_final"),
    [(N, 1, False), (N, 2, False), (N, 3, False), (10, 2, True), (10, 3, True), (10, 2, False), (10, 3, False)],
)
def test_edm_multistep(n: int, order: int, lower_order_final: bool, own_grid: bool) -> None:
    """On diffusers' own grid, which is float32, and on ours in float64."""
    scheduler = edm_scheduler(
        EDMDPMSolverMultistepScheduler,
        n,
        solver_order=order,
        solver_type="midpoint",
        lower_order_final=lower_order_final,
    )
    if not own_grid:
        scheduler.sigmas = karras(n)
    scheduler.set_begin_index(0)
    x, theirs = X, [X]
    for i, t in enumerate(scheduler.timesteps):
        x = scheduler.step(raw(x, scheduler.sigmas[i].double()), t, x).prev_sample
        theirs.append(x)
    options = {"order": order, "variant": "reference", "lower_order_final": lower_order_final}
    ours = states("euler", karras(n)) if order == 1 else states("dpm_solver_pp", karras(n), **options)
    # Recovering D from the network's output at sigma = 0.002 multiplies and divides by it.
    assert agree(ours, theirs, FLOAT32 if own_grid else FLOAT64)


def in_vp_coordinates(scheduler: Any, sigmas: Tensor, noise: Sequence[Tensor] = ()) -> list[Tensor]:
    """All states of a diffusers scheduler that predicts x0, on the levels given; with the noise of every step."""
    scheduler.set_timesteps(len(sigmas) - 1)
    scheduler.sigmas = sigmas
    scheduler.set_begin_index(0)
    x = alpha(sigmas[0]) * sigmas[0] * Z
    visited = [x]
    for i, (t, sigma) in enumerate(zip(scheduler.timesteps, sigmas[:-1], strict=True)):
        drawn = {"variance_noise": noise[i]} if noise else {}
        x = scheduler.step(D(x / alpha(sigma), sigma), t, x, **drawn).prev_sample
        visited.append(x)
    return visited


@pytest.mark.parametrize(
    ("n", "order", "lower_order_final"),
    [(N, 1, False), (N, 2, False), (N, 3, False), (N, 3, True), (10, 2, True), (10, 3, True), (10, 3, False)],
)
def test_multistep_in_vp_coordinates(n: int, order: int, lower_order_final: bool) -> None:
    """diffusers steps in float32, and lowers the order of the final steps only where n < 15."""
    scheduler: Any = DPMSolverMultistepScheduler(
        prediction_type="sample", solver_order=order, lower_order_final=lower_order_final
    )
    theirs = in_vp_coordinates(scheduler, karras(n))
    options = {"order": order, "variant": "reference", "lower_order_final": lower_order_final and n < 15}
    solver, options = ("euler", {}) if order == 1 else ("dpm_solver_pp", options)
    assert agree(states(solver, karras(n), **preserving(karras(n)), **options), theirs, FLOAT32)


@pytest.mark.parametrize("variant", ["bh1", "bh2"])
@pytest.mark.parametrize(("n", "order"), [(N, 1), (N, 2), (N, 3), (2, 3), (1, 2), (60, 3)])
def test_unipc(n: int, order: int, variant: str) -> None:
    """Every predictor, and so every corrector before it, but for the last step of bh1, in which diffusers has nan:
    B(η) is infinite at σ = 0, times nothing."""
    scheduler: Any = UniPCMultistepScheduler(prediction_type="sample", solver_order=order, solver_type=variant)
    theirs = in_vp_coordinates(scheduler, karras(n))
    options = {"order": order, "variant": variant, "lower_order_final": True}
    ours = states("unipc", karras(n), **preserving(karras(n)), **options)
    last = n if variant == "bh1" else n + 1
    assert len(ours) == len(theirs) == n + 1
    assert agree(ours[:last], theirs[:last], FLOAT64)
    assert bool(theirs[-1].isnan().any()) == (variant == "bh1")


@pytest.mark.parametrize("order", [2, 3])
def test_unipc_of_full_order_to_the_end(order: int) -> None:
    """Above 0: there, where log σ is infinite, diffusers has no answer."""
    scheduler: Any = UniPCMultistepScheduler(prediction_type="sample", solver_order=order, lower_order_final=False)
    theirs = in_vp_coordinates(scheduler, karras(N)[:-1])
    ours = states("unipc", karras(N), **preserving(karras(N)), order=order)
    assert agree(ours[:-1], theirs, FLOAT64)


@pytest.mark.parametrize(("n", "order"), [(N, 1), (N, 2), (2, 2), (60, 2)])
def test_sde_multistep(n: int, order: int) -> None:
    """The same noise in every step. diffusers steps in float32."""
    scheduler: Any = DPMSolverMultistepScheduler(
        prediction_type="sample", solver_order=order, algorithm_type="sde-dpmsolver++", lower_order_final=True
    )
    # With fewer than 15 steps only the last is lowered, for order 2, and that is the denoiser here.
    theirs = in_vp_coordinates(scheduler, karras(n), noise=NOISE)
    ours = states("sde_dpm_solver_pp", karras(n), **preserving(karras(n)), order=order, noise=NOISE)
    assert agree(ours, theirs, FLOAT32)


@pytest.mark.filterwarnings("ignore:.*algorithm_type `dpmsolver` is deprecated:FutureWarning")
@pytest.mark.parametrize("order", [1, 2])
def test_singlestep(order: int) -> None:
    """diffusers' inner levels are those of its grid: with the geometric means between ours, r1 = 1/2.

    Noise prediction takes no step to 0, where log σ is infinite: there D is what comes out.
    """
    levels = karras(N)[:-1]
    fine = levels
    if order == 2:
        middles = (levels[:-1] * levels[1:]).sqrt()
        fine = torch.cat([torch.stack([levels[:-1], middles], 1).flatten(), levels[-1:]])
    scheduler: Any = DPMSolverSinglestepScheduler(
        prediction_type="sample",
        solver_order=order,
        algorithm_type="dpmsolver",
        final_sigmas_type="sigma_min",
        lower_order_final=False,
    )
    theirs = in_vp_coordinates(scheduler, fine)[::order]
    theirs.append(D(theirs[-1] / alpha(levels[-1]), levels[-1]))
    assert agree(states("dpm_solver", karras(N), **preserving(karras(N)), order=order), theirs, FLOAT64)


@pytest.mark.parametrize("grid", ["ddpm", "edm"])
@pytest.mark.parametrize("eta", [0.0, 0.3, 1.0])
def test_ddim(eta: float, grid: str) -> None:
    """Every fiftieth step of DDPM's thousand, or the levels of EDM."""
    n, every = (20, 50) if grid == "ddpm" else (N, 1)
    scheduler: Any = DDIMScheduler(
        num_train_timesteps=n * every, clip_sample=False, prediction_type="sample", timestep_spacing="leading"
    )
    scheduler.set_timesteps(n)
    if grid == "ddpm":
        betas = 1e-4 + (0.02 - 1e-4) * torch.arange(1000, dtype=torch.float64) / 999
        scheduler.alphas_cumprod = (1 - betas).cumprod(0)
    else:
        scheduler.alphas_cumprod = alpha(karras(n)[:-1]).square().flip(0)
    scheduler.final_alpha_cumprod = torch.tensor(1.0, dtype=torch.float64)
    bars = scheduler.alphas_cumprod[scheduler.timesteps]
    sigmas = torch.cat([((1 - bars) / bars).sqrt(), torch.zeros(1, dtype=torch.float64)])
    start = preserving(sigmas)
    x = start["x"]
    theirs = [x]
    for i, (t, sigma) in enumerate(zip(scheduler.timesteps, sigmas[:-1], strict=True)):
        noise = NOISE[i] if eta > 0 else None
        x = scheduler.step(D(x / alpha(sigma), sigma), t, x, eta=eta, variance_noise=noise).prev_sample
        theirs.append(x)
    assert agree(states("euler", sigmas, **start, eta=eta, noise=NOISE), theirs, FLOAT64)


@pytest.mark.parametrize("own_grid", [False, True])
@pytest.mark.parametrize("stops", [(22,), (33, 22, 7), ()])
def test_consistency(stops: tuple[int, ...], own_grid: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """On diffusers' own levels, which are float32, and on ours. Any function will do as a consistency function."""
    scheduler: Any = CMStochasticIterativeScheduler(num_train_timesteps=40, clip_denoised=False)
    scheduler.set_timesteps(timesteps=[*stops, 0])
    levels = torch.stack([karras(40)[i] for i in sorted([0, *stops])])
    if not own_grid:
        scheduler.sigmas = torch.cat([levels, torch.tensor([0.002], dtype=torch.float64)])
    pinned = pin(monkeypatch, "scheduling_consistency_models")
    x, theirs = X, [X]
    for i, t in enumerate(scheduler.timesteps):
        pinned(i)
        scheduler.scale_model_input(x, t)
        sigma = scheduler.sigmas[i].double()
        c_skip, c_out = scheduler.get_scalings_for_boundary_condition(sigma)
        x = scheduler.step((D(x, sigma) - c_skip * x) / c_out, t, x).prev_sample
        theirs.append(x)
    ours = states("consistency", [*levels.tolist(), 0.0], sigma_min=0.002, noise=NOISE)
    assert agree(ours, theirs, 1e-5 if own_grid else FLOAT64)


def test_reverse_sde_of_ve(monkeypatch: pytest.MonkeyPatch) -> None:
    """On the clock of VE, σ², this is the reverse diffusion sampler of Song et al. The last step is without noise."""
    sigmas = karras(N)
    scheduler: Any = ScoreSdeVeScheduler()
    scheduler.set_timesteps(N)
    scheduler.discrete_sigmas = sigmas[:-1].flip(0)
    pinned = pin(monkeypatch, "scheduling_sde_ve")
    x, theirs = X, [X]
    for i, sigma in enumerate(sigmas[:-1]):
        pinned(i)
        score = (D(x, sigma) - x) / sigma**2
        # Its index is the integer part of t (N − 1).
        step = scheduler.step_pred(score, (N - 1 - i + 0.5) / (N - 1), x)
        x = step.prev_sample if i < N - 1 else step.prev_sample_mean
        theirs.append(x)
    assert agree(states("reverse_sde", sigmas, process=VE(80.0), noise=NOISE), theirs, FLOAT64)


@pytest.mark.parametrize("n", [N, 60])
def test_reverse_sde_of_vp(n: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """diffusers steps by 1/n, so levels are even in t. What it calls score is the noise, −std·score."""
    times = 1 - torch.arange(n, dtype=torch.float64) / n
    bars = torch.exp(-0.1 * times - 0.5 * 19.9 * times**2)
    sigmas = torch.cat([((1 - bars) / bars).sqrt(), torch.zeros(1, dtype=torch.float64)])
    scheduler: Any = ScoreSdeVpScheduler()
    scheduler.set_timesteps(n)
    pinned = pin(monkeypatch, "deprecated.scheduling_sde_vp")
    x = alpha(sigmas[0]) * sigmas[0] * Z
    theirs = [x]
    for i, (t, sigma) in enumerate(zip(times[:-1], sigmas, strict=False)):
        pinned(i)
        eps = (x - bars[i].sqrt() * D(x / bars[i].sqrt(), sigma)) / (1 - bars[i]).sqrt()
        x = scheduler.step_pred(eps, x, t)[0]
        theirs.append(x)
    # The first level may be above that of t = 1 by its last digit.
    ours = states("reverse_sde", sigmas.clamp_max(float(VP().sigma(1.0))), **preserving(sigmas), noise=NOISE)
    assert agree(ours, [*theirs, D(x / alpha(sigmas[-2]), sigmas[-2])], FLOAT64)


# --- torchdiffeq


@pytest.mark.parametrize(("solver", "method"), [("euler", "euler"), ("heun", "heun2")])
def test_torchdiffeq(solver: str, method: str) -> None:
    """A general integrator on dx/dσ = (x − D)/σ, down to the last level above 0."""
    theirs: Any = odeint(lambda sigma, x: (x - D(x, sigma)) / sigma, X, karras(N)[:-1], method=method)
    assert agree(states(solver, karras(N))[:-1], list(theirs), FLOAT64)


# --- The papers' algorithms, in their own letters


def edm_algorithm_2(
    sigmas: Tensor, S_churn: float, S_min: float, S_max: float, S_noise: float, *, second_order: bool = True
) -> tuple[list[Tensor], list[Tensor]]:
    """Karras et al. 2022, Algorithm 2: x_i, and D at the raised points."""
    t, steps = sigmas.tolist(), len(sigmas) - 1
    x, visited, outputs = X, [X], []
    for i in range(steps):
        gamma = min(S_churn / steps, math.sqrt(2) - 1) if S_min <= t[i] <= S_max else 0.0
        eps = S_noise * NOISE[i]
        t_hat = t[i] + gamma * t[i]
        x_hat = x + math.sqrt(t_hat**2 - t[i] ** 2) * eps
        outputs.append(D(x_hat, t_hat))
        d = (x_hat - outputs[-1]) / t_hat
        x = x_hat + (t[i + 1] - t_hat) * d
        if second_order and t[i + 1] != 0:
            d_prime = (x - D(x, t[i + 1])) / t[i + 1]
            x = x_hat + (t[i + 1] - t_hat) * (d / 2 + d_prime / 2)
        visited.append(x)
    return visited, outputs


CHURN: list[dict[str, Any]] = [
    {"S_churn": 5.0, "S_min": 0.05, "S_max": 50.0, "S_noise": 1.003},
    {"S_churn": 5.0, "S_min": 0.0, "S_max": math.inf, "S_noise": 1.0},
    # Both ends of the window are levels, and belong to it.
    {"S_churn": 2.0, "S_min": float(karras(N)[12]), "S_max": float(karras(N)[3]), "S_noise": 1.01},
    {"S_churn": N * (math.sqrt(2) - 1), "S_min": 0.05, "S_max": 50.0, "S_noise": 1.003},
]


@pytest.mark.parametrize("options", CHURN)
def test_edm_stochastic(options: dict[str, Any]) -> None:
    theirs, outputs = edm_algorithm_2(karras(N), **options)
    ours = list(trajectory(D, X, karras(N), solver="edm_stochastic", noise=NOISE, **options))
    assert agree([state.x for state in ours], theirs, FLOAT64)
    assert agree([state.denoised for state in ours[:-1]], outputs, FLOAT64)


class Churned(EDMStochastic):
    """The churn of `edm_stochastic` before Euler's steps."""

    def __call__(self, step: Step) -> Tensor:
        return Euler()(step)


@pytest.mark.parametrize("options", CHURN[:2])
def test_churn(options: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """diffusers draws only where γ > 0, and has no second order; its pipelines call the network before the churn.

    Where the denoiser is called is therefore taken from the transcription.
    """
    _, outputs = edm_algorithm_2(karras(N), **options, second_order=False)
    scheduler = edm_scheduler(EDMEulerScheduler, N)
    names = {"s_churn": "S_churn", "s_tmin": "S_min", "s_tmax": "S_max", "s_noise": "S_noise"}
    pinned = pin(monkeypatch, "scheduling_edm_euler")
    x, theirs = X, [X]
    for i, t in enumerate(scheduler.timesteps):
        pinned(i)
        scheduler.scale_model_input(x, t)
        churn = {name: options[option] for name, option in names.items()}
        x = scheduler.step(torch.zeros_like(x), t, x, pred_original_sample=outputs[i], **churn).prev_sample
        theirs.append(x)
    assert agree(states(Churned(**options), karras(N), noise=NOISE), theirs, FLOAT32)


class LinearVP:
    """Lu et al. 2022, Appendix D.4: α_t, σ_t and λ_t of linear VP, and t as a function of λ."""

    low, high = 0.1, 20.0

    def log_alpha(self, t: float) -> float:
        return -(self.high - self.low) / 4 * t**2 - self.low / 2 * t

    def alpha(self, t: float) -> float:
        return math.exp(self.log_alpha(t))

    def sigma(self, t: float) -> float:
        return math.sqrt(-math.expm1(2 * self.log_alpha(t)))

    def lamda(self, t: float) -> float:
        return math.log(self.alpha(t) / self.sigma(t))

    def time(self, lamda: float) -> float:
        slope, exponent = self.high - self.low, math.log1p(math.exp(-2 * lamda))
        return 2 * exponent / (math.sqrt(self.low**2 + 2 * slope * exponent) + self.low)

    def eps(self, x: Tensor, t: float) -> Tensor:
        return (x - self.alpha(t) * self.x0(x, t)) / self.sigma(t)

    def x0(self, x: Tensor, t: float) -> Tensor:
        return D(x / self.alpha(t), self.sigma(t) / self.alpha(t))

    def levels(self, times: Sequence[float]) -> Tensor:
        return torch.tensor([*(self.sigma(t) / self.alpha(t) for t in times), 0.0], dtype=torch.float64)


# Even in t down to 0.001, or in λ: the steps of DPM-Solver's experiments.
_vp = LinearVP()
_ends = (_vp.lamda(0.999), _vp.lamda(1e-3))
TIMES = {
    "even in t": [0.999 + (1e-3 - 0.999) * i / (N - 1) for i in range(N)],
    "even in λ": [_vp.time(_ends[0] + (_ends[1] - _ends[0]) * i / (N - 1)) for i in range(N)],
}


def dpm_solver(times: Sequence[float], x: Tensor, order: int) -> list[Tensor]:
    """Lu et al. 2022, Eq. 3.7 and Algorithms 1 (order 2) and 2 (order 3)."""
    vp, visited = LinearVP(), [x]
    for t0, t in itertools.pairwise(times):
        h = vp.lamda(t) - vp.lamda(t0)
        eps = vp.eps(x, t0)
        if order == 1:
            x = vp.alpha(t) / vp.alpha(t0) * x - vp.sigma(t) * (math.exp(h) - 1) * eps
        elif order == 2:
            s = vp.time((vp.lamda(t0) + vp.lamda(t)) / 2)
            u = vp.alpha(s) / vp.alpha(t0) * x - vp.sigma(s) * (math.exp(h / 2) - 1) * eps
            x = vp.alpha(t) / vp.alpha(t0) * x - vp.sigma(t) * (math.exp(h) - 1) * vp.eps(u, s)
        else:
            r1, r2 = 1 / 3, 2 / 3
            s1, s2 = vp.time(vp.lamda(t0) + r1 * h), vp.time(vp.lamda(t0) + r2 * h)
            u1 = vp.alpha(s1) / vp.alpha(t0) * x - vp.sigma(s1) * (math.exp(r1 * h) - 1) * eps
            d1 = vp.eps(u1, s1) - eps
            u2 = vp.alpha(s2) / vp.alpha(t0) * x - vp.sigma(s2) * (math.exp(r2 * h) - 1) * eps
            u2 = u2 - vp.sigma(s2) * r2 / r1 * ((math.exp(r2 * h) - 1) / (r2 * h) - 1) * d1
            d2 = vp.eps(u2, s2) - eps
            x = vp.alpha(t) / vp.alpha(t0) * x - vp.sigma(t) * (math.exp(h) - 1) * eps
            x = x - vp.sigma(t) / r2 * ((math.exp(h) - 1) / h - 1) * d2
        visited.append(x)
    return visited


@pytest.mark.parametrize("times", TIMES)
@pytest.mark.parametrize("order", [1, 2, 3])
def test_dpm_solver(order: int, times: str) -> None:
    sigmas = LinearVP().levels(TIMES[times])
    start = preserving(sigmas)
    theirs = dpm_solver(TIMES[times], start["x"], order)
    assert agree(states("dpm_solver", sigmas, **start, order=order)[:-1], theirs, FLOAT64)


def interpolated(lambdas: Sequence[float], values: Sequence[Tensor], start: float, end: float) -> Tensor:
    """∫ e^{λ − end} P(λ) dλ by quadrature, P the polynomial through the values, in Lagrange's form."""
    total = torch.zeros_like(values[0])
    for j, value in enumerate(values):
        others = [at for i, at in enumerate(lambdas) if i != j]

        def basis(lamda: float, others: Sequence[float] = others, j: int = j) -> float:
            return float(np.prod([(lamda - at) / (lambdas[j] - at) for at in others]))

        weight = quad(lambda u, f=basis: math.exp(u - end) * f(u), start, end, epsabs=1e-15, epsrel=1e-13)[0]
        total = total + weight * value
    return total


def dpm_solver_pp(times: Sequence[float], x: Tensor, order: int, variant: str) -> list[Tensor]:
    """Lu et al. 2022, DPM-Solver++, Algorithm 2; its third order by quadrature, or as their code has it."""
    vp, visited, values = LinearVP(), [x], []
    lambdas = [vp.lamda(t) for t in times]
    for i in range(len(times) - 1):
        s, t = times[i], times[i + 1]
        h = lambdas[i + 1] - lambdas[i]
        values.append(vp.x0(x, s))
        x = vp.sigma(t) / vp.sigma(s) * x
        if i == 0:
            x = x - vp.alpha(t) * (math.exp(-h) - 1) * values[0]
        elif i == 1 or order == 2:
            r = (lambdas[i] - lambdas[i - 1]) / h
            mixed = (1 + 1 / (2 * r)) * values[i] - 1 / (2 * r) * values[i - 1]
            x = x - vp.alpha(t) * (math.exp(-h) - 1) * mixed
        elif variant == "exact":
            recent = slice(i - 2, i + 1)
            x = x + vp.alpha(t) * interpolated(lambdas[recent], values[recent], lambdas[i], lambdas[i + 1])
        else:
            # multistep_dpm_solver_third_update of the authors' dpm_solver_pytorch.py.
            r0, r1 = (lambdas[i] - lambdas[i - 1]) / h, (lambdas[i - 1] - lambdas[i - 2]) / h
            D1_0, D1_1 = (values[i] - values[i - 1]) / r0, (values[i - 1] - values[i - 2]) / r1
            D1 = D1_0 + r0 / (r0 + r1) * (D1_0 - D1_1)
            D2 = 1 / (r0 + r1) * (D1_0 - D1_1)
            phi_1 = math.expm1(-h)
            phi_2 = phi_1 / h + 1
            phi_3 = phi_2 / h - 0.5
            x = x - vp.alpha(t) * phi_1 * values[i] + vp.alpha(t) * phi_2 * D1 - vp.alpha(t) * phi_3 * D2
        visited.append(x)
    return visited


@pytest.mark.parametrize("times", TIMES)
@pytest.mark.parametrize(("order", "variant"), [(2, "exact"), (3, "exact"), (3, "reference")])
def test_dpm_solver_pp(order: int, variant: str, times: str) -> None:
    sigmas = LinearVP().levels(TIMES[times])
    start = preserving(sigmas)
    theirs = dpm_solver_pp(TIMES[times], start["x"], order, variant)
    ours = states("dpm_solver_pp", sigmas, **start, order=order, variant=variant)
    assert agree(ours[:-1], theirs, FLOAT64)


def test_the_variants_of_the_third_order_differ() -> None:
    exact, reference = (states("dpm_solver_pp", karras(N), order=3, variant=v) for v in ("exact", "reference"))
    assert deviation(exact, reference) > 1e-3


# --- What the comparison above would not let pass


def without_final_zero() -> list[Tensor]:
    *others, last, _ = states("heun", karras(N))
    return [*others, last, last]


MUTANTS: dict[str, Callable[[], list[Tensor]]] = {
    "Euler for Heun": lambda: states("euler", karras(N)),
    "DPM-Solver++ for Heun": lambda: states("dpm_solver_pp", karras(N)),
    "rho 6.9 for 7": lambda: states("heun", karras(N, rho=6.9)),
    "one point more": lambda: states("heun", karras(N + 1)),
    "no final zero": without_final_zero,
    "latents of variance sigma_max² + 1": lambda: states("heun", karras(N), X * math.sqrt(80**2 + 1) / 80),
    "another image first": lambda: states("heun", karras(N), X.roll(1, 0)),
}


@pytest.mark.parametrize("mutant", MUTANTS)
def test_mutants_are_found(mutant: str) -> None:
    """By all states, and by the last one alone."""
    theirs, ours, other = heun_of_diffusers(karras(N)), states("heun", karras(N)), MUTANTS[mutant]()
    assert agree(ours, theirs, 1e-9)
    assert agree(ours[-1:], theirs[-1:], 1e-9)
    assert not agree(other, theirs, 1e-9)
    assert not agree(other[-1:], theirs[-1:], 1e-9)


def test_the_comparison_sees_order_and_nan() -> None:
    ours = states("euler", karras(4))
    assert agree(ours, ours, 0)
    assert not agree(ours[:-1], ours, 1e-9)
    assert not agree([ours[1], ours[0], *ours[2:]], ours, 1e-9)
    assert not agree([*ours[:-1], ours[-1] * math.nan], ours, 1e-9)
    assert not agree([*ours[:-1], ours[-1].flip(0)], ours, 1e-9)
