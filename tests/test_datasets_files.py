"""Images in zips, folders, parquet shards and idx files: what is read, in which order, and what is refused."""

from __future__ import annotations

import gzip
import io
import json
import struct
import sys
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from caches import kept
from PIL import Image

from optimal.datasets import load
from optimal.datasets.pictures import SUFFIXES

RGB = np.random.default_rng(2).integers(0, 256, (12, 8, 8, 3), dtype=np.uint8)
GREY = RGB[..., 0]
NCHW = RGB.transpose(0, 3, 1, 2)
NAMES = [f"{i // 5:05}/img{i:08}.png" for i in range(12)]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("OPTIMAL_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def encode(image: np.ndarray | Image.Image, kind: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(buffer, kind)
    return buffer.getvalue()


def edm_zip(path: Path, labels: object = "classes", extra: dict[str, bytes] | None = None, zip64: bool = False) -> Path:
    """A zip as EDM's dataset_tool writes it, its members in an order that is not the sorted one."""
    if labels == "classes":
        labels = [[name, i % 3] for i, name in enumerate(NAMES)]
    members = {name: encode(image) for name, image in zip(NAMES, RGB, strict=True)}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name, data in [*reversed(members.items()), *(extra or {}).items()]:
            with archive.open(name, "w", force_zip64=zip64) as file:
                file.write(data)
        with archive.open("dataset.json", "w", force_zip64=zip64) as file:
            file.write(json.dumps({"labels": labels}).encode())
    return path


def image_zip(path: Path, members: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return path


def read(path: Path, **options):
    return load(path, progress=False, **options)


@pytest.mark.parametrize("zip64", [False, True])
@pytest.mark.parametrize("block", [1 << 22, 300])
def test_edm_zip(tmp_path: Path, zip64: bool, block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("optimal.datasets.pictures._BLOCK", block)
    path = edm_zip(tmp_path / "ffhq.zip", zip64=zip64)
    if zip64:
        assert struct.pack("<HH", 1, 16) in path.read_bytes()  # the ZIP64 extra field, so that the case is the real one
    data = read(path)
    np.testing.assert_array_equal(data.array, NCHW)
    np.testing.assert_array_equal(data.labels, np.arange(12) % 3)
    assert data.labels is not None
    assert data.labels.dtype == np.int64
    assert isinstance(data.array, np.memmap)
    assert data.name == "ffhq.zip"
    assert data.source == str(path)


def test_zip64_end_of_central_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:  # more than 65,535 members, without writing so many
        patch.setattr(zipfile, "ZIP_FILECOUNT_LIMIT", 3)
        path = edm_zip(tmp_path / "ffhq.zip")
    assert b"PK\x06\x06" in path.read_bytes()
    np.testing.assert_array_equal(read(path).array, NCHW)


def test_zip_is_keyed_by_its_content(tmp_path: Path) -> None:
    path = edm_zip(tmp_path / "a.zip")
    first = read(path)
    image_zip(path, {"x.png": encode(RGB[3])})
    second = read(path)
    assert len(first) == 12
    assert len(second) == 1
    assert first.fingerprint != second.fingerprint


def test_zip_skips_what_is_no_image(tmp_path: Path) -> None:
    extra = {
        "__MACOSX/00000/._img00000000.png": b"resource fork",
        "00000/._img00000001.png": b"resource fork",
        ".hidden/a.png": b"?",
        "LICENSE.txt": b"CC BY",
        "00000/": b"",
    }
    data = read(edm_zip(tmp_path / "a.zip", extra=extra))
    np.testing.assert_array_equal(data.array, NCHW)


@pytest.mark.filterwarnings("ignore:.*joins the pictures of 3 folders")
def test_names_are_sorted_as_strings(tmp_path: Path) -> None:
    members = {name: encode(RGB[i]) for i, name in enumerate(["2.png", "10.png", "B/1.png", "a/1.png", "A.png"])}
    expected = NCHW[[1, 0, 4, 2, 3]]
    np.testing.assert_array_equal(read(image_zip(tmp_path / "a.zip", members)).array, expected)
    for name, data in members.items():
        (tmp_path / "folder" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "folder" / name).write_bytes(data)
    np.testing.assert_array_equal(read(tmp_path / "folder").array, expected)


def test_labels(tmp_path: Path) -> None:
    assert read(edm_zip(tmp_path / "none.zip", labels=None)).labels is None  # folders are shards, not classes
    backwards = [[name.replace("/", "\\"), i] for i, name in reversed(list(enumerate(NAMES)))]
    np.testing.assert_array_equal(read(edm_zip(tmp_path / "a.zip", labels=backwards)).labels, np.arange(12))
    vectors = [[name, [i, 0.5]] for i, name in enumerate(NAMES)]
    labels = read(edm_zip(tmp_path / "b.zip", labels=vectors)).labels
    np.testing.assert_array_equal(labels, np.stack([np.arange(12), np.full(12, 0.5)], axis=1).astype(np.float32))


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([[name, 1] for name in NAMES[:-1]], f"no label for {NAMES[-1]}"),
        ([["a", 1, 2]], "must be"),
        ([[name, "cat"] for name in NAMES], "must be numbers"),
        ([[name, [1] * (1 + i % 2)] for i, name in enumerate(NAMES)], "must be numbers or equally long"),
    ],
)
def test_bad_labels(tmp_path: Path, labels: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read(edm_zip(tmp_path / "a.zip", labels=labels))


def test_corrupt_member_is_named(tmp_path: Path, cache: Path) -> None:
    path = edm_zip(tmp_path / "a.zip")
    data = bytearray(path.read_bytes())
    data[data.index(encode(RGB[7])) + 60] ^= 0xFF
    path.write_bytes(data)
    with pytest.raises(ValueError, match=rf"{NAMES[7]} in a.zip cannot be"):
        read(path)
    assert kept(cache) == []


@pytest.mark.parametrize("cut", [10, 60, 200])
def test_truncated_image_in_a_sound_zip_is_named(tmp_path: Path, cut: int) -> None:
    members = {"a.png": encode(RGB[0]), "b.png": encode(RGB[1])[:cut]}
    with pytest.raises(ValueError, match=r"b.png in a.zip cannot be"):
        read(image_zip(tmp_path / "a.zip", members))


def test_truncated_zip(tmp_path: Path) -> None:
    path = edm_zip(tmp_path / "a.zip")
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ValueError, match=r"a.zip is not a readable zip file, perhaps truncated"):
        read(path)


def test_nothing_in_it(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"a.zip holds no images"):
        read(image_zip(tmp_path / "a.zip", {"LICENSE.txt": b""}))
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"empty holds no images"):
        read(tmp_path / "empty")
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(ValueError, match=r"notes.txt is no data set"):
        read(tmp_path / "notes.txt")


