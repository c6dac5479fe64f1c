"""What is shipped, and how it is trained and measured: presets, and their students."""

from __future__ import annotations

import difflib
from dataclasses import dataclass

from optimal import Dataset

from ..config import TECHNIQUES, Distillation, Experiment, experiment_of
from ..presets import PRESETS, student_of

__all__ = ["RECIPES", "Recipe", "recipe"]


@dataclass(frozen=True)
class Recipe:
    """One shipped network.

    Attributes:
        name: of its folder.
        config: how it is trained.
        draws: (x0, ε) at a noise level, when it is measured.
        samples: when it is sampled.
        trajectory: noises from which its own trajectory begins.
    """

    name: str
    config: Experiment | Distillation
    draws: int = 2048
    samples: int = 512
    trajectory: int = 512

    def data(self) -> Dataset:
        """What it is trained on."""
        return experiment_of(self.config).load()


def _recipes() -> dict[str, Recipe]:
    found = [
        Recipe(name, PRESETS[name]) for name in ("toy", "digits", "digits-classes", "faces", "emoji-16", "emoji-16-dit")
    ]
    for preset in ("toy", "digits"):
        found += [Recipe(f"{preset}-{technique}", student_of(preset, technique)) for technique in TECHNIQUES]
    return {each.name: each for each in found}


RECIPES: dict[str, Recipe] = _recipes()
"""By name: presets, and preset-technique for students of the optimum of their data."""


def recipe(name: str) -> Recipe:
    """The recipe of a shipped network.

    Raises:
        ValueError: there is none of this name.
    """
    if name not in RECIPES:
        near = difflib.get_close_matches(name, RECIPES, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise ValueError(f"no network {name!r} comes with the toolkit; {hint}there are {', '.join(RECIPES)}")
    return RECIPES[name]
