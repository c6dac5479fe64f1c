"""Class labels, as networks want them: whole numbers, or one-hot where they say so; one a row."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

__all__ = ["NONE", "classes_of", "numbered", "understood", "wanted"]

NONE = -1
"""The label that says none, of networks that answer for all classes too."""


def classes_of(network: object) -> tuple[int | None, bool]:
    """How many classes a network says it has, None where it does not say, and whether it wants them one-hot.

    EDM's networks have a label_dim and multiply by one-hot rows; diffusers' have num_class_embeds and look up.
    """
    dim = getattr(network, "label_dim", None)
    if isinstance(dim, int):
        return dim, True
    config = getattr(network, "config", None)
    if config is None or not hasattr(config, "num_class_embeds"):
        return None, False
    count = config.num_class_embeds
    if isinstance(count, int):
        return count, False
    return (0, False) if getattr(config, "class_embed_type", None) is None else (None, False)


def understood(network: object, arguments: Mapping[str, Any], rows: int) -> dict[str, Any]:
    """The arguments of a call, with class_labels of one row for each of x, as the network wants them.

    Raises:
        ValueError: labels of a network without classes, none of one with classes, others than its classes.
    """
    given = dict(arguments)
    count, one_hot = classes_of(network)
    labels = given.get("class_labels")
    if labels is None:
        if count:
            raise ValueError(f"the network is class-conditional, with {count} classes: give labels= (--label)")
        return given
    if count == 0:
        raise ValueError("labels are given, and the network is not class-conditional")
    labels = torch.as_tensor(labels, device=labels.device if isinstance(labels, Tensor) else torch.device("cpu"))
    if labels.is_floating_point():
        if count and one_hot and labels.shape[-1:] != (count,):
            raise ValueError(f"one-hot labels of this network have {count} entries, got shape {tuple(labels.shape)}")
        labels = labels.expand(rows, *labels.shape) if labels.ndim == 1 else labels
    else:
        labels = labels.expand(rows) if labels.ndim == 0 else labels
        if count and bool(((labels < 0) | (labels >= count)).any()):
            wrong = labels[(labels < 0) | (labels >= count)]
            raise ValueError(f"labels must lie in 0 … {count - 1}, the classes of the network, got {int(wrong[0])}")
        if one_hot and count:
            labels = torch.nn.functional.one_hot(labels.long(), count).float()
    if len(labels) != rows:
        raise ValueError(f"labels must be one, or one a row: {len(labels)} of them for {rows} rows")
    return given | {"class_labels": labels}


def numbered(labels: Any, count: int, rows: int) -> Tensor:
    """Labels of a network of ours, (rows,) int64: 0 … count − 1, or `NONE`.

    Args:
        labels: whole numbers, () or (rows,).
        count: of its classes.
        rows: of x.

    Raises:
        ValueError: a network without classes; labels that are no whole numbers, not one a row, or none of its classes.
    """
    if count == 0:
        raise ValueError("labels are given, and the network is not class-conditional")
    values = torch.as_tensor(labels)
    if values.is_floating_point() or values.ndim > 1:
        raise ValueError(f"labels must be whole numbers, one or one a row, got {values.dtype} {tuple(values.shape)}")
    if values.ndim == 1 and len(values) != rows:
        raise ValueError(f"labels must be one, or one a row: {len(values)} of them for {rows} rows")
    wrong = (values < NONE) | (values >= count)
    if bool(wrong.any()):
        raise ValueError(
            f"labels must lie in 0 … {count - 1}, the classes of the network, or be {NONE} for none, "
            f"got {int(values[wrong].flatten()[0])}"
        )
    return values.long().expand(rows)


def wanted(network: Any, arguments: Mapping[str, Any]) -> str | None:
    """What is to be said of a network that failed, where it takes labels and has not been given any."""
    if arguments.get("class_labels") is not None or classes_of(network)[0] == 0:
        return None
    try:
        parameters = inspect.signature(getattr(network, "forward", network)).parameters
    except (TypeError, ValueError):
        return None
    return "it takes class_labels: give labels= (--label)" if "class_labels" in parameters else None
