"""The optimal denoiser of an empirical distribution.

The minimiser of the denoising loss E‖x0 − F(x0 + σ ε, σ)‖² (Eq. 26) is the posterior mean E[x0 | x]. When x0 is one of
N points y_j, each with probability 1/N, it has a closed form (Eq. 43; Karras et al. 2022, Appendix B.3):

    D(x, σ) = Σ_j w_j y_j,    w_j = exp(l_j) / Σ_k exp(l_k),    l_j = −‖x − y_j‖² / 2σ²

and with it everything else: the density of the noisy data, log p(x; σ) = log Σ_j exp(l_j) − log N − (D/2) log 2πσ²;
its score (D − x)/σ² (Eq. 49); the Jacobian ∂D/∂x = Cov[x0 | x]/σ²; and how many points share in the answer,
exp(entropy of w). σ is the noise level of x over its signal scale, so the same D serves every linear process: D_t(x_t)
= D(x_t/s_t, σ_t).

`OptimalDenoiser.weighted` gives the points other probabilities π_j, which come in as l_j + log π_j.

The one assumption is that the training distribution is the data points themselves. How the sums over j are evaluated,
and why the result can be trusted at σ = 0.002 in float32, stands in `optimal.evaluate`.
"""

from __future__ import annotations

import math
from os import PathLike
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, Int, Num
from torch import Tensor

from .datasets import Dataset
from .datasets.memory import doubt_units, gathered, require_plain
from .evaluate import Accuracy, Evaluator, Tilt
from .evaluate.derivatives import posterior_sums
from .numbers import require_whole
from .other_priors import OtherPriors
from .points import Points
from .posterior import Posterior
from .query import Levels, per_row, require_points

__all__ = ["Denoiser", "OptimalDenoiser", "Posterior"]


@runtime_checkable
class Denoiser(Protocol):
    """Anything that estimates x0 from a noisy x: the closed form, a reference, a network, or what a user brings.

    x: (B, *event), the noisy points over their signal scale; sigma: their noise level, float, () or (B,). The result is
    like x.
    """

    def __call__(self, x: Tensor, sigma: float | Tensor, /) -> Tensor: ...


