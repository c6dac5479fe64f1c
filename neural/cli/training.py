"""`python -m neural train` and `distill`: runs, made and gone on with."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from torch import distributed

from optimal import Dataset
from optimal.cli import as_json, parse_options, writable
from optimal.datasets import options_of
from optimal.devices import device_of
from optimal.packages import required

from .. import networks
from ..commands import Distill, Train
from ..config import Distillation, Experiment, experiment_of, to_json
from ..loss import root_mean_square
from ..room import require_room_for_a_batch
from ..run import distil, fit
from ..saved import load_model
from ..teachers import teacher_of

__all__ = ["distill", "train"]


def train(command: Train) -> None:
    """A network, its checkpoints and its metrics."""
    config = _on_data(command, command.config)
    data = config.load()
    if command.dry_run:
        model = networks.build(config.network, data.event, root_mean_square(data))
        require_room_for_a_batch(model, data.event, config.optimisation, device_of(command.device))
        told = as_json(_told(data, config) | {"weights": networks.count(model)})
        text = f"{data.describe()}\n{to_json(config)}\n{networks.count(model):,} weights; nothing was trained"
        print(told if command.json else text)
        return
    main_process = not distributed.is_initialized() or distributed.get_rank() == 0
    out = writable(command.out, "", folder=True)
    listeners = [_tensorboard(out)] if command.tensorboard and main_process else []
    fit(
        config,
        data,
        out,
        resume=command.resume,
        extend=command.extend,
        every=command.every,
        keep=command.keep,
        gap_every=command.gap_every,
        device=command.device,
        progress=main_process,
        listeners=listeners,
        writes=main_process,
    )
    if main_process:
        print(as_json(_told(data, config) | {"out": str(out)}) if command.json else f"trained {data.name}: {out}")


def distill(command: Distill) -> None:
    """A student, its stages, checkpoints and metrics."""
    config = command.config
    base = config.experiment
    if config.teacher != "optimum" and command.dataset is None:
        theirs = experiment_of(load_model(config.teacher)[1])
        base = dataclasses.replace(base, dataset=theirs.dataset, options=theirs.options)
    config = dataclasses.replace(config, experiment=_on_data(command, base))
    data = config.experiment.load()
    teacher = teacher_of(config, data, device_of(command.device))
    if command.dry_run:
        student = networks.build(config.experiment.network, data.event, root_mean_square(data))
        require_room_for_a_batch(student, data.event, config.experiment.optimisation, device_of(command.device))
        text = f"{data.describe()}\n{to_json(config)}\nnothing was trained"
        print(as_json(_told(data, config)) if command.json else text)
        return
    out = writable(command.out, "", folder=True)
    distil(
        config,
        data,
        teacher,
        out,
        resume=command.resume,
        extend=command.extend,
        every=command.every,
        keep=command.keep,
        device=command.device,
        progress=True,
    )
    found = _told(data, config) | {"out": str(out)}
    print(as_json(found) if command.json else f"distilled {data.name} ({config.technique}): {out}")


def _told(data: Dataset, config: Experiment | Distillation) -> dict[str, Any]:
    return {"dataset": data.name, "fingerprint": data.fingerprint, "config": dataclasses.asdict(config)}


def _on_data(command: Train | Distill, config: Experiment) -> Experiment:
    """On the data of the command line; options without --dataset change those of the configuration."""
    if command.every < 1:
        raise ValueError(f"every must be at least 1, got {command.every}")
    given = options_of(command.dataset or config.dataset, parse_options(command.option)) if command.option else {}
    if command.dataset is not None:
        return dataclasses.replace(config, dataset=command.dataset, options=given)
    return dataclasses.replace(config, options=config.options | given)


def _tensorboard(folder: Path) -> Any:
    required("--tensorboard", "tensorboard")
    from torch.utils.tensorboard import SummaryWriter

    writer = SummaryWriter(folder)

    def log(report: Any) -> None:
        for name in ("loss", "lr", "gradient"):
            writer.add_scalar(name, getattr(report, name), report.step)

    return log
