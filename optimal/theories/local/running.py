"""Running sums of many posteriors at once: one for every unit, each relative to its own largest logit so far.

With l_uj the logit of candidate j for unit u and m_u = max_j l_uj, one pass over the candidates collects

    total_u = Σ_j 2^{l_uj − m_u}     energy_u = Σ_j 2^{l_uj − m_u} (l_uj − m_u)     mean_u = Σ_j 2^{l_uj − m_u} y_uj

and the posterior mean is mean/total, its entropy log₂ total − energy/total bits. All in float64; nothing is left out
but what 2^{l − m} itself rounds to 0. Logits are in bits, since PyTorch's 2^x takes a third of the time of its e^x, and
a sixth where the result is no normal number (0.4, 1.3 and 7 ns on an EPYC with AVX-512), with the same error.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

__all__ = ["BITS", "Running"]

BITS = 1 / math.log(2)
"""A nat in bits."""
_LEAST = -1075.0
"""Exponents below are 0 in float64."""


class Running:
    """The sums of U units with A answers each; empty at first.

    Args:
        units: U.
        answers: A.
        device: where.
        energy: whether the entropy is wanted.

    Attributes:
        top: (U,) the largest logits so far, −inf for a unit that has met no candidate.
    """

    def __init__(self, units: int, answers: int, device: torch.device, *, energy: bool):
        def zeros(*shape: int) -> Tensor:
            return torch.zeros(*shape, dtype=torch.float64, device=device)

        self.top = zeros(units).fill_(-torch.inf)
        self.total, self.mean = zeros(units), zeros(units, answers)
        self.energy = zeros(units) if energy else None

    def add(self, logits: Tensor, weighted: Callable[[Tensor], Tensor] | None = None) -> None:
        """Take up a block of candidates.

        Args:
            logits: (U, n) float64, in bits, −inf for what is no candidate of a unit; destroyed.
            weighted: weights (U, n) -> their sums with the answers of the block, (U, A); None where A = 0.
        """
        below = logits.sub_(self._raised(torch.maximum(self.top, logits.amax(1)))[:, None])
        if self.energy is None:
            weights = below.exp2_()
        else:
            weights = below.exp2()
            self.energy.add_(below.clamp_(min=_LEAST).mul_(weights).sum(1))
        self.total.add_(weights.sum(1))
        if weighted is not None:
            self.mean.add_(weighted(weights))

    def add_some(self, unit: Tensor, logits: Tensor, answers: Tensor) -> None:
        """Take up single candidates.

        Args:
            unit: (n,) int64, whose.
            logits: (n,) float64, in bits, finite.
            answers: (n, A).
        """
        below = logits - self._raised(self.top.scatter_reduce(0, unit, logits, "amax"))[unit]
        weights = below.exp2()
        if self.energy is not None:
            self.energy.index_add_(0, unit, below.clamp_(min=_LEAST).mul_(weights))
        self.total.index_add_(0, unit, weights)
        self.mean.index_add_(0, unit, weights[:, None] * answers)

    def _raised(self, top: Tensor) -> Tensor:
        """Make the sums relative to larger logits, and give what they are relative to, finite."""
        # A unit that has met no candidate yet has no top: its weights are 0 whatever it is.
        base = top.masked_fill(top == -torch.inf, 0.0)
        factor = (self.top - base).exp2_()
        if self.energy is not None:
            shift = torch.where(self.total > 0, self.top - base, 0.0)
            self.energy.add_(shift * self.total).mul_(factor)
        self.total.mul_(factor)
        self.mean.mul_(factor[:, None])
        self.top = top
        return base

    @property
    def average(self) -> Tensor:
        """Posterior means, (U, A)."""
        return self.mean / self.total[:, None]

    @property
    def entropy(self) -> Tensor:
        """(U,), nats."""
        assert self.energy is not None
        return (self.total.log() - self.energy / self.total / BITS).clamp_min(0)

    @property
    def normaliser(self) -> Tensor:
        """log₂ Σ_j 2^{l_uj}, (U,)."""
        return self.top + self.total.log2()
