"""The best linear denoiser of the data: the optimum of a Gaussian with their mean m and covariance C = U diag(λ) Uᵀ.

    D_G(x, σ) = m + U diag(λ/(λ + σ²)) Uᵀ (x − m)

Of all functions that are linear in x it has the least E‖F(x) − x0‖², whatever the data, Σ λσ²/(λ + σ²); and where σ is
far above the data's size it is the optimum to first order, so its flow, which is known in closed form,

    x(σ') = m + U diag(√((λ + σ'²)/(λ + σ²))) Uᵀ (x − m),

goes the first part of every trajectory in no call. With the leading r axes only, all the others share the variance that
is left, ρ = (tr C − Σ λ)/(d − r): one axis less than all, and none (r = 0) is the isotropic Gaussian.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TypeVar

import torch
from jaxtyping import Float, Num
from torch import Tensor

from ..arithmetic import ours
from ..denoiser import OptimalDenoiser
from ..numbers import is_whole
from ..query import Levels, level_list, levels, require_points
from ..randomness import generator_of
from ..reference.base import Exact
from ..span.basis import RANK, basis_of
from .moments import centred, covariance, require_whole, roots

__all__ = ["Wiener", "require_rank"]

_WHOLE = 4096
"""Up to so many points or values in an event all axes are computed, from a matrix of that size."""

_NOISE = 1e-13
"""Share of the largest variance below which one is rounding, and its axis none."""

Displacement = TypeVar("Displacement", bound=Tensor)


class Wiener(Exact):
    """The Wiener filter of D's data, under D's prior.

    Args:
        D: the optimum whose data it knows, of one process.
        rank: r, leading axes that have a variance of their own; the others share what is left. All that the data have,
            unless told otherwise, where the smaller of the number of points and of values in an event is at most 4,096;
            else 768.
        progress: whether a bar is drawn on stderr while axes are looked for.

    Attributes:
        event: shape of one point.
        mean: m, (*event) float64.
        eigenvalues: (r,) float64, λ, decreasing; square units of the data.
        axes: (d, r) float64, U, orthonormal.
        rest: ρ, the variance along every other axis.

    Raises:
        ValueError: rank negative or above that of the data, the fewer of values and of points but one; a D that is no
            `OptimalDenoiser`.
        NotImplementedError: the points are shared by processes.

    References:
        Wang, Vastola 2024, "The Unreasonable Effectiveness of Gaussian Score Approximation for Diffusion Models and its
        Applications" (there "teleportation": the flow in place of the sampler's first steps).

    Example:
        >>> D = OptimalDenoiser(torch.tensor([[-1.0], [1.0]]))
        >>> Wiener(D)(torch.tensor([[3.0]]), 1.0)    # 3/(1 + 1), where the optimum is tanh 3
        tensor([[1.5000]])
    """

    def __init__(self, D: OptimalDenoiser, rank: int | None = None, *, progress: bool = False):
        require_whole(D, "the Wiener filter")
        points = D.points
        require_rank(D, rank)
        self.event, self._count = points.event, len(D)
        # What is kept is used in any mode afterwards.
        with torch.inference_mode(False), torch.no_grad():
            self._keep(D, rank, progress)

    def _keep(self, D: OptimalDenoiser, rank: int | None, progress: bool) -> None:
        points = D.points
        self.mean = points.mean.cpu().clone()
        values, axes = _principal(D, rank, progress)
        kept = len(values) if rank is None else min(rank, len(values))
        total = points.standard_deviation**2 * points.dim
        self.eigenvalues, self.axes = values[:kept].cpu(), axes[:, :kept].cpu()
        left = total - float(self.eigenvalues.sum())
        # What rounding leaves of a sum over all axes is no variance.
        self.rest = left / (points.dim - kept) if kept < points.dim and left > 1e-10 * total else 0.0

    def __repr__(self) -> str:
        rest = f", rest={self.rest:.3g}" if self.rest else ""
        return f"Wiener({self._count} points of shape {self.event}, rank={len(self.eigenvalues)}{rest})"

    def spectral(self, v: Displacement, function: Callable[[Tensor], Tensor]) -> Displacement:
        """U function(λ) Uᵀ v, with function(ρ) along all other axes: a function of C, applied to v.

        Args:
            v: (B, *event) or (B, d).
            function: from variances, (n,), to factors, (n,) or (B, n).
        """
        flat = v.flatten(1)
        axes = self.axes.to(flat)
        every = torch.cat([self.eigenvalues, torch.tensor([self.rest], dtype=torch.float64)]).to(flat.device)
        factors = function(every).to(flat)
        own, other = factors[..., :-1], factors[..., -1:]
        inside = flat @ axes
        if axes.shape[1] == flat.shape[1]:
            return ((own * inside) @ axes.T).reshape(v.shape)  # pyright: ignore[reportReturnType]
        return (other * flat + ((own - other) * inside) @ axes.T).reshape(v.shape)  # pyright: ignore[reportReturnType]

    def mmse(self, sigma: Levels) -> Float[Tensor, " S"]:
        """E‖x0 − D_G‖² = Σ λσ²/(λ + σ²), (S,), at levels (S,) or one: over the data themselves, exactly."""
        square = level_list(sigma, zero=True, name="sigma").cpu()[:, None].square()
        values, counts = self.spectrum()
        return (counts * values * square / (values + square)).sum(1)

    def spectrum(self) -> tuple[Float[Tensor, " n"], Float[Tensor, " n"]]:
        """Every variance, (n,), and along how many axes it is the variance, (n,)."""
        other = math.prod(self.event) - len(self.eigenvalues)
        extra = [self.rest] if other else []
        values = torch.cat([self.eigenvalues, torch.tensor(extra, dtype=torch.float64)])
        counts = torch.ones_like(values)
        if other:
            counts[-1] = other
        return values, counts

    def covariance_product(
        self, x: Num[Tensor, "B *event"], sigma: Levels, v: Num[Tensor, "B *event"]
    ) -> Float[Tensor, "B *event"]:
        """Cov[x0 | x] v = U diag(λσ²/(λ + σ²)) Uᵀ v, the same for every x.

        Raises:
            ValueError: as for a call; v of another shape than x.
        """
        require_points(x, self.event)
        if v.shape != x.shape:
            raise ValueError(f"v must have the shape of x, {tuple(x.shape)}, got {tuple(v.shape)}")
        square = levels(sigma, len(x), x.device)[:, None].square()
        return self.spectral(v, lambda values: values * square / (values + square))

    def sample(self, n: int, generator: torch.Generator | None = None) -> Float[Tensor, "n *event"]:
        generator = generator_of(generator)
        eps = torch.randn(n, math.prod(self.event), generator=generator, dtype=torch.float64, device=generator.device)
        return self.mean.to(eps) + self.spectral(eps, torch.sqrt).reshape(n, *self.event)

    def _mean(self, z: Tensor, sigma: Tensor) -> Tensor:
        square = sigma.square()
        return self._mu(z) + self.spectral(z - self._mu(z), lambda values: values / (values + square))

    def _score(self, z: Tensor, sigma: Tensor) -> Tensor:
        # By its own formula: (D − x)/σ² cancels where σ² is far below C.
        square = sigma.square()
        return self.spectral(self._mu(z) - z, lambda values: 1 / (values + square))

    def _log_density(self, z: Tensor, sigma: Tensor) -> Tensor:
        square = sigma.square()
        values, counts = (part.to(z) for part in self.spectrum())
        shift = z - self._mu(z)
        scaled = self.spectral(shift, lambda every: (every + square).rsqrt())
        return -0.5 * ((counts * (2 * math.pi * (values + square)).log()).sum(1) + scaled.square().sum(1))

    def _flow(self, z: Tensor, sigma: Tensor, end: Tensor) -> Tensor:
        start, stop = sigma.square(), end.square()
        shift = z - self._mu(z)
        return self._mu(z) + self.spectral(shift, lambda values: ((values + stop) / (values + start)).sqrt())

    def _mu(self, z: Tensor) -> Tensor:
        return self.mean.flatten().to(z)


@ours()
def require_rank(D: OptimalDenoiser, rank: int | None) -> None:
    """That data can have so many axes with a variance, or ValueError: N points have N − 1 at most."""
    most = min(D.points.dim, D.points.size - 1)
    if rank is not None and not (is_whole(rank) and 0 <= rank <= most):
        raise ValueError(
            f"rank must be a whole number from 0 to {most}, the most that {D.points.size:,} points of {D.points.dim:,} "
            f"values have, got {rank!r}"
        )


def _principal(D: OptimalDenoiser, rank: int | None, progress: bool) -> tuple[Tensor, Tensor]:
    """Variances, decreasing, and axes of the data about their mean, in units of the data; `rank` of them, or more."""
    points = D.points
    if rank == 0:
        return torch.zeros(0, dtype=torch.float64), torch.zeros(points.dim, 0, dtype=torch.float64)
    if points.dim <= _WHOLE and points.dim <= points.size:
        values, axes = torch.linalg.eigh(covariance(points))
    elif points.size <= _WHOLE:
        values, axes = _from_products(torch.cat(list(centred(points))))
    else:
        basis = basis_of(D, RANK if rank is None else rank, progress=progress)
        scaled = (basis.coordinates[:, : basis.rank].double() - points.offset @ basis.vectors.double()) * roots(points)
        values, inner = torch.linalg.eigh(scaled.T @ scaled)
        axes = basis.vectors.double() @ inner
    return values.flip(0).clamp_min(0) * points.unit**2, axes.flip(1)


def _from_products(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Variances, increasing, and axes of fewer rows than values: the axes are combinations of the rows."""
    values, inner = torch.linalg.eigh(rows @ rows.T)
    held = values > _NOISE * values[-1]
    # The products lose digits of the small variances' axes: QR makes them orthonormal again, the largest first.
    axes, _ = torch.linalg.qr(rows.T @ inner[:, held].flip(1))
    return values[held], axes.flip(1)
