"""Odd but possible: pictures in memory, doubled names, labels of nothing, names that no line can hold."""

from __future__ import annotations

import io
import json
import warnings
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from optimal.__main__ import main
from optimal.datasets import Dataset, load


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPTIMAL_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)


def picture(seed: int = 0, mode: str = "RGB") -> Image.Image:
    levels = np.random.default_rng(seed).integers(0, 256, (16, 8, 3), dtype=np.uint8)
    return Image.fromarray(levels).convert(mode)


def encoded(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def read(source: Any, **options: Any) -> Dataset:
    return load(source, progress=False, **options)


@pytest.mark.filterwarnings("ignore:.* are grey and were made RGB", "ignore:.* are transparent in places")
@pytest.mark.parametrize("modes", [("P", "P"), ("1", "1"), ("LA", "L"), ("RGBA", "RGB"), ("L", "RGB"), ("P", "1")])
def test_pictures_in_memory_are_what_they_are_in_files(modes: tuple[str, ...]) -> None:
    pictures = [picture(i, mode) for i, mode in enumerate(modes)]
    if pictures[0].mode == "RGBA":
        pictures[0].putalpha(picture(5, "L"))
    Path("files").mkdir()
    for i, image in enumerate(pictures):
        image.save(f"files/{i}.png")
    np.testing.assert_array_equal(read(pictures).array, read("files").array)


def test_what_is_changed_of_pictures_in_memory_is_said() -> None:
    with pytest.warns(UserWarning, match="1 of the 2 images of list are grey and were made RGB"):
        read([picture(), picture(mode="L")])
    clear = picture(mode="RGBA")
    clear.putpixel((0, 0), (0, 0, 0, 0))
    with pytest.warns(UserWarning, match="1 of the 1 images of list are transparent in places and were put on white"):
        assert read([clear]).array[0, :, 0, 0].tolist() == [255, 255, 255]


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "TIFF"])
def test_every_format_is_turned_upright(kind: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Path("x").mkdir()
    Path(f"x/a.{kind.lower()}").write_bytes(encoded(picture(), kind, exif=exif))
    assert read("x").event == (3, 8, 16)


def test_images_of_one_name_in_a_zip_are_counted() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with zipfile.ZipFile("a.zip", "w") as archive:
            for seed, name in enumerate(("a.png", "b.png", "a.png")):
                archive.writestr(name, encoded(picture(seed)))
    for _ in range(2):
        with pytest.warns(UserWarning, match=r"1 of the 3 images of a.zip have the name of a later one, which is read"):
            data = read("a.zip")
    np.testing.assert_array_equal(data.array[0], np.asarray(picture(2)).transpose(2, 0, 1))


def test_labels_given_twice_or_of_nothing() -> None:
    Path("x").mkdir()
    Path("x/a.png").write_bytes(encoded(picture()))

    def labelled(*rows: Any) -> Dataset:
        Path("x/dataset.json").write_text(json.dumps({"labels": rows}))
        return read("x")

    assert labelled(["./a.png", 3]).labels == [3]
    assert labelled(["a.png", 4], [".\\a.png", 4]).labels == [4]
    with pytest.raises(ValueError, match=r"dataset.json of x gives a.png two labels, 1 and 3"):
        labelled(["a.png", 1], ["a.png", 3])
    with pytest.warns(UserWarning, match="2 of the 3 labels of x are of images that are not there"):
        assert labelled(["a.png", 5], ["b.png", 6], ["c.png", 7]).labels == [5]
    for text in ("[]", '{"labels": {"a.png": 1}}', '{"labels": 3}'):
        Path("x/dataset.json").write_text(text)
        with pytest.raises(ValueError, match=r"dataset.json of x must be \{\"labels\": \[\[name, label\], \.\.\.\]\}$"):
            read("x")


def test_names_that_no_line_can_hold_are_escaped(capsys: pytest.CaptureFixture[str]) -> None:
    Path("x").mkdir()
    for i, name in enumerate((b"x/a\nb.png", b"x/\xff.png", "x/ü 😀.png".encode())):
        with open(name, "wb") as file:
            file.write(encoded(picture(i)))
    data = read("x")
    assert [data.called(i) for i in range(3)] == ["@0 a\\nb.png", "@1 ü 😀.png", "@2 \\udcff.png"]
    assert main(["denoise", "x", "@2", "--sigma", "0.1"]) == 0
    assert "most probable: @2 \\udcff.png 1" in capsys.readouterr().out
    assert main(["where", "x", "a\nb.png", "--sigma", "0.1", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["name"] == "a\nb.png"


@pytest.mark.parametrize("name", ["a.npy", "a.npz", "a.zip", "a.parquet", "a.arrow", "a.gz", "a.tar", "a.bin"])
def test_empty_files_and_empty_words(name: str) -> None:
    Path(name).touch()
    with pytest.raises(ValueError, match=f"{name} is empty, a file of 0 bytes"):
        read(name)
    for text in ("", " "):
        with pytest.raises(ValueError, match=f"unknown data set '{text}'"):
            read(text)
