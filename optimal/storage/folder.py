"""The folder that keeps what is made once: decoded data, bases, networks, compiled formulas."""

from __future__ import annotations

import atexit
import functools
import os
import shutil
import tempfile
import warnings
from pathlib import Path

__all__ = ["cache_folder"]


def cache_folder() -> Path:
    """The folder that holds the entries: `OPTIMAL_CACHE` if set, otherwise the user's cache folder.

    If it cannot be written to, a warning is given and a temporary folder serves until the process ends.
    """
    import platformdirs

    chosen = os.environ.get("OPTIMAL_CACHE")
    try:
        folder = Path(chosen or platformdirs.user_cache_dir("optimal-diffusion"))
        folder = folder.expanduser()
    except RuntimeError as error:  # no such user, or one without a home
        return _fallback(str(chosen or "~"), str(error))
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        return _fallback(str(folder), str(error))
    return folder


@functools.cache
def _fallback(folder: str, reason: str) -> Path:
    warnings.warn(
        f"the cache folder {folder} cannot be written to ({reason}), so decoded data is kept in a temporary folder and "
        "lost at exit; set OPTIMAL_CACHE to a folder that can be written to",
        RuntimeWarning,
        stacklevel=4,
    )
    temporary = tempfile.mkdtemp(prefix="optimal-")
    atexit.register(shutil.rmtree, temporary, ignore_errors=True)
    return Path(temporary)
