"""The optimum of your own data: `python -m optimal info | denoise | sample | border | where`."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import sys
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

# Before torch starts its threads: beside another busy process they would spin for each other.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import numpy as np
import torch
import tyro

from .answers import denoised, described, destination, located, sampled
from .datasets import Dataset, load, parse_options, with_options
from .point_files import NUMBERS, read_point, save_grid
from .storage import replacing

__all__ = ["main"]

Data = Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="DATA")]
Point = Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="IMAGE")]
_TILE = 128
"""Pixels a side that an image of a grid has at least about."""


@dataclasses.dataclass(frozen=True)
class _Common:
    data: Data
    """An embedded name (emoji, digits, faces, patches, five-deltas, ring …) or a path: zip, folder of images, npy, npz,
    parquet, idx."""
    option: Annotated[tuple[str, ...], tyro.conf.UseAppendAction] = ()
    """Option of DATA, as name=value; may be repeated: --option n=1000 --option resolution=64."""
    json: bool = False
    """Print one JSON object instead of sentences; null stands for what is infinite or undefined."""


@dataclasses.dataclass(frozen=True)
class Info(_Common):
    """What the data are: size, fingerprint, copies, spread, and the noise levels that closed formulas predict."""


@dataclasses.dataclass(frozen=True)
class Border(_Common):
    """Where the optimal denoiser stops blending many points and returns one, measured on the data."""

    draws: int = 256
    """Noisy points x0 + sigma noise that are looked at."""
    seed: int = 0
    """Of these draws."""


@dataclasses.dataclass(frozen=True)
class _AtPoint(_Common):
    image: Point = dataclasses.field(kw_only=True)
    """x: an image file, a .npy (uint8, or in units of the data), @K for point K of the data, or, where points have one
    or two values, these: 0.3 or 0.3,-1.2."""
    sigma: float = dataclasses.field(kw_only=True)
    """Noise level, in units of the data (images span -1 to 1), > 0."""
    add_noise: bool = False
    """Add noise of this level to IMAGE first; else IMAGE is taken as the noisy x itself."""
    seed: int = 0
    """Of the noise."""


@dataclasses.dataclass(frozen=True)
class Denoise(_AtPoint):
    """E[x0 | x] at one x, and the points that it is made of."""

    top: int = 5
    """How many of the most probable data points are listed and shown."""
    out: Path = Path("denoised")
    """Path of the files, without suffix: NPY of the answer and, of images, PNG: x, the answer, the points."""


@dataclasses.dataclass(frozen=True)
class Where(_AtPoint):
    """Which data point x becomes under the exact probability-flow ODE, and how sure that is."""

    out: Path | None = None
    """Path of a PNG, without suffix, of x, E[x0 | x] and the destination (images); none unless given."""


@dataclasses.dataclass(frozen=True)
class Sample(_Common):
    """Samples of the optimal denoiser under a solver, from pure noise."""

    solver: str = "heun"
    """euler, heun, edm_stochastic, dpm_solver, dpm_solver_pp, reverse_sde, or consistency, of the flow map. Those that
    draw no noise run in the span of the data where these are large."""
    solver_option: Annotated[tuple[str, ...], tyro.conf.UseAppendAction] = ()
    """Option of the solver, as name=value; may be repeated: --solver-option order=3."""
    steps: int = 18
    """Steps from sigma-max to 0."""
    n: Annotated[int, tyro.conf.arg(aliases=["-n"])] = 16
    """Number of samples."""
    sigma_min: float = 0.002
    """Last noise level above 0, in units of the data."""
    sigma_max: float | None = None
    """First noise level, in units of the data; unless given 80, or 160 standard deviations of the data if that is
    more."""
    seed: int = 0
    """Of the noises."""
    out: Path = Path("samples")
    """Path of the files, without suffix: NPZ and, of images, PNG."""


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; returns the exit code: 0, or 2 with one sentence on stderr for bad input."""
    kinds = Annotated[Info, tyro.conf.subcommand("info")] | Annotated[Denoise, tyro.conf.subcommand("denoise")]
    kinds = kinds | Annotated[Sample, tyro.conf.subcommand("sample")]
    kinds = kinds | Annotated[Border, tyro.conf.subcommand("border")] | Annotated[Where, tyro.conf.subcommand("where")]
    given = sys.argv[1:] if arguments is None else arguments
    # -1.2,0.3 would be taken for an option.
    given = [f" {text}" if text.startswith("-") and NUMBERS.fullmatch(text) and "," in text else text for text in given]
    command: Any = tyro.cli(kinds, prog="python -m optimal", description=__doc__, args=given)  # pyright: ignore
    warnings.showwarning = lambda message, *_, **__: _say(f"warning: {message}")
    try:
        data = load(command.data, **parse_options(command.option))
        run = {Info: _info, Denoise: _denoise, Sample: _sample, Border: _border, Where: _where}[type(command)]
        found, sentences = run(command, data)
        if command.json:
            print(json.dumps(_plain({"dataset": data.name, "fingerprint": data.fingerprint} | found), allow_nan=False))
        else:
            print("\n".join(sentences))
        sys.stdout.flush()
    except ValueError as error:
        _say(f"error: {with_options(error)}")
        return 2
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except OSError as error:
        _say(f"error: {error.filename or 'a file'} could not be read or written: {error.strerror or error}")
        return 2
    except KeyboardInterrupt:
        _say("interrupted")
        return 130
    return 0


