"""Any denoiser in the call signatures of others, so that their samplers and solvers run on the optimum.

| from        | how a denoiser is called there                  | here                                          |
|-------------|-------------------------------------------------|-----------------------------------------------|
| k-diffusion | model(x, sigma, **extra_args), sigma (B,)       | D itself; `for_k_diffusion(D)` for class_cond |
| EDM, EDM2   | net(x, sigma, class_labels), sigma (B, 1, 1, 1) | `for_edm(D)`                                  |
| azula       | denoiser(x_t, t).mean, denoiser.schedule(t)     | `for_azula(D, schedule)`                      |
| deepinv     | denoiser(x, sigma), pixels from 0 to 1          | `for_deepinv(D)`                              |
| diffusers   | scheduler.set_timesteps(sigmas=…)               | `python -m optimal schedule`, `design`        |

The other way, others' networks as denoisers, is `neural.from_edm` and its siblings.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from .process import Process

__all__ = [
    "ForAzula",
    "ForDeepinv",
    "ForEDM",
    "ForKDiffusion",
    "for_azula",
    "for_deepinv",
    "for_edm",
    "for_k_diffusion",
]

Denoises = Callable[[Tensor, Any], Tensor]


def for_edm(D: Denoises, *, event: tuple[int, ...] | None = None, classes: int = 0) -> ForEDM:
    """A denoiser as EDM's net: net(x, sigma, class_labels=None), for its `edm_sampler` and EDM2's.

    Args:
        D: (x, sigma) -> x0_hat; with labels one that has `given`.
        event: (C, H, W) of its images; that of D unless given.
        classes: how many there are, C of the one-hot labels (B, C); rows of zeros are unlabelled.

    Raises:
        ValueError: no event is known; classes of a denoiser that takes none.

    Example:
        >>> from optimal import OptimalDenoiser
        >>> net = for_edm(OptimalDenoiser(torch.zeros(2, 3, 4, 4)))
        >>> net.img_channels, net.img_resolution, net.label_dim
        (3, 4, 0)
        >>> net(torch.zeros(5, 3, 4, 4), torch.ones(5, 1, 1, 1)).shape
        torch.Size([5, 3, 4, 4])
    """
    event = getattr(D, "event", None) if event is None else event
    if event is None or len(event) != 3:
        raise ValueError(f"EDM's nets have images, events of shape (C, H, W), got {event}: name it by event=")
    if classes and not hasattr(D, "given"):
        raise ValueError(f"{type(D).__name__} has no given(labels), so that it takes no classes")
    return ForEDM(D, tuple(event), classes)


def for_k_diffusion(D: Denoises) -> ForKDiffusion:
    """A denoiser as k-diffusion's model: model(x, sigma, class_cond=None), for every one of its samplers.

    Without labels D itself is one already.

    Example:
        >>> from optimal import OptimalDenoiser
        >>> model = for_k_diffusion(OptimalDenoiser(torch.tensor([[-1.0], [1.0]])))
        >>> model(torch.zeros(3, 1), 2.0 * torch.ones(3)).shape
        torch.Size([3, 1])
    """
    return ForKDiffusion(D)


def for_azula(D: Denoises, schedule: Callable[[Tensor], tuple[Tensor, Tensor]] | Process) -> ForAzula:
    """A denoiser as azula's: denoiser(x_t, t).mean and denoiser.schedule, for its samplers and guidance.

    Args:
        D: (x, sigma) -> x0_hat, of x = x_t/α_t at σ = σ_t/α_t.
        schedule: t -> (α_t, σ_t), one of azula's, or a process of `optimal.process` with its times divided by t_max.

    Example:
        >>> from optimal import OptimalDenoiser
        >>> from optimal.process import VP
        >>> denoiser = for_azula(OptimalDenoiser(torch.tensor([[-1.0], [1.0]])), VP())
        >>> denoiser(torch.zeros(3, 1), torch.tensor(0.5)).mean.shape
        torch.Size([3, 1])
    """
    return ForAzula(D, _schedule_of(schedule) if isinstance(schedule, Process) else schedule)


def for_deepinv(D: Denoises, *, value_range: tuple[float, float] = (0.0, 1.0)) -> ForDeepinv:
    """A denoiser as deepinv's: denoiser(x, sigma), x and σ in units of pixels from 0 to 1.

    Args:
        D: (x, sigma) -> x0_hat of data from −1 to 1.
        value_range: of pixels there.

    Raises:
        ValueError: a range that is empty or not finite.

    Example:
        >>> from optimal import OptimalDenoiser
        >>> denoiser = for_deepinv(OptimalDenoiser(torch.tensor([[-1.0], [1.0]])))
        >>> denoiser(torch.tensor([[0.9]]), 0.1)
        tensor([[1.]])
    """
    low, high = value_range
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise ValueError(f"value_range must be two rising numbers, got {value_range}")
    return ForDeepinv(D, float(low), float(high))


class ForEDM(nn.Module):
    """From `for_edm`: with img_channels, img_resolution, label_dim, sigma_min, sigma_max and round_sigma."""

    sigma_min, sigma_max = 0.0, math.inf

    def __init__(self, D: Denoises, event: tuple[int, ...], classes: int):
        super().__init__()
        self.D = D
        self.img_channels, self.img_resolution, self.label_dim = event[0], event[-1], classes

    def forward(self, x: Tensor, sigma: float | Tensor, class_labels: Tensor | None = None, **ignored: Any) -> Tensor:
        """E[x0 | x]; sigma of any shape with B or one element; force_fp32 and the like are not looked at."""
        level = _levels(sigma, x)
        if class_labels is None or not self.label_dim:
            return self.D(x, level)
        labels = torch.as_tensor(class_labels, device=x.device).reshape(-1, self.label_dim).expand(len(x), -1)
        return _labelled(self.D, x, level, labels.argmax(1), labels.any(1))

    def round_sigma(self, sigma: float | Tensor) -> Tensor:
        """The level itself: there is no table of levels."""
        return torch.as_tensor(sigma)


class ForKDiffusion(nn.Module):
    """From `for_k_diffusion`."""

    def __init__(self, D: Denoises):
        super().__init__()
        self.D = D

    def forward(self, x: Tensor, sigma: Float[Tensor, "B"], class_cond: Tensor | None = None) -> Tensor:
        """E[x0 | x], of a class a row where class_cond (B,) is given."""
        if class_cond is None:
            return self.D(x, sigma)
        labels = class_cond.reshape(-1)
        return _labelled(self.D, x, sigma, labels, torch.ones_like(labels, dtype=torch.bool))


@dataclass(frozen=True)
class Mean:
    """What azula's samplers ask a posterior for."""

    mean: Tensor


