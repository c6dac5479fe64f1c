"""The optimum of multi-step knowledge distillation (Eq. 42): one jump, taken in as many steps as one likes.

The student is trained at σ_N as in knowledge distillation, and also at the points that its own DDIM steps reach from
x_N ~ p_{t_N}. At σ_N its optimum is the teacher's end point f(x_N). With r = σ/σ_N, the points it then reaches lie on
the straight line from x_N to that end, whatever the steps in between,

    x = r x_N + (1 − r) f(x_N),    target f(x_N)                                                                (*)

so the optimum at (x, σ) is E[f(x_N) | x] over those x_N whose line passes x. In one dimension f is monotone and there
is at most one. In more we know of no proof, and have met no x with two; what is returned solves (*). Off these lines
the loss says nothing: noisy data x0 + σ ε are mostly off them.

To evaluate it, (*) is solved for x_N. Its end is one of the data points y_k, and it is y_k if and only if the flow
leads to y_k from up the line through it, x_k = y_k + (x − y_k)/r: one run of the flow tests one k. Which to try next is
Newton's guess. f is constant almost everywhere, but seen from afar it has the slope of the flow of Gaussian data of the
same covariance C, A = √(C (C + σ_N² I)⁻¹); from the last run, f(x_j) = y_l, the candidates rank by

    ‖y_l + A (x_k − x_j) − y_k‖.

Every second try is the untried data point nearest to x, which finds the end at once where the noise is orthogonal to
the data, as in many dimensions it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Bool, Float, Num
from torch import Tensor
from tqdm import tqdm

from .denoiser import OptimalDenoiser
from .distilled import teacher_map
from .flow import FlowMap
from .numbers import require_whole
from .query import Levels, beside, levels, require_points
from .samplers import Solver

__all__ = ["MultistepKnowledgeOptimum", "multistep_knowledge_optimum"]

_TRIES = 64
_EQUAL = 1e-3
"""A teacher on a grid ends on a data point to within so many standard deviations of the data times √dim."""


def multistep_knowledge_optimum(
    D: OptimalDenoiser,
    sigmas: float | Tensor | Sequence[float],
    solver: str | Solver | None = None,
    *,
    tries: int = _TRIES,
    progress: bool = False,
    **options: Any,
) -> MultistepKnowledgeOptimum:
    """The optimal student of multi-step knowledge distillation, on its own intermediate points (Eq. 42).

    Its DDIM sampler, with any number of steps, ends where the teacher does in one jump. A call below σ_N costs a run of
    the flow for each data point that is tried, mostly one or two on the student's own points, and `tries` for a point
    that is none; `intermediate` gives such points with their ends at the cost of one.

    Args:
        D: the teacher.
        sigmas: (n + 1,) the grid of the teacher's sampler, fine enough to end on the data; or σ_N alone, for the exact
            flow.
        solver, options: of the teacher's sampler, as for `FlowMap`.
        tries: data points that are tried before x is given up as unreached. With len(D) the search is exhaustive.
        progress: whether a progress bar of the search is drawn on stderr.

    Raises:
        ValueError: as for `FlowMap`; D not an `OptimalDenoiser`; tries < 1.

    Example:
        >>> from optimal import OptimalDenoiser, karras, multistep_knowledge_optimum, sample
        >>> student = multistep_knowledge_optimum(OptimalDenoiser(torch.tensor([[-1.0], [1.0]])), 80.0)
        >>> sample(student, torch.tensor([[20.0], [-3.0]]), karras(3), solver="euler").tolist()
        [[1.0], [-1.0]]
    """
    if not isinstance(D, OptimalDenoiser):
        raise ValueError(f"the search for ends among the data needs an OptimalDenoiser, got {type(D).__name__}")
    tries = require_whole("tries", tries)
    return MultistepKnowledgeOptimum(*teacher_map(D, sigmas, solver, options), tries=tries, progress=progress)


class MultistepKnowledgeOptimum:
    """See `multistep_knowledge_optimum`. A `Denoiser`, at every σ from 0 to σ_N.

    Attributes:
        sigma_max: σ_N.
        teacher: its `FlowMap`.
    """

    def __init__(self, teacher: FlowMap, sigma_max: float, *, tries: int = _TRIES, progress: bool = False):
        assert isinstance(teacher.D, OptimalDenoiser)
        self.teacher, self.sigma_max, self._data = teacher, sigma_max, teacher.D
        self._tries, self._progress = tries, progress
        self._guess: _Guess | None = None

    def __repr__(self) -> str:
        return f"MultistepKnowledgeOptimum({self.teacher!r}, sigma_max={self.sigma_max:g})"

    def __call__(self, x: Num[Tensor, "B *event"], sigma: Levels) -> Float[Tensor, "B *event"]:
        """x̂, (B, *event): f(x_N) of the x_N whose line passes x, see `reached`; where none is found, f(x, σ).

        Raises:
            ValueError: sigma above σ_N, negative or of another shape, or for a teacher on a grid below its last level
                above 0; x as for `FlowMap`.
        """
        return self._search(x, sigma)[0]

    def reached(self, x: Num[Tensor, "B *event"], sigma: Levels) -> Bool[Tensor, " B"]:
        """Whether x was found to be a point that the student's own steps reach, where Eq. 42 says what it answers."""
        return self._search(x, sigma)[1]

    def intermediate(self, x: Num[Tensor, "B *event"], sigma: Levels) -> tuple[Tensor, Tensor]:
        """Where the student's steps take x from σ_N, and its output there: Eq. 42's pairs, without a search.

        Args:
            x: (B, *event), at σ_N.
            sigma: float, () or (B,), from 0 to σ_N.

        Returns:
            r x + (1 − r) f(x), and f(x).
        """
        below = self._levels(sigma, x)
        ends = self.teacher(x, self.sigma_max)
        r = beside(below / self.sigma_max, x)
        return (ends + r * (x.double() - ends)).to(x.dtype), ends

    def _levels(self, sigma: Levels, x: Tensor) -> Tensor:
        require_points(x)
        values = levels(sigma, len(x), x.device, zero=True)
        above = values > self.sigma_max * (1 + 1e-6)
        if above.any():
            wrong = float(values[above][0])
            raise ValueError(f"sigma must lie between 0 and sigma_max = {self.sigma_max:g}, got {wrong:g}")
        return values.clamp_max(self.sigma_max)

    def _search(self, x: Tensor, sigma: Levels) -> tuple[Tensor, Tensor]:
        below, x = self._levels(sigma, x), x.detach()
        landing = self.teacher.land(x, below)
        points = self._data.points
        out, candidate = landing.x, points.inner(landing.index).clone()
        found = (below == self.sigma_max) | (below == 0)
        if found.all():
            return out, found
        self._guess = self._guess or _Guess(self._data, self.sigma_max)
        work = torch.float64 if x.dtype == torch.float64 else torch.float32
        near = self._equal_distance()
        tried = torch.zeros(len(x), points.size, dtype=torch.bool, device=x.device)
        for attempt in tqdm(range(min(self._tries, points.size)), desc="ends", leave=False, disable=not self._progress):
            rows = (~found).nonzero().squeeze(1)
            if len(rows) == 0:
                break
            tried[rows, candidate[rows]] = True
            end = points.take(candidate[rows]).double()
            r = beside(below[rows] / self.sigma_max, x)
            start = end + (x[rows].double() - end) / r
            led = self.teacher.land(start.to(work), self.sigma_max)
            landed = points.inner(led.index)
            same = (landed == candidate[rows]) & ((led.x.double() - end).flatten(1).norm(dim=1) <= near)
            out[rows[same]], found[rows[same]] = led.x[same].to(x.dtype), True
            rows, start, index = rows[~same], start[~same], landed[~same]
            if len(rows) == 0:
                continue
            if attempt % 2:
                scores = self._guess.distances(x[rows])
            else:
                scores = self._guess.newton(x[rows], below[rows] / self.sigma_max, start, index)
            candidate[rows] = scores.masked_fill(tried[rows], torch.inf).argmin(1)
        return out, found

    def _equal_distance(self) -> float:
        return _EQUAL * (self._data.standard_deviation or 1.0) * self._data.points.dim**0.5


