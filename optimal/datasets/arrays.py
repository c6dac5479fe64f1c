"""NumPy arrays, `.npy` and `.npz`: images or points. Nothing is ever unpickled.

    uint8    (N, H, W), (N, C, H, W) or (N, H, W, C)     images, C = 1 or 3
    float    the same                                    images in [-1, 1], see `value_range`
    float    (N, D)                                      points, any finite values

Which axis holds the channels is seen from its length, 1 or 3; where that does not decide, `layout` must.
A `.npy` that already is what a data set needs (uint8 or float32, channels first, C order) is mapped where it lies.
"""

from __future__ import annotations

import io
import math
import warnings
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np

from ..storage import fingerprint
from . import store
from .archives import OWN, open_member, open_zip
from .dataset import Dataset
from .store import Block, Decoding

__all__ = ["read_npy", "read_npz"]

_BLOCK = 1 << 24  # bytes converted at a time
_HEADER = 1 << 16  # bytes in which the header of an array must end; NumPy writes a few hundred
_SLACK = 1e-6  # by how much rounding may carry an image value beyond its range
_LABELS = "labels"
_KINDS = {"f": "uint8", "iuf": "whole numbers"}
_LAYOUTS = {"NCHW": 4, "NHWC": 4, "NHW": 3}


class _Header(NamedTuple):
    shape: tuple[int, ...]
    fortran: bool
    dtype: np.dtype
    offset: int


class _Plan(NamedTuple):
    """How the array becomes the data set's: what it is called, its layout, and the range of its values (or None)."""

    where: str
    layout: str
    limits: tuple[float, float] | None


def read_npy(
    path: Path,
    *,
    layout: str | None = None,
    value_range: tuple[float, float] | str | None = None,
    progress: bool = True,
) -> Dataset:
    """An array of a `.npy` file.

    Args:
        path: the file.
        layout: "NCHW", "NHWC" or "NHW"; None decides by the axis of length 1 or 3.
        value_range: (lowest, highest) of float images, mapped to [-1, 1]; None means (-1, 1); "any" takes the values
            as they are, e.g. of latents.
        progress: whether a progress bar is drawn on stderr.

    Returns:
        uint8 (N, C, H, W), or float32 (N, C, H, W) or (N, D); a memory map of the file itself where possible.

    Raises:
        ValueError: if the file is broken or empty, of another dtype or rank, ambiguous, out of range, or holds nan.
    """
    with path.open("rb") as file:
        header = _header(file, str(path), path.stat().st_size)
    plan = _plan(path.name, header, layout, value_range)
    order = "F" if header.fortran else "C"
    array = np.memmap(path, header.dtype, "r", header.offset, header.shape, order)
    _warn_if_unsigned(array[:256], plan, value_range)
    identity = _identity("npy", path, layout, value_range)
    source = str(path.resolve())
    in_place = header.dtype in (np.uint8, np.float32) and header.dtype.isnative and not header.fortran
    moved = plan.layout == "NHWC" and header.shape[3] != 1 and header.shape[1] * header.shape[2] != 1
    scaled = plan.limits is not None and plan.limits != (-1.0, 1.0)
    if in_place and not moved and not scaled:
        points = array.reshape(_channels_first(header.shape, plan.layout))

        def checked() -> str:
            for start, block in _slices(array):
                _check_values(block, plan, start)
            return fingerprint(points)

        known = store.remember_fingerprint(path.name, identity, checked)
        return Dataset(path.name, points, None, OWN, source, known)

    def decode() -> Decoding:
        blocks = (Block(_convert(block, plan, start)) for start, block in _slices(array))
        return Decoding(blocks, header.shape[0])

    return store.build(path.name, identity, decode, source=source, licence=OWN, progress=progress)


