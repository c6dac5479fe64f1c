"""How many steps each part needs: is it the mode-seeking part that takes them, as the paper's Figure 1 says?

The exact flow's end is known here: a trajectory that is integrated finely until it is captured ends on that point.
Every solver is run from the same starts with n steps, in three ways: over the whole range; only above the border, the
exact flow taking over below; and only below it, from where the exact flow crosses it. Above, how many end on another
data point, against the denoiser calls spent, for four of the solvers; below, for all, how many calls it takes until at
most 5% do. All is every solver that `optimal.samplers` has by name, but "consistency": that takes a flow map in place
of D, and one of the optimum is right in one call. Solvers made for one data set's Gaussian are in `figures.schedules`.
What is run on few points of many values is run in coordinates of their span, in which the flow is the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor
from tqdm import tqdm

from optimal import FlowMap, OptimalDenoiser, karras, sample, trajectory
from optimal.schedules import start_level
from optimal.span import few_points

from .common import (
    BORDER_LEVELS,
    FLOW,
    SMALL,
    TITLE_SIZE,
    WIDTH,
    banded,
    border_draws,
    border_of,
    generator,
    note,
    power_ticks,
    provenance,
    shares,
    stacked,
)
from .config import Config

__all__ = ["PARTS", "SOLVERS", "TITLE", "calls_needed", "compute", "draw", "rows"]

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
    "UniPC-2": {"solver": "unipc", "order": 2},
    "UniPC-3": {"solver": "unipc", "order": 3},
    "ancestral (η = 1)": {"solver": "euler", "eta": 1.0},
    "EDM stochastic (γ = 0.1)": {"solver": "edm_stochastic"},
    "reverse SDE": {"solver": "reverse_sde"},
    "SDE-DPM-Solver++ 2M": {"solver": "sde_dpm_solver_pp", "order": 2},
}
_STEPS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64)
_COST = ((5 * 10**5, 256, 64), (10**7, 64, 64), (5 * 10**7, 32, 32), (10**12, 16, 8))
"""Up to so many values in the data: trajectories, and most steps."""
_LARGE, _LOOK, _LOOK_STEPS = 10**6, 16, (1, 2, 4, 8, 16)
"""A quick look at data of more values: trajectories, and steps, of the solvers that are shown."""
_RANGE = 80 / 0.002
_SHOWN = {
    "Euler (DDIM)": ("tab:blue", "-", "o"),
    "Heun (EDM)": ("k", "-", "o"),
    "DPM-Solver++ 3M, exact": ("tab:green", "-", "o"),
    "reverse SDE": ("0.55", "--", "s"),
}
"""Solvers whose curves are drawn."""
_COLORS = {"whole": "k", "above": "tab:red", "below": "tab:blue"}
_ALLOWED = 0.05
"""Share that may end on another point, for the calls needed."""


def compute(config: Config) -> dict[str, np.ndarray]:
    """Everything that is drawn.

    Returns:
        steps (n,), solvers (K,), and for each part in `PARTS` its nfe (K, n), other (K, n, 3), the share of
        trajectories that end on another data point with its 95% interval, distance (K, n), root mean square, from the
        right one in units of that between two points of the data, and needed (K, 3), the calls from which on at most 5%
        end elsewhere: by the share, and by the ends of its interval; border, border_low, border_high, high,
        trajectories, uncaptured; what the data are.

    Raises:
        ValueError: no trajectory could be certified.
    """
    data = config.load("digits")
    D = OptimalDenoiser(data)
    paths, steps, fine, solvers = _size(config.quick, data.array.size)
    border = border_of(config, D, 64 if paths < 64 else 256)
    high = start_level(D)
    if not high / _RANGE < border.sigma < high:
        raise ValueError(f"{data.name} has no border between σ = {high / _RANGE:g} and {high:g}: {border.sigma:g}")
    start = high * torch.randn(paths, *data.event, generator=generator(config, 1), dtype=torch.float64)
    few = few_points(D)
    if few is not None:
        D, start = few.denoiser, few.reduced(start)
    runs = _Runs(D, high, border.sigma, generator(config, 2), fine=fine)
    crossing = runs.above({"solver": "heun"}, start, runs.fine)[0]
    end = runs.destination(crossing)
    known = end >= 0
    if not known.any():
        raise ValueError(f"the destination of none of {paths} trajectories could be certified on {data.name}")
    runs.start, runs.crossing, runs.end = start[known], crossing[known], end[known]
    arrays = {
        "steps": np.array(steps),
        "solvers": np.array(list(solvers)),
        "border": np.array(border.sigma),
        "border_low": np.array(border.low),
        "border_high": np.array(border.high),
        "high": np.array(high),
        "trajectories": np.array(int(known.sum())),
        "uncaptured": np.array(int((~known).sum())),
    }
    with tqdm(total=len(PARTS) * len(solvers) * sum(steps), desc="steps", unit="step", leave=False) as bar:
        for part in PARTS:
            arrays |= {f"{part}_{name}": value for name, value in _part(runs, part, solvers, steps, bar).items()}
    return arrays | provenance(data)


def _size(quick: bool, values: int) -> tuple[int, list[int], int, dict[str, dict[str, Any]]]:
    """Trajectories, numbers of steps, steps down to the border of what counts as exact, and solvers."""
    paths, most = next((paths, most) for largest, paths, most in _COST if values <= largest)
    if quick and values > _LARGE:
        return min(paths, _LOOK), list(_LOOK_STEPS), 50, {name: SOLVERS[name] for name in _SHOWN}
    if quick:
        paths, most = min(paths, 32), min(most, 16)
    return paths, [n for n in _STEPS if n <= most], 100 if quick else 200, SOLVERS


def rows(quick: bool, values: int) -> float:
    """Queries of the optimum of data of so many values, about."""
    paths, steps, fine, solvers = _size(quick, values)
    each = 2 * fine + FLOW + len(solvers) * (2 * len(PARTS) * sum(steps) + len(steps) * FLOW / 2)
    return paths * each + border_draws(quick, 64 if paths < 64 else 256, values) * BORDER_LEVELS


def _part(
    runs: _Runs, part: str, solvers: Mapping[str, dict[str, Any]], steps: list[int], bar: tqdm
) -> dict[str, np.ndarray]:
    """nfe, other, distance and needed of one part."""
    shape = (len(solvers), len(steps))
    nfe, states = np.empty(shape), []
    for i, options in enumerate(solvers.values()):
        for j, n in enumerate(steps):
            x, nfe[i, j] = runs.reach(part, options, n)
            states.append(x)
            bar.update(n)
    elsewhere, squares = runs.judge(part, torch.stack(states))
    other, distance = shares(elsewhere).reshape(*shape, 3), squares.mean(1).sqrt().numpy().reshape(shape) / runs.unit
    needed = np.stack([calls_needed(nfe, other[:, :, k]) for k in range(3)], 1)
    return {"nfe": nfe, "other": other, "distance": distance, "needed": needed}


def calls_needed(nfe: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Calls from which on at most 5% end elsewhere, (K,); nan where more steps than these would be needed."""
    late = np.logical_and.accumulate(other[:, ::-1] <= _ALLOWED, axis=1)[:, ::-1]
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

    def reach(self, part: str, options: dict[str, Any], n: int) -> tuple[Tensor, int]:
        """Where n steps lead: to the border, of the part above, else to the end; and the denoiser calls."""
        if part == "above":
            return self.above(options, self.start, n)
        x, high = (self.start, self.high) if part == "whole" else (self.crossing, self.border)
        counts: list[int] = []
        grid = karras(n, sigma_min=self.low, sigma_max=high)
        end = sample(self.D, x, grid, callback=lambda state: counts.append(state.nfe), **self.given(options, n))
        return end, counts[-1]

    def judge(self, part: str, states: Tensor) -> tuple[Tensor, Tensor]:
        """Of states (R, paths, *event) of R runs: which end on another point, and ‖end − right one‖², (R, paths)."""
        x = states.flatten(0, 1)
        if part == "above":
            # All at once: what takes long in the exact flow are the few rows that are near a border.
            landed = self.destination(x)
            x = self.D.take(landed.clamp_min(0)).double()
        else:
            landed = self.D.posterior(x, self.low).top_index
        right = self.D.take(self.end).repeat(len(states), *[1] * (x.ndim - 1))
        # Where the certificate says nothing, the trajectory counts as lost: it is not known to be right.
        other = (self.D.take(landed.clamp_min(0)) != right).flatten(1).any(1) | (landed < 0)
        squares = (x - right.double()).flatten(1).square().sum(1)
        return other.view(len(states), -1), squares.view(len(states), -1)

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
    figure = Figure(figsize=(WIDTH, 10.9), layout="constrained")
    top, bottom = stacked(figure, 5.2, 5.7)
    panels = top.subplots(1, 3, sharex=True, sharey=True)
    border, high = float(arrays["border"]), float(arrays["high"])
    figure.suptitle("How many denoiser calls does each part of the way from noise to data need?", fontsize=TITLE_SIZE)
    titles = (
        f"Solver on the whole range,\nσ from {high:.3g} to 0",
        f"Solver above the border only,\nσ from {high:.3g} to {border:.3g};\nexact flow below: mode seeking",
        f"Solver below the border only,\nσ from {border:.3g} to 0;\nexact flow above: mode refining",
    )
    for axes, part, title in zip(panels, PARTS, titles, strict=True):
        axes.set_title(title, fontsize=10, color=_COLORS[part])
        _draw_shares(axes, arrays, part)
        axes.set(xlabel="denoiser calls in that part", ylim=(-0.03, 1.03))
    panels[0].set_ylabel("share of trajectories that end\non another point than the exact flow")
    _draw_needed(bottom.subplots(), arrays)
    known, lost = (int(arrays[name]) for name in ("trajectories", "uncaptured"))
    note(
        bottom,
        f"{arrays['dataset']}, N = {int(arrays['size']):,}, {arrays['event']}; {known} trajectories whose exact end "
        f"is certified, {lost} more could not be. At most {int(arrays['steps'][-1])} steps, on EDM's grid (ρ = 7) in "
        "each part. Bands and bars: 95% intervals. Grey, dashed, and the last four rows: stochastic samplers, which "
        "do not follow the flow.",
    )
    handles, labels = panels[0].get_legend_handles_labels()
    top.legend(handles, labels, loc="outside upper center", ncols=4, fontsize=10, frameon=False)
    return figure


