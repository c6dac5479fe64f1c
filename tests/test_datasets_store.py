"""The store: what is interrupted or damaged is never trusted, what is sound is never decoded twice."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from caches import kept

from optimal.datasets import Dataset, load, store
from optimal.datasets.store import Block, Decoding

POINTS = np.random.default_rng(1).integers(0, 256, (40, 3, 4, 4), dtype=np.uint8)
LABELS = np.arange(40)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("OPTIMAL_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


class Decoder:
    """Gives the points in blocks of ten, counts how often, and raises `error` after `until` blocks."""

    def __init__(self, error: BaseException | None = None, until: int = 2) -> None:
        self.calls, self.error, self.until = 0, error, until

    def __call__(self) -> Decoding:
        self.calls += 1
        return Decoding(self.blocks(), 40)

    def blocks(self) -> Iterator[Block]:
        for i in range(4):
            if self.error is not None and i == self.until:
                raise self.error
            yield Block(POINTS[10 * i : 10 * i + 10], LABELS[10 * i : 10 * i + 10])


def build(decode=None, **identity) -> Dataset:
    return store.build("some", identity, decode or Decoder(), source="here", licence="mine", progress=False)


def entry(cache: Path) -> Path:
    (found,) = [path for path in kept(cache) if path.is_dir()]
    return found


def assert_whole(data: Dataset) -> None:
    np.testing.assert_array_equal(data.array, POINTS)
    np.testing.assert_array_equal(data.labels, LABELS)
    assert data.fingerprint == Dataset("clean", POINTS).fingerprint


def test_decoded_once_then_mapped(cache: Path) -> None:
    decode = Decoder()
    first, second = build(decode), build(decode)
    assert decode.calls == 1
    for data in (first, second):
        assert_whole(data)
        assert isinstance(data.array, np.memmap)
    assert sorted(path.name for path in entry(cache).iterdir()) == ["array.npy", "labels.npy", "meta.json"]
    assert build(decode, other=1).array.shape == POINTS.shape
    assert decode.calls == 2


def test_the_map_is_for_reading() -> None:
    with pytest.raises(ValueError, match="read-only"):
        build().array[:] = 0
    assert_whole(build(Decoder(AssertionError("decoded again"))))


@pytest.mark.parametrize("error", [KeyboardInterrupt(), RuntimeError("broken"), MemoryError()])
def test_interrupted_build_leaves_nothing(cache: Path, error: BaseException) -> None:
    with pytest.raises(type(error)):
        build(Decoder(error))
    assert kept(cache) == []
    assert_whole(build())


def test_interrupted_at_the_rename(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    replace = os.replace

    def interrupted(source, target) -> None:
        if Path(target).suffix != ".json":
            raise KeyboardInterrupt
        replace(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", interrupted)
        with pytest.raises(KeyboardInterrupt):
            build()
    assert kept(cache) == []
    assert_whole(build())


@pytest.mark.slow
def test_killed_build_is_rebuilt_and_cleaned_up(cache: Path, tmp_path: Path) -> None:
    source = tmp_path / "images"
    source.mkdir()
    from PIL import Image

    for i, image in enumerate(POINTS):
        Image.fromarray(image.transpose(1, 2, 0)).save(source / f"{i:03}.png")
    code = (
        "import os, signal, sys; from PIL import Image; from optimal.datasets import load, pictures\n"
        "opened, calls = Image.open, []\n"
        "pictures._BLOCK = 100\n"
        "def dying(*args, **options):\n"
        "    calls.append(1)\n"
        "    if len(calls) == 30: os.kill(os.getpid(), signal.SIGKILL)\n"
        "    return opened(*args, **options)\n"
        "Image.open = dying\n"
        f"load({str(source)!r}, progress=False)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[1])
    assert done.returncode == -signal.SIGKILL
    (left,) = kept(cache)
    assert left.name.startswith(".building-")
    assert (left / "array.npy").exists()
    data = load(source, progress=False)
    np.testing.assert_array_equal(data.array, POINTS)
    assert [path.name.startswith(".building-") for path in kept(cache)] == [False]
    clean = load(source, progress=False, resolution=4)
    assert clean.fingerprint == data.fingerprint


def _truncate(folder: Path) -> None:
    os.truncate(folder / "array.npy", 500)


def _flip_one_bit(folder: Path) -> None:
    data = bytearray((folder / "array.npy").read_bytes())
    data[-7] ^= 1
    (folder / "array.npy").write_bytes(data)


def _break_header(folder: Path) -> None:
    data = (folder / "array.npy").read_bytes()
    (folder / "array.npy").write_bytes(b"garbage!" + data[8:])


def _remove(name: str):
    return lambda folder: (folder / name).unlink()


def _overwrite(text: str):
    return lambda folder: (folder / "meta.json").write_text(text)


@pytest.mark.parametrize(
    "damage",
    [
        _truncate,
        _flip_one_bit,
        _break_header,
        _remove("array.npy"),
        _remove("labels.npy"),
        _remove("meta.json"),
        _overwrite(""),
        _overwrite("[]"),
        _overwrite('{"files": 3}'),
        _overwrite('{"files": {"array.npy": 1}}'),
        lambda folder: os.truncate(folder / "labels.npy", 200),
    ],
)
def test_damaged_entry_is_rebuilt(cache: Path, damage) -> None:
    build()
    time.sleep(0.01)  # the clock of some file systems ticks that slowly
    damage(entry(cache))
    decode = Decoder()
    assert_whole(build(decode))
    assert decode.calls == 1
    assert_whole(build(Decoder(AssertionError("decoded again"))))
    assert len(kept(cache)) == 1


def test_touched_entry_is_checked_and_kept(cache: Path) -> None:
    build()
    os.utime(entry(cache) / "array.npy", ns=(1, 1))
    assert_whole(build(Decoder(AssertionError("decoded again"))))
    assert json.loads((entry(cache) / "meta.json").read_text())["files"]["array.npy"][1] == 1


def test_two_builds_at_once_where_there_are_no_locks(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("optimal.storage.entries.locked", lambda *_: contextlib.nullcontext(False))

    class Overtaken(Decoder):
        def blocks(self) -> Iterator[Block]:
            for i, block in enumerate(super().blocks()):
                if i == 2:  # meanwhile another process builds the same entry from start to end
                    assert_whole(build())
                yield block

    assert_whole(build(Overtaken()))
    assert_whole(build(Decoder(AssertionError("decoded again"))))
    assert [path.name.startswith(".") for path in kept(cache)] == [False]


def test_of_several_that_want_an_entry_one_decodes_and_the_others_wait(cache: Path) -> None:
    class Slow(Decoder):
        def blocks(self) -> Iterator[Block]:
            for block in super().blocks():
                time.sleep(0.05)
                yield block

    decode = Slow()
    with ThreadPoolExecutor(4) as pool:
        for data in pool.map(lambda _: build(decode), range(4)):
            assert_whole(data)
    assert decode.calls == 1


def test_of_several_that_want_a_fingerprint_one_reads_the_file() -> None:
    calls = []

    def compute() -> str:
        calls.append(1)
        time.sleep(0.05)
        return "0123456789abcdef"

    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: store.remember_fingerprint("some", {}, compute), range(4)))
    assert found == ["0123456789abcdef"] * 4
    assert len(calls) == 1


@pytest.mark.parametrize(("umask", "mode"), [(0o002, 0o775), (0o022, 0o755), (0o077, 0o700)])
def test_an_entry_has_the_permissions_of_its_folder(cache: Path, umask: int, mode: int) -> None:
    cache.mkdir()
    cache.chmod(0o2775)
    before = os.umask(umask)
    try:
        build()
        store.remember_fingerprint("some", {}, lambda: "0123456789abcdef")
    finally:
        os.umask(before)
    for path in [entry(cache), cache / ".locks"]:
        assert stat.S_IMODE(path.stat().st_mode) == 0o2000 | mode, path
    files = [path for path in cache.rglob("*") if path.is_file()]
    assert {path.suffix for path in files} == {".npy", ".json", ""}
    for path in files:
        assert stat.S_IMODE(path.stat().st_mode) == mode & 0o666, path


def test_a_closed_entry_of_another_user_is_not_decoded_again(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    build()
    os.remove(entry(cache) / "meta.json")  # root, who may run this, could read it
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(PermissionError, match=r"chmod -R g\+rX on it, or set OPTIMAL_CACHE"):
        build(Decoder(AssertionError("decoded")))


def test_an_entry_that_may_not_be_written_is_read(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    build()
    os.utime(entry(cache) / "array.npy", ns=(1, 1))

    def refused(*_: object) -> None:
        raise PermissionError

    monkeypatch.setattr("optimal.storage.entries.write_json", refused)
    assert_whole(build(Decoder(AssertionError("decoded again"))))


def test_a_build_in_progress_is_left_alone_and_old_ones_are_removed(cache: Path) -> None:
    cache.mkdir()
    node = os.uname().nodename
    running = cache / f".building-{node}-{os.getppid()}-abc"
    elsewhere = cache / ".building-elsewhere-1-abc"
    old = cache / ".building-elsewhere-2-abc"
    for folder in (running, elsewhere, old):
        folder.mkdir()
    os.utime(old, (1, 1))
    build()
    assert running.exists()
    assert elsewhere.exists()
    assert not old.exists()


def test_empty_is_refused(cache: Path) -> None:
    with pytest.raises(ValueError, match="some is empty"):
        build(lambda: Decoding(iter([]), 0))
    assert kept(cache) == []


def test_unwritable_cache_falls_back_with_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("OPTIMAL_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.warns(RuntimeWarning, match="cannot be written to.*set OPTIMAL_CACHE"):
        assert_whole(build())
    assert_whole(build(Decoder(AssertionError("decoded again"))))  # and warns no second time


def test_progress_goes_to_stderr_only(capsys: pytest.CaptureFixture[str]) -> None:
    store.build("some", {}, Decoder(), source="", licence="")
    out, err = capsys.readouterr()
    assert out == ""
    assert "decoding some" in err
    build(other=1)
    assert capsys.readouterr() == ("", "")
