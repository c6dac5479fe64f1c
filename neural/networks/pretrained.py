"""A pretrained diffusers checkpoint folder as a denoiser."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from optimal.denoiser import Denoiser

from ..adapters import from_unet

__all__ = ["from_diffusers"]

_SCHEDULES = ("DDPM", "DDIM", "PNDM", "Euler", "EulerAncestral", "Heun", "LMS", "DPMSolver", "DEIS", "UniPC", "KDPM2")
"""Schedulers that are given the betas of DDPM's table."""


def from_diffusers(folder: str | Path) -> Denoiser:
    """The unconditional `UNet2DModel` and scheduler of a pipeline saved on disk, as a `Denoiser`.

    It is asked as `neural.adapters.from_unet` says. Nothing is downloaded; only safetensors are read.

    Args:
        folder: with unet/ and scheduler/, as pipelines are saved, or with both configurations in one place.

    Returns:
        (x, sigma) -> x0_hat, with the scheduler's range as attributes sigma_min and sigma_max. It raises ValueError for
        a σ outside them.

    Raises:
        ValueError: no such checkpoint in the folder, a scheduler with other noise levels than DDPM's
            betas make, or a prediction type other than epsilon, sample or v_prediction.
    """
    from diffusers.models.unets.unet_2d import UNet2DModel
    from diffusers.schedulers.scheduling_ddpm import DDPMScheduler

    folder = Path(folder)
    weights = folder / "unet" if (folder / "unet").is_dir() else folder
    schedule = folder / "scheduler" if (folder / "scheduler").is_dir() else folder
    try:
        config = json.loads((schedule / "scheduler_config.json").read_text())
        net: Any = UNet2DModel.from_pretrained(weights, use_safetensors=True, local_files_only=True).eval()
    except OSError as error:
        raise ValueError(f"{folder} holds no unconditional diffusers checkpoint in safetensors: {error}") from error
    name = str(config.get("_class_name", ""))
    if not name.startswith(_SCHEDULES):
        raise ValueError(f"the scheduler of {folder}, {name or 'nameless'}, does not have DDPM's noise levels")
    return from_unet(net, DDPMScheduler.from_config(config))
