"""What all tests share: two threads, shapes checked, reproducible property tests, one way to make randomness."""

from __future__ import annotations

import os
from collections.abc import Callable

# Before torch starts its threads: on a busy machine they spin for each other, 60 times longer than a small call takes.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import formulas
import pytest
import shapes
import torch
from hypothesis import settings

# Before the first import of optimal: its annotated shapes are checked under pytest, and only there.
shapes.install(["optimal", "neural"])

torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "2")))
settings.register_profile("optimal", deadline=None, derandomize=True, max_examples=30)
settings.load_profile("optimal")


@pytest.fixture
def normal() -> Callable[..., torch.Tensor]:
    """normal(3, 4): standard Gaussian float64, the same numbers in every run of a test, new ones at every call."""
    generator = torch.Generator().manual_seed(20220601)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    return draw


@pytest.fixture(scope="session")
def compiled() -> None:
    formulas.compile_all()


@pytest.fixture(params=["dense", "keops", "screened"])
def method(request: pytest.FixtureRequest) -> str:
    """Each way to reduce the sums over the data."""
    if request.param == "keops":
        request.getfixturevalue("compiled")
    return request.param
