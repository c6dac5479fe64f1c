"""Network and optimum, each on its own side: what is said where one is given for the other."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

from torch import nn

from .adapters.asked import TIMES
from .foreign import understood

__all__ = ["network_of", "require_optimum"]


def require_optimum(D: Any) -> None:
    """Raise ValueError unless D is the optimum of data: one that has a posterior over points."""
    if hasattr(D, "posterior") and hasattr(D, "points"):
        return
    name = type(D).__name__
    if isinstance(D, nn.Module) or callable(D):
        raise ValueError(
            "the network comes first and the optimum of the data, OptimalDenoiser(data), second: got "
            f"{name} in its place"
        )
    raise ValueError(f"D must be the optimum of the data, OptimalDenoiser(data), got {name}")


def network_of(model: Any) -> Any:
    """The denoiser that is measured; a module of (x, time) is told of its adapter.

    Raises:
        ValueError: a name or a path, which open_model opens; what is no network, or one in no known convention.
    """
    if isinstance(model, str | Path):
        raise ValueError(f"a network is opened by its name first: open_model({str(model)!r})")
    if not callable(model):
        raise ValueError(f"a network is a function (x, sigma) -> x0_hat, got {type(model).__name__}")
    # Any module of (x, level) may be a denoiser; one of (x, time) is none.
    timed = isinstance(model, nn.Module) and any(name in TIMES for name in _first_two(model))
    return understood(model) if timed or isinstance(model, type) else model


def _first_two(module: nn.Module) -> list[str]:
    return list(inspect.signature(module.forward).parameters)[:2]
