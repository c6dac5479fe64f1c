"""Networks by what a configuration says of them."""

from __future__ import annotations

import math

import torch
from torch import nn

from optimal.randomness import stream

from ..config import Network
from ..precondition import Preconditioned
from .dit import DiT
from .mlp import MLP
from .unet import UNet

__all__ = ["build", "count"]


def build(config: Network, event: tuple[int, ...], sigma_data: float, *, seed: int = 0) -> Preconditioned:
    """A new network for events of this shape, as a denoiser. Its weights depend on the seed alone.

    Raises:
        ValueError: an unknown kind, or an event or sizes that this kind cannot have.
    """
    if config.width < 1 or config.depth < 0:
        raise ValueError(f"an MLP needs width >= 1 and depth >= 0, got {config.width} and {config.depth}")
    # Modules take their first weights from the global generator: it is put back as it was.
    with torch.random.fork_rng(devices=[]):
        torch.set_rng_state(stream(seed, "weights").get_state())
        if config.kind == "mlp":
            net: nn.Module = MLP(event, config.width, config.depth, config.classes)
        elif config.kind == "unet":
            net = UNet(event, tuple(config.channels), config.layers, tuple(config.attention), config.classes)
        elif config.kind == "dit":
            net = DiT(event, config.width, config.depth, config.patch, config.classes)
        else:
            raise ValueError(f"network.kind must be mlp, unet or dit, got {config.kind!r}")
    return Preconditioned(net, sigma_data, config.precondition)


def count(net: nn.Module) -> int:
    """Number of weights."""
    return sum(math.prod(p.shape) for p in net.parameters())
