"""What runs leave in their folders: networks, and how students are sampled. The data are not needed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from optimal import karras

from . import checkpoint
from .config import Distillation, Experiment, differing, experiment_of, from_json, to_json
from .distill.progressive import student_grid
from .networks import build
from .precondition import Preconditioned

__all__ = ["STUDENT", "claim", "is_distillation", "load_model", "model_path", "student_at"]

STUDENT = "distillation.json"


def load_model(folder: str | Path) -> tuple[Preconditioned, Experiment | Distillation]:
    """The averaged network of a run's last checkpoint, as a denoiser, and its configuration.

    Args:
        folder: of a run, or a checkpoint file. Of a distillation, the folder with its stages gives the last one. The
            data are not needed.

    Raises:
        ValueError: no checkpoint, a damaged one, progressive distillation before its last stage, or a network of a
            module of one's own, which no configuration describes.
    """
    path = checkpoint.latest(model_path(folder))
    kind = Distillation if checkpoint.kind(path) == "Distillation" else Experiment
    tensors, _, config = checkpoint.read(path, kind)
    experiment = experiment_of(config)
    about = checkpoint.about(path)
    model = build(experiment.network, tuple(about["event"]), about["sigma_data"])
    try:
        model.load_state_dict(checkpoint.unpack(checkpoint.unpack(tensors, "average"), "module"))
    except RuntimeError as error:
        raise ValueError(f"the weights in {path} are not those of the network that it names: {error}") from error
    return model.eval().requires_grad_(False), config


def model_path(folder: str | Path) -> Path:
    """Where a run's checkpoints are: the folder itself; of a distillation, the folder of its last stage."""
    path = Path(folder)
    if not is_distillation(path):
        return path
    config = _distillation(path)
    return path / ("steps-1" if config.technique == "progressive" else "student")


def student_at(
    folder: str | Path, steps: int, *, generator: torch.Generator | None = None
) -> tuple[Preconditioned, dict[str, Any]]:
    """A student, and the arguments of `optimal.sample` with which it takes so many steps as it is meant to.

    Consistency models jump and add noise again (Eq. 37), the others take DDIM steps, on EDM's levels between the σ's of
    its training; of progressive distillation it is the student of the stage with so many steps, on the levels that the
    stage has kept.

    Args:
        folder: of a distillation.
        steps: 1 or more.
        generator: source of the noise of consistency models.

    Raises:
        ValueError: no distillation, or no stage with so many steps.
    """
    folder = Path(folder)
    if not is_distillation(folder):
        raise ValueError(f"{folder} holds no distillation")
    config = _distillation(folder)
    options = config.experiment.optimisation
    ends = {"sigma_min": options.sigma_min, "sigma_max": options.sigma_max}
    if config.technique != "progressive":
        arguments: dict[str, Any] = {"sigmas": karras(steps, **ends), "solver": "euler"}
        if config.technique == "consistency":
            arguments |= {"solver": "consistency", "generator": generator}
        return load_model(folder)[0], arguments
    sigmas = karras(config.points, **ends)
    while len(sigmas) - 1 > steps:
        sigmas = student_grid(sigmas)
    if len(sigmas) - 1 != steps or steps == config.points:
        raise ValueError(f"{folder} has no stage of {steps} steps; it halves {config.points} down to 1")
    return load_model(folder / f"steps-{steps}")[0], {"sigmas": sigmas, "solver": "euler"}


def is_distillation(folder: str | Path) -> bool:
    """Whether a folder holds the stages of a distillation."""
    return (Path(folder) / STUDENT).exists()


def claim(folder: str | Path, config: Distillation, resume: bool) -> None:
    """Say whose folder this is, before anything is trained.

    Raises:
        ValueError: it holds another run, or this one without resume; it cannot be written.
    """
    folder = Path(folder)
    if is_distillation(folder):
        if not resume:
            raise ValueError(f"{folder} holds a run already: resume it, or name another folder")
        fields = differing(_distillation(folder), config)
        if fields:
            raise ValueError(f"{folder} holds another distillation: it differs in {', '.join(fields)}")
        return
    if folder.is_dir() and checkpoint.checkpoints(folder):
        raise ValueError(f"{folder} holds the training of a network: name another folder")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        checkpoint.replace_text(folder / STUDENT, to_json(config) + "\n")
    except OSError as error:
        raise ValueError(f"the run cannot be written to {folder}: {error.strerror or error}") from error


def _distillation(folder: Path) -> Distillation:
    try:
        return from_json(Distillation, (folder / STUDENT).read_text())
    except (OSError, TypeError, ValueError) as error:
        raise ValueError(f"{folder / STUDENT} is damaged: {error}") from error
