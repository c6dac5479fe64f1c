"""How long a denoiser's answers are, E‖F(x0 + σ ε, σ)‖² by noise level: what to hold its numbers to without a network.

For the optimum it is ‖m‖² where σ is far above the data and E‖x0‖² far below, E‖x0‖² − MMSE(σ) in between; for the
linear denoisers of `Wiener` it needs no draws, with λ the variances of the data along their principal axes:

    E‖D_G‖² = ‖m‖² + Σ λ²/(λ + σ²)

Published tables of it (Wang, Vastola 2024) for CIFAR-10, FFHQ and AFHQv2 are held against these two functions by
`OPTIMAL_VALIDATION=folder python -m pytest tests/test_validation.py`, where the folder has the zips that EDM's
dataset_tool writes.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from tqdm import tqdm

from ..denoiser import Denoiser, OptimalDenoiser
from ..draws import draw_pairs
from ..intervals import Interval, positive_interval, require_level
from ..numbers import require_whole
from ..posterior import Optimum
from ..query import Levels, level_list
from ..shown import in_short
from .gaussian import require_rank
from .moments import require_optimum, variances

__all__ = ["SquareNorms", "linear_square_norms", "mean_square_norms"]

_AT_ONCE = 2**22
"""Values of the points that are asked about in one call."""


@dataclass(frozen=True)
class SquareNorms:
    """E‖F(x0 + σ ε, σ)‖² over draws of (x0, ε), in square units of the data.

    Attributes:
        sigmas: (S,) noise levels.
        mean: the means, (S,), with their intervals over the draws.
        deviation: (S,), standard deviation of ‖F‖² from one draw to the next; over √n, the standard error of a mean
            of n of them, another's, too.
        draws: n.
    """

    sigmas: Tensor
    mean: Interval
    deviation: Tensor
    draws: int

    __repr__ = in_short


def mean_square_norms(
    D: Optimum,
    theory: Denoiser,
    sigmas: Levels,
    n: int = 1024,
    generator: torch.Generator | None = None,
    *,
    level: float = 0.95,
    progress: bool = False,
) -> SquareNorms:
    """E‖F(x0 + σ ε, σ)‖² of any denoiser on noisy points of D's data.

    The same pairs (x0, ε) serve every σ, and every denoiser that is asked with a generator in the same state.

    Args:
        D: the optimum of the data, which gives x0 by its prior.
        theory: F: D itself, a theory, a network.
        sigmas: (S,) noise levels, > 0.
        n: number of pairs.
        generator: source of randomness; without one, a fresh generator with a fixed seed.
        level: of the intervals.
        progress: whether a bar is drawn on stderr.

    Raises:
        ValueError: n < 1; sigmas not finite or not positive; answers of another shape than x's, or not finite.

    Example:
        >>> D = OptimalDenoiser(torch.tensor([[-1.0], [1.0]]))
        >>> mean_square_norms(D, D, [0.01, 100.0]).mean.value.round(decimals=2).tolist()    # tanh²(x/σ²)
        [1.0, 0.0]
    """
    levels = level_list(sigmas)
    require_level(level)
    x0, eps = draw_pairs(D, None, require_whole("n", n), generator)
    rows = max(1, _AT_ONCE // x0[0].numel())
    found: list[Tensor] = []
    for sigma in tqdm(levels.tolist(), desc="norms", unit="level", leave=False, disable=not progress):
        pairs = zip(x0.split(rows), eps.split(rows), strict=True)
        found.append(torch.cat([_squares(theory, clean + sigma * noise, sigma) for clean, noise in pairs]))
    squares = torch.stack(found)
    deviation = squares.std(1) if n > 1 else torch.full((len(levels),), torch.nan, dtype=torch.float64)
    return SquareNorms(levels, positive_interval(squares, level=level), deviation, n)


def _squares(theory: Denoiser, x: Tensor, sigma: float) -> Tensor:
    """‖F(x, σ)‖² of every row, (B,) float64 on the CPU."""
    answer = theory(x, sigma).detach()
    if answer.shape != x.shape:
        raise ValueError(
            f"the answers of the theory must have the shape of x, {tuple(x.shape)}, got {tuple(answer.shape)}"
        )
    squares = answer.double().flatten(1).square().sum(1).cpu()
    if not torch.isfinite(squares).all():
        raise ValueError(f"the answers of the theory must be finite, at σ = {sigma:.3g} they are not")
    return squares


def linear_square_norms(
    D: OptimalDenoiser, sigmas: Levels, rank: int | None = None, *, rest: bool = True
) -> Float[Tensor, " S"]:
    """E‖D_G(x0 + σ ε, σ)‖² of the best linear denoiser, (S,) float64: in closed form, exact over the data themselves.

    Args:
        D: the optimum whose data it knows, of one process.
        sigmas: (S,) noise levels, > 0.
        rank: r, leading axes that have a variance of their own; all unless given, 0 for the isotropic Gaussian.
        rest: whether the others share what variance is left, as in `Wiener`; else they have none, and D_G leaves there
            nothing but m.

    Raises:
        ValueError: a rank that is negative or above that of the data; as for `variances`.
        NotImplementedError: as for `variances`.

    Example:
        >>> linear_square_norms(OptimalDenoiser(torch.tensor([[1.0], [5.0]])), [2.0])    # 3² + 4²/(4 + 2²)
        tensor([11.], dtype=torch.float64)
    """
    require_optimum(D, "a spectrum")
    levels = level_list(sigmas)
    dim = D.mean.numel()
    require_rank(D, rank)
    # The sum of all is known without them.
    own = torch.zeros(0, dtype=torch.float64) if rank == 0 else variances(D)[:rank]
    square = levels.square()[:, None]
    out = float(D.mean.square().sum()) + (own.square() / (own + square)).sum(1)
    others = dim - len(own)
    if rest and others:
        share = max(dim * D.standard_deviation**2 - float(own.sum()), 0.0) / others
        out = out + others * share**2 / (share + square[:, 0])
    return out
