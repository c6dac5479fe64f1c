"""A network against the optimum: as a denoiser, as a flow map, and as a sampler from the same noises.

At x = x0 + σ ε, with D* the optimum, F the network and ȳ the mean of the data. Published "agreement" between networks
and optima means four different things; here each has its name, and is a coefficient of all draws pooled but for cosine
(`neural.measure` has them as published, means or medians of coefficients of single draws, with intervals):

    gap                 E‖F − D*‖²: what a perfect training would still gain
    gap_share           gap / E‖D* − ȳ‖²: 0 for the optimum, 1 for a network that always answers ȳ
    excess_risk         E‖F − x0‖² − MMSE, MMSE = E tr Cov[x0 | x]. Equal to the gap in expectation, for any F, since
                        F − D* is a function of x and x0 − D* has mean 0 given x; it needs no D* but its MMSE
    explained_variance  1 − E‖F − D*‖²/E‖F‖², normalised by the network (after Wang, Vastola 2024)
    r_square            1 − E‖F − D*‖²/E‖D* − E D*‖², the coefficient of determination
    pearson             correlation of all values of F and D*, each about its mean; pearson_square its square
    cosine              ⟨F, D*⟩/(‖F‖ ‖D*‖), the mean over draws

All lengths are in units of the data, summed over the event, not divided by its size.
"""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from optimal import OptimalDenoiser
from optimal.denoiser import Denoiser
from optimal.draws import draw_pairs
from optimal.numbers import require_whole
from optimal.query import Levels, level_list
from optimal.schedule import grid
from optimal.shown import in_short
from optimal.storage import replacing

from .model import Model
from .sampled import MEMORISED, coverage_interval, sample_from
from .sides import network_of, require_optimum
from .transport import transport

__all__ = [
    "Agreement",
    "agreement",
    "compare",
    "coverage",
    "landing_agreement",
    "memorised",
    "save_table",
    "wasserstein",
]

_AT_ONCE = 4096
_VALUES = 2**22
"""Values of x that a denoiser is asked for at once: 341 images of 64x64 in colour."""


@dataclass(frozen=True)
class Agreement:
    """A denoiser beside the optimum at each noise level; all (S,) float64, defined in the module.

    Attributes:
        sigmas: noise levels.
        gap, gap_error: and its standard error.
        gap_share: gap / E‖D* − ȳ‖².
        excess_risk, excess_error: and its standard error.
        mmse: E tr Cov[x0 | x].
        identity: excess_risk − gap over the standard error of their difference, draw by draw: of size 1 for any F.
        explained_variance, r_square, pearson, pearson_square, cosine: see the module.
        draws: pairs (x0, ε).
    """

    sigmas: Tensor
    gap: Tensor
    gap_error: Tensor
    gap_share: Tensor
    excess_risk: Tensor
    excess_error: Tensor
    mmse: Tensor
    identity: Tensor
    explained_variance: Tensor
    r_square: Tensor
    pearson: Tensor
    pearson_square: Tensor
    cosine: Tensor
    draws: int

    __repr__ = in_short


