"""Solvers of inverse problems beside the exact posterior p(x0 | y): what each returns, and how far from it that is.

Of digits and of small emoji the upper rows are seen, or the means of blocks of pixels, with noise. Given that, the
probability of every data point is known, and so is E[x0 | x, y] at every noise level. Top, the observation, the most
probable images with their probabilities, and ends of DPS, ΠGDM and DiffPIR from the same noises. Below, for a few
observations of each kind, chosen to leave several images, and by the number of steps: the total variation between the
images that ends are nearest to and p(x0 | y), and the share of ends on images that are not among those that hold 99.9%
of it. The exact E[x0 | x, y] in the same sampler, and as many exact draws of p(x0 | y), say what is due to the sampler
and to counting. Bands are 95% intervals over noises.

References:
    Chung et al. 2023, "Diffusion Posterior Sampling for General Noisy Inverse Problems". Song et al. 2023,
    "Pseudoinverse-Guided Diffusion Models for Inverse Problems". Zhu et al. 2023, "Denoising Diffusion Models for
    Plug-and-Play Image Restoration".
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from matplotlib.patches import Rectangle
from torch import Tensor

from optimal import Dataset, Denoiser, OptimalDenoiser, karras, load, sample
from optimal.conditional import diffpir, dps, pigdm
from optimal.intervals import influence_interval, share_interval
from optimal.measurement import GivenMeasurement, Operator
from optimal.span import landed

from .common import SMALL, TITLE_SIZE, WIDTH, banded, cell, ends, generator, note, plain_ticks, provenance, stacked
from .config import Config

__all__ = ["OWN", "TITLE", "compute", "distances", "draw", "possible"]

TITLE = "Solvers of inverse problems beside the exact posterior: which images they end on, by the number of steps"
OWN = "observations made for digits and emoji"
"""What is drawn of no other data."""

_STEPS, _QUICK = (4, 8, 16, 32, 64), (4, 8)
_DRAWS = {"digits": 48, "emoji": 24}
_SOURCES = {"digits": (132, 264, 836, 1144), "emoji": (0, 780, 1380, 1860)}
"""Points that are observed, by place in the data: they leave several images."""
_LIKELY, _ENDS = 5, 4
_UNSEEN = (1.0, 0.5, 0.5)
"""A colour in [−1, 1] that data do not have: pink."""
_HELD = 0.999
"""Of p(x0 | y), by the images that y leaves possible."""
_REPEATS = 400
"""Batches of exact draws, for what counting does."""
_SOLVERS: tuple[tuple[str, str, Callable[..., Denoiser]], ...] = (
    ("dps", "DPS", dps),
    ("pigdm", "ΠGDM", pigdm),
    ("diffpir", "DiffPIR", diffpir),
)
_WAYS: tuple[tuple[str, str, dict[str, Any]], ...] = (
    ("exact", "exact E[x0 | x, y]", {"color": "k"}),
    ("dps", "DPS", {"color": "tab:blue"}),
    ("pigdm", "ΠGDM", {"color": "tab:orange"}),
    ("diffpir", "DiffPIR", {"color": "tab:red"}),
)


@dataclass(frozen=True)
class _Problem:
    """One kind of observation of one data set.

    Attributes:
        name: for its axes.
        operator: A.
        noise: s.
        shown: (A x0 + η) as an image, nan where nothing is seen.
    """

    name: str
    operator: Operator
    noise: float
    shown: Callable[[Tensor], Tensor]


def compute(config: Config) -> dict[str, np.ndarray]:
    """Everything that is drawn.

    Returns:
        names (P,), noises (P,), steps (S,); for every problem i: i_seen (*event) the first observation, nan where
        nothing is seen, i_likely (5, *event) its most probable images and i_chances (5,) their probabilities, i_ends
        (3, 4, *event) of the three solvers from the same noises and i_possible (3, 4) whether y leaves them possible,
        i_WAY_variation, i_WAY_excluded and i_WAY_none (S, 3), value and ends of the interval, of the exact optimum and
        the three solvers: the total variation, and the shares of ends on images that y excludes and on no image;
        i_counting (3,) the total variation of as many exact draws, i_effective (K,) the effective number of images of
        each observation, i_draws noises of each; what the data are, those of emoji as 1_dataset and so on.

    Raises:
        ValueError: --dataset was given.
    """
    config.refuse_dataset("measurements", OWN)
    steps = _QUICK if config.quick else _STEPS
    data = {"digits": load("digits"), "emoji": load("emoji", size=16)}
    arrays: dict[str, np.ndarray] = {"steps": np.array(steps)}
    arrays |= provenance(data["digits"]) | {f"1_{key}": value for key, value in provenance(data["emoji"]).items()}
    names, noises = [], []
    for kind, own in data.items():
        for problem in _problems(own):
            found = _measured(config, own, kind, problem, steps, len(names))
            arrays |= {f"{len(names)}_{key}": value for key, value in found.items()}
            names.append(f"{kind}: {problem.name}")
            noises.append(problem.noise)
    return arrays | {"names": np.array(names), "noises": np.array(noises)}


def _problems(data: Dataset) -> list[_Problem]:
    height = data.event[1]
    seen, side = 3 * height // 8, height // 2
    mask = torch.zeros(data.event, dtype=torch.bool)
    mask[:, :seen] = True
    return [
        _Problem(f"upper {seen} of {height} rows", mask, 0.5, lambda y: torch.where(mask, y, torch.nan)),
        _Problem(
            f"means of {side}×{side} pixels",
            torch.nn.AvgPool2d(side),
            0.05,
            lambda y: y.repeat_interleave(side, -1).repeat_interleave(side, -2),
        ),
    ]


def _measured(
    config: Config, data: Dataset, kind: str, problem: _Problem, steps: tuple[int, ...], part: int
) -> dict[str, np.ndarray]:
    D, source = OptimalDenoiser(data), generator(config, part)
    draws, clean = 8 if config.quick else _DRAWS[kind], D.take(torch.tensor(_SOURCES[kind])).double()
    measure = (lambda x: x) if isinstance(problem.operator, Tensor) else problem.operator
    y = measure(clean)
    y = y + problem.noise * torch.randn(y.shape, generator=source, dtype=torch.float64)
    exact = [D.measured(problem.operator, one, problem.noise) for one in y]
    shares = torch.stack([_shares(D, M) for M in exact])
    allowed = possible(shares)
    start = 80 * torch.randn(len(y) * draws, *data.event, generator=source)
    rows = y.repeat_interleave(draws, 0)
    solvers = {
        name: make(D, data.event, problem.operator, rows, problem.noise, rows=True) for name, _, make in _SOLVERS
    }
    found: dict[str, list[np.ndarray]] = {}
    pictures = []
    for count in steps:
        arguments = {"sigmas": karras(count), "solver": "euler"}
        reached = [sample(M, part, **arguments) for M, part in zip(exact, start.split(draws), strict=True)]
        last = {"exact": torch.cat(reached)} | {name: sample(way, start, **arguments) for name, way in solvers.items()}
        for name, there in last.items():
            index = D.first_copies()[D.nearest(there)].reshape(len(y), draws)
            found.setdefault(f"{name}_variation", []).append(_variation(index, shares))
            excluded = ~allowed.gather(1, index)
            found.setdefault(f"{name}_excluded", []).append(ends(share_interval(excluded.flatten())))
            found.setdefault(f"{name}_none", []).append(ends(share_interval(landed(D, there) < 0)))
        pictures = [last[name][:_ENDS] for name, *_ in _SOLVERS]
    likely = shares[0].topk(_LIKELY)
    return {key: np.stack(values) for key, values in found.items()} | {
        "seen": problem.shown(y[0]).numpy(),
        "likely": D.take(likely.indices).numpy(),
        "chances": likely.values.numpy(),
        "ends": torch.stack(pictures).numpy(),
        "possible": torch.stack([allowed[0, D.first_copies()[D.nearest(part)]] for part in pictures]).numpy(),
        "counting": _counting(shares, draws, source),
        "effective": torch.special.entr(shares).sum(1).exp().numpy(),
        "draws": np.array(draws),
    }


def _shares(D: OptimalDenoiser, M: GivenMeasurement) -> Tensor:
    """p(x0 = y_j | y), (N,), copies of a point counted as the first of them."""
    shares = torch.zeros(len(D), dtype=torch.float64)
    return shares.index_add(0, D.first_copies(), M.log_weights.exp())


def possible(shares: Tensor) -> Tensor:
    """The fewest points that hold 99.9% of each row, (K, N) bool."""
    ordered = shares.sort(1, descending=True)
    before = ordered.values.cumsum(1) - ordered.values
    return torch.zeros_like(shares, dtype=torch.bool).scatter(1, ordered.indices, before < _HELD)


def distances(index: Tensor, shares: Tensor) -> Tensor:
    """Total variation of draws (K, n) from shares (K, N), (K,)."""
    counts = torch.zeros_like(shares).scatter_add(1, index, torch.ones(index.shape, dtype=shares.dtype))
    return (counts / index.shape[1] - shares).abs().sum(1) / 2


def _variation(index: Tensor, shares: Tensor) -> np.ndarray:
    """Mean over observations of the total variation, (3,): value, and its interval over noises by the jackknife."""
    n = index.shape[1]
    value = distances(index, shares)
    left = torch.stack([distances(index[:, [*range(i), *range(i + 1, n)]], shares) for i in range(n)], 1)
    influence = (n - 1) * (left.mean(1, keepdim=True) - left)
    return ends(influence_interval(value.mean(), influence.flatten()).within(0, 1))


def _counting(shares: Tensor, draws: int, source: torch.Generator) -> np.ndarray:
    """What as many exact draws of p(x0 | y) have, (3,): the mean, and the range of 95% of them."""
    many = [torch.multinomial(shares, draws, replacement=True, generator=source) for _ in range(_REPEATS)]
    values = torch.stack([distances(index, shares).mean() for index in many])
    return np.array([float(values.mean()), *np.quantile(values.numpy(), (0.025, 0.975))])


def draw(arrays: Mapping[str, np.ndarray]) -> Figure:
    """Put the arrays of `compute` on one page."""
    count = len(arrays["names"])
    figure = Figure(figsize=(WIDTH, 9.8), layout="constrained")
    figure.suptitle("Given y = A x0 + η: images that are possible, and those that solvers find", fontsize=TITLE_SIZE)
    top, bottom = stacked(figure, 3.3, 5.0)
    _draw_pictures(top.subplots(), arrays)
    bottom.suptitle("How far the ends are from p(x0 | y), by the number of steps", fontsize=11)
    _draw_curves(bottom, arrays)
    effective = "; ".join(
        f"{name}, {', '.join(f'{value:.0f}' for value in arrays[f'{i}_effective'])}"
        for i, name in enumerate(arrays["names"].tolist())
    )
    noises = arrays["noises"].tolist()
    none = max(arrays[f"{i}_{way}_none"][:, 0].max() for i in range(count) for way, *_ in _WAYS)
    nowhere = "all ends are images of the data" if none == 0 else f"up to {100 * none:.0f}% are no image of the data"
    note(
        figure,
        f"Noise of standard deviation {noises[0]:g} (rows) and {noises[1]:g} (means), of pixels in [−1, 1]; pink is "
        f"not seen. Frames: green, an image that y leaves possible, of those that hold {100 * _HELD:.1f}% of "
        f"p(x0 | y); red, one that it excludes. Euler's method (DDIM) from σ = 80; curves are means over "
        f"{len(arrays['0_effective'])} observations that leave several images, {int(arrays['0_draws'])} noises each of "
        f"the {int(arrays['size']):,} digits and {int(arrays[f'{count - 1}_draws'])} of the {int(arrays['1_size']):,} "
        f"emoji at 16×16. An end counts for the nearest image; {nowhere}. Grey: the total variation that as many exact "
        "draws of p(x0 | y) have, for 95% of them. Bands are 95% intervals over noises. Effective numbers of images "
        f"given y: {effective}.",
    )
    return figure


def _draw_pictures(axes: Axes, arrays: Mapping[str, np.ndarray]) -> None:
    names = arrays["names"].tolist()
    lefts = [1.5 + _LIKELY + 0.5 + block * (_ENDS + 0.4) for block in range(len(_SOLVERS))]
    high = 1.35
    for i, name in enumerate(names):
        top = -i * high
        axes.text(
            -0.1, top - 0.5, name.replace(": ", ":\n").replace(" of ", "\nof "), ha="right", va="center", fontsize=SMALL
        )
        cell(axes, 0, top, _with_holes(arrays[f"{i}_seen"]))
        for j, (image, chance) in enumerate(zip(arrays[f"{i}_likely"], arrays[f"{i}_chances"], strict=True)):
            cell(axes, 1.5 + j, top, image)
            axes.text(2 + j, top - 1.0, f"{100 * chance:.0f}%", ha="center", va="top", fontsize=SMALL)
        for left, images, kept in zip(lefts, arrays[f"{i}_ends"], arrays[f"{i}_possible"], strict=True):
            for j, (image, known) in enumerate(zip(images, kept.tolist(), strict=True)):
                cell(axes, left + j, top, image)
                colour = "tab:green" if known else "tab:red"
                frame = Rectangle(
                    (left + j + 0.02, top - 0.98), 0.96, 0.96, fill=False, edgecolor=colour, linewidth=1.2
                )
                axes.add_patch(frame)
    titles = [(0.5, "y"), (1.5 + _LIKELY / 2, "most probable images given y")]
    titles += [(left + _ENDS / 2, words) for left, (_, words, _) in zip(lefts, _SOLVERS, strict=True)]
    for at, words in titles:
        axes.text(at, 0.12, words, ha="center", va="bottom", fontsize=10)
    axes.set(xlim=(-2.0, lefts[-1] + _ENDS + 0.1), ylim=(-len(names) * high, 0.6), aspect="equal")
    axes.axis("off")


def _with_holes(image: np.ndarray) -> np.ndarray:
    """In colour, (3, H, W), what is not seen in one of its own."""
    seen, colour = np.broadcast_to(image, (3, *image.shape[1:])), np.array(_UNSEEN)[:, None, None]
    return np.where(np.isnan(seen), colour, seen)


def _draw_curves(page: SubFigure, arrays: Mapping[str, np.ndarray]) -> None:
    steps, names = arrays["steps"], arrays["names"].tolist()
    axes = page.subplots(2, len(names), sharex=True, sharey=True)
    for i, name in enumerate(names):
        for row, column in enumerate(("variation", "excluded")):
            ax = axes[row, i]
            for way, _, style in _WAYS:
                banded(ax, steps, arrays[f"{i}_{way}_{column}"], marker="o", markersize=3, **style)
            ax.grid(alpha=0.3)
        low, high = arrays[f"{i}_counting"][1:]
        axes[0, i].fill_between(steps, low, high, color="0.5", alpha=0.3, linewidth=0)
        axes[0, i].set_title(name, fontsize=10)
        axes[1, i].set(xlabel="steps", xscale="log", ylim=(-0.03, 1.05))
        plain_ticks(axes[1, i], tuple(steps.tolist()))
    axes[0, 0].set_ylabel("total variation")
    axes[1, 0].set_ylabel("ends that y excludes")
    page.legend(
        axes[0, 0].lines[: len(_WAYS)],
        [words for _, words, _ in _WAYS],
        loc="outside lower center",
        ncols=4,
        fontsize=SMALL,
        frameon=False,
    )
