"""NumPy arrays, `.npy` and `.npz`: images or points. Nothing is ever unpickled.

    uint8    (N, H, W), (N, C, H, W) or (N, H, W, C)     images, C = 1 or 3
    float    the same                                    images in [-1, 1], see `values` for what else they may be
    float    (N, D)                                      points, any finite values

Other whole numbers, and uint8 (N, D), need a `value_range`; flat images a `shape`. Which axis holds the channels is
seen from its length, 1 or 3; where that does not decide, `layout` must.
A `.npy` that already is what a data set needs (uint8 or float32, channels first, C order) is mapped where it lies.
"""

from __future__ import annotations

import io
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np

from ..storage import fingerprint
from . import store
from .archives import OWN
from .beginnings import named
from .dataset import Dataset
from .notes import reason, tell
from .store import Block, Decoding
from .values import ValueRange, Values, doubt, limits_of

__all__ = ["BLOCK", "Header", "Plan", "asked", "header_of", "plan_of", "read_npy"]

BLOCK = 1 << 24  # bytes converted at a time
_FIRST = 256  # images that are looked at for what their range may be
_HEADER = 1 << 16  # bytes in which the header of an array must end; NumPy writes a few hundred
_LAYOUTS = {"NCHW": 4, "NHWC": 4, "NHW": 3}


class Header(NamedTuple):
    shape: tuple[int, ...]
    fortran: bool
    dtype: np.dtype
    offset: int


class Plan(NamedTuple):
    """How the array becomes the data set's: its shape there, the layout of that, and what its numbers mean."""

    shape: tuple[int, ...]
    layout: str
    values: Values

    @property
    def channels_first(self) -> tuple[int, ...]:
        """The shape of the data set's array."""
        count, *rest = self.shape
        if self.layout == "NHW":
            return count, 1, *rest
        return (count, rest[2], rest[0], rest[1]) if self.layout == "NHWC" else self.shape

    def converted(self, block: np.ndarray, start: int) -> np.ndarray:
        """Rows of the file, from row `start`, as rows of the data set."""
        block = self.values.converted(block, start).reshape(len(block), *self.shape[1:])
        if self.layout == "NHWC":
            return block.transpose(0, 3, 1, 2)
        return block[:, None] if self.layout == "NHW" else block

    def doubt(self, block: np.ndarray, value_range: ValueRange) -> list[str]:
        """What is said of the first rows of the file where another range may be meant."""
        first = block[:_FIRST]
        what = f"first {len(first)} {'points' if self.layout == 'ND' else 'images'}"
        dim = math.prod(self.shape[1:])
        said = doubt(self.values, value_range, float(first.min()), float(first.max()), what, dim=dim)
        return [said] if said else []


def read_npy(
    path: Path,
    *,
    layout: str | None = None,
    shape: Sequence[int] | None = None,
    value_range: ValueRange = None,
    progress: bool = True,
) -> Dataset:
    """An array of a `.npy` file.

    Args:
        path: the file.
        layout: "NCHW", "NHWC" or "NHW"; None decides by the axis of length 1 or 3.
        shape: of one point, for arrays that were saved flat: (3, 64, 64) of (N, 12288).
        value_range: (lowest, highest), mapped to [-1, 1]; None means (-1, 1) for floats and (0, 255) for uint8; "any"
            takes the values as they are, e.g. of latents.
        progress: whether a progress bar is drawn on stderr.

    Returns:
        uint8 (N, C, H, W), or float32 (N, C, H, W) or (N, D); a memory map of the file itself where possible.

    Raises:
        ValueError: if the file is broken or empty, of another dtype or rank, ambiguous, out of range, or holds nan.
    """
    with path.open("rb") as file:
        header = header_of(file, str(path), path.stat().st_size)
    plan = plan_of(path.name, header, layout, shape, value_range)
    array = np.memmap(path, header.dtype, "r", header.offset, header.shape, "F" if header.fortran else "C")
    tell(plan.doubt(array, value_range))
    identity = {"kind": "npy", "file": store.stamp(path), **asked(layout, shape, value_range)}
    source = str(path.resolve())
    in_place = header.dtype in (np.uint8, np.float32) and header.dtype.isnative and not header.fortran
    kept = in_place and (header.dtype == np.float32 or plan.values.levels) and plan.values.as_they_are
    moved = plan.layout == "NHWC" and plan.shape[3] != 1 and plan.shape[1] * plan.shape[2] != 1
    if kept and not moved:
        points = array.reshape(plan.channels_first)

        def checked() -> str:
            for start, block in _slices(array):
                plan.values.check(block, start)
            return fingerprint(points)

        known = store.remember_fingerprint(path.name, identity, checked)
        return Dataset(path.name, points, None, OWN, source, known)

    def decode() -> Decoding:
        blocks = (Block(plan.converted(block, start)) for start, block in _slices(array))
        return Decoding(blocks, header.shape[0])

    return store.build(path.name, identity, decode, source=source, licence=OWN, progress=progress)


