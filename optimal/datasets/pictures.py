"""Encoded images to uint8 arrays, one size and one kind for the whole data set.

Grey images stay one channel if all of them are grey, otherwise all become RGB. Transparency is composited on white.
A photograph is turned upright as its EXIF orientation says. 16-bit grey and float images are refused, since cutting
them to 8 bits would have to be decided, not guessed.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from .store import Block

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["LARGEST_FILE", "SUFFIXES", "Encoded", "check_resolution", "decode_images", "is_picture", "read_labels"]

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".pgm", ".ppm")
LARGEST_FILE = 1 << 28  # bytes; an encoded image that claims more is refused before it is read
_FORMATS = ("PNG", "JPEG", "BMP", "GIF", "WEBP", "TIFF", "PPM")
"""Those of SUFFIXES: of Pillow's others, some start programs (EPS) and some are hardly ever tested."""
_BLOCK = 1 << 22
_GREY = ("1", "L", "LA", "La")
_COLOUR = ("P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "LAB", "HSV")


class Encoded(NamedTuple):
    """An image as it was stored: a name for messages, its bytes, and its label or None."""

    name: str
    data: bytes
    label: Any = None


def is_picture(name: str) -> bool:
    """Whether a file or archive member is taken for an image, by its name: hidden files and `__MACOSX` are not."""
    parts = name.split("/")
    hidden = any(part.startswith(".") or part == "__MACOSX" for part in parts)
    return not hidden and parts[-1].lower().endswith(SUFFIXES)


def check_resolution(resolution: int | None) -> None:
    """Raise ValueError unless `resolution` is None or a whole number of pixels, at least 1."""
    if resolution is None:
        return
    if isinstance(resolution, bool) or not isinstance(resolution, int) or not 1 <= resolution <= 4096:
        raise ValueError(f"resolution must be a whole number of pixels from 1 to 4096, got {resolution!r}")


def decode_images(
    items: Callable[[], Iterable[Encoded]], where: str, labels: np.ndarray | None = None, resolution: int | None = None
) -> Iterator[Block]:
    """Decode images into blocks (n, C, H, W) of uint8, C = 1 or 3.

    Args:
        items: gives the images in order, afresh at every call; called twice if the first image is grey.
        where: what holds them, for messages.
        labels: (N, ...), cut to the blocks; None takes the labels of the items, if they have any.
        resolution: crop the centre square of every image and resize it (Lanczos) to so many pixels; None leaves the
            images as they are, and they must all have the same size.

    Raises:
        ValueError: for an image that cannot be decoded, is too large, or differs in size; it is named.
    """
    mode = _common_mode(items(), where)
    first: tuple[str, tuple[int, ...]] | None = None
    pixels: list[np.ndarray] = []
    own: list[Any] = []
    done = 0
    for item in items():
        one = _decode(item, where, mode, resolution)
        if first is None:
            first = item.name, one.shape
        elif one.shape != first[1]:
            raise ValueError(
                f"the images of {where} must all have one size, but {item.name} is {_size(one.shape)} and the first, "
                f"{first[0]}, is {_size(first[1])}; resolution= crops and resizes all of them"
            )
        pixels.append(one)
        own.append(item.label)
        if len(pixels) * one.nbytes >= _BLOCK:
            yield _block(pixels, own, labels, done)
            done += len(pixels)
            pixels, own = [], []
    if pixels:
        yield _block(pixels, own, labels, done)


def read_labels(text: bytes, names: Sequence[str], where: str) -> np.ndarray | None:
    """The labels of EDM's `dataset.json`: {"labels": [["00000/img00000000.png", 3], ...]} or {"labels": null}.

    Args:
        text: content of the file.
        names: the images, in the order in which their labels are wanted.
        where: what holds them, for messages.

    Returns:
        int64 (N,), float32 (N, K), or None where there are no labels.

    Raises:
        ValueError: if the file is malformed or an image has no label.
    """
    try:
        listed = json.loads(text).get("labels")
        known = None if not listed else {str(name).replace("\\", "/"): label for name, label in listed}
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f'dataset.json of {where} must be {{"labels": [[name, label], ...]}}: {error}') from error
    if known is None:
        return None
    missing = next((name for name in names if name not in known), None)
    if missing is not None:
        raise ValueError(f"dataset.json of {where} has no label for {missing}")
    return as_labels([known[name] for name in names], where)


