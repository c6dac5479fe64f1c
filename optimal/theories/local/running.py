"""Running sums of many posteriors at once: one for every unit, each relative to its own largest logit so far.

With l_uj the logit of candidate j for unit u and m_u = max_j l_uj, one pass over the candidates collects

    total_u = Σ_j e^{l_uj − m_u}     energy_u = Σ_j e^{l_uj − m_u} (l_uj − m_u)     mean_u = Σ_j e^{l_uj − m_u} y_uj

and the posterior mean is mean/total, its entropy log total − energy/total. All in float64; nothing is left out but what
e^{l − m} itself rounds to 0.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

__all__ = ["Running"]

_LEAST = -745.0
"""Exponents below are 0 in float64."""


class Running:
    """The sums of U units with A answers each; empty at first.

    Args:
        units: U.
        answers: A.
        device: where.
        energy: whether the entropy is wanted.
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
            logits: (U, n) float64, −inf for what is no candidate of a unit; destroyed.
            weighted: weights (U, n) -> their sums with the answers of the block, (U, A); None where A = 0.
        """
        top = torch.maximum(self.top, logits.amax(1))
        # A unit that has met no candidate yet has no top: its weights are 0 whatever it is.
        base = top.masked_fill(top == -torch.inf, 0.0)
        factor = (self.top - base).exp_()
        weights = logits.sub_(base[:, None]).exp()
        if self.energy is not None:
            shift = torch.where(self.total > 0, self.top - base, 0.0)
            self.energy.add_(shift * self.total).mul_(factor)
            self.energy.add_(logits.clamp_(min=_LEAST).mul_(weights).sum(1))
        self.total.mul_(factor).add_(weights.sum(1))
        if weighted is not None:
            self.mean.mul_(factor[:, None]).add_(weighted(weights))
        self.top = top

    @property
    def average(self) -> Tensor:
        """Posterior means, (U, A)."""
        return self.mean / self.total[:, None]

    @property
    def entropy(self) -> Tensor:
        """(U,), nats."""
        assert self.energy is not None
        return (self.total.log() - self.energy / self.total).clamp_min(0)

    @property
    def normaliser(self) -> Tensor:
        """log Σ_j e^{l_uj}, (U,)."""
        return self.top + self.total.log()
