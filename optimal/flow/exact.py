"""The flow map without a grid: the flow is integrated with steps of each row's own until its end is certain.

A row ends in one of four ways:

- the certificate of `optimal.capture` holds for the state that the integration has reached: the row is captured;
- it is on a border. Next to one, a distance from it grows, in units of σ, by exp ∫ (λ/σ² − 1) dlnσ, λ the largest
  eigenvalue of Cov[x0 | x]. Where the posterior is still split among points so far apart that this is over e^1000, only
  a row that is on the border to all digits can be;
- σ is so low that float64 does not tell the state from those that end elsewhere: what is left are points closer
  together than that;
- it took more calls than any row should: a warning says how many did.

The last three are `captured` at 0 and go to the leader of the posterior, the nearest data point.

Many rows over few points are followed in coordinates of the points' span, in which the flow is the same. Rounding has
moved the points there, by some 1e-15 of their size: so the certificate is asked again, of the data themselves, and a
row for which it does not hold there goes on over the data.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..denoiser import Denoiser, OptimalDenoiser, Posterior
from ..query import Levels
from ..query import levels as checked_levels
from ..span import few_points
from .adaptive import AdaptiveFlow
from .certificate import certify
from .landing import Called, Landing

__all__ = ["TOLERANCE", "ExactFlow"]

TOLERANCE = 1e-4
"""Of a step, in units of σ, unless another is asked for."""
_SPREAD = 4.0
"""The certificate is tried once tr Cov[x0 | x] is at most so many σ²: hardly a row tried was certain above."""
_BLEND = 64.0
"""And no more than so many points share in the posterior, or it has lost half of the variance of the data: before, far
from the data, it blends all of them, and every try takes as long as many denoiser calls. 6.5 was the most at which one
held, of 512 rows each on digits, emoji and five deltas; many copies of one point share without being far."""
_LEADS, _NARROW = 0.5, 0.5
"""And the leader has half of the weight, or tr Cov[x0 | x] is at most half of σ², as where copies share it. Of 2,800
rows on digits, emoji, faces and five deltas, none was certain at less than 0.52; every second try was made there."""
_FINE = 2.0**-20
"""Of the size of x, the σ below which it is tried at every step: the variance, a difference of squares, may be off."""
_SPLIT = 4096.0
"""Of λ/σ²: a row at which it is more, after σ has fallen to a quarter, is on a border to all digits."""
_RESOLVED = 2.0**-41
"""Of the size of x, the σ below which its rounding, 2⁻⁵³ of its size, is no longer small."""
_CANCELLED = 2.0**-48
"""Of the square of the mean's size, the rounding of the variance, a difference of squares."""
_MOST = 400
"""Denoiser calls of a row at the default tolerance; 60 are usual, 200 close to a border,
and 250 between near copies of one or two values (tests/test_odd_data.py)."""
_SINGLE = 1e-5
"""Relative error of a mean in float32."""
_MANY = 32
"""Rows from which on few points are taken in coordinates of their span: their axes take as long as about so many."""
_ROWS_IN_FLIGHT = 12
"""Float64 copies of a row that an adaptive step holds."""


@dataclass(frozen=True)
class _Ends:
    """Where rows stopped: (B,) each, x (B, *event) float64; `captured` and `spent` are bool."""

    x: Tensor
    sigma: Tensor
    index: Tensor
    nfe: Tensor
    captured: Tensor
    spent: Tensor


