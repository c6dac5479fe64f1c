"""How many steps each part needs: is it the mode-seeking part that takes them, as the paper's Figure 1 says?

The exact flow's end is known here: a trajectory that is integrated finely until it is captured ends on that point.
Every solver is run from the same starts with n steps, in three ways: over the whole range; only above the border, the
exact flow taking over below; and only below it, from where the exact flow crosses it. The upper row shows how many end
on another data point, the lower one how far from the right one, against the denoiser calls spent."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullLocator
from torch import Tensor
from tqdm import tqdm

from optimal import FlowMap, OptimalDenoiser, karras, sample, trajectory

from .common import border_of, generator, provenance, start_level
from .config import Config

__all__ = ["PARTS", "SOLVERS", "TITLE", "calls_needed", "compute", "draw"]

TITLE = "Steps and where they are needed: the end-point error of every solver, above and below the border"

PARTS = ("whole", "above", "below")
SOLVERS: dict[str, dict[str, Any]] = {
    "Euler (DDIM)": {"solver": "euler"},
    "Heun (EDM)": {"solver": "heun"},
    "DPM-Solver-2": {"solver": "dpm_solver", "order": 2},
    "DPM-Solver-3": {"solver": "dpm_solver", "order": 3},
    "DPM-Solver++ 2M": {"solver": "dpm_solver_pp", "order": 2},
    "DPM-Solver++ 3M, exact": {"solver": "dpm_solver_pp", "order": 3},
    "DPM-Solver++ 3M, published": {"solver": "dpm_solver_pp", "order": 3, "variant": "reference"},
    "ancestral (η = 1)": {"solver": "euler", "eta": 1.0},
    "EDM stochastic (γ = 0.1)": {"solver": "edm_stochastic"},
    "reverse SDE": {"solver": "reverse_sde"},
}
_STEPS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64)
_COST = ((5 * 10**5, 128, 64), (10**7, 64, 64), (5 * 10**7, 32, 32), (10**12, 16, 8))
"""Up to so many values in the data: trajectories, and most steps."""
_RANGE = 80 / 0.002
_STOCHASTIC = ("ancestral (η = 1)", "EDM stochastic (γ = 0.1)", "reverse SDE")


def compute(config: Config) -> dict[str, np.ndarray]:
    """Everything that is drawn.

    Returns:
        steps (n,), solvers (K,), and for each part in `PARTS` its nfe, other (share of trajectories that end on another
        data point) and distance (root mean square distance from the right one, in units of that between two points of
        the data), all (K, n), and needed (K,), the calls from which on at most 5% end elsewhere; border, border_low,
        border_high, high, trajectories, uncaptured; what the data are.

    Raises:
        ValueError: no trajectory could be certified.
    """
    data = config.load("digits")
    D = OptimalDenoiser(data)
    paths, most = next((paths, most) for values, paths, most in _COST if data.array.size <= values)
    if config.quick:
        paths, most = min(paths, 32), min(most, 16)
    border = border_of(config, D, 64 if paths < 64 else 256)
    high = start_level(D)
    if not high / _RANGE < border.sigma < high:
        raise ValueError(f"{data.name} has no border between σ = {high / _RANGE:g} and {high:g}: {border.sigma:g}")
    start = high * torch.randn(paths, *data.event, generator=generator(config, 1), dtype=torch.float64)
    runs = _Runs(D, high, border.sigma, generator(config, 2), fine=100 if config.quick else 200)
    crossing = runs.above({"solver": "heun"}, start, runs.fine)[0]
    end = runs.destination(crossing)
    known = end >= 0
    if not known.any():
        raise ValueError(f"the destination of none of {paths} trajectories could be certified on {data.name}")
    runs.start, runs.crossing, runs.end = start[known], crossing[known], end[known]
    steps = [n for n in _STEPS if n <= most]
    results = {part: np.full((3, len(SOLVERS), len(steps)), np.nan) for part in PARTS}
    with tqdm(total=len(PARTS) * len(SOLVERS) * sum(steps), desc="steps", unit="step", leave=False) as bar:
        for part in PARTS:
            for i, options in enumerate(SOLVERS.values()):
                for j, n in enumerate(steps):
                    results[part][:, i, j] = runs.errors(part, options, n)
                    bar.update(n)
    arrays = {
        f"{part}_{name}": results[part][i] for part in PARTS for i, name in enumerate(("nfe", "other", "distance"))
    }
    arrays |= {
        "steps": np.array(steps),
        "solvers": np.array(list(SOLVERS)),
        "border": np.array(border.sigma),
        "border_low": np.array(border.low),
        "border_high": np.array(border.high),
        "high": np.array(high),
        "trajectories": np.array(int(known.sum())),
        "uncaptured": np.array(int((~known).sum())),
    }
    arrays |= {f"{part}_needed": calls_needed(results[part][0], results[part][1]) for part in PARTS}
    return arrays | provenance(data)


def calls_needed(nfe: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Calls from which on at most 5% end elsewhere, (K,); nan where more steps than these would be needed."""
    late = np.logical_and.accumulate(other[:, ::-1] <= 0.05, axis=1)[:, ::-1]
    return np.where(late.any(1), nfe[np.arange(len(nfe)), late.argmax(1)], np.nan)


