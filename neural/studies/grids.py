"""Does a noise grid designed on the optimum help a network? The shipped networks on designed grids and on EDM's.

Every network is sampled from the same fresh noises, with every solver and number of calls, on

    karras              EDM's grid: ρ = 7, from 80 to 0.002, with which these networks are sampled
    karras-raised       the same to the last level of the landings grid
    karras-tuned        the same to that of seven last levels with which the network ends nearest to its own ends
    landings, gaussian, path-kl, rescaled-entropy
                        designed on the optimum: `optimal.design`; the first two for this solver. Where the gaussian one
                        ends below the network's range it is shrunk into it, in log σ
    own-path-kl, own-rescaled-entropy
                        designed on the network's own denoising loss, down to where that is a near copy's

and held to its own ends, to the exact flow's and to the data: `neural.grids`. What is designed or tuned is so on
noises of the stream "design", and judged on those of "evaluation-noises". The optimum itself, sampled alike, is beside.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from optimal import Dataset, OptimalDenoiser, karras
from optimal.randomness import stream
from optimal.samplers import Solver, solver_of
from optimal.schedules import (
    Curve,
    Starts,
    curve_of,
    entropic_grid,
    gaussian_grid,
    landings_grid,
    path_kl_grid,
    starts_of,
)
from optimal.theories import Wiener

from ..checkpoint import replace_text
from ..config import Distillation, Experiment
from ..curves import loss_curve, near_level
from ..grids import Followed, followed, on_grids
from ..model import open_model
from ..pretrained import recipe
from ..sampled import NEAR, UnitNoises
from ..transport import transport_interval
from .plan import Cell, Place, Study, Tables
from .shelf import table

__all__ = ["GRIDS", "Grids", "network_grids", "within_range"]

_SOLVERS: dict[str, tuple[str, dict[str, Any]]] = {
    "euler": ("euler", {}),
    "heun": ("heun", {}),
    "dpm_solver_pp 2": ("dpm_solver_pp", {"order": 2}),
    "dpm_solver_pp 3": ("dpm_solver_pp", {"order": 3}),
}
_LAST = (0.002, 0.01, 0.05, 0.1, 0.2, 0.4, 0.8)
"""Last levels above 0 that EDM's grid is tried with."""
_BASES = ("karras", "karras-tuned")
"""What the others are compared with, paired by noises."""
_DIGITS = 5
"""Of numbers in the table."""
_COLUMNS = ("own_same", "own_distance", "flow_same", "wasserstein")


@dataclass(frozen=True)
class Grids:
    """What one cell follows from.

    Attributes:
        network: one that comes with the toolkit.
        training: of it.
        optimum: whether the optimum of its data is sampled in its place.
        solvers: by name and order.
        calls: at most so many of the network: a step takes one, of Heun's two, but for the last.
        samples: noises that are sampled from.
        starts: trajectories that landings grids are designed on.
        tuned: noises that the last level of EDM's grid is tuned on.
        steps: of Heun's, to the network's own ends.
        seed: of all that is drawn.
    """

    network: str
    training: Experiment | Distillation
    optimum: bool = False
    solvers: tuple[str, ...] = tuple(_SOLVERS)
    calls: tuple[int, ...] = (4, 6, 8, 12)
    samples: int = 256
    starts: int = 128
    tuned: int = 64
    steps: int = 64
    seed: int = 0

    def data(self) -> dict[str, Dataset]:
        """What the network was trained on."""
        return {"data": recipe(self.network).data()}

    def work(self, place: Place) -> Tables:
        """Design and measure."""
        D = OptimalDenoiser(self.data()["data"])
        model = open_model(D, name="optimum") if self.optimum else open_model(f"pretrained:{self.network}")
        judged = followed(model, D, n=self.samples, seed=self.seed, steps=self.steps, progress=place.progress)
        tried = UnitNoises(D, self.tuned, self.seed, generator=stream(self.seed, "design"))
        shown = followed(model, D, steps=self.steps, noises=tried, progress=place.progress)
        design = _Designs(self, shown, place.progress)
        rows = [
            row
            for name in self.solvers
            for calls in self.calls
            for row in self._rows(place, judged, design, name, calls)
        ]
        return {"grids": rows, "ends": self._ends(judged)}

    def _rows(self, place: Place, judged: Followed, design: _Designs, name: str, calls: int) -> list[dict[str, Any]]:
        """Of one solver and number of calls; kept, so that a cell that was stopped goes on with the next."""
        path = place.folder / f"{name.replace(' ', '-')}-{calls}.json"
        if path.exists():
            return json.loads(path.read_text())
        word, options = _SOLVERS[name]
        solver, n = solver_of(word, options), (calls + 1) // 2 if word == "heun" else calls
        grids = design.grids(n, solver)
        found = on_grids(judged, grids, solver=solver, against=_BASES, seed=self.seed, progress=place.progress)
        first = {"solver": name, "calls": calls, "n": n}
        rows = [_rounded(first | row | {"levels": grids[row["grid"]].tolist()}) for row in found]
        place.folder.mkdir(parents=True, exist_ok=True)
        replace_text(path, json.dumps(rows))
        return rows

    def _ends(self, judged: Followed) -> list[dict[str, Any]]:
        """The network's own ends beside as many draws of the data."""
        drawn = judged.D.take(judged.D.drawn(self.samples, stream(self.seed, "evaluation")))
        floor = transport_interval(drawn, judged.D, generator=stream(self.seed, "projections"))
        columns = judged.own.columns(judged.D, seed=self.seed)
        row = {
            name: value for column in ("same", "wasserstein") for name, value in columns[column].flat(column).items()
        }
        return [_rounded({"ends": "own"} | row), _rounded({"ends": "draws of the data"} | floor.flat("wasserstein"))]


