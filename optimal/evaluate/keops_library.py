"""KeOps, so that it can be called wherever this runs: its compiler, its folder, one process at a time.

Left to itself it hands paths to a shell as they are, takes no compiler but CXX or g++, loads whatever file of the right
name it finds, even a half-written one, and says of a failure only that a module is missing. Here it is given a path of
plain characters and a compiler that was tried; what it does for the first time, its import and the first call of every
formula, which compiles for about 5 s, is done behind a lock; and what goes wrong is one sentence.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from ..packages import MissingPackage, required
from ..storage import cache_folder, locked, running

__all__ = ["Unavailable", "compiler", "imported", "plain_path", "reduction", "required_compiler"]

_MARK = "compiling-"
_FLAGS = ("-shared", "-fPIC", "-O3", "-std=c++11")
_FLAGS_OF_SYSTEM = {"Darwin": ("-undefined", "dynamic_lookup"), "Linux": ("-fopenmp", "-flto=auto")}
_PROBE = b'#include <cmath>\n#include <Python.h>\nextern "C" double probe(double x) { return std::exp(x); }\n'
_WRITTEN = re.compile(r"(pykeops_|nvrtc_jit|cubin_|ptx_|[0-9a-f]{10}\.).*")
"""Names of what KeOps compiles, in folders whose names end in the version of Python."""
_INSTEAD = "use method='dense'"


class Unavailable(ValueError):
    """KeOps cannot be used here: says why, in one sentence."""


def compiler() -> str | None:
    """The first of CXX, g++ and clang++ that makes a library of the kind that KeOps needs, tried once; else None."""
    return _compiler(*(os.environ.get(name, "") for name in ("CXX", "CXXFLAGS", "PATH")))


def required_compiler() -> str:
    """The same, or the one clear sentence.

    Raises:
        Unavailable: there is none.
    """
    chosen = compiler()
    if chosen is None:
        raise Unavailable(
            "method='keops' needs a C++ compiler (g++ or clang++ on the path) that works and finds Python.h: "
            f"install one or {_INSTEAD}"
        )
    return chosen


@functools.lru_cache(maxsize=1)
def imported() -> Path:
    """Import pykeops, on first use, since the import looks for compilers and writes to its folder; that folder.

    Raises:
        Unavailable: there is no compiler, or the import fails.
    """
    try:
        required("method='keops'", "pykeops")
    except MissingPackage as error:
        raise Unavailable(f"{error}, or {_INSTEAD}") from None
    chosen, given = required_compiler(), os.environ.get("KEOPS_CACHE_FOLDER")
    folder = Path(given).expanduser() if given else cache_folder() / "keops"
    folder.mkdir(parents=True, exist_ok=True)
    with _alone(folder, "importing KeOps"), contextlib.redirect_stdout(sys.stderr):
        # Quiet about the GPU that is not there when it is imported, but not about the seconds that it compiles.
        quiet = os.environ.get("KEOPS_VERBOSE", "0")
        with _environment(CXX=chosen, KEOPS_CACHE_FOLDER=plain_path(folder), KEOPS_VERBOSE=quiet):
            for file in () if given else folder.glob("*/*_cache.pkl"):
                file.unlink(missing_ok=True)
            try:
                import pykeops
                import pykeops.torch
            except Exception as error:
                raise Unavailable(f"method='keops' cannot import KeOps ({_reason(error)}): {_INSTEAD}") from error
            _unpickled()
        if "KEOPS_VERBOSE" not in os.environ and "PYKEOPS_VERBOSE" not in os.environ:
            pykeops.set_verbose(True)
    return folder


@functools.lru_cache(maxsize=64)
def reduction(kind: str, formula: str, aliases: tuple[str, ...]) -> Callable[..., Any]:
    """A reduction over the second axis, compiled when it is called for the first time.

    Args:
        kind, formula, aliases: as for `pykeops.torch.Genred`.

    Raises:
        Unavailable: KeOps cannot be imported; from the first call, the formula cannot be compiled or loaded.
    """
    folder = imported()
    from pykeops.torch import Genred

    reduce = Genred(formula, list(aliases), reduction_op=kind, axis=1)
    loaded = False

    def call(*arguments: Any) -> Any:
        nonlocal loaded
        if loaded:
            return reduce(*arguments)
        with _alone(folder, "compiling a formula of KeOps"), contextlib.redirect_stdout(sys.stderr):
            try:
                result = reduce(*arguments)
            except Exception as error:
                raise Unavailable(
                    f"method='keops' could not compile or load its formula ({_reason(error)}): {_INSTEAD}"
                ) from error
        loaded = True
        return result

    return call


@functools.lru_cache(maxsize=8)
def _compiler(cxx: str, flags: str, path: str) -> str | None:
    names = (cxx, *(("clang++", "g++") if platform.system() == "Darwin" else ("g++", "clang++")))
    return next((name for name in names if _works(name, flags, path)), None)


def _works(name: str, flags: str, path: str) -> bool:
    """Whether a compiler is there, can be named in a shell and makes a shared library that includes Python.h."""
    if not name or shlex.quote(name) != name or shutil.which(name, path=path) is None:
        return False
    include = f"-I{sysconfig.get_paths()['include']}"
    with tempfile.TemporaryDirectory() as folder:
        library = Path(folder) / "probe.so"
        options = [*_FLAGS, *_FLAGS_OF_SYSTEM.get(platform.system(), ()), include, "-x", "c++", "-", "-o"]
        try:
            command = [name, *shlex.split(flags), *options, str(library)]
            done = subprocess.run(command, input=_PROBE, capture_output=True, timeout=60)
        except (OSError, ValueError, subprocess.SubprocessError):
            return False
        return done.returncode == 0 and library.exists()


def plain_path(folder: Path) -> str:
    """The folder's absolute path, or that of a link to it where a shell would not read it as it stands."""
    path = str(folder.absolute())
    if shlex.quote(path) == path:
        return path
    link = os.path.join(tempfile.mkdtemp(prefix="optimal-keops-"), "keops")
    atexit.register(shutil.rmtree, os.path.dirname(link), ignore_errors=True)
    if shlex.quote(link) != link:
        raise Unavailable(
            f"method='keops' needs a folder whose path has plain characters only, neither {path} nor {link} is one: "
            f"set KEOPS_CACHE_FOLDER to such a folder or {_INSTEAD}"
        )
    os.symlink(path, link)
    return link


