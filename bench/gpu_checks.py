"""What `bench/gpu.py` checks on a device: surroundings, data, the proven bound, and agreement with the CPU.

Every check is a number and the most that it may be. The reference is Eq. 43 in float64 by the differences x − y_j
themselves, on the CPU.
"""

from __future__ import annotations

import contextlib
import copy
import functools
import math
import pickle
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from optimal import FlowMap, OptimalDenoiser, certify, karras, sample, sample_in_span
from optimal.span import few_points

__all__ = ["PARTS", "Check", "Sizes", "differs"]

_MEAN, _LOGS = 1e-5, 1e-3
"""Relative error of the mean; and of the rest, relative above 1, absolute below."""


@dataclass(frozen=True)
class Check:
    """`measure()` is good up to `limit`."""

    name: str
    limit: float
    measure: Callable[[], float]


@dataclass(frozen=True)
class Sizes:
    """How large the problems are: N points, rows of x, random cases of the bound."""

    points: int = 3_000
    rows: int = 500
    cases: int = 200

    @classmethod
    def quick(cls) -> Sizes:
        return cls(points=130, rows=70, cases=2)


def surroundings(device: torch.device, sizes: Sizes) -> Iterator[Check]:
    """What surrounds a call changes no answer, in any implementation."""
    for name, problem in _problems(sizes).items():
        D, x, sigma = problem.on(device)
        plain = _answers(D, x, sigma)
        for around, context in _contexts(device).items():
            ask = functools.partial(_answers, D, x, sigma)
            yield Check(f"{name}: {around}", 1.0, functools.partial(differs, ask, plain, sigma, context))
        for other, ask in _other_forms(problem, D, x, sigma).items():
            yield Check(f"{name}: {other}", 1.0, functools.partial(differs, ask, plain, sigma))
    yield from _flows_in_surroundings(device, sizes)


def data(device: torch.device, sizes: Sizes) -> Iterator[Check]:
    """Heavy tails, a far point, near-copies, one value, sizes around the thresholds of the code."""
    for name, points in _hard_data(sizes).items():
        yield Check(f"{name}: mean, log density, entropy, nearest", 1.0, functools.partial(_off, points, device))


