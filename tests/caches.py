"""What a cache folder holds."""

from __future__ import annotations

from pathlib import Path

__all__ = ["kept"]


def kept(folder: Path) -> list[Path]:
    """All that is in a cache folder, which may not be there, but the lock files: those stay."""
    return [path for path in folder.glob("*") if path.name != ".locks"]
