"""A network of one's own as a `Denoiser`, (x, sigma) -> x0_hat: three lines to the optimum.

    F = from_prediction(net, "eps", process=VP())                              # net(x_t, t) predicts the noise
    D = OptimalDenoiser(load("digits"))
    print(agreement(F, D, [0.1, 1.0, 5.0]).gap)                                # E‖F − D‖² at each noise level

and as a sampler, from the same noises as the optimum: `compare({"mine": (F, {"sigmas": karras(18)})}, D, noises,
reference=FlowMap(D)(noises, 80.0))`. What differs between conventions is where x is put, what stands for sigma, and
what comes out:

    adapter                               network         is asked at x_t     with                      predicts
    from_prediction(net, kind, process=)  net(x_t, t)     scale(t) x          t of sigma(t) = sigma     any kind
    from_flow(net)                        net(x_t, t)     x/(1 + sigma)       t = sigma/(1 + sigma)     eps − x0
    from_ddpm(net, alphas_cumprod, kind)  net(x_t, step)  x/√(1 + sigma²)     ā(step) = 1/(1 + sigma²)  eps, x0, v …
    from_unet(unet, scheduler)            diffusers' UNet2DModel: as from_ddpm, the scheduler says the rest
    from_edm(net)                         net(x, sigma)   x                   sigma                     x0

Kinds are those of `optimal.parametrize`: eps, v, x0, score, velocity, flow. The score of Song et al. 2021 is that of
x_t; a score network that is given sigma itself has `process=EDM(math.inf)`, as has one that predicts the velocity
(x − x0)/sigma. A callable that maps (x, sigma) to x0_hat needs no adapter.

A network is asked without gradients, in evaluation mode (and left in the mode that it was in), on the device and in the
precision of its weights; the answer has x's. Networks that answer with a tuple or a diffusers output are understood.
What an adapter makes can be pickled and deep-copied where its network can.

    >>> from neural import agreement
    >>> from optimal import OptimalDenoiser, load
    >>> def net(x_t, t):                                                       # that all data lie at 0, by flow
    ...     return x_t / t[:, None]
    >>> F = from_flow(net)
    >>> D = OptimalDenoiser(load("two-points"))
    >>> agreement(F, D, [0.1, 1.0, 5.0]).gap_share
    tensor([1.0000, 1.0000, 1.0000], dtype=torch.float64)
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from optimal.denoiser import Denoiser
from optimal.parametrize import PARAMETRIZATIONS, as_denoiser, to_x0
from optimal.process import VP, FlowMatching, Process
from optimal.query import Levels, beside, levels, require_points

__all__ = ["Tabulated", "from_ddpm", "from_edm", "from_flow", "from_prediction", "from_unet"]

_KINDS = {"epsilon": "eps", "sample": "x0", "v_prediction": "v"}
"""diffusers' names of what is predicted."""
_ALIKE = 1e-2
"""Relative: batches of another size round otherwise by far less, noise levels of other rows are off by far more."""
_DEFAULT = VP()


