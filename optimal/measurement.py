"""The optimum given a measurement of x0: exact answers to inverse problems on the data.

Of x0 something else is known than x: an observation y = A(x0) + η, η ~ N(0, s² I), of pixels under a mask, of a blurred
or smaller image, of any function of x0. Given a data point y_j it has the log-likelihood

    a_j = log p(y | y_j) = −‖y − A(y_j)‖²/2s² − m log s√(2π),    m the number of values observed,

and since x and y are independent given x0, all there is to do is to add it to the log-weights of the points:

    p(x0 = y_j | x, y) ∝ π_j exp(a_j + l_j),    D_y(x, σ) = E[x0 | x, y],
    log p(y | x) = log Σ_j w_j(x) e^{a_j},      ∇ log p(y | x) = (D_y − D)/σ².

Nothing of this needs A to be linear. The last line is what methods that turn a denoiser into a solver of inverse
problems approximate: DPS by log p(y | x0 = D(x)), ΠGDM by a Gaussian about D(x). On the data both are known.

References:
    Chung et al. 2023, "Diffusion Posterior Sampling for General Noisy Inverse Problems" (DPS). Song et al. 2023,
    "Pseudoinverse-Guided Diffusion Models for Inverse Problems" (ΠGDM).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float, Int, Num
from torch import Tensor

from .masks import refuse_mask
from .posterior import Posterior
from .query import Levels, per_row

if TYPE_CHECKING:
    from .denoiser import OptimalDenoiser

__all__ = [
    "GivenMeasurement",
    "Operator",
    "as_function",
    "gaussian_log_likelihood",
    "require_measured",
]

Operator = Tensor | Callable[[Tensor], Tensor]
"""A mask, a matrix, or a function of batches: see `OptimalDenoiser.measured`."""

_BLOCK_BYTES = 16 * 2**20
"""Points that are measured together, in float64; what the operator makes of them is its own."""
_LARGEST = 1e150
"""Log-weights beyond this are not taken."""


class GivenMeasurement:
    """E[x0 | x, y], a `Denoiser`: see `OptimalDenoiser.measured` and `OptimalDenoiser.observed`.

    Attributes:
        D: the optimum that knows x alone.
        optimum: the same as this, as an `OptimalDenoiser`, for `FlowMap`, `basins`, `certify` and a second measurement.
        log_likelihood: (N,) float64, log p(y | y_j) of every data point.
        log_evidence: log p(y) = log Σ_j π_j p(y | y_j), nats.
        event: shape of one point.

    Raises:
        ValueError: a log-likelihood of another length, with nan or beyond 1e150, or that leaves no point.
    """

    def __init__(self, D: OptimalDenoiser, log_likelihood: Float[Tensor, " N"] | np.ndarray):
        self.D, self.event = D, D.event
        refuse_mask("log_likelihood", log_likelihood)
        self.optimum = D.weighted(log_likelihood)
        self.optimum.knows_observation = True
        self.log_likelihood = torch.as_tensor(log_likelihood).detach().to("cpu", torch.float64)
        self.log_evidence = float((D.log_weights.cpu() + self.log_likelihood).logsumexp(0))

    def __repr__(self) -> str:
        return f"{self.D!r}, given a measurement"

    def __len__(self) -> int:
        return len(self.D)

    def __call__(self, x: Num[Tensor, "B *event"], sigma: Levels) -> Float[Tensor, "B *event"]:
        """E[x0 | x, y], (B, *event).

        Raises:
            ValueError: as for `OptimalDenoiser`.
        """
        return self.optimum(x, sigma)

    def score(self, x: Num[Tensor, "B *event"], sigma: Levels) -> Float[Tensor, "B *event"]:
        """∇ log p(x | y; σ) = (D_y − x)/σ², (B, *event)."""
        return self.optimum.score(x, sigma)

    def posterior(self, x: Num[Tensor, "B *event"], sigma: Levels) -> Posterior:
        """p(x0 | x, y); `log_density` is log p(x | y; σ)."""
        return self.optimum.posterior(x, sigma)

    def log_probability(self, x: Num[Tensor, "B *event"], sigma: Levels) -> Float[Tensor, " B"]:
        """log p(y | x) = log p(x | y) + log p(y) − log p(x), (B,) float64, nats; its gradient is (D_y − D)/σ².

        Taken in float64 whatever x is: a difference of logs that can be large.
        """
        z = x.double()
        known, unknown = (D.posterior(z, sigma).log_density for D in (self.optimum, self.D))
        return known - unknown + self.log_evidence

    @property
    def log_weights(self) -> Float[Tensor, " N"]:
        """log p(x0 = y_j | y), (N,) float64: the exact posterior, before any x."""
        return self.optimum.log_weights

    def drawn(self, count: int, generator: torch.Generator) -> Int[Tensor, " n"]:
        """Exact samples of p(x0 | y): which data points, (count,) int64, on the CPU; `D.take` has them as images."""
        return self.optimum.drawn(count, generator)


def gaussian_log_likelihood(
    D: OptimalDenoiser, operator: Operator, observation: Tensor | np.ndarray, noise: float, *, rows: bool = False
) -> Float[Tensor, "*B N"]:
    """log N(y; A(y_j), s² I) of every data point y_j, (N,) float64, on the CPU; −inf where it has no probability.

    Of rows, (B, N). One pass over the data, in float64. Arguments and errors as for `OptimalDenoiser.measured`.
    """
    points = D.points
    points.whole()
    points.rows.check()
    s = float(per_row("noise", noise, 1)[0])
    if not 0 < s < math.inf:
        raise ValueError(
            f"noise must be positive and finite, got {s:g}: of an exact observation, D.observed takes 0 for the points "
            "that agree with it and -inf for others"
        )
    refuse_mask("observation", observation)
    measure, observed = as_function(operator, torch.as_tensor(observation).to(points.device), D.event, rows=rows)
    every = observed if rows else observed[None]
    count, index = every[:1].numel(), torch.arange(points.size, device=points.device)
    squares = torch.empty(len(every), points.size, dtype=torch.float64, device=points.device)
    with torch.no_grad():
        for part in index.split(max(1, min(_BLOCK_BYTES, points.memory // 8) // (8 * points.dim))):
            found = measure(points.exact(part, points.device).reshape(-1, *D.event))
            require_measured(found, len(part), observed, rows=rows)
            if not len(every):
                continue
            for b, one in enumerate(every):
                squares[b, part] = ((found.double() - one) / s).reshape(len(part), count).square().sum(1)
    if not squares.isfinite().all():
        j = int(points.outer(index)[(~squares.isfinite()).any(0)][0])
        raise ValueError(f"operator must give finite values within 1e150 times the noise, of point {j} it does not")
    if len(every) and float(squares.max()) / 2 > _LARGEST:
        raise ValueError(f"noise must not be that small, {s:g}: squares of (y - A(x0))/noise lie beyond 1e150")
    out = torch.full((len(every), len(D)), -torch.inf, dtype=torch.float64)
    out[:, points.outer(index).cpu()] = (-squares / 2 - count * math.log(s * math.sqrt(2 * math.pi))).cpu()
    return out if rows else out[0]


def as_function(
    operator: Operator, observation: Tensor, event: tuple[int, ...], *, rows: bool = False
) -> tuple[Callable[[Tensor], Tensor], Tensor]:
    """The operator as a function of batches, and the observation as one of its results, or as B, float64.

    Raises:
        ValueError: an operator of another shape or kind; an observation of another shape than a mask, or not finite.
    """
    measure, observed = _operating(operator, observation.detach().double(), event, rows)
    if not observed.isfinite().all():
        raise ValueError("observation must be finite, it has values that are not")
    return measure, observed


def _operating(
    operator: Operator, observed: Tensor, event: tuple[int, ...], rows: bool
) -> tuple[Callable[[Tensor], Tensor], Tensor]:
    if rows and observed.ndim == 0:
        raise ValueError("observation must be one a row, (B, *out), got shape ()")
    if not isinstance(operator, Tensor):
        if not callable(operator):
            raise ValueError(f"operator must be a mask, a matrix or a function, got {type(operator).__name__}")
        return operator, observed
    given = operator.detach().to(observed.device)
    if given.dtype == torch.bool:
        if tuple(given.shape) != event:
            raise ValueError(f"operator, a mask, must have the shape of a point, {event}, got {tuple(given.shape)}")
        if tuple(observed.shape[int(rows) :]) != event:
            each = ", one a row" if rows else ""
            raise ValueError(
                f"observation under a mask must have shape {event}{each}, got {tuple(observed.shape)}{_hint(rows)}"
            )
        return lambda x: x[:, given], observed[:, given] if rows else observed[given]
    dim = math.prod(event)
    if given.ndim != 2 or given.shape[1] != dim or given.is_complex():
        rule = f"a mask of bools {event} or a real matrix (m, {dim})"
        raise ValueError(f"operator must be {rule}, got {given.dtype} of shape {tuple(given.shape)}")
    matrix = given.double()
    if not matrix.isfinite().all():
        raise ValueError("operator must be finite, the matrix has values that are not")
    return lambda x: x.flatten(1) @ matrix.T, observed


def require_measured(found: object, batch: int, observed: Tensor, *, rows: bool = False) -> None:
    """Raise ValueError unless an operator made of a batch what can be compared with the observation, or with each."""
    if not isinstance(found, Tensor) or found.is_complex() or found.ndim == 0 or len(found) != batch:
        got = f"{found.dtype} of shape {tuple(found.shape)}" if isinstance(found, Tensor) else type(found).__name__
        raise ValueError(f"operator must make a real tensor (B, *out) of (B, *event), got {got} for B = {batch}")
    if found.shape[1:] != observed.shape[int(rows) :]:
        each = ", one a row" if rows else ""
        raise ValueError(
            f"observation must have the shape that the operator gives, {tuple(found.shape[1:])}{each}, got "
            f"{tuple(observed.shape)}{_hint(rows)}"
        )


def _hint(rows: bool) -> str:
    return "" if rows else "; one a row takes rows=True"
