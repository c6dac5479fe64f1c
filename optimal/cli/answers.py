"""What `python -m optimal` asks: one function a question, each a dictionary of plain numbers.

Every function takes `say`, which is told what will take long; progress bars are drawn on stderr.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from ..conditional import Group, PermutedOrbit, guided, orbit
from ..datasets import Dataset
from ..denoiser import OptimalDenoiser
from ..flow import FlowMap, certify
from ..randomness import RowNoise, stream
from ..regimes import collapse_sigma, speciation_sigma, top_eigenvalue
from ..rowwise import log_weights_of_class
from ..samplers import Solver, sample, solver_of
from ..span import landed, sample_in_span, way_of
from .estimate import (
    LANDING_CALLS,
    LANDING_ROWS,
    LONG,
    Say,
    announce,
    around,
    calls_of,
    pace_of,
    pace_of_the_optimum,
    seconds_of_a_call,
    seconds_of_reading,
    seconds_of_the_axes,
    slowness,
)
from .levels import Grid
from .room import require_room

__all__ = [
    "denoised",
    "described",
    "destination",
    "expected",
    "names_of",
    "optimum",
    "sampled",
    "shown_points",
    "solver_on",
    "told",
    "under",
]

_CLEAN = 0.3
"""Share of the noise's length below which x is taken for a picture without any."""
_ODD = 1e-9
"""Chance of a distance from the nearest point below which x is said to be no noisy point."""
_CPU = torch.device("cpu")
_CALLS = {"denoise": 2, "where": 80}
_TIMED = 0.5
"""Seconds of an answer, by sizes, from which on what it takes here is timed."""


def expected(question: Literal["info", "denoise", "where"], data: Dataset) -> float:
    """Seconds that an answer will take, about."""
    dim = math.prod(data.event)
    if question == "info":
        alone = (dim / 16 if dim <= 1024 else 25) * seconds_of_reading(data.array.size)
    else:
        alone = _CALLS[question] * seconds_of_a_call(len(data), dim, 1)
    return alone * slowness() if alone > _TIMED else alone


def described(data: Dataset, *, device: torch.device = _CPU, say: Say) -> dict[str, Any]:
    """Size, copies, spread, and the closed formulas of `optimal.regimes`."""
    announce(expected("info", data), say)
    with tqdm(total=3, desc="info", unit="part", leave=False, delay=1) as bar:
        D = optimum(data, device)
        bar.update()
        first = D.first_copies()
        bar.update()
        eigenvalue = top_eigenvalue(D)
        bar.update()
    distinct = int((first == torch.arange(len(first), device="cpu")).sum())
    return {
        "n": len(data),
        "shape": list(data.event),
        "dtype": str(data.array.dtype),
        "source": data.source,
        "licence": data.licence,
        "distinct": distinct,
        "duplicates": len(data) - distinct,
        "standard_deviation": D.standard_deviation,
        "top_eigenvalue": eigenvalue,
        "sigma_S": speciation_sigma(eigenvalue),
        "sigma_C": collapse_sigma(len(data), math.prod(data.event), D.standard_deviation),
    }


