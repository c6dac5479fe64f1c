"""Networks as samplers, all from the same noises, held to where the exact flow takes them.

One draw of unit noises serves all methods: each starts from σ₀ ε with its own first level σ₀, and what it makes of row
i is compared with the data point on which the exact flow of the optimum lands from there. With y₁ and y₂ the data
points nearest and second nearest to a sample, found in one pass that serves all columns:

    same          share with y₁ the flow's landing
    distance      √E‖sample − landing‖²
    nearest       E‖sample − y₁‖
    memorised     share with ‖sample − y₁‖ < ⅓ ‖sample − y₂‖                    (Yoon et al. 2023)
    coverage      distinct points among the y₁, over what as many perfect draws would reach on average
    wasserstein   the 2-Wasserstein distance to the data, sliced for events of more than two values

and the same with the suffix _pairs on the pairs (noise, end) that a student was trained on: what is good there and not
on fresh noises has been learnt by heart. Each has an interval for its mean over draws of n noises: Clopper and
Pearson's for shares; by the central limit theorem for means, with the transport's dual potentials as the draws'
influence for wasserstein (del Barrio, Loubes 2019); by the jackknife for coverage.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from optimal import FlowMap, Guided, OptimalDenoiser, karras, sample
from optimal.denoiser import Denoiser
from optimal.intervals import Interval, distinct_interval, positive_interval, require_level, share_interval
from optimal.numbers import require_whole
from optimal.randomness import RowNoise, stream
from optimal.schedule import grid

from .model import Model, open_model
from .sides import require_optimum
from .transport import transport_interval

__all__ = ["MEMORISED", "NEAR", "Method", "Sampled", "UnitNoises", "coverage_interval", "sample_from", "samplers"]

Method = Model | Denoiser | tuple[Denoiser, dict[str, Any]]
"""A `Model`, sampled as it is meant to be, or (denoiser, arguments of `optimal.sample`: sigmas, solver, …)."""

MEMORISED = 1 / 3
"""Share of the distance to the second nearest data point below which a sample is a copy of the nearest."""
NEAR = 0.05
"""Largest root mean square difference of a near copy, over the data's standard deviation of a value."""
_STEPS, _LAST = 128, 2.5e-5
"""Of the flow of a guided optimum, and its last level above 0 over the first: EDM's 0.002 of 80."""
_SAME_LEVEL = 0.2
"""Relative: how far the pairs' noises may be from the first level of the method."""


@dataclass(frozen=True)
class Sampled:
    """What one method made of its noises.

    Attributes:
        name: of the method.
        first: σ₀, its first noise level.
        nfe: denoiser calls a sample.
        start: (n, *event), σ₀ ε.
        ends: (n, *event), the samples.
        reference: (n, *event), what they are held to: the flow's landings, or the ends of the pairs.
        home: (n,), the data point nearest to the reference.
        neighbours: (n, 2), the two distinct data points nearest to a sample; −1 where there is one only.
        distances: (n, 2), and how far they are; inf for none.
    """

    name: str
    first: float
    nfe: int
    start: Tensor
    ends: Tensor
    reference: Tensor
    home: Tensor
    neighbours: Tensor
    distances: Tensor

    @property
    def same(self) -> Tensor:
        """(n,) bool, whether the nearest data point is the reference's."""
        return self.neighbours[:, 0] == self.home

    @property
    def memorised(self) -> Tensor:
        """(n,) bool, see the module."""
        return self.distances[:, 0] < MEMORISED * self.distances[:, 1]

    @property
    def squares(self) -> Tensor:
        """(n,) float64, ‖sample − reference‖²."""
        return (self.ends.double() - self.reference.double()).flatten(1).square().sum(1)

    def columns(
        self, D: OptimalDenoiser, level: float = 0.95, *, projections: int = 256, seed: int = 0
    ) -> dict[str, Interval]:
        """The columns of the module, () each."""
        generator = stream(seed, "projections")
        return {
            "same": share_interval(self.same, level),
            "distance": positive_interval(self.squares, level=level).map(torch.sqrt),
            "wasserstein": transport_interval(self.ends, D, level, projections=projections, generator=generator),
            "memorised": share_interval(self.memorised, level),
            "coverage": coverage_interval(self.neighbours[:, 0], D, level),
            "nearest": positive_interval(self.distances[:, 0], level=level),
        }


