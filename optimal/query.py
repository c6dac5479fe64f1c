"""What every denoiser is asked: points x, (B, *event), and their noise levels. Checked here, and nowhere else.

Shapes are checked at once. Values are checked by functions of their own, since inside torch.func's transforms they are
not known yet: there the check waits for the operation that reads them (`optimal.evaluate.derivatives`).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

__all__ = [
    "Levels",
    "beside",
    "level_list",
    "levels",
    "per_row",
    "require_finite",
    "require_levels",
    "require_points",
    "require_rows",
]

_IMAGE = 3
"""Axes of an image, (C, H, W)."""
Levels = float | Tensor | np.ndarray | Sequence[float]
"""Noise levels as they may be given: a number, or numbers in a list, array or tensor."""


def per_row(name: str, sigma: Levels, batch: int, device: torch.device | None = None, *, graph: bool = False) -> Tensor:
    """The noise level of every row of a batch, (B,) float64.

    Args:
        name: of the argument, for the message.
        sigma: float, (), (B,), or (B, 1, …, 1) as EDM's code has it; a number, list, array or tensor.
        batch: B, the number of rows.
        device: of the result; that of sigma unless given.
        graph: whether gradients flow to sigma.

    Raises:
        ValueError: sigma of another shape, or no numbers.
    """
    values = _numbers(name, sigma, device)
    values = values if graph else values.detach()
    if values.ndim > 1 and values.shape == (batch, *[1] * (values.ndim - 1)):
        values = values.flatten()
    if values.shape not in ((), (batch,)):
        raise ValueError(f"{name} must have shape () or (B,), got {tuple(values.shape)} with B = {batch}")
    return values.expand(batch).contiguous()


def levels(
    sigma: Levels,
    batch: int,
    device: torch.device | None = None,
    *,
    zero: bool = False,
    name: str = "sigma",
    graph: bool = False,
) -> Tensor:
    """`per_row`, and each of them is finite and positive, or 0 where `zero` allows it.

    Raises:
        ValueError: sigma of another shape, or a level that is not.
    """
    values = per_row(name, sigma, batch, device, graph=graph)
    require_levels(values, zero=zero, name=name)
    return values


def level_list(sigmas: Levels, *, zero: bool = False, name: str = "sigmas") -> Tensor:
    """Noise levels that are gone through one by one, (S,) float64, S >= 1, as `levels`; a number is a list of one.

    Raises:
        ValueError: sigmas of another shape, none, or a level that is not.
    """
    values = _numbers(name, sigmas).detach()
    if values.ndim > 1 or values.numel() == 0:
        raise ValueError(f"{name} must be one or more noise levels, (S,), got shape {tuple(values.shape)}")
    values = values.reshape(-1).clone()
    require_levels(values, zero=zero, name=name)
    return values


def require_levels(values: Tensor, *, zero: bool = False, name: str = "sigma") -> None:
    """Raise ValueError unless all values are finite and positive, or 0 where `zero` allows it."""
    usable = torch.isfinite(values) & ((values >= 0) if zero else (values > 0))
    if not usable.all():
        rule = "finite and not negative" if zero else "positive and finite"
        raise ValueError(f"{name} must be {rule}, got {float(values[~usable][0]):g}")


def require_points(x: Tensor, event: tuple[int, ...] | None = None, *, name: str = "x") -> None:
    """Raise ValueError unless x is a floating-point tensor (B, *event); with event=None, of any event shape."""
    if not isinstance(x, Tensor):
        raise ValueError(f"{name} must be a tensor, got {type(x).__name__}: torch.from_numpy makes one of an array")
    if x.ndim == 0 or (event is not None and tuple(x.shape[1:]) != event):
        shape = "*event" if event is None else ", ".join(map(str, event))
        raise ValueError(f"{name} must have shape (B, {shape}), got {tuple(x.shape)}{_meant(name, x, event)}")
    if not x.dtype.is_floating_point:
        raise ValueError(f"{name} must be floating point, got {x.dtype}")


def _meant(name: str, x: Tensor, event: tuple[int, ...] | None) -> str:
    """What makes points of this event of x, where that is only a matter of axes."""
    if event is not None and tuple(x.shape) == event:
        return f": {name}[None] is a batch of one"
    if event is not None and len(event) == _IMAGE and tuple(x.shape[-_IMAGE:]) == (*event[1:], event[0]):
        batch = "" if x.ndim == _IMAGE + 1 else "[None]"
        return f": {name}.movedim(-1, -3){batch} puts the channels first" if x.ndim <= _IMAGE + 1 else ""
    return ""


def require_rows(x: Tensor, event: tuple[int, ...], count: int, name: str) -> None:
    """Raise ValueError unless x is as for `require_points`, with as many rows as there are of what is given by row."""
    require_points(x, event)
    if len(x) != count:
        raise ValueError(f"{name} must be one a row: {count} of them for {len(x)} rows")


def require_finite(z: Tensor, *, name: str = "x") -> None:
    """Raise ValueError unless all values of z, (B, D), are finite."""
    finite = torch.isfinite(z).all(1)
    if not finite.all():
        raise ValueError(f"{name} must be finite, row {int((~finite).nonzero()[0])} is not")


def _numbers(name: str, values: Levels, device: torch.device | None = None) -> Tensor:
    """float64, with its graph."""
    if not isinstance(values, Tensor):
        try:
            values = torch.as_tensor(values, dtype=torch.float64, device=device or torch.device("cpu"))
        except (TypeError, ValueError, RuntimeError) as error:
            sentence = f"{name} must be a number or a list, array or tensor of numbers, got {str(values)[:60]!r}"
            raise ValueError(sentence) from error
    return values.to(device=device or values.device, dtype=torch.float64)


def beside(values: Tensor, x: Tensor) -> Tensor:
    """Values of rows, (B,), as (B, 1, …, 1), to be multiplied with x, (B, *event)."""
    return values.reshape(-1, *[1] * (x.ndim - 1))
