"""A memory map larger than the budget: the same answers as in memory, in less memory than the file has bytes."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from optimal import OptimalDenoiser
from optimal.points import Points

Normal = Callable[..., Tensor]
SIGMAS = (0.1, 20.0)

CHILD = """
import resource, sys
import numpy as np, torch
from optimal import OptimalDenoiser
resource.setrlimit(resource.RLIMIT_DATA, (600 * 10**6, 600 * 10**6))
torch.set_num_threads(2)
path, queries, out = sys.argv[1:]
D = OptimalDenoiser(np.load(path, mmap_mode="r"), memory=200 * 10**6)
found = {}
for i, (sigma, x) in enumerate(np.load(queries).items()):
    post = D.posterior(torch.from_numpy(x), float(sigma))
    found |= {f"mean{i}": post.mean.numpy(), f"index{i}": post.top_index.numpy(), f"bound{i}": post.error_bound.numpy()}
status = dict(line.split(":", 1) for line in open("/proc/self/status"))
np.savez(out, peak=int(status["VmHWM"].split()[0]) * 1024, **found)
"""


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """70,000 × 12,288 bytes: smooth images, many alike, so that posteriors at 20 are spread."""
    path = tmp_path_factory.mktemp("large") / "array.npy"
    out = np.lib.format.open_memmap(path, "w+", np.uint8, (70_000, 3, 64, 64))
    generator = np.random.default_rng(0)
    for start in range(0, len(out), 7000):
        coarse = generator.integers(64, 192, (7000, 3, 8, 8), dtype=np.uint8)
        out[start : start + 7000] = coarse.repeat(8, 2).repeat(8, 3)
    out.flush()
    return path


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="peak memory is read from /proc")
def test_ffhq_sized_data_in_600_mb(large: Path, tmp_path: Path, normal: Normal) -> None:
    """The kernel refuses the child's 601st megabyte of its own; pages of the file come on top, and must be few."""
    D = OptimalDenoiser(np.load(large, mmap_mode="r"), memory=2**31)
    assert not D.points.streamed
    index = torch.arange(0, 70_000, 1100)
    queries = {str(sigma): (D.take(index) + sigma * normal(len(index), *D.event).float()).numpy() for sigma in SIGMAS}
    np.savez(tmp_path / "queries.npz", **queries)  # pyright: ignore[reportArgumentType]
    command = [sys.executable, "-c", CHILD, str(large), str(tmp_path / "queries.npz"), str(tmp_path / "out.npz")]
    environment = os.environ | {"OMP_NUM_THREADS": "2", "OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = np.load(tmp_path / "out.npz")
    assert found["peak"] <= 720e6
    for i, sigma in enumerate(SIGMAS):
        post = D.posterior(torch.from_numpy(queries[str(sigma)]), sigma)
        torch.testing.assert_close(torch.from_numpy(found[f"mean{i}"]), post.mean, rtol=0, atol=2e-5)
        assert torch.equal(torch.from_numpy(found[f"index{i}"]), post.top_index)
        assert (found[f"bound{i}"] <= 1e-3).all()


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_every_way_of_reading(dtype: type, tmp_path: Path) -> None:
    """Rows, blocks and statistics of a streamed file are those of the array."""
    array = np.random.default_rng(0).integers(0, 256, (500, 37), dtype=np.uint8).astype(dtype)
    array[17] = array[401]
    np.save(tmp_path / "array.npy", array)
    whole, streamed = Points(array), Points(np.load(tmp_path / "array.npy", mmap_mode="r"), memory=1000)
    assert streamed.streamed
    assert torch.equal(streamed.centre, whole.centre)
    assert torch.equal(streamed.half_norms, whole.half_norms)
    assert torch.equal(streamed.first_copies, whole.first_copies)
    assert streamed.first_copies[401] == 17
    index = torch.tensor([499, 0, 3])
    assert torch.equal(streamed.take(index), whole.take(index))
    assert streamed.take(index[:0]).shape == (0, 37)
    for where in (None, index):
        ours, theirs = (
            [(start, block.clone()) for start, block in points.blocks(7, points.device, where)]
            for points in (streamed, whole)
        )
        assert all(a == b and torch.equal(x, y) for (a, x), (b, y) in zip(ours, theirs, strict=True))
    if dtype == np.uint8:
        ours, theirs = (
            torch.cat([block.clone() for _, block in points.signed(100, points.device)]) for points in (streamed, whole)
        )
        assert torch.equal(ours, theirs)


def test_what_is_not_streamed(tmp_path: Path) -> None:
    np.save(tmp_path / "array.npy", np.arange(600, dtype=np.float32).reshape(100, 6))
    path = tmp_path / "array.npy"
    assert not Points(np.load(path, mmap_mode="r"), memory=10**4).streamed
    # Giving back the pages of a private copy would lose what was written to them.
    private = np.load(path, mmap_mode="c")
    private[3] = -1.0
    points = Points(private, memory=100)
    assert not points.streamed
    assert torch.equal(points.take(torch.tensor([3]))[0], torch.full((6,), -1.0))
    # A part of a map starts at its own offset.
    part = Points(np.load(path, mmap_mode="r")[40:], memory=100)
    assert part.streamed
    assert torch.equal(part.take(torch.tensor([0]))[0], torch.arange(240.0, 246.0))
