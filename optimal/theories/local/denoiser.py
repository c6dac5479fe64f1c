"""Local posteriors beside each other: a denoiser whose every pixel knows a part of x only.

    D(x, σ)[i] = Σ_k r_k[i] Σ_{j ∈ S_k} w_jk y_j[i],    w_jk ∝ π_j exp(−Σ_n q_k[n] (x_n − y_jn)²/2σ²)

k the units, q_k what a unit sees of x, r_k where it answers, Σ_k r_k = 1, and S_k its candidates. One unit that sees
and answers everything is the optimum. It is the posterior mean of no joint distribution, so that there is no density;
but every pixel has a posterior, over the images or over places in them, with an entropy of its own.

For data whose pixels are independent (every combination of values, each as often as the product of their shares) LS,
both PSPC and PCA-locality, their covariance being diagonal, are the optimum itself, whatever the window; for any data
they are where it covers all.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int, Num
from torch import Tensor

from ...arithmetic import ours
from ...denoiser import OptimalDenoiser
from ...query import Levels, beside, levels, require_points, require_rows
from ...rowwise import whole_numbers
from ...shown import in_short
from ..underived import underived
from .asked import Answers, Asked, Collection

__all__ = ["LocalDenoiser", "LocalPosterior", "require_images"]


@dataclass(frozen=True)
class LocalPosterior:
    """What the local posteriors say of x0 given x.

    Attributes:
        mean: (B, *event), in the dtype of x.
        entropy: (B, H, W) float64, −Σ w log w in nats of the candidates of every pixel; (B, *event) where every value
            has its own (PCA-locality). Copies count one by one, as in `Posterior`.
    """

    mean: Tensor
    entropy: Tensor

    __repr__ = in_short

    @property
    def effective_count(self) -> Tensor:
        """exp(entropy): 1 where one candidate is all of a pixel's answer."""
        return self.entropy.exp()


