"""What every denoiser is asked: any form of sigma, one sentence for what is wrong, gradients where there are any."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from neural import agreement, from_ddpm, from_edm, from_flow, from_prediction
from neural.precondition import Preconditioned
from optimal import (
    FlowMap,
    OptimalDenoiser,
    effective_counts,
    forward_statistics,
    karras,
    knowledge_optimum,
    landing_statistics,
    multistep_knowledge_optimum,
    progressive_optimum,
)
from optimal.parametrize import convert
from optimal.query import beside, level_list, levels, per_row, require_points
from optimal.reference import Gaussian, GaussianMixture, OnePoint, TwoPoint

DATA = torch.tensor([[[-1.0, 0.5]], [[1.0, 0.0]], [[0.3, 2.0]]])
D = OptimalDenoiser(DATA)
X = torch.tensor([[[0.5, 0.5]], [[2.0, -1.0]], [[-0.5, 0.7]]])


class Half(nn.Module):
    def forward(self, x: Tensor, level: Tensor) -> Tensor:
        return 0.5 * x + 0.1 * beside(level, x).to(x)


DENOISERS: dict[str, Callable[..., Tensor]] = {
    "optimum": D,
    "score": D.score,
    "flow map": FlowMap(D),
    "flow map on a grid": FlowMap(D, karras(5), solver="euler"),
    "progressive": progressive_optimum(D, karras(4), 1),
    "knowledge": knowledge_optimum(D, 2.0),
    "multistep": multistep_knowledge_optimum(D, 80.0),
    "one point": OnePoint(DATA[0]),
    "two points": TwoPoint(DATA[0], DATA[1]),
    "gaussian": Gaussian(DATA[0], 0.5),
    "mixture": GaussianMixture(DATA, 0.1),
    "mixture's score": GaussianMixture(DATA, 0.1).score,
    "convert": lambda x, sigma: convert(x, x, sigma, "v", "score"),
    "preconditioned": Preconditioned(Half(), 0.5),
    "from_prediction": from_prediction(Half(), "eps"),
    "from_flow": from_flow(Half()),
    "from_ddpm": from_ddpm(Half(), torch.linspace(0.99, 0.001, 50), "x0"),
    "from_edm": from_edm(Half()),
}


@pytest.mark.parametrize("name", DENOISERS)
def test_every_form_of_sigma(name: str) -> None:
    F = DENOISERS[name]
    expected = F(X, torch.tensor([2.0, 2.0, 2.0], dtype=torch.float64))
    forms: list[Any] = [2, 2.0, [2.0, 2.0, 2.0], [2, 2, 2], (2.0, 2.0, 2.0), np.float32(2.0), np.full(3, 2.0)]
    forms += [np.full(3, 2), torch.tensor(2), torch.full((3,), 2), torch.full((3, 1, 1), 2.0), np.full((3, 1, 1), 2.0)]
    for sigma in forms:
        torch.testing.assert_close(F(X, sigma), expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", DENOISERS)
@pytest.mark.parametrize(
    ("x", "sigma", "sentence"),
    [
        (X, -1.0, "sigma must .*, got -1$"),
        (X, math.nan, "sigma must .*, got nan$"),
        (X, [2.0, -3.0, 2.0], "sigma must .*, got -3$"),
        (X, torch.full((3, 2), 2.0), r"sigma must have shape \(\) or \(B,\), got \(3, 2\) with B = 3$"),
        (X, [2.0, 2.0], r"sigma must have shape \(\) or \(B,\), got \(2,\) with B = 3$"),
        (X, "high", "sigma must be a number or a list, array or tensor of numbers, got 'high'$"),
        (X, None, "sigma must be a number or a list, array or tensor of numbers, got 'None'$"),
        (X.long(), 2.0, "x must be floating point, got torch.int64$"),
    ],
)
def test_one_sentence(name: str, x: Any, sigma: Any, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        DENOISERS[name](x, sigma)


@pytest.mark.parametrize("name", ["one point", "two points", "gaussian", "mixture", "mixture's score", "convert"])
def test_closed_forms_have_gradients_to_sigma(name: str) -> None:
    x, sigma = X.double().requires_grad_(), torch.tensor(0.8, dtype=torch.float64, requires_grad=True)
    if name == "one point":
        assert torch.autograd.gradcheck(OnePoint(DATA[0]).log_density, (x, sigma))
    else:
        assert torch.autograd.gradcheck(lambda x, sigma: DENOISERS[name](x, sigma), (x, sigma))


def test_a_network_has_gradients_to_sigma() -> None:
    F = Preconditioned(Half().double(), 0.5)
    x, sigma = X.double().requires_grad_(), torch.tensor([0.5, 0.8, 2.0], dtype=torch.float64, requires_grad=True)
    # The network itself is asked in the precision of its weights, of which it has none here: that of float32.
    (slope,) = torch.autograd.grad(F(x, sigma).sum(), sigma)
    step = 1e-2
    numeric = (F(x, sigma.detach() + step) - F(x, sigma.detach() - step)).sum((1, 2)) / (2 * step)
    torch.testing.assert_close(slope, numeric, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    "sigmas", [[0.5, 2.0], (0.5, 2.0), np.array([0.5, 2.0]), torch.tensor([0.5, 2.0]), [1, 2], 2.0]
)
def test_lists_of_levels(sigmas: Any) -> None:
    expected = torch.as_tensor(sigmas, dtype=torch.float64).reshape(-1)
    along = forward_statistics(D, sigmas, draws=3)
    assert torch.equal(along.sigmas, expected)
    assert torch.equal(effective_counts(D, sigmas, draws=3), along.effective_count)
    assert torch.equal(agreement(D, D, sigmas, draws=3).sigmas, expected)
    assert torch.equal(landing_statistics(D, sigmas, draws=3).sigmas, expected)
    assert GaussianMixture(torch.tensor([[-1.0], [1.0]]), 0.0).separatrices(sigmas).shape == (len(expected), 1)


@pytest.mark.parametrize(
    ("sigmas", "sentence"),
    [
        ([], r"sigmas must be one or more noise levels, \(S,\), got shape \(0,\)$"),
        ([[1.0, 2.0]], r"sigmas must be one or more noise levels, \(S,\), got shape \(1, 2\)$"),
        ([1.0, 0.0], "sigmas must be positive and finite, got 0$"),
        (np.array([1.0, math.inf]), "sigmas must be positive and finite, got inf$"),
        ("high", "sigmas must be a number or a list, array or tensor of numbers, got 'high'$"),
    ],
)
def test_wrong_lists_of_levels(sigmas: Any, sentence: str) -> None:
    """Before the first pass over the data, not after the last."""

    class Asked(OptimalDenoiser):
        def posterior(self, x: Tensor, sigma: Any) -> Any:
            raise AssertionError("a pass was made")

    asked = Asked(DATA)
    for measure in (forward_statistics, effective_counts, landing_statistics, lambda d, s: agreement(d, d, s, draws=3)):
        with pytest.raises(ValueError, match=sentence):
            measure(asked, sigmas)


def test_levels_are_copied_and_named() -> None:
    given = np.array([1.0, 2.0])
    taken = level_list(given)
    given[:] = 5.0
    assert taken.tolist() == [1.0, 2.0]
    with pytest.raises(ValueError, match="start must be finite and not negative, got -1"):
        levels(-1.0, 2, zero=True, name="start")
    assert levels(0.0, 2, zero=True).tolist() == [0.0, 0.0]
    graph = torch.tensor(1.0, requires_grad=True)
    assert per_row("sigma", graph, 3, graph=True).requires_grad
    assert not per_row("sigma", graph, 3).requires_grad
    with pytest.raises(ValueError, match=r"the start must have shape \(B, 2\), got \(2, 3\)"):
        require_points(torch.zeros(2, 3), (2,), name="the start")
