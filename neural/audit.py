"""Which samples are copies of training data: their nearest and second nearest data points, also mirrored.

Of a sample x, with y₁ and y₂ the nearest and the second nearest distinct data point, d_k = ‖x − y_k‖ by differences in
float64, dim the number of values of a point and s the data's standard deviation of a value:

    exact        x = y₁, value by value; in grey levels, as x would be saved, where the data are images of bytes
    near         d₁/√dim <= near · s, without being exact: a root mean square difference of a twentieth of the spread
    memorised    d₁/d₂ < 1/3, the published definition

and the same of the mirror image of x, left to right. The first two are blind to nothing but larger changes; the third
needs no scale, but misses copies of data that have a near-copy in the data, and finds them where data are far apart.
What such a share is without any copying, the same audit of held-out data says.

References:
    Yoon, Choi, Kwon, Ryu 2023, "Diffusion Probabilistic Models Generalize when They Fail to Memorize"; Gu, Du, Pang,
    Li, Lin, Wang 2023, "On Memorization in Diffusion Models" (1/3); Carlini et al. 2023, "Extracting Training Data from
    Diffusion Models" (near copies, by a root mean square difference).
"""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from optimal import Dataset, OptimalDenoiser
from optimal.datasets import to_float, to_uint8

from .intervals import Interval, require_level, share_interval
from .measures import save_table

__all__ = ["KINDS", "Audit", "Looked", "Side", "audit", "percent"]

KINDS = ("exact", "near", "mirrored exact", "mirrored near")
"""How a sample can be a copy, "" being none."""

_MEMORISED = 1 / 3
_BYTES = 2**27
"""Of a block of samples in float64."""
_FEW, _MOST = 128, 1024
"""Samples that are timed first, and of a block."""


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
        return self.distance < _MEMORISED * self.second_distance

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
        """The samples most like a data point: exact copies, near ones, then by the ratio of the two distances."""

        def key(i: int) -> tuple[int, float]:
            kind, side = self.kind[i], self.sides[i]
            return (0 if kind.endswith("exact") else 1, side.distance) if kind else (2, side.ratio)

        return sorted(range(len(self)), key=key)[:count]

    @functools.cached_property
    def sides(self) -> list[Side]:
        """What each sample is shown beside: of itself and its mirror image that of the kind, or of the lower ratio."""
        plain = _sides(self.plain, False)
        if self.mirrored is None:
            return plain
        flipped, kinds = _sides(self.mirrored, True), self.kind
        return [
            b if kind.startswith("mirrored") or (not kind and b.ratio < a.ratio) else a
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
    value, low, high = (f"{100 * float(part):.3g}" for part in (share.value, share.low, share.high))
    return f"{value}% [{low}, {high}]"


def audit(
    D: OptimalDenoiser | Dataset | Tensor,
    samples: Dataset | Tensor | np.ndarray,
    *,
    near: float = 0.05,
    level: float = 0.95,
    progress: bool = False,
    say: Callable[[float], object] | None = None,
) -> Audit:
    """Nearest and second nearest data point of every sample, and of its mirror image, exactly.

    Copies within the data count as one point. About 2 n N dim operations, twice for images.

    Args:
        D: the training data, or their optimum.
        samples: (n, *event), uint8 for images or floating point in units of the data.
        near: largest root mean square difference of a near copy, over the data's standard deviation of a value.
        level: of the intervals.
        progress: whether a progress bar is drawn on stderr.
        say: told after the first few samples how many seconds the rest will take.

    Raises:
        ValueError: no samples, or of another shape than the data; near below 0; level outside (0, 1).

    Example:
        >>> data = torch.tensor([[-1.0], [1.0], [4.0]])
        >>> found = audit(data, torch.tensor([[1.0], [2.0], [4.05]]))
        >>> found.kind, found.plain.memorised.tolist()
        (['exact', '', 'near'], [True, False, True])
    """
    D = D if isinstance(D, OptimalDenoiser) else OptimalDenoiser(D)
    array = samples.array if isinstance(samples, Dataset) else samples
    require_level(level)
    if not 0 <= near < math.inf:
        raise ValueError(f"near must be at least 0, got {near:g}")
    if tuple(array.shape[1:]) != D.event:
        raise ValueError(f"samples must have the shape of the data, {_size(D.event)}, got {_size(array.shape[1:])}")
    if not len(array):
        raise ValueError("there must be at least one sample, got none")
    is_image = len(D.event) == 3 and D.event[0] in (1, 3)
    plain: list[Looked] = []
    mirrored: list[Looked] = []
    start, began = 0, 0.0
    most = max(_FEW, min(_MOST, _BYTES // (8 * D.points.dim)))
    with tqdm(total=len(array), desc="audit", unit="sample", leave=False, disable=not progress) as bar:
        while start < len(array):
            # The first one also prepares what is kept of the data; the next few are timed.
            rows = 1 if start == 0 else _FEW if start == 1 else most
            x = _read(array, slice(start, start + rows))
            plain.append(_looked(D, x))
            if is_image:
                mirrored.append(_looked(D, x.flip(-1)))
            start += len(x)
            bar.update(len(x))
            if start == 1:
                began = time.perf_counter()
            elif start == 1 + _FEW and say is not None:
                say((time.perf_counter() - began) / _FEW * (len(array) - start))
    reach = near * D.standard_deviation * math.sqrt(D.points.dim)
    joined = Looked.joined(mirrored) if is_image else None
    return Audit(Looked.joined(plain), joined, reach, D.points.dim, level, D.points.bytes)


def _read(array: Tensor | np.ndarray, rows: slice) -> Tensor:
    part = array[rows]
    part = torch.from_numpy(np.array(part)) if isinstance(part, np.ndarray) else part
    if part.dtype == torch.uint8:
        return to_float(part)
    if not part.is_floating_point():
        raise ValueError(f"samples must be uint8 or floating point, got {part.dtype}")
    return part


def _looked(D: OptimalDenoiser, x: Tensor) -> Looked:
    index, distance = (part.cpu() for part in D.neighbours(x, 2))
    nearest = D.take(index[:, 0]).to(x.device)
    same = to_uint8(x) == to_uint8(nearest) if D.points.bytes else x.double() == nearest.double()
    exact = same.flatten(1).all(1).cpu()
    return Looked(index[:, 0], index[:, 1], distance[:, 0], distance[:, 1], exact)


def _size(event: tuple[int, ...] | torch.Size) -> str:
    return "×".join(map(str, event)) or "()"


def _finite(value: Tensor) -> float | None:
    """JSON has no infinity."""
    return float(value) if math.isfinite(float(value)) else None
