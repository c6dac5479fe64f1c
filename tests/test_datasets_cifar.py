"""CIFAR's archives, folders and batches, and pickles that would do something else."""

from __future__ import annotations

import io
import os
import pickle
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from optimal.datasets import Dataset, load
from optimal.datasets.pickles import plain_values

LEVELS = np.random.default_rng(0).integers(0, 256, (14, 3, 32, 32), dtype=np.uint8)
ORDER = (
    "data_batch_4",
    "readme.html",
    "test_batch",
    "data_batch_3",
    "batches.meta",
    "data_batch_2",
    "data_batch_5",
    "data_batch_1",
)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPTIMAL_CACHE", str(tmp_path / "cache"))


def old_pickle(levels: np.ndarray, **lists: list[int]) -> bytes:
    """As Python 2 and NumPy 1 wrote them: protocol 2, texts that are bytes, `numpy.core`."""

    def text(data: bytes) -> bytes:
        return b"T" + len(data).to_bytes(4, "little") + data

    rows, size = levels.shape
    array = (
        b"cnumpy.core.multiarray\n_reconstruct\nq\x01cnumpy\nndarray\nK\x00\x85" + text(b"b") + b"\x87R(K\x01"
        b"J" + rows.to_bytes(4, "little") + b"J" + size.to_bytes(4, "little") + b"\x86cnumpy\ndtype\n" + text(b"u1")
        + b"K\x00K\x01\x87R(K\x03" + text(b"|") + b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89"
        + text(levels.tobytes()) + b"tb"
    )  # fmt: skip
    whole = b"\x80\x02}(" + text(b"data") + array
    for name, numbers in lists.items():
        whole += text(name.encode()) + b"](" + b"".join(b"K" + bytes([number]) for number in numbers) + b"e"
    return whole + b"u."


def batches() -> dict[str, bytes]:
    """Five of two pictures each and one of four; one by this Python, as people do who mend them."""
    flat = LEVELS.reshape(14, -1)
    made = {f"data_batch_{i + 1}": old_pickle(flat[2 * i : 2 * i + 2], labels=[i, 9 - i]) for i in range(5)}
    made["data_batch_2"] = pickle.dumps({"data": flat[2:4], "labels": [1, 8]}, protocol=4)
    made["test_batch"] = old_pickle(flat[10:], labels=[3, 2, 1, 0])
    return made | {"batches.meta": pickle.dumps({b"label_names": [b"cat", b"dog"]}), "readme.html": b"<html>"}


def packed(path: Path, files: dict[str, bytes], folder: str = "cifar-10-batches-py") -> Path:
    with tarfile.open(path, "w:gz") as archive:
        inside = tarfile.TarInfo(folder)
        inside.type = tarfile.DIRTYPE
        archive.addfile(inside)
        for name, data in files.items():
            member = tarfile.TarInfo(f"{folder}/{name}")
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return path


def unpacked(path: Path, files: dict[str, bytes]) -> Path:
    path.mkdir(parents=True)
    for name, data in files.items():
        (path / name).write_bytes(data)
    return path


def read(path: Path, **options: Any) -> Dataset:
    return load(path, progress=False, **options)