def _say(text: str) -> None:
    print(text, file=sys.stderr)


def _info(command: Info, data: Dataset) -> tuple[dict[str, Any], list[str]]:
    found = described(data, say=_say)
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
    found = located(data, command.draws, command.seed, say=_say)
    count, entropy = found["count"], found["entropy"]
    return found, [
        data.describe(),
        f"median effective count of 2 at sigma = {_interval(count)}: the border between mode seeking and mode refining",
        f"mean entropy of 1 nat at sigma = {_interval(entropy)}: the collapse of Biroli et al. 2024",
        f"95% bootstrap intervals, {command.draws} draws, seed {command.seed}",
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
        _say(note)
    if command.add_noise:
        x = x + command.sigma * torch.randn(x.shape, generator=torch.Generator().manual_seed(command.seed))
    return x[None]


def _denoise(command: Denoise, data: Dataset) -> tuple[dict[str, Any], list[str]]:
    if command.top < 1:
        raise ValueError(f"top must be at least 1, got {command.top}")
    x = _x(command, data)
    mean, found = denoised(data, x, command.sigma, command.top, say=_say)
    path = _beside(command.out, ".npy")
    with replacing(path) as temporary:
        np.save(temporary, mean[0].numpy())
    files = [path]
    if data.is_image:
        shown = torch.cat([x, mean, data[[point["index"] for point in found["points"]]]])
        files.append(_grid(shown, command.out, columns=len(shown)))
    found["files"] = [str(file) for file in files]
    return found, [
        data.describe(),
        f"at sigma = {command.sigma:g} the answer blends {found['effective_count']:.4g} points (effective count), "
        f"{found['entropy']:.4g} nats",
        "most probable: " + ", ".join(f"@{point['index']} {point['weight']:.3g}" for point in found["points"]),
        *([f"E[x0 | x] = {', '.join(f'{v:.6g}' for v in mean.flatten())}"] if mean.numel() <= 2 else []),
        _written(files, "from left to right x, E[x0 | x], the points" if data.is_image else ""),
    ]


def _where(command: Where, data: Dataset) -> tuple[dict[str, Any], list[str]]:
    if command.out and not data.is_image:
        raise ValueError(f"--out is a picture, and {data.name} holds no images")
    x = _x(command, data)
    mean, found = destination(data, x, command.sigma, say=_say)
    sentences = [data.describe(), f"x becomes data point @{found['index']} ({found['sure']})"]
    if math.prod(data.event) <= 2:
        sentences[-1] += f", which is {', '.join(f'{v:.6g}' for v in data[found['index']].flatten())}"
    sentences += [
        f"at sigma = {command.sigma:g} it holds {found['weight']:.3g} of the posterior; the leader is "
        f"@{found['leader']} with {found['leader_weight']:.3g}, the effective count {found['effective_count']:.4g}"
    ]
    if command.out:
        files = [_grid(torch.cat([x, mean, data[[found["index"]]]]), command.out, columns=3)]
        found["files"] = [str(file) for file in files]
        sentences.append(_written(files, "x, E[x0 | x], the destination"))
    return found, sentences


def _sample(command: Sample, data: Dataset) -> tuple[dict[str, Any], list[str]]:
    arrays, found = sampled(
        data,
        command.n,
        command.solver,
        command.steps,
        sigma_min=command.sigma_min,
        sigma_max=command.sigma_max,
        seed=command.seed,
        options=parse_options(command.solver_option),
        say=_say,
    )
    path = _beside(command.out, ".npz")
    with replacing(path) as temporary:
        np.savez_compressed(temporary, allow_pickle=False, **{name: value.numpy() for name, value in arrays.items()})
    files = [path]
    if data.is_image:
        files.append(_grid(arrays["samples"], command.out))
    found["files"] = [str(file) for file in files]
    return found, [
        data.describe(),
        f"{command.n} samples, {command.steps} steps of {command.solver} from sigma = {found['sigma_max']:g}, "
        f"{found['nfe']} calls each" + (", in the span of the data" if found["in_span"] else ""),
        f"{found['copies']} of them are data points, {found['different']} different ones",
        _written(files),
    ]


def _beside(out: Path, suffix: str) -> Path:
    out.parent.mkdir(parents=True, exist_ok=True)
    # Names with dots keep them, but a.png does not become a.png.png.
    name = out.stem if out.suffix in (".png", ".npy", ".npz") else out.name
    return out.with_name(f"{name}{suffix}")


def _grid(images: torch.Tensor, out: Path, columns: int | None = None) -> Path:
    return save_grid(images, _beside(out, ".png"), columns=columns, scale=max(1, _TILE // max(images.shape[2:])))


def _written(files: Iterable[Path], what: str = "") -> str:
    return ", ".join(map(str, files)) + (f": {what}" if what else "")


def _plain(value: Any) -> Any:
    """JSON has neither inf nor nan."""
    if isinstance(value, dict):
        return {key: _plain(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


if __name__ == "__main__":
    sys.exit(main())
