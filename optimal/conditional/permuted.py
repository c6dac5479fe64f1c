"""Orbits under a few permutations of the values: every point is scanned once for each, with g⁻¹x in place of x.

A permutation keeps distances, ‖x − g y‖ = ‖g⁻¹x − y‖, so that the posterior over the images g y_j of all points under
one g is that of the data at g⁻¹x, moved by g. With P(g) the prior of the elements and p the density of the noisy data,

    D_G(x) = Σ_g P(g | x) g D(g⁻¹x),    P(g | x) ∝ P(g) p(g⁻¹x; σ),    p_G(x) = Σ_g P(g) p(g⁻¹x; σ)

    H_G = Σ_g P(g | x) (H(g⁻¹x) − log P(g | x)),    Cov_G = Σ_g P(g | x) [g Cov(g⁻¹x) g⁻¹ + m_g m_gᵀ],  m_g = g D − D_G

log p is large and its differences are small; they are taken of the leaders L_g, whose own posterior weight is known:
½(‖x − L_h‖² − ‖x − L_g‖²) = ⟨L_g − L_h, x − ½(L_g + L_h)⟩, which is 0 exactly where an image is a point itself.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Float, Int, Num
from torch import Tensor

from ..denoiser import OptimalDenoiser, Posterior
from ..evaluate.rivals import RivalEvaluator
from ..query import Levels, per_row, require_points
from ..randomness import fixed_generator
from .base import Orbit, unknown

__all__ = ["PermutedOrbit", "permutation_of"]

_PROBES = 8
"""Random points on which a transform must do, one by one, what it does to the places themselves: one that flips a coin
is found out in all but 1 of 256 tries."""


def permutation_of(transform: Callable[[Tensor], Tensor], event: tuple[int, ...], what: str) -> Int[Tensor, " D"]:
    """p with (g x)[i] = x[p[i]], (dim,) int64, of a transform of points (B, *event) that only moves their values.

    Args:
        transform: g.
        event: shape of a point.
        what: its name, for the message.

    Raises:
        ValueError: it does anything else.
    """
    dim = math.prod(event)
    places = torch.arange(dim, dtype=torch.float64, device="cpu")
    generator = fixed_generator("probes")
    probes = [
        places,
        *(torch.randn(dim, dtype=torch.float64, device="cpu", generator=generator) for _ in range(_PROBES)),
    ]
    moved = [transform(probe.reshape(1, *event)) for probe in probes]
    same = all(isinstance(out, Tensor) and out.shape == (1, *event) for out in moved)
    index = moved[0].flatten().long() if same else places.long()
    if (
        not same
        or not torch.equal(index.sort().values, places.long())
        or not all(torch.equal(out.flatten(), probe[index]) for out, probe in zip(moved, probes, strict=True))
    ):
        raise ValueError(
            f"{what} must only move the values of a point: one that interpolates, scales, looks at them or flips a "
            "coin does more, so give the transformed points themselves as data"
        )
    return index


class _Parts(NamedTuple):
    """Of the G elements with a weight: log P(g | x) (G, B), g D(g⁻¹x) (G, B, dim), leads (G, B), their posterior."""

    log_weights: Tensor
    means: Tensor
    leads: Tensor
    log_density: Tensor
    post: Posterior


class PermutedOrbit(Orbit):
    """The optimum of data with their images under a list of permutations; an `Orbit`.

    Args:
        D: the optimum of the data.
        tables: (|G|, dim) int64, the elements as `permutation_of` gives them.
        log_weights: (|G|,) float64, normalised; −inf leaves an element out.
    """

    def __init__(self, D: OptimalDenoiser, tables: Tensor, log_weights: Tensor):
        super().__init__(D, log_weights)
        device = D.points.device
        self._tables = tables.to(device)
        self._inverse = self._tables.argsort(1)
        self._kept = (log_weights > -torch.inf).nonzero().squeeze(1).to(device)

    def __repr__(self) -> str:
        return f"PermutedOrbit({self.D!r}, {len(self.log_weights)} elements)"

    def posterior(self, x: Num[Tensor, "B *event"], sigma: Levels) -> Posterior:
        parts = self._parts(x, sigma)
        post, shares, shape = parts.post, parts.log_weights.exp(), parts.log_weights.shape
        mean = (shares[..., None] * parts.means).sum(0)
        # One element after another: temporaries of all together would leave the cache.
        apart = torch.stack([(own - mean).square().sum(1) for own in parts.means])
        leads, top_weight = parts.leads.argmax(0), shares * post.top_weight.view(shape)
        index = self._kept.to(x.device)[:, None] * len(self.D) + post.top_index.view(shape)
        return Posterior(
            mean=mean.view(x.shape).to(x.dtype),
            log_density=parts.log_density,
            entropy=(shares * (post.entropy.view(shape) - parts.log_weights)).sum(0),
            top_index=index.gather(0, leads[None])[0],
            top_weight=top_weight.gather(0, leads[None])[0],
            variance=(shares * (post.variance.view(shape) + apart)).sum(0),
            error_bound=unknown(parts.log_density),
            error_estimate=unknown(parts.log_density),
            method=post.method,
        )

    def element_weights(self, x: Num[Tensor, "B *event"], sigma: Levels) -> Float[Tensor, "B G"]:
        shares = self._parts(x, sigma).log_weights.exp()
        out = shares.new_zeros(len(x), len(self.log_weights))
        return out.index_copy(1, self._kept.to(x.device), shares.T)

    def entropy_of_points(self, x: Num[Tensor, "B *event"], sigma: Levels) -> Float[Tensor, " B"]:
        sigmas = per_row("sigma", sigma, len(x), x.device)
        # `weights` asks for three numbers of each row, element and point.
        need = 24 * len(self._kept) * len(self.D)
        size = max(1, self.D.evaluator.accuracy.memory // need)
        parts = [self._over_points(x[rows], sigmas[rows]) for rows in torch.arange(len(x)).split(size)]
        weights = [-torch.special.xlogy(part, part).sum(1) for part in parts]
        return torch.cat(weights) if weights else sigmas

    def weights(self, x: Num[Tensor, "B *event"], sigma: Levels) -> Float[Tensor, "B K"]:
        """The posterior probability of every image, (B, |G| N), in the order of their numbers.

        Raises:
            ValueError: the result would not fit the memory budget.
        """
        weights = self._weighted(x, sigma)
        out = weights.new_zeros(len(x), len(self.log_weights), len(self.D))
        return out.index_copy(1, self._kept.to(x.device), weights.transpose(0, 1)).flatten(1).to(x.dtype)

    def covariance_product(self, x: Num[Tensor, "B *event"], sigma: Levels, v: Tensor) -> Float[Tensor, "B *event"]:
        """Cov[x0 | x]·v, (B, *event), over all images; over σ² it is the Jacobian of E[x0 | x] times v."""
        if v.shape != x.shape:
            raise ValueError(f"v must have the shape of x, {tuple(x.shape)}, got {tuple(v.shape)}")
        parts, sigmas = self._parts(x.detach(), sigma), per_row("sigma", sigma, len(x), x.device)
        shares = parts.log_weights.exp()[..., None]
        count = len(self._kept)
        within = self.D.covariance_product(self._asked(x.detach()), sigmas.repeat(count), self._asked(v.to(x)))
        away = parts.means - (shares * parts.means).sum(0)
        between = away * (away * v.flatten(1).double()).sum(2, keepdim=True)
        return (shares * (self._images(within) + between)).sum(0).view(x.shape).to(x.dtype)

    def nearest(self, x: Num[Tensor, "B *event"]) -> Int[Tensor, " B"]:
        require_points(x, self.event)
        found = self.D.nearest(self._asked(x.detach()))
        tops = self._images(self.D.take(found))
        first = _leads(tops, tops[0], x.detach().flatten(1).double()).argmax(0)
        index = self._kept.to(x.device)[:, None] * len(self.D) + found.view(len(self._kept), len(x))
        return index.gather(0, first[None])[0]

    def two_nearest(self, x: Num[Tensor, "B *event"]) -> tuple[Float[Tensor, " B"], Float[Tensor, " B"]]:
        """Distances from x to the nearest and the second nearest of the distinct images, (B,) float64 each.

        The second is inf where there is one distinct image.
        """
        require_points(x, self.event)
        index, distance = self.D.neighbours(self._asked(x.detach()), 2)
        images = torch.cat([self._images(self.D.take(column.clamp_min(0)).to(x.device)) for column in index.unbind(1)])
        distances = distance.T.reshape(len(images), len(x))
        first = distances.argmin(0)[None]
        same = (images == images.gather(0, first[..., None].expand(1, *images.shape[1:]))).all(2)
        return distances.gather(0, first)[0], distances.masked_fill(same, torch.inf).amin(0)

    @property
    def mean(self) -> Float[Tensor, " *event"]:
        images = self._images(self.D.mean.expand(len(self._kept), *self.event))[:, 0]
        return (self.log_weights[self._kept.cpu()].exp().to(images)[:, None] * images).sum(0).view(self.event)

    def _moved(self, rows: Tensor, element: Tensor) -> Tensor:
        tables = self._tables.to(rows.device)[element.to(rows.device)]
        return rows.flatten(1).gather(1, tables).view(rows.shape)

    def _asked(self, x: Tensor) -> Tensor:
        """g⁻¹x of every element that has a weight, one element after another, (G·B, *event)."""
        inverse = self._inverse[self._kept].to(x.device)
        return x.flatten(1)[:, inverse].transpose(0, 1).reshape(-1, *self.event)

    def _images(self, rows: Tensor) -> Tensor:
        """g y in float64, (G, B, dim), of rows y as `_asked` has them, (G·B, *event)."""
        tables = self._tables[self._kept].to(rows.device)
        wide = rows.reshape(len(tables), -1, tables.shape[1]).double()
        return wide.gather(2, tables[:, None].expand_as(wide))

    def _parts(self, x: Tensor, sigma: Levels) -> _Parts:
        require_points(x, self.event)
        sigmas = per_row("sigma", sigma, len(x), x.device, graph=True)
        prior = self.log_weights.to(x.device)[self._kept.to(x.device)][:, None]
        post = self._rivals(prior[:, 0], len(x)).posterior(self._asked(x), sigmas.repeat(len(self._kept)))
        density = prior + post.log_density.view(len(prior), len(x))
        tops = self._images(self.D.take(post.top_index).to(x.device))
        best = density.detach().argmax(0)[None]
        pivot = tops.gather(0, best[..., None].expand(1, *tops.shape[1:]))[0]
        leads = prior + _leads(tops, pivot, x.flatten(1).double()) / sigmas.square()
        if self.points.prior is not None:
            leads = leads + self.points.log_weight(self.points.inner(post.top_index)).view(density.shape)
        logits = leads - post.top_weight.view(density.shape).log()
        total = logits.logsumexp(0)
        log_density = (density.gather(0, best) - logits.gather(0, best))[0] + total
        return _Parts(logits - total, self._images(post.mean), leads, log_density, post)

    def _rivals(self, log_weights: Tensor, count: int) -> OptimalDenoiser:
        """D, asked at g⁻¹x for the elements together: what has no share in P(g | x) costs no more than to see that."""
        if self.points.shared:
            return self.D
        out = copy.copy(self.D)
        out.evaluator = RivalEvaluator(self.points, self.D.evaluator.accuracy, log_weights, count)
        return out

    def _weighted(self, x: Tensor, sigma: Levels) -> Tensor:
        """p(j, g | x), (G, B, N) float64, of the elements that have a weight."""
        sigmas = per_row("sigma", sigma, len(x), x.device)
        shares = self._parts(x.detach(), sigmas).log_weights.exp()
        weights = self.D.weights(self._asked(x.detach()), sigmas.repeat(len(shares))).double()
        return shares[..., None] * weights.view(*shares.shape, -1)

    def _over_points(self, x: Tensor, sigmas: Tensor) -> Tensor:
        """p(j | x), (B, N) float64."""
        return self._weighted(x, sigmas).sum(0)


def _leads(tops: Tensor, pivot: Tensor, z: Tensor) -> Tensor:
    """½(‖z − pivot‖² − ‖z − tops‖²), (G, B), of tops (G, B, dim), pivot and z (B, dim), all float64."""
    return torch.stack([((top - pivot) * (z - (top + pivot) / 2)).sum(1) for top in tops])
