"""Training: a generator that takes one step at a time and reports it; who calls it prints, logs, saves, stops.

Adam (or Muon) on the mean of an `Objective`'s losses, the learning rate rising linearly and falling as a cosine, the
gradient clipped, the weights averaged. All randomness comes from one generator, whose state is part of the checkpoint:
a run continued from one goes on bit for bit as if it had not been stopped. Under torchrun every process draws the whole
batch and computes its share of it, so that the loss does not depend on how many there are.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.optim.swa_utils import AveragedModel

from optimal import Dataset

from . import checkpoint
from .config import Optimisation
from .loss import Objective
from .networks import MLP
from .precondition import Preconditioned

__all__ = ["OPTIMIZERS", "Report", "Training", "TrainingDiverged", "learning_rate", "train"]

OPTIMIZERS = ("adam", "muon")
_MUON = 10.0
"""Muon's learning rate over Adam's: its steps have a norm of their own, whatever the gradient's is."""


class TrainingDiverged(ValueError):
    """The loss or its gradient is not finite: says at which step and noise level, and the last good checkpoint."""


@dataclass(frozen=True)
class Report:
    """One step.

    Attributes:
        step: how many have been taken, this one included.
        loss: mean over the global batch.
        lr: learning rate.
        gradient: norm of the gradient before it was clipped.
    """

    step: int
    loss: float
    lr: float
    gradient: float


class Training:
    """A network on its way: weights, their average, optimiser, randomness and step.

    Args:
        model: the denoiser to train.
        options: how.
        config: what is saved with checkpoints; `Experiment` or `Distillation`.
        data: what it is trained on.
    """

    def __init__(self, model: Preconditioned, options: Optimisation, config: Any, data: Dataset):
        self.model, self.options, self.config = model, options, config
        self.about = {
            "name": data.name,
            "fingerprint": data.fingerprint,
            "event": data.event,
            "sigma_data": model.sigma_data,
        }
        self.average = AveragedModel(model, multi_avg_fn=_averaging(options.ema))
        self.average.requires_grad_(False)
        self.optimizers = _optimizers(model, options)
        self.generator = torch.Generator().manual_seed(options.seed)
        self.step = 0
        self.saved: Path | None = None

    @property
    def denoiser(self) -> Preconditioned:
        """The network with averaged weights, what is to be used."""
        return self.average.module  # pyright: ignore[reportReturnType]

    def save(self, folder: str | Path) -> Path:
        """Write a checkpoint of this step; returns the file.

        Raises:
            ValueError: the folder cannot be written, or the network has something that cannot be kept.
        """
        tensors = self._network() | {"generator": self.generator.get_state()}
        for name, (optimizer, _) in self.optimizers.items():
            tensors |= checkpoint.pack(checkpoint.optimizer_tensors(optimizer), name)
        self.saved = checkpoint.write(folder, self.step, tensors, self.config, self.about)
        return self.saved

    def try_saving(self) -> None:
        """See, before hours are spent, that what the network holds can be saved and loaded again.

        Raises:
            ValueError: it cannot; what it is about is named.
        """
        checkpoint.check(self._network())
        for network in (self.model, self.average):
            try:
                network.load_state_dict({name: value.clone() for name, value in network.state_dict().items()})
            except RuntimeError as error:
                reason = " ".join(str(error).split())
                raise ValueError(f"the network could be saved but not loaded again: {reason}") from error

    def _network(self) -> dict[str, Tensor]:
        return checkpoint.pack(self.model.state_dict(), "model") | checkpoint.pack(self.average.state_dict(), "average")

    def resume(self, folder: str | Path) -> None:
        """Go on from a folder's last checkpoint.

        Raises:
            ValueError: there is none, it is damaged, or it was made with another configuration or other data.
        """
        path = checkpoint.latest(folder)
        then = checkpoint.about(path)["fingerprint"]
        if then != self.about["fingerprint"]:
            raise ValueError(
                f"{path} was trained on other data, of fingerprint {then}: {self.about['name']} has "
                f"{self.about['fingerprint']}"
            )
        tensors, self.step, _ = checkpoint.read(path, type(self.config), self.config)
        self.model.load_state_dict(checkpoint.unpack(tensors, "model"))
        self.average.load_state_dict(checkpoint.unpack(tensors, "average"))
        for name, (optimizer, _) in self.optimizers.items():
            checkpoint.restore_optimizer(optimizer, checkpoint.unpack(tensors, name))
        self.generator.set_state(tensors["generator"])
        self.saved = path


def learning_rate(step: int, options: Optimisation) -> float:
    """At step 0, 1, …: a linear rise over `warmup` steps, then a cosine to 0 at `steps`."""
    rise = min(1.0, (step + 1) / max(options.warmup, 1))
    done = max(0.0, (step - options.warmup) / max(options.steps - options.warmup, 1))
    return options.lr * rise * (1 + math.cos(math.pi * min(done, 1.0))) / 2


