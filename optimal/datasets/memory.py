"""Data that are in memory already: arrays, tensors, lists of them, torch's datasets and the ones behind its loaders.

Items are points, or (point, label), or {"image": point, "label": label}; points are arrays, tensors, numbers or
Pillow's images. Numbers mean what `values` says, in whichever way they come.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from ..masks import refuse_mask
from .arrays import Header, plan_of
from .dataset import Dataset
from .flattened import COLOUR, GREY, stacked_pictures
from .notes import tell
from .values import ValueRange, Values, doubt

__all__ = ["doubt_units", "gathered", "read_memory", "require_plain"]

_POINTS = ("image", "images", "img", "pixel_values", "x", "data")
_LABELS = ("label", "labels", "y", "target")
_PAIR = 2
_WIDEST = 8
_FIRST = 256  # points that are looked at for whether they are grey levels


def read_memory(
    source: Any,
    *,
    layout: str | None = None,
    shape: Sequence[int] | None = None,
    value_range: ValueRange = None,
    progress: bool = True,
) -> Dataset:
    """A data set of what is in memory; all of it is held there, and read once.

    Args:
        source: an array or tensor (N, …), a list or torch `Dataset` of items, or a `DataLoader`, whose data set is
            taken in its own order.
        layout: as in `read_npy`.
        shape: as in `read_npy`.
        value_range: as in `read_npy`.
        progress: not used: nothing is decoded.

    Returns:
        uint8 (N, C, H, W), or float32 (N, *event), with int64 labels where every item has a whole number for one.

    Raises:
        ValueError: if it is nothing of that, its items differ in shape, or as `read_npy`.
    """
    if isinstance(source, Dataset):
        if (layout, shape, value_range) != (None, None, None):
            raise ValueError(f"layout, shape and value_range are for data as they come, but {source.name} is a Dataset")
        return source
    return _made(source, layout, shape, lambda _: value_range)


def gathered(source: Any) -> Dataset:
    """The same with floating point as it is: what `OptimalDenoiser` makes of data that are neither array nor tensor."""
    return _made(source, None, None, lambda dtype: None if dtype == np.uint8 else "any")


def _made(
    source: Any, layout: str | None, shape: Sequence[int] | None, range_of: Callable[[np.dtype], ValueRange]
) -> Dataset:
    name = type(source).__name__
    labels: list[Any] | None = None
    if isinstance(source, np.ndarray | torch.Tensor):
        array = _array(source, name)
    else:
        points, labels = _items(source, name)
        array = _stacked(points, name)
    if array.ndim == 0:
        raise ValueError(f"{name} must hold points along its first axis, got one number")
    value_range = range_of(array.dtype)
    header = Header(array.shape, fortran=False, dtype=array.dtype, offset=0)
    plan = plan_of(name, header, layout, shape, value_range)
    points = np.ascontiguousarray(plan.converted(array, 0))
    tell(plan.doubt(array, value_range))
    return Dataset("memory", points, _whole(labels, name))


def doubt_units(source: np.ndarray | torch.Tensor) -> None:
    """Warn where floating-point data, taken as they are, look like grey levels, by the first of their points."""
    if source.ndim < 2:
        return
    first = source[:_FIRST]
    floating = first.dtype.is_floating_point if isinstance(first, torch.Tensor) else first.dtype.kind == "f"
    if not floating or 0 in first.shape:
        return
    values = Values("the data", None, levels=False)
    what, dim = f"first {len(first)} points", math.prod(first.shape[1:])
    said = doubt(values, None, float(first.min()), float(first.max()), what, dim=dim)
    tell([f"{said}: load(data, value_range=(0, 255))"] if said else [])


def require_plain(source: Any) -> None:
    """Raise ValueError for a tensor or array that is not simply numbers: sparse, nested, masked, objects."""
    name = type(source).__name__
    if isinstance(source, torch.Tensor) and (source.layout != torch.strided or source.is_nested):
        raise ValueError(f"{name} must be one dense tensor: torch.stack([…]) makes one of many, .to_dense() of sparse")
    refuse_mask(name, source)
    if isinstance(source, np.ndarray) and (source.dtype.kind not in "fiub" or source.dtype.itemsize > _WIDEST):
        raise ValueError(f"{name} must hold numbers of at most 64 bits, got {source.dtype}")


def _array(source: Any, name: str) -> np.ndarray:
    """One array of numbers."""
    require_plain(source)
    if isinstance(source, torch.Tensor):
        plain = source.detach().cpu()
        return plain.float().numpy() if plain.dtype in (torch.bfloat16, torch.float16) else plain.resolve_conj().numpy()
    try:
        array = np.asarray(source)
    except (ValueError, TypeError, RuntimeError, OverflowError) as error:
        raise ValueError(f"{name} holds what is no array of numbers: {error}") from error
    require_plain(array)
    return array


def _items(source: Any, name: str) -> tuple[list[np.ndarray], list[Any] | None]:
    inner = getattr(source, "dataset", None)
    source = inner if isinstance(source, torch.utils.data.DataLoader) else source
    if isinstance(source, str | bytes | Mapping) or not (
        isinstance(source, Iterable) or hasattr(source, "__getitem__")
    ):
        raise ValueError(f"data must be a name, a path, an array, a tensor, a data set or a list of points, got {name}")
    try:
        # Data sets of torch have no iterator: they are asked by number, as many as they say they hold.
        held: Any = source
        listed = [held[i] for i in range(len(held))] if hasattr(held, "__len__") else list(held)
    except TypeError as error:
        raise ValueError(f"{name} cannot be read item by item: {error}") from error
    if not listed:
        raise ValueError(f"{name} is empty: a data set needs at least one point")
    labelled = isinstance(source, torch.utils.data.Dataset)
    parts = [_parts(item, name, pairs=labelled) for item in listed]
    labels = None if any(label is None for _, label in parts) else [label for _, label in parts]
    points = [point for point, _ in parts]
    pictures = [point for point in points if _is_picture(point)]
    if pictures and len(pictures) == len(points):
        arrays, kinds = stacked_pictures(pictures)
        tell(kinds.notes(name))
        return arrays, labels
    return [_array(point, name) for point in points], labels


def _is_picture(point: Any) -> bool:
    """Whether it is one of Pillow's, of a mode of 8 bits: others are arrays like any."""
    from PIL.Image import Image

    return isinstance(point, Image) and point.mode in GREY + COLOUR


