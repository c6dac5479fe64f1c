"""D in coordinates of the noise and the data: see `optimal.span`, which samples with it."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..denoiser import OptimalDenoiser
from ..evaluate import Accuracy, Evaluator, byte_logits
from ..points import Points
from .basis import SKETCH, Basis

__all__ = ["SpanDenoiser"]

_CANDIDATES = 128
"""Of a row, first; and as many again where they turn out not to hold all of its weight."""
_OUTSIDE = 1e-7
"""Weight outside the candidates below which only they are looked at."""
_WINDOW = 18.0
"""Nats below the leader from which on the part left out is not computed: as it is, it is known to the tolerance."""
_NEAR = 2048
"""Points whose distances are taken where their products are too coarse."""
_FLOAT32 = 2.0**-23
_SPREAD = math.sqrt(2 / SKETCH)
"""Standard deviation, at most, of the product of two vectors' projections, over the product of their lengths."""
_SURE = 1e-6
"""1 − the leader's weight below which a row is decided."""
_CHUNK = 2048


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
        computed: (B,) how often the part left out was computed.
    """

    def __init__(self, D: OptimalDenoiser, basis: Basis, z: Tensor, *, calls: int = 128, tolerance: float = 0.02):
        points = D.points
        self.D, self.basis, self.z, self.tolerance = D, basis, z, tolerance
        self.products = _products(points, z, 3)
        self.half_norms = points.half_norms.to(z.device)
        self._squares = basis.coordinates[:, basis.rank :].square().sum(1)
        self.length = z.norm(dim=1).clamp_min(torch.finfo(torch.float64).tiny)
        self._short = self.products.float(), self.half_norms.float()
        batch, slots = len(z), 2 * min(_CANDIDATES, points.size)
        self._sizes = (1, basis.rank, SKETCH, calls, slots)
        self.start = z.new_zeros(batch, sum(self._sizes))
        self.start[:, 0] = self.length
        self.error = z.new_zeros(batch)
        self.leader = torch.full((batch,), -1, device=z.device)
        self.sigma_decided, self.decided = z.new_zeros(batch), torch.zeros_like(self.start)
        self.closed = torch.zeros(batch, dtype=torch.bool, device=z.device)
        self.filled = torch.zeros(batch, dtype=torch.int64, device=z.device)
        self.candidates = torch.zeros(batch, slots, dtype=torch.int64, device=z.device)
        self.gram = z.new_zeros(batch, slots, slots)
        self.sketches = z.new_zeros(batch, slots, SKETCH)
        # What is left out of the state `_known`, and its products with the data: in full from there on.
        self.computed = torch.zeros_like(self.filled)
        self._known, self._residual = torch.zeros_like(self.start), torch.zeros_like(z, dtype=torch.float32)
        self._corrections = torch.zeros_like(self._short[0])
        # The weights of every call over all points, of the rows that it was for; those of candidates are in q.
        self._history: list[tuple[Tensor, Tensor]] = []

    def __call__(self, x: Tensor, sigma: float | Tensor) -> Tensor:
        """The coordinates of D at those of x, (B, K)."""
        level = float(sigma)
        out = torch.zeros_like(x)
        decided, closed = self.leader >= 0, self.closed.clone()
        for mask, evaluate in ((~decided & ~closed, self._over_all), (~decided & closed, self._over_candidates)):
            rows = mask.nonzero().squeeze(1)
            if len(rows):
                out[rows] = evaluate(rows, x[rows], level)
        rows = decided.nonzero().squeeze(1)
        if len(rows):
            leader = self.leader[rows]
            _, p, e, _, q = self._split(out)
            coordinates = self.basis.coordinates[leader].double()
            p[rows], e[rows] = coordinates[:, : self.basis.rank], coordinates[:, self.basis.rank :]
            q[rows] = (self._valid(rows) & (self.candidates[rows] == leader[:, None])).double()
        return out

    def _split(self, u: Tensor) -> tuple[Tensor, ...]:
        """a (b, 1), p, e, h and q: views of u."""
        return u.split(self._sizes, 1)

    def _valid(self, rows: Tensor) -> Tensor:
        return torch.arange(self.candidates.shape[1], device=rows.device) < self.filled[rows, None]

    def _left(self, rows: Tensor, u: Tensor) -> tuple[Tensor, Tensor]:
        """α, (b,), and u less α times the state whose left-out part is known; α is the scale of the noise."""
        known = self._known[rows]
        alpha = torch.where(self.computed[rows] > 0, u[:, 0] / known[:, 0], 0.0)
        return alpha, u - alpha[:, None] * known

    def _projections(self, rows: Tensor, left: Tensor) -> Tensor:
        """(b, S) those of the part left out, o: less what the candidates' own Gram matrix holds."""
        _, _, e, _, q = self._split(left)
        return e - torch.einsum("bm,bms->bs", q, self.sketches[rows])

    def _unsafe(self, rows: Tensor, out: Tensor, on: Tensor, sigma: float) -> Tensor:
        """(b,) bool: rows whose leader has all the weight, but whose lead what was left out might undo.

        on, (b, n), are the weights of their candidates.
        """
        sketches = self.sketches[rows, : on.shape[1]]
        top, leader = on.max(1)
        apart = (sketches - sketches[torch.arange(len(rows), device=rows.device), leader][:, None]).norm(dim=2)
        lead = (top[:, None] / on.clamp_min(1e-300)).log()
        valid = self._valid(rows)[:, : on.shape[1]]
        error = _SPREAD * out.norm(dim=1)[:, None] * apart / sigma**2
        return (top >= 1 - _SURE) & ((5 * error > lead) & valid).any(1)

    def _doubt(self, out: Tensor, sigma: float, squares: Tensor, mean: Tensor) -> Tensor:
        """(b,) nats: the deviation, under the weights, of the error of o·R_k/σ².

        squares, (b,), and mean, (b, S), are those of the projections of R_k: what all weights share does not count.
        """
        return _SPREAD * out.norm(dim=1) * (squares - mean.square().sum(1)).clamp_min(0).sqrt() / sigma**2

    def _over_all(self, rows: Tensor, u: Tensor, sigma: float) -> Tensor:
        """Over all points, in float32."""
        call, squares = len(self._history), self._squares
        if call == self._sizes[3]:
            raise RuntimeError(f"more than {call} calls")
        out, weights = self._weights(rows, u, sigma)
        mean = self._mean(weights)
        doubt = self._doubt(out, sigma, (weights @ squares).double(), mean[:, self.basis.rank :].double())
        unsafe = torch.zeros_like(doubt, dtype=torch.bool)
        known = self.filled[rows].nonzero().squeeze(1)
        if len(known):
            on = weights[known].gather(1, self.candidates[rows[known]]).masked_fill_(~self._valid(rows[known]), 0.0)
            unsafe[known] = self._unsafe(rows[known], out[known], on.double(), sigma)
        again = ((doubt > self.tolerance) | unsafe).nonzero().squeeze(1)
        if len(again):
            near = (weights[again] > math.exp(-_WINDOW) * weights[again].amax(1, keepdim=True)).any(0)
            self._compute(rows[again], u[again], sigma, near)
            _, weights[again] = self._weights(rows[again], u[again], sigma)
            mean[again] = self._mean(weights[again])
            doubt[again] = 0.0
        if self._rounds(sigma):
            for i in range(len(rows)):
                index = weights[i].topk(min(_NEAR, weights.shape[1])).indices.sort().values
                weights[i] = torch.zeros_like(weights[i]).index_copy_(
                    0, index, self._by_distances(rows[i : i + 1], u[i : i + 1], index, sigma).float()
                )
            mean = self._mean(weights)
        self.error[rows] = torch.maximum(self.error[rows], doubt)
        out = torch.zeros_like(u)
        out[:, 1 : 1 + mean.shape[1]] = mean
        _, _, _, h, q = self._split(out)
        h[:, call] = 1.0
        self._add_candidates(rows, weights)
        with_candidates = self.filled[rows].nonzero().squeeze(1)
        if len(with_candidates):
            at = rows[with_candidates]
            on = weights[with_candidates].gather(1, self.candidates[at]).masked_fill_(~self._valid(at), 0.0).double()
            q[with_candidates] = on
            rest = weights[with_candidates].scatter_(1, self.candidates[at], 0.0)
            weights[with_candidates] = rest
            done = rest.sum(1) <= _OUTSIDE
            self.closed[at[done]] = True
            self._decide(at[done], u[with_candidates[done]], on[done], sigma)
        self._history.append((rows, weights))
        return out

    def _weights(self, rows: Tensor, u: Tensor, sigma: float) -> tuple[Tensor, Tensor]:
        """The projections of what is left out of u, and the weights of all points, (b, N) float32."""
        alpha, left = self._left(rows, u)
        a, p, _, _, _ = self._split(u)
        q, out = self._split(left)[4], self._projections(rows, left)
        a, alpha, p = (a / self.length[rows, None]).float(), alpha[:, None].float(), torch.cat([p, out], 1).float().T
        every = len(rows) == len(self.z)
        products, half_norms = self._short
        corrections, computed = self._corrections, bool((self.computed[rows] > 0).any())
        coordinates = self.basis.coordinates
        weights = torch.empty(len(rows), len(coordinates), device=u.device)
        for start in range(0, len(coordinates), _CHUNK):
            part = slice(start, start + _CHUNK)
            scores = weights[:, part]
            torch.addcmul(-half_norms[part], a, products[:, part] if every else products[rows, part], out=scores)
            if computed:
                scores.addcmul_(alpha, corrections[:, part] if every else corrections[rows, part])
            scores += torch.mm(coordinates[part], p).T
        weights *= 1 / sigma**2
        known = self.filled[rows].nonzero().squeeze(1)
        if len(known):
            at = rows[known]
            change = torch.einsum("bm,bmn->bn", q[known], self.gram[at]) / sigma**2
            weights[known] = weights[known].scatter_add_(1, self.candidates[at], change.float())
        weights.sub_(weights.amax(1, keepdim=True)).exp_()
        weights /= weights.sum(1, keepdim=True)
        return out, weights

    def _mean(self, weights: Tensor) -> Tensor:
        """The coordinates of the means of the points under weights (b, N), (b, r + S)."""
        coordinates = self.basis.coordinates
        # The product packs its right matrix. For 2 to 8 columns what it does with the other is 20 times slower.
        return weights @ coordinates if len(weights) < 16 else (coordinates.T @ weights.T).T

    def _rounds(self, sigma: float) -> bool:
        """Whether products of coordinates are too coarse in float32: leads are differences of squares of this size."""
        return _FLOAT32 * self.D.points.radius**2 / sigma**2 > self.tolerance

    def _by_distances(self, row: Tensor, u: Tensor, index: Tensor, sigma: float) -> Tensor:
        """The weights of the points `index` of one row, (n,), by ‖x − y_k‖² in float64."""
        points = self.D.points
        x = self.states(row, u)[0] - points.centre
        out = torch.empty(len(index), dtype=torch.float64, device=u.device)
        for start, block in points.blocks(points.few_rows, u.device, index):
            out[start : start + len(block)] = (block - x).square().sum(1)
        return (out / (-2 * sigma**2)).softmax(0)

    def _compute(self, rows: Tensor, u: Tensor, sigma: float, near: Tensor) -> None:
        """Compute Σ_j c_j R_j of the state u, and its products with the points `near`, (N,) bool."""
        points, vectors = self.D.points, self.basis.vectors
        alpha, left = self._left(rows, u)
        weights = self._coefficients(rows, left)
        # Coefficients that change no log-weight by a hundredth of the tolerance, all together, are not looked at.
        accuracy = self.tolerance * sigma**2 / (20 * float(self.basis.rest.max()) ** 2 + 1e-30)
        index = _listed((weights.abs() > 0.2 * accuracy / points.size).any(0))
        if index is not None:
            weights = weights[:, index]
        added = _combination(points, weights, index, accuracy).float()
        added -= (added @ vectors) @ vectors.T
        residual = alpha[:, None].float() * self._residual[rows] + added
        index = _listed(near)
        products = _products(points, residual.double(), 2, index).float()
        if index is None:
            self._corrections[rows] = products
        else:
            self._corrections[rows] *= alpha[:, None].float()
            self._corrections[rows[:, None], index] = products
        self._residual[rows], self._known[rows] = residual, u
        self.computed[rows] += 1

    def _coefficients(self, rows: Tensor, u: Tensor) -> Tensor:
        """Σ over the calls of what each adds to the coefficients c_j of u, (b, N) float64."""
        _, _, _, h, q = self._split(u)
        out = torch.zeros(len(rows), self.D.points.size, dtype=torch.float64, device=u.device)
        place = torch.full_like(self.filled, -1)
        for call, (of, weights) in enumerate(self._history):
            place[of] = torch.arange(len(of), device=of.device)
            here = ((h[:, call] != 0) & (place[rows] >= 0)).nonzero().squeeze(1)
            if len(here):
                out[here] += h[here, call, None] * weights[place[rows[here]]]
            place[of] = -1
        return out.scatter_add_(1, self.candidates[rows], q.masked_fill(~self._valid(rows), 0.0))

    def _add_candidates(self, rows: Tensor, weights: Tensor) -> None:
        """Choose the candidates of rows whose weight lies on few points; and others, once, where those did not do."""
        half = self.candidates.shape[1] // 2
        count = 1 / weights.square().sum(1)
        filled = self.filled[rows]
        wanted = ((filled == 0) & (count < half / 2)) | ((filled == half) & (count < half / 16))
        for i in wanted.nonzero().squeeze(1).tolist():
            row = int(rows[i])
            known = self.candidates[row, : int(filled[i])]
            open_weights = weights[i].index_fill(0, known, -1.0) if len(known) else weights[i]
            new = open_weights.topk(half).indices.sort().values
            self._extend(row, torch.cat([known, new]))

    def _extend(self, row: int, index: Tensor) -> None:
        points, rank, size = self.D.points, self.basis.rank, len(index)
        own = self.basis.coordinates[index]
        self.candidates[row, :size] = index
        self.gram[row, :size, :size] = _gram(points, index) - (own[:, :rank] @ own[:, :rank].T).double()
        self.sketches[row, :size] = own[:, rank:].double()
        self.filled[row] = size

    def _over_candidates(self, rows: Tensor, u: Tensor, sigma: float) -> Tensor:
        """Over the candidates only, in float64."""
        size, rank = int(self.filled[rows].max()), self.basis.rank
        index, valid = self.candidates[rows, :size], self._valid(rows)[:, :size]
        sketches = self.sketches[rows, :size]
        own = self.basis.coordinates[index]
        a, p, _, _, _ = self._split(u)
        fixed = (a / self.length[rows, None]) * self.products[rows[:, None], index] - self.half_norms[index]
        fixed += torch.einsum("br,bmr->bm", p.float(), own[..., :rank])

        def weights() -> tuple[Tensor, Tensor]:
            alpha, left = self._left(rows, u)
            q, out = self._split(left)[4][:, :size], self._projections(rows, left)
            scores = fixed + alpha[:, None] * self._corrections[rows[:, None], index]
            scores += torch.einsum("bm,bmn->bn", q, self.gram[rows, :size, :size])
            scores += torch.einsum("bs,bms->bm", out, sketches)
            return out, (scores / sigma**2).masked_fill_(~valid, -torch.inf).softmax(1)

        left_out, on = weights()
        mean = torch.einsum("bm,bms->bs", on, sketches)
        doubt = self._doubt(left_out, sigma, (on * sketches.square().sum(2)).sum(1), mean)
        again = (doubt > self.tolerance) | self._unsafe(rows, left_out, on, sigma)
        if again.any():
            near = torch.zeros(self.D.points.size, dtype=torch.bool, device=u.device)
            near[index[again].flatten()] = True
            self._compute(rows[again], u[again], sigma, near)
            _, on = weights()
        if self._rounds(sigma):
            for i, filled in enumerate(self.filled[rows].tolist()):
                on[i, :filled] = self._by_distances(rows[i : i + 1], u[i : i + 1], index[i, :filled], sigma)
        self.error[rows] = torch.maximum(self.error[rows], doubt.masked_fill(again, 0.0))
        out = torch.zeros_like(u)
        out[:, 1 : 1 + own.shape[2]] = torch.einsum("bm,bmr->br", on.float(), own)
        self._split(out)[4][:, :size] = on
        self._decide(rows, u, on, sigma)
        return out

    def _decide(self, rows: Tensor, u: Tensor, weights: Tensor, sigma: float) -> None:
        sure = weights.amax(1) >= 1 - _SURE
        at = rows[sure]
        self.leader[at] = self.candidates[at, weights[sure].argmax(1)]
        self.sigma_decided[at], self.decided[at] = sigma, u[sure]

    def confirmed(self) -> Tensor:
        """(B,) int64: the point each row was decided for, if the exact denoiser says the same there; else −1."""
        index = torch.full_like(self.leader, -1)
        rows = (self.leader >= 0).nonzero().squeeze(1)
        if len(rows) == 0:
            return index
        z = (self.states(rows, self.decided[rows]) - self.D.points.centre).float().double()
        exact = Evaluator(self.D.points, Accuracy("screened", self.D.evaluator.accuracy.memory))
        sums = exact.moments(z, self.sigma_decided[rows], single=True)
        same = (self.D.take(sums.index) == self.D.take(self.leader[rows])).flatten(1).all(1)
        sure = same & (1 / sums.total > 1 - 100 * _SURE)
        index[rows[sure]] = sums.index[sure]
        return index

    def means(self, rows: Tensor, u: Tensor) -> Tensor:
        """(b, dim) float64, the means of data points that the coordinates u, of denoiser outputs, stand for."""
        weights = self._coefficients(rows, u)
        return _combination(self.D.points, weights, None, 1e-7) + self.D.points.centre

    def states(self, rows: Tensor, u: Tensor) -> Tensor:
        """(b, dim) float64, the points that the coordinates u of these rows stand for, as far as they are known."""
        a, p, _, _, _ = self._split(u)
        alpha, left = self._left(rows, u)
        q = self._split(left)[4]
        points, rank = self.D.points, self.basis.rank
        short = p.clone()
        out = points.centre + (a / self.length[rows, None]) * self.z[rows] + alpha[:, None] * self._residual[rows]
        for i, row in enumerate(rows.tolist()):
            used = q[i].abs() > 1e-9
            if used.any():
                index = self.candidates[row, used]
                block = points.read(index, torch.empty(len(index), points.dim, device=u.device))
                out[i] += q[i, used] @ block.double()
                short[i] -= q[i, used] @ self.basis.coordinates[index, :rank].double()
        return out + (short.float() @ self.basis.vectors.T).double()


