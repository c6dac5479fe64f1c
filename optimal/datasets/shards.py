"""Which of a folder's tables are one data set: splits and configurations by file names and folder names.

    train-00000-of-00002.parquet   train_00000_of_00002.parquet   train-0.parquet   train.parquet
    train/0000.parquet             CONFIG/train/0000.parquet      train/part-00000-….parquet
    train/data-00000-of-00001.arrow
    dataset_dict.json, {"splits": ["sunny", "rainy"]}, beside sunny/data-00000-of-00001.arrow

Of several splits one has to be named, of several configurations the folder has to be given: nothing is joined unasked.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import NamedTuple

from .folders import list_folder

__all__ = ["alone", "choose", "is_shard", "listed"]

_SPLITS = "dataset_dict.json"
"""Where Hugging Face's `save_to_disk` writes down the splits, each a folder beside it of whatever name."""

_WORDS = "training|train|testing|test|validation|valid|val|dev|evaluation|eval|holdout|unlabeled|unlabelled"
_OF = re.compile(r"(?P<split>.+?)[-_](?P<number>\d+)[-_]of[-_](?P<of>\d+)")
_WORD = re.compile(rf"({_WORDS})(?![a-z])", re.IGNORECASE)
_FOLDER = re.compile(rf"(?:partial-)?(?P<split>{_WORDS})", re.IGNORECASE)
_NUMBERED = re.compile(r"\d+|.*=.*|data")
"""Folders that say nothing of what is in them: shards, Hive's key=value, Hugging Face's data/."""


class _Shard(NamedTuple):
    name: str
    split: str
    configuration: str
    number: int | None
    of: int | None


def is_shard(name: str) -> bool:
    """Whether a file is taken for a part of a data set, by its name."""
    return name.lower().endswith(".parquet")


def listed(path: Path) -> list[str]:
    """The shards of a folder and of those in it, sorted as strings."""
    return [name for name in list_folder(path) if is_shard(name)]


def _written(path: Path, there: Iterable[str]) -> set[str]:
    """The folders that a file `dataset_dict.json` calls splits, relative to `path`.

    Raises:
        ValueError: if it says something else.
    """
    found: set[str] = set()
    for name in there:
        folder, slash, file = name.rpartition("/")
        if file == _SPLITS:
            try:
                splits = json.loads((path / name).read_bytes())["splits"]
                if not isinstance(splits, list) or not all(isinstance(split, str) for split in splits):
                    raise TypeError(splits)
                found |= {f"{folder}{slash}{split}" for split in splits}
            except (ValueError, TypeError, KeyError, RecursionError) as error:
                raise ValueError(f'{name} of {path} must be {{"splits": [name, …]}}, and is not') from error
    return found


def alone(file: Path) -> list[str]:
    """What is said of a file that is one of several by its name.

    Example:
        >>> alone(Path("train-00001-of-00005.parquet"))
        ['train-00001-of-00005.parquet is one of 5 shards of train; only its points are read']
    """
    shard = _placed(file.name) if "." in file.name else None
    if shard is None or shard.of is None or shard.of < 2:
        return []
    return [f"{file.name} is one of {shard.of} shards of {shard.split}; only its points are read"]


def choose(
    path: Path, split: str | None, names: Iterable[str], there: Iterable[str] = ()
) -> tuple[list[Path], list[str]]:
    """The files of one split, and what is to be said of them.

    Args:
        path: the folder.
        split: its name, "all" for whatever is there, or None if there is only one.
        names: the tables that are in it, as paths relative to it.
        there: all that is in it, where splits may be written down.

    Raises:
        ValueError: if there are several splits and none of them is named, several configurations, or two versions of
            the same shards.
    """
    written = _written(path, there)
    shards = _named([_placed(name, written) for name in names])
    splits = sorted({shard.split for shard in shards})
    if split == "all" or (split is None and len(splits) == 1):
        chosen = shards
    elif split is None or split not in splits:
        asked = "" if split is None else f", got {split!r}"
        known = ", ".join([*splits, "all"] if splits != [""] else ["all"])
        raise ValueError(f"split= must name one of the splits of {path}: {known}{asked}")
    else:
        chosen = [shard for shard in shards if shard.split == split]
    configurations = sorted({shard.configuration for shard in chosen})
    if len(configurations) > 1 and split != "all":
        names = ", ".join(name or "files in none" for name in configurations)
        raise ValueError(
            f"{path} holds {len(configurations)} data sets in folders of their own, {names}: give the folder of one, "
            'or split="all" for all that is there'
        )
    gone = sorted(folder for folder in written if not any(shard.name.startswith(f"{folder}/") for shard in shards))
    missing = [f"{_SPLITS} of {path} names {', '.join(gone)} too, of which nothing is there"] if gone else []
    return [path / shard.name for shard in chosen], [*missing, *_complete(chosen, path)]


def _placed(name: str, written: Collection[str] = ()) -> _Shard:
    *folders, file = name.split("/")
    known = next((i for i in range(len(folders)) if "/".join(folders[: i + 1]) in written), None)
    if known is not None:
        shard = _placed("/".join([*folders[:known], "train", *folders[known + 1 :], file]))
        return shard._replace(name=name, split=folders[known])
    stem = file[: file.rindex(".")]
    numbered, word = _OF.match(stem), _WORD.match(stem)
    within = next((found["split"] for part in reversed(folders) if (found := _FOLDER.fullmatch(part))), None)
    split = numbered["split"] if numbered else word[1] if word else within or ""
    if numbered and within and not word:  # test/part-00000-of-00002
        split = within
    others = [part for part in folders if not _FOLDER.fullmatch(part) and not _NUMBERED.fullmatch(part)]
    number, of = (int(numbered["number"]), int(numbered["of"])) if numbered else (None, None)
    return _Shard(name, split, "/".join(others), number, of)


def _named(shards: list[_Shard]) -> list[_Shard]:
    """Beside splits that have a name, the other files are splits called as they are: so they can be asked for."""
    if all(not shard.split for shard in shards):
        return shards
    return [shard if shard.split else shard._replace(split=Path(shard.name).stem) for shard in shards]


def _complete(shards: Iterable[_Shard], path: Path) -> list[str]:
    """What is said of missing shards; two versions of one split are refused."""
    groups: dict[tuple[str, str], list[_Shard]] = defaultdict(list)
    for shard in shards:
        groups[shard.configuration, shard.split].append(shard)
    notes = []
    for (_, split), group in groups.items():
        counts = {shard.of for shard in group}
        if counts == {None}:
            continue
        if len(counts) > 1 or len({shard.number for shard in group}) < len(group):
            names = ", ".join(shard.name for shard in group[:4]) + (", …" if len(group) > 4 else "")
            raise ValueError(f"{path} holds more than one version of the shards of {split}: {names}; keep one of them")
        (of,) = counts
        if of is not None and len(group) != of:
            notes.append(f"{len(group)} of {of} shards of {split} are there in {path}; only their points are read")
    return notes
