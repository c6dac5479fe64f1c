"""The 2-Wasserstein distance between samples and the data, and its interval over samples.

On the line the best plan matches quantiles, W₂² = ∫₀¹ (F⁻¹ − G⁻¹)² du; in the plane POT solves the linear program;
above, the sliced distance is the mean of W₂² over projections on random directions, times the dimension, so that a
shift by v counts about ‖v‖ in each case. By Kantorovich's duality W₂² = mean φ(xᵢ) + mean ψ(y_j), and a sample moves
W₂² by (φ(xᵢ) − mean φ)/n: its fluctuation is that of the mean of φ, about the mean W₂² of as many samples.

W₂ of n perfect draws is not 0, and falls slowly with n where the dimension is high: compare what has the same n.

References:
    del Barrio, Loubes 2019, "Central Limit Theorems for Empirical Transportation Cost in General Dimension".
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from optimal import OptimalDenoiser
from optimal.intervals import Interval, influence_interval
from optimal.packages import required
from optimal.randomness import fixed_generator

__all__ = ["transport", "transport_interval"]

_MOST = 4096
"""Data points, spread evenly over the data, that stand for all of them above the line."""
_AT_ONCE = 2**22


def transport(
    x: Tensor, D: OptimalDenoiser, *, projections: int = 256, generator: torch.Generator | None = None
) -> tuple[Tensor, Tensor]:
    """W₂² between samples and the data of D, () float64, and φ − mean φ at the samples, (n,) float64, on the CPU.

    Args:
        x: (n, *event), samples; what is not finite has no distance, nan.
        D: the optimum of the data.
        projections: random directions, for events of more than two values.
        generator: source of the directions; without one, they are the same in every run.

    Raises:
        ValueError: data whose points are not equally likely.
    """
    samples = x.detach().double().flatten(1).cpu()
    dim = samples.shape[1]
    points = D.points
    if points.prior is not None:
        raise ValueError("transport is measured to data whose points are equally likely, these are weighted")
    step = 1 if dim == 1 else max(1, -(-points.size // _MOST))
    data = points.take(torch.arange(0, points.size, step)).double().flatten(1).cpu()
    if not torch.isfinite(samples).all():
        return samples.new_full((), torch.nan), samples.new_full((len(x),), torch.nan)
    if dim == 1:
        square, potential = _on_the_line(samples.T, data.T)
    elif dim == 2:
        square, potential = _in_the_plane(samples, data)
    else:
        square, potential = _sliced(samples, data, projections, generator or fixed_generator())
    return square, potential - potential.mean()


def transport_interval(
    x: Tensor,
    D: OptimalDenoiser,
    level: float = 0.95,
    *,
    projections: int = 256,
    generator: torch.Generator | None = None,
) -> Interval:
    """W₂, (), with its interval; arguments as for `transport`."""
    square, influence = transport(x, D, projections=projections, generator=generator)
    return influence_interval(square, influence, level).within(0).map(torch.sqrt)


def _on_the_line(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """W₂² and φ at the samples, means over the rows of x (P, n) and y (P, m)."""
    n, m = x.shape[1], y.shape[1]
    (ordered, order), goal = x.sort(1), y.sort(1).values
    # Quantile levels at which either side passes to its next point, in units of 1/(nm), and whose turn it is between.
    ends = torch.cat([m * torch.arange(1, n + 1), n * torch.arange(1, m + 1)]).unique()
    width = ends.diff(prepend=ends.new_zeros(1)).double() / (n * m)
    left, right = (ends - 1) // m, (ends - 1) // n
    square = ((ordered[:, left] - goal[:, right]).square() @ width).mean()
    # φ rises from one sample to the next by the difference of their distances to the point that both are matched with.
    beside = goal[:, (m * torch.arange(1, n) - 1) // n]
    rises = ordered.diff(dim=1) * (ordered[:, 1:] + ordered[:, :-1] - 2 * beside)
    potential = torch.cat([torch.zeros_like(x[:, :1]), rises.cumsum(1)], 1)
    return square, torch.empty_like(x).scatter_(1, order, potential - potential.mean(1, keepdim=True)).mean(0)


def _in_the_plane(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    required("W2 in the plane", "ot")
    import ot

    found: Any = ot.emd2([], [], ot.dist(x.numpy(), y.numpy()), numItermax=10**7, log=True)
    return torch.tensor(float(found[0])).double().clamp_min(0), torch.as_tensor(found[1]["u"], dtype=torch.float64)


def _sliced(x: Tensor, y: Tensor, projections: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    dim = x.shape[1]
    directions = torch.randn(dim, projections, generator=generator, dtype=torch.float64)
    directions = directions / directions.norm(dim=0)
    square, potential = x.new_zeros(()), x.new_zeros(len(x))
    for part in directions.split(max(1, _AT_ONCE // (len(x) + len(y))), dim=1):
        one, other = _on_the_line((x @ part).T, (y @ part).T)
        square, potential = square + one * part.shape[1], potential + other * part.shape[1]
    return dim * square / projections, dim * potential / projections
