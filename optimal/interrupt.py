"""^C while `python -m optimal`, `neural` or `figures` still imports torch: one line and code 130, as ever after.

Python answers it with a traceback through whatever is being imported, and what is imported may take it for a failure
of its own. From here until `optimal.cli.run` takes over it ends the process at once: nothing has been begun. Only these
programs are meant: to whoever imports the library its signals are left.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Sequence
from typing import Any

__all__ = ["given_back", "is_program"]

_PROGRAMS = ("optimal", "neural", "figures")


def is_program(words: Sequence[str]) -> bool:
    """Whether the words with which Python was started, `sys.orig_argv`, run one of the programs."""
    rest = list(words[1:])
    while rest and rest[0].startswith("-"):
        word = rest.pop(0)
        if word.startswith("-m"):
            return (word[2:] or "".join(rest[:1])) in _PROGRAMS
        if word in ("-X", "-W"):
            del rest[:1]
    return False


def _end(*_: Any) -> None:
    os.write(2, b"interrupted\n")
    os._exit(130)


def given_back() -> None:
    """^C is an exception again."""
    if signal.getsignal(signal.SIGINT) is _end:
        signal.signal(signal.SIGINT, signal.default_int_handler)


if (
    is_program(sys.orig_argv)
    and threading.current_thread() is threading.main_thread()
    and signal.getsignal(signal.SIGINT) is signal.default_int_handler
):
    signal.signal(signal.SIGINT, _end)
