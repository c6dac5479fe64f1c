"""Trainings by name, and how their data are distilled: what the figures show, and where one begins with other data."""

from __future__ import annotations

import dataclasses
from typing import Any, cast

from .config import TECHNIQUES, Distillation, Experiment, Network, Optimisation, Technique

__all__ = ["PRESETS", "student_of"]

_OF_DIGITS = Optimisation(
    steps=20_000,
    batch=1024,
    optimizer="muon",
    lr=4e-3,
    noise="log_normal",
    P_mean=0.1,
    P_std=1.4,
    target="posterior",
)
_OF_EMOJI = Optimisation(steps=24_000, batch=64, lr=1e-3, noise="log_normal", P_mean=0.7, P_std=1.4, target="posterior")

PRESETS: dict[str, Experiment] = {
    "toy": Experiment("five-deltas", network=Network(depth=2), optimisation=Optimisation(steps=5000)),
    "digits": Experiment("digits", {"without": (10, 11)}, Network(width=384, depth=3), _OF_DIGITS),
    "digits-classes": Experiment(
        "digits",
        {"without": (10, 11)},
        Network(width=192, depth=3, classes=10),
        dataclasses.replace(_OF_DIGITS, steps=12_000),
    ),
    "faces": Experiment(
        "faces",
        {"without": (9, 10), "xflip": True},
        Network(kind="unet", channels=(16, 32, 64), layers=1),
        dataclasses.replace(_OF_EMOJI, steps=4500, P_mean=0.8),
    ),
    "emoji-16": Experiment(
        "emoji",
        {"size": 16, "without": (9, 10)},
        Network(kind="unet", channels=(32, 64, 96, 96), layers=1),
        _OF_EMOJI,
    ),
    # The same on patches, without a convolution.
    "emoji-16-dit": Experiment(
        "emoji",
        {"size": 16, "without": (9, 10)},
        Network(kind="dit", width=96, depth=5, patch=2),
        dataclasses.replace(_OF_EMOJI, steps=8000, optimizer="muon", lr=2e-3),
    ),
    "emoji-32": Experiment(
        "emoji",
        {"size": 32, "without": (9, 10)},
        Network(kind="unet", channels=(16, 32, 64), layers=1),
        dataclasses.replace(_OF_EMOJI, steps=4500, P_mean=1.6),
    ),
    "emoji-64": Experiment(
        "emoji",
        {"without": (9, 10)},
        Network(kind="unet", channels=(16, 32, 48, 64), layers=1),
        dataclasses.replace(_OF_EMOJI, steps=3000, P_mean=2.4),
    ),
    # Karras et al. 2022's DDPM++ at 32×32 and 64×64 in size; they train on a GPU, and were only constructed here.
    "cifar-32": Experiment(
        "cifar10-32x32.zip",
        {"xflip": True},
        network=Network(kind="unet", channels=(256, 256, 256), layers=4, attention=(16,)),
        optimisation=Optimisation(
            steps=390_000, batch=512, lr=1e-3, warmup=20_000, ema=0.9999, noise="log_normal", bf16=True
        ),
    ),
    "ffhq-64": Experiment(
        "ffhq-64x64.zip",
        {"xflip": True},
        network=Network(kind="unet", channels=(128, 256, 256, 256), layers=4, attention=(16,)),
        optimisation=Optimisation(
            steps=390_000, batch=512, lr=2e-4, warmup=20_000, ema=0.9999, noise="log_normal", bf16=True
        ),
    ),
}
"""Trainings by name: toy, digits, digits-classes (given labels), faces, emoji-16, emoji-16-dit (a transformer),
emoji-32 and emoji-64 (with faces minutes on a GPU, or hours without); cifar-32 and ffhq-64 need a GPU, and files of
these names as NVlabs/edm's dataset_tool.py writes them."""


