"""From memory to generalisation: one network and one training, on more and more points.

Of each data set a third is held out. Two networks of the same initial weights are trained on N points each, the one on
points of the first third, the other on points of the second, so that they have no point in common; the largest N is
both thirds together, for one network. Steps, batch and everything else are the same for all N. With F₁, F₂ the networks
and D₁, D₂ the optima of their points, at each noise level:

    gap           E‖F₁ − D₁‖² at noisy training points and at noisy held-out points, `neural.measure`
    apart         E‖F₁ − F₂‖²/dim at the same noisy held-out points
    optimum_apart E‖D₁ − D₂‖²/dim there: what two networks without any gap would be apart
    ratio         apart/optimum_apart

and of samples from the same noises by Heun's solver in 18 steps, with L₁ and L₂ the points on which the exact flows of
D₁ and D₂ land: memorised and the other columns of `neural.samplers`; E‖F₁'s − F₂'s‖²/dim beside E‖L₁ − L₂‖²/dim; and
the mean cosine of the two about the mean of all data. Intervals are over draws: networks are trained once.

References:
    Kadkhodaie, Guth, Simoncelli, Mallat 2024, "Generalization in Diffusion Models Arises from Geometry-Adaptive
    Harmonic Representations", Figures 1 and 2; Gu, Du, Pang, Li, Lin, Wang 2023, "On Memorization in Diffusion Models".
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from optimal import Dataset, OptimalDenoiser, load, seeking_refining_border
from optimal.datasets import to_uint8
from optimal.devices import device_of
from optimal.draws import draw_pairs
from optimal.intervals import mean_interval, positive_interval
from optimal.randomness import fixed_generator, stream

from .. import checkpoint
from ..auditing import audit
from ..config import Experiment, Network, Optimisation
from ..heldout import Apart, check_held_out
from ..loss import Denoising, root_mean_square
from ..measuring import measure
from ..model import Model, open_model
from ..networks import build
from ..run import run
from ..sampled import Sampled, UnitNoises, sample_from
from ..training import Training
from .plan import Cell, Place, Study, Tables

__all__ = ["GENERALISE", "Generalise"]

_OCTAVES = (-4, -3, -2, -1, 0, 1, 2)
"""Levels that all N share, over the border of all data."""
_SHOWN = 4
"""Samples that are kept as pictures."""
_STEPS = 18


@dataclass(frozen=True)
class Generalise:
    """What one cell follows from.

    Attributes:
        first: the training of F₁.
        second: that of F₂, on other points; None where there are none left. Its initial weights are those of the first.
        held_out: options of the data for what both are held to.
        draws: (x0, ε) at a noise level.
        samples: noises that are sampled from.
        seed: of what is drawn when measuring.
    """

    first: Experiment
    second: Experiment | None
    held_out: dict[str, Any]
    draws: int = 1024
    samples: int = 512
    seed: int = 0

    def data(self) -> dict[str, Dataset]:
        """First, second if there is one, and held-out."""
        named = {"first": self.first.load()}
        if self.second is not None:
            named["second"] = self.second.load()
        return named | {"held-out": load(self.first.dataset, **self.held_out)}

    def work(self, place: Place) -> Tables:
        """Train and measure."""
        data = self.data()
        held_out = data.pop("held-out")
        initial = root_mean_square(held_out)
        models, optima = [], []
        for name, config in (("first", self.first), ("second", self.second)):
            if config is None:
                continue
            folder = _trained(config, data[name], self.first.optimisation.seed, initial, place, name)
            models.append(open_model(str(folder), name=name))
            optima.append(OptimalDenoiser(data[name]))
        apart = check_held_out(optima[0], held_out)
        levels, border = _levels(held_out, optima[0])
        tables = self._gaps(models[0], optima[0], apart, levels, border)
        tables |= self._samples(models, optima, held_out)
        if len(models) == 2:
            tables["agreement"] = self._agreement(models, optima, held_out, levels, border)
        return tables

    def _gaps(self, F: Model, D: OptimalDenoiser, apart: Apart, levels: Tensor, border: float) -> Tables:
        rows: list[dict[str, Any]] = []
        for on in (None, apart):
            found = measure(F, D, on=on, sigmas=levels, draws=self.draws, seed=self.seed)
            rows += [self._marked(row, border) for row in found.rows()]
        return {"gap": rows}

    def _marked(self, row: dict[str, Any], border: float) -> dict[str, Any]:
        at = "at the border" if row["sigma"] == border else "shared"
        return {"n": self.size, "level": at} | {name: value for name, value in row.items() if name != "method"}

    @property
    def size(self) -> int:
        """N."""
        return len(self.first.load())

    def _agreement(
        self, models: list[Model], optima: list[OptimalDenoiser], held_out: Dataset, levels: Tensor, border: float
    ) -> list[dict[str, Any]]:
        clean, eps = draw_pairs(optima[0], held_out, self.draws, stream(self.seed, "evaluation"))
        rows = []
        for sigma in levels.tolist():
            x = clean + sigma * eps
            ours = _squares(models[0](x, sigma), models[1](x, sigma))
            theirs = _squares(*(D(x, sigma) for D in optima))
            row = {"method": "", "sigma": sigma} | positive_interval(ours).flat("apart")
            row |= positive_interval(theirs).flat("optimum_apart")
            rows.append(self._marked(row | positive_interval(ours, theirs).flat("ratio"), border))
        return rows

    def _samples(self, models: list[Model], optima: list[OptimalDenoiser], held_out: Dataset) -> Tables:
        drawn, landed = [], []
        for F, D in zip(models, optima, strict=True):
            arguments = F.sampling(_STEPS)
            start, landing, home = UnitNoises(D, self.samples, self.seed).at(float(arguments["sigmas"][0]))
            drawn.append(sample_from(F.name, F, arguments, D, start, landing, home))
            landed.append(landing)
        rows = [
            {"method": each.name, "n": self.size, "samples": self.samples} | _flat(each.columns(D, seed=self.seed))
            for each, D in zip(drawn, optima, strict=True)
        ]
        base = audit(optima[0], held_out).share("memorised").flat("memorised")
        rows.append({"method": "held-out points", "n": self.size, "samples": len(held_out)} | base)
        tables: Tables = {"samplers": rows, "pictures": _pictures(drawn)}
        if len(models) == 2:
            mean = OptimalDenoiser(held_out).mean
            row: dict[str, Any] = {"n": self.size, "samples": self.samples}
            for name, (a, b) in {"": [each.ends for each in drawn], "optimum_": landed}.items():
                row |= positive_interval(_squares(a, b)).flat(f"{name}apart")
                row |= mean_interval(_cosine(a - mean, b - mean)).within(-1, 1).flat(f"{name}cosine")
            tables["pairs"] = [row]
        return tables


def _trained(config: Experiment, data: Dataset, weights: int, sigma_data: float, place: Place, name: str) -> Path:
    """The folder of a training that begins with the weights of a seed, and draws from its own."""
    folder, clock = place.part(name)
    model = build(config.network, data.event, sigma_data, seed=weights).to(device_of("auto"))
    training = Training(model, config.optimisation, config, data)
    if folder.is_dir() and checkpoint.checkpoints(folder):
        training.resume(folder)
    words = f"train {name} on {len(data)}"
    objective = Denoising(data, config.optimisation, sigma_data)
    run(training, objective, folder, keep=1, progress=place.progress, description=words, listeners=[clock])
    return folder


def _levels(held_out: Dataset, D: OptimalDenoiser) -> tuple[Tensor, float]:
    """Levels around the border of the held-out points, the same for all N, and the border of these N points."""
    # From the draws of what is kept, whose levels go by it.
    border = seeking_refining_border(D, draws=256, generator=fixed_generator()).sigma
    shared = seeking_refining_border(OptimalDenoiser(held_out), draws=256, generator=fixed_generator()).sigma
    levels = sorted({border, *(shared * 2.0**k for k in _OCTAVES)})
    return torch.tensor(levels, dtype=torch.float64), border


def _squares(a: Tensor, b: Tensor) -> Tensor:
    """‖a − b‖²/dim of each row, (B,) float64."""
    return (a.double() - b.double()).flatten(1).square().mean(1)


def _cosine(a: Tensor, b: Tensor) -> Tensor:
    return torch.nn.functional.cosine_similarity(a.double().flatten(1), b.double().flatten(1))


def _flat(columns: Mapping[str, Any]) -> dict[str, Any]:
    row: dict[str, Any] = {}
    for name, interval in columns.items():
        row |= interval.flat(name)
    return row


def _pictures(drawn: list[Sampled]) -> list[dict[str, Any]]:
    """The first few samples as bytes, and the point of their training data that is nearest."""
    rows = []
    for each in drawn:
        for i in range(_SHOWN):
            image = to_uint8(each.ends[i]).flatten().tolist()
            rows.append({"method": each.name, "noise": i, "shape": list(each.ends.shape[1:]), "image": image})
    return rows


_SECOND = 1
"""Seed of the second network of a pair, as a user would give it to a run: what it draws is its own."""


def _cells(
    name: str, dataset: str, options: dict[str, Any], sizes: tuple[int, ...], training: Experiment, seconds: float
) -> list[Cell]:
    """One a size: two networks on that many points of a third each; the last on both thirds."""
    cells = []
    for size in sizes:
        pair = size != sizes[-1]
        first = options | ({"only": (0, 3), "n": size} if pair else {"without": (2, 3)})
        config = Generalise(
            dataclasses.replace(training, dataset=dataset, options=first),
            dataclasses.replace(
                training,
                dataset=dataset,
                options=options | {"only": (1, 3), "n": size},
                optimisation=dataclasses.replace(training.optimisation, seed=_SECOND),
            )
            if pair
            else None,
            options | {"only": (2, 3)},
        )
        cells.append(Cell(f"{name}-{size}", config, config.data, config.work, (1 + pair) * seconds))
    return cells


def _options(steps: int, batch: int, P_mean: float) -> Optimisation:
    return Optimisation(steps=steps, batch=batch, noise="log_normal", P_mean=P_mean, P_std=1.4)


GENERALISE = Study(
    "generalise",
    "At which N does a network stop to repeat its data, and how far is it then from their optimum?",
    (
        *_cells(
            "digits",
            "digits",
            {},
            (10, 30, 100, 300, 599, 1198),
            Experiment(network=Network(width=256, depth=3), optimisation=_options(4000, 256, 0.1)),
            100,
        ),
        *_cells(
            "emoji-16",
            "emoji",
            {"size": 16},
            (10, 30, 100, 300, 810, 1620),
            Experiment(
                network=Network(kind="unet", channels=(16, 32, 64), layers=1), optimisation=_options(2000, 64, 0.7)
            ),
            200,
        ),
    ),
    (("gap", "gap_share"), ("agreement", "ratio"), ("samplers", "memorised"), ("pairs", "cosine")),
)