def bounds(device: torch.device, sizes: Sizes) -> Iterator[Check]:
    """Error over proven bound, the largest of random cases: images, x between them, noise from low to high."""
    for side in (4, 8, 16, 33):
        for count in (60, 300, sizes.points):
            cases = -(-sizes.cases // 12)
            measure = functools.partial(_over_bound, device, side, count, cases)
            yield Check(
                f"error over proven bound, {count} images of 3x{side}x{side}, {4 * cases} queries", 1.0, measure
            )


def agreement(device: torch.device, sizes: Sizes) -> Iterator[Check]:
    """The device gives what the CPU gives, wherever the points are."""
    for name, problem in _problems(sizes).items():
        here, x, sigma = problem.on(torch.device("cpu"))
        expected = {**_answers(here, x, sigma), **_ends(here, x, sigma)}
        for place, points in (("points there", device), ("points on the CPU", torch.device("cpu"))):

            def ask(problem: _Problem = problem, points: torch.device = points, x: Tensor = x) -> dict[str, Tensor]:
                D = problem.denoiser(problem.data.to(points))
                return {**_answers(D, x.to(device), problem.sigma), **_ends(D, x.to(device), problem.sigma)}

            yield Check(f"{name}, {place}", 1.0, functools.partial(differs, ask, expected, sigma))


PARTS: dict[str, Callable[[torch.device, Sizes], Iterator[Check]]] = {
    "agreement": agreement,
    "surroundings": surroundings,
    "data": data,
    "bounds": bounds,
}


@dataclass(frozen=True)
class _Problem:
    data: Tensor
    method: str
    sigma: float
    rows: int

    def denoiser(self, data: Tensor) -> OptimalDenoiser:
        return OptimalDenoiser(data, method=self.method)

    def on(self, device: torch.device) -> tuple[OptimalDenoiser, Tensor, float]:
        D = self.denoiser(self.data.to(device))
        start = D.take(torch.arange(self.rows, device="cpu") % len(D)).cpu().float()
        eps = torch.randn(start.shape, generator=_seeded(2), dtype=torch.float32, device="cpu")
        return D, (start + self.sigma * eps).to(device), self.sigma


def _problems(sizes: Sizes) -> dict[str, _Problem]:
    def floats(*shape: int) -> Tensor:
        return torch.randn(shape, generator=_seeded(0), dtype=torch.float32, device="cpu")

    images = torch.randint(0, 256, (sizes.points, 3, 16, 16), generator=_seeded(0), dtype=torch.uint8, device="cpu")
    return {
        "dense, D = 100": _Problem(floats(sizes.points, 1, 10, 10), "dense", 1.5, sizes.rows),
        "dense, D = 3": _Problem(floats(sizes.points, 3), "dense", 0.3, sizes.rows),
        "screened, bytes": _Problem(images, "screened", 4.0, sizes.rows),
        "auto, few points": _Problem(floats(40, 1, 16, 16), "auto", 2.0, sizes.rows),
    }


def _seeded(seed: int) -> torch.Generator:
    return torch.Generator("cpu").manual_seed(seed)


def _answers(D: OptimalDenoiser, x: Tensor, sigma: float) -> dict[str, Tensor]:
    post = D.posterior(x, sigma)
    names = "mean", "log_density", "entropy", "top_index", "top_weight", "variance", "error_bound"
    found = {name: getattr(post, name) for name in names}
    # Neither way to take the gradient may be turned off by what surrounds the call.
    with torch.inference_mode(False), torch.enable_grad():
        own = x.clone().requires_grad_()
        level = torch.full((len(x),), sigma, dtype=torch.float64, device=x.device, requires_grad=True)
        entropy = D.posterior(own, level).entropy.sum()
        found["gradient to x"], found["gradient to sigma"] = torch.autograd.grad(entropy, (own, level))
    return {**found, "nearest": D.nearest(x), "certified": certify(D, x, sigma / 20).holds}


def _ends(D: OptimalDenoiser, x: Tensor, sigma: float) -> dict[str, Tensor]:
    """Where flows and samplers end, of some rows: exactly the same points."""
    x = x[:40]
    landing = FlowMap(D).land(x, sigma)
    sampled = sample(D, x, karras(12, sigma_max=sigma), solver="heun")
    span = sample_in_span(D, x, karras(12, sigma_max=sigma), rank=16)
    few = few_points(D)
    found = {"landings": landing.index, "samples": D.nearest(sampled), "span": D.nearest(span.x)}
    if few is not None:
        found["in coordinates"] = few.expanded(few.reduced(x))
    return found


def differs(
    ask: Callable[[], dict[str, Tensor]],
    expected: dict[str, Tensor],
    sigma: float,
    context: Callable[[], AbstractContextManager[Any]] = contextlib.nullcontext,
) -> float:
    with context():
        found = ask()
    return _distance(found, expected, sigma)


def _distance(found: dict[str, Tensor], expected: dict[str, Tensor], sigma: float) -> float:
    """The largest difference, in units of what is allowed; of results that are both off by what they may be."""
    bounds = [side["error_bound"].cpu().nan_to_num(0.0) for side in (found, expected) if "error_bound" in side]
    worst = 0.0
    for key, values in found.items():
        a, b = (side.detach().cpu().double().reshape(len(side), -1) for side in (values, expected[key]))
        off = (a - b).norm(dim=1)
        if key == "error_bound":
            continue
        if not expected[key].dtype.is_floating_point:
            allowed: Tensor | float = 0.5
        elif key in ("mean", "in coordinates"):
            allowed = sum(bounds, torch.full_like(off, _MEAN)) if key == "mean" else _MEAN
            allowed = allowed * b.norm(dim=1)
        elif key == "variance":
            allowed = 4e-4 * sigma**2
        else:
            allowed = _LOGS * b.norm(dim=1).clamp_min(1)
        worst = max(worst, float((off / allowed).nan_to_num(math.inf).max()))
    return worst


def _contexts(device: torch.device) -> dict[str, Callable[[], AbstractContextManager[Any]]]:
    kind = device.type
    found: dict[str, Callable[[], AbstractContextManager[Any]]] = {
        "autocast to bfloat16": lambda: torch.autocast(kind, torch.bfloat16),
        "autocast to float16": lambda: torch.autocast(kind, torch.float16),
        "default dtype float64": lambda: _set(torch.set_default_dtype, torch.get_default_dtype(), torch.float64),
        "matmul precision medium": lambda: _set(torch.set_float32_matmul_precision, "highest", "medium"),
        "no_grad": torch.no_grad,
        "inference_mode": torch.inference_mode,
        f"default device {kind}": lambda: device,
        "default device meta": lambda: torch.device("meta"),
    }
    if kind == "cuda":
        found["TF32 allowed"] = _tf32
    return found


@contextlib.contextmanager
def _set(setter: Callable[[Any], Any], before: Any, value: Any) -> Iterator[None]:
    setter(value)
    try:
        yield
    finally:
        setter(before)


@contextlib.contextmanager
def _tf32() -> Iterator[None]:
    torch.backends.cuda.matmul.allow_tf32 = True
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32 = False


def _other_forms(
    problem: _Problem, D: OptimalDenoiser, x: Tensor, sigma: float
) -> dict[str, Callable[[], dict[str, Tensor]]]:
    """The same question, asked otherwise; the answers in the order of x and of the points."""
    ask = functools.partial(_answers, sigma=sigma)

    def in_batches(size: int) -> dict[str, Tensor]:
        parts = [ask(D, part) for part in (*x[: 3 * size].split(size), x[3 * size :]) if len(part)]
        return {key: torch.cat([part[key] for part in parts]) for key in parts[0]}

    def shuffled() -> dict[str, Tensor]:
        order = torch.randperm(len(D), generator=_seeded(8), device="cpu")
        found = ask(problem.denoiser(problem.data[order].to(x.device)), x)
        for key in ("top_index", "nearest"):
            found[key] = order.to(x.device)[found[key]]
        return found

    def streamed() -> dict[str, Tensor]:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "points.npy"
            np.save(path, problem.data.numpy())
            return ask(OptimalDenoiser(np.load(path, mmap_mode="r"), memory=2**22, method=problem.method), x)

    def in_float64() -> dict[str, Tensor]:
        found = ask(D, x.double())
        # Its bound is that of another method.
        return {key: values for key, values in found.items() if key != "error_bound"}

    return {
        **{f"batches of {size}": functools.partial(in_batches, size) for size in (1, 64, 65)},
        "rows in another order": lambda: {key: values.flip(0) for key, values in ask(D, x.flip(0)).items()},
        "data in another order": shuffled,
        "x not contiguous": lambda: ask(D, torch.stack([x, -x], -1)[..., 0]),
        "x in float64": in_float64,
        "a deep copy": lambda: ask(copy.deepcopy(D), x),
        "pickled": lambda: ask(pickle.loads(pickle.dumps(D)), x),
        "streamed from a file": streamed,
    }


def _flows_in_surroundings(device: torch.device, sizes: Sizes) -> Iterator[Check]:
    """Flows, samplers and the span end on the same points, whatever surrounds them."""
    for name, problem in _problems(sizes).items():
        if problem.method == "screened":
            continue
        D, x, sigma = problem.on(device)
        plain = _ends(D, x, sigma)
        contexts = _contexts(device)

        def ask(problem: _Problem = problem, x: Tensor = x) -> dict[str, Tensor]:
            # What is kept of the data for later calls is made anew inside.
            return _ends(problem.denoiser(problem.data.to(x.device)), x, problem.sigma)

        for around in ("autocast to bfloat16", "default dtype float64", "default device meta"):
            yield Check(
                f"ends of {name}: {around}", 1.0, functools.partial(differs, ask, plain, sigma, contexts[around])
            )


def _over_bound(device: torch.device, side: int, count: int, cases: int) -> float:
    """The largest error over its bound; inf where there is none."""
    generator, worst = _seeded(20252 + side + count), 0.0
    for case in range(cases):
        images = torch.randint(0, 256, (count, 3, side, side), generator=generator, dtype=torch.uint8, device="cpu")
        if case % 2:
            images = (images.float() * 0.1 + 100).to(torch.uint8)
        sigma = 10 ** float(torch.rand((), generator=generator, dtype=torch.float64, device="cpu") * 4 - 2)
        D, index = OptimalDenoiser(images.to(device), method="screened"), torch.arange(4, device="cpu")
        x = D.take(index).cpu().double().lerp(D.take(index + 4).cpu().double(), 0.5)
        x = (x + sigma * torch.randn(x.shape, generator=generator, dtype=torch.float64, device="cpu")).float()
        post = D.posterior(x.to(device), sigma)
        points = D.take(torch.arange(count, device="cpu")).cpu()
        expected = _reference(points, x, sigma)["mean"]
        # The proof is of the mean in float64, the result is in float32.
        error = (post.mean.cpu().double().flatten(1) - expected).norm(dim=1) / expected.norm(dim=1) - 2.0**-24
        ratio = error.clamp_min(0) / post.error_bound.cpu()
        worst = max(worst, float(ratio.nan_to_num(math.inf).max()))
    return worst


def _hard_data(sizes: Sizes) -> dict[str, Tensor]:
    generator = _seeded(3)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float32, device="cpu")

    tails = normal(400, 70) / normal(400, 1).abs().clamp_min(1e-3)
    copies = normal(200, 100)
    found = {"heavy tails": tails, "near copies": torch.cat([copies, copies * (1 + 2.0**-22), copies])}
    for far in (1e3, 1e5, 1e8):
        found[f"one point at {far:g}"] = torch.cat([normal(300, 80), far * normal(1, 80)])
    for scale in (1e-25, 1e-19, 1e19):
        found[f"scale {scale:g}"] = scale * normal(300, 90)
    found["offset of 1e6"] = normal(300, 80).double() + 1e6
    found["alternating"] = torch.ones(sizes.points, 1).cumsum(0).remainder(2) * 2 - 1
    for dim in (1, 2, 3, 4, 63, 64, 65, 1_024):
        for count in (1, 2, 9, 128, 129, 130, 2_000):
            if dim in (1, 3, 65) or count == 130:
                found[f"N = {count}, D = {dim}"] = normal(count, dim)
    return found


