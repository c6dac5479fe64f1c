"""Guidance: two denoisers, extrapolated.

    D_w(x, σ) = D_u + w (D_c − D_u) = D_c + (w − 1)(D_c − D_u)

with D_c of a class and D_u of all data classifier-free guidance (Ho, Salimans 2022: their 1 + w is this w), with D_c a
network and D_u a worse one of the same data autoguidance (Karras et al. 2024). Inside an interval of noise levels only,
lo < σ <= hi; outside it is D_c, w = 1 (Kynkäänniemi et al. 2024, w as a function of σ on (σ_lo, σ_hi]). Here w belongs
to the level at which the denoiser is asked: where a step starts above hi and ends inside, Heun's second call is guided.
The sampler that its authors published decides by the step instead, for both of its calls: there an interval is a range
of steps, which is ours with hi the level of the first of them and lo that of the first after them, but for the second
calls of the two steps that cross an end.

What it does to the optimum. The distribution that guidance is said to sample, p_w(x0) ∝ p(x0) p(c | x0)^w, has the
points of the data with other weights. Of hard labels p(c | y_j) is 0 or 1 and so is its w-th power: p_w is the class
itself, and its optimum D_c, for every w > 0 (of soft ones it is not: `optimal.conditional.soft`). All that
guidance does to it is then an error, with P(c | x) the share of
the class in the posterior and D_¬c the optimum of all other points,

    D_w − D_c = (w − 1)(1 − P(c | x))(D_c − D_¬c)

which vanishes where x has chosen its class, and away from there pushes it off the others. D_w is the posterior mean of
no data: it has no density and no entropy. Its flow need not end on a data point (at w < ½ some of it ends on w y_c +
(1 − w) y_k, between two), and what `certify` proves of the flow of D_c does not hold of it, since the error is not
small where x is captured among the points of the class.

References:
    Ho, Salimans 2022, "Classifier-Free Diffusion Guidance". Kynkäänniemi, Aittala, Karras, Laine, Aila, Lehtinen 2024,
    "Applying Guidance in a Limited Interval Improves Sample and Distribution Quality in Diffusion Models". Karras,
    Aittala, Kynkäänniemi, Lehtinen, Aila, Laine 2024, "Guiding a Diffusion Model with a Bad Version of Itself".
"""

from __future__ import annotations

import math
from typing import Any, NoReturn

import torch
from jaxtyping import Float, Num
from torch import Tensor

from ..denoiser import Denoiser, OptimalDenoiser
from ..query import Levels, beside, levels, require_points

__all__ = ["Guided", "guided"]

_OF_AN_OPTIMUM = ("data", "points", "evaluator", "log_density", "entropy", "effective_count")
"""What a guided denoiser has not, beside all that the class of an optimum has."""


class _NoPosterior(AttributeError, ValueError):
    """What is not there, so that hasattr says so; and what a measurement of it was asked for wrongly."""


