"""Where a network computes."""

from __future__ import annotations

import torch

__all__ = ["device_of"]


def device_of(device: str | torch.device = "auto") -> torch.device:
    """A device by its name; "auto" is the first accelerator, or the CPU where there is none.

    Raises:
        ValueError: it is not there.
    """
    if device == "auto":
        found = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
        return found or torch.device("cpu")
    try:
        chosen = torch.device(device)
        torch.empty(0, device=chosen)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"device {str(device)!r} is not there: {str(error).splitlines()[0]}") from error
    return chosen
