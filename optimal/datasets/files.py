"""The user's own data, recognised by its path.

| path                                 | what                         | options                                 |
|--------------------------------------|------------------------------|-----------------------------------------|
| `*.zip`                              | images, EDM's layout or any  | resolution                              |
| a folder with images                 | images                       | resolution                              |
| `*.npy`, `*.npz`                     | images or points             | layout, value_range (`.npz` also key)   |
| `*.parquet` or a folder of them      | Hugging Face's images        | split, column, label_column, resolution |
| `*-ubyte.gz`, `*-ubyte`, `*.idx*.gz` | MNIST's format               |                                         |
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from . import archives, arrays, idx, parquet
from .dataset import Dataset
from .pictures import is_picture

__all__ = ["reader"]

_BY_SUFFIX: dict[str, Callable[..., Dataset]] = {
    ".zip": archives.read_zip,
    ".npy": arrays.read_npy,
    ".npz": arrays.read_npz,
    ".parquet": parquet.read_parquet,
    ".gz": idx.read_idx,
}


def reader(path: Path) -> Callable[..., Dataset]:
    """The function that reads what lies at `path`; it takes `path`, `progress` and its own options by keyword.

    Args:
        path: an existing file or folder.

    Raises:
        ValueError: if nothing here reads such a file, or a folder holds neither images nor parquet files, or both.
    """
    if path.is_dir():
        names = archives.list_folder(path)
        images, shards = any(map(is_picture, names)), any(name.endswith(".parquet") for name in names)
        if images and shards:
            raise ValueError(f"{path} holds both images and parquet files; give the folder of one kind")
        return parquet.read_parquet if shards else archives.read_folder
    if not path.is_file():
        raise ValueError(f"{path} is neither a file nor a folder, but a pipe or device")
    found = _BY_SUFFIX.get(path.suffix.lower())
    if found is not None:
        return found
    if idx.is_idx(path):
        return idx.read_idx
    raise ValueError(f"{path} is no data set: {', '.join(_BY_SUFFIX)}, an idx file or a folder of images is read")