_TOY_STUDENTS: dict[str, Any] = {"batch": 1024, "optimizer": "adam", "sigma_min": 0.02, "uses": 16}
_DIGITS_STUDENTS: dict[str, Any] = {
    "batch": 512,
    "optimizer": "muon",
    "lr": 4e-3,
    "warmup": 50,
    "sigma_min": 0.2,
    "weighting": "none",
    "uses": 2,
    "width": 256,
}
_STUDENTS: dict[str, dict[str, dict[str, Any]]] = {
    "toy": {
        "consistency": _TOY_STUDENTS | {"steps": 4000, "levels": 40, "ema": 0.95, "weighting": "none", "lr": 2e-3},
        "progressive": _TOY_STUDENTS | {"steps": 600, "levels": 256, "ema": 0.98, "weighting": "edm", "lr": 1e-3},
        "knowledge": _TOY_STUDENTS | {"steps": 2000, "levels": 32, "ema": 0.995, "weighting": "edm", "lr": 1e-3},
        "multistep": _TOY_STUDENTS | {"steps": 3000, "levels": 32, "ema": 0.995, "weighting": "none", "lr": 1e-3},
    },
    "digits": {
        "consistency": _DIGITS_STUDENTS | {"steps": 4000, "levels": 12, "ema": 0.95},
        "progressive": _DIGITS_STUDENTS | {"steps": 800, "levels": 16, "ema": 0.98, "width": 160},
        "knowledge": _DIGITS_STUDENTS | {"steps": 6400, "levels": 16, "ema": 0.99, "uses": 8},
        "multistep": _DIGITS_STUDENTS | {"steps": 3200, "levels": 16, "ema": 0.99, "uses": 8},
    },
}
"""Levels of the teacher; uses, how often a pair is drawn; width of the network; and what differs in its optimisation,
the steps of a stage among it. The target of consistency distillation is its average: at 0.995 only half of the toy's
noises land right after as many steps. On coarser grids the teacher's own steps move mass between the toy's points:
Wasserstein distance 0.16 for 18 of Heun's, 0.27 for 32 of Euler's, however well the student is trained. Of digits, 12
of Heun's levels down to 0.2, where all is decided, take 96% of 512 noises where the exact flow does, down to 0.02 93%;
16 of Euler's take 83%. A pair costs as much as twenty draws of one: of few pairs a student learns these, and not the
map, and most of the time goes into new ones."""
_OF_TECHNIQUE: dict[Technique, dict[str, Any]] = {
    "consistency": {"ema": 0.95, "weighting": "none"},
    "progressive": {"weighting": "edm"},
    "knowledge": {"weighting": "none"},
    "multistep": {"weighting": "none"},
}
"""For other data. The average of a consistency student is its target, and has to follow it. What a multi-step student
is asked for is the same point at every level, and so is what an error there costs: 1/σ² would leave the weight to the
lowest levels, where the answer is all but x."""


def student_of(preset: str, technique: str) -> Distillation:
    """How a preset's data are distilled: toy and digits as in the figures, others with their preset's training, changed
    where the technique asks for it.

    Raises:
        ValueError: an unknown preset or technique.
    """
    if preset not in PRESETS:
        raise ValueError(f"unknown preset {preset!r}; known are {', '.join(PRESETS)}")
    if technique not in TECHNIQUES:
        raise ValueError(f"technique must be one of {', '.join(TECHNIQUES)}, got {technique!r}")
    name = cast(Technique, technique)
    experiment, solver = PRESETS[preset], "euler" if name == "progressive" else "heun"
    # Students take no labels.
    experiment = dataclasses.replace(experiment, network=dataclasses.replace(experiment.network, classes=0))
    if preset not in _STUDENTS:
        options = dataclasses.replace(experiment.optimisation, target="x0", **_OF_TECHNIQUE[name])
        return Distillation(name, solver=solver, experiment=dataclasses.replace(experiment, optimisation=options))
    values = dict(_STUDENTS[preset][name])
    levels, uses = values.pop("levels"), values.pop("uses")
    width = values.pop("width", experiment.network.width)
    options = dataclasses.replace(experiment.optimisation, target="x0", **values)
    network = dataclasses.replace(experiment.network, width=width)
    experiment = dataclasses.replace(experiment, network=network, optimisation=options)
    return Distillation(name, levels=levels, solver=solver, uses=uses, experiment=experiment)
