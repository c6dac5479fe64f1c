"""What CIFAR's classes are called, by the file beside the batches that says so.

    labels           batches.meta, label_names            batches.meta.txt
    fine_labels      meta, fine_label_names               fine_label_names.txt
    coarse_labels    meta, coarse_label_names             coarse_label_names.txt

The first of them is Python's version, a pickle, the second the binary one, a name a line.
"""

from __future__ import annotations

from collections.abc import Callable

from .pickles import plain_values

__all__ = ["class_names_of"]


def class_names_of(read: Callable[[str], bytes], key: str, *, binary: bool) -> list[str]:
    """The names of the classes 0, 1, …; none where the file is missing or says something else.

    Args:
        read: gives a file beside the batches by its name, or raises.
        key: which labels.
        binary: whether it is the binary version.
    """
    ten = key == "labels"
    try:
        if binary:
            text = read("batches.meta.txt" if ten else f"{key.removesuffix('s')}_names.txt").decode()
            return [line.strip() for line in text.splitlines() if line.strip()]
        found = plain_values(read("batches.meta" if ten else "meta"))[f"{key.removesuffix('s')}_names"]
        return [name.decode() if isinstance(name, bytes) else str(name) for name in found]
    except (ValueError, KeyError, OSError, TypeError):
        return []