class _Runs:
    """The same starts under every solver."""

    start: Tensor
    crossing: Tensor
    end: Tensor

    def __init__(self, D: OptimalDenoiser, high: float, border: float, source: torch.Generator, *, fine: int):
        self.D, self.high, self.border, self.low = D, high, border, high / _RANGE
        self.source, self.fine = source, fine
        self.exact = FlowMap(D)
        self.unit = (2 * D.standard_deviation**2 * np.prod(D.event)) ** 0.5

    def errors(self, part: str, options: dict[str, Any], n: int) -> tuple[float, float, float]:
        """Denoiser calls, share on another point, distance."""
        if part == "above":
            x, nfe = self.above(options, self.start, n)
            landed = self.destination(x)
            # Where the certificate says nothing, the trajectory counts as lost: it is not known to be right.
            reached = self.D.take(landed.clamp_min(0)).double()
        else:
            x, high = (self.start, self.high) if part == "whole" else (self.crossing, self.border)
            counts: list[int] = []
            grid = karras(n, sigma_min=self.low, sigma_max=high)
            reached = sample(self.D, x, grid, callback=lambda state: counts.append(state.nfe), **self.given(options, n))
            landed, nfe = self.D.posterior(reached, self.low).top_index, counts[-1]
        right = self.D.take(self.end).double()
        other = (self.D.take(landed.clamp_min(0)) != self.D.take(self.end)).flatten(1).any(1) | (landed < 0)
        distance = (reached - right).flatten(1).square().sum(1).mean().sqrt() / self.unit
        return nfe, float(other.double().mean()), float(distance)

    def above(self, options: dict[str, Any], x: Tensor, n: int) -> tuple[Tensor, int]:
        """The state at the border after n steps, and the calls that led there."""
        grid = karras(n + 1, sigma_min=self.border, sigma_max=self.high)
        *_, last, _ = trajectory(self.D, x, grid, **self.given(options, n + 1))
        return last.x, last.nfe - 1

    def destination(self, x: Tensor) -> Tensor:
        """Where the exact flow takes x from the border: certified, −1 where it is not."""
        landing = self.exact.land(x, self.border)
        return torch.where(landing.captured > 0, landing.index, -1)

    def given(self, options: dict[str, Any], n: int) -> dict[str, Any]:
        churn = {"S_churn": 0.1 * n} if options["solver"] == "edm_stochastic" else {}
        return options | churn | {"generator": self.source}


def draw(arrays: Mapping[str, np.ndarray]) -> Figure:
    """Put the arrays of `compute` on one page."""
    figure = Figure(figsize=(16, 9), layout="constrained")
    axes = figure.subplots(2, 3, sharex=True, sharey="row")
    border, high = float(arrays["border"]), float(arrays["high"])
    figure.suptitle("How many denoiser calls does each part of the trajectory need?", fontsize=15)
    note = (
        f"{arrays['dataset']}, N = {int(arrays['size']):,}, {arrays['event']}; {int(arrays['trajectories'])} "
        f"trajectories whose exact end is certified, {int(arrays['uncaptured'])} more could not be; EDM's grid (ρ = 7) "
        "in each part. Dashed: stochastic samplers, which do not follow the flow."
    )
    titles = (
        f"Solver on the whole range, σ from {high:.3g} to 0",
        f"Solver above the border only, σ from {high:.3g} to {border:.3g};\nexact flow below (n steps of mode seeking)",
        f"Exact flow above the border, solver below only,\nσ from {border:.3g} to 0 (n steps of mode refining)",
    )
    for column, (part, title) in enumerate(zip(PARTS, titles, strict=True)):
        axes[0, column].set_title(title, fontsize=11)
        for row, name in enumerate(("other", "distance")):
            _draw_lines(axes[row, column], arrays, f"{part}_nfe", f"{part}_{name}")
        axes[1, column].set_xlabel("denoiser calls in that part" + ("\n\n" + note if column == 1 else ""))
        axes[0, column].axhline(1 - 1 / int(arrays["size"]), color="0.8", linewidth=0.8)
    axes[0, 0].set(ylabel="share that ends on another data point", ylim=(-0.03, 1.03))
    axes[1, 0].set(
        ylabel="distance from the right one, r.m.s.\n(1: between two points of the data)", ylim=(-0.04, 1.35)
    )
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=5, fontsize=9, frameon=False)
    return figure


def _draw_lines(axes: Axes, arrays: Mapping[str, np.ndarray], nfe: str, value: str) -> None:
    for i, name in enumerate(arrays["solvers"]):
        style: dict[str, Any] = {"color": f"C{i}", "marker": "o"}
        if str(name) in _STOCHASTIC:
            style = {"color": "0.55", "linestyle": "--", "marker": "v^s"[_STOCHASTIC.index(str(name))]}
        axes.plot(arrays[nfe][i], arrays[value][i], label=str(name), markersize=3, **style)
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.grid(alpha=0.3)
