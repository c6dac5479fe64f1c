"""Some windows of x against many of the data: by products, or by those alone that count.

By products. Logits are one matrix product in float64, [x/σ², 1/σ², −‖x‖²/2σ²] · [y, −‖y‖²/2, 1], of windows, or of
pixels and then summed over windows; off by some u (‖x‖² + ‖y‖²)/σ², u = 2⁻⁵³, about one number a channel.

By differences. The same product in float32 is off by no more than

    δ = (m + 9) u₃₂ ((‖x‖‖y‖ + ‖x‖²/2 + ‖y‖²/2)/σ² + |a|),    u₃₂ = 2⁻²⁴,

m the terms that a window's sum has at most and a the prior: m u₃₂ for the sum, in whatever order, the rest for the
rounding of what is multiplied and of the prior's addition. A pair whose product lies 60 nats + 2δ below the largest, or
60 nats + δ below a logit that has been met, has less than e⁻⁶⁰ of the weight of another; fewer than e²³ of them, 9e9 a
pixel, have together less than 2⁻⁵³ of it, and are left out. The logits of all others are sums of squared differences,
in which nothing cancels.

Windows are held against each other by differences where products are off by more than 1e-12 nats, which is at low
noise, and as long as few of them count: there is then neither a float64 product nor an exponential for the others.
"""

from __future__ import annotations

from functools import cached_property

import torch
from torch import Tensor

from .running import BITS, Running
from .unfolded import Source

__all__ = ["Matches", "Windows"]

_UNIT, _SINGLE = 2.0**-53, 2.0**-24
_DOUBT = 1e-12 * BITS
"""Error of products in float64, bits, from which on differences are taken."""
_NEAR = 60 * BITS
"""Bits below the leader within which they are."""
_COARSE = 30.0
"""Error of products in float32, bits, up to which they tell near from far; float64 does from there on."""
_MANY = 32
"""One in so many pairs by differences costs as much as all by products."""
_LEAST = 1e-6
"""Bits: more than numbers that float32 has no digits for add up to."""
_PAIRS = 2**17
"""Values of pairs whose differences are taken at once."""


class Windows:
    """Windows of some images, those of a place beside each other.

    Args:
        source: their values.
        answers: (C, M), the pixels in their middle, M = places x images.
        images: how many.
        prior: (images,) in bits, or None.
    """

    def __init__(self, source: Source, answers: Tensor, images: int, prior: Tensor | None):
        self.source, self.answers, self.images, self.prior = source, answers, images, prior

    @cached_property
    def largest_prior(self) -> float:
        """max |a|, bits."""
        return 0.0 if self.prior is None else float(self.prior.abs().amax())

    def logits(self, factors: Tensor, left_out: int | None) -> Tensor:
        """Of factors of x, with the prior in them, and −inf for an image: (P, places, images)."""
        each = self.source.products(factors).view(len(factors), -1, self.images)
        if self.prior is not None:
            each += self.prior.to(each.dtype)
        if left_out is not None:
            each[:, :, left_out] = -torch.inf
        return each


class Matches:
    """What windows of x have met so far.

    Args:
        seen: (P, S) float64, windows of x.
        multiplied: (P, ·), what of them is multiplied: themselves, or the pixels in their middle.
        sigma: the noise level.
        channels: of what is answered.
        energy: whether entropies are wanted.

    Attributes:
        sums: of the answers.
    """

    def __init__(self, seen: Tensor, multiplied: Tensor, sigma: float, channels: int, *, energy: bool):
        self.sums = Running(len(seen), channels, seen.device, energy=energy)
        self._seen, self._precision = seen, BITS / sigma**2
        self._halves = seen.square().sum(1).mul_(0.5)
        own = multiplied.square().sum(1, keepdim=True).mul_(-0.5)
        self._factors = torch.cat([multiplied, torch.ones_like(own), own], 1).mul_(self._precision)
        self._half = float(self._halves.amax())
        self._single, self._few = self._factors.float(), True

    def meet(self, windows: Windows, left_out: int | None) -> None:
        """Take up windows, without those of image number `left_out`."""
        if left_out is not None and windows.images == 1:
            return
        doubt = 4 * _UNIT * (self._half + windows.source.half) * self._precision > _DOUBT
        if self._few or doubt:
            pixel, window = self._near(windows, left_out)
            if doubt or len(pixel) * _MANY <= len(self._halves) * windows.answers.shape[1]:
                self._by_differences(windows, pixel, window)
                return
            self._few = False
        logits = windows.logits(self._factors, left_out).flatten(1)
        self.sums.add(logits, lambda weights: (windows.answers @ weights.T).T)

    def rough(self, windows: Windows, left_out: int | None) -> tuple[Tensor, Tensor]:
        """Logits, (P, places, images) in bits, and δ, (P,), a bound of their errors; in float32 where that will do."""
        half = windows.source.half
        size = (4 * self._halves * half).sqrt().add_(self._halves).add_(half).mul_(self._precision)
        error = size.add_(windows.largest_prior).mul_(windows.source.terms + 9)
        coarse = float(error.amax()) * _SINGLE <= _COARSE
        logits = windows.logits(self._single if coarse else self._factors, left_out)
        return logits, error.mul_(_SINGLE if coarse else _UNIT).add_(_LEAST)

    def _near(self, windows: Windows, left_out: int | None) -> tuple[Tensor, Tensor]:
        """The pairs within 60 nats of the leader, and some more: numbers of pixels and of windows."""
        each, error = self.rough(windows, left_out)
        # The best of a place, first: most places have none that is near.
        best = each.amax(2)
        least = torch.maximum(self.sums.top, best.amax(1) - error) - _NEAR - error
        pixel, place = (best >= least[:, None]).nonzero().unbind(1)
        some, image = (each[pixel, place] >= least[pixel, None]).nonzero().unbind(1)
        return pixel[some], place[some] * windows.images + image

    def _by_differences(self, windows: Windows, pixel: Tensor, window: Tensor) -> None:
        count = max(1, _PAIRS // self._seen.shape[1])
        for p, m in zip(pixel.split(count), window.split(count), strict=True):
            off = windows.source.picked(m).sub_(self._seen.index_select(0, p))
            logits = off.square_().sum(1).mul_(-0.5 * self._precision)
            if windows.prior is not None:
                logits += windows.prior[m % windows.images]
            self.sums.add_some(p, logits, windows.answers.index_select(1, m).T)
