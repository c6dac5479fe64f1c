"""Networks of diffusers as their own schedulers ask them and understand them: x0_hat of `step`, not of a table here."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import diffusers
import pytest
import torch
from torch import Tensor, nn

from neural import from_unet
from neural.adapters import SCHEDULERS

CLASSES = 7


class Wavy(nn.Module):
    """A network that answers otherwise at every step and every x, and says where it was asked."""

    def __init__(self, rate: float = 3.0) -> None:
        super().__init__()
        self.weight, self.rate = nn.Parameter(torch.ones((), dtype=torch.float64)), rate
        self.levels: list[float] = []

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        t = torch.as_tensor(t, dtype=torch.float64).reshape(-1, 1, 1, 1)
        self.levels.append(float(t.flatten()[0]))
        return 0.6 * x + 0.3 * (self.rate * t).sin() + 0.2 * (x + self.rate * t).cos()


COUNTING = ("DDPM", "DDIM", "LCM", "PNDM")
"""Schedulers whose x_t has its table's scale, and no list of sigmas."""


@dataclass
class Seen:
    """One step of a scheduler: x over its signal scale, sigma, the level its network was asked at, its x0_hat."""

    x: Tensor
    sigma: float
    asked: float
    x0: Tensor


def seen(make: Callable[[], Any], net: Wavy, steps: int) -> Iterator[Seen]:
    """Each step alone, from a fresh scheduler: x0_hat is what it says itself, or follows from where it steps."""
    whole = make()
    whole.set_timesteps(steps)
    for index, t in enumerate(whole.timesteps):
        if type(whole).__name__ == "KDPM2DiscreteScheduler" and index % 2:
            continue  # The second half of a step, which nothing can begin with.
        scheduler = make()
        scheduler.set_timesteps(steps)
        if hasattr(scheduler, "set_begin_index"):
            scheduler.set_begin_index(index)
        generator = torch.Generator().manual_seed(index)
        x = 3 * torch.randn(2, 1, 4, 4, generator=generator, dtype=torch.float64)
        scaled = scheduler.scale_model_input(x, t) if hasattr(scheduler, "scale_model_input") else x
        with torch.no_grad():
            answer = net(scaled, t)
        converted: list[Tensor] = []
        if hasattr(scheduler, "convert_model_output"):
            scheduler.convert_model_output = kept_in(converted, scheduler.convert_model_output)
        drawn = {"generator": generator} if type(scheduler).__name__.startswith(("DDPM", "LCM")) else {}
        out = scheduler.step(answer, t, x, **drawn)
        found = understood(scheduler, index, t, x, out, converted)
        if found is not None:
            yield Seen(found[0], found[1], net.levels[-1], found[2])


def kept_in(converted: list[Tensor], convert: Callable[..., Tensor]) -> Callable[..., Tensor]:
    def keep(*arguments: Any, **named: Any) -> Tensor:
        converted.append(convert(*arguments, **named))
        return converted[-1]

    return keep


def understood(
    scheduler: Any, index: int, t: Tensor, x: Tensor, out: Any, converted: list[Tensor]
) -> tuple[Tensor, float, Tensor] | None:
    """x/scale, sigma and x0_hat; None where there is no signal, or no x0_hat to be read off."""
    name, told = type(scheduler).__name__, getattr(out, "denoised", getattr(out, "pred_original_sample", None))
    after = out.prev_sample
    if name.startswith(COUNTING):
        kept = scheduler.alphas_cumprod[int(t)].double()
        # PNDM says nothing; its only step goes to the end, which is x0.
        return (x / kept.sqrt(), float(((1 - kept) / kept).sqrt()), after if told is None else told) if kept else None
    level, following = (float(scheduler.sigmas[i]) for i in (index, index + 1))
    flow = scheduler.config.get("use_flow_sigmas")
    if converted:
        signal = 1.0 if name.startswith("EDM") else 1 - level if flow else (1 + level**2) ** -0.5
        if signal == 0:
            return None
        noise = level if flow or name.startswith("EDM") else level * signal
        x0 = (x - noise * converted[0]) / signal if name.startswith("DEIS") else converted[0]
        return x / signal, noise / signal, x0
    if name.startswith("FlowMatch"):
        inverted = scheduler.config.get("invert_sigmas")
        signal, way = (level, 1 - level) if inverted else (1 - level, -level)
        slope = (after - x) / (following - level)
        return (x / signal, (1 - signal) / signal, x + way * slope) if signal and following != level else None
    assert told is not None, name
    return x, level, told


