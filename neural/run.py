"""Running trainings to their end: progress, metrics, checkpoints."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from optimal import Dataset, OptimalDenoiser
from optimal.denoiser import Denoiser
from optimal.devices import device_of, require_room
from optimal.numbers import require_whole
from optimal.storage import cache_folder

from . import checkpoint
from .batch_target import BatchTarget
from .claims import given_back
from .config import Distillation, Experiment, Optimisation, key
from .distill import stages
from .gap import Gap, GapCurve
from .loss import Denoising, Objective, Regression, root_mean_square
from .networks import build
from .precondition import Preconditioned
from .room import require_room_for_a_batch
from .saved import claim, is_distillation
from .streams import process
from .tables import Growing, Report
from .teachers import OptimumByClass, fingerprint_of, optimum_of
from .training import Training, train

__all__ = ["distil", "fit", "new_training", "run"]

_EVERY = 100
"""Steps between rows of metrics.csv."""


def new_training(
    config: Experiment, data: Dataset, *, device: str | torch.device = "auto"
) -> tuple[Training, Objective]:
    """A network and its loss, as configured, on a device."""
    sigma_data, options, where = root_mean_square(data), config.optimisation, device_of(device)
    model = build(config.network, data.event, sigma_data, seed=options.seed).to(where)
    classes = config.network.classes
    objective: Objective = Denoising(data, options, sigma_data, classes)
    if options.target == "posterior":
        D = OptimumByClass(data, classes, where) if classes else optimum_of(data, where)
        objective = Regression(data, D, options, sigma_data, classes)
    elif options.target == "batch":
        if classes:
            raise ValueError(f"target batch takes no labels: network.classes must be 0, got {classes}; use posterior")
        objective = BatchTarget(data, options, sigma_data)
    return Training(model, options, config, data), objective


def run(
    training: Training,
    objective: Objective,
    folder: str | Path | None,
    *,
    every: int = 1000,
    keep: int = 2,
    gap: GapCurve | None = None,
    gap_every: int = 1000,
    progress: bool = False,
    description: str = "training",
    listeners: Iterable[Any] = (),
    writes: bool = True,
) -> Preconditioned:
    """Train to the end; returns the averaged denoiser, for use.

    Args:
        training, objective: see `neural.training`.
        folder: for checkpoints (every `every` steps and at the end), metrics.csv (every hundredth step, losses and
            gradients the mean since the last row) and gap.csv; None: none.
        every: steps between checkpoints.
        keep: how many checkpoints are kept, the last ones.
        gap: what the network is held against every `gap_every` steps and at the end.
        gap_every: steps between rows of gap.csv, one a noise level.
        progress: whether a bar with loss, speed and time left is drawn on stderr.
        description: of the bar.
        listeners: called with every row of metrics.csv, a `Report`.
        writes: whether this process writes; of several, all are to be given the folder, and one writes.

    Raises:
        ValueError: the folder cannot be written, or not with this network: said before the first step; keep < 1.
    """
    steps, listeners = training.options.steps, tuple(listeners)
    for name, value in (("every", every), ("keep", keep), ("gap_every", gap_every)):
        require_whole(name, value)
    if folder is not None:
        folder = Path(folder)
        training.try_saving()
    ours = folder if writes else None
    curve = gap if writes else None
    with (
        Growing(ours and ours / "metrics.csv", Report, training.step) as metrics,
        Growing(ours and ours / "gap.csv" if curve else None, Gap, training.step) as gaps,
        tqdm(total=steps, initial=training.step, desc=description, unit="it", leave=False, disable=not progress) as bar,
    ):
        for report in train(training, objective):
            bar.update()
            last = report.step == steps
            if report.step % _EVERY == 0 or last:
                mean = training.means.take()
                bar.set_postfix(loss=f"{mean.loss:.3g}")
                metrics.add(mean)
                for listener in listeners:
                    listener(mean)
            if curve is not None and (report.step % gap_every == 0 or last):
                gaps.add(*_gaps(training, curve))
            if folder is not None and (report.step % every == 0 or last):
                training.save(folder, writes=writes)
                for old in checkpoint.checkpoints(folder)[:-keep] if writes else ():
                    old.unlink(missing_ok=True)
    return training.denoiser.eval()


def _gaps(training: Training, curve: GapCurve) -> list[Gap]:
    """As many rows at once as the network is trained on."""
    batch = training.options.batch // training.options.accumulate
    return curve.of(training.denoiser, training.step, device=training.device, batch=max(1, batch))


def fit(
    config: Experiment,
    data: Dataset,
    folder: str | Path | None = None,
    *,
    resume: bool = False,
    extend: bool = False,
    every: int = 1000,
    keep: int = 2,
    gap_every: int | None = None,
    device: str | torch.device = "auto",
    progress: bool = False,
    listeners: Iterable[Any] = (),
    writes: bool = True,
) -> Preconditioned:
    """Train a network (Eq. 26).

    Args:
        config: what is trained.
        data: the data set.
        folder: of the run; None: nothing is written.
        resume: whether to go on from the folder's last checkpoint, if it has one.
        extend: as resume, and the configuration may have more steps than the run was made for.
        every, keep, progress, listeners, writes: as for `run`.
        gap_every: steps between measurements of the gap to the optimum of the data, in gap.csv; None: none.
        device: where it is trained: "auto", or a device.

    Raises:
        ValueError: a batch that does not fit into memory; a folder that holds a run already, without resume; a
            checkpoint of another configuration; gap_every without a folder, or with flip, since the optimum is then
            that of other data.
    """
    folder = None if folder is None else Path(folder)
    with given_back(folder):
        training, objective = new_training(config, data, device=device)
        require_room_for_a_batch(training.denoiser, data.event, config.optimisation, training.device)
        _prepare(training, folder, resume, extend)
        curve = None if gap_every is None else _curve(config, data, folder)
        return run(
            training,
            objective,
            folder,
            every=every,
            keep=keep,
            gap=curve,
            gap_every=gap_every or 1,
            progress=progress,
            description=f"train {data.name}",
            listeners=listeners,
            writes=writes,
        )


def _curve(config: Experiment, data: Dataset, folder: Path | None) -> GapCurve:
    options = config.optimisation
    if folder is None:
        raise ValueError("gap_every is for gap.csv in the folder of the run: name one")
    if options.flip:
        raise ValueError("gap_every needs the optimum of what is trained on: load the data with xflip=True, not flip")
    return GapCurve(OptimalDenoiser(data), sigma_min=options.sigma_min, sigma_max=options.sigma_max, seed=options.seed)


def distil(
    config: Distillation,
    data: Dataset,
    teacher: Denoiser,
    folder: str | Path,
    *,
    resume: bool = False,
    extend: bool = False,
    every: int = 1000,
    keep: int = 2,
    device: str | torch.device = "auto",
    progress: bool = False,
    listeners: Iterable[Any] = (),
) -> Preconditioned:
    """Train a student of a teacher; returns the last stage's. Stages are kept in folders of their own.

    Args:
        config: what is trained.
        data: the data set.
        teacher: any denoiser; asked where the student is trained.
        folder: of the run.
        resume, extend, every, keep, device, progress, listeners: as for `fit`.

    Raises:
        ValueError: as for `fit` and `neural.distill.stages`; a folder with anything else than this distillation;
            several processes, which would all write to it; a student with classes.
    """
    if process()[1] > 1:
        raise ValueError("distillation runs in one process; of several, each would write to the same folder")
    classes = config.experiment.network.classes
    if classes:
        raise ValueError(f"students take no labels: network.classes must be 0, got {classes}")
    folder = Path(folder)
    with given_back(folder):
        claim(folder, config, resume, extend)
        student, where, options = None, device_of(device), config.experiment.optimisation
        network = build(config.experiment.network, data.event, root_mean_square(data))
        require_room_for_a_batch(network, data.event, options, where)
        require_room("levels", config.levels)
        name_of_pairs = f"{_pairs_key(config)}-{data.fingerprint[:8]}-{fingerprint_of(teacher, data.event, where)}"
        pairs, fresh = folder / f"pairs-{name_of_pairs}", cache_folder() / "pairs" / name_of_pairs
        for name, training, objective in stages(
            config, data, teacher, pairs, fresh=fresh, device=where, progress=progress
        ):
            _prepare(training, folder / name, resume, extend)
            student = run(
                training,
                objective,
                folder / name,
                every=every,
                keep=keep,
                progress=progress,
                description=f"{config.technique} {data.name} {name}",
                listeners=listeners,
            )
        assert student is not None
        return student


def _pairs_key(config: Distillation) -> str:
    """16 hex digits of what pairs depend on, beside teacher and data; not of how long a student is trained on them."""
    options = config.experiment.optimisation
    ends = Optimisation(sigma_min=options.sigma_min, sigma_max=options.sigma_max, seed=options.seed)
    return key(dataclasses.replace(config, technique="knowledge", uses=1, experiment=Experiment(optimisation=ends)))


def _prepare(training: Training, folder: Path | None, resume: bool, extend: bool) -> None:
    if folder is not None and isinstance(training.config, Experiment) and is_distillation(folder):
        raise ValueError(f"{folder} holds a distillation: name another folder")
    if folder is None or not folder.is_dir() or not checkpoint.checkpoints(folder):
        return
    if not (resume or extend):
        raise ValueError(f"{folder} holds a run already: resume it, or name another folder")
    training.resume(folder, extend=extend)
