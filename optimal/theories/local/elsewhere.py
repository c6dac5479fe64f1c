"""Units whose candidates are windows at other places, too: ELS, and ELS that knows the border.

The window of x around pixel p is held against the windows around places p' of all images,

    D(x, σ)[p] = Σ_{j, p'} w y_j[p'],    w ∝ π_j exp(−‖x_Ω(p) − y_jΩ(p')‖²/2σ²),

N·H·W of them for each pixel, whose cost grows with the number of pixels squared. Pixels and places come in zones: a
pixel has the places of its zone, and the windows of a zone are all cut in the same way. ELS has one zone, with windows
that go on at the other side; that which knows the border has one for every distance from it.

Logits are products in float64, off by some u (‖x_Ω‖² + ‖y_Ω‖²)/σ², u = 2⁻⁵³, about one number a channel. Where that is
more than 1e-12 nats, the pairs within 60 nats of the leader are taken again by differences, in which nothing cancels.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from tqdm import tqdm

from ...devices import block_bytes
from .asked import Answers, Asked, Collection
from .running import Running

__all__ = ["Elsewhere", "Zone", "Zones", "bordered", "wrapped"]

_BLOCK_BYTES = 4 * 2**20
"""Of windows, and of their logits."""
_UNIT = 2.0**-53
_DOUBT = 1e-12
"""Error of products, nats, from which on differences are taken."""
_NEAR = 60.0
"""Nats below the leader within which they are: what is further off has no digit in the sums."""


@dataclass(frozen=True)
class Zone:
    """Pixels, and the places whose windows they are held against; windows have S pixels.

    Attributes:
        asked: (P,) int64, the pixels.
        seen: (P, S), their windows, pixel numbers.
        places: (Q,), the places.
        windows: (Q, S), theirs.
    """

    asked: Tensor
    seen: Tensor
    places: Tensor
    windows: Tensor

    def to(self, device: torch.device) -> Zone:
        """On that device."""
        return Zone(*(part.to(device) for part in (self.asked, self.seen, self.places, self.windows)))


Zones = Callable[[int], list[Zone]]
"""side of the window -> the zones, which part the pixels."""


def wrapped(event: tuple[int, int], wrap: bool) -> Zones:
    """One zone: windows go on at the other side; those of the images only where `wrap`, else all lie inside."""
    height, width = event

    def make(side: int) -> list[Zone]:
        reach = side // 2
        every = _windows(event, range(height), range(width), range(-reach, reach + 1), range(-reach, reach + 1))
        if wrap:
            return [Zone(*every, *every)]
        inner = range(reach, height - reach), range(reach, width - reach)
        return [Zone(*every, *_windows(event, *inner, range(-reach, reach + 1), range(-reach, reach + 1)))]

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


class Elsewhere:
    """Every pixel against the windows of its zone.

    Args:
        channels: of a pixel.
        scale: gives the window of every row from the levels, (B,).
        zones: those of a window.
        otherwise: what answers with windows from `least` on.
        least: side of the first window that has no zones of its own.
    """

    by_value, held = False, 0

    def __init__(
        self,
        channels: int,
        scale: Callable[[Tensor], list[float]],
        zones: Zones,
        otherwise: Collection | None = None,
        least: int = 0,
    ):
        self._channels, self._scale, self._zones = channels, scale, zones
        self._otherwise, self._least = otherwise, least

    def answers(self, asked: Asked) -> Answers:
        pixels = asked.points.dim // self._channels
        out = Answers(torch.zeros_like(asked.z), asked.z.new_zeros(len(asked.z), pixels) if asked.entropy else None)
        sides = [int(side) for side in self._scale(asked.levels)]
        for side in dict.fromkeys(sides):
            rows = [row for row, own in enumerate(sides) if own == side]
            left_out = None if asked.without is None else [asked.without[row] for row in rows]
            some = replace(asked, z=asked.z[rows], sigma=asked.sigma[rows], levels=asked.levels[rows], without=left_out)
            if self._otherwise is not None and side >= self._least:
                found = self._otherwise.answers(some)
            else:
                found = _Search(some, self._channels, [zone.to(asked.device) for zone in self._zones(side)]).answers()
            out.mean[rows] = found.mean
            if out.entropy is not None and found.entropy is not None:
                out.entropy[rows] = found.entropy
        return out


class _Search:
    """One pass over the data for some rows of one window."""

    def __init__(self, asked: Asked, channels: int, zones: list[Zone]):
        self._asked, self._channels, self._zones = asked, channels, zones
        points = asked.points
        centre = points.centre.to(asked.device).view(channels, -1)
        # Places are compared with each other: one number a channel may be taken off, and no image.
        self._left = (centre - centre.mean(1, keepdim=True)).flatten() / points.unit
        self._queries = self._split(asked.z + self._left)

    def _split(self, flat: Tensor) -> Tensor:
        return flat.view(len(flat), self._channels, -1)

    def answers(self) -> Answers:
        asked, zones = self._asked, self._zones
        rows = range(len(asked.z))
        sums = [
            [Running(len(zone.asked), self._channels, asked.device, energy=asked.entropy) for zone in zones]
            for _ in rows
        ]
        seen = [self._queries[:, :, zone.seen].transpose(1, 2).flatten(2) for zone in zones]
        for places, images in self._blocks():
            for number, zone in enumerate(zones):
                windows = images[:, :, zone.windows].transpose(1, 2).flatten(2).flatten(0, 1)
                answered = images[:, :, zone.places].transpose(1, 2).flatten(0, 1)
                halves = windows.square().sum(1).mul_(0.5)
                for row in rows:
                    logits = self._logits(seen[number][row], windows, halves, row, sums[row][number].top)
                    self._candidates(logits, places, row)
                    sums[row][number].add(logits, lambda weights, answered=answered: weights @ answered)
        mean = torch.zeros_like(self._queries)
        entropy = mean[:, 0].clone() if asked.entropy else None
        for row, (number, zone) in itertools.product(rows, enumerate(zones)):
            mean[row, :, zone.asked] = sums[row][number].average.T
            if entropy is not None:
                entropy[row, zone.asked] = sums[row][number].entropy
        return Answers(mean.flatten(1) - self._left, entropy)

    def _blocks(self) -> Iterator[tuple[slice, Tensor]]:
        """Places, and images (n, C, H·W), so many that the windows of a zone and their logits are a block."""
        asked, points = self._asked, self._asked.points
        most = max(len(zone.places) * max(self._channels * zone.seen.shape[1], len(zone.asked)) for zone in self._zones)
        size = min(block_bytes(_BLOCK_BYTES, asked.device), points.memory // 8)
        count = max(1, min(size // (8 * most), points.block_rows()))
        total = -(-points.size // count)
        with tqdm(total=total, desc="windows", unit="block", leave=False, disable=not asked.progress) as bar:
            for start, block in points.blocks(count, asked.device):
                yield slice(start, start + len(block)), self._split(block + self._left)
                bar.update()

    def _logits(self, seen: Tensor, windows: Tensor, halves: Tensor, row: int, top: Tensor) -> Tensor:
        """−‖x_Ω − y_Ω‖²/2σ² of pixels (P, C S) and windows (M, C S): (P, M)."""
        precision = 1 / float(self._asked.sigma[row]) ** 2
        own = seen.square().sum(1).mul_(0.5)
        logits = (seen @ windows.T).sub_(halves).sub_(own[:, None]).mul_(precision).clamp_(max=0)
        error = 4 * _UNIT * float(own.amax() + halves.amax()) * precision
        if error > _DOUBT:
            leader = torch.maximum(logits.amax(1), top)
            near = logits >= (leader - _NEAR - 2 * error)[:, None]
            pixel, window = near.nonzero().unbind(1)
            step = max(1, _BLOCK_BYTES // (8 * seen.shape[1]))
            for at in range(0, len(pixel), step):
                p, m = pixel[at : at + step], window[at : at + step]
                logits[p, m] = (seen[p] - windows[m]).square_().sum(1).mul_(-0.5 * precision)
        return logits

    def _candidates(self, logits: Tensor, places: slice, row: int) -> None:
        """Write the prior in, and −inf for the windows of the image that the row leaves out."""
        asked = self._asked
        images = logits.view(len(logits), places.stop - places.start, -1)
        prior = asked.points.log_weights
        if prior is not None:
            images += prior[places, None].to(logits.device)
        if asked.without is not None and places.start <= asked.without[row] < places.stop:
            images[:, asked.without[row] - places.start] = -torch.inf
