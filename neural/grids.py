"""What noise grids do to one network: the same noises sampled on each, held to where they are to end.

From σ₀ ε, the same for every grid, a sample is held to two ends: the network's own, where many small steps take it, and
the data point on which the optimum's exact flow lands. With y the data point nearest to a sample,

    own_same       share with y that of the network's own end
    own_distance   √E‖sample − own end‖²: of the discretisation alone, without the network's error
    flow_same      share with y the flow's landing
    wasserstein    2-Wasserstein distance to the data, sliced for events of more than two values

and, name_change, each less that of one grid to compare with, paired by noises: 95% intervals over the noises, of shares
by Agresti and Min, of the others by the influence of every noise on the difference. name_less_GRID is the same of
further grids to compare with.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from optimal import OptimalDenoiser
from optimal.intervals import (
    Interval,
    influence_interval,
    paired_share_interval,
    positive_interval,
    require_level,
    share_interval,
)
from optimal.numbers import require_whole
from optimal.randomness import stream
from optimal.samplers import Solver
from optimal.schedule import grid

from .model import Model
from .sampled import Sampled, UnitNoises, sample_from
from .transport import transport, transport_interval

__all__ = ["Followed", "followed", "on_grids"]

_STEPS = 128


@dataclass(frozen=True)
class Followed:
    """Starts of one network, and where its own flow and the exact one take them.

    Attributes:
        model: the network.
        D: the optimum of its data.
        own: its samples in many steps, held to the flow's landings.
    """

    model: Model
    D: OptimalDenoiser
    own: Sampled


@dataclass(frozen=True)
class _Ends:
    """Samples on one grid beside the network's own ends."""

    sampled: Sampled
    own: Sampled
    D: OptimalDenoiser
    seed: int

    @cached_property
    def own_same(self) -> Tensor:
        return self.sampled.neighbours[:, 0] == self.own.neighbours[:, 0]

    @cached_property
    def squares(self) -> Tensor:
        return (self.sampled.ends.double() - self.own.ends.double()).flatten(1).square().sum(1).cpu()

    @cached_property
    def transported(self) -> tuple[Tensor, Tensor]:
        """W₂ and what every sample moves it by."""
        square, influence = transport(self.sampled.ends, self.D, generator=stream(self.seed, "projections"))
        root = square.sqrt()
        return root, influence / (2 * root.clamp_min(torch.finfo(torch.float64).tiny))

    @cached_property
    def distanced(self) -> tuple[Tensor, Tensor]:
        """√E of the squares and what every sample moves it by."""
        mean = self.squares.mean()
        return mean.sqrt(), (self.squares - mean) / (2 * mean.sqrt().clamp_min(torch.finfo(torch.float64).tiny))

    def columns(self, level: float) -> dict[str, Interval]:
        return {
            "own_same": share_interval(self.own_same, level),
            "own_distance": positive_interval(self.squares, level=level).map(torch.sqrt),
            "flow_same": share_interval(self.sampled.same, level),
            "wasserstein": transport_interval(
                self.sampled.ends, self.D, level, generator=stream(self.seed, "projections")
            ),
        }

    def changes(self, base: _Ends, level: float, word: str) -> dict[str, Interval]:
        """Of every column, less the base's, as column_word."""
        found = {
            "own_same": paired_share_interval(self.own_same, base.own_same, level),
            "flow_same": paired_share_interval(self.sampled.same, base.sampled.same, level),
        }
        pairs = {"own_distance": (self.distanced, base.distanced), "wasserstein": (self.transported, base.transported)}
        for name, ((value, moves), (other, others)) in pairs.items():
            found[name] = influence_interval(value - other, moves - others, level)
        return {f"{name}_{word}": interval for name, interval in found.items()}


