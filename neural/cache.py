"""Finished trainings by what was asked for: trained where there is none, and found again ever after."""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from optimal import Dataset
from optimal.devices import device_of
from optimal.storage import cache_folder, locked, read_json

from . import checkpoint
from .config import Distillation, Experiment, key
from .run import distil, fit
from .saved import STUDENT, load_model
from .teachers import fingerprint_of, teacher_of

__all__ = ["cache_path", "cached", "is_cached"]

_DONE = "done.json"


def cached(
    config: Experiment | Distillation, data: Dataset, *, progress: bool = False, listeners: Iterable[Any] = ()
) -> Path:
    """The folder of a finished run of this configuration on these data; trained, or gone on with, where there is none.

    It lies in the user's cache folder (`OPTIMAL_CACHE` names another), under a name made of the version, the
    configuration, the fingerprint of the data and, for a student of a network, that of the teacher's weights. A second
    process that asks for the same run waits for the first. What is damaged is trained again from the last sound step.

    Raises:
        ValueError: as for `fit` and `distil`; the folder cannot be written.
    """
    folder = cache_path(config, data)
    if _is_finished(folder, config):
        return folder
    try:
        with locked(folder / ".lock", f"training in {folder}"):
            if not _is_finished(folder, config):
                _remove_damaged(folder)
                if isinstance(config, Experiment):
                    fit(config, data, folder, resume=True, progress=progress, listeners=listeners)
                else:
                    teacher = teacher_of(config, data, device_of())
                    distil(config, data, teacher, folder, resume=True, progress=progress, listeners=listeners)
                names = [path.relative_to(folder).as_posix() for path in _checkpoints(folder)]
                checkpoint.replace_text(folder / _DONE, json.dumps({"checkpoints": names}, indent=1) + "\n")
    except OSError as error:
        raise ValueError(f"the run cannot be written to {folder}: {error.strerror or error}") from error
    return folder


def cache_path(config: Experiment | Distillation, data: Dataset) -> Path:
    """Where `cached` keeps a run."""
    name = f"{type(config).__name__.lower()}{checkpoint.FORMAT}-{data.name}-{key(config)}-{data.fingerprint[:8]}"
    if isinstance(config, Distillation) and config.teacher != "optimum":
        name += f"-{fingerprint_of(teacher_of(config, data), data.event)}"
    return cache_folder() / "networks" / re.sub(r"[^A-Za-z0-9_.-]+", "_", name)


def is_cached(config: Experiment | Distillation, data: Dataset) -> bool:
    """Whether `cached` has nothing left to train."""
    return _is_finished(cache_path(config, data), config)


def _is_finished(folder: Path, config: Experiment | Distillation) -> bool:
    done = read_json(folder / _DONE)
    if done is None:
        return False
    # Runs of the first version list no files.
    names = done.get("checkpoints")
    paths = [folder / str(name) for name in names] if isinstance(names, list) else _checkpoints(folder)
    try:
        return bool(paths) and all(map(checkpoint.is_sound, paths)) and load_model(folder)[1] == config
    except ValueError:
        return False


def _remove_damaged(folder: Path) -> None:
    """What a run left here that cannot be gone on with; who the folder belongs to is written again."""
    for path in _checkpoints(folder):
        if not checkpoint.is_sound(path):
            warnings.warn(
                f"{path} is damaged; it is removed, and trained again from what is left", RuntimeWarning, stacklevel=3
            )
            path.unlink(missing_ok=True)
    for name in (_DONE, STUDENT):
        (folder / name).unlink(missing_ok=True)


def _checkpoints(folder: Path) -> list[Path]:
    """Those of a run, or of all stages of a distillation."""
    return [path for part in (folder, *sorted(folder.glob("*/"))) for path in checkpoint.checkpoints(part)]
