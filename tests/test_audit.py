"""Copies that were planted among samples are found, and only these; the command line says so in one sentence."""

from __future__ import annotations

import csv
import json
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from neural import audit
from neural.__main__ import main
from neural.report.pictures import pairs
from optimal import OptimalDenoiser, load
from optimal.datasets import Dataset, to_float

Normal = Callable[..., Tensor]
SIZE = (3, 8, 8)


def pictures(count: int, seed: int) -> Tensor:
    """Blurred noise: images that differ, none its own mirror image."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randn(count, 3, 4, 4, generator=generator)
    smooth = torch.nn.functional.interpolate(coarse, SIZE[1:], mode="bilinear")
    return (128 + 60 * smooth).clamp(0, 255).to(torch.uint8)


@pytest.fixture(scope="module")
def training() -> Tensor:
    images = pictures(400, 1)
    images[300:320] = images[:20]  # copies within the data count as one
    return images


@pytest.fixture(scope="module")
def planted(training: Tensor) -> tuple[Tensor, list[str], list[int]]:
    """Samples, what they are, and of which image."""
    generator = torch.Generator().manual_seed(2)
    grey = torch.randint(-1, 2, (10, *SIZE), generator=generator)
    near = (training[40:50].int() + grey).clamp(0, 255).to(torch.uint8)
    assert (near != training[40:50]).flatten(1).any(1).all()
    parts = [training[5:25], near, training[60:70].flip(-1), near.flip(-1), pictures(50, 3)]
    kinds = ["exact"] * 20 + ["near"] * 10 + ["mirrored exact"] * 10 + ["mirrored near"] * 10 + [""] * 50
    return torch.cat(parts), kinds, [*range(5, 25), *range(40, 50), *range(60, 70), *range(40, 50)]


def test_planted_copies_are_found(training: Tensor, planted: tuple[Tensor, list[str], list[int]]) -> None:
    samples, kinds, index = planted
    found = audit(OptimalDenoiser(training), samples)
    assert found.kind == kinds
    assert [side.index for side in found.sides[:50]] == index
    assert [side.mirrored for side in found.sides[:50]] == [False] * 30 + [True] * 20
    assert found.copied().tolist() == sorted(set(index))
    assert found.mirrored is not None
    # A copy of an image that is twice in the data is memorised too.
    assert found.plain.memorised[:30].all()
    assert not found.plain.memorised[30:].any()
    assert found.mirrored.memorised[30:50].all()
    assert found.count("memorised mirrored") == 20
    assert set(found.closest(30)) == {*range(20), *range(30, 40)}
    assert set(found.closest(50)) == set(range(50))
    assert found.sentence() == (
        "Copies: 50 of 100 samples (20 exact, 10 near, 10 mirrored exact, 10 mirrored near), of 40 different training "
        "images; memorised (nearest/second nearest distance < 1/3): 30% [21.2, 40], and 20 more as mirror images"
    )


def test_distances_are_those_of_differences(training: Tensor, planted: tuple[Tensor, list[str], list[int]]) -> None:
    samples, _, _ = planted
    found = audit(training, samples)
    points, x = to_float(training).double().flatten(1), to_float(samples).double()
    points[300:320] = torch.inf
    for looked, side in ((found.plain, x), (found.mirrored, x.flip(-1))):
        assert looked is not None
        distance, order = (side.flatten(1)[:, None] - points).square().sum(2).sqrt().topk(2, largest=False)
        torch.testing.assert_close(looked.distance, distance[:, 0], rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(looked.second_distance, distance[:, 1], rtol=1e-12, atol=0)
        assert torch.equal(torch.stack([looked.index, looked.second], 1), order)


def test_a_sample_in_float_is_taken_in_grey_levels(training: Tensor) -> None:
    """As it would be saved: a third of a grey level off is the same picture, a whole one is another."""
    x = to_float(training[30:33])
    found = audit(training, torch.cat([x + 0.3 / 127.5, x + 1.0 / 127.5]))
    assert found.kind == ["exact"] * 3 + ["near"] * 3


def test_the_memorised_share_has_an_exact_interval(training: Tensor) -> None:
    none = audit(training, pictures(50, 3)).share("memorised")
    assert float(none.low) == 0
    assert float(none.high) == pytest.approx(1 - 0.025 ** (1 / 50), rel=1e-9)
    three = audit(training, torch.cat([training[:3], pictures(7, 3)]))
    # Clopper and Pearson's for 3 of 10, from a table.
    assert float(three.share("copies").low) == pytest.approx(0.0667, abs=5e-5)
    assert float(three.share("copies").high) == pytest.approx(0.6525, abs=5e-5)


def test_points_and_a_lone_one(normal: Normal) -> None:
    data = normal(50, 2)
    x = torch.cat([data[:4], data[4:8] + 1e-3, 30 + normal(4, 2)])
    found = audit(data, x)
    assert found.mirrored is None
    assert found.kind == ["exact"] * 4 + ["near"] * 4 + [""] * 4
    assert "data points" in found.sentence()
    alone = audit(torch.ones(3, 2), torch.zeros(2, 2))
    assert alone.plain.memorised.all()
    assert alone.plain.second.tolist() == [-1, -1]
    assert [row["second_distance"] for row in alone.rows()] == [None, None]


def test_blocks_are_one_answer(
    training: Tensor, planted: tuple[Tensor, list[str], list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, told = audit(training, planted[0]), []
    monkeypatch.setattr("neural.auditing._FEW", 8)
    monkeypatch.setattr("neural.auditing._MOST", 13)
    parts = audit(training, planted[0].numpy(), say=told.append)
    assert parts.rows() == whole.rows()
    assert len(told) == 1
    assert told[0] > 0


@pytest.mark.parametrize(
    ("samples", "sentence"),
    [
        (torch.zeros(2, 3, 9, 8), "samples must have the shape of the data, 3×8×8, got 3×9×8"),
        (torch.zeros(0, *SIZE), "there must be at least one sample, got none"),
        (torch.zeros(2, *SIZE, dtype=torch.int64), "samples must be uint8 or floating point, got torch.int64"),
    ],
)
def test_what_does_not_fit(training: Tensor, samples: Tensor, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        audit(training, samples)


def test_near_and_level_are_checked(training: Tensor) -> None:
    with pytest.raises(ValueError, match="near must be at least 0, got -1"):
        audit(training, training[:1], near=-1.0)
    with pytest.raises(ValueError, match="level must lie between 0 and 1, got 2"):
        audit(training, training[:1], level=2.0)
    with pytest.raises(ValueError, match="what must be copies, memorised"):
        audit(training, training[:1]).share("copied")


# The command line.


def saved(folder: Path, images: Tensor) -> Path:
    folder.mkdir()
    for i, image in enumerate(images.permute(0, 2, 3, 1).numpy()):
        Image.fromarray(image).save(folder / f"{i:03d}.png")
    return folder


def test_folders_and_zips(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, training: Tensor
) -> None:
    monkeypatch.chdir(tmp_path)
    saved(Path("data"), training[:30])
    generated = saved(Path("generated"), torch.cat([pictures(3, 3), training[7:9]]))
    with zipfile.ZipFile("generated.zip", "w") as archive:
        for path in sorted(generated.iterdir()):
            archive.write(path, f"all/{path.name}")
    for samples, prefix in (("generated", ""), ("generated.zip", "all/")):
        assert main(["audit", "data", samples, "--out", "sub/found"]) == 0
        printed = capsys.readouterr().out.splitlines()
        assert printed[0].startswith("Copies: 2 of 5 samples (2 exact), of 2 different training images; memorised")
        assert printed[1] == "sub/found.csv, sub/found.json, sub/found.png"
        with open("sub/found.csv", newline="") as file:
            rows = list(csv.DictReader(file))
        assert [row["file"] for row in rows] == [f"{prefix}{i:03d}.png" for i in range(5)]
        assert [row["nearest_file"] for row in rows[3:]] == ["007.png", "008.png"]
        assert [row["kind"] for row in rows] == ["", "", "", "exact", "exact"]
    about = json.loads(Path("sub/found.json").read_text())
    assert about["exact"] == about["copied"] == 2
    assert about["copies_low"] < about["copies_share"] == 0.4 < about["copies_high"]
    with Image.open("sub/found.png") as sheet:
        assert min(sheet.size) > 300


def test_the_closest_are_those_of_least_distance() -> None:
    """Not of the least ratio: between two data points a sample is near to both."""
    found = audit(torch.tensor([[0.0], [9.0], [9.5]]), torch.tensor([[1.0], [9.25], [5.0]]))
    assert found.plain.ratio.argmin() == 0
    assert found.closest(3) == [1, 0, 2]


def test_a_pair_is_the_sample_and_its_image(training: Tensor) -> None:
    left, right = to_float(training[:5]), to_float(training[5:10])
    figure = pairs(left, right, [f"caption {i}" for i in range(5)], title="a title", columns=2)
    assert len(figure.axes) == 5
    for i, axes in enumerate(figure.axes):
        pixels = np.asarray(axes.images[0].get_array())
        assert np.array_equal(pixels[:, :8], training[i].permute(1, 2, 0).numpy())
        assert np.array_equal(pixels[:, -8:], training[5 + i].permute(1, 2, 0).numpy())
    inside = [axes.get_position() for axes in figure.axes]
    assert all(box.x0 >= 0 and box.x1 <= 1 and box.y0 > 0 and box.y1 < 1 for box in inside)
    assert {"a title", *(f"caption {i}" for i in range(5))} == {text.get_text() for text in figure.texts}


def test_what_python_m_neural_sample_writes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["sample", "optimum", "--dataset", "digits", "-n", "6", "--steps", "40", "--out", "drawn"]) == 0
    assert main(["audit", "digits", "drawn.npz"]) == 0
    assert "Copies: 6 of 6 samples" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["digits", "faces"], "those of faces are 25x25 grey, digits is 8x8 grey"),
        (["five-deltas", "ring"], "those of ring are points of shape (2,), five-deltas is points of shape (1,)"),
        (["digits", "nowhere"], "unknown data set 'nowhere'"),
        (["digits", "wide.npy"], "(here: --sample-option value_range=LOWEST,HIGHEST)"),
    ],
)
def test_bad_input_is_one_sentence(
    arguments: list[str],
    sentence: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    np.save("wide.npy", np.full((2, 8, 8), -3.0, np.float32))
    assert main(["audit", *arguments]) == 2
    told = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error")]
    assert len(told) == 1
    assert sentence in told[0]
    assert "(here: --option" not in told[0]


def test_a_data_set_of_samples(training: Tensor) -> None:
    found = audit(Dataset("data", training.numpy()), Dataset("samples", training[:4].numpy()))
    assert found.kind == ["exact"] * 4
    assert len(found) == 4


@pytest.mark.parametrize("scaled", [lambda x: (x + 1) * 127.5, lambda x: (x + 1) / 2])
def test_images_in_another_range_are_not_called_new(scaled: Callable[[Tensor], Tensor]) -> None:
    """They would be far from all training images, copies or not."""
    data = load("digits")
    with pytest.raises(ValueError, match=r"samples of images must lie in \[-1, 1\], or be uint8: those here reach"):
        audit(data, scaled(data.points[:50]))
