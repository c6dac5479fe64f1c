"""Distilled networks beside the distilled optimum, on five points and on digits.

Top, over (σ, x): the exact flow map of five points, and a consistency model that was distilled from the optimum. In the
middle, one jump from pure noise at the highest level: the four students of five points as functions of x, and how many
noises each student, of five points and of digits, takes to the point of the exact flow. Bottom, the same share on noisy
data at every level, for the two students that are trained at every level."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure

from neural import Preconditioned
from neural.config import TECHNIQUES
from neural.distill import pairs_seen
from neural.measures import evaluate
from optimal import FlowMap, OptimalDenoiser, load
from optimal.reference import GaussianMixture

from .common import SMALL, TITLE_SIZE, WIDTH, banded, generator, log_ticks, note, plain_ticks, shares, stacked
from .config import Config
from .networks import COLORS, dataset, distillation, prepare, student

__all__ = ["OWN", "TITLE", "compute", "draw"]

TITLE = "Distilled networks beside the distilled optimum, on five points and on digits"
OWN = "students of the presets toy and digits; distil yours with python -m neural"
"""What is drawn of no other data."""

_LEVELS = ("consistency", "multistep")
"""Students that are trained at every level of the grid."""


def compute(config: Config) -> dict[str, np.ndarray]:
    """Everything that is drawn.

    Returns:
        sigmas (S,), x (X,), flow and student (S, X), borders (S, N − 1); jump_x (J,), jump_flow (J,) and jump_NAME (J,)
        at σ = 80 for every technique; techniques (4,), one_same (4, 3), the share of noises at σ = 80 whose output is
        nearest to the exact landing, with its 95% interval; curve_sigmas (C,), for techniques trained at every level
        same_NAME (C, 3), that share at x0 + σ ε; draws, size; the last four with digits_ before. digits_one_seen
        (4, 3): as one_same, at the first noises of the pairs it was trained on; nan where it learns from none.

    Raises:
        ValueError: --dataset was given.
    """
    config.refuse_dataset("students", OWN)
    prepare(config, (), ("toy", "digits"))
    data = load("five-deltas")
    D = OptimalDenoiser(data)
    flow, students = FlowMap(D), {name: student(config, "toy", name) for name in TECHNIQUES}
    size, draws = (61, 300) if config.quick else (241, 4000)
    x = torch.linspace(-4, 4, size)
    sigmas = torch.logspace(np.log10(0.05), np.log10(10), size, dtype=torch.float64)
    queries, levels = x.repeat(size)[:, None], sigmas.repeat_interleave(size)
    jump_x = torch.linspace(-240, 240, 1201)
    arrays = {
        "sigmas": sigmas.numpy(),
        "x": x.numpy(),
        "flow": flow(queries, levels).view(size, size).numpy(),
        "student": evaluate(students["consistency"], queries, levels).view(size, size).numpy(),
        "borders": GaussianMixture(data.points, 0.0).separatrices(sigmas).numpy(),
        "jump_x": jump_x.numpy(),
        "jump_flow": flow(jump_x[:, None], 80.0).flatten().numpy(),
        "techniques": np.array(TECHNIQUES),
    }
    for name, model in students.items():
        arrays[f"jump_{name}"] = evaluate(model, jump_x[:, None], 80.0).flatten().numpy()
    arrays |= _curves(config, students, D, draws)
    digits = {name: student(config, "digits", name) for name in TECHNIQUES}
    D = OptimalDenoiser(dataset("digits"))
    curves = _curves(config, digits, D, 64 if config.quick else 512)
    curves["one_seen"] = np.stack([_seen(config, name, digits[name], D) for name in TECHNIQUES])
    return arrays | {f"digits_{name}": value for name, value in curves.items()}


def _seen(config: Config, technique: str, model: Preconditioned, D: OptimalDenoiser) -> np.ndarray:
    """The share of pairs from the student's training that it takes to their own end, with its interval."""
    pairs = pairs_seen(distillation(config, "digits", technique), D, 64 if config.quick else 512)
    if pairs is None:
        return np.full(3, np.nan)
    noises, ends = pairs
    return shares(D.nearest(evaluate(model, noises, 80.0)) == D.nearest(ends))


def _curves(
    config: Config, students: Mapping[str, Preconditioned], D: OptimalDenoiser, draws: int
) -> dict[str, np.ndarray]:
    """Students' jumps beside the flow map's from noisy data at every level, and from pure noise."""
    flow = FlowMap(D)
    curve = torch.logspace(np.log10(80), np.log10(0.1), 13, dtype=torch.float64)
    source = generator(config, 4)
    x0 = D.take(torch.randint(len(D), (draws,), generator=source))
    eps = torch.randn(x0.shape, generator=source)

    def same(name: str, noisy: torch.Tensor, sigma: float, index: torch.Tensor) -> np.ndarray:
        return shares(D.nearest(evaluate(students[name], noisy, sigma)) == index)

    found = {name: np.empty((len(curve), 3)) for name in _LEVELS}
    for i, sigma in enumerate(curve.tolist()):
        noisy = x0 + sigma * eps
        index = flow.land(noisy, sigma).index
        for name in _LEVELS:
            found[name][i] = same(name, noisy, sigma, index)
    index = flow.land(80 * eps, 80.0).index
    return {
        "curve_sigmas": curve.numpy(),
        "one_same": np.stack([same(name, 80 * eps, 80.0, index) for name in students]),
        **{f"same_{name}": found[name] for name in _LEVELS},
        "draws": np.array(draws),
        "size": np.array(len(D)),
    }


