"""The log density of a network: that of the points which its probability-flow ODE makes of Gaussian noise.

With v = dx/dσ = (x − F)/σ the density moves by d log p/dσ = −div v along a trajectory, so that with s = ln σ

    dx/ds = x − F(x, σ),    log p(x; σ_min) = log p(x(σ_max); σ_max) + ∫ (dim − tr ∂F/∂x) ds

from ln σ_min to ln σ_max. The trace is exact, by one derivative a value, or estimated without bias as vᵀ(∂F/∂x)v with v
of random signs, the same ones all along (Hutchinson). What the ODE starts from is N(0, σ_max²) unless said otherwise;
held against the data's own density at σ_max that moves a point by about ‖ȳ‖/σ_max nats, up or down.

At σ_min > 0 it is a density of noisy data, p(x; σ_min), and as such it stands beside the optimum's, log Σ_j exp(l_j) −
log N − (dim/2) log 2πσ². In bits for each value it is −(log p/dim + log step)/log 2, the step being the width of the
bins that are counted: 2/255 for grey levels of images, as published bits per dimension have it.

References:
    Song, Sohl-Dickstein, Kingma, Kumar, Ermon, Poole 2021, "Score-Based Generative Modeling through Stochastic
    Differential Equations", section 4.3. Grathwohl, Chen, Bettencourt, Sutskever, Duvenaud 2019, "FFJORD".
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from scipy.integrate import RK45
from torch import Tensor
from tqdm import tqdm

from optimal import OptimalDenoiser
from optimal.denoiser import Denoiser
from optimal.query import require_finite, require_points
from optimal.randomness import stream
from optimal.samplers.density import trace as trace_of

from .adapters.asked import derivatives
from .model import Model

__all__ = ["LogDensity", "log_density", "require_asked"]

_RANGE = (0.002, 80.0)
_A, _B, _C, _E = (torch.from_numpy(part.copy()) for part in (RK45.A, RK45.B, RK45.C, RK45.E))
"""Dormand and Prince 1980, as scipy has it."""
_FIRST, _LONGEST = 0.05, 0.5
_DIFFERENCE = 1e-2
"""Step of a difference quotient, over σ."""
_MOST = 20_000
_MOST_ROWS = 4096


@dataclass(frozen=True)
class LogDensity:
    """log p(x; σ_min) of a network, and of the optimum.

    Attributes:
        nats: (B,) float64.
        error: (B,) its standard error over the probes: 0 for an exact trace, nan for one probe.
        exact: (B,) the optimum's log density at the same x and σ_min; nan where no optimum was given.
        dim: number of values of a point.
        step: width of the bins that bits are counted in.
        nfe: evaluations of F and its trace, the most of a batch.
        trace: "exact", "probes", or "differences" where the network gives no derivatives.
    """

    nats: Tensor
    error: Tensor
    exact: Tensor
    dim: int
    step: float
    nfe: int
    trace: str

    @property
    def bits(self) -> Tensor:
        """Bits for each value, (B,)."""
        return self._bits(self.nats)

    @property
    def exact_bits(self) -> Tensor:
        """The optimum's, (B,)."""
        return self._bits(self.exact)

    def _bits(self, nats: Tensor) -> Tensor:
        return -(nats / self.dim + math.log(self.step)) / math.log(2)


