"""What can be asked of `python -m neural`: typed options, each with its unit and default.

Options that the command lines share have their types from `optimal.cli.options`. `neural.cli.parsing` takes words.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal

import tyro

from optimal.cli import options
from optimal.samplers import SOLVERS

from .answers import Place
from .config import Distillation, Experiment
from .presets import PRESETS, student_of
from .sampled import NEAR

__all__ = [
    "COMMANDS",
    "QUICK_DRAWS",
    "QUICK_SAMPLES",
    "Audit",
    "Compare",
    "Distill",
    "Explain",
    "Likelihood",
    "Preset",
    "Pretrain",
    "Report",
    "Sample",
    "Study",
    "Train",
]

Preset = Literal[
    "toy",
    "digits",
    "digits-classes",
    "faces",
    "emoji-16",
    "emoji-16-dit",
    "emoji-32",
    "emoji-64",
    "cifar-32",
    "ffhq-64",
]
_Models = Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="MODEL…")]
_Start = Annotated[Preset, tyro.conf.Positional]
_SigmaMin = Annotated[
    float | None,
    tyro.conf.arg(
        metavar="FLOAT",
        help="Last noise level of samplers above 0, in units of the data; the models' own.",
        help_behavior_hint="",
    ),
]
_SigmaMax = Annotated[
    float | None,
    tyro.conf.arg(
        metavar="FLOAT",
        help="First noise level of samplers, in units of the data; the models' own.",
        help_behavior_hint="",
    ),
]
_Solver = Annotated[options.SolverName | None, tyro.conf.arg(metavar=f"{{{','.join(SOLVERS)}}}", help_behavior_hint="")]
QUICK_DRAWS, QUICK_SAMPLES = 128, 64
"""What --quick leaves, as its help texts say."""
_HeldOut = Annotated[
    str | None,
    tyro.conf.arg(
        metavar="DATA",
        help="Data of the same kind that were not trained on: a name or a path.",
        help_behavior_hint="",
    ),
]


@dataclass(frozen=True)
class Train:
    """Train a network with Eq. 26; checkpoints, config.json and metrics.csv go into --out. Every field of the
    configuration has an option, which goes by its last part too: --lr for --optimisation.lr."""

    preset: _Start = "toy"
    """Start: data, network and optimisation. cifar-32 and ffhq-64 need a GPU, and are untested."""
    config: Annotated[Experiment, tyro.conf.arg(name="")] = field(default_factory=lambda: PRESETS["toy"])
    dataset: options.Dataset = None
    option: options.DataOption = ()
    every: int = 1000
    """Steps between checkpoints."""
    keep: int = 2
    """Number of checkpoints that are kept, the last ones."""
    gap_every: options.Whole = None
    """Steps between measurements of the gap to the optimum, into gap.csv; none unless given."""
    resume: bool = False
    """The run in --out, gone on with from its last checkpoint."""
    extend: bool = False
    """The run in --out, gone on with to more --steps than it was made for."""
    tensorboard: bool = False
    """A log for TensorBoard too, in --out (needs the package tensorboard)."""
    device: options.Device = "auto"
    out: options.Out = "runs/train"
    """Folder of the run."""
    json: options.Json = False
    dry_run: options.DryRun = False


@dataclass(frozen=True)
class Distill:
    """Distil a student from the optimum, or from a trained network, whose data it takes. Every field of the
    configuration has an option, which goes by its last part too: --lr for --optimisation.lr."""

    preset: _Start = "toy"
    """Start: data, network and optimisation; defaults also go by --technique."""
    config: Annotated[Distillation, tyro.conf.arg(name="")] = field(
        default_factory=lambda: student_of("toy", "consistency")
    )
    dataset: options.Dataset = None
    option: options.DataOption = ()
    every: int = 1000
    """Steps between checkpoints."""
    keep: int = 2
    """Number of checkpoints that are kept, the last ones."""
    resume: bool = False
    """The run in --out, gone on with from its last checkpoint."""
    extend: bool = False
    """The run in --out, gone on with to more --steps than it was made for."""
    device: options.Device = "auto"
    out: options.Out = "runs/distill"
    """Folder of the run."""
    json: options.Json = False
    dry_run: options.DryRun = False


@dataclass(frozen=True)
class Sample:
    """Draw samples of a model into a PNG grid (images) and an NPZ."""

    model: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="MODEL")]
    """optimum, the folder of a run, pretrained:NAME, diffusers:FOLDER, or python:package.module.function."""
    dataset: options.Dataset = None
    option: options.DataOption = ()
    label: options.Label = None
    guidance: options.Guidance = None
    interval: options.Interval = None
    orbit: options.Orbit = None
    n: options.Number = 16
    """Number of samples."""
    steps: options.Whole = None
    """Steps of the sampler; 18 unless given, 1 of a student."""
    solver: _Solver = None
    """Solver, heun unless given; students take their own steps, on their own levels, unless it is given."""
    solver_option: options.SolverOption = ()
    sigma_min: _SigmaMin = None
    sigma_max: _SigmaMax = None
    device: options.Device = "auto"
    batch: options.Batch = None
    seed: options.Seed = 0
    out: options.Out = "samples"
    """Path of the files, without suffix: NPZ, JSON of what they are and, of images, PNG."""
    json: options.Json = False
    dry_run: options.DryRun = False


@dataclass(frozen=True)
class Compare:
    """Compare models with the optimum: as denoisers, and as samplers from the same noises."""

    models: _Models = ()
    """Folders of runs, pretrained:NAME, diffusers:FOLDER, or python:package.module.function; the optimum is always
    beside them."""
    dataset: options.Dataset = None
    option: options.DataOption = ()
    label: options.Label = None
    guidance: options.Guidance = None
    interval: options.Interval = None
    orbit: options.Orbit = None
    held_out: _HeldOut = None
    held_out_option: options.DataOption = ()
    on: tuple[Place, ...] = ()
    """Places where denoisers are asked: noisy points of the data, of --held-out, or the model's own trajectory from
    noise. Data, and held-out if there are any, unless given."""
    sigmas: options.Reals = None
    """Noise levels of the denoisers, in units of the data; twelve around the border of the data unless given."""
    draws: int = 1024
    """Pairs (x0, noise) at each."""
    n: options.Number = 256
    """Number of samples."""
    steps: tuple[int, ...] = (1, 2, 4, 18)
    """Numbers of steps of the samplers."""
    solver: options.SolverName = "euler"
    """Solver of the samplers, for all models; students are also sampled as they are meant to be."""
    sigma_min: _SigmaMin = None
    sigma_max: _SigmaMax = None
    quick: options.Quick = False
    """At most 128 draws and 64 samples, whatever --draws and -n say, to have a look."""
    device: options.Device = "auto"
    batch: options.Batch = None
    seed: options.Seed = 0
    out: options.Out = "comparison"
    """Path of the tables, without suffix: -denoiser and -samplers as CSV and JSON."""
    json: options.Json = False
    dry_run: options.DryRun = False


@dataclass(frozen=True)
class Audit:
    """Find the samples that are copies of training data: a table, its summary and a sheet of the closest pairs."""

    data: options.Data
    samples: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="SAMPLES")]
    """Generated ones: a folder, zip, .npy or .npz of images, or any data set. Held-out data, for comparison."""
    option: options.DataOption = ()
    sample_option: options.DataOption = ()
    near: float = NEAR
    """Largest root mean square difference of a near copy, over the standard deviation of a value in the data."""
    out: options.Out = "audit"
    """Path of the files, without suffix: CSV, JSON and, of images, PNG."""
    json: options.Json = False
    dry_run: options.DryRun = False


@dataclass(frozen=True)
class Report:
    """Show how far networks are from the optimum, and where: one HTML page with pictures, and the tables behind it."""

    models: _Models = ()
    """Folders of runs, pretrained:NAME, diffusers:FOLDER, python:package.module.function, or optimum; several share
    the pictures."""
    dataset: options.Dataset = None
    option: options.DataOption = ()
    label: options.Label = None
    guidance: options.Guidance = None
    interval: options.Interval = None
    orbit: options.Orbit = None
    held_out: _HeldOut = None
    held_out_option: options.DataOption = ()
    sigmas: options.Reals = None
    """Noise levels, in units of the data; twelve around the border of the data unless given."""
    draws: int = 1024
    """Pairs (x0, noise) at each, and trajectories."""
    n: options.Number = 256
    """Number of samples."""
    steps: options.Whole = None
    """Steps of the sampler; each network's own unless given."""
    quick: options.Quick = False
    """At most 128 draws and 64 samples, whatever --draws and -n say, and no likelihood, to have a look."""
    device: options.Device = "auto"
    batch: options.Batch = None
    seed: options.Seed = 0
    out: options.Out = "report"
    """Folder of the page, the pictures and the tables."""
    json: options.Json = False
    dry_run: options.DryRun = False


