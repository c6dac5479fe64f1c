"""Some of the rows of the data, without a copy: those of a class, or all that a prior has left."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor

from .rows import Rows

__all__ = ["Part"]


class Part:
    """Some rows of others, in their order and without a copy: `Rows` of a class, say.

    Args:
        rows: all of them.
        index: (n,) int64, increasing, which.
    """

    def __init__(self, rows: Rows, index: Tensor):
        self.whole, self.index = rows, index
        self.event, self.dim, self.size = rows.event, rows.dim, len(index)

    @property
    def device(self) -> torch.device:
        return self.whole.device

    @property
    def dtype(self) -> torch.dtype:
        return self.whole.dtype

    @property
    def streamed(self) -> bool:
        """Whether blocks are given back to a file after use."""
        return self.whole.streamed

    @property
    def of(self) -> int:
        """How many rows the data have."""
        return self.whole.size

    def of_data(self, index: Tensor) -> Tensor:
        """Rows of the data at `index`, whether they are of the part or not; see `Rows.take`."""
        return self.whole.take(index)

    def checked_once(self) -> contextlib.AbstractContextManager[None]:
        """See `Rows.checked_once`."""
        return self.whole.checked_once()

    def check(self) -> None:
        """See `Rows.check`."""
        self.whole.check()

    @contextlib.contextmanager
    def opened(self, where: slice | Tensor, buffer: Tensor | None = None) -> Iterator[Tensor]:
        """See `Rows.opened`."""
        index = self.index[where if isinstance(where, slice) else where.to(self.index.device)]
        count = len(index)
        # Rows that follow each other are read where they lie.
        run = count > 0 and isinstance(where, slice) and int(index[-1]) - int(index[0]) == count - 1
        with self.whole.opened(slice(int(index[0]), int(index[-1]) + 1) if run else index, buffer) as rows:
            yield rows

    def exact(self, index: Tensor) -> Tensor:
        """See `Rows.exact`."""
        return self.whole.exact(self.index[index.to(self.index.device)])

    def take(self, index: Tensor) -> Tensor:
        """See `Rows.take`."""
        return self.whole.take(self.index[index.to(self.index.device)])
