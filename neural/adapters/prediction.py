"""Networks that were trained on a process in time: any kind of prediction, and flow matching."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from optimal.parametrize import as_denoiser
from optimal.process import VP, FlowMatching, Process

from .adapted import Adapted
from .asked import Asked, Order
from .clipping import Given, clip_of
from .ranges import OURS, Values

__all__ = ["Predicting", "from_flow", "from_prediction"]

_DEFAULT = VP()


def from_prediction(
    network: Callable[..., Any],
    kind: str,
    *,
    process: Process = _DEFAULT,
    time_scale: float = 1.0,
    broadcast_time: bool = False,
    order: Order = "xt",
    value_range: Values = OURS,
    clip: Given = None,
    **arguments: Any,
) -> Predicting:
    """A network F(x_t, t) that was trained on a process, as `optimal.parametrize.as_denoiser` puts it.

    Args:
        network: F(x_t, t): x_t (B, *event), t (B,) -> (B, *event).
        kind: what F predicts, a name in `optimal.parametrize.PARAMETRIZATIONS`, or "dx_dt", the velocity of x_t along
            the time of the process.
        process: what F was trained on.
        time_scale: what F is given for t = 1: 999 for one that counts steps.
        broadcast_time: whether F is given t as (B, 1, …), ready to multiply x_t.
        order: "tx" for F(t, x_t).
        value_range: the values of the network's images where ours have [−1, 1], see `neural.adapters.ranges`.
        clip: x0_hat is cut at ±clip, or (low, high); None for not at all.
        **arguments: given to F at every call.

    Raises:
        ValueError: unknown kind; "velocity" of a process that scales x_t, and "flow" of one that is none, which have
            been meant as "dx_dt"; in calls, what `Adapted` raises, and a network that multiplies each row by the noise
            level of another.

    Example:
        >>> process = VP()
        >>> F = from_prediction(lambda x_t, t: x_t / process.std(t)[:, None], "eps", process=process)    # x0 = 0
        >>> F(torch.ones(1, 2), 3.0).abs() < 1e-6
        tensor([[True, True]])
    """
    moves = bool((process.scale(torch.tensor([0.1, 0.5], dtype=torch.float64) * min(process.t_max, 1.0)) != 1).any())
    if (kind == "velocity" and moves) or (kind == "flow" and not isinstance(process, FlowMatching)):
        meant = "(x − x0)/sigma, which is eps" if kind == "velocity" else "eps − x0 of flow matching (from_flow)"
        raise ValueError(f'kind={kind!r} is {meant}: the velocity dx_t/dt of {type(process).__name__} is kind="dx_dt"')
    asked = Asked(network, arguments, order=order, broadcast=broadcast_time)
    return Predicting(asked, kind, process, time_scale, clip=clip).of_values(value_range)


def from_flow(
    network: Callable[..., Any],
    *,
    data_at: int = 0,
    time_scale: float = 1.0,
    broadcast_time: bool = False,
    order: Order = "xt",
    value_range: Values = OURS,
    clip: Given = None,
    **arguments: Any,
) -> Predicting:
    """A flow-matching network: x_t = (1 − t) x0 + t eps, F = dx_t/dt = eps − x0.

    x0 and eps are taken to be independent, so that the best F is a posterior mean. A network trained on pairs that are
    matched, by optimal transport in each batch or by an earlier model, has another optimum, and none of the comparisons
    with E[x0 | x] says how well it was trained.

    Args:
        network: F(x_t, t): x_t (B, *event), t (B,) -> (B, *event).
        data_at: the t of the data: 0, or 1 where time runs from noise to data, x_t = t x0 + (1 − t) eps and F = x0 −
            eps, as in Lipman et al. 2023. The wrong end cannot be told from F alone: its gap is larger than that of
            the mean of the data (`agreement`, gap_share above 1), which `neural.convention.sanity` notices.
        time_scale: what F is given for t = 1: 1000 for diffusers' transformers.
        broadcast_time: whether F is given t as (B, 1, …), ready to multiply x_t.
        order: "tx" for F(t, x_t), as torchcfm and flow_matching have it.
        value_range: the values of the network's images where ours have [−1, 1], see `neural.adapters.ranges`.
        clip: x0_hat is cut at ±clip, or (low, high); None for not at all.
        **arguments: given to F at every call.

    Raises:
        ValueError: data_at neither 0 nor 1; in calls, as for `from_prediction`.

    Example:
        >>> from_flow(lambda x_t, t: x_t / t[:, None])(torch.ones(1, 2), 3.0).abs() < 1e-6    # x0 = 0 always
        tensor([[True, True]])
    """
    if data_at not in (0, 1):
        raise ValueError(f"data_at must be 0 or 1, got {data_at!r}")
    asked = Asked(network, arguments, order=order, broadcast=broadcast_time)
    found = Predicting(asked, "flow", FlowMatching(), time_scale, backward=bool(data_at), clip=clip)
    return found.of_values(value_range)


class Predicting(Adapted):
    """What `from_prediction` and `from_flow` make.

    Attributes:
        process, time_scale: what the network was trained on, and what it is given for t = 1.
        flows: whether it is one of flow matching.
    """

    def __init__(
        self,
        asked: Asked,
        kind: str,
        process: Process,
        time_scale: float,
        *,
        backward: bool = False,
        clip: Given = None,
    ):
        super().__init__(asked, clip_of(clip))
        self.process, self.time_scale, self.flows = process, time_scale, kind == "flow"
        self._kind, self._backward = kind, backward
        as_denoiser(asked, kind, process=process)
        self.sigma_max = float(process.sigma(process.t_max))

    def _denoised(self, x: Tensor, sigma: Tensor, dtype: torch.dtype, arguments: dict[str, Any]) -> Tensor:
        ask = _InTime(self.asked, self.time_scale, self._backward, dtype, arguments)
        # In float64 until the network is asked: t·1000 of a float32 t is beside its step.
        return as_denoiser(ask, self._kind, process=self.process)(x.double(), sigma)


class _InTime:
    """A network asked at t of another unit and, `backward`, of another direction, which turns its velocity round."""

    def __init__(self, asked: Asked, scale: float, backward: bool, dtype: torch.dtype, arguments: dict[str, Any]):
        self._asked, self._scale, self._backward = asked, scale, backward
        self._dtype, self._arguments = dtype, arguments

    def __call__(self, x_t: Tensor, t: Tensor) -> Tensor:
        if self._backward:
            return -self._asked(x_t, self._scale * (1 - t), self._dtype, **self._arguments)
        return self._asked(x_t, self._scale * t, self._dtype, **self._arguments)
