"""D in coordinates of the noise and the data: see `optimal.span`, which samples with it."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..denoiser import OptimalDenoiser
from ..evaluate import Accuracy, Evaluator
from .basis import SKETCH, Basis
from .coordinates import CANDIDATES, Candidates, Layout, Parts
from .line import Line
from .products import combination, listed, products

__all__ = ["SpanDenoiser", "row_bytes"]

_OUTSIDE = 1e-7
"""Weight outside the candidates below which the mean is theirs."""
_WINDOW = 18.0
"""Nats below the leader from which on the part left out is not computed: as it is, it is known to the tolerance."""
_NEAR = 2048
"""Most points of a row whose distances are taken where their products are too coarse."""
_UNIT = 2.0**-24
_SPREAD = math.sqrt(2 / SKETCH)
"""Standard deviation, at most, of the product of two vectors' projections, over the product of their lengths."""
_SURE = 1e-6
"""1 − the leader's weight below which a row may be decided."""
_SOME = 3.0
"""Nats below the leader from which on a point is told to have hardly any weight."""
_CHUNK = 2048


def row_bytes(size: int, dim: int, calls: int) -> int:
    """Memory of a row: products, weights of every call and temporaries; its candidates; its state in full space."""
    slots = 2 * min(CANDIDATES, size)
    return (28 + 4 * calls) * size + 8 * slots * (slots + 2 * SKETCH) + 24 * dim


