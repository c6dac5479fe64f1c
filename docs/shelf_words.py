"""What the gallery says of the networks that come with the toolkit, of what was written down when they were shipped."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from wording import Arrays, pct, sigma_words, table

from neural.config import Experiment, Network, experiment_of
from neural.pretrained import About, about, names, recipe

__all__ = ["shelf"]


def shelf(a: Arrays) -> str:
    """Of each but the toy and the students: what it is, and its gap where that is largest on its data."""
    images = [name for name in names() if name != "toy" and isinstance(recipe(name).config, Experiment)]
    rows = [_row(about(name), experiment_of(recipe(name).config)) for name in images]
    return table(["", "network", "N", "trained", "at σ =", "data", "held-out", "own trajectory"], rows)


def _row(known: About, config: Experiment) -> list[str]:
    on = {place: [row for row in known.gap if row["on"] == place] for place in ("data", "held-out", "trajectory")}
    sigma = max(on["data"], key=lambda row: row["gap"])["sigma"]
    shares = [pct(_share(next(row for row in rows if row["sigma"] == sigma))) for rows in on.values()]
    trained = f"{known.steps:,} × {config.optimisation.batch}, {_minutes(known)}"
    words = f"{_network(config.network)}, {known.weights / 1e6:.1f} M"
    return [f"`{known.name}`", words, f"{known.points:,}", trained, sigma_words(sigma), *shares]


def _share(row: Mapping[str, Any]) -> np.ndarray:
    return np.array([row[f"gap_share{end}"] for end in ("", "_low", "_high")])


def _minutes(known: About) -> str:
    where = "H200" if "H200" in known.machine else "one thread" if "1 threads" in known.machine else "CPU"
    return f"{known.seconds / 60:.0f} min ({where})"


def _network(network: Network) -> str:
    if network.kind == "unet":
        return f"U-Net {'-'.join(map(str, network.channels))}"
    if network.kind == "dit":
        return f"DiT {network.depth} × {network.width}, patch {network.patch}"
    return f"MLP {network.depth} × {network.width}"