def from_prediction(
    network: Callable[..., Any],
    kind: str,
    *,
    process: Process = _DEFAULT,
    time_scale: float = 1.0,
    broadcast_time: bool = False,
    **arguments: Any,
) -> Denoiser:
    """A network F(x_t, t) that was trained on a process, as `optimal.parametrize.as_denoiser` puts it.

    Args:
        network: F(x_t, t): x_t (B, *event), t (B,) -> (B, *event).
        kind: what F predicts, a name in `optimal.parametrize.PARAMETRIZATIONS`, or "dx_dt", the velocity of x_t along
            the time of the process.
        process: what F was trained on.
        time_scale: what F is given for t = 1: 999 for one that counts steps.
        broadcast_time: whether F is given t as (B, 1, …), ready to multiply x_t.
        **arguments: given to F at every call.

    Raises:
        ValueError: unknown kind; "velocity" of a process that scales x_t, and "flow" of one that is none, which have
            been meant as "dx_dt"; in calls, what `as_denoiser` raises, an answer of another shape than x, and one that
            multiplies each row by the noise level of another.

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
    return as_denoiser(_InTime(_Asked(network, arguments, broadcast_time), time_scale), kind, process=process)


def from_flow(
    network: Callable[..., Any],
    *,
    data_at: int = 0,
    time_scale: float = 1.0,
    broadcast_time: bool = False,
    **arguments: Any,
) -> Denoiser:
    """A flow-matching network: x_t = (1 − t) x0 + t eps, F = dx_t/dt = eps − x0.

    x0 and eps are taken to be independent, so that the best F is a posterior mean. A network trained on pairs that are
    matched, by optimal transport in each batch or by an earlier model, has another optimum, and none of the comparisons
    with E[x0 | x] says how well it was trained.

    Args:
        network: F(x_t, t): x_t (B, *event), t (B,) -> (B, *event).
        data_at: the t of the data: 0, or 1 where time runs from noise to data, x_t = t x0 + (1 − t) eps and F = x0 −
            eps, as in Lipman et al. 2023. The wrong end cannot be told from F alone: its gap is larger than that of
            the mean of the data (`agreement`, gap_share above 1).
        time_scale: what F is given for t = 1: 1000 for diffusers' transformers.
        broadcast_time: whether F is given t as (B, 1, …), ready to multiply x_t.
        **arguments: given to F at every call.

    Raises:
        ValueError: data_at neither 0 nor 1; in calls, as for `from_prediction`.

    Example:
        >>> from_flow(lambda x_t, t: x_t / t[:, None])(torch.ones(1, 2), 3.0).abs() < 1e-6    # x0 = 0 always
        tensor([[True, True]])
    """
    if data_at not in (0, 1):
        raise ValueError(f"data_at must be 0 or 1, got {data_at!r}")
    ask = _InTime(_Asked(network, arguments, broadcast_time), time_scale, backward=bool(data_at))
    return as_denoiser(ask, "flow", process=FlowMatching())


def from_ddpm(
    network: Callable[..., Any],
    alphas_cumprod: Tensor | np.ndarray | Sequence[float],
    kind: str = "eps",
    *,
    whole_steps: bool = False,
    broadcast_time: bool = False,
    **arguments: Any,
) -> Tabulated:
    """A network F(x_t, step) on a table ā of signal shares: x_t = √ā x0 + √(1 − ā) eps.

    With σ_step = √((1 − ā)/ā), F is asked at x/√(1 + σ²) and at the step, not necessarily whole, with σ_step = σ
    (linear in ln σ between steps).

    Args:
        network: F(x_t, step): x_t (B, *event), step (B,) -> (B, *event).
        alphas_cumprod: (T,) ā of steps 0 … T − 1, decreasing; steps without signal (ā = 0) are left out.
        kind: what F predicts, a name in `optimal.parametrize.PARAMETRIZATIONS`.
        whole_steps: whether F is given the nearest whole step, as int64: for one that looks steps up in a table.
            Between steps it is then asked beside σ.
        broadcast_time: whether F is given its step as (B, 1, …), ready to multiply x_t.
        **arguments: given to F at every call.

    Returns:
        A denoiser with attributes sigma_min and sigma_max, the σ of the first and the last step: a sampler's grid has
        to lie between them.

    Raises:
        ValueError: a table that does not decrease within (0, 1), unknown kind; in calls, a σ outside the table.

    Example:
        >>> F = from_ddpm(lambda x_t, step: torch.zeros_like(x_t), torch.linspace(0.99, 0.01, 50), "x0")
        >>> F(torch.ones(2, 3), 1.0).abs().max(), round(F.sigma_max, 2)
        (tensor(0.), 9.95)
    """
    if kind not in PARAMETRIZATIONS:
        raise ValueError(f"kind must be one of {', '.join(PARAMETRIZATIONS)}, got {kind!r}")
    kept = torch.as_tensor(alphas_cumprod, dtype=torch.float64).cpu().numpy()
    kept = kept[kept > 0]
    if len(kept) < 2 or not (kept < 1).all() or not (np.diff(kept) < 0).all():
        raise ValueError("alphas_cumprod must decrease within (0, 1) over two or more steps")
    return Tabulated(_Asked(network, arguments, broadcast_time), np.log((1 - kept) / kept) / 2, kind, whole_steps)


class Tabulated:
    """What `from_ddpm` makes, a `Denoiser`."""

    def __init__(self, ask: Callable[..., Tensor], table: np.ndarray, kind: str, whole_steps: bool):
        self._ask, self._table, self._kind, self._whole = ask, table, kind, whole_steps
        self.sigma_min, self.sigma_max = (float(level) for level in np.exp(table[[0, -1]]))

    def __call__(self, x: Tensor, sigma: Levels) -> Tensor:
        """x0_hat, (B, *event), in the dtype of x."""
        require_points(x)
        values = levels(sigma, len(x), x.device)
        outside = (values < self.sigma_min * (1 - 1e-6)) | (values > self.sigma_max * (1 + 1e-6))
        if outside.any():
            raise ValueError(
                f"sigma must lie between {self.sigma_min:g} and {self.sigma_max:g}, the range of the network's steps, "
                f"got {float(values[outside][0]):g}"
            )
        place = np.interp(values.log().cpu().numpy(), self._table, np.arange(len(self._table)))
        step = torch.from_numpy(place).to(x.device)
        scale = beside((1 + values.square()).rsqrt(), x)
        x_t = (scale * x.double()).to(torch.promote_types(x.dtype, torch.float32))
        value = self._ask(x_t, step.round().long() if self._whole else step)
        return to_x0(value.double() * scale if self._kind == "score" else value, x, values, self._kind)


def from_unet(unet: Callable[..., Any], scheduler: Any, **arguments: Any) -> Denoiser:
    """A diffusers network, with the scheduler that it was trained or is sampled with, in memory.

    `from_diffusers` reads both from a folder.

    Args:
        unet: `UNet2DModel`, or another that is called as unet(x_t, step).
        scheduler: one with DDPM's table (DDPM, DDIM, DPM-Solver, Euler, Heun …) and prediction type epsilon, sample or
            v_prediction, or a flow-matching one.
        **arguments: given to the network at every call: class_labels, say.

    Raises:
        ValueError: a scheduler of another kind (EDM's preconditioning: `from_edm`), another prediction type.
    """
    name, config = type(scheduler).__name__, scheduler.config
    if name.startswith("FlowMatch"):
        return from_flow(unet, time_scale=config["num_train_timesteps"], **arguments)
    kept = getattr(scheduler, "alphas_cumprod", None)
    if kept is None:
        raise ValueError(f"{name} has no alphas_cumprod, and so not the noise levels of DDPM's table")
    if config["prediction_type"] not in _KINDS:
        raise ValueError(f"prediction_type must be one of {', '.join(_KINDS)}, got {config['prediction_type']!r}")
    return from_ddpm(unet, kept, _KINDS[config["prediction_type"]], **arguments)


def from_edm(
    network: Callable[..., Any],
    *,
    labels: Tensor | None = None,
    broadcast_sigma: bool = False,
    **arguments: Any,
) -> Denoiser:
    """A network that is a denoiser already, net(x, sigma) -> x0_hat, as EDM's preconditioned ones are.

    Args:
        network: net(x, sigma), x (B, *event), sigma (B,).
        labels: one class for all rows, given as class_labels: () as (B,), or (K,), one-hot say, as (B, K).
        broadcast_sigma: whether net is given sigma as (B, 1, …), ready to multiply x.
        **arguments: given to net at every call.

    Raises:
        ValueError: in calls, sigma not positive, not finite or of another shape; an answer of another shape than x.

    References:
        Karras, Aittala, Aila, Laine 2022, Table 1.

    Example:
        >>> from_edm(lambda x, sigma: x / (1 + sigma[:, None] ** 2))(torch.ones(1, 2), 1.0)
        tensor([[0.5000, 0.5000]])
    """
    return _Denoising(_Asked(network, arguments, broadcast_sigma), labels)


class _Denoising:
    """What `from_edm` makes."""

    def __init__(self, ask: _Asked, labels: Tensor | None):
        self._ask, self._labels = ask, labels

    def __call__(self, x: Tensor, sigma: Levels) -> Tensor:
        require_points(x)
        values, labels = levels(sigma, len(x), x.device), self._labels
        given = {} if labels is None else {"class_labels": labels.expand(len(x), *labels.shape)}
        return self._ask(x, values, **given)


class _InTime:
    """A network asked at t of another unit and, `backward`, of another direction, which turns its velocity round."""

    def __init__(self, ask: _Asked, time_scale: float, *, backward: bool = False):
        self._ask, self._scale, self._backward = ask, time_scale, backward

    def __call__(self, x_t: Tensor, t: Tensor) -> Tensor:
        return -self._ask(x_t, self._scale * (1 - t)) if self._backward else self._ask(x_t, self._scale * t)


class _Asked:
    """The network in evaluation mode, without gradients, on its own device and in its own precision; out like x."""

    def __init__(self, network: Callable[..., Any], arguments: dict[str, Any], broadcast: bool):
        if not callable(network):
            raise ValueError(f"a network is a function of (x, its noise level), got {type(network).__name__}")
        self._network, self._arguments, self._broadcast = network, arguments, broadcast
        self._alone = broadcast

    def __call__(self, x: Tensor, level: Tensor, **more: Tensor) -> Tensor:
        out = self._answer(x, level, **more)
        if not self._alone and 1 < len(x) == x.shape[-1]:
            self._check(x, level, out, more)
        return out

    def _check(self, x: Tensor, level: Tensor, out: Tensor, more: dict[str, Tensor]) -> None:
        """(B,) multiplies the columns of x where B is its width, without a word: look, once, at one row alone."""
        alone = self._answer(x[:1], level[:1], **{name: value[:1] for name, value in more.items()})
        if (alone - out[:1]).norm() > _ALIKE * torch.maximum(alone.norm(), out[:1].norm()):
            raise ValueError(
                f"the network answers the first of {len(x)} rows otherwise than alone: if it multiplies x, of that "
                "width, by its noise level, say broadcast_time=True (broadcast_sigma=True for from_edm)"
            )
        self._alone = True

    def _answer(self, x: Tensor, level: Tensor, **more: Tensor) -> Tensor:
        network = self._network
        own = (p for p in network.parameters() if p.is_floating_point()) if isinstance(network, nn.Module) else iter(())
        # In half precision a noise level would be another.
        like = next(own, x.to(torch.promote_types(x.dtype, torch.float32)))
        level = beside(level, x) if self._broadcast else level
        given = {k: v.to(like.device) if isinstance(v, Tensor) else v for k, v in (self._arguments | more).items()}
        level = level.to(like.device) if level.dtype == torch.int64 else level.to(like)
        try:
            with torch.no_grad(), _evaluating(network):
                answer = network(x.to(like), level, **given)
        except RuntimeError as error:
            channels = getattr(getattr(network, "config", None), "in_channels", x.shape[1])
            if channels != x.shape[1]:
                sentence = f"the network is for images of {channels} channels, x has shape {tuple(x.shape)}"
                raise ValueError(sentence) from error
            raise
        value = answer[0] if isinstance(answer, tuple) else getattr(answer, "sample", answer)
        if not isinstance(value, Tensor) or value.shape != x.shape:
            shape = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
            raise ValueError(f"the network must return the shape of x, {tuple(x.shape)}, got {shape}")
        return value.to(x)


@contextlib.contextmanager
def _evaluating(network: object) -> Iterator[None]:
    """Evaluation mode, and each part back in its own afterwards."""
    if not isinstance(network, nn.Module):
        yield
        return
    training = [module for module in network.modules() if module.training]
    network.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True
