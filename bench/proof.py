"""The proven bound of `screened` against the exact mean, on random cases made to break it: none may exceed its bound.

    .venv/bin/python bench/proof.py [--cases 10000]

A case is a few images, one query and one noise level, of kinds that a proof is likely to forget: ties up to rounding,
copies, near-copies, x at a point, in the middle of two, at the centre, or far away, σ from 10⁻⁹ to 10⁹ and D from 1 to
12,288. The posterior mean is computed exactly: squared distances in whole numbers, exponentials to 50 digits, sums in
whole numbers. What is compared is the mean in float64; the distribution of error over bound goes to
`bench/results/proof.json`.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Context, Decimal, localcontext
from fractions import Fraction
from pathlib import Path
from unittest import mock

import numpy as np
import torch
import tyro
from torch import Tensor
from tqdm import tqdm

from optimal import OptimalDenoiser
from optimal.datasets import to_float
from optimal.evaluate import screened
from optimal.points import Points

__all__ = ["DATA", "DIMS", "PRIORS", "QUERIES", "error_over_bound", "exact_error", "make"]

DIMS = (1, 2, 3, 16, 63, 300, 1000, 3008, 12_288)
_SCALE = 2**24
"""`to_float` gives multiples of 2⁻²⁴."""
_ONE = 10**40
"""The leader's weight, in whole numbers."""

Random = np.random.Generator


def _noise(n: int, dim: int, random: Random) -> np.ndarray:
    return random.integers(0, 256, (n, dim), dtype=np.uint8)


def _ties(n: int, dim: int, random: Random) -> np.ndarray:
    """One pattern, shifted: all of one norm about a centre that is the same in every value."""
    pattern = random.integers(0, 256, n, dtype=np.uint8)
    return np.stack([np.resize(np.roll(pattern, j), dim) for j in range(n)])


def _near_copies(n: int, dim: int, random: Random) -> np.ndarray:
    images = np.repeat(_noise(1, dim, random), n, 0)
    images[np.arange(n), random.integers(0, dim, n)] ^= 1
    return images