def test_mixed_sizes_and_resolution(tmp_path: Path) -> None:
    members = {f"{i}.png": encode(RGB[i]) for i in range(4)}
    wide = np.zeros((8, 12, 3), np.uint8)
    wide[:, 2:10] = RGB[5]
    members["2.png"] = encode(wide)
    path = image_zip(tmp_path / "a.zip", members)
    with pytest.raises(ValueError, match=r"2.png is 12x8 and the first, 0.png, is 8x8; resolution="):
        read(path)
    same = read(path, resolution=8)  # the middle of the odd one, and no resizing
    np.testing.assert_array_equal(same.array, NCHW[[0, 1, 5, 3]])
    half = read(path, resolution=4)
    expected = Image.fromarray(RGB[5]).resize((4, 4), Image.Resampling.LANCZOS)
    np.testing.assert_array_equal(half.array[2], np.asarray(expected).transpose(2, 0, 1))
    assert half.fingerprint != same.fingerprint
    with pytest.raises(ValueError, match="resolution must be a whole number of pixels from 1 to 4096, got 0"):
        read(path, resolution=0)
    with pytest.raises(ValueError, match=r"no option 'layout'; its options are only, without, n, xflip, resolution"):
        read(path, layout="NCHW")


def test_grey_stays_grey_and_mixed_becomes_rgb(tmp_path: Path) -> None:
    grey = {f"{i}.png": encode(GREY[i]) for i in range(3)}
    np.testing.assert_array_equal(read(image_zip(tmp_path / "g.zip", grey)).array, GREY[:3, None])
    expected = np.concatenate([np.repeat(GREY[:3, None], 3, axis=1), NCHW[3:4]])
    mixed = image_zip(tmp_path / "m.zip", {**grey, "3.png": encode(RGB[3])})
    with pytest.warns(UserWarning, match=r"3 of the 4 images of m.zip are grey and were made RGB"):
        np.testing.assert_array_equal(read(mixed).array, expected)
    mixed = image_zip(tmp_path / "n.zip", {"3.png": encode(RGB[3]), "4.png": encode(GREY[0])})
    with pytest.warns(UserWarning, match=r"1 of the 2 images of n.zip are grey"):
        np.testing.assert_array_equal(read(mixed).array, expected[[3, 0]])


