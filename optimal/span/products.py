"""Products of the data with queries and with coefficients: in digits of bytes where the data are bytes."""

from __future__ import annotations

import torch
from torch import Tensor

from ..evaluate import byte_logits
from ..points import Points

__all__ = ["combination", "gram", "listed", "products"]


def listed(mask: Tensor) -> Tensor | None:
    """The places of a mask, or None where reading all points is no slower."""
    index = mask.nonzero().squeeze(1)
    return index if 1.25 * len(index) < len(mask) else None


def gram(points: Points, index: Tensor) -> Tensor:
    """(y_j − c)·(y_k − c) of the points `index`, (n, n) float64."""
    if points.bytes:
        return byte_logits.gram(points, index)
    block = points.read(index, torch.empty(len(index), points.dim, dtype=torch.float64, device=index.device))
    return block @ block.T


def products(points: Points, z: Tensor, digits: int, index: Tensor | None = None) -> Tensor:
    """z·(y_k − c) for the points `index` (None: all), (B, n) float64, for z (B, D) float64."""
    if points.bytes:
        return byte_logits.products(points, z, digits, index)
    out = torch.empty(len(z), points.size if index is None else len(index), dtype=torch.float64, device=z.device)
    for start, block in points.blocks(points.block_rows(len(z), device=z.device), z.device, index):
        out[:, start : start + len(block)] = z @ block.T
    return out


def combination(points: Points, weights: Tensor, index: Tensor | None, accuracy: float) -> Tensor:
    """Σ_j w_j (y_j − c), (B, D) float64, for weights (B, n) float64, used up; they count to within `accuracy`."""
    if points.bytes and weights.shape[1] > 0:
        return byte_logits.combination(points, weights, index, accuracy)
    out = torch.zeros(len(weights), points.dim, dtype=torch.float64, device=weights.device)
    for start, block in points.blocks(points.block_rows(len(weights), device=weights.device), weights.device, index):
        out += weights[:, start : start + len(block)] @ block
    return out
