"""`GaussianExponential` with numbers of its own in every step, found on one data set for one grid.

    x(σ') − m = g P(σ', σ) (x − m) + Σ_j (A_j + b_j log σ/σ') r_j

P, A_j and r_j are those of the exponential integrator; the gain g, one a level, and the shares b_j are what calibration
finds (`optimal.schedules.calibrated`): 1 and 0 are the integrator itself. With so few steps that extrapolation is
wrong, numbers that were fitted to exact trajectories are less so.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor

from .gaussian_exponential import adams, residuals_of
from .gaussian_start import FromGaussian, Linear, carried, logs_of
from .solver import Step

__all__ = ["Calibrated"]


@dataclass(frozen=True)
class Calibrated(FromGaussian):
    """One denoiser call a step, on its own grid only.

    Args:
        gaussian: the linear part, `Wiener(D)`.
        levels: (n,), those of the grid above 0.
        gains: (n,), g: the first is of the flow of the Gaussian that leads to the first level.
        shares: n − 1 rows, b: of the latest r first; as many of them as a step has, or fewer.

    Raises:
        ValueError: numbers that do not fit together.
    """

    gaussian: Linear
    levels: tuple[float, ...]
    gains: tuple[float, ...]
    shares: tuple[tuple[float, ...], ...]

    keeps = True
    down_only = True

    def __post_init__(self) -> None:
        n = len(self.levels)
        if n < 1 or len(self.gains) != n or len(self.shares) != n - 1:
            raise ValueError(
                f"{n} levels take {n} gains and {max(n - 1, 0)} rows of shares, got {len(self.gains)} and "
                f"{len(self.shares)}"
            )

    def check(self, sigmas: list[float]) -> None:
        if len(sigmas) != len(self.levels) + 1 or any(
            abs(a / b - 1) > 1e-6 for a, b in zip(sigmas[:-1], self.levels, strict=True)
        ):
            levels = ", ".join(f"{level:.4g}" for level in self.levels)
            raise ValueError(f"this solver was calibrated for the levels {levels} and 0 only")

    def start(self, x: Tensor, sigma: float, sigma_end: float) -> Tensor:
        return carried(self.gaussian, x, *logs_of(sigma, sigma_end), self.gains[0])

    def __call__(self, step: Step) -> Tensor:
        if step.sigma_next == 0:
            return step.denoised
        shares = self.shares[step.index]
        residuals = residuals_of(step, self.gaussian, max(map(len, self.shares)))[: len(shares)]
        log, end = math.log(step.sigma), math.log(step.sigma_next)
        moved = carried(self.gaussian, step.x, log, end, self.gains[step.index + 1])
        logs = [level for level, _ in residuals]
        for place, ((_, earlier), share) in enumerate(zip(residuals, shares, strict=True)):
            moved = moved + self.gaussian.spectral(
                earlier, lambda values, at=place, b=share: adams(values, end, logs, at) + b * (log - end)
            )
        return moved
