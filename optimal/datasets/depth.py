"""How many bits a channel an encoded picture has: Pillow cuts colour of 16 bits to 8 without a word."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["bits_per_channel"]

_USUAL = 8
_BITS_PER_SAMPLE = 258  # of TIFF
_NETPBM = re.compile(rb"P[2356](?:\s|#[^\n]*\n)+(\d+)(?:\s|#[^\n]*\n)+(\d+)(?:\s|#[^\n]*\n)+(\d+)")


def bits_per_channel(image: Image, data: bytes) -> int:
    """Bits of a channel, by the file's header; 8 where the header says nothing else.

    Args:
        image: as Pillow opened it.
        data: the file.
    """
    if image.format == "PNG":
        return data[24] if len(data) > 24 and data[12:16] == b"IHDR" else _USUAL
    if image.format == "PPM":
        found = _NETPBM.match(data[:4096])
        return max(_USUAL, int(found[3][:9]).bit_length()) if found else _USUAL
    if image.format == "TIFF":
        bits = image.tag_v2.get(_BITS_PER_SAMPLE, _USUAL)  # pyright: ignore[reportAttributeAccessIssue]
        return int(max(bits)) if isinstance(bits, tuple) else int(bits)
    if image.format == "JPEG2000":
        return _of_jpeg_2000(data)
    if image.format == "AVIF":
        at = data.find(b"av1C", 0, 1 << 16)
        flags = data[at + 6] if 0 <= at < len(data) - 6 else 0
        return (12 if flags & 0x20 else 10) if flags & 0x40 else _USUAL
    return _USUAL


def _of_jpeg_2000(data: bytes) -> int:
    """By the SIZ segment: FF51, its length, Rsiz, eight lengths, number of channels, (bits - 1, two lengths) each."""
    at = data.find(b"\xff\x4f\xff\x51", 0, 1 << 16)
    if at < 0 or len(data) < at + 42:
        return _USUAL
    channels = int.from_bytes(data[at + 40 : at + 42], "big")
    depths = data[at + 42 : at + 42 + 3 * channels : 3]
    return max([_USUAL, *((depth & 0x7F) + 1 for depth in depths)])
