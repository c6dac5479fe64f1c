"""Sampling in the span of the data: the noise is multiplied with the data once, not at every call.

Solvers of the probability-flow ODE only scale and add states and denoiser outputs, and every output is a mean of data
points. So each state is

    x − c = a (x_T − c) + Σ_j c_j (y_j − c),

x_T the noise, c the centre of the data. The products (x_T − c)·(y_k − c) are needed once, exactly; after that a state
is its coordinates, and its products with the data are products of coordinates. With V (D, r) the leading principal
axes, Y_r = (Y − c) V and R what they leave of Y,

    (x − c)·(y_k − c) = a (x_T − c)·(y_k − c) + p·Y_r[k] + (Σ_j c_j R_j)·R_k,    p = Σ_j c_j Y_r[j].

The noise never passes through the truncation: what is left out is the last term, o·R_k with o = Σ_j c_j R_j, data
against data. It is estimated by random projections S (D, 384), E[S Sᵀ] = 1: e = Sᵀo is a sum of the Sᵀ R_j as the state
is of the y_j, so 384 numbers go with the coordinates, and e·(Sᵀ R_k) is o·R_k up to ‖o‖‖R_k‖ √(2/384), whatever the
number of dimensions. While the posterior is spread over many points R and o are small, too; once it is not, the
candidates, the 256 most probable points of a row, enter with their exact Gram matrix: their coefficients q_j are
coordinates of their own. So a state is the vector (a, p, e, h, q), h the coefficients of the calls so far, a tensor
like any other: `trajectory` and every deterministic solver run on it unchanged.

How far log-weights can be off is estimated all along, in nats: the deviation of ‖o‖‖R_k‖ √(2/384)/σ² under the weights,
and the rounding of float32. Where the first is more than `tolerance`, or where five times it might bring up a point
that has hardly any weight, o is computed: the weights of all calls are kept, so it is one pass over the data, and its
products with the R_k of the leading points are another. From then on it counts in full, scaled as the noise is, and
only what came after is estimated. Where float32 is too coarse, the points in question are measured by differences;
where these are too many, or too close for that, the row is sampled again by the exact denoiser.

A row is decided, at the start of a step, once its posterior is one point so nearly, for as many steps as the solver
remembers, that no lead of that point can fall any more whatever the solver does: `optimal.span.line` proves by how
much. The state there is evaluated by the exact denoiser; rows that it does not confirm are sampled again by it. Rows
that end on a blend end on that of the last call, summed in full. A solver whose steps are not linear is left to the
exact denoiser altogether.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import torch
from torch import Tensor
from tqdm import tqdm

from ..arithmetic import ours
from ..denoiser import OptimalDenoiser
from ..numbers import require_whole
from ..points import Points, in_range
from ..samplers import Solver, sample, solver_of, trajectory
from ..schedule import grid
from ..shown import in_short
from .basis import RANK, SKETCH, basis_bytes, basis_of
from .denoiser import SpanDenoiser, row_bytes
from .few import FewPoints, are_few, few_points
from .line import Line, line_of

__all__ = ["SpanSample", "landed", "sample_in_span", "way_of"]


@dataclass(frozen=True)
class SpanSample:
    """Where x lands.

    Attributes:
        x: (B, *event), as `sample` returns it.
        index: (B,) int64, the data point that it is; −1 for rows that end on none.
        error: (B,) float64, nats: the most that log-weights were off by along the way, one standard deviation, by what
            was left out and by rounding: an estimate. 0 where `exact`.
        exact: (B,) bool, whether the row was sampled by the exact denoiser.
        nfe: denoiser calls per sample.
    """

    x: Tensor
    index: Tensor
    error: Tensor
    exact: Tensor
    nfe: int

    __repr__ = in_short


@ours()
def sample_in_span(
    D: OptimalDenoiser,
    x: Tensor,
    sigmas: Tensor | Sequence[float],
    *,
    solver: str | Solver = "heun",
    rank: int = RANK,
    tolerance: float = 0.02,
    progress: bool = False,
    **options: Any,
) -> SpanSample:
    """`optimal.sample(D, x, sigmas, solver=…)`, many times faster where the events are large.

    Up to 5,000 points in at least twice as many dimensions are replaced by their coordinates, in float64, and nothing
    is left out but rounding (`optimal.span.few`).
    Where a point has hardly more values than coordinates, or these do not fit the budget or float32's range, the exact
    denoiser samples; and where more points than that are of a class, or have a prior.

    Args:
        D: the optimal denoiser.
        x: (B, *event), the noise at sigmas[0].
        sigmas: (n + 1,) decreasing noise levels, the last 0.
        solver: any solver that draws no noise, with its options by keyword.
        rank: of the basis of more points; it is computed once for a data set and kept in the cache.
        tolerance: nats: calls whose log-weights may be off by more, one standard deviation, have what was left out
            computed. A row within about so much of the border of two basins may end in the other.
        progress: whether progress bars are drawn on stderr.

    Raises:
        ValueError: as for `sample`; a solver that draws noise.

    Example:
        >>> from optimal import OptimalDenoiser, karras, sample_in_span
        >>> images = torch.rand(20, 3, 8, 8, generator=torch.Generator().manual_seed(0))
        >>> x = 80 * torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(1))
        >>> sample_in_span(OptimalDenoiser(images), x, karras(18)).nfe
        35
    """
    levels = grid(sigmas)
    chosen = solver_of(solver, options)
    chosen.check(levels.tolist())
    if chosen.draws(len(levels) - 1):
        raise ValueError(f"{type(chosen).__name__} draws noise at every step, which is not in the span of the start")
    if not tolerance > 0:
        raise ValueError(f"tolerance must be positive, got {tolerance:g}")
    rank = require_whole("rank", rank)
    D.points.whole()
    x = x.detach()
    z, _ = D.query(x, float(levels[0]))
    # In the units of the points, as z is.
    scaled = levels / D.points.unit
    line = line_of(chosen, scaled.tolist())
    way = way_of(D, rank) if line is not None and len(x) else "full"
    if way == "axes" and not in_range(D.points, z, scaled[-2:-1].to(z.device)):
        way = "full"
    few = few_points(D) if way == "few" else None
    if few is not None:
        return _among_few(D, few, x, levels, chosen, progress)
    if line is None or way == "full":
        return _in_full(D, x, levels, chosen, progress)
    basis = basis_of(D, rank, progress=progress)
    size = max(1, D.evaluator.accuracy.memory // row_bytes(len(D), D.points.dim, line.calls))
    parts = [
        _sampled(SpanDenoiser(D, basis, at, calls=line.calls, tolerance=tolerance), of, scaled, chosen, line, progress)
        for of, at in zip(x.split(size), z.split(size), strict=True)
    ]
    return parts[0] if len(parts) == 1 else _joined(parts)


def way_of(D: OptimalDenoiser, rank: int = RANK) -> Literal["few", "axes", "full"]:
    """How `sample_in_span` goes, by the sizes of the data and the budget only.

    "few": in the coordinates of few points; "axes": in those of the leading axes; "full": by the exact denoiser.
    """
    if are_few(D):
        return "few"
    if D.points.prior is not None or D.points.size < len(D):
        return "full"
    numbers = min(rank, len(D), D.points.dim) + SKETCH
    held = basis_bytes(len(D), D.points.dim, rank)
    # Rows are decided about halfway, so twice as many coordinates as values still pay.
    return "axes" if 2 * D.points.dim > numbers and held <= D.evaluator.accuracy.memory else "full"


def _in_full(D: OptimalDenoiser, x: Tensor, levels: Tensor, solver: Solver, progress: bool) -> SpanSample:
    """By the exact denoiser. A start of less than float32 is taken as float32, so that states are not rounded to it."""
    calls: list[int] = []
    start = x if x.dtype == torch.float64 else x.float()
    ends = sample(D, start, levels, solver=solver, progress=progress, callback=lambda state: calls.append(state.nfe))
    none = torch.zeros(len(x), dtype=torch.float64, device=x.device)
    return SpanSample(ends.to(x.dtype), landed(D, ends), none, torch.ones_like(none, dtype=torch.bool), calls[-1])


def _among_few(
    D: OptimalDenoiser, few: FewPoints, x: Tensor, levels: Tensor, solver: Solver, progress: bool
) -> SpanSample:
    start, nfe = few.reduced(x), 0
    error = few.rounding(start, float(levels[-2]))
    states = trajectory(few.denoise, start, levels, solver=solver)
    for state in tqdm(states, total=len(levels), desc="sampling", unit="level", leave=False, disable=not progress):
        start, nfe = state.x, state.nfe
    out = few.expanded(start).view(x.shape)
    index = D.points.outer(landed(few.denoiser, start))
    on_point = index >= 0
    out[on_point] = D.take(index[on_point]).to(out)
    return SpanSample(out.to(x), index, error, torch.zeros_like(error, dtype=torch.bool), nfe)


def _sampled(
    reduced: SpanDenoiser, x: Tensor, levels: Tensor, solver: Solver, line: Line, progress: bool
) -> SpanSample:
    """x by the leading axes; levels in the units of the points."""
    D, end, nfe = reduced.D, reduced.start, 0
    states = trajectory(reduced, reduced.start, levels, solver=solver, dtype=torch.float64)
    bar = tqdm(states, total=len(levels), desc="sampling", unit="level", leave=False, disable=not progress)
    for step, state in enumerate(bar):
        end, nfe = state.x, state.nfe
        if state.sigma > 0:
            reduced.settle(state.x, state.sigma, line, step)
    index, error = reduced.confirmed(), reduced.error
    out = D.take(index.clamp_min(0)).to(x)
    blends = (reduced.leader < 0) & ~reduced.lost
    rows = blends.nonzero().squeeze(1)
    if len(rows):
        ends = D.points.restored(reduced.left_out.means(rows, end[rows]))
        out[rows], index[rows] = ends.to(x), landed(D, ends.float())
    again = (index < 0) & ~blends
    rows = again.nonzero().squeeze(1)
    if len(rows):
        exact = _in_full(D, x[rows], levels * D.points.unit, solver, progress)
        out[rows], index[rows] = exact.x, exact.index
    return SpanSample(out, index, error.masked_fill(again, 0.0), again, nfe)


def _joined(parts: list[SpanSample]) -> SpanSample:
    x, index, error, exact = (
        torch.cat([getattr(part, name) for part in parts]) for name in ("x", "index", "error", "exact")
    )
    return SpanSample(x, index, error, exact, parts[0].nfe)


class Neighbours(Protocol):
    """Points of which the two nearest to an x are known."""

    @property
    def points(self) -> Points: ...
    @property
    def standard_deviation(self) -> float: ...
    def nearest(self, x: Tensor, /) -> Tensor: ...
    def two_nearest(self, x: Tensor, /) -> tuple[Tensor, Tensor]: ...


def landed(D: Neighbours, ends: Tensor) -> Tensor:
    """The data point that each end is, (B,) int64, −1 where it is none.

    It is one if it lies on it to within the rounding of its dtype, or to within a thousandth of the distance to the
    second nearest distinct point and of the data's standard deviation.
    """
    index = D.nearest(ends)
    if len(index) == 0:
        return index
    first, second = D.two_nearest(ends)
    spread = D.standard_deviation * math.sqrt(D.points.dim)
    rounding = 4 * torch.finfo(ends.dtype).eps * ends.flatten(1).double().norm(dim=1)
    return torch.where(first <= torch.maximum(1e-3 * second.clamp_max(spread), rounding), index, -1)
