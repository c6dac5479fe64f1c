"""What `python -m neural sample` and `compare` ask of models: numbers.

Every function takes `say`, which is told what a user is to know while waiting; progress bars are drawn on stderr.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from optimal import Dataset, Guided, OptimalDenoiser, karras, sample
from optimal.border import seeking_refining_border
from optimal.cli import seconds_of_a_row
from optimal.cli.answers import solver_on
from optimal.cli.estimate import LANDING_ROWS, Say, announce, around, seconds_of_the_border
from optimal.cli.room import require_room, require_single
from optimal.denoiser import Denoiser
from optimal.numbers import require_whole
from optimal.randomness import RowNoise, fixed_generator, stream
from optimal.samplers import solver_of

from .convention import question
from .heldout import check_held_out
from .measuring import Measured, default_sigmas, measure
from .model import Model
from .named import OPTIMUM, as_meant, own_pairs, takes
from .places import STEPS
from .sampled import Method, samplers
from .teachers import optimum_of
from .wanted import unguided

__all__ = ["Compared", "Drawing", "Place", "Plan", "compared", "drawing", "drawn", "expected", "planned"]

Place = Literal["data", "held-out", "trajectory"]
_RANGE = (0.002, 80.0)
_QUESTION = 448
"""Rows that are asked to see whether a network is in the right convention, if it is."""
_LEVELS = 12
_TWICE = ("heun", "edm_stochastic", "dpm_solver")
"""Solvers that ask about twice a step."""


@dataclass(frozen=True)
class Drawing:
    """How a model is to be sampled.

    Attributes:
        model: whose name it has.
        denoiser: asked: the model, or a student of the stage with so many steps.
        arguments: of `optimal.sample`.
        n: number of samples.
        seed: of their noises.
    """

    model: Model
    denoiser: Denoiser
    arguments: dict[str, Any]
    n: int
    seed: int

    def about(self) -> dict[str, Any]:
        """Model, n, solver, steps, first level and seed."""
        sigmas = torch.as_tensor(self.arguments["sigmas"])
        steps = {"solver": self.arguments["solver"], "steps": len(sigmas) - 1, "sigma_max": float(sigmas[0])}
        return {"model": self.model.name, "n": self.n} | steps | {"seed": self.seed}


def drawing(
    model: Model,
    n: int,
    steps: int | None,
    solver: str | None,
    *,
    options: Mapping[str, Any],
    sigma_min: float | None,
    sigma_max: float | None,
    seed: int,
) -> Drawing:
    """A model sampled as it is meant to be, unless a solver or a level is given.

    Raises:
        ValueError: n < 1; levels for a student, which has its own; as for `solver_of` and `karras`.
    """
    n = require_whole("n", n)
    require_room("steps", steps or 1)
    if solver is None and sigma_min is None and sigma_max is None:
        denoiser, arguments = as_meant(model, steps, seed)
    elif solver is None and model.meant is not None:
        raise ValueError("a student has levels of its own: give --solver with other ones")
    elif model.grid is not None and sigma_min is None and sigma_max is None:
        denoiser, arguments = model, model.sampling(steps) | {"solver": solver or "heun"}
    else:
        low, high = _range([model], sigma_min, sigma_max)
        sigmas = karras(18 if steps is None else steps, sigma_min=low, sigma_max=high)
        denoiser, arguments = model, {"sigmas": sigmas, "solver": solver or "heun"}
    arguments = {"solver": "heun"} | {name: value for name, value in arguments.items() if name != "generator"}
    solver_on(torch.as_tensor(arguments["sigmas"]), arguments["solver"], options)
    return Drawing(model, denoiser, arguments | dict(options), n, seed)


def drawn(how: Drawing, event: tuple[int, ...], *, say: Say) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Arrays (noises, samples, sigmas), and what they are."""
    about = how.about()
    seconds = expected(how, event)
    rows, shape = RowNoise(stream(how.seed, "samples")), (how.n, *event)
    x = (about["sigma_max"] * rows.draw(shape)).float()
    announce(seconds, say)
    nfe: list[int] = []
    ends = sample(
        how.denoiser,
        x,
        noise=lambda step: rows.draw(shape),
        progress=True,
        callback=lambda state: nfe.append(state.nfe),
        **how.arguments,
    )
    arrays = {"noises": x, "samples": ends, "sigmas": torch.as_tensor(how.arguments["sigmas"])}
    return arrays, about | {"nfe": nfe[-1]}


