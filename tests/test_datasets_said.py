"""What readers say of data that are joined, left out, cut or changed: nothing of it happens without a word."""

from __future__ import annotations

import io
import json
import os
import struct
import warnings
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from optimal.datasets import Dataset, load


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPTIMAL_CACHE", str(tmp_path / "cache"))


def picture(seed: int = 0, grey: bool = False) -> Image.Image:
    shape = (8, 8) if grey else (8, 8, 3)
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8))


def encoded(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def put(folder: Path, **files: bytes) -> Path:
    """Files of a folder; `__` in a name is a slash."""
    for name, data in files.items():
        stem, _, suffix = name.rpartition("_")
        path = folder / f"{stem.replace('__', '/')}.{suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return folder


def read(path: Path, **options: Any) -> Dataset:
    return load(path, progress=False, **options)


def zipped(folder: Path) -> Path:
    path = folder.with_suffix(".zip")
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(folder.rglob("*")):
            if file.is_file():
                archive.write(file, file.relative_to(folder))
    return path


def test_joined_folders_are_said_when_they_are_read_and_numbered_ones_are_not(tmp_path: Path) -> None:
    a, b = encoded(picture(0)), encoded(picture(1))
    joined = put(tmp_path / "h", train__a_png=a, train__c_png=b, test__b_png=b)
    for path in (joined, zipped(joined)):
        with pytest.warns(
            UserWarning, match=rf"{path.name} joins the pictures of 2 folders: test/ \(1\), train/ \(2\)"
        ):
            assert len(read(path)) == 3
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert len(read(path)) == 3
    shards = put(tmp_path / "s", x__00000__a_png=a, x__00001__b_png=b)
    assert len(read(shards)) == len(read(zipped(shards))) == 2


def test_folders_are_labels_on_request_only(tmp_path: Path) -> None:
    folder = put(tmp_path / "f", x__dog__a_png=encoded(picture(0)), x__cat__b_png=encoded(picture(1)))
    for path in (folder, zipped(folder)):
        data = read(path, labels="folders")
        np.testing.assert_array_equal(data.labels, [0, 1])
        assert data.class_names == ("cat", "dog")
        assert read(path, labels="folders", only=(1, 2), xflip=True).class_names == ("cat", "dog")
        np.testing.assert_array_equal(data.array[1], np.asarray(picture(0)).transpose(2, 0, 1))  # dog after cat
        with pytest.warns(UserWarning, match="joins"):
            assert read(path).labels is None
        with pytest.raises(ValueError, match="labels must be \"folders\", False or None, got 'cat'"):
            read(path, labels="cat")


@pytest.mark.parametrize("kind", ["TIFF", "GIF", "WEBP", "PNG"])
def test_pages_and_frames_are_counted(tmp_path: Path, kind: str) -> None:
    first, *others = (picture(i) for i in range(10))
    put(tmp_path / "s", a_img=b"")
    (tmp_path / "s" / f"a.{kind.lower()}").write_bytes(encoded(first, kind, save_all=True, append_images=others))
    (tmp_path / "s" / f"b.{kind.lower()}").write_bytes(encoded(first, kind))
    for _ in range(2):
        with pytest.warns(UserWarning, match="1 of the 2 images of s have several pages or frames, 10 in all"):
            assert len(read(tmp_path / "s")) == 2


def test_transparent_pictures_and_those_of_inks_are_counted(tmp_path: Path) -> None:
    half = picture().convert("RGBA")
    half.putpixel((0, 0), (0, 0, 0, 128))
    palette = picture().quantize(16)
    files = {"a_png": encoded(half), "b_png": encoded(picture().convert("RGBA")), "c_png": encoded(picture())}
    files["d_png"] = encoded(palette, transparency=palette.getpixel((0, 0)))
    folder = put(tmp_path / "t", e_jpg=encoded(picture().convert("CMYK"), "JPEG"), **files)
    for path in (folder, zipped(folder)):
        with pytest.warns(UserWarning, match="images of t") as told:
            data = read(path)
        said = [str(warning.message) for warning in told]
        assert said == [
            f"2 of the 5 images of {path.name} are transparent in places and were put on white",
            f"1 of the 5 images of {path.name} are CMYK and were made RGB, their colours about what they are in print",
        ]
        np.testing.assert_array_equal(data.array[0, :, 0, 0], [127, 127, 127])
        assert (data.array[3, :, 0, 0] == 255).all()
        np.testing.assert_array_equal(data.array[1], data.array[2])


def test_what_is_left_out_is_counted(tmp_path: Path) -> None:
    files = {"a_png": encoded(picture()), "LICENSE_txt": b"", "x_npy": b"1", "y_npy": b"2", "z_heic": b"3"}
    folder = put(tmp_path / "l", **files)
    put(folder / "@eaDir", t_png=encoded(picture(1)))  # Synology's thumbnails
    for path in (folder, zipped(folder)):
        with pytest.warns(UserWarning, match=rf"3 files of {path.name} left out: .heic \(1\), .npy \(2\)$"):
            assert len(read(path)) == 1
    for name in ("a.png", "x.npy", "y.npy"):
        (folder / name).unlink()
    with pytest.raises(ValueError, match=r"holds no images; 1 file of l left out: .heic"):
        read(folder)


def test_linked_folders_are_read_once(tmp_path: Path) -> None:
    source = put(tmp_path / "src", a_png=encoded(picture(0)), b_png=encoded(picture(1)))
    (tmp_path / "u").mkdir()
    os.symlink(source, tmp_path / "u" / "one")
    os.symlink(source, tmp_path / "u" / "two")
    os.symlink(tmp_path, source / "up")
    os.symlink(source, source / "round")
    assert len(read(tmp_path / "u")) == 2
    assert len(read(source)) == 2
    os.symlink(tmp_path / "gone.png", source / "c.png")
    with pytest.raises(ValueError, match=r"c.png in .*src is a link to a file that is gone"):
        read(source)


def deep_png(colour: int, channels: int) -> bytes:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    rows = b"".join(b"\0" + np.full(2 * channels, 0x80FF, ">u2").tobytes() for _ in range(2))
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 2, 2, 16, colour, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def deep_tiff() -> bytes:
    """2x2 RGB of 16 bits: twelve tags, then the bits of the three channels and the pixels."""
    tags = [(256, 3, 1, 2), (257, 3, 1, 2), (258, 3, 3, 134), (259, 3, 1, 1), (262, 3, 1, 2), (273, 4, 1, 140)]
    tags += [(277, 3, 1, 3), (278, 3, 1, 2), (279, 4, 1, 24), (284, 3, 1, 1)]
    body = struct.pack("<2sHIH", b"II", 42, 8, len(tags)) + b"".join(struct.pack("<HHII", *tag) for tag in tags)
    return (body + bytes(4)).ljust(134, b"\0") + struct.pack("<3H", 16, 16, 16) + np.arange(12, dtype="<u2").tobytes()


@pytest.mark.parametrize(
    ("suffix", "data"),
    [
        ("png", deep_png(2, 3)),
        ("png", deep_png(6, 4)),
        ("png", deep_png(4, 2)),
        ("ppm", b"P6 # a comment\n2 2\n65535\n" + np.arange(12, dtype=">u2").tobytes()),
        ("tif", deep_tiff()),
    ],
)
def test_sixteen_bits_of_colour_are_refused_as_grey_is(tmp_path: Path, suffix: str, data: bytes) -> None:
    put(tmp_path / "deep", **{f"a_{suffix}": data})
    with pytest.raises(ValueError, match=rf"a.{suffix} in deep must have 8 bits per channel, but it has 16"):
        read(tmp_path / "deep")


def test_a_jpeg_2000_of_more_than_eight_bits_is_refused(tmp_path: Path) -> None:
    data = bytearray(encoded(picture(), "JPEG2000"))
    at = data.index(b"\xff\x4f\xff\x51") + 42
    assert data[at : at + 9 : 3] == b"\x07\x07\x07"  # 8 bits in each channel: the place is the right one
    data[at : at + 9 : 3] = b"\x0b\x0b\x0b"
    put(tmp_path / "deep", a_jp2=bytes(data))
    with pytest.raises(ValueError, match=r"a.jp2 in deep must have 8 bits per channel, but it has 12"):
        read(tmp_path / "deep")


@pytest.mark.parametrize("top", [1, 16])
def test_pictures_of_few_levels(tmp_path: Path, top: int) -> None:
    mask = np.random.default_rng(0).integers(0, top + 1, (8, 8)).astype(np.uint8)
    mask[0, :2] = 0, top
    folder = put(tmp_path / "m", a_png=encoded(Image.fromarray(mask)))
    for path in (folder, zipped(folder)):
        for _ in range(2):
            with pytest.warns(
                UserWarning, match=rf"no value of {path.name} \(1 images\) is above {top}, .*\(0, {top}\)"
            ):
                assert read(path).array.dtype == np.uint8
        data = read(path, value_range=(0, top))
        np.testing.assert_allclose(data[0][0], mask / top * 2 - 1, atol=1e-6)
        assert read(path, value_range=(0, 255)).array.dtype == np.uint8
        np.testing.assert_array_equal(read(path, value_range="any")[0][0], mask)
    with pytest.raises(ValueError, match=rf"values of m must lie in \[0, 0.5\], got {top}"):
        read(folder, value_range=(0, 0.5))


def test_labels_of_inner_folders_and_of_names_with_backslashes(tmp_path: Path) -> None:
    labels = json.dumps({"labels": [["00000\\img0.png", 3], ["00000/img1.png", 5]]}).encode()
    files = {"ffhq__00000__img0_png": encoded(picture(0)), "ffhq__00000__img1_png": encoded(picture(1))}
    folder = put(tmp_path / "z", ffhq__dataset_json=labels, **files)
    for path in (folder, zipped(folder)):
        np.testing.assert_array_equal(read(path).labels, [3, 5])
        assert read(path, labels=False).labels is None
    with zipfile.ZipFile(tmp_path / "w.zip", "w") as archive:
        for name, data in (("00000\\img0.png", encoded(picture())), ("dataset.json", labels)):
            member = zipfile.ZipInfo("x")
            member.filename = name
            archive.writestr(member, data)
    with pytest.warns(UserWarning, match="1 of the 2 labels of w.zip are of images that are not there"):
        np.testing.assert_array_equal(read(tmp_path / "w.zip").labels, [3])


POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"a" * 64 + b"\nsize 12345\n"


@pytest.mark.parametrize("name", ["a/a_png", "a_npz", "a_npy", "a_zip", "a/train-00000-of-00001_parquet", "a_gz"])
def test_git_lfs_pointers_are_called_so(tmp_path: Path, name: str) -> None:
    path = tmp_path / name.replace("_", ".")
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(POINTER)
    with pytest.raises(ValueError, match=r"is a git-lfs pointer.*: git lfs pull"):
        read(path if path.parent == tmp_path else path.parent)


@pytest.mark.parametrize(
    ("name", "data", "what"),
    [
        ("a.npy", b"\x89HDF\r\n\x1a\n" + bytes(9), "it is an HDF5 file"),
        ("a.npz", b"<!DOCTYPE html><html>Sign in", "it is a web page"),
        ("a.png", encoded(picture()), "it is one PNG image"),
        ("a.pt", b"\x80\x02}q\x00.", "it is a pickle"),
    ],
)
def test_files_of_other_kinds_are_called_what_they_are(tmp_path: Path, name: str, data: bytes, what: str) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(ValueError, match=rf"{name} is no data set: {what}"):
        read(tmp_path / name)


@pytest.mark.parametrize(("data", "why"), [(b"", "it is empty"), (b"x", "cannot identify image file$")])
def test_reasons_have_no_addresses(tmp_path: Path, data: bytes, why: str) -> None:
    put(tmp_path / "a", a_png=data)
    with pytest.raises(ValueError, match=rf"a.png in a cannot be read as an image: {why}"):
        read(tmp_path / "a")
