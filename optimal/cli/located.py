"""What `python -m optimal border` asks: where the border is, and the curve around it."""

from __future__ import annotations

import math
from typing import Any

import torch
from tqdm import tqdm

from ..border import borders
from ..conditional import Group
from ..datasets import Dataset
from ..draws import draw_pairs
from ..paths import Paths
from ..posterior import Optimum
from ..randomness import stream
from .answers import optimum, told, under
from .estimate import Say, announce, seconds_of_the_border
from .room import require_room

__all__ = ["LEVELS", "located"]

_OCTAVES = range(-2, 6)
LEVELS = 42
"""That are looked at: by two bisections, and along the curve."""
_CPU = torch.device("cpu")


def located(
    data: Dataset,
    draws: int,
    seed: int,
    *,
    label: int | None = None,
    group: Group | None = None,
    device: torch.device = _CPU,
    say: Say,
) -> dict[str, Any]:
    """The border, by both of its definitions: {"count": …, "entropy": …}, each with sigma, low, high and threshold.

    With them "curve", the same draws at levels an octave apart around the first: sigma, quartiles of the effective
    count, mean entropy and the share of draws whose leading point is the source.
    """
    require_room("draws", draws, math.prod(data.event))
    D = under(optimum(data, device, label), group)
    announce(seconds_of_the_border(D, draws, levels=LEVELS), say)
    found: dict[str, Any] = {"draws": draws, "seed": seed} | told(label, group)
    both = borders(D, draws=draws, generator=stream(seed, "figures"), progress=True)
    for name, border in zip(("count", "entropy"), both, strict=True):
        found[name] = {key: getattr(border, key) for key in ("sigma", "low", "high", "threshold")}
    found["curve"] = _curve(D, both[0].sigma, draws, seed)
    return found


def _curve(D: Optimum, sigma: float, draws: int, seed: int) -> list[dict[str, Any]]:
    if not 0 < sigma < math.inf:
        return []
    sigmas = [sigma * 2.0**power for power in _OCTAVES]
    x0, eps = draw_pairs(D, None, draws, stream(seed, "figures"))
    paths = Paths.of(D, x0, eps)
    rows: list[tuple[float, ...]] = []
    for level in tqdm(sigmas, desc="curve", unit="level", leave=False):
        if paths is not None and paths.holds(level):
            entropy, leader = paths.at(level)
        else:
            post = D.posterior(x0 + level * eps, level)
            entropy, leader = post.entropy, post.top_index
        quartiles = entropy.exp().quantile(torch.tensor([0.25, 0.5, 0.75]).to(entropy))
        found = (D.take(leader) == x0).flatten(1).all(1).double().mean()
        rows.append((level, *quartiles.tolist(), float(entropy.mean()), float(found)))
    names = ("sigma", "low_quartile", "count", "high_quartile", "entropy", "source")
    return [dict(zip(names, row, strict=True)) for row in rows]
