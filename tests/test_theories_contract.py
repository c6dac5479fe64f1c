"""Every theory keeps the contract of every denoiser, is refused when made if it cannot be, and says what it is."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import made_theories
import pytest
import torch
from contracts import check_denoiser
from made_theories import MAKE, UNDERIVED
from second_device import DEVICE, second_device
from torch import Tensor

import optimal.theories
from optimal import OptimalDenoiser
from optimal.theories import (
    Mixture,
    Wiener,
    boundary_local_score,
    equivariant_local_score,
    flexible_patch_posterior,
    golden_subset,
    local_score,
    nearest,
    nearest_proposal,
    patch_posterior,
    pca_locality,
    score_smoothed,
    subsampled,
    switch,
)

EVENT = (1, 4, 6)
HEAT = torch.eye(24)
POINTS = torch.randn(24, *EVENT, generator=torch.Generator().manual_seed(0)).round(decimals=3)
D = OptimalDenoiser(POINTS)
X = torch.randn(3, *EVENT, generator=torch.Generator().manual_seed(1))
every = pytest.mark.parametrize("name", MAKE)

MADE_OF_MORE = {"closed_form_velocity", "conditional_velocity", "batch_mean", "estimate_errors", "stable_target"}
"""What are functions of x, and make no denoiser."""
SAY = {"EstimateError", "LocalDenoiser", "LocalPosterior", "SquareNorms", "Windows", "variances", "equally_likely"}
MEASURE = {"linear_square_norms", "mean_square_norms", "window_by_network", "window_by_risk"}


def test_every_theory_is_here() -> None:
    text = Path(inspect.getfile(made_theories)).read_text(encoding="utf-8")
    for name in {*optimal.theories.__all__} - MADE_OF_MORE - SAY - MEASURE:
        assert f": {name}," in text or f"D: {name}(" in text, name


@every
def test_it_keeps_the_contract(name: str) -> None:
    check_denoiser(MAKE[name](D), EVENT)


@every
def test_it_says_what_it_is_and_of_what(name: str) -> None:
    text = repr(MAKE[name](D))
    assert "24 points of shape (1, 4, 6)" in text or "of 24 points" in text
    assert " object at 0x" not in text
    assert len(text) < 200
    assert str(MAKE[name](D)) == text


SAID: dict[str, tuple[Callable[[], object], str]] = {
    "rank": (lambda: Wiener(D, rank=5), "rank=5"),
    "modes": (
        lambda: Mixture(D, 3, rank=0, floor=0.01, em=2),
        "floor=0.01, rank=0, em=2",
    ),
    "temperature": (
        lambda: pca_locality(D, 0.1, 2.0, "output", 7),
        "temperature=2.0, normalise='output', chunk=7",
    ),
    "usual": (lambda: pca_locality(D, 0.1), "(threshold=0.1)"),
    "heat": (lambda: flexible_patch_posterior(D, 0.5, HEAT), "(share=0.5, heat=given)"),
    "threshold": (lambda: golden_subset(D, side=2, threshold=0.1), "1 to 2 points, side=2, threshold=0.1"),
    "switch": (lambda: switch(Wiener(D), D, 0.5), "Switch(Wiener(24 points"),
}


@pytest.mark.parametrize("case", SAID)
def test_it_says_its_parameters(case: str) -> None:
    make, words = SAID[case]
    assert words in repr(make())


@every
def test_its_derivative_is_right_or_refused(name: str) -> None:
    F, x = MAKE[name](D), X[:1].double()
    v = torch.randn(x.shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    x = x.requires_grad_()
    answer = F(x, 0.8)
    if name in UNDERIVED:
        with pytest.raises(ValueError, match="no derivative goes through"):
            torch.autograd.grad(answer.sum(), x)
        return
    (found,) = torch.autograd.grad((answer * v).sum(), x)
    h = 1e-5
    right = torch.zeros_like(x)
    with torch.no_grad():
        for k in range(x.numel()):
            step = torch.zeros_like(x).flatten().index_fill_(0, torch.tensor(k), h).view_as(x)
            right.view(-1)[k] = ((F(x + step, 0.8) - F(x - step, 0.8)) * v).sum() / (2 * h)
    assert torch.allclose(found, right, rtol=1e-6, atol=1e-7)


@every
def test_the_order_of_rows_is_theirs(name: str) -> None:
    F, sigma = MAKE[name](D), torch.tensor([0.3, 2.0, 0.8])
    turned = torch.tensor([2, 0, 1])
    assert torch.allclose(F(X[turned], sigma[turned]), F(X, sigma)[turned], rtol=0, atol=1e-6)


@every
def test_it_answers_on_the_device_of_x(name: str) -> None:
    right = MAKE[name](D)(X, 0.8)
    with second_device():
        F = MAKE[name](OptimalDenoiser(POINTS.to(DEVICE)))
        answer = F(X.to(DEVICE), torch.tensor([0.8, 0.8, 0.8], device=DEVICE))
        assert answer.device == DEVICE
        assert torch.allclose(answer.cpu(), right, rtol=0, atol=1e-5)


WRONG: list[Any] = [-1, math.nan, "3", torch.tensor([1.0, 2.0]), [3], object()]
ARGUMENTS: dict[str, Callable[[Any], object]] = {
    "Wiener rank": lambda v: Wiener(D, rank=v),
    "modes": lambda v: Mixture(D, v),
    "floor": lambda v: Mixture(D, 2, floor=v),
    "mixture rank": lambda v: Mixture(D, 2, rank=v),
    "em": lambda v: Mixture(D, 2, em=v),
    "smoothed": lambda v: D.smoothed(v),
    "tempered": lambda v: D.tempered(v),
    "width": lambda v: score_smoothed(D, v),
    "draws": lambda v: score_smoothed(D, 0.3, v),
    "k": lambda v: nearest(D, v),
    "fewest": lambda v: golden_subset(D, v),
    "most": lambda v: golden_subset(D, 0.05, v),
    "side": lambda v: golden_subset(D, side=v),
    "golden threshold": lambda v: golden_subset(D, threshold=v),
    "proposal k": lambda v: nearest_proposal(D, v, 5),
    "proposal n": lambda v: nearest_proposal(D, 5, v),
    "n": lambda v: subsampled(D, v),
    "window": lambda v: local_score(D, v),
    "equivariant window": lambda v: equivariant_local_score(D, v),
    "subset": lambda v: equivariant_local_score(D, 3, subset=v),
    "boundary window": lambda v: boundary_local_score(D, v),
    "size": lambda v: patch_posterior(D, v),
    "share": lambda v: flexible_patch_posterior(D, v),
    "heat": lambda v: flexible_patch_posterior(D, 0.5, v),
    "threshold": lambda v: pca_locality(D, v),
    "temperature": lambda v: pca_locality(D, 0.1, v),
    "normalise": lambda v: pca_locality(D, 0.1, normalise=v),
    "chunk": lambda v: pca_locality(D, 0.1, chunk=v),
    "level": lambda v: switch(D, D, v),
}


@pytest.mark.parametrize("name", ARGUMENTS)
def test_what_cannot_be_is_refused_when_it_is_made(name: str) -> None:
    for value in WRONG:
        with pytest.raises(ValueError, match="must"):
            ARGUMENTS[name](value)


@pytest.mark.parametrize(
    ("heat", "words"),
    [
        (HEAT[:5], r"heat must be a tensor of shape \(24, 24\), got \(5, 24\)"),
        (-HEAT, "heat must be finite and not negative"),
        (HEAT * math.nan, "heat must be finite and not negative"),
        (torch.ones(24, 24).index_fill(1, torch.tensor(3), 0.0), "pixel 3 of 24 is in none with 0.5$"),
    ],
)
def test_a_heat_that_cannot_be_is_refused_when_it_is_made(heat: Tensor, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        flexible_patch_posterior(D, 0.5, heat)
    made = flexible_patch_posterior(D, 0.5, lambda sigma: heat)
    with pytest.raises(ValueError, match=words.rstrip("$")):
        made(X, 0.8)


def test_a_heat_is_kept_as_it_was() -> None:
    heat = torch.rand(24, 24, generator=torch.Generator().manual_seed(3))
    made = flexible_patch_posterior(D, 0.9, heat)
    right = made(X, 0.8)
    heat.zero_()
    assert torch.equal(made(X, 0.8), right)
