"""The distilled optimum on a grid: how far it is from the exact flow map, against the number of grid points.

Top left, the theorem behind consistency distillation (Eq. 36) on five deltas: the largest error falls as the solver's
order says. Top right, on the data: how many starts land on another data point than the exact flow. Bottom, progressive
distillation: left, one jump of the stage-k student from pure noise, and right, its sampler, which needs half the calls
at every stage."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import matplotlib as mpl
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullLocator
from torch import Tensor
from tqdm import tqdm

from optimal import FlowMap, OptimalDenoiser, karras, load, log_linear, progressive_optimum, sample
from optimal.reference import GaussianMixture

from .common import generator, plain_ticks, provenance, start_level
from .config import Config

__all__ = ["SOLVERS", "TITLE", "compute", "draw"]

TITLE = "The distilled optimum on a grid: error against the number of grid points, per solver and stage"

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
_AWAY = 0.02
"""Starts whose share of mass below is nearer to the border of a basin than this are left out of the largest error."""


def compute(config: Config) -> dict[str, np.ndarray]:
    """Everything that is drawn.

    Returns:
        solvers (K,); toy_steps (n,), toy_errors (K, n), the largest error of the flow from 80 to 0.3, and toy_slopes
        (K,) over the last three halvings. points (n,), the numbers of grid points; other and distance (K, n), the share
        of starts that land on another data point than the exact flow and the root mean square distance from it, over
        that of two points of the data. jump (S, n), that distance for one jump of the student of stage s (nan where its
        step is longer than the grid), calls and ends (S, n), calls of its sampler and share that ends elsewhere;
        starts; what the data are.
    """
    data = config.load("digits")
    D = OptimalDenoiser(data)
    starts, most = next((starts, most) for values, starts, most in _COST if data.array.size <= values)
    if config.quick:
        starts, most = min(starts, 32), min(most, 16)
    high = start_level(D)
    start = high * torch.randn(starts, *data.event, generator=generator(config, 1), dtype=torch.float64)
    exact = FlowMap(D).land(start, high)
    points = [2**i for i in range(int(math.log2(most)) + 1)]
    unit = D.standard_deviation * math.sqrt(2 * math.prod(data.event)) or 1.0

    def distance(x: Tensor) -> float:
        return float((x - exact.x).flatten(1).square().sum(1).mean().sqrt()) / unit

    def elsewhere(x: Tensor) -> float:
        return float((D.nearest(x) != exact.index).double().mean())

    of_solver = np.full((2, len(SOLVERS), len(points)), np.nan)
    of_stage = {name: np.full((len(points), len(points)), np.nan) for name in ("jump", "calls", "ends")}
    work = sum(len(SOLVERS) * n + (i + 1) * n + 2 * n for i, n in enumerate(points))
    with tqdm(total=work, desc="grids", unit="step", leave=False) as bar:
        for j, n in enumerate(points):
            sigmas = karras(n, sigma_max=high, sigma_min=high / 40_000)
            for i, options in enumerate(SOLVERS.values()):
                landed = FlowMap(D, sigmas, **options)(start, high)
                of_solver[:, i, j] = elsewhere(landed), distance(landed)
                bar.update(n)
            for stage in range(j + 1):
                student = progressive_optimum(D, sigmas, stage)
                of_stage["jump"][stage, j] = distance(student(start, high))
                of_stage["calls"][stage, j] = len(student.sigmas) - 1
                of_stage["ends"][stage, j] = elsewhere(sample(student, start, student.sigmas, solver="euler"))
                bar.update(n + 2**stage)
    return (
        _toy(_TOY_STEPS[1:5] if config.quick else _TOY_STEPS)
        | of_stage
        | {
            "solvers": np.array(list(SOLVERS)),
            "points": np.array(points),
            "other": of_solver[0],
            "distance": of_solver[1],
            "starts": np.array(starts),
            "high": np.array(high),
        }
        | provenance(data)
    )


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
    figure = Figure(figsize=(14, 10.5), layout="constrained")
    figure.suptitle("How fine a grid does the distilled optimum need?", fontsize=15)
    (order, landed), (jump, sampler) = figure.subplots(2, 2)
    for i, name in enumerate(arrays["solvers"]):
        label = f"{name}: slope {arrays['toy_slopes'][i]:.2f}"
        order.plot(arrays["toy_steps"], arrays["toy_errors"][i], "o-", markersize=4, label=label)
        landed.plot(arrays["points"], arrays["other"][i], "o-", markersize=4, label=str(name))
    order.set(xscale="log", yscale="log", xlabel="steps n, uniform in log σ", ylabel="largest |error| at σ = 0.3")
    plain_ticks(order, tuple(arrays["toy_steps"]))
    order.set_title(
        "Eq. 36 on five points: sup error of the flow from σ = 80 to 0.3,\naway from basin borders", fontsize=11
    )
    where = f"{arrays['dataset']}, N = {int(arrays['size']):,}, {int(arrays['starts'])} starts"
    share = "share that lands on another data\npoint than the exact flow"
    landed.set(xlabel="grid points above 0", ylabel=share, ylim=(-0.03, 1.03))
    landed.set_title(f"The discrete consistency optimum against the exact one\n({where})", fontsize=11)
    stages = len(arrays["jump"])
    colors = mpl.colormaps["viridis"](np.linspace(0, 0.85, stages))
    for stage in range(stages):
        style = {"color": colors[stage], "marker": "o", "markersize": 4}
        label = f"stage {stage}" + (": the denoiser" if stage == 0 else "")
        jump.plot(arrays["points"], arrays["jump"][stage], label=label, **style)
        sampler.plot(arrays["calls"][stage], arrays["ends"][stage], label=label, **style)
    jump.set(
        xlabel="grid points of the teacher", ylabel="distance from the exact landing, r.m.s.\n(1: between two points)"
    )
    jump.set_title(
        f"Progressive distillation ({arrays['dataset']}): one jump from σ = {float(arrays['high']):.3g};\n"
        "the leftmost point of each line is a step over the whole grid",
        fontsize=11,
    )
    sampler.set(xlabel="calls of the student's sampler", ylabel=share, ylim=(-0.03, 1.03))
    sampler.set_title(
        f"Progressive distillation: every stage halves the calls\nfor the same samples ({arrays['dataset']})",
        fontsize=11,
    )
    for ax in (landed, jump, sampler):
        _power_ticks(ax)
    for ax in (order, landed, jump, sampler):
        ax.grid(alpha=0.3)
        ax.legend(fontsize=8)
    return figure


def _power_ticks(axes: Axes) -> None:
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_locator(NullLocator())
