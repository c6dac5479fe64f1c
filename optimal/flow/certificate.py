"""Capture: from which noise level on it is certain where the flow ends.

The exact flow dx/dσ = (x − D)/σ ends on one of the data points. At high noise its direction blends many of them; at
low noise the leader of the posterior, y_k, has won. Leading is not yet winning: while D still blends, the others can
pull x away. The certificate bounds that pull for the whole rest of the way. With

    u = (x − y_k)/σ,    A_j = ‖y_k − y_j‖/σ,    e_j = (y_k − y_j)/‖y_k − y_j‖,    g_j = l_k − l_j = A_j²/2 + A_j e_j·u

for the points y_j that differ from y_k, all taken at (x, σ₀), π_j the probability of y_j, Π that of y_k with all its
copies, r_j = π_j/Π (one over the number of copies, where no point has more probability than another), and a trial δ >
0,

    S(δ) = Σ_j r_j ∫_{A_j}^∞ exp(−A²/2 − A c_j) dA = Σ_j r_j √(2π) e^{c_j²/2} Q(A_j + c_j),    c_j = e_j·u − δ,

Q the upper tail of the Gaussian. If S(δ) <= δ for some δ, the exact flow from (x, σ₀) ends on y_k.

Proof. du/dlnσ = (y_k − D)/σ = Σ_j w_j A_j e_j: only the others move u. As σ falls A_j grows, dlnA_j = −dlnσ. Call drift
the length of u's path since σ₀. While it is at most δ, e_j·u >= c_j; and as the copies of y_k weigh at most 1 together,
w_j <= r_j e^{−g_j} <= r_j exp(−A_j²/2 − A_j c_j); so at any σ > 0 the drift, at most Σ_j ∫ w_j A_j dlnA_j = Σ_j ∫ w_j
dA_j, is below S(δ). It cannot reach δ: there it would be below S(δ) <= δ. So u stays bounded, and x − y_k = σu → 0.

No condition on the leads is needed, and none on k: they follow, if no point is repeated or has more probability than
another. S is convex and positive at 0,
so it first meets δ at some δ' <= δ with slope S'(δ') = Σ_j (e^{−(g_j − δ'A_j)} − c_j ∫…) <= 1. Each of these terms is
positive, so each is at most 1: where c_j <= 0, and trivially where c_j > 0, A_j/2 + c_j = g_j/A_j − δ' > 0. As S(δ') <=
δ' too, g_j >= A_j (A_j/2 + c_j) from σ₀ on, which is positive and only grows: k leads and is never overtaken. And once
the certificate holds it holds for the rest of the flow, with δ less the drift so far. Under a prior they need not
follow: of a rare y_k it can be certain that the flow ends there while another point still leads.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

import torch
from jaxtyping import Int, Num
from torch import Tensor

from ..denoiser import OptimalDenoiser
from ..query import Levels
from ..shown import in_short

__all__ = ["TRIALS", "Capture", "Certificate", "capture", "certify"]

TRIALS = (0.001, 0.01, 0.05, 0.1, 0.2, 0.3, 0.5, 1.0, 2.0)
"""The δ that are tried. Seventy of them, from 1e-5 to 2, certify no earlier on digits, and 1% earlier on five deltas.
Those above 0.5 serve the outermost points in few dimensions, some of which are certain 15 times earlier."""


class _State(Protocol):
    @property
    def x(self) -> Tensor: ...
    @property
    def sigma(self) -> float: ...


@dataclass(frozen=True)
class Certificate:
    """Whether it is certain where the exact flow from (x, σ) ends.

    Attributes:
        index: (B,) int64, the leader of the posterior, the first in the data among equals; or the point asked for.
        holds: (B,) bool, whether the flow is certain to end on it. Where not, it may or may not.
        drift: (B,) float64, the smallest δ tried for which it holds: (x − y_k)/σ moves by less on the whole rest of the
            way. inf where none.
    """

    index: Tensor
    holds: Tensor
    drift: Tensor

    __repr__ = in_short


@dataclass(frozen=True)
class Capture:
    """When each trajectory was decided.

    Attributes:
        sigma: (B,) float64, the largest of its noise levels at which the certificate holds; nan where it never does.
        index: (B,) int64, the data point certified there; −1 where none.
        last_change: (B,) float64, the lowest noise level at which the leader was still another point than at the next
            level below; nan where the leader never changed. It is above `sigma`: what is captured keeps its leader.
            Under a prior, of the levels down to `sigma`, below which the leader may still change.
    """

    sigma: Tensor
    index: Tensor
    last_change: Tensor

    __repr__ = in_short


def certify(
    D: OptimalDenoiser, x: Num[Tensor, "B *event"], sigma: Levels, index: Int[Tensor, " B"] | None = None
) -> Certificate:
    """Whether the exact flow from x is certain to end on the leader of the posterior: where it holds, it is proven.

    The proof is of the flow from the very x, σ and points that are given. S(δ) is bounded from above with the rounding
    of every operation that enters (`optimal.evaluate.drift` names the constants), in one pass over the data in float64;
    one more finds the leader.

    Args:
        D: the optimal denoiser of the data.
        x: (B, *event) noisy points, over their signal scale.
        sigma: noise level, > 0: float, () or (B,).
        index: (B,) whole numbers from 0 to N − 1, the points to certify, where the leaders are known, or others are
            asked for.

    Raises:
        ValueError: as for `OptimalDenoiser`; an index of another shape or type, out of range, or of a point that a
            prior has taken away.

    Example:
        >>> D = OptimalDenoiser(torch.tensor([[-1.0], [1.0]]))
        >>> certificate = certify(D, torch.tensor([[0.01], [0.5], [-0.9]]), 0.5)
        >>> certificate.index, certificate.holds
        (tensor([1, 1, 0]), tensor([False,  True,  True]))
    """
    x = x.detach() if isinstance(x, Tensor) else x
    z, sigmas = D.query(x, sigma)
    index = D.posterior(x, sigma).top_index if index is None else _checked(index, len(z), len(D)).to(z.device)
    places = D.points.inner(index)
    if (places < 0).any():
        raise ValueError(f"index must be points that have a probability, point {int(index[places < 0][0])} has none")
    sums = D.evaluator.drift_bounds(z, sigmas, places, TRIALS)
    trials = torch.tensor(TRIALS, dtype=torch.float64, device=sums.device)
    drift = torch.where(sums <= trials, trials, torch.inf).amin(1)
    return Certificate(index, drift.isfinite(), drift)


def _checked(index: Tensor, batch: int, size: int) -> Tensor:
    """The points to certify, (B,) int64."""
    if not isinstance(index, Tensor) or index.dtype == torch.bool or index.is_floating_point() or index.is_complex():
        kind = index.dtype if isinstance(index, Tensor) else type(index).__name__
        raise ValueError(f"index must be a tensor of whole numbers, got {kind}")
    if index.shape != (batch,):
        raise ValueError(f"index must have shape (B,), got {tuple(index.shape)} with B = {batch}")
    wrong = (index < 0) | (index >= size)
    if wrong.any():
        raise ValueError(f"index must lie between 0 and {size - 1}, got {int(index[wrong][0])}")
    return index.long()


def capture(D: OptimalDenoiser, states: Iterable[_State]) -> Capture:
    """At which noise level, and by which data point, each row of a trajectory is captured.

    Each state is taken for itself: what is certified is the end of the exact flow from that x. A solver's steps may
    leave the flow before, and after. A row is followed until it is captured, and `states` is read no further once all
    are; a state at sigma = 0 says nothing and is skipped.

    Args:
        D: the optimal denoiser of the data.
        states: `trajectory(D, …)`, under any process, or a list of its states; or anything with .x, (B, *event), and
            .sigma, decreasing. Where there is a .scale, x is divided by it.

    Raises:
        ValueError: no states, sigma not decreasing, x of changing shape.

    Example:
        >>> from types import SimpleNamespace
        >>> D = OptimalDenoiser(torch.tensor([[-1.0], [1.0]]))
        >>> states = [SimpleNamespace(x=torch.tensor([[s - 0.5], [0.1]]), sigma=s) for s in (1.0, 0.4, 0.2, 0.0)]
        >>> captured = capture(D, states)
        >>> captured.sigma, captured.index
        (tensor([0.2000, 0.2000], dtype=torch.float64), tensor([0, 1]))
        >>> captured.last_change
        tensor([1., nan], dtype=torch.float64)
    """
    above, shape = math.inf, None
    sigma = last_change = index = leader = pending = torch.empty(0, device="cpu")
    for state in states:
        x, level = state.x / getattr(state, "scale", 1.0), float(state.sigma)
        if not level < above:
            raise ValueError(f"states must come with decreasing sigma, got {level:g} after {above:g}")
        if shape is None:
            shape = x.shape
            sigma = torch.full((len(x),), torch.nan, dtype=torch.float64, device=x.device)
            last_change = sigma.clone()
            index = torch.full((len(x),), -1, device=x.device)
            leader, pending = index.clone(), torch.arange(len(x), device=x.device)
        if x.shape != shape:
            raise ValueError(f"states must hold x of one shape, got {tuple(x.shape)} after {tuple(shape)}")
        previous, above = above, level
        if level == 0:
            continue
        found = certify(D, x[pending], level)
        changed = (leader[pending] != found.index) & (leader[pending] >= 0)
        last_change[pending[changed]] = previous
        leader[pending] = found.index
        captured = pending[found.holds]
        sigma[captured], index[captured] = level, found.index[found.holds]
        pending = pending[~found.holds]
        if len(pending) == 0:
            break
    if shape is None:
        raise ValueError("states must hold at least one state, got none")
    return Capture(sigma, index, last_change)
