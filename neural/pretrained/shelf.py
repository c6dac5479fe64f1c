"""Where shipped networks lie, and what is known of them."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .. import checkpoint
from .recipes import recipe

__all__ = ["About", "about", "folder_of", "names", "put"]

_FOLDER = Path(__file__).parent
_ABOUT = "about.json"
_FORMAT = 1


@dataclass(frozen=True)
class About:
    """What was written down when a network was shipped.

    Attributes:
        name: of its recipe.
        dataset, fingerprint, points: what it was trained on.
        weights: their number.
        steps: of its training, all stages together.
        seconds: that it took.
        machine: on which.
        torch: the version.
        half: whether its weights are kept in half precision.
        seed: of the draws it was measured with.
        gap: rows of `neural.measure`, on the data, on held-out points and on its own trajectory.
        samplers: rows of `neural.samplers`.
        labels: of a network with classes, rows of `neural.measure` on the points of each, with their `label`.
    """

    name: str
    dataset: str
    fingerprint: str
    points: int
    weights: int
    steps: int
    seconds: float
    machine: str
    torch: str
    half: bool
    seed: int
    gap: list[dict[str, Any]] = field(default_factory=list)
    samplers: list[dict[str, Any]] = field(default_factory=list)
    labels: list[dict[str, Any]] = field(default_factory=list)
    format: int = _FORMAT


def names(folder: str | Path = _FOLDER) -> list[str]:
    """The networks that are there."""
    return sorted(path.parent.name for path in Path(folder).glob(f"*/{_ABOUT}"))


def folder_of(name: str, folder: str | Path = _FOLDER) -> Path:
    """Where a network lies: the folder of a run.

    Raises:
        ValueError: no such network, or one that is missing, damaged or of another version.
    """
    about(name, folder)
    path = Path(folder) / name
    broken = [file for file in path.rglob("step-*.safetensors") if not checkpoint.is_sound(file)]
    if broken or not any(path.rglob("step-*.safetensors")):
        raise ValueError(f"the shipped network {name} is damaged ({(broken or [path])[0]}); {_offer(name)}")
    return path


def about(name: str, folder: str | Path = _FOLDER) -> About:
    """What is known of a network.

    Raises:
        ValueError: no such network, or one that is missing, damaged or of another version.
    """
    recipe(name)
    path = Path(folder) / name / _ABOUT
    try:
        values = json.loads(path.read_text())
        if values.get("format") != _FORMAT:
            raise ValueError(f"{path} was made by another version of this program; {_offer(name)}")
        return About(**values)
    except FileNotFoundError as error:
        raise ValueError(f"the network {name} is not there: {path} is missing; {_offer(name)}") from error
    except (OSError, TypeError, AttributeError, json.JSONDecodeError) as error:
        raise ValueError(f"{path} is damaged: {error}; {_offer(name)}") from error


def put(found: About, folder: str | Path = _FOLDER) -> None:
    """Write down what is known."""
    checkpoint.replace_text(Path(folder) / found.name / _ABOUT, json.dumps(dataclasses.asdict(found), indent=1) + "\n")


def _offer(name: str) -> str:
    return f"`python -m neural pretrain {name} --ship` trains it again"
