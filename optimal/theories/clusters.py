"""k-means of the data: into how many parts, and which point is in which.

Lloyd's iterations from k-means++ (Arthur, Vassilvitskii 2007): the first centre is a point drawn from the prior, every
further one a point drawn in proportion to π_j times its squared distance from the nearest centre so far; then points
go to their nearest centre, centres to the mean of their points, until no point moves. Each step is one pass over the
data, in blocks, in float64.
"""

from __future__ import annotations

import torch
from jaxtyping import Int
from torch import Tensor
from tqdm import tqdm

from ..arithmetic import ours
from ..denoiser import OptimalDenoiser
from ..points import Points

__all__ = ["k_means"]


@ours()
def k_means(
    D: OptimalDenoiser, modes: int, generator: torch.Generator, *, iterations: int = 100, progress: bool = False
) -> Int[Tensor, " N"]:
    """The cluster of every data point, (N,) int64 on the CPU, 0 … K − 1; −1 of points without a probability.

    Args:
        D: the optimum of the data, which gives their prior.
        modes: K, at least 1.
        generator: of the first centres, on the CPU.
        iterations: Lloyd's, at most.
        progress: whether a bar is drawn on stderr.

    Raises:
        ValueError: fewer distinct points than clusters.
    """
    points = D.points
    log_weights = points.log_weight(torch.arange(points.size, device=points.device))
    weights = log_weights.exp()
    centres = _first_centres(points, weights, modes, generator)
    own = torch.full((points.size,), -1, dtype=torch.int64, device=points.device)
    for _ in tqdm(range(iterations), desc="k-means", leave=False, disable=not progress):
        found, sums, totals = _assigned(points, weights, centres)
        if torch.equal(found, own):
            break
        own = found
        # A centre that all its points have left stays where it is.
        full = totals > 0
        centres[full] = sums[full] / totals[full, None]
    out = torch.full((points.of,), -1, dtype=torch.int64)
    out[points.outer(torch.arange(points.size, device=points.device)).cpu()] = own.cpu()
    return out


def _first_centres(points: Points, weights: Tensor, modes: int, generator: torch.Generator) -> Tensor:
    """k-means++, (K, D) float64, in units of the points."""
    centres = torch.empty(modes, points.dim, dtype=torch.float64, device=points.device)
    squares = torch.full((points.size,), torch.inf, dtype=torch.float64, device=points.device)
    chance = weights
    for k in range(modes):
        steps = chance.cumsum(0)
        if not steps[-1] > 0:
            raise ValueError(f"modes must be at most {k}, the number of distinct data points, got {modes}")
        at = torch.rand(1, generator=generator, dtype=torch.float64, device=generator.device).to(steps) * steps[-1]
        # The last that has a chance, where rounding takes a draw beyond all.
        last = int((chance > 0).nonzero()[-1])
        chosen = torch.searchsorted(steps, at, right=True).clamp_max(last)
        points.read(chosen, centres[k : k + 1])
        for start, block in points.blocks(points.few_rows, points.device):
            # Differences: a copy of a centre is at distance 0.
            part = squares[start : start + len(block)]
            torch.minimum(part, (block - centres[k]).square_().sum(1), out=part)
        chance = weights * squares
    return centres


def _assigned(points: Points, weights: Tensor, centres: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The nearest centre of every point, the first among equals; sums of the points of each, and of their weights."""
    own = torch.empty(points.size, dtype=torch.int64, device=points.device)
    sums, totals = torch.zeros_like(centres), centres.new_zeros(len(centres))
    half = 0.5 * centres.square().sum(1)
    for start, block in points.blocks(points.block_rows(len(centres)), points.device):
        place = slice(start, start + len(block))
        own[place] = (block @ centres.T - half).argmax(1)
        share = weights[place]
        totals.index_add_(0, own[place], share)
        sums.index_add_(0, own[place], block * share[:, None])
    return own, sums, totals
