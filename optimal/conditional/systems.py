"""Aᵀ (s² I + r A Aᵀ)⁻¹ (y − A D) for a linear A, with an r for every row: three ways, and none makes a D x D matrix.

A mask needs no more than a division. A matrix (m, D), or a function whose matrix has at most 2²² values, is decomposed
once, A Aᵀ = U diag(λ) Uᵀ, so that every row may have an r of its own. Of a larger one nothing but A v and Aᵀ u is
taken, Aᵀ u of a function as its gradient, and the system is solved by conjugate gradients, to 1e-10 of its right-hand
side.

References:
    Hestenes, Stiefel 1952, "Methods of Conjugate Gradients for Solving Linear Systems".
"""

from __future__ import annotations

import math
from typing import Protocol

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ..masks import refuse_mask
from ..measurement import Operator, as_function, require_measured
from ..query import beside
from ..randomness import fixed_generator

__all__ = ["Decomposed", "Masked", "Products", "System", "system_of"]

_WHOLE = 2**22
"""Values of a matrix that is decomposed: 32 MB."""
_RESIDUAL, _MOST = 1e-10, 2000
"""Of the right-hand side, where conjugate gradients end, and after how many steps they are given up."""
_LINEAR = 1e-5
"""Relative: operators that compute in float32 are off by less."""


class System(Protocol):
    """y and A together, observations (*out), or (B, *out), one a row.

    Attributes:
        rows: B, the number of observations; None for one of all rows.
    """

    rows: int | None

    def pull(self, mean: Float[Tensor, "B *event"], square: float, within: Float[Tensor, " B"]) -> Tensor:
        """Aᵀ (s² I + r A Aᵀ)⁻¹ (y − A mean), (B, *event) float64, of s² = square and r = within."""
        ...


class Masked:
    """A is a mask: A Aᵀ = I."""

    def __init__(self, mask: Bool[Tensor, "*event"], observed: Tensor, rows: int | None):
        self.rows, self._mask = rows, mask
        self._observed = torch.where(mask, observed, torch.zeros((), dtype=observed.dtype))

    def pull(self, mean: Tensor, square: float, within: Tensor) -> Tensor:
        seen = self._mask.to(mean.device)
        residual = torch.where(seen, self._observed.to(mean.device) - mean, torch.zeros_like(mean))
        return residual / (square + beside(within, mean))


class Decomposed:
    """A is a matrix (m, D) whose A Aᵀ is decomposed."""

    def __init__(self, matrix: Float[Tensor, "m D"], observed: Tensor, rows: int | None):
        values, self._basis = torch.linalg.eigh(matrix @ matrix.T)
        self.rows, self._matrix, self._observed, self._values = rows, matrix, observed, values.clamp_min(0)

    def pull(self, mean: Tensor, square: float, within: Tensor) -> Tensor:
        matrix, basis = self._matrix.to(mean.device), self._basis.to(mean.device)
        residual = (self._observed.to(mean.device) - mean.flatten(1) @ matrix.T) @ basis
        weight = residual / (square + within[:, None] * self._values.to(mean.device))
        return (weight @ basis.T @ matrix).reshape(mean.shape)


class Products:
    """A is a function with gradients of which only products are taken.

    Raises:
        ValueError: it makes none of gradients, or has others than its transpose.
    """

    def __init__(self, measure: Operator, event: tuple[int, ...], observed: Tensor, rows: int | None):
        assert not isinstance(measure, Tensor)
        self.rows, self._measure, self._observed = rows, measure, observed
        self._require_transpose(event, observed.shape[int(rows is not None) :])

    def pull(self, mean: Tensor, square: float, within: Tensor) -> Tensor:
        with torch.inference_mode(False), torch.no_grad():
            mean, within = mean.clone(), within.clone()
            place, image = self._graph(mean)
            residual = self._observed.to(mean.device) - self._measure(mean).double()

            def transposed(u: Tensor) -> Tensor:
                return torch.autograd.grad(image, place, u.to(image.dtype), retain_graph=True)[0]

            def applied(u: Tensor) -> Tensor:
                return square * u + beside(within, u) * self._measure(transposed(u)).double()

            if not within.any():
                return transposed(residual / square)
            return transposed(_solved(applied, residual))

    def _graph(self, like: Tensor) -> tuple[Tensor, Tensor]:
        with torch.enable_grad():
            place = torch.zeros_like(like).requires_grad_()
            return place, self._measure(place.clone())

    def _require_transpose(self, event: tuple[int, ...], out: torch.Size) -> None:
        """Raise ValueError unless ⟨u, A v⟩ = ⟨Aᵀ u, v⟩ for a random pair."""
        generator = fixed_generator("probes")
        v, u = (
            torch.randn(1, *shape, generator=generator, dtype=torch.float64, device="cpu") for shape in (event, out)
        )
        with torch.inference_mode(False), torch.no_grad():
            place, image = self._graph(v)
            if not image.requires_grad:
                raise ValueError(
                    f"operator must have gradients where its matrix has more than {_WHOLE:,} values: "
                    "make it of functions of torch, or give the matrix"
                )
            found = torch.autograd.grad(image, place, u.to(image.dtype))[0]
            forth, back = self._measure(v).double(), (found * v).sum()
        if ((u * forth).sum() - back).abs() > _LINEAR * u.norm() * forth.norm():
            raise ValueError("operator must be linear here, its gradient is not its transpose")


