"""The noise grids."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from optimal import karras
from optimal.process import EDM, VE, VP, CosineVP, FlowMatching, GeometricVE, LinearSDE, Process
from optimal.schedule import cosine, grid, log_linear, uniform_t

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
        (5, {"sigma_min": 80.0}, "a grid of 5 steps needs sigma_min < sigma_max, got 80 for both"),
        (5, {"rho": 0.0}, "rho must be positive and finite, got 0"),
        (5, {"rho": math.inf}, "rho must be positive and finite, got inf"),
        (5, {"rho": math.nan}, "rho must be positive and finite, got nan"),
    ],
)
def test_errors(n: int, options: dict[str, float], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        karras(n, **options)


@given(n=st.integers(1, 100), low=st.floats(1e-4, 1.0), ratio=st.floats(1.01, 1e5))
def test_even_in_log_sigma(n: int, low: float, ratio: float) -> None:
    sigmas = log_linear(n, sigma_min=low, sigma_max=low * ratio)
    check(sigmas, n, low * ratio, low)
    if n > 1:
        ratios = sigmas[:-2] / sigmas[1:-1]
        assert math.isclose(float(ratios.max()), ratio ** (1 / (n - 1)), rel_tol=1e-9)
        assert math.isclose(float(ratios.min()), ratio ** (1 / (n - 1)), rel_tol=1e-9)


def test_log_linear_is_karras_of_infinite_rho() -> None:
    difference = [float((karras(18, rho=rho).log() - log_linear(18).log())[:-1].abs().max()) for rho in (1e3, 1e4)]
    assert difference[1] < 0.01
    assert 8 < difference[0] / difference[1] < 12


@given(n=st.integers(1, 100), low=st.floats(1e-4, 0.9), ratio=st.floats(1.01, 1e5))
def test_even_in_the_angle(n: int, low: float, ratio: float) -> None:
    sigmas = cosine(n, sigma_min=low, sigma_max=low * ratio)
    check(sigmas, n, low * ratio, low)
    # alpha-bar = cos² θ/cos² θ0 = 1/(1 + sigma²), with θ even.
    start = math.pi / 2 * 0.008 / 1.008
    theta = [math.acos(math.cos(start) / math.sqrt(1 + sigma**2)) for sigma in sigmas[:-1].tolist()]
    for i in range(1, n - 1):
        expected = theta[0] + i / (n - 1) * (theta[-1] - theta[0])
        assert math.isclose(theta[i], expected, rel_tol=1e-6, abs_tol=1e-7)


@pytest.mark.parametrize("n", [1, 2, 3, 50])
@pytest.mark.parametrize(
    ("process", "t_max"),
    [
        (VP(), None),
        (VE(), None),
        (GeometricVE(), 0.9),
        (EDM(), None),
        (EDM(math.inf), 80.0),
        (CosineVP(), 0.99),
        (FlowMatching(), 0.98),
        (LinearSDE(lambda t: -1.0, lambda t: 1.0, 3.0), None),
    ],
)
def test_even_in_time(n: int, process: Process, t_max: float | None) -> None:
    sigmas = uniform_t(n, process=process, t_min=0.01, t_max=t_max)
    first = process.t_max if t_max is None else t_max
    check(sigmas, n, float(process.sigma(first)), float(process.sigma(0.01)))
    if n > 2:
        steps = process.time(sigmas[:-1]).diff()
        torch.testing.assert_close(steps, torch.full_like(steps, (0.01 - first) / (n - 1)), rtol=1e-9, atol=0)


def test_even_in_time_by_hand() -> None:
    assert uniform_t(1).tolist() == [float(VP().sigma(1.0)), 0.0]
    expected = [math.sqrt(math.expm1(0.1 * t + 9.95 * t**2)) for t in (1.0, 0.5005, 0.001)]
    torch.testing.assert_close(uniform_t(3)[:-1], torch.tensor(expected, dtype=torch.float64), rtol=1e-12, atol=0)
    # The straight path, (1 − t) x0 + t eps with ten even steps: t/(1 − t).
    expected = [t / (10 - t) for t in range(9, 0, -1)]
    sigmas = uniform_t(9, process=FlowMatching(), t_min=0.1, t_max=0.9)
    torch.testing.assert_close(sigmas[:-1], torch.tensor(expected, dtype=torch.float64), rtol=1e-12, atol=0)


def check(sigmas: torch.Tensor, n: int, sigma_max: float, sigma_min: float) -> None:
    assert sigmas.shape == (n + 1,)
    assert sigmas.dtype == torch.float64
    assert sigmas[0] == sigma_max
    assert sigmas[-1] == 0
    assert n == 1 or sigmas[-2] == sigma_min
    assert (sigmas.diff() < 0).all()


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: log_linear(0), "at least 1 step, got n = 0"),
        (lambda: log_linear(3, sigma_min=0.0), "0 < sigma_min <= sigma_max < inf, got 0 and 80"),
        (lambda: log_linear(3, sigma_max=math.inf), "got 0.002 and inf"),
        (lambda: log_linear(3, sigma_min=80.0), "a grid of 3 steps needs sigma_min < sigma_max, got 80 for both"),
        (lambda: cosine(0), "at least 1 step, got n = 0"),
        (lambda: cosine(3, sigma_min=90.0), "got 90 and 80"),
        (lambda: cosine(3, sigma_max=math.inf), "got 0.002 and inf"),
        (lambda: uniform_t(0), "at least 1 step, got n = 0"),
        (lambda: uniform_t(3, t_min=0.0), "0 < t_min <= t_max, got 0 and 1"),
        (lambda: uniform_t(3, t_min=0.5, t_max=0.5), "needs t_min < t_max, got 0.5 for both"),
        (lambda: uniform_t(3, t_max=math.nan), "0 < t_min <= t_max, got 0.001 and nan"),
        (lambda: uniform_t(3, t_max=1.5), r"t must lie in \[0, 1\], got 1.5"),
        (lambda: uniform_t(3, process=FlowMatching()), "it is inf at t_max = 1: give a smaller t_max"),
        (lambda: uniform_t(3, process=EDM(math.inf)), "it is inf at t_max = inf: give a smaller t_max"),
    ],
)
def test_errors_of_the_others(make: Callable[[], torch.Tensor], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        make()


def test_a_grid_of_ones_own() -> None:
    given_levels = torch.tensor([3.0, 0.5, 0.0], dtype=torch.float64)
    for form in ([3, 0.5, 0], (3.0, 0.5, 0.0), given_levels, given_levels.float(), np.array([3.0, 0.5, 0.0])):
        out = grid(form)
        assert out.tolist() == [3.0, 0.5, 0.0]
        assert out.dtype == torch.float64
    grid(given_levels)[0] = 7.0
    assert given_levels[0] == 3
    assert torch.equal(grid(karras(18)), karras(18))


@pytest.mark.parametrize(
    ("levels", "sentence"),
    [
        ([], r"shape \(n \+ 1,\) with n >= 1 steps, got \(0,\)"),
        ([0.0], r"got \(1,\)"),
        ([[1.0, 0.0]], r"got \(1, 2\)"),
        (3.0, r"got \(\)"),
        (["a", "b"], "a list, array or tensor of numbers, got list"),
        ([[1.0], [2.0, 3.0]], "a list, array or tensor of numbers, got list"),
        (None, "a list, array or tensor of numbers, got NoneType"),
        ([math.inf, 1.0, 0.0], r"finite and not negative, got sigmas\[0\] = inf"),
        ([2.0, math.nan, 0.0], r"finite and not negative, got sigmas\[1\] = nan"),
        ([2.0, 1.0, -1.0], r"finite and not negative, got sigmas\[2\] = -1"),
        ([2.0, 1.0, 1.0, 0.0], r"decrease at every step, got sigmas\[1\] = 1 and sigmas\[2\] = 1"),
        ([0.0, 1.0, 2.0], r"decrease at every step, got sigmas\[0\] = 0 and sigmas\[1\] = 1"),
        ([2.0, 1.0, 0.0, 0.0], r"decrease at every step, got sigmas\[2\] = 0 and sigmas\[3\] = 0"),
        ([2.0, 1.0, 0.002], "the last level of a grid must be 0, got 0.002"),
    ],
)
def test_errors_of_a_grid(levels: object, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        grid(levels)  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("build", [karras, log_linear, uniform_t, cosine])
@pytest.mark.parametrize("n", [2.5, "3", None])
def test_steps_are_counted_in_whole_numbers(build, n) -> None:
    with pytest.raises(ValueError, match="a whole number of steps, got n = "):
        build(n)
