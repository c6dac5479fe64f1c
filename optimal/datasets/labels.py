"""Labels of images: EDM's `dataset.json`, or the folders that they lie in. They are carried, never conditioned on."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from .folders import hidden
from .notes import groups, tell

__all__ = ["FILE", "as_labels", "class_names_in", "files_of_labels", "folder_labels", "read_labels"]

FILE = "dataset.json"


def files_of_labels(there: Iterable[str], images: Sequence[str]) -> list[str]:
    """Where the labels stand: `dataset.json` at the top or, failing that, in the folders inside that hold images.

    Args:
        there: all files, with slashes.
        images: those that are images.
    """
    found = sorted(name for name in there if name.rpartition("/")[2] == FILE and not hidden(name))
    if FILE in found:
        return [FILE]
    return [name for name in found if any(image.startswith(name[: -len(FILE)]) for image in images)]


def read_labels(texts: Mapping[str, bytes], images: Sequence[str], where: str) -> np.ndarray | None:
    """The labels of EDM's `dataset.json`: {"labels": [["00000/img00000000.png", 3], ...]} or {"labels": null}.

    Args:
        texts: the files of labels by their path, each of which names images relative to its own folder.
        images: in the order in which their labels are wanted.
        where: what holds them, for messages.

    Returns:
        int64 (N,), float32 (N, K), or None where there are no labels.

    Raises:
        ValueError: if a file is malformed, or an image has no label, or two.
    """
    known: dict[str, Any] = {}
    for file, text in texts.items():
        folder = file[: -len(FILE)]
        try:
            listed = [(str(name), label) for name, label in json.loads(text).get("labels") or ()]
        except (ValueError, TypeError, AttributeError, RecursionError) as error:
            how = f": {error}" if isinstance(error, json.JSONDecodeError) else ""
            raise ValueError(f'{file} of {where} must be {{"labels": [[name, label], ...]}}{how}') from error
        for name, label in listed:
            path = folder + name.replace("\\", "/").removeprefix("./")
            if path in known and known[path] != label:
                raise ValueError(f"{file} of {where} gives {name} two labels, {known[path]} and {label}")
            known[path] = label
    if not known:
        return None
    plain = [name.replace("\\", "/") for name in images]
    missing = next((name for name in plain if name not in known), None)
    if missing is not None:
        raise ValueError(f"{', '.join(texts)} of {where} has no label for {missing}")
    others = len(known) - len(set(plain))
    tell([f"{others} of the {len(known)} labels of {where} are of images that are not there"] if others else [])
    return as_labels([known[name] for name in plain], where)


def folder_labels(images: Sequence[str]) -> tuple[np.ndarray, list[str]]:
    """The folder of each image, at the first level at which they differ, and the names of all in their order: (N,)."""
    folders = groups(images)
    names = sorted(set(folders))
    number = {name: i for i, name in enumerate(names)}
    return np.array([number[name] for name in folders], dtype=np.int64), names


def class_names_in(metadata: Mapping[bytes, bytes] | None, column: str) -> list[str]:
    """What the classes of a column are called, by what Hugging Face writes into the schema; none where it does not.

    Args:
        metadata: of the schema.
        column: of the labels.
    """
    try:
        features = json.loads((metadata or {})[b"huggingface"])["info"]["features"]
        return [str(name) for name in features[column]["names"]]
    except (ValueError, KeyError, TypeError, RecursionError):
        return []


def as_labels(values: Sequence[Any], where: str) -> np.ndarray:
    """Labels as int64 (N,) or (N, K), or float32 where they are no whole numbers.

    Raises:
        ValueError: if they are neither numbers nor equally long lists of numbers.
    """
    try:
        labels = np.asarray(values)
    except (ValueError, OverflowError) as error:
        raise ValueError(f"the labels of {where} must be numbers or equally long lists of numbers") from error
    if labels.dtype.kind not in "biuf" or labels.ndim not in (1, 2):
        raise ValueError(f"the labels of {where} must be numbers or equally long lists of numbers")
    if labels.dtype.kind == "u" and labels.size and int(labels.max()) > np.iinfo(np.int64).max:
        raise ValueError(f"the labels of {where} must be below 2⁶³, got {labels.max()}")
    return labels.astype(np.float32 if labels.dtype.kind == "f" else np.int64)