def _copies(n: int, dim: int, random: Random) -> np.ndarray:
    return np.repeat(_noise(-(-n // 3), dim, random), 3, 0)[:n]


def _line(n: int, dim: int, random: Random) -> np.ndarray:
    return np.clip(np.arange(n)[:, None] * 255 // max(n - 1, 1) + random.integers(-1, 2, (n, dim)), 0, 255).astype(
        np.uint8
    )


def _constant(n: int, dim: int, random: Random) -> np.ndarray:
    return np.full((n, dim), random.integers(0, 256), dtype=np.uint8)


def _extremes(n: int, dim: int, random: Random) -> np.ndarray:
    return (255 * random.integers(0, 2, (n, dim))).astype(np.uint8)


def _outlier(n: int, dim: int, random: Random) -> np.ndarray:
    images = random.integers(126, 130, (n, dim), dtype=np.uint8)
    images[random.integers(n)] = 255
    return images


DATA: dict[str, Callable[[int, int, Random], np.ndarray]] = {
    "noise": _noise,
    "ties": _ties,
    "near-copies": _near_copies,
    "copies": _copies,
    "line": _line,
    "constant": _constant,
    "extremes": _extremes,
    "outlier": _outlier,
}


def _of(points: np.ndarray, centre: np.ndarray, sigma: float, random: Random) -> dict[str, np.ndarray]:
    noise = random.standard_normal(points.shape[1])
    first, second = points[random.integers(len(points), size=2)]
    whole = np.round(127 * random.uniform(-1, 1, points.shape[1]))
    return {
        "noisy": first + sigma * noise,
        "a point": first,
        "a middle": 0.5 * (first + second),
        "near a middle": 0.5 * (first + second) + min(sigma, 1.0) ** 2 * 1e-3 * noise,
        "the centre": centre,
        "by the centre": centre + 1e-7 * noise,
        "the mean": points.mean(0),
        "far": first + 1e3 * max(sigma, 1.0) * noise,
        "along a line": centre + (1 + sigma) * np.sign(noise),
        "half units": centre + (whole + 0.5 + 1e-3 * np.sign(noise)) / 127,
        "one value": centre + 50 * (np.arange(points.shape[1]) == 0),
    }


QUERIES = (
    "noisy", "a point", "a middle", "near a middle", "the centre", "by the centre", "the mean", "far", "along a line",
    "half units", "one value",
)  # fmt: skip


def make(kind: str, query: str, n: int, dim: int, sigma: float, random: Random) -> tuple[Tensor, Tensor]:
    """Images (n, dim) and one x (1, dim) float32."""
    images = torch.from_numpy(DATA[kind](n, dim, random))
    centre = Points(images).centre.numpy()
    x = _of(to_float(images).double().numpy(), centre, sigma, random)[query]
    return images, torch.from_numpy(x).float()[None]


def _undone(images: Tensor, x: Tensor, sigma: float, random: Random) -> np.ndarray:
    """What makes up for the distances, to a few units of rounding: all points weigh about the same."""
    squares = (to_float(images).double() - x.double()).square().sum(1).numpy() / (2 * sigma**2)
    return (squares - squares.min()) * (1 + 2.0**-50 * random.integers(-9, 9, len(images)))


PRIORS: dict[str, Callable[[Tensor, Tensor, float, Random], np.ndarray | None]] = {
    "none": lambda images, x, sigma, random: None,
    "some": lambda images, x, sigma, random: random.standard_normal(len(images)),
    "wide": lambda images, x, sigma, random: 10.0 ** random.uniform(1, 6) * random.standard_normal(len(images)),
    "undone": _undone,
    "nearly undone": lambda images, x, sigma, random: _undone(images, x, sigma, random) + random.uniform(-2, 2),
    "rare": lambda images, x, sigma, random: np.where(np.arange(len(images)) == 0, -30.0, 0.0),
    "holes": lambda images, x, sigma, random: np.where(random.random(len(images)) < 0.4, -np.inf, 0.0),
}
"""Log-weights that are tried."""


def exact_error(images: Tensor, x: Tensor, sigma: float, mean: Tensor, log_weights: Tensor | None = None) -> float:
    """‖mean − D‖/‖D‖ of one row, D exact but for weights below 10⁻⁴⁰ and roundings of 10⁻⁴⁰."""
    if log_weights is not None:
        there = log_weights > -torch.inf
        images, log_weights = images[there], log_weights[there]
    points = np.array([[int(v) for v in row] for row in (to_float(images).double() * _SCALE).tolist()], dtype=object)
    doubled = np.array([int(2 * _SCALE * 2**160 * Fraction(v)) for v in x[0].tolist()], dtype=object)
    reference = points[0]
    # σ² (l_j − l_0) = ½ Σ (y_j − y_0)(2x − y_j − y_0), in units of 2⁻⁴⁸⁻¹⁶⁰.
    twice = [int(((row - reference) * (doubled - ((row + reference) << 160))).sum()) for row in points]
    logits = [Fraction(t, 2 * _SCALE**2 * 2**160) / Fraction(sigma) ** 2 for t in twice]
    if log_weights is not None:
        logits = [logit + Fraction(a) for logit, a in zip(logits, log_weights.tolist(), strict=True)]
    top = max(logits)
    with localcontext(Context(prec=60, Emin=-(10**6), Emax=10**6)):
        leads = [max(logit - top, Fraction(-300)) for logit in logits]
        weights = [int((Decimal(lead.numerator) / Decimal(lead.denominator)).exp() * _ONE) for lead in leads]
    total = sum(weights)
    exact = (np.array(weights, dtype=object)[:, None] * points).sum(0)
    given = [int(Fraction(v) * (_SCALE << 200)) for v in mean.tolist()]
    scale = float(total * _SCALE)
    off = [float((g * total >> 200) - e) / scale for g, e in zip(given, exact, strict=True)]
    size = float(np.linalg.norm([float(e) / scale for e in exact]))
    return float(np.linalg.norm(off)) / size if size else float("inf") if np.linalg.norm(off) else 0.0


def error_over_bound(
    images: Tensor, x: Tensor, sigma: float, log_weights: np.ndarray | None = None
) -> tuple[float, float]:
    """The exact relative error of the mean in float64, and its proven bound, of one row."""
    D = OptimalDenoiser(images, method="screened")
    if log_weights is not None:
        D = D.weighted(log_weights)
    z, levels = D.query(x, sigma)
    sums = D.evaluator.moments(z, levels, single=True)
    mean = (sums.average + D.points.centre)[0]
    given = None if log_weights is None else D.log_weights
    return exact_error(images, x, sigma, mean, given), float(sums.bound[0])


@dataclass
class Config:
    """What is tried."""

    cases: int = 10_000
    """Random cases."""
    seed: int = 0
    """Of the cases."""
    out: Path = Path(__file__).parent / "results" / "proof.json"
    """Where the distribution goes."""


def main(config: Config) -> int:
    random, found, broken, start = np.random.default_rng(config.seed), [], [], time.time()
    for case in tqdm(range(config.cases), desc="cases", disable=None):
        kind, query = str(random.choice([*DATA])), str(random.choice(QUERIES))
        dim = int(random.choice(DIMS, p=[0.14, 0.14, 0.14, 0.16, 0.14, 0.14, 0.09, 0.04, 0.01]))
        n = int(random.choice([1, 2, 3, 16, 40, 200])) if dim < 1000 else int(random.choice([2, 16, 40]))
        sigma = float(10 ** (random.uniform(-2, 2) if random.random() < 0.7 else random.uniform(-9, 9)))
        images, x = make(kind, query, n, dim, sigma, random)
        prior = str(random.choice([*PRIORS], p=[0.4, *[0.1] * 6]))
        log_weights = PRIORS[prior](images, x, sigma, random)
        if log_weights is not None and not np.isfinite(log_weights).any():
            log_weights = None
        # With few points in float64, and none; the rest by bytes.
        few = int(random.choice([0, 3000]))
        with mock.patch.object(screened, "_few", lambda points, few=few: min(few, points.size)):
            error, bound = error_over_bound(images, x, sigma, log_weights)
        found.append(error / bound if bound else float("inf") if error else 0.0)
        if not error <= bound:
            broken.append({"case": case, "data": kind, "x": query, "n": n, "D": dim, "sigma": sigma, "few": few})
            broken[-1] |= {"prior": prior}
            broken[-1] |= {"error": error, "bound": bound}
            print(broken[-1])
    quantiles = {str(q): float(np.quantile(found, q)) for q in (0.01, 0.1, 0.25, 0.5, 0.75, 0.9, 0.99, 0.999, 1.0)}
    print(f"{config.cases} cases, {len(broken)} beyond their bound; error over bound, quantiles:")
    print("  ".join(f"{name}: {value:.2g}" for name, value in quantiles.items()))
    result = {"cases": config.cases, "seed": config.seed, "beyond": broken, "error over bound, quantiles": quantiles}
    result["machine"] = {"torch": torch.__version__, "capability": torch.backends.cpu.get_cpu_capability()}
    result["minutes"] = round((time.time() - start) / 60, 1)
    config.out.parent.mkdir(parents=True, exist_ok=True)
    config.out.write_text(json.dumps(result, indent=1) + "\n")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Config)))
