"""Where a network computes."""

from __future__ import annotations

import torch

__all__ = ["device_of"]


def device_of(device: str | torch.device = "auto") -> torch.device:
    """A device by its name; "auto" is CUDA's current one, or the CPU where there is none.

    Other accelerators are taken where they are named: noise levels are float64, which not all of them have.

    Raises:
        ValueError: it is not there.
    """
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        chosen = torch.device(device)
        torch.empty(0, device=chosen)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"device {str(device)!r} is not there: {str(error).splitlines()[0]}") from error
    return chosen