def _parts(item: Any, name: str, *, pairs: bool) -> tuple[Any, Any]:
    """The point of an item, and its label or None."""
    if isinstance(item, Mapping):
        point = next((item[key] for key in _POINTS if key in item), None)
        if point is None:
            raise ValueError(f"items of {name} must hold one of {', '.join(_POINTS)}, got {', '.join(map(str, item))}")
        return point, next((item[key] for key in _LABELS if key in item), None)
    if isinstance(item, tuple | list) and (pairs or hasattr(item[:1] and item[0], "shape")):
        return item[0], item[1] if len(item) >= _PAIR else None
    return item, None


def _stacked(points: list[np.ndarray], name: str) -> np.ndarray:
    odd = next((i for i, point in enumerate(points) if point.shape != points[0].shape), None)
    if odd is not None:
        raise ValueError(
            f"the points of {name} must all have one shape, but point {odd} is {points[odd].shape} and the first "
            f"{points[0].shape}"
        )
    return np.stack(points)


def _whole(labels: list[Any] | None, name: str) -> np.ndarray | None:
    """int64 (N,), or None where they are anything but whole numbers."""
    if labels is None:
        return None
    plain = [np.asarray(label) for label in labels]
    found = np.asarray([label.item() if label.size == 1 else np.nan for label in plain])
    if found.dtype.kind not in "iu":
        tell([f"the labels of {name} are left out: they are not whole numbers"])
        return None
    return found.astype(np.int64)
