"""The trained networks that figures show: those that come with the toolkit, else from the cache.

What is neither there is trained, side by side, each on one thread: these networks are too small for two threads to be
twice as fast. --quick trains small ones.
"""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Iterable
from multiprocessing.sharedctypes import Synchronized
from pathlib import Path
from typing import Any

from tqdm import tqdm

from neural import (
    PRESETS,
    Distillation,
    Experiment,
    Preconditioned,
    cached,
    is_cached,
    load_model,
    student_at,
    student_of,
)
from neural.config import TECHNIQUES, experiment_of
from neural.pretrained import folder_of, names
from neural.saved import student_steps
from optimal import Dataset

from .common import generator
from .config import Config
from .workers import CONTEXT, begin, finished

__all__ = ["COLORS", "SIGMA_MIN", "dataset", "distillation", "network", "prepare", "sampled", "stages", "student"]

SIGMA_MIN = student_of("toy", "consistency").experiment.optimisation.sigma_min
"""Lowest level of the students' grids."""
COLORS = dict(zip(TECHNIQUES, ("tab:blue", "tab:orange", "tab:green", "tab:purple"), strict=True))
"""Of the students of a technique, in all figures."""
_QUICK_STEPS = 150


def dataset(preset: str) -> Dataset:
    """The data of a preset."""
    return PRESETS[preset].load()


def network(config: Config, preset: str) -> Preconditioned:
    """The network of a preset, trained now if it is not in the cache."""
    return load_model(_folder(preset, _experiment(config, preset)))[0]


def student(config: Config, preset: str, technique: str, stage: str = "student") -> Preconditioned:
    """A student of the optimum of a preset's data; of progressive distillation that of `stage`, "steps-4" say."""
    folder = _folder(f"{preset}-{technique}", distillation(config, preset, technique))
    return load_model(folder / stage if stage != "student" else folder)[0]


def sampled(config: Config, preset: str, technique: str, steps: int) -> tuple[Preconditioned, dict[str, Any]]:
    """A student and the arguments of `optimal.sample` with which it takes so many steps, as `student_at` says."""
    folder = _folder(f"{preset}-{technique}", distillation(config, preset, technique))
    return student_at(folder, steps, generator=generator(config, 6))


def stages(config: Config, preset: str) -> list[int]:
    """The steps of the progressive students of a preset's data that are there, up to 8."""
    folder = _folder(f"{preset}-progressive", distillation(config, preset, "progressive"))
    return sorted(steps for steps in student_steps(folder) or () if steps <= 8)


def prepare(config: Config, networks: Iterable[str], students: Iterable[str] = ()) -> None:
    """Train what neither comes with the toolkit nor is in the cache, as many at a time as there are cores.

    One bar counts the optimiser steps of all of them.
    """
    there = names()
    wanted: list[Experiment | Distillation] = [
        _experiment(config, preset) for preset in networks if preset not in there
    ]
    wanted += [
        distillation(config, preset, technique)
        for preset in students
        for technique in TECHNIQUES
        if f"{preset}-{technique}" not in there
    ]
    missing = [job for job in wanted if not is_cached(job, experiment_of(job).load())]
    workers = min(len(missing), os.cpu_count() or 1)
    if workers < 2:
        return  # One is trained where it is asked for, on all threads.
    missing.sort(key=_cost, reverse=True)
    done = CONTEXT.Value("q", 0)
    total = sum(map(_steps, missing))
    with tqdm(total=total, desc=f"training {len(missing)} networks", unit="step") as bar:
        for _ in finished(_train, missing, workers, _begin, done):
            bar.update(done.value - bar.n)


def _folder(name: str, job: Experiment | Distillation) -> Path:
    """Of the network that is shipped by this name, or of a run of this job."""
    return folder_of(name) if name in names() else cached(job, experiment_of(job).load(), progress=True)


_done: Synchronized[int] | None = None
"""Steps of all processes together; in a worker only."""


def _begin(done: Synchronized[int]) -> None:
    global _done
    _done = done
    begin()


def _train(job: Experiment | Distillation) -> None:
    cached(job, experiment_of(job).load(), listeners=[_Count()])


class _Count:
    """Adds the steps of a run's reports, those before a resumption included, to the shared count."""

    def __init__(self) -> None:
        self.last = 0

    def __call__(self, report: Any) -> None:
        assert _done is not None
        with _done.get_lock():
            _done.value += report.step - (self.last if report.step > self.last else 0)
        self.last = report.step


def _steps(job: Experiment | Distillation) -> int:
    steps = experiment_of(job).optimisation.steps
    if isinstance(job, Distillation) and job.technique == "progressive":
        return steps * math.ceil(math.log2(job.levels))
    return steps


def _cost(job: Experiment | Distillation) -> int:
    """The longest is to be started first."""
    experiment = experiment_of(job)
    return _steps(job) * experiment.optimisation.batch * experiment.network.width**2


def distillation(config: Config, preset: str, technique: str) -> Distillation:
    """What the student of a technique is trained with."""
    student = student_of(preset, technique)
    return dataclasses.replace(
        student,
        levels=min(student.levels, 32) if config.quick else student.levels,
        pairs=1000 if config.quick else student.pairs,
        experiment=_sized(config, student.experiment),
    )


def _experiment(config: Config, preset: str) -> Experiment:
    return _sized(config, PRESETS[preset])


def _sized(config: Config, experiment: Experiment) -> Experiment:
    options = dataclasses.replace(experiment.optimisation, seed=config.seed)
    if config.quick:
        options = dataclasses.replace(options, steps=_QUICK_STEPS, batch=min(options.batch, 128), warmup=20)
        experiment = dataclasses.replace(experiment, network=dataclasses.replace(experiment.network, width=64))
    return dataclasses.replace(experiment, optimisation=options)