class LocalDenoiser:
    """A `Denoiser` made of local posteriors; by `local_score` and its like. No gradients flow through it.

    Everything is summed in float64, over all candidates, in blocks within the memory of D.

    Args:
        D: the optimum of the data.
        name: of the theory.
        collection: its units.
        without: (B,) int64, points of the data that the rows do not know; None where all know all.
        progress: whether a bar is drawn on stderr.

    Attributes:
        D: as given.
        event: shape of one point.
        name: of the theory, with its scale.
    """

    def __init__(
        self,
        D: OptimalDenoiser,
        name: str,
        collection: Collection,
        *,
        without: Tensor | None = None,
        progress: bool = False,
    ):
        self.D, self.event, self.name = D, D.event, name
        self._collection, self._without, self._progress = collection, without, progress

    def __repr__(self) -> str:
        some = "" if self._without is None else f".without({len(self._without)} points)"
        return f"{self.name} of {self.D!r}{some}"

    def __call__(self, x: Num[Tensor, "B *event"], sigma: Levels) -> Float[Tensor, "B *event"]:
        """D(x, σ), (B, *event).

        Args:
            x: (B, *event) noisy points.
            sigma: noise level, > 0: float, () or (B,).

        Raises:
            ValueError: sigma not finite, not positive or of another shape; x of another event shape or not finite; a
                scale that breaks its rule at one of the levels.
        """
        return underived(self._restored(self._answers(x, sigma, entropy=False).mean).to(x.dtype), x, self.name)

    def posterior(self, x: Num[Tensor, "B *event"], sigma: Levels) -> LocalPosterior:
        """Mean, entropy and effective count of every pixel, from the same sums.

        Raises:
            ValueError: as for a call.
        """
        found = self._answers(x, sigma, entropy=True)
        assert found.entropy is not None
        shape = self.event if self._collection.by_value else self.event[-2:]
        mean = underived(self._restored(found.mean).to(x.dtype), x, self.name)
        return LocalPosterior(mean, found.entropy.view(len(x), *shape))

    def score(self, x: Num[Tensor, "B *event"], sigma: Levels) -> Float[Tensor, "B *event"]:
        """(D − x)/σ², (B, *event): what stands in for ∇ log p(x; σ). The difference is taken in float64."""
        mean = self._restored(self._answers(x, sigma, entropy=False).mean)
        square = beside(levels(sigma, len(x), x.device), x).square()
        return underived(((mean - x.detach().double()) / square).to(x.dtype), x, self.name)

    def without(self, index: Int[Tensor, " B"] | np.ndarray) -> LocalDenoiser:
        """The same of B rows of which row b does not know point index[b] of the data, nor any part of it.

        It is left out of the sums. What a unit sees is not found anew: the masks of `pca_locality` and of
        `flexible_patch_posterior`, where they follow from the data, are those of all points.

        Raises:
            ValueError: no whole numbers, (B,), from 0 to N − 1; no other point with a probability is left.
        """
        wanted = whole_numbers("index", index)
        if isinstance(wanted, int):
            raise ValueError(f"index must be one a row, (B,), got {wanted}: for all rows, give D.without({wanted})")
        self.D.without(wanted)  # Checks it.
        return LocalDenoiser(self.D, self.name, self._collection, without=wanted, progress=self._progress)

    def _restored(self, mean: Tensor) -> Tensor:
        return self.D.points.restored(mean)

    @ours()
    @torch.no_grad()
    def _answers(self, x: Tensor, sigma: Levels, *, entropy: bool) -> Answers:
        points, without = self.D.points, self._without
        if without is not None:
            require_rows(x, self.event, len(without), "index")
        require_points(x, self.event)
        z, sigmas = self.D.query(x.detach(), sigma)
        own = None if without is None else points.inner(without.to(points.device)).tolist()
        given = levels(sigma, len(x), x.device).cpu()
        mean = torch.zeros_like(z)
        maps = z.new_zeros(len(z), points.dim // (1 if self._collection.by_value else self._channels))
        for rows in self._together(given):
            at = torch.tensor(rows, dtype=torch.int64, device=z.device)
            left_out = None if own is None else [own[row] for row in rows]
            asked = Asked(points, z[at], sigmas[at], given[rows], left_out, entropy, self._progress)
            found = self._collection.answers(asked)
            mean[at] = found.mean
            if found.entropy is not None:
                maps[at] = found.entropy
        return Answers(mean, maps if entropy else None)

    @property
    def _channels(self) -> int:
        return self.event[0] if len(self.event) == 3 else 1

    def _together(self, given: Tensor) -> list[list[int]]:
        """Rows that go through the data together: as many levels as the units of which fit into a quarter of memory."""
        most = max(1, self.D.points.memory // 4 // max(1, self._collection.held))
        values = given.tolist()
        of_level: dict[float, list[int]] = {}
        for row, value in enumerate(values):
            of_level.setdefault(value, []).append(row)
        groups = list(of_level.values())
        parts = (groups[start : start + most] for start in range(0, len(groups), most))
        return [list(itertools.chain.from_iterable(part)) for part in parts]


def require_images(D: object, theory: str) -> tuple[int, int, int]:
    """(C, H, W) of the images of D.

    Raises:
        ValueError: a D that is no `OptimalDenoiser`; points that are no images.
        NotImplementedError: the points are shared by processes.
    """
    if not isinstance(D, OptimalDenoiser):
        raise ValueError(f"{theory} is made of data: D must be an OptimalDenoiser, got {type(D).__name__}")
    if type(D) is not OptimalDenoiser:
        raise NotImplementedError(f"{theory} needs all points in one process, D is {type(D).__name__}")
    if len(D.event) not in (2, 3):
        raise ValueError(f"{theory} needs images of shape (C, H, W) or (H, W), the points have shape {D.event}")
    return (1, *D.event) if len(D.event) == 2 else D.event  # pyright: ignore[reportReturnType]
