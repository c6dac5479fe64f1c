"""log p along the flow, level by level: the instantaneous change of variables, of any denoiser.

    d log p(x(σ); σ)/d ln σ = −(dim − tr ∂D/∂x)    where dx/d ln σ = x − D

so that log p at a level is that at σ_max and ∫ (dim − tr ∂D/∂x) d ln σ up to there, by trapezoids over the levels. Of
the optimum the trace is tr Cov[x0 | x]/σ², exactly; of others it is taken by derivatives, one a value, or estimated
without bias as vᵀ(∂D/∂x)v with v of random signs (Hutchinson).

References:
    Song, Sohl-Dickstein, Kingma, Kumar, Ermon, Poole 2021, "Score-Based Generative Modeling through Stochastic
    Differential Equations", section 4.3. Grathwohl, Chen, Bettencourt, Sutskever, Duvenaud 2019, "FFJORD".
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from ..denoiser import Denoiser, OptimalDenoiser
from ..numbers import is_whole
from ..shown import in_short
from .inversion import ascent
from .solver import Solver

__all__ = ["LogDensities", "log_densities", "trace"]


@dataclass(frozen=True)
class LogDensities:
    """log p of x on its way up.

    Attributes:
        sigmas: (n,) float64, the levels above 0, rising.
        x: (n, B, *event), where x is at each.
        nats: (n, B) float64, log p(x; σ) there.
        nfe: denoiser calls of a row for the way; the n traces are beside them.
    """

    sigmas: Tensor
    x: Tensor
    nats: Tensor
    nfe: int

    __repr__ = in_short


def log_densities(
    D: Denoiser,
    x: Tensor,
    sigmas: Tensor | Sequence[float],
    *,
    solver: str | Solver = "heun",
    probes: int | Literal["exact"] = "exact",
    generator: torch.Generator | None = None,
    prior: Callable[[Tensor, float], Tensor] | None = None,
    **options: Any,
) -> LogDensities:
    """log p of x and of what it becomes on the way up the grid; of order 2 in the steps, or that of the solver if less.

    Args:
        D: any denoiser; one that is no `OptimalDenoiser` needs derivatives to x, which networks of `neural` have within
            `neural.derivatives()`. `neural.likelihood.log_density` takes steps of its own to a tolerance instead.
        x: (B, *event), at noise level sigmas[-2].
        sigmas, solver: as for `ascent`, with its options by keyword but for a process: x is over its signal scale.
        probes: random signs a row for the trace, or "exact"; the optimum's is exact either way.
        generator: of the signs.
        prior: (x, sigma) -> log density (B,) at sigmas[0]; the optimum's own unless given, of others N(0, σ_max²).

    Raises:
        ValueError: as for `ascent`; probes below 1, or without generator; a D without derivatives.

    Example:
        >>> from optimal import OptimalDenoiser, karras
        >>> D = OptimalDenoiser(torch.tensor([[-1.0], [1.0]]))
        >>> found = log_densities(D, torch.tensor([[0.3]]).double(), karras(200, sigma_min=0.5))
        >>> exact = D.posterior(found.x[0], 0.5).log_density
        >>> abs(float(found.nats[0] - exact)) < 1e-3
        True
    """
    if "process" in options:
        raise ValueError("log_densities takes no process: x is over its signal scale")
    optimum = D if isinstance(D, OptimalDenoiser) else None
    signs = None
    if probes != "exact" and optimum is None:
        if not is_whole(probes) or probes < 1:
            raise ValueError(f'probes must be at least 1, or "exact", got {probes!r}')
        if generator is None:
            raise ValueError("probes are drawn: give generator=torch.Generator()")
        signs = torch.randint(0, 2, (probes, *x.shape), generator=generator, device=generator.device).to(x) * 2 - 1
    states = list(ascent(D, x, sigmas, solver=solver, **options))
    levels = torch.tensor([state.sigma for state in states], dtype=torch.float64, device=x.device)
    rates = torch.stack([x[0].numel() - _trace_at(D, state.x, state.sigma, signs) for state in states])
    gained = (rates[1:] + rates[:-1]) / 2 * levels.log().diff()[:, None]
    high, end = states[-1].sigma, states[-1].x
    if prior is None and optimum is not None:
        last = optimum.posterior(end, high).log_density
    elif prior is None:
        last = -end.double().flatten(1).square().sum(1) / (2 * high**2)
        last = last - x[0].numel() / 2 * math.log(2 * math.pi * high**2)
    else:
        last = prior(end, high)
    above = torch.cat([gained.flip(0).cumsum(0).flip(0), gained.new_zeros(1, len(x))])
    return LogDensities(levels, torch.stack([state.x for state in states]), last.double() + above, states[-1].nfe)


def trace(answer: Tensor, x: Tensor, signs: Tensor | None = None) -> Tensor:
    """tr ∂answer/∂x of a graph, (B, 1) float64; estimated with each of P rows of signs, (P, B, *event): (B, P)."""
    if signs is not None:
        traces = []
        for v in signs:
            (product,) = torch.autograd.grad(answer, x, v.to(answer), retain_graph=True)
            traces.append((product.double() * v).flatten(1).sum(1))
        return torch.stack(traces, 1)
    total = torch.zeros(len(x), dtype=torch.float64, device=x.device)
    flat = answer.flatten(1)
    for i in range(flat.shape[1]):
        (row,) = torch.autograd.grad(flat[:, i].sum(), x, retain_graph=True)
        total += row.flatten(1)[:, i].double()
    return total[:, None]


def _trace_at(D: Denoiser, x: Tensor, sigma: float, signs: Tensor | None) -> Tensor:
    """tr ∂D/∂x, (B,) float64."""
    if isinstance(D, OptimalDenoiser):
        return D.posterior(x.double(), sigma).variance.double() / sigma**2
    with torch.enable_grad():
        z = x.detach().clone().requires_grad_()
        answer = D(z, torch.tensor(sigma, dtype=torch.float64, device=x.device))
        if not answer.requires_grad:
            raise ValueError(f"D must have gradients to x, the answer of {type(D).__name__} has none")
        return trace(answer, z, signs).mean(1)