def _draw_shares(axes: Axes, arrays: Mapping[str, np.ndarray], part: str) -> None:
    solvers = arrays["solvers"].tolist()
    for name, (color, line, marker) in _SHOWN.items():
        i = solvers.index(name)
        style = {"color": color, "linestyle": line, "marker": marker, "markersize": 3.5, "label": name}
        banded(axes, arrays[f"{part}_nfe"][i], arrays[f"{part}_other"][i], **style)
    axes.axhline(_ALLOWED, color="0.4", linewidth=0.8, linestyle=":")
    power_ticks(axes)
    axes.grid(alpha=0.3)


def _draw_needed(axes: Axes, arrays: Mapping[str, np.ndarray]) -> None:
    """A row a solver, a mark a part; what is never reached lies right of the most calls that were spent."""
    names = [str(name) for name in arrays["solvers"]]
    never = 2 * max(float(arrays[f"{part}_nfe"].max()) for part in PARTS)
    labels = ("on the whole range", "above the border: mode seeking", "below the border: mode refining")
    for place, (part, label) in enumerate(zip(PARTS, labels, strict=True)):
        rows = np.arange(len(names)) + 0.22 * (place - 1)
        needed, low, high = np.nan_to_num(arrays[f"{part}_needed"], nan=never).T
        axes.hlines(rows, low, high, color=_COLORS[part], linewidth=2, alpha=0.4)
        axes.plot(needed, rows, "o", color=_COLORS[part], markersize=6, label=label)
    power_ticks(axes)
    axes.axvline(never / 1.4, color="0.7", linewidth=0.8)
    axes.text(never, -0.75, "more", ha="center", va="center", fontsize=SMALL)
    axes.set(yticks=range(len(names)), yticklabels=names, ylim=(len(names) - 0.5, -1.1), xlim=(0.8, 1.4 * never))
    axes.set_title("Denoiser calls until at most 5% (dotted above) end on another point", fontsize=11)
    axes.set_xlabel("denoiser calls in that part")
    axes.grid(axis="x", alpha=0.3)
    axes.legend(loc="lower left", fontsize=SMALL)
