"""Through the mode-seeking part in few calls: grids designed from the optimum, beside the published ones.

Left, how many trajectories end on another data point than the exact flow takes them to, against denoiser calls, for one
solver (DPM-Solver++, third order) on grids that are published and on grids that are made for the data; and what solvers
that begin with the flow of the data's Gaussian need, on grids made for them: the same solver, and one whose numbers
were calibrated on exact landings. Grids are designed on other starts than they are judged on. Right, where the grids
put their levels, above the mean entropy of the posterior, which they all have to take away.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor
from tqdm import tqdm

from optimal import Dataset, FlowMap, OptimalDenoiser, cosine, karras, kl_optimal, log_linear
from optimal.samplers import Calibrated, DPMSolverPP, GaussianStart, Solver
from optimal.schedules import (
    Starts,
    calibrated,
    curve_of,
    entropic_grid,
    gaussian_grid,
    landed_right,
    landings_grid,
    path_kl_grid,
    start_level,
    starts_of,
    wrong_landings,
)
from optimal.theories import Wiener

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
    log_ticks,
    note,
    power_ticks,
    provenance,
    stacked,
)
from .config import Config

__all__ = ["TITLE", "compute", "draw", "rows"]

TITLE = "Grids of noise levels made for the data: wrong landings against denoiser calls, and where the levels lie"

_CALLS = (3, 4, 5, 6, 8, 10, 12, 16, 24, 32)
_DESIGNED = (4, 6, 8, 9, 10)
_STARTED = (3, 4, 5, 6, 7)
_CALIBRATED = (2, 3, 4, 5, 6)
_QUICK = (4, 6)
_RACED = 4
"""Calls whose wrong starts are looked at."""
_SHOWN = 6
"""Calls of the grids whose levels are shown."""
_STARTS, _STEPS = 1024, 400
_FOUND = Path(__file__).parent / "calibrated.json"
"""Solvers for digits that `bench/calibrate.py` has found, on more starts than a figure has time for."""
_QUICK_STARTS, _QUICK_STEPS = 64, 20
_DRAWS = 128
_SIZES = ((5 * 10**5, 1), (10**7, 2), (10**12, 8))
"""Up to so many values in the data: starts are fewer by so much."""
_TRIED = 150
"""Grids that a design tries, about."""
_RANGE = 40_000
"""First level of a published grid over its last above 0: 80/0.002."""
_STYLES: dict[str, dict[str, Any]] = {
    "EDM (ρ = 7)": {"color": "k"},
    "even in log σ": {"color": "0.5"},
    "cosine": {"color": "0.5", "linestyle": ":"},
    "kl-optimal": {"color": "0.5", "linestyle": "--"},
    "Gaussian W2": {"color": "tab:olive"},
    "path KL": {"color": "tab:cyan"},
    "rescaled entropy": {"color": "tab:purple"},
    "landings": {"color": "tab:red", "marker": "o", "markersize": 4},
    "landings, from the Gaussian": {"color": "tab:blue", "marker": "o", "markersize": 4},
    "the same, calibrated": {"color": "tab:green", "marker": "o", "markersize": 4},
}
"""Published grids, those made for the data, and those that begin with the Gaussian's flow."""
_ALLOWED = 0.05


def compute(config: Config) -> dict[str, np.ndarray]:
    """Everything that is drawn.

    Returns:
        calls (n,); grids (G,) their names; wrong (G, n, 3), the share of wrong landings with its 95% interval, nan
        where a grid was not made for so many calls; levels (G, shown), those above 0 of grids of `shown` calls; sigmas
        and entropy (S,), the posterior's mean entropy in nats; border, border_low, border_high; races (2, 3), by how
        many nats the first leads the second where the exact flow crosses the border, quartiles, of the starts that
        `raced` calibrated calls get wrong and of the others; high, designed_on and judged_on, numbers of starts, and
        undecided; what the data are.
    """
    data = config.load("digits")
    D = OptimalDenoiser(data)
    border = border_of(config, D, 256)
    made = _Made(D, config, data)
    few = dict.fromkeys(_STYLES, _CALLS) | {
        "landings": _DESIGNED,
        "landings, from the Gaussian": _STARTED,
        "the same, calibrated": _CALIBRATED,
    }
    calls = sorted({n for own in few.values() for n in own if not config.quick or n in _QUICK})
    wrong = np.full((len(_STYLES), len(calls), 3), np.nan)
    levels = np.full((len(_STYLES), _SHOWN), np.nan)
    with tqdm(total=len(_STYLES) * len(calls), desc="schedules", unit="grid", leave=False) as bar:
        for (i, name), (j, n) in itertools.product(enumerate(_STYLES), enumerate(calls)):
            bar.update()
            if n not in few[name]:
                continue
            solver, grid = made.of(name, n)
            landed = wrong_landings(made.others, grid, solver=solver)
            wrong[i, j] = landed.share, *landed.interval()
            if n == _SHOWN:
                levels[i] = grid[:-1].numpy()
    assert made.curve.entropy is not None
    raced = min(max(calls), _RACED)
    return {
        "calls": np.array(calls),
        "grids": np.array(list(_STYLES)),
        "wrong": wrong,
        "levels": levels,
        "sigmas": made.curve.sigmas.numpy(),
        "entropy": made.curve.entropy.numpy(),
        "border": np.array(border.sigma),
        "border_low": np.array(border.low),
        "border_high": np.array(border.high),
        "races": _races(made.others, *made.of("the same, calibrated", raced), border.sigma),
        "raced": np.array(raced),
        "high": np.array(made.high),
        "designed_on": np.array(len(made.begun)),
        "judged_on": np.array(len(made.others)),
        "undecided": np.array(made.others.undecided),
    } | provenance(data)


