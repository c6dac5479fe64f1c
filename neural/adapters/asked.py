"""How a network is asked: on its device, in its precision, its noise level in float32 or float64; the answer like x.

`ask` is one call, `Asked` a network with all that is said once about its calls. Adapters ask through the second, in
evaluation mode and, outside of `derivatives`, without gradients; `neural.precondition` asks through the first, in
training too.

Half precision holds 11 bits or 8, and step 937 of 1,000 or ln σ needs more: levels are never rounded to the precision
of the weights. What a network does with its level it has to cast itself, as diffusers' and ours do.
"""

from __future__ import annotations

import contextlib
import contextvars
import inspect
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn

from optimal.query import beside

from . import labels
from .answers import value_of

__all__ = [
    "FAILURES",
    "TIMES",
    "Asked",
    "Order",
    "ask",
    "asks_first_for",
    "derivatives",
    "derivatives_wanted",
    "evaluating",
    "event_of",
    "place_of",
]

FAILURES = (RuntimeError, TypeError, AssertionError, LookupError, ArithmeticError, AttributeError)
"""What a network of somebody else may end with."""

Order = Literal["xt", "tx"]
"""Whether a network is called as net(x, t) or as net(t, x)."""

TIMES = ("t", "time", "times", "timestep", "timesteps", "step", "steps")
"""Names of a parameter that is a time."""

_DERIVATIVES = contextvars.ContextVar("derivatives", default=False)
_ALIKE = 1e-2
"""Relative: batches of another size round otherwise by far less, noise levels of other rows are off by far more."""
_COMPUTES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)
_MIXED = ("dtype", "scalar type", "Input type")
"""What torch says of operands in two precisions."""


@contextlib.contextmanager
def derivatives() -> Iterator[None]:
    """Within it, adapters and models give derivatives by x; without it they never do, whatever x asks for.

    So the solvers of inverse problems that ask a denoiser for its Jacobian run on a network, too.

    Example:
        >>> from neural import derivatives, open_model
        >>> from optimal import karras, sample
        >>> from optimal.conditional import dps
        >>> mask = torch.zeros(1, 8, 8, dtype=torch.bool)
        >>> mask[:, :4] = True
        >>> F = open_model("pretrained:digits", device="cpu")
        >>> x = 80 * torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))
        >>> with derivatives():
        ...     ends = sample(dps(F, (1, 8, 8), mask, torch.zeros(1, 8, 8), noise=1.0), x, karras(8))
        >>> (ends.shape, ends.requires_grad)
        (torch.Size([2, 1, 8, 8]), False)
    """
    token = _DERIVATIVES.set(True)
    try:
        with torch.enable_grad():
            yield
    finally:
        _DERIVATIVES.reset(token)


def derivatives_wanted() -> bool:
    """Whether this is within `derivatives`."""
    return _DERIVATIVES.get()


def ask(
    network: Callable[..., Any],
    x: Tensor,
    level: Tensor,
    arguments: Mapping[str, Any] | None = None,
    *,
    order: Order = "xt",
    broadcast: bool = False,
    dtype: torch.dtype | None = None,
) -> Tensor:
    """One answer of a network, (B, *event), on the device of x, in the precision of the answer.

    Args:
        network: net(x, level, **arguments), or net(level, x, **arguments).
        x: (B, *event).
        level: (B,): float32 or float64 as the network's weights are float64 or not; whole numbers stay what they are.
        arguments: further ones; tensors go to the network's device.
        order: how it is called.
        broadcast: whether it is given its level as (B, 1, …).
        dtype: in which x is given to a function, of which no weights are known; that of x unless given.

    Raises:
        ValueError: the network fails, or its answer is no tensor of the shape of x: one sentence that says so.
    """
    device, kinds = place_of(network)
    device, kinds = device or x.device, kinds or [torch.promote_types(dtype or x.dtype, torch.float32)]
    given = {k: v.to(device) if isinstance(v, Tensor) else v for k, v in (arguments or {}).items()}
    level = (beside(level, x) if broadcast else level).to(device)
    for kind in kinds:
        own, at = x.to(device, kind), level
        if level.dtype.is_floating_point:
            at = level.to(torch.float64 if kind == torch.float64 else torch.float32)
        try:
            answer = network(at, own, **given) if order == "tx" else network(own, at, **given)
        except torch.OutOfMemoryError as error:
            raise ValueError(
                f"{len(x)} rows at once do not fit the memory of {device}: give a smaller batch"
            ) from error
        except FAILURES as error:
            # Of weights in two precisions, nothing says which x meets first.
            mixed = isinstance(error, RuntimeError) and any(word in str(error) for word in _MIXED)
            if mixed and kind is not kinds[-1]:
                continue
            turned = order == "xt" and _answers(lambda: network(at, own, **given), own)  # noqa: B023
            raise ValueError(_failure(network, x, given, turned, kind, error)) from error
        return value_of(answer, x)
    raise AssertionError("no precision was tried")


