"""The same noises, sampled alike, under a network, the optimum and theories: which of them ends where the network does.

All are started from the same x and go down the same grid with the same solver, which takes its last step to σ = 0.
What each makes is held to what the network makes of the same noise: by the coefficients of `neural.published`, of which
papers on local theories give the median of the correlation (Kamb, Ganguli 2024) and the mean of r² (Lukoianov et al.
2025), and by the distance, root mean square over the values of a point.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from optimal import OptimalDenoiser, karras, sample
from optimal.denoiser import Denoiser
from optimal.intervals import Interval, mean_interval, median_interval, positive_interval, require_level
from optimal.query import Levels
from optimal.randomness import RowNoise, stream

from .places import range_of
from .published import coefficients
from .verdict import OPTIMUM, listed, nearest_of, needed_to_tell

__all__ = ["Endings", "endings"]

_TOP, _LAST = 160.0, 2.5e-5
"""First and last level over the data's standard deviation, where the network names none: 80 and 0.002 for 0.5."""


@dataclass(frozen=True)
class Endings:
    """Where everybody ends.

    Attributes:
        start: (n, *event), x at the first level.
        network: (n, *event), what the network makes of it.
        others: name -> (n, *event), the optimum first.
        name: of the network.
        level: of the intervals.
    """

    start: Tensor
    network: Tensor
    others: dict[str, Tensor]
    name: str
    level: float

    def columns(self, theory: str) -> dict[str, Interval]:
        """Of one of them, held to the network: pearson, r_square, distance."""
        f, t = (each.double().flatten(1) for each in (self.network, self.others[theory]))
        agreed = coefficients(f, t)
        squares = positive_interval((f - t).square().mean(1), level=self.level)
        return {
            "pearson": median_interval(agreed["pearson"], self.level),
            "r_square": mean_interval(agreed["r_square"], self.level).within(high=1),
            "distance": squares.map(lambda part: part.clamp_min(0).sqrt()),
        }

    def rows(self) -> list[dict[str, Any]]:
        """One flat row a theory: method, theory, n, pearson, pearson_low, …"""
        rows: list[dict[str, Any]] = []
        for name in self.others:
            row: dict[str, Any] = {"method": self.name, "theory": name, "n": len(self.network)}
            for column, interval in self.columns(name).items():
                row |= interval.flat(column)
            rows.append(row)
        return rows

    def sentence(self) -> str:
        """Which ends nearest to the network, by the distance, and those as near as can be told: `nearest_of`.

        Where the optimum cannot be told from the nearest, about how many noises would tell them apart.
        """
        squares = {
            name: (self.network - ends).double().flatten(1).square().mean(1) for name, ends in self.others.items()
        }
        first, *tied = nearest_of(squares, self.level)
        n, r = len(self.network), self.columns(first)["pearson"]
        words = f"{self.name}, {n} noises: {first} ends nearest to it{' on average' if tied else ''}"
        if math.isfinite(float(r.value)):
            words += f", median correlation {float(r.value):z.2f} [{float(r.low):z.2f}, {float(r.high):z.2f}]"
        if not tied:
            return words
        farther = [name for name in squares if name not in (first, *tied)]
        if len(tied) <= len(farther):
            words += f"; as near as can be told {listed(tied)}"
        else:
            words += f"; so few tell {f'only {listed(farther)}' if farther else 'none of the others'} from it"
        if OPTIMUM not in (first, *tied):
            return words
        rival = OPTIMUM if first != OPTIMUM else tied[0]
        needed = needed_to_tell(squares[first], squares[rival], self.level, len(squares))
        return f"{words}; {needed} would tell {'the ' if rival == OPTIMUM else ''}{rival} from it"


def endings(
    model: Denoiser,
    D: OptimalDenoiser,
    theories: Mapping[str, Denoiser],
    *,
    n: int = 64,
    sigmas: Levels | None = None,
    solver: str = "heun",
    seed: int = 0,
    level: float = 0.95,
    progress: bool = False,
) -> Endings:
    """Sample the network, the optimum and every theory from the same noises.

    Args:
        model, D, theories: as for `neural.explain`.
        n: noises, at least 2, of the stream "evaluation-noises".
        sigmas: the grid, last level 0; `karras(18)` over the network's range unless given.
        solver: of `optimal.sample`, the same for all.
        seed: of the noises.
        level: of the intervals.
        progress: whether a bar is drawn on stderr.

    Raises:
        ValueError: fewer than two noises; an ending that is not finite; as for `optimal.sample`.
    """
    if n < 2:
        raise ValueError(f"n must be at least 2, got {n}")
    require_level(level)
    if sigmas is None:
        low, high = range_of(model)
        unit = D.standard_deviation or 1.0
        sigmas = karras(18, sigma_min=low or _LAST * unit, sigma_max=high if math.isfinite(high) else _TOP * unit)
    grid = torch.as_tensor(sigmas, dtype=torch.float64)
    unit_noises = RowNoise(stream(seed, "evaluation-noises")).draw((n, *D.event))
    start = (float(grid[0]) * unit_noises).float().to(D.points.device)
    everybody = {"": model, OPTIMUM: D, **theories}
    found: dict[str, Tensor] = {}
    for name, denoiser in tqdm(everybody.items(), desc="endings", leave=False, disable=not progress):
        with torch.no_grad():
            found[name] = sample(denoiser, start, sigmas=grid, solver=solver).to(start)
        if not torch.isfinite(found[name]).all():
            raise ValueError(f"what {name or 'the network'} ends in is not finite")
    network = found.pop("")
    return Endings(start, network, found, str(getattr(model, "name", "network")), level)
