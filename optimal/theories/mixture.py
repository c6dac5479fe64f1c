"""The optimum of a mixture of Gaussians that is fitted to the data: a Wiener filter of each of K parts of them.

    p = Σ_k π_k N(m_k, C_k + f I),    D(x, σ) = Σ_k r_k(x) D_k(x, σ),    r_k ∝ π_k N(x; m_k, C_k + (f + σ²) I)

D_k is the best linear denoiser of the points of part k, with the mean m_k and the covariance C_k of those points under
the prior, all of its axes or the leading ones and what the others share (`Wiener`). f is a variance that every part has
besides: without it, a part of fewer points than values is flat, and nothing off it has a density at σ = 0.

Between the linear denoiser, K = 1, and the optimum, a part for every point: there C_k = 0, and with f = s² it is the
optimum of a kernel density estimate of bandwidth s, `OptimalDenoiser.smoothed`.
"""

from __future__ import annotations

import math
from typing import Literal, NoReturn

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from tqdm import tqdm

from ..denoiser import OptimalDenoiser
from ..numbers import is_number, is_whole
from ..randomness import generator_of
from ..reference.base import Exact
from .clusters import k_means
from .gaussian import Wiener, require_rank
from .moments import require_optimum

__all__ = ["Mixture"]

Modes = int | Literal["classes"] | Tensor | np.ndarray


class Mixture(Exact):
    """The optimum of K Gaussians that are fitted to D's data.

    Args:
        D: the optimum whose data it knows, of one process; under its prior.
        modes: K, for parts found by k-means (k-means++ and Lloyd); "classes", for one of every label; or the part of
            every point, (N,) whole numbers, −1 for none of them.
        rank: axes of each part that have a variance of their own, the others share what is left; all, unless given.
        floor: f, in squared units of the data. That of Wang and Vastola's fits, of images in [−1, 1], unless given.
        em: iterations of expectation and maximisation that follow: responsibilities are soft then, and the likelihood
            of the data, Σ_j π_j log p(y_j), rises with each: C_k is then what is most likely beside f, the covariance
            of the part less f along every axis, 0 where it has less. They need f > 0.
        generator: of k-means; a fixed seed unless given. Centres are drawn by the places of points in the data: in
            another order they are others.
        progress: whether bars are drawn on stderr.

    Attributes:
        event: shape of one point.
        parts: K `Wiener` filters; a part without a point is none of them, so that K may be less than was asked for.
        shares: π_k, (K,) float64.
        floor: f.
        log_likelihoods: Σ_j π_j log p(y_j), nats, before each iteration of EM and after the last; empty without any.

    Raises:
        ValueError: modes below 1 or more than there are distinct points; data without labels; parts of another length;
            a floor that is negative, or 0 for EM; iterations that are no whole number; as for `Wiener`.
        NotImplementedError: the points are shared by processes.

    A call costs 2 K products with the axes of a part, nothing of N.

    References:
        Wang, Vastola 2024, "The Unreasonable Effectiveness of Gaussian Score Approximation for Diffusion Models and its
        Applications": k-means, then the covariance of each cluster, 1e-5 added to its eigenvalues.

    Example:
        >>> D = OptimalDenoiser(torch.tensor([[-2.0], [-1.0], [1.0], [2.0]]))
        >>> pair = Mixture(D, modes=2, floor=0.0)               # N(∓1.5, 0.25)
        >>> sorted(float(part.mean) for part in pair.parts), pair(torch.tensor([[9.0]]), 0.5)
        ([-1.5, 1.5], tensor([[5.2500]]))
    """

    def __init__(
        self,
        D: OptimalDenoiser,
        modes: Modes,
        *,
        rank: int | None = None,
        floor: float = 1e-5,
        em: int = 0,
        generator: torch.Generator | None = None,
        progress: bool = False,
    ):
        require_optimum(D, "a mixture")
        if not is_number(floor) or not 0 <= floor < math.inf:
            raise ValueError(f"floor must be finite and not negative, got {floor!r}")
        self.floor = float(floor)
        if not is_whole(em) or em < 0 or (em and not self.floor):
            raise ValueError(f"em must be a number of iterations, with a floor above 0, got {em!r} with {self.floor:g}")
        require_rank(D, rank)
        own = _parts_of(D, modes, generator, progress)
        log_shares = torch.full((len(D), int(own.amax()) + 1), -torch.inf, dtype=torch.float64)
        known = own >= 0
        log_shares[known, own[known]] = 0
        self.event, self._count = D.event, len(D)
        self._options = "".join(
            f", {name}={value}" for name, value in (("rank", rank), ("em", em or None)) if value is not None
        )
        self.log_likelihoods: list[float] = []
        self._fit(D, log_shares, rank, progress)
        for _ in range(em):
            log_shares = self._step(D, log_shares, rank, progress)
        if em:
            self.log_likelihoods.append(self._expected(D)[1])

    def __repr__(self) -> str:
        points = f"{self._count} points of shape {self.event}"
        return f"Mixture({len(self.parts)} Gaussians of {points}, floor={self.floor:g}{self._options})"

    def sample(self, n: int, generator: torch.Generator | None = None) -> Float[Tensor, "n *event"]:
        generator = generator_of(generator)
        # It refuses to draw none.
        k = torch.multinomial(self.shares.to(generator.device), max(n, 1), replacement=True, generator=generator)[:n]
        out = torch.empty(n, *self.event, dtype=torch.float64, device=generator.device)
        for number, part in enumerate(self.parts):
            rows = k == number
            out[rows] = part.sample(int(rows.sum()), generator)
        eps = torch.randn(out.shape, generator=generator, dtype=torch.float64, device=generator.device)
        return out + math.sqrt(self.floor) * eps

    def _mean(self, z: Tensor, sigma: Tensor) -> Tensor:
        both = torch.hypot(sigma, torch.full_like(sigma, math.sqrt(self.floor)))
        x, share = z.reshape(len(z), *self.event), self._logits(z, both).softmax(1)
        mean = torch.zeros_like(z)
        for part, own in zip(self.parts, share.unbind(1), strict=True):
            mean = mean + own[:, None] * part(x, both[:, 0]).flatten(1)
        # Of the same mixture without the floor at √(σ² + f), as of data that noise was added to.
        return mean + self.floor / both.square() * (z - mean)

    def _score(self, z: Tensor, sigma: Tensor) -> Tensor:
        both = torch.hypot(sigma, torch.full_like(sigma, math.sqrt(self.floor)))
        x, share = z.reshape(len(z), *self.event), self._logits(z, both).softmax(1)
        scores = (part.score(x, both[:, 0]).flatten(1) for part in self.parts)
        return torch.stack([own[:, None] * s for own, s in zip(share.unbind(1), scores, strict=True)]).sum(0)

    def _log_density(self, z: Tensor, sigma: Tensor) -> Tensor:
        return self._logits(z, torch.hypot(sigma, torch.full_like(sigma, math.sqrt(self.floor)))).logsumexp(1)

    def _flow(self, z: Tensor, sigma: Tensor, end: Tensor) -> NoReturn:
        raise ValueError(
            "the flow of a mixture is not known in closed form: integrate the ODE, by a sampler or a FlowMap on a grid"
        )

    def _logits(self, z: Tensor, sigma: Tensor) -> Tensor:
        """log π_k N(z; m_k, C_k + σ² I), (B, K)."""
        x = z.reshape(len(z), *self.event)
        columns = [part.log_density(x, sigma[:, 0]) for part in self.parts]
        return torch.stack(columns, 1) + self.shares.to(z).log()

    def _fit(self, D: OptimalDenoiser, log_shares: Tensor, rank: int | None, progress: bool) -> None:
        """Mean, covariance and share of each part from how much of every point is in it, (N, K) logs."""
        prior = D.log_weights.cpu()
        totals = (prior[:, None] + log_shares).logsumexp(0)
        kept = (totals > -torch.inf).nonzero().squeeze(1).tolist()
        self.parts = []
        for k in tqdm(kept, desc="axes of the parts", leave=False, disable=not progress):
            part = D.weighted(log_shares[:, k])
            # A part of few points has no more axes than those.
            self.parts.append(Wiener(part, None if rank is None else min(rank, part.points.size - 1)))
        self.shares = totals[kept].softmax(0)

    def _step(self, D: OptimalDenoiser, log_shares: Tensor, rank: int | None, progress: bool) -> Tensor:
        """One iteration of EM from the responsibilities of all points, which it gives back."""
        expected, likelihood = self._expected(D)
        self.log_likelihoods.append(likelihood)
        log_shares = torch.full((len(D), len(self.parts)), -torch.inf, dtype=torch.float64)
        log_shares[D.log_weights.cpu() > -torch.inf] = expected
        self._fit(D, log_shares, rank, progress)
        # The most likely C_k of p(y) = N(m_k, C_k + f I): with that of the points itself the likelihood could fall.
        for part in self.parts:
            part.eigenvalues = (part.eigenvalues - self.floor).clamp_min(0)
            part.rest = max(part.rest - self.floor, 0.0)
        return log_shares

    def _expected(self, D: OptimalDenoiser) -> tuple[Tensor, float]:
        """log r_k of every point with a probability, (n, K), and Σ_j π_j log p(y_j)."""
        points = D.points
        found: list[Tensor] = []
        level = torch.full((1, 1), math.sqrt(self.floor), dtype=torch.float64)
        for start in range(0, points.size, rows := points.few_rows):
            index = torch.arange(start, min(start + rows, points.size), device=points.device)
            y = D.take(points.outer(index)).double().flatten(1)
            found.append(self._logits(y, level.to(y).expand(len(y), 1)).cpu())
        logits = torch.cat(found)
        densities = logits.logsumexp(1)
        weights = points.log_weight(torch.arange(points.size)).exp()
        return logits - densities[:, None], float(weights @ densities)


