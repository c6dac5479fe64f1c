"""A mixture of isotropic Gaussians or points; its flow is known for events of one value."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from ..query import Levels, level_list
from ..randomness import generator_of
from .base import Exact, parameter
from .transport import log_normal, separatrices, transport

__all__ = ["GaussianMixture"]


class GaussianMixture(Exact):
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
        means, std = parameter("means", means), parameter("std", std)
        if means.ndim < 2 or means.numel() == 0:
            raise ValueError(f"means must have shape (K, *event) and not be empty, got {tuple(means.shape)}")
        count, self.event = len(means), tuple(means.shape[1:])
        weights = parameter("weights", torch.ones(count, device="cpu") if weights is None else weights)
        for name, value, shapes in (("std", std, "() or (K,)"), ("weights", weights, "(K,)")):
            if value.shape != (count,) and not (name == "std" and value.ndim == 0):
                raise ValueError(f"{name} must have shape {shapes}, got {tuple(value.shape)} with K = {count}")
        if std.amin() < 0:
            raise ValueError(f"std must not be negative, got {float(std.amin()):g}")
        if weights.amin() <= 0:
            raise ValueError(f"weights must be positive, got {float(weights.amin()):g}")
        self._means, self._std, self._log_weights = means.flatten(1), std.expand(count), (weights / weights.sum()).log()

    def sample(self, n: int, generator: torch.Generator | None = None) -> Float[Tensor, "n *event"]:
        generator = generator_of(generator)
        weights = self._log_weights.to(generator.device).exp()
        # It refuses to draw none.
        k = torch.multinomial(weights, max(n, 1), replacement=True, generator=generator)[:n]
        means, std = self._means.to(weights)[k], self._std.to(weights)[k, None]
        eps = torch.randn(means.shape, generator=generator, dtype=torch.float64, device=generator.device)
        return (means + std * eps).reshape(n, *self.event)

    def separatrices(self, sigma: Levels) -> Float[Tensor, "S borders"]:
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
            dim, std = self._means.shape[1], float(self._std.amax())
            raise ValueError(
                f"basins are known in closed form for points on the line only, got events of {dim} values, std {std:g}"
            )
        levels = level_list(sigma, name="sigma")
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
