"""The optimum estimated from points that are drawn where its posterior is likely: near x, and now and then elsewhere.

With l_j = log π_j − ‖x − y_j‖²/2σ² and d_k the distance of the k-th nearest point, points are drawn from

    q_j ∝ exp(l_j)                        for the k nearest
    q_j ∝ π_j exp(−d_k²/2σ²)              for all others, as if they were as near as the k-th

and of n draws the mean is taken, each with its weight exp(l_j)/q_j up to a factor: 1 for the k nearest, and for the
others exp(−(d_j² − d_k²)/2σ²) <= 1. For k = N these are n draws from the posterior, whose mean is unbiased; else the
ratio of two means is biased by O(1/n), and tends to D as n grows.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Num
from torch import Tensor

from ..denoiser import OptimalDenoiser
from ..devices import require_room
from ..numbers import require_whole
from ..query import Levels, levels, require_points
from ..randomness import generator_of
from .moments import require_optimum
from .underived import underived

__all__ = ["NearestProposal", "nearest_proposal"]


class NearestProposal:
    """The mean of n points drawn from a proposal by the k nearest, a `Denoiser`; made by `nearest_proposal`.

    Attributes:
        D: the optimum.
        k: how many points are known to the proposal.
        event: shape of one point.
    """

    def __init__(self, D: OptimalDenoiser, k: int, uniform: Float[Tensor, " n"]):
        self.D, self.k, self.event, self._uniform = D, k, D.event, uniform
        first, own = D.first_copies().cpu(), D.log_weights.cpu()
        # A point with its copies is one, at the first of them.
        self._log_shares = torch.zeros_like(own).index_add_(0, first, own.exp()).log()

    def __repr__(self) -> str:
        return f"NearestProposal({self.D!r}, k={self.k}, n={len(self._uniform)})"

    def probabilities(self, x: Num[Tensor, "B *event"], sigma: Levels) -> Float[Tensor, "B N"]:
        """q of every data point, (B, N) float64 on the CPU; copies have theirs at the first of them.

        Raises:
            ValueError: as for `OptimalDenoiser`.
        """
        return self._proposal(x, sigma)[0]

    def __call__(self, x: Num[Tensor, "B *event"], sigma: Levels) -> Float[Tensor, "B *event"]:
        """The estimate of D(x, σ), (B, *event), like x. The same uniform numbers draw for every row and call.

        Raises:
            ValueError: as for `OptimalDenoiser`.
        """
        q, reach = self._proposal(x, sigma)
        square = levels(sigma, len(x), x.device).square().cpu()
        out = torch.empty_like(x)
        for row in range(len(x)):
            below = q[row].cumsum(0)
            # Rounded up to the whole, a number would be past the last point that has a probability.
            most = torch.nextafter(below[-1], torch.zeros_like(below[-1]))
            drawn = torch.searchsorted(below, (self._uniform * below[-1]).clamp_max(most), right=True)
            points = self.D.take(drawn).double().cpu().flatten(1)
            away = (points - x[row].detach().double().cpu().flatten()).square_().sum(1)
            weights = ((reach[row].square() - away) / (2 * square[row])).clamp_max(0).softmax(0)
            out[row] = (weights @ points).reshape(self.event).to(x)
        return underived(out, x, "nearest_proposal")

    def _proposal(self, x: Tensor, sigma: Levels) -> tuple[Tensor, Tensor]:
        """q, (B, N), and d_k, (B,)."""
        require_points(x, self.event)
        square = levels(sigma, len(x), x.device).square().cpu()[:, None]
        index, distance = (found.cpu() for found in self.D.neighbours(x.detach(), self.k))
        there = index >= 0
        reach = torch.where(there, distance.double(), 0.0).amax(1)
        away = reach[:, None].expand(-1, len(self._log_shares)).clone()
        rows = torch.arange(len(x))[:, None].expand_as(index)[there]
        away[rows, index[there]] = distance.double()[there]
        return (self._log_shares - away.square() / (2 * square)).softmax(1), reach


def nearest_proposal(D: OptimalDenoiser, k: int, n: int, generator: torch.Generator | None = None) -> NearestProposal:
    """The nearest-neighbour estimate of the posterior mean: n points drawn from a proposal by the k nearest.

    Each call costs the search for the k nearest, and reads n points.

    Args:
        D: the optimum.
        k: number of distinct points that the proposal knows.
        n: number of points drawn.
        generator: of n uniform numbers, drawn once; a fixed seed unless given.

    Raises:
        ValueError: k or n below 1; n points that do not fit into memory; a D that is no `OptimalDenoiser`.

    References:
        Niedoba et al. 2024, "Nearest Neighbour Score Estimators for Diffusion Generative Models".

    Example:
        >>> D = OptimalDenoiser(torch.tensor([[-1.0], [1.0], [4.0]]))
        >>> nearest_proposal(D, k=2, n=1000).probabilities(torch.tensor([[0.9]]), 1.0)    # the third like the second
        tensor([[0.1242, 0.7515, 0.1242]], dtype=torch.float64)
    """
    require_optimum(D, "a proposal by the nearest points")
    for name, value in (("k", k), ("n", n)):
        require_whole(name, value)
    if k > len(D):
        raise ValueError(f"k must be at most the {len(D):,} points that there are, got {k}")
    # n uniform numbers, and as many points at once, both in float64.
    require_room("n", int(n), 2 + 4 * D.points.dim)
    uniform = torch.rand(int(n), generator=generator_of(generator), dtype=torch.float64, device="cpu")
    return NearestProposal(D, int(k), uniform)
