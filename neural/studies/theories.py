"""What do the networks that come with the toolkit do instead of the optimum? Each held to every theory, level by level.

At twelve levels around the border, on noisy points of the data and on the network's own trajectory: how much of the
network's deviation from the optimum each theory accounts for (`neural.explain`), with the parameter that suits the
network best at each level (`neural.theories`), chosen on other draws; and where the same noises end under network,
optimum and theories (`neural.endings`).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from optimal import Dataset, OptimalDenoiser, seeking_refining_border
from optimal.datasets import to_uint8
from optimal.randomness import fixed_generator

from ..config import Distillation, Experiment
from ..ended import Endings, endings
from ..explained import Explained, explain
from ..model import open_model
from ..places import default_sigmas
from ..pretrained import recipe
from ..theories import Fitted, Tried, families, theories_of
from .plan import Cell, Place, Study, Tables

__all__ = ["THEORIES", "Theories"]

_SHOWN = 3
"""Noises whose ends are kept as pictures."""
_DIGITS = 5
"""Of numbers in the table."""


@dataclass(frozen=True)
class Theories:
    """What one cell follows from.

    Attributes:
        network: one that comes with the toolkit.
        training: of it.
        draws: points at each level that theories are judged on.
        tried: points at each level that parameters are chosen on.
        noises: that are sampled from.
        seed: of all that is drawn.
        values: that are tried.
    """

    network: str
    training: Experiment | Distillation
    draws: int = 256
    tried: int = 64
    noises: int = 48
    seed: int = 0
    values: Tried = field(default_factory=Tried)

    def data(self) -> dict[str, Dataset]:
        """What the network was trained on."""
        return {"data": recipe(self.network).data()}

    def work(self, place: Place) -> Tables:
        """Choose parameters, and measure."""
        D = OptimalDenoiser(self.data()["data"])
        model = open_model(f"pretrained:{self.network}")
        # From the draws of what is kept, whose levels go by it.
        border = seeking_refining_border(D, progress=place.progress, draws=256, generator=fixed_generator())
        sigmas = default_sigmas(D, border.sigma, (model.sigma_min, model.sigma_max))
        held: list[dict[str, Any]] = []
        nearest: list[dict[str, Any]] = []
        chosen: list[dict[str, Any]] = []
        ends: list[dict[str, Any]] = []
        pictures: list[dict[str, Any]] = []
        known = families(D, tried=self.values, progress=place.progress)
        for on in ("data", "trajectory"):
            going = on == "trajectory"
            options: dict[str, Any] = {"sigmas": sigmas, "seed": self.seed, "progress": place.progress}
            theories = theories_of(model, D, known=known, trajectory=going, draws=self.tried, **options)
            for name, theory in theories.items():
                if isinstance(theory, Fitted):
                    pairs = zip(theory.sigmas.tolist(), theory.values, strict=True)
                    chosen += [
                        {"on": on, "theory": name, "sigma": s, "value": v, "cut": v in theory.cut} for s, v in pairs
                    ]
            found = explain(model, D, theories, on=on if going else None, draws=self.draws, **options)
            held += found.rows()
            nearest += _nearest(found)
            if going:
                last = endings(model, D, theories, n=self.noises, seed=self.seed, progress=place.progress)
                ends = [row | {"sentence": last.sentence()} for row in last.rows()]
                pictures = _pictures(last)
        where = [{"border": border.sigma, "low": border.low, "high": border.high}]
        tables = {"held": held, "nearest": nearest, "chosen": chosen, "endings": ends, "border": where}
        tables["pictures"] = pictures
        return {name: [_rounded(row) for row in rows] for name, rows in tables.items()}


def _nearest(found: Explained) -> list[dict[str, Any]]:
    """Which theories no other is surely nearer to the network than, by level, and the sentences."""
    rows: list[dict[str, Any]] = [
        {"on": found.on, "sigma": sigma, "nearest": found.best(sigma)[0]} for sigma in found.sigmas
    ]
    return rows + [{"on": found.on, "sentence": sentence} for sentence in found.sentences()]


def _pictures(last: Endings) -> list[dict[str, Any]]:
    """What the first few noises end in, as bytes; the network first."""
    rows: list[dict[str, Any]] = []
    for name, ends in {"network": last.network, **last.others}.items():
        for i in range(_SHOWN):
            image = to_uint8(ends[i].clamp(-1, 1)).flatten().tolist()
            rows.append({"theory": name, "noise": i, "shape": list(ends.shape[1:]), "image": image})
    return rows


def _rounded(row: dict[str, Any]) -> dict[str, Any]:
    return {key: float(f"{v:.{_DIGITS}g}") if isinstance(v, float) else v for key, v in row.items()}


def _cell(network: str, seconds: float, **options: Any) -> Cell:
    config = Theories(network, recipe(network).config, **options)
    return Cell(network, config, config.data, config.work, seconds)


THEORIES = Study(
    "theories",
    "what networks do instead of the optimum: how much of it each theory accounts for, at which noise level",
    (
        _cell("digits", 400),
        _cell("faces", 600, draws=32, tried=16, noises=12),
        _cell("emoji-16", 1000, draws=64, tried=16, noises=24),
        _cell("emoji-16-dit", 1000, draws=64, tried=16, noises=24),
    ),
    (("endings", "pearson"),),
)
