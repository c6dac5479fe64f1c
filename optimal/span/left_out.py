"""What the axes leave out of a state, o = Σ_j c_j R_j, and its products with the data.

It is computed in full when asked for, for one state of a row; from there on it counts as it is, scaled as the noise is,
and what came after is estimated by projections: e·(Sᵀ R_k) is o·R_k up to ‖o‖‖R_k‖ √(2/384), one standard deviation.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..points import Points
from .basis import SKETCH, Basis
from .coordinates import Candidates, Layout
from .products import combination, listed, products

__all__ = ["LeftOut"]

_SPREAD = math.sqrt(2 / SKETCH)
"""Standard deviation, at most, of the product of two vectors' projections, over the product of their lengths."""
_SOME = 3.0
"""Nats below the leader from which on a point is told to have hardly any weight."""


class LeftOut:
    """What is left out of the states of B rows, u = (a, p, e, h, q) in coordinates.

    Args:
        points: the data.
        basis: of them.
        candidates: of the rows, whose exact products are used.
        layout: of u.
        z: (B, dim) float64, the noise minus the centre.
        length: (B,), of the noise: what a is in units of.

    Attributes:
        computed: (B,) int64, how often it was computed.
        corrections: (B, N) float32, products of all points with what is left out of the state it was computed for.
        sketch_squares: (N,) float32, ‖Sᵀ R_k‖².
    """

    def __init__(self, points: Points, basis: Basis, candidates: Candidates, layout: Layout, z: Tensor, length: Tensor):
        self.points, self.basis, self.candidates, self.layout = points, basis, candidates, layout
        self.z, self.length = z, length
        self.sketch_squares = basis.coordinates[:, basis.rank :].square().sum(1)
        self.computed = torch.zeros(len(z), dtype=torch.int64, device=z.device)
        self.corrections = torch.zeros(len(z), points.size, dtype=torch.float32, device=z.device)
        # The state that it was computed for, and what is left out of that.
        self._known = z.new_zeros(len(z), layout.size)
        self._residual = torch.zeros_like(z, dtype=torch.float32)
        # Of points that were far from the leader then, in estimate only: as projections tell, `_vague` is its length.
        self._vague = torch.zeros_like(length)
        self._full = torch.zeros_like(self.corrections, dtype=torch.bool)
        # The weights of every call over all points, of the rows that it was for; those of candidates are in q.
        self._history: list[tuple[Tensor, Tensor]] = []

    def keep(self, rows: Tensor, weights: Tensor) -> int:
        """Keep the weights (b, N) of a call, without the candidates'; the place in h that stands for them."""
        self._history.append((rows, weights))
        return len(self._history) - 1

    def since(self, rows: Tensor, u: Tensor) -> tuple[Tensor, Tensor]:
        """α, (b,), and u less α times the state that it was computed for; α is the scale of the noise."""
        known = self._known[rows]
        alpha = torch.where(known[:, 0] > 0, u[:, 0] / known[:, 0], 0.0)
        return alpha, u - alpha[:, None] * known

    def sketch(self, rows: Tensor, rest: Tensor) -> Tensor:
        """The projections of what came `since`, less the candidates' share, (b, S) float64."""
        parts = self.layout.parts(rest)
        return parts.sketch - self.candidates.sketched(rows, parts.candidates)

    def known_length(self, rows: Tensor, alpha: Tensor) -> Tensor:
        """(b,), the length of what is left out of α times the state that it was computed for."""
        return alpha.abs() * self._residual[rows].norm(dim=1)

    def doubt(self, rows: Tensor, left: Tensor, spread: Tensor, weights: Tensor, mean: Tensor, sigma: float) -> Tensor:
        """How far log-weights may be off, (b,) nats: the deviation, under the weights, of the error of o·R_k/σ².

        What all weights share does not count. `left`: see `sketch`; spread: (b,), the variance of the Sᵀ R_k under the
        weights; mean: (b, S), their mean.
        """
        doubt = left.norm(dim=1) * spread.sqrt()
        at = (self._vague[rows] > 0).nonzero().squeeze(1)
        if len(at):
            far = weights[at].masked_fill(self._full[rows[at]], 0.0)
            square = far @ self.sketch_squares + far.sum(1) * mean[at].square().sum(1)
            doubt[at] = torch.hypot(doubt[at], self._vague[rows[at]] * (2 * square).sqrt())
        return _SPREAD * doubt / sigma**2

    def unsafe(self, rows: Tensor, left: Tensor, weights: Tensor, sigma: float) -> tuple[Tensor, Tensor]:
        """Rows in which what was left out might bring up a point that has hardly any weight, (b,) bool; these, (N,).

        `doubt` sees the points that have some. Here five standard deviations of the error of a lead count.
        """
        unsafe = torch.zeros(len(rows), dtype=torch.bool, device=rows.device)
        by = torch.zeros(weights.shape[1], dtype=torch.bool, device=rows.device)
        length, scale = self.sketch_squares.sqrt(), 5 * _SPREAD / sigma**2
        most = 2 * scale * (left.norm(dim=1) + self._vague[rows]) * length.max()
        for i in (most > _SOME).nonzero().squeeze(1).tolist():
            row, leader = rows[i], int(weights[i].argmax())
            leads = (weights[i, leader] / weights[i].clamp_min(1e-37)).log()
            apart = length + length[leader]
            some = int(self.candidates.filled[row])
            index, sketches = self.candidates.index[row, :some], self.candidates.sketches[row, :some]
            at = (index == leader).nonzero()
            if len(at):
                apart[index] = (sketches - sketches[int(at[0])]).norm(dim=1).float()
            exact = self._full[row] & self._full[row, leader]
            unknown = float(left[i].norm()) + torch.where(exact, 0.0, float(self._vague[row]))
            over = (scale * unknown * apart > leads) & (leads > _SOME)
            unsafe[i] = over.any()
            by |= over
        return unsafe, by

    def compute(self, rows: Tensor, u: Tensor, accuracy: float, near: Tensor) -> None:
        """Compute Σ_j c_j R_j of the state u, to within `accuracy`, and its products with `near`, (N,) bool."""
        vectors = self.basis.vectors
        alpha, rest = self.since(rows, u)
        weights = self._coefficients(rows, rest)
        left = self.sketch(rows, rest)
        # Coefficients that change no product by so much, all together, are not looked at.
        index = listed((weights.abs() > 0.2 * accuracy / self.points.size).any(0))
        if index is not None:
            weights = weights[:, index]
        added = combination(self.points, weights, index, accuracy).float()
        added -= (added @ vectors) @ vectors.T
        residual = alpha[:, None].float() * self._residual[rows] + added
        index = listed(near)
        found = products(self.points, residual.double(), 2, index).float()
        if index is None:
            self.corrections[rows], self._full[rows], self._vague[rows] = found, True, 0.0
        else:
            self._estimate(rows, rest, left, alpha)
            self.corrections[rows[:, None], index] = found
            self._full[rows] = False
            self._full[rows[:, None], index] = True
        self._residual[rows], self._known[rows] = residual, u
        self.computed[rows] += 1

    def _estimate(self, rows: Tensor, rest: Tensor, left: Tensor, alpha: Tensor) -> None:
        """Add to the products with all points what the projections and the candidates tell."""
        added = left.float() @ self.basis.coordinates[:, self.basis.rank :].T
        self.candidates.add_products(rows, self.layout.parts(rest).candidates, added)
        self.corrections[rows] = alpha[:, None].float() * self.corrections[rows] + added
        self._vague[rows] = alpha.abs() * self._vague[rows] + left.norm(dim=1)

    def _coefficients(self, rows: Tensor, u: Tensor) -> Tensor:
        """Σ over the calls of what each adds to the coefficients c_j of u, (b, N) float64."""
        parts = self.layout.parts(u)
        out = torch.zeros(len(rows), self.points.size, dtype=torch.float64, device=u.device)
        place = torch.full_like(self.computed, -1)
        for call, (of, weights) in enumerate(self._history):
            place[of] = torch.arange(len(of), device=of.device)
            here = ((parts.calls[:, call] != 0) & (place[rows] >= 0)).nonzero().squeeze(1)
            if len(here):
                out[here] += parts.calls[here, call, None] * weights[place[rows[here]]]
            place[of] = -1
        return out.scatter_add_(
            1, self.candidates.index[rows], parts.candidates.masked_fill(~self.candidates.valid(rows), 0.0)
        )

    def means(self, rows: Tensor, u: Tensor) -> Tensor:
        """(b, dim) float64, minus the centre: the means of points that the coordinates u, of outputs, stand for."""
        return combination(self.points, self._coefficients(rows, u), None, 1e-7)

    def states(self, rows: Tensor, u: Tensor) -> Tensor:
        """(b, dim) float64, minus the centre: the states that the coordinates u stand for, as far as they are known."""
        alpha, rest = self.since(rows, u)
        coefficients = self.layout.parts(rest).candidates
        points, rank = self.points, self.basis.rank
        short = self.layout.parts(u).axes.clone()
        noise = u[:, :1] / self.length[rows, None]
        out = noise * self.z[rows] + alpha[:, None] * self._residual[rows]
        for i, row in enumerate(rows.tolist()):
            used = coefficients[i].abs() > 1e-9
            if used.any():
                index = self.candidates.index[row, used]
                block = points.read(index, torch.empty(len(index), points.dim, dtype=torch.float64, device=u.device))
                out[i] += coefficients[i, used] @ block
                short[i] -= coefficients[i, used] @ self.basis.coordinates[index, :rank].double()
        return out + short @ self.basis.vectors.T.double()
