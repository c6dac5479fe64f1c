"""What asks for a whole number refuses everything else in one sentence that names it: True, 2.5, "3", nan and −1."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch

import optimal
from optimal import OptimalDenoiser, karras, load, samplers, schedules, theories
from optimal.conditional import landing_shares
from optimal.flow import landing_statistics
from optimal.randomness import stream
from optimal.samplers import log_densities
from optimal.schedules import curve_of

LINE = OptimalDenoiser(torch.tensor([[-1.0], [0.0], [2.0], [5.0]]))
PLANE = OptimalDenoiser(load("five-deltas"))
IMAGES = OptimalDenoiser(torch.randn(6, 1, 5, 5, generator=torch.Generator().manual_seed(0)))
X = torch.zeros(2, 1)
CURVE = curve_of(LINE)
STARTS = schedules.starts_of(LINE, 64)
Ask = Callable[[Any], object]

ASKED: dict[str, Ask] = {
    "effective_counts draws": lambda v: optimal.effective_counts(PLANE, [1.0], draws=v),
    "forward_statistics draws": lambda v: optimal.forward_statistics(PLANE, [1.0], draws=v),
    "borders draws": lambda v: optimal.borders(PLANE, draws=v),
    "seeking_refining_border draws": lambda v: optimal.seeking_refining_border(PLANE, draws=v),
    "collapse_border draws": lambda v: optimal.collapse_border(PLANE, draws=v),
    "load n": lambda v: load("five-deltas", n=v),
    "basins n": lambda v: optimal.basins(LINE, v, torch.Generator()),
    "landing_statistics draws": lambda v: landing_statistics(PLANE, [1.0], draws=v),
    "landing_shares draws": lambda v: landing_shares(PLANE, PLANE, karras(2), draws=v),
    "progressive_optimum stage": lambda v: optimal.progressive_optimum(PLANE, karras(8), v),
    "multistep_knowledge_optimum tries": lambda v: optimal.multistep_knowledge_optimum(PLANE, karras(4), tries=v),
    "collapse_sigma n": lambda v: optimal.collapse_sigma(v, 3),
    "collapse_sigma d": lambda v: optimal.collapse_sigma(5, v),
    "cosine n": optimal.cosine,
    "karras n": karras,
    "kl_optimal n": optimal.kl_optimal,
    "log_linear n": optimal.log_linear,
    "uniform_t n": optimal.uniform_t,
    "design n": lambda v: optimal.design(PLANE, v),
    "design starts": lambda v: optimal.design(PLANE, 2, starts=v),
    "design seed": lambda v: optimal.design(PLANE, 2, "landings", starts=4, seed=v),
    "sample_in_span rank": lambda v: optimal.sample_in_span(PLANE, 80 + X, karras(4), rank=v),
    "neighbours count": lambda v: PLANE.neighbours(X, v),
    "stream part": lambda v: stream(0, "design", v),
    "Wiener rank": lambda v: theories.Wiener(PLANE, rank=v),
    "linear_square_norms rank": lambda v: theories.linear_square_norms(PLANE, [1.0], rank=v),
    "mean_square_norms n": lambda v: theories.mean_square_norms(PLANE, PLANE, [1.0], n=v),
    "golden_subset side": lambda v: theories.golden_subset(IMAGES, side=v),
    "equivariant_local_score subset": lambda v: theories.equivariant_local_score(IMAGES, 3, subset=v),
    "pca_locality chunk": lambda v: theories.pca_locality(IMAGES, 0.1, chunk=v),
    "window_by_risk draws": lambda v: theories.window_by_risk(IMAGES, [3], 1.0, draws=v),
    "window_by_network draws": lambda v: theories.window_by_network(IMAGES, IMAGES, [3], 1.0, draws=v),
    "Mixture rank": lambda v: theories.Mixture(PLANE, 2, rank=v),
    "Mixture em": lambda v: theories.Mixture(PLANE, 2, em=v),
    "nearest k": lambda v: theories.nearest(PLANE, v),
    "nearest_proposal k": lambda v: theories.nearest_proposal(PLANE, v, 2),
    "nearest_proposal n": lambda v: theories.nearest_proposal(PLANE, 2, v),
    "estimate_errors n": lambda v: theories.estimate_errors(PLANE, lambda _: PLANE, 1.0, n=v),
    "estimate_errors draws": lambda v: theories.estimate_errors(PLANE, lambda _: PLANE, 1.0, n=4, draws=v),
    "stable_target count": lambda v: theories.stable_target(PLANE, X, 1.0, torch.zeros(2, dtype=torch.int64), v),
    "subsampled n": lambda v: theories.subsampled(PLANE, v),
    "score_smoothed draws": lambda v: theories.score_smoothed(PLANE, 0.1, v),
    "path_kl_grid n": lambda v: schedules.path_kl_grid(CURVE, v),
    "entropic_grid n": lambda v: schedules.entropic_grid(CURVE, v),
    "curve_of nodes": lambda v: curve_of(LINE, nodes=v),
    "curve_of draws": lambda v: curve_of(LINE, draws=v),
    "gaussian_grid n": lambda v: schedules.gaussian_grid(torch.ones(3, dtype=torch.float64), v),
    "landings_grid n": lambda v: schedules.landings_grid(STARTS, v),
    "calibrated n": lambda v: schedules.calibrated(STARTS, v, theories.Wiener(LINE)),
    "calibrated order": lambda v: schedules.calibrated(STARTS, 2, theories.Wiener(LINE), order=v),
    "calibrated steps": lambda v: schedules.calibrated(STARTS, 2, theories.Wiener(LINE), steps=v),
    "starts_of count": lambda v: schedules.starts_of(LINE, v),
    "log_densities probes": lambda v: log_densities(lambda x, sigma: 0 * x, X, karras(2), probes=v),
    "DPMSolver order": lambda v: samplers.DPMSolver(order=v),
    "DPMSolverPP order": lambda v: samplers.DPMSolverPP(order=v),
    "SDEDPMSolverPP order": lambda v: samplers.SDEDPMSolverPP(order=v),
    "GaussianExponential order": lambda v: samplers.GaussianExponential(theories.Wiener(PLANE), order=v),
    "UniPC order": lambda v: samplers.UniPC(order=v),
}
ELSEWHERE = {
    "estimate_errors seed",
    "starts_of seed",
    "calibrated seed",
    "OptimalDenoiser memory",
    "ShardedDenoiser memory",
    "score_smoothed rank",
    "Step index",
    "Step steps",
}
"""What is taken through one of those above, or is a budget of bytes, which may be 2e9."""


@pytest.mark.parametrize("name", ASKED)
@pytest.mark.parametrize("value", [True, 2.5, "3", math.nan, -1])
def test_what_is_no_count_is_refused(name: str, value: object) -> None:
    if name == "design seed" and value == -1:
        pytest.skip("a seed may be negative")
    if name == "load n" and value == "3":
        pytest.skip("options of data sets may be words, as they come from a command line")
    with pytest.raises(ValueError, match=r".") as caught:
        ASKED[name](value)
    argument = name.split()[1]
    said = str(caught.value)
    assert argument in said or "grid needs" in said or "modes" in said or "order" in said, said
    assert "\n" not in said


def test_every_count_is_asked() -> None:
    """All arguments of public functions that are annotated int, and no dataclass of results."""
    found: set[str] = set()
    for module in (optimal, theories, schedules, samplers):
        for name, value in vars(module).items():
            if name.startswith("_") or not callable(value) or name in RESULTS:
                continue
            try:
                signature = inspect.signature(value)
            except (TypeError, ValueError):
                continue
            found |= {f"{name} {p.name}" for p in signature.parameters.values() if str(p.annotation) in KINDS}
    assert not found - set(ASKED) - ELSEWHERE
    assert not ELSEWHERE - found


KINDS = {"int", "int | None", "int | Literal['exact']"}
RESULTS = {"Basins", "Border", "State", "SpanSample", "LogDensities", "Landed", "Starts", "Posterior", "SquareNorms"}


@pytest.mark.parametrize(
    "levels", [(80.0, 0.0), (math.inf, 2.0), (math.nan, 2.0), (80.0, -1.0), (True, 2.0), ("80", 2.0)]
)
@pytest.mark.parametrize("order", [None, 2])
def test_a_start_needs_two_levels(levels: tuple[Any, Any], order: int | None) -> None:
    linear = theories.Wiener(LINE)
    made = samplers.GaussianStart(linear, samplers.Heun())
    solver = made if order is None else samplers.GaussianExponential(linear, order=order)
    with pytest.raises(ValueError, match=r"sigma(_end)? must be a positive and finite noise level, got "):
        solver.start(X, *levels)


def test_what_is_printed_is_a_line() -> None:
    assert repr(STARTS) == "Starts(64 of shape (1,) at sigma 366.606, 0 undecided)"
