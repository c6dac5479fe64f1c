"""The quantities of the posterior as functions of x and σ that torch can differentiate, every way it has.

With u_j = y_j − D, v = Σ w_j ‖u_j‖² and r_j = ‖x − y_j‖², the logits are −r_j/2σ² up to what does not depend on j or
not on x and σ, as a prior does not, so a change (dx, dσ) moves the weights by

    dw_j = w_j c_j,    c_j = ⟨p, u_j⟩ + q (‖u_j‖² − v),    p = dx/σ² + 2 (D − x) dσ/σ³,    q = dσ/σ³

since r_j − r̄ = 2⟨D − x, u_j⟩ + ‖u_j‖² − v. Every derivative is one or two sums over the data of the kinds

    vector  Σ_j w_j c_j u_j              scalar  Σ_j w_j c_j ‖u_j‖²                                              (*)

with the coefficients of `Tilt`:

    dD = Σ w_j c_j u_j                           d log p = ⟨D − x, dx⟩/σ² + [(v + ‖D − x‖²)/σ³ − dim/σ] dσ
    dH = −Σ w_j c_j log w_j                      dv = Σ w_j c_j ‖u_j‖²

In reverse, with k_j = ⟨g_D, u_j⟩ − g_H log w_j + g_v ‖u_j‖² and G = Σ w_j k_j u_j, the gradients are G/σ² to x and
[2⟨D − x, G⟩ + Σ w_j k_j ‖u_j‖² − v (g_H H + g_v v)]/σ³ to σ.

So jvp in x is covariance_product/σ². vmap folds its axis into the batch: one pass for all. What is made of D and v
alone, as the gradients of log p and of the leader's weight, has derivatives too; the sums (*) have none, and say so.
"""

from __future__ import annotations

import inspect
import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .evaluator import Evaluator
from .protocol import Tilt

__all__ = ["Sums", "posterior_sums"]

_FIRST = (
    "the optimal denoiser has first derivatives only, of all but log_density and top_weight: a Jacobian-vector product "
    "is torch.func.jvp, or covariance_product(x, sigma, v) / sigma²"
)


class Sums(NamedTuple):
    """Of B queries, all float64: mean − c (B, D), and (B,) the rest; `leader` int64, the point of `top_weight`."""

    mean: Tensor
    log_density: Tensor
    entropy: Tensor
    top_weight: Tensor
    variance: Tensor
    top: Tensor
    leader: Tensor
    bound: Tensor
    estimate: Tensor


def posterior_sums(
    z: Tensor, sigma: Tensor, evaluator: Evaluator, *, single: bool, mean_only: bool = False
) -> tuple[Sums, str]:
    """The posterior of z = x − c, (B, D) float64, at sigma, (B,) float64, and the method that summed.

    Args:
        z, sigma: with their graphs.
        evaluator: of the data.
        single: whether float32 products may be used.
        mean_only: whether only the mean has to have derivatives; going forward they then take one pass and not four.

    Raises:
        ValueError: z not finite; sigma not positive and finite.
    """
    note = _Note()
    return Sums(*_Sums.apply(z, sigma, evaluator, single, mean_only, note)), note.method


class _Note:
    """What comes out beside tensors. An object of its own: torch.func takes lists apart."""

    method: str = ""


