"""What the commands of `python -m neural` share: their data, what --quick leaves, and their words for a file."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from optimal import Dataset, load
from optimal.cli import parse_options

from ..commands import Compare, Report, Sample

__all__ = ["QUICK_DRAWS", "QUICK_SAMPLES", "as_words", "dataset_of"]

QUICK_DRAWS = 128
QUICK_SAMPLES = 64


def dataset_of(command: Sample | Compare | Report) -> Dataset | None:
    """What --dataset names; None without it.

    Raises:
        ValueError: --option without it; as for `optimal.load`.
    """
    if command.option and not command.dataset:
        raise ValueError("--option is of --dataset: give that too")
    return load(command.dataset, **parse_options(command.option)) if command.dataset else None


def as_words(command: Any) -> dict[str, Any]:
    """The options of a command, for JSON."""
    return {k: str(v) if isinstance(v, Path) else v for k, v in dataclasses.asdict(command).items()}