def denoised(
    data: Dataset,
    x: Tensor,
    sigma: float,
    top: int,
    *,
    label: int | None = None,
    guidance: float | None = None,
    interval: tuple[float, float] | None = None,
    group: Group | None = None,
    device: torch.device = _CPU,
    say: Say,
) -> tuple[Tensor, dict[str, Any]]:
    """E[x0 | x] of x, (1, *event), and the most probable points: their index, of images `element` too, and weight.

    Guided, the first is D + w (D_c − D), and all else is that of the class; with `weight`, w at this noise level;
    `probability`, P(c | x); and `pushed`, ‖D_w − D_c‖ = |w − 1| (1 − P(c | x)) ‖D_c − D_¬c‖.
    """
    _require_guided(label, guidance, interval)
    announce(len(names_of(group)) * expected("denoise", data), say)
    plain = optimum(data, device, label)
    D = under(plain, group)
    x = x.to(device)
    apart = _held_to_noise(plain, x, sigma, say) if group is None else {}
    post = D.posterior(x, sigma)
    mean, pushed = post.mean, {}
    if guidance is not None:
        whole = under(optimum(data, device), group)
        between = guided(D, whole, guidance, interval)
        mean, density = between(x, sigma), whole.posterior(x, sigma).log_density
        share = int((data.classes == label).sum()) / len(data)
        pushed = {
            "guidance": guidance,
            "weight": guidance if between.interval[0] < sigma <= between.interval[1] else 1.0,
            "probability": min(1.0, share * math.exp(float(post.log_density - density))),
            "pushed": float((mean.double() - post.mean.double()).norm()),
        }
    weights, index = D.weights(x, sigma)[0].topk(min(top, len(D)))
    points = [
        {"index": int(k) % len(data)}
        | _name(data, int(k) % len(data))
        | _turned(group, int(k) // len(data))
        | {"weight": float(w)}
        for k, w in zip(index, weights, strict=True)
        if w > 0
    ]
    return mean.cpu(), told(label, group) | pushed | apart | {
        "sigma": sigma,
        "effective_count": float(post.effective_count),
        "entropy": float(post.entropy),
        "log_density": float(post.log_density),
        "variance": float(post.variance),
        "mean": mean.flatten().tolist() if mean.numel() <= 2 else None,
        "points": points,
    }


def destination(
    data: Dataset, x: Tensor, sigma: float, *, label: int | None = None, device: torch.device = _CPU, say: Say
) -> tuple[Tensor, dict[str, Any]]:
    """Where the exact flow takes x, (1, *event), and how sure that is; the first is E[x0 | x].

    `certified`: whether it is proven at sigma already; `captured`: the noise level from which on it is, 0 where x is on
    the border between basins to within rounding; `weight`: the posterior probability of the destination.
    """
    announce(expected("where", data), say)
    D = optimum(data, device, label)
    x = x.to(device)
    apart = _held_to_noise(D, x, sigma, say)
    post = D.posterior(x, sigma)
    landing = FlowMap(D).land(x, sigma, progress=True)
    index, captured = int(landing.index), float(landing.captured)
    certified = bool(certify(D, x, sigma, landing.index).holds)
    if certified:
        sure = "certain: it is proven at this noise level already"
    elif captured > 0:
        sure = f"computed; along the way it becomes certain at sigma = {captured:.4g}"
    else:
        sure = "undecided: x lies on the border between two basins, or between copies, to within rounding"
    found = apart | {
        "sigma": sigma,
        "index": index,
        "name": None if data.names is None else data.names[index],
        "label": None if data.labels is None else data.labels[index].tolist(),
        "certified": certified,
        "captured": captured,
        "sure": sure,
        "weight": float(D.weights(x, sigma)[0, index]),
        "leader": int(post.top_index),
        "leader_name": None if data.names is None else data.names[int(post.top_index)],
        "leader_weight": float(post.top_weight),
        "effective_count": float(post.effective_count),
        "nfe": int(landing.nfe),
    }
    return post.mean.cpu(), found


def _held_to_noise(D: OptimalDenoiser, x: Tensor, sigma: float, say: Say) -> dict[str, Any]:
    """How far x, (1, *event), lies from the nearest point, and how far noise of this level would put it: about √d σ.

    Says where that is not so, at odds of 1 to 10⁹: ‖x − source‖²/σ² of x = source + σ ε is chi-square with d degrees
    of freedom, and the nearest of N points is about 2 ln N nearer at most.
    """
    from scipy.special import chdtr, chdtrc

    dim = D.points.dim
    distance = float((x.double() - D.take(D.nearest(x)).double()).norm())
    square = (distance / sigma) ** 2
    closer = float(chdtr(dim, square + 2 * math.log(len(D)))) < _ODD
    if closer or float(chdtrc(dim, square)) < _ODD:
        said = "is sigma in units of the data?"
        if closer and distance < _CLEAN * math.sqrt(dim) * sigma:
            said = "a clean picture? --add-noise adds the noise"
        elif closer:
            said = (
                "is there less noise in it, or was it lost, cut off at 8 bits or averaged by resizing? a .npy holds all"
            )
        say(
            f"x lies {distance:.4g} from the nearest point, and noise of sigma = {sigma:g} would put it about "
            f"{math.sqrt(dim) * sigma:.4g} from its source, as sigma = {distance / math.sqrt(dim):.3g} would: {said}"
        )
    return {"nearest_distance": distance, "noise_distance": math.sqrt(dim) * sigma}


def sampled(
    data: Dataset,
    n: int,
    solver: str,
    grid: Grid,
    *,
    seed: int,
    options: Mapping[str, Any],
    label: int | None = None,
    guidance: float | None = None,
    interval: tuple[float, float] | None = None,
    group: Group | None = None,
    device: torch.device = _CPU,
    say: Say,
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """n samples: arrays (noises, samples, index of the data point that each is, or −1; sigmas), and what they are."""
    if n < 1:
        raise ValueError(f"n must be at least 1, got {n}")
    require_room("n", n, math.prod(data.event))
    if group is not None and solver == "consistency":
        raise ValueError("--solver consistency ends on a point of the data as they are: it takes no --orbit")
    _require_guided(label, guidance, interval)
    if guidance is not None and solver == "consistency":
        raise ValueError("--solver consistency ends on a point of the class: it takes no --guidance")
    D = optimum(data, device, label)
    sigmas = grid.over(D)
    steps, sigma_max = len(sigmas) - 1, float(sigmas[0])
    chosen = solver_on(sigmas, solver, options)
    rows = RowNoise(stream(seed, "samples"))
    shape = (n, *data.event)
    noises = (sigma_max * rows.draw(shape)).float().to(device)
    source = under(D, group)
    count = D.points.size if guidance is None else D.points.size + len(D)
    direct = 2 * steps * len(names_of(group)) * seconds_of_a_call(count, D.points.dim, n)
    axes, nfe = seconds_of_the_axes(D), calls_of(chosen, steps)
    way = "full" if chosen.draws(steps) or group or guidance is not None else way_of(D)
    in_span = way != "full" and direct > (axes if way == "few" else max(axes / 2, LONG))
    if in_span:
        few = pace_of_the_optimum(D, n).seconds(n * nfe, nfe) if way == "few" else slowness() * direct / 10
        announce(slowness() * axes + few, say)
        ends = sample_in_span(D, noises, sigmas, solver=chosen, progress=True)
        samples, index, nfe = ends.x, ends.index, ends.nfe
    else:
        calls: list[int] = []
        model = FlowMap(source) if solver == "consistency" else source
        if guidance is not None:
            model = guided(source, under(optimum(data, device), group), guidance, interval)
        at = around(source, n, (float(sigmas[place]) for place in (steps // 2, 0, -2)))
        if solver == "consistency":
            # All but the first of its jumps begin lower, much nearer to their ends.
            jumps = 1 + (nfe - 1) / 4
            announce(pace_of(source, at).seconds(n * jumps * LANDING_ROWS, jumps * LANDING_CALLS), say)
        else:
            announce(pace_of(model, at).seconds(n * nfe, nfe) if direct > _TIMED else direct, say)
        samples = sample(
            model,
            noises,
            sigmas,
            solver=chosen,
            noise=lambda step: rows.draw(shape).to(device),
            progress=True,
            callback=lambda state: calls.append(state.nfe),
        )
        index, nfe = landed(source, samples), calls[-1]
    found = (
        told(label, group)
        | ({} if guidance is None else {"guidance": guidance})
        | ({} if interval is None else {"interval": list(interval)})
        | {
            "n": n,
            "solver": solver,
            "steps": steps,
            "nfe": nfe,
            "sigma_max": sigma_max,
            "sigma_min": grid.low,
            "seed": seed,
            "in_span": in_span,
            "copies": int((index >= 0).sum()),
            "different": len(index[index >= 0].unique()),
        }
    )
    # Which point, and under which element; −1 stays what it is.
    point, element = index.where(index < 0, index % len(D)), index.div(len(D), rounding_mode="floor")
    found["index"] = point.tolist()
    if data.names is not None:
        found["name"] = [data.names[k] if k >= 0 else None for k in found["index"]]
    if group is not None:
        found["element"] = [names_of(group)[k] if k >= 0 else None for k in element.tolist()]
    arrays = {"noises": noises, "samples": samples, "index": point, "sigmas": sigmas}
    return {name: array.cpu() for name, array in arrays.items()}, found


def _name(data: Dataset, index: int) -> dict[str, Any]:
    return {"index": index} if data.names is None else {"index": index, "name": data.names[index]}


def shown_points(data: Dataset, points: list[dict[str, Any]], group: Group | None) -> Tensor:
    """The most probable points that `denoised` found, as they lie, (n, *event)."""
    index = torch.tensor([point["index"] for point in points], dtype=torch.int64)
    rows = data[index.tolist()]
    if group is None:
        return rows
    names, D = names_of(group), under(OptimalDenoiser(rows), group)
    element = torch.tensor([names.index(point["element"]) for point in points], dtype=torch.int64)
    return D.take(element * len(rows) + torch.arange(len(rows)))


def names_of(group: Group | None) -> list[str]:
    """What the elements of a group do, in words; "" for what leaves a point as it is."""
    if group is None:
        return [""]
    turns = ["", "turned by 90°", "turned by 180°", "turned by 270°"] if group == "quarter-turns" else [""]
    return [" and ".join(filter(None, (side, turn))) for side in ("", "mirrored") for turn in turns]


def solver_on(sigmas: Tensor, name: str, options: Mapping[str, Any]) -> Solver:
    """The solver with these options, on this grid.

    Raises:
        ValueError: an option that it does not have, or of a value that it cannot have.
    """
    chosen = solver_of(name, dict(options))
    chosen.check(sigmas.tolist())
    return chosen


def optimum(data: Dataset, device: torch.device, label: int | None = None) -> OptimalDenoiser:
    """The optimum of the data, or of one class of them, which lie where it computes."""
    log_weights = None
    if label is not None:
        labels = torch.from_numpy(data.classes)
        log_weights = log_weights_of_class(labels, label, labels.unique())
    if device.type == "cpu":
        D = OptimalDenoiser(data)
    else:
        D = OptimalDenoiser(torch.from_numpy(np.ascontiguousarray(data.array)).to(device))
    return D if log_weights is None else D.weighted(log_weights)


def under(D: OptimalDenoiser, group: Group | None) -> OptimalDenoiser | PermutedOrbit:
    """The optimum of the data, or of the data with their images."""
    if group is None:
        return D
    turned = orbit(D, group)
    # Of the groups that a command line has; the images of all others are too many to be listed.
    assert isinstance(turned, PermutedOrbit)
    return turned


def _require_guided(label: int | None, guidance: float | None, interval: tuple[float, float] | None) -> None:
    if guidance is not None and label is None:
        raise ValueError("--guidance is towards a class: it needs --label")
    if interval is not None and guidance is None:
        raise ValueError("--interval is of guidance: it needs --guidance")


def told(label: int | None, group: Group | None) -> dict[str, Any]:
    return ({} if label is None else {"label": label}) | ({} if group is None else {"orbit": group})


def _turned(group: Group | None, element: int) -> dict[str, Any]:
    return {} if group is None else {"element": names_of(group)[element]}
