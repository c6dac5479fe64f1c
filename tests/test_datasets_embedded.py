"""The data sets that come with the dependencies: counts, shapes, content."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from optimal.cli.point_files import place_of
from optimal.datasets import load
from optimal.datasets.embedded import name_of
from optimal.datasets.patches import window_corners


@pytest.fixture(scope="session")
def shared_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("embedded")


@pytest.fixture(autouse=True)
def cache(shared_cache: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("OPTIMAL_CACHE", str(shared_cache))
    return shared_cache


def test_digits() -> None:
    from sklearn.datasets import load_digits

    data = load("digits", progress=False)
    assert data.array.shape == (1797, 1, 8, 8)
    assert isinstance(data.array, np.memmap)
    np.testing.assert_array_equal(np.rint(data.array[:, 0] / 255 * 16), load_digits().images)
    np.testing.assert_array_equal(data.labels, load_digits().target)
    assert data.array.max() == 255


def test_faces_are_the_first_hundred() -> None:
    from skimage.data import lfw_subset

    data = load("faces", progress=False)
    assert data.array.shape == (100, 1, 25, 25)
    assert np.abs(data.array[:, 0] / 255 - lfw_subset()[:100]).max() <= 0.5 / 255 + 1e-9


@pytest.mark.slow
def test_emoji_of_another_size() -> None:
    data = load("emoji", size=16, progress=False)
    assert data.event == (3, 16, 16)
    assert data.name == "emoji-16"
    assert data.names is not None
    assert len(set(data.names)) == len(data)
    grin = data.names.index("1F600 grinning face")
    assert all(place_of(text, data) == grin for text in ("1F600", "grinning face", f"@{grin}"))
    assert name_of("E2CC") in data.names  # of OpenMoji's own: Unicode has no name for it
    large = load("emoji", progress=False)
    # The same drawings: on white, and as dark on average.
    assert abs(float(data.points.mean() - large.points.mean())) < 0.01
    for size in (7, 513):
        with pytest.raises(ValueError, match="size of emoji must be a whole number from 8 to 512"):
            load("emoji", size=size)
    with pytest.raises(ValueError, match=r"size must be a whole number, got 16\.0"):
        load("emoji", size=16.0)  # pyright: ignore[reportArgumentType]


@pytest.mark.slow
def test_emoji() -> None:
    data = load("emoji", progress=False)
    assert data.event == (3, 64, 64)
    assert 2000 < len(data) < 4000
    assert data.licence == "CC BY-SA 4.0"
    assert len(np.unique(data.array.reshape(len(data), -1), axis=0)) == len(data)
    corners = data.array[:, :, [0, 0, -1, -1], [0, -1, 0, -1]]
    assert (corners == 255).all(axis=(1, 2)).mean() > 0.9  # on white
    assert (data.array < 255).any(axis=(1, 2, 3)).mean() > 0.99  # and not blank
    assert data.array.std(axis=1).max() > 50  # in colour, channels first


def test_skin_tones_are_left_out_by_default() -> None:
    from optimal.datasets.embedded import SKIN_TONE

    assert SKIN_TONE.search("1F44B-1F3FD")
    assert SKIN_TONE.search("1F9D1-1F3FB-200D-1F91D-200D-1F9D1-1F3FC")
    assert not SKIN_TONE.search("1F44B")
    assert not SKIN_TONE.search("1F3FB")  # the swatch itself is a picture of its own
    assert not SKIN_TONE.search("1F1E9-1F3FBA")


def test_patches() -> None:
    data = load("patches", n=205, progress=False)
    assert data.array.shape == (205, 3, 64, 64)
    assert data.fingerprint == load("patches", n=205).fingerprint != load("patches", n=100, progress=False).fingerprint
    from skimage.data import astronaut

    np.testing.assert_array_equal(data.array[0], astronaut()[:64, :64].transpose(2, 0, 1))
    assert len(np.unique(data.array.reshape(205, -1), axis=0)) > 190


@given(st.integers(0, 400), st.integers(1, 40), st.integers(1, 40))
def test_window_corners_are_distinct_and_inside(count: int, height: int, width: int) -> None:
    count = min(count, height * width)
    corners = window_corners(count, height, width)
    assert corners.shape == (count, 2)
    assert len(set(map(tuple, corners.tolist()))) == count
    assert (corners >= 0).all()
    assert (corners < [height, width]).all()