def config(name: str, **options: Any) -> tuple[str, dict[str, Any]]:
    return name, options


TABLE = [
    config(name, prediction_type=kind, **options)
    for name, options in (
        ("DDPMScheduler", {"clip_sample": False}),
        ("DDPMScheduler", {}),
        ("DDPMScheduler", {"thresholding": True, "sample_max_value": 1.5}),
        ("DDPMParallelScheduler", {"clip_sample": False}),
        ("DDIMScheduler", {"clip_sample": False}),
        ("DDIMScheduler", {"clip_sample_range": 0.7}),
        ("DDIMScheduler", {"clip_sample": False, "timestep_spacing": "trailing", "steps_offset": 1}),
        ("DDIMScheduler", {"clip_sample": False, "rescale_betas_zero_snr": True}),
        ("DDIMParallelScheduler", {"clip_sample": False}),
        ("DPMSolverMultistepScheduler", {}),
        ("DPMSolverMultistepScheduler", {"thresholding": True}),
        ("DPMSolverMultistepScheduler", {"use_karras_sigmas": True, "beta_schedule": "scaled_linear"}),
        ("DPMSolverMultistepScheduler", {"rescale_betas_zero_snr": True}),
        ("DPMSolverSinglestepScheduler", {}),
        ("UniPCMultistepScheduler", {}),
        ("UniPCMultistepScheduler", {"rescale_betas_zero_snr": True}),
        ("DEISMultistepScheduler", {}),
        ("EulerDiscreteScheduler", {}),
        ("EulerDiscreteScheduler", {"timestep_spacing": "leading", "beta_schedule": "squaredcos_cap_v2"}),
        ("EulerDiscreteScheduler", {"use_karras_sigmas": True}),
        ("EulerDiscreteScheduler", {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}),
        ("EulerDiscreteScheduler", {"timestep_type": "continuous"}),
        ("EulerAncestralDiscreteScheduler", {}),
        ("HeunDiscreteScheduler", {}),
        ("HeunDiscreteScheduler", {"beta_schedule": "exp"}),
        ("HeunDiscreteScheduler", {"clip_sample": True}),
        ("LMSDiscreteScheduler", {}),
        ("KDPM2DiscreteScheduler", {}),
        ("KDPM2AncestralDiscreteScheduler", {}),
        ("LCMScheduler", {}),
        ("LCMScheduler", {"clip_sample": True}),
        ("LCMScheduler", {"timestep_scaling": 0.002}),
        ("LCMScheduler", {"timestep_scaling": 0.002, "clip_sample": True}),
    )
    for kind in ("epsilon", "sample", "v_prediction")
    if kind != "sample" or not name.startswith(("KDPM2", "EulerAncestral"))
] + [
    config("PNDMScheduler", prediction_type=kind, skip_prk_steps=True, set_alpha_to_one=True)
    for kind in ("epsilon", "v_prediction")
]
OTHERS = [
    config(name, prediction_type=kind, sigma_data=size)
    for name in ("EDMEulerScheduler", "EDMDPMSolverMultistepScheduler")
    for kind in ("epsilon", "v_prediction")
    for size in (0.5, 1.0)
] + [
    config("FlowMatchEulerDiscreteScheduler"),
    config("FlowMatchEulerDiscreteScheduler", shift=3.0),
    config("FlowMatchEulerDiscreteScheduler", invert_sigmas=True),
    config("FlowMatchEulerDiscreteScheduler", shift=2.0, num_train_timesteps=500),
    config("FlowMatchHeunDiscreteScheduler", shift=3.0),
    *(
        config(name, use_flow_sigmas=True, prediction_type="flow_prediction", flow_shift=shift)
        for name in ("DPMSolverMultistepScheduler", "DPMSolverSinglestepScheduler", "UniPCMultistepScheduler")
        for shift in (1.0, 3.0)
    ),
    config("DEISMultistepScheduler", use_flow_sigmas=True, prediction_type="flow_prediction"),
    config("DPMSolverMultistepScheduler", use_flow_sigmas=True, prediction_type="epsilon"),
]


