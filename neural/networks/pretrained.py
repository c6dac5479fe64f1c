"""A pretrained diffusers checkpoint folder as a denoiser."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from optimal.parametrize import to_x0

__all__ = ["from_diffusers"]

_SCHEDULES = ("DDPM", "DDIM", "PNDM", "Euler", "EulerAncestral", "Heun", "LMS", "DPMSolver", "DEIS", "UniPC", "KDPM2")
"""Schedulers that are given the betas of DDPM's table."""
_KINDS = {"epsilon": "eps", "sample": "x0", "v_prediction": "v"}


def from_diffusers(folder: str | Path) -> Callable[[Tensor, float | Tensor], Tensor]:
    """The unconditional `UNet2DModel` and scheduler of a pipeline saved on disk, as a `Denoiser`.

    With ā_t the scheduler's, σ_t = √((1 − ā_t)/ā_t), the network is asked at x/√(1 + σ²) and at the t, not
    necessarily whole, with σ_t = σ (linear in ln σ between steps). Nothing is downloaded; only safetensors are read.

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
    scheduler: Any = DDPMScheduler.from_config(config)
    kind = scheduler.config["prediction_type"]
    if kind not in _KINDS:
        raise ValueError(f"prediction_type must be one of {', '.join(_KINDS)}, got {kind!r}")
    kept = scheduler.alphas_cumprod.double().numpy()
    table = np.log(np.sqrt((1 - kept) / kept))
    low, high = np.exp(table[[0, -1]])

    def denoise(x: Tensor, sigma: float | Tensor) -> Tensor:
        levels = torch.as_tensor(sigma, dtype=torch.float64, device=x.device).expand(len(x))
        if not ((levels >= low * (1 - 1e-6)) & (levels <= high * (1 + 1e-6))).all():
            raise ValueError(f"sigma must lie between {low:g} and {high:g}, the range of the checkpoint's schedule")
        t = torch.from_numpy(np.interp(levels.log().cpu().numpy(), table, np.arange(len(table)))).to(x.device)
        scale = (1 + levels.square()).rsqrt().view(-1, *[1] * (x.ndim - 1))
        with torch.no_grad():
            value = net((scale * x.double()).to(net.dtype), t.to(torch.float32)).sample
        return to_x0(value.to(x.dtype), x, levels, _KINDS[kind])

    denoise.sigma_min, denoise.sigma_max = float(low), float(high)  # pyright: ignore[reportFunctionMemberAccess]
    return denoise
