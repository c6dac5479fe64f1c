"""The store: what is interrupted or damaged is never trusted, what is sound is never decoded twice."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

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
    (found,) = [path for path in cache.iterdir() if path.is_dir()]
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
    assert list(cache.iterdir()) == []
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
    assert list(cache.iterdir()) == []
    assert_whole(build())


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
    (left,) = cache.iterdir()
    assert left.name.startswith(".building-")
    assert (left / "array.npy").exists()
    data = load(source, progress=False)
    np.testing.assert_array_equal(data.array, POINTS)
    assert [path.name.startswith(".building-") for path in cache.iterdir()] == [False]
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
    assert len(list(cache.iterdir())) == 1


def test_touched_entry_is_checked_and_kept(cache: Path) -> None:
    build()
    os.utime(entry(cache) / "array.npy", ns=(1, 1))
    assert_whole(build(Decoder(AssertionError("decoded again"))))
    assert json.loads((entry(cache) / "meta.json").read_text())["files"]["array.npy"][1] == 1


def test_two_builds_at_once(cache: Path) -> None:
    class Overtaken(Decoder):
        def blocks(self) -> Iterator[Block]:
            for i, block in enumerate(super().blocks()):
                if i == 2:  # meanwhile another process builds the same entry from start to end
                    assert_whole(build())
                yield block

    assert_whole(build(Overtaken()))
    assert_whole(build(Decoder(AssertionError("decoded again"))))
    assert [path.name.startswith(".") for path in cache.iterdir()] == [False]


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
    assert list(cache.iterdir()) == []


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
