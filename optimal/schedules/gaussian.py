"""The grid on which a solver is best if the data were Gaussian: from the eigenvalues of their covariance alone.

Along an axis of variance λ every solver that is linear in x and D multiplies the coordinate by a number, where the
exact flow multiplies it by √((λ + σ'²)/(λ + σ²)). Euler's step falls short of that by cos(θ − θ') with
θ = arctan(σ/√λ), so that equal angles are best for data of one variance. With ρ_k the product of a grid's numbers over
that of the flow, the end has the standard deviation ρ_k √λ_k where √λ_k is right:

    W2² = Σ λ_k (ρ_k − 1)²,      KL = ½ Σ (ρ_k² − 1 − log ρ_k²)
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from ..process import EDM
from ..query import Levels
from ..samplers import FromGaussian, GaussianStart, Solver, Step, sample, solver_of
from ..schedule import grid, karras
from .curve import require_steps

__all__ = ["Distance", "gaussian_grid", "gaussian_ratios"]

Distance = Literal["w2", "kl"]
_GAPS = (-5.0, 3.0)
"""Of the logarithm of a step in log σ."""
_LOWEST = 1e-12
"""Share of the largest eigenvalue below which an axis has no variance that a grid could get wrong."""
_MOVED = 1e-6
"""Of log σ, for central differences."""
_MOST = 200
"""Tries of a start with exact slopes: 16, 30 and 60 steps of Heun's and Euler's took 20 to 40."""
_NEAR = 1e-6
"""Of ρ to 1, where the root of a KL is their difference."""


def gaussian_ratios(
    eigenvalues: Tensor, sigmas: Tensor | Sequence[float], *, solver: str | Solver = "euler", **options: Any
) -> Float[Tensor, " n"]:
    """ρ_k, the standard deviation that a grid ends with over the right one, along axes of these variances.

    Args:
        eigenvalues: (n,), positive.
        sigmas: (steps + 1,) a grid.
        solver: one that draws no noise, with its options by keyword.

    Raises:
        ValueError: a bad grid, solver or option; a variance that is not positive; a solver that takes its steps by a
            Gaussian of its own.

    Example:
        >>> gaussian_ratios(torch.tensor([1.0]), [1.0, 0.0])       # cos 45°
        tensor([0.7071], dtype=torch.float64)
    """
    values = torch.as_tensor(eigenvalues, dtype=torch.float64, device="cpu")
    if values.ndim != 1 or not ((values > 0) & torch.isfinite(values)).all():
        raise ValueError("eigenvalues must be (n,) positive numbers")
    levels = grid(sigmas)
    start = (values + levels[0] ** 2).sqrt()[None]
    return sample(_Linear(values), start, levels, solver=_stepping(solver_of(solver, options)))[0] / values.sqrt()


def gaussian_grid(
    eigenvalues: Tensor,
    n: int,
    *,
    solver: str | Solver = "euler",
    distance: Distance = "w2",
    sigma_max: float = 80.0,
    counts: Tensor | None = None,
    **options: Any,
) -> Float[Tensor, " levels"]:
    """The grid of n steps whose end is nearest to the Gaussian, in W2 or KL, by Gauss and Newton in the log levels.

    Args:
        eigenvalues: (K,) variances along the axes; those below 1e-12 of the largest are left out.
        n: number of steps, at least 1; the last one leads to 0.
        solver: one that draws no noise, with its options by keyword.
        distance: "w2", which the large variances decide, or "kl", in which all count alike.
        sigma_max: first level.
        counts: (K,) along how many axes each is the variance; one unless given.

    Returns:
        (n + 1,) float64, decreasing, the last entry 0.

    Raises:
        ValueError: n < 1, no positive variance, one that is negative or not finite, counts of another length or not
            positive, another distance, sigma_max not positive and finite; a solver that draws noise, or that takes its
            steps by a Gaussian of its own.

    Example:
        >>> gaussian_grid(torch.tensor([1.0]), 3, sigma_max=1e6).round(decimals=3).tolist()    # tan of 60° and 30°
        [1000000.0, 1.732, 0.577, 0.0]
    """
    from scipy.optimize import least_squares

    values = torch.as_tensor(eigenvalues, dtype=torch.float64, device="cpu")
    weights = torch.ones_like(values) if counts is None else counts.to(values)
    if values.ndim != 1 or not ((values >= 0) & torch.isfinite(values)).all():
        raise ValueError("eigenvalues must be (K,) finite numbers that are not negative")
    if weights.shape != values.shape or not ((weights > 0) & torch.isfinite(weights)).all():
        raise ValueError(f"counts must be {len(values)} positive numbers, one for each eigenvalue")
    held = values > _LOWEST * values.amax() if len(values) else values > 0
    if not held.any():
        raise ValueError("data without variance have no Gaussian grid: every grid is right")
    if distance not in ("w2", "kl"):
        raise ValueError(f'distance must be "w2" or "kl", got {distance!r}')
    require_steps(n)
    chosen = _stepping(solver_of(solver, options))
    if n == 1:
        return grid([sigma_max, 0.0])
    values, roots = values[held], weights[held].sqrt().numpy()

    def levels_of(gaps: np.ndarray) -> np.ndarray:
        return np.concatenate([[sigma_max], sigma_max * np.exp(-np.cumsum(np.exp(gaps))), [0.0]])

    def residuals(gaps: np.ndarray) -> np.ndarray:
        ratios = gaussian_ratios(values, torch.as_tensor(levels_of(gaps)), solver=chosen).numpy()
        if distance == "w2":
            return roots * values.sqrt().numpy() * (ratios - 1)
        square = np.maximum(ratios**2, 1e-300)
        return roots * np.sign(ratios - 1) * np.sqrt(np.maximum(square - 1 - np.log(square), 0) / 2)

    def slopes(gaps: np.ndarray) -> np.ndarray:
        levels = levels_of(gaps)
        ratios, along = _moved_ratios(values, levels.tolist(), chosen)
        # A gap moves its level and all below it.
        along = -np.exp(gaps)[:, None] * along[::-1].cumsum(0)[::-1]
        if distance == "w2":
            return (along * roots * values.sqrt().numpy()).T
        square = np.maximum(ratios**2, 1e-300)
        root = np.sign(ratios - 1) * np.sqrt(np.maximum(square - 1 - np.log(square), 0) / 2)
        near = np.abs(ratios - 1) < _NEAR
        slope = np.where(
            near, 1.0, (square - 1) / np.where(near, 1.0, 2 * np.where(ratios == 0, 1e-150, ratios) * root)
        )
        return (along * roots * slope).T

    mean = float((values.sqrt().numpy() * roots**2).sum() / (roots**2).sum())
    low = min(mean / 10, sigma_max / 2)
    starts = (_equal_angles(n, sigma_max, mean), karras(n, sigma_min=low, sigma_max=sigma_max).numpy())
    single = not (chosen.memory or chosen.keeps)
    found = [
        least_squares(
            residuals,
            np.log(-np.diff(np.log(start[:-1]))).clip(-4.9, 2.9),
            jac=slopes if single else "2-point",  # pyright: ignore[reportArgumentType]
            max_nfev=_MOST if single else None,
            x_scale=0.1,
            bounds=_GAPS,
        )
        for start in starts
    ]
    return grid(levels_of(min(found, key=lambda result: result.cost).x).tolist())


def _moved_ratios(values: Tensor, levels: list[float], solver: Solver) -> tuple[np.ndarray, np.ndarray]:
    """ρ, (K,), and ∂ρ/∂log σ_j of the levels between the first and the 0, (n − 1, K), of a solver of single steps.

    Each step multiplies by a number of its own two levels, so a level that moves changes two factors: 5n steps for all
    levels, where the grid anew for each of them takes n².
    """
    D, steps, ones = _Linear(values), len(levels) - 1, torch.ones_like(values)[None]

    def factor(index: int, high: float, low: float) -> np.ndarray:
        step = Step(D, ones, high, low, D(ones, high), index, steps, _no_noise, EDM(math.inf))
        return solver(step)[0].numpy()

    own = [factor(i, *levels[i : i + 2]) for i in range(steps)]
    start = ((values + levels[0] ** 2) / values).sqrt().numpy()
    before = [start]
    for number in own:
        before.append(before[-1] * number)
    along, after = np.zeros((steps - 1, len(values))), np.ones(len(values))
    for j in range(steps - 1, 0, -1):
        ends = [
            factor(j - 1, levels[j - 1], levels[j] * math.exp(moved))
            * factor(j, levels[j] * math.exp(moved), levels[j + 1])
            for moved in (_MOVED, -_MOVED)
        ]
        along[j - 1] = before[j - 1] * (ends[0] - ends[1]) / (2 * _MOVED) * after
        after = after * own[j]
    return before[-1], along


def _no_noise() -> Tensor:
    raise AssertionError("a solver that draws no noise asked for some")


def _equal_angles(n: int, sigma_max: float, scale: float) -> np.ndarray:
    """Levels whose angles arctan(σ/scale) are even."""
    angles = np.linspace(math.atan(sigma_max / scale), 0, n + 1)
    levels = scale * np.tan(angles)
    levels[0], levels[-1] = sigma_max, 0.0
    return levels


def _stepping(solver: Solver) -> Solver:
    """The solver, where it makes its steps from x and D alone and draws no noise."""
    inner = solver
    while isinstance(inner, GaussianStart):
        inner = inner.solver
    if isinstance(inner, FromGaussian):
        raise ValueError(
            f"{type(inner).__name__} takes its steps by a Gaussian of its own: no grid is made for it from eigenvalues"
        )
    return require_flowing(inner)


def require_flowing(solver: Solver) -> Solver:
    """The solver, where it draws no noise in grids of any length.

    Raises:
        ValueError: it does. That a grid of one step has none of it does not help: the rule is the solver's, not the
            grid's, as for flow maps and the way up.
    """
    if solver.draws(2):
        raise ValueError(f"{type(solver).__name__} draws noise: its end is no function of the start")
    return solver


class _Linear:
    """The optimum of N(0, diag λ)."""

    def __init__(self, values: Tensor):
        self.values = values

    def __call__(self, x: Tensor, sigma: Levels) -> Tensor:
        square = torch.as_tensor(sigma, dtype=torch.float64, device="cpu").square()
        return self.values / (self.values + square) * x
