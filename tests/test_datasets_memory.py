"""Data that are in memory, and layouts of files that hold points one by one."""

from __future__ import annotations

import gzip
import io
import json
import struct
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader, TensorDataset

from optimal import OptimalDenoiser
from optimal.datasets import Dataset, load

LEVELS = np.random.default_rng(0).integers(0, 256, (5, 3, 8, 8), dtype=np.uint8)
FLOATS = (LEVELS / 127.5 - 1).astype(np.float32)
POINTS = np.random.default_rng(1).standard_normal((5, 2)).astype(np.float32)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPTIMAL_CACHE", str(tmp_path / "cache"))


class Pictures(torch.utils.data.Dataset[Any]):
    """As torchvision's without a transform: Pillow's images and their classes."""

    def __len__(self) -> int:
        return len(LEVELS)

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        return Image.fromarray(LEVELS[index].transpose(1, 2, 0)), index % 3


@pytest.mark.parametrize(
    ("source", "labelled"),
    [
        (LEVELS, False),
        (LEVELS.transpose(0, 2, 3, 1), False),
        (torch.from_numpy(LEVELS), False),
        (list(LEVELS), False),
        ([torch.from_numpy(one) for one in LEVELS], False),
        (Pictures(), True),
        (DataLoader(Pictures(), batch_size=2, shuffle=True), True),
        ([{"image": one, "label": i % 3} for i, one in enumerate(LEVELS)], True),
        (TensorDataset(torch.from_numpy(LEVELS), torch.arange(5) % 3), True),
    ],
    ids=["array", "channels last", "tensor", "list", "tensors", "pictures", "loader", "dicts", "torch"],
)
def test_grey_levels_in_memory(source: Any, labelled: bool) -> None:
    data = load(source)
    np.testing.assert_array_equal(data.array, LEVELS)
    if labelled:
        np.testing.assert_array_equal(data.labels, np.arange(5) % 3)
    else:
        assert data.labels is None
    assert load(source, n=2).array.shape == (2, 3, 8, 8)
    if not isinstance(source, np.ndarray | torch.Tensor):
        expected = OptimalDenoiser(LEVELS)(torch.zeros(1, 3, 8, 8), 1.0)
        torch.testing.assert_close(OptimalDenoiser(source)(torch.zeros(1, 3, 8, 8), 1.0), expected)


def test_floats_in_memory_follow_the_rule_of_files() -> None:
    np.testing.assert_array_equal(load(list(FLOATS)).array, FLOATS)
    np.testing.assert_array_equal(load(POINTS.tolist()).array, POINTS)
    unit = (FLOATS + 1) / 2
    with pytest.warns(UserWarning, match=r"no value of ndarray .* is below 0"):
        load(unit)
    np.testing.assert_allclose(load(unit, value_range=(0, 1)).array, FLOATS, atol=1e-6)
    with pytest.raises(ValueError, match=r"float images of list must lie in \[-1, 1\]"):
        load(list(255 * unit))
    data = load("ring", n=4)
    assert load(data) is data
    torch.testing.assert_close(
        OptimalDenoiser(POINTS.tolist())(torch.zeros(1, 2), 1.0), OptimalDenoiser(POINTS)(torch.zeros(1, 2), 1.0)
    )


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (None, "must be a name, a path, an array, a tensor, a data set or a list of points, got NoneType"),
        (3, "got int"),
        ([], "list is empty"),
        ([POINTS[0], POINTS[0, :1]], r"point 1 is \(1,\) and the first \(2,\)"),
        ([["a"], ["b"]], r"must hold numbers of at most 64 bits, got <U1"),
        (np.array([[None]]), r"must hold numbers of at most 64 bits, got object"),
        (POINTS.astype(np.longdouble), r"must hold numbers of at most 64 bits, got float128"),
        (np.ma.masked_array(POINTS, POINTS > 0), "has a mask, which would be lost"),
        (torch.eye(3).to_sparse(), r"must be one dense tensor: torch.stack"),
        (
            torch.nested.nested_tensor([torch.ones(2), torch.ones(3)], layout=torch.jagged),
            r"must be one dense tensor: torch.stack",
        ),
        ([{"text": 1}], "items of list must hold one of image"),
    ],
)
@pytest.mark.parametrize("take", [load, OptimalDenoiser])
def test_what_is_no_data_is_refused_in_a_sentence(source: Any, message: str, take: Any) -> None:
    with pytest.raises(ValueError, match=message):
        take(source)


def test_labels_in_memory_that_are_no_whole_numbers_are_left_out_with_a_word() -> None:
    with pytest.warns(UserWarning, match="the labels of TensorDataset are left out"):
        assert load(TensorDataset(torch.from_numpy(LEVELS), torch.rand(5))).labels is None


def npy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


