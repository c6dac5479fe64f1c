"""From data to noise: the steps of a solver up the grid, and what is left of x after both ways.

    dx/dσ = (x − D(x, σ))/σ    from the last level above 0, σ_min, to the first, σ_max

At σ = 0 the flow of the optimum has no start: every x of a basin comes down to the same point. So x is taken to be at
σ_min; a clean x0 too, as DDIM inversion has it. Of the optimum a data point itself is then the centre of p(x; σ_min |
x0), where no noise is: it stays there, and goes up to what is no draw of noise (on digits, of a spread of 0.28 σ_max:
64 points, 72 levels of Karras, Euler). x0 + σ_min z is one at σ_min, and becomes one at σ_max (1.00 σ_max).

A step up is the solver's step with its levels exchanged, not the inverse of the step down. What comes back differs by

- the errors of both ways, of the solver's order in the steps, but for those that are the same with either sign of the
  step: of order 2 (Heun's) the largest cancel, and what comes back is off by order 3, less than what it came from;
- what the flow makes of them. On the way down it draws x apart at its decisions; on the way up together. So an x that
  goes up first may come down in another basin, however small the error: it is not small then. An x that goes down first
  is recovered, to the errors' size times σ_max/σ at most for those made at σ, where D stands still;
- the precision of D: it is asked in that of x, and σ_min is what (x − D)/σ divides by.

Measured against the exact way up (`FlowMap(D, tolerance=1e-7).flow`) on digits, 64 points x0 + 0.002 z, Karras' levels
to 80, after 18, 36, 72 and 144 calls: the median over points of the error at 80, root mean square, in units of 80; and
up and down again, the share that comes back to x0.

    Euler            5.4e-2  2.6e-2  1.3e-2  6.5e-3        0.17  0.47  0.77  0.91
    Heun             6.1e-2  1.4e-2  2.7e-3  6.7e-4        0.19  0.69  0.97  0.98
    DPM-Solver-2     3.9e-2  1.0e-2  1.9e-3  4.7e-4        0.52  0.86  0.98  0.98
    DPM-Solver++ 2M  1.5e-2  4.2e-3  1.0e-3  2.6e-4        0.92  1.00  0.98  1.00
    DPM-Solver++ 3M  1.5e-2  3.0e-3  2.7e-4  3.0e-5        0.95  1.00  1.00  1.00

The exact flow at its default tolerance errs there by 2.5e-6, and comes back to 1.3e-5 σ_min (worst 6.6e-4 σ_min).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from ..denoiser import Denoiser
from ..process import Process
from ..query import require_points
from ..schedule import grid
from ..shown import in_short
from .loop import State, follow
from .solver import Solver
from .solvers import solver_of

__all__ = ["RoundTrip", "ascent", "invert", "round_trip"]


def ascent(
    D: Denoiser,
    x: Tensor,
    sigmas: Tensor | Sequence[float],
    *,
    solver: str | Solver = "heun",
    process: Process | None = None,
    dtype: torch.dtype = torch.float64,
    grad: bool = False,
    **options: Any,
) -> Iterator[State]:
    """Follow x up from the last level above 0 to sigmas[0], state by state.

    Args:
        D: any denoiser.
        x: (B, *event), at noise level sigmas[-2], in the coordinates of the process.
        sigmas: (n + 1,) decreasing noise levels, the last 0, n >= 2: the grid of the way down.
        solver, process, dtype, grad: as for `trajectory`; a solver that draws no noise.

    Yields:
        n states, from sigmas[-2] to sigmas[0]; in the last, too, D is asked.

    Raises:
        ValueError: as for `trajectory`; a solver that draws noise, or goes down only; a grid of one step.
    """
    levels, chosen = _asked(x, sigmas, solver, options)
    return follow(D, x, levels[::-1], chosen, process, dtype, grad)


def invert(
    D: Denoiser,
    x: Tensor,
    sigmas: Tensor | Sequence[float],
    *,
    solver: str | Solver = "heun",
    callback: Callable[[State], object] | None = None,
    progress: bool = False,
    **options: Any,
) -> Tensor:
    """The noise at sigmas[0] that x, at the last level above 0, comes from: the last state of `ascent`.

    Args:
        callback: called with every `State`.
        progress: whether a progress bar is drawn on stderr.

    Returns:
        (B, *event), like x.

    References:
        Song, Meng, Ermon 2021, "Denoising Diffusion Implicit Models", Section 4.3.

    Example:
        >>> from optimal import OptimalDenoiser, karras, sample
        >>> D, sigmas = OptimalDenoiser(torch.tensor([[-1.0], [1.0]])), karras(64)
        >>> noise = invert(D, torch.tensor([[1.002], [-0.999]]), sigmas)
        >>> [round(float(value), 1) for value in noise / 80]
        [1.4, -0.4]
        >>> sample(D, noise, sigmas).tolist()
        [[1.0], [-1.0]]
    """
    states = ascent(D, x, sigmas, solver=solver, **options)
    state = None
    for state in tqdm(states, total=len(sigmas) - 1, desc="inverting", unit="level", leave=False, disable=not progress):
        if callback is not None:
            callback(state)
    assert state is not None
    return state.x


@dataclass(frozen=True)
class RoundTrip:
    """What a solver makes of x on one way and back.

    Attributes:
        x: (B, *event), what came back, float64.
        turned: (B, *event), at the other end, float64.
        error: (B,) float64, root mean square of the difference, over the values of a point, in units of x.
    """

    x: Tensor
    turned: Tensor
    error: Tensor

    __repr__ = in_short


def round_trip(
    D: Denoiser,
    x: Tensor,
    sigmas: Tensor | Sequence[float],
    *,
    solver: str | Solver = "heun",
    up_first: bool = False,
    **options: Any,
) -> RoundTrip:
    """From sigmas[0] down to the last level above 0 and up again; `up_first`, from there up and down again.

    The state is float64 all the way, and D is asked in the precision of x.

    Args:
        D: any denoiser.
        x: (B, *event), at sigmas[0], or at sigmas[-2] where it goes up first; over its signal scale.
        sigmas, solver: as for `ascent`.

    Raises:
        ValueError: as for `ascent`.

    Example:
        >>> from optimal import karras
        >>> gauss = lambda x, sigma: x / (1 + torch.as_tensor(sigma) ** 2)            # the optimum of N(0, 1)
        >>> x = torch.full((1, 1), 80.0, dtype=torch.float64)
        >>> [f"{float(round_trip(gauss, x, karras(n)).error):.0e}" for n in (20, 40, 80)]
        ['5e-01', '6e-02', '7e-03']
    """
    levels, chosen = _asked(x, sigmas, solver, options)
    ways = [levels, levels[::-1]]
    if up_first:
        ways.reverse()
    start = x.detach().double()
    turned = _end(D, start, ways[0], chosen, x.dtype)
    back = _end(D, turned, ways[1], chosen, x.dtype)
    error = (back - start).flatten(1).square().mean(1).sqrt()
    return RoundTrip(back, turned, error)


def _asked(
    x: Tensor, sigmas: Tensor | Sequence[float], solver: str | Solver, options: dict[str, Any]
) -> tuple[list[float], Solver]:
    """The levels above 0 and the solver, checked."""
    levels, chosen = grid(sigmas).tolist(), solver_of(solver, options)
    chosen.check(levels)
    require_points(x)
    name = type(chosen).__name__
    if len(levels) < 3:
        raise ValueError(f"the way up has two levels above 0 at least, got {len(levels) - 1}")
    if chosen.draws(max(len(levels) - 1, 2)):
        raise ValueError(f"the way up is a function of x, {name} draws noise")
    if chosen.down_only:
        raise ValueError(f"{name} goes down only")
    return levels[:-1], chosen


def _end(D: Denoiser, x: Tensor, levels: list[float], solver: Solver, dtype: torch.dtype) -> Tensor:
    def asked(z: Tensor, sigma: float | Tensor) -> Tensor:
        return D(z.to(dtype), sigma)

    *_, last = follow(asked, x, levels, solver)
    return last.x