def expected(how: Drawing, event: tuple[int, ...]) -> float:
    """Seconds that `drawn` will take, about.

    Raises:
        ValueError: more samples than fit into memory.
    """
    require_room("n", how.n, math.prod(event))
    about = how.about()
    calls = how.n * _asked(about["solver"], about["steps"])
    return calls * _seconds(how.model, event, min(how.model.batch, how.n))


@dataclass(frozen=True)
class Compared:
    """Models beside the optimum.

    Attributes:
        measured: as denoisers, one a model and place.
        samplers: as samplers, a row each, see `neural.sampled`.
        about: data, seed, and the samplers' noise levels.
    """

    measured: list[Measured]
    samplers: list[dict[str, Any]]
    about: dict[str, Any]

    def sentences(self) -> list[str]:
        """Where each is farthest from the optimum."""
        return [each.sentence() for each in self.measured]

    def remarks(self) -> list[str]:
        """What is to be known of them, with whose and where; the same sentence of several places once."""
        found: dict[str, list[str]] = {}
        for each in self.measured:
            for remark in each.remarks:
                found.setdefault(remark, []).append(f"{each.name} on {each.on}")
        return [f"{', '.join(whose)}: {remark}" for remark, whose in found.items()]

    @property
    def denoisers(self) -> list[dict[str, Any]]:
        """A flat row a model, place and noise level."""
        return [row for each in self.measured for row in each.rows()]


@dataclass(frozen=True)
class Plan:
    """What is compared: everything but the models.

    Attributes:
        on: where the denoisers are asked; empty for the data and, if there are any, the held-out points.
        sigmas: of the denoisers; None for twelve around the border.
        draws: pairs (x0, ε) at each.
        n: noises of the samplers.
        steps: numbers of steps of the samplers.
        solver: of them, for all models; students are also sampled as they are meant to be.
        sigma_min, sigma_max: of the samplers; None for those that all models share.
        seed: of all draws.
    """

    on: tuple[Place, ...] = ()
    sigmas: tuple[float, ...] | None = None
    draws: int = 1024
    n: int = 256
    steps: tuple[int, ...] = (1, 2, 4, 18)
    solver: str = "euler"
    sigma_min: float | None = None
    sigma_max: float | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if self.sigmas == () or not self.steps:
            raise ValueError("sigmas and steps must name at least one each")
        if self.draws < 2 or self.n < 1:
            raise ValueError(f"draws must be at least 2 and n be at least 1, got {self.draws} and {self.n}")
        solver_of(self.solver, {})

    def places(self, held_out: Dataset | None) -> tuple[Place, ...]:
        """Where the denoisers are asked.

        Raises:
            ValueError: held-out points that there are none of.
        """
        if not self.on:
            return ("data",) if held_out is None else ("data", "held-out")
        if "held-out" in self.on and held_out is None:
            raise ValueError("there are no held-out points: give --held-out")
        return self.on


