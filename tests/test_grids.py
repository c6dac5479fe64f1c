"""A pipeline's own grid: the levels at which diffusers' scheduler takes its steps, for its network and the optimum."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from problems import small_unet
from torch import Tensor

from neural import from_unet, open_model
from neural.adapters import SCHEDULERS
from neural.adapters.quietly import quiet
from neural.answers import drawing
from neural.measuring import samplers
from optimal import OptimalDenoiser, karras, load, sample

KINDS: list[tuple[str, dict[str, Any]]] = [
    *((name, {}) for name in SCHEDULERS),
    *(
        (name, {"timestep_spacing": spacing})
        for name in (
            "DDPMScheduler",
            "DDIMScheduler",
            "PNDMScheduler",
            "EulerDiscreteScheduler",
            "UniPCMultistepScheduler",
        )
        for spacing in ("leading", "trailing", "linspace")
        if (name, spacing) != ("PNDMScheduler", "linspace")
    ),
    ("DDIMScheduler", {"steps_offset": 1, "set_alpha_to_one": False}),
    ("DDIMScheduler", {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}),
    ("EulerDiscreteScheduler", {"use_karras_sigmas": True}),
    ("EulerDiscreteScheduler", {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}),
    ("DPMSolverMultistepScheduler", {"use_karras_sigmas": True, "final_sigmas_type": "sigma_min"}),
    ("EDMEulerScheduler", {"sigma_schedule": "exponential", "sigma_max": 50.0}),
    ("FlowMatchEulerDiscreteScheduler", {"shift": 3.0}),
    ("FlowMatchEulerDiscreteScheduler", {"invert_sigmas": True}),
    ("FlowMatchHeunDiscreteScheduler", {"shift": 2.0}),
    ("UniPCMultistepScheduler", {"use_flow_sigmas": True, "prediction_type": "flow_prediction", "flow_shift": 3.0}),
]


def made(name: str, options: dict[str, Any]) -> Any:
    with quiet():
        return getattr(diffusers, name)(**options)


def where_it_asks(scheduler: Any, steps: int) -> list[float]:
    """Noise over signal of every x that its own loop asks a network for, step by step, in the order of the loop.

    By what each step does to a point of the data and its noise: none of the lists of levels is read.
    """
    with quiet():
        scheduler.set_timesteps(steps)
    levels = []
    name, config = type(scheduler).__name__, scheduler.config
    for place, t in enumerate(scheduler.timesteps):
        if hasattr(scheduler, "set_begin_index"):
            scheduler.set_begin_index(place)
        start, noise = torch.ones(1, 1, 1, 1, dtype=torch.float64), torch.ones(1, 1, 1, 1, dtype=torch.float64)
        if name.startswith("FlowMatch"):
            s = float(scheduler.sigmas[place])
            s = 1 - s if config.get("invert_sigmas") else s
            levels.append(s / (1 - s) if s < 1 else torch.inf)
            continue
        times = torch.as_tensor(t).reshape(1)
        zero = torch.zeros_like(start)
        signal = float(scheduler.add_noise(start, zero, times))
        both = float(scheduler.add_noise(zero, noise, times))
        levels.append(both / signal if signal > 0 else torch.inf)
    return levels


@pytest.mark.parametrize("steps", [4, 10])
@pytest.mark.parametrize(("name", "options"), KINDS, ids=str)
def test_levels_are_those_at_which_its_own_loop_asks(name: str, options: dict[str, Any], steps: int) -> None:
    network = from_unet(lambda x, t: x, made(name, options))
    assert network.grid is not None
    found = network.grid(steps)
    assert found.dtype == torch.float64
    assert len(found) == steps + 1
    assert float(found[-1]) == 0
    assert bool((found.diff() < 0).all())
    asked = torch.tensor(where_it_asks(made(name, options), steps), dtype=torch.float64)
    if name in ("PNDMScheduler", "KDPM2DiscreteScheduler", "KDPM2AncestralDiscreteScheduler"):
        # Between its steps it asks at further levels: each of ours is among them.
        distance = (asked[:, None] / found[None, :-1].clamp(max=network.sigma_max) - 1).abs().amin(0)
        assert float(distance.max()) < 1e-3
        return
    asked = asked.clamp(max=min(network.sigma_max, 1e4)).unique_consecutive()
    torch.testing.assert_close(found[:-1], asked, rtol=2e-5, atol=0)


def pipeline(folder: Path, scheduler: Any) -> str:
    small_unet().save_pretrained(folder / "unet")
    scheduler.save_pretrained(folder / "scheduler")
    return f"diffusers:{folder}"


def test_a_pipeline_is_sampled_on_its_own_grid_unless_told(tmp_path: Path) -> None:
    scheduler = made("DDIMScheduler", {"timestep_spacing": "trailing"})
    model = open_model(pipeline(tmp_path, scheduler), device="cpu")
    own = from_unet(small_unet(), scheduler).grid
    assert own is not None
    for steps in (None, 4):
        assert torch.equal(model.sampling(steps)["sigmas"], own(steps or 18))
    given: dict[str, Any] = {"options": {}, "seed": 0}
    meant = drawing(model, 2, 4, None, sigma_min=None, sigma_max=None, **given)
    told = drawing(model, 2, 4, "euler", sigma_min=None, sigma_max=None, **given)
    other = drawing(model, 2, 4, None, sigma_min=None, sigma_max=50.0, **given)
    assert torch.equal(meant.arguments["sigmas"], own(4))
    assert torch.equal(told.arguments["sigmas"], own(4))
    assert told.arguments["solver"] == "euler"
    assert torch.equal(other.arguments["sigmas"], karras(4, sigma_min=model.sigma_min, sigma_max=50.0))
    for copied in (copy.deepcopy(model), pickle.loads(pickle.dumps(model.grid))):
        assert torch.equal((copied if copied.__class__.__name__ == "Grid" else copied.grid)(4), own(4))


def test_network_and_optimum_take_the_same_steps(tmp_path: Path) -> None:
    """The optimum as the pipeline's network is the optimum as a sampler, sample by sample."""
    data = load("digits")
    D = OptimalDenoiser(data)
    scheduler = made("DDIMScheduler", {"timestep_spacing": "trailing", "clip_sample": False})
    kept = scheduler.alphas_cumprod.double()

    def as_network(x_t: Tensor, step: Tensor) -> Tensor:
        table = ((1 - kept) / kept).sqrt().log()
        place = step.double().clamp(0, 999)
        low = place.floor().long().clamp(max=998)
        sigma = (table[low] + (place - low) * (table[low + 1] - table[low])).exp()
        x = x_t.double() * (1 + sigma**2).sqrt().view(-1, 1, 1, 1)
        return ((x - D(x, sigma)) / sigma.view(-1, 1, 1, 1)).to(x_t)

    model = open_model(from_unet(as_network, scheduler, event=data.event), name="pipeline")
    arguments = model.sampling(6)
    found = samplers({"pipeline": (model, arguments), "optimum": (D, arguments)}, D, n=16)
    assert found[0]["nfe"] == found[1]["nfe"]
    for column in ("same", "distance", "memorised", "coverage"):
        assert found[0][column] == pytest.approx(found[1][column], abs=1e-3)
    unit = torch.randn(8, *data.event, generator=torch.Generator().manual_seed(0))
    x = float(arguments["sigmas"][0]) * unit
    torch.testing.assert_close(sample(model, x, **arguments), sample(D, x, **arguments), rtol=0, atol=1e-3)


@pytest.mark.parametrize("steps", [0, -1, 1001, 10**9])
def test_a_number_of_steps_that_it_has_not(steps: int) -> None:
    grid = from_unet(lambda x, t: x, made("DDIMScheduler", {})).grid
    assert grid is not None
    with pytest.raises(ValueError, match=r"steps|step, got"):
        grid(steps)
