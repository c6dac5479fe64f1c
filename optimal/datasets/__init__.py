"""Empirical distributions by name or path: toy, embedded images, and the user's own files.

    >>> from optimal.datasets import load
    >>> data = load("five-deltas")
    >>> data.event, data.points.flatten().tolist()[:1]
    ((1,), [-2.0])

Images are decoded once into the user's cache folder (`OPTIMAL_CACHE` overrides which) and memory-mapped afterwards.
"""

from ..storage import fingerprint
from .catalogue import load, names, options_of, parse_options, with_options
from .dataset import Dataset, to_float, to_uint8

__all__ = [
    "Dataset",
    "fingerprint",
    "load",
    "names",
    "options_of",
    "parse_options",
    "to_float",
    "to_uint8",
    "with_options",
]
