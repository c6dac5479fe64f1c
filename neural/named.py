"""Models by what the command line calls them: opened, with their data, and sampled as they are meant to be."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from optimal import Dataset, Guided
from optimal.cli.estimate import Say
from optimal.devices import device_of

from . import checkpoint
from .config import experiment_of
from .model import Model, open_model, require_batch
from .saved import load_model, model_path
from .students import Student
from .teachers import optimum_of
from .wanted import Wanted

__all__ = ["ALL", "OPTIMUM", "as_meant", "opened", "own_pairs", "takes"]

OPTIMUM = "optimum"
ALL = Wanted()
"""All data, as they are."""


def opened(
    names: Sequence[str],
    data: Dataset | None,
    *,
    device: str = "auto",
    batch: int | None = None,
    wanted: Wanted = ALL,
    say: Say,
) -> tuple[list[Model], Dataset, Guided | None]:
    """Models by what the command line calls them, and their data: those of the first run unless given.

    Args:
        names: "optimum", or what `open_model` understands.
        data: the training data; with a label those of all classes.
        device, batch: as for `open_model`.
        wanted: the class, guidance and group that all are asked for.
        say: told where a run was trained on other data.

    Returns:
        The models; the data, of the class and with their images; and the guided optimum, None without guidance.

    Raises:
        ValueError: no data, where no model knows its own; as for `open_model`; points of different shapes.
    """
    there = device_of(device)
    require_batch(batch)
    models = {name: open_model(name, device=device, batch=batch, name=name) for name in names if name != OPTIMUM}
    runs = {name: model.run for name, model in models.items() if model.run is not None}
    if data is None:
        if not runs:
            raise ValueError(f"{names[0]} does not know its data: give --dataset")
        data = experiment_of(load_model(next(iter(runs.values())))[1]).load()
    for name, run in runs.items():
        _tell_of_other_data(name, run, data, say, flipped=wanted.orbit == "flip")
    points, guiding = wanted.points(data), wanted.optimum(data, there)
    out = []
    for name in names:
        if name == OPTIMUM:
            # The optimum of a class is that of its points.
            own = open_model(optimum_of(points, there), name=OPTIMUM, batch=batch)
            out.append(own if guiding is None else dataclasses.replace(own, denoiser=guiding))
            continue
        models[name].require_event(points.event, points.name)
        out.append(wanted.network(models[name]))
    return out, points, guiding


def as_meant(model: Model, steps: int | None, seed: int) -> tuple[Model, dict[str, Any]]:
    """A model and the arguments of `optimal.sample`; of progressive distillation, every number of steps has its own."""
    if not isinstance(model.meant, Student):
        return model, model.sampling(steps, seed=seed)
    arguments = model.meant.sampling(steps, seed)
    network = model.meant.network(steps)
    return model if network is None else dataclasses.replace(model, denoiser=network.to(model.device)), arguments


def takes(model: Model, steps: int) -> bool:
    """Whether it is a student that is meant to be sampled with so many steps."""
    return isinstance(model.meant, Student) and model.meant.takes(steps)


def own_pairs(model: Model) -> tuple[np.ndarray, np.ndarray] | None:
    """The pairs (noises, ends) that a student was trained on, where it was on a fixed number of them."""
    return model.meant.pairs() if isinstance(model.meant, Student) else None


def _tell_of_other_data(name: str, folder: Path, data: Dataset, say: Say, *, flipped: bool) -> None:
    about, experiment = checkpoint.about(checkpoint.latest(model_path(folder))), experiment_of(load_model(folder)[1])
    if tuple(about["event"]) == data.event and about["fingerprint"] != data.fingerprint:
        left_out = experiment.options.get("without")
        if about["name"] == data.name and set(experiment.options) == {"without"} and left_out is not None:
            say(
                f"note: 1 in {left_out[1]} of the points of {data.name} is held out from the training of {name}; "
                f"--option without={_as_word(left_out)} leaves them out of the optimum, too"
            )
        else:
            options = [f"--option {key}={_as_word(value)}" for key, value in experiment.options.items()]
            asked = " ".join(["", *options]) if about["name"] == data.name else ""
            say(f"warning: {name} was trained on other data ({about['name']}{asked}) than {data.name}")
    if experiment.optimisation.flip and not flipped:
        say(f"warning: {name} was trained with mirrored images; its optimum is that of --orbit flip")


def _as_word(value: object) -> str:
    return ",".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
