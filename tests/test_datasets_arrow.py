"""Arrow files and streams, and folders of them as Hugging Face's `save_to_disk` writes them."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from optimal.datasets import Dataset, load

pa = pytest.importorskip("pyarrow")

LEVELS = np.random.default_rng(0).integers(0, 256, (6, 8, 8, 3), dtype=np.uint8)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPTIMAL_CACHE", str(tmp_path / "cache"))


def png(image: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG")
    return buffer.getvalue()


def write(path: Path, images: np.ndarray, labels: Any = None, *, file: bool = False, codec: str | None = None) -> Path:
    """Batches of two rows, as a stream, which is what Hugging Face writes, or a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    columns = {"image": [{"bytes": png(image), "path": None} for image in images]}
    columns |= {} if labels is None else {"label": labels}
    table = pa.table(columns)
    options = pa.ipc.IpcWriteOptions(compression=codec)
    writer = pa.ipc.new_file if file else pa.ipc.new_stream
    with writer(str(path), table.schema, options=options) as opened:
        opened.write_table(table, max_chunksize=2)
    return path


def saved(folder: Path, images: np.ndarray, labels: Any = None, shards: int = 2) -> Path:
    for i in range(shards):
        write(
            folder / f"data-{i:05}-of-{shards:05}.arrow",
            images[i::shards],
            None if labels is None else labels[i::shards],
        )
    (folder / "dataset_info.json").write_text(json.dumps({"features": {}}))
    (folder / "state.json").write_text("{}")
    return folder


def read(path: Path, **options: Any) -> Dataset:
    return load(path, progress=False, **options)


@pytest.mark.parametrize("file", [False, True])
@pytest.mark.parametrize("codec", [None, "lz4"])
def test_one_file_or_stream(tmp_path: Path, file: bool, codec: str | None) -> None:
    data = read(write(tmp_path / "a.arrow", LEVELS, [5, 4, 3, 2, 1, 0], file=file, codec=codec))
    np.testing.assert_array_equal(data.array, LEVELS.transpose(0, 3, 1, 2))
    np.testing.assert_array_equal(data.labels, [5, 4, 3, 2, 1, 0])
    assert read(tmp_path / "a.arrow", label_column=False).labels is None


def test_names_of_classes_are_those_of_the_schema(tmp_path: Path) -> None:
    features = {"image": {"_type": "Image"}, "label": {"names": ["cat", "dog"], "_type": "ClassLabel"}}
    for metadata, names in (({"info": {"features": features}}, ("cat", "dog")), ({"info": 3}, None), ("{", None)):
        text = metadata if isinstance(metadata, str) else json.dumps(metadata)
        table = pa.table({"image": [png(image) for image in LEVELS[:2]], "label": [1, 0]})
        table = table.replace_schema_metadata({"huggingface": text})
        from pyarrow import parquet

        parquet.write_table(table, tmp_path / "a.parquet")
        with pa.ipc.new_stream(str(tmp_path / "a.arrow"), table.schema) as opened:
            opened.write_table(table)
        for kind in ("parquet", "arrow"):
            for _ in range(2):
                assert read(tmp_path / f"a.{kind}").class_names == names
    assert read(tmp_path / "a.arrow", label_column=False).class_names is None


def test_what_save_to_disk_writes(tmp_path: Path) -> None:
    folder = saved(tmp_path / "d", LEVELS, list(range(6)))
    data = read(folder)
    order = [0, 2, 4, 1, 3, 5]
    np.testing.assert_array_equal(data.labels, order)
    np.testing.assert_array_equal(data.array, LEVELS[order].transpose(0, 3, 1, 2))
    write(folder / "cache-0123456789abcdef.arrow", LEVELS[:1])
    with pytest.warns(UserWarning, match=r"1 file of d left out: .arrow \(1\)"):
        assert len(read(folder)) == 6
    (folder / "cache-0123456789abcdef.arrow").unlink()
    (folder / "data-00001-of-00002.arrow").unlink()
    with pytest.warns(UserWarning, match="1 of 2 shards of data are there"):
        assert len(read(folder)) == 3


