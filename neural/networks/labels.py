"""Labels as rows of an embedding: one a class, and a last one for none."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["rows_of"]


def rows_of(class_labels: Tensor | None, classes: int, x: Tensor) -> Tensor:
    """(B,) int64 in 0 … classes, where x is; `classes` for those that have no label, −1, and for all without labels."""
    if class_labels is None:
        return torch.full((len(x),), classes, device=x.device)
    return torch.where(class_labels < 0, classes, class_labels).to(x.device)
