"""The optimum smoothed in x: its mean over Gaussian displacements, σ-CFDM.

    D^s(x, σ) = E_ε D(x + s ε, σ) ≈ (1/M) Σ_m D(x + s ε_m, σ),    ε ~ N(0, Q)

The kernel is applied to the score, or, what is the same, to log p: ∇(k ∗ log p) = k ∗ ∇ log p. It is not the optimum
of data with noise, in which p itself is convolved, `OptimalDenoiser.smoothed`; and in general the optimum of no data.

The M draws are fixed, and those of every row and every level: D^s is a function, and its flow a flow. They come in
pairs ±ε, with which what is linear in x passes unchanged. As σ → 0 each of the M terms is a data point, so samples are
averages of M data points, the barycentres of which the authors speak.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from jaxtyping import Float, Num
from torch import Tensor

from ..denoiser import OptimalDenoiser
from ..numbers import is_number, is_whole
from ..query import Levels, beside, levels, require_points
from ..randomness import generator_of
from .gaussian import Wiener

__all__ = ["ScoreSmoothed", "score_smoothed"]

_BYTES = 2**28
"""Of displaced queries at once."""

Width = float | Callable[[Tensor], Tensor]


class ScoreSmoothed:
    """(1/M) Σ D(x + s ε_m, σ), a `Denoiser`; made by `score_smoothed`.

    Attributes:
        D: the optimum.
        displacements: ε_m, (M, *event) float64.
        event: shape of one point.
    """

    def __init__(self, D: OptimalDenoiser, s: Width, displacements: Tensor):
        self.D, self.displacements, self.event, self._width = D, displacements, D.event, s

    def __repr__(self) -> str:
        s = "s(σ)" if callable(self._width) else f"{float(self._width):g}"
        return f"ScoreSmoothed({self.D!r}, {s}, {len(self.displacements)} draws)"

    def __call__(self, x: Num[Tensor, "B *event"], sigma: Levels) -> Float[Tensor, "B *event"]:
        """D^s(x, σ), (B, *event), like x.

        Raises:
            ValueError: as for `OptimalDenoiser`; a width of σ that is negative, not finite or of another shape.
        """
        require_points(x, self.event)
        sigmas = levels(sigma, len(x), x.device, graph=True)
        width = self.widths(sigmas)
        if not width.any():
            return self.D(x, sigmas)
        dim = math.prod(self.event)
        rows = max(1, _BYTES // (8 * dim * len(x))) if len(x) else len(self.displacements)
        total = torch.zeros_like(x, dtype=torch.float64)
        for some in self.displacements.to(device=x.device, dtype=torch.float64).split(rows):
            moved = x.double() + beside(width, x) * some[:, None]
            # In x's dtype, which says how exactly D answers.
            asked = moved.flatten(0, 1).to(x.dtype)
            total = total + self.D(asked, sigmas.repeat(len(some))).double().view(moved.shape).sum(0)
        return (total / len(self.displacements)).to(x.dtype)

    def widths(self, sigmas: Float[Tensor, " B"]) -> Float[Tensor, " B"]:
        """s of every level, (B,) float64."""
        if not callable(self._width):
            return torch.full_like(sigmas, float(self._width))
        return levels(self._width(sigmas), len(sigmas), sigmas.device, zero=True, name="the width of sigma", graph=True)


def score_smoothed(
    D: OptimalDenoiser,
    s: Width,
    draws: int = 10,
    *,
    rank: int | None = None,
    generator: torch.Generator | None = None,
) -> ScoreSmoothed:
    """σ-CFDM: the optimum averaged over Gaussian displacements of x.

    Args:
        D: the optimum.
        s: standard deviation of the displacements, in units of x, that is of the data: x = x_t/s_t. In flow matching's
            time t that of x_t is t times this. A number, or a function of σ, (B,) -> (B,).
        draws: M, displacements, half of them the others' negatives; an even number, or 1 that is no pair.
        rank: r, for displacements along the r leading axes of the data only, tangential smoothing; all values of a
            point, unless given.
        generator: of the displacements; a fixed seed unless given.

    Raises:
        ValueError: a D that does not say the shape of its points; a width that is negative or not finite; draws that
            are odd and not 1; as for `Wiener`.

    A call costs M evaluations of D.

    References:
        Scarvelis, Sáez de Ocáriz Borde, Solomon 2023, "Closed-Form Diffusion Models". Anisotropic kernels: Farghly,
        Potaptchik, Howard, Deligiannidis, Pidstrigach 2025, "Diffusion Models and the Manifold Hypothesis:
        Log-Domain Smoothing is Geometry Adaptive" (arXiv 2510.02305).

    Example:
        >>> D = OptimalDenoiser(torch.tensor([[-1.0], [1.0]]))
        >>> score_smoothed(D, s=0.0)(torch.tensor([[0.5]]), 1.0)
        tensor([[0.4621]])
    """
    if not callable(D) or getattr(D, "event", None) is None:
        raise ValueError(f"D must say the shape of its points, as an OptimalDenoiser does, got {type(D).__name__}")
    if not callable(s):
        if not is_number(s):
            raise ValueError(f"s must be a number, or a function of sigma that gives one, got {s!r}")
        levels(s, 1, zero=True, name="s")
    if not is_whole(draws) or draws < 1 or (draws % 2 and draws != 1):
        raise ValueError(f"draws must be even, or 1, got {draws!r}")
    generator = generator_of(generator)
    count = max(draws // 2, 1)
    if rank is None:
        eps = torch.randn(count, math.prod(D.event), generator=generator, dtype=torch.float64, device=generator.device)
    else:
        axes = Wiener(D, rank).axes
        inside = torch.randn(count, axes.shape[1], generator=generator, dtype=torch.float64, device=generator.device)
        eps = inside @ axes.T.to(inside)
    both = eps if draws == 1 else torch.cat([eps, -eps])
    return ScoreSmoothed(D, s if callable(s) else float(s), both.reshape(len(both), *D.event))