class _Designs:
    """The grids of any number of steps and solver."""

    def __init__(self, config: Grids, shown: Followed, progress: bool):
        D, model, self.first = shown.D, shown.model, shown.own.first
        self.shown, self.progress, self.lowest = shown, progress, model.sigma_min
        seed, high = config.seed, self.first
        self.starts: Starts = starts_of(D, config.starts, seed, sigma_max=high, purpose="design", progress=progress)
        self.values, self.counts = Wiener(D, progress=progress).spectrum()
        self.curve: Curve = curve_of(D, sigma_max=high, generator=stream(seed, "design", 2), progress=progress)
        self.own: Curve | None = None
        self.own_last = 0.0
        if not config.optimum:
            self.own = loss_curve(model, D, sigma_max=high, generator=stream(seed, "design", 4), progress=progress)
            self.own_last = near_level(self.own, NEAR * D.standard_deviation * math.sqrt(math.prod(D.event)))

    def grids(self, n: int, solver: Solver) -> dict[str, Tensor]:
        """By name, EDM's first."""
        high, last = self.first, self.own_last
        landings = landings_grid(self.starts, n, solver=solver, progress=self.progress)
        found = {
            "karras": karras(n, sigma_max=high),
            "karras-raised": karras(n, sigma_min=float(landings[-2]), sigma_max=high),
            "karras-tuned": self._tuned(n, solver),
            "landings": landings,
            "gaussian": gaussian_grid(self.values, n, solver=solver, sigma_max=high, counts=self.counts),
            "path-kl": path_kl_grid(self.curve, n),
            "rescaled-entropy": entropic_grid(self.curve, n, rescaled=True),
        }
        if self.own is not None:
            found["own-path-kl"] = path_kl_grid(self.own, n, sigma_min=last)
            found["own-rescaled-entropy"] = entropic_grid(self.own, n, rescaled=True, sigma_min=last)
        return {name: within_range(levels, self.lowest) for name, levels in found.items()}

    def _tuned(self, n: int, solver: Solver) -> Tensor:
        tried = {f"{last:g}": karras(n, sigma_min=last, sigma_max=self.first) for last in _LAST}
        rows = on_grids(self.shown, tried, solver=solver)
        best = min(rows, key=lambda row: row["own_distance"])
        return tried[best["grid"]]


