"""The EDM grid."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from optimal import karras

# Karras et al. 2022, Eq. 5 with n = 18, rho = 7, from 80 to 0.002: NVlabs/edm's own values, to ten digits.
GOLDEN = """80 57.58598472 40.7855738 28.3745846 19.35245298 12.91008238 8.400935309 5.315194522 3.25682152 1.923339837
1.088170637 0.5853481232 0.2964422845 0.1395164687 0.05994731124 0.02293451837 0.007528019963 0.002 0"""


def test_golden_values() -> None:
    expected = torch.tensor([float(value) for value in GOLDEN.split()], dtype=torch.float64)
    torch.testing.assert_close(karras(18), expected, rtol=1e-9, atol=0)
    assert not torch.allclose(karras(18, rho=6.9), expected, rtol=1e-3, atol=0)


def test_one_step() -> None:
    assert karras(1).tolist() == [80.0, 0.0]
    assert karras(1, sigma_min=0.3, sigma_max=0.3).tolist() == [0.3, 0.0]


def test_two_steps() -> None:
    assert karras(2, sigma_min=0.1, sigma_max=7.0).tolist() == [7.0, 0.1, 0.0]


@given(
    n=st.integers(1, 200),
    low=st.floats(1e-4, 1.0),
    ratio=st.floats(1.01, 1e5),
    rho=st.floats(0.5, 20.0),
)
def test_any_grid(n: int, low: float, ratio: float, rho: float) -> None:
    sigmas = karras(n, sigma_min=low, sigma_max=low * ratio, rho=rho)
    assert sigmas.shape == (n + 1,)
    assert sigmas.dtype == torch.float64
    # To the last digit, since solvers and flow maps look their levels up.
    assert sigmas[0] == low * ratio
    assert sigmas[-1] == 0
    assert n == 1 or sigmas[-2] == low
    assert (sigmas[:-1] > sigmas[1:]).all()
    if n > 2:
        steps = sigmas[:-1].pow(1 / rho).diff()
        assert math.isclose(float(steps[0]), float(steps[-1]), rel_tol=1e-6, abs_tol=1e-10)


@pytest.mark.parametrize(
    ("n", "options", "sentence"),
    [
        (0, {}, "at least 1 step, got n = 0"),
        (-3, {}, "at least 1 step, got n = -3"),
        (5, {"sigma_min": 0.0}, "0 < sigma_min <= sigma_max < inf, got 0 and 80"),
        (5, {"sigma_min": -1.0}, "got -1 and 80"),
        (5, {"sigma_min": 90.0}, "got 90 and 80"),
        (5, {"sigma_min": math.nan}, "got nan and 80"),
        (5, {"sigma_max": math.nan}, "got 0.002 and nan"),
        (5, {"sigma_max": math.inf}, "got 0.002 and inf"),
        (5, {"rho": 0.0}, "rho must be positive and finite, got 0"),
        (5, {"rho": math.inf}, "rho must be positive and finite, got inf"),
        (5, {"rho": math.nan}, "rho must be positive and finite, got nan"),
    ],
)
def test_errors(n: int, options: dict[str, float], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        karras(n, **options)
