"""Networks of diffusers, by the scheduler that they were trained or are sampled with.

What a scheduler asks its network at, and what it makes of the answer, follows from its class and three or four fields
of its configuration. The classes below are those whose own `step` was held against ours, value by value; any other is
refused by its name, since a wrong convention gives plausible numbers.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from optimal.process import FlowMatching

from .adapted import Adapted
from .asked import Asked
from .clipping import Clip, Given, clip_of
from .edm import from_edm_raw
from .grids import Grid
from .prediction import from_flow, from_prediction
from .ranges import OURS, Values, values_of
from .table import Tabulated

__all__ = ["SCHEDULERS", "from_unet", "require_known"]

_TABLE = (
    "DDPMScheduler",
    "DDPMParallelScheduler",
    "DDIMScheduler",
    "DDIMParallelScheduler",
    "PNDMScheduler",
    "DPMSolverMultistepScheduler",
    "DPMSolverSinglestepScheduler",
    "DEISMultistepScheduler",
    "UniPCMultistepScheduler",
    "EulerDiscreteScheduler",
    "EulerAncestralDiscreteScheduler",
    "HeunDiscreteScheduler",
    "LMSDiscreteScheduler",
    "KDPM2DiscreteScheduler",
    "KDPM2AncestralDiscreteScheduler",
    "LCMScheduler",
)
_NO_SAMPLE = ("EulerAncestralDiscreteScheduler", "KDPM2DiscreteScheduler", "KDPM2AncestralDiscreteScheduler")
"""Their own step does not know that prediction type."""
_EDM = ("EDMEulerScheduler", "EDMDPMSolverMultistepScheduler")
_FLOW = ("FlowMatchEulerDiscreteScheduler", "FlowMatchHeunDiscreteScheduler")
SCHEDULERS = _TABLE + _EDM + _FLOW
"""The schedulers of diffusers whose networks are understood."""

_KINDS = {"epsilon": "eps", "sample": "x0", "v_prediction": "v"}
"""diffusers' names of what is predicted."""
_BOUNDARY = 10.0
"""LCMScheduler's timestep_scaling, unless it says otherwise."""


def from_unet(
    unet: Callable[..., Any],
    scheduler: Any,
    *,
    clip: Given = None,
    event: tuple[int, ...] | None = None,
    value_range: Values = OURS,
    **arguments: Any,
) -> Adapted:
    """A diffusers network, with the scheduler that it was trained or is sampled with, in memory.

    `from_diffusers` reads both from a folder. The attribute grid of what is made has the levels that the scheduler
    takes its steps at, see `neural.adapters.grids`.

    Args:
        unet: `UNet2DModel`, or another that is called as unet(x_t, step).
        scheduler: one of `SCHEDULERS`. What it says of clipping and thresholding is done to x0_hat, as it does.
        clip: instead of that: x0_hat is cut at ±clip, or (low, high); False for not at all.
        event: the shape of points that it is asked at, where that is another one than it says.
        value_range: the values of the network's images where ours have [−1, 1], see `neural.adapters.ranges`. The
            scheduler cuts in the network's values, clip= in ours.
        **arguments: given to the network at every call: class_labels, say.

    Raises:
        ValueError: another scheduler, prediction type or combination of the two.
    """
    name, config = type(scheduler).__name__, scheduler.config
    require_known(name)
    cut, consistent = _clip_of(config) if clip is None else clip_of(clip), name == "LCMScheduler"
    centre, half = values_of(value_range)
    # Consistency functions are cut before they are mixed with x_t, in their own values; the others after, in ours.
    if cut is not None and clip is None and not consistent:
        cut = dataclasses.replace(cut, centre=centre, half=half)
    elif cut is not None and clip is not None and consistent:
        cut = dataclasses.replace(cut, centre=-centre / half, half=1 / half)
    found = _adapted(unet, scheduler, name, config, arguments | {"clip": cut})
    # Shifted by the size of the image, in the code of the pipeline.
    found.grid = None if config.get("use_dynamic_shifting") else Grid(scheduler, found.sigma_max)
    found = found.of_values(value_range)
    return found if event is None else found.at(event)


def require_known(name: str) -> None:
    """Raise ValueError unless this is the name of one of `SCHEDULERS`."""
    if name not in SCHEDULERS:
        raise ValueError(
            f"{name or 'a nameless scheduler'} is none of the schedulers whose networks are understood: "
            f"{', '.join(each.removesuffix('Scheduler') for each in SCHEDULERS)}"
        )


def _adapted(
    unet: Callable[..., Any], scheduler: Any, name: str, config: Mapping[str, Any], given: dict[str, Any]
) -> Adapted:
    kind = config.get("prediction_type", "flow_prediction" if name in _FLOW else "epsilon")
    steps = config.get("num_train_timesteps", 1000)
    if name in _FLOW:
        return from_flow(unet, data_at=int(bool(config.get("invert_sigmas"))), time_scale=steps, **given)
    if name in _EDM:
        _require(kind in ("epsilon", "v_prediction"), name, kind)
        preconditioned = "F" if kind == "epsilon" else "v"
        return from_edm_raw(unet, sigma_data=config["sigma_data"], kind=preconditioned, **given)
    if config.get("use_flow_sigmas"):
        _require(kind in ("flow_prediction", "epsilon", "sample"), f"{name} with use_flow_sigmas", kind)
        if kind == "flow_prediction":
            return from_flow(unet, time_scale=steps, **given)
        return from_prediction(unet, _KINDS[kind], process=FlowMatching(), time_scale=steps, **given)
    _require(kind in _KINDS and not (kind == "sample" and name in _NO_SAMPLE), name, kind)
    if config.get("timestep_type") == "continuous" and kind == "v_prediction":
        return from_edm_raw(unet, sigma_data=1.0, kind="v", **given)
    kept = scheduler.alphas_cumprod.double().cpu().numpy()
    kept = kept[kept > 0]
    boundary = config.get("timestep_scaling", _BOUNDARY) if name == "LCMScheduler" else None
    asked = Asked(unet, {name: value for name, value in given.items() if name != "clip"})
    table = np.log((1 - kept) / kept) / 2
    return Tabulated(asked, table, _KINDS[kind], clip=given["clip"], boundary=boundary)


def _require(understood: bool, name: str, kind: str) -> None:
    if not understood:
        raise ValueError(f"prediction_type {kind!r} of {name} is not understood")


def _clip_of(config: Mapping[str, Any]) -> Clip | None:
    """As the scheduler cuts x0_hat."""
    if config.get("thresholding"):
        return Clip(ratio=config["dynamic_thresholding_ratio"], most=config["sample_max_value"])
    return clip_of(config.get("clip_sample_range", 1.0)) if config.get("clip_sample") else None
