"""Units whose candidates are windows at other places, too: ELS, and ELS that knows the border.

The window of x around pixel p is held against the windows around places p' of all images,

    D(x, σ)[p] = Σ_{j, p'} w y_j[p'],    w ∝ π_j exp(−‖x_Ω(p) − y_jΩ(p')‖²/2σ²),

N·H·W of them for each pixel, whose cost grows with the number of pixels squared. There are two ways to sum them, and
each block of windows goes the one that suits it; `matches` has both.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import replace

import torch
from torch import Tensor
from tqdm import tqdm

from ...devices import block_bytes
from .asked import Answers, Asked, Collection
from .matches import Matches, Windows
from .running import BITS
from .unfolded import Summed, Torus, Unfolded
from .zones import Zone, Zones

__all__ = ["Elsewhere"]

_BLOCK_BYTES = 2 * 2**20
"""Of logits: a block and what is made of it stay in cache."""


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
            zones = [zone.to(asked.device) for zone in self._zones(side)] if self._has_zones(side) else None
            every = [row for row, own in enumerate(sides) if own == side]
            for rows in self._together(every, zones, asked):
                left_out = None if asked.without is None else [asked.without[row] for row in rows]
                z, sigma, levels = asked.z[rows], asked.sigma[rows], asked.levels[rows]
                some = replace(asked, z=z, sigma=sigma, levels=levels, without=left_out)
                if zones is not None:
                    found = _Search(some, self._channels, zones).answers()
                else:
                    assert self._otherwise is not None
                    found = self._otherwise.answers(some)
                out.mean[rows] = found.mean
                if out.entropy is not None and found.entropy is not None:
                    out.entropy[rows] = found.entropy
        return out

    def _has_zones(self, side: int) -> bool:
        return self._otherwise is None or side < self._least

    def _together(self, rows: list[int], zones: list[Zone] | None, asked: Asked) -> list[list[int]]:
        """Rows whose windows, of which there are three copies, fit into a quarter of memory."""
        if zones is None:
            return [rows]
        held = 3 * 8 * self._channels * sum(zone.seen.numel() for zone in zones)
        most = max(1, asked.points.memory // 4 // held)
        return [rows[start : start + most] for start in range(0, len(rows), most)]


class _Search:
    """One pass over the data for some rows of one window."""

    def __init__(self, asked: Asked, channels: int, zones: list[Zone]):
        self._asked, self._channels, self._zones = asked, channels, zones
        points, device = asked.points, asked.device
        centre = points.centre.to(device).view(channels, -1)
        # Places are compared with each other: one number a channel may be taken off, and no image.
        self._left = (centre - centre.mean(1, keepdim=True)).flatten() / points.unit
        self._queries = asked.z + self._left
        self._prior, self._there = None, None
        if points.log_weights is not None:
            self._prior = points.log_weights.to(device)
            self._there = (self._prior > -torch.inf).nonzero().squeeze(1)
        self._tori = [self._torus(zone) for zone in zones]
        self._size = min(block_bytes(_BLOCK_BYTES, device), points.memory // 8) // 8

    def _torus(self, zone: Zone) -> Torus | None:
        """What sums over the windows of a zone, where that is faster than to multiply them, and fits into memory."""
        if zone.torus is None or 8 * 8 * len(zone.asked) ** 2 > self._asked.points.memory:
            return None
        torus = Torus(zone.torus, math.isqrt(zone.seen.shape[1]), zone.places, zone.windows)
        return torus if torus.worth(self._channels) else None

    def answers(self) -> Answers:
        asked, zones, rows = self._asked, self._zones, range(len(self._asked.z))
        parts = [[self._matches(row, number) for number in range(len(zones))] for row in rows]
        for index, images in self._blocks():
            prior = None if self._prior is None else self._prior[index] * BITS
            for number in range(len(zones)):
                for windows in self._windows(images, number, prior):
                    for row in rows:
                        left_out = None if asked.without is None else _place_of(asked.without[row], index)
                        for part in parts[row][number]:
                            part.meet(windows, left_out)
        mean = self._queries.new_zeros(len(rows), self._channels, asked.points.dim // self._channels)
        entropy = torch.zeros_like(mean[:, 0]) if asked.entropy else None
        for row, (number, zone) in itertools.product(rows, enumerate(zones)):
            sums = [part.sums for part in parts[row][number]]
            mean[row, :, zone.asked] = torch.cat([each.average for each in sums]).T
            if entropy is not None:
                entropy[row, zone.asked] = torch.cat([each.entropy for each in sums])
        return Answers(mean.flatten(1) - self._left, entropy)

    def _matches(self, row: int, number: int) -> list[Matches]:
        """The pixels of a zone: all, or so many that their logits with the places of one image are a block."""
        asked, zone = self._asked, self._zones[number]
        each = self._queries[row].view(self._channels, -1)
        seen = each[:, zone.seen].transpose(0, 1).flatten(1)
        sigma = float(asked.sigma[row])
        if self._tori[number] is not None:
            return [Matches(seen, each.T, sigma, self._channels, energy=asked.entropy)]
        count = max(1, self._size // len(zone.places))
        return [Matches(some, some, sigma, self._channels, energy=asked.entropy) for some in seen.split(count)]

    def _windows(self, images: Tensor, number: int, prior: Tensor | None) -> Iterator[Windows]:
        """Those of some images, (D, n), that are held against the pixels of a zone."""
        zone, torus = self._zones[number], self._tori[number]
        each = images.view(self._channels, -1, images.shape[1])
        if torus is not None:
            yield Windows(Summed(each, torus), each[:, zone.places].flatten(1), images.shape[1], prior)
            return
        count = max(1, self._size // (self._channels * zone.windows.shape[1] * images.shape[1]))
        count = -(-len(zone.places) // -(-len(zone.places) // max(count, 64)))
        for places, windows in zip(zone.places.split(count), zone.windows.split(count), strict=True):
            values = each[:, windows.T.flatten()].reshape(-1, len(places) * images.shape[1])
            yield Windows(Unfolded(values), each[:, places].flatten(1), images.shape[1], prior)

    def _blocks(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Which of the points, (n,), and these as columns, (D, n), so many that the logits of a zone are a block."""
        asked, points = self._asked, self._asked.points
        there = torch.arange(points.size, device=asked.device) if self._there is None else self._there
        most = max(len(zone.places) * len(zone.asked) for zone in self._zones)
        count = max(1, min(self._size // most, points.block_rows()))
        total = -(-len(there) // count)
        given = None if self._there is None else self._there.to(points.device)
        with tqdm(total=total, desc="windows", unit="block", leave=False, disable=not asked.progress) as bar:
            for start, block in points.blocks(count, asked.device, given):
                yield there[start : start + len(block)], (block + self._left).T.contiguous()
                bar.update()


def _place_of(own: int, index: Tensor) -> int | None:
    found = (index == own).nonzero()
    return int(found[0]) if len(found) else None
