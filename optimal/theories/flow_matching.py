"""The optimum in the words of flow matching: data at t = 1, noise at t = 0.

    x_t = t x1 + (1 − (1 − σ_min) t) x0,    x0 ~ N(0, 1),    u*(x_t, t) = E[x1 − (1 − σ_min) x0 | x_t]

x_t/t is a noisy point of level σ = (1 − (1 − σ_min) t)/t, so that with D = D(x_t/t, σ), at t = 0 the mean of the data,

    u*(x_t, t) = (D − (1 − σ_min) x_t)/(1 − (1 − σ_min) t)                  (σ_min = 0: (D − x_t)/(1 − t))

Its trajectories are those of the probability
flow, x_t = t x(σ); `optimal.process.FlowMatching` is the same path with time running the other way, and samples it.
"""

from __future__ import annotations

from typing import Protocol

from jaxtyping import Float, Num
from torch import Tensor

from ..query import beside, per_row, require_finite, require_points

__all__ = ["closed_form_velocity", "conditional_velocity"]


class _WithMean(Protocol):
    """A denoiser that knows the mean of its data."""

    event: tuple[int, ...]

    @property
    def mean(self) -> Tensor: ...
    def __call__(self, x: Tensor, sigma: Tensor, /) -> Tensor: ...


def closed_form_velocity(
    D: _WithMean, x: Num[Tensor, "B *event"], t: float | Tensor, *, sigma_min: float = 0.0
) -> Float[Tensor, "B *event"]:
    """u*(x_t, t), the minimiser of the flow matching loss, (B, *event), like x.

    Args:
        D: the optimum, or whatever knows the mean of its data: a `Wiener`.
        x: (B, *event), x_t.
        t: time, 0 (noise) to 1 (data): float, () or (B,). At 1 it is allowed with σ_min > 0 only.
        sigma_min: standard deviation of the path at t = 1 (Lipman et al. 2023); 0 is the straight path.

    Raises:
        ValueError: a time out of range; a σ_min that is not in [0, 1]; as for D.

    References:
        Lipman, Chen, Ben-Hamu, Nickel, Le 2023, "Flow Matching for Generative Modeling", Eq. 20-23. Bertrand, Gagneux,
        Massias, Emonet 2025, "On the Closed-Form of Flow Matching".

    Example:
        >>> import torch
        >>> from optimal import OptimalDenoiser
        >>> D = OptimalDenoiser(torch.tensor([[-1.0], [1.0]]))
        >>> closed_form_velocity(D, torch.tensor([[0.25], [0.25]]), torch.tensor([0.0, 0.5]))    # −x, (tanh(½) − x)/½
        tensor([[-0.2500],
                [ 0.4242]])
    """
    if not hasattr(D, "event") or not hasattr(D, "mean"):
        raise ValueError(f"D must know the mean of its data, as an OptimalDenoiser does, got {type(D).__name__}")
    require_points(x, D.event)
    require_finite(x.flatten(1))
    time, noise = _path(x, t, sigma_min)
    mean = D.mean.to(x.device).double().expand(x.shape).clone()
    rest = time > 0
    if rest.any():
        asked = x[rest].double() / beside(time[rest], x)
        # In x's dtype, which says how exactly D answers.
        mean[rest] = D(asked.to(x.dtype), (noise / time)[rest]).double()
    return _towards(mean, x, noise, sigma_min)


def conditional_velocity(
    x1: Num[Tensor, "B *event"], x: Num[Tensor, "B *event"], t: float | Tensor, *, sigma_min: float = 0.0
) -> Float[Tensor, "B *event"]:
    """u(x_t, t | x1) = (x1 − (1 − σ_min) x_t)/(1 − (1 − σ_min) t), what flow matching regresses on; its mean is u*.

    Args:
        x1: (B, *event), data points.
        x, t, sigma_min: as for `closed_form_velocity`.

    Raises:
        ValueError: as there.
    """
    require_points(x1, name="x1")
    require_points(x, tuple(x1.shape[1:]))
    if len(x1) != len(x):
        raise ValueError(f"x1 must be one point a row, {len(x)} of them, got {len(x1)}")
    for name, each in (("x1", x1), ("x", x)):
        require_finite(each.flatten(1), name=name)
    _, noise = _path(x, t, sigma_min)
    return _towards(x1.double(), x, noise, sigma_min)


def _towards(x1: Tensor, x: Tensor, noise: Tensor, sigma_min: float) -> Tensor:
    return ((x1 - (1 - sigma_min) * x.double()) / beside(noise, x)).to(x.dtype)


def _path(x: Tensor, t: float | Tensor, sigma_min: float) -> tuple[Tensor, Tensor]:
    """t and the standard deviation of the noise in x_t, (B,) float64 each."""
    if not 0 <= sigma_min <= 1:
        raise ValueError(f"sigma_min must lie in [0, 1], got {sigma_min:g}")
    time = per_row("t", t, len(x), x.device, graph=True)
    noise = 1 - (1 - sigma_min) * time
    usable = (time >= 0) & (time <= 1) & (noise > 0)
    if not usable.all():
        raise ValueError(f"t must lie from 0 to 1, below 1 where sigma_min is 0, got {float(time[~usable][0]):g}")
    return time, noise
