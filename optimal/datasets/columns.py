"""Which columns of a parquet file hold the images and their labels, by its schema."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from .pixels import depth_of, plain_type

__all__ = ["Columns", "columns_of", "is_whole"]

_LABELS = ("label", "labels")
_NAMES = ("image", "images", "img", "pixel_values", "pixels")
_PICTURE = 2


class Columns(NamedTuple):
    """Names of the columns of images and of labels, and whether the first holds pixels and not encoded images."""

    image: str
    label: str | None
    pixels: bool


def columns_of(
    schema: Any, file: Path, column: str | None, label_column: str | bool | None, notes: list[str]
) -> Columns:
    """The columns of images and of labels.

    Args:
        schema: pyarrow's.
        file: for messages.
        column, label_column: those asked for, see `read_parquet`.
        notes: takes what is to be said of labels that are left out.

    Raises:
        ValueError: if the images are not to be found, or what was asked for holds something else.
    """
    usual = [str(field.name) for field in schema if _holds_images(field.type)]
    images = usual + [
        str(field.name) for field in schema if _holds_images(_inner(field.type)) and field.name not in usual
    ]
    depths = {str(field.name): depth_of(field.type) for field in schema}
    pixels = [name for name, depth in depths.items() if depth >= _PICTURE]
    # Lists of two levels may be boxes or sequences: they are taken for pictures by their name only.
    likely = usual or images or [name for name in pixels if depths[name] > _PICTURE or name in _NAMES]
    if column is None and len(likely) == 1:
        column = likely[0]
    images += pixels
    if column is None or (column not in images and not depths.get(column)):
        asked = "" if column is None else f", got {column!r}"
        there = ", ".join(f"{field.name} ({field.type})" for field in schema)
        known = ", ".join(images) or f"no column is binary or lists of numbers in lists: {there[:300]}"
        raise ValueError(f"column= must name the images of {file}: {known}{asked}")
    whole = [str(field.name) for field in schema if is_whole(field.type)]
    if label_column is False:
        return Columns(column, None, bool(depths[column]))
    if label_column is not None and label_column not in whole:
        known = ", ".join(whole) or "there are none"
        raise ValueError(f"label_column= must name whole numbers of {file}: {known}, got {label_column!r}")
    found = label_column or next((name for name in _LABELS if name in whole), None)
    other = next((field for field in schema if field.name in _LABELS), None)
    if found is None and other is not None:
        notes.append(f"the labels of {file.name} are left out: {other.name} is {other.type}, not whole numbers")
    return Columns(column, None if found is None else str(found), bool(depths[column]))


def is_whole(kind: Any) -> bool:
    """Whether a type is whole numbers, also where they are kept in a dictionary."""
    from pyarrow import types

    return types.is_integer(kind.value_type if types.is_dictionary(kind) else kind)


def _holds_images(kind: Any) -> bool:
    from pyarrow import types

    kind = plain_type(kind)
    if types.is_struct(kind):
        return kind.get_field_index("bytes") >= 0
    return types.is_binary(kind) or types.is_large_binary(kind)


def _inner(kind: Any) -> Any:
    """What a dictionary or list is of, and a view or bytes of fixed size as binary."""
    import pyarrow
    from pyarrow import types

    kind = plain_type(kind)
    while (
        types.is_dictionary(kind) or types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind)
    ):
        kind = kind.value_type
    return pyarrow.binary() if types.is_binary_view(kind) or types.is_fixed_size_binary(kind) else kind