def agreement(
    F: Denoiser,
    D: OptimalDenoiser,
    sigmas: Levels,
    *,
    draws: int = 1024,
    generator: torch.Generator | None = None,
    progress: bool = False,
) -> Agreement:
    """F against D at x = x0 + σ ε, the same (x0, ε) at every σ.

    Args:
        F: any denoiser.
        D: the optimum of the data.
        sigmas: (S,) noise levels, > 0.
        draws: pairs (x0, ε).
        generator: source of randomness; without one, a fresh generator with a fixed seed.
        progress: whether a progress bar is drawn on stderr.

    Raises:
        ValueError: draws < 2; no noise levels; F's answer of another shape.

    References:
        Wang, Vastola 2024, "The Unreasonable Effectiveness of Gaussian Score Approximation for Diffusion Models and its
        Applications" (explained variance).
    """
    require_optimum(D)
    F = network_of(F)
    draws = require_whole("draws", draws, 2)
    levels = level_list(sigmas)
    x0, eps = draw_pairs(D, None, draws, generator)
    centre = D.mean.flatten()
    columns: dict[str, list[Tensor]] = {}
    for sigma in tqdm(levels.tolist(), desc="agreement", unit="level", leave=False, disable=not progress):
        x = x0 + sigma * eps
        post = D.posterior(x, sigma)
        answer = evaluate(F, x, sigma)
        f, d, clean = (part.double().flatten(1) for part in (answer, post.mean, x0))
        gap = (f - d).square().sum(1)
        excess = (f - clean).square().sum(1) - post.variance.double()
        spread = (d - centre).square().sum(1).mean()
        difference = excess - gap
        tiny = torch.finfo(torch.float64).tiny
        correlation = _pearson(f, d)
        row = {
            "gap": gap.mean(),
            "gap_error": gap.std() / math.sqrt(draws),
            "gap_share": gap.mean() / spread.clamp_min(tiny),
            "excess_risk": excess.mean(),
            "excess_error": excess.std() / math.sqrt(draws),
            "mmse": post.variance.double().mean(),
            "identity": difference.mean() / (difference.std() / math.sqrt(draws)).clamp_min(tiny),
            "explained_variance": 1 - gap.mean() / f.square().sum(1).mean().clamp_min(tiny),
            "r_square": 1 - gap.mean() / (d - d.mean(0)).square().sum(1).mean().clamp_min(tiny),
            "pearson": correlation,
            "pearson_square": correlation.square(),
            "cosine": torch.nn.functional.cosine_similarity(f, d).mean(),
        }
        for name, value in row.items():
            columns.setdefault(name, []).append(value)
    return Agreement(levels, **{name: torch.stack(values) for name, values in columns.items()}, draws=draws)


def landing_agreement(
    student: Denoiser, x: Tensor, sigma: float, ends: Tensor, index: Tensor, D: OptimalDenoiser
) -> dict[str, float]:
    """A student's jump beside the flow map's.

    Args:
        student: a consistency function or any one-jump student.
        x: (B, *event) at sigma.
        ends, index: where the flow map takes x, and the data point.
        D: the optimum of the data.

    Returns:
        distance: root mean square ‖student(x) − end‖; same: share whose output is nearest to that data point.
    """
    answer = evaluate(student, x, sigma)
    distance = (answer.double() - ends.double()).flatten(1).square().sum(1).mean().sqrt()
    return {"distance": float(distance), "same": float((D.nearest(answer) == index).double().mean())}


def compare(
    methods: Mapping[str, tuple[Callable[..., Tensor], dict[str, Any]]],
    D: OptimalDenoiser,
    x: Tensor,
    *,
    reference: Tensor,
    projections: int = 256,
    progress: bool = False,
) -> list[dict[str, Any]]:
    """Samples of several methods from the same noises, one row each.

    Args:
        methods: name -> (denoiser, arguments of `optimal.sample`: sigmas, solver, …).
        D: the optimum of the data.
        x: (B, *event), the noises, at the first level of every method's grid.
        reference: (B, *event) the end points that they are held to: of the exact flow, say.
        projections: directions of the sliced Wasserstein distance.
        progress: whether a progress bar is drawn on stderr.

    Returns:
        rows of: method; nfe; distance, root mean square from the reference; same, share nearest to the reference's data
        point; wasserstein, 2-Wasserstein distance to the data (sliced for events of more than two values); memorised,
        share with nearest/second-nearest distance < 1/3; coverage, share of the data points that are nearest to some
        sample, over what as many perfect draws would reach on average.

    Raises:
        ValueError: no noises; a reference of another shape; methods with other first levels than the first
            one's: `neural.measure.samplers` scales the noises for each.
    """
    require_optimum(D)
    if len(x) == 0 or x.shape != reference.shape:
        raise ValueError(
            f"x and reference must be as many points, at least one, got {tuple(x.shape)} and {tuple(reference.shape)}"
        )
    levels = {name: float(grid(arguments["sigmas"])[0]) for name, (_, arguments) in methods.items()}
    first = next(iter(levels.values()), 0.0)
    for name, level in levels.items():
        if not math.isclose(level, first, rel_tol=1e-6):
            raise ValueError(
                f"x is at one noise level, and {name} starts at {level:g}, {next(iter(levels))} at {first:g}"
            )
    rows = []
    home = D.nearest(reference)
    for name, (denoiser, arguments) in tqdm(methods.items(), desc="compare", leave=False, disable=not progress):
        sampled = sample_from(name, denoiser, arguments, D, x, reference, home)
        found = sampled.columns(D, projections=projections)
        columns = ("distance", "same", "wasserstein", "memorised", "coverage")
        row = {"method": name, "nfe": sampled.nfe} | {column: float(found[column].value) for column in columns}
        rows.append(row)
    return rows


