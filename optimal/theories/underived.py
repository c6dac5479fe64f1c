"""Answers that no derivative goes through: asked for one they say so, where a silent 0 would be taken for an answer."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

__all__ = ["underived"]


def underived(answer: Tensor, x: Tensor, name: str) -> Tensor:
    """The answer to x, of which autograd and `torch.func` get a ValueError in place of a derivative.

    Args:
        answer: made of x without a graph.
        x: (B, *event).
        name: of the denoiser, for the message.
    """
    return _Underived.apply(x, answer, name)  # pyright: ignore[reportReturnType]


class _Underived(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, answer: Tensor, name: str) -> Tensor:
        return answer.view_as(answer)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.name = inputs[2]

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        raise ValueError(_sentence(ctx.name))

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Any:
        raise ValueError(_sentence(ctx.name))


def _sentence(name: str) -> str:
    return f"no derivative goes through {name}: take differences of its answers"
