"""Classes of data: the points of one, and labels as whole numbers."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from optimal import Dataset

__all__ = ["labels_of", "of_label"]


def labels_of(data: Dataset, classes: int) -> Tensor:
    """The label of every point, (N,) int64.

    Args:
        data: with labels, whole numbers or one-hot.
        classes: that a network has.

    Raises:
        ValueError: data without labels, or with others than 0 … classes − 1.
    """
    if data.labels is None:
        raise ValueError(f"{data.name} has no labels, and network.classes is {classes}: it must be 0")
    values = torch.from_numpy(np.array(data.labels if data.labels.ndim == 1 else data.labels.argmax(1)))
    low, high = int(values.min()), int(values.max())
    if low < 0 or high >= classes:
        raise ValueError(f"network.classes must be above all labels of {data.name}, {low} … {high}, got {classes}")
    return values.long()


def of_label(data: Dataset, label: int) -> Dataset:
    """The points of one class, as data of their own: the optimum of these is `D.given(label)`.

    Raises:
        ValueError: data without labels that are classes, or without this one.
    """
    own = data.classes == label
    if not own.any():
        raise ValueError(
            f"{data.name} has no points of class {label}, its labels are {_listed(np.unique(data.classes))}"
        )
    return Dataset(f"{data.name} of class {label}", data.array[own], None, data.licence, data.source)


def _listed(values: np.ndarray) -> str:
    few = ", ".join(map(str, values[:10].tolist()))
    return few + (", …" if len(values) > 10 else "")
