"""Where networks are kept: folders of runs and of diffusers, functions of one's own, objects in memory."""

from __future__ import annotations

import dataclasses
import inspect
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from . import checkpoint
from .adapters import Adapted, from_diffusers
from .adapters.clipping import Given
from .config import experiment_of
from .elsewhere import require_run
from .foreign import understood
from .imported import PYTHON, imported
from .precondition import Preconditioned
from .pretrained import folder_of
from .saved import load_model, model_path
from .students import Student

__all__ = ["Source", "module_of", "source_of", "takes_named"]

DIFFUSERS, PRETRAINED = "diffusers:", "pretrained:"


@dataclass(frozen=True)
class Source:
    """What is known of a network where it is kept; the fields are those of `neural.model.Model`.

    Attributes:
        read: whether it was made here, and may be moved to any device.
        run: the folder of the run that it was trained in.
    """

    name: str
    denoiser: Callable[..., Tensor]
    event: tuple[int, ...] | None = None
    sigma_min: float = 0.0
    sigma_max: float = math.inf
    meant: Callable[[int | None, int], dict[str, Any]] | None = None
    grid: Callable[[int], Tensor] | None = None
    read: bool = True
    run: Path | None = None


def source_of(source: Any, clip: Given = None, event: tuple[int, ...] | None = None) -> Source:
    """What `neural.model.open_model` says.

    Args:
        clip, event: of a diffusers folder.
    """
    if isinstance(source, str) and source.startswith(PYTHON):
        made = imported(source)
        if isinstance(made, str | Path):
            return source_of(made, clip, event)
        try:
            return Source(source, **_known(made))
        except ValueError as error:
            raise ValueError(f"{source}: {error}") from error
    if isinstance(source, str) and source.startswith(DIFFUSERS):
        denoiser = from_diffusers(source.removeprefix(DIFFUSERS), clip=clip, event=event)
        return Source(source, **_known(denoiser))
    if isinstance(source, str) and source.startswith(PRETRAINED):
        return dataclasses.replace(_run(folder_of(source.removeprefix(PRETRAINED))), name=source)
    if isinstance(source, str | Path):
        return _run(Path(source).expanduser())
    called = source.asked.network if isinstance(source, Adapted) else source
    name = getattr(called, "name", None) or getattr(called, "__name__", None) or type(called).__name__
    return Source(str(name), **_known(source), read=False)


def module_of(denoiser: Any) -> nn.Module | None:
    """The module that a denoiser asks."""
    network = denoiser.asked.network if isinstance(denoiser, Adapted) else denoiser
    return network if isinstance(network, nn.Module) else None


def takes_named(denoiser: Any, name: str) -> bool:
    """Whether a network can be given an argument of this name; True where its signature is not known."""
    network = denoiser.asked.network if isinstance(denoiser, Adapted) else denoiser
    if name == "class_labels" and isinstance(network, Preconditioned):
        return network.classes > 0
    try:
        parameters = inspect.signature(getattr(network, "forward", network)).parameters
    except (TypeError, ValueError):
        return True
    return name in parameters or any(p.kind is p.VAR_KEYWORD for p in parameters.values())


def _known(source: Any) -> dict[str, Any]:
    denoiser = understood(source)
    event = getattr(denoiser, "event", None)
    return {
        "denoiser": denoiser,
        "event": None if event is None else tuple(event),
        "sigma_min": float(getattr(denoiser, "sigma_min", 0.0)),
        "sigma_max": float(getattr(denoiser, "sigma_max", math.inf)),
        "grid": getattr(denoiser, "grid", None) if isinstance(denoiser, Adapted) else None,
    }


def _run(folder: Path) -> Source:
    require_run(folder)
    denoiser, config = load_model(folder)
    options = experiment_of(config).optimisation
    event = tuple(checkpoint.about(checkpoint.latest(model_path(folder)))["event"])
    return Source(str(folder), denoiser, event, options.sigma_min, options.sigma_max, Student.of(folder), run=folder)
