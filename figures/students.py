"""Distilled networks beside the distilled optimum, on five deltas.

Top, over (σ, x): the exact flow map, and a consistency model distilled from the optimum. Bottom left, one jump from the
highest noise for all four techniques; bottom right, how many noises land where the flow map takes them, and the
distance from it, at every noise level."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from matplotlib.figure import Figure

from neural.compare import evaluate
from optimal import FlowMap, OptimalDenoiser, load
from optimal.reference import GaussianMixture

from .common import generator, log_ticks, plain_ticks
from .config import Config
from .networks import STUDENTS, student

__all__ = ["TITLE", "compute", "draw"]

TITLE = "Distilled networks beside the distilled optimum, on five points"

_LEVELS = ("consistency", "multistep")
"""Students that are trained at every level of the grid."""


def compute(config: Config) -> dict[str, np.ndarray]:
    """Everything that is drawn.

    Returns:
        sigmas (S,), x (X,), flow and student (S, X), borders (S, N − 1); jump_x (J,), jump_flow (J,) and jump_NAME (J,)
        at σ = 80 for every technique; curve_sigmas (C,), for techniques trained at every level same_NAME and
        distance_NAME (C,); one_same and one_distance (4,) of one jump from 80, draws.

    Raises:
        ValueError: --dataset was given.
    """
    if config.dataset:
        raise ValueError("students shows the students of the preset toy; distil yours with python -m neural")
    data = load("five-deltas")
    D = OptimalDenoiser(data)
    flow, students = FlowMap(D), {name: student(config, "toy", name) for name in STUDENTS}
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
        "techniques": np.array(STUDENTS),
    }
    for name, model in students.items():
        arrays[f"jump_{name}"] = evaluate(model, jump_x[:, None], 80.0).flatten().numpy()
    curve = torch.logspace(np.log10(80), np.log10(0.1), 13, dtype=torch.float64)
    arrays["curve_sigmas"] = curve.numpy()
    results = {name: np.empty((2, len(curve))) for name in _LEVELS}
    source = generator(config, 4)
    x0, eps = D.take(torch.randint(len(D), (draws,), generator=source)), torch.randn(draws, 1, generator=source)
    for i, sigma in enumerate(curve.tolist()):
        noisy = x0 + sigma * eps
        landing = flow.land(noisy, sigma)
        for name in _LEVELS:
            answer = evaluate(students[name], noisy, sigma)
            results[name][0, i] = float((D.nearest(answer) == landing.index).double().mean())
            results[name][1, i] = float((answer - landing.x).square().mean().sqrt())
    for name in _LEVELS:
        arrays[f"same_{name}"], arrays[f"distance_{name}"] = results[name]
    noises = 80 * eps
    landing = flow.land(noises, 80.0)
    answers = [evaluate(model, noises, 80.0) for model in students.values()]
    arrays["one_same"] = np.array([float((D.nearest(a) == landing.index).double().mean()) for a in answers])
    arrays["one_distance"] = np.array([float((a - landing.x).square().mean().sqrt()) for a in answers])
    return arrays


def draw(arrays: Mapping[str, np.ndarray]) -> Figure:
    """Put the arrays of `compute` on one page."""
    figure = Figure(figsize=(14, 10), layout="constrained")
    figure.suptitle("What do students learn of the flow map?", fontsize=15)
    axes = figure.subplots(2, 2)
    sigmas = arrays["sigmas"]
    titles = ("The flow map f(x, σ), exact", "A consistency model, distilled from the optimum")
    mesh = None
    for ax, name, title in zip(axes[0], ("flow", "student"), titles, strict=True):
        mesh = ax.pcolormesh(sigmas, arrays["x"], arrays[name].T, vmin=-2, vmax=2, shading="nearest", rasterized=True)
        for separatrix in arrays["borders"].T:
            ax.plot(sigmas, separatrix, color="w", linewidth=1)
        ax.set(
            xscale="log", xlim=(sigmas[-1], sigmas[0]), ylim=(-4, 4), xlabel="noise level σ →", ylabel="noisy point x"
        )
        ax.set_title(title, fontsize=11)
        plain_ticks(ax, (10, 5, 2, 1, 0.5, 0.2, 0.1))
    assert mesh is not None
    figure.colorbar(mesh, ax=axes[0, 0], label="output", location="left", pad=0.02)
    jump, curve = axes[1]
    jump.plot(arrays["jump_x"], arrays["jump_flow"], color="k", linewidth=2.5, label="flow map, exact")
    for i, name in enumerate(arrays["techniques"]):
        same = 100 * float(arrays["one_same"][i])
        label = f"{name}: {same:.1f}% of noises to the same point"
        jump.plot(arrays["jump_x"], arrays[f"jump_{name}"], color=f"C{i}", linewidth=1.2, label=label)
    jump.set(xlabel="noise x at σ = 80", ylabel="output of one jump", ylim=(-3, 4.4))
    jump.set_title("One jump from noise: a staircase to be learnt", fontsize=11)
    jump.legend(fontsize=8, loc="upper left")
    twin = curve.twinx()
    for name in _LEVELS:
        color = f"C{arrays['techniques'].tolist().index(name)}"
        curve.plot(arrays["curve_sigmas"], arrays[f"same_{name}"], color=color, label=name)
        twin.plot(arrays["curve_sigmas"], arrays[f"distance_{name}"], color=color, linestyle="--")
    curve.set(xscale="log", xlim=(80, 0.1), ylim=(0, 1.03), xlabel="noise level σ →", ylabel="share (solid)")
    twin.set(ylim=(0, None), ylabel="r.m.s. distance from the flow map (dashed)")
    curve.set_title("On noisy data x0 + σ ε: what it was trained on, or not", fontsize=11)
    curve.legend(fontsize=8, loc="lower left")
    log_ticks(curve, 0.1, 80)
    curve.grid(alpha=0.3)
    return figure
