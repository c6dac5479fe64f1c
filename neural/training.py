"""Training: a generator that takes one step at a time and reports it; who calls it prints, logs, saves, stops.

Adam (or Muon) on the mean of an `Objective`'s losses, the learning rate rising linearly and falling as a cosine, the
gradient clipped, the weights averaged. All randomness, dropout's too, comes from `Streams` of the seed, whose states
are part of the checkpoint: a run continued from one goes on bit for bit as if it had not been stopped. Under torchrun
every process draws its share of the batch from streams of its own, and a loss that is not finite in one ends all.
"""

from __future__ import annotations

import contextlib
import gc
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from optimal import Dataset
from optimal.denoiser import Denoiser

from . import checkpoint
from .config import Optimisation, longer
from .loss import Batch, Objective
from .networks import MLP, DiT
from .precondition import Preconditioned
from .streams import Streams, everyones, process
from .tables import Means, Report

__all__ = ["OPTIMIZERS", "Training", "TrainingDiverged", "learning_rate", "train"]

OPTIMIZERS = ("adam", "muon")
_MUON = 10.0
"""Muon's learning rate over Adam's: its steps have a norm of their own, whatever the gradient's is."""


class TrainingDiverged(ValueError):
    """The loss or its gradient is not finite: says at which step and noise level, and the last good checkpoint."""


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
            "precondition": model.precondition,
        }
        self.average = AveragedModel(model, multi_avg_fn=_averaging(options.ema))
        self.average.requires_grad_(False).eval()
        self.optimizers = _optimizers(model, options)
        self.device = next((p.device for p in model.parameters()), torch.device("cpu"))
        self.streams = Streams(options.seed, process()[0], self.device)
        self.means = Means()
        self.step = 0
        self.saved: Path | None = None

    @property
    def denoiser(self) -> Preconditioned:
        """The network with averaged weights, what is to be used."""
        return self.average.module  # pyright: ignore[reportReturnType]

    def save(self, folder: str | Path, *, writes: bool = True) -> Path:
        """Write a checkpoint of this step; returns the file.

        Of several processes every one has to call it, since each has random states of its own; one `writes`.

        Raises:
            ValueError: the folder cannot be written, or the network has something that cannot be kept.
        """
        states = everyones(self.streams.state(), self.device)
        path = checkpoint.path_of(folder, self.step)
        if writes:
            tensors = self._network() | {"means": self.means.state()}
            for rank, state in enumerate(states):
                tensors |= checkpoint.pack(state, f"streams-{rank}")
            for name, (optimizer, _) in self.optimizers.items():
                tensors |= checkpoint.pack(checkpoint.optimizer_tensors(optimizer), name)
            checkpoint.write(folder, self.step, tensors, self.config, self.about)
        self.saved = path
        return path

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

    def resume(self, folder: str | Path, *, extend: bool = False) -> None:
        """Go on from a folder's last checkpoint.

        Args:
            folder: of the run, or a checkpoint file.
            extend: whether the configuration may have more steps than the checkpoint's. The learning rate then goes on
                as that of a run of so many steps: up from 0, where the shorter one has ended.

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
        tensors, self.step, config = checkpoint.read(path, type(self.config), gone_on_with=True)
        checkpoint.require_same(path, longer(config, self.options.steps) if extend else config, self.config)
        if tensors and all(name.startswith("average.") for name in tensors):
            raise ValueError(f"{path} holds the network alone, as it is shipped: it can be used, but not gone on with")
        try:
            self.model.load_state_dict(checkpoint.unpack(tensors, "model"))
            self.average.load_state_dict(checkpoint.unpack(tensors, "average"))
            for name, (optimizer, _) in self.optimizers.items():
                checkpoint.restore_optimizer(optimizer, checkpoint.unpack(tensors, name))
            self.streams.restore(checkpoint.unpack(tensors, f"streams-{process()[0]}"))
            self.means.restore(tensors["means"])
        except (KeyError, RuntimeError, ValueError) as error:
            reason = " ".join(str(error).split())[:300]
            raise ValueError(f"{path} is a damaged checkpoint, or one of another network: {reason}") from error
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
    _, world = process()
    if options.batch % (world * options.accumulate):
        raise ValueError(
            f"a batch of {options.batch} cannot be split over {world} processes times {options.accumulate} parts"
        )
    student: nn.Module = nn.parallel.DistributedDataParallel(model) if world > 1 else model
    if options.compile:
        student = torch.compile(student)  # pyright: ignore[reportAssignmentType]
    model.train()
    training.denoiser.eval()
    try:
        while training.step < options.steps:
            lr = learning_rate(training.step, options)
            for optimizer, factor in training.optimizers.values():
                for group in optimizer.param_groups:
                    group["lr"] = factor * lr
            training.streams.step = training.step
            loss = _gradients(training, objective, student)
            gradient = nn.utils.clip_grad_norm_(model.parameters(), options.clip)
            if not torch.isfinite(gradient):
                _forget_gradients(training)
                norm, step = float(gradient), training.step + 1
                raise TrainingDiverged(f"the norm of the gradient is {norm:g} at step {step}; {_last_good(training)}")
            for optimizer, _ in training.optimizers.values():
                optimizer.step()
            _forget_gradients(training)
            training.average.update_parameters(model)
            training.step += 1
            report = Report(training.step, loss, lr, float(gradient))
            training.means.add(report)
            yield report
    finally:
        if world > 1:
            # A reducer that outlives its group of processes ends the process.
            del student
            gc.collect()


def _gradients(training: Training, objective: Objective, student: nn.Module) -> float:
    """Put the gradient of one batch, all processes' together, where the optimisers find it; the mean loss.

    Raises:
        TrainingDiverged: a loss that is not finite, in any process, in all of them.
    """
    options, device = training.options, training.device
    _, world = process()
    ask, target = (_autocast(each, device, options.bf16) for each in (student, training.denoiser))
    # The loss of this process, and whether there is one that is not finite.
    found = torch.zeros(2, dtype=torch.float64, device=device)
    worst: tuple[Tensor, Tensor] | None = None
    batch = objective.draw(options.batch // world, training.streams)
    with training.streams.within():
        for part in range(options.accumulate):
            mine: Batch = tuple(tensor[part :: options.accumulate].to(device) for tensor in batch)
            last = part == options.accumulate - 1
            hold = contextlib.nullcontext() if last or world == 1 else student.no_sync()  # pyright: ignore
            with hold:
                losses, sigma = objective.loss(ask, target, mine)
                loss = losses.mean() / options.accumulate
                loss.backward()
            bad = ~torch.isfinite(losses.detach()).all()
            found += torch.stack([loss.detach().double(), bad.double()])
            if worst is None or bool(bad):
                worst = losses.detach(), sigma
    if world > 1:
        distributed.all_reduce(found, distributed.ReduceOp.SUM)
    total, bad = found.tolist()
    if bad:
        assert worst is not None
        _forget_gradients(training)
        _diverged(training, *worst)
    return total / world


def _autocast(network: nn.Module, device: torch.device, bf16: bool) -> Denoiser:
    """The network under bfloat16 autocast, and nothing around it: teachers and losses keep their precision."""
    if not bf16:
        return network

    def ask(x: Tensor, sigma: float | Tensor, **given: Tensor) -> Tensor:
        with torch.autocast(device.type, torch.bfloat16):
            return network(x, sigma, **given)

    return ask


def _forget_gradients(training: Training) -> None:
    for optimizer, _ in training.optimizers.values():
        optimizer.zero_grad(set_to_none=True)


def _averaging(decay: float) -> Any:
    """θ⁻ ← d θ⁻ + (1 − d) θ with d = min(decay, (1 + n)/(10 + n)) after n updates: short runs forget too."""

    @torch.no_grad()
    def update(averages: list[Tensor], weights: list[Tensor], count: Tensor | int) -> None:
        now = min(decay, (1 + int(count)) / (10 + int(count)))
        # All at once: on a GPU a few kernels, not one a tensor.
        alike = [weight.to(average) for average, weight in zip(averages, weights, strict=True)]
        get_ema_multi_avg_fn(now)(averages, alike, count)

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
    if not isinstance(model.net, MLP | DiT):
        raise ValueError("muon is for the matrices between the hidden layers of an mlp or a dit; use adam")
    matrices = model.net.matrices()
    chosen = {id(matrix) for matrix in matrices}
    rest = [parameter for parameter in model.parameters() if id(parameter) not in chosen]
    muon = torch.optim.Muon(matrices, lr=_MUON * options.lr, weight_decay=0.0)
    return {"adam": (torch.optim.Adam(rest, lr=options.lr), 1.0), "muon": (muon, _MUON)}


def _diverged(training: Training, losses: Tensor, sigma: Tensor) -> None:
    """Say so, in the same words in all processes: of the first one whose loss is not finite."""
    bad = ~torch.isfinite(losses)
    row = int(bad.double().argmax())
    mine = torch.stack([bad[row].double(), losses[row].double(), sigma[row].double()]).to(training.device)
    _, world = process()
    everywhere = [torch.empty_like(mine) for _ in range(world)]
    if world > 1:
        distributed.all_gather(everywhere, mine)
    else:
        everywhere = [mine]
    rank, (_, loss, level) = next((i, each.tolist()) for i, each in enumerate(everywhere) if float(each[0]))
    where = f" in process {rank} of {world}" if world > 1 else ""
    raise TrainingDiverged(
        f"the loss is {loss:g} at step {training.step + 1}, sigma = {level:g}{where}; {_last_good(training)}"
    )


def _last_good(training: Training) -> str:
    return f"the last good checkpoint is {training.saved}" if training.saved else "no checkpoint was written"
