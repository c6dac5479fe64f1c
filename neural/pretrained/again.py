"""Training shipped networks again, measuring what came out, and putting it in their place.

What is measured is what the repository prints: the gap on the data, on the points that were left out and on the
network's own trajectory, and its samples, with intervals, by the one path (`neural.measure`, `neural.samplers`).
"""

from __future__ import annotations

import csv
import math
import os
import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from optimal import OptimalDenoiser

from .. import checkpoint
from ..classes import labels_of
from ..config import Distillation, Experiment, experiment_of
from ..distill import pairs_seen
from ..measuring import measure
from ..model import Model, open_model
from ..named import as_meant, takes
from ..networks import count
from ..places import On
from ..run import distil, fit
from ..sampled import samplers
from ..saved import is_distillation, load_model
from ..sources import module_of
from ..tables import Report
from ..teachers import OptimumByClass, teacher_of
from . import shelf
from .recipes import Recipe
from .shelf import About
from .slim import slim

__all__ = ["Clock", "again", "measured", "ship", "verdict"]

_SECONDS = "seconds.csv"
_SAME, _WITHIN, _OF_SAMPLES = 0.01, 0.1, 0.25
"""How much half precision may move a share, and be the same number: relative, or of half its interval, whichever is
more. Samples that lie near a border of basins go over it by rounding, and a sampler of many calls has more of them."""
_GAP_EVERY = 500
_OF_A_LABEL = 4
"""Draws of all data for one of a class."""
_STEPS, _STUDENTS_STEPS = (18,), (1, 2, 4)
"""Of samplers."""


class Clock:
    """A listener of a run that keeps how long it has trained, over all its starts, in seconds.csv.

    Args:
        folder: of the run.
    """

    def __init__(self, folder: Path):
        self.path = folder / _SECONDS
        self.last = time.perf_counter()

    def __call__(self, report: Report) -> None:
        now = time.perf_counter()
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with open(self.path, "a", newline="") as file:
            csv.writer(file).writerow([report.step, f"{now - self.last:.3f}"])
        self.last = now

    def seconds(self) -> float:
        """So far."""
        if not self.path.exists():
            return 0.0
        with open(self.path, newline="") as file:
            return sum(float(row[1]) for row in csv.reader(file))


def again(what: Recipe, out: str | Path, *, progress: bool = True) -> Path:
    """Train a network to its end in out/NAME, going on where an earlier call was stopped; its folder.

    Raises:
        ValueError: as for `fit` and `distil`.
    """
    folder, data = Path(out) / what.name, what.data()
    clock = Clock(folder)
    if isinstance(what.config, Experiment):
        fit(what.config, data, folder, resume=True, gap_every=_GAP_EVERY, progress=progress, listeners=[clock])
    else:
        teacher = teacher_of(what.config, data)
        distil(what.config, data, teacher, folder, resume=True, progress=progress, listeners=[clock])
    return folder


def measured(
    what: Recipe, folder: str | Path, *, seed: int = 0, progress: bool = True
) -> dict[str, list[dict[str, Any]]]:
    """The rows that are shipped beside a network: `gap`, where it is no student, `samplers`, and `labels`, where it has
    classes."""
    D = OptimalDenoiser(what.data())
    model = open_model(str(folder), name=what.name)
    gap: list[dict[str, Any]] = []
    if isinstance(what.config, Experiment):
        rest = what.config.rest()
        places: list[On] = [None, "trajectory"] if rest is None else [None, rest, "trajectory"]
        for on in places:
            draws = what.trajectory if isinstance(on, str) else what.draws
            gap += measure(model, D, on=on, draws=draws, seed=seed, progress=progress).rows()
    found = {"gap": gap, "samplers": _sampled(what, model, D, seed), "labels": _by_label(what, model, gap, seed)}
    return {part: [_finite(row) for row in rows] for part, rows in found.items()}


