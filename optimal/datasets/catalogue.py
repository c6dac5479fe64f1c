"""The data sets that have a name, and `load`, which finds those and the user's own files."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, get_type_hints

from ..converted import converted, shown
from ..numbers import require_whole
from . import embedded, files, memory, patches, toy
from .dataset import Dataset
from .derive import Part, derive

__all__ = ["load", "names", "options_of", "parse_options", "with_options"]

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


_OPTION = re.compile(
    r"\b(resolution|value_range|column|label_column|label_key|labels|layout|shape|split|key|skip_unreadable)="
    r"(\([^()]*\)|\"[^\"]*\"|[\w,]*)"
)
"""An option of a reader as messages name it, and the value that they give it, if any."""
_OF_ALL: dict[str, Any] = {"only": Part | None, "without": Part | None, "n": int | None, "xflip": bool}
"""Options that every data set has, and what they are."""


def names() -> list[str]:
    """The data sets that are always there, the toys first."""
    return list(_EMBEDDED)


def load(
    name_or_path: Any,
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
        name_or_path: one of `names()`, or the path of a file or folder; or data in memory, see `memory`: an array, a
            tensor, a list of points, a `Dataset`, torch's `Dataset` or `DataLoader`.
        only: (i, k) keeps every k-th point, from point i on: `only=(9, 10)` is a tenth of the data.
        without: (i, k) keeps all others: `without=(9, 10)` is what a network is trained on that is to be held to points
            that it has not seen.
        n: how many points: of `ring`, `spiral`, `grid` and `patches` so many are made; of all others so many are kept,
            spread evenly in their order. None means the default, or all.
        xflip: whether the mirror image of every image is appended, which doubles N.
        progress: whether a progress bar is drawn on stderr while decoding. Nothing else is printed, but where another
            process is decoding the same data and has to be waited for.
        **options: those of the data set, e.g. `positions=(-1.0, 0.0, 2.0)` or `resolution=64`. Words are taken for
            values, `xflip="no"`, by what each option is.

    Returns:
        The data set.

    Raises:
        ValueError: for an unknown name or option, and for data that breaks a rule; the sentence says which.

    Example:
        >>> load("ring", n=4).event
        (2,)
    """
    make, given = _source(name_or_path)
    name = _called(name_or_path)
    every = {"only": only, "without": without, "n": n, "xflip": xflip} | options
    own = _converted(name, make, every)
    kept = {name: own.pop(name) for name in _OF_ALL}
    count = kept["n"]
    if count is not None:
        require_whole("n", count)
    known = _kinds(make)
    if "n" in known and count is not None:
        own["n"], kept["n"] = count, None
    if "progress" in known:
        own["progress"] = progress
    try:
        return derive(make(**given, **own), **kept, progress=progress)
    except OSError as error:
        what = error.filename or name
        raise ValueError(f"{what} could not be read or written: {error.strerror or error}") from error


def parse_options(texts: Iterable[str]) -> dict[str, str]:
    """Options from the command line, each name=value, as words: what they mean is known to whom they are given.

    Names may have dashes, as options of commands do: skip-unreadable=true.

    Raises:
        ValueError: one that is not name=value.

    Example:
        >>> parse_options(["n=1000", "value_range=0,1", "key=images"])
        {'n': '1000', 'value_range': '0,1', 'key': 'images'}
    """
    options: dict[str, str] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise ValueError(f"--option must be name=value, got {shown(text)}")
        options[name.replace("-", "_")] = value
    return options


def options_of(name_or_path: str | os.PathLike[str], options: Mapping[str, Any]) -> dict[str, Any]:
    """Options of a data set, words among them, as the values that they are.

    Raises:
        ValueError: as for `load`, which need not be called for that.

    Example:
        >>> options_of("ring", {"n": "12", "radius": "0.5", "xflip": "no"})
        {'n': 12, 'radius': 0.5, 'xflip': False}
    """
    return _converted(_called(name_or_path), _source(name_or_path)[0], options)


def with_options(error: Exception | str) -> str:
    """What an error or warning says, and where it names an option of `load`, how the command line is told of it.

    Example:
        >>> with_options(ValueError("its images differ in size; resolution=64 crops and resizes all of them"))
        'its images differ in size; resolution=64 crops and resizes all of them (here: --option resolution=64)'
        >>> with_options("split= must name one of the splits of folder: test, train, all")
        'split= must name one of the splits of folder: test, train, all (here: --option split=test)'
    """
    text = str(error)
    named = _OPTION.search(text)
    if named is None or "-option " in text:
        return text
    listed = re.search(r" must name [^:]+: ([^\s,]+)(, |$)", text)
    value = re.sub(r"[()\"' ]", "", named[2]) or (listed[1] if listed else "…")
    value = {"True": "true", "lowest,highest": "LOWEST,HIGHEST"}.get(value, value)
    return f"{text} (here: --option {named[1]}={value})"


def _called(name_or_path: Any) -> str:
    known = isinstance(name_or_path, str | os.PathLike)
    return os.fspath(name_or_path) if known else type(name_or_path).__name__


def _source(name_or_path: Any) -> tuple[Callable[..., Dataset], dict[str, Any]]:
    """What makes or reads the data, and where they lie."""
    if not isinstance(name_or_path, str | os.PathLike):
        return memory.read_memory, {"source": name_or_path}
    text = os.fspath(name_or_path)
    if isinstance(name_or_path, str) and text in _EMBEDDED:
        return _EMBEDDED[text], {}
    path = _path(text)
    if path is None:
        raise ValueError(_unknown(text))
    return files.reader(path), {"path": path}


def _kinds(make: Callable[..., Dataset]) -> dict[str, Any]:
    """The parameters of a reader, and what each is annotated as."""
    return {name: kind for name, kind in get_type_hints(make).items() if name not in ("path", "source", "return")}


def _converted(name: str, make: Callable[..., Dataset], options: Mapping[str, Any]) -> dict[str, Any]:
    allowed = _OF_ALL | {option: kind for option, kind in _kinds(make).items() if option not in ("progress", "n")}
    for option in options:
        if option not in allowed:
            raise ValueError(f"{name} has no option {shown(option)}; its options are {', '.join(allowed)}")
    return {option: converted(option, value, allowed[option]) for option, value in options.items()}


def _path(text: str) -> Path | None:
    """An existing path, or None; a home that nobody has and a name that no file can have are none, nor is no name."""
    if not text.strip():
        return None
    try:
        path = Path(text).expanduser()
        return path if path.exists() else None
    except (RuntimeError, ValueError):
        return None


def _unknown(text: str) -> str:
    near = difflib.get_close_matches(text, _EMBEDDED, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]!r}? " if near else ""
    return f"unknown data set {text!r}, and no file or folder has this path; {hint}known are {', '.join(_EMBEDDED)}"
