"""Experiments whose outcome is known: what is measured has the size that was planted, and lies within its interval."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from neural.measure import measure
from optimal import OptimalDenoiser, load

Normal = Callable[..., Tensor]

DELTAS = OptimalDenoiser(load("five-deltas"))
DIGITS = load("digits")


def held_out(n: int = 1500) -> tuple[OptimalDenoiser, Tensor]:
    """The optimum of the first n digits, and the others."""
    points = DIGITS.points
    return OptimalDenoiser(points[:n]), points[n:]


@pytest.mark.parametrize("on", [None, "held-out", "trajectory"])
def test_the_optimum_has_no_gap(on: Any) -> None:
    D, others = held_out()
    found = measure(lambda x, s: D(x, s), D, on=others if on == "held-out" else on, sigmas=[0.3, 1.0, 3.0], draws=64)
    gap = found.columns["gap"]
    assert (gap.low <= 0).all()
    assert (gap.high < 1e-6).all()
    assert found.on == (on or "data")


def test_a_planted_error_is_measured() -> None:
    """F = D + e has gap ‖e‖², exactly, wherever x is."""
    D, others = held_out()
    for on in (None, others, "trajectory"):
        found = measure(lambda x, s: D(x, s) + 0.1, D, on=on, sigmas=[0.3, 1.0, 3.0], draws=64)
        torch.testing.assert_close(found.columns["gap"].value, torch.full((3,), 0.64).double(), rtol=1e-5, atol=0)
        torch.testing.assert_close(
            found.columns["gap_per_value"].value, torch.full((3,), 0.01).double(), rtol=1e-5, atol=0
        )


def test_default_levels_lie_around_the_border() -> None:
    found = measure(DELTAS, DELTAS, draws=32)
    assert len(found.sigmas) == 12
    assert found.border is not None
    assert (found.sigmas - found.border.sigma).abs().min() < 1e-9
    assert f"border {found.border.sigma:.3g}" in found.sentence()


def test_bad_input() -> None:
    with pytest.raises(ValueError, match="draws must be at least 2, got 1"):
        measure(DELTAS, DELTAS, draws=1)
    with pytest.raises(ValueError, match="level must lie between 0 and 1, got 95"):
        measure(DELTAS, DELTAS, level=95)
    with pytest.raises(ValueError, match="held-out points must be none of the data: of those drawn, 3 are"):
        measure(DELTAS, DELTAS, on=DELTAS.take(torch.tensor([0, 2, 3])), draws=64)
    with pytest.raises(ValueError, match="labels are for a Model, and OptimalDenoiser takes none"):
        measure(DELTAS, DELTAS, labels=3)
