"""A network in the place of the optimum, data in it, a module that is no denoiser: one sentence everywhere."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from neural import agreement, compare, explain, from_edm, measure, open_model, samplers, sanity
from optimal import OptimalDenoiser, load

D = OptimalDenoiser(load("two-points"))
X = torch.zeros(3, *D.event)


class Steps(nn.Module):
    def forward(self, x_t: Tensor, t: Tensor) -> Tensor:
        return x_t


class Levels(nn.Module):
    def forward(self, x: Tensor, sigma: Tensor) -> Tensor:
        return x / (1 + sigma.view(-1, *[1] * (x.ndim - 1)) ** 2)


ASKED: dict[str, Callable[[Any, Any], Any]] = {
    "measure": lambda F, E: measure(F, E, sigmas=[0.5], draws=8),
    "agreement": lambda F, E: agreement(F, E, [0.5], draws=8),
    "explain": lambda F, E: explain(F, E, sigmas=[0.5], draws=8),
    "sanity": sanity,
    "samplers": lambda F, E: samplers({"mine": F}, E, n=4),
    "compare": lambda F, E: compare({"mine": (F, {"sigmas": [1.0, 0.0]})}, E, X, reference=X),
}


@pytest.mark.parametrize("name", ASKED)
def test_data_are_no_optimum_and_a_network_is_none(name: str) -> None:
    net = from_edm(Levels())
    for data in (load("two-points"), X, "two-points"):
        with pytest.raises(ValueError, match=r"^D must be the optimum of the data, OptimalDenoiser\(data\), got "):
            ASKED[name](net, data)
    for other in (net, open_model(net), Levels(), lambda x, sigma: x):
        with pytest.raises(ValueError, match=r"^the network comes first and the optimum of the data, .* second: got "):
            ASKED[name](D, other)


@pytest.mark.parametrize("name", ["measure", "agreement", "explain", "sanity", "samplers"])
def test_a_module_that_is_no_denoiser_is_told_of_its_adapter(name: str) -> None:
    with pytest.raises(ValueError, match=r"^Steps is called with \(x_t, t\), and neither .* from_ddpm"):
        ASKED[name](Steps(), D)


@pytest.mark.parametrize("name", ["measure", "agreement", "explain"])
def test_names_are_opened_first_and_modules_are_taken(name: str) -> None:
    with pytest.raises(ValueError, match=r"a network is opened by its name first: open_model\('pretrained:digits'\)"):
        ASKED[name]("pretrained:digits", D)
    with pytest.raises(ValueError, match="Levels is a class: give one of its kind"):
        ASKED[name](Levels, D)
    if name != "explain":
        assert ASKED[name](Levels(), D) is not None


def test_results_are_shown_in_a_line() -> None:
    found = measure(Levels(), D, sigmas=[0.5], draws=8)
    assert repr(found) == f"Measured(1 levels, 8 draws; {found.sentence()})"
    post = repr(D.posterior(X, 1.0))
    assert post.startswith(f"Posterior(mean {tuple(X.shape)}, effective_count ")
    assert "tensor" not in post
