"""Parquet: which files are one data set, which columns are read, and what becomes of labels."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from optimal.datasets import Dataset, load

pa = pytest.importorskip("pyarrow")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPTIMAL_CACHE", str(tmp_path / "cache"))


def png(seed: int = 0) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def shard(path: Path, n: int = 1, image: Any = None, **columns: Any) -> Path:
    from pyarrow import parquet

    path.parent.mkdir(parents=True, exist_ok=True)
    images = [{"bytes": png(i), "path": None} for i in range(n)] if image is None else image
    parquet.write_table(pa.table({"image": images, **columns}), path)
    return path


def read(path: Path, **options: Any) -> Dataset:
    return load(path, progress=False, **options)


@pytest.mark.parametrize(
    "names",
    [
        ("default/train/0000", "default/test/0000"),
        ("train", "test"),
        ("train_00000_of_00001", "test_00000_of_00001"),
        ("train-0", "test-0"),
        ("train/part-00000", "test/part-00000"),
        ("train/part-00000-of-00001", "test/part-00000-of-00001"),
        ("train-00000-of-00001", "test"),
        ("x/partial-train/0000", "x/test/0000"),
        ("data/train-00000-of-00001-9f3c", "data/test-00000-of-00001-77aa"),
    ],
)
def test_splits_are_not_mixed_however_they_are_written(tmp_path: Path, names: tuple[str, str]) -> None:
    for name, n in zip(names, (3, 2), strict=True):
        shard(tmp_path / "a" / f"{name}.parquet", n)
    with pytest.raises(ValueError, match=r"split= must name one of the splits of .*a: test, train, all$"):
        read(tmp_path / "a")
    assert [len(read(tmp_path / "a", split=split)) for split in ("train", "test", "all")] == [3, 2, 5]


def test_files_without_a_split_can_be_asked_for_beside_one(tmp_path: Path) -> None:
    shard(tmp_path / "a" / "train-00000-of-00001.parquet", 3)
    shard(tmp_path / "a" / "more.parquet", 2)
    with pytest.raises(ValueError, match=r": more, train, all$"):
        read(tmp_path / "a")
    assert len(read(tmp_path / "a", split="more")) == 2


def test_several_configurations_are_refused_by_name(tmp_path: Path) -> None:
    shard(tmp_path / "c" / "x" / "train-00000-of-00001.parquet", 3)
    shard(tmp_path / "c" / "y" / "train-00000-of-00001.parquet", 2)
    for options in ({}, {"split": "train"}):
        with pytest.raises(ValueError, match="holds 2 data sets in folders of their own, x, y: give the folder of one"):
            read(tmp_path / "c", **options)
    assert len(read(tmp_path / "c" / "y")) == 2
    assert len(read(tmp_path / "c", split="all")) == 5


def test_numbered_folders_are_one_data_set(tmp_path: Path) -> None:
    for folder in ("000", "001", "year=2020"):
        shard(tmp_path / "a" / folder / "0000.parquet", 2)
    assert len(read(tmp_path / "a")) == 6


@pytest.mark.parametrize("there", [(0, 2), (2,)])
def test_missing_shards_are_counted(tmp_path: Path, there: tuple[int, ...]) -> None:
    for number in there:
        shard(tmp_path / "d" / f"train-{number:05}-of-00003.parquet", 2)
    for _ in range(2):
        with pytest.warns(UserWarning, match=rf"{len(there)} of 3 shards of train are there in .*d"):
            assert len(read(tmp_path / "d")) == 2 * len(there)


def test_one_shard_of_several_is_said(tmp_path: Path) -> None:
    for name in ("train-00000-of-00001", "train", "0000"):
        assert len(read(shard(tmp_path / f"{name}.parquet", 2))) == 2
    path = shard(tmp_path / "train-00001-of-00005.parquet", 2)
    for _ in range(2):
        with pytest.warns(UserWarning, match="train-00001-of-00005.parquet is one of 5 shards of train; only its"):
            assert len(read(path)) == 2


@pytest.mark.parametrize("other", ["train-00001-of-00002", "train", "train-00000-of-00001-abc"])
def test_two_versions_of_a_split_are_refused(tmp_path: Path, other: str) -> None:
    shard(tmp_path / "e" / "train-00000-of-00001.parquet", 3)
    shard(tmp_path / "e" / f"{other}.parquet", 2)
    for options in ({}, {"split": "all"}):
        with pytest.raises(ValueError, match="more than one version of the shards of train: train"):
            read(tmp_path / "e", **options)


def test_hidden_files_and_folders_are_not_read(tmp_path: Path) -> None:
    folder = shard(tmp_path / "g" / "train-00000-of-00001.parquet", 2).parent
    shard(folder / ".old" / "0000.parquet", 2)
    (folder / "._train-00000-of-00001.parquet").write_bytes(b"\x00\x05\x16\x07" + bytes(4096))
    assert len(read(folder)) == 2
    (folder / "preview.png").write_bytes(png())
    with pytest.warns(UserWarning, match=r"1 file of g left out: .png \(1\)"):
        assert len(read(folder)) == 2


KIND = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


@pytest.mark.parametrize(
    "column",
    [
        pa.array([[{"bytes": png(), "path": "a"}]], pa.list_(KIND)),
        pa.array([png()]).dictionary_encode(),
        pa.array([png()], pa.binary_view()),
        pa.array([png()], pa.binary(len(png()))),
        pa.array([png()], pa.large_binary()),
        pa.array([{"bytes": None, "path": "images/a.png"}], KIND),
    ],
    ids=["list", "dictionary", "view", "fixed", "large", "path"],
)
def test_columns_of_every_kind(tmp_path: Path, column: Any) -> None:
    path = shard(tmp_path / "a" / "x.parquet", image=column)
    (tmp_path / "a" / "images").mkdir()
    (tmp_path / "a" / "images" / "a.png").write_bytes(png())
    expected = np.asarray(Image.open(io.BytesIO(png()))).transpose(2, 0, 1)
    np.testing.assert_array_equal(read(path).array[0], expected)


@pytest.mark.parametrize(
    ("column", "message"),
    [
        (pa.array([[png(), png()]]), "row 0 of x.parquet holds 2 images, but one a row is read"),
        (pa.array([["a"]]), r"no column is binary or lists of numbers in lists: image \(list<element: string>\)"),
        (pa.array([[[1, 2], [3, 4]]]), r"image of x.parquet must be uint8 or floating point, got int64; value_range="),
        (pa.array([[[1, 2], [3]]]), "row 0 of image of x.parquet differs in shape from those before it"),
        (pa.array([[[1, 2], [3, None]]]), "row 0 of image of x.parquet has missing values"),
        (pa.array([{"bytes": None, "path": "../b.png"}], KIND), r"path '../b.png', which leads out of"),
        (pa.array([{"bytes": None, "path": "b.png"}], KIND), r"path 'b.png', which is not there"),
        (pa.array([{"bytes": b"xy", "path": None}], KIND), "cannot identify image file$"),
    ],
)
def test_columns_that_are_refused(tmp_path: Path, column: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read(shard(tmp_path / "x.parquet", image=column))


@pytest.mark.parametrize(
    "values", [[0.5, 1.5], [True, False], ["cat", "dog"], [[0, 1], [1, 0]]], ids=["float", "bool", "text", "vectors"]
)
def test_labels_that_are_no_whole_numbers_are_left_out_with_a_word(tmp_path: Path, values: list[Any]) -> None:
    path = shard(tmp_path / "a.parquet", 2, label=pa.array(values))
    for _ in range(2):
        with pytest.warns(UserWarning, match="the labels of a.parquet are left out: label is .*, not whole numbers"):
            assert read(path).labels is None
    assert read(path, label_column=False).labels is None


def test_missing_labels_are_left_out_with_a_count(tmp_path: Path) -> None:
    path = shard(tmp_path / "a.parquet", 2, label=pa.array([0, None], pa.int64()))
    with pytest.warns(UserWarning, match="are left out: 1 of 2 rows hold none"):
        assert read(path).labels is None
    assert read(path, label_column=False).labels is None
    with pytest.raises(ValueError, match=r"row 1 of a.parquet holds no label; label_column=False"):
        read(path, label_column="label")


def test_labels_beyond_int64_and_of_another_type_are_refused(tmp_path: Path) -> None:
    path = shard(tmp_path / "u.parquet", 2, label=pa.array([0, 2**64 - 1], pa.uint64()))
    with pytest.raises(ValueError, match=r"label of .*u.parquet cannot be read as whole numbers below 2⁶³"):
        read(path)
    for i, values in enumerate(([1, 2], [1.5, 2.5])):
        shard(tmp_path / "m" / f"train-0000{i}-of-00002.parquet", 2, label=pa.array(values))
    with pytest.raises(ValueError, match="is double, another type than int64 of the first shard"):
        read(tmp_path / "m")


def test_labels_in_a_dictionary(tmp_path: Path) -> None:
    path = shard(tmp_path / "a.parquet", 3, label=pa.array([7, 7, 9]).dictionary_encode())
    np.testing.assert_array_equal(read(path).labels, [7, 7, 9])


@pytest.mark.parametrize("dictionary", [False, True])
def test_a_row_group_is_not_read_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dictionary: bool) -> None:
    from pyarrow import parquet

    monkeypatch.setattr("optimal.datasets.parquet._BYTES", 1 << 14)
    file, table = tmp_path / "a.parquet", pa.table({"image": [png(i) for i in range(4000)]})
    few: Any = {"data_page_size": 1 << 15, "dictionary_pagesize_limit": 1 << 15, "write_batch_size": 64}
    parquet.write_table(table, file, use_dictionary=dictionary, **few)
    del table
    before, held, opened = pa.total_allocated_bytes(), [], Image.open

    def watching(*arguments: Any, **options: Any) -> Image.Image:
        held.append(pa.total_allocated_bytes() - before)
        return opened(*arguments, **options)

    monkeypatch.setattr(Image, "open", watching)
    assert len(read(file)) == 4000
    assert max(held) < file.stat().st_size / 2


@pytest.mark.parametrize("dictionary", [False, True])
@pytest.mark.parametrize("compression", ["none", "snappy"])
def test_pages_beyond_a_gigabyte_are_said_and_those_beyond_all_memory_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dictionary: bool, compression: str
) -> None:
    from pyarrow import parquet

    from optimal.datasets.pages import largest_page

    images = [png(i) for i in range(300)]
    held, file = sum(map(len, images)), tmp_path / "a.parquet"
    table = pa.table({"label": [0] * 300, "image": [{"bytes": image, "path": str(image[:9])} for image in images]})
    parquet.write_table(table, file, use_dictionary=dictionary, compression=compression)
    size = largest_page(file, parquet.ParquetFile(file).metadata, "image")
    assert (2.0 if compression == "none" else 1.7) * held < size < 2.2 * held
    assert largest_page(file, parquet.ParquetFile(file).metadata, "label") < 5000

    monkeypatch.setattr("optimal.datasets.pages._WORTH_A_WORD", held)
    monkeypatch.setattr("optimal.datasets.pages.main_memory", lambda: held)
    with pytest.raises(ValueError, match=r"a.parquet has pages of images that take .* this machine has .*; written"):
        read(file)
    monkeypatch.setattr("optimal.datasets.pages.main_memory", lambda: 3 * held)
    with pytest.warns(UserWarning, match=r"each is decoded whole; written again with row_group_size=100 it takes less"):
        assert len(read(file)) == 300


PIXELS = np.random.default_rng(0).integers(0, 256, (5, 8, 8, 3), dtype=np.uint8)


def nested(values: np.ndarray, fixed: bool = False) -> Any:
    """Lists in lists, one a row."""
    flat = pa.array(values.ravel())
    for length in values.shape[:0:-1]:
        starts = pa.array(range(0, len(flat) + 1, length), pa.int32())
        flat = pa.FixedSizeListArray.from_arrays(flat, length) if fixed else pa.ListArray.from_arrays(starts, flat)
    return flat


class Array3D(pa.ExtensionType):
    """As Hugging Face's: lists, of a shape that only its metadata know."""

    def __init__(self) -> None:
        super().__init__(pa.list_(pa.list_(pa.list_(pa.uint8()))), "test.array3d")

    def __arrow_ext_serialize__(self) -> bytes:
        return b"8,8,3"

    @classmethod
    def __arrow_ext_deserialize__(cls, storage_type: Any, serialized: bytes) -> Array3D:
        del storage_type, serialized
        return cls()


