"""The sums over parts of the points, as the classes of labelled data are: one scan for all parts.

The parts have no point in common. What costs a pass over the data is done once: for `screened` the first digit of all
queries, from which every part goes on by itself, among the points that may have weight in its own sums; `dense` and
`keops` read each part once, and so each point. Which way is chosen by the whole, not by the size of a part. Where
processes share the points, each part is summed by itself, every process over its own share of it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from ..arithmetic import ours
from . import screened
from .evaluator import Evaluator
from .moments import Moments
from .protocol import Method, Tilt

__all__ = ["EachPart", "OwnPart", "Parts", "Shared"]


class Parts:
    """Parts of the points of an evaluator.

    Args:
        whole: of all points.
        evaluators: of each part, its points weighted; without a point in common.

    Attributes:
        whole, evaluators: as given.
        places: of each part, which of all points its points are, (n,) int64.
    """

    def __init__(self, whole: Evaluator, evaluators: Sequence[Evaluator]):
        self.whole, self.evaluators = whole, tuple(evaluators)
        parts = [part.points for part in evaluators]
        every = [torch.arange(part.size, device=part.device) for part in parts]
        self.places = [whole.points.inner(part.outer(own)) for part, own in zip(parts, every, strict=True)]

    def moments(
        self, z: Tensor, sigma: Tensor, own: Tensor | None, *, single: bool
    ) -> Iterator[tuple[int, Tensor, Moments]]:
        """Yield parts, queries, (b,) int64, and the running sums of these over that part.

        Args:
            z: (B, D); sigma: (B,).
            own: (B,) int64, the one part that each query is asked of; None for all parts.
            single: see `Evaluator`.
        """
        if self.whole.points.shared:
            # Every rank asks for all parts, in turn.
            every = torch.arange(len(z), device=z.device)
            for k, part in enumerate(self.evaluators):
                rows = self._rows(own, every, k)
                if len(rows):
                    yield k, rows, part.moments(z[rows], sigma[rows], single=single)
            return
        for method, chosen in self.whole.choose(sigma, single=single):
            for some in self.whole.groups(chosen):
                asked = [(k, self._rows(own, some, k)) for k in range(len(self.evaluators))]
                asked = [(k, rows) for k, rows in asked if len(rows)]
                found = self._sums(method, z[some], sigma[some], asked, single=single)
                for (k, rows), sums in zip(asked, found, strict=True):
                    sums.method = sums.method or method.__name__.rpartition(".")[2]
                    yield k, some[rows], sums

    def _sums(
        self, method: Method, z: Tensor, sigma: Tensor, asked: list[tuple[int, Tensor]], *, single: bool
    ) -> list[Moments]:
        points, accuracy = self.whole.points, self.whole.accuracy
        if method is screened:
            parts = [(self.evaluators[k].points, rows) for k, rows in asked]
            return screened.parted(points, parts, z, sigma, accuracy=accuracy)
        return [
            method.moments(self.evaluators[k].points, z[rows], sigma[rows], single=single, accuracy=accuracy)
            for k, rows in asked
        ]

    @staticmethod
    def _rows(own: Tensor | None, some: Tensor, part: int) -> Tensor:
        """Which of the queries `some` are asked of a part."""
        if own is None:
            return torch.arange(len(some), device=some.device)
        return (own[some] == part).nonzero().squeeze(1)


class Shared:
    """One scan for all parts, that the evaluators of the parts share: who asks first has all sums made."""

    def __init__(self, parts: Parts):
        self._parts, self._asked, self._sums = parts, (), {}

    @ours()
    def moments(self, place: int, z: Tensor, sigma: Tensor, *, single: bool) -> Moments:
        """The running sums over one part, which are handed out once."""
        same = self._asked and all(torch.equal(a, b) for a, b in zip(self._asked, (z, sigma), strict=True))
        if not same or place not in self._sums:
            parts = range(len(self._parts.evaluators))
            self._asked, self._sums = (z, sigma), {k: Moments(len(z), z.shape[1], z.device) for k in parts}
            for k, rows, sums in self._parts.moments(z, sigma, None, single=single):
                _take(self._sums[k], rows, sums)
        return self._sums.pop(place)


class EachPart(Evaluator):
    """`Evaluator` of one part, whose sums come with those of the others.

    Args:
        parts: all of them.
        place: which of them it is.
        shared: the scan of all parts.
    """

    def __init__(self, parts: Parts, place: int, shared: Shared):
        super().__init__(parts.evaluators[place].points, parts.whole.accuracy)
        self._place, self._shared = place, shared

    def moments(self, z: Tensor, sigma: Tensor, *, single: bool) -> Moments:
        return self._shared.moments(self._place, z, sigma, single=single)


class OwnPart(Evaluator):
    """`Evaluator` of B queries that each know one part of the points; of V times B queries, B after B, under a `vmap`.

    Args:
        parts: all of them.
        own: (B,) int64, the part that each query knows.
    """

    def __init__(self, parts: Parts, own: Tensor):
        super().__init__(parts.whole.points, parts.whole.accuracy)
        self._parted, self._own = parts, own

    @ours()
    def moments(self, z: Tensor, sigma: Tensor, *, single: bool) -> Moments:
        out = Moments(len(z), z.shape[1], z.device)
        for k, rows, sums in self._parted.moments(z, sigma, self._of(z), single=single):
            sums.index = self._parted.places[k].to(z.device)[sums.index]
            _take(out, rows, sums)
        return out

    def tilt(self, z: Tensor, sigma: Tensor, tilt: Tilt, *, single: bool) -> Tensor:
        out = torch.zeros_like(z)
        for evaluator, rows in self._rows(z):
            out[rows] = evaluator.tilt(z[rows], sigma[rows], tilt.at(rows), single=single)
        return out

    def tilted_square(self, z: Tensor, sigma: Tensor, tilt: Tilt, *, single: bool) -> Tensor:
        out = torch.zeros_like(sigma)
        for evaluator, rows in self._rows(z):
            out[rows] = evaluator.tilted_square(z[rows], sigma[rows], tilt.at(rows), single=single)
        return out

    def _of(self, z: Tensor) -> Tensor:
        own = self._own.to(z.device)
        return own if len(own) == 0 else own.repeat(len(z) // len(own))

    def _rows(self, z: Tensor) -> list[tuple[Evaluator, Tensor]]:
        """The evaluators that are asked, and for which queries."""
        own = self._of(z)
        return [(self._parted.evaluators[k], (own == k).nonzero().squeeze(1)) for k in own.unique().tolist()]


def _take(out: Moments, rows: Tensor, sums: Moments) -> None:
    out.put(rows, sums)
    if sums.method not in out.method.split(", "):
        out.method = f"{out.method}, {sums.method}" if out.method else sums.method