def _reference(points: Tensor, x: Tensor, sigma: float) -> dict[str, Tensor]:
    """Eq. 43 by differences; both on the CPU, x at the σ given."""
    points, queries = points.double().flatten(1), x.double().flatten(1)
    rows: list[tuple[Tensor, ...]] = []
    for query in queries:
        logits = (points - query).square_().sum(1) / (-2 * sigma**2)
        total = logits.logsumexp(0)
        weights = (logits - total).exp()
        constant = math.log(len(points)) + points.shape[1] * (0.5 * math.log(2 * math.pi) + math.log(sigma))
        rows.append((weights @ points, total - constant, -torch.special.xlogy(weights, weights).sum()))
    mean, log_density, entropy = (torch.stack(column) for column in zip(*rows, strict=True))
    return {"mean": mean, "log_density": log_density, "entropy": entropy}


def _off(points: Tensor, device: torch.device) -> float:
    """The largest error over these points, at low and high noise, in units of what is allowed."""
    D, worst = OptimalDenoiser(points.to(device)), 0.0
    spread = D.standard_deviation or 1.0
    for sigma in (0.05 * spread, spread):
        start = points[torch.arange(8, device="cpu") % len(points)].double()
        x = start + sigma * torch.randn(start.shape, generator=_seeded(1), dtype=torch.float64, device="cpu")
        expected, post = _reference(points, x, sigma), D.posterior(x.to(device), sigma)
        size = expected["mean"].norm(dim=1).clamp_min(1e-300)
        errors = [(post.mean.cpu().flatten(1) - expected["mean"]).norm(dim=1) / size / _MEAN]
        for found, right in ((post.log_density, expected["log_density"]), (post.entropy, expected["entropy"])):
            errors.append((found.cpu() - right).abs() / right.abs().clamp_min(1) / _LOGS)
        errors.append(_further(points, D.nearest(x.to(device)).cpu(), x) / 1e-12)
        worst = max(worst, float(torch.stack(errors).nan_to_num(math.inf).max()))
    return worst


def _further(points: Tensor, index: Tensor, x: Tensor) -> Tensor:
    """By how much the points `index` are further from x than the nearest are, relative; (B,)."""
    points, queries = points.double().flatten(1), x.double().flatten(1)
    rows = []
    for query, chosen in zip(queries, index.tolist(), strict=True):
        distances = (points - query).norm(dim=1)
        rows.append((distances[chosen] - distances.min()) / distances.min().clamp_min(1e-300))
    return torch.stack(rows)
