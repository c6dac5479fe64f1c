"""Exact denoisers with exact flow maps, for tests and figures.

The probability-flow ODE of a denoiser (Eq. 24) moves x with its noise level,

    dx/dσ = v(x, σ) = (x − D(x, σ))/σ = −σ ∇ log p(x; σ),    p(·; σ) the density of x0 + σ ε,

so that what is distributed as p stays so: the continuity equation, ∂p/∂σ = −∂(p v)/∂x on the line. There it makes the
distribution function F(x; σ) = ∫_{−∞}^x p a constant along solutions: ∂F/∂σ = −p v, and dF/dσ = ∂F/∂σ + p v = 0. The
flow from σ to σ' is then the monotone map with

    F(x'; σ') = F(x; σ).

D, p and this map are known for one point; two points m ± d; a Gaussian, where every eigenvector of the covariance is a
line of its own; and, for events of one value, a mixture of Gaussians or points. All is computed in float64, whatever
the dtype of x. D, `score` and `log_density` carry gradients to x, `flow` carries none.

What no method can cure: between well separated points p is tiny at low noise, and the flow spreads what starts near
the separatrix by dx'/dx = p(x; σ)/p(x'; σ'), from σ >> δ up to (σ'/σ) exp(δ²/2σ'²) between points 2δ apart. Rounding of
x is spread with it. Back up the same map contracts, and x at high noise cannot tell apart what was near one point.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import Any

import torch
from jaxtyping import Float, Num
from torch import Tensor

from .schedule import per_row
from .transport import log_normal, separatrices, transport

__all__ = ["Gaussian", "GaussianMixture", "OnePoint", "TwoPoint"]


class _Exact(ABC):
    """The public methods: they check, flatten, and leave the formulas to z (B, dim) and sigma (B, 1) in float64.

    Attributes:
        event: shape of one point.
    """

    event: tuple[int, ...]

    def __call__(self, x: Num[Tensor, "B *event"], sigma: float | Tensor) -> Float[Tensor, "B *event"]:
        """E[x0 | x], (B, *event).

        Args:
            x: (B, *event) noisy points.
            sigma: noise level, > 0: float, () or (B,).

        Raises:
            ValueError: sigma not finite, not positive or of another shape; x of another event shape or not finite.
        """
        return _like(self._mean(*_checked(x, sigma, self.event)), x)

    def score(self, x: Num[Tensor, "B *event"], sigma: float | Tensor) -> Float[Tensor, "B *event"]:
        """∇ log p(x; σ) = (D − x)/σ² (Prop. 2), (B, *event)."""
        return _like(self._score(*_checked(x, sigma, self.event)), x)

    def log_density(self, x: Num[Tensor, "B *event"], sigma: float | Tensor) -> Float[Tensor, " B"]:
        """log p(x; σ) in nats, (B,)."""
        return self._log_density(*_checked(x, sigma, self.event)).to(x.dtype)

    def flow(
        self, x: Num[Tensor, "B *event"], sigma: float | Tensor, sigma_end: float | Tensor
    ) -> Float[Tensor, "B *event"]:
        """Where the probability-flow ODE takes x from sigma to sigma_end, (B, *event), without gradients.

        Args:
            x: (B, *event) noisy points.
            sigma: noise level of x, > 0: float, () or (B,).
            sigma_end: noise level of the result, >= 0, below or above sigma: float, () or (B,).

        Raises:
            ValueError: as for a call; sigma_end not finite, negative or of another shape; no closed form is known (a
                mixture of events of more than one value).
        """
        z, levels = _checked(x.detach() if isinstance(x, Tensor) else x, sigma, self.event)
        end = per_row("sigma_end", sigma_end, len(x), x.device)[:, None]
        usable = torch.isfinite(end) & (end >= 0)
        if not usable.all():
            raise ValueError(f"sigma_end must be finite and not negative, got {float(end[~usable][0]):g}")
        return _like(self._flow(z, levels, end), x)

    @abstractmethod
    def sample(self, n: int, generator: torch.Generator) -> Float[Tensor, "n *event"]:
        """n clean points x0, (n, *event) float64, on the generator's device."""

    @abstractmethod
    def _mean(self, z: Tensor, sigma: Tensor) -> Tensor: ...

    @abstractmethod
    def _log_density(self, z: Tensor, sigma: Tensor) -> Tensor: ...

    @abstractmethod
    def _flow(self, z: Tensor, sigma: Tensor, end: Tensor) -> Tensor: ...

    def _score(self, z: Tensor, sigma: Tensor) -> Tensor:
        return (self._mean(z, sigma) - z) / sigma.square()


