"""Pictures and points of a source that cannot be read: all of them are found, then refused or left out together."""

from __future__ import annotations

from collections.abc import Callable

from .notes import reason

__all__ = ["Unreadable", "attempted"]

_NAMED = 5


class Unreadable:
    """Those of one source.

    Args:
        where: what holds them, for messages.
        what: they are called, in the plural.
        skip: whether they are left out.
    """

    def __init__(self, where: str, what: str = "images", *, skip: bool = False):
        self._where, self._what, self._skip = where, what, skip
        self._names: list[str] = []
        self._first = ""

    def add(self, name: str, error: ValueError) -> None:
        """One of them, and why; the first reason is the one that is told."""
        self._first = self._first or str(error)
        self._names.append(name)

    def ended(self, total: int) -> list[str]:
        """What is said of those that are left out, once all are read.

        Args:
            total: how many there are, readable or not.

        Raises:
            ValueError: if there are some and they are not to be left out, or all of them are.
        """
        count = len(self._names)
        if not count:
            return []
        listed = ", ".join(self._names[:_NAMED]) + (", …" if count > _NAMED else "")
        said = f"{count} of the {total} {self._what} of {self._where} cannot be read"
        if self._skip and count < total:
            return [f"{said} and {'is' if count == 1 else 'are'} left out: {listed}"]
        if count == 1:
            out = "" if total == 1 else f"; skip_unreadable=True leaves it out of the {total} {self._what}"
            raise ValueError(self._first + out)
        out = "" if count == total else "; skip_unreadable=True leaves them out"
        raise ValueError(f"{said}: {listed}; the first of them: {self._first}{out}")


def attempted(name: str, read: Callable[[], bytes]) -> tuple[bytes, ValueError | None]:
    """What `read` gives, or why it cannot: one error does not end a source.

    Args:
        name: of what is read, for messages.
        read: raises ValueError, or OSError of the machine.
    """
    try:
        return read(), None
    except ValueError as error:
        return b"", error
    except OSError as error:
        return b"", ValueError(f"{name} cannot be read: {error.strerror or reason(error)}")
