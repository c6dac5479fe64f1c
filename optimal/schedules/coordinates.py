"""Solvers with a Gaussian of their own, where few points are sampled in coordinates of their span.

The covariance of points maps their span to itself, so that a function of it does in coordinates what it does to points.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from ..denoiser import OptimalDenoiser
from ..samplers import FromGaussian, Solver
from ..samplers.gaussian_start import Linear
from ..span import FewPoints

__all__ = ["linear_on", "solver_on"]


def solver_on(D: OptimalDenoiser, span: FewPoints | None, solver: Solver) -> Solver:
    """The solver, with the Gaussians that it knows in the coordinates of D.

    Args:
        D: what it is to sample.
        span: whose coordinates these are.
        solver: of D or of the points in the span.

    Raises:
        ValueError: its Gaussian is of points of another shape.
    """
    if not isinstance(solver, FromGaussian):
        return solver
    changed: dict[str, object] = {"gaussian": linear_on(D, span, solver.gaussian)}
    inner = getattr(solver, "solver", None)
    if inner is not None:
        changed["solver"] = solver_on(D, span, inner)
    return dataclasses.replace(solver, **changed)  # pyright: ignore[reportArgumentType]


def linear_on(D: OptimalDenoiser, span: FewPoints | None, gaussian: Linear) -> Linear:
    """The Gaussian, in the coordinates of D.

    Raises:
        ValueError: it is of points of another shape.
    """
    shape = tuple(gaussian.mean.shape)
    if shape == D.event:
        return gaussian
    if span is not None and shape == span.points.event:
        return _InSpan(span, gaussian)
    event = D.event if span is None else span.points.event
    raise ValueError(f"the solver's gaussian is of points of shape {shape}, and D's have {event}")


@dataclass(frozen=True)
class _InSpan:
    """A Gaussian of points, asked in coordinates of their span."""

    span: FewPoints
    gaussian: Linear

    @property
    def mean(self) -> Tensor:
        return self.span.reduced(self.gaussian.mean[None].to(self.span.axes.device))[0]

    def __call__(self, x: Tensor, sigma: float | Tensor, /) -> Tensor:
        points = self.span.expanded(x).reshape(len(x), *self.span.points.event)
        return self.span.reduced(self.gaussian(points, sigma)).to(x)

    def spectral(self, v: Tensor, function: Callable[[Tensor], Tensor], /) -> Tensor:
        axes = self.span.axes.to(v.device)
        return (self.gaussian.spectral(v.double() @ axes.T, function) @ axes).to(v)
