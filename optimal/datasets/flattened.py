"""Pillow's pictures as grey levels of one kind, whether they come from files or are in memory.

All are L if each is grey, black and white or grey with transparency, else RGB. What is transparent is put on white, and
what a palette or inks say becomes colours.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["COLOUR", "GREY", "Kinds", "flattened", "stacked_pictures"]

GREY = ("1", "L", "LA", "La")
COLOUR = ("P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "LAB", "HSV")
_OPAQUE = 255


class Kinds(NamedTuple):
    """How many pictures there are, and how many of them were changed: made RGB, put on white, of inks."""

    images: int = 0
    grey: int = 0
    clear: int = 0
    inks: int = 0

    def notes(self, where: str) -> Iterator[str]:
        """What is said of them."""
        if self.grey and self.grey < self.images:
            yield f"{self.grey} of the {self.images} images of {where} are grey and were made RGB, as the others are"
        if self.clear:
            yield f"{self.clear} of the {self.images} images of {where} are transparent in places and were put on white"
        if self.inks:
            yield (
                f"{self.inks} of the {self.images} images of {where} are CMYK and were made RGB, their colours about "
                "what they are in print"
            )

    def plus(self, own: str, mode: str, *, clear: bool) -> Kinds:
        """With one more, whose own mode was made `mode`."""
        grey = mode == "RGB" and own in GREY
        return Kinds(self.images + 1, self.grey + grey, self.clear + clear, self.inks + (own == "CMYK"))


def flattened(image: Image, mode: str) -> tuple[Image, bool]:
    """The picture as L or RGB, and whether any of it was transparent."""
    from PIL import Image as Pictures

    if not image.has_transparency_data:
        return image.convert(mode), False
    own = image.convert("RGBA")
    white = Pictures.new("RGBA", image.size, "white")
    white.alpha_composite(own)
    return white.convert(mode), min(own.getchannel("A").tobytes()) < _OPAQUE


def stacked_pictures(images: Sequence[Image]) -> tuple[list[np.ndarray], Kinds]:
    """Pictures in memory as arrays (H, W), or (H, W, 3) where one is in colour."""
    mode = "L" if all(image.mode in GREY for image in images) else "RGB"
    arrays, kinds = list[np.ndarray](), Kinds()
    for image in images:
        plain, clear = flattened(image, mode)
        arrays.append(np.asarray(plain))
        kinds = kinds.plus(image.mode, mode, clear=clear)
    return arrays, kinds
