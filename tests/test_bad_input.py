"""Bad input to the denoiser: one clear sentence, ValueError, nothing else."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

from optimal import OptimalDenoiser

EVENT = (3, 2, 4)
BATCH = 4


@pytest.fixture(scope="module")
def D() -> OptimalDenoiser:
    return OptimalDenoiser(torch.linspace(-1, 1, 5 * 24).reshape(5, *EVENT))


def call(D: OptimalDenoiser, name: str, x: Any, sigma: Any) -> Any:
    if name == "covariance_product":
        return D.covariance_product(x, sigma, x)
    return getattr(D, name)(x, sigma)


@pytest.mark.parametrize("name", ["__call__", "posterior", "score", "weights", "covariance_product"])
@pytest.mark.parametrize(
    ("sigma", "sentence"),
    [
        (0.0, r"sigma must be positive and finite, got 0$"),
        (-1, r"sigma must be positive and finite, got -1$"),
        (math.nan, r"sigma must be positive and finite, got nan$"),
        (math.inf, r"sigma must be positive and finite, got inf$"),
        (torch.tensor([1.0, 2.0, -3.0, 0.0]), r"sigma must be positive and finite, got -3$"),
        (torch.ones(4, 2), r"sigma must have shape \(\) or \(B,\), got \(4, 2\) with B = 4$"),
        (torch.ones(1, 4), r"sigma must have shape \(\) or \(B,\), got \(1, 4\) with B = 4$"),
        (torch.ones(3), r"sigma must have shape \(\) or \(B,\), got \(3,\) with B = 4$"),
        (torch.ones(1), r"sigma must have shape \(\) or \(B,\), got \(1,\) with B = 4$"),
        (torch.ones(4, 1, 2, 1), r"got \(4, 1, 2, 1\) with B = 4$"),
    ],
)
def test_sigma(D: OptimalDenoiser, name: str, sigma: Any, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        call(D, name, torch.zeros(BATCH, *EVENT), sigma)


def test_sigma_as_in_edms_loop(D: OptimalDenoiser) -> None:
    """EDM hands its networks sigma as (B, 1, 1, 1)."""
    x, sigma = torch.zeros(BATCH, *EVENT), torch.linspace(0.5, 2.0, BATCH)
    assert torch.equal(D(x, sigma.view(-1, 1, 1, 1)), D(x, sigma))


@pytest.mark.parametrize("name", ["__call__", "posterior", "score", "weights", "covariance_product"])
@pytest.mark.parametrize(
    ("x", "sentence"),
    [
        (torch.zeros(4, 3, 4, 2), r"x must have shape \(B, 3, 2, 4\), got \(4, 3, 4, 2\)$"),
        (
            torch.zeros(4, 2, 4, 3),
            r"x must have shape .*, got \(4, 2, 4, 3\): x.movedim\(-1, -3\) puts the channels first$",
        ),
        (torch.zeros(3, 2, 4), r"x must have shape \(B, 3, 2, 4\), got \(3, 2, 4\): x\[None\] is a batch of one$"),
        (torch.zeros(4, 24), r"x must have shape \(B, 3, 2, 4\), got \(4, 24\)$"),
        (torch.zeros(4, *EVENT, dtype=torch.int64), r"x must be floating point, got torch.int64$"),
        (torch.zeros(4, *EVENT, dtype=torch.uint8), r"x must be floating point, got torch.uint8$"),
        (torch.zeros(4, *EVENT).index_fill(0, torch.tensor(2), math.nan), r"x must be finite, row 2 is not$"),
        (torch.zeros(4, *EVENT).index_fill(0, torch.tensor(1), -math.inf), r"x must be finite, row 1 is not$"),
    ],
)
def test_x(D: OptimalDenoiser, name: str, x: torch.Tensor, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        call(D, name, x, 1.0)


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (torch.empty(0, 2), r"at least one point and one axis, got \(0, 2\)$"),
        (torch.empty(3, 0), r"at least one point and one axis, got \(3, 0\)$"),
        (torch.zeros(3), r"data must have shape \(N, \*event\) .*, got \(3,\)$"),
        (torch.tensor(1.0), r"data must have shape \(N, \*event\) .*, got \(\)$"),
        (torch.zeros(3, 2, dtype=torch.int64), r"data must be floating point, or uint8 for images, got torch.int64$"),
        (torch.zeros(3, 2, dtype=torch.bool), r"data must be floating point, or uint8 for images, got torch.bool$"),
        (torch.tensor([[0.0], [1.0], [math.nan], [math.nan]]), r"data must be finite, point 2 is not$"),
        (torch.tensor([[0.0, 1.0], [math.inf, 1.0]]), r"data must be finite, point 1 is not$"),
        (torch.tensor([[0.0], [1e170]], dtype=torch.float64), r"data must be below 1e150, point 1 is not$"),
    ],
)
@pytest.mark.parametrize("kind", ["tensor", "array"])
def test_data(data: torch.Tensor, kind: str, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        OptimalDenoiser(data if kind == "tensor" else data.numpy())


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"method": "exact"}, r"method must be one of auto, dense, keops, screened, got 'exact'$"),
        ({"memory": 0}, r"memory must be a positive number of bytes, got 0$"),
        ({"memory": -5}, r"memory must be a positive number of bytes, got -5$"),
    ],
)
def test_options(options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        OptimalDenoiser(torch.zeros(2, 2), **options)


def test_weights_over_budget() -> None:
    D = OptimalDenoiser(torch.zeros(100, 2), memory=24 * 100 * 3)
    assert D.weights(torch.zeros(3, 2), 1.0).shape == (3, 100)
    with pytest.raises(
        ValueError, match=r"weights of 4 queries over 100 points need 9,600 bytes, over the budget of 7,200"
    ):
        D.weights(torch.zeros(4, 2), 1.0)


def test_direction_of_another_shape(D: OptimalDenoiser) -> None:
    with pytest.raises(ValueError, match=r"v must have the shape of x, \(4, 3, 2, 4\), got \(1, 3, 2, 4\)$"):
        D.covariance_product(torch.zeros(BATCH, *EVENT), 1.0, torch.zeros(1, *EVENT))


@pytest.mark.parametrize(
    "sigma", [2, np.float32(2.0), np.float64(2.0), np.full(4, 2.0), np.array(2.0), torch.tensor(2)]
)
def test_sigma_of_any_kind(D: OptimalDenoiser, sigma: Any) -> None:
    x = torch.linspace(-1, 1, BATCH * 24).reshape(BATCH, *EVENT)
    assert torch.equal(D(x, sigma), D(x, 2.0))


def test_shapes_are_checked_under_pytest(D: OptimalDenoiser) -> None:
    """The import hook of conftest.py is in force: an annotated argument of a wrong shape is refused."""
    with pytest.raises(TypeError, match="index"):
        D.take(torch.zeros(2, 2, dtype=torch.int64))