class OnePoint(_Exact):
    """All mass on y: D(x, σ) = y, and the flow is the straight line y + (σ'/σ)(x − y).

    Args:
        y: (*event), at least one axis.

    Raises:
        ValueError: y without an axis, empty or not finite.

    Example:
        >>> D = OnePoint(torch.tensor([1.0, 2.0]))
        >>> D.flow(torch.tensor([[5.0, 2.0]]), 4.0, 1.0)
        tensor([[2., 2.]])
    """

    def __init__(self, y: Tensor):
        self._y, self.event = _point("y", y)

    def sample(self, n: int, generator: torch.Generator) -> Float[Tensor, "n *event"]:
        return self._y.to(generator.device).expand(n, -1).reshape(n, *self.event).clone()

    def _mean(self, z: Tensor, sigma: Tensor) -> Tensor:
        return self._y.to(z).expand_as(z).clone()

    def _log_density(self, z: Tensor, sigma: Tensor) -> Tensor:
        return log_normal(z - self._y.to(z), sigma)

    def _flow(self, z: Tensor, sigma: Tensor, end: Tensor) -> Tensor:
        y = self._y.to(z)
        return y + end / sigma * (z - y)


class TwoPoint(_Exact):
    """Half the mass on m + d, half on m − d: D(x, σ) = m + d tanh(⟨x − m, d⟩/σ²).

    Across d the flow is a straight line, x − m scales by σ'/σ. Along d, with a = ⟨x − m, d⟩/δ and δ = ‖d‖, it keeps

        F(a; σ) = ½ Φ((a + δ)/σ) + ½ Φ((a − δ)/σ),

    and ends at σ = 0 on m + d where a > 0, on m − d where a < 0; a = 0, the separatrix, stays 0.

    Args:
        m: (*event), the middle, at least one axis.
        d: (*event), from the middle to a point.

    Raises:
        ValueError: m without an axis, empty or not finite; d of another shape, zero or not finite.

    Example:
        >>> D = TwoPoint(torch.zeros(2), torch.tensor([1.0, 0.0]))
        >>> D(torch.tensor([[0.5, 3.0]]), 1.0)              # tanh(0.5)
        tensor([[0.4621, 0.0000]])
        >>> D.flow(torch.tensor([[0.5, 3.0]]), 1.0, 0.0)
        tensor([[1., 0.]])
    """

    def __init__(self, m: Tensor, d: Tensor):
        (self._m, self.event), (self._d, event) = _point("m", m), _point("d", d)
        if event != self.event:
            raise ValueError(f"d must have the shape of m, {self.event}, got {event}")
        self._delta = float(self._d.norm())
        if self._delta == 0:
            raise ValueError("d must not be zero: the two points would be one")

    def sample(self, n: int, generator: torch.Generator) -> Float[Tensor, "n *event"]:
        side = 2 * torch.randint(0, 2, (n, 1), generator=generator, device=generator.device).double() - 1
        return (self._m.to(side) + side * self._d.to(side)).reshape(n, *self.event)

    def _mean(self, z: Tensor, sigma: Tensor) -> Tensor:
        m, d = self._m.to(z), self._d.to(z)
        return m + d * torch.tanh(((z - m) @ d)[:, None] / sigma.square())

    def _log_density(self, z: Tensor, sigma: Tensor) -> Tensor:
        m, d = self._m.to(z), self._d.to(z)
        halves = [log_normal(z - m - d, sigma), log_normal(z - m + d, sigma)]
        return torch.stack(halves).logsumexp(0) - math.log(2)

    def _flow(self, z: Tensor, sigma: Tensor, end: Tensor) -> Tensor:
        m, d, delta = self._m.to(z), self._d.to(z), self._delta
        a = (z - m) @ d / delta
        across = z - m - (a / delta)[:, None] * d
        centres = z.new_tensor([-delta, delta])
        halves = torch.full_like(centres, 0.5).log()
        # Solved for |a|, the flow is odd to the last bit. A tie, a = 0, goes to the lower side: clamped, it stays.
        size = transport(a.abs(), centres, halves, sigma.expand(-1, 2), end.expand(-1, 2)).clamp_min(0)
        return m + end / sigma * across + (size.copysign(a) / delta)[:, None] * d


