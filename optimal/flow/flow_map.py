"""The flow map of a denoiser's probability-flow ODE: what consistency distillation converges to (Prop. 4).

A consistency model is trained so that its output does not change along the trajectories of a teacher, with
x_θ(x, t_1) = x (Eq. 34, 35). Its optimum is found by setting the gradient to 0 (Eq. 54): a posterior average of
x_θ(x_{t_{n−1}}(x), t_{n−1}), which does not depend on what is averaged over, so that

    x_θ(x, t_n) = x_θ(x_{t_{n−1}}(x), t_{n−1}) = … = f(x, σ_n),    x_{t_{n−1}}(x) one solver step from t_n    (Eq. 55)

the solver's steps composed down to the end. On a grid that ends in σ = 0, t_1 is that 0 and the last step returns
D(x, σ_{t_2}). As the grid is refined, f tends to the map of the exact flow, dx/dσ = (x − D)/σ, at the order of the
solver (Eq. 36); and when D is the optimum of N points, this map has N values: every x, at every σ, goes to one data
point. It is constant on each basin, discontinuous between them, and nowhere a blend.

What Prop. 4 says, and what holds. Eq. 50 and 56 end in f(x_0^k + σ z, σ) = x_0^k, "the point whose noise made x". That
is step (2) of Eq. 56, D(x_0^k + s_{t_2} z, t_2) = x_0^k, and it holds where the posterior at t_2 is one-hot: for t_2 at
low noise it does, to e^(−lead); then for every t_n, f(x, t_n) is *a* data point. It is x_0^k itself only where x still
lies in the basin of k. Below the border (`optimal.border`) that is nearly sure; around it f leaves the source, and at
high noise the basin that x falls into is independent of k: P(f = x_0^k) falls to 1/N. `optimal.basins` measures it.
Since x ~ p_{t_n} determines the source only up to the posterior, no function of x does better than P(leader = source).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int, Num
from torch import Tensor

from ..denoiser import Denoiser, OptimalDenoiser, Posterior
from ..process import EDM
from ..query import per_row, require_points
from ..samplers import Counted, Solver, Step, solver_of
from ..schedule import grid, on_grid
from ..span import few_points
from .adaptive import AdaptiveFlow
from .certificate import certify

__all__ = ["FlowMap", "Landing"]

_FLOOR = 1e-6
"""In units of the data's standard deviation, the σ below which a row that is not captured lies on a basin's border."""
_SPREAD = 4.0
"""The certificate is tried once tr Cov[x0 | x] is at most so many σ²: hardly a row tried was certain above."""
_SINGLE = 1e-5
"""Relative error of a mean in float32."""
_MANY = 32
"""Rows from which on few points are taken in coordinates of their span: their axes take as long as about so many."""
_ROWS_IN_FLIGHT = 12
"""Float64 copies of a row that an adaptive step holds."""


@dataclass(frozen=True)
class Landing:
    """Where x lands.

    Attributes:
        x: (B, *event), f(x, σ), in the dtype of x.
        index: (B,) int64, the data point nearest to it, the first in the data among equals; for a flow without a grid
            the point that it is. −1 where D is not an `OptimalDenoiser`, and no data are known.
        nfe: (B,) int64, denoiser calls of each sample.
        captured: (B,) float64, without a grid: the noise level at which it became certain, at most the σ of the start;
            0 where it never did, x being on the border of a basin to within rounding, or the points closer together
            than 1e-6 standard deviations of the data. nan with a grid, and at σ = 0.
    """

    x: Tensor
    index: Tensor
    nfe: Tensor
    captured: Tensor


class FlowMap:
    """f(x, σ): where the flow takes x, the optimum of consistency distillation (Prop. 4). It is a `Denoiser`.

    With a grid: the discrete optimum, the steps of a solver composed from x's level to 0 (Eq. 55). A σ between two
    levels starts with a step to the next level below. Rows at different levels are followed together.

    Without: the continuous optimum. The flow is integrated with steps chosen for each row until the certificate of
    `optimal.capture` holds; the result is that data point, exactly. Which point it is, is wrong only for an x so close
    to the border of its basin that the integration error decides; with the default tolerance, for 1 in 2,000 starts on
    five deltas, for none of 256 on digits and on emoji.

    f(x, 0) = x in either case (x_θ(x, t_1) = x).

    Ties. The flow from the border between two basins stays on it, and ends on neither. An x there goes to one side or
    the other, as the errors of the integration decide, the same in every run: within 1e-5 σ of a border the side is not
    to be relied on, at the default tolerance. Where nothing decides, as between two points at exactly equal distance,
    it is at σ = 1e-6 standard deviations of the data still undecided, and goes to the nearest data point, the first in
    the data among equals; its `captured` is then 0.

    Args:
        D: the denoiser: with a grid any, without one an `OptimalDenoiser`.
        sigmas: (n + 1,) decreasing noise levels, the last 0; None for the continuous flow.
        solver: of the grid: "euler" (DDIM), "heun" (the default) or "dpm_solver", or a `Solver`, with its options by
            keyword. A step may not depend on earlier steps, nor draw noise: it would be no function of x.
        tolerance: of the continuous flow: local error of a step, Euclidean, in units of σ; 1e-4 unless given.

    Attributes:
        sigmas: the grid, (n + 1,) float64, or None.

    Raises:
        ValueError: a bad grid, solver, option or tolerance; no grid and no `OptimalDenoiser`.

    References:
        Song, Dhariwal, Chen, Sutskever 2023, "Consistency Models", Section 4 and Theorem 1. Hairer, Nørsett, Wanner
        1993, "Solving Ordinary Differential Equations I", II.4 (error estimate and step size).

    Example:
        >>> from optimal import FlowMap, OptimalDenoiser, karras
        >>> D = OptimalDenoiser(torch.tensor([[-1.0], [1.0]]))
        >>> x = torch.tensor([[0.1], [-30.0]])
        >>> FlowMap(D)(x, 80.0).tolist()
        [[1.0], [-1.0]]
        >>> FlowMap(D, karras(2), solver="euler")(x, torch.tensor([0.002, 80.0])).tolist()    # one step, and two
        [[1.0], [-1.0]]
    """

    def __init__(
        self,
        D: Denoiser,
        sigmas: Tensor | Sequence[float] | None = None,
        solver: str | Solver | None = None,
        *,
        tolerance: float | None = None,
        **options: Any,
    ):
        if not callable(D):
            raise ValueError(f"D must be a denoiser, a function (x, sigma) -> x0_hat, got {type(D).__name__}")
        self.D = D
        self.sigmas = None if sigmas is None else grid(sigmas)
        if self.sigmas is None:
            if not isinstance(D, OptimalDenoiser):
                raise ValueError(
                    f"the flow without a grid ends on a data point, so D must be an OptimalDenoiser, got "
                    f"{type(D).__name__}: give sigmas="
                )
            if solver is not None or options:
                raise ValueError("solver= and its options are of the flow map on a grid: give sigmas=")
            self._tolerance = 1e-4 if tolerance is None else tolerance
            if not 1e-10 <= self._tolerance <= 0.1:
                raise ValueError(f"tolerance must lie between 1e-10 and 0.1, got {self._tolerance:g}")
            return
        if tolerance is not None:
            raise ValueError("tolerance= is of the continuous flow: leave out sigmas=, or refine the grid")
        self._solver = solver_of("heun" if solver is None else solver, options)
        name = type(self._solver).__name__
        if self._solver.memory:
            raise ValueError(f"a flow map composes single steps (Eq. 55), {name} builds on earlier ones")
        if self._solver.draws(max(len(self.sigmas) - 1, 2)):
            raise ValueError(f"a flow map is a function of x, {name} draws noise")
        self._solver.check(self.sigmas.tolist())

    def __repr__(self) -> str:
        if self.sigmas is None:
            return f"FlowMap({self.D!r}, tolerance={self._tolerance:g})"
        return f"FlowMap({self.D!r}, {len(self.sigmas) - 1} steps of {self._solver!r})"

    def __call__(self, x: Num[Tensor, "B *event"], sigma: float | Tensor) -> Float[Tensor, "B *event"]:
        """f(x, σ), (B, *event), without gradients.

        Args:
            x: (B, *event) noisy points, over their signal scale.
            sigma: noise level, float, () or (B,): on the grid's range, or 0.

        Raises:
            ValueError: sigma above the grid's first level or below its last above 0, negative or of another shape; x of
                another event shape or not finite.
        """
        if self.sigmas is None:
            return self.land(x, sigma).x
        return self._steps(x, self._levels(x, sigma), 0.0)[0]

    def index(self, x: Num[Tensor, "B *event"], sigma: float | Tensor) -> Int[Tensor, " B"]:
        """On which data point x lands, (B,): see `Landing.index`.

        Raises:
            ValueError: as for a call; D is not an `OptimalDenoiser`.
        """
        if not isinstance(self.D, OptimalDenoiser):
            raise ValueError(f"data points are known of an OptimalDenoiser only, D is {type(self.D).__name__}")
        return self.land(x, sigma).index

    def land(self, x: Num[Tensor, "B *event"], sigma: float | Tensor) -> Landing:
        """Where x lands, on which data point, and what it took: one pass for all.

        Args:
            x, sigma: as for a call.

        Example:
            >>> landing = FlowMap(OptimalDenoiser(torch.tensor([[-1.0], [1.0]]))).land(torch.tensor([[0.5]]), 1.0)
            >>> landing.index, landing.captured < 1
            (tensor([1]), tensor([True]))
        """
        levels = self._levels(x, sigma)
        if self.sigmas is None:
            return self._continuous(x, levels)
        landed, nfe = self._steps(x, levels, 0.0)
        index = self.D.nearest(landed) if isinstance(self.D, OptimalDenoiser) else torch.full_like(nfe, -1)
        return Landing(landed, index, nfe, torch.full_like(levels, torch.nan))

    def flow(
        self, x: Num[Tensor, "B *event"], sigma: float | Tensor, sigma_end: float | Tensor
    ) -> Float[Tensor, "B *event"]:
        """The flow from sigma down to sigma_end only: f(flow(x, σ, σ'), σ') = f(x, σ), exactly so on a grid.

        Args:
            x, sigma: as for a call.
            sigma_end: float, () or (B,), at most sigma. With a grid: one of its levels, the same for all rows.

        Raises:
            ValueError: as for a call; sigma_end above sigma, or not on the grid.
        """
        levels = self._levels(x, sigma)
        ends = per_row("sigma_end", sigma_end, len(x), x.device)
        if self.sigmas is not None:
            if torch.as_tensor(sigma_end).ndim:
                raise ValueError("with a grid, sigma_end is one level for all rows")
            ends = on_grid(self.sigmas, ends, len(x))
            if not torch.isin(ends, self.sigmas.to(ends)).all():
                raise ValueError(f"sigma_end must be a level of the grid, got {float(ends[0]):g}")
        usable = (ends >= 0) & (ends <= levels)
        if not usable.all():
            raise ValueError(
                f"sigma_end must lie between 0 and sigma, got {float(ends[~usable][0]):g} from "
                f"{float(levels[~usable][0]):g}"
            )
        if self.sigmas is not None:
            return self._steps(x, levels, float(ends[0]) if len(ends) else 0.0)[0]
        out = x.detach().clone()
        landing, moving = ends == 0, (ends > 0) & (ends < levels)
        out[landing] = self(x[landing], levels[landing])
        for rows in self._parts(moving.nonzero().squeeze(1)):
            flow = AdaptiveFlow(self._posterior(self.D, x), x[rows], levels[rows], ends[rows], self._tolerance)
            while len(flow):
                flow.advance()
                done = flow.sigma == ends[rows[flow.rows]]
                out[rows[flow.rows[done]]] = flow.x[done].to(x.dtype)
                flow.keep(~done)
        return out

    def _levels(self, x: Tensor, sigma: float | Tensor) -> Tensor:
        """sigma of every row, (B,) float64, checked."""
        require_points(x)
        if isinstance(self.D, OptimalDenoiser):
            self.D.query(x, 1.0)
        if self.sigmas is not None:
            return on_grid(self.sigmas, sigma, len(x)).to(x.device)
        levels = per_row("sigma", sigma, len(x), x.device)
        usable = torch.isfinite(levels) & (levels >= 0)
        if not usable.all():
            raise ValueError(f"sigma must be finite and not negative, got {float(levels[~usable][0]):g}")
        return levels

    def _steps(self, x: Tensor, levels: Tensor, end: float) -> tuple[Tensor, Tensor]:
        """The solver's steps from each row's level to `end`, and the denoiser calls that they took, (B,)."""
        assert self.sigmas is not None
        state, level = x.detach().to(torch.float64, copy=True), levels.clone()
        nfe = torch.zeros(len(x), dtype=torch.int64, device=x.device)
        grid_levels = self.sigmas.tolist()
        for n, (high, low) in enumerate(itertools.pairwise(grid_levels)):
            if low < end:
                break
            # All rows at `high`, and each level between it and `low` for itself.
            for sigma in level[(level > low) & (level <= high)].unique().tolist():
                rows = (level == sigma).nonzero().squeeze(1)
                state[rows], calls = self._step(state[rows], sigma, low, n, x.dtype)
                nfe[rows] += calls
                level[rows] = low
        return state.to(x.dtype), nfe

    def _step(self, x: Tensor, sigma: float, sigma_next: float, index: int, dtype: torch.dtype) -> tuple[Tensor, int]:
        assert self.sigmas is not None
        evaluate = Counted(self.D, dtype)
        steps = len(self.sigmas) - 1
        denoised = evaluate(x, sigma)
        step = Step(evaluate, x, sigma, sigma_next, denoised, index, steps, _no_noise, EDM(math.inf))
        return self._solver(step), evaluate.calls

    def _continuous(self, x: Tensor, levels: Tensor) -> Landing:
        assert isinstance(self.D, OptimalDenoiser)
        D, x = self.D, x.detach()
        index = torch.zeros(len(x), dtype=torch.int64, device=x.device)
        nfe, captured = torch.zeros_like(index), torch.full_like(levels, torch.nan)
        landed = x.clone()
        still = levels == 0
        if still.any():
            index[still] = D.nearest(x[still])
        floor = _FLOOR * D.standard_deviation
        moving = (~still).nonzero().squeeze(1)
        few = few_points(D) if len(moving) >= _MANY else None
        model = D if few is None else few.denoiser
        for rows in self._parts(moving):
            start = x[rows] if few is None else few.reduced(x[rows])
            flow = AdaptiveFlow(
                self._posterior(model, x), start, levels[rows], torch.zeros_like(levels[rows]), self._tolerance
            )
            while len(flow):
                done = torch.zeros_like(flow.accepted)
                ready = flow.accepted & (flow.latest.variance <= _SPREAD * flow.sigma.square())
                if ready.any():
                    found = certify(model, flow.x[ready], flow.sigma[ready], flow.latest.top_index[ready])
                    done[ready] = found.holds
                undecided = flow.accepted & ~done & (flow.sigma < floor)
                ended = done | undecided
                if ended.any():
                    at = rows[flow.rows[ended]]
                    index[at], nfe[at] = flow.latest.top_index[ended], flow.nfe[ended]
                    captured[at] = torch.where(done, flow.sigma, 0.0)[ended]
                    landed[at] = D.take(index[at]).to(x)
                    flow.keep(~ended)
                if len(flow):
                    flow.advance()
        return Landing(landed, index, nfe, captured)

    def _posterior(self, D: Denoiser, like: Tensor):
        """D's posterior, in float32 where x came so and where that is far below the tolerance, else in float64."""
        assert isinstance(D, OptimalDenoiser)
        precise = _SINGLE * D.points.largest_norm / self._tolerance if like.dtype != torch.float64 else math.inf

        def posterior(x: Tensor, sigma: Tensor) -> Posterior:
            single = sigma >= precise
            if not single.any():
                return D.posterior(x, sigma)
            if single.all():
                return D.posterior(x.float(), sigma)
            parts = D.posterior(x[single].float(), sigma[single]), D.posterior(x[~single], sigma[~single])
            return _interleaved(single, *parts)

        return posterior

    def _parts(self, rows: Tensor) -> Sequence[Tensor]:
        """Rows in groups whose states fit D's budget."""
        assert isinstance(self.D, OptimalDenoiser)
        size = max(1, self.D.evaluator.accuracy.memory // (8 * _ROWS_IN_FLIGHT * self.D.points.dim))
        return rows.split(size) if len(rows) else ()


def _interleaved(first: Tensor, a: Posterior, b: Posterior) -> Posterior:
    """a where `first`, (B,) bool, b elsewhere; float64."""
    fields: dict[str, Any] = {"method": b.method}
    for name, part in vars(a).items():
        if name in fields:
            continue
        other = getattr(b, name)
        whole = part.new_empty(len(first), *part.shape[1:], dtype=other.dtype)
        whole[first], whole[~first] = part.to(other.dtype), other
        fields[name] = whole
    return Posterior(**fields)


def _no_noise() -> Tensor:
    raise AssertionError("a flow map draws no noise")
