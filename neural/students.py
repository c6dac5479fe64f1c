"""Distilled students as models: sampled in so few steps as they were made for, each by the stage that takes as many."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from optimal.randomness import stream

from .precondition import Preconditioned
from .saved import load_model, sampling_at, stage_of, stage_path, student_steps, training_pairs

__all__ = ["Student"]


@dataclass(frozen=True)
class Student:
    """How a student is meant to be sampled; the `meant` of a `neural.model.Model`.

    Attributes:
        folder: of a distillation, of a stage of it, or a checkpoint file of one.
    """

    folder: Path

    @staticmethod
    def of(folder: Path) -> Student | None:
        """None for what is no student."""
        return None if stage_of(folder) is None else Student(folder)

    def __call__(self, steps: int | None, seed: int) -> dict[str, Any]:
        """The arguments of `optimal.sample` for the network that the folder gives, which is that of the last stage.

        Raises:
            ValueError: steps that another stage takes; see `network`.
        """
        own = self._own()
        if own is not None and steps not in (None, own):
            raise ValueError(
                f"this student takes {own} step{'s' if own > 1 else ''}, got {steps}: each other stage of "
                f"{self.folder} is a network of its own"
            )
        return self.sampling(steps, seed)

    def sampling(self, steps: int | None, seed: int) -> dict[str, Any]:
        """The arguments of `optimal.sample` for the network that takes so many steps, 1 or the stage's unless given."""
        steps = (self._own() or 1) if steps is None else steps
        return sampling_at(self._run(), steps, generator=stream(seed, "samples"))

    def network(self, steps: int | None) -> Preconditioned | None:
        """The network of the stage that takes so many steps; None where it is that which the folder gives."""
        own = self._own()
        if own is None or steps is None or steps == own:
            return None
        return load_model(stage_path(self._run(), steps))[0]

    def takes(self, steps: int) -> bool:
        """Whether it is meant to be sampled in so many steps."""
        return steps in (student_steps(self._run()) or (steps,))

    def pairs(self) -> tuple[np.ndarray, np.ndarray] | None:
        """Noises and ends that it was trained on, where it was on a fixed number of them."""
        pairs = training_pairs(self._run())
        return None if pairs is None else (pairs[0].numpy(), pairs[1].numpy())

    def _own(self) -> int | None:
        """The steps of the network that the folder gives; None: any."""
        stages = student_steps(self._run())
        return None if stages is None else stages[-1]

    def _run(self) -> Path:
        return self.folder.parent if self.folder.is_file() else self.folder
