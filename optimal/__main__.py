"""The optimum of your own data: `python -m optimal info | denoise | sample | border | where | schedule`."""

from __future__ import annotations

import dataclasses
import math
import os
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any

# Before torch starts its threads: beside another busy process they would spin for each other.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import numpy as np
import torch
import tyro

from .cli import as_json, in_words, options, parse_options, parsed, read_point, save_grid, suffixed, writable
from .cli.answers import denoised, described, destination, expected, located, sampled, shown_points
from .cli.point_files import NUMBERS
from .cli.run import run, say
from .cli.scheduled import expected_schedule, scheduled
from .datasets import Dataset, load
from .devices import device_of
from .randomness import stream
from .schedules import Objective
from .storage import replacing

__all__ = ["COMMANDS", "command_of", "main"]

Point = Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="IMAGE")]
_TILE = 128
"""Pixels a side that an image of a grid has at least about."""
_QUICK_DRAWS = 64
_QUICK_STARTS = 128
_NO_POSTERIOR = "a guided denoiser is the mean of no distribution over the data"
_REFUSED = {
    ("border", "--guidance"): f"it is measured on a posterior, and {_NO_POSTERIOR}",
    ("border", "--interval"): f"it is of --guidance, and {_NO_POSTERIOR}",
    ("where", "--guidance"): f"it follows the exact flow to a data point, and {_NO_POSTERIOR}; sample has it",
    ("where", "--interval"): "it is of --guidance, which sample has",
    ("where", "--orbit"): "it follows the exact flow to a point of the data as they are; sample has it",
    ("schedule", "--label"): "it is made for all of the data",
    ("schedule", "--orbit"): "it is made for the data as they are",
    ("schedule", "--guidance"): f"it follows the exact flow to data points, and {_NO_POSTERIOR}",
    ("schedule", "--interval"): f"it is of --guidance, and {_NO_POSTERIOR}",
    ("info", "--label"): "it describes all of the data",
    ("info", "--orbit"): "it describes the data as they are",
    ("info", "--guidance"): "it describes the data",
    ("info", "--interval"): "it describes the data",
}
"""Options of other commands, and why these have them not."""


@dataclasses.dataclass(frozen=True)
class _Common:
    data: options.Data
    option: options.DataOption = ()
    device: options.Device = "cpu"
    json: options.Json = False
    dry_run: options.DryRun = False


@dataclasses.dataclass(frozen=True)
class Info(_Common):
    """What the data are: size, fingerprint, copies, spread, and the noise levels that closed formulas predict."""


@dataclasses.dataclass(frozen=True)
class Border(_Common):
    """Where the optimal denoiser stops blending many points and returns one, measured on the data."""

    label: options.Label = None
    draws: int = 256
    """Noisy points x0 + sigma noise that are looked at."""
    orbit: options.Orbit = None
    seed: options.Seed = 0
    quick: options.Quick = False
    """At most 64 draws, whatever --draws says, to have a look."""


@dataclasses.dataclass(frozen=True)
class _AtPoint(_Common):
    image: Point = dataclasses.field(kw_only=True)
    """x: an image file, a .npy (uint8, or in units of the data), @K for point K of the data, or, where points have one
    or two values, these: 0.3 or 0.3,-1.2."""
    sigma: float = dataclasses.field(kw_only=True)
    """Noise level, in units of the data (images span -1 to 1), > 0."""
    label: options.Label = None
    add_noise: bool = False
    """Add noise of this level to IMAGE first; else IMAGE is taken as the noisy x itself."""
    seed: options.Seed = 0


@dataclasses.dataclass(frozen=True)
class Denoise(_AtPoint):
    """E[x0 | x] at one x, and the points that it is made of."""

    top: int = 5
    """How many of the most probable data points are listed and shown."""
    guidance: options.Guidance = None
    interval: options.Interval = None
    orbit: options.Orbit = None
    out: Path = Path("denoised")
    """Path of the files, without suffix: NPY of the answer and, of images, PNG: x, the answer, the points."""


