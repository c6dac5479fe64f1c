"""`python -m neural train | distill | sample | compare`: typed options, each with its unit and default; --dry-run."""

from __future__ import annotations

import dataclasses
import os
import sys
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

# Before torch starts its threads: beside another busy process they would spin for each other.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import numpy as np
import torch
import tyro
from torch import distributed

from optimal import Dataset, FlowMap, OptimalDenoiser, karras, load, sample
from optimal.denoiser import Denoiser

from . import networks
from .compare import agreement, compare, save_table
from .config import PRESETS, Distillation, Experiment, experiment_of, to_json
from .loss import root_mean_square
from .networks import from_diffusers
from .run import distil, fit, load_model, teacher_of

__all__ = ["main"]


@dataclass(frozen=True)
class Train:
    """Train a network with Eq. 26; checkpoints, config.json and metrics.csv go into --out."""

    preset: str = "toy"
    """What to start from: toy, digits, faces, emoji-16 or ffhq-64 (needs a GPU; untested)."""
    dataset: str | None = None
    """Data instead of the preset's: an embedded name or a path."""
    steps: int | None = None
    """Optimiser steps instead of the preset's."""
    batch: int | None = None
    """Samples of a step instead of the preset's, all processes together."""
    lr: float | None = None
    """Highest learning rate instead of the preset's."""
    accumulate: int | None = None
    """Parts in which a batch is computed, instead of the preset's."""
    seed: int = 0
    """Of the weights and of all draws."""
    bf16: bool | None = None
    """Whether to run under bfloat16 autocast, instead of the preset's choice."""
    compile: bool | None = None
    """Whether to compile the network, instead of the preset's choice."""
    every: int = 1000
    """Steps between checkpoints."""
    resume: bool = False
    """Go on from the last checkpoint in --out."""
    tensorboard: bool = False
    """Also log for TensorBoard, into --out (needs the package tensorboard)."""
    out: Path = Path("runs/train")
    """Folder of the run."""
    dry_run: bool = False
    """Say what would be done, and stop."""


@dataclass(frozen=True)
class Distill:
    """Distil a student from the optimum, or from a trained network."""

    technique: str = "consistency"
    """consistency, progressive, knowledge or multistep."""
    preset: str = "toy"
    """Data, network and optimisation to start from."""
    teacher: str = "optimum"
    """optimum, or the folder of a trained network."""
    dataset: str | None = None
    """Data instead of the preset's."""
    points: int = 32
    """Noise levels of the teacher's grid above 0."""
    solver: str = "heun"
    """The teacher's: euler or heun (progressive: always DDIM)."""
    pairs: int = 16384
    """knowledge, multistep: noises and end points to compute once."""
    steps: int | None = None
    """Optimiser steps (of each stage) instead of the preset's."""
    batch: int | None = None
    """Samples of a step instead of the preset's."""
    seed: int = 0
    """Of the weights and of all draws."""
    every: int = 1000
    """Steps between checkpoints."""
    resume: bool = False
    """Go on from the last checkpoint in --out."""
    out: Path = Path("runs/distill")
    """Folder of the run."""
    dry_run: bool = False
    """Say what would be done, and stop."""


@dataclass(frozen=True)
class Sample:
    """Draw samples of a model into a PNG grid (images) and an NPZ."""

    model: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="MODEL")]
    """optimum, the folder of a run, or diffusers:FOLDER."""
    dataset: str | None = None
    """Data of `optimum` and of a diffusers model; runs know theirs."""
    n: Annotated[int, tyro.conf.arg(aliases=["-n"])] = 16
    """Number of samples."""
    steps: int = 18
    """Steps of the sampler."""
    solver: str = "heun"
    """euler, heun, dpm_solver, dpm_solver_pp, consistency …"""
    sigma_max: float = 80.0
    """First noise level, in units of the data."""
    seed: int = 0
    """Of the noises."""
    out: Path = Path("samples")
    """Path of the files, without suffix."""
    dry_run: bool = False
    """Say what would be done, and stop."""