def log_density(
    model: Denoiser,
    x: Tensor,
    D: OptimalDenoiser | None = None,
    *,
    sigma_min: float | None = None,
    sigma_max: float | None = None,
    probes: int | Literal["exact"] = 1,
    seed: int = 0,
    tolerance: float = 1e-5,
    prior: Callable[[Tensor, float], Tensor] | None = None,
    step: float = 1.0,
    progress: bool = False,
) -> LogDensity:
    """log p(x; σ_min) of the model, row by row.

    The ODE is integrated by Dormand and Prince's pair with one step for all rows of a batch, as many as the model says,
    else at most 4,096; each row's local error, that of x over σ and of log p for each value, stays below `tolerance`,
    by which a row may depend on its batch.

    Args:
        model: F, any denoiser. Where it gives no derivatives the trace is found from differences of F.
        x: (B, *event), at noise level sigma_min.
        D: the optimum of the data, to stand beside.
        sigma_min, sigma_max: where x is, and where the ODE ends in the prior; the model's own range unless given,
            within 0.002 to 80.
        probes: random signs for each row; "exact" takes dim derivatives for each evaluation instead.
        seed: of the signs.
        tolerance: local error of a step.
        prior: (x, sigma) -> log density (B,) at sigma_max, N(0, sigma_max²) unless given; with
            `lambda x, s: D.posterior(x, s).log_density` the ends are held to the data's own.
        step: width of the bins that bits are counted in, 2/255 for grey levels.
        progress: whether a progress bar is drawn on stderr.

    Raises:
        ValueError: probes < 1; not 0 < sigma_min < sigma_max < inf; a tolerance or a step not positive; x not finite.

    Example:
        >>> gauss = lambda x, sigma: x / (1 + torch.as_tensor(sigma) ** 2)            # the optimum of N(0, 1)
        >>> found = log_density(gauss, torch.zeros(1, 2).double(), sigma_min=1.0, sigma_max=1000.0, probes="exact")
        >>> round(float(found.nats), 3), round(-math.log(2 * math.pi * 2), 3)         # of N(0, 2) in the plane
        (-2.531, -2.531)
    """
    low = max(getattr(model, "sigma_min", 0.0), _RANGE[0]) if sigma_min is None else sigma_min
    high = min(getattr(model, "sigma_max", math.inf), _RANGE[1]) if sigma_max is None else sigma_max
    require_asked(low, high, probes, tolerance, step)
    require_points(x)
    require_finite(x.flatten(1))
    signs = None
    if probes != "exact":
        signs = torch.randint(0, 2, (probes, *x.shape), generator=stream(seed, "probes"), dtype=torch.int64)
    size = max(1, int(getattr(model, "batch", _MOST_ROWS)))
    parts = []
    with tqdm(
        total=len(x), desc="log density", unit="row", unit_scale=True, leave=False, delay=1, disable=not progress
    ) as bar:
        for first in range(0, max(1, len(x)), size):
            rows = slice(first, first + size)
            own = None if signs is None else signs[:, rows] * 2.0 - 1
            asked = _of_rows(model, rows, len(x))
            parts.append(_of_batch(asked, x[rows].detach(), D, own, (low, high), tolerance, prior, bar))
    nats, error, exact = (torch.cat([part[i] for part in parts]) for i in range(3))
    dim = x[0].numel() if len(x) else 0
    return LogDensity(nats, error, exact, dim, step, max(part[3].calls for part in parts), parts[0][3].trace)


def _of_rows(model: Denoiser, rows: slice, count: int) -> Denoiser:
    """The model with the labels and arguments of these rows, where it has one a row of all `count`."""
    if not isinstance(model, Model):
        return model
    labels = model.labels
    if labels is not None and labels.ndim == (2 if labels.is_floating_point() else 1) and len(labels) == count:
        labels = labels[rows]
    own = {
        name: value[rows] if isinstance(value, Tensor) and value.ndim and len(value) == count else value
        for name, value in model.arguments.items()
    }
    return dataclasses.replace(model, labels=labels, arguments=own)


def _of_batch(
    model: Denoiser,
    x: Tensor,
    D: OptimalDenoiser | None,
    signs: Tensor | None,
    within: tuple[float, float],
    tolerance: float,
    prior: Callable[[Tensor, float], Tensor] | None,
    bar: tqdm,
) -> tuple[Tensor, Tensor, Tensor, _Field]:
    """Nats, their standard error and the optimum's, (B,) float64 each, and what was asked."""
    (low, high), dim = within, x[0].numel() if len(x) else 0
    field = _Field(model, None if signs is None else signs.to(x), x.dtype)
    end, gained = _integrate(field, x.double(), math.log(low), math.log(high), tolerance, bar)
    if prior is None:
        last = -end.flatten(1).square().sum(1) / (2 * high**2) - dim / 2 * math.log(2 * math.pi * high**2)
    else:
        last = prior(end.to(x.dtype), high).double()
    each = last[:, None] + gained
    error = each.std(1) / math.sqrt(each.shape[1]) if each.shape[1] > 1 else torch.full_like(last, math.nan)
    error = torch.zeros_like(last) if signs is None else error
    exact = torch.full_like(last, math.nan) if D is None else D.posterior(x, low).log_density.to(last)
    return each.mean(1), error, exact, field


def require_asked(low: float, high: float, probes: int | str, tolerance: float, step: float = 1.0) -> None:
    """Raise ValueError for what `log_density` cannot be asked."""
    if probes != "exact" and not (isinstance(probes, int) and probes >= 1):
        raise ValueError(f'probes must be at least 1, or "exact", got {probes!r}')
    if not 0 < low < high < math.inf:
        raise ValueError(f"sigma_max must be finite and above sigma_min, itself above 0, got {high:g} and {low:g}")
    for name, value in (("tolerance", tolerance), ("step", step)):
        if not 0 < value < math.inf:
            raise ValueError(f"{name} must be positive and finite, got {value:g}")