def test_splits_of_a_dictionary_of_data_sets_are_not_mixed(tmp_path: Path) -> None:
    for split, part in (("train", slice(0, 4)), ("test", slice(4, 6))):
        saved(tmp_path / "d" / split, LEVELS[part])
    (tmp_path / "d" / "dataset_dict.json").write_text('{"splits": ["train", "test"]}')
    with pytest.raises(ValueError, match=r"split= must name one of the splits of .*d: test, train, all$"):
        read(tmp_path / "d")
    np.testing.assert_array_equal(read(tmp_path / "d", split="test").array, LEVELS[4:].transpose(0, 3, 1, 2))
    assert len(read(tmp_path / "d", split="all")) == 6
    with pytest.raises(ValueError, match="split is for a folder of shards"):
        read(tmp_path / "d" / "test" / "data-00000-of-00002.arrow", split="test")


@pytest.mark.parametrize("folder", ["d", "d/outer"])
def test_splits_of_any_name_are_those_that_are_written_down(tmp_path: Path, folder: str) -> None:
    for split, part in (("sunny", slice(0, 4)), ("rainy days", slice(4, 6))):
        saved(tmp_path / folder / split, LEVELS[part])
    written = tmp_path / folder / "dataset_dict.json"
    written.write_text('{"splits": ["sunny", "rainy days"]}')
    with pytest.raises(ValueError, match=r"split= must name one of the splits of .*d: rainy days, sunny, all$"):
        read(tmp_path / "d")
    np.testing.assert_array_equal(read(tmp_path / "d", split="rainy days").array, LEVELS[4:].transpose(0, 3, 1, 2))
    assert len(read(tmp_path / "d", split="all")) == 6
    written.write_text('{"splits": ["sunny", "rainy days", "foggy"]}')
    with pytest.warns(UserWarning, match=r"dataset_dict.json of .*d names .*foggy too, of which nothing is there"):
        assert len(read(tmp_path / "d", split="sunny")) == 4
    for text in ("[]", '{"splits": "sunny"}', "{", '{"splits": [["sunny"]]}'):
        written.write_text(text)
        with pytest.raises(ValueError, match=r'dataset_dict.json of .* must be {"splits": \[name, …\]}, and is not'):
            read(tmp_path / "d")


def test_refusals(tmp_path: Path) -> None:
    whole = write(tmp_path / "a.arrow", LEVELS).read_bytes()
    (tmp_path / "b.arrow").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"b.arrow is not a readable Arrow file, perhaps truncated"):
        read(tmp_path / "b.arrow")
    (tmp_path / "c.arrow").write_bytes(whole[:8])
    with pytest.raises(ValueError, match=r"c.arrow is not a readable Arrow file, perhaps truncated"):
        read(tmp_path / "c.arrow")
    saved(tmp_path / "mixed", LEVELS)
    from pyarrow import parquet

    parquet.write_table(pa.table({"image": [png(LEVELS[0])]}), tmp_path / "mixed" / "a.parquet")
    with pytest.raises(ValueError, match="holds 1 parquet files and 2 Arrow files; give the folder of one kind"):
        read(tmp_path / "mixed")


def test_offsets_beyond_the_data_are_refused(tmp_path: Path) -> None:
    """Arrow believes them, and would hand out whatever lies there in memory."""
    whole = write(tmp_path / "a.arrow", LEVELS[:2]).read_bytes()
    lengths = [len(png(image)) for image in LEVELS[:2]]
    offsets = np.array([0, lengths[0], sum(lengths)], np.int32).tobytes()
    assert whole.count(offsets) == 1
    broken = np.array([0, lengths[0], 2**30], np.int32).tobytes()
    (tmp_path / "b.arrow").write_bytes(whole.replace(offsets, broken))
    with pytest.raises(ValueError, match=r"b.arrow cannot be read, perhaps truncated: "):
        read(tmp_path / "b.arrow")
