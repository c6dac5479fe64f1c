"""What is too large is said before any work: numbers of values that no memory holds, levels whose noise overflows."""

from __future__ import annotations

from ..devices import main_memory

__all__ = ["require_room", "require_single"]

_LARGEST = 1e37
"""Of a noise level: noise of ten times as much is still a single-precision number."""


def require_room(name: str, count: int, values: int = 1) -> None:
    """Raise ValueError where `count` things of so many float32 values are more than all memory of this machine.

    Args:
        name: of the option that asks for them, "n".
        count: how many.
        values: of each.
    """
    there = main_memory()
    if there is not None and 4 * count * values > there:
        each = f" of {values:,} values" if values > 1 else ""
        most = there // (4 * values)
        raise ValueError(
            f"{name} must be at most {most:,}, as many{each} as fit into this machine's memory, got {count:,}"
        )


def require_single(name: str, sigma: float) -> None:
    """Raise ValueError for what is no noise level, or one whose noise no single-precision number holds."""
    if not sigma > 0:
        raise ValueError(f"{name} must be positive and finite, got {sigma:g}")
    if sigma > _LARGEST:
        raise ValueError(f"{name} must be at most {_LARGEST:g}: noise is drawn in single precision, got {sigma:g}")