def memorised(x: Tensor, D: OptimalDenoiser) -> Tensor:
    """Whether each x is a copy of a data point: distance to the nearest < ⅓ of that to the second nearest, (B,) bool.

    Copies of a point count as one. All are memorised where there is one distinct point.

    References:
        Yoon, Choi, Kwon, Ryu 2023, "Diffusion Probabilistic Models Generalize when They Fail to Memorize"; Gu, Du,
        Pang, Li, Lin, Wang 2023, "On Memorization in Diffusion Models".
    """
    first, second = D.two_nearest(x)
    return first < MEMORISED * second


def coverage(x: Tensor, D: OptimalDenoiser) -> float:
    """Share of the distinct data points nearest to some x, over what as many uniform draws expect; about 1."""
    return float(coverage_interval(D.nearest(x), D).value)


def wasserstein(x: Tensor, D: OptimalDenoiser, *, projections: int = 256) -> float:
    """2-Wasserstein distance between samples and the data: exact for one or two values, else sliced.

    Sliced: the root mean square over random directions of the distance between the projections, times √dim, so that a
    shift by v counts about ‖v‖ in either case. At most 4,096 data points, spread evenly, stand for the data in the
    plane and above. See `neural.transport`.
    """
    return float(transport(x, D, projections=projections)[0].sqrt())


def evaluate(F: Denoiser, x: Tensor, sigma: float | Tensor) -> Tensor:
    """F(x, sigma) without gradients; what does not know its own batch is asked a few thousand rows of points at a time,
    fewer of images."""
    levels = torch.as_tensor(sigma, dtype=torch.float64)
    knows = isinstance(F, Model | OptimalDenoiser)
    size = max(1, len(x)) if knows else max(1, min(_AT_ONCE, _VALUES // max(x[:1].numel(), 1)))
    with torch.no_grad():
        parts = [
            F(x[start : start + size], levels if levels.ndim == 0 else levels[start : start + size])
            for start in range(0, len(x), size)
        ]
    out = torch.cat(parts) if parts else x.clone()
    if out.shape != x.shape:
        raise ValueError(f"a denoiser must return the shape of x, {tuple(x.shape)}, got {tuple(out.shape)}")
    return out


def save_table(rows: Sequence[Mapping[str, Any]], path: str | Path, about: Mapping[str, Any]) -> None:
    """Write path.csv, and path.json with what it is about; in the latter, what is no finite number is null.

    Raises:
        ValueError: the folder cannot be written.
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path.with_name(f"{path.name}.csv")) as temporary, open(temporary, "w", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
        with replacing(path.with_name(f"{path.name}.json")) as temporary:
            finite = [{name: _finite(value) for name, value in row.items()} for row in rows]
            temporary.write_text(json.dumps(dict(about) | {"rows": finite}, indent=2, allow_nan=False) + "\n")
    except OSError as error:
        raise ValueError(f"the table could not be written to {path}: {error.strerror or error}") from error


def _finite(value: Any) -> Any:
    """JSON has no nan and no infinity."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _pearson(a: Tensor, b: Tensor) -> Tensor:
    stacked = torch.stack([a.flatten(), b.flatten()])
    value = torch.corrcoef(stacked)[0, 1]
    # What is constant correlates with nothing; of what is no number nothing is known.
    return torch.nan_to_num(value) if torch.isfinite(stacked).all() else torch.full_like(value, torch.nan)
