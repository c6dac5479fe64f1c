"""Where a network is measured: at noisy points of the data, of others, or on its own way from noise.

Each of `around` and `along` yields, level by level, x, the network's answer there, and the clean point if there is one.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from optimal import OptimalDenoiser, karras, trajectory
from optimal.border import Border, seeking_refining_border
from optimal.denoiser import Denoiser
from optimal.draws import Data, draw_indexed
from optimal.intervals import require_level
from optimal.numbers import require_whole
from optimal.posterior import Optimum
from optimal.query import Levels, level_list
from optimal.randomness import stream

from .heldout import Apart, check_held_out, require_drawn
from .measures import evaluate

__all__ = [
    "STEPS",
    "On",
    "Place",
    "Placed",
    "along",
    "around",
    "default_sigmas",
    "labelled",
    "placed",
    "range_of",
    "require_range",
    "source_of",
]

On = Data | Apart | Literal["trajectory"] | None
"""Tensors of whole numbers, (K,), are places in the data."""

_BELOW, _ABOVE = 64.0, 32.0
_LEVELS = 12
STEPS = 64
"""Of Heun's solver along a trajectory: x is then within 0.5% of the flow of a Gaussian, from 160 deviations on."""
_APART = 1e-3
"""How far, in ln σ, a grid's own levels keep from those that are asked for."""
_TOP = 160.0
"""First level of a trajectory over the data's standard deviation, where the network names none: EDM's 80 for 0.5."""


