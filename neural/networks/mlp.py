"""A residual multilayer perceptron for points and small images."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

__all__ = ["MLP"]

_FREQUENCIES = 8
_FEW = 4


class MLP(nn.Module):
    """F(x, c_noise) on flattened events: blocks h + W' silu(W norm(h)), the last layer 0 at the start.

    c_noise = ¼ ln σ comes in beside x, as itself and as sines and cosines of 1 to 32 radians a unit: ten e-foldings of
    σ are told apart coarsely and finely. So do the values of x, of ½ to 16 radians a unit, where an event has four or
    fewer: the steps of a distilled optimum are then within reach.

    Args:
        event: shape of one point.
        width: of the hidden layers.
        depth: number of blocks.
    """

    def __init__(self, event: tuple[int, ...], width: int = 128, depth: int = 3):
        super().__init__()
        self.frequencies: Tensor
        self.register_buffer("frequencies", torch.logspace(0, 5, _FREQUENCIES, base=2.0), persistent=False)
        self.periods: Tensor
        dim = math.prod(event)
        count = _FREQUENCIES if dim <= _FEW else 0
        self.register_buffer("periods", torch.logspace(-1, 4, count, base=2.0), persistent=False)
        self.first = nn.Linear(dim * (1 + 2 * count) + 1 + 2 * _FREQUENCIES, width)
        self.blocks = nn.ModuleList(_Block(width) for _ in range(depth))
        self.last = nn.Linear(width, dim)
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)

    def forward(self, x: Tensor, c_noise: Tensor) -> Tensor:
        """(B, *event), like x; c_noise (B,)."""
        phase = c_noise[:, None] * self.frequencies
        flat = x.flatten(1)
        waves = (flat[:, :, None] * self.periods).flatten(1)
        inputs = [flat, waves.sin(), waves.cos(), c_noise[:, None], phase.sin(), phase.cos()]
        hidden = self.first(torch.cat(inputs, 1))
        for block in self.blocks:
            hidden = block(hidden)
        return self.last(nn.functional.silu(hidden)).view(x.shape)


class _Block(nn.Module):
    def __init__(self, width: int):
        super().__init__()
        self.norm, self.into, self.out = nn.LayerNorm(width), nn.Linear(width, width), nn.Linear(width, width)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, hidden: Tensor) -> Tensor:
        return hidden + self.out(nn.functional.silu(self.into(self.norm(hidden))))