def train(training: Training, objective: Objective) -> Iterator[Report]:
    """Take the steps that are left, one an iteration.

    Args:
        training: where it stands; changed in place.
        objective: the loss.

    Yields:
        a `Report` after every step.

    Raises:
        ValueError: a batch that cannot be split evenly.
        TrainingDiverged: a loss or a gradient that is not finite.
    """
    options, model = training.options, training.model
    parallel = distributed.is_available() and distributed.is_initialized()
    rank, world = (distributed.get_rank(), distributed.get_world_size()) if parallel else (0, 1)
    if options.batch % (world * options.accumulate):
        raise ValueError(
            f"a batch of {options.batch} cannot be split over {world} processes times {options.accumulate} parts"
        )
    student: nn.Module = nn.parallel.DistributedDataParallel(model) if parallel else model
    if options.compile:
        student = torch.compile(student)  # pyright: ignore[reportAssignmentType]
    device = next(model.parameters()).device
    model.train()
    while training.step < options.steps:
        lr = learning_rate(training.step, options)
        for optimizer, factor in training.optimizers.values():
            for group in optimizer.param_groups:
                group["lr"] = factor * lr
        batch = objective.draw(options.batch, training.generator)
        total = torch.zeros((), dtype=torch.float64, device=device)
        for part in range(options.accumulate):
            rows = slice(rank * options.accumulate + part, None, world * options.accumulate)
            mine = tuple(tensor[rows].to(device) for tensor in batch)
            last = part == options.accumulate - 1
            hold = contextlib.nullcontext() if last or not parallel else student.no_sync()  # pyright: ignore
            with hold:
                with torch.autocast(device.type, torch.bfloat16, enabled=options.bf16):
                    losses, sigma = objective.loss(student, training.denoiser, mine)
                loss = losses.mean() / options.accumulate
                if not torch.isfinite(losses).all():
                    _diverged(training, losses.detach(), sigma)
                loss.backward()
            total += loss.detach().double()
        if parallel:
            distributed.all_reduce(total, distributed.ReduceOp.SUM)
            total /= world
        gradient = nn.utils.clip_grad_norm_(model.parameters(), options.clip)
        if not torch.isfinite(gradient):
            raise TrainingDiverged(
                f"the norm of the gradient is {float(gradient):g} at step {training.step + 1}; {_last_good(training)}"
            )
        for optimizer, _ in training.optimizers.values():
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        training.average.update_parameters(model)
        training.step += 1
        yield Report(training.step, float(total), lr, float(gradient))


def _averaging(decay: float) -> Any:
    """θ⁻ ← d θ⁻ + (1 − d) θ with d = min(decay, (1 + n)/(10 + n)) after n updates: short runs forget too."""

    @torch.no_grad()
    def update(averages: list[Tensor], weights: list[Tensor], count: Tensor | int) -> None:
        now = min(decay, (1 + int(count)) / (10 + int(count)))
        for average, weight in zip(averages, weights, strict=True):
            average.lerp_(weight.to(average), 1 - now)

    return update


def _optimizers(model: Preconditioned, options: Optimisation) -> dict[str, tuple[torch.optim.Optimizer, float]]:
    """By name, each with what multiplies the learning rate for it.

    Raises:
        ValueError: an unknown name, or muon for a network without `matrices()`.

    References:
        Jordan et al. 2024, "Muon: An optimizer for hidden layers in neural networks".
    """
    if options.optimizer not in OPTIMIZERS:
        raise ValueError(f"optimizer must be one of {', '.join(OPTIMIZERS)}, got {options.optimizer!r}")
    if options.optimizer == "adam":
        return {"adam": (torch.optim.Adam(model.parameters(), lr=options.lr), 1.0)}
    if not isinstance(model.net, MLP):
        raise ValueError("muon is for the matrices between the hidden layers of an mlp; use adam")
    matrices = model.net.matrices()
    chosen = {id(matrix) for matrix in matrices}
    rest = [parameter for parameter in model.parameters() if id(parameter) not in chosen]
    muon = torch.optim.Muon(matrices, lr=_MUON * options.lr, weight_decay=0.0)
    return {"adam": (torch.optim.Adam(rest, lr=options.lr), 1.0), "muon": (muon, _MUON)}


def _diverged(training: Training, losses: Tensor, sigma: Tensor) -> None:
    row = int((~torch.isfinite(losses)).nonzero()[0])
    raise TrainingDiverged(
        f"the loss is {float(losses[row]):g} at step {training.step + 1}, sigma = {float(sigma[row]):g}; "
        f"{_last_good(training)}"
    )


def _last_good(training: Training) -> str:
    return f"the last good checkpoint is {training.saved}" if training.saved else "no checkpoint was written"