def read_npz(
    path: Path,
    *,
    key: str | None = None,
    layout: str | None = None,
    value_range: tuple[float, float] | str | None = None,
    progress: bool = True,
) -> Dataset:
    """An array of a `.npz` file, compressed or not, with the labels of its points if the other array is `labels`.

    Args:
        path: the file.
        key: which of its arrays; may be None if there is only one beside the labels.
        layout: as in `read_npy`.
        value_range: as in `read_npy`.
        progress: whether a progress bar is drawn on stderr.

    Returns:
        uint8 (N, C, H, W), or float32 (N, C, H, W) or (N, D), from the store; labels int64 (N,) or float32 (N, K).

    Raises:
        ValueError: as `read_npy`, and if `key` is missing or unknown, or labels are not one for each point.
    """

    def decode() -> Decoding:
        chosen, member, beside = _member(path, key)
        where = f"{chosen} in {path}"
        with open_zip(path, "npz") as archive, _opened(archive, member, where) as file:
            header = _header(file, where, member.file_size)
        plan = _plan(f"{chosen} in {path.name}", header, layout, value_range)
        labels = None if beside is None else _npz_labels(path, beside, header.shape[0])
        blocks = _npz_blocks(path, member, header, plan, value_range)
        return Decoding(blocks if labels is None else _labelled(blocks, labels), header.shape[0])

    identity = {**_identity("npz", path, layout, value_range), "key": key, "labels": _LABELS}
    return store.build(path.name, identity, decode, source=str(path.resolve()), licence=OWN, progress=progress)


def _identity(
    kind: str, path: Path, layout: str | None, value_range: tuple[float, float] | str | None
) -> dict[str, Any]:
    limits = value_range if value_range is None or isinstance(value_range, str) else [float(v) for v in value_range]
    return {"kind": kind, "file": store.stamp(path), "layout": layout, "value_range": limits}


def _header(file: IO[bytes], where: str, size: int, kinds: str = "f") -> _Header:
    """Header of an npy stream, checked: no objects, and as many bytes behind it as it promises."""
    try:
        # A length of four bytes is believed, and so much memory asked for: what there is of a header is enough.
        start = io.BytesIO(file.read(_HEADER))
        version = np.lib.format.read_magic(start)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, fortran, dtype = read(start)
        offset = start.tell()
    except Exception as error:  # the header is Python source to numpy's parser, which raises as the broken text goes
        raise ValueError(f"{where} is not a readable npy array, perhaps truncated: {error}") from error
    if dtype.hasobject:
        raise ValueError(f"{where} holds Python objects, which are never unpickled; save it as uint8 or float")
    if dtype.kind not in kinds and dtype != np.uint8:
        raise ValueError(f"{where} must be {_KINDS[kinds]} or floating point, got {dtype}")
    promised = offset + math.prod(shape) * dtype.itemsize
    if size < promised:
        raise ValueError(f"{where} is truncated: shape {shape} of {dtype} needs {promised} bytes, got {size}")
    return _Header(tuple(shape), fortran, dtype, offset)


def _plan(where: str, header: _Header, layout: str | None, value_range: tuple[float, float] | str | None) -> _Plan:
    shape, floating = header.shape, header.dtype.kind == "f"
    if math.prod(shape) == 0:
        raise ValueError(f"{where} is empty: a data set needs at least one point, got shape {shape}")
    found = _layout(where, shape, layout, floating)
    if value_range is None:
        return _Plan(where, found, (-1.0, 1.0) if floating and found != "ND" else None)
    if not floating:
        raise ValueError(f"value_range is for floating point, but {where} is {header.dtype}")
    if isinstance(value_range, str):
        if value_range != "any":
            raise ValueError(f'value_range must be (lowest, highest) or "any", got {value_range!r}')
        return _Plan(where, found, None)
    limits = tuple(float(value) for value in value_range)
    if len(limits) != 2 or not (math.isfinite(limits[0]) and math.isfinite(limits[1]) and limits[0] < limits[1]):
        raise ValueError(f"value_range must be (lowest, highest) with lowest < highest, got {value_range!r}")
    return _Plan(where, found, (limits[0], limits[1]))