def samplers(
    methods: Mapping[str, Method],
    D: OptimalDenoiser,
    *,
    n: int = 256,
    seed: int = 0,
    pairs: Mapping[str, tuple[Any, Any]] | None = None,
    guided: Guided | None = None,
    level: float = 0.95,
    projections: int = 256,
    progress: bool = False,
) -> list[dict[str, Any]]:
    """Samples of several methods from the same unit noises, a row each.

    Args:
        methods: name -> `Model`, sampled as it is meant to be; any other denoiser, by Heun in 18 steps; or (denoiser,
            arguments of `optimal.sample`). Solvers that draw noise do so from a copy of their generator, or from the
            seed's stream "samples".
        D: the optimum of the data.
        n: number of noises.
        seed: of the noises, of what solvers draw, and of the projections.
        pairs: name of a method -> (noises, ends) that it was trained on, (M, *event) each, the noises at its first
            level; the first n are taken.
        guided: the guided optimum whose flow the samples are held to in place of D's, which is exact: it has no other
            than a solver's, Heun's in 128 steps, and counts for the data point nearest to its end.
        level: of the intervals.
        projections: directions of the sliced Wasserstein distance.
        progress: whether a progress bar is drawn on stderr.

    Returns:
        rows of: method; n; first, the first noise level; nfe; same, same_low, same_high, and so all columns of the
        module; same_pairs, … where some method has pairs, nan for those that have none.

    Raises:
        ValueError: n < 1; pairs of no method, of another shape, or at another level than the method's first.

    Example:
        >>> from optimal import karras
        >>> D = OptimalDenoiser(torch.tensor([[-1.0], [1.0]]))
        >>> rows = samplers({"optimum": (D, {"sigmas": karras(18)})}, D, n=100)
        >>> rows[0]["same"], round(rows[0]["same_low"], 2), rows[0]["memorised"]
        (1.0, 0.96, 1.0)
    """
    require_optimum(D)
    require_level(level)
    n = require_whole("n", n)
    pairs = pairs or {}
    unknown = [name for name in pairs if name not in methods]
    if unknown:
        raise ValueError(f"pairs must be of one of {', '.join(methods)}, got {unknown[0]!r}")
    noises = UnitNoises(D, n, seed, guided)
    rows = []
    for name, method in tqdm(methods.items(), desc="samplers", leave=False, disable=not progress):
        denoiser, arguments = _method(name, method, seed)
        drawn = sample_from(name, denoiser, arguments, D, *noises.at(_first(arguments)))
        parts = {"": drawn}
        if name in pairs:
            start, ends = _pairs(name, pairs[name], D, drawn.first, n)
            # Solvers that draw noise have used theirs.
            denoiser, arguments = _method(name, method, seed)
            parts["_pairs"] = sample_from(name, denoiser, arguments, D, start, ends, D.nearest(ends))
        row: dict[str, Any] = {"method": name, "n": n, "first": drawn.first, "nfe": drawn.nfe}
        for suffix, part in parts.items():
            for column, interval in part.columns(D, level, projections=projections, seed=seed).items():
                row |= interval.flat(column, suffix)
        rows.append(row)
    names = list(max(rows, key=len, default={}))
    return [{name: row.get(name, math.nan) for name in names} for row in rows]


class UnitNoises:
    """One draw of unit noises, at any first level, with what the exact flow, or the guided one, makes of them there."""

    def __init__(
        self,
        D: OptimalDenoiser,
        n: int,
        seed: int,
        guided: Guided | None = None,
        *,
        generator: torch.Generator | None = None,
    ):
        drawn_from = stream(seed, "evaluation-noises") if generator is None else generator
        self._unit = RowNoise(drawn_from).draw((n, *D.event))
        self._D, self._guided = D, guided
        self._known: dict[float, tuple[Tensor, Tensor, Tensor]] = {}

    def at(self, first: float) -> tuple[Tensor, Tensor, Tensor]:
        """σ₀ ε, (n, *event) float32, where the flow lands, and on which data point, (n,)."""
        if first not in self._known:
            start = (first * self._unit).float().to(self._D.points.device)
            if self._guided is None:
                landing = FlowMap(self._D).land(start, first)
                self._known[first] = start, landing.x, landing.index
            else:
                ends = sample(self._guided, start, karras(_STEPS, sigma_min=first * _LAST, sigma_max=first))
                self._known[first] = start, ends, self._D.nearest(ends)
        return self._known[first]