@dataclass(frozen=True)
class Explain:
    """Show what a network does instead of the optimum: how much of it each theory accounts for, at which noise level;
    one HTML page, and the tables behind it."""

    model: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="MODEL")]
    """The folder of a run, pretrained:NAME, diffusers:FOLDER, or python:package.module.function."""
    dataset: options.Dataset = None
    option: options.DataOption = ()
    held_out: _HeldOut = None
    held_out_option: options.DataOption = ()
    sigmas: options.Reals = None
    """Noise levels, in units of the data; twelve around the border of the data unless given."""
    draws: int = 256
    """Points at each: pairs (x0, noise), and trajectories."""
    tried: int = 32
    """Points at each on which the parameters of theories are chosen, other ones."""
    n: options.Number = 32
    """Noises that are sampled under network, optimum and theories; 0 for none."""
    quick: options.Quick = False
    """At most 128 draws and 8 noises, whatever --draws and -n say, to have a look."""
    device: options.Device = "auto"
    batch: options.Batch = None
    seed: options.Seed = 0
    out: options.Out = "explanation"
    """Path of the files, without suffix: the page as HTML, -theories and -endings as CSV and JSON."""
    json: options.Json = False
    dry_run: options.DryRun = False


@dataclass(frozen=True)
class Likelihood:
    """Log density of a network's noisy points by its ODE, beside the optimum's: nats, and bits for each value."""

    model: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="MODEL")]
    """The folder of a run, pretrained:NAME, diffusers:FOLDER, python:package.module.function, or optimum."""
    dataset: options.Dataset = None
    option: options.DataOption = ()
    label: options.Label = None
    orbit: options.Orbit = None
    held_out: _HeldOut = None
    held_out_option: options.DataOption = ()
    n: options.Number = 64
    """Number of points, of the data and of --held-out each, with replacement."""
    sigma_min: Annotated[float, tyro.conf.arg(help="Noise level of the points, in units of the data.")] = 0.1
    sigma_max: options.Real = None
    """Noise level of the prior, in units of the data; the model's own, or 80, unless given."""
    probes: int | Literal["exact"] = 1
    """Random signs a point by which the trace is estimated; exact: one derivative a value."""
    tolerance: float = 1e-5
    """Local error of a step of the ODE."""
    device: options.Device = "auto"
    batch: options.Batch = None
    seed: options.Seed = 0
    out: options.Out = "likelihood"
    """Path of the files, without suffix: CSV, a row a point, and JSON; trace_error is the standard error of what the
    random signs estimate."""
    json: options.Json = False
    dry_run: options.DryRun = False


