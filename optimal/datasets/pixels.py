"""Columns of pixels: lists of lists of numbers, as many in every row, and Arrow's tensors of fixed shape.

A column of type list<list<list<uint8>>> becomes (n, *event), and what that means is said by `arrays`, as of a `.npy`.
Hugging Face's Array2D and Array3D are such lists.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .notes import reason

__all__ = ["depth_of", "plain_type", "stacked"]


def plain_type(kind: Any) -> Any:
    """What a column is stored as, where its type is an extension of Arrow's."""
    import pyarrow

    while isinstance(kind, pyarrow.BaseExtensionType):
        kind = kind.storage_type
    return kind


def depth_of(kind: Any) -> int:
    """How many lists there are around the numbers of a row; 0 where it holds something else.

    A tensor of fixed shape is stored as one list, but has as many axes as its shape.
    """
    from pyarrow import types

    shape, depth, kind = getattr(kind, "shape", None), 0, plain_type(kind)
    while _is_list(kind):
        depth, kind = depth + 1, kind.value_type
    numbers = types.is_integer(kind) or types.is_floating(kind)
    return 0 if not numbers else depth if shape is None else len(shape)


def stacked(cells: Any, where: str, first: int) -> np.ndarray:
    """Rows of such a column as one array.

    Args:
        cells: pyarrow's array, n rows.
        where: what they are called in messages.
        first: number of the first row.

    Returns:
        (n, *event).

    Raises:
        ValueError: a row is missing, or differs in shape from the others.
    """
    import pyarrow

    event: tuple[int, ...] | None = None
    if isinstance(cells, pyarrow.FixedShapeTensorArray):
        event = tuple(cells.type.shape)
        permuted = cells.type.permutation
        if permuted is not None and list(permuted) != sorted(permuted):
            raise ValueError(f"{where} must lie in the order of its axes, but they are permuted: {list(permuted)}")
    while isinstance(cells, pyarrow.ExtensionArray):
        cells = cells.storage
    shape = [len(cells)]
    try:
        while _is_list(cells.type):
            _require_whole(cells, where, first, shape)
            lengths = cells.value_lengths().to_numpy(zero_copy_only=False)
            if (odd := np.flatnonzero(lengths != lengths[:1])).size:
                row = first + int(odd[0]) // max(1, int(np.prod(shape[1:])))
                raise ValueError(f"row {row} of {where} differs in shape from those before it")
            shape.append(int(lengths[0]) if lengths.size else 0)
            cells = cells.flatten()
        _require_whole(cells, where, first, shape)
        return cells.to_numpy(zero_copy_only=False).reshape([shape[0], *(event or shape[1:])])
    except pyarrow.ArrowException as error:
        raise ValueError(f"{where} cannot be read, rows {first} and after: {reason(error)}") from error


def _is_list(kind: Any) -> bool:
    from pyarrow import types

    return types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind)


def _require_whole(cells: Any, where: str, first: int, shape: list[int]) -> None:
    """That nothing is missing."""
    if cells.null_count:
        place = int(cells.is_null().to_numpy(zero_copy_only=False).argmax())
        raise ValueError(f"row {first + place // max(1, int(np.prod(shape[1:])))} of {where} has missing values")
