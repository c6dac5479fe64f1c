"""What all orbits share: how the points with their images are numbered, and what follows from the posterior over them.

The N points y_j and the elements g_0, g_1, … give the points g y_j, numbered k = g N + j: all points under the first
element, then all under the second, as `load(…, xflip=True)` appends mirror images. No such row is ever stored.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import torch
from jaxtyping import Float, Int, Num
from torch import Tensor

from ..denoiser import OptimalDenoiser, Posterior
from ..points import Points, drawn_places
from ..query import Levels, beside, levels

__all__ = ["Orbit"]


class Orbit(ABC):
    """The optimum of data with their images under permutations of the values; made by `orbit`.

    Attributes:
        D: the optimum of the data themselves.
        event: shape of one point.
        log_weights: (|G|,) float64, log P(g), normalised.
    """

    def __init__(self, D: OptimalDenoiser, log_weights: Tensor):
        self.D, self.event, self.log_weights = D, D.event, log_weights

    def __len__(self) -> int:
        return len(self.log_weights) * len(self.D)

    def __call__(self, x: Num[Tensor, "B *event"], sigma: Levels) -> Float[Tensor, "B *event"]:
        """E[x0 | x] over all images of all points.

        Args:
            x: (B, *event) noisy points.
            sigma: noise level, > 0: float, () or (B,).

        Raises:
            ValueError: sigma not finite, not positive or of another shape; x of another event shape or not finite.
        """
        return self.posterior(x, sigma).mean

    @abstractmethod
    def posterior(self, x: Num[Tensor, "B *event"], sigma: Levels) -> Posterior:
        """Mean, log density, entropy, leader and variance of p(j, g | x); `top_index` is k = g N + j.

        No bound and no estimate of the error of the mean is known: both are nan.
        """

    @abstractmethod
    def element_weights(self, x: Num[Tensor, "B *event"], sigma: Levels) -> Float[Tensor, "B G"]:
        """P(g | x), (B, |G|) float64: under which element x is likely to have come about."""

    @abstractmethod
    def entropy_of_points(self, x: Num[Tensor, "B *event"], sigma: Levels) -> Float[Tensor, " B"]:
        """Entropy of p(j | x) = Σ_g p(j, g | x), (B,) float64, nats: of the points, whichever way they lie.

        That over (j, g), `posterior(x, sigma).entropy`, counts a point that is its own image once for every element
        that leaves it as it is, as data do that hold it twice; it then does not fall below log 2.
        """

    @abstractmethod
    def nearest(self, x: Num[Tensor, "B *event"]) -> Int[Tensor, " B"]:
        """The image k = g N + j nearest to each x, (B,), of those whose element has a weight."""

    @property
    @abstractmethod
    def mean(self) -> Float[Tensor, " *event"]:
        """E x0, (*event) float64."""

    @abstractmethod
    def _moved(self, rows: Tensor, element: Tensor) -> Tensor:
        """g y of the rows y, (n, *event), each under its own element g, (n,) int64."""

    def drawn(self, count: int, generator: torch.Generator) -> Int[Tensor, " n"]:
        """Which images are drawn, every point and element as often as it is likely: (count,) int64, on the CPU."""
        own = self.log_weights.cpu()
        points = self.points
        if points.prior is None and not points.shared and bool((own == own[0]).all()):
            # As of data that hold the images: of all points, or of those of a class.
            most, device = len(own) * points.size, generator.device
            found = torch.randint(most, (count,), generator=generator, dtype=torch.int64, device=device).cpu()
            return found // points.size * len(self.D) + points.outer(found % points.size)
        element = drawn_places(own, count, generator)
        return element * len(self.D) + self.D.drawn(count, generator)

    def take(self, index: Int[Tensor, " n"]) -> Float[Tensor, "n *event"]:
        """The images at `index`, g y_j for k = g N + j, in the precision of the data."""
        at = index.to(self.points.device)
        return self._moved(self.D.take(at % len(self.D)), at // len(self.D))

    def score(self, x: Num[Tensor, "B *event"], sigma: Levels) -> Float[Tensor, "B *event"]:
        """∇ log p(x; σ) = (E[x0 | x] − x)/σ², (B, *event), as exact as the mean is in the dtype of x."""
        values = levels(sigma, len(x), x.device, graph=True)
        out = (self(x, values).double() - x.double()) / beside(values, x).square()
        return out.to(x.dtype)

    @property
    def standard_deviation(self) -> float:
        """√(E‖x0 − E x0‖² / dim): a permutation keeps ‖x0‖, so that only the mean differs from that of the data."""
        dim = self.points.dim
        square = dim * self.D.standard_deviation**2 + float(self.D.mean.square().sum() - self.mean.square().sum())
        return math.sqrt(max(square, 0.0) / dim)

    @property
    def points(self) -> Points:
        """The points y_j themselves."""
        return self.D.points

    @property
    def data(self) -> object:
        """What the points were given as."""
        return self.D.data


def unknown(like: Tensor) -> Tensor:
    """nan for every row."""
    return torch.full_like(like, torch.nan)