@pytest.mark.filterwarnings("ignore:1 of the 1 images of a.zip are transparent")
def test_transparency_is_composited_on_white(tmp_path: Path) -> None:
    clear = np.concatenate([RGB[0], np.zeros((8, 8, 1), np.uint8)], axis=2)
    clear[0, 0, 3] = 255
    array = read(image_zip(tmp_path / "a.zip", {"a.png": encode(clear)})).array[0]
    np.testing.assert_array_equal(array[:, 0, 0], RGB[0, 0, 0])
    assert (array[:, 1:] == 255).all()
    faint = Image.merge("LA", [Image.fromarray(GREY[0]), Image.new("L", (8, 8), 255)])
    np.testing.assert_array_equal(read(image_zip(tmp_path / "b.zip", {"a.png": encode(faint)})).array, GREY[:1, None])


def test_palettes_and_orientation(tmp_path: Path) -> None:
    palette = Image.fromarray(RGB[0]).quantize(16)
    array = read(image_zip(tmp_path / "p.zip", {"a.png": encode(palette)})).array[0]
    np.testing.assert_array_equal(array, np.asarray(palette.convert("RGB")).transpose(2, 0, 1))
    upright = np.zeros((16, 8, 3), np.uint8)
    upright[:8] = 255
    exif = Image.Exif()
    exif[0x0112] = 3  # stored upside down
    buffer = io.BytesIO()
    Image.fromarray(upright[::-1, ::-1]).save(buffer, "JPEG", exif=exif, quality=100)
    array = read(image_zip(tmp_path / "o.zip", {"a.jpg": buffer.getvalue()})).array[0]
    assert np.abs(array.transpose(1, 2, 0).astype(int) - upright).max() <= 3


def test_sixteen_bits_are_refused(tmp_path: Path) -> None:
    deep = Image.fromarray(GREY[0].astype(np.uint16) * 257)
    with pytest.raises(ValueError, match=r"a.png in a.zip must have 8 bits per channel, but its mode is I;16"):
        read(image_zip(tmp_path / "a.zip", {"a.png": encode(deep)}))


def png_that_claims(width: int, height: int) -> bytes:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


@pytest.mark.parametrize("side", [10_000, 100_000])
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_decompression_bombs(tmp_path: Path, side: int) -> None:
    path = image_zip(tmp_path / "a.zip", {"a.png": encode(RGB[0]), "b.png": png_that_claims(side, side)})
    with pytest.raises(ValueError, match=r"b.png in a.zip (is refused for its size|claims)"):
        read(path)


def test_absurd_member_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("optimal.datasets.archives.LARGEST_FILE", 100)
    with pytest.raises(ValueError, match=r"a.png in a.zip claims \d+ bytes, more than the 100 allowed"):
        read(image_zip(tmp_path / "a.zip", {"a.png": encode(RGB[0])}))


@pytest.mark.filterwarnings("ignore:1 of the 12 labels of images")
def test_folder(tmp_path: Path) -> None:
    folder = tmp_path / "images"
    for name, image in zip(NAMES, RGB, strict=True):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(encode(image))
    (folder / "LICENSE.txt").write_text("CC BY")
    (folder / ".DS_Store").write_text("")
    first = read(folder)
    np.testing.assert_array_equal(first.array, NCHW)
    assert first.labels is None
    assert first.name == "images"
    (folder / "dataset.json").write_text(json.dumps({"labels": [[name, 4] for name in NAMES]}))
    np.testing.assert_array_equal(read(folder).labels, np.full(12, 4))
    (folder / NAMES[0]).unlink()  # noticed, since the listing is part of the key
    np.testing.assert_array_equal(read(folder).array, NCHW[1:])
    (folder / NAMES[3]).write_bytes(b"not a png")
    with pytest.raises(ValueError, match=rf"{NAMES[3]} in images cannot be read as an image"):
        read(folder)


