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
    """The points of one class.

    Raises:
        ValueError: data without labels, or without this one.
    """
    if data.labels is None:
        raise ValueError(f"{data.name} has no labels, so that there is no optimum of class {label}")
    classes = data.labels if data.labels.ndim == 1 else data.labels.argmax(1)
    index = np.flatnonzero(np.asarray(classes) == label)
    if len(index) == 0:
        raise ValueError(f"{data.name} has no points of class {label}, its labels are {_listed(np.unique(classes))}")
    return Dataset(f"{data.name} of class {label}", data.array[index], None, data.licence, data.source)


def _listed(values: np.ndarray) -> str:
    few = ", ".join(map(str, values[:10].tolist()))
    return few + (", …" if len(values) > 10 else "")
