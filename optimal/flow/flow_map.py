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

from collections.abc import Sequence
from typing import Any

from jaxtyping import Float, Int, Num
from torch import Tensor
from tqdm import tqdm

from ..denoiser import Denoiser, OptimalDenoiser
from ..query import Levels, require_points
from ..samplers import Solver
from .exact import TOLERANCE, ExactFlow
from .grid import GridFlow
from .landing import Landing, Way

__all__ = ["FlowMap"]


class FlowMap:
    """f(x, σ): where the flow takes x, the optimum of consistency distillation (Prop. 4). It is a `Denoiser`.

    With a grid: the discrete optimum, the steps of a solver composed from x's level to 0 (Eq. 55). A σ between two
    levels starts with a step to the next level below. Rows at different levels are followed together.

    Without: the continuous optimum. The flow is integrated with steps chosen for each row until the certificate of
    `optimal.capture` holds; the result is that data point, exactly. Which point it is, is wrong only for an x so close
    to the border of its basin that the integration error decides; with the default tolerance, for 1 in 2,000 starts on
    five deltas, for none of 256 on digits and on emoji.

    f(x, 0) = x in either case (x_θ(x, t_1) = x).

    Ties. The flow from the border between two basins stays on it, and ends on neither. An x near it goes to one side
    or the other, as the errors of the integration decide: within 1e-3 σ of a border the side is not to be relied on, at
    the default tolerance; within 5e-5 σ at 1e-6. Measured, against the closed form on the line, next to the borders of
    40 random data sets at six σ each: of 3,840 starts each, wrong were 5 at 2e-4 σ and none at 4e-4 σ and 1e-3 σ. At a
    tolerance of 1e-6, with 180 calls a row for 80, none was at 5e-5 σ and beyond, and 19 at 1e-5 σ; both distances are
    held by tests on other sets. `captured` says from where on it is proven that the state
    which the integration has reached ends there, not that it has reached the right one.
    Where nothing decides, as between two points at exactly equal distance, a row goes to the nearest data point, the
    first in the data among equals; its `captured` is then 0.

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
        >>> import torch
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
        if sigmas is None:
            if solver is not None or options:
                raise ValueError("solver= and its options are of the flow map on a grid: give sigmas=")
            way = ExactFlow(D, TOLERANCE if tolerance is None else tolerance)
            self.sigmas, self._way = None, way
            self._words = f"tolerance={way.tolerance:g}"
            return
        if tolerance is not None:
            raise ValueError("tolerance= is of the continuous flow: leave out sigmas=, or refine the grid")
        way = GridFlow(D, sigmas, solver, options)
        self.sigmas, self._way = way.sigmas, way
        self._words = f"{len(way.sigmas) - 1} steps of {way.solver!r}"

    sigmas: Tensor | None
    _way: Way

    def __repr__(self) -> str:
        return f"FlowMap({self.D!r}, {self._words})"

    def __call__(self, x: Num[Tensor, "B *event"], sigma: Levels) -> Float[Tensor, "B *event"]:
        """f(x, σ), (B, *event), without gradients.

        Args:
            x: (B, *event) noisy points, over their signal scale.
            sigma: noise level, float, () or (B,): on the grid's range, or 0.

        Raises:
            ValueError: sigma above the grid's first level or below its last above 0, negative or of another shape; x of
                another event shape or not finite.
        """
        return self._way.jump(x, self._levels(x, sigma))

    def index(self, x: Num[Tensor, "B *event"], sigma: Levels) -> Int[Tensor, " B"]:
        """On which data point x lands, (B,): see `Landing.index`.

        Raises:
            ValueError: as for a call; D is not an `OptimalDenoiser`.
        """
        if not isinstance(self.D, OptimalDenoiser):
            raise ValueError(f"data points are known of an OptimalDenoiser only, D is {type(self.D).__name__}")
        return self.land(x, sigma).index

    def land(self, x: Num[Tensor, "B *event"], sigma: Levels, *, progress: bool = False) -> Landing:
        """Where x lands, on which data point, and what it took: one pass for all.

        Args:
            x, sigma: as for a call.
            progress: whether the denoiser calls are counted on stderr, once they have taken a second.

        Example:
            >>> import torch
            >>> from optimal import OptimalDenoiser
            >>> landing = FlowMap(OptimalDenoiser(torch.tensor([[-1.0], [1.0]]))).land(torch.tensor([[0.5]]), 1.0)
            >>> landing.index, landing.captured < 1
            (tensor([1]), tensor([True]))
        """
        levels = self._levels(x, sigma)
        with tqdm(desc="flow", unit="call", leave=False, delay=1, disable=not progress) as bar:
            return self._way.land(x, levels, bar.update)

    def flow(self, x: Num[Tensor, "B *event"], sigma: Levels, sigma_end: Levels) -> Float[Tensor, "B *event"]:
        """The flow from sigma to sigma_end only: f(flow(x, σ, σ'), σ') = f(x, σ), exactly so on a grid.

        Without a grid it also goes up, from data to noise, with the same steps and tolerance. On the way up the flow
        draws x together in units of σ, and apart on the way down. So what goes down first comes back to a few
        tolerances; what goes up first, to as much times what the way down makes of it, which next to the border of a
        basin is anything; there an error is not held to the tolerance either way, which is that of a step's estimate
        (of two points, from 0.2 to 0.6 and 0.3 to 0.7, the worst of 500 rows erred by 147 tolerances down, 59 up, at
        1e-4). At σ = 0 all of a basin is one point, and no way leads up: x0 + σ z, σ below the border
        (`optimal.border`), is a draw of what comes down to x0.

        Args:
            x, sigma: as for a call; on the way up sigma is positive.
            sigma_end: float, () or (B,). With a grid: one of its levels, at most sigma, the same for all rows; its
                steps are taken up by `optimal.samplers.invert`.

        Raises:
            ValueError: as for a call; sigma_end negative or not finite; above sigma = 0; with a grid, above sigma or
                not on the grid.

        Example:
            >>> import torch
            >>> from optimal import OptimalDenoiser
            >>> jump = FlowMap(OptimalDenoiser(torch.tensor([[-1.0], [1.0]])))
            >>> noise = jump.flow(torch.tensor([[1.002], [-0.999]]), 0.002, 80.0)
            >>> [round(float(value), 2) for value in noise / 80]
            [1.41, -0.4]
            >>> [round(float(value), 4) for value in jump.flow(noise, 80.0, 0.002)]
            [1.002, -0.999]
        """
        levels = self._levels(x, sigma)
        return self._way.flow(x, levels, self._way.ends(sigma_end, x, levels))

    def _levels(self, x: Tensor, sigma: Levels) -> Tensor:
        """sigma of every row, (B,) float64; it and x checked."""
        require_points(x)
        if isinstance(self.D, OptimalDenoiser):
            self.D.query(x, 1.0)
        return self._way.levels(x, sigma)
