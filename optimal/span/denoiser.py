"""D in coordinates of the noise and the data: see `optimal.span`, which samples with it."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..denoiser import OptimalDenoiser
from ..evaluate import Accuracy, Evaluator
from .basis import SKETCH, Basis
from .coordinates import CANDIDATES, Candidates, Layout
from .left_out import LeftOut
from .line import Line
from .products import products
from .rounding import WINDOW, in_question, leads_by_differences, roughness

__all__ = ["SpanDenoiser", "row_bytes"]

_OUTSIDE = 1e-7
"""Weight outside the candidates below which the mean is theirs."""
_NEAR = 2048
"""Most points of a row whose distances are taken where their products are too coarse."""
_SURE = 1e-6
"""1 − the leader's weight below which a row may be decided."""
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
        left_out: what the axes leave out of the states.
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
        self.candidates = Candidates(points, basis, batch, device)
        self.layout = Layout(basis.rank, calls, self.candidates.slots)
        self.left_out = LeftOut(points, basis, self.candidates, self.layout, z, self.length)
        self.start = z.new_zeros(batch, self.layout.size)
        self.start[:, 0] = self.length
        self.error = z.new_zeros(batch)
        self.leader = torch.full((batch,), -1, dtype=torch.int64, device=device)
        self.lost = torch.zeros(batch, dtype=torch.bool, device=device)
        self.sigma_decided, self.decided = z.new_zeros(batch), torch.zeros_like(self.start)
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
        unsafe, by = self.left_out.unsafe(rows, left, weights, sigma)
        again = ((doubt > self.tolerance) | unsafe).nonzero().squeeze(1)
        if len(again):
            near = weights[again] > math.exp(-WINDOW) * weights[again].amax(1, keepdim=True)
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
            rest = weights[spread]
            self.candidates.clear(rows[spread], rest)
            parts.calls[spread, self.left_out.keep(rows[spread], rest)] = 1.0
        return out

    def weights(self, rows: Tensor, u: Tensor, sigma: float) -> tuple[Tensor, Tensor]:
        """The projections of what is left out of u, (b, S) float64, and the weights of all points, (b, N) float32."""
        alpha, rest = self.left_out.since(rows, u)
        parts, left = self.layout.parts(u), self.left_out.sketch(rows, rest)
        noise = parts.noise / self.length[rows, None]
        scores = self._scores(rows, noise, alpha[:, None], torch.cat([parts.axes, left], 1))
        self.candidates.add_products(rows, self.layout.parts(rest).candidates, scores)
        scores.sub_(scores.amax(1, keepdim=True))
        size = parts.axes.norm(dim=1) + left.norm(dim=1) + self.left_out.known_length(rows, alpha)
        size += noise.squeeze(1) * self.length[rows] * self._reach[rows]
        self._repair(rows, u, scores, left, size, sigma)
        scores.mul_(1 / sigma**2).exp_()
        scores /= scores.sum(1, keepdim=True)
        return left, scores

    def _scores(self, rows: Tensor, noise: Tensor, alpha: Tensor, coordinates: Tensor) -> Tensor:
        """(x − c)·(y_k − c) − ½‖y_k − c‖², (b, N) float32, but for the candidates' own products."""
        every = len(rows) == len(self.z)
        noise, alpha, right = noise.float(), alpha.float(), coordinates.float().T
        computed, corrections = bool((self.left_out.computed[rows] > 0).any()), self.left_out.corrections
        scores = torch.empty(len(rows), self.D.points.size, dtype=torch.float32, device=rows.device)
        for start in range(0, scores.shape[1], _CHUNK):
            part = slice(start, start + _CHUNK)
            to = scores[:, part]
            products = self._products[:, part] if every else self._products[rows, part]
            torch.addcmul(-self._half_norms[part], noise, products, out=to)
            if computed:
                to.addcmul_(alpha, corrections[:, part] if every else corrections[rows, part])
            to += torch.mm(self.basis.coordinates[part], right).T
        return scores

    def _repair(self, rows: Tensor, u: Tensor, scores: Tensor, left: Tensor, size: Tensor, sigma: float) -> None:
        """Where float32 is too coarse for the scores of the leading points, take these by differences."""
        off = roughness(self._norms.max(), size) / sigma**2
        norms, asked = self._norms.float(), dict[int, Tensor]()
        for i in (off > self.tolerance).nonzero().squeeze(1).tolist():
            index, error = in_question(scores[i], norms, float(size[i]), sigma)
            if error > self.tolerance:
                # Measured below, or left to the exact denoiser.
                error = 0.0
                if len(index) > _NEAR:
                    self.lost[rows[i]] = True
                else:
                    asked[i] = index
            off[i] = error
        self.error[rows] = torch.maximum(self.error[rows], off)
        if not asked:
            return
        rest = self.basis.rest
        short = [
            i
            for i, index in asked.items()
            if 2 * float(left[i].norm()) * float(rest[index].max()) / sigma**2 > self.tolerance / 10
        ]
        if short:
            mask = torch.zeros(self.D.points.size, dtype=torch.bool, device=u.device)
            mask[torch.cat([asked[i] for i in short])] = True
            self._compute(rows[short], u[short], sigma, mask)
            left[short] = 0.0
        places = list(asked)
        for i, x in zip(places, self.left_out.states(rows[places], u[places]), strict=True):
            leads, error = leads_by_differences(self.D.points, x, asked[i], sigma)
            scores[i] = -torch.inf
            scores[i, asked[i]] = leads.float()
            row = int(rows[i])
            if error > self.tolerance:
                self.lost[row] = True
            else:
                self.error[row] = max(float(self.error[row]), error)

    def _compute(self, rows: Tensor, u: Tensor, sigma: float, near: Tensor) -> None:
        """Compute what is left out of u, so that no log-weight is off by more than a twentieth of the tolerance."""
        accuracy = self.tolerance * sigma**2 / (20 * float(self.basis.rest.max()) ** 2 + 1e-30)
        self.left_out.compute(rows, u, accuracy, near)

    def _summed(self, rows: Tensor, left: Tensor, weights: Tensor, sigma: float) -> tuple[Tensor, Tensor]:
        """The means of the points' coordinates, (b, r + S) float64, and how far log-weights may be off, (b,) nats."""
        on, outside = self.candidates.inside(rows, weights)
        few = (self.candidates.filled[rows] > 0) & (outside <= _OUTSIDE)
        mean = torch.zeros(len(rows), self.layout.rank + SKETCH, dtype=torch.float64, device=rows.device)
        square = torch.zeros_like(outside)
        at = few.nonzero().squeeze(1)
        if len(at):
            row, place = (on[at] > 1e-12).nonzero(as_tuple=True)
            weight, index = on[at][row, place], self.candidates.index[rows[at]]
            mean[at] = mean[at].index_add_(0, row, weight[:, None] * self.basis.coordinates[index[row, place]].double())
            sketches, of = self.candidates.sketches, rows[at][row]
            apart = sketches[of, place] - sketches[of, on[at].argmax(1)[row]]
            square[at] = square[at].index_add_(0, row, weight * apart.square().sum(1))
        at = (~few).nonzero().squeeze(1)
        if len(at):
            some = weights if len(at) == len(weights) else weights[at]
            mean[at] = self._mean(some).double()
            spread = (some @ self.left_out.sketch_squares).double() - mean[at][:, self.layout.rank :].square().sum(1)
            square[at] = spread.clamp_min(0)
        return mean, self.left_out.doubt(rows, left, square, weights, mean[:, self.layout.rank :], sigma)

    def _mean(self, weights: Tensor) -> Tensor:
        """The coordinates of the means of the points under weights (b, N), (b, r + S)."""
        coordinates = self.basis.coordinates
        # The product packs its right matrix. For 2 to 8 columns what it does with the other is 20 times slower.
        return weights @ coordinates if len(weights) < 16 else (coordinates.T @ weights.T).T

    def _look(self, rows: Tensor, on: Tensor, weights: Tensor, left: Tensor, sigma: float) -> None:
        """Write down which rows have all their weight on one of their candidates, for `settle`."""
        top, place = on.max(1)
        at = ((top >= 1 - _SURE) & ~self.left_out.unsafe(rows, left, weights, sigma)[0]).nonzero().squeeze(1)
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

    def confirmed(self) -> Tensor:
        """(B,) int64: the point each row was decided for, if the exact denoiser says the same there; else −1."""
        index = torch.full_like(self.leader, -1)
        rows = (self.leader >= 0).nonzero().squeeze(1)
        if len(rows) == 0:
            return index
        z = self.left_out.states(rows, self.decided[rows])
        exact = Evaluator(self.D.points, Accuracy("screened", self.D.evaluator.accuracy.memory))
        sums = exact.moments(z, self.sigma_decided[rows], single=True)
        same = (self.D.take(sums.index) == self.D.take(self.leader[rows])).flatten(1).all(1)
        sure = same & (1 / sums.total > 1 - 100 * _SURE)
        index[rows[sure]] = sums.index[sure]
        return index