def followed(
    model: Model,
    D: OptimalDenoiser,
    *,
    n: int = 256,
    seed: int = 0,
    steps: int = _STEPS,
    noises: UnitNoises | None = None,
    progress: bool = False,
) -> Followed:
    """Noises at the model's first level, its own ends by Heun's solver in many steps, and the flow's landings.

    Args:
        model: a denoiser at all levels, no student.
        D: the optimum of its data.
        n, seed: of the noises, from the stream "evaluation-noises".
        steps: of its own ends. Measured, √E‖·‖² of those of 64 and 128 steps is 0.019 and of 128 and 256 steps 0.005 on
            digits, 0.07 and 0.02 on emoji-16; 98.8% and 100%, 100% and 100% have the same nearest point.
        noises: others, in place of n and seed.
        progress: whether a progress bar is drawn on stderr.

    Raises:
        ValueError: n < 1; points of another shape than the model's.
    """
    n = require_whole("n", n)
    model.require_event(D.event, "the data")
    arguments = model.sampling(steps)
    first = float(grid(arguments["sigmas"])[0])
    held_to = (noises or UnitNoises(D, n, seed)).at(first)
    return Followed(model, D, sample_from(model.name, model, arguments, D, *held_to, progress=progress))


def on_grids(
    starts: Followed,
    grids: Mapping[str, Tensor],
    *,
    solver: str | Solver = "heun",
    against: str | Sequence[str] | None = None,
    seed: int = 0,
    level: float = 0.95,
    progress: bool = False,
    **options: Any,
) -> list[dict[str, Any]]:
    """The same noises on each grid, a row each.

    Args:
        starts: from `followed`.
        grids: name -> (steps + 1,) levels, from the first level of the starts to 0.
        solver: one that draws no noise, with its options by keyword.
        against: the grid that the others are compared with; the first unless given. Of several the first is that of
            name_change, the others those of name_less_GRID.
        seed: of the projections of the Wasserstein distance.
        level: of the intervals.
        progress: whether a progress bar is drawn on stderr.

    Returns:
        rows of: grid; nfe; last, its last level above 0; own_same, own_same_low, own_same_high, and so all columns of
        the module; own_same_change, …, of all grids but the one compared with.

    Raises:
        ValueError: no grid, or none of that name; one that starts at another level; a solver that draws noise.

    Example:
        >>> from neural import open_model
        >>> from optimal import karras
        >>> D = OptimalDenoiser(torch.tensor([[-1.0], [1.0]]))
        >>> starts = followed(open_model(D), D, n=100)
        >>> rows = on_grids(starts, {"edm": karras(4), "coarse": karras(2)})
        >>> [(row["grid"], row["nfe"], row["flow_same"]) for row in rows]
        [('edm', 7, 1.0), ('coarse', 3, 1.0)]
    """
    require_level(level)
    bases = [next(iter(grids), None)] if against is None else [against] if isinstance(against, str) else [*against]
    if not bases or any(base not in grids for base in bases):
        raise ValueError(
            f"against must be one of the grids, {', '.join(grids) or 'and there are none'}, got {against!r}"
        )
    own = starts.own
    for name, levels in grids.items():
        if abs(float(grid(levels)[0]) / own.first - 1) > 1e-6:
            raise ValueError(f"the starts lie at sigma = {own.first:g}, {name} begins at {float(levels[0]):g}")
    ends = {}
    for name, levels in tqdm(grids.items(), desc="grids", leave=False, disable=not progress):
        arguments = {"sigmas": levels, "solver": solver, **options}
        sampled = sample_from(name, starts.model, arguments, starts.D, own.start, own.reference, own.home)
        ends[name] = _Ends(sampled, own, starts.D, seed)
    rows, words = [], {f"less_{base}" if place else "change": base for place, base in enumerate(bases)}
    for name, found in ends.items():
        columns = found.columns(level)
        for word, base in words.items():
            if base != name:
                columns |= found.changes(ends[base], level, word)
        row: dict[str, Any] = {"grid": name, "nfe": found.sampled.nfe, "last": float(grids[name][-2])}
        rows.append(row | {key: value for column, each in columns.items() for key, value in each.flat(column).items()})
    return rows
