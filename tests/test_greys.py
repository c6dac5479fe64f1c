"""Grey levels 0 to 255 where units of the data are meant: said of data and of queries, never of a noisy point."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest
import torch

from optimal import OptimalDenoiser, load
from optimal.datasets import to_float

LEVELS = np.random.default_rng(0).integers(0, 256, (20, 3, 8, 8), dtype=np.uint8)


@pytest.mark.parametrize("kept", [LEVELS, to_float(LEVELS)], ids=["bytes", "floats"])
def test_a_query_of_grey_levels_is_said_once(kept: np.ndarray) -> None:
    D = OptimalDenoiser(kept)
    x = torch.from_numpy(LEVELS[:2].astype(np.float32))
    x[0] = x[0] / 127.5 - 1
    with pytest.warns(UserWarning, match=r"row 1 of x has no value below 0 and \d+ above 2, up to 25\d: .*x / 127.5"):
        D(x, 1.0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        D.posterior(x, 1.0)


def test_what_a_guided_sampler_asks_is_not_doubted() -> None:
    """Bright images with little noise, taken up by a pull towards an observation."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        OptimalDenoiser(LEVELS)(torch.full((2, 3, 8, 8), 2.4), 0.5)


@pytest.mark.parametrize("level", [-1.0, 0.0, 1.0])
@pytest.mark.parametrize("sigma", [0.1, 0.5, 1.0, 3.0, 80.0])
def test_noisy_points_are_never_doubted(level: float, sigma: float) -> None:
    data = torch.full((2, 3, 8, 8), level)
    data[1, :, :4] = -level
    D = OptimalDenoiser(data)
    x = data[:1] + sigma * torch.randn(2000, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        D(x, sigma)


def test_data_in_other_units_take_queries_in_theirs() -> None:
    levels = LEVELS.astype(np.float32)
    with pytest.warns(UserWarning, match=r"the data \(first 20 points\) lie between 0 and 255, .*as they are; .*load"):
        D = OptimalDenoiser(levels)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        D(torch.from_numpy(levels[:2]), 1.0)
        OptimalDenoiser(levels - 100)
        OptimalDenoiser(levels / 32 + 100)  # around some value
        OptimalDenoiser(levels / 8)
        OptimalDenoiser(levels / 255)
        OptimalDenoiser(levels[:, 0, 0, :2])  # two numbers may be anything
        OptimalDenoiser(load(levels, value_range=(0, 255)))
        OptimalDenoiser(torch.from_numpy(LEVELS))


def test_flat_points_that_look_like_grey_levels_are_said(tmp_path: Path) -> None:
    flat = LEVELS.reshape(20, -1).astype(np.float32)
    np.save(tmp_path / "a.npy", flat)
    with pytest.warns(UserWarning, match=r"a.npy \(first 20 points\) lie between 0 and 255, .*value_range=\(0, 255\)"):
        np.testing.assert_array_equal(load(tmp_path / "a.npy", progress=False)[:], flat)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        data = load(tmp_path / "a.npy", value_range=(0, 255), progress=False)
    np.testing.assert_allclose(data[:], flat / 127.5 - 1, atol=1e-6)


def test_axes_in_another_order_are_told() -> None:
    D = OptimalDenoiser(LEVELS)
    x = torch.zeros(4, 8, 8, 3)
    with pytest.raises(ValueError, match=r"shape \(B, 3, 8, 8\), got \(4, 8, 8, 3\): x.movedim\(-1, -3\) puts"):
        D(x, 1.0)
    with pytest.raises(ValueError, match=r"got \(8, 8, 3\): x.movedim\(-1, -3\)\[None\] puts"):
        D(x[0], 1.0)
    with pytest.raises(ValueError, match=r"got \(3, 8, 8\): x\[None\] is a batch of one$"):
        D(torch.zeros(3, 8, 8), 1.0)
    with pytest.raises(ValueError, match=r"got \(4, 8, 8\)$"):
        D(x[..., 0], 1.0)
    assert D(x.movedim(-1, -3), 1.0).shape == (4, 3, 8, 8)
