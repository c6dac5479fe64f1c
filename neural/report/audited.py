"""`python -m neural audit DATA SAMPLES`: reads both, and writes the table, its summary and a sheet of the pairs."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from optimal import Dataset, OptimalDenoiser, load
from optimal.cli import announce, seconds_of_a_row
from optimal.cli.estimate import Say
from optimal.datasets import options_of, to_float, with_options
from optimal.datasets.folders import list_folder
from optimal.datasets.pictures import is_picture

from ..auditing import audit
from ..copies import Audit
from .pictures import pairs, write_figure

__all__ = ["about", "audited", "both", "planned", "sheet"]

_SHOWN = 32
_TERMS = (
    "distance: root mean square over the values of an image, to the image shown",
    "ratio: this distance over that to the second nearest image; below 1/3: memorised",
)


def both(
    data: str, samples: str, *, data_options: Mapping[str, Any], sample_options: Mapping[str, Any]
) -> tuple[Dataset, Dataset]:
    """Read the training data and the samples.

    Args:
        data, samples: names or paths that `optimal.load` understands; of an NPZ with an array "samples", such as
            `python -m neural sample` writes, that one is taken.
        data_options, sample_options: of `load`.

    Raises:
        ValueError: as for `load`; samples of another shape than the data.
    """
    training = load(data, **options_of(data, data_options))
    try:
        drawn = load(samples, **(_own(samples) | options_of(samples, sample_options)))
    except ValueError as error:
        raise ValueError(with_options(error).replace("--option", "--sample-option")) from error
    if drawn.event != training.event:
        raise ValueError(
            f"samples must have the shape of the data: those of {drawn.name} are {_size(drawn)}, {training.name} is "
            f"{_size(training)}"
        )
    return training, drawn


def about(training: Dataset, drawn: Dataset) -> dict[str, Any]:
    """What the JSON says beside what was found."""
    return {
        "data": training.name,
        "data_fingerprint": training.fingerprint,
        "data_points": len(training),
        "samples_from": drawn.name,
        "samples_fingerprint": drawn.fingerprint,
    }


def planned(training: Dataset, drawn: Dataset) -> float:
    """Seconds that the audit takes, about, by timing a few samples; images are looked at twice."""
    D = OptimalDenoiser(training)
    some = torch.from_numpy(np.array(drawn.array[:128]))
    x = (to_float(some) if some.dtype == torch.uint8 else some).to(D.points.device)
    return seconds_of_a_row(lambda x, _: D.neighbours(x, 2), x, 0.0) * len(drawn) * (2 if training.is_image else 1)


def audited(
    data: str,
    samples: str,
    out: str | Path,
    *,
    data_options: Mapping[str, Any],
    sample_options: Mapping[str, Any],
    near: float,
    say: Say,
) -> tuple[Audit, dict[str, Any], list[Path]]:
    """Audit what lies at `samples` against `data`, and write OUT.csv, OUT.json and, of images, OUT.png.

    Args:
        data, samples, data_options, sample_options: as for `both`.
        out: path of the files, without suffix.
        near: as for `neural.audit`.
        say: told what a user is to know while waiting.

    Returns:
        What was found, what the JSON says beside it, and the files.

    Raises:
        ValueError: as for `both` and `audit`; the files cannot be written.
    """
    out = Path(out)
    training, drawn = both(data, samples, data_options=data_options, sample_options=sample_options)
    D, said = OptimalDenoiser(training), about(training, drawn)
    found = audit(D, drawn, near=near, progress=True, say=lambda seconds: announce(seconds, say))
    found.save(out, said, files=_files(samples, sample_options), nearest_files=_files(data, data_options))
    files = [out.with_name(f"{out.name}.csv"), out.with_name(f"{out.name}.json")]
    if training.is_image:
        files.append(sheet(found, drawn, D, out.with_name(f"{out.name}.png")))
    return found, said, files


def sheet(found: Audit, samples: Dataset, D: OptimalDenoiser, path: str | Path) -> Path:
    """The samples most like a training image beside it, a sample left, as PNG."""
    chosen = found.closest(_SHOWN)
    sides = [found.sides[i] for i in chosen]
    captions = [
        f"sample {i}, image {side.index}{', mirrored' if side.mirrored else ''}\n"
        f"{found.kind[i] or 'no'} copy, ratio {side.ratio:.2f}\ndistance {found.difference(side.distance)}"
        for i, side in zip(chosen, sides, strict=True)
    ]
    left, right = samples[chosen], D.take(torch.tensor([side.index for side in sides]))
    title = (
        f"Samples (left), each with the nearest image of the data (right): the {len(chosen)} of {len(found):,} of the "
        "least distance"
    )
    return write_figure(pairs(left, right, captions, title=title, words=_TERMS), Path(path), title=title)


def _own(samples: str) -> dict[str, Any]:
    """What is to be said of a file that `python -m neural sample` wrote: which array, and that any values are meant."""
    path = Path(samples).expanduser()
    if path.suffix.lower() != ".npz" or not zipfile.is_zipfile(path):
        return {}
    with zipfile.ZipFile(path) as archive:
        members = {name.removesuffix(".npy") for name in archive.namelist()}
    return {"key": "samples", "value_range": "any"} if {"samples", "noises"} <= members else {}


def _files(words: str, options: Mapping[str, Any]) -> list[str] | None:
    """The names of a folder's or a zip's images, in the order of their numbers; None where that is not known."""
    path = Path(words).expanduser()
    if {"n", "xflip"} & options.keys() or not path.exists():
        return None
    if path.is_dir():
        return [name for name in list_folder(path) if is_picture(name)] or None
    if path.suffix.lower() == ".zip":
        with zipfile.ZipFile(path) as archive:
            return sorted({name for name in archive.namelist() if is_picture(name)}) or None
    return None


def _size(data: Dataset) -> str:
    """As people say it: 32x32 in colour."""
    if not data.is_image:
        return f"points of shape {data.event}"
    channels, height, width = data.event
    return f"{width}x{height} {'grey' if channels == 1 else 'in colour'}"