class SpanDenoiser:
    """D in coordinates: a `Denoiser` of the vectors u = (a, p, e, h, q), (B, 1 + r + 384 + calls + 256) float64.

    a is in units of the noise's length, so that ‖u‖ is about that of the state.

    Args:
        D: the optimal denoiser.
        basis: of its data.
        z: (B, dim) float64, the noise minus the centre.
        calls: most calls of the sampler.
        tolerance: nats, see `sample_in_span`.

    Attributes:
        start: u of the noise.
        error: (B,) nats, the largest estimate so far of what a log-weight was off by.
        leader: (B,) the point that a row is decided for, −1 before.
        lost: (B,) bool, rows that need more precision than there is.
        computed: (B,) how often the part left out was computed.
    """

    def __init__(self, D: OptimalDenoiser, basis: Basis, z: Tensor, *, calls: int = 128, tolerance: float = 0.02):
        points = D.points
        self.D, self.basis, self.z, self.tolerance = D, basis, z, tolerance
        batch, device = len(z), z.device
        exact = products(points, z, 3)
        half_norms = points.half_norms.to(device)
        self._norms = (2 * half_norms).sqrt()
        self.length = z.norm(dim=1).clamp_min(torch.finfo(torch.float64).tiny)
        # The largest product with a point of length 1: what the rounding of products with the noise is a share of.
        self._reach = (exact.abs() / self._norms.clamp_min(1e-300)).amax(1) / self.length
        self._products, self._half_norms = exact.float(), half_norms.float()
        self._sketch_squares = basis.coordinates[:, basis.rank :].square().sum(1)
        self.candidates = Candidates(points, basis, batch, device)
        self.layout = Layout(basis.rank, calls, self.candidates.slots)
        self.start = z.new_zeros(batch, self.layout.size)
        self.start[:, 0] = self.length
        self.error = z.new_zeros(batch)
        self.leader = torch.full((batch,), -1, dtype=torch.int64, device=device)
        self.lost = torch.zeros(batch, dtype=torch.bool, device=device)
        self.sigma_decided, self.decided = z.new_zeros(batch), torch.zeros_like(self.start)
        # What is left out of the state `_known`, and its products with the data: in full from there on.
        self.computed = torch.zeros(batch, dtype=torch.int64, device=device)
        self._known, self._residual = torch.zeros_like(self.start), torch.zeros_like(z, dtype=torch.float32)
        # For points that were far from the leader then, in estimate only: as projections tell, `_vague` is its length.
        self._corrections = torch.zeros_like(self._products)
        self._vague = torch.zeros_like(self.error)
        self._full = torch.zeros_like(self._products, dtype=torch.bool)
        # The weights of every call over all points, of the rows that it was for; those of candidates are in q.
        self._history: list[tuple[Tensor, Tensor]] = []
        # Of the latest call: the point with all the weight, or −1; its lead in nats, and Σ w_j ‖y_j − y‖ at most.
        self._top = torch.full_like(self.leader, -1)
        self._lead, self._pull = torch.zeros_like(self.error), torch.zeros_like(self.error)
        # The same of the latest starts of steps.
        self._starts: list[tuple[Tensor, Tensor, Tensor]] = []

    def __call__(self, x: Tensor, sigma: float | Tensor) -> Tensor:
        """The coordinates of D at those of x, (B, K)."""
        out = torch.zeros_like(x)
        self._top.fill_(-1)
        rows = ((self.leader < 0) & ~self.lost).nonzero().squeeze(1)
        if len(rows):
            out[rows] = self._evaluated(rows, x[rows], float(sigma))
        rows = (self.leader >= 0).nonzero().squeeze(1)
        if len(rows):
            leader, parts = self.leader[rows], self.layout.parts(out)
            coordinates = self.basis.coordinates[leader].double()
            parts.axes[rows], parts.sketch[rows] = coordinates.split((self.basis.rank, SKETCH), 1)
            here = self.candidates.valid(rows) & (self.candidates.index[rows] == leader[:, None])
            parts.candidates[rows] = here.double()
        return out

    def settle(self, u: Tensor, sigma: float, line: Line, step: int) -> None:
        """Decide the rows, at the start of a step, whose way to the end is a line towards their point.

        To be called after the call at the start of every step: u, (B, K), is the state there, sigma its level.
        """
        self._starts = [(self._top.clone(), self._lead.clone(), self._pull.clone()), *self._starts][: 1 + line.memory]
        top, lead, pull = self._starts[0]
        sure = top >= 0
        for top_before, _, pull_before in self._starts[1:]:
            sure &= top_before == top
            pull = torch.maximum(pull, pull_before)
        sure &= pull <= line.limits[step] * lead.sqrt()
        rows = (sure & (self.leader < 0)).nonzero().squeeze(1)
        self.leader[rows] = top[rows]
        self.sigma_decided[rows], self.decided[rows] = sigma, u[rows]

    def _evaluated(self, rows: Tensor, u: Tensor, sigma: float) -> Tensor:
        """D at u, by the weights of all points; the mean is the candidates' where they have all of it."""
        left, weights = self.weights(rows, u, sigma)
        mean, doubt = self._summed(rows, left, weights, sigma)
        unsafe, by = self._unsafe(rows, left, weights, sigma)
        again = ((doubt > self.tolerance) | unsafe).nonzero().squeeze(1)
        if len(again):
            near = weights[again] > math.exp(-_WINDOW) * weights[again].amax(1, keepdim=True)
            self._compute(rows[again], u[again], sigma, near.any(0) | by)
            left[again], weights[again] = self.weights(rows[again], u[again], sigma)
            mean[again], doubt[again] = self._summed(rows[again], left[again], weights[again], sigma)
        self.error[rows] = torch.maximum(self.error[rows], doubt)
        self.candidates.add(rows, weights)
        on, outside = self.candidates.inside(rows, weights)
        self._look(rows, on, weights, left, sigma)
        out = torch.zeros_like(u)
        parts = self.layout.parts(out)
        out[:, 1 : 1 + mean.shape[1]] = mean
        parts.candidates.copy_(torch.where(self.candidates.valid(rows), on, 0.0))
        spread = (outside > _OUTSIDE).nonzero().squeeze(1)
        if len(spread):
            call = len(self._history)
            parts.calls[spread, call] = 1.0
            rest = weights[spread]
            self.candidates.clear(rows[spread], rest)
            self._history.append((rows[spread], rest))
        return out

    def _left(self, rows: Tensor, u: Tensor) -> tuple[Tensor, Tensor]:
        """α, (b,), and u less α times the state whose left-out part is known; α is the scale of the noise."""
        known = self._known[rows]
        alpha = torch.where(known[:, 0] > 0, u[:, 0] / known[:, 0], 0.0)
        return alpha, u - alpha[:, None] * known

    def weights(self, rows: Tensor, u: Tensor, sigma: float) -> tuple[Tensor, Tensor]:
        """The projections of what is left out of u, (b, S) float64, and the weights of all points, (b, N) float32."""
        alpha, rest = self._left(rows, u)
        parts, of_rest = self.layout.parts(u), self.layout.parts(rest)
        left = of_rest.sketch - torch.einsum("bm,bms->bs", of_rest.candidates, self.candidates.sketches[rows])
        noise = parts.noise / self.length[rows, None]
        scores = self._scores(rows, noise, alpha[:, None], torch.cat([parts.axes, left], 1))
        known = self.candidates.filled[rows].nonzero().squeeze(1)
        if len(known):
            at = rows[known]
            change = torch.einsum("bm,bmn->bn", of_rest.candidates[known], self.candidates.gram[at])
            scores[known] = scores[known].scatter_add_(1, self.candidates.index[at], change.float())
        scores.sub_(scores.amax(1, keepdim=True))
        size = parts.axes.norm(dim=1) + left.norm(dim=1) + alpha.abs() * self._residual[rows].norm(dim=1)
        size += noise.squeeze(1) * self.length[rows] * self._reach[rows]
        self._repair(rows, u, scores, left, size, sigma)
        scores.mul_(1 / sigma**2).exp_()
        scores /= scores.sum(1, keepdim=True)
        return left, scores

    def _scores(self, rows: Tensor, noise: Tensor, alpha: Tensor, coordinates: Tensor) -> Tensor:
        """(x − c)·(y_k − c) − ½‖y_k − c‖², (b, N) float32, but for the candidates' own products."""
        every = len(rows) == len(self.z)
        noise, alpha, right = noise.float(), alpha.float(), coordinates.float().T
        computed = bool((self.computed[rows] > 0).any())
        scores = torch.empty(len(rows), self.D.points.size, dtype=torch.float32, device=rows.device)
        for start in range(0, scores.shape[1], _CHUNK):
            part = slice(start, start + _CHUNK)
            to = scores[:, part]
            products = self._products[:, part] if every else self._products[rows, part]
            torch.addcmul(-self._half_norms[part], noise, products, out=to)
            if computed:
                to.addcmul_(alpha, self._corrections[:, part] if every else self._corrections[rows, part])
            to += torch.mm(self.basis.coordinates[part], right).T
        return scores

    def _repair(self, rows: Tensor, u: Tensor, scores: Tensor, left: Tensor, size: Tensor, sigma: float) -> None:
        """Where float32 is too coarse for the scores of the leading points, take these by differences.

        A score is off by about 2u (‖x‖ + ‖y‖)‖y‖ (estimated), so for a far point it may be off by more than all others
        differ by: a point is in question where its own error, and the leader's, may put it in front.
        """
        limit, radius = self.tolerance, float(self._norms.max())
        rough = 2 * _UNIT * radius * (size + radius) / sigma**2
        if not (rough > limit).any():
            self.error[rows] = torch.maximum(self.error[rows], rough)
            return
        norms, asked = self._norms.float(), dict[int, Tensor]()
        for i, row in enumerate(rows.tolist()):
            errors = (2 * _UNIT) * norms * (norms + float(size[i]))
            floor = float((scores[i] - errors).max()) - _WINDOW * sigma**2
            index = (scores[i] + errors >= floor).nonzero().squeeze(1)
            off = float(errors[index].max()) / sigma**2
            # One point in question has all the weight, whatever its score.
            if len(index) > 1 and off > limit:
                if len(index) > _NEAR:
                    self.lost[row] = True
                else:
                    asked[i] = index
            elif len(index) > 1:
                self.error[row] = max(float(self.error[row]), off)
        if asked:
            self._by_differences(rows, u, asked, scores, left, sigma)

    def _by_differences(
        self, rows: Tensor, u: Tensor, asked: dict[int, Tensor], scores: Tensor, left: Tensor, sigma: float
    ) -> None:
        """Put −½‖x − y_k‖² for the scores of the points asked for, by place of their row; none for the others."""
        short = [
            i
            for i, index in asked.items()
            if 2 * float(left[i].norm()) * float(self.basis.rest[index].max()) / sigma**2 > self.tolerance / 10
        ]
        if short:
            mask = torch.zeros(self.D.points.size, dtype=torch.bool, device=u.device)
            mask[torch.cat([asked[i] for i in short])] = True
            self._compute(rows[short], u[short], sigma, mask)
            left[short] = 0.0
        points, places = self.D.points, list(asked)
        for i, x in zip(places, self.states(rows[places], u[places]), strict=True):
            index, row = asked[i], int(rows[i])
            half = torch.empty(len(index), dtype=torch.float64, device=u.device)
            for start, block in points.blocks(points.few_rows, u.device, index):
                half[start : start + len(block)] = (block - x).square_().sum(1) / 2
            leads = half.min() - half
            close = index[leads >= -_WINDOW * sigma**2]
            one = torch.empty(1, points.dim, dtype=torch.float64, device=u.device)
            nearest = points.read(index[half.argmin()][None], one)
            blocks = points.blocks(points.few_rows, u.device, close)
            apart = max(float((block - nearest).norm(dim=1).max()) for _, block in blocks)
            off = _UNIT * float(x.norm()) * apart / sigma**2
            scores[i] = -torch.inf
            scores[i, index] = leads.float()
            if off > self.tolerance:
                self.lost[row] = True
            else:
                self.error[row] = max(float(self.error[row]), off)

    def _summed(self, rows: Tensor, left: Tensor, weights: Tensor, sigma: float) -> tuple[Tensor, Tensor]:
        """The means of the points' coordinates, (b, r + S) float64, and how far log-weights may be off.

        The latter, (b,) nats, is the deviation, under the weights, of the error of o·R_k/σ²; what all weights share
        does not count.
        """
        on, outside = self.candidates.inside(rows, weights)
        few = (self.candidates.filled[rows] > 0) & (outside <= _OUTSIDE)
        mean = torch.zeros(len(rows), self.layout.rank + SKETCH, dtype=torch.float64, device=rows.device)
        square = torch.zeros_like(outside)
        at = few.nonzero().squeeze(1)
        if len(at):
            row, place = (on[at] > 1e-12).nonzero(as_tuple=True)
            weight, index = on[at][row, place], self.candidates.index[rows[at]]
            mean[at] = mean[at].index_add_(0, row, weight[:, None] * self.basis.coordinates[index[row, place]].double())
            sketches = self.candidates.sketches[rows[at]]
            apart = sketches[row, place] - sketches[row, on[at].argmax(1)[row]]
            square[at] = square[at].index_add_(0, row, weight * apart.square().sum(1))
        at = (~few).nonzero().squeeze(1)
        if len(at):
            some = weights if len(at) == len(weights) else weights[at]
            mean[at] = self._mean(some).double()
            spread = (some @ self._sketch_squares).double() - mean[at][:, self.layout.rank :].square().sum(1)
            square[at] = spread.clamp_min(0)
        doubt = left.norm(dim=1) * square.sqrt()
        at = (self._vague[rows] > 0).nonzero().squeeze(1)
        if len(at):
            far = weights[at].masked_fill(self._full[rows[at]], 0.0)
            spread = far @ self._sketch_squares + far.sum(1) * mean[at][:, self.layout.rank :].square().sum(1)
            doubt[at] = torch.hypot(doubt[at], self._vague[rows[at]] * (2 * spread).sqrt())
        return mean, _SPREAD * doubt / sigma**2

    def _mean(self, weights: Tensor) -> Tensor:
        """The coordinates of the means of the points under weights (b, N), (b, r + S)."""
        coordinates = self.basis.coordinates
        # The product packs its right matrix. For 2 to 8 columns what it does with the other is 20 times slower.
        return weights @ coordinates if len(weights) < 16 else (coordinates.T @ weights.T).T

    def _unsafe(self, rows: Tensor, left: Tensor, weights: Tensor, sigma: float) -> tuple[Tensor, Tensor]:
        """Rows in which what was left out might bring up a point that has hardly any weight, (b,) bool; these, (N,).

        `doubt` sees the points that have some. Here five standard deviations of the error of a lead count.
        """
        unsafe = torch.zeros(len(rows), dtype=torch.bool, device=rows.device)
        by = torch.zeros(weights.shape[1], dtype=torch.bool, device=rows.device)
        length, scale = self._sketch_squares.sqrt(), 5 * _SPREAD / sigma**2
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

    def _look(self, rows: Tensor, on: Tensor, weights: Tensor, left: Tensor, sigma: float) -> None:
        """Write down which rows have all their weight on one of their candidates, for `settle`."""
        top, place = on.max(1)
        at = ((top >= 1 - _SURE) & ~self._unsafe(rows, left, weights, sigma)[0]).nonzero().squeeze(1)
        if len(at) == 0:
            return
        row, index = rows[at], self.candidates.index[rows[at]]
        leader = index.gather(1, place[at, None])
        others = weights[at].scatter(1, leader, 0.0)
        beside = others.sum(1).double()
        self._top[row] = leader.squeeze(1)
        self._lead[row] = (top[at] / beside.clamp_min(1e-300)).log()
        # ‖y_j − y‖ is at most ‖y_j − c‖ + ‖y − c‖.
        norms = self._norms
        self._pull[row] = (others @ norms.float()).double() + norms[leader.squeeze(1)] * beside

    def _compute(self, rows: Tensor, u: Tensor, sigma: float, near: Tensor) -> None:
        """Compute Σ_j c_j R_j of the state u, and its products with the points `near`, (N,) bool."""
        points, vectors = self.D.points, self.basis.vectors
        alpha, rest = self._left(rows, u)
        weights = self._coefficients(rows, rest)
        # What is estimated of it, for the other points.
        parts = self.layout.parts(rest)
        left = parts.sketch - torch.einsum("bm,bms->bs", parts.candidates, self.candidates.sketches[rows])
        # Coefficients that change no log-weight by a hundredth of the tolerance, all together, are not looked at.
        accuracy = self.tolerance * sigma**2 / (20 * float(self.basis.rest.max()) ** 2 + 1e-30)
        index = listed((weights.abs() > 0.2 * accuracy / points.size).any(0))
        if index is not None:
            weights = weights[:, index]
        added = combination(points, weights, index, accuracy).float()
        added -= (added @ vectors) @ vectors.T
        residual = alpha[:, None].float() * self._residual[rows] + added
        index = listed(near)
        found = products(points, residual.double(), 2, index).float()
        if index is None:
            self._corrections[rows], self._full[rows], self._vague[rows] = found, True, 0.0
        else:
            self._estimate(rows, parts, left, alpha)
            self._corrections[rows[:, None], index] = found
            self._full[rows] = False
            self._full[rows[:, None], index] = True
        self._residual[rows], self._known[rows] = residual, u
        self.computed[rows] += 1

    def _estimate(self, rows: Tensor, parts: Parts, left: Tensor, alpha: Tensor) -> None:
        """Add to the products with all points what the projections and the candidates tell."""
        sketches = self.basis.coordinates[:, self.basis.rank :]
        added = left.float() @ sketches.T
        change = torch.einsum("bm,bmn->bn", parts.candidates, self.candidates.gram[rows])
        added.scatter_add_(1, self.candidates.index[rows], change.float())
        self._corrections[rows] = alpha[:, None].float() * self._corrections[rows] + added
        self._vague[rows] = alpha.abs() * self._vague[rows] + left.norm(dim=1)

    def _coefficients(self, rows: Tensor, u: Tensor) -> Tensor:
        """Σ over the calls of what each adds to the coefficients c_j of u, (b, N) float64."""
        parts = self.layout.parts(u)
        out = torch.zeros(len(rows), self.D.points.size, dtype=torch.float64, device=u.device)
        place = torch.full_like(self.leader, -1)
        for call, (of, weights) in enumerate(self._history):
            place[of] = torch.arange(len(of), device=of.device)
            here = ((parts.calls[:, call] != 0) & (place[rows] >= 0)).nonzero().squeeze(1)
            if len(here):
                out[here] += parts.calls[here, call, None] * weights[place[rows[here]]]
            place[of] = -1
        return out.scatter_add_(
            1, self.candidates.index[rows], parts.candidates.masked_fill(~self.candidates.valid(rows), 0.0)
        )

    def confirmed(self) -> Tensor:
        """(B,) int64: the point each row was decided for, if the exact denoiser says the same there; else −1."""
        index = torch.full_like(self.leader, -1)
        rows = (self.leader >= 0).nonzero().squeeze(1)
        if len(rows) == 0:
            return index
        z = self.states(rows, self.decided[rows])
        exact = Evaluator(self.D.points, Accuracy("screened", self.D.evaluator.accuracy.memory))
        sums = exact.moments(z, self.sigma_decided[rows], single=True)
        same = (self.D.take(sums.index) == self.D.take(self.leader[rows])).flatten(1).all(1)
        sure = same & (1 / sums.total > 1 - 100 * _SURE)
        index[rows[sure]] = sums.index[sure]
        return index

    def means(self, rows: Tensor, u: Tensor) -> Tensor:
        """(b, dim) float64, minus the centre: the means of points that the coordinates u, of outputs, stand for."""
        return combination(self.D.points, self._coefficients(rows, u), None, 1e-7)

    def states(self, rows: Tensor, u: Tensor) -> Tensor:
        """(b, dim) float64, minus the centre: the states that the coordinates u stand for, as far as they are known."""
        alpha, rest = self._left(rows, u)
        coefficients = self.layout.parts(rest).candidates
        points, rank = self.D.points, self.basis.rank
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