@pytest.mark.parametrize("suffix", ["parquet", "arrow"])
@pytest.mark.parametrize("kind", ["lists", "fixed", "tensor", "extension", "known extension"])
def test_columns_of_pixels(tmp_path: Path, kind: str, suffix: str) -> None:
    from pyarrow import parquet

    column = nested(PIXELS, kind == "fixed")
    if kind == "tensor":
        column = pa.FixedShapeTensorArray.from_numpy_ndarray(PIXELS)
    if "extension" in kind:
        column = pa.ExtensionArray.from_storage(Array3D(), column)
    if kind == "known extension":
        pa.register_extension_type(Array3D())
    try:
        table = pa.table({"image": column, "label": [4, 3, 2, 1, 0], "box": [[1.0, 2.0]] * 5})
        file = tmp_path / f"a.{suffix}"
        if suffix == "parquet":
            parquet.write_table(table, file, row_group_size=2)
        else:
            with pa.ipc.new_stream(str(file), table.schema) as writer:
                writer.write_table(table, max_chunksize=2)
        data = read(file)
        np.testing.assert_array_equal(data.array, PIXELS.transpose(0, 3, 1, 2))
        np.testing.assert_array_equal(data.labels, [4, 3, 2, 1, 0])
        np.testing.assert_array_equal(read(file, column="box", value_range="any").array, [[1.0, 2.0]] * 5)
        with pytest.raises(ValueError, match=r"resolution is for encoded images, but image of .* holds pixels"):
            read(file, resolution=4)
    finally:
        if kind == "known extension":
            pa.unregister_extension_type("test.array3d")


