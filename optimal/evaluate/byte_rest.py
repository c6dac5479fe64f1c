"""Weights written in digits of bytes, and what the digits leave of their sum: for `screened`.

The bounds are those of `optimal.evaluate.proof`, section 7.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .byte_digits import Digits, Streams
from .proof import CHANCE, GRAIN, MOST_DIGITS, upper

__all__ = ["Rest"]


class Rest:
    """What the digits of weights leave of them (section 7 of the proof).

    Attributes:
        proven, likely: (b,), bound on ‖Σ_j r_j (y_j − c)‖ over the total, r what is left; and its expected size.
        total, absolute: (b,), Σ_j r_j and Σ_j |r_j|.
    """

    def __init__(self, weights: Tensor, norms: Tensor, of: Tensor, streams: Streams):
        self._digits, self._norms, self._of = Digits(weights, streams=streams), norms, of
        self._squares = norms.square()
        self._sum, self._root = float(norms.sum()), float(self._squares.sum().sqrt())
        self.proven, self.likely = torch.full_like(of, torch.inf), torch.full_like(of, torch.inf)
        self.total, self.absolute = torch.zeros_like(of), torch.zeros_like(of)

    @property
    def reach(self) -> Tensor:
        """(b,), at least Σ_k ‖t_k p_k‖ over the digits."""
        return self._digits.reach

    def square(self, squares: Tensor) -> Tensor:
        """(b,), Σ_j r_j ‖y_j − c‖², of the squares, (n,)."""
        return self._digits.rest @ squares

    def digits_until(self, likely: Tensor, proven: Tensor) -> list[tuple[Tensor, Tensor, Tensor]]:
        """More digits, each of the rows that still need it, until what is left is no more than this."""
        parts = []
        while True:
            missing = (self.likely > likely) | (self.proven > proven)
            rows = (missing & (self._digits.digits < MOST_DIGITS)).nonzero().squeeze(1)
            if len(rows) == 0:
                return parts
            parts.append((rows, *self._digits.next(rows)))
            for row in rows.tolist():
                self._measure(row)

    def _measure(self, row: int) -> None:
        rest, of = self._digits.rest[row], self._of[row]
        self.total[row], self.absolute[row] = rest.sum(), rest.abs().sum()
        self.likely[row] = (rest.square() @ self._squares).sqrt() / of
        proven = rest.abs() @ self._norms
        if self._digits.random:
            chance = self._root * (0.5 + math.sqrt(0.5 * math.log(1 / CHANCE))) + GRAIN * self._sum
            proven = torch.minimum(proven, chance * self._digits.step[row])
        self.proven[row] = upper(proven, len(rest)) / of