def sample_from(
    name: str,
    denoiser: Denoiser,
    arguments: Mapping[str, Any],
    D: OptimalDenoiser,
    start: Tensor,
    reference: Tensor,
    home: Tensor,
    *,
    progress: bool = False,
) -> Sampled:
    """One method from given noises.

    Args:
        name: of the method.
        denoiser, arguments: as for `optimal.sample`.
        D: the optimum of the data.
        start: (n, *event), x = x_t/s_t at the first level.
        reference, home: (n, *event) and (n,), what the samples are held to, and the data points nearest to it.
        progress: whether a progress bar is drawn on stderr.
    """
    calls: list[int] = []
    first = _first(arguments)
    process = arguments.get("process")
    scale = 1.0 if process is None else float(process.scale_at(first))
    ends = sample(
        denoiser, scale * start, callback=lambda state: calls.append(state.nfe), progress=progress, **arguments
    )
    neighbours, distances = _neighbours(ends, D)
    return Sampled(name, first, calls[-1], start, ends, reference, home, neighbours, distances)


def _neighbours(x: Tensor, D: OptimalDenoiser) -> tuple[Tensor, Tensor]:
    """The two nearest data points and their distances; −1 and inf for what is not finite."""
    finite = torch.isfinite(x).flatten(1).all(1)
    index = torch.full((len(x), 2), -1, dtype=torch.int64, device=x.device)
    distance = torch.full((len(x), 2), torch.inf, dtype=torch.float64, device=x.device)
    index[finite], distance[finite] = D.neighbours(x[finite], 2)
    return index, distance


def _first(arguments: Mapping[str, Any]) -> float:
    return float(grid(arguments["sigmas"])[0])


def _method(name: str, method: Method, seed: int) -> tuple[Denoiser, dict[str, Any]]:
    if isinstance(method, tuple):
        denoiser, arguments = method
    elif callable(method):
        model = method if isinstance(method, Model) else open_model(method)
        denoiser, arguments = model, model.sampling(seed=seed)
    else:
        raise ValueError(
            f"a method is a Model, any denoiser, or (denoiser, arguments of sample), and {name} is "
            f"{type(method).__name__}"
        )
    if "sigmas" not in arguments:
        raise ValueError(f"the arguments of {name} must name its noise levels, sigmas=, got {', '.join(arguments)}")
    if arguments.get("noise") is not None:
        return denoiser, dict(arguments)
    generator = arguments.get("generator")
    # A generator is used up: pairs and noises are to start it alike.
    own = stream(seed, "samples") if generator is None else generator.clone_state()
    return denoiser, arguments | {"generator": own}


def _pairs(name: str, pairs: tuple[Any, Any], D: OptimalDenoiser, first: float, n: int) -> tuple[Tensor, Tensor]:
    """The first n pairs, checked."""
    some = (part[:n] if isinstance(part, Tensor) else torch.from_numpy(np.array(part[:n])) for part in pairs)
    start, ends = (part.float().to(D.points.device) for part in some)
    if start.shape != ends.shape or tuple(start.shape[1:]) != D.event or len(start) == 0:
        raise ValueError(
            f"the pairs of {name} must be one or more noises and as many ends of shape {D.event}, got "
            f"{tuple(start.shape)} and {tuple(ends.shape)}"
        )
    level = float(start.double().square().mean().sqrt())
    if not abs(level / first - 1) < _SAME_LEVEL + 3 / math.sqrt(2 * start.numel()):
        raise ValueError(f"the pairs of {name} start at σ = {level:.3g}, its first noise level is {first:g}")
    return start, ends


def coverage_interval(index: Tensor, D: OptimalDenoiser, level: float = 0.95) -> Interval:
    """Distinct data points among `index`, (n,), over what n draws of the prior reach on average; −1 is none of them."""
    own = D.log_weights.cpu().exp()
    weight = torch.zeros_like(own).index_add_(0, D.first_copies(), own)
    weight = weight[weight > 0]
    expected = float((1 - (1 - weight) ** len(index)).sum())
    found = index[index >= 0].cpu()
    if len(found) == 0:
        return Interval(*torch.full((3,), torch.nan, dtype=torch.float64))
    return distinct_interval(found, level, most=len(weight)).scaled(1 / expected)
