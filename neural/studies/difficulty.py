"""Is iterative denoising easier to learn than direct prediction? One network and one budget, as either, on N points.

Of the same architecture, with as many optimiser steps on batches of the same size, on the same N points are trained

    a denoiser   on the optimum's own E[x0 | x], at all noise levels, then sampled in 1, 2, 4, 8 and 18 steps of Heun's
    a student    of the exact flow, by each technique of distillation, sampled in the steps that it is meant for

All start from the same fresh noises at σ = 80, and all are held to the data point on which the exact flow lands from
there, which is what each of them is to find: `same` of `neural.samplers`, the share of noises that end nearest to it.
Of the denoiser the gap share is measured too, at the border and at octaves that all N share; of students that learn
from pairs `same` on the first of these. Intervals are over draws: networks are trained once.

References:
    The paper's D.2: "it is much easier for a neural network to learn iterative denoising … compared to direct
    prediction".
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any

import torch

from optimal import Dataset, OptimalDenoiser, seeking_refining_border
from optimal.randomness import fixed_generator

from ..config import TECHNIQUES, Distillation, Experiment, Network, Optimisation, Technique, experiment_of
from ..distill import pairs_seen
from ..measuring import measure
from ..model import Model, open_model
from ..named import as_meant, takes
from ..run import distil, fit
from ..sampled import Method, samplers
from .plan import Cell, Place, Study, Tables

__all__ = ["DIFFICULTY", "Difficulty"]

_LEVELS = (0.16, 0.32, 0.64, 1.28, 2.56, 5.12)
"""At which the denoiser's gap is measured for every N, beside the border, which two points do not have: octaves around
the border of all digits, 0.64."""
_STEPS, _STUDENTS_STEPS = (1, 2, 4, 8, 18), (1, 2, 4)


@dataclass(frozen=True)
class Difficulty:
    """What one cell follows from.

    Attributes:
        training: of a denoiser, or of a student of the optimum.
        draws: (x0, ε) at a noise level.
        samples: noises that are sampled from.
        seed: of what is drawn when measuring.
    """

    training: Experiment | Distillation
    draws: int = 1024
    samples: int = 1024
    seed: int = 0

    @property
    def learner(self) -> str:
        """denoiser, or the technique."""
        return self.training.technique if isinstance(self.training, Distillation) else "denoiser"

    def data(self) -> dict[str, Dataset]:
        """The points."""
        return {"data": experiment_of(self.training).load()}

    def work(self, place: Place) -> Tables:
        """Train and measure."""
        data = self.data()["data"]
        D = OptimalDenoiser(data)
        folder, clock = place.part(self.learner)
        words: dict[str, Any] = {"resume": True, "progress": place.progress, "listeners": [clock]}
        if isinstance(self.training, Experiment):
            fit(self.training, data, folder, **words)
        else:
            distil(self.training, data, D, folder, **words)
        model = open_model(str(folder), name=self.learner)
        tables: Tables = {"samplers": self._samples(model, D)}
        if isinstance(self.training, Experiment):
            # From the draws of what is kept, whose levels go by it.
            border = seeking_refining_border(D, draws=256, generator=fixed_generator()).sigma
            levels = sorted({*_LEVELS, border} if math.isfinite(border) else _LEVELS)
            found = measure(
                model, D, sigmas=torch.tensor(levels, dtype=torch.float64), draws=self.draws, seed=self.seed
            ).rows()
            at = ["at the border" if row["sigma"] == border else "shared" for row in found]
            tables["gap"] = [self._marked({"level": each} | row) for each, row in zip(at, found, strict=True)]
        return tables

    def _samples(self, model: Model, D: OptimalDenoiser) -> list[dict[str, Any]]:
        student = isinstance(self.training, Distillation)
        steps = [n for n in _STUDENTS_STEPS if takes(model, n)] if student else _STEPS
        methods: dict[str, Method] = {str(n): as_meant(model, n, self.seed) for n in steps}
        seen = pairs_seen(self.training, D, self.samples) if isinstance(self.training, Distillation) else None
        rows = samplers(methods, D, n=self.samples, seed=self.seed, pairs={"1": seen} if seen else None)
        return [self._marked({"steps": int(row["method"])} | row) for row in rows]

    def _marked(self, row: dict[str, Any]) -> dict[str, Any]:
        """A row of one cell: N is `n`, the noises that were sampled from are `samples`."""
        named = {"samples" if name == "n" else name: value for name, value in row.items() if name != "method"}
        return {"n": len(self.data()["data"]), "learner": self.learner} | named


_NETWORK = Network(width=256, depth=3)
_SIZES = (10, 100, None, 30, 1000, 300, 2, 5)
"""Of the digits without the tenths that the presets hold out; None: all of them."""
_STEPS_OF_ALL = 400
"""Optimiser steps, of 512 samples each; of progressive distillation all stages together."""
_LONGER, _LONGER_SIZES = 8, (10, 100)
"""A knowledge student is trained for so many times as many steps, too: on so many times the pairs (more), or on the
same (longer)."""
_MOST, _MOST_SIZE, _USES_OF_MOST = 32, 100, 8
"""And, of one size, for so many times as many, each pair twice as often as elsewhere (most)."""


def _options(**values: Any) -> Optimisation:
    return Optimisation(steps=_STEPS_OF_ALL, batch=512, optimizer="muon", lr=4e-3, warmup=50, **values)


def _training(learner: str, options: dict[str, Any], times: int = 1, uses: int = 4) -> Experiment | Distillation:
    """What one learner is trained with."""
    if learner == "denoiser":
        noise: dict[str, Any] = {"noise": "log_normal", "P_mean": 0.1, "P_std": 1.4, "target": "posterior"}
        return Experiment("digits", options, _NETWORK, _options(ema=0.99, **noise))
    technique: Technique = next(each for each in TECHNIQUES if each == learner)
    values: dict[str, Any] = {"sigma_min": 0.2, "weighting": "none"}
    values["ema"] = 0.95 if technique == "consistency" else 0.99
    experiment = Experiment("digits", options, _NETWORK, _options(**values))
    levels, solver = 12 if technique == "consistency" else 16, "euler" if technique == "progressive" else "heun"
    if technique == "progressive":
        stages = levels.bit_length() - 1
        short = dataclasses.replace(experiment.optimisation, steps=_STEPS_OF_ALL // stages)
        experiment = dataclasses.replace(experiment, optimisation=short)
    longer = dataclasses.replace(experiment.optimisation, steps=times * experiment.optimisation.steps)
    experiment = dataclasses.replace(experiment, optimisation=longer)
    return Distillation(technique, levels=levels, solver=solver, uses=uses, experiment=experiment)


def _cells() -> list[Cell]:
    cells = []
    for learners in (("denoiser", "knowledge", "consistency"), ("multistep", "progressive")):
        for size in _SIZES:
            for learner in learners:
                options: dict[str, Any] = {"without": (10, 11)} | ({} if size is None else {"n": size})
                config = Difficulty(_training(learner, options))
                name = f"digits-{size or 'all'}-{learner}"
                cells.append(Cell(name, config, config.data, config.work, 60))
    for size in _LONGER_SIZES:
        for name, uses in (("more", 4), ("longer", 4 * _LONGER)):
            training = _training("knowledge", {"without": (10, 11), "n": size}, _LONGER, uses)
            config = Difficulty(training)
            cells.append(Cell(f"digits-{size}-{name}", config, config.data, config.work, 60 * _LONGER / 2))
    training = _training("knowledge", {"without": (10, 11), "n": _MOST_SIZE}, _MOST, _USES_OF_MOST)
    most = Difficulty(training)
    cells.append(Cell(f"digits-{_MOST_SIZE}-most", most, most.data, most.work, 60 * _MOST / 2))
    return cells


DIFFICULTY = Study(
    "difficulty",
    "Is iterative denoising easier to learn than direct prediction?",
    tuple(_cells()),
    (("samplers", "same"), ("gap", "gap_share")),
)