class ExactFlow:
    """The continuous flow of an `OptimalDenoiser`; a `Way`.

    Args:
        D: the denoiser.
        tolerance: local error of a step, Euclidean, in units of σ.

    Raises:
        ValueError: another denoiser, a tolerance out of range.
    """

    def __init__(self, D: Denoiser, tolerance: float):
        if not isinstance(D, OptimalDenoiser):
            raise ValueError(
                f"the flow without a grid ends on a data point, so D must be an OptimalDenoiser, got "
                f"{type(D).__name__}: give sigmas="
            )
        if not 1e-10 <= tolerance <= 0.1:
            raise ValueError(f"tolerance must lie between 1e-10 and 0.1, got {tolerance:g}")
        self.D, self.tolerance = D, tolerance
        self._spread = D.points.spread
        self._most = math.ceil(_MOST * max(1.0, (TOLERANCE / tolerance) ** 0.2))

    def levels(self, x: Tensor, sigma: Levels) -> Tensor:
        return checked_levels(sigma, len(x), x.device, zero=True)

    def ends(self, sigma_end: Levels, x: Tensor, levels: Tensor) -> Tensor:
        ends = checked_levels(sigma_end, len(x), x.device, zero=True, name="sigma_end")
        bare = (levels == 0) & (ends > 0)
        if bare.any():
            raise ValueError(
                f"the way up starts above sigma 0, where all of a basin is one point, got sigma 0 and sigma_end "
                f"{float(ends[bare][0]):g}: x0 + sigma z is a start at a low sigma"
            )
        return ends

    def jump(self, x: Tensor, levels: Tensor) -> Tensor:
        return self.land(x, levels, lambda: None).x

    def land(self, x: Tensor, levels: Tensor, called: Called) -> Landing:
        D, x = self.D, x.detach()
        index = torch.zeros(len(x), dtype=torch.int64, device=x.device)
        nfe, captured = torch.zeros_like(index), torch.full_like(levels, torch.nan)
        landed, spent = x.clone(), torch.zeros_like(index)
        still = levels == 0
        if still.any():
            index[still] = D.nearest(x[still])
        moving = (~still).nonzero().squeeze(1)
        few = few_points(D) if len(moving) >= _MANY else None
        for rows in self._parts(moving):
            start, sigma, single = x[rows].double(), levels[rows], x.dtype != torch.float64
            if few is not None:
                ends = self._followed(few.denoiser, few.reduced(start), sigma, single, called)
                nfe[rows], ends_on = ends.nfe, D.points.outer(ends.index)
                start, sigma = few.expanded(ends.x).view(-1, *D.event), ends.sigma
                sure = ends.captured.clone()
                if sure.any():
                    sure[ends.captured] = certify(D, start[sure], sigma[sure], ends_on[sure]).holds
                index[rows], captured[rows] = ends_on, sigma
                rows, start, sigma = rows[~sure], start[~sure], sigma[~sure]
            if len(rows):
                ends = self._followed(D, start, sigma, single, called)
                nfe[rows] += ends.nfe
                index[rows], captured[rows] = ends.index, torch.where(ends.captured, ends.sigma, 0.0)
                spent[rows] = ends.spent.long()
        landed[moving] = D.take(index[moving]).to(x)
        self._tell(int(spent.sum()), len(x), "they went to the data point that led, captured at 0")
        return Landing(landed, index, nfe, captured)

    def flow(self, x: Tensor, levels: Tensor, ends: Tensor) -> Tensor:
        out = x.detach().clone()
        landing, moving = ends == 0, (ends > 0) & (ends != levels)
        if landing.any():
            out[landing] = self.jump(x[landing], levels[landing])
        spent = 0
        for rows in self._parts(moving.nonzero().squeeze(1)):
            posterior = self._posterior(self.D, x.dtype != torch.float64, lambda: None)
            flow = self._adaptive(posterior, x[rows].detach(), levels[rows], ends[rows])
            while len(flow):
                flow.advance()
                done = flow.sigma == ends[rows[flow.rows]]
                out[rows[flow.rows[done]]] = flow.x[done].to(x.dtype)
                spent += int(flow.spent[done].sum())
                flow.keep(~done)
        self._tell(spent, len(x), "the rest of their way was taken in steps of any error")
        return out

    def _followed(self, D: OptimalDenoiser, x: Tensor, levels: Tensor, single: bool, called: Called) -> _Ends:
        """The rows of x, (B, *D.event) float64, followed from `levels`, each to one of the ends listed above."""
        posterior, ends = self._posterior(D, single, called), torch.zeros_like(levels)
        flow = self._adaptive(posterior, x, levels, ends)
        out = _Ends(
            x=x.clone(),
            sigma=levels.clone(),
            index=torch.zeros_like(flow.rows),
            nfe=torch.zeros_like(flow.rows),
            captured=torch.zeros_like(flow.accepted),
            spent=torch.zeros_like(flow.accepted),
        )
        blended = D.points.spread**2 / 2
        while len(flow):
            post = flow.latest
            square, size = flow.sigma.square(), flow.size()
            variance = post.variance.double() - _CANCELLED * size.square()
            captured = torch.zeros_like(flow.accepted)
            near = (post.effective_count <= _BLEND) | (variance <= blended)
            led = (variance <= _SPREAD * square) & ((post.top_weight >= _LEADS) | (variance <= _NARROW * square))
            ready = flow.accepted & ((near & led) | (flow.sigma <= _FINE * size))
            if ready.any():
                captured[ready] = certify(D, flow.x[ready], flow.sigma[ready], post.top_index[ready]).holds
            split = (variance > _SPLIT * post.effective_count * square) & (flow.sigma <= levels[flow.rows] / 4)
            ended = captured | (flow.accepted & (split | (flow.sigma < _RESOLVED * size) | flow.spent))
            at = flow.rows[ended]
            out.x[at], out.sigma[at], out.nfe[at] = flow.x[ended], flow.sigma[ended], flow.nfe[ended]
            out.index[at], out.captured[at] = post.top_index[ended], captured[ended]
            out.spent[at] = flow.spent[ended] & ~captured[ended]
            flow.keep(~ended)
            if len(flow):
                flow.advance()
        return out

    def _adaptive(
        self, posterior: Callable[[Tensor, Tensor], Posterior], x: Tensor, levels: Tensor, ends: Tensor
    ) -> AdaptiveFlow:
        return AdaptiveFlow(posterior, x, levels, ends, self.tolerance, self._spread, self._most)

    def _posterior(self, D: OptimalDenoiser, single: bool, called: Called) -> Callable[[Tensor, Tensor], Posterior]:
        """D's posterior, in float32 where `single` allows it and it is far below the tolerance, else in float64.

        A mean far above the data is a slope all the way down to them: off by e there, x is by as much at σ = S. So
        float32 must do for S too, or it is not used.
        """
        precise = _SINGLE * D.points.largest_norm / self.tolerance if single else math.inf
        if precise > self._spread:
            precise = math.inf

        def posterior(x: Tensor, sigma: Tensor) -> Posterior:
            called()
            coarse = sigma >= precise
            if not coarse.any():
                return D.posterior(x, sigma)
            if coarse.all():
                return D.posterior(x.float(), sigma)
            parts = D.posterior(x[coarse].float(), sigma[coarse]), D.posterior(x[~coarse], sigma[~coarse])
            return _interleaved(coarse, *parts)

        return posterior

    def _parts(self, rows: Tensor) -> Sequence[Tensor]:
        """Rows in groups whose states fit D's budget."""
        size = max(1, self.D.evaluator.accuracy.memory // (8 * _ROWS_IN_FLIGHT * self.D.points.dim))
        return rows.split(size) if len(rows) else ()

    def _tell(self, spent: int, batch: int, consequence: str) -> None:
        if spent:
            warnings.warn(
                f"{spent} of {batch} rows were not decided within {self._most} denoiser calls; {consequence}",
                RuntimeWarning,
                stacklevel=4,
            )


def _interleaved(first: Tensor, a: Posterior, b: Posterior) -> Posterior:
    """a where `first`, (B,) bool, b elsewhere; float64."""
    fields: dict[str, Any] = {"method": b.method}
    for name, part in vars(a).items():
        if name in fields:
            continue
        other = getattr(b, name)
        whole = part.new_empty(len(first), *part.shape[1:], dtype=other.dtype)
        whole[first], whole[~first] = part.to(other.dtype), other
        fields[name] = whole
    return Posterior(**fields)