def _by_label(what: Recipe, model: Model, gap: list[dict[str, Any]], seed: int) -> list[dict[str, Any]]:
    """The network given each label beside the optimum of this class, at the levels of the gap."""
    data, classes = what.data(), experiment_of(what.config).network.classes
    if not classes:
        return []
    levels = torch.tensor([row["sigma"] for row in gap if row["on"] == "data"], dtype=torch.float64)
    optima, rows = OptimumByClass(data, classes), []
    for label in labels_of(data, classes).unique().tolist():
        draws = max(2, what.draws // _OF_A_LABEL)
        found = measure(model.given(label), optima.of(label), sigmas=levels, draws=draws, seed=seed)
        rows += [{"label": label} | row for row in found.rows()]
    return rows


def _finite(row: dict[str, Any]) -> dict[str, Any]:
    """Without what is not defined, for points of one value say: JSON has no word for it."""
    return {name: value for name, value in row.items() if not isinstance(value, float) or math.isfinite(value)}


def _sampled(what: Recipe, model: Model, D: OptimalDenoiser, seed: int) -> list[dict[str, Any]]:
    shipped = _STUDENTS_STEPS if what.stages is None else [n for n in _STUDENTS_STEPS if n in what.stages]
    steps = _STEPS if isinstance(what.config, Experiment) else [n for n in shipped if takes(model, n)]
    methods = {f"{what.name}, {n} step{'s' if n > 1 else ''}": as_meant(model, n, seed) for n in steps}
    seen = pairs_seen(what.config, D, what.samples) if isinstance(what.config, Distillation) else None
    return samplers(methods, D, n=what.samples, seed=seed, pairs={next(iter(methods)): seen} if seen else None)


def ship(
    what: Recipe, run: str | Path, *, shelf_folder: str | Path | None = None, seed: int = 0, progress: bool = True
) -> tuple[About, int]:
    """Put a finished run in the place of the shipped network, with what it measures; what is known of it, and bytes.

    Weights are kept in half precision where that moves no share of the gap, and no share of samples, by more than a
    hundredth of itself, or a twentieth of its interval, an eighth for samples.
    """
    run, place = Path(run), Path(shelf_folder or Path(__file__).parent) / what.name
    whole, data = measured(what, run, seed=seed, progress=progress), what.data()
    slim(run, place, half=True, stages=what.stages)
    rounded = measured(what, place, seed=seed, progress=False)
    half = _same(whole, rounded)
    found = rounded if half else whole
    size = slim(run, place, half=half, stages=what.stages)
    network, _ = load_model(place)
    known = About(
        name=what.name,
        dataset=data.name,
        fingerprint=data.fingerprint,
        points=len(data),
        weights=count(module_of(network) or network),
        steps=_steps(run),
        seconds=round(Clock(run).seconds(), 1),
        machine=machine(),
        torch=torch.__version__,
        half=half,
        seed=seed,
        gap=found["gap"],
        samplers=found["samplers"],
        labels=found["labels"],
    )
    shelf.put(known, place.parent)
    return known, size


def machine() -> str:
    """The GPU, if there is one, the processor, and how many threads were used."""
    gpu = f"{torch.cuda.get_device_name()}, " if torch.cuda.is_available() else ""
    return f"{gpu}{platform.machine()}, {os.cpu_count()} cores, {torch.get_num_threads()} threads"


def verdict(then: About, now: dict[str, list[dict[str, Any]]], say: Callable[[str], object]) -> None:
    """Say how the gap of a network trained again compares with that of the shipped one, level by level."""
    for before, after in zip(then.gap, now["gap"], strict=False):
        if before["on"] != "data":
            continue
        words = "as"
        if after["gap_share_low"] > before["gap_share_high"]:
            words = "above"
        elif after["gap_share_high"] < before["gap_share_low"]:
            words = "below"
        say(
            f"σ = {before['sigma']:.3g}: share {after['gap_share']:.3g} [{after['gap_share_low']:.3g}, "
            f"{after['gap_share_high']:.3g}], {words} the shipped {before['gap_share']:.3g}"
        )


def _same(a: dict[str, list[dict[str, Any]]], b: dict[str, list[dict[str, Any]]]) -> bool:
    return all(
        abs(x[name] - y[name]) <= max(_SAME * abs(x[name]), within * (x[f"{name}_high"] - x[f"{name}_low"]) / 2)
        for part, name, within in (
            ("gap", "gap_share", _WITHIN),
            ("labels", "gap_share", _WITHIN),
            ("samplers", "same", _OF_SAMPLES),
        )
        for x, y in zip(a[part], b[part], strict=True)
    )


def _steps(run: Path) -> int:
    parts = run.glob("*/") if is_distillation(run) else [run]
    return sum(int(checkpoint.latest(part).stem.partition("-")[2]) for part in parts if checkpoint.checkpoints(part))
