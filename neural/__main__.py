"""`python -m neural train | distill | sample | compare | audit | report`: typed options, each with its unit."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

# Before torch starts its threads: beside another busy process they would spin for each other.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import numpy as np
import torch
from torch import distributed

from optimal import Dataset, OptimalDenoiser, load
from optimal.cli import as_json, as_table, in_words, parse_options, plain, save_grid, suffixed, writable
from optimal.cli.run import run, say
from optimal.devices import device_of
from optimal.storage import replacing

from . import networks
from .answers import Compared, Plan, compared, drawing, drawn, planned
from .commands import Audit, Compare, Distill, Report, Sample, Train, command_of
from .config import Experiment, experiment_of, to_json
from .loss import root_mean_square
from .measures import save_table
from .named import of_label, opened
from .run import distil, fit
from .saved import load_model
from .teachers import teacher_of

__all__ = ["main"]

_QUICK_DRAWS = 128
_QUICK_SAMPLES = 64
_ABOVE = (
    "* above 1: worse there than a network that always answers the mean of the data; so is a student, which answers "
    "one point and not the mean of those that x may have come from"
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code, see `optimal.cli.run`."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    resumes = words[:1] in (["train"], ["distill"])
    told = "interrupted" + ("; what has a checkpoint goes on with --resume" if resumes else "")
    return run(lambda: _do(words), interrupted=told)


def _do(words: list[str]) -> None:
    command = command_of(words, __doc__)
    with _processes():
        _ANSWERS[type(command)](command)


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


def _train(command: Train) -> None:
    config = _on_data(command, command.config)
    data = config.load()
    if command.dry_run:
        model = networks.build(config.network, data.event, root_mean_square(data))
        print(f"{data.describe()}\n{to_json(config)}\n{networks.count(model):,} weights; nothing was trained")
        return
    main_process = not distributed.is_initialized() or distributed.get_rank() == 0
    out = command.out.expanduser()
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
        print(f"trained {data.name}: {out}")


def _distill(command: Distill) -> None:
    config = command.config
    base = config.experiment
    if config.teacher != "optimum" and not command.dataset:
        theirs = experiment_of(load_model(config.teacher)[1])
        base = dataclasses.replace(base, dataset=theirs.dataset, options=theirs.options)
    config = dataclasses.replace(config, experiment=_on_data(command, base))
    data = config.experiment.load()
    teacher = teacher_of(config, data, device_of(command.device))
    if command.dry_run:
        print(f"{data.describe()}\n{to_json(config)}\nnothing was trained")
        return
    distil(
        config,
        data,
        teacher,
        command.out.expanduser(),
        resume=command.resume,
        extend=command.extend,
        every=command.every,
        keep=command.keep,
        device=command.device,
        progress=True,
    )
    print(f"distilled {data.name} ({config.technique}): {command.out.expanduser()}")


def _on_data(command: Train | Distill, config: Experiment) -> Experiment:
    """On the data of the command line; options without --dataset change those of the configuration."""
    if command.every < 1:
        raise ValueError(f"every must be at least 1, got {command.every}")
    given = parse_options(command.option)
    if command.dataset:
        return dataclasses.replace(config, dataset=command.dataset, options=given)
    return dataclasses.replace(config, options=config.options | given)


def _dataset(command: Sample | Compare | Report) -> Dataset | None:
    if command.option and not command.dataset:
        raise ValueError("--option is of --dataset: give that too")
    return load(command.dataset, **parse_options(command.option)) if command.dataset else None


def _sample(command: Sample) -> None:
    options: dict[str, Any] = {"device": command.device, "batch": command.batch, "label": command.label}
    (model,), data = opened([command.model], _dataset(command), say=say, **options)
    how = drawing(
        model,
        command.n,
        command.steps,
        command.solver,
        options=parse_options(command.solver_option),
        sigma_min=command.sigma_min,
        sigma_max=command.sigma_max,
        seed=command.seed,
    )
    if command.dry_run:
        found = how.about()
        print(as_json(found) if command.json else f"{data.describe()}\n{_samples(found)}; nothing was drawn")
        return
    out = writable(command.out, "samples")
    arrays, found = drawn(how, data.event, say=say)
    files = [suffixed(out, ".npz"), suffixed(out, ".json")]
    with replacing(files[0]) as temporary:
        np.savez_compressed(temporary, allow_pickle=False, **{name: value.numpy() for name, value in arrays.items()})
    if data.is_image:
        files.append(save_grid(arrays["samples"], suffixed(out, ".png")))
    names = [str(file) for file in files]
    found = {"dataset": data.name, "fingerprint": data.fingerprint} | found
    with replacing(files[1]) as temporary:
        temporary.write_text(as_json(found | {"command": _plain(command)}) + "\n")
    if command.json:
        print(as_json(found | {"files": names}))
    else:
        print(f"{_samples(found)}, {found['nfe']} calls each: {', '.join(names)}")


def _samples(found: dict[str, Any]) -> str:
    return f"{found['n']} samples, {found['steps']} steps of {found['solver']} from sigma = {found['sigma_max']:g}"


def _compare(command: Compare) -> None:
    if not command.models:
        raise ValueError("name at least one model to compare with the optimum")
    plan = Plan(
        on=command.on,
        sigmas=command.sigmas,
        draws=min(command.draws, _QUICK_DRAWS) if command.quick else command.draws,
        n=min(command.n, _QUICK_SAMPLES) if command.quick else command.n,
        steps=command.steps,
        solver=command.solver,
        sigma_min=command.sigma_min,
        sigma_max=command.sigma_max,
        seed=command.seed,
    )
    options: dict[str, Any] = {"device": command.device, "batch": command.batch, "label": command.label}
    models, data = opened(command.models, _dataset(command), say=say, **options)
    held_out = None
    if command.held_out:
        held_out = load(command.held_out, **parse_options(command.held_out_option))
        held_out = held_out if command.label is None else of_label(held_out, command.label)
    if command.dry_run:
        seconds = planned(models, OptimalDenoiser(data), plan, plan.places(held_out))
        names = ", ".join(model.name for model in models)
        print(f"{data.describe()}\noptimum, {names}; about {in_words(seconds)}; nothing was compared")
        return
    out = writable(command.out, "comparison")
    found = compared(models, data, plan, held_out=held_out, say=say)
    about = found.about | {"sentences": found.sentences(), "command": _plain(command)}
    files = []
    for kind, rows in (("denoiser", found.denoisers), ("samplers", found.samplers)):
        path = suffixed(out, f"-{kind}")
        save_table([plain(row) for row in rows], path, about)
        files += [f"{path}.csv", f"{path}.json"]
    if command.json:
        print(as_json(about | {"denoisers": found.denoisers, "samplers": found.samplers, "files": files}))
    else:
        print("\n".join([data.describe(), "", *_tables(found), "", ", ".join(files)]))


def _tables(found: Compared) -> list[str]:
    """What is read first: how far each network is from the optimum, where most, and what its samples are."""
    lines = []
    for each in found.measured:
        rows = []
        for row in each.rows():
            gap = _interval(row, "gap_per_value")
            share = f"{row['gap_share']:.3g}" + ("*" if row["gap_share"] > 1 else "")
            rows.append([f"{row['sigma']:.4g}", gap, share, f"{row['gap_over_sigma_square']:.3g}"])
        lines += [f"{each.name} on {each.on}", as_table(["sigma", "gap per value", "share", "gap/sigma²"], rows)]
        if any(row["gap_share"] > 1 for row in each.rows()):
            lines.append(_ABOVE)
        lines += [each.sentence(), ""]
    head = ["method", "calls", "same", "distance", "wasserstein", "memorised", "coverage"]
    own = any("same_pairs" in row for row in found.samplers)
    rows = [
        [
            row["method"],
            str(row["nfe"]),
            _interval(row, "same"),
            *(f"{row[name]:.3g}" for name in ("distance", "wasserstein")),
            _interval(row, "memorised"),
            f"{row['coverage']:.3g}",
            *([_interval(row, "same_pairs")] if own else []),
        ]
        for row in found.samplers
    ]
    lines.append(as_table(head + (["same on own pairs"] if own else []), rows))
    return lines


def _interval(row: dict[str, Any], name: str) -> str:
    value = row[name]
    return f"{value:.3g} [{row[f'{name}_low']:.3g}, {row[f'{name}_high']:.3g}]" if math.isfinite(value) else "-"


def _audit(command: Audit) -> None:
    from .report.audited import audited

    found, files = audited(
        command.data,
        command.samples,
        writable(command.out, "audit"),
        data_options=parse_options(command.option),
        sample_options=parse_options(command.sample_option),
        near=command.near,
        say=say,
    )
    print(f"{found.sentence()}\n{', '.join(map(str, files))}")


def _report(command: Report) -> None:
    from .report.reported import reported
    from .report.study import Effort

    found, files = reported(
        command.models,
        _dataset(command),
        writable(command.out, "report", folder=True),
        label=command.label,
        held_out=load(command.held_out, **parse_options(command.held_out_option)) if command.held_out else None,
        sigmas=command.sigmas,
        steps=command.steps,
        effort=Effort(
            min(command.draws, _QUICK_DRAWS) if command.quick else command.draws,
            min(command.n, _QUICK_SAMPLES) if command.quick else command.n,
        ),
        device=command.device,
        batch=command.batch,
        seed=command.seed,
        say=say,
    )
    print("\n".join([*(network.sentence() for network in found.networks), str(files[0])]))


_ANSWERS: dict[type, Callable[[Any], None]] = {
    Train: _train,
    Distill: _distill,
    Sample: _sample,
    Compare: _compare,
    Audit: _audit,
    Report: _report,
}


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
