"""What can be asked of a figure."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from optimal import Dataset
from optimal.cli import data_of, options

__all__ = ["Config"]


@dataclass(frozen=True)
class Config:
    """Options of every figure; each has data of its own unless --dataset names others."""

    dataset: options.Dataset = None
    option: options.DataOption = ()
    out: Path = Path("figures/out")
    """Folder for the PNG, PDF, NPZ and JSON files; for `explore` alone, also the name of its page, ending in .html."""
    seed: options.Seed = 0
    quick: options.Quick = False
    """Fewer draws and coarser grids, to have a look."""
    network: Annotated[str | None, tyro.conf.arg(metavar="MODEL", help_behavior_hint="")] = None
    """Network whose guess stands beside the optimum's, for `explore` alone: pretrained:NAME, a checkpoint, a run;
    none unless given, of digits as they come pretrained:digits."""

    def refuse_dataset(self, name: str, shows: str) -> None:
        """Raise ValueError if data were named, for a figure that shows its own."""
        if self.dataset is not None:
            raise ValueError(f"{name} takes no --dataset: it shows {shows}")

    def load(self, default: str) -> Dataset:
        """The data set that was asked for, or the figure's own.

        Raises:
            ValueError: unknown or unreadable data, or an option that is not name=value.
        """
        return data_of(default if self.dataset is None else self.dataset, self.option)
