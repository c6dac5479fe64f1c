"""The conventions in which a network can be asked: those of `neural.adapters`, multiples of sigma, ranges of values."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from optimal import OptimalDenoiser
from optimal.denoiser import Denoiser
from optimal.process import EDM, VP

from .adapters import Adapted, Tabulated, from_ddpm, from_edm, from_edm_raw, from_flow, from_prediction
from .adapters.prediction import Predicting
from .adapters.ranges import OURS, values_of

__all__ = ["UNITS", "Multiple", "conventions"]

UNITS = (2.0, 0.5, 10.0, 0.1)
"""Multiples of sigma."""
_RANGES = (OURS, (0.0, 1.0), (0.0, 255.0))


@dataclass(frozen=True)
class Multiple:
    """A denoiser asked at a multiple of sigma."""

    denoiser: Denoiser
    factor: float

    def __call__(self, x: Tensor, sigma: Any) -> Tensor:
        return self.denoiser(x, self.factor * sigma)


def conventions(denoiser: Any, D: OptimalDenoiser) -> Iterator[tuple[str, Callable[[], Denoiser]]]:
    """The conventions in which the network of a denoiser can be asked, by the line that says so.

    Each of them with the values that the denoiser has, of images with [−1, 1], [0, 1] and [0, 255] too. The table of
    steps and the process are the denoiser's own where it has one, and those of DDPM and VP where not.

    Args:
        denoiser: what an adapter made, a module, or a function, which is then taken for a network.
        D: the optimum of the data; its standard deviation is one of the σ_d that are tried.
    """
    own = denoiser.values if isinstance(denoiser, Adapted) else values_of(OURS)
    for factor in UNITS:
        yield f"{factor:g} sigma", functools.partial(Multiple, denoiser, factor)
    given = tuple(own[0] + side * own[1] for side in (-1, 1))
    for low, high in dict.fromkeys((given, *_RANGES) if len(D.event) == 3 else (given,)):
        said = "" if (low, high) == OURS else f", value_range=({low:g}, {high:g})"
        for call, make, options in _calls(denoiser, D, (high - low) / 2):
            yield f"{call[:-1]}{said})", functools.partial(make, value_range=(low, high), **options)


def _calls(
    denoiser: Any, D: OptimalDenoiser, half: float
) -> Iterator[tuple[str, Callable[..., Denoiser], dict[str, Any]]]:
    """A call as one writes it, what makes the denoiser, and the options that go without saying."""
    adapted = isinstance(denoiser, Adapted)
    network: Any = denoiser.asked.network if adapted else denoiser
    options: dict[str, Any] = denoiser.asked.arguments | {"order": denoiser.asked.order} if adapted else {}
    broadcast = adapted and denoiser.asked.broadcast
    timed, noised = options | {"broadcast_time": broadcast}, options | {"broadcast_sigma": broadcast}
    kept = torch.cumprod(1 - torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64), 0)
    whole = False
    if isinstance(denoiser, Tabulated):
        kept, whole = denoiser.kept, denoiser.whole_steps
    for kind in ("eps", "v", "x0"):
        name = f'from_ddpm(net, alphas_cumprod, "{kind}")'
        yield name, functools.partial(from_ddpm, network, kept, kind, whole_steps=whole), timed
    for scale in (1, 1000):
        for at in (0, 1):
            said = "".join([", data_at=1" if at else "", f", time_scale={scale}" if scale > 1 else ""])
            yield (
                f"from_flow(net{said})",
                functools.partial(from_flow, network, data_at=at, time_scale=scale),
                timed,
            )
    yield "from_edm(net)", functools.partial(from_edm, network), noised
    for size in sorted({0.5, 1.0, _rounded(half * float(D.standard_deviation)) or 1.0}):
        name = f"from_edm_raw(net, sigma_data={size:g})"
        yield name, functools.partial(from_edm_raw, network, sigma_data=size), noised
    tried: dict[tuple[Any, float], str] = {(VP(), 1.0): "VP()", (EDM(math.inf), 1.0): "EDM(math.inf)"}
    if isinstance(denoiser, Predicting) and not denoiser.flows:
        at, scale = denoiser.process, denoiser.time_scale
        tried.setdefault((at, scale), f"{at!r}{f', time_scale={scale:g}' if scale != 1 else ''}")
    for (process, scale), said in tried.items():
        for kind in ("eps", "score") if process == EDM(math.inf) else ("eps", "score", "v", "x0"):
            name = f'from_prediction(net, "{kind}", process={said})'
            yield name, functools.partial(from_prediction, network, kind, process=process, time_scale=scale), timed


def _rounded(value: float) -> float:
    return float(f"{value:.3g}")