def as_labels(values: Sequence[Any], where: str) -> np.ndarray:
    """Labels as int64 (N,) or (N, K), or float32 where they are no whole numbers.

    Raises:
        ValueError: if they are neither numbers nor equally long lists of numbers.
    """
    try:
        labels = np.asarray(values)
    except (ValueError, OverflowError) as error:
        raise ValueError(f"the labels of {where} must be numbers or equally long lists of numbers") from error
    if labels.dtype.kind not in "biuf" or labels.ndim not in (1, 2):
        raise ValueError(f"the labels of {where} must be numbers or equally long lists of numbers")
    return labels.astype(np.float32 if labels.dtype.kind == "f" else np.int64)


def _block(pixels: list[np.ndarray], own: list[Any], labels: np.ndarray | None, done: int) -> Block:
    if labels is not None:
        return Block(np.stack(pixels), labels[done : done + len(pixels)])
    return Block(np.stack(pixels), np.asarray(own, dtype=np.int64) if own[0] is not None else None)


def _common_mode(items: Iterable[Encoded], where: str) -> str:
    """L if all images are grey, else RGB; a first image in colour settles it without a look at the others."""
    for item in items:
        with _open(item, where) as image:
            if image.mode not in _GREY:
                return "RGB"
    return "L"


def _open(item: Encoded, where: str) -> Image:
    """The image with its header read and checked, its pixels not yet decoded."""
    from PIL import Image

    try:
        image = Image.open(io.BytesIO(item.data), formats=_FORMATS)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ValueError(f"{item.name} in {where} is refused for its size: {error}") from error
    except Exception as error:  # Pillow's plug-ins raise whatever the broken bytes lead them to
        raise ValueError(f"{item.name} in {where} cannot be read as an image: {_reason(error)}") from error
    limit = Image.MAX_IMAGE_PIXELS
    if limit is not None and image.width * image.height > limit:
        raise ValueError(
            f"{item.name} in {where} claims {image.width}x{image.height} pixels, more than the {limit} allowed"
        )
    if image.mode not in _GREY + _COLOUR:
        raise ValueError(f"{item.name} in {where} must have 8 bits per channel, but its mode is {image.mode}")
    return image


def _decode(item: Encoded, where: str, mode: str, resolution: int | None) -> np.ndarray:
    from PIL import Image, ImageOps

    with _open(item, where) as image:
        try:
            if image.format != "PNG":  # a PNG has no orientation worth the time that the search for it takes
                ImageOps.exif_transpose(image, in_place=True)
            if image.has_transparency_data:
                white = Image.new("RGBA", image.size, "white")
                white.alpha_composite(image.convert("RGBA"))
                plain = white.convert(mode)
            else:
                plain = image.convert(mode)
            if resolution is not None:
                plain = _crop_and_resize(plain, resolution)
            pixels = np.asarray(plain)
        except Exception as error:
            raise ValueError(f"{item.name} in {where} cannot be decoded: {_reason(error)}") from error
    return pixels[None] if mode == "L" else pixels.transpose(2, 0, 1)


def _crop_and_resize(image: Image, resolution: int) -> Image:
    from PIL.Image import Resampling

    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    square = image.crop((left, top, left + side, top + side))
    return square if side == resolution else square.resize((resolution, resolution), Resampling.LANCZOS)


def _size(shape: tuple[int, ...]) -> str:
    return f"{shape[2]}x{shape[1]}"


def _reason(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