class _Made:
    """Grids by name, and the solver that each is for."""

    def __init__(self, D: OptimalDenoiser, config: Config, data: Dataset):
        starts, judged, self.steps = _size(config.quick, data.array.size)
        self.high, self.seed = start_level(D), config.seed
        self.curve = curve_of(D, draws=min(starts, _DRAWS), generator=generator(config, 1))
        self.begun = starts_of(D, starts, config.seed, purpose="design")
        self.others = starts_of(D, judged, config.seed)
        self.linear = Wiener(self.begun.D)
        self.plain = DPMSolverPP(3)
        self.found = _found(data.fingerprint, self.linear)

    def of(self, name: str, n: int) -> tuple[Solver, Tensor]:
        """The solver and the grid of n calls."""
        span = {"sigma_min": self.high / _RANGE, "sigma_max": self.high}
        published = {"EDM (ρ = 7)": karras, "even in log σ": log_linear, "cosine": cosine, "kl-optimal": kl_optimal}
        if name in published:
            return self.plain, published[name](n, **span)
        if name == "Gaussian W2":
            values, counts = self.linear.spectrum()
            return self.plain, gaussian_grid(values, n, solver=self.plain, sigma_max=self.high, counts=counts)
        if name == "path KL":
            return self.plain, path_kl_grid(self.curve, n)
        if name == "rescaled entropy":
            return self.plain, entropic_grid(self.curve, n, rescaled=True)
        if name == "landings":
            return self.plain, landings_grid(self.begun, n, solver=self.plain)
        if name == "landings, from the Gaussian":
            started = GaussianStart(self.linear, self.plain)
            return started, landings_grid(self.begun, n, solver=started)
        solver = self.found.get(n) or calibrated(self.begun, n, self.linear, steps=self.steps, seed=self.seed)
        return solver, torch.tensor([*solver.levels, 0.0], dtype=torch.float64)


def _races(starts: Starts, solver: Solver, grid: Tensor, border: float) -> np.ndarray:
    """Quartiles of the first's lead over the second at the border, along the exact flow: wrong starts, and right."""
    right = landed_right(starts, grid, solver=solver)
    x = FlowMap(starts.D).flow(starts.x, starts.sigma, border)
    first, second = starts.D.weights(x, border).topk(2, 1).values.log().T
    quartiles = torch.tensor([0.25, 0.5, 0.75], dtype=torch.float64)
    empty = torch.full((3,), torch.nan, dtype=torch.float64)
    leads = [(first - second)[rows].double() for rows in (~right, right)]
    return torch.stack([lead.quantile(quartiles) if len(lead) else empty for lead in leads]).numpy()


def _found(fingerprint: str, linear: Wiener) -> dict[int, Calibrated]:
    """Calibrated solvers that are there for these data, by their calls."""
    known = json.loads(_FOUND.read_text())
    if known["fingerprint"] != fingerprint:
        return {}
    solvers = [
        Calibrated(linear, tuple(one["levels"]), tuple(one["gains"]), tuple(map(tuple, one["shares"])))
        for one in known["solvers"]
    ]
    return {len(solver.levels): solver for solver in solvers}