class _Guess:
    """Rankings of the data points as ends; copies of a point are never tried."""

    def __init__(self, D: OptimalDenoiser, sigma_max: float):
        self._points = points = D.points
        self._later = points.first_copies != torch.arange(points.size, device="cpu")
        covariance = points.covariance()
        if covariance is not None:
            variances, self._basis = torch.linalg.eigh(covariance)
            variances = variances.clamp_min(0)
        else:
            # A multiple of the identity.
            variances, self._basis = (
                torch.tensor([D.standard_deviation**2], dtype=torch.float64, device=points.device),
                None,
            )
        self._slope = (variances / (variances + sigma_max**2)).sqrt()

    def newton(self, x: Tensor, r: Tensor, start: Tensor, index: Tensor) -> Tensor:
        """‖y_l + A (x_k − x_j) − y_k‖² for all k, less what does not depend on k, (B, N).

        Args:
            x: (B, *event), the point that a line is sought for.
            r: (B,) σ/σ_N.
            start, index: the last run, from x_j (B, *event) to y_l.
        """
        points = self._points
        ends, begin, query = (self._rotated(self._relative(part)) for part in (points.take(index), start, x))
        slope, r = self._slope.to(x.device), r[:, None]
        # x_k = y_k + (x − y_k)/r, so that the vector is constant − factor · y_k in the basis of the covariance.
        constant = ends + slope * (query / r - begin)
        factor = (1 - slope * (1 - 1 / r)).expand_as(constant)
        parts = [
            factor.square() @ rotated.square().T - 2 * (constant * factor) @ rotated.T
            for _, block in points.blocks(points.block_rows(len(x), device=x.device), x.device)
            for rotated in (self._rotated(block),)
        ]
        return torch.cat(parts, 1).masked_fill_(self._later.to(x.device), torch.inf)

    def distances(self, x: Tensor) -> Tensor:
        """½‖x − y_k‖² for all k, less what does not depend on k, (B, N)."""
        parts = [part for _, part in self._points.half_distances(self._relative(x))]
        return torch.cat(parts, 1).masked_fill_(self._later.to(x.device), torch.inf)

    def _relative(self, x: Tensor) -> Tensor:
        """x − c, (B, D) float64, as `Points` has it."""
        return x.double().flatten(1) - self._points.centre.to(x.device)

    def _rotated(self, z: Tensor) -> Tensor:
        """Relative to the mean, in the basis of the covariance."""
        z = z - self._points.offset.to(z)
        return z if self._basis is None else z @ self._basis.to(z)
