"""What can be asked of `python -m optimal`: typed options, each with its unit and default, and words taken for them."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Annotated, Any

import tyro

from ..schedules import Objective
from . import options
from .options import parsed
from .point_files import NUMBERS

__all__ = [
    "COMMANDS",
    "AtPoint",
    "Border",
    "Common",
    "Denoise",
    "Info",
    "Sample",
    "Schedule",
    "Where",
    "command_of",
    "label_of",
]

Point = Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="IMAGE")]
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
class Common:
    data: options.Data
    option: options.DataOption = ()
    device: options.Device = "cpu"
    json: options.Json = False
    dry_run: options.DryRun = False


@dataclasses.dataclass(frozen=True)
class Info(Common):
    """What the data are: size, fingerprint, copies, spread, and the noise levels that closed formulas predict."""


@dataclasses.dataclass(frozen=True)
class Border(Common):
    """Where the optimal denoiser stops blending many points and returns one, measured on the data."""

    label: options.Class = None
    draws: options.Count = None
    """Noisy points x0 + sigma noise that are looked at; unless given 4,000 of up to 200,000 values, else 256."""
    orbit: options.Orbit = None
    seed: options.Seed = 0
    quick: options.Quick = False
    """At most 64 draws, whatever --draws says, to have a look."""


@dataclasses.dataclass(frozen=True)
class AtPoint(Common):
    image: Point = dataclasses.field(kw_only=True)
    """x: an image file, a .npy (uint8, or in units of the data), @K for point K of the data, its name (cats/a.png), or,
    where points have one or two values, these: 0.3 or 0.3,-1.2."""
    sigma: float = dataclasses.field(kw_only=True)
    """Noise level, in units of the data (images span -1 to 1), > 0."""
    label: options.Class = None
    value_range: options.ValueRange = None
    add_noise: bool = False
    """Noise of this level, added to IMAGE first; else IMAGE is taken as the noisy x itself."""
    seed: options.Seed = 0


@dataclasses.dataclass(frozen=True)
class Denoise(AtPoint):
    """E[x0 | x] at one x, and the points that it is made of."""

    top: int = 5
    """Number of the most probable data points that are listed and shown."""
    guidance: options.Guidance = None
    interval: options.Interval = None
    orbit: options.Orbit = None
    out: options.Out = "denoised"
    """Path of the files, without suffix: NPY of the answer and, of images, PNG: x, the answer, the points."""


@dataclasses.dataclass(frozen=True)
class Where(AtPoint):
    """Which data point x becomes under the exact probability-flow ODE, and how sure that is."""

    out: Annotated[str | None, tyro.conf.arg(metavar="PATH", help_behavior_hint="")] = None
    """Path of a PNG, without suffix, of x, E[x0 | x] and the destination; of images where.png unless given."""


@dataclasses.dataclass(frozen=True)
class Sample(Common):
    """Samples of the optimal denoiser under a solver, from pure noise."""

    n: options.Number = 16
    """Number of samples."""
    label: options.Class = None
    steps: options.Whole = None
    """Steps from sigma-max to 0; 18 unless given."""
    levels: options.Reals = None
    """Noise levels, decreasing, in units of the data, as `schedule` prints them, with or without a last 0; EDM's unless
    given."""
    solver: options.SolverName = "heun"
    """Solver; consistency is that of the flow map. Those that draw no noise run in the span of the data where these are
    large."""
    solver_option: options.SolverOption = ()
    sigma_min: options.Real = None
    """Last noise level above 0, in units of the data; 0.002 unless given."""
    sigma_max: options.Real = None
    """First noise level, in units of the data; unless given 80, or 160 standard deviations of the data if that is
    more."""
    guidance: options.Guidance = None
    interval: options.Interval = None
    orbit: options.Orbit = None
    seed: options.Seed = 0
    out: options.Out = "samples"
    """Path of the files, without suffix: NPZ and, of images, PNG."""


@dataclasses.dataclass(frozen=True)
class Schedule(Common):
    """A grid of noise levels made for the data, what it reaches with a solver, and EDM's grid beside it."""

    n: options.Number = 8
    """Steps from sigma-max to 0."""
    solver: options.SolverName = "dpm_solver_pp"
    """Solver that the grid is for; the curves' grids (path-kl, entropy) are for any."""
    solver_option: options.SolverOption = ()
    objective: Objective = "landings"
    """Landings: fewest ends on other points than the exact flow's. Gaussian: best if the data were Gaussian. Path-kl:
    least KL of the ancestral sampler's path. Entropy, rescaled-entropy: even in what is learnt."""
    sigma_max: options.Real = None
    """First noise level, in units of the data; unless given 80, or 160 standard deviations of the data if that is
    more."""
    gaussian_start: bool = False
    """A lower start, where the flow of the data's Gaussian leads in no call."""
    starts: int = 1024
    """Noises that the grid is designed on."""
    judged: int = 1024
    """Other noises that it is judged on."""
    seed: options.Seed = 0
    quick: options.Quick = False
    """At most 128 starts and 256 others, whatever is asked, to have a look."""


def label_of(command: Border | AtPoint | Sample) -> int | None:
    """The class that is asked for, a number once the data are known (`Dataset.class_of`)."""
    return None if command.label is None else int(command.label)


COMMANDS: dict[str, type[Common]] = {
    "info": Info,
    "denoise": Denoise,
    "sample": Sample,
    "border": Border,
    "where": Where,
    "schedule": Schedule,
}


def command_of(words: Sequence[str], description: str | None) -> Any:
    """The command that the words of a command line ask for.

    Args:
        words: without the program's name.
        description: first lines of --help.

    Raises:
        ValueError: words that no command has; one sentence.
        SystemExit: of code 0, after --help.
    """
    kinds: Any = None
    for name, kind in COMMANDS.items():
        one = Annotated[kind, tyro.conf.subcommand(name)]  # pyright: ignore
        kinds = one if kinds is None else kinds | one
    args = _positions(list(words))
    return parsed(kinds, prog="optimal", description=description, args=args, refused=_REFUSED)


def _positions(words: list[str]) -> list[str]:
    """--dataset DATA is DATA in its place; -1.2,0.3 would be taken for an option."""
    words = [f" {word}" if word.startswith("-") and NUMBERS.fullmatch(word) and "," in word else word for word in words]
    for i, word in enumerate(words[1:], start=1):
        if word == "--dataset" and i + 1 < len(words):
            return [words[0], words[i + 1], *words[1:i], *words[i + 2 :]]
        if word.startswith("--dataset="):
            return [words[0], word.removeprefix("--dataset="), *words[1:i], *words[i + 1 :]]
    return words
