"""How command lines end: exit codes, one sentence for whatever went wrong, warnings as lines."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from optimal.cli.run import run, say
from optimal.interrupt import is_program

ROOT = Path(__file__).parents[1]


def raising(error: BaseException) -> Callable[[], None]:
    def work() -> None:
        raise error

    return work


MEMORY = "error: there is not enough memory for this: ask for fewer; where there is --batch, for fewer at once\n"
FILE = "could not be read or written"


@pytest.mark.parametrize(
    ("error", "code", "told"),
    [
        (ValueError("n must be at least 1, got 0"), 2, "error: n must be at least 1, got 0\n"),
        (ValueError("resolution= is missing"), 2, "error: resolution= is missing (here: --option resolution=…)\n"),
        (FileNotFoundError(errno.ENOENT, "No such file", "a.npy"), 2, f"error: a.npy {FILE}: No such file\n"),
        (OSError(errno.ENOSPC, "No space left on device"), 2, f"error: a file {FILE}: No space left on device\n"),
        (KeyboardInterrupt(), 130, "interrupted\n"),
        (BrokenPipeError(), 141, ""),
        (MemoryError(), 2, MEMORY),
        (torch.OutOfMemoryError("CUDA out of memory"), 2, MEMORY),
    ],
)
def test_what_goes_wrong_is_one_line_and_a_code(
    error: BaseException, code: int, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(raising(error)) == code
    assert capsys.readouterr().err == told


def test_our_own_faults_are_not_hidden() -> None:
    with pytest.raises(RuntimeError, match="mat1 and mat2"):
        run(raising(RuntimeError("mat1 and mat2 shapes cannot be multiplied")))
    with pytest.raises(SystemExit):
        run(raising(SystemExit(0)))


def test_too_much_memory_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(lambda: torch.empty(2**60, dtype=torch.uint8)) == 2
    assert capsys.readouterr().err.startswith("error: there is not enough memory")


def test_warnings_are_lines_and_told_once(capsys: pytest.CaptureFixture[str]) -> None:
    def work() -> None:
        warnings.simplefilter("always")
        for text in ("two\nlines", "another", "two\nlines"):
            warnings.warn(text, stacklevel=1)
        say("a\n  word")

    before = warnings.showwarning
    assert run(work) == 0
    assert capsys.readouterr().err == "warning: two lines\nwarning: another\na word\n"
    assert warnings.showwarning is before


def environment(tmp_path: Path) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "OPTIMAL_CACHE": str(tmp_path / "cache")}


@pytest.mark.slow
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_an_output_that_is_full(tmp_path: Path) -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "optimal", "info", "five-deltas"],
            env=environment(tmp_path), cwd=tmp_path, stdout=full, stderr=subprocess.PIPE, text=True, timeout=120,
        )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr == "error: a file could not be read or written: No space left on device\n"


@contextlib.contextmanager
def started(command: list[str], **given: Any) -> Iterator[subprocess.Popen[str]]:
    """A program that takes ^C even where these tests run in the background, and that is gone afterwards."""
    process = subprocess.Popen(
        command, text=True, preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL), **given
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


@pytest.mark.slow
def test_an_interrupt_is_one_line(tmp_path: Path) -> None:
    """^C while a border is measured, long after the start."""
    command = [sys.executable, "-m", "optimal", "border", "emoji", "--draws", "100000"]
    with started(command, env=environment(tmp_path), cwd=tmp_path, stderr=subprocess.PIPE) as program:
        assert program.stderr is not None
        first = program.stderr.readline()
        while "this will take about" not in first:
            first = program.stderr.readline()
        time.sleep(0.5)
        program.send_signal(signal.SIGINT)
        _, told = program.communicate(timeout=60)
    assert program.returncode == 130
    assert told.rstrip().splitlines()[-1].endswith("interrupted")
    assert "Traceback" not in told


FULL = """
import resource, signal, sys
from {door}.__main__ import main
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    "line",
    [
        "neural sample optimum --dataset ring -n 500 --steps 3 --out found",
        "neural train toy --steps 2 --batch 4 --out net",
        "optimal sample ring -n 500 --steps 3 --out found",
    ],
)
def test_a_full_disk_is_one_sentence_and_leaves_nothing_half(line: str, tmp_path: Path) -> None:
    door, *words = line.split()
    code = FULL.replace("{door}", door)
    done = subprocess.run(
        [sys.executable, "-c", code, *words],
        env=environment(tmp_path), cwd=tmp_path, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 2, done.stderr
    assert done.stderr.rstrip().replace("\r", "\n").splitlines()[-1].startswith("error: ")
    assert "Traceback" not in done.stderr
    half = [path for path in tmp_path.rglob("*") if path.suffix in (".npz", ".safetensors") or "building" in path.name]
    assert not half


@pytest.mark.slow
@pytest.mark.parametrize("door", ["optimal", "neural", "figures"])
@pytest.mark.parametrize("late", ["torch", "tyro"])
def test_an_interrupt_while_torch_is_imported_is_one_line(door: str, late: str, tmp_path: Path) -> None:
    """A module in its place, whose import takes long."""
    (tmp_path / f"{late}.py").write_text(
        "import sys, time\nprint('importing', flush=True)\n"
        "try: time.sleep(60)\nexcept BaseException as error: raise ImportError('no torch') from error\n"
    )
    found = environment(tmp_path)
    found["PYTHONPATH"] = f"{tmp_path}{os.pathsep}{found['PYTHONPATH']}"
    command = [sys.executable, "-W", "error", "-m", door, "--help"]
    with started(command, env=found, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as program:
        assert program.stdout is not None
        assert program.stdout.readline() == "importing\n"
        program.send_signal(signal.SIGINT)
        _, told = program.communicate(timeout=60)
    assert (program.returncode, told) == (130, "interrupted\n")


@pytest.mark.parametrize(
    ("words", "ours"),
    [
        ("python -m optimal info", True),
        ("python -X dev -W error -u -m figures", True),
        ("python -mneural train", True),
        ("python -m pytest -m neural", False),
        ("python mine.py -m optimal", False),
        ("python -c pass -m optimal", False),
        ("python", False),
        ("python -m", False),
    ],
)
def test_only_our_programs_take_the_interrupt(words: str, ours: bool) -> None:
    assert is_program(words.split()) is ours


@pytest.mark.slow
def test_a_library_leaves_the_interrupt_alone(tmp_path: Path) -> None:
    code = "import signal; import neural; assert signal.getsignal(signal.SIGINT) is signal.default_int_handler"
    with started([sys.executable, "-c", code], env=environment(tmp_path), cwd=tmp_path) as program:
        assert program.wait(timeout=120) == 0


@pytest.mark.slow
def test_an_interrupted_training_says_how_it_goes_on(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "neural", "train", "toy", "--steps", "1000000", "--batch", "64", "--out", "net"]
    with started(command, env=environment(tmp_path), cwd=tmp_path, stderr=subprocess.PIPE) as program:
        while not (tmp_path / "net" / "metrics.csv").exists():
            assert program.poll() is None
            time.sleep(0.1)
        time.sleep(1)
        program.send_signal(signal.SIGINT)
        _, told = program.communicate(timeout=60)
    assert program.returncode == 130
    assert told.rstrip().endswith("interrupted; what has a checkpoint goes on with --resume")
    assert "Traceback" not in told
