"""`design`: one door to the grids that are made from the optimum."""

from __future__ import annotations

import math
import warnings
from typing import Any, Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from ..border import forward_statistics
from ..denoiser import OptimalDenoiser
from ..numbers import require_whole
from ..randomness import stream
from ..samplers import Solver, solver_of
from ..schedule import log_linear
from ..theories import Wiener
from .ancestral import path_kl_grid
from .curve import curve_of, probabilities_of, require_steps, start_level
from .entropic import entropic_grid
from .gaussian import gaussian_grid, require_flowing
from .landings import starts_of
from .search import landings_grid

__all__ = ["Objective", "design"]

Objective = Literal["landings", "path-kl", "entropy", "rescaled-entropy", "gaussian"]

_FAR_BELOW = 1e-7


def design(
    D: OptimalDenoiser,
    n: int,
    objective: Objective = "landings",
    solver: str | Solver = "dpm_solver_pp",
    *,
    sigma_max: float | None = None,
    starts: int = 1024,
    seed: int = 0,
    progress: bool = False,
    **options: Any,
) -> Float[Tensor, " levels"]:
    """A grid of n steps made for these data: where the optimum itself says that the steps belong.

    Args:
        D: the optimal denoiser.
        n: number of steps, at least 1; the last one leads to 0.
        objective: "landings", the fewest ends on other points than the exact flow's, for this solver; "gaussian", the
            nearest end if the data were Gaussian, for this solver; "path-kl", the least KL of the ancestral sampler's
            path; "entropy" and "rescaled-entropy", even steps of H or ∫ σ dH.
        solver: a name of `SOLVERS`, with its options by keyword, or a `Solver`; one that draws no noise for the first
            two objectives. The other three do not depend on it, but it must take the grid.
        sigma_max: first level; `start_level(D)` unless given. A `FromGaussian` solver begins lower under "landings".
        starts: trajectories that "landings" is designed on, and pairs (x0, ε) of the curves up to 128.
        seed: of what is drawn.
        progress: whether progress bars are drawn on stderr.

    Returns:
        (n + 1,) float64, decreasing, the last entry 0. For data of one point, where every grid is right, one even in
        log σ, and a warning that says so.

    Raises:
        ValueError: n < 1, an unknown objective, solver or option; a solver that does not take the grid; sigma_max below
            the border, where the ends are decided; a D that is no `OptimalDenoiser`; data so far from 0 that from noise
            alone all ends are the same.

    Example:
        >>> D = OptimalDenoiser(torch.tensor([[-1.0], [0.0], [1.0]]))
        >>> design(D, 4, "path-kl").shape
        torch.Size([5])
    """
    if objective not in get_args(Objective):
        raise ValueError(f"objective must be one of {', '.join(get_args(Objective))}, got {objective!r}")
    require_steps(n)
    starts = require_whole("starts", starts)
    if not isinstance(D, OptimalDenoiser):
        raise ValueError(f"grids are made from the optimum of data, an OptimalDenoiser, got {type(D).__name__}")
    chosen = solver_of(solver, options)
    if objective in ("landings", "gaussian"):
        require_flowing(chosen)
    high = start_level(D) if sigma_max is None else sigma_max
    probabilities = probabilities_of(D)
    if int((probabilities > 0).sum()) == 1:
        warnings.warn("data of one point: every grid ends on it, from any level and for any solver", stacklevel=2)
        return log_linear(n, sigma_max=high, sigma_min=min(0.002, high / 2))
    _require_above_border(D, high, seed, probabilities)
    if objective == "landings":
        begun = starts_of(D, starts, seed, sigma_max=high, purpose="design", progress=progress)
        levels = landings_grid(begun, n, solver=chosen, progress=progress)
    elif objective == "gaussian":
        values, counts = Wiener(D, progress=progress).spectrum()
        levels = gaussian_grid(values, n, solver=chosen, sigma_max=high, counts=counts)
    else:
        source = stream(seed, "design", 2)
        curve = curve_of(D, sigma_max=high, draws=min(starts, 128), generator=source, progress=progress)
        if objective == "path-kl":
            levels = path_kl_grid(curve, n)
        else:
            levels = entropic_grid(curve, n, rescaled=objective == "rescaled-entropy")
    chosen.check(levels.tolist())
    return levels


def _require_above_border(D: OptimalDenoiser, sigma_max: float, seed: int, probabilities: Tensor) -> None:
    """Raise ValueError where the posterior at sigma_max is one point already, copies being one."""
    if not 0 < sigma_max < float("inf"):
        raise ValueError(f"sigma_max must be positive and finite, got {sigma_max:g}")
    # Far below the border only copies share the posterior still.
    both = forward_statistics(D, [sigma_max, _FAR_BELOW * sigma_max], draws=64, generator=stream(seed, "design", 3))
    if D.points.size > int((probabilities > 0).sum()):
        count = math.exp(float((both.entropy[0] - both.entropy[1]).mean()))
    else:
        count = float(both.effective_count[0].median())
    most = math.exp(float(torch.special.entr(probabilities).sum()))
    if count - 1 < min(1.0, 0.8 * (most - 1)):
        raise ValueError(
            f"sigma_max = {sigma_max:g} lies below the border: {count:.3g} points share the posterior there, and the "
            "ends are decided already"
        )
