"""The data sets that have a name, and `load`, which finds those and the user's own files."""

from __future__ import annotations

import ast
import difflib
import inspect
import os
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from . import embedded, files, patches, toy
from .dataset import Dataset
from .derive import Part, derive

__all__ = ["load", "names", "parse_options", "with_options"]

_EMBEDDED: dict[str, Callable[..., Dataset]] = {
    "five-deltas": toy.five_deltas,
    "two-points": toy.two_points,
    "ring": toy.ring,
    "spiral": toy.spiral,
    "grid": toy.grid,
    "digits": embedded.digits,
    "faces": embedded.faces,
    "emoji": embedded.emoji,
    "patches": patches.patches,
}


_OF_ALL = ("only", "without", "n", "xflip")
"""Options that every data set has."""


def names() -> list[str]:
    """The data sets that are always there, the toys first."""
    return list(_EMBEDDED)


def load(
    name_or_path: str | os.PathLike[str],
    *,
    only: Part | None = None,
    without: Part | None = None,
    n: int | None = None,
    xflip: bool = False,
    progress: bool = True,
    **options: Any,
) -> Dataset:
    """A data set by its name, or from the user's files, recognised by their path.

    A name goes before a path: a folder called `digits` is `./digits`. Which files are understood, and with which
    options, stands in `optimal.datasets.files`. The whole source is decoded once, whatever is kept of it.

    Args:
        name_or_path: one of `names()`, or the path of a file or folder.
        only: (i, k) keeps every k-th point, from point i on: `only=(9, 10)` is a tenth of the data.
        without: (i, k) keeps all others: `without=(9, 10)` is what a network is trained on that is to be held to points
            that it has not seen.
        n: how many points: of `ring`, `spiral`, `grid` and `patches` so many are made; of all others so many are kept,
            spread evenly in their order. None means the default, or all.
        xflip: whether the mirror image of every image is appended, which doubles N.
        progress: whether a progress bar is drawn on stderr while decoding. Nothing else is printed, but where another
            process is decoding the same data and has to be waited for.
        **options: those of the data set, e.g. `positions=(-1.0, 0.0, 2.0)` or `resolution=64`.

    Returns:
        The data set.

    Raises:
        ValueError: for an unknown name or option, and for data that breaks a rule; the sentence says which.

    Example:
        >>> load("ring", n=4).event
        (2,)
    """
    text = os.fspath(name_or_path)
    if isinstance(name_or_path, str) and text in _EMBEDDED:
        make, given = _EMBEDDED[text], options
    else:
        path = _path(text)
        if path is None:
            raise ValueError(_unknown(text))
        make, given = files.reader(path), {"path": path, **options}
    known = inspect.signature(make).parameters
    _check_options(text, known, options)
    if n is not None and (isinstance(n, bool) or not isinstance(n, int) or n < 1):
        raise ValueError(f"n must be a whole number of at least 1, got {n!r}")
    if "n" in known and n is not None:
        given, n = {**given, "n": n}, None
    if "progress" in known:
        given = {**given, "progress": progress}
    return derive(make(**given), only=only, without=without, n=n, xflip=xflip, progress=progress)


def parse_options(texts: Iterable[str]) -> dict[str, Any]:
    """Options of `load` from the command line, each name=value with a Python literal or, failing that, a word.

    Raises:
        ValueError: one that is not name=value.

    Example:
        >>> parse_options(["n=1000", "value_range=0,1", "key=images"])
        {'n': 1000, 'value_range': (0, 1), 'key': 'images'}
    """
    options: dict[str, Any] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise ValueError(f"--option must be name=value, got {text!r}")
        try:
            options[name] = ast.literal_eval(value)
        except (ValueError, SyntaxError):
            options[name] = value
    return options


def with_options(error: Exception) -> str:
    """What an error says, and where it names an option of `load`, how the command line is told of it.

    Example:
        >>> with_options(ValueError("its images differ in size; resolution= crops and resizes all of them"))
        'its images differ in size; resolution= crops and resizes all of them (here: --option resolution=…)'
    """
    text = str(error)
    named = re.search(r"\b(resolution|value_range|column|label_column|split|key)=", text)
    return f"{text} (here: --option {named[1]}=…)" if named and "-option " not in text else text


def _check_options(name: str, known: Mapping[str, inspect.Parameter], options: Mapping[str, Any]) -> None:
    allowed = [key for key in known if key not in ("path", "progress", "n")]
    for option in options:
        if option not in allowed:
            raise ValueError(f"{name} has no option {option!r}; its options are {', '.join([*_OF_ALL, *allowed])}")


def _path(text: str) -> Path | None:
    """An existing path, or None; a home that nobody has and a name that no file can have are none."""
    try:
        path = Path(text).expanduser()
        return path if path.exists() else None
    except (RuntimeError, ValueError):
        return None


def _unknown(text: str) -> str:
    near = difflib.get_close_matches(text, _EMBEDDED, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]!r}? " if near else ""
    return f"unknown data set {text!r}, and no file or folder has this path; {hint}known are {', '.join(_EMBEDDED)}"