def write_shards(folder: Path, images: list[object], labels: list[int] | None = None, split: str = "train") -> None:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    folder.mkdir(exist_ok=True)
    for shard, part in enumerate([slice(0, 7), slice(7, None)]):
        columns = {"image": pyarrow.array(images[part])}
        if labels is not None:
            columns["label"] = pyarrow.array(labels[part])
        parquet.write_table(pyarrow.table(columns), folder / f"{split}-{shard:05}-of-00002.parquet")


def cells() -> list[object]:
    return [{"bytes": encode(image), "path": f"{i}.png"} for i, image in enumerate(RGB)]


def test_parquet(tmp_path: Path) -> None:
    folder = tmp_path / "shards"
    write_shards(folder, cells(), list(range(12)))
    data = read(folder)
    np.testing.assert_array_equal(data.array, NCHW)
    np.testing.assert_array_equal(data.labels, np.arange(12))
    with pytest.warns(UserWarning, match="train-00001-of-00002.parquet is one of 2 shards of train"):
        np.testing.assert_array_equal(read(folder / "train-00001-of-00002.parquet").array, NCHW[7:])
    write_shards(tmp_path / "binary", [encode(image) for image in GREY])
    binary = read(tmp_path / "binary")
    np.testing.assert_array_equal(binary.array, GREY[:, None])
    assert binary.labels is None
    assert read(folder, resolution=4).event == (3, 4, 4)


@pytest.mark.parametrize("rows", [4, 32])
def test_parquet_is_read_by_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rows: int) -> None:
    """By row groups, and within one by batches; Arrow itself takes twice the largest page."""
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    noise = encode(np.random.default_rng(3).integers(0, 256, (512, 512, 3), dtype=np.uint8))
    table = pyarrow.table({"image": pyarrow.array([noise] * 64)})
    parquet.write_table(table, tmp_path / "a.parquet", row_group_size=rows, use_dictionary=False)
    del table
    before, held, opened = pyarrow.total_allocated_bytes(), [], Image.open

    def watching(*arguments: Any, **options: Any) -> Image.Image:
        held.append(pyarrow.total_allocated_bytes() - before)
        return opened(*arguments, **options)

    monkeypatch.setattr(Image, "open", watching)
    assert len(read(tmp_path / "a.parquet", resolution=8)) == len(held) - 1 == 64
    assert max(held) < 2.5 * rows * len(noise)


def test_parquet_splits_are_not_mixed(tmp_path: Path) -> None:
    folder = tmp_path / "shards"
    write_shards(folder, cells())
    write_shards(folder, cells()[:8], split="test")
    with pytest.raises(ValueError, match=r"split= must name one of the splits of .*: test, train, all"):
        read(folder)
    assert len(read(folder, split="train")) == 12
    assert len(read(folder, split="test")) == 8
    assert len(read(folder, split="all")) == 20
    with pytest.raises(ValueError, match="got 'valid'"):
        read(folder, split="valid")


def test_parquet_refusals(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "shards"
    broken = cells()
    broken[9] = {"bytes": b"broken", "path": "9.png"}
    write_shards(folder, broken)
    with pytest.raises(ValueError, match=r"row 2 of train-00001-of-00002.parquet in shards cannot be read as an image"):
        read(folder)
    broken[9] = {"bytes": None, "path": "9.png"}
    write_shards(folder, broken)
    with pytest.raises(ValueError, match=r"row 2 of train-00001-of-00002.parquet holds no image bytes"):
        read(folder)
    with pytest.raises(ValueError, match=r"column= must name the images of .*: image, got 'picture'"):
        read(folder, column="picture")
    with pytest.raises(ValueError, match=r"label_column= must name whole numbers.*there are none, got 'label'"):
        read(folder, label_column="label")
    shard = folder / "train-00001-of-00002.parquet"
    shard.write_bytes(shard.read_bytes()[:-50])
    with pytest.raises(ValueError, match=r"00001-of-00002.parquet is not a readable parquet file, perhaps truncated"):
        read(folder)
    for name in "abcd":
        (folder / f"{name}.png").write_bytes(encode(RGB[0]))
    with pytest.raises(ValueError, match=r"holds \d+ images and \d+ parquet files; give the folder of one kind"):
        read(folder)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ValueError, match="needs the package pyarrow: pip install pyarrow"):
        read(shard)