def compared(
    models: Sequence[Model],
    data: Dataset,
    plan: Plan,
    *,
    held_out: Dataset | None = None,
    guided: Guided | None = None,
    say: Say,
) -> Compared:
    """Models beside the optimum, as denoisers and as samplers from the same unit noises.

    Args:
        models: of different names.
        data: the training data, of the class.
        plan: everything else.
        held_out: points that were not trained on, of the same class.
        guided: the guided optimum that guided models are held to, in place of that of the data.
        say: told what a user is to know while waiting.

    Raises:
        ValueError: as for `measure` and `samplers`; two models of one name.
    """
    names = [model.name for model in models]
    if len(set(names)) < len(names):
        raise ValueError(f"no two models may have one name, got {', '.join(names)}")
    places = plan.places(held_out)
    low, high = _range(models, plan.sigma_min, plan.sigma_max)
    D = optimum_of(data, models[0].device)
    announce(planned(models, D, plan, places), say)
    grids = {n: karras(n, sigma_min=low, sigma_max=high) for n in plan.steps}
    apart = check_held_out(D, held_out, progress=True) if held_out is not None and "held-out" in places else None
    question([unguided(model) for model in models], D, say, seed=plan.seed)
    border, sigmas = None, plan.sigmas
    if sigmas is None:
        border = seeking_refining_border(D, progress=True)
        shared = max(model.sigma_min for model in models), min(model.sigma_max for model in models)
        sigmas = tuple(default_sigmas(D, border.sigma, shared).tolist())
    measured = []
    for model in models:
        for place in places:
            on = {"data": None, "held-out": apart, "trajectory": "trajectory"}[place]
            found = measure(model, guided or D, on=on, sigmas=sigmas, draws=plan.draws, seed=plan.seed, progress=True)
            measured.append(dataclasses.replace(found, border=border))
    methods: dict[str, Method] = {}
    pairs: dict[str, tuple[Any, Any]] = {}
    for n, grid in grids.items():
        # Solvers that draw noise take it from here, each from its start.
        arguments = {"sigmas": grid, "solver": plan.solver, "generator": stream(plan.seed, "samples")}
        for name, model in ({OPTIMUM: guided or D} | dict(zip(names, models, strict=True))).items():
            methods[f"{name}, {n} steps"] = (model, arguments)
        for model in models:
            if takes(model, n):
                name = f"{model.name}, {n} steps as it is meant"
                methods[name] = as_meant(model, n, plan.seed)
                learnt = own_pairs(model)
                pairs |= {} if learnt is None else {name: learnt}
    rows = samplers(methods, D, n=plan.n, seed=plan.seed, pairs=pairs, guided=guided, progress=True)
    about = {"dataset": data.name, "fingerprint": data.fingerprint, "sigma_min": low, "sigma_max": high}
    return Compared(measured, rows, about)


def planned(models: Sequence[Model], D: OptimalDenoiser, plan: Plan, places: Sequence[Place]) -> float:
    """Seconds that `compared` will take, about: a row of every network is timed, and one of the optimum.

    Raises:
        ValueError: more than fits into memory.
    """
    # x0, ε, x and both answers; starts, states in float64 and ends.
    require_room("draws", plan.draws, 5 * math.prod(D.event))
    require_room("n", plan.n, 4 * math.prod(D.event))
    for count in plan.steps:
        require_room("steps", count)
    levels = len(plan.sigmas) if plan.sigmas else _LEVELS
    steps = sum(_asked(plan.solver, n) for n in plan.steps)
    own = {"data": levels, "held-out": levels, "trajectory": 2 * (STEPS + levels)}
    (x, sigma), *_ = around(D, max(plan.draws, plan.n), [_middle(*_RANGE)])
    a_row = seconds_of_a_row(D.posterior, x, sigma)
    total = a_row * plan.n * (LANDING_ROWS + steps)
    if plan.sigmas is None:
        total += seconds_of_the_border(D)
    for model in models:
        total += a_row * levels * plan.draws * len(places)
        asked = _QUESTION + plan.draws * sum(own[place] for place in places) + plan.n * steps
        total += asked * _seconds(model, D.event, min(model.batch, max(plan.draws, plan.n)))
    return total


def _range(models: Sequence[Model], sigma_min: float | None, sigma_max: float | None) -> tuple[float, float]:
    """The noise levels that samplers go through: EDM's, or what all models share of them."""
    low = max(_RANGE[0], *(model.sigma_min for model in models)) if sigma_min is None else sigma_min
    high = min(_RANGE[1], *(model.sigma_max for model in models)) if sigma_max is None else sigma_max
    require_single("sigma_max", high)
    return low, high


def _asked(solver: str, steps: int) -> int:
    return steps * (2 if solver in _TWICE else 1)


def _seconds(model: Model, event: tuple[int, ...], rows: int) -> float:
    """What a row of a network takes."""
    sigma = _middle(max(model.sigma_min, _RANGE[0]), min(model.sigma_max, _RANGE[1]))
    unit = torch.randn((rows, *event), generator=fixed_generator("queries"), dtype=torch.float32)
    return seconds_of_a_row(model, sigma * unit, sigma)


def _middle(low: float, high: float) -> float:
    return math.sqrt(low * high)