@dataclasses.dataclass(frozen=True)
class Where(_AtPoint):
    """Which data point x becomes under the exact probability-flow ODE, and how sure that is."""

    out: Annotated[Path | None, tyro.conf.arg(metavar="PATH", help_behavior_hint="")] = None
    """Path of a PNG, without suffix, of x, E[x0 | x] and the destination (images); none unless given."""


@dataclasses.dataclass(frozen=True)
class Sample(_Common):
    """Samples of the optimal denoiser under a solver, from pure noise."""

    n: options.Number = 16
    """Number of samples."""
    label: options.Label = None
    steps: int = 18
    """Steps from sigma-max to 0."""
    solver: options.SolverName = "heun"
    """Consistency is that of the flow map. Those that draw no noise run in the span of the data where these are
    large."""
    solver_option: options.SolverOption = ()
    sigma_min: float = 0.002
    """Last noise level above 0, in units of the data."""
    sigma_max: options.Real = None
    """First noise level, in units of the data; unless given 80, or 160 standard deviations of the data if that is
    more."""
    guidance: options.Guidance = None
    interval: options.Interval = None
    orbit: options.Orbit = None
    seed: options.Seed = 0
    out: Path = Path("samples")
    """Path of the files, without suffix: NPZ and, of images, PNG."""


@dataclasses.dataclass(frozen=True)
class Schedule(_Common):
    """A grid of noise levels made for the data, what it reaches with a solver, and EDM's grid beside it."""

    n: options.Number = 8
    """Steps from sigma-max to 0."""
    solver: options.SolverName = "dpm_solver_pp"
    """What the grid is for; the curves' grids (path-kl, entropy) are for any."""
    solver_option: options.SolverOption = ()
    objective: Objective = "landings"
    """Landings: fewest ends on other points than the exact flow's. Gaussian: best if the data were Gaussian. Path-kl:
    least KL of the ancestral sampler's path. Entropy, rescaled-entropy: even in what is learnt."""
    sigma_max: options.Real = None
    """First noise level, in units of the data; unless given 80, or 160 standard deviations of the data if that is
    more."""
    gaussian_start: bool = False
    """Begin lower, where the flow of the data's Gaussian leads in no call."""
    starts: int = 1024
    """Noises that the grid is designed on."""
    judged: int = 1024
    """Other noises that it is judged on."""
    seed: options.Seed = 0
    quick: options.Quick = False
    """At most 128 starts and 256 others, whatever is asked, to have a look."""


