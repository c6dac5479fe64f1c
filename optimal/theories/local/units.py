"""Units whose candidates are the images at the same place: LS, both PSPC and PCA-locality.

Unit k weighs the squared differences s_n = (x_n − y_jn)², of pixels (all channels together) or of values, by its
precision q_k, and answers by its response r_k,

    D(x, σ)[i] = Σ_k r_k[i] Σ_j w_jk y_j[i],    w_jk ∝ π_j exp(−Σ_n q_k[n] s_n/2σ²T).

As all differences come before any sum, and all terms of the sums are >= 0, the logits have the relative precision of
float64: nothing cancels, however small σ is. Sums over boxes are products with band matrices, first along columns, then
along rows: a cost that does not depend on the box, without the running sums whose differences lose digits.

Where unit k answers place k alone one pass over the data does. Where units answer all that they see, the response of a
place being shared by the n_i units that see it, a second pass takes w_jk, normalised by the first, to the places,

    w̄_j[i] = (1/n_i) Σ_{k sees i} w_jk,    D[i] = Σ_j w̄_j[i] y_j[i],

and w̄[i] is the posterior of place i, whose entropy is taken.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Protocol

import torch
from torch import Tensor

from .asked import Answers, Asked, columns, with_prior
from .running import BITS, Running

__all__ = ["Box", "Mask", "Own", "Precision", "Shared", "inside", "middle"]

_FEW = 16
"""One entry in so many, up to which a sparse product takes no longer than a dense one, on one core or two."""


class Precision(Protocol):
    """The linear map from squares, (n, ·), to those that units see, (U, ·), q; and back, qᵀ."""

    units: int

    def seen(self, maps: Tensor) -> Tensor:
        """q maps."""
        ...

    def spread(self, maps: Tensor) -> Tensor:
        """qᵀ maps."""
        ...

    def cover(self) -> Tensor:
        """qᵀ 1, (n, 1): by how many units each place is seen."""
        ...


class Box:
    """Boxes: q = vertical ⊗ horizontal, each (units, pixels) of ones and zeros.

    Args:
        vertical: (U, H) float64.
        horizontal: (V, W) float64.
    """

    def __init__(self, vertical: Tensor, horizontal: Tensor):
        self._vertical, self._horizontal = vertical, horizontal
        self.units = len(vertical) * len(horizontal)

    def seen(self, maps: Tensor) -> Tensor:
        return _product(self._vertical, self._horizontal, maps)

    def spread(self, maps: Tensor) -> Tensor:
        return _product(self._vertical.T, self._horizontal.T, maps)

    def cover(self) -> Tensor:
        return (self._vertical.sum(0)[:, None] * self._horizontal.sum(0)).view(-1, 1)


def _product(vertical: Tensor, horizontal: Tensor, maps: Tensor) -> Tensor:
    (up, height), (across, width), count = vertical.shape, horizontal.shape, maps.shape[1]
    columns = (vertical @ maps.view(height, width * count)).view(up, width, count)
    return torch.matmul(horizontal, columns).view(up * across, count)


class Mask:
    """Any q, (U, n) float64; of few entries these alone are multiplied."""

    def __init__(self, matrix: Tensor):
        self.units, self._cover = len(matrix), matrix.sum(0)[:, None]
        self._matrix = matrix.to_sparse() if int(matrix.count_nonzero()) * _FEW <= matrix.numel() else matrix

    def seen(self, maps: Tensor) -> Tensor:
        return self._matrix @ maps

    def spread(self, maps: Tensor) -> Tensor:
        return self._matrix.T @ maps

    def cover(self) -> Tensor:
        return self._cover


Precisions = Callable[[float, float, torch.device], Precision]
"""(scale, sigma in units of the data, device) -> the units at that level."""


def middle(event: tuple[int, int]) -> Precisions:
    """A window of that side around every pixel, cropped to the image."""

    def make(side: float, sigma: float, device: torch.device) -> Box:
        return Box(*(_band(length, int(side) // 2, device) for length in event))

    return make


def inside(event: tuple[int, int]) -> Precisions:
    """All squares of that side that fit inside the image; along an axis that is shorter, all of it."""

    def make(side: float, sigma: float, device: torch.device) -> Box:
        return Box(*(_steps(length, min(int(side), length), device) for length in event))

    return make


def _band(length: int, reach: int, device: torch.device) -> Tensor:
    """(length, length), 1 where two places are at most `reach` apart."""
    place = torch.arange(length, device=device)
    return ((place[:, None] - place).abs() <= reach).double()


def _steps(length: int, side: int, device: torch.device) -> Tensor:
    """(length − side + 1, length), 1 on the places of each interval of that side."""
    place, start = torch.arange(length, device=device), torch.arange(length - side + 1, device=device)[:, None]
    return ((place >= start) & (place < start + side)).double()


class _Scanned:
    """What both ways to answer share: the units of every row, and the logits of a row and a block.

    Args:
        channels: how many values a place has; 1 where every value is a place.
        scale: gives the scale of every row from the levels, (B,).
        precisions: the units.
    """

    def __init__(self, channels: int, scale: Callable[[Tensor], list[float]], precisions: Precisions, held: int = 0):
        self.channels, self.held = channels, held
        self._scale, self._precisions = scale, precisions

    def units(self, asked: Asked) -> list[Precision]:
        """Of every row."""
        keys = list(zip(self._scale(asked.levels), asked.levels.tolist(), strict=True))
        made = {key: self._precisions(*key, asked.device) for key in dict.fromkeys(keys)}
        return [made[key] for key in keys]

    def logits(self, asked: Asked, row: int, places: slice, y: Tensor, units: Precision) -> Tensor:
        """Of the points y, (D, n), for a query, (U, n), in bits."""
        squares = (y - asked.z[row, :, None]).square_()
        if self.channels > 1:
            squares = squares.view(self.channels, -1, y.shape[1]).sum(0)
        logits = units.seen(squares).mul_(-0.5 * BITS / float(asked.sigma[row]) ** 2)
        with_prior(asked, row, places, logits)
        return logits

    def weighted(self, y: Tensor, weights: Tensor) -> Tensor:
        """Σ_j w_j[p] y_j[·, p], (places, channels), of weights (places, n)."""
        by_place = y.view(self.channels, -1, y.shape[1]).transpose(0, 1)
        return torch.bmm(by_place, weights[:, :, None]).squeeze(2)


class Own:
    """Unit k answers place k.

    Args:
        channels, scale, precisions, held: the units.
        by_value: whether every value is a place of its own.
        temperature: T.
        chunk: None; or a number of points: the mean of the posteriors of every such part of the data is taken.
    """

    def __init__(
        self,
        channels: int,
        scale: Callable[[Tensor], list[float]],
        precisions: Precisions,
        *,
        by_value: bool = False,
        temperature: float = 1.0,
        chunk: int | None = None,
        held: int = 0,
    ):
        self._scanned = _Scanned(channels, scale, precisions, held)
        self.by_value, self.held = by_value, held
        self._temperature, self._chunk = temperature, chunk

    def answers(self, asked: Asked) -> Answers:
        asked = replace(asked, sigma=asked.sigma * math.sqrt(self._temperature))
        scanned, units = self._scanned, self._scanned.units(asked)
        parts = _Parts(asked, [unit.units for unit in units], scanned.channels)
        for places, y in columns(asked, chunk=self._chunk):
            if self._chunk is not None and places.start % self._chunk == 0:
                parts.close()
            for row, unit in enumerate(units):
                logits = scanned.logits(asked, row, places, y, unit)
                parts.running[row].add(logits, lambda weights, y=y: scanned.weighted(y, weights))
        parts.close()
        return parts.answers()


class _Parts:
    """The mean over the parts of the data of what each says of every row; one part as a rule.

    A part of which a row knows no point says nothing to it.
    """

    def __init__(self, asked: Asked, units: list[int], channels: int):
        self._asked, self._units, self._channels = asked, units, channels
        self._count = [0] * len(units)
        self._mean = [torch.zeros(n, channels, dtype=torch.float64, device=asked.device) for n in units]
        self._entropy = [torch.zeros(n, dtype=torch.float64, device=asked.device) for n in units]
        self._open()

    def _open(self) -> None:
        asked = self._asked
        self.running = [Running(n, self._channels, asked.device, energy=asked.entropy) for n in self._units]

    def close(self) -> None:
        """The part ends here."""
        for row, sums in enumerate(self.running):
            if float(sums.total.amin()) > 0:
                self._count[row] += 1
                self._mean[row] += sums.average
                if self._asked.entropy:
                    self._entropy[row] += sums.entropy
        self._open()

    def answers(self) -> Answers:
        """Of all rows."""
        means = [(mean / count).T.flatten() for mean, count in zip(self._mean, self._count, strict=True)]
        if not self._asked.entropy:
            return Answers(torch.stack(means), None)
        entropies = [each / n + math.log(n) for each, n in zip(self._entropy, self._count, strict=True)]
        return Answers(torch.stack(means), torch.stack(entropies))


class Shared:
    """Units answer all that they see.

    Args:
        channels, scale, precisions, held: the units.
    """

    by_value = False

    def __init__(
        self,
        channels: int,
        scale: Callable[[Tensor], list[float]],
        precisions: Precisions,
        *,
        held: int = 0,
    ):
        self._scanned, self.held = _Scanned(channels, scale, precisions, held), held

    def answers(self, asked: Asked) -> Answers:
        scanned, units = self._scanned, self._scanned.units(asked)
        running = [Running(unit.units, 0, asked.device, energy=False) for unit in units]
        seen_by = [unit.cover() for unit in units]
        size, places_of_all = asked.points.size, asked.points.dim // scanned.channels
        mean = torch.zeros(len(units), places_of_all, scanned.channels, dtype=torch.float64, device=asked.device)
        entropy = torch.zeros(len(units), places_of_all, dtype=torch.float64, device=asked.device)
        done = 0
        for places, y in columns(asked, passes=2):
            second = done >= size
            done += y.shape[1]
            for row, unit in enumerate(units):
                logits = scanned.logits(asked, row, places, y, unit)
                if not second:
                    running[row].add(logits)
                    continue
                weights = unit.spread(logits.sub_(running[row].normaliser[:, None]).exp2_()).div_(seen_by[row])
                mean[row] += scanned.weighted(y, weights)
                if asked.entropy:
                    entropy[row] -= torch.xlogy(weights, weights).sum(1)
        return Answers(mean.transpose(1, 2).flatten(1), entropy.clamp_min_(0) if asked.entropy else None)