def system_of(
    operator: Operator, observation: Tensor | np.ndarray, event: tuple[int, ...], *, rows: bool = False
) -> System:
    """A linear operator and its observation, (*out), or one a row, (B, *out), as what can be solved.

    Raises:
        ValueError: an operator or observation of another shape or not finite; an operator that is not linear, or too
            large to be a matrix, and without gradients.
    """
    refuse_mask("observation", observation)
    given = torch.as_tensor(observation).detach().to("cpu", torch.float64)
    measure, observed = as_function(operator, given, event, rows=rows)
    count = len(observed) if rows else None
    if isinstance(operator, Tensor) and operator.dtype == torch.bool:
        return Masked(operator.detach().cpu(), given, count)
    dim = math.prod(event)
    probes = torch.stack([torch.zeros(dim), *torch.linspace(-1, 2, 2 * dim).reshape(2, dim)]).double()
    probes = torch.cat([probes, (probes[1] + 2 * probes[2])[None]])
    with torch.no_grad():
        found = measure(probes.reshape(-1, *event))
        require_measured(found, len(probes), observed, rows=rows)
        none, first, second, both = found.double().reshape(4, -1)
        if not found.isfinite().all():
            raise ValueError("operator must give finite values, of a point it does not")
        apart = (both - first - 2 * second).abs().max() if both.numel() else both.sum()
        size = first.abs().max() + 2 * second.abs().max() if both.numel() else both.sum()
        if apart > _LINEAR * size or (none != 0).any():
            raise ValueError("operator must be linear here, of a sum of points it does not give the sum")
        if isinstance(operator, Tensor):
            matrix = operator.detach().to("cpu", torch.float64)
        elif none.numel() * dim <= _WHOLE:
            matrix = measure(torch.eye(dim, dtype=torch.float64).reshape(-1, *event)).double().reshape(dim, -1).T
            matrix = matrix.contiguous()
        else:
            return Products(measure, event, observed, count)
    if matrix.numel() <= _WHOLE:
        return Decomposed(matrix, observed.reshape(*observed.shape[: int(rows)], -1), count)
    return Products(lambda x: x.flatten(1) @ matrix.to(x.device).T, event, observed, count)


def _solved(applied: Operator, right: Tensor) -> Tensor:
    """u of applied(u) = right, row by row, by conjugate gradients.

    Raises:
        ValueError: it does not converge.
    """
    assert not isinstance(applied, Tensor)

    def dot(a: Tensor, b: Tensor) -> Tensor:
        return (a * b).flatten(1).sum(1)

    u, residual, direction = torch.zeros_like(right), right.clone(), right.clone()
    square = dot(residual, residual)
    enough = square * _RESIDUAL**2
    for _ in range(_MOST):
        if (square <= enough).all():
            return u
        image = applied(direction)
        curvature = dot(direction, image)
        # Rows that are solved stay as they are.
        step = torch.where((square > enough) & (curvature > 0), square / curvature, 0.0)
        u = u + beside(step, u) * direction
        residual = residual - beside(step, u) * image
        after = dot(residual, residual)
        ratio = torch.where(square > enough, after / square.clamp_min(1e-300), 0.0)
        direction, square = residual + beside(ratio, u) * direction, after
    raise ValueError(
        f"noise must not be that small beside the operator: after {_MOST:,} steps conjugate gradients are "
        f"{float((square / enough.clamp_min(1e-300)).max().sqrt()) * _RESIDUAL:.1g} of the residual from their end"
    )
