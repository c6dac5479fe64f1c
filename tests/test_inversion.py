"""Up the grid: solvers of their order there too, what comes back from both ways, and what is refused."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from optimal import OptimalDenoiser, karras, log_linear, sample
from optimal.reference import Gaussian, TwoPoint
from optimal.samplers import Calibrated, GaussianExponential, GaussianStart, Heun, ascent, invert, round_trip
from optimal.theories import Wiener

Normal = Callable[..., Tensor]

TWO = TwoPoint(torch.tensor([0.3, -0.2]), torch.tensor([0.5, 0.7]))
ORDERS: list[tuple[str, dict[str, Any], float]] = [
    ("euler", {}, 1),
    ("heun", {}, 2),
    ("edm_stochastic", {}, 2),
    ("dpm_solver", {"order": 2}, 2),
    ("dpm_solver", {"order": 3}, 3),
    ("dpm_solver_pp", {"order": 2}, 2),
    ("unipc", {"order": 1}, 2),
    ("unipc", {"order": 2}, 3),
    ("sde_dpm_solver_pp", {"order": 2, "eta": 0.0}, 2),
]


@pytest.mark.parametrize(("solver", "options", "order"), ORDERS)
def test_order(normal: Normal, solver: str, options: dict[str, Any], order: float) -> None:
    """Against the exact flow of two points, from 0.5 up to 20."""
    x = TWO.flow(20 * normal(16, 2), 20.0, 0.5)
    exact, errors = TWO.flow(x, 0.5, 20.0), []
    for n in (160, 320, 640):
        found = invert(TWO, x, log_linear(n + 1, sigma_min=0.5, sigma_max=20.0), solver=solver, **options)
        errors.append(float((found - exact).square().mean().sqrt()))
    slopes = [math.log2(a / b) for a, b in itertools.pairwise(errors)]
    assert abs(slopes[-1] - order) <= 0.2, slopes


def test_states(normal: Normal) -> None:
    x, sigmas, calls = normal(4, 2), karras(6), []

    def watched(z: Tensor, sigma: Any) -> Tensor:
        calls.append(float(sigma))
        return TWO(z, sigma)

    states = list(ascent(watched, x, sigmas, solver="euler"))
    assert [state.sigma for state in states] == sigmas[:-1].flip(0).tolist() == calls
    assert torch.equal(states[0].x, x)
    assert [state.nfe for state in states] == list(range(1, 7))
    for state in states:
        assert torch.equal(state.denoised, TWO(state.x, state.sigma))
    assert torch.equal(states[-1].x, invert(TWO, x, sigmas, solver="euler"))


@pytest.mark.parametrize(("solver", "order"), [("euler", 1), ("heun", 3)])
def test_round_trips_shrink_at_the_order(normal: Normal, solver: str, order: int) -> None:
    """Of Heun's method the leading errors of the two ways cancel."""
    x = 20 * normal(16, 2)
    for up_first, start in ((False, x), (True, TWO.flow(x, 20.0, 0.5))):
        trips = [
            round_trip(TWO, start, log_linear(n + 1, sigma_min=0.5, sigma_max=20.0), solver=solver, up_first=up_first)
            for n in (160, 320)
        ]
        errors = [float(trip.error.square().mean().sqrt()) for trip in trips]
        assert abs(math.log2(errors[0] / errors[1]) - order) < 0.25
        torch.testing.assert_close(trips[1].error, (trips[1].x - start).square().mean(1).sqrt())


def test_exponential_integrators_go_up_with_their_gaussian(normal: Normal) -> None:
    """A Gaussian's flow is exact in steps of any length, in either direction."""
    D = OptimalDenoiser(normal(200, 2))
    wiener = Wiener(D)
    x = D.mean + normal(3, 2)
    levels = [40.0, 3.0, 0.5, 0.0]
    gauss = Gaussian(D.mean, (D.points.rows.of_data(torch.arange(200)).double() - D.mean).T.cov(correction=0))
    found = invert(lambda z, s: wiener(z, s), x, levels, solver=GaussianExponential(wiener))
    torch.testing.assert_close(found, gauss.flow(x, 0.5, 40.0), rtol=1e-8, atol=1e-8)
    assert invert(D, x, levels, solver=GaussianStart(wiener, Heun())).isfinite().all()


def test_bare_data_are_no_draws_of_noise(normal: Normal) -> None:
    """x0 goes up inside its own noise; x0 + σ_min z becomes a draw."""
    D = OptimalDenoiser(normal(50, 8), method="dense")
    bare, sigmas = D.take(torch.arange(50)).double(), karras(60)
    low = float(sigmas[-2])
    spreads = [float(invert(D, x, sigmas).std()) / 80 for x in (bare, bare + low * normal(50, 8))]
    assert spreads[0] < 0.7
    assert 0.8 < spreads[1] < 1.2
    ends = sample(D, invert(D, bare + low * normal(50, 8), sigmas), sigmas)
    assert (D.nearest(ends) == torch.arange(50)).double().mean() > 0.8


def test_gradients_flow_up(normal: Normal) -> None:
    x, way, sigmas = normal(3, 2).requires_grad_(), normal(3, 2), karras(5, sigma_min=0.5, sigma_max=8.0)
    (found,) = torch.autograd.grad(invert(TWO, x, sigmas, grad=True).sum(), x)
    ahead, behind = (invert(TWO, x.detach() + sign * 1e-6 * way, sigmas).sum() for sign in (1, -1))
    assert float((found * way).sum()) == pytest.approx(float(ahead - behind) / 2e-6, rel=1e-6)
    assert not invert(TWO, x, sigmas).requires_grad


def test_what_cannot_go_up(normal: Normal) -> None:
    x, D = normal(2, 2), OptimalDenoiser(normal(9, 2))
    fitted = Calibrated(Wiener(D), (3.0, 0.5), (1.0, 1.0), ((1.0,),))
    with pytest.raises(ValueError, match="Calibrated goes down only"):
        invert(D, x, [3.0, 0.5, 0.0], solver=fitted)
    with pytest.raises(ValueError, match="GaussianStart goes down only"):
        invert(D, x, [3.0, 0.5, 0.0], solver=GaussianStart(Wiener(D), fitted))
    for name in ("reverse_sde", "consistency", "sde_dpm_solver_pp"):
        with pytest.raises(ValueError, match=r"the way up is a function of x, .* draws noise"):
            round_trip(D, x, karras(5), solver=name)
    with pytest.raises(ValueError, match="the way up has two levels above 0 at least, got 1"):
        invert(D, x, [3.0, 0.0])
    with pytest.raises(ValueError, match="x must be a tensor"):
        invert(D, [[1.0, 2.0]], karras(5))  # pyright: ignore[reportArgumentType]
