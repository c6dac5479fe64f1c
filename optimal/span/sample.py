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

How far log-weights can be off is known all along, in nats: the deviation of ‖o‖‖R_k‖ √(2/384)/σ² under the weights.
Where that is more than `tolerance`, o is computed: the weights of all calls are kept, so it is one pass over the data,
and its products with all R_k are another. From then on it counts in full, scaled as the noise is, and only what came
after is estimated.

As soon as a row's posterior is one point it is evaluated exactly, in full space, there: along the rest of the way the
lead of that point only grows (D is y_k, x moves on a line towards it, and leads on it are linear in σ, over σ²), so the
row ends on it. Rows whose leader the exact pass does not confirm are sampled again by the exact denoiser. Rows that end
on a blend end on that of the last call, summed in full.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from ..denoiser import OptimalDenoiser
from ..samplers import Solver, sample, solver_of, trajectory
from ..schedule import grid
from .basis import RANK, Basis, basis_of
from .denoiser import SpanDenoiser
from .few import FewPoints, few_points

__all__ = ["SpanSample", "landed", "sample_in_span"]

_ROW_BYTES = 128
"""Memory of a row, per data point: its products, its weights at every call before it is closed."""
_CALLS = 4
"""Most denoiser calls of a step."""


@dataclass(frozen=True)
class SpanSample:
    """Where x lands.

    Attributes:
        x: (B, *event), as `sample` returns it.
        index: (B,) int64, the data point that it is; −1 for rows that end on none.
        error: (B,) float64, nats: the most that log-weights were off by along the way, one standard deviation; 0
            where nothing was left out.
        exact: (B,) bool, whether the row was sampled again by the exact denoiser.
        nfe: denoiser calls per sample.
    """

    x: Tensor
    index: Tensor
    error: Tensor
    exact: Tensor
    nfe: int


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

    Up to 5,000 points in at least twice as many dimensions are replaced by their coordinates, and nothing is left out.

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
    if chosen.draws(len(levels) - 1):
        raise ValueError(f"{type(chosen).__name__} draws noise at every step, which is not in the span of the start")
    if not tolerance > 0:
        raise ValueError(f"tolerance must be positive, got {tolerance:g}")
    if rank < 1:
        raise ValueError(f"rank must be at least 1, got {rank}")
    x = x.detach()
    D.query(x, float(levels[0]))
    few = few_points(D)
    if few is not None:
        return _among_few(D, few, x, levels, chosen, progress)
    basis = basis_of(D, rank, progress=progress)
    size = max(1, D.evaluator.accuracy.memory // (_ROW_BYTES * len(D)))
    parts = [_sampled(D, basis, part, levels, chosen, tolerance, progress) for part in x.split(size)]
    if len(parts) == 1:
        return parts[0]
    x, index, error, exact = (
        torch.cat([getattr(part, name) for part in parts]) for name in ("x", "index", "error", "exact")
    )
    return SpanSample(x, index, error, exact, parts[0].nfe)


def _among_few(
    D: OptimalDenoiser, few: FewPoints, x: Tensor, levels: Tensor, solver: Solver, progress: bool
) -> SpanSample:
    start, nfe = few.reduced(x), 0
    states = trajectory(few.denoiser, start, levels, solver=solver)
    for state in tqdm(states, total=len(levels), desc="sampling", unit="level", leave=False, disable=not progress):
        start, nfe = state.x, state.nfe
    out = few.expanded(start).view(x.shape)
    index = landed(D, out)
    on_point = index >= 0
    out[on_point] = D.take(index[on_point]).double()
    nothing = torch.zeros(len(x), dtype=torch.float64, device=x.device)
    return SpanSample(out.to(x), index, nothing, nothing.bool(), nfe)


def _sampled(
    D: OptimalDenoiser, basis: Basis, x: Tensor, levels: Tensor, solver: Solver, tolerance: float, progress: bool
) -> SpanSample:
    z, _ = D.query(x, float(levels[0]))
    reduced = SpanDenoiser(D, basis, z, calls=_CALLS * len(levels), tolerance=tolerance)
    end, nfe = reduced.start, 0
    states = trajectory(reduced, reduced.start, levels, solver=solver, dtype=torch.float64)
    for state in tqdm(states, total=len(levels), desc="sampling", unit="level", leave=False, disable=not progress):
        end, nfe = state.x, state.nfe
    index, error = reduced.confirmed(), reduced.error
    out = D.take(index.clamp_min(0)).to(x)
    blends = reduced.leader < 0
    rows = blends.nonzero().squeeze(1)
    if len(rows):
        out[rows] = reduced.means(rows, end[rows]).view(-1, *D.event).to(x)
        index[rows] = landed(D, out[rows])
    again = (index < 0) & ~blends
    rows = again.nonzero().squeeze(1)
    if len(rows):
        ends = sample(D, x[rows], levels, solver=solver, progress=progress)
        out[rows] = ends
        index[rows] = landed(D, ends)
    return SpanSample(out, index, error.masked_fill(again, 0.0), again, nfe)


def landed(D: OptimalDenoiser, ends: Tensor) -> Tensor:
    """The data point that each end is, −1 where it is none."""
    index = D.nearest(ends)
    distance = (D.take(index).double() - ends.double()).flatten(1).norm(dim=1)
    return torch.where(distance <= 1e-3 * D.standard_deviation * math.sqrt(D.points.dim), index, -1)
