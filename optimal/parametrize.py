"""What a network predicts, and how to turn one prediction into another.

With x = x_t/scale = x0 + sigma eps, every target in use is a combination of the clean point and the noise,

    value = p x0 + q eps

    kind        p                 q                 is
    x0          1                 0                 the clean point: what a `Denoiser` returns
    eps         0                 1                 (x − x0)/sigma, the noise (DDPM)
    score       0                 −1/sigma          (x0 − x)/sigma², ∇ log p(x; sigma) (Eq. 49)
    velocity    0                 1                 dx/dsigma of the probability-flow ODE: the same as eps
    v           −sigma/√(1+sigma²) 1/√(1+sigma²)    cos φ eps − sin φ x0, tan φ = sigma (v-prediction)
    flow        −1                1                 eps − x0, dx_t/dt of flow matching

and x itself is one more (p = 1, q = sigma), so that any value follows from x and any other by Cramer's rule; no
determinant vanishes or cancels for sigma > 0. The relations are linear, hence they hold between posterior means too:
the optimal eps is (x − E[x0 | x])/sigma.

The score is that of x = x_t/scale. The score of x_t, which networks of Song et al. 2021 predict, is score/scale;
`as_denoiser` accounts for it. velocity and flow are different: x moves with the first along sigma, x_t with the second
along t of `FlowMatching`. What x_t does along t of another process is one more kind, known where the process is
(`as_denoiser`):

    dx_dt       x_t = scale (x0 + sigma eps):  dx_t/dt = scale'/scale x_t + scale sigma' eps
"""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float, Num
from torch import Tensor

from .process import VP, Process
from .query import Levels, beside, levels, require_points

__all__ = ["DX_DT", "PARAMETRIZATIONS", "as_denoiser", "convert", "from_x0", "to_x0"]

PARAMETRIZATIONS = ("x0", "eps", "score", "velocity", "v", "flow")
"""The names of what a network may predict."""

DX_DT = "dx_dt"
"""One more kind, of `as_denoiser` alone: the velocity of x_t along the time of its process."""

_DEFAULT = VP()


def convert(
    value: Tensor, x: Num[Tensor, "B *event"], sigma: Levels, source: str, target: str
) -> Float[Tensor, "B *event"]:
    """One prediction as another: p'·x0 + q'·eps from p·x0 + q·eps and x = x0 + sigma eps.

    Args:
        value: (B, *event), a prediction of kind `source`.
        x: (B, *event), the noisy points over their signal scale.
        sigma: their noise level, > 0: float, () or (B,).
        source, target: kinds, names in `PARAMETRIZATIONS`.

    Returns:
        (B, *event), in x's dtype and on its device; computed in float64 and rounded once, since sigma² leaves the range
        of half precision.

    Raises:
        ValueError: unknown kind; sigma not finite, not positive or of another shape; x not floating point; value of
            another shape than x.

    References:
        Salimans, Ho 2022, "Progressive Distillation for Fast Sampling of Diffusion Models", section 4 and Appendix D.

    Example:
        >>> x, x0 = torch.tensor([[5.0]]), torch.tensor([[1.0]])
        >>> convert(x0, x, 2.0, "x0", "eps"), convert(x0, x, 2.0, "x0", "score")
        (tensor([[2.]]), tensor([[-1.]]))
    """
    level = _checked(value, x, sigma)
    p, q = _coefficients(source, level)
    p_out, q_out = _coefficients(target, level)
    own, other = p_out * q - q_out * p, q_out - p_out * level
    return ((own * x.double() + other * value.double()) / (q - p * level)).to(x.dtype)


def to_x0(value: Tensor, x: Num[Tensor, "B *event"], sigma: Levels, kind: str) -> Float[Tensor, "B *event"]:
    """The clean point from a prediction of another kind; see `convert`.

    Example:
        >>> to_x0(torch.tensor([[2.0]]), torch.tensor([[5.0]]), 2.0, "eps")
        tensor([[1.]])
    """
    return convert(value, x, sigma, kind, "x0")


