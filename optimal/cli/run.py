"""How every command line ends: its exit code, and one line on stderr for whatever went wrong.

0     done
2     bad input, a file that cannot be read or written, too little memory: one sentence, "error: …"
130   interrupted by ^C
141   nobody reads what is printed any more, `… | head`: without a word, as other tools do
"""

from __future__ import annotations

import contextlib
import os
import sys
import warnings
from collections.abc import Callable
from typing import Any, TextIO

import torch
from tqdm import tqdm

from ..datasets import with_options
from ..interrupt import given_back

__all__ = ["run", "say"]

_MEMORY = ("out of memory", "can't allocate memory", "not enough memory")


def run(work: Callable[[], object], *, interrupted: str | Callable[[], str] = "interrupted") -> int:
    """Do what a command line asks for; returns its exit code.

    Args:
        work: parses and does everything, and prints what was asked for. It may end by SystemExit, as after --help.
        interrupted: what ^C is answered with.

    Warnings are one line each on stderr while it runs, the same one once only.
    """
    given_back()
    with warnings.catch_warnings():
        warnings.showwarning = _Warnings()
        try:
            return _ended(work)
        except BrokenPipeError:
            _silence(sys.stdout, sys.stderr)
            return 141
        except KeyboardInterrupt:
            say(interrupted if isinstance(interrupted, str) else interrupted())
            return 130


def say(text: str, *, file: TextIO | None = None) -> None:
    """One line on stderr, or another stream, beside a progress bar too."""
    tqdm.write(" ".join(text.split()), file=file or sys.stderr)


def _ended(work: Callable[[], object]) -> int:
    try:
        try:
            work()
        finally:
            # What is still in the buffer may find no room, or nobody to read it.
            sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        say(f"error: {error.filename or 'a file'} could not be read or written: {error.strerror or error}")
        with contextlib.suppress(OSError):
            sys.stdout.flush()
            return 2
        _silence(sys.stdout)
        return 2
    except ValueError as error:
        say(f"error: {with_options(error)}")
        return 2
    except (MemoryError, RuntimeError) as error:
        if not _is_memory(error):
            raise
        say("error: there is not enough memory for this: ask for fewer; where there is --batch, for fewer at once")
        return 2
    return 0


def _is_memory(error: Exception) -> bool:
    known = isinstance(error, MemoryError | torch.OutOfMemoryError)
    return known or any(words in str(error) for words in _MEMORY)


class _Warnings:
    """Warnings as lines, each once."""

    def __init__(self) -> None:
        self._told: set[str] = set()

    def __call__(self, message: Warning | str, *_: Any, **__: Any) -> None:
        text = str(message)
        if text not in self._told:
            self._told.add(text)
            say(f"warning: {with_options(message)}")


def _silence(*streams: TextIO) -> None:
    """Let what is left in their buffers go nowhere: Python flushes them once more when it ends."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in streams:
        # A stream that is no file, as under test, has nothing that could break.
        with contextlib.suppress(OSError, ValueError):
            os.dup2(nowhere, stream.fileno())
