"""What the command lines share: data and points from words, answers, estimates of time, options, one way to end."""

from .estimate import announce, in_words
from .options import device_of, parse_options, parsed, suffixed, writable
from .point_files import read_point, save_grid

__all__ = [
    "announce",
    "device_of",
    "in_words",
    "parse_options",
    "parsed",
    "read_point",
    "save_grid",
    "suffixed",
    "writable",
]
