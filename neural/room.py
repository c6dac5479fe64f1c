"""Whether a batch fits into memory: said before the first step, in one sentence, and not by what runs out of it."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from optimal.devices import require_room

from .config import Optimisation
from .precondition import Preconditioned
from .streams import process

__all__ = ["held_by_a_row", "require_room_for_a_batch"]

_BESIDE = 4
"""x0, ε, x and what is to be learnt, beside the network."""


def held_by_a_row(model: Preconditioned, event: tuple[int, ...]) -> int:
    """Values that a row of a training's batch holds at least: x0, ε, x, what is to be learnt, and the output of every
    layer, which its gradient needs; those of a single row are counted."""
    held = [_BESIDE * math.prod(event)]

    def add(layer: nn.Module, asked: Any, output: Any) -> None:
        held.append(output.numel() if isinstance(output, Tensor) else 0)

    hooks = [layer.register_forward_hook(add) for layer in model.modules() if not any(layer.children())]
    where = next(model.parameters()).device
    try:
        with torch.no_grad():
            model(torch.zeros((1, *event), dtype=torch.float32, device=where), 1.0)
    finally:
        for hook in hooks:
            hook.remove()
    return sum(held)


def require_room_for_a_batch(
    model: Preconditioned, event: tuple[int, ...], options: Optimisation, device: torch.device
) -> None:
    """Raise ValueError where the part of a batch that is on the device at once is more than its memory.

    Args:
        model: the network, anywhere.
        event: shape of one point.
        options: how it is trained: its batch, and in how many parts that is computed.
        device: where.
    """
    parts = options.accumulate * process()[1]
    require_room("batch", options.batch, math.ceil(held_by_a_row(model, event) / parts), device=device)
