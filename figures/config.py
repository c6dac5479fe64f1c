"""What can be asked of a figure."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from optimal import Dataset, load
from optimal.datasets import parse_options

__all__ = ["Config"]


@dataclass(frozen=True)
class Config:
    """Options of every figure."""

    dataset: str | None = None
    """Data to draw: an embedded name (digits, faces, emoji, patches) or a path (zip, folder, npy, npz, parquet, idx).

    Each figure has its own default."""
    option: Annotated[tuple[str, ...], tyro.conf.UseAppendAction] = ()
    """Option of the data set, as name=value; may be repeated: --option n=1000 --option value_range=0,1."""
    out: Path = Path("figures/out")
    """Folder for the PNG, PDF, NPZ and JSON files; for `explore` alone, also the name of its page, ending in .html."""
    seed: int = 0
    """Seed of every random draw."""
    quick: bool = False
    """Fewer draws and coarser grids, to have a look in seconds."""

    def load(self, default: str) -> Dataset:
        """The data set that was asked for, or the figure's own.

        Raises:
            ValueError: unknown or unreadable data, or an option that is not name=value.
        """
        return load(self.dataset or default, **parse_options(self.option))