def test_pixels_follow_the_rule_of_arrays(tmp_path: Path) -> None:
    flat = shard(tmp_path / "flat.parquet", image=nested(PIXELS.reshape(5, -1)))
    with pytest.raises(ValueError, match=r"column= must name the images of .*no column is binary or lists"):
        read(flat)
    shaped = read(flat, column="image", shape=(8, 8, 3), layout="NHWC")
    np.testing.assert_array_equal(shaped.array, PIXELS.transpose(0, 3, 1, 2))
    boxes = shard(tmp_path / "boxes.parquet", image=["a.png"], boxes=[[[0.0, 1.0]]])
    with pytest.raises(ValueError, match=r"column= must name the images of .*boxes.parquet: boxes$"):
        read(boxes)
    whole = shard(tmp_path / "whole.parquet", image=nested(PIXELS.astype(np.int64)))
    np.testing.assert_allclose(
        read(whole, value_range=(0, 255)).array, PIXELS.transpose(0, 3, 1, 2) / 127.5 - 1, atol=1e-6
    )
    for i, side in enumerate((8, 6)):
        shard(tmp_path / "two" / f"train-{i:05}-of-00002.parquet", image=nested(PIXELS[:, :side]))
    with pytest.raises(ValueError, match=r"row 0 of train-00001-of-00002.parquet is uint8 \(6, 8, 3\) and the first"):
        read(tmp_path / "two")
    with pytest.raises(ValueError, match=r"layout and shape are for pixels, but image of .* holds encoded images"):
        read(shard(tmp_path / "b.parquet", 2), layout="NHWC")
