"""Estimates of the optimum from points drawn at random, and what such an estimate costs.

A mean over n points that are drawn without the source of x, self-normalised importance sampling, is biased: it has none
of the points that matter at low noise. Over M points among which the source is, the stable target, it is unbiased,
since given the M points each is the source with its softmax among them: E[estimate | x] = D(x). M = 1 is x0 itself,
M = N is D.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int, Num
from torch import Tensor

from ..denoiser import Denoiser, OptimalDenoiser
from ..devices import require_room
from ..intervals import Interval, positive_interval, require_level
from ..numbers import is_whole
from ..query import Levels, level_list, levels, require_rows
from ..randomness import generator_of, stream
from ..rowwise import whole_numbers
from .moments import require_optimum

__all__ = ["EstimateError", "batch_mean", "equally_likely", "estimate_errors", "stable_target", "subsampled"]


def subsampled(D: OptimalDenoiser, n: int, generator: torch.Generator | None = None) -> OptimalDenoiser:
    """The optimum over n of the points, drawn without replacement, with the probabilities that they have: SNIS.

    Args:
        D: the optimum.
        n: number of points, 1 … N.
        generator: of the draw; a fixed seed unless given.

    Raises:
        ValueError: n out of range; a D that is no `OptimalDenoiser`.

    Example:
        >>> D = OptimalDenoiser(torch.tensor([[-1.0], [1.0]]))
        >>> subsampled(D, 1)(torch.tensor([[0.0]]), 1.0).abs()
        tensor([[1.]])
    """
    require_optimum(D, "a mean over some of the points")
    there = (D.log_weights.cpu() > -torch.inf).nonzero().squeeze(1)
    if not is_whole(n) or not 1 <= n <= len(there):
        raise ValueError(f"n must be 1 … {len(there)}, got {n!r}")
    some = there[torch.randperm(len(there), generator=generator_of(generator), device="cpu")[:n]]
    weights = torch.full((len(D),), -torch.inf, dtype=torch.float64)
    weights[some] = 0
    return D.weighted(weights)


def batch_mean(points: Tensor, x: Tensor, sigma: Levels) -> Tensor:
    """The posterior mean over these points, equally likely, (B, *event), like x; sums in float64.

    Args:
        points: (M, *event).
        x: (B, *event) noisy points.
        sigma: noise level, > 0: float, () or (B,).
    """
    y, z = (each.flatten(1).double() for each in (points, x))
    # Relative to a point of their own, products lose less.
    centre = y.mean(0)
    y, z = y - centre, z - centre
    logits = (z @ y.T - 0.5 * y.square().sum(1)) / levels(sigma, len(x), x.device).square()[:, None]
    return (logits.softmax(1) @ y + centre).to(x.dtype).view_as(x)


def equally_likely(D: OptimalDenoiser) -> Int[Tensor, " n"]:
    """Which of the data points D has, (n,), on the CPU.

    Raises:
        ValueError: they differ in probability, so that no batch is drawn of them; a D that is no `OptimalDenoiser`.
    """
    require_optimum(D, "a batch")
    log_weights = D.log_weights.cpu()
    there = (log_weights > -torch.inf).nonzero().squeeze(1)
    if (log_weights[there] != log_weights[there[0]]).any():
        raise ValueError("the points of D must be equally likely, as those of a batch are")
    return there


def stable_target(
    D: OptimalDenoiser,
    x: Num[Tensor, "B *event"],
    sigma: Levels,
    source: Int[Tensor, " rows"] | np.ndarray,
    count: int,
    generator: torch.Generator | None = None,
) -> Float[Tensor, "B *event"]:
    """The posterior mean over M points: the source of each row and M − 1 others, drawn anew for each; like x.

    Args:
        D: the optimum, all of whose points are equally likely.
        x: (B, *event), y_source + σ ε.
        sigma: noise level, > 0: float, () or (B,).
        source: (B,), the data point of every row.
        count: M, 1 … N.
        generator: of the others; a fixed seed unless given.

    Raises:
        ValueError: points of different probabilities; M out of range; another number of sources than of rows, or a
            source that is none of the points of D; a D that is no `OptimalDenoiser`.

    References:
        Xu, Tong, Jaakkola 2023, "Stable Target Field for Reduced Variance Score Estimation in Diffusion Models".
    """
    there, wanted = equally_likely(D), whole_numbers("sources", source)
    if isinstance(wanted, int):
        raise ValueError(f"sources must be one a row, (B,), got {wanted}")
    require_rows(x, D.event, len(wanted), "sources")
    unknown = wanted[~torch.isin(wanted, there)]
    if len(unknown):
        raise ValueError(f"sources must be points that D has, and {int(unknown[0])} is none")
    sigmas = levels(sigma, len(x), x.device)
    if not is_whole(count) or not 1 <= count <= len(there):
        raise ValueError(f"count must be 1 … {len(there)}, got {count!r}")
    generator = generator_of(generator)
    out = torch.empty_like(x)
    for row, own in enumerate(wanted.tolist()):
        others = there[there != own]
        some = torch.randperm(len(others), generator=generator, device="cpu")[: count - 1]
        points = D.take(torch.cat([torch.tensor([own]), others[some]])).to(device=x.device, dtype=torch.float64)
        out[row] = batch_mean(points, x[row : row + 1], sigmas[row])[0]
    return out


@dataclass(frozen=True)
class EstimateError:
    """What an estimate of D makes of D at one level: E‖F − D‖² = bias + variance, over x = x0 + σ ε.

    Attributes:
        sigma: the noise level.
        error: E‖F − D‖²/E‖D − E x0‖², over x and over the draws of F: its square is relative to what D says of x.
        bias: the part of it that the mean of F over its draws has.
        variance: the part that scatters with the draws.
    """

    sigma: float
    error: Interval
    bias: float
    variance: float


def estimate_errors(
    D: OptimalDenoiser,
    estimate: Callable[[int], Denoiser],
    sigmas: Levels,
    *,
    n: int = 256,
    draws: int = 4,
    seed: int = 0,
    level: float = 0.95,
) -> list[EstimateError]:
    """The error of a truncated or random estimate of the optimum, by noise level.

    Args:
        D: the optimum.
        estimate: from the number of a draw to the estimate, a denoiser; the same for every number where it draws
            nothing.
        sigmas: noise levels.
        n: points x at each, at least 2.
        draws: of the estimate, at least 2.
        seed: of the points.
        level: of the intervals over x.

    Raises:
        ValueError: fewer than two points or draws; a level that is none; a D that is no `OptimalDenoiser`.

    Example:
        >>> from optimal.theories import nearest
        >>> D = OptimalDenoiser(torch.tensor([[-1.0], [1.0], [4.0]]))
        >>> cut, whole = (float(estimate_errors(D, lambda _: nearest(D, k), 3.0)[0].error.value) for k in (2, 3))
        >>> cut > 0.1, whole < 1e-12
        (True, True)
    """
    require_optimum(D, "an error against the optimum")
    require_level(level)
    if not is_whole(draws) or draws < 2:
        raise ValueError(f"draws must be at least 2, to tell scatter from bias, got {draws!r}")
    if not is_whole(n) or n < 2:
        raise ValueError(f"n must be a whole number of at least 2, for an interval, got {n!r}")
    # Both in float64: x0 and x, and the answer of every draw.
    require_room("n", int(n), 2 * (2 + int(draws)) * D.points.dim)
    made = [estimate(draw) for draw in range(draws)]
    found: list[EstimateError] = []
    for number, sigma in enumerate(level_list(sigmas).tolist()):
        generator = stream(seed, "evaluation", number)
        x0 = D.take(D.drawn(n, generator)).double()
        x = x0 + sigma * torch.randn(x0.shape, generator=generator, dtype=torch.float64, device="cpu").to(x0)
        exact = D(x, sigma)
        size = (exact - D.mean.to(exact)).flatten(1).square().sum(1)
        answers = torch.stack([F(x, sigma) for F in made]).double().flatten(2)
        squares = (answers - exact.flatten(1)).square().sum(2).mean(0)
        scatter = float(answers.var(0, correction=1).sum(1).mean() / size.mean())
        interval = positive_interval(squares, size, level)
        # The mean over a few draws scatters, too: what it has of that is not bias.
        found.append(EstimateError(sigma, interval, max(float(interval.value) - scatter, 0.0), scatter))
    return found