class Gaussian(_Exact):
    """x0 from N(μ, C): D(x, σ) = μ + C (C + σ² I)⁻¹ (x − μ).

    Along an eigenvector of C with eigenvalue λ the flow scales x − μ by √((λ + σ'²)/(λ + σ²)).

    Args:
        mu: (*event), at least one axis; dim values.
        covariance: float, C = covariance·I; (dim,), its diagonal; or (dim, dim), symmetric and positive semidefinite to
            1e-6 of its largest entry, what float32 products leave (negative eigenvalues are then taken as 0).

    Raises:
        ValueError: mu without an axis, empty or not finite; covariance of another shape, not finite, not symmetric or
            not positive semidefinite.

    Example:
        >>> D = Gaussian(torch.zeros(2), torch.tensor([3.0, 0.0]))
        >>> D(torch.tensor([[1.0, 1.0]]), 1.0)
        tensor([[0.7500, 0.0000]])
        >>> D.flow(torch.tensor([[2.0, 1.0]]), 1.0, 0.0)    # 2 √(3/4), 1 √(0/1)
        tensor([[1.7321, 0.0000]])
    """

    def __init__(self, mu: Tensor, covariance: float | Tensor):
        self._mu, self.event = _point("mu", mu)
        C, dim = _parameter("covariance", covariance), len(self._mu)
        if C.shape not in ((), (dim,), (dim, dim)):
            raise ValueError(f"covariance must have shape (), ({dim},) or ({dim}, {dim}), got {tuple(C.shape)}")
        allowed = 1e-6 * float(C.abs().amax())
        self._basis: Tensor | None = None
        if C.ndim == 2:
            skew = float((C - C.T).abs().amax())
            if skew > allowed:
                raise ValueError(f"covariance must be symmetric, C and its transpose differ by {skew:g}")
            C, self._basis = torch.linalg.eigh((C + C.T) / 2)
        if C.amin() < -allowed or (self._basis is None and C.amin() < 0):
            raise ValueError(f"covariance must be positive semidefinite, got the eigenvalue {float(C.amin()):g}")
        self._variances = C.clamp_min(0).expand(dim)

    def sample(self, n: int, generator: torch.Generator) -> Float[Tensor, "n *event"]:
        eps = torch.randn(n, len(self._mu), generator=generator, dtype=torch.float64, device=generator.device)
        return self._scaled(eps + self._mu.to(eps), self._variances.to(eps).sqrt()).reshape(n, *self.event)

    def _mean(self, z: Tensor, sigma: Tensor) -> Tensor:
        variances = self._variances.to(z)
        return self._scaled(z, variances / (variances + sigma.square()))

    def _score(self, z: Tensor, sigma: Tensor) -> Tensor:
        # By its own formula: (D − x)/σ² cancels where σ² is far below C.
        return self._rotated(self._projected(z) / -(self._variances.to(z) + sigma.square()))

    def _log_density(self, z: Tensor, sigma: Tensor) -> Tensor:
        return log_normal(self._projected(z), (self._variances.to(z) + sigma.square()).sqrt())

    def _flow(self, z: Tensor, sigma: Tensor, end: Tensor) -> Tensor:
        variances = self._variances.to(z)
        return self._scaled(z, ((variances + end.square()) / (variances + sigma.square())).sqrt())

    def _scaled(self, z: Tensor, factors: Tensor) -> Tensor:
        """μ + U factors Uᵀ (z − μ), U the eigenvectors of C."""
        return self._mu.to(z) + self._rotated(factors * self._projected(z))

    def _projected(self, z: Tensor) -> Tensor:
        z = z - self._mu.to(z)
        return z if self._basis is None else z @ self._basis.to(z)

    def _rotated(self, z: Tensor) -> Tensor:
        return z if self._basis is None else z @ self._basis.to(z).T