def within_range(levels: Tensor, lowest: float) -> Tensor:
    """A grid that would leave the network's range, shrunk in log σ towards its first level so that it ends there."""
    first, last = float(levels[0]), float(levels[-2])
    if last >= lowest or last == first:
        return levels
    power = math.log(lowest / first) / math.log(last / first)
    return torch.cat([first * (levels[:-1] / first) ** power, levels[-1:]])


def network_grids() -> dict[str, np.ndarray]:
    """The shipped table as arrays, of which nothing is computed again.

    Returns:
        models (M,) names of cells; for each, as digits_solvers and so on: network, its name; solvers (S,), calls (C,),
        grids (G,); nfe (S, C); own_same, own_distance, flow_same and wasserstein (S, C, G, 3), value and interval,
        own_same_change and so on (S, C, G, 3), 0 of karras, own_same_less_karras-tuned and so on, 0 of karras-tuned, of
        cells that have measured them; last (S, C, G), last level above 0; ends (3,), wasserstein of the model's own
        ends, flow (3,), their share on the flow's point, and draws (3,), wasserstein of as many draws of the data.
    """
    cells = table("grids")
    arrays: dict[str, np.ndarray] = {"models": np.array([*cells])}
    for model, cell in cells.items():
        rows = cell.tables["grids"]
        names = {word: [*dict.fromkeys(row[word] for row in rows)] for word in ("solver", "calls", "grid")}
        shape = [len(values) for values in names.values()]
        found: dict[str, np.ndarray] = {
            f"{word.removesuffix('s')}s": np.array(values) for word, values in names.items()
        }
        found["nfe"] = np.array([row["nfe"] for row in rows]).reshape(shape)[..., 0]
        found["last"] = np.array([row["last"] for row in rows]).reshape(shape)
        found["network"] = np.array(cell.config["network"])
        pairs = [f"{column}_{word}" for word in ("change", f"less_{_BASES[1]}") for column in _COLUMNS]
        for column in (*_COLUMNS, *(pair for pair in pairs if any(pair in row for row in rows))):
            values = [[row.get(f"{column}{end}", 0.0) for end in ("", "_low", "_high")] for row in rows]
            found[column] = np.array(values).reshape(*shape, 3)
        own, draws = cell.tables["ends"]
        for name, row, column in (
            ("ends", own, "wasserstein"),
            ("flow", own, "same"),
            ("draws", draws, "wasserstein"),
        ):
            found[name] = np.array([row[f"{column}{end}"] for end in ("", "_low", "_high")])
        arrays |= {f"{model}_{name}": values for name, values in found.items()}
    return arrays


def _rounded(row: Mapping[str, Any]) -> dict[str, Any]:
    def short(value: Any) -> Any:
        if isinstance(value, list):
            return [short(part) for part in value]
        return float(f"{value:.{_DIGITS}g}") if isinstance(value, float) else value

    return {name: short(value) for name, value in row.items()}


def _cells() -> tuple[Cell, ...]:
    def cell(name: str, network: str, seconds: float, **values: Any) -> Cell:
        config = Grids(network, recipe(network).config, **values)
        return Cell(name, config, config.data, config.work, seconds)

    many: dict[str, Any] = {"samples": 512, "tuned": 128, "steps": 128}
    one: dict[str, Any] = {"solvers": ("dpm_solver_pp 3",)}
    some: dict[str, Any] = one | {"calls": (4, 8), "samples": 192}
    more: dict[str, Any] = {"solvers": ("heun", "dpm_solver_pp 3"), "calls": (8, 18), "samples": 192}
    return (
        cell("digits", "digits", 400, **many),
        cell("digits-optimum", "digits", 150, optimum=True, **many, **one),
        cell("emoji-16", "emoji-16", 250, **some),
        cell("emoji-16-dit", "emoji-16-dit", 250, **some),
        cell("faces", "faces", 150, **some),
        cell("digits-18", "digits", 300, **many, calls=(18,)),
        cell("emoji-16-18", "emoji-16", 450, **more),
        cell("emoji-16-dit-18", "emoji-16-dit", 400, **more),
        cell("faces-18", "faces", 300, **more),
    )


GRIDS = Study(
    "grids",
    "Does a noise grid designed on the optimum help a network?",
    _cells(),
    (("grids", "own_same"), ("grids", "wasserstein")),
)
