"""Encoded images to uint8 arrays, one size and one kind for the whole data set.

Grey images stay one channel if all of them are grey, otherwise all become RGB. Transparency is composited on white.
A photograph is turned upright as its EXIF orientation says. Images of more than 8 bits, grey or colour, and float ones
are refused, since cutting them to 8 bits would have to be decided, not guessed. Of several pages or frames the first is
taken, and their number said.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from .beginnings import named, refuse_pointer
from .depth import bits_per_channel
from .flattened import COLOUR, GREY, Kinds, flattened
from .folders import hidden
from .notes import reason
from .store import Block
from .unreadable import Unreadable, attempted
from .values import ValueRange, Values, doubt

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = [
    "LARGEST_FILE",
    "LATER",
    "SUFFIXES",
    "Encoded",
    "check_resolution",
    "decode_images",
    "encoded_of",
    "is_picture",
]

LATER = (".jfif", ".jpe", ".pbm", ".pnm", ".avif", ".jp2", ".tga")
"""Suffixes that entries of the store made by earlier versions left out."""
SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".pgm", ".ppm", *LATER)
LARGEST_FILE = 1 << 28  # bytes; an encoded image that claims more is refused before it is read
_FORMATS = ("PNG", "JPEG", "BMP", "GIF", "WEBP", "TIFF", "PPM", "AVIF", "JPEG2000")
"""Those of SUFFIXES: of Pillow's others, some start programs (EPS) and some are hardly ever tested. TGA has no first
bytes of its own and is tried by suffix alone."""
_BLOCK = 1 << 22
_WAY_OUT = "; `magick mogrify -depth 8 FILES` rounds them, and an array in a .npy keeps what they hold"
_BITS = 8
_ORIENTED = (b"eXIf", b"Raw profile type exif", b"XML:com.adobe.xmp")
"""Chunks and texts of a PNG that may hold an orientation."""
_MANY = ("GIF", "WEBP", "TIFF", "PNG", "AVIF")
_HEADER = 1 << 12  # bytes in which an animated PNG says that it is one


class Encoded(NamedTuple):
    """An image as it was stored: a name for messages, and its bytes, or why there are none."""

    name: str
    data: bytes
    error: ValueError | None = None


def encoded_of(name: str, read: Callable[[], bytes]) -> Encoded:
    """The image whose bytes `read` gives; where it raises, `decode_images` will say so."""
    return Encoded(name, *attempted(name, read))


def is_picture(name: str) -> bool:
    """Whether a file or archive member is taken for an image, by its name: hidden files and `__MACOSX` are not."""
    return name.lower().endswith(SUFFIXES) and not hidden(name)


def check_resolution(resolution: int | None) -> None:
    """Raise ValueError unless `resolution` is None or a whole number of pixels, at least 1."""
    if resolution is None:
        return
    if isinstance(resolution, bool) or not isinstance(resolution, int) or not 1 <= resolution <= 4096:
        raise ValueError(f"resolution must be a whole number of pixels from 1 to 4096, got {resolution!r}")


class _Tally:
    """What is counted while images are decoded, and said in the end."""

    def __init__(self) -> None:
        self.kinds = Kinds()
        self.several = self.frames = 0
        self.low, self.high = 255, 0

    def add(self, kind: str | None, own: str, data: bytes, mode: str, pixels: np.ndarray, *, clear: bool) -> None:
        self.kinds = self.kinds.plus(own, mode, clear=clear)
        frames = _frames(kind, data)
        self.several += frames > 1
        self.frames += frames if frames > 1 else 0
        self.low, self.high = min(self.low, int(pixels.min())), max(self.high, int(pixels.max()))

    def notes(self, where: str, values: Values, value_range: ValueRange) -> Iterator[str]:
        if self.several:
            yield (
                f"{self.several} of the {self.kinds.images} images of {where} have several pages or frames, "
                f"{self.frames} in all; only the first of each is read"
            )
        yield from self.kinds.notes(where)
        if said := doubt(values, value_range, self.low, self.high, f"{self.kinds.images} images"):
            yield said


def decode_images(
    items: Callable[[], Iterable[Encoded]],
    where: str,
    labels: np.ndarray | None = None,
    resolution: int | None = None,
    *,
    value_range: ValueRange = None,
    notes: list[str] | None = None,
    skip: bool = False,
    kept: list[int] | None = None,
) -> Iterator[Block]:
    """Decode images into blocks (n, C, H, W) of uint8, C = 1 or 3, or float32 where `value_range` makes them so.

    Args:
        items: gives the images in order, afresh at every call; called twice if the first image is grey.
        where: what holds them, for messages.
        labels: (N, ...), cut to the blocks; None: there are none.
        resolution: crop the centre square of every image and resize it (Lanczos) to so many pixels; None leaves the
            images as they are, and they must all have the same size.
        value_range: which grey levels become -1 and 1, see `values`; None means 0 and 255.
        notes: takes what is to be said of them once all are decoded.
        skip: whether those that cannot be read are left out.
        kept: takes the places of those that are read, once all are.

    Raises:
        ValueError: for images that cannot be decoded or are too large, once all are tried, and for one that differs in
            size; they are named.
    """
    values = Values.of(where, np.dtype(np.uint8), value_range, image=True)
    tally = _Tally()
    mode = _common_mode(items(), where)
    failed = Unreadable(where, skip=skip)
    first: tuple[str, tuple[int, ...]] | None = None
    pixels: list[np.ndarray] = []
    places: list[int] = []
    done = count = 0
    for item in items():
        count += 1
        try:
            one = _decode(item, where, mode, resolution, tally)
        except ValueError as error:
            failed.add(item.name, error)
            continue
        if first is None:
            first = item.name, one.shape
        elif one.shape != first[1]:
            raise ValueError(
                f"the images of {where} must all have one size, but {item.name} is {_size(one.shape)} and the first, "
                f"{first[0]}, is {_size(first[1])}; resolution={min(*one.shape[1:], *first[1][1:])} crops and resizes "
                "all of them"
            )
        pixels.append(one)
        places.append(count - 1)
        if len(pixels) * one.nbytes >= _BLOCK:
            yield _block(pixels, labels, places[done:], values)
            done += len(pixels)
            pixels = []
    if pixels:
        yield _block(pixels, labels, places[done:], values)
    if kept is not None:
        kept += places
    said = failed.ended(count)
    if notes is not None:
        notes += [*said, *tally.notes(where, values, value_range)]


def _block(pixels: list[np.ndarray], labels: np.ndarray | None, places: list[int], values: Values) -> Block:
    points = values.converted(np.stack(pixels), places[0])
    return Block(points, None if labels is None else labels[places])


def _frames(kind: str | None, data: bytes) -> int:
    """How many pages or frames, 1 where the later ones are broken. (A phone's second JPEG is a smaller copy.)"""
    from PIL import Image

    if kind not in _MANY or (kind == "PNG" and b"acTL" not in data[:_HEADER]):
        return 1
    try:
        with Image.open(io.BytesIO(data), formats=(kind,)) as image:
            return int(getattr(image, "n_frames", 1))
    except Exception:  # whatever the broken bytes lead to
        return 1


def _common_mode(items: Iterable[Encoded], where: str) -> str:
    """L if all images are grey, else RGB; a first image in colour settles it without a look at the others."""
    for item in items:
        # Those that cannot be opened are found again, and told, when all are decoded.
        with contextlib.suppress(ValueError), _open(item, where) as image:
            if image.mode not in GREY:
                return "RGB"
    return "L"


def _open(item: Encoded, where: str) -> Image:
    """The image with its header read and checked, its pixels not yet decoded."""
    from PIL import Image

    if item.error is not None:
        raise item.error
    try:
        also = ("TGA",) if item.name.lower().endswith(".tga") else ()
        image = Image.open(io.BytesIO(item.data), formats=(*_FORMATS, *also))
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ValueError(f"{item.name} in {where} is refused for its size: {error}") from error
    except Exception as error:  # Pillow's plug-ins raise whatever the broken bytes lead them to
        refuse_pointer(item.data[:100], f"{item.name} in {where}")
        what = "it is empty" if not item.data else f"it is {named(item.data[:512])}" if named(item.data[:512]) else ""
        raise ValueError(f"{item.name} in {where} cannot be read as an image: {what or reason(error)}") from error
    limit = Image.MAX_IMAGE_PIXELS
    if limit is not None and image.width * image.height > limit:
        raise ValueError(
            f"{item.name} in {where} claims {image.width}x{image.height} pixels, more than the {limit} allowed"
        )
    if image.mode not in GREY + COLOUR:
        raise ValueError(f"{item.name} in {where} must have 8 bits per channel, but its mode is {image.mode}{_WAY_OUT}")
    bits = bits_per_channel(image, item.data)
    if bits > _BITS:
        raise ValueError(f"{item.name} in {where} must have 8 bits per channel, but it has {bits}{_WAY_OUT}")
    return image


def _decode(item: Encoded, where: str, mode: str, resolution: int | None, tally: _Tally) -> np.ndarray:
    from PIL import ImageOps

    with _open(item, where) as image:
        own = image.mode
        try:
            # To look for an orientation that a PNG rarely has takes Pillow longer than to decode it.
            if image.format != "PNG" or any(mark in item.data for mark in _ORIENTED):
                ImageOps.exif_transpose(image, in_place=True)
            plain, clear = flattened(image, mode)
            if resolution is not None:
                plain = _crop_and_resize(plain, resolution)
            pixels = np.asarray(plain)
        except Exception as error:
            raise ValueError(f"{item.name} in {where} cannot be decoded: {reason(error)}") from error
        tally.add(image.format, own, item.data, mode, pixels, clear=clear)
    return pixels[None] if mode == "L" else pixels.transpose(2, 0, 1)


def _crop_and_resize(image: Image, resolution: int) -> Image:
    from PIL.Image import Resampling

    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    square = image.crop((left, top, left + side, top + side))
    return square if side == resolution else square.resize((resolution, resolution), Resampling.LANCZOS)


def _size(shape: tuple[int, ...]) -> str:
    return f"{shape[2]}x{shape[1]}"