def draw(arrays: Mapping[str, np.ndarray]) -> Figure:
    """Put the arrays of `compute` on one page."""
    figure = Figure(figsize=(WIDTH, 13), layout="constrained")
    figure.suptitle("What do distilled networks learn of the flow map?", fontsize=TITLE_SIZE)
    top, middle, bottom = stacked(figure, 4.4, 4, 4.4)
    _draw_maps(top, arrays)
    staircase, one = middle.subplots(1, 2)
    _draw_staircase(staircase, arrays)
    _draw_one(one, arrays)
    panels = bottom.subplots(1, 2, sharey=True)
    for axes, prefix, name in zip(panels, ("", "digits_"), ("Five points", "Digits"), strict=True):
        _draw_levels(axes, arrays, prefix, name)
    panels[0].set_ylabel("share of noisy data on\nthe exact flow's point")
    note(
        bottom,
        "A student is a network that answers in one call where the exact flow from x ends: the flow map f(x, σ), whose "
        "output is a data point. It is right where its output is nearest to that point. Consistency and multi-step "
        "students are trained at every level of their grid, the other two for pure noise only, multi-step ones on "
        "points of the flow rather than noisy data. Open marks: the first pairs of noise and end that a student was "
        "trained on, which it does better than fresh noises where it learns by heart. "
        f"{int(arrays['draws']):,} draws of five points, {int(arrays['digits_draws']):,} of digits; bands and bars: "
        "95% intervals.",
    )
    return figure


def _draw_maps(figure: SubFigure, arrays: Mapping[str, np.ndarray]) -> None:
    axes = figure.subplots(1, 2, sharey=True)
    sigmas, mesh = arrays["sigmas"], None
    titles = ("Five points: the flow map f(x, σ), exact", "A student: consistency model, distilled from the optimum")
    for ax, name, title in zip(axes, ("flow", "student"), titles, strict=True):
        mesh = ax.pcolormesh(sigmas, arrays["x"], arrays[name].T, vmin=-2, vmax=2, shading="nearest", rasterized=True)
        for separatrix in arrays["borders"].T:
            ax.plot(sigmas, separatrix, color="w", linewidth=1)
        ax.set(xscale="log", xlim=(sigmas[-1], sigmas[0]), ylim=(-4, 4), xlabel="noise level σ, from noise to data →")
        ax.set_title(title, fontsize=11)
        plain_ticks(ax, (10, 5, 2, 1, 0.5, 0.2, 0.1))
    axes[0].set_ylabel("noisy point x")
    assert mesh is not None
    figure.colorbar(mesh, ax=list(axes), label="output: where x ends", pad=0.01, fraction=0.03)


def _draw_staircase(axes: Axes, arrays: Mapping[str, np.ndarray]) -> None:
    axes.plot(arrays["jump_x"], arrays["jump_flow"], color="k", linewidth=4, alpha=0.35, label="exact")
    for name in arrays["techniques"].tolist():
        axes.plot(arrays["jump_x"], arrays[f"jump_{name}"], color=COLORS[name], linewidth=1.2, label=name)
    axes.set(xlabel="pure noise x, at σ = 80", ylabel="output of one jump", ylim=(-2.6, 2.6))
    axes.set_title("Five points: one jump from noise, a staircase", fontsize=11)
    axes.legend(fontsize=SMALL, loc="upper left")
    axes.grid(alpha=0.3)


def _draw_one(axes: Axes, arrays: Mapping[str, np.ndarray]) -> None:
    """A row a student, a mark a data set."""
    names = arrays["techniques"].tolist()
    kinds = (
        ("one_same", "five points", "o", "k", "k"),
        ("digits_one_same", f"digits, N = {int(arrays['digits_size']):,}", "s", "tab:red", "tab:red"),
        ("digits_one_seen", "digits, pairs seen in training", "D", "tab:red", "w"),
    )
    for place, (column, label, marker, color, face) in enumerate(kinds):
        there = ~np.isnan(arrays[column][:, 0])
        if not there.any():
            continue
        same, low, high = arrays[column][there].T
        rows = (np.arange(len(names)) + 0.28 * (place - 1))[there]
        axes.hlines(rows, low, high, color="0.5", linewidth=2)
        axes.plot(same, rows, marker, color=color, markerfacecolor=face, markersize=6, label=label)
        for share, left, right, row in zip(same, low, high, rows, strict=True):
            # Beside the interval, on the side that has room.
            above = share > 0.5
            text = f"{100 * share:.2f}%" if 0.99 < share < 1 else f"{100 * share:.0f}%"
            style = {"va": "center", "ha": "right" if above else "left", "fontsize": SMALL}
            axes.text(left - 0.02 if above else right + 0.02, row, text, **style)
    axes.set(yticks=range(len(names)), yticklabels=names, ylim=(len(names) + 0.6, -0.6), xlim=(-0.04, 1.04))
    axes.set(xlabel="share of noises on the exact flow's point")
    axes.set_title("One jump from noise: how many end right", fontsize=11)
    axes.grid(axis="x", alpha=0.3)
    # Below the rows, wherever their marks are.
    axes.legend(fontsize=SMALL, loc="lower center", ncols=2, columnspacing=1)


def _draw_levels(axes: Axes, arrays: Mapping[str, np.ndarray], prefix: str, title: str) -> None:
    sigmas = arrays[f"{prefix}curve_sigmas"]
    for name in _LEVELS:
        banded(axes, sigmas, arrays[f"{prefix}same_{name}"], color=COLORS[name], label=name)
    axes.set(xscale="log", xlim=(sigmas[0], sigmas[-1]), ylim=(0, 1.03), xlabel="noise level σ, from noise to data →")
    axes.set_title(f"{title}: one jump from noisy data x0 + σ ε", fontsize=11)
    axes.legend(fontsize=SMALL, loc="lower right" if prefix else "lower left")
    log_ticks(axes, 0.1, 80)
    axes.grid(alpha=0.3)
