"""Noise grids: decreasing sigmas whose last entry is 0, for any number of steps from one on.

The EDM grid (Eq. 33; Karras et al. 2022, Eq. 5) spaces σ^{1/ρ} evenly, so that steps are shortest at low noise:

    σ_i = (σ_max^{1/ρ} + i/(n − 1) · (σ_min^{1/ρ} − σ_max^{1/ρ}))^ρ   for i = 0 … n − 1,    σ_n = 0

The others space something else evenly: log σ (ρ → ∞), the time of a process, the angle of the cosine schedule, the
angle arctan σ.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from .numbers import is_whole
from .process import VP, CosineVP, Process
from .query import Levels, per_row

__all__ = ["cosine", "grid", "karras", "kl_optimal", "log_linear", "on_grid", "uniform_t"]

_DEFAULT = VP()
_SAME = 1e-6
"""Levels that differ by less, relatively, are one: float32 rounds by 6e-8."""


def karras(n: int, *, sigma_min: float = 0.002, sigma_max: float = 80.0, rho: float = 7.0) -> Tensor:
    """The EDM grid of n steps (Eq. 33).

    Args:
        n: number of steps, at least 1. One step is [sigma_max, 0].
        sigma_min, sigma_max: last non-zero and first noise level.
        rho: exponent; larger spends more steps at low noise.

    Returns:
        (n + 1,) float64, decreasing, the last entry 0.

    Raises:
        ValueError: n < 1, not 0 < sigma_min <= sigma_max < inf (< for n > 1), or rho not positive and finite.

    Example:
        >>> karras(3)
        tensor([8.0000e+01, 2.5152e+00, 2.0000e-03, 0.0000e+00], dtype=torch.float64)
    """
    _check(n, sigma_min, sigma_max)
    if not 0 < rho < torch.inf:
        raise ValueError(f"rho must be positive and finite, got {rho:g}")
    return grid(_evenly(n, sigma_max ** (1 / rho), sigma_min ** (1 / rho), lambda u: u**rho, sigma_max, sigma_min))


def log_linear(n: int, *, sigma_min: float = 0.002, sigma_max: float = 80.0) -> Tensor:
    """n steps even in log σ, and so in the log signal-to-noise ratio −2 log σ (DPM-Solver's grid).

    σ_i = σ_max (σ_min/σ_max)^{i/(n − 1)} for i = 0 … n − 1, σ_n = 0.

    Args:
        n: number of steps, at least 1. One step is [sigma_max, 0].
        sigma_min, sigma_max: last non-zero and first noise level.

    Returns:
        (n + 1,) float64, decreasing, the last entry 0.

    Raises:
        ValueError: n < 1, or not 0 < sigma_min <= sigma_max < inf (< for n > 1).

    References:
        Lu, Zhou, Bao, Chen, Li, Zhu 2022, "DPM-Solver", section 3.

    Example:
        >>> log_linear(3, sigma_min=0.01, sigma_max=100.0)
        tensor([1.0000e+02, 1.0000e+00, 1.0000e-02, 0.0000e+00], dtype=torch.float64)
    """
    _check(n, sigma_min, sigma_max)
    high, low = torch.tensor([sigma_max, sigma_min], dtype=torch.float64, device="cpu").log().tolist()
    return grid(_evenly(n, high, low, torch.exp, sigma_max, sigma_min))


def uniform_t(n: int, *, process: Process = _DEFAULT, t_min: float = 1e-3, t_max: float | None = None) -> Tensor:
    """n steps even in the time of a process: σ_i = sigma(t_max + i/(n − 1)·(t_min − t_max)), σ_n = 0.

    For linear VP it is the grid of DDPM and DDIM.

    Args:
        n: number of steps, at least 1. One step is [sigma(t_max), 0].
        process: the process whose clock it is.
        t_min, t_max: last and first time; t_max is the last time of the process unless told otherwise.

    Returns:
        (n + 1,) float64, decreasing, the last entry 0.

    Raises:
        ValueError: n < 1; not 0 < t_min <= t_max (< for n > 1); t_max above the process' own, or where sigma is
            infinite (t = 1 of `CosineVP` and `FlowMatching`).

    References:
        Ho, Jain, Abbeel 2020, "Denoising Diffusion Probabilistic Models". Karras et al. 2022, Table 1.

    Example:
        >>> from optimal.process import EDM
        >>> uniform_t(4, process=EDM(), t_min=20.0)
        tensor([80., 60., 40., 20.,  0.], dtype=torch.float64)
    """
    last = process.t_max if t_max is None else t_max
    _check(n, t_min, last, "t", may_be_infinite=True)
    sigma_max, sigma_min = float(process.sigma(last)), float(process.sigma(t_min))
    if not sigma_max < torch.inf:
        raise ValueError(
            f"sigma(t_max) must be finite, but it is {sigma_max:g} at t_max = {last:g}: give a smaller t_max"
        )
    return grid(_evenly(n, last, t_min, process.sigma, sigma_max, sigma_min))


def cosine(n: int, *, sigma_min: float = 0.002, sigma_max: float = 80.0) -> Tensor:
    """n steps even in the time of `CosineVP`, from sigma_max to sigma_min, then 0.

    Args:
        n: number of steps, at least 1. One step is [sigma_max, 0].
        sigma_min, sigma_max: last non-zero and first noise level.

    Returns:
        (n + 1,) float64, decreasing, the last entry 0.

    Raises:
        ValueError: n < 1, or not 0 < sigma_min <= sigma_max < inf (< for n > 1).

    References:
        Nichol, Dhariwal 2021, "Improved Denoising Diffusion Probabilistic Models", Eq. 17.

    Example:
        >>> cosine(3)
        tensor([8.0000e+01, 9.9997e-01, 2.0000e-03, 0.0000e+00], dtype=torch.float64)
    """
    _check(n, sigma_min, sigma_max)
    process = CosineVP()
    high, low = float(process.time(sigma_max)), float(process.time(sigma_min))
    return grid(_evenly(n, high, low, process.sigma, sigma_max, sigma_min))


def kl_optimal(n: int, *, sigma_min: float = 0.002, sigma_max: float = 80.0) -> Tensor:
    """n steps even in the angle arctan σ, best for Euler's method on Gaussian data of standard deviation 1.

    σ_i = tan(arctan σ_max + i/(n − 1) · (arctan σ_min − arctan σ_max)) for i = 0 … n − 1, σ_n = 0. For data of the
    eigenvalues that they have: `optimal.schedules.gaussian_grid`.

    Args:
        n: number of steps, at least 1. One step is [sigma_max, 0].
        sigma_min, sigma_max: last non-zero and first noise level.

    Returns:
        (n + 1,) float64, decreasing, the last entry 0.

    Raises:
        ValueError: n < 1, or not 0 < sigma_min <= sigma_max < inf (< for n > 1).

    References:
        Sabour, Fidler, Kreis 2024, "Align Your Steps: Optimizing Sampling Schedules in Diffusion Models", Theorem 3.1;
        "kl_optimal" of ComfyUI.

    Example:
        >>> kl_optimal(3, sigma_min=0.0001, sigma_max=10000.0).round(decimals=4)
        tensor([1.0000e+04, 1.0000e+00, 1.0000e-04, 0.0000e+00], dtype=torch.float64)
    """
    _check(n, sigma_min, sigma_max)
    high, low = torch.tensor([sigma_max, sigma_min], dtype=torch.float64, device="cpu").atan().tolist()
    return grid(_evenly(n, high, low, torch.tan, sigma_max, sigma_min))


def grid(sigmas: Tensor | np.ndarray | Sequence[float]) -> Tensor:
    """A grid of one's own, checked.

    Args:
        sigmas: (n + 1,), n >= 1: finite, strictly decreasing, the last one 0.

    Returns:
        (n + 1,) float64, a copy.

    Raises:
        ValueError: whatever of this does not hold.

    Example:
        >>> grid([10, 1, 0])
        tensor([10.,  1.,  0.], dtype=torch.float64)
    """
    try:
        levels = torch.as_tensor(sigmas, dtype=torch.float64, device="cpu").detach().clone()
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"a grid must be a list, array or tensor of numbers, got {type(sigmas).__name__}") from error
    if levels.ndim != 1 or len(levels) < 2:
        raise ValueError(f"a grid must have shape (n + 1,) with n >= 1 steps, got {tuple(levels.shape)}")
    usable = torch.isfinite(levels) & (levels >= 0)
    if not usable.all():
        i = int((~usable).nonzero()[0])
        raise ValueError(
            f"the levels of a grid must be finite and not negative, got sigmas[{i}] = {float(levels[i]):g}"
        )
    if not (levels.diff() < 0).all():
        i = int((levels.diff() >= 0).nonzero()[0])
        raise ValueError(
            f"a grid must decrease at every step, got sigmas[{i}] = {float(levels[i]):.10g} and "
            f"sigmas[{i + 1}] = {float(levels[i + 1]):.10g}"
        )
    if levels[-1] != 0:
        raise ValueError(f"the last level of a grid must be 0, got {float(levels[-1]):g}")
    return levels


def on_grid(sigmas: Tensor, sigma: Levels, batch: int) -> Tensor:
    """The noise level of every row of a batch, for functions that are defined along a grid.

    Args:
        sigmas: (n + 1,) a grid.
        sigma: float, () or (B,): levels of the grid, or between its first and its last above 0, or 0.
        batch: B, the number of rows.

    Returns:
        (B,) float64; what is a level of the grid to within 1 part in 10⁶, float32 rounding, is that level exactly.

    Raises:
        ValueError: sigma of another shape, or out of this range.

    Example:
        >>> on_grid(grid([10, 1, 0]), torch.tensor([10.000001, 3.0, 0.0]), 3)
        tensor([10.,  3.,  0.], dtype=torch.float64)
    """
    levels = per_row("sigma", sigma, batch)
    sigmas = sigmas.to(levels.device)
    nearest = sigmas[(levels[:, None] - sigmas).abs().argmin(1)]
    levels = torch.where((levels - nearest).abs() <= _SAME * nearest, nearest, levels)
    usable = (levels == 0) | ((levels >= sigmas[-2]) & (levels <= sigmas[0]))
    if not usable.all():
        raise ValueError(
            f"sigma must lie on the grid's range, from {float(sigmas[-2]):g} to {float(sigmas[0]):g}, or be 0, "
            f"got {float(levels[~usable][0]):g}"
        )
    return levels


def _check(n: int, low: float, high: float, name: str = "sigma", *, may_be_infinite: bool = False) -> None:
    if not is_whole(n):
        raise ValueError(f"a grid needs a whole number of steps, got n = {n!r}")
    if n < 1:
        raise ValueError(f"a grid needs at least 1 step, got n = {n}")
    if not (0 < low <= high and (high < torch.inf or may_be_infinite)):
        bound = "" if may_be_infinite else " < inf"
        raise ValueError(f"a grid needs 0 < {name}_min <= {name}_max{bound}, got {low:g} and {high:g}")
    if n > 1 and low == high:
        raise ValueError(f"a grid of {n} steps needs {name}_min < {name}_max, got {low:g} for both")


def _evenly(
    n: int, high: float, low: float, level: Callable[[Tensor], Tensor], sigma_max: float, sigma_min: float
) -> Tensor:
    """level(u) at n even steps of u from high to low, then 0; the ends are what was asked for, to the last digit."""
    fraction = torch.arange(n, dtype=torch.float64, device="cpu") / max(n - 1, 1)
    sigmas = torch.cat([level(high + fraction * (low - high)), torch.zeros(1, dtype=torch.float64, device="cpu")])
    sigmas[0] = sigma_max
    if n > 1:
        sigmas[-2] = sigma_min
    return sigmas
