"""What can be asked of `python -m neural`: typed options, each with its unit and default."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

__all__ = ["Audit", "Compare", "Distill", "Sample", "Train"]


@dataclass(frozen=True)
class Train:
    """Train a network with Eq. 26; checkpoints, config.json and metrics.csv go into --out."""

    preset: str = "toy"
    """What to start from: toy, digits, faces, emoji-16 or ffhq-64 (needs a GPU; untested)."""
    dataset: str | None = None
    """Data instead of the preset's: an embedded name or a path."""
    option: Annotated[tuple[str, ...], tyro.conf.UseAppendAction] = ()
    """Option of --dataset, as name=value; may be repeated: --option n=1000 --option xflip=True."""
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
    keep: int = 2
    """How many checkpoints are kept, the last ones."""
    resume: bool = False
    """Go on from the last checkpoint in --out."""
    extend: bool = False
    """Go on likewise, to more --steps than the run was made for."""
    device: str = "auto"
    """Where to train: auto (a GPU if there is one), cpu, cuda …"""
    gap_every: int | None = None
    """Steps between measurements of the gap to the optimum of the data, into gap.csv; none unless given."""
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
    """Data instead of the preset's; a trained teacher brings its own."""
    option: Annotated[tuple[str, ...], tyro.conf.UseAppendAction] = ()
    """Option of --dataset, as name=value; may be repeated: --option n=1000 --option xflip=True."""
    points: int | None = None
    """Noise levels of the grid above 0 (progressive: steps of the first teacher), instead of the preset's."""
    solver: str | None = None
    """The teacher's on that grid, instead of the preset's: euler or heun. Progressive is always DDIM; knowledge and
    multistep take the exact flow of an optimum."""
    pairs: int | None = None
    """knowledge, multistep: noises and end points to compute once, instead of the preset's; 0: fresh ones are made."""
    uses: int | None = None
    """knowledge, multistep: how often a fresh pair is drawn before it is gone, instead of the preset's."""
    steps: int | None = None
    """Optimiser steps (of each stage) instead of the preset's."""
    batch: int | None = None
    """Samples of a step instead of the preset's."""
    lr: float | None = None
    """Highest learning rate instead of the preset's."""
    ema: float | None = None
    """Decay of the average of the weights instead of the preset's; of consistency distillation it is the target."""
    weighting: str | None = None
    """Of the squared error, instead of the preset's: edm, none, snr or snr1."""
    sigma_min: float | None = None
    """Lowest level of the grid, in units of the data, instead of the preset's."""
    seed: int = 0
    """Of the weights and of all draws."""
    every: int = 1000
    """Steps between checkpoints."""
    keep: int = 2
    """How many checkpoints are kept, the last ones."""
    resume: bool = False
    """Go on from the last checkpoint in --out."""
    extend: bool = False
    """Go on likewise, to more --steps than the run was made for."""
    device: str = "auto"
    """Where to train: auto (a GPU if there is one), cpu, cuda …"""
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
    option: Annotated[tuple[str, ...], tyro.conf.UseAppendAction] = ()
    """Option of --dataset, as name=value; may be repeated: --option n=1000 --option xflip=True."""
    n: Annotated[int, tyro.conf.arg(aliases=["-n"])] = 16
    """Number of samples."""
    steps: int | None = None
    """Steps of the sampler; 18 unless given, 1 of a student."""
    solver: str | None = None
    """euler, heun, dpm_solver, dpm_solver_pp, consistency …; heun unless given. Students take their own steps, on their
    own levels, unless a solver is given."""
    sigma_min: float | None = None
    """Last noise level above 0, in units of the data; the model's own unless given."""
    sigma_max: float | None = None
    """First noise level, in units of the data; the model's own unless given."""
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
    option: Annotated[tuple[str, ...], tyro.conf.UseAppendAction] = ()
    """Option of --dataset, as name=value; may be repeated: --option n=1000 --option xflip=True."""
    sigmas: tuple[float, ...] = (0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
    """Noise levels of the denoiser table, in units of the data."""
    draws: int = 1024
    """Pairs (x0, noise) of the denoiser table."""
    n: Annotated[int, tyro.conf.arg(aliases=["-n"])] = 256
    """Noises of the sampler table."""
    steps: tuple[int, ...] = (1, 2, 4, 18)
    """Numbers of steps of the sampler table."""
    solver: str = "euler"
    """Solver of the sampler table, for all models; students are also sampled as they are meant to be."""
    sigma_min: float | None = None
    """Last noise level of the samplers above 0, in units of the data; 0.002, or the lowest that all models are for."""
    sigma_max: float | None = None
    """First noise level of the samplers, in units of the data; 80, or the highest that all models are for."""
    seed: int = 0
    """Of all draws."""
    out: Path = Path("comparison")
    """Path of the tables, without suffix: -denoiser and -samplers as CSV and JSON."""
    dry_run: bool = False
    """Say what would be done, and stop."""


@dataclass(frozen=True)
class Audit:
    """Find the samples that are copies of training data: a table, its summary and a sheet of the closest pairs."""

    data: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="DATA")]
    """Training data: an embedded name or a path."""
    samples: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="SAMPLES")]
    """Generated ones: a folder, zip, .npy or .npz of images, or any data set. Held-out data, for comparison."""
    option: Annotated[tuple[str, ...], tyro.conf.UseAppendAction] = ()
    """Option of DATA, as name=value; may be repeated: --option n=1000 --option resolution=64."""
    sample_option: Annotated[tuple[str, ...], tyro.conf.UseAppendAction] = ()
    """Option of SAMPLES, as name=value; may be repeated: --sample-option key=arr_0 --sample-option value_range=0,1."""
    near: float = 0.05
    """Largest root mean square difference of a near copy, over the standard deviation of a value in the data."""
    out: Path = Path("audit")
    """Path of the files, without suffix: CSV, JSON and, of images, PNG."""