class Asked:
    """A network, and what is the same in all of its calls: in evaluation mode and without gradients; out like x.

    Args:
        network: see `ask`.
        arguments: of every call.
        order, broadcast: see `ask`.

    Raises:
        ValueError: no function; net(t, x) that is not said to be one.

    Attributes:
        network: what was given.
        event: the shape of its points, where it says so itself.
    """

    def __init__(
        self,
        network: Callable[..., Any],
        arguments: Mapping[str, Any] | None = None,
        *,
        order: Order = "xt",
        broadcast: bool = False,
    ):
        if not callable(network):
            raise ValueError(f"a network is a function of (x, its noise level), got {type(network).__name__}")
        if order not in ("xt", "tx"):
            raise ValueError(f'order must be "xt" or "tx", got {order!r}')
        first = asks_first_for(network)
        if order == "xt" and first in TIMES:
            raise ValueError(f'the network is called as ({first}, x): say order="tx"')
        self.network, self.arguments, self.broadcast = network, dict(arguments or {}), broadcast
        self.order: Order = order
        self.event = event_of(network)
        self._alone = broadcast

    def __call__(self, x: Tensor, level: Tensor, dtype: torch.dtype | None = None, **more: Any) -> Tensor:
        """(B, *event), in the dtype and on the device of x; see `ask`."""
        given = labels.understood(self.network, self.arguments | more, len(x))
        out = self._answer(x, level, dtype, given)
        if not self._alone and 1 < len(x) == x.shape[-1]:
            self._check(x, level, dtype, out, given)
        return out

    def _check(
        self, x: Tensor, level: Tensor, dtype: torch.dtype | None, out: Tensor, given: Mapping[str, Any]
    ) -> None:
        """(B,) multiplies the columns of x where B is its width, without a word: look, once, at one row alone."""
        rows = len(x)
        first = {k: v[:1] if isinstance(v, Tensor) and v.ndim and len(v) == rows else v for k, v in given.items()}
        alone = self._answer(x[:1], level[:1], dtype, first)
        if (alone - out[:1]).norm() > _ALIKE * torch.maximum(alone.norm(), out[:1].norm()):
            raise ValueError(
                f"the network answers the first of {rows} rows otherwise than alone: if it multiplies x, of that "
                "width, by its noise level, say broadcast_time=True (broadcast_sigma=True for from_edm)"
            )
        self._alone = True

    def _answer(self, x: Tensor, level: Tensor, dtype: torch.dtype | None, given: Mapping[str, Any]) -> Tensor:
        with torch.set_grad_enabled(derivatives_wanted()), evaluating(self.network):
            out = ask(self.network, x, level, given, order=self.order, broadcast=self.broadcast, dtype=dtype)
            return out.to(x)


def place_of(network: object) -> tuple[torch.device | None, list[torch.dtype]]:
    """Where the weights of a module are, and the precisions that it may compute in, that of most weights first.

    Weights that are only kept in eight bits are computed with in another precision.
    """
    if not isinstance(network, nn.Module):
        return None, []
    tensors = list(network.parameters()) or list(network.buffers())
    weights = dict.fromkeys(_COMPUTES, 0)
    for tensor in tensors:
        if tensor.dtype in weights:
            weights[tensor.dtype] += tensor.numel()
    narrow = any(tensor.is_floating_point() and tensor.dtype not in weights for tensor in tensors)
    device = tensors[0].device if tensors else None
    found = sorted((kind for kind in _COMPUTES if weights[kind]), key=lambda kind: -weights[kind])
    rest = [kind for kind in (torch.float32, torch.bfloat16, torch.float16) if narrow and kind not in found]
    return device, found + rest


def event_of(network: object) -> tuple[int, ...] | None:
    """The shape of the points that a network says it is for: a diffusers configuration, EDM's attributes."""
    config = getattr(network, "config", None)
    channels, size = getattr(config, "in_channels", None), getattr(config, "sample_size", None)
    if channels is None or size is None:
        channels, size = getattr(network, "img_channels", None), getattr(network, "img_resolution", None)
    if not isinstance(channels, int) or not isinstance(size, int | tuple | list):
        return None
    height, width = (size, size) if isinstance(size, int) else (size[0], size[-1])
    return channels, int(height), int(width)


def asks_first_for(network: Callable[..., Any]) -> str | None:
    """The name of the first parameter of a network."""
    try:
        parameters = inspect.signature(getattr(network, "forward", network)).parameters
    except (TypeError, ValueError):
        return None
    return next(iter(parameters), None)


def _answers(call: Callable[[], Any], x: Tensor) -> bool:
    """Whether a call gives something like x."""
    try:
        value_of(call(), x)
    except Exception:
        return False
    return True


def _failure(
    network: object, x: Tensor, given: Mapping[str, Any], turned: bool, kind: torch.dtype, error: Exception
) -> str:
    name = getattr(network, "__name__", None) or type(network).__name__
    event, shape = event_of(network), tuple(x.shape[1:])
    if event is not None and event != shape:
        return f"{name} is made for points of shape {event}, x has {shape}"
    reason = " ".join(str(error).split())[:200] or type(error).__name__
    hints = []
    if kind in (torch.bfloat16, torch.float16) and any(word in str(error) for word in _MIXED):
        hints.append(
            f"noise levels stay in float32: a network in {str(kind).removeprefix('torch.')} casts what it makes of them"
        )
    lacking = labels.wanted(network, given)
    if lacking is not None:
        hints.append(lacking)
    elif turned:
        hints.append('it answers where it is called as (t, x): say order="tx"')
    hint = f" ({'; '.join(hints)})" if hints else ""
    return f"{name} failed on points of shape {shape}: {reason}{hint}"


@contextlib.contextmanager
def evaluating(network: object) -> Iterator[None]:
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
