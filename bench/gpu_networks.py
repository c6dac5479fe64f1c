"""What `bench/gpu.py` checks of networks: each way to ask one answers on the device as on the CPU.

The networks are small and of float32, whose products a device sums in another order: 1e-4 of the size of the answer.
A network in bfloat16 is held to its own float32 self there, and to the noise level that it was asked at.
"""

from __future__ import annotations

import copy
import functools
import importlib.util
from collections.abc import Callable, Iterator
from typing import Any

import torch
from gpu_checks import Check, Sizes
from torch import Tensor, nn

from optimal import OptimalDenoiser, karras, sample

__all__ = ["networks"]

_SAME, _ROUNDED = 1e-4, 0.05


def networks(device: torch.device, sizes: Sizes) -> Iterator[Check]:
    """Adapters, models a batch at a time, samples, bfloat16 and the noise levels that it sees."""
    if any(importlib.util.find_spec(name) is None for name in ("safetensors", "tyro")):
        return  # `neural` needs them, and `optimal`, which all other parts are of, does not.
    from neural import MLP, Preconditioned, agreement, open_model

    x = torch.randn(sizes.rows, 3, 8, 8, generator=torch.Generator("cpu").manual_seed(0), dtype=torch.float32)
    sigma = torch.linspace(0.05, 8, len(x), dtype=torch.float64, device=torch.device("cpu"))
    labels = torch.arange(len(x), device=torch.device("cpu")) % 10
    for name, adapt in _adapters().items():
        yield Check(f"{name}: x here, x there", _SAME, functools.partial(_apart, adapt, x, sigma, labels, device))
    net = Preconditioned(MLP((3, 8, 8), 64, 2), 0.5)
    with torch.no_grad():
        for p in net.parameters():
            p.add_(0.05 * torch.randn(p.shape, generator=torch.Generator("cpu").manual_seed(1), dtype=p.dtype))
    here = open_model(copy.deepcopy(net), device="cpu", batch=sizes.rows // 3)
    there = open_model(copy.deepcopy(net), device=device, batch=sizes.rows // 3)
    half = open_model(copy.deepcopy(net).bfloat16(), device=device)
    grid = karras(6, sigma_min=0.05, sigma_max=8.0)
    yield Check("a model", _SAME, lambda: _relative(there(x, sigma), here(x, sigma)))
    yield Check("its samples", 1e-3, lambda: _relative(sample(there, 8 * x, grid), sample(here, 8 * x, grid)))
    yield Check("its bfloat16 self", _ROUNDED, lambda: _relative(half(x, sigma), here(x, sigma)))
    yield Check("steps that bfloat16 sees, 0 … 999", 0.0, functools.partial(_steps, device))
    D = OptimalDenoiser(x[:40])

    def gap(model: Any) -> Tensor:
        return agreement(model, D, [0.5, 2.0], draws=64).gap

    yield Check("the gap of a model", _SAME, lambda: _relative(gap(there), gap(here)))


def _adapters() -> dict[str, Callable[[Any], Any]]:
    from neural import from_ddpm, from_edm, from_edm_raw, from_flow, from_prediction, from_times

    return {
        "from_prediction": lambda net: from_prediction(net, "eps"),
        "from_flow": from_flow,
        "from_ddpm": lambda net: from_ddpm(net, torch.linspace(0.9999, 1e-3, 1000, dtype=torch.float64)),
        "from_edm": from_edm,
        "from_edm_raw": from_edm_raw,
        "from_times": lambda net: from_times(net, lambda t: (1 - 0.99 * t, t + 1e-3)),
    }


class _Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.full((1,), 0.5, device=torch.device("cpu")))
        self.names = nn.Parameter(torch.linspace(-1, 1, 10, device=torch.device("cpu")))

    def forward(self, x: Tensor, level: Tensor, class_labels: Tensor | None = None) -> Tensor:
        shape = (-1, *[1] * (x.ndim - 1))
        out = self.scale * x + 0.1 * (self.scale * level).view(shape).cos().to(x.dtype)
        return out if class_labels is None else out + self.names[class_labels].view(shape)


def _apart(adapt: Callable[[Any], Any], x: Tensor, sigma: Tensor, labels: Tensor, device: torch.device) -> float:
    expected = adapt(_Net())(x, sigma, class_labels=labels)
    F = adapt(_Net().to(device))
    return max(_relative(F(x.to(place), sigma, class_labels=labels), expected) for place in ("cpu", device))


def _steps(device: torch.device) -> float:
    """Largest distance of a step that a bfloat16 network is asked at from the whole one that it is."""
    from neural import from_ddpm

    kept = torch.cumprod(1 - torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64, device=torch.device("cpu")), 0)
    seen: list[Tensor] = []

    class Seeing(_Net):
        def forward(self, x: Tensor, level: Tensor, class_labels: Tensor | None = None) -> Tensor:
            seen.append(level)
            return 0 * x

    from_ddpm(Seeing().bfloat16().to(device), kept)(torch.zeros(1000, 3, device=device), ((1 - kept) / kept).sqrt())
    return float((seen[0].cpu() - torch.arange(1000)).abs().max())


def _relative(found: Tensor, expected: Tensor) -> float:
    return float((found.cpu().double() - expected.cpu().double()).norm() / expected.cpu().double().norm())