def _size(quick: bool, values: int) -> tuple[int, int, int]:
    """Starts that grids are designed on, and judged on, and steps of a calibration."""
    fewer = next(factor for most, factor in _SIZES if values <= most)
    if quick:
        return _QUICK_STARTS, 2 * _QUICK_STARTS, _QUICK_STEPS
    return max(_STARTS // fewer, _QUICK_STARTS), max(2 * _STARTS // fewer, 2 * _QUICK_STARTS), _STEPS


def rows(quick: bool, values: int) -> float:
    """Queries of the optimum of data of so many values, about."""
    starts, judged, steps = _size(quick, values)
    few = [n for own in (_DESIGNED, _STARTED) for n in own if not quick or n in _QUICK]
    calibrations = [n for n in _CALIBRATED if not quick or n in _QUICK]
    designs = starts * _TRIED * (sum(few) + sum(calibrations) / 2) + 3 * 256 * steps * sum(calibrations)
    published = judged * sum(_QUICK if quick else _CALLS) * 7
    return designs + published + (starts + judged) * FLOW + border_draws(quick, 256, values) * BORDER_LEVELS


def draw(arrays: Mapping[str, np.ndarray]) -> Figure:
    """Put the arrays of `compute` on one page."""
    figure = Figure(figsize=(WIDTH, 6.8), layout="constrained")
    figure.suptitle("How few denoiser calls lead through the mode-seeking part?", fontsize=TITLE_SIZE)
    (page,) = stacked(figure, 1)
    left, below = page.subplots(1, 2, width_ratios=(1.15, 1))
    for i, name in enumerate(arrays["grids"].tolist()):
        held = np.isfinite(arrays["wrong"][i, :, 0])
        banded(left, arrays["calls"][held], arrays["wrong"][i, held], label=name, **_STYLES[name])
    left.axhline(_ALLOWED, color="0.4", linewidth=0.8, linestyle=":")
    power_ticks(left)
    left.set(
        xlabel="denoiser calls", ylabel="share that ends on another point\nthan the exact flow", ylim=(-0.02, 1.02)
    )
    left.set_title("DPM-Solver++ 3M on published and on designed grids", fontsize=11)
    left.grid(alpha=0.3)
    page.legend(loc="outside upper center", ncols=5, fontsize=SMALL, frameon=False)
    _draw_levels(below, arrays)
    wrong, right = arrays["races"][:, 1]
    note(
        page,
        f"{arrays['dataset']}, N = {int(arrays['size']):,}, {arrays['event']}; trajectories from σ = "
        f"{float(arrays['high']):.3g}. Grids were designed on {int(arrays['designed_on']):,} starts and are judged on "
        f"{int(arrays['judged_on']):,} others ({int(arrays['undecided'])} more could not be certified); bands: 95% "
        "intervals, dotted: 5%. Blue and green begin where the flow of the data's Gaussian leads in no call "
        "(dotted at the right); green has numbers of its own in every step, found by gradients on exact landings of "
        "yet other starts. What "
        f"{int(arrays['raced'])} green calls get wrong are close races: at the border the first leads the next by "
        f"{wrong:.2g} nats there, and by {right:.2g} elsewhere (medians).",
    )
    return figure


def _draw_levels(axes: Axes, arrays: Mapping[str, np.ndarray]) -> None:
    """A row a grid, a mark a level; above them the entropy that is left."""
    names = [name for i, name in enumerate(arrays["grids"].tolist()) if np.isfinite(arrays["levels"][i]).all()]
    shown, high = len(arrays["levels"][0]), float(arrays["high"])
    for row, name in enumerate(names):
        levels = arrays["levels"][arrays["grids"].tolist().index(name)]
        axes.plot(
            levels,
            [row] * shown,
            marker="|",
            markersize=14,
            markeredgewidth=2,
            linewidth=0.7,
            color=_STYLES[name]["color"],
        )
        if levels[0] < 0.99 * high:
            # The way that takes no call.
            axes.plot([high, levels[0]], [row, row], "o:", color=_STYLES[name]["color"], mfc="w", ms=5, markevery=[0])
    share = arrays["entropy"] / arrays["entropy"][-1]
    axes.plot(arrays["sigmas"], -1 - 1.6 * share, color="k", linewidth=1.2)
    axes.text(float(arrays["border"]) / 1.2, -2.4, "mean entropy of\nthe posterior", fontsize=SMALL, va="center")
    axes.axvspan(float(arrays["border_low"]), float(arrays["border_high"]), color="0.85", zorder=0)
    axes.axvline(float(arrays["border"]), color="0.5", linewidth=0.9)
    axes.text(float(arrays["border"]), len(names) - 0.45, " border", fontsize=SMALL, color="0.35", va="center")
    axes.set(xscale="log", yticks=range(len(names)), yticklabels=names, ylim=(len(names) - 0.1, -2.9), xlabel="σ")
    low = min(float(arrays["sigmas"][0]), float(np.nanmin(arrays["levels"])))
    axes.set_xlim(high * 1.5, low / 1.5)
    log_ticks(axes, low / 1.5, high * 1.5)
    axes.set_title(f"Levels of the grids of {shown} calls", fontsize=11)
    axes.grid(axis="x", alpha=0.3)
