"""What runs leave in their folders: networks, and how students are sampled. The data are not needed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from optimal import karras

from . import checkpoint
from .config import Distillation, Experiment, differing, experiment_of, from_json, longer, to_json
from .distill.pairs import open_pairs
from .distill.progressive import student_grid
from .networks import build
from .precondition import Preconditioned

__all__ = [
    "STUDENT",
    "claim",
    "is_distillation",
    "load_model",
    "model_path",
    "sampling_at",
    "stage_of",
    "stage_path",
    "student_at",
    "student_steps",
    "training_pairs",
]

STUDENT = "distillation.json"


def load_model(folder: str | Path, *, net: nn.Module | None = None) -> tuple[Preconditioned, Experiment | Distillation]:
    """The averaged network of a run's last checkpoint, as a denoiser, and its configuration.

    Args:
        folder: of a run, or a checkpoint file. Of a distillation, the folder with its stages gives the last one. The
            data are not needed.
        net: a module of one's own, F(x, c_noise), or the `Preconditioned` around it, which no configuration describes:
            it is given the weights. Built as configured unless given.

    Raises:
        ValueError: no checkpoint, a damaged one, progressive distillation before its last stage, or weights that are
            not those of the network.
    """
    path = checkpoint.latest(model_path(folder))
    kind = Distillation if checkpoint.kind(path) == "Distillation" else Experiment
    tensors, _, config = checkpoint.read(path, kind)
    network, about = experiment_of(config).network, checkpoint.about(path)
    if net is None:
        model = build(network, tuple(about["event"]), about["sigma_data"])
    else:
        inner = net.net if isinstance(net, Preconditioned) else net
        model = Preconditioned(inner, about["sigma_data"], about.get("precondition", network.precondition))
    try:
        model.load_state_dict(checkpoint.unpack(checkpoint.unpack(tensors, "average"), "module"))
    except RuntimeError as error:
        named = "the network that it names: give a module of your own as net=" if net is None else "the net given"
        reason = " ".join(str(error).split())
        raise ValueError(f"the weights in {path} are not those of {named}: {reason}") from error
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

    Args:
        folder: of a distillation, or of one of its stages.
        steps: 1 or more; of progressive distillation, whose every stage is a student of its own, those of the stage.
        generator: source of the noise of consistency models.

    Raises:
        ValueError: no distillation, or no stage with so many steps.
    """
    arguments = sampling_at(folder, steps, generator=generator)
    return load_model(stage_path(folder, steps))[0], arguments


def sampling_at(folder: str | Path, steps: int, *, generator: torch.Generator | None = None) -> dict[str, Any]:
    """The arguments of `optimal.sample` with which a student takes so many steps as it is meant to.

    Consistency models jump and add noise again (Eq. 37), the others take DDIM steps, on EDM's levels between the σ's of
    its training; of progressive distillation, on the levels that the stage with so many steps has kept.

    Args:
        folder, steps, generator: as for `student_at`.

    Raises:
        ValueError: no distillation, or no stage with so many steps.
    """
    root, _ = _student(folder)
    config, stages = _distillation(root), student_steps(folder)
    options = config.experiment.optimisation
    ends = {"sigma_min": options.sigma_min, "sigma_max": options.sigma_max}
    if stages is None:
        sigmas = karras(steps, **ends)
        consistency = {"solver": "consistency", "generator": generator}
        return {"sigmas": sigmas} | (consistency if config.technique == "consistency" else {"solver": "euler"})
    if steps not in stages:
        raise ValueError(
            f"{folder} has no stage of {steps} steps, but of {', '.join(map(str, stages))}: {root} halves "
            f"{config.levels} down to 1"
        )
    sigmas = karras(config.levels, **ends)
    while len(sigmas) - 1 > steps:
        sigmas = student_grid(sigmas)
    return {"sigmas": sigmas, "solver": "euler"}


