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
        stages: of progressive distillation, the steps of those that are shipped; None: all.
    """

    name: str
    config: Experiment | Distillation
    draws: int = 2048
    samples: int = 512
    trajectory: int = 512
    stages: tuple[int, ...] | None = None

    def data(self) -> Dataset:
        """What it is trained on."""
        return experiment_of(self.config).load()


_STAGES = {"toy-progressive": (1, 2, 4), "digits-progressive": (1, 2)}
"""Of progressive distillation every stage is a network of its own; the others would be 2.6 MB more."""


def _recipes() -> dict[str, Recipe]:
    images = ("faces", "emoji-16", "emoji-16-dit", "emoji-32")
    found = [Recipe(name, PRESETS[name]) for name in ("toy", "digits", "digits-classes", *images)]
    found.append(Recipe("emoji-64", PRESETS["emoji-64"], draws=512, samples=128, trajectory=128))
    for preset in ("toy", "digits"):
        found += [
            Recipe(f"{preset}-{technique}", student_of(preset, technique), stages=_STAGES.get(f"{preset}-{technique}"))
            for technique in TECHNIQUES
        ]
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
