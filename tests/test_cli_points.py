"""A point that a command line names by a file: its numbers mean what those of data sets mean."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from optimal import load
from optimal.cli import read_point
from optimal.datasets import Dataset

PLACE = 8


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return load("digits", progress=False)


def saved(folder: Path, array: np.ndarray) -> str:
    np.save(folder / "x.npy", array)
    return str(folder / "x.npy")


def test_grey_levels_are_taken_as_such(tmp_path: Path, digits: Dataset) -> None:
    levels = digits.array[PLACE]
    point, notes = read_point(saved(tmp_path, levels), digits)
    assert notes == []
    np.testing.assert_array_equal(point, digits[PLACE])
    for dtype in (np.uint8, np.int64, np.uint16, np.float32):
        point, notes = read_point(saved(tmp_path, levels.astype(dtype)), digits, (0, 255))
        assert notes == []
        np.testing.assert_allclose(point, digits[PLACE], atol=1e-6)


@pytest.mark.parametrize("dtype", [np.int64, np.uint16, np.int16])
def test_other_whole_numbers_are_refused_without_a_range(tmp_path: Path, digits: Dataset, dtype: type) -> None:
    with pytest.raises(ValueError, match=r"x.npy must be uint8 or floating point .*; --value-range 0 255"):
        read_point(saved(tmp_path, digits.array[PLACE].astype(dtype)), digits)


@pytest.mark.parametrize("top", [1, 255])
def test_floats_without_a_value_below_0_are_in_doubt(tmp_path: Path, digits: Dataset, top: int) -> None:
    path = saved(tmp_path, digits.array[PLACE].astype(np.float32) / 255 * top)
    _, notes = read_point(path, digits)
    assert len(notes) == 1
    assert ("is below 0" if top == 1 else "lie between 0 and 255, as grey levels do") in notes[0]
    assert f"--value-range 0 {top}" in notes[0]
    assert "value_range=" not in notes[0]
    point, notes = read_point(path, digits, (0, top))
    assert notes == []
    np.testing.assert_allclose(point, digits[PLACE], atol=1e-6)
    assert read_point(saved(tmp_path, digits[PLACE].numpy() * 3), digits)[1] == []  # a noisy x may lie anywhere


def test_few_levels_are_in_doubt_in_arrays_and_in_pictures(tmp_path: Path, digits: Dataset) -> None:
    mask = (digits.array[PLACE] > 127).astype(np.uint8)
    Image.fromarray(mask[0]).save(tmp_path / "x.png")
    for path in (saved(tmp_path, mask), str(tmp_path / "x.png")):
        _, notes = read_point(path, digits)
        assert len(notes) == 1
        assert "is above 1" in notes[0]
        assert "--value-range 0 1" in notes[0]
        point, notes = read_point(path, digits, (0, 1))
        assert notes == []
        np.testing.assert_array_equal(point, mask * 2.0 - 1)


def test_points_that_are_no_images_may_be_whole_numbers(tmp_path: Path) -> None:
    point, notes = read_point(saved(tmp_path, np.array([1, 2])), load("ring", n=8))
    assert notes == []
    assert point.tolist() == [1, 2]
    assert read_point(saved(tmp_path, np.array([0, 5])), load("ring", n=8), (0, 10))[0].tolist() == [-1, 0]
