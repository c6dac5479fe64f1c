"""The grid on which the ancestral sampler of the optimum loses least, in closed form.

The step from σ_i to σ_{i+1} that draws from q(x' | x, x0 = D(x, σ_i)) (`euler`, eta = 1) is the reverse SDE with D held
at its value. By Girsanov's theorem the path measure of all steps is off by

    KL = Σ ∫ E‖D(x_s, s) − D(x_i, σ_i)‖² s⁻³ ds = Σ_i ½ mmse(σ_i) (γ_{i+1} − γ_i) − [H(σ_0) − H(σ_n)],   γ = 1/σ²

since x_i is x_s and more noise, so that D(x_i) = E[D(x_s) | x_i], and with I-MMSE: an upper Riemann sum of a decreasing
function of γ over its integral. It is the objective of "Align Your Steps", which is estimated there by Monte Carlo over
pairs, of a network. It bounds the KL of the sampler's last noisy state from p(x; σ_n). A level more never adds to it,
and n KL converges, to ½ (∫ √(−f') dγ)² with f = mmse/2. The step from the last level to 0 is not in it: among points it
is infinite.

References:
    Sabour, Fidler, Kreis 2024, "Align Your Steps: Optimizing Sampling Schedules in Diffusion Models". Kingma, Salimans,
    Poole, Ho 2021, "Variational Diffusion Models", whose discrete bound has the first sum.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Float
from torch import Tensor

from ..schedule import grid
from .curve import Curve, require_steps

__all__ = ["path_kl", "path_kl_grid"]

_NODES = 400
_SETTLED = 1e-9
_SWEEPS = 200
_SECTIONS = 50
"""Of the bounds of a level: to 4e-11 of the distance of its neighbours."""
_LEFT = 1e-3
"""Mean nats of entropy that the last level leaves, unless told otherwise."""


def path_kl(curve: Curve, sigmas: Tensor | Sequence[float]) -> float:
    """KL of the ancestral sampler's path from the reverse SDE's, from the first level to the last above 0, in nats.

    Args:
        curve: of the denoiser.
        sigmas: (n + 1,) a grid.

    Raises:
        ValueError: a bad grid, or one that leaves the curve's range.
    """
    levels = grid(sigmas)[:-1].numpy()
    _require_within(curve, levels[0], levels[-1])
    if len(levels) == 1:
        return 0.0
    return _sum(curve, levels) - curve.integral(levels[0], levels[-1], 3)


def path_kl_grid(
    curve: Curve, n: int, *, sigma_max: float | None = None, sigma_min: float | None = None
) -> Float[Tensor, " levels"]:
    """The grid of n steps with the least `path_kl`: by dynamic programming over 400 levels, then level by level.

    Args:
        curve: of the denoiser.
        n: number of steps, at least 1; the last one leads from sigma_min to 0.
        sigma_max, sigma_min: first level, and last one above 0; those of the curve, and where it has 1e-3 nats of
            entropy left, unless given.

    Returns:
        (n + 1,) float64, decreasing, the last entry 0.

    Raises:
        ValueError: n < 1, or levels out of the curve's range or order.

    Example:
        >>> import torch
        >>> from optimal.schedules import Curve
        >>> levels = torch.logspace(-2, 2, 100, dtype=torch.float64)
        >>> gaussian = Curve.of(levels, lambda sigma: sigma**2 / (1 + sigma**2))
        >>> path_kl_grid(gaussian, 4, sigma_min=0.1).round(decimals=2).tolist()    # 1 + 1/σ² grows by equal factors
        [100.0, 0.52, 0.22, 0.1, 0.0]
    """
    high, low = range_of(curve, sigma_max, sigma_min)
    require_steps(n)
    if n == 1:
        return grid([high, 0.0])
    levels = _by_programming(curve, n, high, low)
    return grid([*_settled(curve, levels), 0.0])


def range_of(curve: Curve, sigma_max: float | None, sigma_min: float | None) -> tuple[float, float]:
    """First and last level of a grid on a curve, checked."""
    high = curve.high if sigma_max is None else sigma_max
    if sigma_min is None:
        places, total = curve.cumulative(3, curve.high, curve.low)
        sigma_min = float(np.interp(_LEFT, total, places)) if total[-1] > _LEFT else curve.low
    _require_within(curve, high, sigma_min)
    if not sigma_min < high:
        raise ValueError(f"a grid needs sigma_min < sigma_max, got {sigma_min:g} and {high:g}")
    if not curve.at(high) > 0:
        raise ValueError(f"the curve is 0 up to {high:g}, so nothing is learnt below: every grid is right")
    return high, sigma_min


def _require_within(curve: Curve, high: float, low: float) -> None:
    slack = 1 + 1e-9
    if not (curve.low / slack <= low and high <= curve.high * slack):
        raise ValueError(
            f"the curve is known from {curve.low:.4g} to {curve.high:.4g}, got levels from {low:.4g} to {high:.4g}"
        )


def _sum(curve: Curve, levels: np.ndarray) -> float:
    return float((curve.at(levels[:-1]) / 2 * np.diff(levels**-2.0)).sum())


def _by_programming(curve: Curve, n: int, high: float, low: float) -> np.ndarray:
    """The n best of many levels, the first and the last given."""
    nodes = np.geomspace(high, low, max(_NODES, 4 * n))
    gamma = nodes**-2.0
    costs = curve.at(np.clip(nodes, curve.low, curve.high))[:, None] / 2 * (gamma[None] - gamma[:, None])
    costs[np.tril_indices(len(nodes))] = math.inf
    best, came = costs[0], []
    for _ in range(n - 2):
        sums = best[:, None] + costs
        came.append(sums.argmin(0))
        best = sums.min(0)
    places = [len(nodes) - 1]
    for step in reversed(came):
        places.append(int(step[places[-1]]))
    return nodes[[0, *reversed(places)]]


def _settled(curve: Curve, levels: np.ndarray) -> np.ndarray:
    """Every other level in turn to where the sum is least between its neighbours, until none moves.

    A level's cost depends on its neighbours alone: so those of odd places are moved together, then those of even ones.
    """
    logs = np.log(levels)
    for _ in range(_SWEEPS):
        moved = 0.0
        for parity in (1, 2):
            own, before, after = logs[parity:-1:2], logs[parity - 1 : -2 : 2], logs[parity + 1 :: 2]
            if not len(own):
                continue
            above, below = curve.at(np.exp(before)), np.exp(-2 * after)

            def cost(log: np.ndarray, above: np.ndarray = above, below: np.ndarray = below) -> np.ndarray:
                gamma = np.exp(-2 * log)
                return above * gamma + curve.at(np.exp(log)) * (below - gamma)

            found = _least(cost, after, before)
            better = cost(found) < cost(own)
            moved = max(moved, float(np.abs(found - own)[better].max(initial=0.0)))
            logs[parity:-1:2] = np.where(better, found, own)
        if moved < _SETTLED:
            break
    return np.concatenate([levels[:1], np.exp(logs[1:-1]), levels[-1:]])


def _least(cost: Callable[[np.ndarray], np.ndarray], low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Where each of many functions of one variable is least between its bounds, by the golden section."""
    share = (math.sqrt(5) - 1) / 2
    left, right = high - share * (high - low), low + share * (high - low)
    at_left, at_right = cost(left), cost(right)
    for _ in range(_SECTIONS):
        falls = at_left > at_right
        low, high = np.where(falls, left, low), np.where(falls, high, right)
        kept, at_kept = np.where(falls, right, left), np.where(falls, at_right, at_left)
        fresh = np.where(falls, low + share * (high - low), high - share * (high - low))
        at_fresh = cost(fresh)
        left, at_left = np.where(falls, kept, fresh), np.where(falls, at_kept, at_fresh)
        right, at_right = np.where(falls, fresh, kept), np.where(falls, at_fresh, at_kept)
    return (low + high) / 2
