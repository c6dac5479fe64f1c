"""A residual multilayer perceptron for points and small images."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from .labels import rows_of

__all__ = ["MLP"]

_FREQUENCIES = 8
_FEW = 4
_LABEL = 32
"""Values by which a block knows a label."""


class MLP(nn.Module):
    """F(x, c_noise) on flattened events: blocks h + W' silu(W (a(σ) norm(h) + b(σ))), the last layer 0 at the start.

    c_noise = ¼ ln σ comes in beside x and sets scale and shift of every block, as itself and as sines and cosines of 1
    to 32 radians a unit: ten e-foldings of σ are told apart coarsely and finely. The values of x come in likewise, with
    ½ to 16 radians a unit, where an event has four or fewer: the steps of a distilled optimum are then within reach.

    Args:
        event: shape of one point.
        width: of the hidden layers.
        depth: number of blocks.
        classes: labels that it can be given, which come in where c_noise does; 0: it takes none.
    """

    def __init__(self, event: tuple[int, ...], width: int = 128, depth: int = 3, classes: int = 0):
        super().__init__()
        self.frequencies: Tensor
        self.register_buffer("frequencies", torch.logspace(0, 5, _FREQUENCIES, base=2.0), persistent=False)
        self.periods: Tensor
        dim = math.prod(event)
        count = _FREQUENCIES if dim <= _FEW else 0
        self.register_buffer("periods", torch.logspace(-1, 4, count, base=2.0), persistent=False)
        self.event, self.classes = tuple(event), classes
        levels = 1 + 2 * _FREQUENCIES + (_LABEL if classes else 0)
        self.first = nn.Linear(dim * (1 + 2 * count) + levels, width)
        self.blocks = nn.ModuleList(_Block(width, levels) for _ in range(depth))
        self.last = nn.Linear(width, dim)
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)
        self.labels = nn.Embedding(classes + 1, _LABEL) if classes else None

    def forward(self, x: Tensor, c_noise: Tensor, class_labels: Tensor | None = None) -> Tensor:
        """(B, *event), like x; c_noise (B,); class_labels (B,) int64, −1 for none."""
        if x.shape[1:] != self.event:
            raise ValueError(f"this network is for points of shape {self.event}, got {tuple(x.shape[1:])}")
        phase = c_noise[:, None] * self.frequencies
        level = torch.cat([c_noise[:, None], phase.sin(), phase.cos()], 1).to(x)
        if self.labels is not None:
            level = torch.cat([level, self.labels(rows_of(class_labels, self.classes, x)).to(x)], 1)
        flat = x.flatten(1)
        waves = (flat[:, :, None] * self.periods).flatten(1)
        hidden = self.first(torch.cat([flat, waves.sin(), waves.cos(), level], 1))
        for block in self.blocks:
            hidden = block(hidden, level)
        return self.last(nn.functional.silu(hidden)).view(x.shape)

    def matrices(self) -> list[nn.Parameter]:
        """The weights between hidden layers, which Muon is for."""
        return [layer.weight for block in self.blocks for layer in (block.into, block.out)]  # pyright: ignore


class _Block(nn.Module):
    def __init__(self, width: int, levels: int):
        super().__init__()
        self.norm, self.level = nn.LayerNorm(width, elementwise_affine=False), nn.Linear(levels, 2 * width)
        self.into, self.out = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)
        for layer in (self.level, self.out):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(self, hidden: Tensor, level: Tensor) -> Tensor:
        scale, shift = self.level(level).chunk(2, 1)
        inner = torch.addcmul(shift, self.norm(hidden), 1 + scale)
        return hidden + self.out(nn.functional.silu(self.into(inner)))
