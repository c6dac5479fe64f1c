"""The cache: files and folders that are whole or not there, entries of arrays, fingerprints. It knows no data set."""

from .atomic import remove_abandoned, replacing, temporary_folder
from .entries import (
    ArrayWriter,
    Entry,
    commit,
    describe,
    is_full,
    lock_of,
    made_once,
    open_entry,
    read_json,
    write_json,
)
from .fingerprints import fingerprint, fingerprint_of_blocks
from .folder import cache_folder
from .processes import locked, running

__all__ = [
    "ArrayWriter",
    "Entry",
    "cache_folder",
    "commit",
    "describe",
    "fingerprint",
    "fingerprint_of_blocks",
    "is_full",
    "lock_of",
    "locked",
    "made_once",
    "open_entry",
    "read_json",
    "remove_abandoned",
    "replacing",
    "running",
    "temporary_folder",
    "write_json",
]
