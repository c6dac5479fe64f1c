"""Where is computed, and what there is room for."""

from __future__ import annotations

import os
from pathlib import Path

import torch

__all__ = ["block_bytes", "device_of", "main_memory", "require_room"]

_ON_A_GPU = 2**28
_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")
"""Where Linux says how much of a machine's memory a container may take, in its two ways."""


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


def block_bytes(in_cache: int, device: torch.device) -> int:
    """Bytes of a block of points that is worked on at once: `in_cache` of them on a CPU, whose cache it is to fit.

    A GPU launches a hundred kernels for a block, whatever its size: of 12 MB each, as on a CPU, 70,000 x 12,288 points
    kept an H200 at 1% of what its products can do (bench/results/gpu-nvidia-h200.json). There it is 256 MiB.
    """
    return in_cache if device.type == "cpu" else max(in_cache, _ON_A_GPU)


def main_memory() -> int | None:
    """Bytes of this machine's memory, or of what a container may take of it; None where the system does not say."""
    try:
        there = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):
        return None
    for name in _LIMITS:
        try:
            there = min(there, int(Path(name).read_text()))
        except (OSError, ValueError):  # no such file, or "max"
            continue
    return there


def require_room(name: str, count: int, values: int = 1, *, device: torch.device | None = None) -> None:
    """Raise ValueError where `count` things of so many float32 values are more than all memory there is.

    Args:
        name: of what asks for them, "n".
        count: how many.
        values: held for each at the same time.
        device: where they are; this machine's main memory unless it is a GPU.
    """
    on_gpu = device is not None and device.type == "cuda"
    there = torch.cuda.get_device_properties(device).total_memory if on_gpu else main_memory()
    if there is not None and 4 * count * values > there:
        each = f" of {values:,} values" if values > 1 else ""
        where = "the GPU's memory" if on_gpu else "this machine's memory"
        raise ValueError(
            f"{name} must be at most {there // (4 * values):,}, as many{each} as fit into {where}, got {count:,}"
        )
