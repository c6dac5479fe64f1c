"""Dataset, the two scalings, the toys, and the options that every data set has."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from optimal.datasets import Dataset, fingerprint, load, names, to_float, to_uint8
from optimal.datasets.derive import spread

LEVELS = np.arange(256, dtype=np.uint8)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("OPTIMAL_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def images(n: int = 6, channels: int = 3, height: int = 4, width: int = 5) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (n, channels, height, width), dtype=np.uint8)


def test_scaling_is_the_formula_in_float32() -> None:
    expected = LEVELS.astype(np.float32) / np.float32(127.5) - np.float32(1)
    assert to_float(LEVELS).dtype == np.float32
    np.testing.assert_array_equal(to_float(LEVELS), expected)
    np.testing.assert_array_equal(to_float(torch.from_numpy(LEVELS)).numpy(), expected)
    assert expected[0] == -1.0
    assert expected[255] == 1.0


def test_scaling_leaves_its_argument_alone() -> None:
    tensor = torch.tensor([0, 128, 255], dtype=torch.uint8)
    to_float(tensor)
    assert tensor.tolist() == [0, 128, 255]
    x = torch.tensor([-1.0, 0.3])
    to_uint8(x)
    assert x.tolist() == pytest.approx([-1.0, 0.3])


@given(hnp.arrays(np.uint8, hnp.array_shapes(max_dims=4, max_side=5)))
def test_scaling_there_and_back(levels: np.ndarray) -> None:
    np.testing.assert_array_equal(to_uint8(to_float(levels)), levels)
    np.testing.assert_array_equal(to_uint8(to_float(torch.from_numpy(levels))).numpy(), levels)


@given(st.floats(-1e6, 1e6, width=32))
def test_levels_are_the_nearest(value: float) -> None:
    level = int(to_uint8(np.array([value], dtype=np.float32))[0])
    assert abs(level - min(max((value + 1) * 127.5, 0.0), 255.0)) <= 0.5 + 1e-4
    assert int(to_uint8(torch.tensor([value], dtype=torch.float32))[0]) == level


@pytest.mark.parametrize("kind", [np.asarray, torch.tensor])
def test_scaling_refuses_other_types(kind) -> None:
    with pytest.raises(ValueError, match=r"must be uint8, got .*float32"):
        to_float(kind(np.zeros(3, np.float32)))
    with pytest.raises(ValueError, match=r"floating point, got .*uint8"):
        to_uint8(kind(np.zeros(3, np.uint8)))
    with pytest.raises(ValueError, match="nan"):
        to_uint8(kind(np.array([0.0, np.nan], np.float32)))


def test_fingerprint_sees_content_shape_and_dtype() -> None:
    base = images()
    prints = {
        fingerprint(base),
        fingerprint(base[::-1]),
        fingerprint(base.reshape(6, 3, 5, 4)),
        fingerprint(base.view(np.int8)),
        fingerprint(base[:5]),
        fingerprint(np.where(np.arange(base.size).reshape(base.shape) == 77, base ^ 1, base)),
    }
    assert len(prints) == 6
    assert fingerprint(base) == fingerprint(np.asfortranarray(base)) == Dataset("a", base).fingerprint
    assert len(fingerprint(base)) == 16


def test_fingerprint_is_the_same_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = fingerprint(images())
    monkeypatch.setattr("optimal.storage.fingerprints._HASH_BLOCK", 100)
    assert fingerprint(images()) == whole


def test_indexing_is_a_part_of_points() -> None:
    data = Dataset("a", images(), np.arange(6))
    points = data.points
    assert points.shape == (6, 3, 4, 5)
    assert points.dtype == torch.float32
    torch.testing.assert_close(points, torch.from_numpy(to_float(images())), rtol=0, atol=0)
    mask = np.array([True, False, True, False, False, True])
    for index in (2, -1, np.int64(3), slice(1, 4), slice(None, None, -1), [4, 1, 1], np.array([0, 5]), mask, []):
        expected = to_float(images()[np.asarray(index, dtype=int) if isinstance(index, list) else index])
        np.testing.assert_array_equal(data[index].numpy(), expected)
    torch.testing.assert_close(data[torch.tensor([3, 0])], points[[3, 0]])
    assert data[1].shape == data.event == (3, 4, 5)
    assert len(list(data)) == 6


@pytest.mark.parametrize("index", [6, -7, [0, 6], (0, 1), [0.5]])
def test_indexing_out_of_range(index) -> None:
    with pytest.raises(IndexError):
        Dataset("a", images())[index]


def test_points_are_copies() -> None:
    data = Dataset("a", np.zeros((3, 2), np.float32))
    data.points.fill_(1.0)
    data[:2].fill_(1.0)
    data[0].fill_(1.0)
    assert not data.array.any()


@pytest.mark.parametrize(
    ("array", "labels", "message"),
    [
        (np.zeros((2, 3)), None, "uint8 or float32, got float64"),
        (np.zeros((2, 3), np.uint8), None, r"\(N, C, H, W\), got \(2, 3\)"),
        (np.zeros(3, np.float32), None, r"\(N, \*event\), got \(3,\)"),
        (np.zeros((0, 3), np.float32), None, r"empty.*\(0, 3\)"),
        (np.zeros((2, 3), np.float32), np.zeros(3), "2 points but 3 labels"),
    ],
)
def test_dataset_states_its_rules(array: np.ndarray, labels: np.ndarray | None, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Dataset("a", array, labels)


def test_describe_is_one_line() -> None:
    data = Dataset("faces", images())
    assert data.describe() == f"faces: N = 6, shape (3, 4, 5), uint8, fingerprint {data.fingerprint}"
    assert data.is_image
    assert not load("ring").is_image


def test_toys() -> None:
    assert load("five-deltas").points.flatten().tolist() == pytest.approx([-2.0, -1.6, -0.4, 0.4, 2.0])
    assert load("five-deltas", positions=[3, 1]).points.tolist() == [[3.0], [1.0]]
    assert load("two-points").points.tolist() == [[-1.0], [1.0]]
    ring = load("ring", n=5, radius=2.0).points
    torch.testing.assert_close(ring.norm(dim=1), torch.full((5,), 2.0))
    torch.testing.assert_close(ring.sum(0), torch.zeros(2), rtol=0, atol=1e-6)
    spiral = load("spiral", n=200, turns=3.0).points
    steps = (spiral[1:] - spiral[:-1]).norm(dim=1)[20:]
    assert steps.max() / steps.min() < 1.1
    assert spiral[-1].norm().item() == pytest.approx(1.0)
    grid = load("grid", n=9, radius=2.0).points
    assert sorted(map(tuple, grid.tolist())) == [(a, b) for a in (-2.0, 0.0, 2.0) for b in (-2.0, 0.0, 2.0)]
    assert load("grid", n=1).points.tolist() == [[0.0, 0.0]]
    assert load("spiral").fingerprint == load("spiral").fingerprint


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("five-deltas", {"positions": ()}, "one or more"),
        ("five-deltas", {"positions": (0.0, float("nan"))}, "finite"),
        ("two-points", {"positions": (0.0,)}, "exactly two positions, got 1"),
        ("ring", {"radius": 0.0}, "radius must be finite and greater than 0, got 0.0"),
        ("grid", {"n": 10}, "square number, got 10; the nearest are 9 and 16"),
        ("ring", {"n": 0}, "n must be at least 1, got 0"),
        ("five-deltas", {"n": 6}, "at most the number of points of five-deltas, 5, got 6"),
        ("five-deltas", {"n": 2.0}, "whole number"),
        ("ring", {"xflip": True}, r"xflip needs images.*\(2,\)"),
        ("digits", {"only": (3, 3)}, r"only must be \(i, k\) with 0 <= i < k, .*got \(3, 3\)"),
        ("digits", {"without": 10}, "without must be two whole numbers as 0,1, got 10"),
        ("digits", {"only": (True, 2)}, "only must be two whole numbers"),
        ("digits", {"only": (0, 2), "without": (0, 2)}, "give one"),
        ("digits", {"without": (0, 1)}, "leaves no point of the 1797"),
        ("five-deltas", {"only": (7, 9)}, "leaves no point"),
        ("digits", {"only": (0, 10), "n": 181}, "number of points of this part of digits, 180, got 181"),
        ("patches", {"n": 70_001}, "from 1 to 70,000, got 70001"),
    ],
)
def test_options_out_of_range(name: str, options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load(name, **options)


def test_unknown_names_and_options() -> None:
    with pytest.raises(ValueError, match=r"'digit'.*did you mean 'digits'.*known are five-deltas, .*patches"):
        load("digit")
    with pytest.raises(ValueError, match=r"'/nowhere/ffhq.zip', and no file or folder"):
        load("/nowhere/ffhq.zip")
    with pytest.raises(ValueError, match="ring has no option 'width'; its options are only, without, n, xflip, radius"):
        load("ring", width=3)
    with pytest.raises(ValueError, match="no option 'path'"):
        load("digits", path="x")
    assert names()[0] == "five-deltas"


def test_n_spreads_evenly(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", images(10))
    data = load(tmp_path / "a.npy", n=4)
    np.testing.assert_array_equal(data.array, images(10)[[0, 2, 5, 7]])
    assert load(tmp_path / "a.npy", n=10).fingerprint == load(tmp_path / "a.npy").fingerprint
    with pytest.raises(ValueError, match="at most"):
        load(tmp_path / "a.npy", n=11)


@pytest.mark.parametrize("in_memory", [1 << 26, 0])
def test_a_part_and_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, in_memory: int) -> None:
    monkeypatch.setattr("optimal.datasets.derive._IN_MEMORY", in_memory)
    np.save(tmp_path / "a.npy", images(11))
    path = tmp_path / "a.npy"
    held_out, rest = load(path, only=(2, 4), progress=False), load(path, without=(2, 4), progress=False)
    np.testing.assert_array_equal(held_out.array, images(11)[[2, 6, 10]])
    np.testing.assert_array_equal(rest.array, images(11)[[0, 1, 3, 4, 5, 7, 8, 9]])
    assert held_out.fingerprint != rest.fingerprint
    thinned = load(path, without=(2, 4), n=2, xflip=True, progress=False)
    np.testing.assert_array_equal(thinned.array[:2], rest.array[[0, 4]])
    np.testing.assert_array_equal(thinned.array[2:], rest.array[[0, 4]][..., ::-1])


def test_labels_go_with_their_points() -> None:
    digits, part = load("digits"), load("digits", only=(9, 10))
    assert digits.labels is not None
    assert part.labels is not None
    np.testing.assert_array_equal(part.labels, digits.labels[9::10])


@given(st.integers(1, 2000), st.data())
def test_spread_is_even(total: int, data: st.DataObject) -> None:
    n = data.draw(st.integers(1, total))
    index = spread(n, total)
    steps = np.diff(np.append(index, total))
    assert len(index) == n
    assert index[0] == 0
    assert steps.min() >= total // n
    assert steps.max() <= -(-total // n)


@pytest.mark.parametrize("in_memory", [1 << 26, 0])
def test_xflip_appends_mirror_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, in_memory: int) -> None:
    monkeypatch.setattr("optimal.datasets.derive._IN_MEMORY", in_memory)
    monkeypatch.setattr("optimal.datasets.derive._BLOCK", 130)
    np.save(tmp_path / "a.npy", images(7))
    data = load(tmp_path / "a.npy", xflip=True, progress=False)
    assert isinstance(data.array, np.memmap) == (in_memory == 0)
    np.testing.assert_array_equal(data.array, np.concatenate([images(7), images(7)[..., ::-1]]))
    thinned = load(tmp_path / "a.npy", xflip=True, n=2, progress=False)
    np.testing.assert_array_equal(thinned.array, np.concatenate([images(7)[[0, 3]], images(7)[[0, 3]][..., ::-1]]))
    assert data.fingerprint == fingerprint(data.array) != thinned.fingerprint


def test_importing_stays_light() -> None:
    heavy = "{'sklearn', 'skimage', 'resvg_py', 'pyarrow', 'PIL', 'matplotlib'}"
    code = f"import sys, optimal.datasets; sys.exit(', '.join({heavy} & set(sys.modules)) or None)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=Path(__file__).parents[1])
    assert done.returncode == 0, done.stderr
