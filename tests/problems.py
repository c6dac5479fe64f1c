"""Problems whose answer is known, a reference by direct differences, what counts as close, and a small network.

Nothing here imports `optimal`: the answers are computed from the formulas alone, in float64.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

__all__ = [
    "PROBLEMS",
    "Problem",
    "Reference",
    "absolute_error",
    "density_error",
    "log_weight_error",
    "reference_posterior",
    "row_error",
    "small_unet",
]


@dataclass(frozen=True)
class Problem:
    """Data whose optimal denoiser is known.

    Attributes:
        data: (N, *event) float64.
        denoise: (x, sigma) -> E[x0 | x], float64.
        log_density: (x, sigma) -> log p(x; sigma), float64.
        start: (M, *event), clean points to which noise of up to 2 sigma may be added, for the answer to hold.
        sigmas: noise levels at which it holds.
        tolerance: of the mean, in units of the data's size (1), and of the log density, relative.
    """

    name: str
    data: Tensor
    denoise: Callable[[Tensor, float], Tensor]
    log_density: Callable[[Tensor, float], Tensor]
    start: Tensor
    sigmas: tuple[float, ...]
    tolerance: float


def _log_normal(squares: Tensor, dim: int, sigma: float) -> Tensor:
    return -squares / (2 * sigma**2) - dim / 2 * math.log(2 * math.pi * sigma**2)


def one_point() -> Problem:
    """D(x, σ) = y."""
    y = torch.linspace(-1, 1, 12, dtype=torch.float64).reshape(1, 3, 2, 2)
    return Problem(
        "one point",
        y,
        lambda x, sigma: y.expand(x.shape),
        lambda x, sigma: _log_normal((x - y).square().flatten(1).sum(1), 12, sigma),
        y.expand(5, -1, -1, -1),
        (0.002, 0.1, 1.0, 80.0),
        1e-13,
    )


def two_points() -> Problem:
    """Points m ± d: D(x, σ) = m + d·tanh(⟨x − m, d⟩/σ²)."""
    m = torch.tensor([0.3, -0.2], dtype=torch.float64)
    d = torch.tensor([0.5, 0.7], dtype=torch.float64)

    def denoise(x: Tensor, sigma: float) -> Tensor:
        return m + d * torch.tanh((x - m) @ d / sigma**2)[:, None]

    def log_density(x: Tensor, sigma: float) -> Tensor:
        # ½(e^a + e^b) with a, b = ±⟨x − m, d⟩/σ²: log cosh, in a form that does not overflow.
        a = ((x - m) @ d / sigma**2).abs()
        log_cosh = a + torch.log1p(torch.exp(-2 * a)) - math.log(2)
        return _log_normal((x - m).square().sum(1) + d.square().sum(), 2, sigma) + log_cosh

    data = torch.stack([m + d, m - d])
    start = torch.stack([m + d, m - d, m, m + 0.1 * d])
    return Problem("two points", data, denoise, log_density, start, (0.05, 0.3, 1.0, 5.0, 80.0), 1e-11)


def gaussian(side: int = 300) -> Problem:
    """N(μ, C) in the plane as side² points at product quantiles: D = μ + C(C + σ²I)⁻¹(x − μ).

    The tolerance is the error of the discretisation at side = 300: the quantiles lack the outermost tails.
    """
    levels = (torch.arange(side, dtype=torch.float64) + 0.5) / side
    quantiles = math.sqrt(2) * torch.erfinv(2 * levels - 1)
    root = torch.tensor([[1.0, 0.0], [0.4, 0.6]], dtype=torch.float64)
    mu = torch.tensor([0.5, -1.0], dtype=torch.float64)
    C = root @ root.T
    identity = torch.eye(2, dtype=torch.float64)

    def denoise(x: Tensor, sigma: float) -> Tensor:
        return mu + (x - mu) @ torch.linalg.solve(C + sigma**2 * identity, C)

    def log_density(x: Tensor, sigma: float) -> Tensor:
        noisy = torch.distributions.MultivariateNormal(mu, C + sigma**2 * identity)
        return noisy.log_prob(x)

    data = mu + torch.cartesian_prod(quantiles, quantiles) @ root.T
    corners = torch.tensor([-1.0, 0.0, 1.0], dtype=torch.float64)
    start = mu + torch.cartesian_prod(corners, corners) @ root.T
    return Problem("gaussian", data, denoise, log_density, start, (0.5, 1.0, 3.0, 20.0), 0.01)


PROBLEMS = (one_point(), two_points(), gaussian())


@dataclass(frozen=True)
class Reference:
    """What `Posterior` should hold, float64; log_weights (B, N) besides."""

    mean: Tensor
    log_density: Tensor
    entropy: Tensor
    variance: Tensor
    log_weights: Tensor


def reference_posterior(data: Tensor, x: Tensor, sigma: float | Tensor) -> Reference:
    """Eq. 43 in float64 from the differences x − y_j themselves, one query at a time."""
    points, queries = data.double().flatten(1), x.double().flatten(1)
    sigmas = torch.as_tensor(sigma, dtype=torch.float64).expand(len(x))
    dim = points.shape[1]
    rows: list[tuple[Tensor, ...]] = []
    for query, level in zip(queries, sigmas, strict=True):
        squares = torch.cat([(part - query).square_().sum(1) for part in points.split(max(1, 2**22 // dim))])
        logits = -squares / (2 * level**2)
        total = logits.logsumexp(0)
        log_weights = logits - total
        weights = log_weights.exp()
        mean = weights @ points
        # Differences again: Σ w ‖y − D‖² of nearly one point must not be the difference of two large numbers.
        used = weights > 1e-30
        variance = weights[used] @ (points[used] - mean).square().sum(1)
        density = total - math.log(len(points)) - dim * (0.5 * math.log(2 * math.pi) + level.log())
        rows.append((mean, density, -torch.special.xlogy(weights, weights).sum(), variance, log_weights))
    mean, density, entropy, variance, log_weights = (torch.stack(column) for column in zip(*rows, strict=True))
    return Reference(mean.reshape(x.shape), density, entropy, variance, log_weights)


def row_error(a: Tensor, b: Tensor) -> Tensor:
    """‖a − b‖/‖b‖ of every row, (B,)."""
    a, b = a.double().reshape(len(a), -1), b.double().reshape(len(b), -1)
    return (a - b).norm(dim=1) / b.norm(dim=1).clamp_min(1e-300)


def absolute_error(a: Tensor, b: Tensor) -> Tensor:
    """|a − b|, elementwise."""
    return (a.double() - b.double()).abs()


def density_error(a: Tensor, b: Tensor) -> Tensor:
    """|a − b| in units of what is allowed, 1e-6 relative or 1e-3 nats, the larger; (B,), good if <= 1."""
    return absolute_error(a, b) / (1e-6 * b.double().abs()).clamp_min(1e-3)


def log_weight_error(weights: Tensor, log_weights: Tensor, within: float = 20.0) -> Tensor:
    """max_j |log w_j − reference| over the points at most `within` nats below the leader, (B,)."""
    near = log_weights >= log_weights.amax(1, keepdim=True) - within
    return torch.where(near, absolute_error(weights.double().log(), log_weights), 0.0).amax(1)


def small_unet() -> Any:
    """An untrained UNet2DModel of 1×8×8 images, always the same."""
    from diffusers.models.unets.unet_2d import UNet2DModel

    with torch.random.fork_rng():
        torch.manual_seed(0)
        return UNet2DModel(
            sample_size=8, in_channels=1, out_channels=1, block_out_channels=(8, 8), layers_per_block=1,
            down_block_types=("DownBlock2D",) * 2, up_block_types=("UpBlock2D",) * 2, norm_num_groups=4,
        )  # fmt: skip
