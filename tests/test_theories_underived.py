"""Theories without derivatives say so when they are asked for one, by autograd and by torch.func."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from optimal import OptimalDenoiser
from optimal.conditional import dps, pigdm
from optimal.theories import (
    boundary_local_score,
    equivariant_local_score,
    flexible_patch_posterior,
    golden_subset,
    local_score,
    nearest,
    nearest_proposal,
    patch_posterior,
    pca_locality,
)

pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.script`:DeprecationWarning")  # torch.func.jvp's own.

D = OptimalDenoiser(torch.randn(12, 1, 4, 4, generator=torch.Generator().manual_seed(0)))
X = torch.randn(2, 1, 4, 4, generator=torch.Generator().manual_seed(1))
THEORIES = {
    "local_score": lambda: local_score(D, 3),
    "equivariant": lambda: equivariant_local_score(D, 3),
    "boundary": lambda: boundary_local_score(D, 3),
    "patches": lambda: patch_posterior(D, 3),
    "flexible": lambda: flexible_patch_posterior(D, 0.9),
    "pca": lambda: pca_locality(D, 0.1),
    "nearest": lambda: nearest(D, 3),
    "golden": lambda: golden_subset(D),
    "proposal": lambda: nearest_proposal(D, 3, 4),
}


@pytest.mark.parametrize("name", THEORIES)
def test_no_derivative_is_a_silent_zero(name: str) -> None:
    F = THEORIES[name]()
    plain = F(X, 0.7)
    assert not plain.requires_grad
    x = X.clone().requires_grad_()
    answer = F(x, 0.7)
    torch.testing.assert_close(answer.detach(), plain, rtol=0, atol=0)

    def call(x: torch.Tensor) -> torch.Tensor:
        return F(x, 0.7)

    asked: list[Callable[[], object]] = [
        lambda: torch.autograd.grad(answer.sum(), x),
        lambda: torch.func.vjp(call, X)[1](X),
        lambda: torch.func.jvp(call, (X,), (X,)),
        lambda: torch.func.jacrev(call)(X),
    ]
    for derivative in asked:
        with pytest.raises(ValueError, match="no derivative goes through"):
            derivative()
    with torch.inference_mode():
        torch.testing.assert_close(F(X, 0.7), plain, rtol=0, atol=0)


def test_of_the_posterior_and_the_score_too() -> None:
    F, x = local_score(D, 3), X.clone().requires_grad_()
    for value in (F.posterior(x, 0.7).mean, F.score(x, 0.7)):
        with pytest.raises(ValueError, match="no derivative goes through"):
            value.sum().backward()


def test_what_needs_derivatives_refuses_them() -> None:
    seen = torch.zeros(1, 4, 4, dtype=torch.bool)
    seen[:, :2] = True
    for guide in (dps, pigdm):
        with pytest.raises(ValueError, match=r"no derivative|must have gradients"):
            guide(local_score(D, 3), D.event, seen, X[0], 0.1)(X, 0.7)