COMMANDS: dict[str, type[_Common]] = {
    "info": Info,
    "denoise": Denoise,
    "sample": Sample,
    "border": Border,
    "where": Where,
    "schedule": Schedule,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code, see `optimal.cli.run`."""
    return run(lambda: _answer(list(sys.argv[1:] if arguments is None else arguments)))


def command_of(words: Sequence[str]) -> Any:
    """The command that the words of a command line ask for.

    Raises:
        ValueError: words that no command has; one sentence.
        SystemExit: of code 0, after --help.
    """
    kinds: Any = None
    for name, kind in COMMANDS.items():
        one = Annotated[kind, tyro.conf.subcommand(name)]  # pyright: ignore
        kinds = one if kinds is None else kinds | one
    args = _positions(list(words))
    return parsed(kinds, prog="python -m optimal", description=__doc__, args=args, refused=_REFUSED)


def _answer(words: list[str]) -> None:
    command = command_of(words)
    data = load(command.data, **parse_options(command.option))
    answer = {
        Info: _info,
        Denoise: _denoise,
        Sample: _sample,
        Border: _border,
        Where: _where,
        Schedule: _schedule,
    }[type(command)]
    found, sentences = answer(command, data)
    if command.json:
        print(as_json({"dataset": data.name, "fingerprint": data.fingerprint} | found))
    else:
        print("\n".join(sentences))


def _positions(words: list[str]) -> list[str]:
    """--dataset DATA is DATA in its place; -1.2,0.3 would be taken for an option."""
    words = [f" {word}" if word.startswith("-") and NUMBERS.fullmatch(word) and "," in word else word for word in words]
    for i, word in enumerate(words[1:], start=1):
        if word == "--dataset" and i + 1 < len(words):
            return [words[0], words[i + 1], *words[1:i], *words[i + 2 :]]
        if word.startswith("--dataset="):
            return [words[0], word.removeprefix("--dataset="), *words[1:i], *words[i + 1 :]]
    return words


def _planned(data: Dataset, what: str, seconds: float | None = None) -> tuple[dict[str, Any], list[str]]:
    """What a dry run says."""
    time = "" if seconds is None else f", about {in_words(seconds)}"
    found: dict[str, Any] = {"plan": what} | ({} if seconds is None else {"seconds": seconds})
    return found, [data.describe(), f"{what}{time}; nothing was computed"]


def _info(command: Info, data: Dataset) -> tuple[dict[str, Any], list[str]]:
    device = device_of(command.device)
    if command.dry_run:
        return _planned(data, "copies, spread and top eigenvalue of the data", expected("info", data))
    found = described(data, device=device, say=say)
    return found, [
        data.describe(),
        f"from {data.source}; licence: {data.licence}",
        f"copies of earlier points: {found['duplicates']:,}, leaving {found['distinct']:,} distinct points",
        f"standard deviation of a value {found['standard_deviation']:.4g}, top eigenvalue of the covariance "
        f"{found['top_eigenvalue']:.4g}",
        _speciation(found),
        f"collapse predicted at sigma_C = {found['sigma_C']:.4g}, for as many Gaussian points: below it one point is "
        "left (`border` measures it)",
    ]


def _speciation(found: dict[str, Any]) -> str:
    if found["sigma_S"] == 0:
        # Of data whose scale is that of its noise; √Λ is the same condition for data of any scale.
        scale = math.sqrt(found["top_eigenvalue"])
        return f"speciation: the formula for sigma_S needs an eigenvalue above 1; its square root is {scale:.4g}"
    return f"speciation predicted at sigma_S = {found['sigma_S']:.4g}: above it trajectories have not chosen a class"


def _border(command: Border, data: Dataset) -> tuple[dict[str, Any], list[str]]:
    draws = min(command.draws, _QUICK_DRAWS) if command.quick else command.draws
    device = device_of(command.device)
    if command.dry_run:
        return _planned(data, f"the border by {draws} draws", expected("border", data, draws))
    found = located(data, draws, command.seed, label=command.label, group=command.orbit, device=device, say=say)
    count, entropy = found["count"], found["entropy"]
    return found, [
        _about(data, command.label, command.orbit),
        f"median effective count of 2 at sigma = {_interval(count)}: the border between mode seeking and mode refining",
        f"mean entropy of 1 nat at sigma = {_interval(entropy)}: the collapse of Biroli et al. 2024",
        f"95% bootstrap intervals, {draws} draws, seed {command.seed}",
    ]


def _interval(border: dict[str, float]) -> str:
    if not 0 < border["sigma"] < math.inf:
        return f"{border['sigma']:g} (it is never crossed)"
    return f"{border['sigma']:.4g} [{border['low']:.4g}, {border['high']:.4g}]"


def _x(command: _AtPoint, data: Dataset) -> torch.Tensor:
    """x, (1, *event)."""
    if not 0 < command.sigma < math.inf:
        raise ValueError(f"sigma must be positive and finite, got {command.sigma:g}")
    x, notes = read_point(command.image, data)
    for note in notes:
        say(note)
    if command.add_noise:
        x = x + command.sigma * torch.randn(x.shape, generator=stream(command.seed, "queries"))
    return x[None]


def _denoise(command: Denoise, data: Dataset) -> tuple[dict[str, Any], list[str]]:
    if command.top < 1:
        raise ValueError(f"top must be at least 1, got {command.top}")
    x = _x(command, data)
    device = device_of(command.device)
    if command.dry_run:
        return _planned(data, f"E[x0 | x] at sigma = {command.sigma:g}", expected("denoise", data))
    out = writable(command.out, "denoised")
    mean, found = denoised(
        data,
        x,
        command.sigma,
        command.top,
        label=command.label,
        guidance=command.guidance,
        interval=command.interval,
        group=command.orbit,
        device=device,
        say=say,
    )
    path = suffixed(out, ".npy")
    with replacing(path) as temporary:
        np.save(temporary, mean[0].numpy())
    files = [path]
    if data.is_image:
        shown = torch.cat([x, mean, shown_points(data, found["points"], command.orbit)])
        files.append(_grid(shown, out, columns=len(shown)))
    found["files"] = [str(file) for file in files]
    guided = command.guidance is not None
    answer = "the guided answer" if guided else "E[x0 | x]"
    blend = "that of the class" if guided else "the answer"
    return found, [
        _about(data, command.label, command.orbit),
        *([_pushed(found)] if guided else []),
        f"at sigma = {command.sigma:g} {blend} blends {found['effective_count']:.4g} points (effective count), "
        f"{found['entropy']:.4g} nats",
        "most probable: " + ", ".join(f"{_named(point)} {point['weight']:.3g}" for point in found["points"]),
        *([f"{answer} = {', '.join(f'{v:.6g}' for v in mean.flatten())}"] if mean.numel() <= 2 else []),
        _written(files, f"from left to right x, {answer}, the points" if data.is_image else ""),
    ]


def _pushed(found: dict[str, Any]) -> str:
    """What guidance does to the answer: it is no posterior mean, and has no entropy of its own."""
    return (
        f"guided, w = {found['weight']:g} at this noise level: the answer lies {found['pushed']:.4g} from that of the "
        f"class, whose probability here is {found['probability']:.4g}; it is the mean of no distribution"
    )


def _named(point: dict[str, Any]) -> str:
    """@3, or @3 under an element of the group: @3 mirrored."""
    element = point.get("element")
    return f"@{point['index']}" + (f" {element}" if element else "")


def _where(command: Where, data: Dataset) -> tuple[dict[str, Any], list[str]]:
    if command.out and not data.is_image:
        raise ValueError(f"--out is a picture, and {data.name} holds no images")
    x = _x(command, data)
    device = device_of(command.device)
    if command.dry_run:
        return _planned(data, f"the landing of x from sigma = {command.sigma:g}", expected("where", data))
    out = writable(command.out, "where") if command.out else None
    mean, found = destination(data, x, command.sigma, label=command.label, device=device, say=say)
    sentences = [_about(data, command.label, None), f"x becomes data point @{found['index']} ({found['sure']})"]
    if math.prod(data.event) <= 2:
        sentences[-1] += f", which is {', '.join(f'{v:.6g}' for v in data[found['index']].flatten())}"
    sentences += [
        f"at sigma = {command.sigma:g} it holds {found['weight']:.3g} of the posterior; the leader is "
        f"@{found['leader']} with {found['leader_weight']:.3g}, the effective count {found['effective_count']:.4g}"
    ]
    if out:
        files = [_grid(torch.cat([x, mean, data[[found["index"]]]]), out, columns=3)]
        found["files"] = [str(file) for file in files]
        sentences.append(_written(files, "x, E[x0 | x], the destination"))
    return found, sentences


def _sample(command: Sample, data: Dataset) -> tuple[dict[str, Any], list[str]]:
    device = device_of(command.device)
    if command.dry_run:
        return _planned(data, f"{command.n} samples, {command.steps} steps of {command.solver}")
    out = writable(command.out, "samples")
    arrays, found = sampled(
        data,
        command.n,
        command.solver,
        command.steps,
        sigma_min=command.sigma_min,
        sigma_max=command.sigma_max,
        seed=command.seed,
        options=parse_options(command.solver_option),
        label=command.label,
        guidance=command.guidance,
        interval=command.interval,
        group=command.orbit,
        device=device,
        say=say,
    )
    path = suffixed(out, ".npz")
    with replacing(path) as temporary:
        np.savez_compressed(temporary, allow_pickle=False, **{name: value.numpy() for name, value in arrays.items()})
    files = [path]
    if data.is_image:
        files.append(_grid(arrays["samples"], out))
    found["files"] = [str(file) for file in files]
    return found, [
        _about(data, command.label, command.orbit),
        *([] if command.guidance is None else [_guided(command.guidance, command.label, command.interval)]),
        f"{command.n} samples, {command.steps} steps of {command.solver} from sigma = {found['sigma_max']:g}, "
        f"{found['nfe']} calls each" + (", in the span of the data" if found["in_span"] else ""),
        f"{found['copies']} of them are {_points_of(command.orbit)}, {found['different']} different ones",
        _written(files),
    ]


def _schedule(command: Schedule, data: Dataset) -> tuple[dict[str, Any], list[str]]:
    starts, judged = command.starts, command.judged
    if command.quick:
        starts, judged = min(starts, _QUICK_STARTS), min(judged, 2 * _QUICK_STARTS)
    if command.dry_run:
        seconds = expected_schedule(data, command.n, command.objective, starts, judged)
        return _planned(data, f"a grid of {command.n} steps for {command.solver}, by {command.objective}", seconds)
    found = scheduled(
        data,
        command.n,
        command.solver,
        command.objective,
        options=parse_options(command.solver_option),
        sigma_max=command.sigma_max,
        gaussian_start=command.gaussian_start,
        starts=starts,
        judged=judged,
        seed=command.seed,
        say=say,
    )
    levels = [f"{level:.6g}" for level in found["sigmas"]]
    lines = [
        data.describe(),
        f"{command.n} steps for {command.solver}, by {command.objective}: {', '.join(levels)}",
    ]
    if command.gaussian_start:
        lines.append(f"the Gaussian's flow takes noise from sigma = {found['sigma_max']:g} to {levels[0]} in no call")
    if found["designed"] is None:
        lines.append(f"{command.solver} draws noise: its ends are no function of the start, and are not judged")
    else:
        for name, grid in (("this grid", found["designed"]), ("EDM's", found["edm"])):
            lines.append(
                f"{name}: {grid['wrong']:.1%} [{grid['low']:.1%}, {grid['high']:.1%}] of {found['judged']} other "
                f"starts end on another point than the exact flow, {grid['nfe']} calls each"
            )
    if command.gaussian_start:
        return found, [*lines, "other libraries begin with plain noise at the first level, which this grid is not for"]
    lines += [
        f"diffusers, EulerDiscreteScheduler: set_timesteps(sigmas=[{', '.join(levels)}])",
        f"k-diffusion: torch.tensor([{', '.join(levels)}]); ComfyUI, custom sigmas: {', '.join(levels)}",
    ]
    return found, lines


def _about(data: Dataset, label: int | None, orbit: str | None) -> str:
    own = "" if label is None else f"; its {int((data.classes == label).sum())} points of class {label}"
    return data.describe() + own + ("" if orbit is None else f"; with their images under {orbit}")


def _guided(guidance: float, label: int | None, interval: tuple[float, float] | None) -> str:
    where = "" if interval is None else f" for {interval[0]:g} < sigma <= {interval[1]:g}"
    return f"guided from all data towards class {label}, w = {guidance:g}{where}"


def _points_of(orbit: str | None) -> str:
    return "data points" if orbit is None else "images of data points"


def _grid(images: torch.Tensor, out: Path, columns: int | None = None) -> Path:
    return save_grid(images, suffixed(out, ".png"), columns=columns, scale=max(1, _TILE // max(images.shape[2:])))


def _written(files: Iterable[Path], what: str = "") -> str:
    return ", ".join(map(str, files)) + (f": {what}" if what else "")


if __name__ == "__main__":
    sys.exit(main())