def student_steps(folder: str | Path) -> tuple[int, ...] | None:
    """With how many steps a student is meant to be sampled, decreasing; None: with any number.

    Args:
        folder: of a distillation, or of one of its stages.

    Raises:
        ValueError: no distillation.
    """
    root, stage = _student(folder)
    config = _distillation(root)
    if config.technique != "progressive":
        return None
    if stage is not None:
        return (stage,)
    # Of what is shipped, some stages are left out.
    every = _halvings(config)
    return tuple(steps for steps in every if (root / f"steps-{steps}").is_dir()) or every


def stage_path(folder: str | Path, steps: int) -> Path:
    """The folder of the network that takes so many steps: a stage of progressive distillation, else the given one."""
    folder = Path(folder)
    several = is_distillation(folder) and student_steps(folder) is not None
    return folder / f"steps-{steps}" if several else folder


def stage_of(folder: str | Path) -> tuple[Path, int | None] | None:
    """The distillation that a folder is, or is a stage of, and that stage's steps, if only one has so many.

    Args:
        folder: of a run, or a checkpoint file in it.

    Returns:
        None for what is no student.
    """
    folder = Path(folder)
    folder = folder.parent if folder.is_file() else folder
    if is_distillation(folder):
        return folder, None
    of, _, count = folder.absolute().name.partition("-")
    is_stage = (of == "steps" and count.isdecimal()) or (of == "student" and not count)
    root = folder.absolute().parent if folder.name in ("", "..") else folder.parent
    return (root, int(count) if count else None) if is_stage and is_distillation(root) else None


def _student(folder: str | Path) -> tuple[Path, int | None]:
    found = stage_of(folder)
    if found is None:
        raise ValueError(f"{folder} holds no distillation")
    return found


def _halvings(config: Distillation) -> tuple[int, ...]:
    steps = [config.levels]
    while steps[-1] > 1:
        steps.append(-(-steps[-1] // 2))
    return tuple(steps[1:])


def training_pairs(folder: str | Path) -> tuple[Tensor, Tensor] | None:
    """The pairs that a student was trained on, where it was on a fixed number of them.

    Args:
        folder: of a run, or of its stage.

    Returns:
        Noises at σ_N and the teacher's ends of them, (M, *event) float32; None for what is no student, for techniques
        without pairs, and for a student that saw fresh ones.

    Raises:
        ValueError: they are missing or damaged.
    """
    found = stage_of(folder)
    if found is None:
        return None
    folder, config = found[0], _distillation(found[0])
    if config.technique not in ("knowledge", "multistep") or not config.pairs:
        return None
    name = checkpoint.about(checkpoint.latest(model_path(folder))).get("pairs")
    # Runs of the first versions do not name them.
    places = [folder / name] if name else sorted(folder.glob("pairs-*"))
    found = open_pairs(places[0]) if len(places) == 1 else None
    if found is None:
        raise ValueError(f"the pairs of {folder} are missing or damaged; going on with the run makes them again")
    noises, ends = (torch.from_numpy(np.array(each)) for each in found)
    return noises, ends


def is_distillation(folder: str | Path) -> bool:
    """Whether a folder holds the stages of a distillation."""
    return (Path(folder) / STUDENT).exists()


def claim(folder: str | Path, config: Distillation, resume: bool, extend: bool = False) -> None:
    """Say whose folder this is, before anything is trained.

    Raises:
        ValueError: it holds another run, or this one without resume or extend; it cannot be written.
    """
    folder = Path(folder)
    if is_distillation(folder):
        if not (resume or extend):
            raise ValueError(f"{folder} holds a run already: resume it, or name another folder")
        there = _distillation(folder)
        there = longer(there, config.experiment.optimisation.steps) if extend else there
        fields = differing(there, config)
        if fields:
            raise ValueError(f"{folder} holds another distillation: it differs in {', '.join(fields)}")
        if not extend:
            return
    elif folder.is_dir() and checkpoint.checkpoints(folder):
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