class _Field:
    """x − F and dim − tr ∂F/∂x, (B, *event) and (B, P), of x at ln σ."""

    def __init__(self, model: Denoiser, signs: Tensor | None, dtype: torch.dtype):
        self._model, self._signs, self._dtype = model, signs, dtype
        self.calls, self.trace = 0, "exact" if signs is None else "probes"

    def __call__(self, x: Tensor, log_sigma: float) -> tuple[Tensor, Tensor]:
        self.calls += 1
        sigma = torch.tensor(math.exp(log_sigma), dtype=torch.float64, device=x.device)
        with derivatives():
            z = x.to(self._dtype, copy=True).requires_grad_(True)
            answer = self._model(z, sigma)
            if answer.shape != z.shape:
                raise ValueError(f"a denoiser must return the shape of x, {tuple(z.shape)}, got {tuple(answer.shape)}")
            if answer.requires_grad:
                trace = trace_of(answer, z, self._signs)
            else:
                self.trace = "differences"
                trace = self._by_differences(z.detach(), sigma)
        return x - answer.detach().double(), x[0].numel() - trace

    def _by_differences(self, z: Tensor, sigma: Tensor) -> Tensor:
        width = _DIFFERENCE * float(sigma)
        if self._signs is not None:
            return torch.stack([self._difference(z, v, sigma, width) for v in self._signs], 1)
        total = torch.zeros(len(z), dtype=torch.float64, device=z.device)
        for i in range(z[0].numel()):
            v = torch.zeros_like(z)
            v.flatten(1)[:, i] = 1
            total += self._difference(z, v, sigma, width)
        return total[:, None]

    def _difference(self, z: Tensor, v: Tensor, sigma: Tensor, width: float) -> Tensor:
        """vᵀ(∂F/∂x)v, (B,)."""
        ahead, behind = z + width * v, z - width * v
        change = self._model(ahead, sigma).double() - self._model(behind, sigma).double()
        # What was added is what the precision of x left of it.
        way = (ahead.double() - behind.double()).flatten(1).square().sum(1).sqrt()
        norm = v.double().flatten(1).square().sum(1).sqrt()
        return (change * v.double()).flatten(1).sum(1) * norm / way.clamp_min(torch.finfo(torch.float64).tiny)


def _integrate(field: _Field, x: Tensor, low: float, high: float, tolerance: float, bar: tqdm) -> tuple[Tensor, Tensor]:
    """x at ln σ = high, and ∫ (dim − tr ∂F/∂x) ds on the way there, (B, P)."""
    if len(x) == 0:
        return x, x.new_zeros(0, 1)
    s, step = low, _FIRST
    rate, trace = field(x, s)
    gained = torch.zeros_like(trace)
    while s < high:
        if field.calls > _MOST:
            raise ValueError(f"the density took {_MOST:,} evaluations up to σ = {math.exp(s):.3g}: raise the tolerance")
        step = min(step, _LONGEST, high - s)
        rates, traces = [rate], [trace]
        for a, c in zip(_A[1:], _C[1:].tolist(), strict=True):
            one, other = field(x + step * _combined(rates, a), s + c * step)
            rates.append(one)
            traces.append(other)
        ahead = x + step * _combined(rates, _B)
        one, other = field(ahead, s + step)
        rates.append(one)
        traces.append(other)
        error = step * torch.maximum(
            _combined(rates, _E).flatten(1).norm(dim=1) / math.exp(s + step),
            _combined(traces, _E).abs().amax(1) / x[0].numel(),
        )
        worst = float(error.amax()) / tolerance
        if worst <= 1:
            gained = gained + step * _combined(traces, _B)
            # Of the sum of all steps rounding may leave a little more than all rows.
            bar.update(min(len(x) * step / (high - low), bar.total - bar.n))
            # The end is reached, not approached.
            s, x, rate, trace = (high if step == high - s else s + step), ahead, one, other
        step *= min(3.0, max(0.2, 0.9 * max(worst, 1e-10) ** -0.2)) if math.isfinite(worst) else 0.2
        if s + step * 1e-3 == s:
            raise ValueError(f"the density cannot be followed past σ = {math.exp(s):.3g}: F is not finite, or jumps")
    return x, gained


def _combined(parts: list[Tensor], weights: Tensor) -> Tensor:
    out = torch.zeros_like(parts[0])
    for part, weight in zip(parts, weights.tolist(), strict=False):
        out.add_(part, alpha=weight)
    return out
