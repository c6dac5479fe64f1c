"""What surrounds a theory's call, or its making, changes no answer: autocast, dtypes, batches, order and units."""

from __future__ import annotations

import functools

import pytest
import torch
from made_theories import MAKE
from surroundings import default_dtype
from torch import Tensor

from optimal import OptimalDenoiser, load
from optimal.denoiser import Denoiser

DRAWN = {
    *("Mixture", "Mixture, EM", "golden_subset", "golden_subset, PCA", "nearest_proposal", "subsampled"),
    "equivariant_local_score, part",
}
"""Points are drawn by their place in the data: another order is another draw."""
OF_THE_UNIT = {"golden_subset", "golden_subset, PCA", "Mixture, EM", "score_smoothed", "smoothed", "switch"}
"""A number in units of the data is part of them."""
POINTS = load("digits").points[:150]
SIGMA = 0.7
X = POINTS[:6].double() + SIGMA * torch.randn(
    6, 1, 8, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64
)
CLOSE = 1e-6
"""Of a float32 x: what its answers are rounded to, 6e-8, and the sums of the optimum in float32 leave."""

each = pytest.mark.parametrize("name", MAKE)


@functools.cache
def made(name: str) -> Denoiser:
    return MAKE[name](OptimalDenoiser(POINTS))


@functools.cache
def right(name: str) -> Tensor:
    return made(name)(X, SIGMA)


def off(answer: Tensor, expected: Tensor) -> float:
    return float((answer.double() - expected).norm() / expected.norm())


SURROUNDINGS = {
    "autocast": lambda: torch.autocast("cpu", dtype=torch.bfloat16),
    "float64": lambda: default_dtype(torch.float64),
    "float16": lambda: default_dtype(torch.float16),
    "inference": torch.inference_mode,
}


@each
@pytest.mark.parametrize("surrounding", SURROUNDINGS)
def test_a_call_and_the_making(name: str, surrounding: str) -> None:
    with SURROUNDINGS[surrounding]():
        called = made(name)(X.float(), SIGMA)
        again = MAKE[name](OptimalDenoiser(POINTS))(X.float(), SIGMA)
    assert called.dtype == again.dtype == torch.float32
    assert off(called, right(name)) < CLOSE
    assert off(again, right(name)) < CLOSE


@each
def test_batches(name: str) -> None:
    rows = torch.cat([made(name)(X[i : i + 1], SIGMA) for i in range(len(X))])
    assert off(rows, right(name)) < 1e-10
    assert made(name)(X[:0], SIGMA).shape == X[:0].shape
    levels = torch.tensor([0.2, SIGMA, 5.0, SIGMA, 1.0, 0.4])
    mixed = made(name)(X, levels)
    assert off(mixed[[1, 3]], right(name)[[1, 3]]) < 1e-6
    alone = made(name)(X[2:3], 5.0)
    assert off(mixed[2:3], alone) < 1e-10


@pytest.mark.parametrize("name", [name for name in MAKE if name not in DRAWN])
def test_the_order_of_the_data(name: str) -> None:
    shuffled = POINTS[torch.randperm(len(POINTS), generator=torch.Generator().manual_seed(1))]
    assert off(MAKE[name](OptimalDenoiser(shuffled))(X, SIGMA), right(name)) < 1e-10


@pytest.mark.parametrize("name", [name for name in MAKE if name not in OF_THE_UNIT])
def test_units_and_offset(name: str) -> None:
    scale, offset = 1e4, 5e4
    far = MAKE[name](OptimalDenoiser(scale * POINTS.double() + offset))
    assert off((far(scale * X + offset, scale * SIGMA) - offset) / scale, right(name)) < 1e-8


def test_another_answer_is_seen() -> None:
    """Each of these would be off by far more than is allowed, were the rows mixed up."""
    for name in MAKE:
        assert off(right(name).roll(1, 0), right(name)) > 0.1