def _parts_of(D: OptimalDenoiser, modes: Modes, generator: torch.Generator | None, progress: bool) -> Int[Tensor, " N"]:
    """Which part every point is in, (N,) on the CPU; −1 for none."""
    if type(D) is not OptimalDenoiser:
        raise NotImplementedError(f"the parts need all points in one process, D is {type(D).__name__}")
    if isinstance(modes, str):
        if modes != "classes":
            raise ValueError(f"modes must be a number, classes or the part of every point, got {modes!r}")
        return torch.searchsorted(D.labels.unique(), D.labels)
    if isinstance(modes, Tensor | np.ndarray) and modes.ndim:
        own = torch.as_tensor(modes).cpu()
        if own.dtype.is_floating_point or own.dtype == torch.bool or own.shape != (len(D),) or own.amax() < 0:
            raise ValueError(
                f"the parts of the points must be {len(D)} whole numbers, one of them not negative, got shape "
                f"{tuple(own.shape)} of {own.dtype}"
            )
        # Numbered without gaps: what is kept of each goes by the largest number.
        return torch.searchsorted(own[own >= 0].unique(), own.contiguous()).where(own >= 0, -1)
    if not is_whole(modes) or int(modes) < 1:
        raise ValueError(f"modes must be a whole number of at least 1, got {modes!r}")
    return k_means(D, int(modes), generator_of(generator), progress=progress)