def default_sigmas(D: Optimum, border: float, within: tuple[float, float] = (0.0, math.inf)) -> Tensor:
    """Twelve levels, even in log σ on either side of the border, itself among them: six octaves down, five up.

    Args:
        D: the optimum of the data.
        border: of the data; the data's standard deviation stands in where it is 0 or infinite.
        within: the network's range: the levels then lie in what they share, and in the range where they share nothing.
    """
    centre = border if 0 < border < math.inf else D.standard_deviation or 1.0
    low, high = max(centre / _BELOW, within[0]), min(centre * _ABOVE, within[1])
    if not low < high and within[0] >= high:
        low, high = within[0], min(within[1], within[0] * _BELOW * _ABOVE)
    elif not low < high:
        low, high = max(within[0], within[1] / (_BELOW * _ABOVE)), within[1]
    if not low < centre < high:
        return torch.logspace(math.log10(low), math.log10(high), _LEVELS, dtype=torch.float64).clamp(low, high)
    below = torch.logspace(math.log10(low), math.log10(centre), _LEVELS // 2 + 1, dtype=torch.float64)
    above = torch.logspace(math.log10(centre), math.log10(high), _LEVELS // 2, dtype=torch.float64)
    return torch.cat([below, above[1:]]).clamp(low, high)


Place = tuple[float, Tensor, Tensor, Tensor | None]
"""σ, x, F(x, σ) and x0."""


@dataclass(frozen=True)
class Placed:
    """Where a network is to be asked.

    Attributes:
        on: "data", "held-out" or "trajectory".
        source: the held-out points, looked at; None of the others.
        levels: (S,) float64.
        border: of the data; None where it was not looked for, the levels being given.
        places: level by level.
    """

    on: str
    source: Apart | None
    levels: Tensor
    border: Border | None
    places: Iterator[Place]


def placed(
    model: Denoiser,
    D: Optimum,
    on: On,
    sigmas: Levels | None,
    *,
    draws: int,
    seed: int,
    labels: Any,
    level: float,
    progress: bool,
) -> Placed:
    """What `measure` and `explain` are asked, checked, and the places that follow from it.

    Args, Raises: as for `neural.measure`.
    """
    draws = require_whole("draws", draws, 2)
    require_level(level)
    event = getattr(model, "event", None)
    if event is not None and tuple(event) != D.event:
        raise ValueError(f"the network makes points of shape {tuple(event)}, the data have {D.event}")
    source = on
    if not isinstance(on, str):
        source = source_of(D, on, progress=progress)
    elif on != "trajectory":
        raise ValueError(f'on must be None, points or "trajectory", got {on!r}')
    border = None
    if sigmas is None:
        border = seeking_refining_border(D, progress=progress)
        sigmas = default_sigmas(D, border.sigma, range_of(model))
    levels = level_list(sigmas)
    require_range(levels, range_of(model))
    if isinstance(source, str):
        places = along(labelled(model, labels, draws), D, levels, draws, seed)
        return Placed(source, None, levels, border, places)
    places = around(model, D, source, levels, draws, seed, labels)
    apart = source if isinstance(source, Apart) else None
    return Placed("data" if apart is None else "held-out", apart, levels, border, places)


def _are_places(on: Any) -> bool:
    return isinstance(on, Tensor) and on.dtype == torch.int64 and on.ndim == 1


def source_of(D: Optimum, on: Data | Apart | None, *, progress: bool = False) -> Data | Apart | None:
    """What x0 is drawn from: None for the data, the points at places in the data, or held-out points, looked at.

    Raises:
        ValueError: places that there are none of; as for `check_held_out`.
    """
    if on is None or on is D.data or isinstance(on, Apart):
        return None if on is D.data else on
    if isinstance(on, Tensor) and _are_places(on):
        outside = on[(on < 0) | (on >= len(D))]
        if len(on) == 0 or len(outside):
            got = f"got {int(outside[0])}" if len(outside) else "got none"
            raise ValueError(f"places in the data must lie in 0 to {len(D) - 1}, {got}")
        return D.take(on)
    return check_held_out(D, on, progress=progress)


def around(
    model: Denoiser,
    D: Optimum,
    source: Data | Apart | None,
    levels: Tensor,
    draws: int,
    seed: int,
    labels: Any,
) -> Iterator[Place]:
    """At x0 + σ ε, the same draws at every level; `source` as `source_of` gives it."""
    points = source.points if isinstance(source, Apart) else source
    index, x0, eps = draw_indexed(D, points, draws, stream(seed, "evaluation"))
    if isinstance(source, Apart):
        require_drawn(D, source, index)
    asked = labelled(model, labels, len(D) if points is None else len(points), index)
    for sigma in levels.tolist():
        x = x0 + sigma * eps
        yield sigma, x, evaluate(asked, x, sigma), x0


def along(
    model: Denoiser, D: Optimum, levels: Tensor, draws: int, seed: int, *, generator: torch.Generator | None = None
) -> Iterator[Place]:
    """On the model's own flow from noises at its first level, in Heun steps; there is no x0.

    The noises are those of evaluations of the seed, or the generator's.
    """
    drawn_from = stream(seed, "evaluation-noises") if generator is None else generator
    high, top = range_of(model)[1], float(levels.max())
    first = high if math.isfinite(high) else _TOP * (D.standard_deviation or 1.0)
    bottom, first = float(levels.min()), first if top < first * (1 - _APART) else top
    own = karras(STEPS, sigma_min=min(bottom, first / 2), sigma_max=first)[:-1]
    # The levels asked for stand in for those of the grid that are next to them.
    own = own[((own[:, None] / levels).log().abs() > _APART).all(1)]
    grid = torch.cat([own, levels]).unique().flip(0)
    wanted = set(levels.tolist())
    unit = torch.randn((draws, *D.event), generator=drawn_from, dtype=torch.float32)
    for state in trajectory(model, first * unit.to(D.points.device), torch.cat([grid, grid.new_zeros(1)])):
        if not torch.isfinite(state.denoised).all():
            raise ValueError(f"the network's own trajectory is not finite at σ = {state.sigma:.3g}")
        if state.sigma in wanted:
            yield state.sigma, state.x, state.denoised, None
        if state.sigma <= bottom:
            return


def labelled(model: Denoiser, labels: Any, size: int, index: Tensor | None = None) -> Denoiser:
    """The model given its labels, one a row: those at `index` of `size` points."""
    if labels is None:
        # The labels of an optimum are those of its points.
        held = None if isinstance(model, OptimalDenoiser) else getattr(model, "labels", None)
        if isinstance(held, Tensor) and held.ndim != (1 if held.is_floating_point() else 0):
            raise ValueError("a model with one label a row does not say which points they are of: give labels= instead")
        return model
    given = getattr(model, "given", None)
    if given is None:
        raise ValueError(f"labels are for a Model, and {type(model).__name__} takes none: neural.open_model makes one")
    values = torch.as_tensor(labels)
    # Codes of floating point have an axis of their own.
    if values.ndim == (1 if values.is_floating_point() else 0):
        return given(values)
    if len(values) != size:
        raise ValueError(f"labels must be one for all, or one a point, {size} of them, got {len(values)}")
    return given(values if index is None else values[index.to(values.device)])


def range_of(model: Denoiser) -> tuple[float, float]:
    """The model's first and last noise level, as far as it says."""
    return float(getattr(model, "sigma_min", 0.0)), float(getattr(model, "sigma_max", math.inf))


def require_range(levels: Tensor, within: tuple[float, float]) -> None:
    """Raise ValueError unless all levels lie within the network's range."""
    low, high = within
    outside = (levels < low * (1 - 1e-6)) | (levels > high * (1 + 1e-6))
    if outside.any():
        raise ValueError(
            f"sigmas must lie within the network's range, {low:g} to {high:g}, got {float(levels[outside][0]):g}"
        )
