"""The orbit under all cyclic shifts, H·W of them, by the Fourier transform: one pass over the data.

‖x − g_s y‖² = ‖x‖² + ‖y‖² − 2 ⟨x, g_s y⟩, and ⟨x, g_s y⟩ = Σ_p x[p + s] y[p] is the cross-correlation of x and y, of
which the transforms of the two give all shifts s at once. So are the sums Σ_j Σ_s w_js g_s y_j, convolutions of the
weights with the points: they are added up in the transform, and turned back once.

All of it is in float64, about the mean of each channel, which no shift changes. The logits are then off by some 1e-16
log(H·W) ‖x‖ ‖y‖/σ² nats (measured on digits: 1.5e-15 ‖x‖ ‖y‖/σ² at the most), so that the answers are not exact to
all digits at a σ far below the data, where two images are as near to x as that.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from jaxtyping import Float, Int, Num
from torch import Tensor

from ..denoiser import OptimalDenoiser, Posterior
from ..evaluate.moments import Moments
from ..query import Levels, levels, require_points
from .base import Orbit, unknown

__all__ = ["ShiftOrbit"]

_AT_ONCE = 2**20
"""Logits of a block, of all of its queries, points and shifts: 8 MB."""
_QUERIES = 16
"""That pass over the data together: the transforms of a block serve all of them."""
_ROUNDING = 16 * 2.0**-53
"""Of a difference of squares, relative to either."""
_LEAST = -745.0
"""Exponents below are 0 in float64."""


class _Sums(NamedTuple):
    """Of B queries: (B, *event) mean, (B, HW) elements, (B,) the rest, float64."""

    mean: Tensor
    elements: Tensor
    total: Tensor
    entropy: Tensor
    entropy_of_points: Tensor
    variance: Tensor
    leader: Tensor


class ShiftOrbit(Orbit):
    """The optimum of images with all of their cyclic shifts; an `Orbit`. No gradients flow through it.

    Element s = a W + b moves an image down by a and right by b, as `torch.roll(y, (a, b), (-2, -1))` does.

    Args:
        D: the optimum of images (C, H, W).
        log_weights: (H·W,) float64, normalised; −inf leaves a shift out.
    """

    def __init__(self, D: OptimalDenoiser, log_weights: Tensor):
        super().__init__(D, log_weights)
        self._centre = D.mean.mean((1, 2), keepdim=True)

    def __repr__(self) -> str:
        return f"ShiftOrbit({self.D!r})"

    def posterior(self, x: Num[Tensor, "B *event"], sigma: Levels) -> Posterior:
        sums, sigmas = self._sums(x, sigma), levels(sigma, len(x), x.device)
        leader = self.take(sums.leader).to(x.device).double()
        away = (x.detach().double() - leader).flatten(1).square().sum(1) / (2 * sigmas.square())
        prior = self.log_weights.to(x.device)[sums.leader // len(self.D)]
        prior += self.points.log_weight(self.points.inner(sums.leader % len(self.D)))
        normaliser = self.points.dim * (0.5 * math.log(2 * math.pi) + sigmas.log())
        return Posterior(
            mean=sums.mean.to(x.dtype),
            log_density=sums.total.log() - away + prior - normaliser,
            entropy=sums.entropy,
            top_index=sums.leader,
            top_weight=1 / sums.total,
            variance=sums.variance,
            error_bound=unknown(sums.total),
            error_estimate=unknown(sums.total),
            method="fourier",
        )

    def element_weights(self, x: Num[Tensor, "B *event"], sigma: Levels) -> Float[Tensor, "B G"]:
        return self._sums(x, sigma).elements

    def entropy_of_points(self, x: Num[Tensor, "B *event"], sigma: Levels) -> Float[Tensor, " B"]:
        return self._sums(x, sigma).entropy_of_points

    def nearest(self, x: Num[Tensor, "B *event"]) -> Int[Tensor, " B"]:
        even = torch.where(self.log_weights > -torch.inf, 0.0, -torch.inf)
        # Under no prior, neither over shifts nor over points, the nearest leads.
        own = self.D.log_weights
        alike = self.D if self.points.prior is None else self.D.weighted(torch.where(own > -torch.inf, -own, 0.0))
        return ShiftOrbit(alike, even).posterior(x, self.D.standard_deviation or 1.0).top_index

    @property
    def mean(self) -> Float[Tensor, " *event"]:
        shares = self.log_weights.exp().to(self.points.device).view(self.event[1:])
        spectrum = torch.fft.rfft2(shares) * torch.fft.rfft2(self.D.mean)
        return torch.fft.irfft2(spectrum, s=self.event[1:])

    def _moved(self, rows: Tensor, element: Tensor) -> Tensor:
        height, width = self.event[1:]
        down, right = (element // width).to(rows.device), (element % width).to(rows.device)
        y = (torch.arange(height, device=rows.device) - down[:, None]) % height
        x = (torch.arange(width, device=rows.device) - right[:, None]) % width
        places = (y[:, :, None] * width + x[:, None, :]).flatten(1)[:, None].expand(-1, self.event[0], -1)
        return rows.flatten(2).gather(2, places).view(rows.shape)

    def _sums(self, x: Tensor, sigma: Levels) -> _Sums:
        require_points(x, self.event)
        sigmas = levels(sigma, len(x), x.device)
        self.D.query(x.detach(), sigmas)
        self.points.whole()
        parts = [self._part(x.detach()[rows], sigmas[rows]) for rows in _split(len(x))]
        if not parts:
            none = torch.zeros_like(sigmas)
            elements = none.new_zeros(0, len(self.log_weights))
            return _Sums(x.double(), elements, none, none, none, none, none.long())
        return _Sums(*(torch.cat(column) for column in zip(*parts, strict=True)))

    def _part(self, x: Tensor, sigmas: Tensor) -> _Sums:
        points, (_, height, width) = self.points, self.event
        places, batch, unit = height * width, len(x), points.unit
        centre, square = self._centre.to(x.device), (sigmas / unit).square()[:, None, None]
        asked = torch.fft.rfft2((x.double() - centre) / unit).flatten(2)
        prior = self.log_weights.to(x.device)
        numbers = asked[0].numel()
        # The transform of the mean and the shares of the shifts are one vector of sums.
        sums = Moments(batch, 2 * numbers + places, x.device)
        over_points = Moments(batch, 0, x.device)
        rows = max(1, min(_AT_ONCE // (places * max(batch, 1)), points.block_rows(batch)))
        for start, block in points.blocks(rows, x.device):
            y = (points.restored(block) - centre) / unit
            squares = y.flatten(1).square().sum(1)
            spectrum = torch.fft.rfft2(y).flatten(2)
            products = torch.einsum("bcf,ncf->bnf", asked, spectrum.conj())
            inner = torch.fft.irfft2(products.unflatten(2, (height, -1)), s=(height, width)).flatten(2)
            own = slice(start, start + len(block))
            logits = (inner - squares[:, None] / 2) / square + prior
            if points.log_weights is not None:
                logits += points.log_weights[own, None].to(logits)
            top, index = logits.flatten(1).max(1)
            logits -= top[:, None, None]
            weights = logits.exp()
            of_points = weights.sum(2)
            found = {"top": top, "total": of_points.sum(1), "square": of_points @ squares}
            moved = torch.fft.rfft2(weights.unflatten(2, (height, width))).flatten(2)
            mean = torch.view_as_real(torch.einsum("bnf,ncf->bcf", moved, spectrum)).flatten(1)
            sums.merge(
                None,
                energy=logits.clamp_(min=_LEAST).mul_(weights).sum((1, 2)),
                mean=torch.cat([mean, weights.sum(1)], 1),
                index=(index % places) * len(self.D) + points.outer(start + index // places),
                **found,
            )
            energy = torch.special.xlogy(of_points, of_points).sum(1)
            over_points.merge(None, energy=energy, mean=of_points[:, :0], index=index, **found)
        average, total = sums.average, sums.total
        half = torch.view_as_complex(average[:, : 2 * numbers].contiguous().unflatten(1, (-1, 2)))
        mean = torch.fft.irfft2(half.view(batch, -1, height, width // 2 + 1), s=(height, width))
        spread = sums.square / total
        variance = spread - mean.flatten(1).square().sum(1)
        return _Sums(
            mean * unit + centre,
            average[:, 2 * numbers :],
            total,
            (total.log() - sums.energy / total).clamp_min(0),
            (total.log() - over_points.energy / total).clamp_min(0),
            torch.where(variance > _ROUNDING * spread, variance, 0.0) * unit**2,
            sums.index,
        )


def _split(rows: int) -> list[slice]:
    return [slice(start, start + _QUERIES) for start in range(0, rows, _QUERIES)]
