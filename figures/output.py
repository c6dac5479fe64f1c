"""Files of a figure: NAME.png, NAME.pdf, NAME.npz (the numbers), NAME.json (the configuration and what came out)."""

from __future__ import annotations

import dataclasses
import json
import platform
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from optimal.storage import replacing

from .config import Config

__all__ = ["save"]

_PACKAGES = ("optimal-diffusion", "torch", "numpy", "matplotlib")


def save(name: str, title: str, config: Config, arrays: Mapping[str, np.ndarray], figure: Figure) -> Path:
    """Write the four files, each under a temporary name first, so that an interrupted run leaves no half file.

    Scalars among the arrays (border, data set, licence) are repeated in the JSON, where they can be read.

    Returns:
        The path of the PNG.

    Raises:
        ValueError: the folder cannot be written.
    """
    options = {field.name: getattr(config, field.name) for field in dataclasses.fields(Config)}
    scalars = {key: value.item() for key, value in arrays.items() if value.ndim == 0}
    record: dict[str, Any] = {
        "figure": name,
        "title": title,
        "config": {key: str(value) if isinstance(value, Path) else value for key, value in options.items()},
        # JSON has no infinity.
        "results": {key: str(value) if value in (np.inf, -np.inf) else value for key, value in scalars.items()},
        "versions": {"python": platform.python_version()} | {name: version(name) for name in _PACKAGES},
    }
    about = {"Title": title, "Author": "optimal-diffusion"}
    rights = f"Images: {scalars['source']}: {scalars['licence']}" if "licence" in scalars else None
    out = config.out
    try:
        out.mkdir(parents=True, exist_ok=True)
        with replacing(out / f"{name}.npz") as path:
            np.savez_compressed(path, allow_pickle=False, **arrays)
        with replacing(out / f"{name}.json") as path:
            path.write_text(json.dumps(record, indent=2) + "\n")
        # Without a date, so that the same run writes the same bytes.
        pdf = about | ({"Subject": rights} if rights else {}) | {"CreationDate": None}
        with replacing(out / f"{name}.pdf") as path:
            figure.savefig(path, metadata=pdf)
        png = about | ({"Copyright": rights} if rights else {})
        with replacing(out / f"{name}.png") as path:
            figure.savefig(path, dpi=160, metadata=png)
    except OSError as error:
        raise ValueError(f"the figure could not be written to {out}: {error.strerror or error}") from error
    return out / f"{name}.png"
