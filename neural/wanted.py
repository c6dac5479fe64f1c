"""Which optimum models are to be held to, and as what they are asked: a class, guided how much, under which group.

`--label`, `--guidance`, `--interval` and `--orbit` of `python -m neural`: what they make of the data, of a network and
of the optimum, so that network and optimum are always asked the same.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch

from optimal import Dataset, Guided, guided
from optimal.datasets.derive import derive

from .classes import of_label
from .model import Model, open_model
from .teachers import optimum_of

__all__ = ["Wanted", "unguided", "with_images"]

_TURNS = 4
_MOST = 2**32
"""Bytes that the images under quarter turns may take: they are held in memory."""


@dataclass(frozen=True)
class Wanted:
    """What is asked of every model, and of the optimum.

    Attributes:
        label: the class; None for all data.
        guidance: w of D + w (D_c − D), c the label; None for none.
        interval: (lo, hi), guided for lo < σ <= hi; None for everywhere.
        orbit: the group under which the data have their images; None for as they are.

    Raises:
        ValueError: guidance without a label, an interval without guidance; as for `optimal.guided`.
    """

    label: int | None = None
    guidance: float | None = None
    interval: tuple[float, float] | None = None
    orbit: Literal["flip", "quarter-turns"] | None = None

    def __post_init__(self) -> None:
        if self.guidance is not None and self.label is None:
            raise ValueError("--guidance is towards a class: it needs --label")
        if self.interval is not None and self.guidance is None:
            raise ValueError("--interval is of guidance: it needs --guidance")
        if self.guidance is not None:
            guided(lambda x, sigma: x, lambda x, sigma: x, self.guidance, self.interval)

    @classmethod
    def of(cls, command: Any) -> Wanted:
        """What the options of a command say; those that it has."""
        names = (field.name for field in dataclasses.fields(cls))
        return cls(**{name: getattr(command, name) for name in names if hasattr(command, name)})

    def points(self, data: Dataset) -> Dataset:
        """The data, of the class, with their images.

        Raises:
            ValueError: data without such a class; points that the group cannot move.
        """
        own = data if self.label is None else of_label(data, self.label)
        return own if self.orbit is None else with_images(own, self.orbit)

    def network(self, model: Model) -> Model:
        """The model of the class, and guided.

        Raises:
            ValueError: a network that takes no labels; guidance of a student.
        """
        if self.label is None:
            return model
        given = model.given(self.label)
        if self.guidance is None:
            return given
        if model.meant is not None:
            raise ValueError(f"{model.name} is a student, whose answers are points and no means: it is not guided")
        between = guided(given, model, self.guidance, self.interval)
        return dataclasses.replace(model, denoiser=between, clip=None, arguments={})

    def optimum(self, data: Dataset, device: torch.device) -> Guided | None:
        """The optimum guided as much, of data of all classes; None without guidance."""
        if self.guidance is None:
            return None
        whole = data if self.orbit is None else with_images(data, self.orbit)
        pair = optimum_of(self.points(data), device), optimum_of(whole, device)
        return guided(*pair, self.guidance, self.interval)

    def told(self) -> dict[str, Any]:
        """What was given, for JSON."""
        return {name: value for name, value in dataclasses.asdict(self).items() if value is not None}

    def sentences(self) -> list[str]:
        """What network and optimum are, where they are not those of all data as they are."""
        found = []
        if self.guidance is not None:
            where = "" if self.interval is None else f" for {self.interval[0]:g} < σ <= {self.interval[1]:g}"
            found.append(
                f"Network and optimum are guided: D + w (D_c − D), w = {self.guidance:g}{where}, D_c of class "
                f"{self.label} and D of all data. What is compared is the same formula of both"
            )
        elif self.label is not None:
            found.append(f"Network and optimum are those of class {self.label}")
        if self.orbit is not None:
            found.append(f"The optimum is that of the data with their images under {self.orbit}")
        return found


def unguided(model: Model) -> Model:
    """The network given its label, of one that is guided; any other as it is."""
    given = model.denoiser.conditional if isinstance(model.denoiser, Guided) else model
    # Of the optimum both are no `Model`: whatever it is guided from, it is in the right convention.
    return given if isinstance(given, Model) else open_model(given, name=model.name)


def with_images(data: Dataset, group: Literal["flip", "quarter-turns"]) -> Dataset:
    """The data with the images of every point under a group: `optimal.orbit` of it is their optimum, in this order.

    Held as points of their own, for what asks more than an orbit knows: the exact flow, neighbours, coverage.

    Raises:
        ValueError: points that are no images, or not square where they are turned; more of them than memory holds.
    """
    if len(data.event) != 3:
        raise ValueError(f"{group} needs images of shape (C, H, W), the points of {data.name} have shape {data.event}")
    name = f"{data.name} under {group}"
    both = derive(data, xflip=True)
    if group == "flip":
        return Dataset(name, both.array, both.labels, data.licence, data.source, names=both.names)
    if data.event[1] != data.event[2]:
        raise ValueError(f"quarter-turns need square images, those of {data.name} have shape {data.event}")
    if 2 * _TURNS * data.array.nbytes > _MOST:
        raise ValueError(
            f"the images of {data.name} under quarter-turns take {2 * _TURNS * data.array.nbytes / 2**30:.3g} GB: give "
            "fewer points, --option n=…"
        )
    halves = np.split(both.array, 2)
    turned = np.concatenate([np.rot90(half, k, axes=(-2, -1)) for half in halves for k in range(_TURNS)])
    labels = None if both.labels is None else np.concatenate([both.labels] * _TURNS)
    names = None
    if both.names is not None:
        half = len(data)
        sides = (both.names[:half], both.names[half:])
        turns = ("", *(f" turned by {90 * k}°" for k in range(1, _TURNS)))
        names = tuple(f"{each}{turn}" for side in sides for turn in turns for each in side)
    return Dataset(name, turned, labels, data.licence, data.source, names=names)