class ForAzula(nn.Module):
    """From `for_azula`."""

    def __init__(self, D: Denoises, schedule: Callable[[Tensor], tuple[Tensor, Tensor]]):
        super().__init__()
        self.D, self.schedule = D, schedule

    def forward(self, x_t: Tensor, t: Tensor, **ignored: Any) -> Mean:
        """E[x0 | x_t] as .mean; t is a scalar or has one element a row."""
        alpha, sigma = (torch.as_tensor(part, device=x_t.device) for part in self.schedule(t))
        rows = (-1, *[1] * (x_t.ndim - 1))
        scale, level = (
            part.flatten().expand(len(x_t)) if part.numel() == 1 else part.flatten() for part in (alpha, sigma)
        )
        x = x_t / scale.reshape(rows).to(x_t.dtype)
        return Mean(self.D(x, (level / scale).to(x_t.dtype)))


class ForDeepinv(nn.Module):
    """From `for_deepinv`."""

    def __init__(self, D: Denoises, low: float, high: float):
        super().__init__()
        self.D, self.low, self.unit = D, low, (high - low) / 2

    def forward(self, x: Tensor, sigma: float | Tensor, **ignored: Any) -> Tensor:
        """E[x0 | x] in pixels; sigma is one number or one a row."""
        x0_hat = self.D((x - self.low) / self.unit - 1, _levels(sigma, x) / self.unit)
        return (x0_hat + 1) * self.unit + self.low


def _levels(sigma: float | Tensor, x: Tensor) -> Tensor:
    """(B,) of one number or one a row, of any shape."""
    dtype = None if isinstance(sigma, Tensor) else torch.float64
    level = torch.as_tensor(sigma, dtype=dtype, device=x.device).flatten()
    return level.expand(len(x)) if len(level) == 1 else level


def _labelled(D: Any, x: Tensor, sigma: Tensor, labels: Tensor, known: Tensor) -> Tensor:
    """Rows with a label from the optimum of their class, the others from that of all."""
    out = torch.empty_like(x)
    if known.any():
        out[known] = D.given(labels[known].cpu())(x[known], sigma[known])
    if not known.all():
        out[~known] = D(x[~known], sigma[~known])
    return out


def _schedule_of(process: Process) -> Callable[[Tensor], tuple[Tensor, Tensor]]:
    """α_t and σ_t of a process for t from 0 to 1."""

    def schedule(t: Tensor) -> tuple[Tensor, Tensor]:
        time = torch.as_tensor(t).double() * process.t_max
        return process.scale(time), process.std(time)

    return schedule