class OptimalDenoiser(OtherPriors):
    """E[x0 | x] over N data points, exactly (Eq. 43).

    Args:
        data: `Dataset`, or tensor or array (N, *event): floating point, taken as it is, or uint8, taken as images,
            u8/127.5 − 1. An array may be a memory map of any size; it is read in blocks and never expanded as a whole.
        method: "dense" (blocked matrix products), "screened" (products of bytes, with a proven bound; for images kept
            as uint8, other data are left to dense), "keops" (compiled reductions; needs a C++ compiler) or "auto",
            which goes by data, processor and sigma, see `Evaluator.choose`.
        memory: budget in bytes for the temporaries of one call, 1 GiB unless told otherwise. A memory map that is
            larger is streamed: its pages are read ahead and given back.
        tolerance: screened: largest proven bound on the relative error of the mean.
        certified: screened: whether the bound must hold; False goes by the expected error where the posterior is spread
            over many points, is a little faster there, and gives `Posterior.error_estimate` only.

    Attributes:
        event: shape of one point.
        data: what was given.
        points: the points that have a probability, and what may be asked of them.

    Results live on x's device and in x's dtype; a float64 x is answered in float64 throughout.

    Raises:
        ValueError: empty or non-finite data, data of another type, unknown method.

    References:
        Karras, Aittala, Aila, Laine 2022, "Elucidating the Design Space of Diffusion-Based Generative Models",
        Appendix B.3.

    Example:
        >>> D = OptimalDenoiser(torch.tensor([[-1.0], [1.0]]))
        >>> D(torch.tensor([[0.5]]), 1.0)              # tanh(0.5)
        tensor([[0.4621]])
    """

    def __init__(
        self,
        data: Dataset | Tensor | np.ndarray,
        *,
        method: str = "auto",
        memory: int = 2**30,
        tolerance: float = 1e-3,
        certified: bool = True,
    ):
        if isinstance(data, str | PathLike):
            raise ValueError(
                f"data must be a Dataset, tensor or array, got {type(data).__name__}: use load() for a path"
            )
        if not isinstance(data, Dataset | Tensor | np.ndarray):
            data = gathered(data)
        require_plain(data)
        if isinstance(data, Tensor) and data.requires_grad:
            raise ValueError("data must not require grad, no gradient flows to the points: give data.detach()")
        if not isinstance(data, Dataset):
            doubt_units(data)
        self.data = data
        array = data.array if isinstance(data, Dataset) else data
        self.evaluator = self._over(array, Accuracy(method, memory, tolerance, certified))
        self.points: Points = self.evaluator.points
        self.event = self.points.event

    def _over(self, array: Tensor | np.ndarray, accuracy: Accuracy) -> Evaluator:
        """The sums over the array."""
        return Evaluator(Points(array, accuracy.memory), accuracy)

    def __len__(self) -> int:
        """N, of the data; points without a probability are counted."""
        return self.points.of

    def __repr__(self) -> str:
        some = "" if self.points.size == len(self) else f"{self.points.size} of "
        prior = "" if self.points.prior is None else "weighted, "
        method = self.evaluator.accuracy.method
        return f"OptimalDenoiser({some}{len(self)} points of shape {self.event}, {prior}method={method!r})"

    def __call__(self, x: Num[Tensor, "B *event"], sigma: Levels) -> Float[Tensor, "B *event"]:
        """E[x0 | x] (Eq. 43).

        Args:
            x: (B, *event) noisy points.
            sigma: noise level, > 0: float, () or (B,).

        Raises:
            ValueError: sigma not finite, not positive or of another shape; x of another event shape or not finite.
        """
        z, sigmas = self._asked(x, sigma)
        return self.points.restored(
            posterior_sums(z, sigmas, self.evaluator, single=_single(x), mean_only=True)[0].mean
        ).to(x.dtype)

    @property
    def standard_deviation(self) -> float:
        """√(E‖x0 − E x0‖² / dim) under the prior: the typical size of a coordinate, in units of the data."""
        return self.points.standard_deviation

    def take(self, index: Int[Tensor, " n"]) -> Float[Tensor, "n *event"]:
        """The data points at `index`, in their own precision; images as float32 in [−1, 1]."""
        return self.points.rows.of_data(index)

    def drawn(self, count: int, generator: torch.Generator) -> Int[Tensor, " n"]:
        """Which data points are drawn from the prior, with replacement: (count,) int64, on the CPU."""
        points = self.points
        if points.prior is None:
            own = torch.randint(points.size, (count,), generator=generator, dtype=torch.int64, device=generator.device)
            return points.outer(own.cpu())
        return points.outer(points.prior.drawn(count, generator))

    @property
    def mean(self) -> Float[Tensor, " *event"]:
        """E x0, the mean of the prior, (*event) float64: what D tends to as σ → ∞."""
        return self.points.mean

    def two_nearest(self, x: Num[Tensor, "B *event"]) -> tuple[Float[Tensor, " B"], Float[Tensor, " B"]]:
        """Distances from x to the nearest and to the second nearest of the distinct data points, (B,) float64 each.

        Of the points that have a probability, however small: a prior does not change distances.

        The second is inf where there is one distinct point.

        Raises:
            ValueError: x of another event shape or not finite.
        """
        first, second = self.neighbours(x, 2)[1].unbind(1)
        return first, second

    def neighbours(
        self, x: Num[Tensor, "B *event"], count: int = 2
    ) -> tuple[Int[Tensor, "B count"], Float[Tensor, "B count"]]:
        """The `count` distinct data points nearest to each x, nearest first, and their distances in float64.

        Copies of a point count as one, the first in the data. Where there are fewer, the index is −1, the distance inf.

        Args:
            x: (B, *event).
            count: how many, at least 1.

        Raises:
            ValueError: x of another event shape or not finite; count below 1.

        Example:
            >>> D = OptimalDenoiser(torch.tensor([[-1.0], [1.0], [4.0]]))
            >>> D.neighbours(torch.tensor([[0.5]]))
            (tensor([[1, 0]]), tensor([[0.5000, 1.5000]], dtype=torch.float64))
        """
        count = require_whole("count", count)
        index, distance = self.evaluator.neighbours(self.query(x.detach(), self.points.unit)[0], count)
        return self.points.outer(index), distance

    def first_copies(self) -> Int[Tensor, " N"]:
        """For every data point the first one in the data that equals it, (N,), on the CPU; mostly itself.

        Among the points that have a probability; one that has none is its own.
        """
        own = self.points.first_copies
        if self.points.size == len(self):
            return own.clone()
        out = torch.arange(len(self), dtype=torch.int64, device="cpu")
        out[self.points.outer(torch.arange(len(own), device="cpu"))] = self.points.outer(own)
        return out

    def nearest(self, x: Num[Tensor, "B *event"]) -> Int[Tensor, " B"]:
        """The data point nearest to each x, (B,), of those with a probability; the first in the data among equals.

        It leads p(x0 | x) at every σ where all probabilities are the same.

        Raises:
            ValueError: x of another event shape or not finite.
        """
        return self.points.outer(self.evaluator.nearest(self.query(x.detach(), self.points.unit)[0]))

    def score(self, x: Num[Tensor, "B *event"], sigma: Levels) -> Float[Tensor, "B *event"]:
        """∇ log p(x; σ) = (D − x)/σ² (Eq. 49), (B, *event). The difference is taken in float64."""
        z, sigmas = self._asked(x, sigma)
        sums, _ = posterior_sums(z, sigmas, self.evaluator, single=_single(x), mean_only=True)
        out = (sums.mean - z) / sigmas.square()[:, None] / self.points.unit
        return out.reshape(x.shape).to(x.dtype)

    def posterior(self, x: Num[Tensor, "B *event"], sigma: Levels) -> Posterior:
        """Mean, log density, entropy, leader and variance of p(x0 | x), all from one pass over the data."""
        z, sigmas = self._asked(x, sigma)
        sums, method = posterior_sums(z, sigmas, self.evaluator, single=_single(x))
        return Posterior(
            mean=self.points.restored(sums.mean).to(x.dtype),
            log_density=sums.log_density - self.points.dim * math.log(self.points.unit),
            entropy=sums.entropy,
            top_index=self.points.outer(sums.leader),
            top_weight=sums.top_weight,
            variance=sums.variance * self.points.unit**2,
            error_bound=sums.bound,
            error_estimate=sums.estimate,
            method=method,
        )

    def weights(self, x: Num[Tensor, "B *event"], sigma: Levels) -> Float[Tensor, "B N"]:
        """The posterior probability of every point, (B, N); points far below the leader (30 nats) may be given 0.

        Raises:
            ValueError: the result would not fit the memory budget.
        """
        z, sigmas = self.query(x, sigma)
        own = self.evaluator.weights(z.detach(), sigmas, single=_single(x)).to(x.dtype)
        if self.points.size == len(self):
            return own
        out = own.new_zeros(len(x), len(self))
        out[:, self.points.outer(torch.arange(self.points.size, device=own.device))] = own
        return out

    def covariance_product(self, x: Num[Tensor, "B *event"], sigma: Levels, v: Tensor) -> Float[Tensor, "B *event"]:
        """Cov[x0 | x]·v, (B, *event). Over σ² it is the Jacobian of D times v, from either side (it is symmetric).

        As for `Posterior.variance`, an x in float64 gives what is far below σ² its relative precision.
        """
        z, sigmas = self.query(x.detach(), sigma)
        if v.shape != x.shape:
            raise ValueError(f"v must have the shape of x, {tuple(x.shape)}, got {tuple(v.shape)}")
        sums = self.evaluator.moments(z, sigmas, single=_single(x))
        none, direction = torch.zeros_like(sigmas), v.detach().reshape(z.shape).double()
        tilt = Tilt(sums.top, 1 / sums.total, sums.average, direction, none, none)
        out = self.evaluator.tilt(z, sigmas, tilt, single=_single(x)) * self.points.unit**2
        return out.view(x.shape).to(x.dtype)

    def query(self, x: Num[Tensor, "B *event"], sigma: Levels) -> tuple[Tensor, Tensor]:
        """What `evaluator` is asked for x: z = (x − c)/unit as (B, D), with x's graph, and sigma/unit as (B,), float64.

        Raises:
            ValueError: as for a call.
        """
        z, sigmas = self._asked(x, sigma)
        self.points.check(z, sigmas)
        return z, sigmas.detach()

    def _asked(self, x: Tensor, sigma: Levels) -> tuple[Tensor, Tensor]:
        """`query` with sigma's graph, too, and without the checks of values, which torch.func's transforms hide."""
        require_points(x, self.event)
        return self.points.reduced(x), per_row("sigma", sigma, len(x), x.device, graph=True) / self.points.unit


def _single(x: Tensor) -> bool:
    return x.dtype != torch.float64
