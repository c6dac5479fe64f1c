"""Running trainings to their end: progress, metrics, checkpoints, and a cache keyed by what was asked for."""

from __future__ import annotations

import csv
import dataclasses
import hashlib
import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, distributed, nn
from tqdm import tqdm

from optimal import Dataset, OptimalDenoiser
from optimal.denoiser import Denoiser
from optimal.storage import cache_folder, locked, read_json, replacing

from . import checkpoint
from .config import Distillation, Experiment, key
from .distill import stages
from .loss import Denoising, Objective, root_mean_square
from .networks import build
from .precondition import Preconditioned
from .saved import STUDENT, claim, is_distillation, load_model
from .training import Report, Training, train

__all__ = [
    "cache_path",
    "cached",
    "distil",
    "fit",
    "is_cached",
    "new_training",
    "run",
    "teacher_of",
]

_EVERY = 100
"""Steps between rows of metrics.csv."""

_DONE = "done.json"


def new_training(config: Experiment, data: Dataset) -> tuple[Training, Objective]:
    """A network and its denoising loss, as configured."""
    sigma_data = root_mean_square(data)
    model = build(config.network, data.event, sigma_data, seed=config.optimisation.seed)
    model.to("cuda" if torch.cuda.is_available() else "cpu")
    return Training(model, config.optimisation, config, data), Denoising(data, config.optimisation, sigma_data)


def run(
    training: Training,
    objective: Objective,
    folder: str | Path | None,
    *,
    every: int = 1000,
    progress: bool = False,
    description: str = "training",
    listeners: Iterable[Any] = (),
) -> Preconditioned:
    """Train to the end; returns the averaged denoiser, for use.

    Args:
        training, objective: see `neural.training`.
        folder: for checkpoints (every `every` steps and at the end, the last two are kept) and metrics.csv; None: none.
        progress: whether a bar with loss, speed and time left is drawn on stderr.
        description: of the bar.
        listeners: called with every hundredth `Report`.

    Raises:
        ValueError: the folder cannot be written, or not with this network: said before the first step.
    """
    steps = training.options.steps
    if folder is not None:
        folder = Path(folder)
        training.try_saving()
    with (
        _Metrics(folder, training.step) as metrics,
        tqdm(total=steps, initial=training.step, desc=description, unit="it", leave=False, disable=not progress) as bar,
    ):
        for report in train(training, objective):
            bar.update()
            if report.step % _EVERY == 0 or report.step == steps:
                bar.set_postfix(loss=f"{report.loss:.3g}")
                metrics.add(report)
                for listener in listeners:
                    listener(report)
            if folder is not None and (report.step % every == 0 or report.step == steps):
                training.save(folder)
                for old in checkpoint.checkpoints(folder)[:-2]:
                    old.unlink(missing_ok=True)
    return training.denoiser.eval()


class _Metrics:
    """metrics.csv: step, loss, lr, gradient. A resumed run drops the rows after its checkpoint."""

    def __init__(self, folder: Path | None, step: int):
        self._file = None
        if folder is None:
            return
        path, kept = folder / "metrics.csv", []
        try:
            folder.mkdir(parents=True, exist_ok=True)
            if step and path.exists():
                with open(path, newline="") as file:
                    kept = [row for row in csv.reader(file) if row and row[0].isdigit() and int(row[0]) <= step]
            with replacing(path) as temporary, open(temporary, "w", newline="") as file:
                csv.writer(file).writerows([[f.name for f in dataclasses.fields(Report)], *kept])
            self._file = open(path, "a", newline="")  # noqa: SIM115
        except OSError as error:
            raise ValueError(f"the run cannot be written to {folder}: {error.strerror or error}") from error
        self._writer = csv.writer(self._file)

    def add(self, report: Report) -> None:
        if self._file is not None:
            self._writer.writerow(dataclasses.astuple(report))
            self._file.flush()

    def __enter__(self) -> _Metrics:
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.close()


