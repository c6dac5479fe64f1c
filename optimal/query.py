"""What every denoiser is asked: points x, (B, *event), and their noise levels. Checked here, and nowhere else."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["beside", "levels", "per_row", "require_points"]


def per_row(name: str, sigma: float | Tensor, batch: int, device: torch.device | None = None) -> Tensor:
    """The noise level of every row of a batch, (B,) float64, without gradients.

    Args:
        name: of the argument, for the message.
        sigma: float, (), (B,), or (B, 1, …, 1) as EDM's code has it.
        batch: B, the number of rows.
        device: of the result; that of sigma unless given.

    Raises:
        ValueError: sigma of another shape.
    """
    values = torch.as_tensor(sigma, dtype=torch.float64, device=device).detach()
    if values.ndim > 1 and values.shape == (batch, *[1] * (values.ndim - 1)):
        values = values.flatten()
    if values.shape not in ((), (batch,)):
        raise ValueError(f"{name} must have shape () or (B,), got {tuple(values.shape)} with B = {batch}")
    return values.expand(batch).contiguous()


def levels(
    sigma: float | Tensor, batch: int, device: torch.device | None = None, *, zero: bool = False, name: str = "sigma"
) -> Tensor:
    """`per_row`, and each of them is finite and positive, or 0 where `zero` allows it.

    Raises:
        ValueError: sigma of another shape, or a level that is not.
    """
    values = per_row(name, sigma, batch, device)
    usable = torch.isfinite(values) & ((values >= 0) if zero else (values > 0))
    if not usable.all():
        rule = "finite and not negative" if zero else "positive and finite"
        raise ValueError(f"{name} must be {rule}, got {float(values[~usable][0]):g}")
    return values


def require_points(x: Tensor, event: tuple[int, ...] | None = None) -> None:
    """Raise ValueError unless x is a floating-point tensor (B, *event); with event=None, of any event shape."""
    if not isinstance(x, Tensor):
        raise ValueError(f"x must be a tensor, got {type(x).__name__}: torch.from_numpy makes one of an array")
    if x.ndim == 0 or (event is not None and tuple(x.shape[1:]) != event):
        shape = "*event" if event is None else ", ".join(map(str, event))
        raise ValueError(f"x must have shape (B, {shape}), got {tuple(x.shape)}")
    if not x.dtype.is_floating_point:
        raise ValueError(f"x must be floating point, got {x.dtype}")


def beside(values: Tensor, x: Tensor) -> Tensor:
    """Values of rows, (B,), as (B, 1, …, 1), to be multiplied with x, (B, *event)."""
    return values.view(-1, *[1] * (x.ndim - 1))