@dataclass(frozen=True)
class Pretrain:
    """Train the networks that come with the toolkit again, measure them, and say how their gaps compare with those
    that were shipped. Stopped and called again it goes on."""

    names: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="NAME…")] = ()
    """Networks; all unless given, which takes hours."""
    threads: options.Whole = None
    """Threads of torch; as many as there are cores unless given."""
    ship: bool = False
    """Networks that were trained, put in the place of those shipped."""
    out: options.Out = "runs/pretrained"
    """Folder of the runs, a folder a network."""
    json: options.Json = False
    dry_run: options.DryRun = False


@dataclass(frozen=True)
class Study:
    """Do studies again, networks trained and measured over a grid, and say how numbers compare with those that are
    shipped. Stopped and called again it goes on; what is finished is not done again."""

    names: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="NAME…")] = ()
    """Studies; all unless given, which takes hours."""
    cells: tuple[str, ...] = ()
    """Names of cells, or patterns, digits-* say; all unless given."""
    threads: options.Whole = None
    """Threads of torch; as many as there are cores unless given."""
    ship: bool = False
    """Measured cells, put in the place of the shipped table's."""
    out: options.Out = "runs/studies"
    """Folder of the runs, a folder a study."""
    json: options.Json = False
    dry_run: options.DryRun = False


COMMANDS: dict[str, type] = {
    "train": Train,
    "distill": Distill,
    "sample": Sample,
    "compare": Compare,
    "audit": Audit,
    "report": Report,
    "explain": Explain,
    "likelihood": Likelihood,
    "pretrain": Pretrain,
    "study": Study,
}