def fit(
    config: Experiment,
    data: Dataset,
    folder: str | Path | None = None,
    *,
    resume: bool = False,
    every: int = 1000,
    progress: bool = False,
    listeners: Iterable[Any] = (),
    writes: bool = True,
) -> Preconditioned:
    """Train a network (Eq. 26); with a folder, `resume` goes on from its last checkpoint, if it has one.

    Of several processes, one is to have `writes`; the others read the folder only.

    Raises:
        ValueError: a folder that holds a run already, without resume; a checkpoint of another configuration.
    """
    folder = None if folder is None else Path(folder)
    training, objective = new_training(config, data)
    _prepare(training, folder, resume)
    return run(
        training,
        objective,
        folder if writes else None,
        every=every,
        progress=progress,
        description=f"train {data.name}",
        listeners=listeners,
    )


def distil(
    config: Distillation,
    data: Dataset,
    teacher: Denoiser,
    folder: str | Path,
    *,
    resume: bool = False,
    every: int = 1000,
    progress: bool = False,
    listeners: Iterable[Any] = (),
) -> Preconditioned:
    """Train a student of a teacher; returns the last stage's. Stages are kept in folders of their own.

    Raises:
        ValueError: as for `fit` and `neural.distill.stages`; a folder with anything else than this distillation;
            several processes, which would all write to it.
    """
    if distributed.is_initialized() and distributed.get_world_size() > 1:
        raise ValueError("distillation runs in one process; of several, each would write to the same folder")
    folder = Path(folder)
    claim(folder, config, resume)
    student = None
    pairs = folder / f"pairs-{key(config)}-{data.fingerprint[:8]}-{_fingerprint(teacher, data.event)}"
    for name, training, objective in stages(config, data, teacher, pairs, progress=progress):
        _prepare(training, folder / name, resume)
        student = run(
            training,
            objective,
            folder / name,
            every=every,
            progress=progress,
            description=f"{config.technique} {data.name} {name}",
            listeners=listeners,
        )
    assert student is not None
    return student


def teacher_of(config: Distillation, data: Dataset) -> Denoiser:
    """The denoiser that `config.teacher` names."""
    return OptimalDenoiser(data) if config.teacher == "optimum" else load_model(config.teacher)[0]


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
                    teacher = teacher_of(config, data)
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
        name += f"-{_fingerprint(teacher_of(config, data), data.event)}"
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
            path.unlink(missing_ok=True)
    for name in (_DONE, STUDENT):
        (folder / name).unlink(missing_ok=True)


def _checkpoints(folder: Path) -> list[Path]:
    """Those of a run, or of all stages of a distillation."""
    return [path for part in (folder, *sorted(folder.glob("*/"))) for path in checkpoint.checkpoints(part)]


def _fingerprint(teacher: Denoiser, event: tuple[int, ...]) -> str:
    """8 hex digits of a network, or of a few answers of any other teacher; "optimum" of that."""
    if isinstance(teacher, OptimalDenoiser):
        return "optimum"
    digest = hashlib.blake2b(digest_size=4)
    state = teacher.state_dict() if isinstance(teacher, nn.Module) else {}
    if not state or not all(isinstance(value, Tensor) and value.layout == torch.strided for value in state.values()):
        eps = torch.randn(4, *event, generator=torch.Generator().manual_seed(0))
        for sigma in (0.1, 1.0, 10.0):
            digest.update(teacher(sigma * eps, sigma).detach().double().cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()
    if isinstance(teacher, Preconditioned):
        digest.update(f"{teacher.precondition} {teacher.sigma_data!r}".encode())
    for name, tensor in sorted(state.items()):
        digest.update(name.encode() + tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _prepare(training: Training, folder: Path | None, resume: bool) -> None:
    if folder is not None and isinstance(training.config, Experiment) and is_distillation(folder):
        raise ValueError(f"{folder} holds a distillation: name another folder")
    if folder is None or not folder.is_dir() or not checkpoint.checkpoints(folder):
        return
    if not resume:
        raise ValueError(f"{folder} holds a run already: resume it, or name another folder")
    training.resume(folder)
