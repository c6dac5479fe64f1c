"""Where is computed."""

from __future__ import annotations

import torch

__all__ = ["device_of"]


def device_of(device: str | torch.device = "auto") -> torch.device:
    """A device by its name; "auto" is CUDA's current one, or the CPU where there is none.

    Other accelerators are taken where they are named: noise levels are float64, which not all of them have.

    Raises:
        ValueError: no device, or one that is not there.
    """
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        chosen = torch.device(device)
        torch.empty(0, device=chosen)
    except (RuntimeError, AssertionError, NotImplementedError, ImportError):
        chosen = torch.device("meta")
    if chosen.type == "meta":
        known = ["cpu", *(f"cuda:{i}" for i in range(torch.cuda.device_count()))]
        known += ["mps"] if torch.backends.mps.is_available() else []
        raise ValueError(f"device must be auto or one that is there ({', '.join(known)}), got {str(device)!r}")
    return chosen
