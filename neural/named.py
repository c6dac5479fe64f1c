"""Models by what the command line calls them: opened, with their data, and sampled as they are meant to be."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from optimal import Dataset
from optimal.cli.estimate import Say
from optimal.devices import device_of

from . import checkpoint
from .classes import of_label
from .config import experiment_of
from .model import Model, open_model, require_batch
from .saved import load_model, model_path
from .students import Student
from .teachers import optimum_of

__all__ = ["OPTIMUM", "as_meant", "of_label", "opened", "own_pairs", "takes"]

OPTIMUM = "optimum"


def opened(
    names: Sequence[str],
    data: Dataset | None,
    *,
    device: str = "auto",
    batch: int | None = None,
    label: int | None = None,
    say: Say,
) -> tuple[list[Model], Dataset]:
    """Models by what the command line calls them, and their data: those of the first run unless given.

    Args:
        names: "optimum", or what `open_model` understands.
        data: the training data; with a label those of all classes.
        device, batch, label: as for `open_model`.
        say: told where a run was trained on other data.

    Raises:
        ValueError: no data, where no model knows its own; as for `open_model`; points of different shapes.
    """
    device_of(device)
    require_batch(batch)
    models = {name: open_model(name, device=device, batch=batch, name=name) for name in names if name != OPTIMUM}
    runs = {name: model.run for name, model in models.items() if model.run is not None}
    if data is None:
        if not runs:
            raise ValueError(f"{names[0]} does not know its data: give --dataset")
        data = experiment_of(load_model(next(iter(runs.values())))[1]).load()
    for name, run in runs.items():
        _tell_of_other_data(name, run, data, say)
    if label is not None:
        data = of_label(data, label)
    out = []
    for name in names:
        # The optimum of a class is that of its points.
        own = open_model(optimum_of(data, device_of(device)), name=OPTIMUM, batch=batch) if name == OPTIMUM else None
        model = own or models[name]
        model.require_event(data.event, data.name)
        out.append(model.given(label) if label is not None and name != OPTIMUM else model)
    return out, data


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


def _tell_of_other_data(name: str, folder: Path, data: Dataset, say: Say) -> None:
    about = checkpoint.about(checkpoint.latest(model_path(folder)))
    if tuple(about["event"]) == data.event and about["fingerprint"] != data.fingerprint:
        say(f"warning: {name} was trained on other data ({about['name']}) than {data.name}")
    if experiment_of(load_model(folder)[1]).optimisation.flip:
        say(f"warning: {name} was trained with mirrored images; its optimum is that of --option xflip=True")
