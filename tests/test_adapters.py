"""Adapters, each on a network that is the optimum of a small data set, spoken in its convention."""

from __future__ import annotations

import math
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from neural import agreement, compare, from_ddpm, from_edm, from_flow, from_prediction, from_unet
from optimal import FlowMap, OptimalDenoiser, karras
from optimal.process import EDM, VE, VP, CosineVP, FlowMatching, Process

Network = Callable[[Tensor, Tensor], Tensor]
DATA = torch.linspace(-1, 1, 24, dtype=torch.float64).view(6, 1, 2, 2).sin() * torch.tensor([1.0, -0.5]).double()
D = OptimalDenoiser(DATA)
KEPT = torch.cumprod(1 - torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64), 0)
LEVELS = (0.02, 0.5, 3.0, 60.0)


def wide(value: Tensor, x: Tensor) -> Tensor:
    return value.view(-1, *[1] * (x.ndim - 1))


def paired(x_t: Tensor, signal: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
    """E[x0 | x_t] and E[eps | x_t] where x_t = signal x0 + noise eps."""
    x0 = D(x_t / wide(signal, x_t), noise / signal)
    return x0, (x_t - wide(signal, x_t) * x0) / wide(noise, x_t)


def spoken(kind: str, signal: Tensor, noise: Tensor, x_t: Tensor) -> Tensor:
    """What the papers have a network predict; signal² + noise² = 1 for v."""
    x0, eps = paired(x_t, signal, noise)
    return {
        "x0": x0,
        "eps": eps,
        "v": wide(signal, x_t) * eps - wide(noise, x_t) * x0,
        "score": -eps / wide(noise, x_t),
    }[kind]


def on_process(kind: str, process: Process, time_scale: float) -> Network:
    def net(x_t: Tensor, t: Tensor) -> Tensor:
        return spoken(kind, process.scale(t / time_scale), process.std(t / time_scale), x_t)

    return net


def on_table(kind: str) -> Network:
    """Between whole steps, ln σ is linear."""
    logs = ((1 - KEPT) / KEPT).log() / 2

    def net(x_t: Tensor, step: Tensor) -> Tensor:
        assert step.shape == (len(x_t),)
        low = step.double().floor().long().clamp_max(998)
        sigma = (logs[low] + (step - low) * (logs[low + 1] - logs[low])).exp()
        signal = (1 + sigma**2).rsqrt()
        return spoken(kind, signal, sigma * signal, x_t)

    return net


def flow(data_at: int, time_scale: float) -> Network:
    def net(x_t: Tensor, t: Tensor) -> Tensor:
        t = t / time_scale if data_at == 0 else 1 - t / time_scale
        x0, eps = paired(x_t, 1 - t, t)
        return eps - x0 if data_at == 0 else x0 - eps

    return net


def velocity(x: Tensor, t: Tensor) -> Tensor:
    return (x - D(x, t)) / wide(t, x)


def ve_score(x: Tensor, sigma: Tensor) -> Tensor:
    return (D(x, sigma) - x) / wide(sigma, x) ** 2


ADAPTED: dict[str, Callable[[Tensor, Any], Tensor]] = {
    f"{kind} on {type(process).__name__}": from_prediction(on_process(kind, process, 1.0), kind, process=process)
    for process in (VP(), CosineVP())
    for kind in ("x0", "eps", "v", "score")
} | {
    "eps, steps counted": from_prediction(on_process("eps", VP(), 999.0), "eps", process=VP(), time_scale=999.0),
    "score given sigma": from_prediction(ve_score, "score", process=EDM(math.inf)),
    "score on VE": from_prediction(lambda x, t: ve_score(x, VE().sigma(t)), "score", process=VE()),
    "velocity": from_prediction(velocity, "velocity", process=EDM(math.inf)),
    "flow": from_flow(flow(0, 1.0)),
    "flow, data last": from_flow(flow(1, 1000.0), data_at=1, time_scale=1000.0),
    "edm": from_edm(D),
    "edm, broadcast": from_edm(lambda x, sigma: x + 0 * sigma - (x - D(x, sigma.flatten())), broadcast_sigma=True),
}
TABLES = {f"{kind} on a table": from_ddpm(on_table(kind), KEPT, kind) for kind in ("x0", "eps", "v", "score")}


def relative(found: Tensor, x: Tensor, sigma: float | Tensor) -> float:
    return float((found - D(x, sigma)).abs().max() / DATA.abs().max())


@pytest.mark.parametrize("name", ADAPTED | TABLES)
def test_the_answer_is_the_optimum(name: str, normal: Callable[..., Tensor]) -> None:
    F = (ADAPTED | TABLES)[name]
    x0, eps = DATA, normal(*DATA.shape)
    for sigma in LEVELS:
        if name in TABLES and sigma > 20:
            continue
        x = x0 + sigma * eps
        for level in (sigma, torch.tensor(sigma), torch.full((6,), sigma, dtype=torch.float64)):
            out = F(x, level)
            assert out.dtype == x.dtype
            assert relative(out, x, level) < 1e-5
        assert relative(F(x.flip(0), sigma), x, sigma) > 1e-3 or sigma > 10
    mixed = torch.tensor([0.02, 0.1, 0.5, 1.0, 3.0, 9.0], dtype=torch.float64)
    x = x0 + wide(mixed, x0) * eps
    assert relative(F(x, mixed), x, mixed) < 1e-5


def test_a_network_said_to_predict_something_else_is_far_off(normal: Callable[..., Tensor]) -> None:
    x = DATA + normal(*DATA.shape)
    wrong = from_prediction(on_process("v", VP(), 1.0), "eps", process=VP())
    assert relative(wrong(x, 1.0), x, 1.0) > 0.1
    assert relative(from_flow(flow(0, 1.0), data_at=1)(x, 2.0), x, 2.0) > 0.1


class Recorder(nn.Module):
    """The optimum as a module in float32 that remembers how it was asked."""

    def __init__(self) -> None:
        super().__init__()
        self.weight, self.drop, self.seen = nn.Parameter(torch.ones(())), nn.Dropout(0.5), {}

    def forward(self, x: Tensor, sigma: Tensor, class_labels: Tensor | None = None) -> Tensor:
        self.seen = {"x": x, "sigma": sigma, "labels": class_labels, "training": self.training or self.drop.training}
        return self.weight * self.drop(D(x, sigma.float()))


def test_evaluated_without_gradients_in_its_own_precision() -> None:
    net = Recorder()
    net.drop.eval()
    x = DATA.clone().requires_grad_()
    out = from_edm(net, labels=torch.tensor([0.0, 1.0, 0.0]))(x, 1.0)
    assert not out.requires_grad
    assert out.dtype == torch.float64
    assert net.seen["x"].dtype == net.seen["sigma"].dtype == torch.float32
    assert net.seen["labels"].tolist() == [[0.0, 1.0, 0.0]] * 6
    assert not net.seen["training"]
    assert net.training
    assert not net.drop.training
    assert relative(out, DATA, 1.0) < 1e-5
    from_edm(net, labels=torch.tensor(3))(DATA, 1.0)
    assert net.seen["labels"].tolist() == [3] * 6


def test_whole_steps_are_asked_at_whole_steps() -> None:
    asked: list[Tensor] = []

    def net(x_t: Tensor, step: Tensor) -> Tensor:
        asked.append(step)
        return on_table("eps")(x_t, step)

    F = from_ddpm(net, KEPT, "eps", whole_steps=True)
    sigma = float(((1 - KEPT[500]) / KEPT[500]).sqrt())
    assert relative(F(DATA, sigma), DATA, sigma) < 1e-5
    F(DATA, sigma * 1.001)
    assert asked[0].tolist() == asked[1].tolist() == [500] * 6
    assert asked[0].dtype == torch.int64


class Answer(nn.Module):
    """A diffusers network: the answer in an output, weights in float64."""

    def __init__(self, network: Network):
        super().__init__()
        self.weight, self.network = nn.Parameter(torch.ones((), dtype=torch.float64)), network

    def forward(self, x: Tensor, step: Tensor) -> SimpleNamespace:
        return SimpleNamespace(sample=self.network(x, step))


@pytest.mark.parametrize(
    "name", ["DDPMScheduler", "DDIMScheduler", "EulerDiscreteScheduler", "DPMSolverMultistepScheduler"]
)
@pytest.mark.parametrize(("theirs", "kind"), [("epsilon", "eps"), ("v_prediction", "v"), ("sample", "x0")])
def test_diffusers_schedulers(name: str, theirs: str, kind: str, normal: Callable[..., Tensor]) -> None:
    import diffusers

    scheduler = getattr(diffusers, name)(prediction_type=theirs)
    F = from_unet(Answer(on_table(kind)), scheduler)
    for sigma in (0.02, 0.5, 3.0, 100.0):
        x = DATA + sigma * normal(*DATA.shape)
        # Their table is in float32.
        assert relative(F(x, sigma), x, sigma) < 1e-5 * max(1, sigma)


def test_diffusers_flow() -> None:
    from diffusers import FlowMatchEulerDiscreteScheduler

    F = from_unet(Answer(flow(0, 1000.0)), FlowMatchEulerDiscreteScheduler(shift=3.0))
    assert relative(F(DATA, 0.7), DATA, 0.7) < 1e-5


def test_a_table_without_signal_at_the_end() -> None:
    F = from_ddpm(on_table("eps"), torch.cat([KEPT, torch.zeros(1, dtype=torch.float64)]), "eps")
    assert relative(F(DATA, 2.0), DATA, 2.0) < 1e-5
    assert abs(F.sigma_max - float(((1 - KEPT[-1]) / KEPT[-1]).sqrt())) < 1e-9


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: from_prediction(D, "epsilon"), "kind must be one of"),
        (lambda: from_ddpm(D, KEPT, "epsilon"), "kind must be one of"),
        (lambda: from_ddpm(D, KEPT.flip(0)), "alphas_cumprod must decrease"),
        (lambda: from_ddpm(D, KEPT)(DATA, 500.0), "sigma must lie between 0.0100005 and"),
        (lambda: from_flow(D, data_at=2), "data_at must be 0 or 1, got 2"),
        (lambda: from_edm("net"), "a network is a function"),
        (lambda: from_edm(D)(DATA, 0.0), "sigma must be positive and finite, got 0"),
        (lambda: from_edm(D)(DATA, torch.ones(1, 6)), "sigma must have shape"),
        (lambda: from_edm(lambda x, sigma: x[:, 0])(DATA, 1.0), "must return the shape of x"),
    ],
)
def test_what_is_wrong_is_said(call: Callable[[], object], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        call()


def test_three_lines_to_the_comparison() -> None:
    F = from_prediction(on_process("eps", VP(), 1.0), "eps", process=VP())
    assert float(agreement(F, D, [0.1, 1.0, 5.0], draws=64).gap.max()) < 1e-8
    noises = 80 * torch.randn(16, 1, 2, 2, generator=torch.Generator().manual_seed(0)).double()
    row = compare({"mine": (F, {"sigmas": karras(18)})}, D, noises, reference=FlowMap(D)(noises, 80.0))[0]
    assert row["same"] == 1.0
    assert row["nfe"] == 35


@pytest.mark.parametrize("process", [VP(), CosineVP(), EDM(math.inf), FlowMatching()], ids=lambda p: type(p).__name__)
def test_the_velocity_of_any_process(process: Process) -> None:
    """x0 ~ N(0.5, 0.8²): dx_t/dt = scale' x + scale sigma' eps with the posterior mean of eps."""

    def network(x_t: Tensor, t: Tensor) -> Tensor:
        t = t.double()
        scale, sigma = (part.view(-1, 1) for part in (process.scale(t), process.sigma(t)))
        x = x_t.double() / scale
        eps = sigma * (x - 0.5) / (0.64 + sigma.square())
        return process.scale_dot(t).view(-1, 1) * x + scale * process.sigma_dot(t).view(-1, 1) * eps

    F = from_prediction(network, "dx_dt", process=process)
    x, sigma = torch.linspace(-3, 3, 12).double().view(4, 3), torch.tensor([0.05, 0.5, 2.0, 20.0]).double()
    expected = 0.5 + 0.64 / (0.64 + sigma.square())[:, None] * (x - 0.5)
    torch.testing.assert_close(F(x, sigma), expected, rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("kind", ["velocity", "flow"])
def test_a_velocity_of_another_process_is_not_guessed(kind: str) -> None:
    with pytest.raises(ValueError, match='the velocity dx_t/dt of VP is kind="dx_dt"'):
        from_prediction(lambda x_t, t: x_t, kind, process=VP())


@pytest.mark.parametrize("adapt", ["prediction", "ddpm", "flow", "edm"])
def test_a_half_precision_x_does_not_move_the_noise_level(adapt: str) -> None:
    """The same answers as for the same x in float32, up to the rounding of the answer: 0.18 off before, at sigma 50."""
    make: dict[str, Callable[..., Any]] = {
        "prediction": lambda net: from_prediction(net, "eps", process=VP()),
        "ddpm": lambda net: from_ddpm(net, KEPT, "eps"),
        "flow": from_flow,
        "edm": from_edm,
    }
    F = make[adapt](lambda x, level: x * level.view(-1, 1).sin() + level.view(-1, 1).cos())
    x = torch.linspace(-3, 3, 10).view(2, 5)
    for dtype, tolerance in ((torch.float16, 1e-3), (torch.bfloat16, 8e-3)):
        for sigma in (0.3, 5.0, 50.0):
            half = x.to(dtype)
            expected = F(half.float(), sigma)
            assert ((F(half, sigma).float() - expected).norm() <= tolerance * expected.norm()).all()


def test_a_noise_level_beside_the_width_is_noticed() -> None:
    """A network that multiplies x by its noise level: (B,) goes along the width where that is B, without an error."""
    x, sigma = torch.randn(6, 1, 6, 6, generator=torch.Generator().manual_seed(0)), torch.linspace(0.5, 5, 6)

    def naive(x: Tensor, level: Tensor) -> Tensor:
        return x / (1 + level**2)

    for F in (
        from_edm(naive),
        from_prediction(naive, "x0", process=EDM(math.inf)),
        from_flow(naive),
        from_ddpm(naive, KEPT),
    ):
        with pytest.raises(ValueError, match="answers the first of 6 rows otherwise than alone"):
            F(x, sigma)
    expected = x / (1 + sigma.view(-1, 1, 1, 1) ** 2)
    for F in (
        from_edm(naive, broadcast_sigma=True),
        from_prediction(naive, "x0", process=EDM(math.inf), broadcast_time=True),
        from_edm(lambda x, level: naive(x, level.view(-1, 1, 1, 1))),
    ):
        torch.testing.assert_close(F(x, sigma), expected)
