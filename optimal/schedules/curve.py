"""How much the optimum does not know at every noise level: the curve that grids are designed from.

With H(σ) the mean entropy of the posterior along x = x0 + σ ε, and mmse(σ) = E‖x0 − D(x, σ)‖², the two are one,

    dH/dσ = mmse/σ³    (I-MMSE; Guo, Shamai, Verdú 2005)

which checks what was measured. A network has the same curve, with its denoising loss E‖x0 − F(x, σ)‖² for the mmse.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..border import forward_statistics
from ..denoiser import OptimalDenoiser
from ..numbers import is_whole, require_whole
from ..randomness import generator_of
from ..shown import in_short

__all__ = ["Curve", "curve_of", "known_below", "probabilities_of", "start_level"]

_KNOWN = 1e-4
"""Mean nats of entropy below which nothing is left to know, and the curve ends."""
_FINE = 4000
"""Places of integrals over log σ."""
_REACHES = 3
"""Times seven decades that are looked through for where nothing is left to know."""


@dataclass(frozen=True)
class Curve:
    """mmse against noise level, and what follows from it.

    Attributes:
        sigmas: (S,) float64, increasing, S >= 2.
        mmse: (S,) float64, not negative, not decreasing; square units of the data, summed over the event.
        entropy: (S,) float64, nats, as measured; None where it was not.

    Raises:
        ValueError: levels that do not increase or are not positive; an mmse that decreases, is negative or of another
            length.

    Example:
        >>> Curve.of(torch.tensor([0.1, 1.0, 10.0]), lambda sigma: sigma**2 / (1 + sigma**2)).mmse    # N(0, 1)
        tensor([0.0099, 0.5000, 0.9901], dtype=torch.float64)
    """

    sigmas: Tensor
    mmse: Tensor
    entropy: Tensor | None = None

    __repr__ = in_short

    def __post_init__(self) -> None:
        if self.sigmas.ndim != 1 or len(self.sigmas) < 2 or self.sigmas.shape != self.mmse.shape:
            raise ValueError(
                f"a curve has as many levels as values, 2 at least, got {tuple(self.sigmas.shape)} and "
                f"{tuple(self.mmse.shape)}"
            )
        if not ((self.sigmas > 0).all() and (self.sigmas.diff() > 0).all() and torch.isfinite(self.sigmas).all()):
            raise ValueError("the levels of a curve are positive and increase")
        if not ((self.mmse >= 0).all() and (self.mmse.diff() >= 0).all() and torch.isfinite(self.mmse).all()):
            raise ValueError("an mmse is not negative and does not fall as the noise rises")

    @classmethod
    def of(cls, sigmas: Tensor, mmse: Callable[[Tensor], Tensor]) -> Curve:
        """From a function of the level, (S,) to (S,)."""
        levels = torch.as_tensor(sigmas, dtype=torch.float64, device="cpu")
        return cls(levels, torch.as_tensor(mmse(levels), dtype=torch.float64, device="cpu"))

    @property
    def low(self) -> float:
        """The lowest level."""
        return float(self.sigmas[0])

    @property
    def high(self) -> float:
        """The highest level."""
        return float(self.sigmas[-1])

    def at(self, sigma: np.ndarray | float) -> np.ndarray:
        """mmse at levels within the curve's range: a monotone cubic in log σ."""
        return self._spline(np.log(sigma))

    def integral(self, high: float, low: float, power: int) -> float:
        """∫ mmse σ^{−power} dσ from low to high: the entropy lost between them for power = 3."""
        return float(self.cumulative(power, high, low)[1][-1])

    def cumulative(self, power: int, high: float, low: float) -> tuple[np.ndarray, np.ndarray]:
        """Places from low to high, even in log σ, and ∫ mmse σ^{−power} dσ from low to each."""
        from scipy.interpolate import CubicHermiteSpline

        logs = np.linspace(math.log(low), math.log(high), _FINE)
        values = self._spline(logs) * np.exp((1 - power) * logs)
        slopes = self._spline(logs, 1) * np.exp((1 - power) * logs) + (1 - power) * values
        primitive = CubicHermiteSpline(logs, values, slopes).antiderivative()
        return np.exp(logs), primitive(logs) - primitive(logs[0])

    @property
    def disagreement(self) -> float:
        """Largest |H − ∫ mmse σ^{−3} dσ| over the levels, in nats; nan without H. Both have the error of the draws."""
        if self.entropy is None:
            return math.nan
        places, total = self.cumulative(3, self.high, self.low)
        integral = np.interp(self.sigmas.log().numpy(), np.log(places), total)
        return float(np.abs(self.entropy.numpy() - self.entropy[0].item() - integral).max())

    @cached_property
    def _spline(self) -> Any:
        from scipy.interpolate import PchipInterpolator

        return PchipInterpolator(self.sigmas.log().numpy(), self.mmse.numpy())


