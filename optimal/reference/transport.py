"""The monotone map between two mixtures on the line: how the probability flow moves mass in one dimension.

F(x; τ) = Σ_k w_k Φ((x − m_k)/τ_k) is constant along the flow (see `optimal.reference`), so the flow from τ to τ' is the
map with F(x'; τ') = F(x; τ). Tails and gaps, where F is flat to all digits, are told apart in logs.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.special import log_ndtr

__all__ = ["log_normal", "separatrices", "transport"]

_LOG_2PI = math.log(2 * math.pi)


def transport(x: Tensor, centres: Tensor, log_weights: Tensor, tau: Tensor, tau_end: Tensor) -> Tensor:
    """The x' with F(x'; τ') = F(x; τ), F = Σ_k w_k Φ((x − m_k)/τ_k), (B,) float64.

    In a tail or a gap F is a constant to all digits. So it is not F that is matched but its distance from the nearest
    level W_i = Σ_{k<i} w_k, of which each side is a sum of tails, in logs:

        F − W_i = Σ_{k>=i} w_k Φ((x − m_k)/τ_k) − Σ_{k<i} w_k Φ((m_k − x)/τ_k) = A − B.

    Each component alone would send x to T_k = m_k + (τ'_k/τ_k)(x − m_k), and x' lies between the least and the largest
    T_k, as F at the least T_k is at most F(x; τ). Newton's method in log|A − B| is tried inside this bracket, and
    bisection done where it leaves it or fails to halve its step.

    Args:
        x: (B,).
        centres: (K,) m_k, increasing.
        log_weights: (K,) log w_k.
        tau, tau_end: (B, K) τ_k > 0 and τ'_k >= 0, where 0 makes F' step.
    """
    below, above = _tails(x, centres, log_weights, tau)
    none = x.new_full((len(x), 1), -math.inf)
    above = torch.cat([above.flip(1).logcumsumexp(1).flip(1), none], 1)
    below = torch.cat([none, below.logcumsumexp(1)], 1)
    masses = _log_difference(above, below)
    level = masses.argmin(1, keepdim=True)
    target = masses.gather(1, level).squeeze(1)
    rising = (above >= below).gather(1, level).squeeze(1)
    right = torch.arange(len(centres), device=x.device) >= level

    bounds = centres + tau_end / tau * (x[:, None] - centres)
    low, high = bounds.amin(1), bounds.amax(1)
    unit, reach = 2 * torch.finfo(x.dtype).eps, centres.abs().amax()
    # Components far narrower than the bracket are steps, and give Newton's method no slope to follow.
    smooth = tau_end.amin(1) > 1e-8 * (high - low)
    width = tau_end.clamp_min(1e-300)
    x, last, moving = (low + high) / 2, high - low, torch.ones_like(smooth)
    for iteration in range(200):
        below, above = _tails(x, centres, log_weights, width)
        a, b = above.where(right, -math.inf).logsumexp(1), below.where(~right, -math.inf).logsumexp(1)
        mass, matched = _log_difference(a, b), (a >= b) == rising
        too_low = torch.where(rising, ~matched | (mass < target), matched & (mass > target))
        low, high = torch.where(too_low, x, low), torch.where(too_low, high, x)
        log_density = (log_weights + log_normal((x[:, None] - centres)[..., None], width[..., None])).logsumexp(1)
        newton = x + torch.where(rising, target - mass, mass - target) * (mass - log_density).exp()
        usable = smooth & matched & (newton >= low) & (newton <= high) & ((newton - x).abs() <= last / 2)
        # After a hundred steps bisection alone, which is sure to end.
        following = newton.where(usable & (iteration < 100), (low + high) / 2)
        last = (following - x).abs()
        x = following.where(moving, x)
        moving = moving & (last > unit * (x.abs() + reach))
        if not moving.any():
            break
    # Where F' steps, the answer is the step itself.
    close = (x[:, None] - centres).abs() <= 4 * unit * (reach + tau_end.amax(1, keepdim=True))
    steps = (tau_end == 0) & close
    return torch.where(steps.any(1), centres[steps.int().argmax(1)], x)


def separatrices(centres: Tensor, log_weights: Tensor, tau: Tensor) -> Tensor:
    """The x at which F(x; τ) is W_i, the weight of the first i components, for i = 1 … K − 1: (B, K − 1) float64.

    Bisection on the sign of log A − log B, see `transport`. Each component alone has W_i at m_k + τ Φ⁻¹(W_i), so that
    x lies between the least and the largest of these.

    Args:
        centres: (K,) m_k, increasing.
        log_weights: (K,) log w_k, of sum 1.
        tau: (B,) the width of all components, > 0.
    """
    count = len(centres)
    z = torch.special.ndtri(log_weights.exp().cumsum(0)[:-1].clamp(0, 1))
    low = (centres[0] + tau[:, None] * z).flatten()
    high = (centres[-1] + tau[:, None] * z).flatten()
    right = (torch.arange(count, device=tau.device) >= torch.arange(1, count, device=tau.device)[:, None]).repeat(
        len(tau), 1
    )
    width = tau.repeat_interleave(count - 1)[:, None]
    for _ in range(100):
        x = (low + high) / 2
        below, above = _tails(x, centres, log_weights, width)
        too_low = above.where(right, -math.inf).logsumexp(1) < below.where(~right, -math.inf).logsumexp(1)
        low, high = torch.where(too_low, x, low), torch.where(too_low, high, x)
    return ((low + high) / 2).view(len(tau), count - 1)


def _tails(x: Tensor, centres: Tensor, log_weights: Tensor, tau: Tensor) -> tuple[Tensor, Tensor]:
    """log w_k Φ((m_k − x)/τ_k) and log w_k Φ((x − m_k)/τ_k), each (B, K)."""
    z = (x[:, None] - centres) / tau
    return log_weights + log_ndtr(-z), log_weights + log_ndtr(z)


def _log_difference(a: Tensor, b: Tensor) -> Tensor:
    """log|e^a − e^b|, elementwise; −inf where both are 0."""
    larger = torch.maximum(a, b)
    return torch.where(larger == -math.inf, larger, larger + torch.log(-torch.expm1(-(a - b).abs())))


def log_normal(z: Tensor, sigma: Tensor) -> Tensor:
    """log N(z; 0, σ² I) over the last axis of z; sigma, one a row or one a coordinate."""
    return ((z / sigma).square() / -2 - sigma.log() - _LOG_2PI / 2).sum(-1)
