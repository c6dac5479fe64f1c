"""CIFAR's binary version: rows of bytes, a label or two and then a picture, channels first.

cifar-10-batches-bin/data_batch_1.bin … data_batch_5.bin  test_batch.bin      <label> <3072 grey levels>
cifar-100-binary/train.bin  test.bin                                          <coarse> <fine> <3072 grey levels>
"""

from __future__ import annotations

from typing import Any

import numpy as np

__all__ = ["rows_of", "size_of_a_row"]

_LEVELS = 3072
_TEN, _HUNDRED = ("labels",), ("coarse_labels", "fine_labels")
"""The labels of a row, in the order of its first bytes, by the names that Python's version has for them."""


def size_of_a_row(name: str) -> int:
    """Bytes of a picture with its labels, by the name of the batch.

    Example:
        >>> size_of_a_row("data_batch_1.bin"), size_of_a_row("train.bin")
        (3073, 3074)
    """
    return _LEVELS + len(_labels(name))


def rows_of(name: str, data: bytes) -> dict[str, Any]:
    """A batch as Python's version would hold it.

    Args:
        name: of the batch, "data_batch_1.bin" or "train.bin".
        data: all of it.

    Returns:
        {data: uint8 (N, 3072), labels: [N]}, or with fine_labels and coarse_labels in place of the last.

    Raises:
        ValueError: if it is not a whole number of rows, or empty.
    """
    size = size_of_a_row(name)
    if not data or len(data) % size:
        raise ValueError(f"it must be rows of {size} bytes, but has {len(data):,} bytes, {len(data) / size:.2f} rows")
    labels = _labels(name)
    rows = np.frombuffer(data, np.uint8).reshape(-1, size)
    return {"data": rows[:, len(labels) :]} | {key: rows[:, i].tolist() for i, key in enumerate(labels)}


def _labels(name: str) -> tuple[str, ...]:
    return _TEN if "batch" in name.rpartition("/")[2] else _HUNDRED
