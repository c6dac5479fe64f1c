"""The second moments of data, which decide everything linear: C, or where points are fewer than values Z Zᵀ, N × N.

Both have the variances λ of the data along their principal axes: Z has a row √π_j (y_j − m) for every point,
C = Zᵀ Z. They are added up in float64, a block of points after the other.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from jaxtyping import Float
from torch import Tensor

from ..arithmetic import ours
from ..denoiser import OptimalDenoiser
from ..points import Points

__all__ = ["centred", "covariance", "require_optimum", "require_whole", "roots", "variances"]

_MOST = 16_384
"""Rows of the largest matrix whose eigenvalues are taken: 2 GiB, and as much again for the work."""


def require_optimum(D: object, of: str) -> None:
    """Raise ValueError unless D is the optimum of data, whose points can be asked for.

    Args:
        D: what was given.
        of: what is made of it, e.g. "the Wiener filter".
    """
    if not isinstance(D, OptimalDenoiser):
        raise ValueError(f"{of} is that of data: D must be an OptimalDenoiser, got {type(D).__name__}")


def require_whole(D: object, of: str) -> None:
    """Raise unless D is the optimum of data in one process.

    Args:
        D: what was given.
        of: what is made of it, e.g. "the Wiener filter".

    Raises:
        ValueError: D is no `OptimalDenoiser`.
        NotImplementedError: the points are shared by processes.
    """
    require_optimum(D, of)
    if type(D) is not OptimalDenoiser:
        raise NotImplementedError(f"the axes need all points in one process, D is {type(D).__name__}")


@ours()
def variances(D: OptimalDenoiser) -> Float[Tensor, " r"]:
    """λ, all variances of the data along their principal axes under the prior, decreasing, (r,) float64 on the CPU.

    As many as there are points or values in an event, whichever are fewer; along every other axis it is 0. Without the
    axes, which `Wiener` finds, it goes as far as images of 64×64×3.

    Args:
        D: the optimum of the data, of one process.

    Raises:
        ValueError: more than 16,384 points and values; a D that is no `OptimalDenoiser`.
        NotImplementedError: the points are shared by processes.

    Example:
        >>> variances(OptimalDenoiser(torch.tensor([[-3.0, 1.0], [3.0, 1.0]]))).round(decimals=9)
        tensor([9., 0.], dtype=torch.float64)
    """
    require_whole(D, "a spectrum")
    points = D.points
    if min(points.dim, points.size) > _MOST:
        raise ValueError(
            f"the variances along all axes need a matrix of {min(points.dim, points.size):,} rows, of at most {_MOST:,}"
        )
    if points.dim <= points.size:
        matrix = covariance(points)
    else:
        rows = torch.cat(list(centred(points)))
        matrix = rows @ rows.T
    return torch.linalg.eigvalsh(matrix).flip(0).clamp_min(0).cpu() * points.unit**2


def covariance(points: Points) -> Float[Tensor, "d d"]:
    """C of the points under their prior, (d, d) float64, in squared units of the points."""
    second = torch.zeros(points.dim, points.dim, dtype=torch.float64, device=points.device)
    for rows in centred(points):
        second.addmm_(rows.T, rows)
    return second


def centred(points: Points) -> Iterator[Float[Tensor, "n d"]]:
    """Z, a block of points after the other, (n, d) float64, in units of the points."""
    every = roots(points)
    for start, block in points.blocks(points.block_rows(), points.device):
        yield (block - points.offset) * every[start : start + len(block)]


def roots(points: Points) -> Float[Tensor, "N 1"]:
    """√π_j, (N, 1) float64."""
    if points.prior is None:
        return torch.full((points.size, 1), points.size**-0.5, dtype=torch.float64, device=points.device)
    return points.prior.weights.sqrt()[:, None]