def _layout(where: str, shape: tuple[int, ...], layout: str | None, floating: bool) -> str:
    if layout is not None:
        if layout not in _LAYOUTS:
            raise ValueError(f"layout must be one of {', '.join(_LAYOUTS)}, got {layout!r}")
        if len(shape) != _LAYOUTS[layout]:
            raise ValueError(f"layout {layout} needs {_LAYOUTS[layout]} axes, but {where} has shape {shape}")
        return layout
    if floating and len(shape) == 2:
        return "ND"
    if len(shape) == 3:
        if shape[2] in (1, 3):
            raise ValueError(f'{where} has shape {shape}, one image or many narrow ones? layout="NHW" says many')
        return "NHW"
    if len(shape) != 4:
        points = ", or (N, D) for points" if floating else ""
        raise ValueError(f"{where} must be (N, H, W), (N, C, H, W) or (N, H, W, C){points}, got shape {shape}")
    first, last = shape[1] in (1, 3), shape[3] in (1, 3)
    if first == last:
        why = "both the second and the last axis" if first else "neither the second nor the last axis"
        raise ValueError(
            f'{why} of {where} may be the channels (1 or 3), shape {shape}: layout="NCHW" or "NHWC" decides'
        )
    return "NCHW" if first else "NHWC"


def _channels_first(shape: tuple[int, ...], layout: str) -> tuple[int, ...]:
    if layout == "NHW":
        return shape[0], 1, shape[1], shape[2]
    return (shape[0], shape[3], shape[1], shape[2]) if layout == "NHWC" else shape


def _convert(block: np.ndarray, plan: _Plan, start: int) -> np.ndarray:
    """Rows of the file, from row `start`, as rows of the data set."""
    _check_values(block, plan, start)
    if plan.limits is not None and plan.limits != (-1.0, 1.0):
        low, high = plan.limits
        block = (block.astype(np.float64) - low) * (2.0 / (high - low)) - 1.0
    block = np.asarray(block, dtype=np.uint8 if block.dtype == np.uint8 else np.float32)
    if plan.layout == "NHWC":
        return block.transpose(0, 3, 1, 2)
    return block[:, None] if plan.layout == "NHW" else block


def _check_values(block: np.ndarray, plan: _Plan, start: int) -> None:
    if block.dtype == np.uint8:
        return
    with np.errstate(over="ignore"):
        finite = np.isfinite(block.astype(np.float32, copy=False))
    if not finite.all():
        row = int(np.argmin(finite.reshape(len(block), -1).all(axis=1)))
        raise ValueError(f"{plan.where} must be finite in float32, but point {start + row} holds nan or infinity")
    if plan.limits is None:
        return
    low, high = plan.limits
    slack = _SLACK * (high - low)
    least, most = float(block.min()), float(block.max())
    if least < low - slack or most > high + slack:
        worst = least if least < low - slack else most
        raise ValueError(
            f"float images of {plan.where} must lie in [{low:g}, {high:g}], got {worst:g}; "
            f'value_range=(lowest, highest) maps another range to [-1, 1], value_range="any" takes it as it is'
        )


def _warn_if_unsigned(block: np.ndarray, plan: _Plan, value_range: tuple[float, float] | str | None) -> None:
    if value_range is None and plan.limits is not None and bool(block.min() >= 0.0) and bool(block.max() > 0.0):
        warnings.warn(
            f"no value of {plan.where} (first {len(block)} images) is below 0, though float images are taken to lie in "
            "[-1, 1]; if they lie in [0, 1] say value_range=(0, 1), otherwise value_range=(-1, 1)",
            UserWarning,
            stacklevel=5,
        )


