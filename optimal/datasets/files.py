"""The user's own data, recognised by its path.

| path                               | what                        | options                                       |
|------------------------------------|-----------------------------|-----------------------------------------------|
| `*.zip`, a folder of images        | images, EDM's layout or any | resolution, labels, value_range, …            |
| `*.npy`                            | images or points            | layout, shape, value_range                    |
| `*.npy` in a folder or zip         | points, such as latents     | value_range                                   |
| `*.npz`                            | images or points            | key, label_key, and those of `.npy`           |
| `*.parquet` or a folder of them    | Hugging Face's images       | split, column, label_column, and all above     |
| `*.arrow` or a folder of them      | what `save_to_disk` writes  | the same                                      |
| `*-ubyte.gz`, `*-ubyte`, `*.idx*`  | MNIST's format              | value_range                                   |
| `cifar-*.tar.gz`, or unpacked      | CIFAR, Python's or binary   | split, label_key, value_range                 |

Where points are files or rows of their own, `skip_unreadable=True` leaves out those that cannot be read.

The first bytes of a file decide what it is, before its suffix. Whatever is joined, left out, cut or changed on the way
is a `UserWarning` of one line, with numbers.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from . import archives, arrays, arrow, cifar, idx, members, npz, parquet
from .beginnings import beginning, is_gzipped, named, refuse_pointer
from .dataset import Dataset
from .folders import list_folder
from .pictures import is_picture
from .shards import is_shard

__all__ = ["reader"]

_BY_SUFFIX: dict[str, Callable[..., Dataset]] = {
    ".zip": archives.read_zip,
    ".npy": arrays.read_npy,
    ".npz": npz.read_npz,
    ".parquet": parquet.read_parquet,
    ".gz": idx.read_idx,
}


_BY_BEGINNING: dict[str, Callable[..., Dataset]] = {
    "a npy array": arrays.read_npy,
    "a parquet file": parquet.read_parquet,
    "an Arrow file": arrow.read_arrow,
    "an Arrow stream": arrow.read_arrow,
    "an idx file": idx.read_idx,
}
_TAR, _PICKLE = "a tar archive", "a pickle"
_ODD = 3
"""So many pictures beside parquet files are a preview, more are a data set of their own."""


def reader(path: Path) -> Callable[..., Dataset]:
    """The function that reads what lies at `path`; it takes `path`, `progress` and its own options by keyword.

    The first bytes decide, then the suffix.

    Args:
        path: an existing file or folder.

    Raises:
        ValueError: if nothing here reads such a file, or a folder holds neither images nor parquet files, or both.
    """
    if path.is_dir():
        return _of_folder(path)
    if not path.is_file():
        raise ValueError(f"{path} is neither a file nor a folder, but a pipe or device")
    head = beginning(path)
    refuse_pointer(head, str(path))
    if path.stat().st_size == 0:
        raise ValueError(f"{path} is empty, a file of 0 bytes")
    if cifar.is_binary_batch(path):
        return cifar.read_cifar  # it begins with a label, which may be any byte
    what, suffix = named(head), path.suffix.lower()
    if what in ("a zip file", "an empty zip file"):
        return npz.read_npz if suffix == ".npz" else _of_zip(path)
    if (what == _TAR and cifar.has_batches(path)) or (what == _PICKLE and cifar.is_batch(path.name)):
        return cifar.read_cifar
    packed = is_gzipped(path)
    if what in _BY_BEGINNING and not (packed and what != "an idx file"):
        return _BY_BEGINNING[what]
    if what is not None or suffix not in _BY_SUFFIX or path.name.lower().endswith((".tar.gz", ".nii.gz", ".npy.gz")):
        found = f"{what or 'something unknown'} in gzip" if packed else what
        is_called = f" it is {found};" if found else ""
        hint = " unpack it first;" if what == _TAR else " no pickle but CIFAR's is read;" if what == _PICKLE else ""
        raise ValueError(
            f"{path} is no data set:{is_called}{hint} "
            f"{', '.join(_BY_SUFFIX)}, .arrow, an idx file, CIFAR's .tar.gz or a folder of images is read"
        )
    return _BY_SUFFIX[suffix]


def _of_folder(path: Path) -> Callable[..., Dataset]:
    names = list_folder(path)
    images, shards, tables = sum(map(is_picture, names)), sum(map(is_shard, names)), len(arrow.arrow_shards(names))
    if (images > _ODD) + (shards > 0) + (tables > 0) > 1:
        counts = {"images": images, "parquet files": shards, "Arrow files": tables}
        held = " and ".join(f"{count} {kind}" for kind, count in counts.items() if count)
        raise ValueError(f"{path} holds {held}; give the folder of one kind")
    if shards or tables:
        return parquet.read_parquet if shards else arrow.read_arrow
    if images == 0 and any(map(members.is_member, names)):
        return members.read_members
    if images == 0 and idx.images_in(path, names):
        return idx.read_idx_folder
    if images == 0 and cifar.batches_in(names):
        return cifar.read_cifar
    return archives.read_folder


def _of_zip(path: Path) -> Callable[..., Dataset]:
    with archives.open_zip(path) as archive:
        names = archive.namelist()
    if any(map(members.is_member, names)) and not any(map(is_picture, names)):
        return members.read_members_of_zip
    return archives.read_zip
