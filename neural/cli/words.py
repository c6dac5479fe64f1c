"""What the commands of `python -m neural` share: their data, and their words for a file."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from optimal import Dataset
from optimal.cli import data_of

from ..classes import of_label
from ..commands import Compare, Explain, Likelihood, Report, Sample
from ..heldout import require_held_out_event

__all__ = ["as_words", "dataset_of", "held_out_of"]


def dataset_of(command: Sample | Compare | Report | Likelihood | Explain) -> Dataset | None:
    """What --dataset names; None without it.

    Raises:
        ValueError: --option without it; as for `optimal.load`.
    """
    if command.option and command.dataset is None:
        raise ValueError("--option is of --dataset: give that too")
    return data_of(command.dataset, command.option) if command.dataset is not None else None


def held_out_of(command: Compare | Report | Likelihood | Explain, data: Dataset | None = None) -> Dataset | None:
    """What --held-out names, of the class of --label; None without it.

    Args:
        command: the options.
        data: the training data, where they are known, whose shape it must have.

    Raises:
        ValueError: --held-out-option without it; as for `optimal.load`; points of another shape; none of the class.
    """
    if command.held_out_option and command.held_out is None:
        raise ValueError("--held-out-option is of --held-out: give that too")
    if command.held_out is None:
        return None
    found = data_of(command.held_out, command.held_out_option)
    if data is not None:
        require_held_out_event(found, data.event)
    label = getattr(command, "label", None)
    return found if label is None else of_label(found, label)


def as_words(command: Any) -> dict[str, Any]:
    """The options of a command, for JSON."""
    return {k: str(v) if isinstance(v, Path) else v for k, v in dataclasses.asdict(command).items()}
