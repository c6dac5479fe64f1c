"""Distilled networks beside the distilled optimum, on five deltas and on digits.

Top, over (σ, x): the exact flow map, and a consistency model distilled from the optimum. Bottom left, one jump from the
highest noise for all four techniques; then, on both data sets, how many noisy points land where the flow map takes
them, and the distance from it, at every noise level."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from neural import Preconditioned
from neural.config import TECHNIQUES
from neural.measures import evaluate, landing_agreement
from optimal import FlowMap, OptimalDenoiser, load
from optimal.reference import GaussianMixture

from .common import generator, log_ticks, plain_ticks
from .config import Config
from .networks import dataset, prepare, student

__all__ = ["TITLE", "compute", "draw"]

TITLE = "Distilled networks beside the distilled optimum, on five points"

_LEVELS = ("consistency", "multistep")
"""Students that are trained at every level of the grid."""


def compute(config: Config) -> dict[str, np.ndarray]:
    """Everything that is drawn.

    Returns:
        sigmas (S,), x (X,), flow and student (S, X), borders (S, N − 1); jump_x (J,), jump_flow (J,) and jump_NAME (J,)
        at σ = 80 for every technique; curve_sigmas (C,), for techniques trained at every level same_NAME and
        distance_NAME (C,); one_same and one_distance (4,) of one jump from 80; the same with digits_ before; draws.

    Raises:
        ValueError: --dataset was given.
    """
    if config.dataset:
        raise ValueError("students shows students of the presets toy and digits; distil yours with python -m neural")
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
        "draws": np.array(draws),
        "techniques": np.array(TECHNIQUES),
    }
    for name, model in students.items():
        arrays[f"jump_{name}"] = evaluate(model, jump_x[:, None], 80.0).flatten().numpy()
    arrays |= _curves(config, students, D, draws)
    digits = {name: student(config, "digits", name) for name in TECHNIQUES}
    curves = _curves(config, digits, OptimalDenoiser(dataset("digits")), 64 if config.quick else 512)
    return arrays | {f"digits_{name}": value for name, value in curves.items()}


def _curves(
    config: Config, students: Mapping[str, Preconditioned], D: OptimalDenoiser, draws: int
) -> dict[str, np.ndarray]:
    """Students' jumps beside the flow map's from noisy data at every level, and from pure noise."""
    flow = FlowMap(D)
    curve = torch.logspace(np.log10(80), np.log10(0.1), 13, dtype=torch.float64)
    source = generator(config, 4)
    x0 = D.take(torch.randint(len(D), (draws,), generator=source))
    eps = torch.randn(x0.shape, generator=source)
    found = {name: np.empty((2, len(curve))) for name in _LEVELS}
    for i, sigma in enumerate(curve.tolist()):
        noisy = x0 + sigma * eps
        landing = flow.land(noisy, sigma)
        for name in _LEVELS:
            row = landing_agreement(students[name], noisy, sigma, landing.x, landing.index, D)
            found[name][:, i] = row["same"], row["distance"]
    landing = flow.land(80 * eps, 80.0)
    one = [landing_agreement(model, 80 * eps, 80.0, landing.x, landing.index, D) for model in students.values()]
    return {
        "curve_sigmas": curve.numpy(),
        "one_same": np.array([row["same"] for row in one]),
        "one_distance": np.array([row["distance"] for row in one]),
        **{f"same_{name}": found[name][0] for name in _LEVELS},
        **{f"distance_{name}": found[name][1] for name in _LEVELS},
    }


def draw(arrays: Mapping[str, np.ndarray]) -> Figure:
    """Put the arrays of `compute` on one page."""
    figure = Figure(figsize=(17, 10), layout="constrained")
    figure.suptitle("What do students learn of the flow map?", fontsize=15)
    axes = figure.subplot_mosaic("AAABBB;CCDDEE")
    sigmas = arrays["sigmas"]
    titles = ("The flow map f(x, σ), exact", "A consistency model, distilled from the optimum")
    mesh = None
    for ax, name, title in zip((axes["A"], axes["B"]), ("flow", "student"), titles, strict=True):
        mesh = ax.pcolormesh(sigmas, arrays["x"], arrays[name].T, vmin=-2, vmax=2, shading="nearest", rasterized=True)
        for separatrix in arrays["borders"].T:
            ax.plot(sigmas, separatrix, color="w", linewidth=1)
        ax.set(
            xscale="log", xlim=(sigmas[-1], sigmas[0]), ylim=(-4, 4), xlabel="noise level σ →", ylabel="noisy point x"
        )
        ax.set_title(title, fontsize=11)
        plain_ticks(ax, (10, 5, 2, 1, 0.5, 0.2, 0.1))
    assert mesh is not None
    figure.colorbar(mesh, ax=axes["A"], label="output", location="left", pad=0.02)
    jump = axes["C"]
    jump.plot(arrays["jump_x"], arrays["jump_flow"], color="k", linewidth=2.5, label="flow map, exact")
    for i, name in enumerate(arrays["techniques"]):
        same = 100 * float(arrays["one_same"][i])
        label = f"{name}: {same:.1f}% of noises to the same point"
        jump.plot(arrays["jump_x"], arrays[f"jump_{name}"], color=f"C{i}", linewidth=1.2, label=label)
    jump.set(xlabel="noise x at σ = 80", ylabel="output of one jump", ylim=(-3, 4.4))
    jump.set_title("One jump from noise: a staircase to be learnt", fontsize=11)
    jump.legend(fontsize=8, loc="upper left")
    _draw_curves(axes["D"], arrays, "", "Five deltas")
    _draw_curves(axes["E"], arrays, "digits_", "Digits")
    return figure


def _draw_curves(axes: Axes, arrays: Mapping[str, np.ndarray], prefix: str, title: str) -> None:
    twin = axes.twinx()
    techniques = arrays["techniques"].tolist()
    for i, name in enumerate(techniques):
        if name in _LEVELS:
            sigmas = arrays[f"{prefix}curve_sigmas"]
            axes.plot(sigmas, arrays[f"{prefix}same_{name}"], color=f"C{i}")
            twin.plot(sigmas, arrays[f"{prefix}distance_{name}"], color=f"C{i}", linestyle="--")
        # From pure noise, which the curve's first point nearly is.
        place = 80 * 1.15**i
        axes.plot(place, arrays[f"{prefix}one_same"][i], "o", color=f"C{i}", clip_on=False, label=name)
        twin.plot(place, arrays[f"{prefix}one_distance"][i], "x", color=f"C{i}", clip_on=False)
    axes.set(xscale="log", xlim=(160, 0.1), ylim=(0, 1.03), xlabel="noise level σ →")
    axes.set_ylabel("share on the flow map's point (solid; dots)")
    twin.set(ylim=(0, None), ylabel="r.m.s. distance from the flow map (dashed; crosses)")
    axes.set_title(f"{title}: noisy data x0 + σ ε (lines), pure noise (marks)", fontsize=11)
    axes.legend(fontsize=8, loc="center left", bbox_to_anchor=(0.12, 0.56))
    log_ticks(axes, 0.1, 80)
    axes.grid(alpha=0.3)