@dataclass(frozen=True)
class Compare:
    """Compare models with the optimum: as denoisers, and as samplers from the same noises."""

    models: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="MODEL…")] = ()
    """Folders of runs, or diffusers:FOLDER; the optimum is always in the table."""
    dataset: str | None = None
    """Data; those of the first run unless given."""
    sigmas: tuple[float, ...] = (0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
    """Noise levels of the denoiser table, in units of the data."""
    draws: int = 1024
    """Pairs (x0, noise) of the denoiser table."""
    n: Annotated[int, tyro.conf.arg(aliases=["-n"])] = 256
    """Noises of the sampler table."""
    steps: tuple[int, ...] = (1, 2, 4, 18)
    """Numbers of steps of the sampler table."""
    solver: str = "euler"
    """Solver of the sampler table, for all models."""
    sigma_max: float = 80.0
    """First noise level of the samplers, in units of the data."""
    seed: int = 0
    """Of all draws."""
    out: Path = Path("comparison")
    """Path of the tables, without suffix: -denoiser and -samplers as CSV and JSON."""
    dry_run: bool = False
    """Say what would be done, and stop."""


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; returns the exit code: 0, or 2 with one sentence on stderr for bad input."""
    kinds = Annotated[Train, tyro.conf.subcommand("train")] | Annotated[Distill, tyro.conf.subcommand("distill")]
    kinds = (
        kinds | Annotated[Sample, tyro.conf.subcommand("sample")] | Annotated[Compare, tyro.conf.subcommand("compare")]
    )
    command: Any = tyro.cli(kinds, prog="python -m neural", description=__doc__, args=arguments)  # pyright: ignore
    warnings.showwarning = lambda message, *_, **__: print(f"warning: {message}", file=sys.stderr)
    launched = "RANK" in os.environ and "WORLD_SIZE" in os.environ and not distributed.is_initialized()
    try:
        if launched:
            distributed.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
            if torch.cuda.is_available():
                torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", 0)))
        {Train: _train, Distill: _distill, Sample: _sample, Compare: _compare}[type(command)](command)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted; go on with --resume", file=sys.stderr)
        return 130
    finally:
        if launched and distributed.is_initialized():
            distributed.destroy_process_group()
    return 0


def _experiment(command: Train | Distill) -> Experiment:
    if command.preset not in PRESETS:
        raise ValueError(f"unknown preset {command.preset!r}; known are {', '.join(PRESETS)}")
    preset = PRESETS[command.preset]
    changes = {"seed": command.seed}
    for name in ("steps", "batch", "lr", "accumulate", "bf16", "compile"):
        value = getattr(command, name, None)
        if value is not None:
            changes[name] = value
    optimisation = dataclasses.replace(preset.optimisation, **changes)
    data = {"dataset": command.dataset, "options": {}} if command.dataset else {}
    return dataclasses.replace(preset, optimisation=optimisation, **data)


def _train(command: Train) -> None:
    config = _experiment(command)
    data = config.load()
    if command.dry_run:
        model = networks.build(config.network, data.event, root_mean_square(data))
        print(f"{data.describe()}\n{to_json(config)}\n{networks.count(model):,} weights; nothing was trained")
        return
    main_process = not distributed.is_initialized() or distributed.get_rank() == 0
    listeners = [_tensorboard(command.out)] if command.tensorboard and main_process else []
    fit(
        config,
        data,
        command.out,
        resume=command.resume,
        every=command.every,
        progress=main_process,
        listeners=listeners,
        writes=main_process,
    )
    if main_process:
        print(f"trained {data.name}: {command.out}")


def _distill(command: Distill) -> None:
    config = Distillation(
        command.technique, command.teacher, command.points, command.solver, command.pairs, _experiment(command)
    )
    data = config.experiment.load()
    if command.dry_run:
        print(f"{data.describe()}\n{to_json(config)}\nnothing was trained")
        return
    teacher = teacher_of(config, data)
    distil(config, data, teacher, command.out, resume=command.resume, every=command.every, progress=True)
    print(f"distilled {data.name} ({command.technique}): {command.out}")


def _model(name: str, dataset: str | None) -> tuple[Denoiser, Dataset]:
    """A model by what the command line calls it, and its data."""
    if name == "optimum":
        if dataset is None:
            raise ValueError("the optimum is that of a data set: give --dataset")
        data = load(dataset)
        return OptimalDenoiser(data), data
    if name.startswith("diffusers:"):
        if dataset is None:
            raise ValueError("a diffusers model does not know its data: give --dataset")
        pretrained: Any = from_diffusers(name.removeprefix("diffusers:"))
        return pretrained, load(dataset)
    model, config = load_model(name)
    return model, load(dataset) if dataset else experiment_of(config).load()


def _sample(command: Sample) -> None:
    if command.n < 1:
        raise ValueError(f"n must be at least 1, got {command.n}")
    model, data = _model(command.model, command.dataset)
    sigmas = karras(command.steps, sigma_max=command.sigma_max)
    if command.dry_run:
        print(f"{data.describe()}\n{command.n} samples, {command.steps} steps of {command.solver}; nothing was drawn")
        return
    generator = torch.Generator().manual_seed(command.seed)
    x = command.sigma_max * torch.randn(command.n, *data.event, generator=generator)
    ends = sample(model, x, sigmas, solver=command.solver, generator=generator, progress=True)
    try:
        command.out.parent.mkdir(parents=True, exist_ok=True)
        np.savez_compressed(command.out.with_suffix(".npz"), allow_pickle=False, noises=x.numpy(), samples=ends.numpy())
        written = [command.out.with_suffix(".npz")]
        if data.is_image:
            written.append(_grid(ends, command.out.with_suffix(".png")))
    except OSError as error:
        raise ValueError(f"the samples could not be written to {command.out}: {error.strerror or error}") from error
    print(f"{command.n} samples: {', '.join(map(str, written))}")


def _grid(images: torch.Tensor, path: Path) -> Path:
    from PIL import Image

    from optimal.datasets import to_uint8

    count = len(images)
    columns = int(np.ceil(np.sqrt(count)))
    pixels = to_uint8(images.clamp(-1, 1)).permute(0, 2, 3, 1).numpy()
    height, width, channels = pixels.shape[1:]
    page = np.full((-(-count // columns) * (height + 1), columns * (width + 1), channels), 255, np.uint8)
    for i, image in enumerate(pixels):
        row, column = divmod(i, columns)
        page[row * (height + 1) :, column * (width + 1) :][:height, :width] = image
    Image.fromarray(page.squeeze(2) if channels == 1 else page).save(path)
    return path


def _compare(command: Compare) -> None:
    if not command.models:
        raise ValueError("name at least one model to compare with the optimum")
    models: dict[str, Denoiser] = {}
    data = load(command.dataset) if command.dataset else None
    for name in command.models:
        model, own = _model(name, command.dataset)
        data = data or own
        if own.event != data.event:
            raise ValueError(f"{name} makes points of shape {own.event}, {data.name} has {data.event}")
        models[name] = model
    assert data is not None
    if command.dry_run:
        print(f"{data.describe()}\noptimum, {', '.join(models)}; nothing was compared")
        return
    D = OptimalDenoiser(data)
    generator = torch.Generator().manual_seed(command.seed)
    denoisers = []
    for name, model in models.items():
        found = agreement(
            model,
            D,
            command.sigmas,
            draws=command.draws,
            generator=torch.Generator().manual_seed(command.seed),
            progress=True,
        )
        for i, sigma in enumerate(command.sigmas):
            row: dict[str, Any] = {"method": name, "sigma": sigma}
            for f in dataclasses.fields(found):
                value = getattr(found, f.name)
                if f.name not in ("sigmas", "draws"):
                    row[f.name] = float(value[i])
            denoisers.append(row)
    x = command.sigma_max * torch.randn(command.n, *data.event, generator=generator)
    reference = FlowMap(D)(x, command.sigma_max)
    methods: dict[str, tuple[Any, dict[str, Any]]] = {}
    for n in command.steps:
        arguments = {"sigmas": karras(n, sigma_max=command.sigma_max), "solver": command.solver}
        for name, model in ({"optimum": D} | models).items():
            methods[f"{name}, {n} steps"] = (model, arguments)
    samplers = compare(methods, D, x, reference=reference, progress=True)
    about = {"dataset": data.name, "fingerprint": data.fingerprint, "command": _plain(command)}
    for kind, rows in (("denoiser", denoisers), ("samplers", samplers)):
        path = command.out.with_name(f"{command.out.name}-{kind}")
        save_table(rows, path, about)
        _print(rows)
        print(f"{path}.csv, {path}.json\n")


def _print(rows: list[dict[str, Any]]) -> None:
    names = list(rows[0])
    cells = [names] + [[f"{v:.4g}" if isinstance(v, float) else str(v) for v in row.values()] for row in rows]
    widths = [max(len(line[i]) for line in cells) for i in range(len(names))]
    for line in cells:
        print(
            "  ".join(
                cell.rjust(width) if i else cell.ljust(width)
                for i, (cell, width) in enumerate(zip(line, widths, strict=True))
            )
        )


def _plain(command: Any) -> dict[str, Any]:
    return {k: str(v) if isinstance(v, Path) else v for k, v in dataclasses.asdict(command).items()}


def _tensorboard(folder: Path) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise ValueError("--tensorboard needs the package tensorboard: pip install tensorboard") from error
    writer = SummaryWriter(folder)

    def log(report: Any) -> None:
        for name in ("loss", "lr", "gradient"):
            writer.add_scalar(name, getattr(report, name), report.step)

    return log


if __name__ == "__main__":
    sys.exit(main())
