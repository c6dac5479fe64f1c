"""`python -m neural train | distill | sample | compare | audit`: typed options, each with its unit; --dry-run."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

# Before torch starts its threads: beside another busy process they would spin for each other.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import numpy as np
import torch
import tyro
from torch import distributed

from optimal import Dataset, FlowMap, OptimalDenoiser, karras, load, sample
from optimal.cli import parse_options, parsed, save_grid
from optimal.cli.run import run, say
from optimal.denoiser import Denoiser
from optimal.randomness import RowNoise
from optimal.samplers import solver_of
from optimal.storage import replacing

from . import checkpoint, networks
from .commands import Audit, Compare, Distill, Sample, Train
from .config import PRESETS, Distillation, Experiment, experiment_of, student_of, to_json
from .loss import root_mean_square
from .measures import agreement, compare, save_table
from .networks import from_diffusers
from .run import distil, fit
from .saved import load_model, model_path, student_at, student_steps
from .teachers import teacher_of

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code, see `optimal.cli.run`."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    resumes = words[:1] in (["train"], ["distill"])
    told = "interrupted" + ("; what has a checkpoint goes on with --resume" if resumes else "")
    return run(lambda: _do(words), interrupted=told)


def _do(words: list[str]) -> None:
    kinds = Annotated[Train, tyro.conf.subcommand("train")] | Annotated[Distill, tyro.conf.subcommand("distill")]
    kinds = (
        kinds | Annotated[Sample, tyro.conf.subcommand("sample")] | Annotated[Compare, tyro.conf.subcommand("compare")]
    )
    kinds = kinds | Annotated[Audit, tyro.conf.subcommand("audit")]
    command = parsed(kinds, prog="python -m neural", description=__doc__, args=words)
    with _processes():
        {Train: _train, Distill: _distill, Sample: _sample, Compare: _compare, Audit: _audit}[type(command)](command)


@contextlib.contextmanager
def _processes() -> Iterator[None]:
    """Those that torchrun has started, as a group."""
    launched = "RANK" in os.environ and "WORLD_SIZE" in os.environ and not distributed.is_initialized()
    if not launched:
        yield
        return
    distributed.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
    try:
        if torch.cuda.is_available():
            torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", 0)))
        yield
    finally:
        distributed.destroy_process_group()


_CHANGES = ("steps", "batch", "lr", "accumulate", "bf16", "compile", "ema", "weighting", "sigma_min")


def _experiment(command: Train | Distill, preset: Experiment) -> Experiment:
    changes = {"seed": command.seed} | _given(command, _CHANGES)
    data: dict[str, Any] = {}
    if command.dataset or command.option:
        given = parse_options(command.option)
        data = (
            {"dataset": command.dataset, "options": given} if command.dataset else {"options": preset.options | given}
        )
    return dataclasses.replace(preset, optimisation=dataclasses.replace(preset.optimisation, **changes), **data)


def _given(command: Any, names: tuple[str, ...]) -> dict[str, Any]:
    values = {name: getattr(command, name, None) for name in names}
    return {name: value for name, value in values.items() if value is not None}


def _require_every(every: int) -> None:
    if every < 1:
        raise ValueError(f"every must be at least 1, got {every}")


def _train(command: Train) -> None:
    if command.preset not in PRESETS:
        raise ValueError(f"unknown preset {command.preset!r}; known are {', '.join(PRESETS)}")
    _require_every(command.every)
    config = _experiment(command, PRESETS[command.preset])
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
        print(f"trained {data.name}: {command.out}")


def _distill(command: Distill) -> None:
    _require_every(command.every)
    config = student_of(command.preset, command.technique)
    base = config.experiment
    if command.teacher != "optimum" and not command.dataset:
        theirs = experiment_of(load_model(command.teacher)[1])
        base = dataclasses.replace(base, dataset=theirs.dataset, options=theirs.options)
    changes = {"teacher": command.teacher} | _given(command, ("points", "solver", "pairs", "uses"))
    config = dataclasses.replace(config, experiment=_experiment(command, base), **changes)
    data = config.experiment.load()
    teacher = teacher_of(config, data)
    if command.dry_run:
        print(f"{data.describe()}\n{to_json(config)}\nnothing was trained")
        return
    distil(
        config,
        data,
        teacher,
        command.out,
        resume=command.resume,
        extend=command.extend,
        every=command.every,
        keep=command.keep,
        device=command.device,
        progress=True,
    )
    print(f"distilled {data.name} ({command.technique}): {command.out}")


def _model(name: str, given: Dataset | None) -> tuple[Denoiser, Dataset, Any]:
    """A model by what the command line calls it, its data, and the configuration of a run."""
    if name == "optimum":
        if given is None:
            raise ValueError("the optimum is that of a data set: give --dataset")
        return OptimalDenoiser(given), given, None
    if name.startswith("diffusers:"):
        if given is None:
            raise ValueError("a diffusers model does not know its data: give --dataset")
        pretrained: Any = from_diffusers(name.removeprefix("diffusers:"))
        return pretrained, given, None
    model, config = load_model(name)
    experiment = experiment_of(config)
    data = given or experiment.load()
    about = checkpoint.about(checkpoint.latest(model_path(name)))
    if tuple(about["event"]) != data.event:
        raise ValueError(f"{name} makes points of shape {tuple(about['event'])}, {data.name} has {data.event}")
    if about["fingerprint"] != data.fingerprint:
        say(f"warning: {name} was trained on other data ({about['name']}) than {data.name}")
    if experiment.optimisation.flip:
        say(f"warning: {name} was trained with mirrored images; its optimum is that of --option xflip=True")
    return model, data, config


def _dataset(command: Sample | Compare) -> Dataset | None:
    if command.option and not command.dataset:
        raise ValueError("--option is of --dataset: give that too")
    return load(command.dataset, **parse_options(command.option)) if command.dataset else None


def _sample(command: Sample) -> None:
    if command.n < 1:
        raise ValueError(f"n must be at least 1, got {command.n}")
    model, data, config = _model(command.model, _dataset(command))
    generator = torch.Generator().manual_seed(command.seed)
    if isinstance(config, Distillation) and command.solver is None:
        if command.sigma_min is not None or command.sigma_max is not None:
            raise ValueError("a student has levels of its own: give --solver with other ones")
        model, arguments = student_at(command.model, command.steps or 1, generator=generator)
    else:
        low, high = _range(model, config)
        low, high = command.sigma_min or low, command.sigma_max or high
        sigmas = karras(18 if command.steps is None else command.steps, sigma_min=low, sigma_max=high)
        arguments = {"sigmas": sigmas, "solver": command.solver or "heun", "generator": generator}
    solver_of(arguments["solver"], {})
    if command.dry_run:
        steps = len(arguments["sigmas"]) - 1
        print(f"{data.describe()}\n{command.n} samples, {steps} steps of {arguments['solver']}; nothing was drawn")
        return
    rows, shape = RowNoise(generator), (command.n, *data.event)
    x = (float(arguments["sigmas"][0]) * rows.draw(shape)).float()
    arguments = {**arguments, "generator": None, "noise": lambda step: rows.draw(shape)}
    ends = sample(model, x, progress=True, **arguments)
    try:
        command.out.parent.mkdir(parents=True, exist_ok=True)
        written = [command.out.with_name(f"{command.out.name}.npz")]
        with replacing(written[0]) as temporary:
            np.savez_compressed(temporary, allow_pickle=False, noises=x.numpy(), samples=ends.numpy())
        if data.is_image:
            written.append(save_grid(ends, command.out.with_name(f"{command.out.name}.png")))
    except OSError as error:
        raise ValueError(f"the samples could not be written to {command.out}: {error.strerror or error}") from error
    print(f"{command.n} samples: {', '.join(map(str, written))}")


def _range(model: Denoiser, config: Any) -> tuple[float, float]:
    """First and last noise level that a model is made for."""
    if config is not None:
        options = experiment_of(config).optimisation
        return options.sigma_min, options.sigma_max
    return getattr(model, "sigma_min", 0.002), getattr(model, "sigma_max", 80.0)


def _compare(command: Compare) -> None:
    if not command.models:
        raise ValueError("name at least one model to compare with the optimum")
    if not command.sigmas or not command.steps or command.n < 1:
        raise ValueError("sigmas and steps must name at least one each, and n be at least 1")
    solver_of(command.solver, {})
    models: dict[str, Denoiser] = {}
    students, ranges = [], [(0.002, 80.0)]
    data = _dataset(command)
    for name in command.models:
        models[name], data, config = _model(name, data)
        ranges.append(_range(models[name], config))
        if isinstance(config, Distillation):
            students.append(name)
    assert data is not None
    low = max(low for low, _ in ranges) if command.sigma_min is None else command.sigma_min
    high = min(high for _, high in ranges) if command.sigma_max is None else command.sigma_max
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
    x = (high * RowNoise(generator).draw((command.n, *data.event))).float()
    reference = FlowMap(D)(x, high)
    methods: dict[str, tuple[Any, dict[str, Any]]] = {}
    for n in command.steps:
        grid = karras(n, sigma_min=low, sigma_max=high)
        arguments = {"sigmas": grid, "solver": command.solver}
        for name, model in ({"optimum": D} | models).items():
            methods[f"{name}, {n} steps"] = (model, arguments)
        for name in students:
            # Where it has so many steps, from the noises' level.
            if n not in (student_steps(name) or (n,)):
                continue
            own = student_at(name, n, generator=torch.Generator().manual_seed(command.seed))
            if math.isclose(float(own[1]["sigmas"][0]), high):
                methods[f"{name}, {n} steps as it is meant"] = own
    samplers = compare(methods, D, x, reference=reference, progress=True)
    about = {
        "dataset": data.name,
        "fingerprint": data.fingerprint,
        "sigma_min": low,
        "sigma_max": high,
        "command": _plain(command),
    }
    for kind, rows in (("denoiser", denoisers), ("samplers", samplers)):
        path = command.out.with_name(f"{command.out.name}-{kind}")
        save_table(rows, path, about)
        _print(rows)
        print(f"{path}.csv, {path}.json\n")


def _audit(command: Audit) -> None:
    from .report.audited import audited

    found, files = audited(
        command.data,
        command.samples,
        command.out,
        data_options=parse_options(command.option),
        sample_options=parse_options(command.sample_option),
        near=command.near,
        say=say,
    )
    print(f"{found.sentence()}\n{', '.join(map(str, files))}")


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