@pytest.fixture(params=["archive", "folder", "outer folder"])
def ten(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    files = {name: batches()[name] for name in ORDER}
    if request.param == "archive":
        return packed(tmp_path / "cifar-10-python.tar.gz", files)
    folder = unpacked(tmp_path / "ten" / "cifar-10-batches-py", files)
    return folder if request.param == "folder" else folder.parent


def test_cifar_10(ten: Path) -> None:
    with pytest.raises(ValueError, match=r"split= must name one of the splits of .*: train, test, all$"):
        read(ten)
    train, test, both = (read(ten, split=split) for split in ("train", "test", "all"))
    np.testing.assert_array_equal(train.array, LEVELS[:10])
    np.testing.assert_array_equal(train.labels, [0, 9, 1, 8, 2, 7, 3, 6, 4, 5])
    np.testing.assert_array_equal(test.array, LEVELS[10:])
    np.testing.assert_array_equal(test.labels, [3, 2, 1, 0])
    np.testing.assert_array_equal(both.array, LEVELS)
    assert train.class_names == test.class_names == ("cat", "dog")
    bare = read(ten, split="train", label_key=False)
    assert bare.labels is bare.class_names is None
    with pytest.raises(ValueError, match=r"label_key= must name the labels of .*: labels, got 'fine_labels'"):
        read(ten, split="train", label_key="fine_labels")


@pytest.mark.parametrize("archived", [False, True])
def test_cifar_100(tmp_path: Path, archived: bool) -> None:
    flat = LEVELS.reshape(14, -1)
    files = {
        "train": old_pickle(flat[:10], fine_labels=list(range(10)), coarse_labels=[7] * 10),
        "test": old_pickle(flat[10:], fine_labels=[1] * 4, coarse_labels=[0] * 4),
        "meta": pickle.dumps({"fine_label_names": ["apple"], "coarse_label_names": ["fruit"]}),
    }
    path = packed(tmp_path / "c.tar.gz", files, "cifar-100-python") if archived else unpacked(tmp_path / "c", files)
    np.testing.assert_array_equal(read(path, split="train").labels, range(10))
    coarse = read(path, split="train", label_key="coarse_labels")
    np.testing.assert_array_equal(coarse.array, LEVELS[:10])
    np.testing.assert_array_equal(coarse.labels, [7] * 10)
    assert (read(path, split="test").class_names, coarse.class_names) == (("apple",), ("fruit",))


def test_missing_batches_and_one_alone_are_said(tmp_path: Path) -> None:
    files = {name: data for name, data in batches().items() if name in ("data_batch_1", "data_batch_2")}
    folder = unpacked(tmp_path / "some", files)
    with pytest.warns(UserWarning, match="2 of 5 batches of train are there in .*some; only their points are read"):
        assert len(read(folder)) == 4
    with pytest.warns(UserWarning, match="data_batch_2 is one of 5 batches of train; only its points are read"):
        np.testing.assert_array_equal(read(folder / "data_batch_2").array, LEVELS[2:4])
    with pytest.raises(ValueError, match="split is for all batches together"):
        read(folder / "data_batch_2", split="train")


class Called:
    def __reduce__(self) -> Any:
        return os.mkdir, ("called",)


def test_nothing_that_a_pickle_names_is_called(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    unpacked(tmp_path / "bad", {"data_batch_1": pickle.dumps({"data": Called()}, protocol=2)})
    with pytest.raises(ValueError, match=r"data_batch_1 in bad is .*: it asks for (posix|nt).mkdir, and"):
        read(tmp_path / "bad")
    assert not (tmp_path / "called").exists()


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (pickle.dumps([1]), "it holds list, not a dictionary"),
        (pickle.dumps({"data": np.zeros((1, 3072))}, protocol=4), "it holds an array of f8, where bytes are read"),
        (pickle.dumps({"data": np.array([None])}, protocol=4), "it holds an array of O8, where bytes are read"),
        (b"\x80\x02}r\xff\xff\xff\x7f.", "it claims more values than it holds"),
        (
            old_pickle(np.zeros((2, 9), np.uint8)).replace(b"J\x02\0\0\0", b"J\x03\0\0\0"),
            "not as many bytes as its shape",
        ),
        (old_pickle(np.zeros((2, 9), np.uint8))[:-3], "exhausted before seeing STOP"),
        (pickle.dumps({"data": np.zeros((2, 3), np.uint8)}, protocol=4), r"\(N, 3072\) bytes, got shape \(2, 3\)"),
        (pickle.dumps({"data": 3}), r"\(N, 3072\) bytes, got no array"),
        (old_pickle(LEVELS[:2].reshape(2, -1), labels=[1]), "labels of .* must be one whole number for each of the 2"),
    ],
)
def test_what_is_no_batch(tmp_path: Path, data: bytes, message: str) -> None:
    folder = unpacked(tmp_path / "bad", {"test_batch": data})
    with pytest.raises(ValueError, match=rf"test_batch in bad.*{message}|{message}"):
        read(folder)