def _listed(mask: Tensor) -> Tensor | None:
    """The places of a mask, or None where reading all points is no slower."""
    index = mask.nonzero().squeeze(1)
    return index if 1.25 * len(index) < len(mask) else None


def _gram(points: Points, index: Tensor) -> Tensor:
    """(y_j − c)·(y_k − c) of the points `index`, (n, n) float64."""
    if points.bytes:
        return byte_logits.gram(points, index)
    block = points.read(index, torch.empty(len(index), points.dim, device=index.device))
    return (block @ block.T).double()


def _products(points: Points, z: Tensor, digits: int, index: Tensor | None = None) -> Tensor:
    """z·(y_k − c) for the points `index` (None: all), (B, n) float64, for z (B, D) float64."""
    if points.bytes:
        return byte_logits.products(points, z, digits, index)
    out = torch.empty(len(z), points.size if index is None else len(index), dtype=torch.float64, device=z.device)
    for start, block in points.blocks(points.block_rows(len(z)), z.device, index):
        out[:, start : start + len(block)] = z @ block.T
    return out


def _combination(points: Points, weights: Tensor, index: Tensor | None, accuracy: float) -> Tensor:
    """Σ_j w_j (y_j − c), (B, D) float64, for weights (B, n) float64, used up; they count to within `accuracy`."""
    if points.bytes:
        return byte_logits.combination(points, weights, index, accuracy)
    out = torch.zeros(len(weights), points.dim, dtype=torch.float64, device=weights.device)
    for start, block in points.blocks(points.block_rows(len(weights)), weights.device, index):
        out += weights[:, start : start + len(block)] @ block
    return out
