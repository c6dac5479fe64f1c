"""The distilled optimum on a grid: how far it is from the exact flow map, against the number of levels of the grid.

A student that is distilled on a grid of n noise levels can learn no more than where its teacher's solver ends on that
grid. Left, the theorem behind consistency distillation (Eq. 36) on five points: the largest error falls as the solver's
order says. Middle, on the data: how many starts land on another data point than the exact flow. Right, progressive
distillation: how far one step of a student from pure noise ends from the exact landing, by the share of the grid that
the step spans, from one level (the denoiser itself, stage 0) to all of it (the last stage).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor
from tqdm import tqdm

from optimal import FlowMap, OptimalDenoiser, karras, load, log_linear, progressive_optimum
from optimal.intervals import positive_interval
from optimal.reference import GaussianMixture
from optimal.schedules import start_level
from optimal.span import few_points

from .common import (
    FLOW,
    SMALL,
    TITLE_SIZE,
    WIDTH,
    banded,
    ends,
    generator,
    note,
    plain_ticks,
    power_ticks,
    provenance,
    shares,
)
from .config import Config

__all__ = ["SOLVERS", "TITLE", "compute", "draw", "rows"]

TITLE = "The distilled optimum on a grid: error against the number of noise levels, per solver and stage"

SOLVERS: dict[str, dict[str, Any]] = {
    "Euler (DDIM)": {"solver": "euler"},
    "Heun (EDM)": {"solver": "heun"},
    "DPM-Solver-2": {"solver": "dpm_solver", "order": 2},
    "DPM-Solver-3": {"solver": "dpm_solver", "order": 3},
}
_COST = ((5 * 10**5, 256, 128), (10**7, 64, 64), (5 * 10**7, 32, 32), (10**12, 8, 16))
"""Up to so many values in the data: starts, and most grid points."""
_TOY_STEPS = (20, 40, 80, 160, 320, 640)
_TOY_END = 0.3
_SPANS = {"all of the grid": "tab:purple", "half of it": "tab:olive", "a quarter": "tab:cyan"}
_AWAY = 0.02
"""Starts whose share of mass below is nearer to the border of a basin than this are left out of the largest error."""


def compute(config: Config) -> dict[str, np.ndarray]:
    """Everything that is drawn.

    Returns:
        solvers (K,); toy_steps (n,), toy_errors (K, n), the largest error of the flow from 80 to 0.3, and toy_slopes
        (K,) over the last three halvings. points (n,), the numbers of levels; other (K, n, 3), the share of starts that
        land on another data point than the exact flow, with its 95% interval; distance (K, n, 3), the root mean square
        distance from it, over that of two points of the data, with its interval; jump (S, n, 3), that distance for one
        step of the student of stage s (nan where its step is longer than the grid); starts; what the data are.
    """
    data = config.load("digits")
    D = OptimalDenoiser(data)
    starts, most = next((starts, most) for values, starts, most in _COST if data.array.size <= values)
    if config.quick:
        starts, most = min(starts, 32), min(most, 16)
    high = start_level(D)
    start = high * torch.randn(starts, *data.event, generator=generator(config, 1), dtype=torch.float64)
    unit = D.standard_deviation * math.sqrt(2 * math.prod(data.event)) or 1.0
    few = few_points(D)
    if few is not None:
        D, start = few.denoiser, few.reduced(start)
    exact = FlowMap(D).land(start, high)
    points = [2**i for i in range(int(math.log2(most)) + 1)]

    def distance(x: Tensor) -> np.ndarray:
        squares = (x - exact.x).flatten(1).square().sum(1)
        return ends(positive_interval(squares).map(torch.sqrt).scaled(1 / unit))

    of_solver = np.full((2, len(SOLVERS), len(points), 3), np.nan)
    of_stage = np.full((len(points), len(points), 3), np.nan)
    with tqdm(total=sum((len(SOLVERS) + 2) * n for n in points), desc="grids", unit="step", leave=False) as bar:
        for j, n in enumerate(points):
            sigmas = karras(n, sigma_max=high, sigma_min=high / 40_000)
            for i, options in enumerate(SOLVERS.values()):
                landed = FlowMap(D, sigmas, **options)(start, high)
                of_solver[:, i, j] = shares(D.nearest(landed) != exact.index), distance(landed)
                bar.update(n)
            for stage in range(j + 1):
                of_stage[stage, j] = distance(progressive_optimum(D, sigmas, stage)(start, high))
            bar.update(2 * n)
    return (
        _toy(_TOY_STEPS[1:5] if config.quick else _TOY_STEPS)
        | {
            "solvers": np.array(list(SOLVERS)),
            "points": np.array(points),
            "other": of_solver[0],
            "distance": of_solver[1],
            "jump": of_stage,
            "starts": np.array(starts),
            "high": np.array(high),
        }
        | provenance(data)
    )


def rows(quick: bool, values: int) -> float:
    """Queries of the optimum of data of so many values, about."""
    starts, most = next(cost for largest, *cost in _COST if values <= largest)
    starts, most = (min(starts, 32), min(most, 16)) if quick else (starts, most)
    return starts * (FLOW + 20 * most)


def _toy(steps: tuple[int, ...]) -> dict[str, np.ndarray]:
    """Eq. 36 where the exact flow is known in closed form, on starts spread evenly over the mass."""
    data = load("five-deltas")
    D, exact = OptimalDenoiser(data), GaussianMixture(data.points, 0.0)
    mass = torch.linspace(0.005, 0.995, 199, dtype=torch.float64)
    mass = mass[((mass * len(data)) % 1 - 0.5).abs() < 0.5 - _AWAY * len(data)]
    # Quantiles of p(x; 80): a Gaussian of the data's mean and variance, to 1 part in 10⁵.
    spread = math.hypot(80.0, D.standard_deviation)
    start = D.take(torch.arange(len(data))).double().mean(0) + spread * torch.special.ndtri(mass)[:, None]
    truth = exact.flow(start, 80.0, _TOY_END)
    errors = np.empty((len(SOLVERS), len(steps)))
    for i, options in enumerate(SOLVERS.values()):
        for j, n in enumerate(steps):
            sigmas = log_linear(n + 1, sigma_min=_TOY_END, sigma_max=80.0)
            ends = FlowMap(D, sigmas, **options).flow(start, 80.0, _TOY_END)
            errors[i, j] = float((ends - truth).abs().max())
    logs = np.log2(errors[:, -4:])
    slopes = -np.polyfit(np.arange(4), logs.T, 1)[0]
    return {"toy_steps": np.array(steps), "toy_errors": errors, "toy_slopes": slopes}


def draw(arrays: Mapping[str, np.ndarray]) -> Figure:
    """Put the arrays of `compute` on one page."""
    figure = Figure(figsize=(WIDTH, 6.6), layout="constrained")
    figure.suptitle("How many noise levels does distillation need to learn the right end?", fontsize=TITLE_SIZE)
    order, landed, jump = figure.subplots(1, 3)
    for i, name in enumerate(arrays["solvers"]):
        style = {"color": f"C{i}", "marker": "o", "markersize": 4}
        label = f"{name}: as n$^{{-{arrays['toy_slopes'][i]:.2f}}}$"
        order.plot(arrays["toy_steps"], arrays["toy_errors"][i], label=label, **style)
        banded(landed, arrays["points"], arrays["other"][i], label=str(name), **style)
    order.set(xscale="log", yscale="log", ylabel="largest |error| of x at σ = 0.3")
    # Room for the legend.
    order.set_ylim(arrays["toy_errors"].min() / 30, None)
    plain_ticks(order, tuple(arrays["toy_steps"]))
    order.set_title("Five points: the error falls\nas theory says (Eq. 36)", fontsize=11)
    about = f"{arrays['dataset']}, N = {int(arrays['size']):,}"
    landed.set(ylabel="share that lands on another\npoint than the exact flow", ylim=(-0.03, 1.03))
    landed.set_title(f"{about}:\nwrong landings", fontsize=11)
    _draw_jumps(jump, arrays)
    jump.set_title(f"{about}:\none step of a progressive student", fontsize=11)
    for ax in (landed, jump):
        power_ticks(ax)
    for ax in (order, landed, jump):
        ax.set_xlabel("n, noise levels of the grid")
        ax.grid(alpha=0.3)
    order.legend(fontsize=SMALL, loc="lower left")
    landed.legend(fontsize=SMALL)
    jump.legend(fontsize=SMALL, loc="lower left", title="its step spans", title_fontsize=SMALL)
    note(
        figure,
        "A student distilled on n noise levels learns at best where its teacher's solver ends on them; the exact "
        "flow is the limit of many. Left: from σ = 80 to 0.3, levels uniform in log σ, starts away from the borders "
        f"of basins. Middle and right: {int(arrays['starts'])} starts at σ = {float(arrays['high']):.3g}, EDM's "
        "levels (ρ = 7), bands: 95% intervals. Right: every stage of progressive distillation (DDIM) doubles the "
        "part of the grid that one step spans.",
    )
    return figure


def _draw_jumps(axes: Axes, arrays: Mapping[str, np.ndarray]) -> None:
    points, jump = arrays["points"], arrays["jump"]
    for back, (label, color) in enumerate(_SPANS.items()):
        numbers = np.arange(back, len(points))
        style = {"color": color, "marker": "o", "markersize": 4, "label": label}
        banded(axes, points[numbers], jump[numbers - back, numbers], **style)
    axes.plot(points, jump[0, :, 0], color="k", linestyle="--", label="one level: the denoiser")
    axes.set(ylim=(0, None), ylabel="distance from the exact landing, r.m.s.\n(1: between two points of the data)")
