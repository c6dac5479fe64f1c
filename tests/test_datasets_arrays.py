"""npy and npz: layouts, ranges, mapping in place, and nothing unpickled."""

from __future__ import annotations

import os
import pickle
import tempfile
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from caches import kept
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from optimal.datasets import Dataset, load

U8 = np.random.default_rng(3).integers(0, 256, (6, 3, 4, 5), dtype=np.uint8)
F32 = (U8 / 127.5 - 1).astype(np.float32)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("OPTIMAL_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(params=["npy", "npz", "compressed"])
def write(request: pytest.FixtureRequest, tmp_path: Path):
    def to_file(array: np.ndarray) -> Path:
        if request.param == "npy":
            np.save(tmp_path / "a.npy", array)
            return tmp_path / "a.npy"
        (np.savez if request.param == "npz" else np.savez_compressed)(tmp_path / "a.npz", array)
        return tmp_path / "a.npz"

    return to_file


def read(path: Path, **options) -> Dataset:
    return load(path, progress=False, **options)


@pytest.mark.parametrize("blocks", [1 << 24, 100])
@pytest.mark.parametrize(
    ("stored", "expected"),
    [
        (U8, U8),
        (U8.transpose(0, 2, 3, 1), U8),
        (U8[:, 0], U8[:, :1]),
        (np.asfortranarray(U8), U8),
        (F32, F32),
        (F32.astype(np.float64), F32),
        (F32.astype(">f4"), F32),
        (F32.transpose(0, 2, 3, 1), F32),
        (F32[:, :1].transpose(0, 2, 3, 1), F32[:, :1]),
        (F32[:, 0], F32[:, :1]),
        (100 * F32[:, 0, 0], 100 * F32[:, 0, 0]),
        (np.asfortranarray(F32[:, 0, 0]), F32[:, 0, 0]),
        (F32[:, 0, 0].astype(np.float16), F32[:, 0, 0].astype(np.float16).astype(np.float32)),
    ],
)
def test_what_is_stored_is_read(write, stored, expected, blocks: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("optimal.datasets.arrays.BLOCK", blocks)
    monkeypatch.setattr("optimal.datasets.npz.BLOCK", blocks)
    for _ in range(2):  # the second time from the store
        data = read(write(np.array(stored)))
        np.testing.assert_array_equal(data.array, expected)
        assert data.array.dtype == expected.dtype
        assert data.array.flags.c_contiguous
        assert data.fingerprint == Dataset("", np.ascontiguousarray(expected)).fingerprint


@pytest.mark.parametrize("array", [U8, F32, U8[:, 0], F32[:, 0, 0], U8[:, :1].transpose(0, 2, 3, 1)])
def test_mapped_in_place(tmp_path: Path, cache: Path, array: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.npy"
    np.save(path, array)
    data = read(path)
    assert isinstance(data.array, np.memmap)
    assert data.array.filename == path
    assert [found.suffix for found in kept(cache)] == [".json"]  # the fingerprint, no copy of the array
    monkeypatch.setattr("optimal.datasets.arrays.fingerprint", lambda _: pytest.fail("computed again"))
    assert read(path).fingerprint == data.fingerprint
    with pytest.raises(ValueError, match="read-only"):
        data.array[:] = 0
    np.testing.assert_array_equal(np.load(path), array)


def test_damaged_note_is_replaced(tmp_path: Path, cache: Path) -> None:
    np.save(tmp_path / "a.npy", U8)
    expected = read(tmp_path / "a.npy").fingerprint
    (note,) = kept(cache)
    for text in ("", "{}", '{"fingerprint": 3}', "[1]"):
        note.write_text(text)
        assert read(tmp_path / "a.npy").fingerprint == expected


def test_changed_file_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "a.npy"
    np.save(path, U8)
    before = read(path).fingerprint
    np.save(path, 255 - U8)
    os.utime(path, ns=(1, 1))
    assert read(path).fingerprint != before


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.integers(1, 3), st.sampled_from([1, 3]), st.integers(1, 5), st.integers(1, 5), st.booleans(), st.booleans())
def test_layout_is_seen_or_asked_for(n: int, c: int, h: int, w: int, last: bool, floating: bool) -> None:
    first = np.random.default_rng(n).integers(0, 256, (n, c, h, w), dtype=np.uint8)
    expected = (first / 127.5 - 1).astype(np.float32) if floating else first
    stored = np.ascontiguousarray(expected.transpose(0, 2, 3, 1)) if last else expected
    layout = "NHWC" if last else "NCHW"
    ambiguous = (h if last else w) in (1, 3)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "a.npy")
        np.save(path, stored)
        options = {"value_range": (-1, 1)} if floating else {}
        if ambiguous:
            with pytest.raises(ValueError, match=r'both the second and the last axis .*layout="NCHW" or "NHWC"'):
                read(path, **options)
        else:
            np.testing.assert_array_equal(read(path, **options).array, expected)
        np.testing.assert_array_equal(read(path, layout=layout, **options).array, expected)


@pytest.mark.parametrize(
    ("array", "options", "message"),
    [
        (U8[:0], {}, r"is empty.*\(0, 3, 4, 5\)"),
        (U8[:, 0, 0], {}, r"must be \(N, H, W\).*got shape \(6, 5\)"),
        (F32[:, 0, 0, 0], {}, r"or \(N, D\) for points, got shape \(6,\)"),
        (U8[:, [0, 1], :, :], {}, r'neither the second nor the last.*\(6, 2, 4, 5\): layout="NCHW"'),
        (U8[0].transpose(1, 2, 0), {}, r'one image or many narrow ones\? layout="NHW"'),
        (U8, {"layout": "CHWN"}, "layout must be one of NCHW, NHWC, NHW, got 'CHWN'"),
        (U8, {"layout": "NHW"}, "layout NHW needs 3 axes"),
        (U8, {"value_range": (0, 1)}, r"values of .* must lie in \[0, 1\], got "),
        (U8, {"value_range": "all"}, r'value_range must be \(lowest, highest\) or "any", got \'all\''),
        (U8, {"value_range": 255}, "value_range must be two numbers as 0,1 or a word, got 255"),
        (U8.reshape(len(U8), -1), {}, r"must be .*; shape=3,64,64 reads flat images, got shape"),
        (U8, {"shape": (3, 64, 64)}, r"shape must have as many values as a point of .*, got \(3, 64, 64\)"),
        (U8, {"shape": "big"}, "shape must be whole numbers as 1,2,3, got 'big'"),
        (U8, {"shape": (8, -8)}, r"shape must be the positive lengths of one point's axes, got \(8, -8\)"),
        (U8.astype(np.int64), {}, "must be uint8 or floating point, got int64"),
        (U8.astype(bool), {}, "must be uint8 or floating point, got bool"),
        (F32.astype(np.complex64), {}, "must be uint8 or floating point, got complex64"),
        (U8.astype(object), {}, "Python objects, which are never unpickled"),
        (U8.astype("U3"), {}, "must be uint8 or floating point"),
        (F32 * 2, {}, r"must lie in \[-1, 1\], got (-2|1.9|2).*value_range="),
        (U8 / 255.0 - 0.1, {"value_range": (0, 1)}, r"must lie in \[0, 1\], got -0.1"),
        (F32, {"value_range": (1, 0)}, "lowest < highest"),
        (F32, {"value_range": "all"}, "'all'"),
        (np.where(np.arange(6)[:, None] == 4, np.nan, F32[:, 0, 0]), {}, "point 4 holds nan"),
        (np.where(np.arange(6)[:, None, None, None] == 5, np.nan, F32), {}, "point 5 holds nan"),
        (
            np.where(np.arange(6)[:, None] == 2, np.inf, F32[:, 0, 0]),
            {"value_range": "any"},
            "point 2 holds nan or inf",
        ),
        (np.full((2, 2), 1e300), {}, "finite in float32, but point 0"),
    ],
)
def test_refusals(write, cache: Path, array: np.ndarray, options: dict, message: str) -> None:
    for _ in range(2):
        with pytest.raises(ValueError, match=message):
            read(write(array), **options)
    assert kept(cache) == []


def test_value_range(write) -> None:
    unit = U8 / 255.0
    np.testing.assert_allclose(read(write(unit), value_range=(0, 1)).array, F32, rtol=0, atol=2e-7)
    grey = U8.astype(np.float32)
    np.testing.assert_allclose(read(write(grey), value_range=(0, 255)).array, F32, rtol=0, atol=2e-7)
    latents = 5 * np.repeat(F32, 2, axis=1)[:, :4]
    data = read(write(latents), value_range="any", layout="NCHW")
    np.testing.assert_array_equal(data.array, latents)
    assert not data.is_image


def test_images_without_negative_values_are_doubted(write) -> None:
    path = write(U8 / 255.0)
    with pytest.warns(UserWarning, match=r"below 0.*value_range=\(0, 1\)"):
        data = read(path)
    np.testing.assert_array_equal(data.array, (U8 / 255.0).astype(np.float32))


@pytest.mark.parametrize("keep", [0, 5, 60, 127, 200, -1])
def test_truncated_npy(tmp_path: Path, keep: int) -> None:
    path = tmp_path / "a.npy"
    np.save(path, U8)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(ValueError, match=r"a.npy is (truncated|not a readable npy array|empty)"):
        read(path)


def test_a_header_that_claims_gigabytes_takes_no_memory(tmp_path: Path) -> None:
    """Found by the fuzzer: four bytes of length, believed, and so much asked for at once."""
    path = tmp_path / "a.npy"
    path.write_bytes(b"\x93NUMPY\x02\x00\xf0\xff\xff\xff{'descr': '|u1', " + bytes(150))
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match=r"a.npy is not a readable npy array"):
            load(path)
        assert tracemalloc.get_traced_memory()[1] < 2**24
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("compressed", [False, True])
def test_truncated_and_damaged_npz(tmp_path: Path, compressed: bool) -> None:
    path = tmp_path / "a.npz"
    (np.savez_compressed if compressed else np.savez)(path, images=U8)
    whole = path.read_bytes()
    for keep in (0, 100, len(whole) - 5):
        path.write_bytes(whole[:keep])
        with pytest.raises(ValueError, match=r"a.npz is (not a readable npz file, perhaps truncated|empty)"):
            read(path)
    damaged = bytearray(whole)
    damaged[len(whole) // 2] ^= 0xFF
    path.write_bytes(damaged)
    with pytest.raises(ValueError, match=r"images in .*a.npz"):
        read(path)


def test_npz_keys(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    np.savez(path, x_train=U8, x_test=U8[:2])
    with pytest.raises(ValueError, match=r"key= must name one of the arrays of .*: x_train, x_test$"):
        read(path)
    with pytest.raises(ValueError, match="got 'y'"):
        read(path, key="y")
    assert len(read(path, key="x_train")) == 6
    assert len(read(path, key="x_test")) == 2


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_npz_labels(tmp_path: Path, save: Callable[..., None]) -> None:
    path, classes = tmp_path / "a.npz", np.array([3, 1, 3, 0, 255, 2], dtype=np.uint8)
    save(path, images=U8, labels=classes)
    data = read(path)
    assert data.labels is not None
    assert data.labels.dtype == np.int64
    np.testing.assert_array_equal(data.labels, classes)
    np.testing.assert_array_equal(data.array, read(path, key="images").array)
    np.testing.assert_array_equal(data.classes, classes)
    save(tmp_path / "b.npz", images=F32, labels=np.eye(6)[::-1])
    data = read(tmp_path / "b.npz")
    np.testing.assert_array_equal(data.labels, np.eye(6, dtype=np.float32)[::-1])
    np.testing.assert_array_equal(data.classes, np.arange(6)[::-1])
    save(tmp_path / "c.npz", x_train=U8, x_test=U8[:2], labels=classes)
    with pytest.warns(UserWarning, match=r"labels of c.npz is not carried, it holds x_train, x_test too: label_key="):
        assert read(tmp_path / "c.npz", key="x_train").labels is None
    data = read(tmp_path / "c.npz", key="x_test", label_key=False)
    with pytest.raises(ValueError, match="has no labels, so that there are no classes"):
        _ = data.classes
    named = read(tmp_path / "c.npz", key="x_train", label_key="labels")
    np.testing.assert_array_equal(named.labels, classes)
    with pytest.raises(ValueError, match=r"label_key= must name one of the arrays of .*, got 'y'"):
        read(tmp_path / "c.npz", key="x_train", label_key="y")
    for labels in (classes[:5], classes[None], classes.astype(float), np.array(["a"] * 6)):
        save(tmp_path / "d.npz", images=U8, labels=labels)
        with pytest.raises(ValueError, match=r"labels in .*d.npz must be whole numbers"):
            read(tmp_path / "d.npz")
    trap = np.empty(6, dtype=object)
    save(tmp_path / "e.npz", images=U8, labels=trap)
    with pytest.raises(ValueError, match="never unpickled"):
        read(tmp_path / "e.npz")


class Trap:
    def __reduce__(self):
        return os.mkdir, (os.environ["OPTIMAL_TRAP"],)


def test_nothing_is_unpickled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPTIMAL_TRAP", str(tmp_path / "sprung"))
    trap = np.empty(2, dtype=object)
    trap[:] = [Trap(), Trap()]
    np.save(tmp_path / "a.npy", trap, allow_pickle=True)
    np.savez(tmp_path / "b.npz", trap)
    (tmp_path / "c.npy").write_bytes(pickle.dumps(Trap()))
    for name in ("a.npy", "b.npz", "c.npy"):
        with pytest.raises(ValueError, match=name):
            read(tmp_path / name)
    assert not (tmp_path / "sprung").exists()
    os.mkdir(tmp_path / "sprung")
    with pytest.raises(FileExistsError):  # and the trap is a real one
        np.load(tmp_path / "a.npy", allow_pickle=True)


@pytest.mark.parametrize("top", [1, 16])
def test_arrays_of_few_levels(tmp_path: Path, top: int) -> None:
    mask = np.random.default_rng(0).integers(0, top + 1, (5, 8, 8)).astype(np.uint8)
    mask[:, 0, :2] = 0, top
    np.save(tmp_path / "b.npy", mask)
    np.savez(tmp_path / "b.npz", mask)
    for name in ("b.npy", "b.npz"):
        for _ in range(2):
            with pytest.warns(
                UserWarning, match=rf"no value of .*b.np. \(first 5 images\) is above {top}, though uint8"
            ):
                assert read(tmp_path / name).array.dtype == np.uint8
        data = read(tmp_path / name, value_range=(0, top))
        np.testing.assert_allclose(data[:][:, 0], mask / top * 2 - 1, atol=1e-6)
        np.testing.assert_array_equal(read(tmp_path / name, value_range=(0, 255)).array[:, 0], mask)
        np.testing.assert_array_equal(read(tmp_path / name, value_range="any")[:][:, 0], mask)


@pytest.mark.parametrize(
    ("dtype", "likely"),
    [(np.int64, "lowest, highest"), (np.uint16, "0, 65535"), (np.int8, "lowest, highest"), (bool, "0, 1")],
)
def test_whole_numbers_are_read_by_their_range(tmp_path: Path, dtype: type, likely: str) -> None:
    stored = np.random.default_rng(0).integers(0, 2, (5, 8, 8)).astype(dtype)
    np.save(tmp_path / "a.npy", stored)
    with pytest.raises(ValueError, match=rf"must be uint8 or floating point, got .*; value_range=\({likely}\)"):
        read(tmp_path / "a.npy")
    np.testing.assert_array_equal(read(tmp_path / "a.npy", value_range=(0, 1))[:][:, 0], stored * 2.0 - 1.0)
    np.testing.assert_array_equal(read(tmp_path / "a.npy", value_range="any")[:][:, 0], stored)


@pytest.mark.parametrize("order", ["C", "F"])
def test_flat_images_take_their_shape(tmp_path: Path, order: str) -> None:
    images = np.random.default_rng(0).integers(0, 256, (5, 3, 16, 16), dtype=np.uint8)
    flat = np.asarray(images.reshape(5, -1), order=order)  # pyright: ignore[reportArgumentType, reportCallIssue]
    np.save(tmp_path / "a.npy", flat)
    np.savez(tmp_path / "a.npz", data=flat, labels=np.arange(1, 6))  # as ImageNet-64 is distributed
    np.save(tmp_path / "f.npy", flat / 127.5 - 1)
    np.testing.assert_array_equal(read(tmp_path / "a.npy", shape=(3, 16, 16)).array, images)
    data = read(tmp_path / "a.npz", shape=(3, 16, 16))
    np.testing.assert_array_equal(data.array, images)
    np.testing.assert_array_equal(data.labels, np.arange(1, 6))
    assert read(tmp_path / "f.npy", shape=[3, 16, 16]).event == (3, 16, 16)
    latents = np.random.default_rng(0).standard_normal((5, 64)).astype(np.float32)
    np.save(tmp_path / "l.npy", latents)
    data = read(tmp_path / "l.npy", shape=(4, 4, 4), value_range="any")
    np.testing.assert_array_equal(data.array, latents.reshape(5, 4, 4, 4))
