"""Which pixels are held against which places: zones, each with windows that are all cut in the same way.

ELS has one zone, with windows that go on at the other side; that which knows the border has one for every distance from
it.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["Zone", "Zones", "bordered", "wrapped"]


@dataclass(frozen=True)
class Zone:
    """Pixels, and the places whose windows they are held against; windows have S pixels.

    Attributes:
        asked: (P,) int64, the pixels.
        seen: (P, S), their windows, pixel numbers.
        places: (Q,), the places.
        windows: (Q, S), theirs.
        torus: (H, W), where `asked` are all pixels in order, and all windows squares that go on at the other side.
    """

    asked: Tensor
    seen: Tensor
    places: Tensor
    windows: Tensor
    torus: tuple[int, int] | None = None

    def to(self, device: torch.device) -> Zone:
        """On that device."""
        asked, seen, places, windows = (part.to(device) for part in (self.asked, self.seen, self.places, self.windows))
        return Zone(asked, seen, places, windows, self.torus)


Zones = Callable[[int], list[Zone]]
"""side of the window -> the zones, which part the pixels."""


def wrapped(event: tuple[int, int], wrap: bool) -> Zones:
    """One zone: windows go on at the other side; those of the images only where `wrap`, else all lie inside."""
    height, width = event

    def make(side: int) -> list[Zone]:
        reach = side // 2
        every = _windows(event, range(height), range(width), range(-reach, reach + 1), range(-reach, reach + 1))
        if wrap:
            return [Zone(*every, *every, event)]
        inner = range(reach, height - reach), range(reach, width - reach)
        return [Zone(*every, *_windows(event, *inner, range(-reach, reach + 1), range(-reach, reach + 1)), event)]

    return make


def bordered(event: tuple[int, int]) -> Zones:
    """A zone for every distance from the border that cuts the window, which is cropped; one for all further inside."""

    def make(side: int) -> list[Zone]:
        out = []
        for (rows, up), (across, along) in itertools.product(*(_parts(length, side // 2) for length in event)):
            own = _windows(event, rows, across, up, along)
            out.append(Zone(*own, *own))
        return out

    return make


def _parts(length: int, reach: int) -> list[tuple[range, range]]:
    """Places along an axis that are alike, and how far their window goes."""
    parts = [(range(i, i + 1), range(-i, reach + 1)) for i in range(reach)]
    parts.append((range(reach, length - reach), range(-reach, reach + 1)))
    return parts + [(range(length - 1 - i, length - i), range(-reach, i + 1)) for i in range(reach)]


def _windows(event: tuple[int, int], rows: range, across: range, up: range, along: range) -> tuple[Tensor, Tensor]:
    """The places (P,) of some rows and columns, and the pixels of their windows, (P, S), on the torus."""
    h, w, a, b = (torch.tensor(part, dtype=torch.int64, device="cpu") for part in (rows, across, up, along))
    places = (h[:, None] * event[1] + w).flatten()
    row = (h[:, None, None, None] + a[:, None]) % event[0]
    column = (w[:, None, None] + b) % event[1]
    return places, (row * event[1] + column).reshape(len(places), -1)
