"""What is too large is said before any work: numbers of values that no memory holds, levels whose noise overflows."""

from __future__ import annotations

from ..devices import require_room

__all__ = ["require_room", "require_single"]

_LARGEST = 1e37
"""Of a noise level: noise of ten times as much is still a single-precision number."""


def require_single(name: str, sigma: float) -> None:
    """Raise ValueError for what is no noise level, or one whose noise no single-precision number holds."""
    if not sigma > 0:
        raise ValueError(f"{name} must be positive and finite, got {sigma:g}")
    if sigma > _LARGEST:
        raise ValueError(f"{name} must be at most {_LARGEST:g}: noise is drawn in single precision, got {sigma:g}")
