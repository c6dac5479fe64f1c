"""The border between mode seeking and mode refining, measured along the forward process x = x0 + σ ε.

At high noise the optimal denoiser returns a blend of many data points and the sampler is still choosing among them
(mode seeking); at low noise it returns one point and the sampler only polishes it (mode refining). What tells the two
apart is the entropy H of the posterior weights, and effective_count = e^H, the number of points that share in D(x, σ).
With x0 drawn from the data, three levels of noise stand for the change:

    border       the median effective_count is 2           `seeking_refining_border`; section D.1 of the paper draws it
    collapse     the mean of H is 1 nat                    `collapse_border`; both: `borders`
    capture      the destination of one ODE trajectory     `optimal.capture`
                 can no longer change

and with them go P(the leading point is the source x0), which falls from 1, and

    MMSE(σ) = E‖x0 − D‖² = E tr Cov[x0 | x],    d MMSE/dσ = 2/σ³ · E‖Cov[x0 | x]‖²_F

Collapse is the later of the two transitions of Biroli, Bonnaire, de Bortoli, Mézard 2024, after which the process runs
to one training point. They place it where the excess entropy f = (ln N)/d + ½ (1 + ln 2πσ²) + E[log p(x; σ)]/d leaves
0; for the empirical density f is E[H]/d, the posterior's mean entropy for each dimension, without any estimate. The
earlier transition, speciation, when the classes of the data part, needs no posterior: see `optimal.regimes`, which
holds the closed formulas of both. On Gaussian data border and collapse agree with the formula to 10%.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from tqdm import tqdm

from .crossings import Border, Drawn
from .denoiser import OptimalDenoiser
from .draws import Data, draw_pairs
from .posterior import Optimum
from .query import Levels, level_list
from .randomness import figures_generator, generator_of
from .shown import in_short

__all__ = [
    "Border",
    "ForwardStatistics",
    "borders",
    "collapse_border",
    "default_draws",
    "effective_counts",
    "forward_statistics",
    "seeking_refining_border",
]

_SMALL, _MANY, _FEW = 200_000, 4000, 256


@dataclass(frozen=True)
class ForwardStatistics:
    """The posterior along x = x0 + σ ε, the same draws of (x0, ε) at every σ.

    Attributes:
        sigmas: (S,) noise levels.
        entropy: (S, draws), nats.
        found: (S, draws) bool, whether the leading point is the source x0 (or equals it).
        variance: (S, draws), tr Cov[x0 | x].
        covariance_square: (S, draws), an unbiased estimate of ‖Cov[x0 | x]‖²_F; nan where it was not asked for.
    """

    sigmas: Tensor
    entropy: Tensor
    found: Tensor
    variance: Tensor
    covariance_square: Tensor

    __repr__ = in_short

    @property
    def effective_count(self) -> Tensor:
        """exp(entropy), (S, draws)."""
        return self.entropy.exp()

    @property
    def source_probability(self) -> Tensor:
        """P(top_index = source), (S,)."""
        return self.found.double().mean(1)

    @property
    def mmse(self) -> Tensor:
        """E‖x0 − D‖², (S,), as the mean of the posterior variance; square units of the data, summed over the event."""
        return self.variance.mean(1)

    @property
    def mmse_derivative(self) -> Tensor:
        """d MMSE/dσ = 2/σ³ · E‖Cov[x0 | x]‖²_F, (S,) (Guo, Wu, Shamai, Verdú 2011; there for 1/σ²)."""
        return 2 / self.sigmas**3 * self.covariance_square.mean(1)


def forward_statistics(
    D: Optimum,
    sigmas: Levels,
    data: Data | None = None,
    *,
    draws: int = 256,
    derivative: bool = False,
    generator: torch.Generator | None = None,
    progress: bool = False,
) -> ForwardStatistics:
    """Entropy, source and variance of p(x0 | x) at x = x0 + σ ε.

    x0 is drawn uniformly, with replacement; the same pairs (x0, ε) serve every σ, so that each column is one path up
    the noise levels.

    Args:
        D: the optimal denoiser, also of data with their images (`optimal.orbit`).
        sigmas: (S,) noise levels, > 0.
        data: the points x0 is drawn from, those of D unless given (held-out images, say).
        draws: number of pairs.
        derivative: whether `covariance_square` is computed, by ‖Cov·v‖², v random signs, one a draw: a second pass.
        generator: source of randomness; without one, a fresh generator with a fixed seed.
        progress: whether a progress bar is drawn on stderr.

    Raises:
        ValueError: draws < 1, data of another event shape than D's; the derivative of an orbit, which has no product
            with its covariance.

    References:
        Biroli, Bonnaire, de Bortoli, Mézard 2024, "Dynamical Regimes of Diffusion Models".

    Example:
        >>> D = OptimalDenoiser(torch.tensor([[-1.0], [1.0]]))
        >>> along = forward_statistics(D, torch.tensor([0.01, 100.0]), draws=100)
        >>> along.effective_count.median(1).values.round(decimals=2).tolist(), along.mmse.round(decimals=2).tolist()
        ([1.0, 2.0], [0.0, 1.0])
    """
    levels, generator = level_list(sigmas), generator_of(generator)
    if derivative and not isinstance(D, OptimalDenoiser):
        raise ValueError(f"the derivative needs an OptimalDenoiser, got {type(D).__name__}")
    x0, eps = draw_pairs(D, data, draws, generator)
    # Signs: of all v with E[v vᵀ] = I they scatter ‖Cov·v‖² least, and not at all for events of one value.
    signs = torch.randint(0, 2, x0.shape, generator=generator, dtype=torch.int64, device=generator.device)
    probes = signs.to(x0) * 2 - 1
    rows: list[tuple[Tensor, ...]] = []
    for sigma in tqdm(levels.tolist(), desc="posterior", unit="level", leave=False, disable=not progress):
        x = x0 + sigma * eps
        post = D.posterior(x, sigma)
        found = (D.take(post.top_index) == x0).flatten(1).all(1)
        square = torch.full_like(post.entropy, torch.nan)
        if derivative and isinstance(D, OptimalDenoiser):
            square = D.covariance_product(x, sigma, probes).double().flatten(1).square().sum(1)
        rows.append((post.entropy, found, post.variance, square))
    entropy, found, variance, square = (torch.stack(column) for column in zip(*rows, strict=True))
    return ForwardStatistics(levels, entropy, found, variance, square)


def effective_counts(
    D: OptimalDenoiser, sigmas: Levels, *, draws: int = 256, generator: torch.Generator | None = None
) -> Tensor:
    """exp(entropy of p(x0 | x)) at x = x0 + σ ε, (len(sigmas), draws) float64: see `forward_statistics`.

    Example:
        >>> D = OptimalDenoiser(torch.tensor([[-1.0], [1.0]]))
        >>> effective_counts(D, torch.tensor([0.01, 100.0]), draws=3).round(decimals=2).tolist()
        [[1.0, 1.0, 1.0], [2.0, 2.0, 2.0]]
    """
    return forward_statistics(D, sigmas, draws=draws, generator=generator).effective_count


def seeking_refining_border(
    D: Optimum,
    data: Data | None = None,
    *,
    threshold: float = 2.0,
    draws: int | None = None,
    generator: torch.Generator | None = None,
    progress: bool = False,
) -> Border:
    """The noise level at which the median effective_count over the data crosses `threshold`.

    Bisection in log σ finds the crossing to 1%; nine levels around it, interpolated in (log σ, log count), place it
    and, resampling the draws, give its interval; more levels are added until that lies among them. The
    median is taken to rise with σ, as it does on every data set tried here.

    Args:
        D: the optimal denoiser of the data.
        data: the points x0 is drawn from, those of D unless given.
        threshold: effective_count at the border, > 1.
        draws: pairs (x0, ε) behind the median; as `default_draws` says unless given.
        generator: source of randomness; without one, that of the figures, so that all show one border.
        progress: whether a progress bar is drawn on stderr.

    Raises:
        ValueError: threshold <= 1, draws < 1, data of another event shape than D's.

    References:
        Section D.1 of the paper, Figure 1.
    """
    _require_count(threshold)
    return _drawn(D, data, draws, generator).border(_median, math.log(threshold), threshold, progress)


def collapse_border(
    D: Optimum,
    data: Data | None = None,
    *,
    threshold: float = 1.0,
    draws: int | None = None,
    generator: torch.Generator | None = None,
    progress: bool = False,
) -> Border:
    """The collapse σ_C by the excess-entropy criterion: where the mean posterior entropy leaves 0.

    E[H]/d is the excess entropy f of the empirical density (see the module); it leaves 0 without a corner, and is taken
    to have left it when E[H] = `threshold`. With 1 nat, Gaussian data give `collapse_sigma(n, d, s)` to 10%.

    Args:
        D, data, draws, generator, progress: as for `seeking_refining_border`.
        threshold: mean entropy at the border, nats, > 0.

    Raises:
        ValueError: threshold <= 0, draws < 1, data of another event shape than D's.

    References:
        Biroli, Bonnaire, de Bortoli, Mézard 2024, "Dynamical Regimes of Diffusion Models", the section on collapse.
    """
    _require_entropy(threshold)
    return _drawn(D, data, draws, generator).border(_mean, threshold, threshold, progress)


def borders(
    D: Optimum,
    data: Data | None = None,
    *,
    count: float = 2.0,
    entropy: float = 1.0,
    draws: int | None = None,
    generator: torch.Generator | None = None,
    progress: bool = False,
) -> tuple[Border, Border]:
    """`seeking_refining_border` and `collapse_border` of the same draws, each level that both ask for evaluated once.

    Args:
        D, data, draws, generator, progress: as for `seeking_refining_border`.
        count: effective_count at the first, > 1.
        entropy: mean entropy at the second, nats, > 0.

    Raises:
        ValueError: as for the two.

    Example:
        >>> from optimal import OptimalDenoiser
        >>> D = OptimalDenoiser(torch.arange(8.0)[:, None])
        >>> first, second = borders(D, draws=64)
        >>> first == seeking_refining_border(D, draws=64), second == collapse_border(D, draws=64)
        (True, True)
    """
    _require_count(count)
    _require_entropy(entropy)
    drawn = _drawn(D, data, draws, generator)
    first = drawn.border(_median, math.log(count), count, progress)
    return first, drawn.border(_mean, entropy, entropy, progress)


def default_draws(values: int) -> int:
    """Pairs (x0, ε) that a border is taken from unless asked otherwise: 4,000 of data of up to 200,000 values, where
    that takes seconds, 256 of larger ones."""
    return _MANY if values <= _SMALL else _FEW


def _drawn(D: Optimum, data: Data | None, draws: int | None, generator: torch.Generator | None) -> Drawn:
    # What has no points is refused below, in its own words.
    size = len(D) if hasattr(D, "__len__") else 0
    count = default_draws(size * math.prod(D.event)) if draws is None else draws
    return Drawn(D, data, count, figures_generator() if generator is None else generator)


def _require_count(threshold: float) -> None:
    if not threshold > 1:
        raise ValueError(f"threshold must be above 1, the count of a single point, got {threshold:g}")


def _require_entropy(threshold: float) -> None:
    if not threshold > 0:
        raise ValueError(f"threshold must be above 0, the entropy of a single point, got {threshold:g}")


def _mean(entropy: Tensor, times: Tensor) -> Tensor:
    return times.to(entropy) @ entropy / len(entropy)


def _median(entropy: Tensor, times: Tensor) -> Tensor:
    """Halfway between the two in the middle, by one sort for all rows of times."""
    ordered, order = entropy.sort()
    reached, count = times[:, order].cumsum(1, dtype=torch.int32), len(entropy)
    lower, upper = (ordered[(reached < place).sum(1)] for place in ((count + 1) // 2, count // 2 + 1))
    return torch.lerp(lower, upper, 0.5)
