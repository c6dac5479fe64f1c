"""What an audit found: which samples are copies, of what and how near; counts, shares with intervals, sentences, rows.

The words are those of `neural.audit`.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from optimal.intervals import Interval, share_interval

from .measures import save_table
from .sampled import MEMORISED

__all__ = ["KINDS", "Audit", "Looked", "Side", "percent"]

KINDS = ("exact", "near", "mirrored exact", "mirrored near")
"""How a sample can be a copy, "" being none."""


@dataclass(frozen=True)
class Looked:
    """Samples beside the data, (n,) each.

    Attributes:
        index, second: the nearest and the second nearest distinct data point, the first of its copies; −1 for none.
        distance, second_distance: Euclidean, float64, in units of the data; inf for none.
        exact: whether it is the nearest one, value by value.
    """

    index: Tensor
    second: Tensor
    distance: Tensor
    second_distance: Tensor
    exact: Tensor

    @property
    def ratio(self) -> Tensor:
        """Nearest over second nearest distance; 0 where there is one distinct point."""
        return self.distance / self.second_distance

    @property
    def memorised(self) -> Tensor:
        """Whether the ratio is below 1/3."""
        return self.distance < MEMORISED * self.second_distance

    @staticmethod
    def joined(parts: list[Looked]) -> Looked:
        """All rows, in order."""
        return Looked(*(torch.cat([getattr(part, name) for part in parts]) for name in Looked.__annotations__))


@dataclass(frozen=True)
class Side:
    """A sample, or its mirror image, beside the data point nearest to it; attributes as of `Looked`."""

    index: int
    mirrored: bool
    distance: float
    ratio: float


@dataclass(frozen=True)
class Audit:
    """What `audit` found.

    Attributes:
        plain: the samples beside the data.
        mirrored: their mirror images beside the data; None where points are no images.
        near: largest distance of a near copy, in units of the data.
        dim: values of a point.
        level: of the intervals.
        bytes: whether the data are images of bytes.
    """

    plain: Looked
    mirrored: Looked | None
    near: float
    dim: int
    level: float
    bytes: bool

    def __len__(self) -> int:
        return len(self.plain.index)

    @functools.cached_property
    def kind(self) -> list[str]:
        """One of `KINDS`, or "", a sample: of itself and its mirror image that which is nearer, itself where equal."""
        plain = self._kinds(self.plain, "")
        if self.mirrored is None:
            return plain
        flipped = self._kinds(self.mirrored, "mirrored ")
        nearer = ((self.mirrored.distance < self.plain.distance) & ~self.plain.exact).tolist()
        return [b if b and (closer or not a) else a for a, b, closer in zip(plain, flipped, nearer, strict=True)]

    def _kinds(self, found: Looked, prefix: str) -> list[str]:
        near = (found.distance <= self.near).tolist()
        pairs = zip(found.exact.tolist(), near, strict=True)
        return [f"{prefix}exact" if exact else f"{prefix}near" if close else "" for exact, close in pairs]

    def share(self, what: str) -> Interval:
        """Of the samples, with the exact interval of Clopper and Pearson for independent samples.

        Args:
            what: one of `KINDS`; "copies", any of these; "memorised"; "memorised mirrored", as the mirror image only.
        """
        return share_interval(self._hits(what), self.level)

    def count(self, what: str) -> int:
        """How many samples; `what` as for `share`."""
        return int(self._hits(what).sum())

    def _hits(self, what: str) -> Tensor:
        if what == "memorised":
            return self.plain.memorised
        if what == "memorised mirrored":
            none = torch.zeros_like(self.plain.memorised)
            return none if self.mirrored is None else self.mirrored.memorised & ~self.plain.memorised
        if what not in ("copies", *KINDS):
            raise ValueError(f"what must be copies, memorised, memorised mirrored or one of {', '.join(KINDS)}")
        return torch.tensor([bool(kind) if what == "copies" else kind == what for kind in self.kind], dtype=torch.bool)

    def copied(self) -> Tensor:
        """The distinct data points that some sample is a copy of, ascending."""
        index = {side.index for side, kind in zip(self.sides, self.kind, strict=True) if kind}
        return torch.tensor(sorted(index), dtype=torch.int64)

    def closest(self, count: int) -> list[int]:
        """The samples, or their mirror images, that are nearest to a data point, the nearest first."""
        return sorted(range(len(self)), key=lambda i: self.sides[i].distance)[:count]

    @functools.cached_property
    def sides(self) -> list[Side]:
        """What each sample is shown beside: of itself and its mirror image that of the kind, or the nearer one."""
        plain = _sides(self.plain, False)
        if self.mirrored is None:
            return plain
        flipped, kinds = _sides(self.mirrored, True), self.kind
        return [
            b if kind.startswith("mirrored") or (not kind and b.distance < a.distance) else a
            for a, b, kind in zip(plain, flipped, kinds, strict=True)
        ]

    def difference(self, distance: float) -> str:
        """A distance in words: as a root mean square difference, in grey levels for images of bytes."""
        value = distance / math.sqrt(self.dim)
        return f"{127.5 * value:.3g} grey levels" if self.bytes else f"{value:.3g} per value"

    def rows(self) -> list[dict[str, Any]]:
        """One row a sample, flat: sample, kind, nearest, distance, second, second_distance, ratio, memorised, rms, …"""
        out = []
        sides = [("", self.plain)] + ([] if self.mirrored is None else [("mirrored_", self.mirrored)])
        for i, kind in enumerate(self.kind):
            row: dict[str, Any] = {"sample": i, "kind": kind}
            for prefix, found in sides:
                row |= {
                    f"{prefix}nearest": int(found.index[i]),
                    f"{prefix}distance": float(found.distance[i]),
                    f"{prefix}rms": float(found.distance[i]) / math.sqrt(self.dim),
                    f"{prefix}second": int(found.second[i]),
                    f"{prefix}second_distance": _finite(found.second_distance[i]),
                    f"{prefix}ratio": float(found.ratio[i]),
                    f"{prefix}memorised": bool(found.memorised[i]),
                }
            out.append(row)
        return out

    def summary(self) -> dict[str, Any]:
        """Counts and shares with their intervals, plain numbers."""
        out: dict[str, Any] = {
            "samples": len(self),
            "near_distance": self.near,
            "near_rms": self.near / math.sqrt(self.dim),
        }
        for what in ("copies", *KINDS, "memorised", "memorised mirrored"):
            share = self.share(what)
            name = what.replace(" ", "_")
            out |= {name: self.count(what), f"{name}_share": float(share.value)}
            out |= {f"{name}_low": float(share.low), f"{name}_high": float(share.high)}
        return out | {"copied": len(self.copied()), "level": self.level}

    def sentence(self) -> str:
        """The answer."""
        share, more = self.share("memorised"), self.count("memorised mirrored")
        memorised = f"memorised (nearest/second nearest distance < 1/3): {percent(share)}" + (
            f", and {more:,} more as mirror images" if more else ""
        )
        count, copied = self.count("copies"), len(self.copied())
        thing = "data point" if self.mirrored is None else "training image"
        if not count:
            mirror = "" if self.mirrored is None else " or its mirror image"
            reach = self.difference(self.near)
            return f"No copies: none of {len(self):,} samples is within {reach} of a {thing}{mirror}; {memorised}"
        kinds = ", ".join(f"{self.count(kind):,} {kind}" for kind in KINDS if self.count(kind))
        of = f"{copied:,} different {thing}{'s' if copied > 1 else ''}"
        return f"Copies: {count:,} of {len(self):,} samples ({kinds}), of {of}; {memorised}"

    def save(
        self,
        path: str | Path,
        about: dict[str, Any] | None = None,
        *,
        files: Sequence[str] | None = None,
        nearest_files: Sequence[str] | None = None,
    ) -> None:
        """Write path.csv, one row a sample, and path.json with the summary and the rows.

        Args:
            path: without suffix.
            about: what else the JSON is to say.
            files, nearest_files: of the samples, and of the data points, where they have any.

        Raises:
            ValueError: the folder cannot be written.
        """
        rows = []
        for row in self.rows():
            named = {} if files is None else {"file": files[row["sample"]]}
            if nearest_files is not None:
                named["nearest_file"] = nearest_files[self.sides[row["sample"]].index]
            rows.append({"sample": row.pop("sample"), **named, **row})
        save_table(rows, path, {"sentence": self.sentence()} | self.summary() | (about or {}))


def _sides(found: Looked, mirrored: bool) -> list[Side]:
    values = zip(found.index.tolist(), found.distance.tolist(), found.ratio.tolist(), strict=True)
    return [Side(index, mirrored, distance, ratio) for index, distance, ratio in values]


def percent(share: Interval) -> str:
    """A share with its interval, in words.

    Example:
        >>> percent(share_interval(torch.ones(100, dtype=torch.bool)))
        '100% [96.4, 100]'
    """
    value, low, high = (f"{100 * float(part):z.3g}" for part in (share.value, share.low, share.high))
    return f"{value}% [{low}, {high}]"


def _finite(value: Tensor) -> float | None:
    """JSON has no infinity."""
    return float(value) if math.isfinite(float(value)) else None
