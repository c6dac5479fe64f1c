"""Files by their names: beside every @K, in its place, and under pictures; and what a run replaces."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from optimal import load
from optimal.__main__ import main
from optimal.cli.point_files import place_of, read_point
from optimal.cli.sheets import Tile, save_sheet
from optimal.datasets import Dataset

pytestmark = pytest.mark.filterwarnings("ignore:pets.* joins the pictures")
NAMES = ("cats/a.png", "cats/b.png", "dogs/a.png", "dogs/c.png")


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def folder() -> Path:
    home = Path("pets")
    for k, name in enumerate(NAMES):
        (home / name).parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(k).integers(0, 256, (8, 8, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(home / name)
    return home


def test_points_of_folders_and_zips_keep_their_names_in_every_part(folder: Path) -> None:
    with zipfile.ZipFile("pets.zip", "w") as archive:
        for name in reversed(NAMES):
            archive.write(folder / name, name)
    for source in (folder, Path("pets.zip")):
        data = load(source)
        assert data.names == NAMES
        again = load(source)
        assert again.names == NAMES
        for place, name in enumerate(NAMES):
            with Image.open(folder / name) as image:
                assert np.array_equal(data.array[place], np.asarray(image).transpose(2, 0, 1))
        assert load(source, n=2).names == ("cats/a.png", "dogs/a.png")
        assert load(source, without=(0, 2)).names == ("cats/b.png", "dogs/c.png")
        mirrored = load(source, only=(3, 4), xflip=True)
        assert mirrored.names == ("dogs/c.png", "dogs/c.png mirrored")
    assert load("digits").names is None
    with pytest.raises(ValueError, match="odd has 2 points but 1 names"):
        Dataset("odd", np.zeros((2, 1), np.float32), names=("a",))


def test_names_of_several_points_are_refused_and_near_ones_are_named() -> None:
    names = ("a.png", "a.png", "1F600 grinning face", "E2CC", "x grinning face")
    data = Dataset("d", np.zeros((5, 1, 2, 2), np.uint8), names=names)
    for text, places in (("a.png", "@0 a.png, @1 a.png"), ("grinning face", "@2 1F600 grinning face, @4 x grinning")):
        with pytest.raises(ValueError, match=f"2 points of d are called {text}: {places}"):
            place_of(text, data)
    assert place_of("1F600", data) == 2
    with pytest.raises(ValueError, match=r"no file E2CD: .* or its name; did you mean @3 E2CC\?$"):
        read_point("E2CD", data)
    with pytest.raises(ValueError, match=r"no file nothing like it: .* or its name$"):
        read_point("nothing like it", data)


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("@2", 2),
        ("dogs/a.png", 2),
        ("c.png", 3),
        ("pets/dogs/a.png", 2),
        ("./pets/cats/b.png", 1),
        ("elsewhere.png", None),
        ("ats/a.png", None),
    ],
)
def test_a_point_is_found_by_its_place_its_name_or_its_file(folder: Path, text: str, place: int | None) -> None:
    data = load(folder)
    assert place_of(text, data) == place
    if place is not None:
        point, notes = read_point(text, data)
        assert torch.equal(point, data[place])
        assert notes == ([] if text.startswith("@") else [f"{text} is @{place} {NAMES[place]} of pets"])


def test_a_file_of_the_same_name_elsewhere_is_that_file(folder: Path) -> None:
    Image.new("RGB", (8, 8), "white").save("c.png")
    data = load(folder)
    assert place_of("c.png", data) is None
    assert bool((read_point("c.png", data)[0] == 1).all())


def test_a_name_that_several_have_is_refused(folder: Path) -> None:
    with pytest.raises(ValueError, match=r"2 points of pets are called a\.png: @0 cats/a\.png, @2 dogs/a\.png; give"):
        read_point("a.png", load(folder))


def test_names_stand_beside_every_point_that_commands_tell_of(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["denoise", str(folder), "c.png", "--sigma", "0.1", "--add-noise"]) == 0
    told = capsys.readouterr()
    assert "most probable: @3 dogs/c.png 1" in told.out
    assert "c.png is @3 dogs/c.png of pets" in told.err
    assert main(["denoise", str(folder), "@3", "--sigma", "0.1", "--add-noise", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["points"] == [{"index": 3, "name": "dogs/c.png", "weight": 1.0}]
    assert main(["where", str(folder), "@1", "--sigma", "0.1", "--add-noise"]) == 0
    assert "x becomes data point @1 cats/b.png (certain" in capsys.readouterr().out
    assert main(["where", str(folder), "@1", "--sigma", "0.1", "--add-noise", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["name"], found["leader_name"]) == ("cats/b.png", "cats/b.png")
    assert main(["sample", str(folder), "-n", "3", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["name"] == [NAMES[k] for k in found["index"]]


def test_what_a_run_replaces_is_said(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = ["where", str(folder), "@1", "--sigma", "0.1", "--out", "there"]
    assert main(asked) == 0
    assert "replaced" not in capsys.readouterr().err
    assert main(asked) == 0
    assert "there.png of an earlier run will be replaced (--out names others)" in capsys.readouterr().err
    Path("there.json").write_text("{}")
    Path("there.png").unlink()
    assert main(asked) == 0
    assert "replaced" not in capsys.readouterr().err
    assert Path("there.json").read_text() == "{}"


def test_a_sheet_shows_every_image_and_words_under_it(tmp_path: Path) -> None:
    images = torch.linspace(-1, 1, 3)[:, None, None, None].expand(3, 1, 8, 8)
    words = ("white", "a name that is much longer than the picture above it, number 17.png")
    tiles = [Tile(image, (words[k == 2],)) for k, image in enumerate(images)]
    page = np.asarray(Image.open(save_sheet(tiles, tmp_path / "sheet.png", columns=2)).convert("L"))
    # Tiles of 128 with 16 for the words, 6 apart.
    assert page.shape == (2 * 144 + 6, 2 * 128 + 6)
    corners = ((0, 0), (0, 134), (150, 0))
    assert [int(page[row, column]) for row, column in corners] == [0, 128, 255]
    for row, column in corners:
        assert page[row + 128 : row + 144, column : column + 128].min() < 100
    assert page[128:144, 128:134].min() == 255
    assert page[150:, 134:].min() == 255


def test_the_curve_of_the_border_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["border", "digits", "--quick", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    sigma = found["count"]["sigma"]
    assert [row["sigma"] for row in found["curve"]] == pytest.approx([sigma * 2.0**k for k in range(-2, 6)])
    at = found["curve"][2]
    assert at["count"] == pytest.approx(2, rel=0.05)
    assert all(row["low_quartile"] <= row["count"] <= row["high_quartile"] for row in found["curve"])
    assert found["curve"][0]["source"] > 0.99 > found["curve"][-1]["source"]
    assert main(["border", "digits", "--quick"]) == 0
    lines = capsys.readouterr().out.splitlines()
    table = lines[lines.index("") + 1 :]
    assert table[0].startswith("sigma  points in the blend")
    assert [line.count("#") for line in table[1:]] == sorted(line.count("#") for line in table[1:])
    assert main(["border", "two-points", "--quick"]) == 0
    assert "led by the source" not in capsys.readouterr().out
