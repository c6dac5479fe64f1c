"""The border between mode seeking and mode refining.

At high noise the optimal denoiser returns a blend of many data points and the sampler is still choosing among them
(mode seeking); at low noise it returns one point and the sampler only polishes it (mode refining). The number that
tells the two apart is effective_count = exp(entropy of the posterior weights), the number of points that share in D(x,
σ), along the forward process x = x0 + σ ε with x0 drawn from the data. The border is the σ at which its median falls
to 2 (section D.1 of the paper, which draws it by hand).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from tqdm import tqdm

from .denoiser import OptimalDenoiser

__all__ = ["Border", "effective_counts", "seeking_refining_border"]

_RANGE = (1e-4, 1e4)
"""Where the border is looked for, in units of the data's standard deviation."""


@dataclass(frozen=True)
class Border:
    """Where the median effective_count crosses `threshold`.

    Attributes:
        sigma: the border, in units of the data; inf where the count stays below the threshold at any noise (one point,
            two points), 0 where it stays above (most points are repeated: the count is one of entries).
        low, high: 95% bootstrap interval over the draws of (x0, ε).
        threshold: effective_count at the border.
        draws: how many pairs (x0, ε).
    """

    sigma: float
    low: float
    high: float
    threshold: float
    draws: int

    def __float__(self) -> float:
        return self.sigma


def effective_counts(
    D: OptimalDenoiser, sigmas: Tensor, *, draws: int = 256, generator: torch.Generator | None = None
) -> Tensor:
    """exp(entropy of p(x0 | x)) at x = x0 + σ ε, (len(sigmas), draws) float64.

    x0 is drawn uniformly from the data, with replacement; the same pairs (x0, ε) serve every σ, so that each column is
    one path up the noise levels.

    Args:
        D: the optimal denoiser of the data.
        sigmas: (S,) noise levels, > 0.
        draws: number of pairs.
        generator: source of randomness; without one, a fresh generator seeded with 0.

    Example:
        >>> D = OptimalDenoiser(torch.tensor([[-1.0], [1.0]]))
        >>> effective_counts(D, torch.tensor([0.01, 100.0]), draws=3).round(decimals=2).tolist()
        [[1.0, 1.0, 1.0], [2.0, 2.0, 2.0]]
    """
    x0, eps = _pairs(D, draws, generator)
    return torch.stack([_counts(D, x0, eps, float(sigma)) for sigma in sigmas])


def seeking_refining_border(
    D: OptimalDenoiser,
    *,
    threshold: float = 2.0,
    draws: int = 256,
    generator: torch.Generator | None = None,
    progress: bool = False,
) -> Border:
    """The noise level at which the median effective_count over the data crosses `threshold`.

    Bisection in log σ finds the crossing to 1%; nine levels around it, interpolated in (log σ, log count), place it
    and, resampling the draws, give its interval. The median is taken to rise with σ, as it does on every data set
    tried here.

    Args:
        D: the optimal denoiser of the data.
        threshold: effective_count at the border, > 1.
        draws: pairs (x0, ε) behind the median.
        generator: source of randomness; without one, a fresh generator seeded with 0.
        progress: whether a progress bar is drawn on stderr.

    Raises:
        ValueError: threshold <= 1, draws < 1.

    References:
        Section D.1 of the paper, Figure 1.
    """
    if not threshold > 1:
        raise ValueError(f"threshold must be above 1, the count of a single point, got {threshold:g}")
    generator = generator or torch.Generator().manual_seed(0)
    x0, eps = _pairs(D, draws, generator)
    scale = D.standard_deviation
    low, high = (torch.tensor(bound * (scale or 1.0), dtype=torch.float64).log() for bound in _RANGE)
    steps = int(torch.ceil(torch.log2((high - low) / 0.01)))
    with tqdm(total=steps + 11, desc="border", unit="level", leave=False, disable=not progress) as bar:

        def counts(log_sigma: Tensor) -> Tensor:
            bar.update()
            return _counts(D, x0, eps, float(log_sigma.exp()))

        # n points share equally only in the limit, n equals always; rounding must not turn either into a crossing.
        if counts(high).median() <= threshold * (1 + 1e-5):
            return Border(torch.inf, torch.inf, torch.inf, threshold, draws)
        if counts(low).median() >= threshold * (1 - 1e-5):
            return Border(0.0, 0.0, 0.0, threshold, draws)
        for _ in range(steps):
            middle = (low + high) / 2
            low, high = (low, middle) if counts(middle).median() >= threshold else (middle, high)
        levels = (low + high) / 2 + torch.linspace(-0.4, 0.4, 9, dtype=torch.float64)
        paths = torch.stack([counts(level) for level in levels])
    resampled = paths[:, torch.randint(draws, (500, draws), generator=generator)].quantile(0.5, dim=2).T
    crossings = _crossing(levels, resampled, threshold).exp()
    return Border(
        float(_crossing(levels, paths.quantile(0.5, dim=1)[None], threshold).exp()),
        float(crossings.quantile(0.025)),
        float(crossings.quantile(0.975)),
        threshold,
        draws,
    )


def _pairs(D: OptimalDenoiser, draws: int, generator: torch.Generator | None) -> tuple[Tensor, Tensor]:
    if draws < 1:
        raise ValueError(f"draws must be at least 1, got {draws}")
    generator = generator or torch.Generator().manual_seed(0)
    x0 = D.take(torch.randint(len(D), (draws,), generator=generator))
    return x0, torch.randn(x0.shape, generator=generator)


def _counts(D: OptimalDenoiser, x0: Tensor, eps: Tensor, sigma: float) -> Tensor:
    return D.posterior(x0 + sigma * eps, sigma).effective_count.double()


def _crossing(levels: Tensor, medians: Tensor, threshold: float) -> Tensor:
    """Where each row of medians (R, L) first reaches the threshold, by log interpolation; an end if none does."""
    above = medians >= threshold
    index = torch.where(above.any(1), above.double().argmax(1), len(levels) - 1).clamp_min(1)
    rows = torch.arange(len(medians))
    left, right = medians[rows, index - 1].log(), medians[rows, index].log()
    target = torch.tensor(threshold, dtype=torch.float64).log()
    fraction = ((target - left) / (right - left).clamp_min(1e-12)).clamp(0, 1)
    return levels[index - 1] + fraction * (levels[index] - levels[index - 1])