@pytest.mark.parametrize(("name", "options"), TABLE + OTHERS, ids=str)
def test_x0_is_what_the_scheduler_makes_of_the_network(name: str, options: dict[str, Any]) -> None:
    def make() -> Any:
        return getattr(diffusers, name)(**options)

    # Some of them round the step at which they ask: to that the network is made blind, and the step is held apart.
    rounds = bool(options.get("use_flow_sigmas") or options.get("use_karras_sigmas"))
    net = Wavy(0.0003 if rounds else 3.0)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "__array", DeprecationWarning)
        trajectory = list(seen(make, net, 1 if name == "PNDMScheduler" else 9))
        F = from_unet(net, make())
    compared = 0
    for step in trajectory:
        if not F.sigma_min * (1 - 1e-6) <= step.sigma <= F.sigma_max * (1 + 1e-6):
            continue
        found = F(step.x.double(), step.sigma)
        beside = abs(net.levels[-1] - step.asked)
        assert beside < (1.001 if rounds else 1e-3), (step.sigma, net.levels[-1], step.asked)
        # What rounding to float32 leaves, and what the network makes of a level beside its own.
        wrong = float((found - step.x0).abs().max()) / max(1.0, step.sigma)
        assert wrong < 1e-5 + net.rate * beside, (step.sigma, wrong, beside)
        compared += 1
    assert compared >= (1 if name == "PNDMScheduler" else 5)


def test_every_scheduler_on_the_list_is_tested() -> None:
    assert {name for name, _ in TABLE + OTHERS} == set(SCHEDULERS)


@pytest.mark.parametrize(
    ("name", "options", "sentence"),
    [
        ("CMStochasticIterativeScheduler", {}, "CMStochasticIterativeScheduler is none of the schedulers"),
        ("IPNDMScheduler", {}, "IPNDMScheduler is none of the schedulers whose networks are understood: DDPM, "),
        ("ScoreSdeVeScheduler", {}, "ScoreSdeVeScheduler is none of"),
        (
            "DDIMScheduler",
            {"prediction_type": "flow_prediction"},
            "'flow_prediction' of DDIMScheduler is not understood",
        ),
        ("KDPM2DiscreteScheduler", {"prediction_type": "sample"}, "'sample' of KDPM2DiscreteScheduler is not"),
        (
            "UniPCMultistepScheduler",
            {"use_flow_sigmas": True, "prediction_type": "v_prediction"},
            "'v_prediction' of UniPCMultistepScheduler with use_flow_sigmas is not understood",
        ),
    ],
)
def test_what_is_not_on_the_list_is_refused_by_name(name: str, options: dict[str, Any], sentence: str) -> None:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "__array", DeprecationWarning)
        scheduler = getattr(diffusers, name)(**options)
    with pytest.raises(ValueError, match=sentence):
        from_unet(Wavy(), scheduler)


def test_schedulers_say_where_a_network_is_asked() -> None:
    """¼ ln σ with timestep_type="continuous" and in EDM; one DDPM's step is 735.6."""
    net, sigma = Wavy(), 15.6
    for name, options, level in (
        ("EulerDiscreteScheduler", {"timestep_type": "continuous", "prediction_type": "v_prediction"}, 0.6868),
        ("EDMEulerScheduler", {}, 0.6868),
        ("EulerDiscreteScheduler", {"prediction_type": "v_prediction"}, 735.6),
    ):
        from_unet(net, getattr(diffusers, name)(**options))(torch.zeros(1, 1, 4, 4), sigma)
        assert abs(net.levels[-1] / level - 1) < 1e-3, (name, net.levels[-1])


def test_ddim_lands_where_diffusers_does(normal: Callable[..., Tensor]) -> None:
    """Its default clips x0_hat to ±1: without, ours ended in [−166, 271] where theirs stays within."""
    from optimal import sample

    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 1, 4, 4, generator=generator, dtype=torch.float64)
    for options in ({}, {"clip_sample": False}):
        scheduler = diffusers.DDIMScheduler(timestep_spacing="leading", **options)
        net = Wavy(0.01)
        F = from_unet(net, scheduler)
        scheduler.set_timesteps(10)
        y = x
        for t in scheduler.timesteps:
            with torch.no_grad():
                y = scheduler.step(net(y, t), t, y, use_clipped_model_output=True).prev_sample
        kept = scheduler.alphas_cumprod[scheduler.timesteps].double()
        sigmas = torch.cat([((1 - kept) / kept).sqrt(), torch.zeros(1, dtype=torch.float64)])
        ends = sample(F, x / kept[0].sqrt(), sigmas, solver="euler")
        assert float(y.abs().max()) <= 1.0001 if not options else float(y.abs().max()) > 1.5
        torch.testing.assert_close(ends, y, rtol=1e-5, atol=1e-5)
