"""Functions of one's own that return a network, by name: python:package.module.function."""

from __future__ import annotations

import difflib
import importlib
import inspect
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from .elsewhere import EXAMPLE

__all__ = ["PYTHON", "imported"]

PYTHON = "python:"
_WANTED = f"it should return the network with its weights, or what an adapter makes of it ({EXAMPLE})"


def imported(source: str) -> Any:
    """What python:package.module.function names, or what it returns where it is called without arguments.

    Raises:
        ValueError: no such module or function; it fails; it is a class, or returns none, weights without their network
            or a class: the sentence names the function and what it should return.
    """
    module, _, attribute = source.removeprefix(PYTHON).rpartition(".")
    if not module or not attribute:
        raise ValueError(f"python: names a function as package.module.function, got {source!r}")
    found = _attribute(source, module, attribute)
    if isinstance(found, type):
        raise ValueError(
            f"{source} is a class, and what it makes without arguments has whatever weights its constructor gives: "
            f"name a function that makes one, loads its weights and returns it ({EXAMPLE})"
        )
    if isinstance(found, nn.Module) or not callable(found) or _takes_points(found):
        return _required(found, f"{source} is")
    required = _required_arguments(found)
    if required:
        raise ValueError(
            f"{source} is called without arguments and wants {', '.join(required)}: name a function of no arguments; "
            f"{_WANTED}"
        )
    try:
        made = found()
    except Exception as error:
        raise ValueError(f"{source} failed: {type(error).__name__}: {' '.join(str(error).split())}") from error
    return _required(made, f"{source} returned")


def _attribute(source: str, module: str, attribute: str) -> Any:
    try:
        there = importlib.import_module(module)
    except ModuleNotFoundError as error:
        own = error.name is not None and (module == error.name or module.startswith(f"{error.name}."))
        raise ValueError(f"{source} cannot be imported: {error}{f'; {_searched()}' if own else ''}") from error
    except Exception as error:
        kind = "" if isinstance(error, ImportError | SyntaxError) else f"{type(error).__name__}: "
        raise ValueError(f"{source} cannot be imported: {kind}{' '.join(str(error).split())}") from error
    if not hasattr(there, attribute):
        near = difflib.get_close_matches(attribute, [name for name in vars(there) if not name.startswith("_")], 1)
        meant = f"; it has {near[0]}" if near else ""
        raise ValueError(f"{source} cannot be imported: module {module!r} has no attribute {attribute!r}{meant}")
    return getattr(there, attribute)


def _searched() -> str:
    """Whether the current folder is among those in which modules are looked for, and which that is."""
    here = Path.cwd()
    if any(Path(each or ".").resolve() == here for each in sys.path):
        return f"the current folder, {here}, is searched first: go to that of the module, or name it in PYTHONPATH"
    return f"the current folder, {here}, is not searched: name the module's folder in PYTHONPATH"


def _required(made: Any, subject: str) -> Any:
    """What was found or made, unless it is none of what `open_model` takes for a network."""
    if made is None:
        raise ValueError(f"{subject} None: {_WANTED}")
    if isinstance(made, type):
        raise ValueError(f"{subject} the class {made.__name__}: {_WANTED}")
    if isinstance(made, Mapping):
        alone = made and all(isinstance(value, Tensor) for value in made.values())
        what = "a state_dict, weights without their network" if alone else f"a {type(made).__name__}"
        raise ValueError(f"{subject} {what}: {_WANTED}")
    if not callable(made) and not isinstance(made, str | Path) and not hasattr(made, "unet"):
        raise ValueError(f"{subject} a {type(made).__name__}: {_WANTED}")
    return made


def _required_arguments(function: Callable[..., Any]) -> list[str]:
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return []
    open_ended = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return [p.name for p in parameters if p.default is p.empty and p.kind not in open_ended]


def _takes_points(function: Callable[..., Any]) -> bool:
    """Whether it is the denoiser itself: it cannot be called without arguments, and can be with (x, sigma)."""
    if not _required_arguments(function):
        return False
    try:
        inspect.signature(function).bind(None, None)
    except TypeError:
        return False
    return True
