"""The log density of a network at noisy points of its data, and of held-out ones, beside the optimum's.

At x = x0 + σ_min ε, one draw of ε a point, in nats and in bits for each value; the optimum's is exact. The mean of
their difference over the data estimates the Kullback-Leibler divergence of the network from the data under noise.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import torch

from optimal import Dataset, OptimalDenoiser
from optimal.cli import seconds_of_a_row
from optimal.devices import require_room
from optimal.draws import draw_indexed
from optimal.intervals import Interval, mean_interval
from optimal.numbers import require_whole
from optimal.randomness import fixed_generator, stream

from .heldout import Apart, check_held_out, require_drawn
from .likelihood import LogDensity, log_density, require_asked
from .model import Model
from .trained import seen_in_training

__all__ = ["Densities", "densities", "planned"]

_GREY = 2 / 255
"""Width of a grey level in [−1, 1]."""
_RANGE = (0.002, 80.0)
_EVALUATIONS, _OF_TOLERANCE, _SPAN = 120, 0.15, math.log(800)
"""Of the ODE from σ = 0.1 to 80 at a tolerance of 1e-3, and how they grow with 1/tolerance: of the optima of five
points and of digits 103 and 121, at 1e-5 181 and 241."""
_OWN, _DERIVATIVE = 1.5, 1.3
"""What an evaluation takes for itself and for each derivative, in calls."""


@dataclass(frozen=True)
class Densities:
    """One place.

    Attributes:
        on: "data" or "held-out".
        index: (n,) int64, which points.
        found: their densities.
        remarks: what is to be known of the points.
    """

    on: str
    index: torch.Tensor
    found: LogDensity
    remarks: tuple[str, ...]

    def rows(self) -> list[dict[str, Any]]:
        """One flat row a point: on, point, nats, trace_error, exact_nats, bits, exact_bits.

        trace_error is the standard error in nats of what the random signs estimate: nan for one probe, 0 for the exact
        trace. The error of the ODE, which the tolerance bounds step by step, is not in it.
        """
        parts = {
            "nats": self.found.nats,
            "trace_error": self.found.error,
            "exact_nats": self.found.exact,
            "bits": self.found.bits,
            "exact_bits": self.found.exact_bits,
        }
        numbers = {name: part.tolist() for name, part in parts.items()}
        return [
            {"on": self.on, "point": point} | {name: values[i] for name, values in numbers.items()}
            for i, point in enumerate(self.index.tolist())
        ]

    def summary(self, level: float = 0.95) -> dict[str, Any]:
        """Means over the points with their intervals; missing is exact − network, point by point."""
        found = self.found
        parts = {
            "nats": found.nats,
            "exact_nats": found.exact,
            "bits": found.bits,
            "exact_bits": found.exact_bits,
            "missing_nats": found.exact - found.nats,
            "missing_bits": found.bits - found.exact_bits,
        }
        out: dict[str, Any] = {"on": self.on, "n": len(self.index), "nfe": found.nfe, "trace": found.trace}
        for name, part in parts.items():
            out |= mean_interval(part, level).flat(name)
        return out

    def sentence(self, level: float = 0.95) -> str:
        """Bits for each value, of the network and of the optimum, and how much likelier the points are to which."""
        found = self.found
        network, optimum = (_words(mean_interval(part, level)) for part in (found.bits, found.exact_bits))
        more = bool(found.nats.mean() > found.exact.mean())
        by = _words(mean_interval(found.nats - found.exact if more else found.exact - found.nats, level))
        than = f"{by} nats a point {'more' if more else 'less'} than the optimum"
        return f"{self.on}: {network} bits a value, the optimum {optimum}; {than}"


def _words(interval: Interval) -> str:
    return f"{float(interval.value):.4g} [{float(interval.low):.4g}, {float(interval.high):.4g}]"


def densities(
    model: Model,
    D: OptimalDenoiser,
    *,
    held_out: Dataset | None = None,
    n: int = 64,
    sigma_min: float = 0.1,
    sigma_max: float | None = None,
    probes: int | Literal["exact"] = 1,
    tolerance: float = 1e-5,
    seed: int = 0,
    progress: bool = False,
) -> list[Densities]:
    """On the data, and on held-out points if there are any, which are looked at first.

    Args:
        n: points drawn from each, with replacement.
        sigma_min, sigma_max, probes, tolerance, seed, progress: as for `log_density`.

    Raises:
        ValueError: n < 1, or more than fits into memory; as for `log_density` and `check_held_out`.
    """
    _require_points(n, D, probes)
    places: list[Apart | None] = [None]
    places += [] if held_out is None else [check_held_out(D, held_out, progress=progress)]
    out = []
    for apart in places:
        index, x0, eps = draw_indexed(D, None if apart is None else apart.points, n, stream(seed, "evaluation"))
        remarks: tuple[str, ...] = ()
        if apart is not None:
            require_drawn(D, apart, index)
            remarks = (*apart.remarks, *seen_in_training(model, D, apart.points))
        found = log_density(
            model,
            x0 + sigma_min * eps,
            D,
            sigma_min=sigma_min,
            sigma_max=sigma_max,
            probes=probes,
            seed=seed,
            tolerance=tolerance,
            step=_GREY if D.points.bytes else 1.0,
            progress=progress,
        )
        if not math.isfinite(float(found.nats.sum())):
            raise ValueError(f"the log density of {model.name} is not finite")
        out.append(Densities("data" if apart is None else "held-out", index, found, remarks))
    return out


def planned(
    model: Model,
    D: OptimalDenoiser,
    *,
    n: int,
    places: int = 1,
    sigma_min: float = 0.1,
    sigma_max: float | None = None,
    probes: int | Literal["exact"] = 1,
    tolerance: float = 1e-5,
) -> float:
    """Seconds that `densities` will take for n points of each of so many places, about: a row of the network is timed.

    Raises:
        ValueError: as for `densities`.
    """
    _require_points(n, D, probes)
    high = min(model.sigma_max, _RANGE[1]) if sigma_max is None else sigma_max
    require_asked(sigma_min, high, probes, tolerance)
    middle = math.sqrt(max(model.sigma_min, sigma_min, _RANGE[0]) * min(model.sigma_max, high))
    shape = (max(1, min(model.batch, n)), *D.event)
    unit = torch.randn(shape, generator=fixed_generator("queries"), dtype=torch.float32).to(D.points.device)
    evaluations = _EVALUATIONS * math.log(high / sigma_min) / _SPAN * (1e-3 / tolerance) ** _OF_TOLERANCE
    calls = _OWN + _DERIVATIVE * (D.points.dim if probes == "exact" else probes)
    return n * places * evaluations * calls * seconds_of_a_row(model, middle * unit, middle)


def _require_points(n: int, D: OptimalDenoiser, probes: int | Literal["exact"]) -> None:
    n = require_whole("n", n)
    # The points, their noise, and states, velocities and signs in float64.
    require_room("n", n, 8 * D.points.dim)
    if probes != "exact":
        require_room("probes", probes, n * D.points.dim)