def idx(array: np.ndarray) -> bytes:
    return struct.pack(f">I{array.ndim}I", 0x0800 + array.ndim, *array.shape) + array.astype(np.uint8).tobytes()


@pytest.mark.parametrize("suffix", [".gz", ""])
def test_idx(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str) -> None:
    monkeypatch.setattr("optimal.datasets.idx._BLOCK", 300)
    pack = gzip.compress if suffix else bytes
    path = tmp_path / f"train-images-idx3-ubyte{suffix}"
    path.write_bytes(pack(idx(GREY)))
    assert read(path).labels is None
    beside = tmp_path / f"train-labels-idx1-ubyte{suffix}"
    beside.write_bytes(pack(idx(np.arange(12))))
    data = read(path)
    np.testing.assert_array_equal(data.array, GREY[:, None])
    np.testing.assert_array_equal(data.labels, np.arange(12))
    with pytest.raises(ValueError, match="it holds labels, give the file of images"):
        read(beside)
    beside.write_bytes(pack(idx(np.arange(11))))
    with pytest.raises(ValueError, match=r"12 images but train-labels-idx1-ubyte(.gz)? has 11 labels"):
        read(path)


def test_idx_refusals(tmp_path: Path) -> None:
    path = tmp_path / "train-images-idx3-ubyte.gz"
    for content, message in [
        (gzip.compress(idx(GREY)[:-1]), "is truncated"),
        (gzip.compress(idx(GREY))[:-30], "perhaps truncated"),
        (gzip.compress(b"\0\0"), "is truncated"),
        (gzip.compress(b"a text file"), "must begin with the idx number 0x00000803"),
        (gzip.compress(idx(GREY[:0])), r"is empty.*\(0, 8, 8\)"),
        (gzip.compress(struct.pack(">4I", 0x803, 2**31, 2**31, 2**31)), "claims images of"),
        (gzip.compress(struct.pack(">4I", 0x803, 2**31, 8, 8)), "is truncated"),
    ]:
        path.write_bytes(content)
        with pytest.raises(ValueError, match=message):
            read(path)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_every_kind_of_picture_is_read(tmp_path: Path, suffix: str) -> None:
    kinds = {".jpg": "JPEG", ".jfif": "JPEG", ".jpe": "JPEG", ".tif": "TIFF", ".pgm": "PPM", ".pnm": "PPM"}
    kind = {**kinds, ".pbm": "PPM", ".jp2": "JPEG2000"}.get(suffix, suffix[1:].upper())
    smooth = np.linspace(20, 220, 64).reshape(8, 8).astype(np.uint8)
    image = smooth if suffix == ".pgm" else np.stack([smooth, smooth.T, 255 - smooth], 2)
    (tmp_path / "folder").mkdir()
    data = encode(image, kind)
    (tmp_path / "folder" / f"a{suffix}").write_bytes(data)
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr(f"a{suffix}", data)
    with Image.open(io.BytesIO(data)) as picture:
        decoded = np.asarray(picture.convert("L" if image.ndim == 2 else "RGB"))
    # JPEG, GIF, WEBP and AVIF do not keep every value.
    assert np.abs(decoded.astype(int) - image).max() <= (60 if kind in ("JPEG", "GIF", "WEBP", "AVIF") else 0)
    for name in ("folder", "a.zip"):
        (found,) = load(str(tmp_path / name)).array
        np.testing.assert_array_equal(found, decoded[None] if image.ndim == 2 else decoded.transpose(2, 0, 1))
