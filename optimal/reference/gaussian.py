"""A Gaussian of any covariance, where every eigenvector is a line of its own."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from ..randomness import generator_of
from .base import Exact, parameter, point
from .transport import log_normal

__all__ = ["Gaussian"]


class Gaussian(Exact):
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
        self._mu, self.event = point("mu", mu)
        C, dim = parameter("covariance", covariance), len(self._mu)
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

    def sample(self, n: int, generator: torch.Generator | None = None) -> Float[Tensor, "n *event"]:
        generator = generator_of(generator)
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