@contextlib.contextmanager
def _alone(folder: Path, doing: str) -> Iterator[None]:
    """One process at a time, which leaves a mark until it is through: what it wrote is not to be trusted before."""
    with locked(folder / ".lock", doing) as held:
        _remove_unfinished(folder, held)
        mark = folder / f"{_MARK}{os.getpid()}"
        mark.touch()
        try:
            yield
        except Exception:
            mark.unlink(missing_ok=True)  # it ended by itself, the files are closed
            raise
        mark.unlink(missing_ok=True)


def _remove_unfinished(folder: Path, held: bool) -> None:
    """Delete what was written since a process left its mark that did not come to its end.

    Who holds the lock knows that no other is at work; without locks, the marks of processes that run are believed.
    """
    marks = [mark for mark in folder.glob(f"{_MARK}*") if mark.name.removeprefix(_MARK).isdigit()]
    if not marks or not (held or not any(running(int(mark.name.removeprefix(_MARK))) for mark in marks)):
        return
    with contextlib.suppress(FileNotFoundError):  # without locks, another was faster
        since = min(mark.stat().st_mtime_ns for mark in marks)
        for file in folder.glob("*_p[0-9]*/*"):
            if _WRITTEN.fullmatch(file.name) and file.stat().st_mtime_ns >= since:
                file.unlink()
        for mark in marks:
            mark.unlink()


def _unpickled() -> None:
    """Keep KeOps from writing, at exit and behind no lock, the notes that the next import would have to unpickle."""
    with contextlib.suppress(ImportError, AttributeError):  # of another version
        from keopscore.get_keops_dll import get_keops_dll
        from pykeops.common.keops_io import keops_binder

        for cache in (get_keops_dll, *keops_binder.values()):
            atexit.unregister(cache.save_cache)


@contextlib.contextmanager
def _environment(**values: str) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _reason(error: Exception) -> str:
    """The first line of what an error says, with its type."""
    return f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"
