"""Networks of other libraries as they are: understood where they say enough of themselves, or a sentence.

Nothing of theirs is imported. They are known by what they hold and by how they are called:

    net(x, sigma)                         EDM's preconditioned networks, k-diffusion's wrappers: `from_edm`
    a pipeline of diffusers               its unet with its scheduler: `from_unet`
    GaussianDiffusion of lucidrains       its model on its table, for what its objective says: `from_ddpm`
    a denoiser of azula                   (x_t, t) with its schedule: `from_times`

A raw network is given a time, and what it predicts is not said: it is refused with the names of the adapters.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from torch import nn

from .adapters import Adapted, from_ddpm, from_edm, from_times, from_unet
from .adapters.asked import TIMES
from .adapters.folders import encoder_of
from .precondition import Preconditioned

__all__ = ["understood"]

_SIGMAS = ("sigma", "sigmas", "sigma_t", "s", "std", "noise_level", "noise_levels")
_OBJECTIVES = {"pred_noise": "eps", "pred_x0": "x0", "pred_v": "v"}
"""lucidrains' names of what is predicted."""


def understood(source: Any) -> Callable[..., Any]:
    """A denoiser (x, sigma) -> x0_hat of what was given.

    Raises:
        ValueError: it is none, and the adapter that makes one is named.
    """
    name, home = type(source).__name__, (type(source).__module__ or "").partition(".")[0]
    if isinstance(source, Adapted):
        return source
    if hasattr(source, "unet") and hasattr(source, "scheduler"):
        return _pipeline(source, name)
    if hasattr(source, "alphas_cumprod") and hasattr(source, "objective") and hasattr(source, "model"):
        return _diffusion(source, name)
    if hasattr(source, "alphas_cumprod") and hasattr(source, "model_mean_type"):
        raise ValueError(f"a {name} holds the table, not the network: from_ddpm(network, it.alphas_cumprod)")
    if not callable(source):
        raise ValueError(f"a network is a folder, a function (x, sigma) or a module, got {name}")
    if isinstance(source, type):
        raise ValueError(f"{source.__name__} is a class: give one of its kind, with its weights")
    if home == "deepinv":
        raise ValueError(f"deepinv's {name} is for values in [0, 1]: from_edm(net, value_range=(0, 1))")
    first, second = _parameters(source)
    schedule: Any = getattr(source, "schedule", None)
    if schedule is not None and second in TIMES:
        return from_times(source, schedule)
    if second in TIMES or first in TIMES:
        raise ValueError(
            f"{_called(source)} is called with ({first}, {second}), and neither its noise levels nor what it predicts "
            "are said: from_unet(net, scheduler), from_ddpm, from_prediction or from_flow make a denoiser of it"
        )
    if not isinstance(source, nn.Module) or isinstance(source, Preconditioned):
        return source
    if second in _SIGMAS:
        return _denoiser(source)
    raise ValueError(
        f"{name} is called with ({first}, {second}), and what that is is not said: from_edm(net) if it is the noise "
        "level and the answer x0_hat, from_edm_raw(net) if it is ¼ ln σ inside of EDM's preconditioning, else "
        "from_ddpm, from_prediction or from_flow"
    )


def _denoiser(source: Any) -> Adapted:
    """net(x, sigma), with the range that k-diffusion's and EDM's say."""
    found = from_edm(source)
    low, high = getattr(source, "sigma_min", None), getattr(source, "sigma_max", None)
    found.sigma_min = found.sigma_min if low is None else float(low)
    found.sigma_max = found.sigma_max if high is None else float(high)
    return found


def _pipeline(source: Any, name: str) -> Adapted:
    encoder = encoder_of({part: getattr(source, part, None) for part in vars(source)})
    if encoder is not None:
        raise ValueError(
            f"a {name} has a {encoder}: its network does not work on images; on latents it is "
            "from_unet(it.unet, it.scheduler)"
        )
    return from_unet(source.unet, source.scheduler)


def _diffusion(source: Any, name: str) -> Adapted:
    if source.objective not in _OBJECTIVES:
        raise ValueError(f"objective {source.objective!r} of {name} is not understood: from_ddpm takes its model")
    # Its samplers cut x0_hat at ±1.
    found = from_ddpm(source.model, source.alphas_cumprod, _OBJECTIVES[source.objective], clip=1.0)
    size, channels = getattr(source, "image_size", None), getattr(source, "channels", None)
    if size is not None and channels is not None:
        sides = (size, size) if isinstance(size, int) else tuple(size)
        found.event = (int(channels), *map(int, sides))
    return found


def _parameters(source: Any) -> tuple[str | None, str | None]:
    """The names of the first two arguments of a call; of what wraps one module and names none, of that module."""
    try:
        parameters = inspect.signature(getattr(source, "forward", source)).parameters.values()
    except (TypeError, ValueError):
        return None, None
    names = [p.name for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    inner = list(source.children()) if isinstance(source, nn.Module) else []
    if not names and len(inner) == 1:
        return _parameters(inner[0])
    first, second, *_ = [*names, None, None]
    return first, second


def _called(source: Any) -> str:
    return str(getattr(source, "__name__", None) or type(source).__name__)