class _Sums(torch.autograd.Function):
    @staticmethod
    def forward(
        z: Tensor, sigma: Tensor, evaluator: Evaluator, single: bool, mean_only: bool, note: _Note
    ) -> tuple[Tensor, ...]:
        points = evaluator.points
        points.check(z, sigma)
        sums = evaluator.moments(z, sigma, single=single)
        note.method = sums.method
        normaliser = points.dim * (0.5 * math.log(2 * math.pi) + sigma.log()) - points.log_weight(sums.index)
        # By the distance from the leader, which the total is relative to: its logit − ‖z‖²/2σ² would cancel.
        leader = points.reduced(points.take(sums.index).to(z.device))
        log_density = sums.total.log() - 0.5 * (z - leader).square().sum(1) / sigma.square() - normaliser
        entropy = (sums.total.log() - sums.energy / sums.total).clamp_min(0)
        spread = log_density, entropy, 1 / sums.total, sums.variance, sums.top
        return sums.average, *spread, sums.index, sums.bound, sums.estimate

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        z, sigma, ctx.evaluator, ctx.single, ctx.mean_only, _ = inputs
        out = Sums(*output)
        kept = z, sigma, out.mean, out.top, out.entropy, out.top_weight, out.variance, out.leader
        ctx.save_for_backward(*kept)
        ctx.save_for_forward(*kept)
        ctx.set_materialize_grads(False)
        ctx.mark_non_differentiable(*(output[1:] if ctx.mean_only else output[5:]))

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        saved = ctx.saved_tensors
        z, sigma, mean, _, entropy, top_weight, variance, leader = saved
        by_mean, by_log_density, by_entropy, by_top_weight, by_variance, *_ = grads
        none, back = torch.zeros_like(sigma), mean - z
        out, slope = torch.zeros_like(z), none
        if by_mean is not None or by_entropy is not None or by_variance is not None:
            coefficients = (
                torch.zeros_like(z) if by_mean is None else by_mean,
                none if by_entropy is None else -by_entropy,
                none if by_variance is None else by_variance,
            )
            tilted = _tilted(ctx, saved, coefficients, square=False)
            out = out + tilted
            if ctx.needs_input_grad[1]:
                share = -coefficients[1] * entropy + coefficients[2] * variance
                slope = 2 * (back * tilted).sum(1) + _tilted(ctx, saved, coefficients, square=True) - variance * share
        if by_log_density is not None:
            out = out + by_log_density[:, None] * back
            pull = variance + back.square().sum(1) - z.shape[1] * sigma.square()
            slope = slope + by_log_density * pull
        if by_top_weight is not None:
            ahead = _Rows.apply(leader, ctx.evaluator, z) - mean
            out = out + (by_top_weight * top_weight)[:, None] * ahead
            pull = 2 * (back * ahead).sum(1) + ahead.square().sum(1) - variance
            slope = slope + by_top_weight * top_weight * pull
        by_sigma = slope / sigma**3 if ctx.needs_input_grad[1] else None
        return out / sigma.square()[:, None], by_sigma, None, None, None, None

    @staticmethod
    def jvp(ctx: Any, dz: Tensor | None, dsigma: Tensor | None, *_: Any) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        saved = ctx.saved_tensors
        z, sigma, mean, _, entropy, top_weight, variance, leader = saved
        none, back = torch.zeros_like(sigma), mean - z
        dz = torch.zeros_like(z) if dz is None else dz
        dsigma = none if dsigma is None else dsigma
        q = dsigma / sigma**3
        p = dz / sigma.square()[:, None] + (2 * q)[:, None] * back
        by_mean = _tilted(ctx, saved, (p, none, q), square=False)
        if ctx.mean_only:
            return by_mean, *[None] * 8
        pull = (variance + back.square().sum(1)) / sigma**3 - z.shape[1] / sigma
        by_log_density = (back * dz).sum(1) / sigma.square() + dsigma * pull
        logs = torch.zeros_like(z), torch.ones_like(none), none
        turn = (p * _tilted(ctx, saved, logs, square=False)).sum(1)
        by_entropy = -turn - q * (_tilted(ctx, saved, logs, square=True) + variance * entropy)
        ahead = _Rows.apply(leader, ctx.evaluator, z) - mean
        by_top_weight = top_weight * ((p * ahead).sum(1) + q * (ahead.square().sum(1) - variance))
        by_variance = _tilted(ctx, saved, (p, none, q), square=True) - q * variance.square()
        return by_mean, by_log_density, by_entropy, by_top_weight, by_variance, None, None, None, None

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], *arguments: Any) -> tuple[Any, Any]:
        tensors, shape = _folded(info, in_dims, *arguments[:2])
        out = _Sums.apply(*tensors, *arguments[2:])
        return tuple(part.unflatten(0, shape) for part in out), (0,) * len(out)


# torch asks for it at every call, and making it takes as long as a product.
_Sums.forward.__signature__ = inspect.signature(_Sums.forward)


class _Tilted(torch.autograd.Function):
    """The sums (*), the vector (B, D) or the scalar (B,), which have no derivative."""

    @staticmethod
    def forward(*arguments: Any) -> Tensor:
        z, sigma, *tilt, evaluator, single, square = arguments
        ask = evaluator.tilted_square if square else evaluator.tilt
        return ask(z, sigma, Tilt(*tilt), single=single)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        raise RuntimeError(_FIRST)

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        raise RuntimeError(_FIRST)

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], *arguments: Any) -> tuple[Tensor, int]:
        tensors, shape = _folded(info, in_dims, *arguments[:-3])
        return _Tilted.apply(*tensors, *arguments[-3:]).unflatten(0, shape), 0


class _Rows(torch.autograd.Function):
    """y − c of the points `index`, (B, D), like z."""

    @staticmethod
    def forward(index: Tensor, evaluator: Evaluator, z: Tensor) -> Tensor:
        points = evaluator.points
        return points.reduced(points.take(index).to(z.device))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.mark_non_differentiable(output)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[None, None, None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        return None, None, None

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        return None

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], *arguments: Any) -> tuple[Tensor, int]:
        index, evaluator, z = arguments
        (rows, like), shape = _folded(info, (in_dims[0], in_dims[2]), index, z)
        return _Rows.apply(rows, evaluator, like).unflatten(0, shape), 0


def _tilted(ctx: Any, saved: tuple[Tensor, ...], coefficients: tuple[Tensor, ...], *, square: bool) -> Tensor:
    # A checkpoint lets them be unpacked once: they are handed on.
    z, sigma, mean, top, _, top_weight, *_ = saved
    return _Tilted.apply(z, sigma, top, top_weight, mean, *coefficients, ctx.evaluator, ctx.single, square)


def _folded(info: Any, dims: tuple[Any, ...], *tensors: Tensor) -> tuple[list[Tensor], tuple[int, int]]:
    """Each tensor (B, …) with its mapped axis, of size V, in front and folded into the batch, (V·B, …); and (V, B)."""
    size = info.batch_size
    wide = [
        part.expand(size, *part.shape) if dim is None else part.movedim(dim, 0)
        for part, dim in zip(tensors, dims, strict=False)
    ]
    return [part.flatten(0, 1) for part in wide], (size, wide[0].shape[1])