class GaussianMixture(_Exact):
    """x0 from N(m_k, s_k² I) with probability w_k; with every s_k = 0, the empirical distribution of the m_k.

    With τ_k² = s_k² + σ² and responsibilities r_k ∝ w_k N(x; m_k, τ_k² I),

        D(x, σ) = Σ_k r_k [m_k + (s_k²/τ_k²)(x − m_k)]                                      (Eq. 43 if s_k = 0).

    For events of one value the flow keeps F(x; σ) = Σ_k w_k Φ((x − m_k)/τ_k). Down to σ = 0, components with s_k = 0
    are steps of F, and all x whose F is within a step land on its m_k, exactly; x on a separatrix, to the last digit,
    on the lower point. For more values no closed form of the flow is known.

    Args:
        means: (K, *event), in any order; one listed twice counts twice.
        std: s, float or (K,), >= 0.
        weights: (K,), > 0, of any sum; equal unless given.

    Raises:
        ValueError: means without two axes, empty or not finite; std or weights of another shape or not finite, a
            negative std, weights not positive.

    A call holds (B, K, dim) float64 numbers.

    Example:
        >>> D = GaussianMixture(torch.tensor([[-1.0], [1.0]]), std=0.0, weights=torch.tensor([0.9, 0.1]))
        >>> D(torch.tensor([[0.0]]), 1.0)                   # the weighted mean
        tensor([[-0.8000]])
        >>> D.flow(torch.tensor([[90.0], [120.0]]), 80.0, 0.0).tolist()    # F = 0.87, 0.93
        [[-1.0], [1.0]]
    """

    def __init__(self, means: Tensor, std: float | Tensor, weights: Tensor | None = None):
        means, std = _parameter("means", means), _parameter("std", std)
        if means.ndim < 2 or means.numel() == 0:
            raise ValueError(f"means must have shape (K, *event) and not be empty, got {tuple(means.shape)}")
        count, self.event = len(means), tuple(means.shape[1:])
        weights = _parameter("weights", torch.ones(count) if weights is None else weights)
        for name, value, shapes in (("std", std, "() or (K,)"), ("weights", weights, "(K,)")):
            if value.shape != (count,) and not (name == "std" and value.ndim == 0):
                raise ValueError(f"{name} must have shape {shapes}, got {tuple(value.shape)} with K = {count}")
        if std.amin() < 0:
            raise ValueError(f"std must not be negative, got {float(std.amin()):g}")
        if weights.amin() <= 0:
            raise ValueError(f"weights must be positive, got {float(weights.amin()):g}")
        self._means, self._std, self._log_weights = means.flatten(1), std.expand(count), (weights / weights.sum()).log()

    def sample(self, n: int, generator: torch.Generator) -> Float[Tensor, "n *event"]:
        weights = self._log_weights.to(generator.device).exp()
        # It refuses to draw none.
        k = torch.multinomial(weights, max(n, 1), replacement=True, generator=generator)[:n]
        means, std = self._means.to(weights)[k], self._std.to(weights)[k, None]
        eps = torch.randn(means.shape, generator=generator, dtype=torch.float64, device=generator.device)
        return (means + std * eps).reshape(n, *self.event)

    def separatrices(self, sigma: Float[Tensor, " S"]) -> Float[Tensor, "S borders"]:
        """The borders between the basins of K distinct points on the line, (S, K − 1): F(x; σ) = the weight left of x.

        Args:
            sigma: (S,) noise levels, > 0.

        Raises:
            ValueError: an s_k that is not 0, events of more than one value, or a sigma that is not positive and finite.

        Example:
            >>> D = GaussianMixture(torch.tensor([[-1.0], [1.0]]), std=0.0)
            >>> D.separatrices(torch.tensor([0.1, 80.0])).abs().amax() < 1e-12
            tensor(True)
        """
        if self._std.any() or self._means.shape[1] != 1:
            raise ValueError("basins are known in closed form for points on the line only")
        levels = torch.as_tensor(sigma, dtype=torch.float64)
        if not (torch.isfinite(levels) & (levels > 0)).all():
            raise ValueError("sigma must be positive and finite")
        centres, place = self._means.flatten().unique(return_inverse=True)
        weights = torch.zeros_like(centres).index_add_(0, place, self._log_weights.exp())
        return separatrices(centres.to(levels), weights.log().to(levels), levels)

    def _mean(self, z: Tensor, sigma: Tensor) -> Tensor:
        logits, tau = self._logits(z, sigma)
        share = logits.softmax(1) / tau.square()
        kept = (share * self._std.to(z).square()).sum(1, keepdim=True)
        return (share * sigma.square()) @ self._means.to(z) + kept * z

    def _score(self, z: Tensor, sigma: Tensor) -> Tensor:
        # By its own formula, Σ_k r_k (m_k − x)/τ_k²: (D − x)/σ² cancels where σ is far below s.
        logits, tau = self._logits(z, sigma)
        return ((logits.softmax(1) / tau.square())[:, :, None] * (self._means.to(z) - z[:, None])).sum(1)

    def _log_density(self, z: Tensor, sigma: Tensor) -> Tensor:
        return self._logits(z, sigma)[0].logsumexp(1)

    def _flow(self, z: Tensor, sigma: Tensor, end: Tensor) -> Tensor:
        if z.shape[1] != 1:
            raise ValueError(
                f"the flow of a mixture is known in closed form for events of one value only, got shape {self.event}: "
                "integrate the ODE (optimal.samplers)"
            )
        centres, order = self._means.to(z).flatten().sort()
        std, log_weights = self._std.to(z)[order].expand(len(z), -1), self._log_weights.to(z)[order]
        return transport(z.squeeze(1), centres, log_weights, torch.hypot(std, sigma), torch.hypot(std, end))[:, None]

    def _logits(self, z: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
        """log w_k N(x; m_k, τ_k² I) and τ, each (B, K)."""
        tau = torch.hypot(self._std.to(z).expand(len(z), -1), sigma)
        return self._log_weights.to(z) + log_normal(z[:, None] - self._means.to(z), tau[..., None]), tau


def _parameter(name: str, value: Any) -> Tensor:
    """A float64 copy on the CPU that no later change of `value` reaches."""
    copy = torch.as_tensor(value, dtype=torch.float64).detach().cpu().clone()
    if not torch.isfinite(copy).all():
        raise ValueError(f"{name} must be finite")
    return copy


def _point(name: str, value: Any) -> tuple[Tensor, tuple[int, ...]]:
    """A parameter with axes: its values, (dim,), and its shape."""
    point = _parameter(name, value)
    if point.ndim == 0 or point.numel() == 0:
        raise ValueError(f"{name} must have at least one axis and one value, got shape {tuple(point.shape)}")
    return point.flatten(), tuple(point.shape)


def _checked(x: Tensor, sigma: float | Tensor, event: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """x as (B, dim), with its graph, and sigma as (B, 1), both float64."""
    if not isinstance(x, Tensor):
        raise ValueError(f"x must be a tensor, got {type(x).__name__}: torch.from_numpy makes one of an array")
    if x.ndim == 0 or tuple(x.shape[1:]) != event:
        raise ValueError(f"x must have shape (B, {', '.join(map(str, event))}), got {tuple(x.shape)}")
    if not x.dtype.is_floating_point:
        raise ValueError(f"x must be floating point, got {x.dtype}")
    levels = per_row("sigma", sigma, len(x), x.device)[:, None]
    usable = torch.isfinite(levels) & (levels > 0)
    if not usable.all():
        raise ValueError(f"sigma must be positive and finite, got {float(levels[~usable][0]):g}")
    z = x.reshape(len(x), math.prod(event)).double()
    if not torch.isfinite(z).all():
        raise ValueError(f"x must be finite, row {int((~torch.isfinite(z)).any(1).nonzero()[0])} is not")
    return z, levels


def _like(z: Tensor, x: Tensor) -> Tensor:
    """z in the shape and dtype of x."""
    return z.reshape(x.shape).to(x.dtype)
