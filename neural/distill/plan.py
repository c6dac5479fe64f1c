"""A `Distillation` laid out as trainings, one after another; each is to be run before the next is asked for."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor, nn

from optimal import Dataset, FlowMap, OptimalDenoiser, karras
from optimal.denoiser import Denoiser

from ..config import Distillation
from ..loss import Objective, Source, root_mean_square
from ..networks import build
from ..precondition import Preconditioned
from ..training import Training
from .consistency import Consistency
from .knowledge import Knowledge
from .multistep import MultistepKnowledge
from .pairs import FixedPairs, FreshPairs, Pairs, first_pairs, make_pairs
from .progressive import Progressive

__all__ = ["pairs_seen", "stages"]

_SMALL = 2048
_MANY, _SOME, _FEW = 2048, 512, 32
"""Noises that a teacher is asked with at once: of events up to `_SMALL` numbers; else at most, and at least."""


def stages(
    config: Distillation,
    data: Dataset,
    teacher: Denoiser,
    pairs: str | Path,
    *,
    fresh: str | Path | None = None,
    device: torch.device | str = "cpu",
    progress: bool = False,
) -> Iterator[tuple[str, Training, Objective]]:
    """The trainings that make up a distillation: one, or for progressive one a halving.

    Args:
        config: what is asked for.
        data: the data set.
        teacher: the teacher's denoiser, which is asked on the device, under no autocast and, where it is a module, in
            evaluation mode: as a copy where it is not so already. A `Preconditioned` network of the student's
            architecture is what the student starts from.
        pairs: folder for a fixed number of pairs of knowledge distillation; its name must be unique to data, teacher,
            grid, solver and seed.
        fresh: folder where fresh pairs are kept for other runs, of such a name; None: they are not.
        device: where the student is trained.
        progress: whether bars are drawn on stderr.

    Yields:
        name of the stage, its training, its objective. The next stage of progressive distillation is taught by the
        averaged weights of this one.

    Raises:
        ValueError: a teacher of another event shape, or pairs that cannot be written.
    """
    options = config.experiment.optimisation
    sigmas = karras(config.levels, sigma_min=options.sigma_min, sigma_max=options.sigma_max)
    sigma_data = root_mean_square(data)
    teacher = _asked(teacher, torch.device(device))
    _check_event(teacher, data, device)
    source = Source(data, options.flip)
    weights = {"weighting": options.weighting, "sigma_data": sigma_data}
    student = _student(config, data, teacher, sigma_data).to(device)
    if config.technique == "consistency":
        yield (
            "student",
            Training(student, options, config, data),
            Consistency(source, teacher, sigmas, config.solver, **weights),
        )
    elif config.technique == "progressive":
        steps = config.levels
        while steps > 1:
            objective = Progressive(source, teacher, sigmas, **weights)
            steps, sigmas = len(objective.student_sigmas) - 1, objective.student_sigmas
            training = Training(student, options, config, data)
            yield f"steps-{steps}", training, objective
            teacher = copy.deepcopy(training.denoiser).eval()
            student = copy.deepcopy(teacher).requires_grad_(True)
    else:
        source = _pairs(config, data, teacher, sigmas, pairs, fresh, device, progress)
        if config.technique == "knowledge":
            objective = Knowledge(source, options.sigma_max, **weights)
        else:
            objective = MultistepKnowledge(source, sigmas, **weights)
        training = Training(student, options, config, data)
        if config.pairs:
            training.about["pairs"] = Path(pairs).name
        yield "student", training, objective


def _pairs(
    config: Distillation,
    data: Dataset,
    teacher: Denoiser,
    sigmas: Tensor,
    folder: str | Path,
    fresh: str | Path | None,
    device: torch.device | str,
    progress: bool,
) -> Pairs:
    """Of the exact flow where the teacher is the optimum, else of the solver's on the grid."""
    options = config.experiment.optimisation
    jump = FlowMap(teacher) if isinstance(teacher, OptimalDenoiser) else FlowMap(teacher, sigmas, config.solver)
    # The exact flow is cheaper by the row the more rows there are; a network has room for a batch of its training.
    few = isinstance(teacher, OptimalDenoiser) and math.prod(data.event) <= _SMALL
    where = {"seed": options.seed, "device": device, "at_once": _MANY if few else min(_SOME, max(options.batch, _FEW))}
    if not config.pairs:
        kept = None if fresh is None else Path(fresh) / str(where["at_once"])
        return FreshPairs(
            jump, data.event, options.sigma_max, uses=config.uses, folder=kept, progress=progress, **where
        )
    made = make_pairs(jump, data.event, options.sigma_max, config.pairs, folder, progress=progress, **where)
    return FixedPairs(*made)


def pairs_seen(config: Distillation, D: OptimalDenoiser, count: int) -> tuple[Tensor, Tensor] | None:
    """The first pairs that a student of D has learnt from, made again; None where it learns from none, or from files.

    Args:
        config: of the student.
        D: its teacher, the optimum.
        count: how many, at most as many as are made at once.
    """
    if config.technique not in ("knowledge", "multistep") or config.pairs or config.teacher != "optimum":
        return None
    options = config.experiment.optimisation
    return first_pairs(FlowMap(D), D.event, options.sigma_max, count, seed=options.seed)


def _asked(teacher: Denoiser, device: torch.device) -> Denoiser:
    """The teacher on this device and, where it is a module, in evaluation mode; the one given stays as it is."""
    if not isinstance(teacher, nn.Module):
        return teacher
    elsewhere = any(each.device != device for each in (*teacher.parameters(), *teacher.buffers()))
    return copy.deepcopy(teacher).to(device).eval() if teacher.training or elsewhere else teacher


def _student(config: Distillation, data: Dataset, teacher: Denoiser, sigma_data: float) -> Preconditioned:
    student = build(config.experiment.network, data.event, sigma_data, seed=config.experiment.optimisation.seed)
    if isinstance(teacher, Preconditioned):
        ours, theirs = student.state_dict(), teacher.state_dict()
        # A teacher may hold what is no tensor.
        if {k: v.shape for k, v in ours.items()} == {k: getattr(v, "shape", None) for k, v in theirs.items()}:
            student.load_state_dict(theirs)
    return student


def _check_event(teacher: Denoiser, data: Dataset, device: torch.device | str) -> None:
    probe = torch.zeros(1, *data.event, device=device)
    try:
        with torch.no_grad():
            shape = tuple(teacher(probe, 1.0).shape)
    except (ValueError, RuntimeError) as error:
        raise ValueError(
            f"the teacher does not take points of shape {data.event}, those of {data.name}: {error}"
        ) from error
    if shape != tuple(probe.shape):
        raise ValueError(f"the teacher answers points of shape {data.event} with {shape[1:]}")
