"""All that a report shows of networks beside the optimum, measured; nothing is drawn here.

Every network is measured by `neural.measure` on the data, on held-out points where there are any, and on its own
trajectory, at the same noise levels around the border; and n samples of it, from the same unit noises, are held to the
training data by `neural.audit`.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from optimal import Dataset, OptimalDenoiser, sample
from optimal.border import Border, seeking_refining_border
from optimal.cli import seconds_of_a_row
from optimal.query import Levels
from optimal.randomness import fixed_generator, stream

from ..auditing import audit
from ..copies import Audit
from ..heldout import Apart, check_held_out
from ..measuring import Measured, default_sigmas, measure
from ..model import Model
from ..named import as_meant

__all__ = ["Effort", "Studied", "Study", "study"]

_RANGE = (0.01, 100.0)
"""In whose middle calls are timed."""
_TRAJECTORY = 33
"""Levels of the trajectory besides those that are measured, two calls each."""
_BORDER_CALLS = 48


@dataclass(frozen=True)
class Effort:
    """How much is drawn.

    Attributes:
        draws: pairs (x0, ε) at every noise level, and trajectories.
        samples: of every network.
        border_draws: of the border.
    """

    draws: int = 1024
    samples: int = 256
    border_draws: int = 256

    def __post_init__(self) -> None:
        if self.draws < 2 or self.samples < 1:
            raise ValueError(f"draws must be at least 2 and samples 1, got {self.draws} and {self.samples}")


@dataclass(frozen=True)
class Studied:
    """One network.

    Attributes:
        name: what the report calls it.
        measured: on the data, on held-out points if there are any, on its own trajectory.
        samples: (n, *event).
        found: the samples beside the training data; None where they are not finite.
        nfe: calls of the network a sample.
        first: noise level at which sampling begins.
    """

    name: str
    measured: list[Measured]
    samples: Tensor
    found: Audit | None
    nfe: int
    first: float

    def sentence(self) -> str:
        """Where it is farthest from the optimum on the data."""
        on_data = self.measured[0]
        if not on_data.columns["gap"].value.any():
            border = "" if on_data.border is None else f"; border {on_data.border.sigma:.3g}"
            return f"{self.name} on data: the optimum itself, without a gap at any noise level{border}"
        return on_data.sentence()


@dataclass(frozen=True)
class Study:
    """Several networks beside the optimum of one data set.

    Attributes:
        data: the training data.
        held_out: name of the held-out points, or None.
        D: the optimum.
        border: of the data.
        networks: one each, in the order given.
        effort, seed, level: what was asked for.
    """

    data: Dataset
    held_out: str | None
    D: OptimalDenoiser
    border: Border
    networks: list[Studied]
    effort: Effort
    seed: int
    level: float

    def rows(self) -> list[dict[str, Any]]:
        """A flat row a network, place and noise level."""
        return [row for network in self.networks for measured in network.measured for row in measured.rows()]


def study(
    models: Sequence[Model],
    data: Dataset,
    *,
    held_out: Dataset | None = None,
    sigmas: Levels | None = None,
    steps: int | None = None,
    effort: Effort | None = None,
    seed: int = 0,
    level: float = 0.95,
    progress: bool = False,
    say: Callable[[float], object] | None = None,
) -> Study:
    """Measure networks in every way that a report shows.

    Args:
        models: of different names.
        data: the training data.
        held_out: further points of the same distribution, none of them in the data.
        sigmas: (S,) noise levels; unless given around the border, in the range that all networks share.
        steps: of the sampler; each network's own unless given.
        effort: how much is drawn.
        seed: of all draws; the same for all networks.
        level: of the intervals.
        progress: whether progress bars are drawn on stderr.
        say: told before the work how many seconds it will take.

    Raises:
        ValueError: no model, or two of one name; as for `measure` and `audit`.
    """
    effort = effort or Effort()
    names = [model.name for model in models]
    if not models or len(set(names)) < len(names):
        raise ValueError(
            f"there must be at least one network, and no two of one name, got {', '.join(names) or 'none'}"
        )
    D = OptimalDenoiser(data)
    for model in models:
        model.require_event(D.event, data.name)
    apart = None if held_out is None else check_held_out(D, held_out, progress=progress)
    if say is not None:
        say(_seconds(models, D, effort, steps, held_out is not None))
    # Of its own fixed draws: the same levels for every seed.
    border = seeking_refining_border(D, draws=effort.border_draws, progress=progress)
    networks = []
    for model in tqdm(models, desc="networks", leave=False, disable=not progress or len(models) == 1):
        levels = default_sigmas(D, border.sigma, _shared(models, model)) if sigmas is None else sigmas
        networks.append(_studied(model, D, apart, levels, steps, effort, seed, level, border, progress))
    return Study(data, None if held_out is None else held_out.name, D, border, networks, effort, seed, level)


def _studied(
    model: Model,
    D: OptimalDenoiser,
    held_out: Apart | None,
    levels: Levels,
    steps: int | None,
    effort: Effort,
    seed: int,
    level: float,
    border: Border,
    progress: bool,
) -> Studied:
    places: list[Any] = [None, *([] if held_out is None else [held_out]), "trajectory"]
    measured = [
        dataclasses.replace(
            measure(model, D, on=on, sigmas=levels, draws=effort.draws, seed=seed, level=level, progress=progress),
            border=border,
        )
        for on in places
    ]
    asked, arguments = as_meant(model, steps, seed)
    first = float(arguments["sigmas"][0])
    unit = torch.randn((effort.samples, *D.event), generator=stream(seed, "evaluation-noises", 1), dtype=torch.float32)
    calls: list[int] = []
    ends = sample(asked, first * unit, callback=lambda state: calls.append(state.nfe), progress=progress, **arguments)
    finite = bool(torch.isfinite(ends).all())
    found = audit(D, ends, level=level, any_range=True, progress=progress) if finite else None
    return Studied(model.name, measured, ends, found, calls[-1], first)


def _shared(models: Sequence[Model], model: Model) -> tuple[float, float]:
    """The noise levels of all networks; where these share none, of the one."""
    low, high = max(each.sigma_min for each in models), min(each.sigma_max for each in models)
    return (low, high) if low < high else (model.sigma_min, model.sigma_max)


def _seconds(models: Sequence[Model], D: OptimalDenoiser, effort: Effort, steps: int | None, held_out: bool) -> float:
    """What all of it will take, by timing a few rows."""
    levels, places = len(default_sigmas(D, 1.0)), 3 if held_out else 2
    unit = torch.randn((effort.draws, *D.event), generator=fixed_generator("queries"), dtype=torch.float32)
    unit = unit.to(D.points.device)
    middle = math.sqrt(_RANGE[0] * _RANGE[1])
    optimum = seconds_of_a_row(D.posterior, unit, middle)
    total = optimum * _BORDER_CALLS * effort.border_draws
    for model in models:
        middle = math.sqrt(max(model.sigma_min, _RANGE[0]) * min(model.sigma_max, _RANGE[1]))
        own = seconds_of_a_row(model, middle * unit[: model.batch], middle)
        calls = (places - 1) * levels * effort.draws + 2 * (_TRAJECTORY + levels) * effort.draws
        nfe = 2 * len(model.sampling(steps)["sigmas"])
        # The audit looks twice, at the sample and at its mirror image.
        total += own * (calls + nfe * effort.samples) + optimum * (places * levels * effort.draws + 2 * effort.samples)
    return total
