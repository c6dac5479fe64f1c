"""Guidance: what D + w (D_c − D) does to the optimum, in the plane and on digits, beside a network.

Top, ten points on a ring, of which the five on the right are the class c: flow lines of the optimum of the class, of
the guided optimum, and of one guided within an interval of noise levels only; beside them, how often each point of the
class is reached. Below, digits of one class by the weight w, the optimum and the network `pretrained:digits-classes`,
with and without an interval: the share of the class's points that is reached, the total variation of the ends from
uniform, and the distance to the nearest digit of another class. At the foot, samples from the same noises. Bands are
95% intervals. For hard labels the distribution that guidance is meant to sample is the class itself, at any w > 1 too.

References:
    Ho, Salimans 2022, "Classifier-Free Diffusion Guidance". Kynkäänniemi et al. 2024, "Applying Guidance in a Limited
    Interval Improves Sample and Distribution Quality in Diffusion Models".
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from neural import class_landings, open_model
from optimal import Denoiser, OptimalDenoiser, guided, karras, load, log_linear, sample, trajectory
from optimal.intervals import share_interval

from .common import SMALL, TITLE_SIZE, WIDTH, banded, cell, ends, generator, note, provenance, stacked
from .config import Config

__all__ = ["OWN", "TITLE", "compute", "draw"]

TITLE = "Guidance of the optimum, and of a network: fewer points of the class are reached, farther from the others"
OWN = "digits and a network that knows their classes"
"""What is drawn of no other data."""

_NETWORK, _CLASS = "pretrained:digits-classes", 3
_TOY_WEIGHT, _TOY_INTERVAL, _TOY_TOP = 4.0, (0.05, 0.5), 20.0
_INTERVAL = (0.3, 2.0)
_WEIGHTS = (1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0)
_SHOWN = (1.0, 2.0, 4.0, 8.0)
_NOISES = 8
_GAP = 0.6
"""Between the samples of the optimum and of the network, in columns."""
_TOYS = (
    ("the class", {"color": "k"}),
    ("guided", {"color": "tab:red"}),
    ("in an interval", {"color": "tab:blue"}),
)
_WAYS: tuple[tuple[str, str, dict[str, Any]], ...] = (
    ("optimum", "optimum", {"color": "tab:red"}),
    ("optimum_within", "optimum, in an interval", {"color": "tab:blue"}),
    ("network", "network", {"color": "tab:red", "linestyle": "--"}),
    ("network_within", "network, in an interval", {"color": "tab:blue", "linestyle": "--"}),
)
_COLUMNS = (
    ("reached", "Points of the class that are reached", "share"),
    ("variation", "Ends against uniform over the class", "total variation"),
    ("away", "Distance to other classes", "to the nearest of their digits"),
)


def compute(config: Config) -> dict[str, np.ndarray]:
    """Everything that is drawn.

    Returns:
        toy_points (M, 2), toy_own (M,) bool, toy_angles (m,), toy_sigmas (S,), toy_paths (3, S, T, 2) x/√(1 + σ²) of
        the three ways, toy_index (3, T) the points next to their ends, toy_shares (3, m, 3), toy_draws; weights (W,);
        for each way WAY: WAY_reached, WAY_variation and WAY_away (W, 3), value and ends of the interval; uniform and
        uniform_reached (3,) and (): what uniform draws have; pictures (2, 4 weights, 8 noises, *event) of the optimum
        and the network; shown, interval, toy_weight, toy_interval, label, class_size, draws; what the data are.

    Raises:
        ValueError: --dataset was given.
    """
    config.refuse_dataset("guidance", OWN)
    return _toy(config) | _digits(config)


def _toy(config: Config) -> dict[str, np.ndarray]:
    points = load("ring", n=10).points.double()
    own = points[:, 0] > 0
    D, inside = OptimalDenoiser(points), OptimalDenoiser(points[own])
    ways = (
        inside,
        guided(inside, D, _TOY_WEIGHT),
        guided(inside, D, _TOY_WEIGHT, _TOY_INTERVAL),
    )
    sigmas = log_linear(100 if config.quick else 300, sigma_min=0.02, sigma_max=_TOY_TOP)
    source = generator(config, 1)
    start = _TOY_TOP * torch.randn(60, 2, generator=source, dtype=torch.float64)
    draws = 400 if config.quick else 4000
    many = _TOY_TOP * torch.randn(draws, 2, generator=source, dtype=torch.float64)
    angles = torch.atan2(points[own, 1], points[own, 0]).rad2deg()
    order = angles.argsort()
    paths, index, shares = [], [], []
    for way in ways:
        states = list(trajectory(way, start, sigmas, solver="heun"))
        scaled = [state.x / (1 + state.sigma**2) ** 0.5 for state in states[:-1]]
        paths.append(torch.stack(scaled).numpy())
        index.append(D.nearest(states[-1].x).numpy())
        reached = D.nearest(sample(way, many, karras(48, sigma_max=_TOY_TOP)))
        hits = own.nonzero()[order] == reached
        shares.append(ends(share_interval(hits)))
    return {
        "toy_points": points.numpy(),
        "toy_own": own.numpy(),
        "toy_angles": angles[order].numpy(),
        "toy_sigmas": sigmas[:-1].numpy(),
        "toy_paths": np.stack(paths),
        "toy_index": np.stack(index),
        "toy_shares": np.stack(shares),
        "toy_draws": np.array(draws),
        "toy_weight": np.array(_TOY_WEIGHT),
        "toy_interval": np.array(_TOY_INTERVAL),
    }


def _digits(config: Config) -> dict[str, np.ndarray]:
    data = load("digits")
    own = torch.from_numpy(np.array(data.labels == _CLASS))
    D, inside = OptimalDenoiser(data), OptimalDenoiser(data.points[own])
    network = open_model(_NETWORK, device="cpu")
    pairs: dict[str, tuple[Denoiser, Denoiser]] = {"optimum": (inside, D), "network": (network.given(_CLASS), network)}
    weights = (1.0, 2.0, 8.0) if config.quick else _WEIGHTS
    shown = [weight for weight in _SHOWN if weight in weights]
    arguments = {"sigmas": karras(24), "solver": "heun"}
    draws = 128 if config.quick else 1024
    arrays, pictures, found = {}, [], None
    for name, pair in pairs.items():
        for suffix, interval in (("", None), ("_within", _INTERVAL)):
            rows: dict[str, list[np.ndarray]] = {column: [] for column, *_ in _COLUMNS}
            for weight in weights:
                way = guided(*pair, weight, interval)
                found = class_landings(way, D, own, arguments, n=draws, seed=config.seed)
                for column, values in rows.items():
                    values.append(ends(found.columns[column]))
                if interval is None and weight in shown:
                    pictures.append(found.ends[:_NOISES].numpy())
            arrays |= {f"{name}{suffix}_{column}": np.stack(values) for column, values in rows.items()}
    assert found is not None
    return (
        provenance(data)
        | arrays
        | {
            "weights": np.array(weights),
            "uniform": ends(found.columns["uniform"]),
            "uniform_reached": np.array(_expected(found.class_size, draws)),
            "pictures": np.stack(pictures).reshape(2, len(shown), _NOISES, *data.event),
            "shown": np.array(shown),
            "interval": np.array(_INTERVAL),
            "label": np.array(_CLASS),
            "class_size": np.array(found.class_size),
            "draws": np.array(draws),
        }
    )


def _expected(size: int, draws: int) -> float:
    """The share of so many points that uniform draws reach on average."""
    return 1 - (1 - 1 / size) ** draws


def draw(arrays: Mapping[str, np.ndarray]) -> Figure:
    """Put the arrays of `compute` on one page."""
    figure = Figure(figsize=(WIDTH, 11.6), layout="constrained")
    figure.suptitle("What guidance does: D + w (D_c − D)", fontsize=TITLE_SIZE)
    top, middle, bottom = stacked(figure, 3.5, 3.9, 3.3)
    weight, (low, high) = float(arrays["toy_weight"]), arrays["toy_interval"]
    top.suptitle("Ten points on a ring, five of them (right, black) of the class: where noise goes", fontsize=11)
    axes = top.subplots(1, 4, width_ratios=(1, 1, 1, 1.1))
    titles = ("optimum of the class", f"guided, w = {weight:g}", f"w = {weight:g} for {low:g} < σ ≤ {high:g}")
    for i, title in enumerate(titles):
        axes[i].set_title(title, fontsize=10)
        _draw_lines(axes[i], arrays, i)
    _draw_shares(axes[3], arrays)
    label, size = int(arrays["label"]), int(arrays["class_size"])
    middle.suptitle(f"Digits: the {size} images of {label}, by the weight w", fontsize=11)
    panels = middle.subplots(1, 3)
    for ax, (name, title, unit) in zip(panels, _COLUMNS, strict=True):
        _draw_column(ax, arrays, name)
        ax.set_title(title, fontsize=10)
        ax.set(xlabel="weight w", ylabel=unit)
    lines = panels[0].lines[: len(_WAYS)]
    middle.legend(
        lines, [words for _, words, _ in _WAYS], loc="outside lower center", ncols=4, fontsize=SMALL, frameon=False
    )
    bottom.suptitle("Samples from the same noises: the optimum, left, and the network, right", fontsize=11)
    _draw_samples(bottom.subplots(), arrays)
    low, high = arrays["interval"]
    draws = int(arrays["draws"])
    note(
        figure,
        f"D is the optimum of all points, D_c of the class. Ring: x/√(1 + σ²) in fine steps of Heun's method, coloured "
        f"by the point next to the end; shares of {int(arrays['toy_draws']):,} noises. Digits: {draws:,} noises, 24 "
        f"steps of Heun's method from σ = 80; in an interval is {low:g} < σ ≤ {high:g}. An end counts for the nearest "
        f"of all {int(arrays['size']):,} digits. Grey: what as many uniform draws reach, and the total variation that "
        "95% of them have. Bands are 95% intervals over noises.",
    )
    return figure


def _draw_lines(axes: Axes, arrays: Mapping[str, np.ndarray], way: int) -> None:
    points, own = arrays["toy_points"], arrays["toy_own"]
    for path, index in zip(arrays["toy_paths"][way].transpose(1, 0, 2), arrays["toy_index"][way], strict=True):
        axes.plot(*path.T, color=f"C{index}", linewidth=0.7, alpha=0.8)
    axes.plot(*points[~own].T, "o", color="0.7", markersize=6, zorder=5)
    axes.plot(*points[own].T, "k*", markersize=9, zorder=5)
    edge = 1.05 * float(np.abs(arrays["toy_paths"]).max())
    axes.set(xlim=(-edge, edge), ylim=(-edge, edge), aspect="equal")
    axes.set_xticks((-2, 0, 2))
    axes.set_yticks((-2, 0, 2))


def _draw_shares(axes: Axes, arrays: Mapping[str, np.ndarray]) -> None:
    angles = arrays["toy_angles"]
    for (words, style), shares in zip(_TOYS, arrays["toy_shares"], strict=True):
        banded(axes, angles, shares, marker="o", markersize=3, label=words, **style)
    axes.set(xlabel="angle of the point, degrees", ylabel="share of noises", ylim=(0, None))
    axes.set_title("how often each is reached", fontsize=10)
    axes.set_xticks(np.round(angles))
    axes.legend(fontsize=SMALL, frameon=False)
    axes.grid(alpha=0.3)


def _draw_column(axes: Axes, arrays: Mapping[str, np.ndarray], name: str) -> None:
    weights = arrays["weights"]
    for way, _, style in _WAYS:
        banded(axes, weights, arrays[f"{way}_{name}"], marker="o", markersize=3, **style)
    if name == "reached":
        axes.axhline(float(arrays["uniform_reached"]), color="0.5", linewidth=1)
        axes.set_ylim(0, 1.05)
    elif name == "variation":
        axes.fill_between(weights, *arrays["uniform"][1:], color="0.5", alpha=0.3, linewidth=0)
        axes.set_ylim(0, None)
    axes.grid(alpha=0.3)


def _draw_samples(axes: Axes, arrays: Mapping[str, np.ndarray]) -> None:
    width = arrays["pictures"].shape[2]
    for block, pictures in enumerate(arrays["pictures"]):
        for row, images in enumerate(pictures):
            for column, image in enumerate(images):
                cell(axes, block * (width + _GAP) + column, -row, image)
    for row, weight in enumerate(arrays["shown"].tolist()):
        axes.text(-0.15, -row - 0.5, f"w = {weight:g}", ha="right", va="center", fontsize=SMALL)
    axes.set(xlim=(-1.4, 2 * width + _GAP + 0.1), ylim=(-len(arrays["shown"]) - 0.05, 0.05), aspect="equal")
    axes.axis("off")
