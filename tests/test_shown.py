"""Results print as a line, whatever they hold."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from neural.measures import agreement
from optimal import (
    FlowMap,
    OptimalDenoiser,
    basins,
    capture,
    certify,
    forward_statistics,
    karras,
    load,
    sample_in_span,
    trajectory,
)
from optimal.conditional import held_out_risk
from optimal.flow import landing_statistics
from optimal.samplers import log_densities, round_trip
from optimal.schedules import curve_of
from optimal.shown import in_short
from optimal.theories import Wiener, local_score, mean_square_norms, window_by_risk

D = OptimalDenoiser(load("digits"))
X = 80 * torch.randn(64, 1, 8, 8, generator=torch.Generator().manual_seed(0))

MADE = {
    "landing": lambda: FlowMap(D).land(X, 80.0),
    "certificate": lambda: certify(D, X, 80.0),
    "capture": lambda: capture(D, trajectory(D, X, karras(4))),
    "posterior": lambda: D.posterior(X, 80.0),
    "basins": lambda: basins(OptimalDenoiser(load("five-deltas")), 100),
    "landings": lambda: landing_statistics(OptimalDenoiser(load("five-deltas")), [1.0, 2.0], draws=100),
    "statistics": lambda: forward_statistics(D, [1.0, 2.0], draws=16),
    "state": lambda: next(trajectory(D, X, karras(2))),
    "span": lambda: sample_in_span(D, X, karras(3)),
    "densities": lambda: log_densities(D, X[:8], karras(3)),
    "round trip": lambda: round_trip(D, X[:8], karras(3)),
    "curve": lambda: curve_of(D, nodes=8, draws=8),
    "windows": lambda: window_by_risk(D, [3, 5], [1.0, 2.0], draws=4),
    "local": lambda: local_score(D, 3).posterior(X[:8], 1.0),
    "norms": lambda: mean_square_norms(D, Wiener(D), [1.0, 2.0], n=8),
    "left out": lambda: held_out_risk(D, [1.0], draws=8),
    "agreement": lambda: agreement(Wiener(D), D, [1.0, 2.0], draws=8),
}


@pytest.mark.parametrize("name", MADE)
def test_a_result_is_printed_in_a_line(name: str) -> None:
    found = repr(MADE[name]())
    assert "\n" not in found
    assert "tensor(" not in found
    assert len(found) < 700


def test_numbers_are_shown_where_they_are_few_and_ranges_where_not() -> None:
    @dataclasses.dataclass
    class Found:
        many: torch.Tensor
        few: torch.Tensor
        one: torch.Tensor
        yes: torch.Tensor
        hidden: float = dataclasses.field(default=1.0, repr=False)

        __repr__ = in_short

    many = torch.tensor([0.5, torch.nan, *range(9)])
    found = Found(many, torch.tensor([1.0, torch.inf]), torch.tensor(2), torch.arange(8) > 2)
    assert repr(found).endswith("Found(many=(11,) from 0 to 8, 1 nan, few=[1, inf], one=2, yes=5 of 8)")
    assert repr(Found(many[:0], many[:0], many[0], many[:0] > 0)).endswith("many=[], few=[], one=0.5, yes=[])")