@pytest.mark.parametrize("block", [1 << 24, 600])
def test_latents_one_by_one(tmp_path: Path, block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("optimal.datasets.members.BLOCK", block)
    latents = 3 * np.random.default_rng(0).standard_normal((5, 8, 4, 4)).astype(np.float32)
    names = [f"00000/img-mean-std-{i:08}.npy" for i in range(5)]
    labels = json.dumps({"labels": [[name, i] for i, name in enumerate(names)]})
    (tmp_path / "f" / "00000").mkdir(parents=True)
    (tmp_path / "f" / "dataset.json").write_text(labels)
    with zipfile.ZipFile(tmp_path / "z.zip", "w") as archive:
        archive.writestr("dataset.json", labels)
        for name, one in zip(names, latents, strict=True):
            archive.writestr(name, npy(one))
            (tmp_path / "f" / name).write_bytes(npy(one))
    for path in (tmp_path / "z.zip", tmp_path / "f"):
        data = load(path, value_range="any", progress=False)
        np.testing.assert_array_equal(data.array, latents)
        np.testing.assert_array_equal(data.labels, np.arange(5))
        with pytest.raises(ValueError, match=r'must lie in \[-1, 1\], got .*value_range="any" takes it as it is'):
            load(path, progress=False)
    (tmp_path / "f" / names[3]).write_bytes(npy(latents[3, :4]))
    with pytest.raises(ValueError, match=r"must be alike, but .*00000003.npy is float32 \(4, 4, 4\) and the first"):
        load(tmp_path / "f", value_range="any", progress=False)


def test_an_idx_file_in_a_folder_of_its_own_name(tmp_path: Path) -> None:
    images = struct.pack(">4I", 0x803, 5, 8, 8) + LEVELS[:, 0].tobytes()
    marks = struct.pack(">2I", 0x801, 5) + bytes(range(5))
    for name, content in (("train-images-idx3-ubyte", images), ("train-labels-idx1-ubyte", marks)):
        (tmp_path / "k" / name).mkdir(parents=True)
        (tmp_path / "k" / name / name).write_bytes(content)
    inner = tmp_path / "k" / "train-images-idx3-ubyte"
    for path in (tmp_path / "k", inner, inner / inner.name):
        data = load(path, progress=False)
        np.testing.assert_array_equal(data.array[:, 0], LEVELS[:, 0])
        np.testing.assert_array_equal(data.labels, np.arange(5))
    (tmp_path / "k" / "t10k-images-idx3-ubyte").write_bytes(images)
    with pytest.raises(ValueError, match="holds 2 idx files of images, give one: t10k-images"):
        load(tmp_path / "k", progress=False)


def test_masks_in_an_idx_file(tmp_path: Path) -> None:
    mask = (LEVELS[:, 0] > 127).astype(np.uint8)
    path = tmp_path / "a-idx3-ubyte"
    path.write_bytes(struct.pack(">4I", 0x803, 5, 8, 8) + mask.tobytes())
    with pytest.warns(UserWarning, match=r"no value of a-idx3-ubyte \(5 images\) is above 1"):
        load(path, progress=False)
    np.testing.assert_array_equal(load(path, value_range=(0, 1), progress=False)[:][:, 0], mask * 2.0 - 1)


@pytest.mark.parametrize(
    ("name", "inner", "what"),
    [
        ("cifar-10-python.tar.gz", bytes(257) + b"ustar" + bytes(250), "a tar archive in gzip; unpack it first"),
        ("a.nii.gz", b"\x5c\x01\x00\x00" + bytes(300), "a NIfTI volume in gzip;"),
        ("a.npy.gz", npy(POINTS), "a npy array in gzip;"),
        ("a.tar.gz", b"x" * 600, "something unknown in gzip;"),
    ],
)
def test_gzipped_files_are_called_what_they_are(tmp_path: Path, name: str, inner: bytes, what: str) -> None:
    (tmp_path / name).write_bytes(gzip.compress(inner))
    with pytest.raises(ValueError, match=f"{name} is no data set: it is {what}"):
        load(tmp_path / name)


def test_nothing_but_a_value_error_leaves_load(tmp_path: Path) -> None:
    (tmp_path / "p").mkdir()
    (tmp_path / "p" / "x.parquet").symlink_to(tmp_path / "gone.parquet")
    with pytest.raises(ValueError, match=r"x.parquet could not be read or written: No such file"):
        load(tmp_path / "p")
    (tmp_path / "w").mkdir()
    (tmp_path / "w" / "data-00000-of-00001.arrow").write_bytes(b"ARROW1")
    with pytest.raises(ValueError, match=r"of-00001.arrow is not a readable Arrow file, perhaps truncated: "):
        load(tmp_path / "w")


def test_data_sets_stay_what_they_are(tmp_path: Path) -> None:
    data = Dataset("mine", FLOATS, np.arange(5))
    with pytest.raises(ValueError, match="are for data as they come, but mine is a Dataset"):
        load(data, value_range=(0, 1))