def curve_of(
    D: OptimalDenoiser,
    *,
    sigma_max: float | None = None,
    nodes: int = 64,
    draws: int = 128,
    generator: torch.Generator | None = None,
    progress: bool = False,
) -> Curve:
    """The curve of the optimum, from the level at which 1e-4 nats are left to know up to sigma_max.

    The same pairs (x0, ε) serve every level, so the curve is smooth; what rounding and the draws leave of falls is
    taken out by isotonic regression.

    Args:
        D: the optimal denoiser.
        sigma_max: the highest level; `start_level(D)` unless given.
        nodes: levels, even in log σ.
        draws: pairs (x0, ε) at each.
        generator: source of randomness; without one, a fresh generator with a fixed seed.
        progress: whether progress bars are drawn on stderr.

    Raises:
        ValueError: fewer than 8 levels; sigma_max at which nothing is left to know, or data of one point; a D that has
            no posterior.
    """
    from scipy.optimize import isotonic_regression

    nodes, draws = require_whole("nodes", nodes, 8), require_whole("draws", draws)
    start = start_level(D)
    high = start if sigma_max is None else sigma_max
    source = generator_of(generator)
    low = known_below(D, high, min(draws, 32), source, progress=progress)
    levels = torch.logspace(math.log10(low), math.log10(high), nodes, dtype=torch.float64, device="cpu")
    levels[0], levels[-1] = low, high
    along = forward_statistics(D, levels, draws=draws, generator=source, progress=progress)
    rising = isotonic_regression(along.mmse.cpu().double().clamp_min(0).numpy()).x
    return Curve(levels, torch.as_tensor(rising.copy()), along.entropy.mean(1).cpu())


def known_below(
    D: OptimalDenoiser, high: float, draws: int, generator: torch.Generator, *, progress: bool = False
) -> float:
    """A level at which no more than 1e-4 nats are left to know, within a factor of 2 of the highest such level.

    Raises:
        ValueError: nothing is left to know at `high`.
    """
    coarse, entropy = _left(D, high, draws, generator, progress)
    for _ in range(_REACHES - 1):
        if entropy[0] < _KNOWN:
            break
        coarse, entropy = _left(D, float(coarse[0]), draws, generator, progress)
    known = entropy < _KNOWN
    if known[-1]:
        raise ValueError(
            f"at sigma_max = {high:g} nothing is left to know of these data: every grid from there is right"
        )
    return float(coarse[known.nonzero().max()]) if known.any() else float(coarse[0])


def _left(
    D: OptimalDenoiser, top: float, draws: int, generator: torch.Generator, progress: bool
) -> tuple[Tensor, Tensor]:
    """Levels of seven decades up to `top`, and the mean entropy at each, copies of a point being one."""
    coarse = top * torch.logspace(-7, 0, 29, dtype=torch.float64, device="cpu")
    coarse[-1] = top
    along = forward_statistics(D, coarse, draws=draws, generator=generator, progress=progress)
    entropy = along.entropy.mean(1).cpu()
    # dH/d log σ = mmse/σ²: where it does not fall any more, what is left tells copies apart.
    settled = float(along.mmse[0]) < _KNOWN * float(coarse[0]) ** 2
    return coarse, entropy - entropy[0] if settled else entropy


def require_steps(n: int) -> None:
    """Raise ValueError unless n is a whole number of steps, at least 1."""
    if not is_whole(n) or n < 1:
        raise ValueError(f"a grid needs at least 1 step, got n = {n!r}")


def start_level(D: OptimalDenoiser) -> float:
    """Where trajectories start: at EDM's 80, for data of EDM's size (standard deviation ½) or smaller; else higher.

    Raises:
        ValueError: a denoiser that has no posterior, such as a network.
    """
    if not hasattr(D, "posterior"):
        raise ValueError(f"grids are made from the posterior of an optimum, and {type(D).__name__} has none")
    return 80.0 * max(1.0, 2 * D.standard_deviation)


def probabilities_of(D: OptimalDenoiser) -> Tensor:
    """The prior probability of every data point, (len(D),) float64 on the CPU: that of all its copies at the first."""
    points = D.points
    own = torch.arange(points.size, device="cpu")
    places = D.first_copies()[points.outer(own).cpu()]
    weights = points.log_weight(own).exp().cpu()
    return torch.zeros(len(D), dtype=torch.float64, device="cpu").index_add_(0, places, weights)
