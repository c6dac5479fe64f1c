"""Files of a figure: STEM.png, STEM.pdf, STEM.npz (the numbers), STEM.json (the configuration and what came out).

The stem is the figure's name for what the gallery shows; data of one's own, another seed and a quick look are named in
it, so that none of them takes the gallery's place: fig1-images-resolution-64-quick.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import platform
import re
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from optimal.storage import replacing

from .config import Config

__all__ = ["about", "save", "stem"]

_PACKAGES = ("optimal-diffusion", "torch", "numpy", "matplotlib")


_LONGEST = 80
_READ = 64


def stem(name: str, config: Config) -> str:
    """What the files of a figure are called, without suffix.

    Example:
        >>> stem("fig1", Config())
        'fig1'
        >>> stem("fig1", Config(dataset="my images/", option=("resolution=64",), quick=True))
        'fig1-my-images-resolution-64-quick'
    """
    parts = [] if config.dataset is None else [Path(config.dataset).name]
    parts += [*config.option, *([f"seed-{config.seed}"] if config.seed else []), *(["quick"] if config.quick else [])]
    whole = "-".join([name, *(re.sub(r"\W+", "-", part).strip("-") or "data" for part in parts)])
    if len(whole) <= _LONGEST:
        return whole
    return f"{whole[: _LONGEST - 9]}-{hashlib.blake2b(whole.encode(), digest_size=4).hexdigest()}"


def about(title: str, arrays: Mapping[str, np.ndarray], *, rights: str) -> dict[str, Any]:
    """What a picture says of itself: title, author and, under the name `rights`, whose images it shows."""
    whose = f"Images: {arrays['source']}: {arrays['licence']}" if "licence" in arrays else None
    return {"Title": title, "Author": "optimal-diffusion"} | ({rights: whose} if whose else {})


def _plain(value: Any) -> Any:
    """JSON has no infinity, and no nan."""
    if isinstance(value, list):
        return [_plain(part) for part in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def save(name: str, title: str, config: Config, arrays: Mapping[str, np.ndarray], figure: Figure) -> Path:
    """Write the four files, each under a temporary name first, so that an interrupted run leaves no half file.

    Scalars among the arrays (border, data set, licence) are repeated in the JSON, and so are tables of numbers of up to
    `_READ` values, where they can be read; a last axis of three is a value and the ends of its interval.

    Returns:
        The path of the PNG.

    Raises:
        ValueError: the folder cannot be written.
    """
    options = {field.name: getattr(config, field.name) for field in dataclasses.fields(Config)}
    read = {key: value.tolist() for key, value in arrays.items() if value.ndim == 0 or 0 < value.size <= _READ}
    record: dict[str, Any] = {
        "figure": name,
        "title": title,
        "config": {key: str(value) if isinstance(value, Path) else value for key, value in options.items()},
        "results": {key: _plain(value) for key, value in read.items()},
        "versions": {"python": platform.python_version()} | {name: version(name) for name in _PACKAGES},
    }
    out, file = config.out, stem(name, config)
    try:
        out.mkdir(parents=True, exist_ok=True)
        with replacing(out / f"{file}.npz") as path:
            np.savez_compressed(path, allow_pickle=False, **arrays)
        with replacing(out / f"{file}.json") as path:
            path.write_text(json.dumps(record, indent=2) + "\n")
        # Without a date, so that the same run writes the same bytes.
        with replacing(out / f"{file}.pdf") as path:
            figure.savefig(path, metadata=about(title, arrays, rights="Subject") | {"CreationDate": None})
        with replacing(out / f"{file}.png") as path:
            figure.savefig(path, dpi=160, metadata=about(title, arrays, rights="Copyright"))
    except OSError as error:
        raise ValueError(f"the figure could not be written to {out}: {error.strerror or error}") from error
    return out / f"{file}.png"