def _slices(array: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    rows = max(1, _BLOCK // array[:1].nbytes)
    for start in range(0, len(array), rows):
        yield start, np.asarray(array[start : start + rows])


def _member(path: Path, key: str | None) -> tuple[str, zipfile.ZipInfo, zipfile.ZipInfo | None]:
    """The name of the array and where it lies, and where its labels do."""
    with open_zip(path, "npz") as archive:
        members = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
    if not members:
        raise ValueError(f"{path} holds no arrays")
    others = [name for name in members if name != _LABELS]
    if key is None and len(members) == 1:
        key = next(iter(members))
    elif key is None and len(others) == 1:
        key = others[0]
    if key is None or key not in members:
        asked = "" if key is None else f", got {key!r}"
        raise ValueError(f"key= must name one of the arrays of {path}: {', '.join(members)}{asked}")
    # Of several arrays it is not known whose labels they are.
    return key, members[key], members.get(_LABELS) if others == [key] else None


def _opened(archive: zipfile.ZipFile, member: zipfile.ZipInfo, where: str) -> IO[bytes]:
    try:
        return open_member(archive, member)
    except Exception as error:  # encryption, a broken header, an offset beyond the file: each its own exception
        raise ValueError(f"{where} cannot be read, perhaps truncated: {error}") from error


def _npz_labels(path: Path, member: zipfile.ZipInfo, count: int) -> np.ndarray:
    """int64 (N,) or float32 (N, K)."""
    where = f"{_LABELS} in {path}"
    try:
        with open_zip(path, "npz") as archive, _opened(archive, member, where) as file:
            header = _header(file, where, member.file_size, "iuf")
            vectors = header.dtype.kind == "f" and len(header.shape) == 2
            if header.shape[:1] != (count,) or not (vectors or (header.dtype.kind in "iu" and len(header.shape) == 1)):
                raise ValueError(
                    f"{where} must be whole numbers (N,) or vectors (N, K) with N = {count}, got {header.dtype} "
                    f"{header.shape}"
                )
        with open_zip(path, "npz") as archive, _opened(archive, member, where) as file:
            file.read(header.offset)
            size = math.prod(header.shape) * header.dtype.itemsize
            flat = np.frombuffer(_exactly(file, size), header.dtype)
    except (zipfile.BadZipFile, EOFError, OSError, NotImplementedError, RuntimeError, zipfile.zlib.error) as error:  # pyright: ignore
        raise ValueError(f"{where} cannot be read, perhaps truncated: {error}") from error
    return flat.reshape(header.shape, order="F" if header.fortran else "C").astype(np.float32 if vectors else np.int64)


def _labelled(blocks: Iterator[Block], labels: np.ndarray) -> Iterator[Block]:
    start = 0
    for block in blocks:
        yield Block(block.points, labels[start : start + len(block.points)])
        start += len(block.points)


def _npz_blocks(
    path: Path, member: zipfile.ZipInfo, header: _Header, plan: _Plan, value_range: tuple[float, float] | str | None
) -> Iterator[Block]:
    """Stream the array out of the zip: it need not fit into memory, unless it is stored in Fortran order."""
    count, row = header.shape[0], math.prod(header.shape[1:])
    rows = count if header.fortran else max(1, _BLOCK // (row * header.dtype.itemsize))
    with open_zip(path, "npz") as archive:
        try:
            with _opened(archive, member, plan.where) as file:
                file.read(header.offset)
                for start in range(0, count, rows):
                    n = min(rows, count - start)
                    flat = np.frombuffer(_exactly(file, n * row * header.dtype.itemsize), header.dtype)
                    block = flat.reshape((n, *header.shape[1:]), order="F" if header.fortran else "C")
                    if start == 0:
                        _warn_if_unsigned(block[:256], plan, value_range)
                    yield Block(_convert(block, plan, start))
        except (zipfile.BadZipFile, EOFError, OSError, NotImplementedError, RuntimeError, zipfile.zlib.error) as error:  # pyright: ignore
            raise ValueError(f"{plan.where} cannot be read, perhaps truncated: {error}") from error


def _exactly(file: IO[bytes], size: int) -> bytes:
    data = file.read(size)
    if len(data) < size:
        raise EOFError(f"{size} bytes expected, {len(data)} found")
    return data