def test_a_truncated_archive(tmp_path: Path) -> None:
    path = packed(tmp_path / "cifar-10-python.tar.gz", {name: batches()[name] for name in ORDER})
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"cifar-10-python.tar.gz is not a readable tar archive, perhaps truncated"):
        read(path, split="train")


def test_only_bytes_come_out_of_a_pickle() -> None:
    found = plain_values(old_pickle(LEVELS[:1].reshape(1, -1), labels=[4]))
    np.testing.assert_array_equal(found["data"], LEVELS[:1].reshape(1, -1))
    assert found["labels"] == [4]


def binary(levels: np.ndarray, *labels: list[int]) -> bytes:
    """Rows of the binary version."""
    return np.concatenate([np.array(labels, np.uint8).T, levels.reshape(len(levels), -1)], 1).tobytes()


def binary_batches() -> dict[str, bytes]:
    made = {f"data_batch_{i + 1}.bin": binary(LEVELS[2 * i : 2 * i + 2], [i, 9 - i]) for i in range(5)}
    return made | {"test_batch.bin": binary(LEVELS[10:], [3, 2, 1, 0]), "batches.meta.txt": b"cat\ndog\n"}


@pytest.mark.parametrize("archived", [False, True])
def test_the_binary_version_is_the_same_data(tmp_path: Path, archived: bool) -> None:
    make = (lambda name, files, inner: packed(tmp_path / f"{name}.tar.gz", files, inner)) if archived else (
        lambda name, files, inner: unpacked(tmp_path / name / inner, files).parent
    )  # fmt: skip
    path = make("ten", binary_batches(), "cifar-10-batches-bin")
    with pytest.raises(ValueError, match=r"split= must name one of the splits of .*: train, test, all$"):
        read(path)
    theirs = unpacked(tmp_path / "python", batches())
    for split in ("train", "test", "all"):
        ours, same = read(path, split=split), read(theirs, split=split)
        np.testing.assert_array_equal(ours.array, same.array)
        np.testing.assert_array_equal(ours.labels, same.labels)
        assert ours.class_names == same.class_names == ("cat", "dog")
    files = {
        "train.bin": binary(LEVELS[:10], [7] * 10, list(range(10))),
        "test.bin": binary(LEVELS[10:], [0] * 4, [1] * 4),
    }
    files |= {"fine_label_names.txt": b"apple\npear\n", "coarse_label_names.txt": b"fruit\n"}
    path = make("hundred", files, "cifar-100-binary")
    np.testing.assert_array_equal(read(path, split="train").array, LEVELS[:10])
    np.testing.assert_array_equal(read(path, split="train").labels, range(10))
    np.testing.assert_array_equal(read(path, split="train", label_key="coarse_labels").labels, [7] * 10)
    coarse = read(path, split="test", label_key="coarse_labels")
    np.testing.assert_array_equal(coarse.labels, [0] * 4)
    assert (read(path, split="test").class_names, coarse.class_names) == (("apple", "pear"), ("fruit",))


def test_binary_batches_alone_broken_or_beside_the_others(tmp_path: Path) -> None:
    folder = unpacked(tmp_path / "b", binary_batches())
    for label in (0, 80):  # 80 and 75 are how a zip file begins
        (folder / "data_batch_2.bin").write_bytes(bytes([label]) + b"K\x03\x04" + bytes(3069))
        with pytest.warns(UserWarning, match="data_batch_2.bin is one of 5 batches of train; only its points are read"):
            alone = read(folder / "data_batch_2.bin")
        assert alone.labels == [label]
        assert alone.class_names == ("cat", "dog")
    (folder / "data_batch_2.bin").write_bytes(bytes(3073 + 1000))
    with pytest.raises(
        ValueError,
        match=r"data_batch_2.bin in b is no batch of CIFAR: it must be rows of 3073 bytes, but has 4,073 bytes",
    ):
        read(folder, split="train")
    (folder / "test_batch").write_bytes(batches()["test_batch"])
    with pytest.raises(ValueError, match=r"holds more than one set of batches: test_batch, test_batch.bin; keep one"):
        read(folder, split="test")
    (folder / "train.bin").write_bytes(bytes(3074))  # of anything: nothing beside it says of what
    with pytest.raises(ValueError, match="is no data set"):
        read(folder / "train.bin")
