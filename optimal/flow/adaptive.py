"""The probability-flow ODE with a step of its own for every row: Dormand–Prince 5(4) in σ.

    dx/dσ = (x − D(x, σ))/σ                                                                    (Eq. 25)

is integrated in σ, where it is exact as soon as D stands still: the slope is then constant along the line through D.
The local error of a step to σ', as the embedded fourth-order formula estimates it, is kept below tolerance·σ' in the
Euclidean norm of the whole event. σ is the unit that matters: a displacement e moves the log-odds of two points that
are A noise levels apart by at most A·‖e‖/σ. Every row has its own σ and its own step, so that one row near a decision
costs the others nothing; a batch shrinks as its rows are done.

No step is held to less than what rounding does to x and D at it,

    ν = u (log₂ D + 8) (‖x‖ + ‖D‖) (1 + tr Cov[x0 | x]/σ²),    u = 2⁻⁵³:

a logit's error, u (log₂ D + 8) (‖x‖ + ‖y‖) ‖y − D‖/σ² once it is taken by differences, moves D by ‖y − D‖ times that.
It is estimated, not proven: where D errs by more, steps shrink to nothing, and `spent` ends them.

Steps follow a proportional-integral controller (Gustafsson 1991). Without the integral part, half of the steps would be
rejected here: the error of steps of equal ratio grows all the way down to the decision.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from scipy.integrate import RK45
from torch import Tensor

from ..denoiser import Posterior

__all__ = ["AdaptiveFlow"]

_A, _B, _C, _E = (torch.from_numpy(part.copy()) for part in (RK45.A, RK45.B, RK45.C, RK45.E))
"""The tableau of Dormand and Prince 1980, as scipy has it; its last stage is the first one of the next step."""
_ORDER = 5
_SAFETY, _PROPORTIONAL, _INTEGRAL = 0.9, 0.7 / _ORDER, 0.4 / _ORDER
_GROWTH, _SHRINKAGE = 2.0, 0.2
_LONGEST, _LONGEST_STILL = 0.5, 0.9
"""Longest step, in units of σ; and where D stands still, as below a decision among all but close points. Longer ones
elsewhere cost more calls than they save: they see the next decision too late, and are rejected."""
_STILL = 1e-8
"""Share of the error allowed in the last step, below which D stands still."""
_UNIT = 2.0**-53


class AdaptiveFlow:
    """Rows on their way down the flow; `advance` tries one step of each, `keep` drops those that are done.

    Args:
        evaluate: (x, sigma (B,)) -> posterior.
        x: (B, *event).
        sigma: (B,) float64, > 0.
        end: (B,) float64, where to stop, 0 <= end <= sigma; 0 is approached, never reached.
        tolerance: local error of a step, in units of σ.
        most: (B,) denoiser calls of a row after which its steps are taken whatever their error.

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
        most: Tensor,
    ):
        self._evaluate, self._tolerance, self._most = evaluate, tolerance, most
        self.x, self.sigma, self._end = x.double(), sigma, end
        self.rows = torch.arange(len(x), device=x.device)
        self.nfe = torch.ones_like(self.rows)
        self.accepted = torch.ones_like(sigma, dtype=torch.bool)
        self._step, self._error = _LONGEST * sigma, torch.ones_like(sigma)
        self.latest = evaluate(self.x, sigma)
        self._slope = self._slope_at(self.latest, self.x, sigma)
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
            "_slope",
            "_rounding",
            "_most",
        ):
            setattr(self, name, getattr(self, name)[mask])

    def advance(self) -> None:
        """Try one step of every row: six denoiser calls, whether it is taken or not."""
        most = torch.where(self._error <= _STILL, _LONGEST_STILL, _LONGEST)
        longest = torch.minimum(self._step, most * self.sigma)
        last = longest >= self.sigma - self._end
        step = torch.where(last, self.sigma - self._end, longest)
        slopes = [self._slope]
        for a, c in zip(_A[1:], _C[1:].tolist(), strict=True):
            slopes.append(self._stage(step, slopes, a[: len(slopes)], self.sigma - c * step)[1])
        sigma = torch.where(last, self._end, self.sigma - step)
        x, slope = self._stage(step, slopes, _B, sigma)
        slopes.append(slope)
        rounding = self._rounding_at(x, sigma)
        allowed = torch.maximum(self._tolerance * sigma, torch.maximum(rounding, self._rounding))
        error = self._combined(step, slopes, _E).flatten(1).norm(dim=1) / allowed
        self.accepted = (error <= 1) | self.spent
        self.nfe = self.nfe + len(_B)
        error = error.clamp_min(1e-10)
        factor = _SAFETY * error**-_PROPORTIONAL * self._error.clamp_min(1e-4) ** _INTEGRAL
        factor = factor.clamp(_SHRINKAGE, _GROWTH)
        # The next step starts at a smaller σ: what is kept is the ratio.
        self._step = step * torch.where(self.accepted, factor * sigma / self.sigma, factor.clamp_max(1.0))
        self._error = torch.where(self.accepted, error, self._error)
        self.sigma = torch.where(self.accepted, sigma, self.sigma)
        self._rounding = torch.where(self.accepted, rounding, self._rounding)
        taken = self._wide(self.accepted)
        self.x, self._slope = torch.where(taken, x, self.x), torch.where(taken, slope, self._slope)

    def _stage(self, step: Tensor, slopes: list[Tensor], weights: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
        x = self.x - self._combined(step, slopes, weights)
        self.latest = self._evaluate(x, sigma)
        return x, self._slope_at(self.latest, x, sigma)

    def _combined(self, step: Tensor, slopes: list[Tensor], weights: Tensor) -> Tensor:
        out = torch.zeros_like(self.x)
        for weight, slope in zip(weights.tolist(), slopes, strict=True):
            if weight:
                out.add_(slope, alpha=weight)
        return out.mul_(self._wide(step))

    def _slope_at(self, posterior: Posterior, x: Tensor, sigma: Tensor) -> Tensor:
        return (x - posterior.mean.double()).div_(self._wide(sigma))

    def _size_at(self, x: Tensor) -> Tensor:
        return x.flatten(1).norm(dim=1) + self.latest.mean.double().flatten(1).norm(dim=1)

    def _rounding_at(self, x: Tensor, sigma: Tensor) -> Tensor:
        """ν, for the posterior evaluated last, (B,)."""
        share = _UNIT * (math.log2(x[0].numel()) + 8) if len(x) else 0.0
        return share * self._size_at(x) * (1 + self.latest.variance.double() / sigma.square())

    def _wide(self, values: Tensor) -> Tensor:
        return values.view(-1, *[1] * (self.x.ndim - 1))