def from_x0(x0: Tensor, x: Num[Tensor, "B *event"], sigma: Levels, kind: str) -> Float[Tensor, "B *event"]:
    """A prediction of another kind from the clean point; see `convert`.

    Example:
        >>> from_x0(torch.tensor([[1.0]]), torch.tensor([[5.0]]), 2.0, "flow")
        tensor([[1.]])
    """
    return convert(x0, x, sigma, "x0", kind)


def as_denoiser(
    network: Callable[[Tensor, Tensor], Tensor], kind: str, *, process: Process = _DEFAULT
) -> Callable[[Tensor, Levels], Tensor]:
    """A `Denoiser` from a network F(x_t, t) that was trained on a process.

    D(x, sigma) = x0 of F(scale·x, t) with t = time(sigma), scale = scale(t).

    Args:
        network: F(x_t, t): x_t (B, *event) and t (B,), both in x's dtype, in float32 where that is shorter, which
            would move both -> (B, *event). One that counts steps 0 … 999, as DDPM's do, is given as
            lambda x_t, t: net(x_t, 999 * t).
        kind: what F predicts, a name in `PARAMETRIZATIONS`, or "dx_dt", the velocity of x_t along the time of the
            process; "score" is the score of x_t, as in Song et al. 2021.
        process: what F was trained on; `VP()` unless told otherwise.

    Returns:
        (x, sigma) -> x0_hat, with x (B, *event) and sigma float, () or (B,), as `Denoiser` says.

    Raises:
        ValueError: unknown kind; in calls, what `convert` raises, and sigma above sigma(t_max) of the process.

    Example:
        >>> process = VP()
        >>> D = as_denoiser(lambda x_t, t: x_t / process.std(t)[:, None], "eps", process=process)    # x0 = 0 always
        >>> D(torch.ones(1, 2), 3.0).abs() < 1e-6
        tensor([[True, True]])
    """
    return _Parametrized(network, kind if kind == DX_DT else _known(kind), process)


@dataclass(frozen=True)
class _Parametrized:
    """What `as_denoiser` makes: no function within a function, so that it can be pickled and copied."""

    network: Callable[[Tensor, Tensor], Tensor]
    kind: str
    process: Process

    def __call__(self, x: Tensor, sigma: Levels) -> Tensor:
        level = _checked(x, x, sigma).flatten()
        process = self.process
        t, scale = process.time(level), process.scale_at(level)
        spread, dtype = beside(scale, x), torch.promote_types(x.dtype, torch.float32)
        value = self.network((spread * x.double()).to(dtype), t.to(dtype).expand(len(x))).double()
        if self.kind == DX_DT:
            drift, rate = beside(process.scale_dot(t), x), beside(scale * process.sigma_dot(t), x)
            return to_x0(((value - drift * x.double()) / rate), x, sigma, "eps")
        return to_x0(value * spread if self.kind == "score" else value, x, sigma, self.kind)


def _coefficients(kind: str, level: Tensor) -> tuple[Tensor, Tensor]:
    """(p, q) of value = p x0 + q eps."""
    zero, one = torch.zeros_like(level), torch.ones_like(level)
    if _known(kind) == "x0":
        return one, zero
    if kind == "score":
        return zero, -1 / level
    if kind == "v":
        hypotenuse = torch.hypot(one, level)
        return -level / hypotenuse, 1 / hypotenuse
    if kind == "flow":
        return -one, one
    return zero, one


def _known(kind: str) -> str:
    if kind not in PARAMETRIZATIONS:
        near = difflib.get_close_matches(str(kind), PARAMETRIZATIONS, n=1, cutoff=0.3)
        hint = f", did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"kind must be one of {', '.join(PARAMETRIZATIONS)}, got {kind!r}{hint}")
    return kind


def _checked(value: Tensor, x: Tensor, sigma: Levels) -> Tensor:
    """sigma as float64 (B, 1, …, 1), ready to broadcast over events, with its graph."""
    require_points(x)
    if value.shape != x.shape:
        raise ValueError(f"value must have the shape of x, {tuple(x.shape)}, got {tuple(value.shape)}")
    return beside(levels(sigma, len(x), x.device, graph=True), x)
