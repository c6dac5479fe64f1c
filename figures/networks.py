"""The trained networks that figures show, from the cache: presets, made small by --quick."""

from __future__ import annotations

import dataclasses

from neural import PRESETS, Distillation, Experiment, Preconditioned, cached, load_model
from optimal import Dataset, load

from .config import Config

__all__ = ["STUDENTS", "dataset", "network", "student"]

STUDENTS = ("consistency", "progressive", "knowledge", "multistep")

_STUDENTS = {
    "consistency": (4000, 18, 0.95, "none"),
    "progressive": (1200, 32, 0.98, "edm"),
    "knowledge": (3000, 32, 0.995, "edm"),
    "multistep": (4000, 32, 0.995, "edm"),
}
"""Optimiser steps (of a stage), grid points of the teacher, decay of the average, weighting. The target of consistency
distillation is its average: at 0.995 only half of the noises land right after as many steps, at 0.95 97%."""
_QUICK_STEPS = 150


def dataset(preset: str) -> Dataset:
    """The data of a preset."""
    return load(PRESETS[preset].dataset, **PRESETS[preset].options)


def network(config: Config, preset: str) -> Preconditioned:
    """The network of a preset, trained now if it is not in the cache."""
    return load_model(cached(_experiment(config, preset), dataset(preset), progress=True))[0]


def student(config: Config, preset: str, technique: str, stage: str = "student") -> Preconditioned:
    """A student of the optimum of a preset's data; of progressive distillation that of `stage`, "steps-4" say."""
    base = _experiment(config, preset)
    steps, points, ema, weighting = _STUDENTS[technique]
    changes = {"steps": _QUICK_STEPS if config.quick else steps, "ema": ema, "weighting": weighting, "sigma_min": 0.02}
    experiment = dataclasses.replace(base, optimisation=dataclasses.replace(base.optimisation, **changes))
    pairs = 2000 if config.quick else 65_536
    distillation = Distillation(technique, points=points, pairs=pairs, experiment=experiment)
    folder = cached(distillation, dataset(preset), progress=True)
    return load_model(folder / stage if stage != "student" else folder)[0]


def _experiment(config: Config, preset: str) -> Experiment:
    experiment = PRESETS[preset]
    options = dataclasses.replace(experiment.optimisation, seed=config.seed)
    if config.quick:
        options = dataclasses.replace(options, steps=_QUICK_STEPS, batch=min(options.batch, 128), warmup=20)
    return dataclasses.replace(experiment, optimisation=options)
