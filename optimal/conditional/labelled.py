"""The optimum of augmented data given a label for every row: each row knows the images of the points of its own class.

A permutation of pixels keeps the class of a point. With D_c,G the optimum of the points of class c with their images,
row b is D_c,G(x_b, σ_b), c its label: the orbit of `OptimalDenoiser.given(c)`, asked of the rows of that class.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float, Int, Num
from torch import Tensor

from ..posterior import Posterior, joined
from ..query import Levels, per_row, require_rows
from ..rowwise import GivenLabels, of_class
from .base import Orbit

if TYPE_CHECKING:
    from ..denoiser import OptimalDenoiser

__all__ = ["LabelledOrbit"]


class LabelledOrbit:
    """E[x0 | x, c] over all images of the points of class c, with a label for every row: a `Denoiser` of B rows.

    Args:
        given: the optimum with its labels.
        orbit: makes the orbit of the optimum of a class.

    Attributes:
        labels: (B,) int64.
        event: shape of one point.
        log_weights: (|G|,) float64, log P(g), normalised.
    """

    def __init__(self, given: GivenLabels, orbit: Callable[[OptimalDenoiser], Orbit]):
        self.given, self.event, self.labels = given, given.event, given.labels
        self._orbits = {label: orbit(of_class(given.D, label)) for label in given.labels.unique().tolist()}
        self._whole = orbit(given.D)
        self.log_weights = self._whole.log_weights

    def __repr__(self) -> str:
        return f"LabelledOrbit({self._whole!r}, {len(self.labels)} labels)"

    def __len__(self) -> int:
        return len(self._whole)

    def __call__(self, x: Num[Tensor, "B *event"], sigma: Levels) -> Float[Tensor, "B *event"]:
        """Row b is E[x0 | x_b, c] over all images of the points of its class c.

        Raises:
            ValueError: as for an `Orbit`; another number of rows than of labels.
        """
        return self.posterior(x, sigma).mean

    def score(self, x: Num[Tensor, "B *event"], sigma: Levels) -> Float[Tensor, "B *event"]:
        """∇ log p(x | c; σ) = (E[x0 | x, c] − x)/σ², (B, *event)."""
        parts = [orbit.score(*own) for orbit, own in self._parts(x, sigma)]
        return torch.cat(parts)[self._back(x)] if parts else x

    def posterior(self, x: Num[Tensor, "B *event"], sigma: Levels) -> Posterior:
        """p(j, g | x, c) of every row; `top_index` is k = g N + j, j counted in all data; see `Orbit.posterior`."""
        posts = [orbit.posterior(*own) for orbit, own in self._parts(x, sigma)]
        return joined(posts).at(self._back(x)) if posts else self._whole.posterior(x, sigma)

    def element_weights(self, x: Num[Tensor, "B *event"], sigma: Levels) -> Float[Tensor, "B G"]:
        """P(g | x, c), (B, |G|) float64."""
        parts = [orbit.element_weights(*own) for orbit, own in self._parts(x, sigma)]
        return torch.cat(parts)[self._back(x)] if parts else self._whole.element_weights(x, sigma)

    def take(self, index: Int[Tensor, " n"]) -> Float[Tensor, "n *event"]:
        """The images at `index`, g y_j for k = g N + j."""
        return self._whole.take(index)

    def _parts(self, x: Tensor, sigma: Levels) -> list[tuple[Orbit, tuple[Tensor, Tensor]]]:
        """The orbit of each class that has rows, with them and their levels."""
        require_rows(x, self.event, len(self.labels), "labels")
        levels, labels = per_row("sigma", sigma, len(x), x.device, graph=True), self.labels.to(x.device)
        rows = [(label, (labels == label).nonzero().squeeze(1)) for label in self._orbits]
        return [(self._orbits[label], (x[at], levels[at])) for label, at in rows]

    def _back(self, x: Tensor) -> Tensor:
        """Where the rows, class after class, belong."""
        return self.labels.to(x.device).argsort(stable=True).argsort()