def asked(layout: str | None, shape: Sequence[int] | None, value_range: ValueRange) -> dict[str, Any]:
    """What identities hold of the options of arrays."""
    limits = limits_of(value_range)
    identity: dict[str, Any] = {"layout": layout, "value_range": value_range if limits is None else list(limits)}
    return identity if shape is None else identity | {"shape": list(_event(shape))}


def header_of(file: IO[bytes], where: str, size: int) -> Header:
    """Header of an npy stream, checked: no objects, and as many bytes behind it as it promises."""
    # A length of four bytes is believed, and so much memory asked for: what there is of a header is enough.
    head = b""
    try:
        head = file.read(_HEADER)
        start = io.BytesIO(head)
        version = np.lib.format.read_magic(start)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, fortran, dtype = read(start)
        offset = start.tell()
    except Exception as error:  # the header is Python source to numpy's parser, which raises as the broken text goes
        other = None if head.startswith(b"\x93NUMPY") else named(head)
        what = f"it is {other}" if other else "perhaps truncated"
        raise ValueError(f"{where} is not a readable npy array, {what}: {reason(error)}") from error
    if dtype.hasobject:
        raise ValueError(f"{where} holds Python objects, which are never unpickled; save it as uint8 or float")
    promised = offset + math.prod(shape) * dtype.itemsize
    if size < promised:
        raise ValueError(f"{where} is truncated: shape {shape} of {dtype} needs {promised} bytes, got {size}")
    return Header(tuple(shape), fortran, dtype, offset)


def plan_of(
    where: str, header: Header, layout: str | None, shape: Sequence[int] | None, value_range: ValueRange
) -> Plan:
    """How an array of this header is read, by the options that were given.

    Raises:
        ValueError: if they do not fit it, or what it holds cannot be told without one.
    """
    if header.dtype.kind not in "fiub":
        raise ValueError(f"{where} must be uint8 or floating point, got {header.dtype}")
    if math.prod(header.shape) == 0:
        raise ValueError(f"{where} is empty: a data set needs at least one point, got shape {header.shape}")
    full = header.shape
    if shape is not None:
        event = _event(shape)
        if not full or math.prod(event) != math.prod(full[1:]):
            raise ValueError(f"shape must have as many values as a point of {where}, {full}, got {event}")
        full = (full[0], *event)
    floating = header.dtype.kind == "f"
    found = _layout(where, full, layout, floating or value_range is not None, shape is not None)
    return Plan(full, found, Values.of(where, header.dtype, value_range, image=found != "ND"))


def _event(shape: Sequence[int]) -> tuple[int, ...]:
    event = tuple(int(length) for length in shape)
    if not event or min(event) < 1:
        raise ValueError(f"shape must be the positive lengths of one point's axes, got {event}")
    return event


def _layout(where: str, shape: tuple[int, ...], layout: str | None, points: bool, shaped: bool) -> str:
    """The layout of an array that may be points, (N, D), or whose shape was given by hand."""
    if layout is not None:
        if layout not in _LAYOUTS:
            raise ValueError(f"layout must be one of {', '.join(_LAYOUTS)}, got {layout!r}")
        if len(shape) != _LAYOUTS[layout]:
            raise ValueError(f"layout {layout} needs {_LAYOUTS[layout]} axes, but {where} has shape {shape}")
        return layout
    if points and len(shape) == 2:
        return "ND"
    if len(shape) == 3:
        if shape[2] in (1, 3) and not shaped:
            raise ValueError(f'{where} has shape {shape}, one image or many narrow ones? layout="NHW" says many')
        return "NHW"
    if len(shape) != 4:
        flat = ", or (N, D) for points" if points else "; shape=3,64,64 reads flat images" if len(shape) == 2 else ""
        raise ValueError(f"{where} must be (N, H, W), (N, C, H, W) or (N, H, W, C){flat}, got shape {shape}")
    first, last = shape[1] in (1, 3), shape[3] in (1, 3)
    if shaped and first == last:
        return "NCHW"
    if first == last:
        why = "both the second and the last axis" if first else "neither the second nor the last axis"
        raise ValueError(
            f'{why} of {where} may be the channels (1 or 3), shape {shape}: layout="NCHW" or "NHWC" decides'
        )
    return "NCHW" if first else "NHWC"


def _slices(array: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    rows = max(1, BLOCK // array[:1].nbytes)
    for start in range(0, len(array), rows):
        yield start, np.asarray(array[start : start + rows])
