"""The probability-flow ODE with a step of its own for every row: Dormand–Prince 5(4) in σ, far away in 1/σ.

    dx/dσ = (x − D(x, σ))/σ                                                                    (Eq. 25)

is integrated in σ, where it is exact as soon as D stands still: the slope is then constant along the line through D.
Far above the data that takes a step for every halving of σ, in which nothing happens: with u = x/σ and τ = 1/σ,

    du/dτ = D(u/τ, 1/τ),    log w_j = τ u·y_j − τ²‖y_j‖²/2 + …,

D changes with τ in units of one over S = √tr Cov[x0], the spread of the data. So τ is the variable for as long as a
step of 1/2S takes a row to less than half of its σ, or on the way up to more than twice. Below, where the data part, it
errs more at as many calls.

The local error of a step to σ', as the embedded fourth-order formula estimates it, is kept below tolerance·σ' in the
Euclidean norm of the whole event. σ is the unit that matters: a displacement e moves the log-odds of two points that
are A noise levels apart by at most A·‖e‖/σ. Every row has its own σ and its own step, so that one row near a decision
costs the others nothing; a batch shrinks as its rows are done.

No step is held to less than what rounding does to x and D at it,

    ν = ε (log₂ D + 8) (‖x‖ + ‖D‖) (1 + tr Cov[x0 | x]/σ²),    ε = 2⁻⁵³:

a logit's error, ε (log₂ D + 8) (‖x‖ + ‖y‖) ‖y − D‖/σ² once it is taken by differences, moves D by ‖y − D‖ times that.
It is estimated, not proven: where D errs by more, steps shrink to nothing, until a row is `spent`. Then they are the
longest there are, so that every row arrives.

Steps follow a proportional-integral controller (Gustafsson 1991). Without the integral part, half of the steps would be
rejected here: the error of steps of equal ratio grows all the way down to the decision.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable

import torch
from torch import Tensor

from ..denoiser import Posterior

__all__ = ["AdaptiveFlow"]

_ORDER = 5
_SAFETY, _PROPORTIONAL, _INTEGRAL = 0.9, 0.7 / _ORDER, 0.4 / _ORDER
_GROWTH, _SHRINKAGE = 2.0, 0.2
_LONGEST, _LONGEST_STILL = 0.5, 0.9
"""Longest step, in units of the larger σ of its two; and where D stands still, as below a decision among all but close
points. Longer ones elsewhere cost more calls than they save: they see the next decision too late, and are rejected."""
_LONGEST_UP = 0.4
"""And on the way up, where D stands still until it does not: longer steps skip the decision unseen. Of 500 rows of two
points, from 0.2 to 0.6 and from 0.3 to 0.7 at a tolerance of 1e-4, the worst erred by 160 tolerances at 0.5, and by 59
at 0.4 (147 on the way down); from 0.002 to 80 by 2 at 0.5 and 0.3 at 0.4 (768 with 0.9), at 72 and 90 calls a row."""
_STRIDE = 0.5
"""Longest step in 1/σ, in units of 1/√tr Cov[x0]. Of 3,840 rows that are 5e-5 σ from a border, 12 went to its wrong
side at 0.7 and a tolerance of 1e-6, and at 0.5 none, as with steps in σ alone."""
_STILL = 1e-8
"""Share of the error allowed in the last step, below which D stands still."""
_UNIT = 2.0**-53


@functools.cache
def _tableau() -> list[Tensor]:
    """A, B, C, E of Dormand and Prince 1980, as scipy has it; its last stage is the first one of the next step."""
    from scipy.integrate import RK45

    return [torch.from_numpy(part.copy()) for part in (RK45.A, RK45.B, RK45.C, RK45.E)]


class AdaptiveFlow:
    """Rows on their way along the flow; `advance` tries one step of each, `keep` drops those that are done.

    Args:
        evaluate: (x, sigma (B,)) -> posterior.
        x: (B, *event).
        sigma: (B,) float64, > 0.
        end: (B,) float64, where to stop, above sigma or below it; 0 is approached, never reached.
        tolerance: local error of a step, in units of σ.
        spread: √tr Cov[x0] of the data.
        most: denoiser calls of a row after which its steps are taken whatever their error.

    Attributes:
        x, sigma: where the rows are, float64.
        nfe: (B,) int64, denoiser calls of each row.
        rows: (B,) int64, their places in the batch at the start.
        accepted: (B,) bool, whether the last step tried was taken. True at the start.
        latest: the posterior evaluated last: for the rows `accepted`, at their x and sigma.
        spent: (B,) bool, whether a row has taken all the calls it is held to a tolerance for.
    """

    def __init__(
        self,
        evaluate: Callable[[Tensor, Tensor], Posterior],
        x: Tensor,
        sigma: Tensor,
        end: Tensor,
        tolerance: float,
        spread: float,
        most: int,
    ):
        self._evaluate, self._tolerance, self._most = evaluate, tolerance, most
        self.x, self.sigma, self._end = x.double(), sigma, end
        self.rows = torch.arange(len(x), device=x.device)
        self.nfe = torch.ones_like(self.rows)
        self.accepted = torch.ones_like(sigma, dtype=torch.bool)
        self.latest = evaluate(self.x, sigma)
        self._mean = self.latest.mean.double()
        self._step, self._error = torch.full_like(sigma, _LONGEST), torch.ones_like(sigma)
        self._stride = torch.full_like(sigma, _STRIDE / max(spread, 1e-300))
        self._rounding = self._rounding_at(self.x, sigma)

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def spent(self) -> Tensor:
        return self.nfe >= self._most

    def size(self) -> Tensor:
        """‖x‖ + ‖D‖ of the posterior evaluated last, (B,)."""
        return self._size_at(self.x)

    def keep(self, mask: Tensor) -> None:
        """Go on with the rows where mask, (B,) bool, is True."""
        for name in (
            "x",
            "sigma",
            "_end",
            "rows",
            "nfe",
            "accepted",
            "_step",
            "_error",
            "_mean",
            "_stride",
            "_rounding",
        ):
            setattr(self, name, getattr(self, name)[mask])

    def advance(self) -> None:
        """Try one step of every row: six denoiser calls, whether it is taken or not."""
        sigma = self.sigma
        up = self._end > sigma
        longest = torch.where((self._error <= _STILL) & ~up, _LONGEST_STILL, torch.where(up, _LONGEST_UP, _LONGEST))
        step = torch.where(self.spent, longest, torch.minimum(self._step, longest))
        # Of the larger σ of a step in τ, which is at least twice the smaller one: going up, that is where it ends.
        far = self._stride * torch.where(up, 2 * sigma, sigma) > 1
        reached = torch.where(up, self._above(sigma, step, far), self._below(sigma, step, far))
        length = torch.where(far, 1 / reached - 1 / sigma, reached - sigma)
        slopes = [self._slope(self._mean, self.x, sigma, far)]
        A, B, C, E = _tableau()
        for a, c in zip(A[1:], C[1:].tolist(), strict=True):
            between = torch.where(far, (1 / sigma + c * length).reciprocal(), sigma + c * length)
            x = self._moved(slopes, a[: len(slopes)], length, between, far)
            slopes.append(self._ask(x, between, far))
        x = self._moved(slopes, B, length, reached, far)
        slopes.append(self._ask(x, reached, far))
        rounding = self._rounding_at(x, reached)
        allowed = torch.maximum(self._tolerance * reached, torch.maximum(rounding, self._rounding))
        error = _combined(slopes, E).flatten(1).norm(dim=1) * length.abs() * torch.where(far, reached, 1.0) / allowed
        self.accepted = (error <= 1) | self.spent
        self.nfe = self.nfe + len(B)
        error = error.clamp_min(1e-10)
        factor = _SAFETY * error**-_PROPORTIONAL * self._error.clamp_min(1e-4) ** _INTEGRAL
        factor = torch.where(self.accepted, factor.clamp(_SHRINKAGE, _GROWTH), factor.clamp(_SHRINKAGE, 1.0))
        # The next step starts at another σ: what is kept is its share of it, were it too small to change σ.
        left = 1 - torch.minimum(sigma, self._end) / torch.maximum(sigma, self._end)
        self._step = torch.where(far, self._step, factor * torch.minimum(step, left))
        self._stride = torch.where(far & ~self.accepted, factor * length.abs(), self._stride)
        self._error = torch.where(self.accepted, error, self._error)
        self.sigma = torch.where(self.accepted, reached, sigma)
        self._rounding = torch.where(self.accepted, rounding, self._rounding)
        taken = self._wide(self.accepted)
        self.x = torch.where(taken, x, self.x)
        self._mean = torch.where(taken, self.latest.mean.double(), self._mean)

    def _below(self, sigma: Tensor, step: Tensor, far: Tensor) -> Tensor:
        """The σ that a step down reaches: no less than the end."""
        reached = torch.where(far, (1 / sigma + self._stride).reciprocal(), sigma - step * sigma)
        return torch.maximum(reached, self._end)

    def _above(self, sigma: Tensor, step: Tensor, far: Tensor) -> Tensor:
        """The σ that a step up reaches, that from which as long a one down would come: no more than the end."""
        # Written as a maximum of τ: a step of 1/2S may take τ below 0, where no σ is.
        inverse = torch.where(far, 1 / sigma - self._stride, (1 - step) / sigma)
        return torch.where(inverse * self._end > 1, inverse.reciprocal(), self._end)

    def _ask(self, x: Tensor, sigma: Tensor, far: Tensor) -> Tensor:
        self.latest = self._evaluate(x, sigma)
        return self._slope(self.latest.mean.double(), x, sigma, far)

    def _slope(self, mean: Tensor, x: Tensor, sigma: Tensor, far: Tensor) -> Tensor:
        """du/dτ where `far`, dx/dσ elsewhere."""
        if far.all():
            return mean
        slope = (x - mean).div_(self._wide(sigma))
        return torch.where(self._wide(far), mean, slope) if far.any() else slope

    def _moved(self, slopes: list[Tensor], weights: Tensor, length: Tensor, sigma: Tensor, far: Tensor) -> Tensor:
        """x at σ, a combination of slopes away from where the rows are."""
        moved = _combined(slopes, weights).mul_(self._wide(torch.where(far, length * sigma, length)))
        return moved.addcmul_(self.x, self._wide(torch.where(far, sigma / self.sigma, 1.0)))

    def _size_at(self, x: Tensor) -> Tensor:
        return x.flatten(1).norm(dim=1) + self.latest.mean.double().flatten(1).norm(dim=1)

    def _rounding_at(self, x: Tensor, sigma: Tensor) -> Tensor:
        """ν, for the posterior evaluated last, (B,)."""
        share = _UNIT * (math.log2(x[0].numel()) + 8) if len(x) else 0.0
        return share * self._size_at(x) * (1 + self.latest.variance.double() / sigma.square())

    def _wide(self, values: Tensor) -> Tensor:
        return values.view(-1, *[1] * (self.x.ndim - 1))


def _combined(slopes: list[Tensor], weights: Tensor) -> Tensor:
    out = torch.zeros_like(slopes[0])
    for weight, slope in zip(weights.tolist(), slopes, strict=True):
        if weight:
            out.add_(slope, alpha=weight)
    return out