class Guided:
    """D_u + w (D_c − D_u), a `Denoiser` and no posterior; made by `guided`.

    Attributes:
        conditional, unconditional: D_c and D_u.
        weight: w, float64, () or (B,).
        interval: (lo, hi), w holds for lo < σ <= hi.
        event: shape of a point, where either says it; else None.
        sigma_min, sigma_max: the noise levels that both take.
        name: what tables call it.
    """

    def __init__(self, conditional: Denoiser, unconditional: Denoiser, weight: Tensor, interval: tuple[float, float]):
        self.conditional, self.unconditional, self.weight, self.interval = conditional, unconditional, weight, interval
        both = (conditional, unconditional)
        events = [tuple(event) for event in (getattr(D, "event", None) for D in both) if event is not None]
        if len(set(events)) > 1:
            raise ValueError(f"both denoisers must be of points of one shape, got {events[0]} and {events[1]}")
        self.event: tuple[int, ...] | None = events[0] if events else None
        self.sigma_min = max(float(getattr(D, "sigma_min", 0.0)) for D in both)
        self.sigma_max = min(float(getattr(D, "sigma_max", math.inf)) for D in both)
        self.name = f"{getattr(conditional, 'name', type(conditional).__name__)} guided"

    def __repr__(self) -> str:
        weight = f"{float(self.weight):g}" if self.weight.ndim == 0 else f"({len(self.weight)},)"
        low, high = self.interval
        return f"Guided({self.conditional!r}, {self.unconditional!r}, weight={weight}, interval=({low:g}, {high:g}))"

    def __call__(self, x: Num[Tensor, "B *event"], sigma: Levels) -> Float[Tensor, "B *event"]:
        """D_u + w (D_c − D_u) inside the interval, D_c outside, like x; D_c to the bit at w = 1, D_u at w = 0.

        A denoiser that no row needs is not asked.

        Args:
            x: (B, *event) noisy points.
            sigma: noise level, > 0: float, () or (B,).

        Raises:
            ValueError: what either denoiser refuses; answers of two shapes; another number of rows than of weights.
        """
        require_points(x, self.event)
        sigmas = levels(sigma, len(x), x.device, graph=True)
        if self.weight.ndim and len(self.weight) != len(x):
            raise ValueError(f"weight must be one, or one a row: {len(self.weight)} of them for {len(x)} rows")
        low, high = self.interval
        inside = (sigmas > low) & (sigmas <= high)
        weight = torch.where(inside, self.weight.to(x.device), 1.0)
        if (weight == 1).all():
            return self.conditional(x, sigmas)
        without = self.unconditional(x, sigmas)
        if (weight == 0).all():
            return without
        given = self.conditional(x, sigmas)
        if given.shape != without.shape:
            raise ValueError(
                f"both denoisers must answer in one shape, got {tuple(given.shape)} and {tuple(without.shape)}"
            )
        wide = beside(weight, x)
        out = torch.lerp(without.double(), given.double(), wide.expand(x.shape)).to(x.dtype)
        return torch.where(wide == 1, given, torch.where(wide == 0, without, out))

    def __getattr__(self, name: str) -> NoReturn:
        if name in _OF_AN_OPTIMUM or (not name.startswith("_") and hasattr(OptimalDenoiser, name)):
            raise _NoPosterior(
                f"a guided denoiser has no {name}: D_u + w (D_c − D_u) is the mean of no distribution over the data"
            )
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")


def guided(
    conditional: Denoiser,
    unconditional: Denoiser,
    weight: float | Tensor,
    interval: tuple[float, float] | None = None,
) -> Guided:
    """Guidance of one denoiser away from another: D_u + w (D_c − D_u).

    Args:
        conditional: D_c, any denoiser: the optimum of a class, a `neural.Model` given its labels, the better network.
        unconditional: D_u, of the same points: the optimum of all data, the `Model` without labels, the worse network.
        weight: w, a number or (B,), one a row; 1 is D_c, 0 is D_u, above 1 guides.
        interval: (lo, hi): guides for lo < σ <= hi, σ the level that the denoiser is asked at, also within a step;
            elsewhere it is D_c; everywhere unless given.

    Raises:
        ValueError: denoisers of points of different shapes, or none; a weight that is not finite; an interval that is
            empty.

    Example:
        >>> from optimal import OptimalDenoiser
        >>> near, both = OptimalDenoiser(torch.tensor([[1.0]])), OptimalDenoiser(torch.tensor([[-1.0], [1.0]]))
        >>> guided(near, both, 3.0)(torch.tensor([[0.0], [0.5]]), 1.0)       # 3 − 2 tanh(x)
        tensor([[3.0000],
                [2.0758]])
        >>> guided(near, both, 3.0, interval=(0.1, 0.5))(torch.tensor([[0.0], [0.5]]), 1.0)
        tensor([[1.],
                [1.]])
    """
    for name, D in (("conditional", conditional), ("unconditional", unconditional)):
        if not callable(D):
            raise ValueError(f"{name} must be a denoiser, a function (x, sigma) -> x0_hat, got {type(D).__name__}")
    return Guided(conditional, unconditional, _weight(weight), _interval(interval))


def _weight(weight: Any) -> Tensor:
    try:
        values = torch.as_tensor(weight, dtype=torch.float64, device=None if isinstance(weight, Tensor) else "cpu")
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"weight must be a number, or one a row, got {str(weight)[:60]!r}") from error
    if values.ndim > 1:
        raise ValueError(f"weight must have shape () or (B,), got {tuple(values.shape)}")
    finite = torch.isfinite(values)
    if not finite.all():
        raise ValueError(f"weight must be finite, got {float(values[~finite].flatten()[0]):g}")
    return values.detach()


def _interval(interval: Any) -> tuple[float, float]:
    if interval is None:
        return 0.0, math.inf
    try:
        low, high = (float(end) for end in interval)
    except (TypeError, ValueError) as error:
        raise ValueError(f"interval must be (lo, hi), two noise levels, got {str(interval)[:60]!r}") from error
    if not 0 <= low < high:
        raise ValueError(f"interval must be (lo, hi) with 0 <= lo < hi, got ({low:g}, {high:g})")
    return low, high
